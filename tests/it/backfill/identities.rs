//! Who it was: what the platform's dashboard and its participant records tell of stays that nobody pushed.

use convoke_simulator::platform::PlatformOptions;

use super::scene::{Scene, lost, options};

const COLUMNS: &str =
    "participant_id, call_number, user_agent, role, device_type, media_type, department, leave_reason";

#[tokio::test(flavor = "multi_thread")]
async fn stays_are_filled_with_who_it_was_from_the_dashboard_and_with_what_from_history() {
    let scene = Scene::with(lost(2, 2)).await;
    let report = scene.backfill().await;
    assert_eq!(
        (&report["identified"], &report["identities_refused"]),
        (&4.into(), &serde_json::Value::Null),
        "{report:#}"
    );
    let stays = scene.rows(&format!("SELECT {COLUMNS} FROM attendance GROUP BY 1 ORDER BY 1")).await;
    let expected = [
        "participant000000000000000000000",
        "+991110000000",
        "PC",
        "GENERAL",
        "Soft terminal",
        "Video",
        "Example Corp",
        "left",
    ];
    assert_eq!((stays.len(), &stays[0]), (2, &expected.map(|text| Some(text.to_owned())).to_vec()));
    assert_eq!(scene.count("events WHERE event_info LIKE '%\"filledFrom\":\"dashboard and history\"%'").await, 8);
    scene.everything_is_there().await;
    assert_eq!(scene.backfill().await["complete"], 2, "nothing is filled twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edition_without_the_dashboard_fills_from_history_alone_and_says_so() {
    let scene = Scene::new(PlatformOptions { flagship: false, ..options() }).await;
    scene.remember(lost(2, 2));
    let report = scene.backfill().await;
    assert!(report["identities_refused"].as_str().is_some_and(|why| why.contains("MBI.104030001")), "{report:#}");
    let told = "attendance WHERE participant_id IS NULL AND device_type = 'Soft terminal' AND leave_reason IS NULL";
    assert_eq!((&report["identified"], scene.count(told).await), (&0.into(), 4));
    scene.everything_is_there().await;
}
