//! The relay, on the oldest and the newest bus: every event of the log reaches the stream, in the order of the log,
//! whatever happens in between.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream;
use convoke_simulator::Simulation;
use futures_util::{FutureExt as _, StreamExt as _};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::{Postgres, psql},
    process::Convoke,
    proxy::Proxy,
    rig::*,
    wait::eventually,
};

macro_rules! on_both_versions {
    ($($name:ident)*) => {
        mod oldest {
            use crate::support::nats::NatsVersion;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(NatsVersion::Oldest).await; })*
        }
        mod newest {
            use crate::support::nats::NatsVersion;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(NatsVersion::Newest).await; })*
        }
    };
}

on_both_versions! {
    every_event_of_the_log_is_in_the_stream_once_and_in_order_as_the_contract_says
    the_stream_is_made_as_the_settings_say
    an_existing_stream_that_differs_is_left_alone_and_the_differences_are_named
    a_bus_that_is_absent_at_the_start_gets_everything_when_it_appears
    a_bus_that_is_killed_again_and_again_misses_nothing_and_keeps_the_order
    a_deleted_stream_is_made_again_and_replay_puts_the_rest_back
    a_stream_that_lost_its_newest_messages_is_noticed_and_replay_puts_them_back
    a_replay_of_everything_does_not_hold_up_the_relay
    a_full_stream_is_tried_again_and_filled_when_there_is_room
    a_full_server_is_tried_again_and_filled_when_there_is_room
    a_message_over_the_servers_limit_is_set_aside_and_the_relay_goes_on
    a_message_over_the_streams_limit_is_set_aside_and_the_relay_goes_on
    an_owner_that_slept_through_its_lease_does_no_harm
    another_replica_goes_on_within_ten_seconds_of_the_owners_death
    two_replicas_keep_each_event_once_and_the_stream_in_order
    a_replayed_range_is_recognised_within_the_window_and_copied_on_demand
    wrong_credentials_are_tried_again_until_they_are_right
    a_forbidden_subject_is_tried_again_quietly_until_it_is_allowed
    a_bus_that_stalls_gets_everything_in_order_when_it_answers_again
    a_relay_that_was_off_begins_at_the_beginning_of_the_log
    what_the_stream_has_already_is_passed_in_a_few_windows
    masked_fields_stay_out_of_the_stream
    a_stop_while_the_bus_stalls_is_orderly
}

/// A bus, and Convoke on an embedded database.
async fn rig(version: NatsVersion) -> (NatsServer, Convoke) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    (nats, convoke)
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(Message::event_id).collect()
}

fn sample_ids(samples: &[Sample]) -> Vec<&str> {
    samples.iter().map(|sample| sample.id.as_str()).collect()
}

async fn every_event_of_the_log_is_in_the_stream_once_and_in_order_as_the_contract_says(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = Sample::number(1);
    assert_eq!(traced.deliver_with(convoke.events, &[("traceparent", traceparent)]).await, 200);
    let odd = Sample::of("odd", 2, "", "王 \\u0000");
    assert_eq!(odd.deliver(convoke.events).await, 200);
    let simulation = Simulation { meetings: 30, ..Load::simulation(convoke.events, 1) };
    let report = Load::start(simulation).finish().await;

    let js = nats.jetstream().await;
    let count = report.acknowledged as usize + 2;
    let messages = stream_holds(&js, count, LONG_TIMEOUT).await;
    let columns = "event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, source, \
                   traceparent, event_info, seq";
    let rows = sqlite(convoke.folder(), &format!("SELECT {columns} FROM events ORDER BY seq")).await;
    assert_eq!((messages.len(), rows.len()), (count, count));
    for (message, row) in messages.iter().zip(&rows) {
        let column = |index: usize| row[index].as_deref();
        let text = |index: usize| column(index).expect("not null");
        assert_eq!(message.header("Nats-Msg-Id"), column(0));
        assert_eq!(message.header("Content-Type"), Some("application/cloudevents+json"));
        assert_eq!(message.header("traceparent"), column(8));
        assert_eq!(message.header("Convoke-Replay"), None);
        let (kind, what) = text(2).split_once('.').unwrap_or((text(2), "-"));
        let meeting = column(5).unwrap_or("-");
        assert_eq!(message.subject, format!("meetings.{APP_ID}.{kind}.{what}.{meeting}"));
        let info: Value = serde_json::from_str(text(9)).expect("an eventInfo");
        let mut expected = json!({
            "specversion": "1.0", "id": text(0), "source": format!("/huawei-cloud-meeting/{APP_ID}"),
            "type": format!("com.huaweicloud.{}", text(2)), "time": text(3), "datacontenttype": "application/json",
            "sequence": format!("{:019}", message.sequence()), "recordedtime": text(4), "origin": text(7),
            "data": info["payload"],
        });
        for (name, index) in [("meetingid", 5), ("subject", 6)] {
            if let Some(value) = column(index) {
                expected[name] = json!(value);
            }
        }
        assert_eq!(message.json(), expected);
        let payload = text(9).split_once("\"payload\":").expect("a payload").1;
        assert!(message.body.ends_with(&format!("\"data\":{payload}")), "not verbatim: {}", message.body);
    }
    assert_eq!(first_copies_in_log_order(&messages).len(), count);
    assert_eq!((messages[0].header("traceparent"), messages[1].header("traceparent")), (Some(traceparent), None));
    assert_eq!(http::metric(convoke.admin, r#"convoke_published_total{outcome="new"}"#).await, count as f64);
    metric_over(&convoke, "convoke_bus_connected", 0.0, TEN).await;
}

async fn the_stream_is_made_as_the_settings_say(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url())
        .setting("NATS_STREAM", "OTHER")
        .setting("NATS_SUBJECT_PREFIX", "a.b")
        .setting("NATS_MAX_AGE", "3d")
        .setting("NATS_MAX_BYTES", "64 MiB")
        .setting("NATS_DUPLICATE_WINDOW", "7m")
        .start()
        .await;
    convoke.wait_ready(TEN).await;
    let js = nats.jetstream().await;
    let made = eventually("the stream is made", TEN, async || js.get_stream("OTHER").await).await;
    let config = &made.cached_info().config;
    assert_eq!(config.subjects, ["a.b.>"]);
    assert_eq!((config.max_age, config.max_bytes), (Duration::from_secs(3 * 86_400), 64 << 20));
    assert_eq!((config.duplicate_window, config.num_replicas), (Duration::from_secs(7 * 60), 1));
    assert_eq!((config.storage, config.retention), (stream::StorageType::File, stream::RetentionPolicy::Limits));
    assert_eq!((config.discard, config.deny_delete, config.deny_purge), (stream::DiscardPolicy::Old, false, false));
    let sample = Sample::number(1);
    assert_eq!(sample.deliver(convoke.events).await, 200);
    let messages =
        eventually("it is published", TEN, async || Some(read_stream(&js, "OTHER").await).filter(|m| !m.is_empty()))
            .await;
    assert_eq!(messages[0].subject, format!("a.b.{APP_ID}.meeting.join.987446316"));
    assert_eq!(lines_with(&convoke, "not as configured"), 0);
}

async fn an_existing_stream_that_differs_is_left_alone_and_the_differences_are_named(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let js = nats.jetstream().await;
    let config = hand_made(|config| {
        config.max_age = Duration::from_secs(3_600);
        config.discard = stream::DiscardPolicy::New;
        config.storage = stream::StorageType::Memory;
        config.max_messages_per_subject = 1_000;
    });
    let before = js.create_stream(config).await.expect("a stream made by hand").cached_info().config.clone();
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..3).await;
    stream_holds(&js, 3, TEN).await;
    let warning = eventually("the differences are named", TEN, async || {
        convoke.logs().lines().find(|line| line.contains("not as configured")).map(ToOwned::to_owned)
    })
    .await;
    for name in ["max_age", "discard", "storage", "max_messages_per_subject"] {
        assert!(warning.contains(name), "{name} is not named: {warning}");
    }
    assert!(!warning.contains("duplicate_window"), "named without need: {warning}");
    deliver(&convoke, 3..6).await;
    stream_holds(&js, 6, TEN).await;
    assert_eq!(js.get_stream(STREAM).await.expect("still there").cached_info().config, before);
    assert_eq!(lines_with(&convoke, "not as configured"), 1);
}

async fn a_bus_that_is_absent_at_the_start_gets_everything_when_it_appears(version: NatsVersion) {
    let mut nats = NatsServer::start(version, NatsOptions::default()).await;
    nats.kill().await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..20).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="disconnected"}"#, 0.0, TEN).await;
    let lag = metric_over(&convoke, r#"convoke_cursor_lag_events{cursor="bus"}"#, 19.0, TEN).await;
    assert_eq!((lag, http::metric(convoke.admin, "convoke_bus_connected").await), (20.0, 0.0));
    assert!(lines_with(&convoke, "WARN") <= 3, "too many words about one outage:\n{}", convoke.logs());
    nats.restart().await;
    let messages = stream_holds(&nats.jetstream().await, 20, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
    eventually("the lag is gone", TEN, async || {
        http::metric(convoke.admin, r#"convoke_cursor_lag_events{cursor="bus"}"#).await == 0.0
    })
    .await;
}

async fn a_bus_that_is_killed_again_and_again_misses_nothing_and_keeps_the_order(version: NatsVersion) {
    let (mut nats, convoke) = rig(version).await;
    let mut load = Load::steady(convoke.events, 2);
    for _ in 0..3 {
        load.proceeds(150).await;
        nats.kill().await;
        // The service goes on without it.
        load.proceeds(100).await;
        nats.restart().await;
    }
    load.proceeds(100).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

async fn a_deleted_stream_is_made_again_and_replay_puts_the_rest_back(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let js = nats.jetstream().await;
    let before = deliver(&convoke, 0..30).await;
    stream_holds(&js, 30, TEN).await;
    js.delete_stream(STREAM).await.expect("deleted");
    // Nothing is published meanwhile: it is missed all the same.
    eventually("the stream is made again", TEN, async || js.get_stream(STREAM).await).await;
    eventually("the warning names the way back", TEN, async || {
        lines_with(&convoke, "what it held before is not in it") == 1
    })
    .await;
    let after = deliver(&convoke, 30..60).await;
    let messages = stream_holds(&js, 30, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&after));

    let (status, findings) = audit(&convoke, None).await;
    assert_eq!((status, findings["stream"]["missing"].as_array().map(Vec::len)), (1, Some(30)), "{findings:#}");
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    assert!(replay.stdout.contains("published 30 new, 0 that"), "{}", replay.stdout);
    let messages = stream_holds(&js, 60, TEN).await;
    assert_eq!(ids(&messages[30..]), sample_ids(&before));
    assert!(messages[30..].iter().all(|message| message.header("Convoke-Replay") == Some("true")));
    let (status, findings) = audit(&convoke, None).await;
    assert_eq!((status, &findings["stream"]["doubled"]), (0, &json!([])), "{findings:#}");

    // Under load, it is made again at once.
    let mut load = Load::steady(convoke.events, 3);
    load.proceeds(200).await;
    js.delete_stream(STREAM).await.expect("deleted");
    load.proceeds(100).await;
    load.stop().await;
    eventually("the stream is made again", TEN, async || js.get_stream(STREAM).await).await;
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let (status, findings) = audit(&convoke, Some(&load.ledger)).await;
    assert_eq!(status, 0, "{findings:#}");
}

async fn a_stream_that_lost_its_newest_messages_is_noticed_and_replay_puts_them_back(version: NatsVersion) {
    let (mut nats, convoke) = rig(version).await;
    deliver(&convoke, 0..10).await;
    stream_holds(&nats.jetstream().await, 10, TEN).await;
    nats.stop().await;
    let copy = nats.copy_store();
    nats.restart().await;
    let lost = deliver(&convoke, 10..15).await;
    stream_holds(&nats.jetstream().await, 15, TEN).await;
    nats.kill().await;
    nats.restore_store(&copy);
    nats.restart().await;
    eventually("the warning names the way back", TEN, async || {
        lines_with(&convoke, "it has lost its newest messages;") == 1
    })
    .await;
    let after = deliver(&convoke, 15..20).await;
    let js = nats.jetstream().await;
    let messages = stream_holds(&js, 15, TEN).await;
    assert_eq!(ids(&messages[10..]), sample_ids(&after));
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert!(replay.code() == 0 && replay.stdout.contains("published 5 new, 0 that"), "{replay:?}");
    assert_eq!(ids(&stream_holds(&js, 20, TEN).await[15..]), sample_ids(&lost));
    assert_eq!(audit(&convoke, None).await.0, 0);
}

async fn a_replay_of_everything_does_not_hold_up_the_relay(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let mut load = Load::steady(convoke.events, 7);
    load.proceeds(100).await;
    for _ in 0..4 {
        let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
        assert_eq!(replay.code(), 0, "{replay:?}");
        load.proceeds(30).await;
    }
    load.stop().await;
    let js = nats.jetstream().await;
    nothing_is_lost(&convoke, &js, &load.ledger).await;
    let (_, findings) = audit(&convoke, None).await;
    assert_eq!(findings["stream"]["doubled"], json!([]), "{findings:#}");
    assert!(findings["stream"]["replayed"].as_u64() > Some(100), "{findings:#}");
}

async fn a_full_stream_is_tried_again_and_filled_when_there_is_room(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let js = nats.jetstream().await;
    let small = |bytes| {
        hand_made(|config| {
            config.discard = stream::DiscardPolicy::New;
            config.max_bytes = bytes;
        })
    };
    js.create_stream(small(8 << 10)).await.expect("a small stream");
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..40).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="full"}"#, 1.0, TEN).await;
    let held = read_stream(&js, STREAM).await;
    assert!(!held.is_empty() && held.len() < 40, "{} of 40 in a full stream", held.len());
    assert_eq!(ids(&held), sample_ids(&samples[..held.len()]));

    // Room is made by hand: what was there is gone, what comes follows it without a gap.
    js.get_stream(STREAM).await.expect("still there").purge().await.expect("purged");
    let first = samples[held.len()].id.as_str();
    let more = eventually("the purged stream is filled again", TEN, async || {
        let more = read_stream(&js, STREAM).await;
        if more.is_empty() { None } else { Some(more) }
    })
    .await;
    assert_eq!(more[0].event_id(), first);
    js.update_stream(small(1 << 20)).await.expect("a larger stream");
    let rest = stream_holds(&js, 40 - held.len(), TEN).await;
    assert_eq!(ids(&rest), sample_ids(&samples[held.len()..]));
    let warnings = lines_with(&convoke, "\"WARN\"");
    assert!(warnings <= 6, "{warnings} warnings about a full stream:\n{}", convoke.logs());
}

async fn a_full_server_is_tried_again_and_filled_when_there_is_room(version: NatsVersion) {
    let options = NatsOptions { max_file_store: Some(24 << 10), ..NatsOptions::default() };
    let mut nats = NatsServer::start(version, options).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..100).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="full"}"#, 1.0, TEN).await;
    nats.options.max_file_store = Some(64 << 20);
    nats.restart().await;
    let messages = stream_holds(&nats.jetstream().await, 100, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

/// Delivers small events around large ones, and expects the large ones set aside.
async fn large_ones_are_set_aside(convoke: &Convoke, nats: &NatsServer) {
    let js = nats.jetstream().await;
    let name = "X".repeat(9_000);
    let mut small = Vec::new();
    for number in 0..40 {
        let large = number % 4 == 2;
        let sample = Sample::of("meeting.join", number, "1", if large { &name } else { "Li" });
        assert_eq!(sample.deliver(convoke.events).await, 200);
        small.extend((!large).then_some(sample));
    }
    let messages = stream_holds(&js, 30, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&small));
    metric_over(convoke, r#"convoke_set_aside{cursor="bus"}"#, 9.0, TEN).await;
    let rows = sqlite(convoke.folder(), "SELECT cursor, event_id FROM set_aside").await;
    assert!(rows.len() == 10 && rows.iter().all(|row| row[0].as_deref() == Some("bus")), "{rows:?}");
    assert_eq!(lines_with(convoke, "too large for the bus"), 10);
    let (status, findings) = audit(convoke, None).await;
    assert_eq!((status, &findings["stream"]["set_aside"]), (0, &json!(10)), "{findings:#}");
    // Asked for by hand, they are still too large, and that does not keep the others back.
    let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    assert!(replay.stdout.contains("published 30 new") && replay.stdout.contains("10 too large"), "{replay:?}");
}

async fn a_message_over_the_servers_limit_is_set_aside_and_the_relay_goes_on(version: NatsVersion) {
    let options = NatsOptions { max_payload: Some(6_000), ..NatsOptions::default() };
    let nats = NatsServer::start(version, options).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    large_ones_are_set_aside(&convoke, &nats).await;
}

async fn a_message_over_the_streams_limit_is_set_aside_and_the_relay_goes_on(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let config = hand_made(|config| config.max_message_size = 6_000);
    nats.jetstream().await.create_stream(config).await.expect("a stream with a limit");
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    large_ones_are_set_aside(&convoke, &nats).await;
    // Once the limit is lifted they are published, and are set aside no more.
    let js = nats.jetstream().await;
    let mut config = js.get_stream(STREAM).await.expect("the stream").cached_info().config.clone();
    config.max_message_size = -1;
    js.update_stream(config).await.expect("updated");
    let replay = convoke.run(&["replay", "--set-aside"]).await;
    assert!(replay.code() == 0 && replay.stdout.contains("published 10 new"), "{replay:?}");
    assert_eq!(sqlite(convoke.folder(), "SELECT * FROM set_aside").await.len(), 0);
    let (status, findings) = audit(&convoke, None).await;
    assert_eq!((status, &findings["stream"]["expected"]), (0, &json!(40)), "{findings:#}");
}

/// Two replicas on one PostgreSQL and one bus, and the one that owns the relay first.
async fn replicas(version: NatsVersion) -> (NatsServer, Postgres, Convoke, Convoke) {
    let (nats, postgres) = tokio::join!(NatsServer::start(version, NatsOptions::default()), Postgres::start());
    let (url, bus) = (postgres.url(), nats.url());
    let one = convoke(&url, &bus).start().await;
    one.wait_ready(TEN).await;
    eventually("the first owns the relay", TEN, async || owner(&url).ends_with_process(one.id())).await;
    let two = convoke(&url, &bus).start().await;
    two.wait_ready(TEN).await;
    (nats, postgres, one, two)
}

struct Owner(String);

impl Owner {
    /// The name of an owner has the id of its process in it, second last.
    fn ends_with_process(&self, id: u32) -> bool {
        self.0.rsplit('-').nth(1) == Some(&id.to_string())
    }
}

fn owner(database: &str) -> Owner {
    Owner(psql(database, "SELECT coalesce(max(lease_owner), '') FROM cursors WHERE name = 'bus'"))
}

fn position(database: &str) -> i64 {
    psql(database, "SELECT coalesce(max(position), 0) FROM cursors WHERE name = 'bus'").parse().expect("a number")
}

async fn an_owner_that_slept_through_its_lease_does_no_harm(version: NatsVersion) {
    let (nats, postgres, mut one, two) = replicas(version).await;
    let mut load = Load::steady(two.events, 4);
    load.proceeds(100).await;
    one.signal(Signal::STOP);
    let asleep = position(&postgres.url());
    eventually("the other goes on", TEN, async || {
        owner(&postgres.url()).ends_with_process(two.id()) && position(&postgres.url()) > asleep
    })
    .await;
    load.proceeds(100).await;
    one.signal(Signal::CONT);
    load.proceeds(200).await;
    // And the same again, the other way round if the lease has changed hands.
    one.signal(Signal::STOP);
    load.proceeds(50).await;
    one.signal(Signal::CONT);
    load.proceeds(50).await;
    load.stop().await;
    nothing_is_lost(&two, &nats.jetstream().await, &load.ledger).await;
}

async fn another_replica_goes_on_within_ten_seconds_of_the_owners_death(version: NatsVersion) {
    let (nats, postgres, mut one, two) = replicas(version).await;
    deliver(&one, 0..5).await;
    let js = nats.jetstream().await;
    stream_holds(&js, 5, TEN).await;
    one.kill().await;
    let samples = deliver(&two, 5..10).await;
    let messages = stream_holds(&js, 10, TEN).await;
    assert_eq!(ids(&messages[5..]), sample_ids(&samples));
    assert!(owner(&postgres.url()).ends_with_process(two.id()));
}

async fn two_replicas_keep_each_event_once_and_the_stream_in_order(version: NatsVersion) {
    let (nats, postgres, one, two) = replicas(version).await;
    // The same world, delivered to both: every event is a duplicate of the other's.
    let base = convoke_core::time::Millis::new(1_790_000_000_000);
    let simulation =
        |convoke: &Convoke| Simulation { meetings: 40, connections: 6, base, ..Load::simulation(convoke.events, 5) };
    let (mut load, mut same) = (Load::start(simulation(&one)), Load::start(simulation(&two)));
    let (report, _) = tokio::join!(load.finish(), same.finish());
    let rows = psql(&postgres.url(), "SELECT count(*) || '/' || count(DISTINCT event_id) FROM events");
    assert_eq!(rows, format!("{0}/{0}", report.acknowledged));
    let stored = http::metric(one.admin, r#"convoke_deliveries_total{outcome="stored"}"#).await
        + http::metric(two.admin, r#"convoke_deliveries_total{outcome="stored"}"#).await;
    assert_eq!(stored, report.acknowledged as f64);
    let js = nats.jetstream().await;
    let messages = stream_holds(&js, report.acknowledged as usize, LONG_TIMEOUT).await;
    assert_eq!(messages.len(), report.acknowledged as usize);
    nothing_is_lost(&one, &js, &load.ledger).await;
    nothing_is_lost(&two, &js, &same.ledger).await;
}

async fn a_replayed_range_is_recognised_within_the_window_and_copied_on_demand(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let js = nats.jetstream().await;
    let mut samples = deliver(&convoke, 0..10).await;
    for (number, event, meeting) in [(10, "meeting.end", "987446316"), (11, "meeting.join", "555")] {
        samples.push(Sample::of(event, number, meeting, "Wang Wu"));
        assert_eq!(samples[number as usize].deliver(convoke.events).await, 200);
    }
    stream_holds(&js, 12, TEN).await;
    // The first is of 2026-09-21T14:13:20Z, each a second later than the one before.
    let (since, until) = ("2026-09-21T14:13:22Z", "2026-09-21T14:13:25Z");
    let mut held = 12;
    for (range, expected) in [
        (vec!["--since", since, "--until", until], vec![2, 3, 4]),
        (vec!["--event", "meeting.end"], vec![10]),
        (vec!["--meeting", "555"], vec![11]),
        (vec!["--meeting", "uuid-555", "--event", "meeting.join"], vec![11]),
        (vec!["--event", "meeting.start"], vec![]),
    ] {
        let known = convoke.run(&[&["replay"], range.as_slice()].concat()).await;
        assert_eq!(known.code(), 0, "{known:?}");
        let (nothing, how) = match expected.len() {
            0 => ("nothing published: no published event of the log matches", ""),
            1 => ("nothing published: the stream got this event within its duplicate window", "--again"),
            _ => ("nothing published: the stream got these 3 events within its duplicate window", "--again"),
        };
        assert!(known.stdout.contains(nothing) && known.stdout.contains(how), "{range:?}: {}", known.stdout);
        assert_eq!(read_stream(&js, STREAM).await.len(), held);

        let again = convoke.run(&[&["replay", "--again"], range.as_slice()].concat()).await;
        let said = match expected.len() {
            0 => nothing.to_owned(),
            count => format!("published {count} new, 0 that"),
        };
        assert!(again.code() == 0 && again.stdout.contains(&said), "{range:?}: {again:?}");
        let messages = stream_holds(&js, held + expected.len(), TEN).await;
        for (message, number) in messages[held..].iter().zip(&expected) {
            let original = &messages[*number];
            assert_eq!((&message.subject, &message.body), (&original.subject, &original.body));
            let suffix = message.msg_id().strip_prefix(original.msg_id()).expect("the same id");
            assert!(suffix.strip_prefix(".r").is_some_and(|ms| ms.parse::<u64>().is_ok()), "{suffix}");
            assert_eq!(message.header("Convoke-Replay"), Some("true"));
        }
        held = messages.len();
    }
    let (status, findings) = audit(&convoke, None).await;
    let stream = &findings["stream"];
    assert_eq!((status, &stream["replayed"], &stream["doubled"]), (0, &json!(6), &json!([])), "{findings:#}");
    let nothing = convoke.run(&["replay"]).await;
    assert!(nothing.code() == 2 && nothing.stderr.contains("--missing"), "{nothing:?}");
}

async fn wrong_credentials_are_tried_again_until_they_are_right(version: NatsVersion) {
    let right = Some(("convoke".to_owned(), "right".to_owned()));
    let wrong = Some(("convoke".to_owned(), "another".to_owned()));
    let mut nats = NatsServer::start(version, NatsOptions { user: wrong, ..NatsOptions::default() }).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "right\n").expect("written");
    let convoke = convoke(SQLITE, &nats.url())
        .setting("NATS_USER", "convoke")
        .setting("NATS_PASSWORD_FILE", &password)
        .start()
        .await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..5).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="permission"}"#, 2.0, TEN).await;
    eventually("the log says why", TEN, async || lines_with(&convoke, "authorization violation") > 0).await;
    let warnings = lines_with(&convoke, "\"WARN\"");
    assert!(warnings <= 4, "{warnings} warnings:\n{}", convoke.logs());
    assert!(!convoke.logs().contains("right"), "a password in the log");
    nats.options.user = right;
    nats.restart().await;
    let messages = stream_holds(&nats.jetstream().await, 5, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

async fn a_forbidden_subject_is_tried_again_quietly_until_it_is_allowed(version: NatsVersion) {
    let permissions = |deny: &str| {
        format!(
            "authorization {{ users: [\n\
             {{ user: convoke, password: p, permissions: {{ publish: {{ allow: \">\"{deny} }} }} }},\n\
             {{ user: auditor, password: p }} ] }}\n"
        )
    };
    let config = permissions(", deny: \"meetings.>\"");
    let mut nats = NatsServer::start(version, NatsOptions { config, ..NatsOptions::default() }).await;
    let password = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(password.path(), "p").expect("written");
    let convoke = convoke(SQLITE, &nats.url())
        .setting("NATS_USER", "convoke")
        .setting("NATS_PASSWORD_FILE", password.path())
        .start()
        .await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..60).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="permission"}"#, 0.0, TEN).await;
    let warnings = lines_with(&convoke, "\"WARN\"");
    assert!((1..=4).contains(&warnings), "{warnings} warnings:\n{}", convoke.logs());
    nats.options.config = permissions("");
    nats.restart().await;
    let auditor = async_nats::ConnectOptions::with_user_and_password("auditor".to_owned(), "p".to_owned());
    let client = auditor.connect(nats.url()).await.expect("a connection");
    let messages = stream_holds(&async_nats::jetstream::new(client), 60, LONG_TIMEOUT).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

async fn a_bus_that_stalls_gets_everything_in_order_when_it_answers_again(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let proxy = Proxy::start(nats.address());
    let convoke = convoke(SQLITE, &format!("nats://{}", proxy.address())).start().await;
    convoke.wait_ready(TEN).await;
    let mut load = Load::steady(convoke.events, 6);
    load.proceeds(100).await;
    proxy.stall();
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="timeout"}"#, 0.0, TEN).await;
    proxy.heal();
    load.proceeds(100).await;
    proxy.cut();
    load.proceeds(50).await;
    proxy.heal();
    load.proceeds(50).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

async fn a_relay_that_was_off_begins_at_the_beginning_of_the_log(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = format!("sqlite://{}", folder.path().join("convoke.db").display());
    let mut off = convoke(&database, "none").start().await;
    off.wait_ready(TEN).await;
    let samples = deliver(&off, 0..10).await;
    let nothing = off.run(&["audit"]).await;
    assert!(nothing.code() == 2 && nothing.stderr.contains("nothing compared"), "{nothing:?}");
    off.signal(Signal::TERM);
    assert!(off.wait_exit(TEN).await.success());
    let on = convoke(&database, &nats.url()).start().await;
    on.wait_ready(TEN).await;
    let messages = stream_holds(&nats.jetstream().await, 10, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

async fn what_the_stream_has_already_is_passed_in_a_few_windows(version: NatsVersion) {
    let (nats, mut convoke) = rig(version).await;
    let published = 200;
    let mut samples = deliver(&convoke, 0..published).await;
    let js = nats.jetstream().await;
    stream_holds(&js, samples.len(), LONG_TIMEOUT).await;
    convoke.kill().await;
    // As an owner leaves it that reached the bus to its end, and the database no more.
    sqlite(convoke.folder(), "UPDATE cursors SET position = 0 WHERE name = 'bus'").await;
    let client = async_nats::connect(nats.url()).await.expect("a connection");
    // All that is sent to the server, whether the stream takes it or not.
    let mut sent = client.subscribe("meetings.>").await.expect("a subscription");
    client.flush().await.expect("the server knows of it");
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    samples.extend(deliver(&convoke, published..published + 3).await);
    let messages = stream_holds(&js, samples.len(), LONG_TIMEOUT).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
    client.flush().await.expect("all that was sent came before the answer");
    let mut count = 0;
    while tokio::task::unconstrained(sent.next()).now_or_never().is_some() {
        count += 1;
    }
    let few = samples.len()..=3 * samples.len();
    assert!(few.contains(&count), "{count} messages were sent, not {few:?}");
}

async fn masked_fields_stay_out_of_the_stream(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url()).setting("PRIVACY_MASK", "displayName,callNumber").start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..3).await;
    // Written otherwise, doubled, deeper, of other types, and in events in which nobody expects it.
    let odd = [
        (
            r#"{"attendeeInfo":{"displayN\u0061me":"Zhang San","callNumber":7,"x":1.50}}"#,
            json!({"attendeeInfo": {"x": 1.5}}),
        ),
        (
            r#"{"attendeeInfo":{"a":1},"b":[{"attendeeInfo":{"displayName":["Zhang San"]}}]}"#,
            json!({"attendeeInfo": {"a": 1}, "b": [{"attendeeInfo": {}}]}),
        ),
        (
            r#"{"recordInfo":{"displayName":"kept"},"attendeeInfo":"Zhang San"}"#,
            json!({"recordInfo": {"displayName": "kept"}}),
        ),
        (
            r#"{"attendeeInfo":{"more":{"displayName":"Zhang San","displayName":null,"role":"CHAIR"}}}"#,
            json!({"attendeeInfo": {"more": {"role": "CHAIR"}}}),
        ),
        (r#""Zhang San""#, json!(null)),
    ];
    for (n, (payload, _)) in (0..).zip(&odd) {
        let at = 1_790_000_100_000_i64 + n;
        let info = format!(r#"{{"event":"record.finish","timestamp":{at},"payload":{payload}}}"#);
        assert_eq!(Sample { info, id: String::new() }.deliver(convoke.events).await, 200);
    }
    let all = 3 + odd.len();
    let js = nats.jetstream().await;
    stream_holds(&js, all, TEN).await;
    let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let messages = stream_holds(&js, 2 * all, TEN).await;
    for (place, message) in messages.iter().enumerate() {
        assert!(!message.body.contains("Zhang San"), "{}", message.body);
        let data = match (place % all).checked_sub(3) {
            Some(odd_one) => odd[odd_one].1.clone(),
            None => {
                json!({"meetingInfo": {"meetingID": "987446316", "meetingUUID": "uuid-987446316"}, "attendeeInfo": {"role": "CHAIR"}})
            }
        };
        assert_eq!(message.json()["data"], data, "{}", message.body);
    }
    let kept = sqlite(convoke.folder(), "SELECT DISTINCT display_name FROM events WHERE event = 'meeting.join'").await;
    assert_eq!(kept, [[Some("Zhang San".to_owned())]]);
}

async fn a_stop_while_the_bus_stalls_is_orderly(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let proxy = Proxy::start(nats.address());
    let mut convoke = convoke(SQLITE, &format!("nats://{}", proxy.address())).start().await;
    convoke.wait_ready(TEN).await;
    let mut samples = deliver(&convoke, 0..5).await;
    let js = nats.jetstream().await;
    stream_holds(&js, 5, TEN).await;
    proxy.stall();
    samples.extend(deliver(&convoke, 5..10).await);
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(TEN).await.success());
    assert_eq!(lines_with(&convoke, "is over"), 0, "it ended only because its time was over");

    // Cut off from the bus altogether, it uses no processor time to speak of, and ends as well.
    proxy.cut();
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="disconnected"}"#, 3.0, TEN).await;
    let (begun, used, errors) = (Instant::now(), cpu_time(convoke.id()), "convoke_publish_errors_total");
    let before = http::metric(convoke.admin, errors).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = cpu_time(convoke.id()) - used;
    assert!(used < Duration::from_millis(600), "{used:?} of processor time in 2 s of waiting");
    let tries = http::metric(convoke.admin, errors).await - before;
    let time = begun.elapsed();
    assert!(tries <= 5.0 * time.as_secs_f64(), "{tries} tries in {time:?}");
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(TEN).await.success());
    proxy.heal();
    convoke.restart().await;
    let messages = stream_holds(&js, 10, TEN).await;
    let known: HashSet<&str> = sample_ids(&samples).into_iter().collect();
    assert_eq!(first_copies_in_log_order(&messages).len(), known.len());
}
