//! `backfill.every`: `serve` looks for gaps on its schedule.

use convoke_simulator::platform::{Call, Fault};
use rustix::process::Signal;

use super::scene::{Scene, lost, nothing_of};
use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    rig::{self, LONG_TIMEOUT, metric_over, stream_holds},
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_asked_to_fills_the_gaps_of_a_week_and_publishes_them_as_such() {
    let scene = Scene::with(lost(6, 2)).await;
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let convoke = scene.builder().setting("NATS_URL", nats.url()).setting("BACKFILL_EVERY", "1h").start().await;
    let made = r#"convoke_backfill_events_total{event="meeting.end"}"#;
    metric_over(&convoke, made, 5.0, LONG_TIMEOUT).await;
    metric_over(&convoke, "convoke_backfill_completed_timestamp_seconds", 1.0, LONG_TIMEOUT).await;
    let jetstream = nats.jetstream().await;
    let messages = stream_holds(&jetstream, 6 * 6 + 2, LONG_TIMEOUT).await;
    assert!(messages.iter().all(|message| message.json()["origin"] == "backfill"));
    eventually("the tables have it", LONG_TIMEOUT, async || scene.count("meetings WHERE status = 'ended'").await == 6)
        .await;
    assert_eq!(rig::lines_with(&convoke, "that the platform had not delivered"), 1);
    // A week, in windows of 24 hours that begin every 18.
    assert_eq!(scene.platform.count(Call::History), 1 + (7 * 24_u64 - 24).div_ceil(18), "an hour is not over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_whole_is_counted_and_looked_at_again_and_the_days_after_it_do_not_wait() {
    let scene = Scene::with(lost(6, 1)).await;
    scene.platform.inject(Call::History, nothing_of(730), 3);
    let one = scene.builder().setting("BACKFILL_EVERY", "1h").start().await;
    metric_over(&one, r#"convoke_backfill_incomplete_total{list="history"}"#, 0.0, LONG_TIMEOUT).await;
    metric_over(&one, r#"convoke_backfill_events_total{event="meeting.end"}"#, 5.0, LONG_TIMEOUT).await;
    metric_over(&one, "convoke_backfill_failures_total", 0.0, LONG_TIMEOUT).await;
    assert!(http::metric(one.admin, "convoke_backfill_completed_timestamp_seconds").await < 1.0);
    let note = async || {
        let rows = scene.rows("SELECT note FROM task_notes WHERE name = 'backfill.every'").await;
        serde_json::from_str::<serde_json::Value>(rows[0][0].as_deref().expect("a note")).expect("JSON")
    };
    let before = note().await;
    assert!(before["finished_at"].is_null() && before["hole"] == before["since"], "{before:#}");
    drop(one);
    let two = scene.builder().setting("BACKFILL_EVERY", "1h").start().await;
    metric_over(&two, "convoke_backfill_completed_timestamp_seconds", 1.0, LONG_TIMEOUT).await;
    let after = note().await;
    assert_eq!((&after["since"], &after["hole"]), (&before["place"], &serde_json::Value::Null), "{after:#}");
    assert!(after["until"].as_i64() > before["until"].as_i64(), "what happened since is looked at, too: {after:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_does_it_and_a_failure_is_counted() {
    let scene = Scene::with(lost(3, 1)).await;
    scene.platform.inject(Call::History, Fault::Html(200), 1);
    let one = scene.builder().setting("BACKFILL_EVERY", "1h").start().await;
    metric_over(&one, "convoke_backfill_failures_total", 0.0, LONG_TIMEOUT).await;
    let two = scene.builder().setting("BACKFILL_EVERY", "1h").start().await;
    two.wait_ready(LONG_TIMEOUT).await;
    drop(one);
    metric_over(&two, "convoke_backfill_completed_timestamp_seconds", 1.0, LONG_TIMEOUT).await;
    assert_eq!(scene.count("events").await, 3 * 4 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_was_replaced_by_a_reload_is_not_filled_any_more_and_the_new_one_is_at_once() {
    let scene = Scene::with(lost(3, 1)).await;
    let (file, key) = (scene.folder.path().join("convoke.toml"), scene.folder.path().join("subscriber.key"));
    let write = |id: &str| {
        let text = format!("[[subscriber]]\napp_id = \"{id}\"\nkey_files = [\"{}\"]\n", key.display());
        std::fs::write(&file, text).expect("a file");
    };
    std::fs::write(&key, "a key").expect("a file");
    write("1111");
    scene.platform.inject(Call::History, Fault::Html(200), 1);
    let builder = scene.builder_for_nobody().setting("CONFIG", &file).setting("BACKFILL_EVERY", "1h");
    let mut convoke = builder.start().await;
    metric_over(&convoke, "convoke_backfill_failures_total", 0.0, LONG_TIMEOUT).await;
    write("2222");
    convoke.signal(Signal::HUP);
    metric_over(&convoke, "convoke_backfill_completed_timestamp_seconds", 1.0, LONG_TIMEOUT).await;
    assert_eq!(scene.count("events WHERE subscriber_id = '2222'").await, 3 * 4 + 1);
    assert_eq!(scene.count("events WHERE subscriber_id <> '2222'").await, 0);
}
