//! The cursor `meetings`, step by step.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use convoke::{
    cursor::{Cursor, Progress},
    projection::{CURSOR, Projector},
};
use convoke_core::event::{Delivery, Source, Subscriber};
use convoke_core::id::Seq;
use convoke_core::time::Millis;
use convoke_core::verify::{Keyring, pulled, verify};
use convoke_log::recent::RecentRows;
use convoke_log::{Append, Changes, Lease, Moved, Store};
use convoke_simulator::History;
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde_json::json;

use super::as_json::Seen;
use crate::{
    log_contract::fixture::{Backend, append},
    support::{
        sign::{APP_ID, KEY, NOW, millis},
        wait::eventually,
    },
};

pub const UUID: &str = "11112222333344445555666677778888";

pub fn cursor(log: &Arc<dyn Store>, owner: &str) -> Projector {
    Projector::new(log.clone(), owner.to_owned())
}

/// Reads the log to its end.
pub async fn catch_up(tables: &mut Projector) {
    while tables.tick().await.expect("a step") != Progress::Idle {}
}

/// The first events of a simulated enterprise's days, as they are appended.
pub fn happened(events: u64) -> Vec<Append> {
    let keyring = Keyring::new(&[Subscriber { app_id: APP_ID.into(), keys: vec![KEY.into()], name: None }]);
    let read = |(at, body): (Millis, Bytes)| {
        let delivery = Delivery { received_at: at, request_id: None, traceparent: None };
        let verified = Arc::new(verify(&body, &keyring, &delivery).expect("it is signed").verified);
        Append { verified, deliveries: 1, last_delivered_at: at }
    };
    History::new(APP_ID, KEY.as_bytes(), events, (2, millis(NOW)), 5).map(read).collect()
}

/// An event of the run at `ms` after [`NOW`].
pub fn event(event: &str, ms: i64, attendee: &str) -> String {
    event_of(UUID, event, ms, attendee)
}

pub fn event_of(uuid: &str, event: &str, ms: i64, attendee: &str) -> String {
    let attendee = if attendee.is_empty() { String::new() } else { format!(r#","attendeeInfo":{{{attendee}}}"#) };
    format!(
        r#"{{"event":"{event}","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"960000017","meetingUUID":"{uuid}"}}{attendee}}}}}"#,
        NOW + ms
    )
}

/// Members of `attendeeInfo`: who came `joined` ms after [`NOW`], and has left unless that is 0.
pub fn who(participant: &str, joined: i64, left: i64) -> String {
    let left = if left > 0 { NOW + left } else { 0 };
    format!(
        r#""userUUID":"user-{participant}","participantID":"{participant}","displayName":"Li","joinTime":{},"leftTime":{left}"#,
        NOW + joined
    )
}

pub async fn forget_everything(backend: &Backend) {
    for table in ["events", "cursors", "meetings", "attendance", "recordings", "identities", "unsettled"] {
        backend.execute(&format!("DELETE FROM {table}")).await;
    }
}

pub async fn the_order_and_the_pieces_in_which_events_come_do_not_matter(backend: Backend) {
    let log = backend.log().await;
    let mut events = happened(700);
    log.append(&events).await.expect("appended");
    catch_up(&mut cursor(&log, "a")).await;
    let expected = Seen::of(&backend).await;
    assert!(expected.meetings.len() > 20 && expected.attendance.len() > 200 && !expected.recordings.is_empty());
    for (seed, piece) in [(1, 1), (2, 7), (3, 300)] {
        forget_everything(&backend).await;
        events.shuffle(&mut SmallRng::seed_from_u64(seed));
        // A few single ones at first: each step, and each way from memory and back from the tables, is taken.
        let (single, rest) = events.split_at(40);
        let mut tables = cursor(&log, "a");
        for (number, piece) in single.chunks(1).chain(rest.chunks(piece.max(20))).enumerate() {
            log.append(piece).await.expect("appended");
            // Appended once more, as the platform does: no news.
            log.append(&piece[..1]).await.expect("appended");
            if number % 3 == 0 {
                catch_up(&mut tables).await;
            }
            if number % 5 == 0 {
                tables.release().await;
                tables = cursor(&log, "another");
            }
        }
        catch_up(&mut tables).await;
        tables.release().await;
        assert_eq!(Seen::of(&backend).await, expected, "seed {seed}");
    }
}

pub async fn a_cursor_that_follows_closely_goes_on_while_it_writes(backend: Backend) {
    let log = backend.log().await;
    let events = happened(1_500);
    log.append(&events).await.expect("appended");
    catch_up(&mut cursor(&log, "a")).await;
    let expected = Seen::of(&backend).await;
    assert!(expected.attendance.len() > 512, "more than one piece");
    forget_everything(&backend).await;
    // Some of it comes from memory, some of it from the log.
    let recent = Arc::new(RecentRows::with_max_rows(400));
    let mut tables = cursor(&log, "b").following(Arc::clone(&recent));
    for piece in events.chunks(600) {
        for batch in piece.chunks(200) {
            let first = log.append(batch).await.expect("appended").first.expect("they follow one another");
            recent.push(first, batch);
        }
        let mut steps = 0;
        while tables.tick().await.expect("a step") != Progress::Idle {
            steps += 1;
            assert!(steps < 20, "it does not get on");
        }
    }
    tables.release().await;
    assert_eq!(Seen::of(&backend).await, expected);
    let head = log.head().await.expect("a head").0.to_string();
    assert_eq!(backend.value("SELECT position FROM cursors WHERE name = 'meetings'").await, head);
}

pub async fn a_cursor_that_was_set_back_changes_nothing(backend: Backend) {
    let log = backend.log().await;
    log.append(&happened(300)).await.expect("appended");
    catch_up(&mut cursor(&log, "a")).await;
    let expected = Seen::of(&backend).await;
    backend.execute("DELETE FROM cursors").await;
    catch_up(&mut cursor(&log, "b")).await;
    assert_eq!(Seen::of(&backend).await, expected);
}

pub async fn the_tables_move_only_while_the_lease_is_held(backend: Backend) {
    let log = backend.log().await;
    append(&log, &[event("meeting.started", 0, "")]).await;
    let (mut first, mut second) = (cursor(&log, "first"), cursor(&log, "second"));
    assert_eq!(first.tick().await.expect("a step"), Progress::Worked);
    assert_eq!(second.tick().await.expect("a step"), Progress::Standby);
    let before = Seen::of(&backend).await;
    assert_eq!(before.meetings[0]["status"], "live");

    // Somebody else has the lease, and `first` does not know yet.
    backend.execute("UPDATE cursors SET lease_owner = 'second'").await;
    append(&log, &[event("meeting.join", 20, &who("p1", 10, 0))]).await;
    match first.tick().await {
        Err(lost) => assert!(lost.soon && lost.reason.contains("lease"), "{}", lost.reason),
        Ok(progress) => assert_eq!(progress, Progress::Standby, "the lease was so old that it was asked for"),
    }
    assert_eq!(Seen::of(&backend).await, before);
    let lease = Lease { cursor: CURSOR, owner: "first", ttl: Duration::from_secs(5) };
    assert_eq!(log.project(lease, Seq(9), &Changes::default()).await.expect("no error"), Moved::LeaseLost);
    assert_eq!(log.clear_tables(lease).await.expect("no error"), Moved::LeaseLost);
    assert_eq!(Seen::of(&backend).await, before);

    catch_up(&mut second).await;
    assert_eq!(Seen::of(&backend).await.attendance[0]["closed_by"], "open");
}

pub async fn what_was_backfilled_pairs_with_what_was_pushed(backend: Backend) {
    let log = backend.log().await;
    append(&log, &[event("meeting.started", 0, ""), event("meeting.join", 20, &who("p1", 10, 0))]).await;
    let history = |left: i64| {
        format!(
            r#""userUUID":null,"userAgent":null,"account":null,"participantID":null,"displayName":"Wang","joinTime":{},"leftTime":{left},"role":null,"callNumber":"+8657100000001""#,
            NOW + 30
        )
    };
    let known = format!(
        r#""userUUID":"user-p1","userAgent":null,"account":null,"participantID":"p1","displayName":"Li","joinTime":{},"leftTime":{},"role":null,"callNumber":null"#,
        NOW + 10,
        NOW + 500
    );
    let infos = [
        event("meeting.join", 30, &history(0)),
        event("meeting.left", 400, &history(NOW + 400)),
        event("meeting.left", 500, &known),
        event("meeting.end", 600, ""),
    ];
    let batch: Vec<Append> = infos
        .iter()
        .map(|info| {
            let verified = pulled(&APP_ID.into(), info, Source::Backfill, millis(NOW));
            Append { verified: Arc::new(verified), deliveries: 1, last_delivered_at: millis(NOW) }
        })
        .collect();
    log.append(&batch).await.expect("appended");
    catch_up(&mut cursor(&log, "a")).await;
    let seen = Seen::of(&backend).await;
    let mut stays: Vec<_> = seen
        .attendance
        .iter()
        .map(|row| json!([row["person"], row["participant_id"], row["closed_by"], row["duration_s"]]))
        .collect();
    stays.sort_by_key(ToString::to_string);
    assert_eq!(
        stays,
        [json!(["+8657100000001", null, "left", 0.37]), json!(["user-p1", "p1", "left", 0.49])],
        "{:?}",
        seen.attendance
    );
    assert_eq!(
        (&seen.meetings[0]["status"], &seen.meetings[0]["participants"], &seen.meetings[0]["peak_participants"]),
        (&json!("ended"), &json!(2), &json!(2))
    );
}

pub async fn a_recording_that_is_ready_has_its_details(backend: Backend) {
    let log = backend.log().await;
    append(&log, &[event("record.finish", 100, ""), event("record.finish", 9_000, "")]).await;
    let ready = format!(
        r#"{{"event":"record.ready","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"960000017","meetingUUID":"{UUID}"}},"recordInfo":{{"lengthSeconds":61,"sizeMB":12.5,"files":2,"viewUrl":"https://records.example/r/1","viewers":"enterprise"}}}}}}"#,
        NOW + 5_000
    );
    let verified = pulled(&APP_ID.into(), &ready, Source::Platform, millis(NOW));
    log.append(&[Append { verified: Arc::new(verified), deliveries: 1, last_delivered_at: millis(NOW) }])
        .await
        .expect("appended");
    catch_up(&mut cursor(&log, "a")).await;
    let seen = Seen::of(&backend).await;
    assert_eq!(seen.meetings[0]["recordings"], 2);
    let row = |finished: i64| {
        let finished = millis(NOW + finished).to_string();
        seen.recordings.iter().find(|row| row["finished_at"] == *finished).expect("a recording").clone()
    };
    let (early, late) = (row(100), row(9_000));
    assert_eq!(early["ready_at"], *millis(NOW + 5_000).to_string());
    assert_eq!(
        json!([early["length_s"], early["size_mb"], early["files"], early["view_url"], early["viewers"]]),
        json!([61, 12.5, 2, "https://records.example/r/1", "enterprise"])
    );
    assert_eq!((&late["ready_at"], &late["files"]), (&json!(null), &json!(null)));
}

pub async fn an_event_that_the_tables_never_take_is_set_aside_and_the_others_go_on(backend: Backend) {
    let log = backend.log().await;
    // A name that the database refuses, as it may refuse what nobody thought of.
    if backend.postgres.is_some() {
        backend.execute("ALTER TABLE attendance ADD CHECK (display_name <> 'poison')").await;
    } else {
        backend
            .execute(
                "CREATE TRIGGER poison BEFORE INSERT ON attendance WHEN new.display_name = 'poison'
                 BEGIN SELECT raise(ABORT, 'poison'); END",
            )
            .await;
    }
    let long = "u".repeat(4_000);
    let mut infos: Vec<String> =
        (1..=20).map(|n| event("meeting.join", n * 10, &who(&format!("p{n}"), n * 10, 0))).collect();
    infos[7] = infos[7].replace(r#""Li""#, r#""poison""#);
    infos[13] = event_of(&long, "meeting.started", 140, "");
    append(&log, &infos).await;
    catch_up(&mut cursor(&log, "a")).await;
    let seen = Seen::of(&backend).await;
    assert_eq!((seen.attendance.len(), &seen.meetings[0]["stays"]), (18, &json!(18)));
    let aside = log.list_set_aside(CURSOR, Seq::START, 10).await.expect("a list");
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert!(aside[0].reason.contains("cannot hold") && aside[1].reason.contains("too long"), "{aside:?}");

    // The run goes on without it.
    append(&log, &[event("meeting.end", 900, "")]).await;
    let mut tables = cursor(&log, "a");
    catch_up(&mut tables).await;
    assert!(Seen::of(&backend).await.attendance.iter().all(|row| row["closed_by"] == "meeting_end"));
}

pub async fn a_rebuild_makes_the_same_tables_as_the_steps_did(backend: Backend) {
    let log = backend.log().await;
    let events = happened(600);
    let mut tables = cursor(&log, "a");
    for piece in events.chunks(97) {
        log.append(piece).await.expect("appended");
        catch_up(&mut tables).await;
    }
    let expected = Seen::of(&backend).await;
    backend.execute("UPDATE meetings SET status = 'scheduled', stays = 99, internal = '{}'").await;
    backend.execute("DELETE FROM attendance WHERE closed_by = 'left'").await;
    backend.execute("UPDATE recordings SET meeting_uuid = 'another'").await;
    assert_ne!(Seen::of(&backend).await, expected);
    // Who holds the lease is asked for it, and goes on afterwards.
    let hands_over = eventually("the lease is asked for", Duration::from_secs(20), async || {
        tables.tick().await.expect("a step") == Progress::Standby
    });
    let mut last = Seq::START;
    let (rebuilt, _) = tokio::join!(cursor(&log, "b").rebuild(|at| last = at), hands_over);
    rebuilt.expect("rebuilt");
    assert_eq!((Seen::of(&backend).await, last), (expected, log.head().await.expect("a head")));
    append(&log, &[event("meeting.started", 0, "")]).await;
    catch_up(&mut tables).await;
    assert!(Seen::of(&backend).await.meetings.iter().any(|row| row["meeting_uuid"] == UUID));
}

pub async fn a_rebuild_that_was_broken_off_is_gone_on_with(backend: Backend) {
    let log = backend.log().await;
    log.append(&happened(300)).await.expect("appended");
    catch_up(&mut cursor(&log, "a")).await;
    let expected = Seen::of(&backend).await;
    let lease = Lease { cursor: CURSOR, owner: "a", ttl: Duration::from_secs(5) };
    assert!(matches!(log.clear_tables(lease).await, Ok(Moved::Yes { .. })));
    assert!(Seen::of(&backend).await.meetings.is_empty());
    catch_up(&mut cursor(&log, "a")).await;
    assert_eq!(Seen::of(&backend).await, expected);
    assert_eq!(log.runs_before_log().await.expect("a count"), 0);
    backend.execute("DELETE FROM events").await;
    let runs = i64::try_from(expected.meetings.len()).expect("few");
    assert_eq!(log.runs_before_log().await.expect("a count"), runs, "all would be lost");
    assert_eq!(log.table_counts().await.expect("counts")[0], runs);
}
