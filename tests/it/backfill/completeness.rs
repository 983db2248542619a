//! `convoke completeness`: what it says and its exit status, before and after a backfill.

use super::scene::{Scene, at, lost, now};
use crate::support::process::Finished;

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_was_lost_differs_until_backfill_has_filled_it() {
    let scene = Scene::with(lost(6, 2)).await;
    let run = async |arguments: &[&str]| -> Finished {
        arguments
            .iter()
            .fold(scene.builder().arg("completeness"), |builder, argument| builder.arg(argument))
            .run()
            .await
    };
    let since = scene.since();
    let differs = run(&["--since", &since]).await;
    assert_eq!(differs.code(), 1, "{}", differs.stderr);
    assert!(differs.stdout.contains("DIFFERS: history has 6 meetings that are not here"), "{}", differs.stdout);
    let young = run(&["--since", &at(now()).to_string(), "--until", &at(now()).to_string()]).await;
    assert_eq!(young.code(), 2, "{}", young.stdout);
    assert!(young.stderr.contains("no day was compared"), "{}", young.stderr);
    scene.backfill().await;
    let complete = run(&["--since", &since, "--json"]).await;
    assert_eq!(complete.code(), 0, "{}{}", complete.stdout, complete.stderr);
    let report: serde_json::Value = serde_json::from_str(&complete.stdout).expect("JSON");
    assert_eq!((&report["source"], &report["differing"]), (&"statistics".into(), &0.into()), "{report:#}");
    assert_eq!(scene.platform.tokens(), 0, "every command returned its token");
}
