//! Test data deleted, and nothing else.

use std::{sync::Arc, time::Duration};

use convoke::{
    audit::{
        mark::Setback,
        watch::{CheckOutcome, StreamMetrics, StreamWatch},
    },
    forget::ForgetTestData,
    metrics::Registry,
};
use convoke_bus::{self as bus, Bus};
use convoke_core::event::TEST_MEETINGS;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    person::{BOB, body, deliver, dump, event, meetings, settled},
    tables::Running,
};
use crate::{
    log_contract::fixture::{Backend, append},
    replicas::newest_bus,
    support::{
        http,
        rig::{LONG_TIMEOUT, PATH, STREAM, TEN, audit, convoke, read_stream, stream_holds},
    },
    tables::as_json::Seen,
};

/// Meetings as `convoke send` and the simulator make them; one has the number of a real one.
fn test_meetings() -> Vec<String> {
    let mut all = vec![event("22", "meeting.started", 2_000, "")];
    all.extend(BOB.stay("22", 2_010, 2_100));
    all.push(event("22", "record.finish", 2_150, ""));
    all.extend(BOB.stay("44", 2_200, 2_300));
    all.iter().map(|info| info.replace("\"run-", &format!("\"{TEST_MEETINGS}00000000000000"))).collect()
}

/// Rows of work lists, as if the platform were asked about every run.
async fn asked(backend: &Backend) {
    for rows in [
        "fetches (subscriber_id, meeting_uuid, finishes, finished_at, last_seq, state, tries)
         SELECT subscriber_id, meeting_uuid, 1, first_event_at, 1, 'published', 1",
        "enrichments (subscriber_id, meeting_uuid, state, status, modifications, tries)
         SELECT subscriber_id, meeting_uuid, 'enriched', status, 0, 1",
    ] {
        backend.execute(&format!("INSERT INTO {rows} FROM meetings WHERE true ON CONFLICT DO NOTHING")).await;
    }
}

async fn counted(backend: &Backend) -> Vec<String> {
    let mut counts = Vec::new();
    for table in ["events", "quarantine", "fetches", "enrichments"] {
        counts.push(backend.value(&format!("SELECT count(*) FROM {table}")).await);
    }
    counts
}

fn read(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

pub async fn test_data_is_deleted_everywhere_and_all_else_stays(backend: Backend) {
    let nats = newest_bus().await;
    let mut service = convoke(&backend.url, &nats.url()).start().await;
    service.wait_ready(LONG_TIMEOUT).await;
    let (real, tests) = (meetings(), test_meetings());
    deliver(&service, &backend, &real).await;
    let odd = |run: &str| format!(r#"{{"event":"meeting.join","payload":{{"x":[{{"meetingUUID":"{run}"}}]}}}}"#);
    assert_eq!(http::post(service.events, PATH, body(1, &odd("run-11")), &[]).await.status, 200);
    asked(&backend).await;
    let (seen, before) = (Seen::of(&backend).await, counted(&backend).await);

    deliver(&service, &backend, &tests).await;
    let test_run = format!("{TEST_MEETINGS}0123456789abcdef");
    assert_eq!(http::post(service.events, PATH, body(2, &odd(&test_run)), &[]).await.status, 200);
    asked(&backend).await;
    let js = nats.jetstream().await;
    stream_holds(&js, real.len() + tests.len(), LONG_TIMEOUT).await;
    let replay = service.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let copies = stream_holds(&js, 2 * (real.len() + tests.len()), LONG_TIMEOUT).await;
    let is_real = |message: &&crate::support::rig::Message| !message.body.contains(TEST_MEETINGS);
    let kept: Vec<u64> = copies.iter().filter(is_real).map(|message| message.stream_sequence).collect();
    assert_eq!(kept.len(), 2 * real.len());

    // A stream watch has seen all of it.
    service.signal(Signal::TERM);
    assert!(service.wait_exit(LONG_TIMEOUT).await.success());
    let (log, metrics) = (backend.open(), StreamMetrics::new(&Registry::default()));
    let options = bus::Options::new(nats.url(), STREAM, "meetings");
    let bus = Arc::new(Bus::connect(options).await.expect("a bus"));
    bus.wait_connected(TEN).await.expect("a connection");
    let mut watch = StreamWatch::new(log.clone(), bus, metrics.clone(), "us".to_owned(), None, 0);
    let hour = Duration::from_secs(3_600);
    assert!(log.lease("bus", "us", hour).await.expect("a database").is_some());
    assert_eq!(watch.look(LONG_TIMEOUT).await.expect("it can be read"), CheckOutcome::Done);
    log.release("bus", "us").await.expect("released");
    service.restart().await;
    service.wait_ready(LONG_TIMEOUT).await;

    let nobody = service.run(&["forget", "--test-data"]).await;
    assert!(nobody.code() == 2 && nobody.stderr.contains("--yes"), "{nobody:?}");
    let both = service.run(&["forget", "--test-data", "--account", "a", "--yes"]).await;
    assert!(both.code() == 2 && both.stderr.contains("cannot be used with"), "{both:?}");
    let expected = json!({"events": 6, "meetings": 2, "stays": 2, "recordings": 1, "work_items": 4, "quarantined": 1,
        "messages": 12});
    let dry = service.run(&["forget", "--test-data", "--dry-run", "--json"]).await;
    assert_eq!(read(&dry.stdout), json!({"dry_run": true, "found": expected}), "{dry:?}");
    let deleted = service.run(&["forget", "--test-data", "--yes", "--json"]).await;
    assert_eq!(read(&deleted.stdout), json!({"dry_run": false, "deleted": expected}), "{deleted:?}");
    let again = service.run(&["forget", "--test-data", "--yes"]).await;
    assert!(again.code() == 0 && again.stdout.contains("log          0 events"), "{again:?}");

    // The service goes on, and nothing comes back.
    let last = event("88", "meeting.started", 5_000, "");
    deliver(&service, &backend, std::slice::from_ref(&last)).await;
    let messages = stream_holds(&js, kept.len() + 1, LONG_TIMEOUT).await;
    assert!(messages.iter().all(|message| !message.body.contains(TEST_MEETINGS)));
    assert!(kept.iter().all(|kept| messages.iter().any(|message| message.stream_sequence == *kept)));
    assert!(!dump(&backend).await.contains(TEST_MEETINGS), "in the database");
    backend.execute("DELETE FROM meetings WHERE meeting_uuid = 'run-88'").await;
    assert_eq!(Seen::of(&backend).await, seen);
    let after = counted(&backend).await;
    assert_eq!(after[1..], before[1..]);
    assert_eq!(after[0], (real.len() + 1).to_string());
    assert_eq!(backend.value("SELECT count(*) FROM erased_events").await, "0");

    let (code, findings) = audit(&service, None).await;
    assert_eq!((code, &findings["stream"]["missing"]), (0, &json!([])), "{findings:#}");
    let check = service.run(&["check"]).await;
    assert!(check.stdout.contains("ok    stream"), "{}", check.stdout);
    service.signal(Signal::TERM);
    assert!(service.wait_exit(LONG_TIMEOUT).await.success());
    assert!(log.lease("bus", "us", hour).await.expect("a database").is_some());
    assert_eq!(watch.look(LONG_TIMEOUT).await.expect("it can be read"), CheckOutcome::Done);
    for kind in [Setback::Recreated, Setback::Backwards, Setback::Purged, Setback::Deleted] {
        assert_eq!(metrics.setbacks.of(kind).get(), 0, "{kind:?}");
    }
    assert_eq!((metrics.missing.get(), metrics.unknown.get()), (0, 0));
    assert_eq!(read_stream(&js, STREAM).await.len(), kept.len() + 1);
}

pub async fn deleting_test_data_can_be_broken_off_anywhere_and_goes_on(backend: Backend) {
    let log = backend.log().await;
    append(&log, &meetings()).await;
    let running = Running::start(&log);
    settled(&backend).await;
    let seen = Seen::of(&backend).await;
    append(&log, &test_meetings()).await;
    settled(&backend).await;
    let mut broken = 0;
    for tries in 0_u64.. {
        // Dropped in the middle, as the end of the process would drop it: whatever was under way may be done or not.
        let patience = Duration::from_millis(3 + 7 * tries);
        let forget = ForgetTestData::new(backend.open(), None, "the command".to_owned());
        if tokio::time::timeout(patience, forget.delete(|_| {})).await.is_ok_and(|done| done.is_ok()) {
            break;
        }
        broken += 1;
        assert!(patience < LONG_TIMEOUT, "it never ends");
    }
    assert!(broken > 1, "it was broken off {broken} times");
    running.end().await;
    assert!(!dump(&backend).await.contains(TEST_MEETINGS), "in the database");
    assert_eq!(Seen::of(&backend).await, seen);
    assert_eq!(backend.value("SELECT count(*) FROM erasures WHERE finished_at IS NULL").await, "0");
    assert_eq!(backend.value("SELECT count(*) FROM erased_events").await, "0");
}
