//! Each bad input has a sentence for the user.

use convoke_simulator::platform::Run;
use serde_json::json;

use super::scene::{HOUR, Scene, at, lost, now, options};

#[tokio::test(flavor = "multi_thread")]
async fn a_window_with_no_meeting_is_looked_at_and_nothing_is_wrong() {
    let scene = Scene::new(options()).await;
    let report = scene.report(&scene.around_the_lost().each_ref().map(String::as_str)).await;
    assert_eq!((&report["runs"], &report["filled"]["meeting.end"]), (&json!(0), &json!(0)));
    assert_eq!(scene.calls(), [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_which_nothing_can_be_known_is_refused_with_what_to_write() {
    let scene = Scene::new(options()).await;
    let ago = |hours: i64| at(now() - hours * HOUR).to_string();
    let refusals: [(&[&str], &str); 6] = [
        (&["--since", &ago(185 * 24)], "keeps its history for 184 days, unless its administrator"),
        (&["--since", &ago(300 * 24), "--history", "200d"], "keeps its history for 200 days"),
        (&["--since", &ago(300 * 24), "--history", "500d"], "12 months at most"),
        (&["--since", &ago(24)], "may still push events of that time"),
        (&["--since", &ago(72), "--until", &ago(80)], "is before --since"),
        (&[], "--since"),
    ];
    for (arguments, words) in refusals {
        let refused = scene.run(arguments).await;
        assert_eq!(refused.code(), 2, "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(words), "{arguments:?}: {}", refused.stderr);
    }
    let longer = scene.run(&["--since", &ago(300 * 24), "--history", "366d"]).await;
    assert_eq!(longer.code(), 0, "{}", longer.stderr);
    let cut = scene.run(&["--since", &ago(72), "--until", &ago(3)]).await;
    assert_eq!(cut.code(), 0);
    assert!(cut.stderr.contains("so the backfill ends there"), "{}", cut.stderr);
    let kept = scene.builder().setting("RETENTION", "48h").arg("backfill").arg("--since").arg(ago(72)).run().await;
    assert_eq!(kept.code(), 2);
    assert!(kept.stderr.contains("database.retention"), "{}", kept.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_or_with_wrong_ones_it_says_what_to_set() {
    let scene = Scene::with(lost(1, 1)).await;
    let since = scene.since();
    std::fs::write(scene.folder.path().join("api.key"), "another").expect("a file");
    let wrong = scene.run(&["--since", &since]).await;
    assert_eq!(wrong.code(), 1);
    assert!(wrong.stderr.contains("platform.app_key_file") && !wrong.stderr.contains("another"), "{}", wrong.stderr);
    let database = &*scene.database;
    let none = crate::support::process::run_convoke(
        &["backfill", "--since", &since],
        &[("CONVOKE_APP_ID", "1"), ("CONVOKE_APP_KEY", "k"), ("CONVOKE_DATABASE_URL", database)],
    )
    .await;
    assert_eq!(none.code(), 2);
    assert!(none.stderr.contains("platform.app_id is not set"), "{}", none.stderr);
    assert_eq!(scene.count("events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_clock_that_is_an_hour_wrong_nothing_is_touched_that_may_still_be_pushed() {
    let ended =
        |hours: i64, uuid: &str| Run::over(uuid, "960000017", at(now() - (hours + 1) * HOUR), at(now() - hours * HOUR));
    let scene = Scene::with([ended(27, "older"), ended(25, "younger")]).await;
    // Seen from the platform, the younger one ended 24 hours ago.
    scene.platform.set_ahead(-HOUR);
    let finished = scene.run(&["--since", &scene.since()]).await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("ahead of the platform's: check NTP"), "{}", finished.stderr);
    let known = scene.rows("SELECT meeting_uuid FROM meetings").await;
    assert_eq!(known, [[Some("older".to_owned())]]);
    scene.platform.set_ahead(HOUR);
    let behind = scene.run(&["--since", &scene.since()]).await;
    assert_eq!(behind.code(), 1, "what is signed by such a clock has expired");
    assert!(behind.stderr.contains("this machine's clock is 1h behind the platform's"), "{}", behind.stderr);
}
