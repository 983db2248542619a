//! The work lists: what is asked of the platform, and what came of it.

use std::{sync::Arc, time::Duration};

use convoke_core::id::Seq;
use convoke_log::{
    Details, EnrichmentOutcome, EnrichmentWorkItem, FinishedRecording, Moved, RecordingOutcome, RecordingWorkItem,
    Store, WorkCounts,
};

use super::fixture::{Backend, append};
use crate::support::sign::{APP_ID, NOW, millis};

const CURSOR: &str = "recordings";
const TTL: Duration = Duration::from_secs(30);
const HOUR: i64 = 3_600_000;

fn finish_info(uuid: Option<&str>, at: i64) -> String {
    let uuid = uuid.map(|uuid| format!(r#","meetingUUID":"{uuid}""#)).unwrap_or_default();
    format!(
        r#"{{"event":"record.finish","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"960000017"{uuid}}}}}}}"#
    )
}

fn finish(seq: i64, uuid: &str, at: i64) -> FinishedRecording {
    FinishedRecording {
        seq: Seq(seq),
        subscriber_id: APP_ID.to_owned(),
        meeting_uuid: uuid.to_owned(),
        meeting_id: Some("960000017".to_owned()),
        finished_at: millis(at),
        due_at: millis(at + 60_000),
    }
}

async fn leased(log: &Arc<dyn Store>) {
    log.lease(CURSOR, "us", TTL).await.expect("a database").expect("the lease is free");
}

/// Queues these as rows up to the last of them.
async fn queue(log: &Arc<dyn Store>, finishes: &[FinishedRecording]) {
    let to = finishes.last().expect("some").seq;
    let moved = log.queue(CURSOR, "us", to, TTL, finishes).await.expect("a database");
    assert_eq!(moved, Moved::Yes { wanted: false });
}

async fn due(log: &Arc<dyn Store>, at: i64) -> Vec<RecordingWorkItem> {
    log.due_recordings(millis(at), 10).await.expect("a database")
}

async fn settle(log: &Arc<dyn Store>, fetch: &RecordingWorkItem, fetched: RecordingOutcome) -> bool {
    log.settle_recording(fetch, &fetched).await.expect("a database")
}

fn later(at: i64) -> RecordingOutcome {
    RecordingOutcome::Later { due_at: millis(at), reason: "not yet".to_owned() }
}

fn given_up(at: i64) -> RecordingOutcome {
    RecordingOutcome::GivenUp { at: millis(at), reason: "never".to_owned() }
}

fn ready(info: &str) -> RecordingOutcome {
    RecordingOutcome::Ready { event_info: info.to_owned(), due_at: millis(NOW) }
}

pub async fn finished_recordings_are_found_between_two_places(backend: Backend) {
    let log = backend.log().await;
    let join = r#"{"event":"meeting.join","timestamp":1735700465789,"payload":{"meetingInfo":{"meetingUUID":"x"}}}"#;
    let long = "u".repeat(1_001);
    let infos = [
        finish_info(Some("a"), NOW),
        join.to_owned(),
        finish_info(None, NOW),
        finish_info(Some(&long), NOW),
        finish_info(Some("b"), NOW + 1),
        finish_info(Some("c"), NOW + 2),
    ];
    append(&log, &infos).await;
    let places: Vec<Seq> = log.read(Seq::START, 10).await.expect("a database").iter().map(|row| row.seq).collect();
    let found = log.finished_recordings(Seq::START, places[4]).await.expect("a database");
    let due_when_finished = |finish: FinishedRecording| FinishedRecording { due_at: finish.finished_at, ..finish };
    let expected = [finish(places[0].0, "a", NOW), finish(places[4].0, "b", NOW + 1)].map(due_when_finished);
    assert_eq!(found, expected);
    let found = log.finished_recordings(places[0], places[5]).await.expect("a database");
    assert_eq!(found.iter().map(|finish| finish.meeting_uuid.as_str()).collect::<Vec<_>>(), ["b", "c"]);
}

pub async fn recordings_are_queued_once_and_with_the_cursors_move_or_not_at_all(backend: Backend) {
    let log = backend.log().await;
    let first = [finish(3, "a", NOW)];
    let moved = log.queue(CURSOR, "us", Seq(3), TTL, &first).await.expect("a database");
    assert_eq!(moved, Moved::LeaseLost, "without the lease");
    assert_eq!(due(&log, NOW + HOUR).await, []);
    leased(&log).await;
    queue(&log, &first).await;
    let moved = log.queue(CURSOR, "another", Seq(9), TTL, &[finish(4, "b", NOW)]).await.expect("a database");
    assert_eq!(moved, Moved::LeaseLost);
    let position = || async { log.lease(CURSOR, "us", TTL).await.expect("a database").expect("ours").position };
    assert_eq!(position().await, Seq(3));

    assert_eq!(due(&log, NOW + 59_999).await, [], "it is not due yet");
    let expected = RecordingWorkItem {
        subscriber_id: APP_ID.to_owned(),
        meeting_uuid: "a".to_owned(),
        meeting_id: Some("960000017".to_owned()),
        finishes: 1,
        finished_at: millis(NOW),
        tries: 0,
        ready: false,
        event_info: None,
    };
    assert_eq!(due(&log, NOW + 60_000).await, std::slice::from_ref(&expected));
    // The cursor was deleted, and starts over.
    backend.execute("DELETE FROM cursors").await;
    leased(&log).await;
    queue(&log, &first).await;
    assert_eq!(due(&log, NOW + 60_000).await, std::slice::from_ref(&expected));
    let older = FinishedRecording { meeting_id: None, ..finish(5, "a", NOW - HOUR) };
    queue(&log, &[older]).await;
    let now_due = due(&log, NOW + 60_000).await;
    assert_eq!(now_due, [RecordingWorkItem { finishes: 2, ..expected }], "the newest counts, and what is known stays");
    assert_eq!(log.work_counts().await.expect("a database").0, WorkCounts { waiting: 1, given_up: 0 });
}

pub async fn the_newest_recordings_come_first_and_before_them_what_is_to_be_appended(backend: Backend) {
    let log = backend.log().await;
    leased(&log).await;
    queue(&log, &[finish(1, "old", NOW - HOUR), finish(2, "new", NOW), finish(3, "middle", NOW - 1)]).await;
    let uuids = async || {
        let due = due(&log, NOW + HOUR).await;
        due.iter().map(|fetch| fetch.meeting_uuid.clone()).collect::<Vec<_>>()
    };
    assert_eq!(uuids().await, ["new", "middle", "old"]);
    let old = due(&log, NOW + HOUR).await.remove(2);
    assert!(settle(&log, &old, ready("{}")).await);
    assert_eq!(uuids().await, ["old", "new", "middle"]);
    assert_eq!(log.due_recordings(millis(NOW + HOUR), 2).await.expect("a database").len(), 2);
}

pub async fn a_recording_is_settled_by_whoever_asked_first(backend: Backend) {
    let log = backend.log().await;
    leased(&log).await;
    queue(&log, &[finish(1, "a", NOW)]).await;
    let asked = due(&log, NOW + HOUR).await.remove(0);
    assert!(settle(&log, &asked, later(NOW + 2 * HOUR)).await);
    assert_eq!(due(&log, NOW + HOUR).await, []);
    let again = due(&log, NOW + 2 * HOUR).await.remove(0);
    assert_eq!(again, RecordingWorkItem { tries: 1, ..asked.clone() });

    assert!(settle(&log, &again, ready(r#"{"one":1}"#)).await);
    assert!(!settle(&log, &again, ready(r#"{"two":2}"#)).await, "another replica was first: its bytes are appended");
    assert!(!settle(&log, &again, later(NOW)).await);
    let made = due(&log, NOW).await.remove(0);
    assert_eq!(made, RecordingWorkItem { ready: true, event_info: Some(r#"{"one":1}"#.to_owned()), ..again.clone() });

    let published = || RecordingOutcome::Published { due_at: millis(NOW + HOUR) };
    assert!(!settle(&log, &again, published()).await, "what was not read as ready was not appended");
    assert!(settle(&log, &made, published()).await);
    assert!(!settle(&log, &made, published()).await);
    assert_eq!(due(&log, NOW + 9 * HOUR).await, [], "it is done");

    queue(&log, &[finish(2, "b", NOW)]).await;
    let hopeless = due(&log, NOW + HOUR).await.remove(0);
    assert!(settle(&log, &hopeless, given_up(NOW + HOUR)).await);
    assert_eq!(due(&log, NOW + 9 * HOUR).await, []);
    assert_eq!(log.work_counts().await.expect("a database").0, WorkCounts { waiting: 0, given_up: 1 });
    let reason = backend.value("SELECT reason FROM fetches WHERE meeting_uuid = 'b'").await;
    assert_eq!(reason, "never");
}

pub async fn a_further_recording_of_a_run_is_asked_for_and_what_was_made_is_still_appended(backend: Backend) {
    let log = backend.log().await;
    leased(&log).await;
    queue(&log, &[finish(1, "a", NOW)]).await;
    let asked = due(&log, NOW + HOUR).await.remove(0);
    queue(&log, &[finish(2, "a", NOW + 1)]).await;
    assert!(!settle(&log, &asked, ready("{}")).await, "the answer may not know the second one");
    let both = due(&log, NOW + HOUR).await.remove(0);
    assert_eq!((both.finishes, both.finished_at), (2, millis(NOW + 1)));

    assert!(settle(&log, &both, ready("{}")).await);
    let made = due(&log, NOW + HOUR).await.remove(0);
    queue(&log, &[finish(3, "a", NOW + 2)]).await;
    let still = due(&log, NOW + HOUR).await.remove(0);
    assert!(still.ready && still.finishes == 3, "{still:?}");
    assert!(settle(&log, &made, RecordingOutcome::Published { due_at: millis(NOW + HOUR) }).await);
    let third = due(&log, NOW + HOUR).await.remove(0);
    let expected = RecordingWorkItem {
        finishes: 3,
        finished_at: millis(NOW + 2),
        ready: false,
        event_info: Some("{}".to_owned()),
        ..made
    };
    assert_eq!(third, expected, "what was answered before is known");

    assert!(settle(&log, &third, given_up(NOW + HOUR)).await);
    queue(&log, &[finish(4, "a", NOW + 3)]).await;
    assert_eq!(due(&log, NOW + HOUR).await.len(), 1, "also after the others were given up");
}

pub async fn what_was_put_off_or_given_up_by_a_clock_that_was_days_ahead_is_due_once_it_is_right(backend: Backend) {
    let (log, jumped) = (backend.log().await, NOW + 8 * 24 * HOUR);
    leased(&log).await;
    queue(&log, &[finish(1, "queued", jumped), finish(2, "later", NOW), finish(3, "given up", NOW + 1)]).await;
    let asked = due(&log, NOW + HOUR).await;
    for (fetch, fetched) in asked[1..].iter().zip([given_up(jumped), later(jumped)]) {
        assert!(settle(&log, fetch, fetched).await);
    }
    assert_eq!(due(&log, jumped - HOUR).await, [], "an hour is no jump");
    let again = due(&log, NOW + HOUR).await;
    assert_eq!(again.len(), 3, "{again:?}");
    for (fetch, fetched) in again.iter().zip([later(NOW + 2 * HOUR), ready("{}"), given_up(NOW + HOUR)]) {
        assert!(settle(&log, fetch, fetched).await);
    }
    let ready = due(&log, NOW + HOUR).await;
    assert!(matches!(&ready[..], [fetch] if fetch.ready), "and what is said now is final: {ready:?}");
    assert!(settle(&log, &ready[0], RecordingOutcome::Published { due_at: millis(NOW + HOUR) }).await);
    assert_eq!(due(&log, NOW + HOUR).await, []);

    // One that was given up then, and of which a further recording finishes, waits like any other.
    queue(&log, &[finish(4, "more", NOW)]).await;
    let more = due(&log, NOW + HOUR).await.remove(0);
    assert!(settle(&log, &more, given_up(jumped)).await);
    queue(&log, &[finish(5, "more", NOW + HOUR)]).await;
    assert_eq!(due(&log, NOW + HOUR).await, []);

    for uuid in ["first", "second", "third"] {
        meeting(&backend, uuid, "live", 0, NOW).await;
    }
    let reason = || "not yet".to_owned();
    let aside = runs(&log, NOW).await;
    let wait = EnrichmentOutcome::Later { due_at: millis(jumped), reason: reason() };
    log.settle_enrichment(&aside[0], &wait).await.expect("a database");
    let never = |at: i64| EnrichmentOutcome::GivenUp { at: millis(at), details: Details::default(), reason: reason() };
    log.settle_enrichment(&aside[1], &never(jumped)).await.expect("a database");
    assert_eq!(runs(&log, NOW).await.len(), 3);
    for run in &aside {
        log.settle_enrichment(run, &never(NOW)).await.expect("a database");
    }
    assert_eq!(runs(&log, NOW).await, []);
}

async fn meeting(backend: &Backend, uuid: &str, status: &str, modifications: i64, last: i64) {
    let (first, last) = (millis(NOW), millis(last));
    let columns = "subscriber_id, meeting_uuid, meeting_id, status, modifications, stays, participants, \
         peak_participants, recordings, first_event_at, last_event_at, internal";
    backend
        .execute(&format!(
            "INSERT INTO meetings ({columns})
             VALUES ('{APP_ID}', '{uuid}', '960000017', '{status}', {modifications}, 0, 0, 0, 0, '{first}', '{last}', '{{}}')"
        ))
        .await;
}

async fn runs(log: &Arc<dyn Store>, at: i64) -> Vec<EnrichmentWorkItem> {
    log.queue_enrichments(millis(at)).await.expect("a database");
    log.due_enrichments(millis(at), 10).await.expect("a database")
}

fn uuids(runs: &[EnrichmentWorkItem]) -> Vec<&str> {
    runs.iter().map(|run| run.meeting_uuid.as_str()).collect()
}

fn details() -> Details {
    Details {
        subject: Some("王's sync".to_owned()),
        scheduled_start_at: Some(millis(NOW)),
        scheduled_end_at: Some(millis(NOW + HOUR)),
        host: Some("Demo User".to_owned()),
        host_user_uuid: Some("u1".to_owned()),
        corp_id: Some("corp".to_owned()),
        conference_type: Some("CYCLE".to_owned()),
        webinar: Some(false),
        virtual_room: Some("989".to_owned()),
        invitations: Vec::new(),
    }
}

/// A run's enriched columns, times in milliseconds.
async fn columns(backend: &Backend, uuid: &str) -> String {
    let time = |column: &str| match backend.postgres {
        Some(_) => format!("CAST(CAST(extract(epoch FROM {column}) * 1000 AS bigint) AS text)"),
        None => format!("CAST(CAST(round((julianday({column}) - 2440587.5) * 86400000) AS INTEGER) AS TEXT)"),
    };
    let (start, end) = (time("scheduled_start_at"), time("scheduled_end_at"));
    let columns = format!(
        "coalesce(subject, '-') || '|' || coalesce({start}, '-') || '|' || coalesce({end}, '-') || '|' ||
         coalesce(host, '-') || coalesce(' ' || host_user_uuid, '') || '|' || coalesce(corp_id, '-') ||
         coalesce(' ' || conference_type, '') || coalesce(' in ' || virtual_room, '') || CASE WHEN webinar THEN ' webinar' ELSE '' END"
    );
    backend.value(&format!("SELECT {columns} FROM meetings WHERE meeting_uuid = '{uuid}'")).await
}

pub async fn runs_are_enriched_once_the_newest_first_and_cancelled_ones_are_not(backend: Backend) {
    let log = backend.log().await;
    meeting(&backend, "old", "concluded", 0, NOW + 1).await;
    meeting(&backend, "new", "live", 0, NOW + 2).await;
    meeting(&backend, "cancelled", "cancelled", 0, NOW + 3).await;
    let due = runs(&log, NOW).await;
    assert_eq!(uuids(&due), ["new", "old"]);
    let expected = EnrichmentWorkItem {
        subscriber_id: APP_ID.to_owned(),
        meeting_uuid: "new".to_owned(),
        meeting_id: Some("960000017".to_owned()),
        meeting_cycle_sub_id: None,
        status: "live".to_owned(),
        first_event_at: millis(NOW),
        last_event_at: millis(NOW + 2),
        tries: 0,
    };
    assert_eq!(due[0], expected);
    assert_eq!(log.queue_enrichments(millis(NOW)).await.expect("a database"), 0, "they are there already");

    log.settle_enrichment(&due[0], &EnrichmentOutcome::Known(details())).await.expect("a database");
    let enriched = format!("王's sync|{NOW}|{}|Demo User u1|corp CYCLE in 989", NOW + HOUR);
    assert_eq!(columns(&backend, "new").await, enriched);
    let wait = EnrichmentOutcome::Later { due_at: millis(NOW + HOUR), reason: "not yet".to_owned() };
    log.settle_enrichment(&due[1], &wait).await.expect("a database");
    assert_eq!(columns(&backend, "old").await, "-|-|-|-|-");
    assert_eq!(runs(&log, NOW + HOUR - 1).await, []);
    let again = runs(&log, NOW + HOUR).await;
    assert_eq!((uuids(&again), again[0].tries), (vec!["old"], 1));
    assert_eq!(log.work_counts().await.expect("a database").1, WorkCounts { waiting: 1, given_up: 0 });

    let known = Details { corp_id: Some("corp".to_owned()), ..Details::default() };
    let given_up = EnrichmentOutcome::GivenUp { at: millis(NOW + HOUR), details: known, reason: "never".to_owned() };
    log.settle_enrichment(&again[0], &given_up).await.expect("a database");
    assert_eq!(columns(&backend, "old").await, "-|-|-|-|corp");
    assert_eq!(runs(&log, NOW + 9 * HOUR).await, []);
    assert_eq!(log.work_counts().await.expect("a database").1, WorkCounts { waiting: 0, given_up: 1 });
}

pub async fn a_run_that_changes_is_enriched_again_and_a_row_made_anew_has_what_was_known(backend: Backend) {
    let log = backend.log().await;
    meeting(&backend, "a", "scheduled", 0, NOW).await;
    let due = runs(&log, NOW).await;
    log.settle_enrichment(&due[0], &EnrichmentOutcome::Known(details())).await.expect("a database");
    let enriched = columns(&backend, "a").await;

    backend.execute("DELETE FROM meetings").await;
    meeting(&backend, "b", "live", 0, NOW).await;
    meeting(&backend, "a", "live", 1, NOW).await;
    assert_eq!(columns(&backend, "a").await, enriched, "as when the tables are rebuilt");
    assert_eq!(columns(&backend, "b").await, "-|-|-|-|-");

    let mut due = runs(&log, NOW).await;
    due.sort_by(|a, b| a.meeting_uuid.cmp(&b.meeting_uuid));
    assert_eq!(uuids(&due), ["a", "b"], "a was modified since");
    let subject = Details { subject: Some("Another".to_owned()), ..Details::default() };
    log.settle_enrichment(&due[0], &EnrichmentOutcome::Known(subject)).await.expect("a database");
    assert_eq!(
        columns(&backend, "a").await,
        enriched.replace("王's sync", "Another"),
        "what is not answered now stays"
    );
    let given_up =
        EnrichmentOutcome::GivenUp { at: millis(NOW), details: Details::default(), reason: "never".to_owned() };
    log.settle_enrichment(&due[1], &given_up).await.expect("a database");
    assert_eq!(runs(&log, NOW).await, []);
    backend.execute("UPDATE meetings SET status = 'concluded'").await;
    let due = runs(&log, NOW).await;
    assert_eq!((uuids(&due), due[0].tries), (vec!["b"], 0), "it may be found now");
}
