//! `audit` and `replay --missing`, against logs, streams and ledgers that went wrong in every way.

use std::path::PathBuf;

use async_nats::jetstream::{self, stream};
use serde_json::{Value, json};

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::Postgres,
    process::{Convoke, Finished},
    rig::*,
    wait::eventually,
};

/// A log of ten events that are in the stream.
struct Scene {
    js: jetstream::Context,
    convoke: Convoke,
    samples: Vec<Sample>,
    _nats: NatsServer,
}

impl Scene {
    async fn new() -> Self {
        let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
        let convoke = convoke(SQLITE, &nats.url()).start().await;
        convoke.wait_ready(TEN).await;
        let samples = deliver(&convoke, 0..10).await;
        let js = nats.jetstream().await;
        stream_holds(&js, 10, TEN).await;
        Self { js, convoke, samples, _nats: nats }
    }

    async fn stream(&self) -> stream::Stream {
        self.js.get_stream(STREAM).await.expect("the stream is there")
    }

    async fn delete(&self, sequences: &[u64]) {
        for sequence in sequences {
            assert!(self.stream().await.delete_message(*sequence).await.expect("deleted"));
        }
    }

    async fn sql(&self, sql: &str) {
        sqlite(self.convoke.folder(), sql).await;
    }

    fn id(&self, index: usize) -> &str {
        &self.samples[index].id
    }

    /// What the audit says of the stream, and whether it is clean.
    async fn stream_findings(&self) -> (bool, Value) {
        let (status, findings) = audit(&self.convoke, None).await;
        assert_eq!(status == 0, findings["clean"] == true, "{findings:#}");
        (status == 0, findings["stream"].clone())
    }

    async fn replay_missing(&self) -> Finished {
        let replay = self.convoke.run(&["replay", "--missing"]).await;
        assert_eq!(replay.code(), 0, "{replay:?}");
        replay
    }

    fn ledger(&self, text: &str) -> PathBuf {
        let path = self.convoke.folder().join("ledger.ndjson");
        std::fs::write(&path, text).expect("written");
        path
    }

    fn line(&self, id: &str) -> String {
        let rest = r#""event":"meeting.join","acknowledged_at":"2026-09-21T14:13:20.000Z""#;
        format!("{{\"event_id\":\"{id}\",\"subscriber_id\":\"{APP_ID}\",{rest}}}\n")
    }
}

/// The findings are `expected`, and nothing else but what is zero or empty.
fn found(findings: &Value, mut expected: Value) {
    for (name, value) in findings.as_object().expect("an object") {
        let nothing = value == &json!(0) || value == &json!([]);
        if nothing && expected.get(name).is_none() {
            expected[name] = value.clone();
        }
    }
    assert_eq!(findings, &expected);
}

#[tokio::test]
async fn a_log_that_is_in_the_stream_is_clean_in_words_and_in_json() {
    let scene = Scene::new().await;
    let ledger = scene.ledger(&scene.samples.iter().map(|sample| scene.line(&sample.id)).collect::<String>());
    let (status, findings) = audit(&scene.convoke, Some(&ledger)).await;
    assert_eq!(status, 0);
    found(&findings["ledger"], json!({"acknowledged": 10}));
    found(&findings["stream"], json!({"expected": 10, "messages": 10}));
    let words = scene.convoke.run(&["audit", "--ledger", "ledger.ndjson"]).await;
    assert!(words.code() == 0 && words.stdout.ends_with("clean\n"), "{words:?}");
    assert!(words.stdout.contains("10 events acknowledged, 0 of them not in the log"), "{}", words.stdout);
    assert!(words.stdout.contains("10 events of the log expected in it, 0 of them missing"), "{}", words.stdout);
    let missing = scene.convoke.run(&["audit", "--ledger", "nowhere"]).await;
    assert!(missing.code() == 2 && missing.stderr.contains("nowhere"), "{missing:?}");
}

/// After `damage`, `check`, `audit` and `replay --missing` tell the same number, and one `replay --missing` mends it.
async fn one_number_and_one_remedy(database: &str, lost: usize, damage: impl AsyncFnOnce(&jetstream::Context)) {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let mut convoke = convoke(database, &nats.url()).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let samples = deliver(&convoke, 0..10).await;
    let js = nats.jetstream().await;
    stream_holds(&js, 10, LONG_TIMEOUT).await;
    metric_over(&convoke, "convoke_stream_checked_timestamp_seconds", 0.0, LONG_TIMEOUT).await;
    // Nothing but the commands looks from here on.
    convoke.signal(rustix::process::Signal::TERM);
    assert!(convoke.wait_exit(LONG_TIMEOUT).await.success());
    damage(&js).await;
    let number = format!("{lost} events ");
    let fails = |check: &Finished| -> Vec<String> {
        check.stdout.lines().filter(|line| line.starts_with("FAIL  stream")).map(str::to_owned).collect()
    };
    let check = convoke.run(&["check"]).await;
    let said = fails(&check).join("\n");
    assert!(check.code() == 1 && said.contains(&number) && said.contains("`convoke replay --missing`"), "{check:?}");
    let words = convoke.run(&["audit"]).await;
    let verdict = words.stdout.lines().last().expect("a verdict");
    assert!(words.code() == 1 && verdict.starts_with(&format!("NOT clean: {number}")), "{words:?}");
    assert!(verdict.contains("`convoke replay --missing`"), "{verdict}");
    let (_, findings) = audit(&convoke, None).await;
    assert_eq!(findings["stream"]["missing"].as_array().map(Vec::len), Some(lost), "{findings:#}");
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert!(replay.code() == 0 && replay.stdout.contains(&format!("published {lost} event")), "{replay:?}");
    let check = convoke.run(&["check"]).await;
    assert_eq!(fails(&check), [""; 0], "{check:?}");
    let (status, findings) = audit(&convoke, None).await;
    assert_eq!((status, findings["stream"]["expected"].as_u64()), (0, Some(10)), "{findings:#}");
    let none = convoke.run(&["replay", "--missing"]).await;
    assert!(none.code() == 0 && none.stdout.contains("nothing is missing"), "{none:?}");
    let mut held: Vec<String> = read_stream(&js, STREAM).await.iter().map(|it| it.event_id().to_owned()).collect();
    let mut all: Vec<String> = samples.iter().map(|sample| sample.id.clone()).collect();
    held.sort();
    all.sort();
    assert_eq!(held, all, "each once");
}

async fn purged(js: &jetstream::Context) {
    js.get_stream(STREAM).await.expect("the stream").purge().await.expect("purged");
}

async fn punched(js: &jetstream::Context) {
    let stream = js.get_stream(STREAM).await.expect("the stream");
    for sequence in [1, 4, 9, 10] {
        assert!(stream.delete_message(sequence).await.expect("deleted"));
    }
}

async fn deleted(js: &jetstream::Context) {
    let config = js.get_stream(STREAM).await.expect("the stream").cached_info().config.clone();
    js.delete_stream(STREAM).await.expect("deleted");
    js.create_stream(config).await.expect("made again");
}

#[tokio::test]
async fn after_a_purge_check_audit_and_replay_agree_and_one_replay_mends_it() {
    one_number_and_one_remedy(SQLITE, 10, purged).await;
    let postgres = Postgres::start().await;
    one_number_and_one_remedy(&postgres.url(), 10, purged).await;
}

#[tokio::test]
async fn after_deletions_or_a_new_stream_check_audit_and_replay_agree_and_one_replay_mends_it() {
    one_number_and_one_remedy(SQLITE, 4, punched).await;
    one_number_and_one_remedy(SQLITE, 10, deleted).await;
    let postgres = Postgres::start().await;
    one_number_and_one_remedy(&postgres.url(), 4, punched).await;
    one_number_and_one_remedy(&postgres.database("again"), 10, deleted).await;
}

#[tokio::test]
async fn what_was_purged_on_purpose_is_accepted_once_and_missed_by_nobody() {
    let scene = Scene::new().await;
    scene.stream().await.purge().sequence(7).await.expect("purged up to there");
    scene.delete(&[9]).await;
    let words = scene.convoke.run(&["audit"]).await;
    assert!(words.code() == 1 && words.stdout.contains("7 events of the log are not in the stream"), "{words:?}");
    assert!(words.stdout.contains("6 of them purged from it") && words.stdout.contains("--accept-purged"), "{words:?}");
    let accepted = scene.convoke.run(&["audit", "--accept-purged"]).await;
    assert!(accepted.code() == 1 && accepted.stdout.contains("NOT clean: 1 event of the log is not"), "{accepted:?}");
    assert!(scene.replay_missing().await.stdout.contains("published 1 event"));
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean, "{stream:#}");
    found(&stream, json!({"expected": 4, "messages": 4, "before_stream": 6}));
    let check = scene.convoke.run(&["check"]).await;
    assert!(!check.stdout.lines().any(|line| line.starts_with("FAIL  stream")), "{check:?}");
    eventually("the running service misses nothing", LONG_TIMEOUT, async || {
        let lines = lines_with(&scene.convoke, "comparing it with the log");
        let missing = http::metric(scene.convoke.admin, "convoke_stream_missing_events").await;
        let checked = http::metric(scene.convoke.admin, "convoke_stream_checked_timestamp_seconds").await;
        if missing == 0.0 && checked > 0.0 { Ok(()) } else { Err(format!("{missing} {lines}")) }
    })
    .await;
}

#[tokio::test]
async fn an_audit_that_compares_nothing_or_cannot_read_the_ledger_is_not_clean() {
    let off = convoke(SQLITE, "none").start().await;
    off.wait_ready(LONG_TIMEOUT).await;
    let nothing = off.run(&["audit"]).await;
    assert!(nothing.code() == 2 && nothing.stderr.contains("nothing compared"), "{nothing:?}");
    for (text, status) in [("", 2), ("rubbish\n\n", 1), ("{\"event_id\":\"0178a0", 2)] {
        std::fs::write(off.folder().join("ledger"), text).expect("written");
        let wrong = off.run(&["audit", "--ledger", "ledger"]).await;
        assert!(wrong.code() == status && !wrong.stdout.ends_with("\nclean\n"), "{text:?}: {wrong:?}");
    }
}

#[tokio::test]
async fn a_replay_that_publishes_nothing_says_what_would() {
    let scene = Scene::new().await;
    let known = scene.convoke.run(&["replay", "--since", "1970-01-01"]).await;
    assert!(
        known.code() == 0 && known.stdout.contains("nothing published: the stream already has these 10"),
        "{known:?}"
    );
    assert!(known.stdout.contains("Add --again"), "{known:?}");
    let none = scene.convoke.run(&["replay", "--event", "meeting.nothing"]).await;
    assert!(none.stdout.contains("nothing published: no published event of the log matches"), "{none:?}");
}

#[tokio::test]
async fn messages_deleted_from_the_middle_and_the_end_are_missing_until_they_are_replayed() {
    let scene = Scene::new().await;
    scene.delete(&[4, 9, 10]).await;
    let (clean, stream) = scene.stream_findings().await;
    assert!(!clean);
    let missing: Vec<&str> =
        stream["missing"].as_array().expect("a list").iter().map(|m| m["event_id"].as_str().unwrap()).collect();
    assert_eq!(missing, [scene.id(3), scene.id(8), scene.id(9)]);
    let words = scene.convoke.run(&["audit"]).await;
    assert!(words.code() == 1 && words.stdout.contains("replay --missing"), "{words:?}");
    assert!(words.stdout.contains(&format!("not in the stream: {} (seq", scene.id(3))), "{}", words.stdout);
    // Within the duplicate window the server knows them still, deleted or not: only a copy with an id of its own helps.
    let known = scene.replay_missing().await;
    assert!(known.stdout.contains("published 3 events"), "{}", known.stdout);
    assert!(known.stdout.contains("3 of them with a new Nats-Msg-Id"), "{}", known.stdout);
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 10, "messages": 10}));
    assert!(scene.replay_missing().await.stdout.contains("nothing is missing"));
}

#[tokio::test]
async fn a_stream_that_discarded_its_beginning_is_compared_from_its_oldest_message_on() {
    let scene = Scene::new().await;
    let mut config = scene.stream().await.cached_info().config.clone();
    config.max_messages = 6;
    scene.js.update_stream(config).await.expect("updated");
    stream_holds(&scene.js, 6, TEN).await;
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean, "{stream:#}");
    found(&stream, json!({"expected": 6, "messages": 6, "before_stream": 4}));
    scene.delete(&[7]).await;
    let (clean, stream) = scene.stream_findings().await;
    // Nearly full, as it is, it may have discarded what is older than its oldest message, and nothing else.
    assert!(!clean);
    found(&stream, json!({"expected": 6, "messages": 5, "before_stream": 4, "missing": [stream["missing"][0]]}));
    assert_eq!(stream["missing"][0]["event_id"], scene.id(6));
}

#[tokio::test]
async fn what_was_not_published_yet_is_distinguished_from_what_was_purged() {
    let scene = Scene::new().await;
    scene.stream().await.purge().await.expect("purged");
    // A row that the relay has yet to publish is a difference all the same, as soon as nobody waits for it any more.
    let lease = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+9 seconds')";
    scene
        .sql(&format!("UPDATE cursors SET position = position - 1, lease_owner = 'another', lease_until = {lease}"))
        .await;
    let unpublished = scene.convoke.run(&["audit", "--json", "--wait", "0s"]).await;
    let findings: Value = serde_json::from_str(&unpublished.stdout).expect("JSON");
    assert_eq!((unpublished.code(), &findings["stream"]["missing"][9]["event_id"]), (1, &json!(scene.id(9))));
    found(
        &findings["stream"],
        json!({"expected": 10, "purged": 9, "unpublished": 1, "missing": findings["stream"]["missing"]}),
    );
    assert!(
        findings["wrong"][0].as_str().is_some_and(|said| said.contains("`convoke serve` publishes them")),
        "{findings:#}"
    );
}

#[tokio::test]
async fn a_stream_that_was_made_again_misses_everything_until_it_is_replayed() {
    let scene = Scene::new().await;
    scene.js.delete_stream(STREAM).await.expect("deleted");
    let made = async || scene.js.get_stream(STREAM).await;
    eventually("the stream is made again", TEN, made).await;
    let (clean, stream) = scene.stream_findings().await;
    assert!(!clean);
    assert_eq!((stream["expected"].as_u64(), stream["missing"].as_array().map(Vec::len)), (Some(10), Some(10)));
    assert!(scene.replay_missing().await.stdout.contains("published 10 events"));
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 10, "messages": 10}));
    assert_eq!(first_copies_in_log_order(&read_stream(&scene.js, STREAM).await).len(), 10);
}

#[tokio::test]
async fn without_a_stream_or_a_bus_or_a_database_the_audit_fails_and_says_why() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let elsewhere = convoke("sqlite://nowhere.db", &nats.url()).arg("audit").run().await;
    assert!(elsewhere.code() == 1 && elsewhere.stderr.contains("nowhere.db"), "{elsewhere:?}");
    let off = convoke(SQLITE, "none").start().await;
    off.wait_ready(TEN).await;
    let database = format!("sqlite://{}", off.folder().join("convoke.db").display());
    let no_stream = convoke(&database, &nats.url()).arg("audit").run().await;
    assert!(no_stream.code() == 1 && no_stream.stderr.contains("no stream MEETINGS"), "{no_stream:?}");
    let no_bus = convoke(&database, "nats://127.0.0.1:1").arg("audit").run().await;
    assert!(no_bus.code() == 1 && no_bus.stderr.contains("no connection to NATS"), "{no_bus:?}");
}

#[tokio::test]
async fn a_row_that_vanished_from_the_log_is_missed_by_the_ledger_and_foreign_in_the_stream() {
    let scene = Scene::new().await;
    scene.sql(&format!("DELETE FROM events WHERE event_id = '{}'", scene.id(4))).await;
    let ledger = scene.ledger(&scene.samples.iter().map(|sample| scene.line(&sample.id)).collect::<String>());
    let (status, findings) = audit(&scene.convoke, Some(&ledger)).await;
    assert_eq!(status, 1);
    found(&findings["ledger"], json!({"acknowledged": 10, "missing": [scene.id(4)]}));
    found(&findings["stream"], json!({"expected": 9, "messages": 10, "foreign": 1}));
    let words = scene.convoke.run(&["audit", "--ledger", "ledger.ndjson"]).await;
    assert!(words.stdout.contains(&format!("not in the log: {}", scene.id(4))), "{}", words.stdout);
    let verdict = words.stdout.lines().last();
    assert_eq!(verdict, Some("NOT clean: 1 acknowledged event is not in the log"));
}

#[tokio::test]
async fn a_ledger_with_unknown_events_and_a_torn_end_is_read_to_its_end() {
    let scene = Scene::new().await;
    let unknown = "0178a0b1-c2d3-8e4f-8a5b-6c7d8e9f0a1b";
    let whole =
        [scene.line(scene.id(0)), scene.line(unknown), "not a line\n".to_owned(), scene.line(scene.id(1))].concat();
    let mut torn = whole.into_bytes();
    torn.extend_from_slice(b"{\"event_id\":\"0178a0b1-c2d3-8e4f-8a5b-6c7d8e9f0a1b\",\"subscriber_id\":\"\xe7\x8e");
    let path = scene.ledger("");
    std::fs::write(&path, torn).expect("written");
    let (status, findings) = audit(&scene.convoke, Some(&path)).await;
    assert_eq!(status, 1);
    found(&findings["ledger"], json!({"acknowledged": 3, "missing": [unknown], "unreadable_lines": 1, "cut_lines": 1}));
    assert_eq!(findings["stream"]["missing"], json!([]));
    let (status, findings) = audit(&scene.convoke, Some(&scene.ledger(""))).await;
    assert_eq!((status, &findings["clean"], &findings["ledger"]["acknowledged"]), (2, &json!(false), &json!(0)));
}

#[tokio::test]
async fn a_ledger_longer_than_a_page_and_with_repeated_lines_is_compared_whole() {
    let scene = Scene::new().await;
    let line = scene.line(scene.id(3));
    let unknown = |n: u32| format!("0178a0b1-c2d3-8e4f-8a5b-6c7d{n:08}");
    let text = [line.repeat(700), (0..600).map(|n| scene.line(&unknown(n))).collect(), line].concat();
    let (status, findings) = audit(&scene.convoke, Some(&scene.ledger(&text))).await;
    assert_eq!((status, findings["ledger"]["missing"].as_array().map(Vec::len)), (1, Some(600)));
    assert_eq!(findings["ledger"]["acknowledged"], 601);
    let words = scene.convoke.run(&["audit", "--ledger", "ledger.ndjson"]).await;
    assert!(words.stdout.contains("and 580 more") && words.stdout.lines().count() < 40, "{}", words.stdout);
}

#[tokio::test]
async fn forgotten_events_are_listed_whether_or_not_the_stream_still_has_them() {
    let scene = Scene::new().await;
    scene
        .sql(&format!(
            "UPDATE events SET event_info = NULL, forgotten_at = '2026-11-01T00:00:00.000Z' WHERE event_id IN ('{}', '{}')",
            scene.id(2),
            scene.id(5)
        ))
        .await;
    scene.delete(&[3]).await;
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 8, "messages": 9, "forgotten": 2, "forgotten_there": 1}));
    // They are not published again, and those after them are.
    let again = scene.convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert!(
        again.stdout.contains("published 8 event")
            && again.stdout.contains("2 not published: their person was forgotten"),
        "{again:?}"
    );
    scene.js.delete_stream(STREAM).await.expect("deleted");
    eventually("the stream is made again", TEN, async || scene.js.get_stream(STREAM).await).await;
    assert!(scene.replay_missing().await.stdout.contains("published 8 events"));
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 8, "messages": 8, "forgotten": 2}));
}

#[tokio::test]
async fn replayed_copies_are_listed_and_copies_that_nobody_asked_for_are_named() {
    let scene = Scene::new().await;
    let again = scene.convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert!(again.stdout.contains("published 10 event"), "{again:?}");
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 10, "messages": 20, "replayed": 10}));
    // With the originals gone the copies still are the events.
    scene.delete(&[2, 3]).await;
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 10, "messages": 18, "replayed": 8}));
    // A copy outside of the duplicate window, which nobody asked for, is named; it is no loss.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("{}.copy", scene.id(7)));
    let publish = scene.js.publish_with_headers("meetings.x", headers, "{}".into());
    publish.await.expect("sent").await.expect("acknowledged");
    scene.js.publish("meetings.y", "not ours".into()).await.expect("sent").await.expect("acknowledged");
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 10, "messages": 20, "replayed": 8, "doubled": [scene.id(7)], "foreign": 1}));
}

#[tokio::test]
async fn events_published_meanwhile_are_no_differences_under_load() {
    let scene = Scene::new().await;
    let mut load = Load::steady(scene.convoke.events, 21);
    load.proceeds(50).await;
    for _ in 0..5 {
        let (clean, stream) = scene.stream_findings().await;
        assert!(clean, "{stream:#}");
        assert_eq!((&stream["missing"], &stream["doubled"], &stream["foreign"]), (&json!([]), &json!([]), &json!(0)));
        load.proceeds(20).await;
    }
    load.stop().await;
    nothing_is_lost(&scene.convoke, &scene.js, &load.ledger).await;
}

#[tokio::test]
async fn many_pages_of_missing_events_are_found_and_put_back_under_load() {
    let scene = Scene::new().await;
    // Rows of a log made by hand, well beyond a page of the log and of the stream.
    scene
        .sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
             INSERT INTO events (event_id, subscriber_id, event, occurred_at, received_at, source, deliveries,
                 last_delivered_at, event_info)
             SELECT printf('01a0c4b0-0000-8000-8000-%012x', i), '1', 'meeting.end', '2026-09-01T00:00:00.000Z',
                 strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'push', 1, '2026-09-01T00:00:00.000Z',
                 '{\"event\":\"meeting.end\",\"timestamp\":1,\"payload\":{}}' FROM n",
        )
        .await;
    stream_holds(&scene.js, 4010, LONG_TIMEOUT).await;
    scene.js.delete_stream(STREAM).await.expect("deleted");
    eventually("the stream is made again", TEN, async || scene.js.get_stream(STREAM).await).await;
    let (clean, stream) = scene.stream_findings().await;
    assert!(!clean);
    assert_eq!(stream["missing"].as_array().map(Vec::len), Some(4010));
    assert!(scene.replay_missing().await.stdout.contains("published 4010 events"));
    let (clean, stream) = scene.stream_findings().await;
    assert!(clean);
    found(&stream, json!({"expected": 4010, "messages": 4010}));
    assert_eq!(first_copies_in_log_order(&read_stream(&scene.js, STREAM).await).len(), 4010);
}
