//! `backfill.every`: `serve` looks for gaps by itself.

use std::time::Duration;

use convoke::simulate::platform::{Call, Fault};

use super::scene::{Scene, lost};
use crate::support::{
    nats::{NatsOptions, NatsServer, NatsVersion},
    rig::{self, LONG, metric_over, stream_holds},
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_asked_to_fills_the_gaps_of_a_week_and_publishes_them_as_such() {
    let scene = Scene::with(lost(6, 2)).await;
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let convoke = scene.builder().setting("NATS_URL", nats.url()).setting("BACKFILL_EVERY", "1h").start().await;
    let made = r#"convoke_backfill_events_total{event="meeting.end"}"#;
    metric_over(&convoke, made, 5.0, LONG).await;
    metric_over(&convoke, "convoke_backfill_completed_timestamp_seconds", 1.0, LONG).await;
    let jetstream = nats.jetstream().await;
    let messages = stream_holds(&jetstream, 6 * 6 + 2, LONG).await;
    assert!(messages.iter().all(|message| message.json()["origin"] == "backfill"));
    eventually("the tables have it", LONG, async || scene.count("meetings WHERE status = 'ended'").await == 6).await;
    assert_eq!(rig::lines_with(&convoke, "the platform had not pushed these events"), 1);
    assert_eq!(scene.platform.count(Call::History), 1, "an hour is not over");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_does_it_and_a_failure_is_counted() {
    let scene = Scene::with(lost(3, 1)).await;
    scene.platform.inject(Call::History, Fault::Html(200), 1);
    let one = scene.builder().setting("BACKFILL_EVERY", "1h").start().await;
    metric_over(&one, "convoke_backfill_failures_total", 0.0, LONG).await;
    let two = scene.builder().setting("BACKFILL_EVERY", "1h").start().await;
    two.wait_ready(LONG).await;
    drop(one);
    metric_over(&two, "convoke_backfill_completed_timestamp_seconds", 1.0, LONG).await;
    assert_eq!(scene.count("events").await, 3 * 4 + 1);
    tokio::time::timeout(Duration::from_secs(5), async { drop(two) }).await.expect("it ends");
}
