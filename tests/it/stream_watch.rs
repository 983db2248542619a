//! The stream watch: every way in which a stream loses messages is noticed, counted and repaired with the same ids.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_nats::jetstream;
use convoke::{
    audit::{
        mark::Setback,
        watch::{CheckOutcome, StreamMetrics, StreamWatch},
    },
    metrics::{Label as _, Registry},
};
use convoke_bus::{self as bus, Bus};
use convoke_log::{self as log, Store};

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    process::Convoke,
    rig::*,
    wait::eventually,
};

const EVENTS: usize = 20;

/// A log of twenty events of two meetings, all published, and the watch in the service's place.
struct Scene {
    nats: NatsServer,
    convoke: Convoke,
    log: Arc<dyn Store>,
    metrics: StreamMetrics,
    bus: Arc<Bus>,
    watch: StreamWatch,
    /// The store as it was when twelve were published.
    older: tempfile::TempDir,
    ids: HashSet<String>,
}

impl Scene {
    async fn new() -> Self {
        Self::on(NatsVersion::Newest).await
    }

    async fn on(version: NatsVersion) -> Self {
        let mut nats = NatsServer::start(version, NatsOptions::default()).await;
        // A replay with the same ids is recognised, and not kept, while this lasts.
        let builder = convoke(SQLITE, &nats.url()).setting("NATS_DUPLICATE_WINDOW", "1s");
        let mut convoke = builder.start().await;
        convoke.wait_ready(TEN).await;
        let samples: Vec<Sample> =
            (0..20).map(|n| Sample::of("meeting.join", n, ["11", "22"][n as usize % 2], "Li Si")).collect();
        for sample in &samples[..12] {
            assert_eq!(sample.deliver(convoke.events).await, 200);
        }
        stream_holds(&nats.jetstream().await, 12, TEN).await;
        nats.stop().await;
        let older = nats.copy_store();
        nats.restart().await;
        for sample in &samples[12..] {
            assert_eq!(sample.deliver(convoke.events).await, 200);
        }
        stream_holds(&nats.jetstream().await, EVENTS, LONG_TIMEOUT).await;
        convoke.signal(rustix::process::Signal::TERM);
        assert!(convoke.wait_exit(TEN).await.success());

        let url = format!("sqlite://{}", convoke.folder().join("convoke.db").display());
        let log = log::open(&log::Options { url, ..log::Options::default() }).expect("a log");
        let metrics = StreamMetrics::new(&Registry::default());
        let bus = Arc::new(Bus::connect(options(&nats)).await.expect("a bus"));
        bus.wait_connected(TEN).await.expect("a connection");
        let watch = watch(&log, &bus, &metrics);
        let ids = samples.into_iter().map(|sample| sample.id).collect();
        let mut scene = Self { nats, convoke, metrics, log, bus, watch, older, ids };
        scene.lease().await;
        assert_eq!((scene.look().await, scene.missing()), (CheckOutcome::Done, 0));
        scene
    }

    async fn lease(&self) {
        let lease = self.log.lease("bus", "watcher", Duration::from_secs(3600)).await.expect("a database");
        assert!(lease.is_some(), "the service gave it back");
    }

    async fn look(&mut self) -> CheckOutcome {
        eventually("there is a connection", TEN, async || self.bus.wait_connected(TEN).await).await;
        self.watch.look(TEN).await.expect("both can be read")
    }

    fn missing(&self) -> i64 {
        self.metrics.missing.get()
    }

    async fn js(&self) -> jetstream::Context {
        self.nats.jetstream().await
    }

    async fn stream(&self) -> jetstream::stream::Stream {
        self.js().await.get_stream(STREAM).await.expect("the stream")
    }

    /// The damage is noticed as what it is, `lost` events are missed, and a replay puts back exactly those.
    async fn noticed_and_repaired(mut self, kind: Setback, lost: i64) {
        let before: HashSet<String> = held(&self.js().await).await;
        assert_eq!(EVENTS - before.len(), usize::try_from(lost).expect("a count"), "the damage that is meant");
        let check = self.convoke.run(&["check"]).await;
        let failed =
            check.stdout.lines().any(|line| line.starts_with("FAIL  stream") && line.contains("replay --missing"));
        assert!(check.code() == 1 && failed, "{check:?}");
        assert_eq!((self.look().await, self.missing()), (CheckOutcome::Done, lost));
        assert_eq!(self.metrics.setbacks.of(kind).get(), 1, "{}", kind.as_str());
        eventually("all are back", LONG_TIMEOUT, async || {
            let replay = self.convoke.run(&["replay", "--missing"]).await;
            assert_eq!(replay.code(), 0, "{replay:?}");
            let held = held(&self.js().await).await.len();
            if held == EVENTS { Ok(()) } else { Err(format!("{held}: {replay:?}")) }
        })
        .await;
        assert_eq!(held(&self.js().await).await, self.ids);
        let messages = read_stream(&self.js().await, STREAM).await;
        assert_eq!(messages.len(), EVENTS, "exactly what was missing");
        // A replay publishes in the relay's stead, and gives the lease back in the end.
        self.lease().await;
        assert_eq!((self.look().await, self.missing()), (CheckOutcome::Done, 0));
        assert_eq!(self.metrics.setbacks.of(kind).get(), 1, "once");
        let check = self.convoke.run(&["check"]).await;
        assert!(!check.stdout.lines().any(|line| line.starts_with("FAIL  stream")), "{check:?}");
        assert_eq!(audit(&self.convoke, None).await.0, 0);
    }
}

fn watch(log: &Arc<dyn Store>, bus: &Arc<Bus>, metrics: &StreamMetrics) -> StreamWatch {
    StreamWatch::new(log.clone(), Arc::clone(bus), metrics.clone(), "watcher".to_owned(), None, 0)
}

fn options(nats: &NatsServer) -> bus::Options {
    bus::Options { duplicate_window: Duration::from_secs(1), ..bus::Options::new(nats.url(), STREAM, "meetings") }
}

/// The events that the stream holds.
async fn held(js: &jetstream::Context) -> HashSet<String> {
    read_stream(js, STREAM).await.iter().map(|message| message.event_id().to_owned()).collect()
}

#[tokio::test]
async fn a_purge_is_noticed_and_repaired() {
    let scene = Scene::new().await;
    scene.stream().await.purge().await.expect("purged");
    scene.noticed_and_repaired(Setback::Purged, 20).await;
}

#[tokio::test]
async fn a_purge_of_the_oldest_is_noticed_and_repaired() {
    let scene = Scene::on(NatsVersion::Oldest).await;
    scene.stream().await.purge().sequence(7).await.expect("purged");
    scene.noticed_and_repaired(Setback::Purged, 6).await;
}

#[tokio::test]
async fn a_purge_of_one_meeting_is_noticed_and_repaired() {
    let scene = Scene::on(NatsVersion::Oldest).await;
    scene.stream().await.purge().filter("meetings.*.*.*.22").await.expect("purged");
    scene.noticed_and_repaired(Setback::Deleted, 10).await;
}

#[tokio::test]
async fn deleted_messages_are_noticed_and_repaired() {
    let scene = Scene::new().await;
    for sequence in [4, 9, 10] {
        assert!(scene.stream().await.delete_message(sequence).await.expect("deleted"));
    }
    scene.noticed_and_repaired(Setback::Deleted, 3).await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_noticed_and_repaired() {
    let scene = Scene::new().await;
    scene.js().await.delete_stream(STREAM).await.expect("deleted");
    scene.bus.ensure_stream().await.expect("made");
    scene.noticed_and_repaired(Setback::Recreated, 20).await;
}

#[tokio::test]
async fn a_store_from_a_backup_is_noticed_and_repaired() {
    let mut scene = Scene::on(NatsVersion::Oldest).await;
    scene.nats.kill().await;
    scene.nats.restore_store(&scene.older);
    scene.nats.restart().await;
    scene.noticed_and_repaired(Setback::Backwards, 8).await;
}

#[tokio::test]
async fn what_is_compared_is_remembered_over_a_restart_and_new_events_are_compared_alone() {
    let mut scene = Scene::new().await;
    scene.watch = watch(&scene.log, &scene.bus, &scene.metrics);
    scene.stream().await.delete_message(5).await.expect("deleted");
    // A service that was down meanwhile notices it when it is back.
    assert_eq!((scene.look().await, scene.missing()), (CheckOutcome::Done, 1));
    // It stays known as missing while other events come.
    scene.log.release("bus", "watcher").await.expect("given back");
    scene.convoke.restart().await;
    scene.convoke.wait_ready(TEN).await;
    deliver(&scene.convoke, 100..110).await;
    stream_holds(&scene.js().await, EVENTS - 1 + 10, TEN).await;
    scene.convoke.signal(rustix::process::Signal::TERM);
    assert!(scene.convoke.wait_exit(TEN).await.success());
    assert_eq!(scene.look().await, CheckOutcome::NotMine, "nobody's lease");
    scene.lease().await;
    assert_eq!((scene.look().await, scene.missing()), (CheckOutcome::Done, 1));
    assert_eq!(scene.metrics.unknown.get(), 0);
}

#[tokio::test]
async fn a_stream_that_discards_as_configured_has_lost_nothing() {
    let changes: [fn(&mut jetstream::stream::Config); 3] = [
        |config| config.max_messages = 6,
        |config| config.max_messages_per_subject = 1,
        |config| config.max_age = Duration::from_secs(1),
    ];
    for change in changes {
        let mut scene = Scene::new().await;
        let mut config = scene.stream().await.cached_info().config.clone();
        change(&mut config);
        scene.js().await.update_stream(config).await.expect("updated");
        let js = scene.js().await;
        eventually("messages are discarded", TEN, async || held(&js).await.len() < EVENTS).await;
        assert_eq!((scene.look().await, scene.missing()), (CheckOutcome::Done, 0));
        for kind in [Setback::Purged, Setback::Deleted, Setback::Backwards, Setback::Recreated] {
            assert_eq!(scene.metrics.setbacks.of(kind).get(), 0, "{}", kind.as_str());
        }
    }
}

#[tokio::test]
async fn a_long_comparison_goes_on_over_many_looks_and_finds_everything() {
    let mut scene = Scene::new().await;
    // Rows that pass for published.
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO events (event_id, subscriber_id, event, occurred_at, received_at, source, deliveries,
             last_delivered_at, event_info)
         SELECT printf('01a0c4b0-0000-8000-8000-%012x', i), '1', 'meeting.end', '2026-09-01T00:00:00.000Z',
             strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'push', 1, '2026-09-01T00:00:00.000Z', '{}' FROM n";
    sqlite(scene.convoke.folder(), rows).await;
    sqlite(scene.convoke.folder(), "UPDATE cursors SET position = (SELECT max(seq) FROM events)").await;
    let mut looks = 1;
    while scene.watch.look(Duration::ZERO).await.expect("both can be read") == CheckOutcome::More {
        assert_eq!(scene.missing(), 0, "nothing is said before it is known");
        looks += 1;
    }
    assert!(looks >= 8, "{looks}");
    assert_eq!(scene.missing(), 2000);
    assert_eq!((scene.look().await, scene.missing()), (CheckOutcome::Done, 2000));
}

#[tokio::test]
async fn the_running_service_finds_lost_messages_and_sees_them_back() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url()).setting("NATS_DUPLICATE_WINDOW", "1s").start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..10).await;
    let js = nats.jetstream().await;
    stream_holds(&js, 10, TEN).await;
    metric_over(&convoke, "convoke_stream_checked_timestamp_seconds", 0.0, LONG_TIMEOUT).await;
    assert_eq!(http::metric(convoke.admin, "convoke_stream_missing_events").await, 0.0);
    let stream = js.get_stream(STREAM).await.expect("the stream");
    for sequence in [3, 4] {
        assert!(stream.delete_message(sequence).await.expect("deleted"));
    }
    let missing = metric_over(&convoke, "convoke_stream_missing_events", 0.0, LONG_TIMEOUT).await;
    assert_eq!(missing, 2.0);
    assert!(lines_with(&convoke, "events of the log are missing in the stream") == 1, "{}", convoke.logs());
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert!(replay.code() == 0 && replay.stdout.contains("published 2 event"), "{replay:?}");
    eventually("they are seen to be back", LONG_TIMEOUT, async || {
        http::metric(convoke.admin, "convoke_stream_missing_events").await == 0.0
    })
    .await;
    assert_eq!(lines_with(&convoke, "the stream contains all events of the log again"), 1);
}
