//! Somebody of whom only a name is known, as of most guests.

use convoke::forget::suppression::{PlatformStay, forgotten_stays};
use convoke_core::time::Millis;
use convoke_log::RunKey;
use serde_json::{Value, json};

use super::person::{BOB, body, deliver, dump, event};
use crate::{
    log_contract::fixture::Backend,
    replicas::newest_bus,
    support::{
        http,
        process::Convoke,
        rig::{APP_ID, LONG_TIMEOUT, PATH, STREAM, convoke, read_stream, stream_holds},
        sign::NOW,
    },
};

const GUEST: &str = "A guest of no account";

fn stay(meeting: &str, joined: i64) -> [String; 2] {
    let attendee = |left: i64| {
        let left = if left > 0 { NOW + left } else { 0 };
        format!(r#""displayName":"{GUEST}","joinTime":{},"leftTime":{left}"#, NOW + joined)
    };
    [
        event(meeting, "meeting.join", joined + 5, &attendee(0)),
        event(meeting, "meeting.left", joined + 105, &attendee(joined + 100)),
    ]
}

async fn forget(convoke: &Convoke, more: &[&str]) -> Value {
    let finished = convoke.run(&[&["forget", "--yes", "--json"], more].concat()).await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).expect("a report")
}

pub async fn a_guest_of_whom_only_a_name_is_known_is_forgotten_in_one_meeting_or_by_a_stay(backend: Backend) {
    let nats = newest_bus().await;
    let convoke = convoke(&backend.url, &nats.url()).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let infos = [&stay("11", 0)[..], &stay("22", 1_000), &stay("33", 2_000), &BOB.stay("11", 10, 50)].concat();
    deliver(&convoke, &backend, &infos).await;
    // Of no event: one that names the guest in the first meeting, one in the second.
    for (nonce, meeting) in [(1, "11"), (2, "22")] {
        let odd = format!(r#"{{"event":"meeting.join","payload":{{"x":["run-{meeting}","{GUEST}"]}}}}"#);
        assert_eq!(http::post(convoke.events, PATH, body(nonce, &odd), &[]).await.status, 200);
    }
    let js = nats.jetstream().await;
    stream_holds(&js, infos.len(), LONG_TIMEOUT).await;

    let dry = forget(&convoke, &["--meeting", "11", "--name", GUEST, "--dry-run"]).await;
    let found =
        json!({"events": 2, "stays": 1, "quarantined": 1, "hosts": 0, "invitations": 0, "people": 0, "messages": 2});
    assert_eq!(dry["found"], found, "{dry:#}");
    assert_eq!(forget(&convoke, &["--meeting", "11", "--name", GUEST]).await["erased"], found);
    let stay_of = |run: &str| {
        format!(
            "SELECT CAST(stay_id AS text) FROM attendance WHERE display_name = '{GUEST}' AND meeting_uuid = '{run}'"
        )
    };
    let by_stay = forget(&convoke, &["--stay", &backend.value(&stay_of("run-22")).await]).await;
    assert_eq!(by_stay["erased"], found, "{by_stay:#}");

    // The third meeting's guest of that name may be somebody else, and Bob is.
    let named = format!("SELECT count(*) FROM events WHERE display_name = '{GUEST}' AND meeting_uuid = 'run-33'");
    assert_eq!(backend.value(&named).await, "2");
    assert_eq!(backend.value("SELECT count(*) FROM events WHERE event_info IS NULL").await, "4");
    assert_eq!(backend.value("SELECT count(*) FROM events WHERE display_name = 'Bob'").await, "2");
    let dumped = dump(&backend).await;
    assert!(dumped.contains(GUEST), "of the third meeting");
    assert_eq!(backend.value("SELECT count(*) FROM quarantine WHERE length(body) > 0").await, "0");
    let left = read_stream(&js, STREAM).await;
    assert_eq!(left.iter().filter(|message| message.body.contains(GUEST)).count(), 2);
    assert_eq!(left.len(), infos.len() - 4);

    // The guest's stay in the platform's history is known as forgotten in these meetings, and in no other.
    let log = backend.open();
    let stay = PlatformStay { name: Some(GUEST), number: None, at: Millis::new(NOW) };
    for (run, expected) in [("run-11", true), ("run-22", true), ("run-33", false)] {
        let run = RunKey { subscriber_id: APP_ID.into(), meeting_uuid: run.into() };
        assert_eq!(forgotten_stays(&*log, &run, &[stay]).await.expect("an answer"), [expected], "{run:?}");
    }
    log.close().await;
}
