//! What retention deletes, and what holds it back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use convoke_core::event::Unreadable;
use convoke_core::id::Seq;
use convoke_log::{Appended, Options, RetentionHeld, Store, open};

use super::fixture::{Backend, append_at, everything};
use crate::support::sign::{APP_ID, NOW, millis, numbered};

const DAY: i64 = 86_400_000;
const LONG_TIMEOUT: Duration = Duration::from_secs(60);
const RETENTION: Duration = Duration::from_secs(30 * 86_400);

async fn kept(backend: &Backend) -> Arc<dyn Store> {
    backend.log().await;
    backend.open_with(Some(RETENTION))
}

async fn maintained(log: &Arc<dyn Store>, now: i64) {
    // More often than it deletes at once.
    for minute in 0..3 {
        log.maintain(millis(now + minute * 61_000)).await.expect("maintained");
    }
}

async fn held(log: &Arc<dyn Store>, now: i64) -> Option<RetentionHeld> {
    log.retention_held(millis(now)).await.expect("an answer")
}

pub async fn what_was_received_within_the_retention_stays_however_old_it_is(backend: Backend) {
    let log = kept(&backend).await;
    let (old, late, new) = (numbered(1, NOW - 60 * DAY), numbered(2, NOW - 100 * DAY), numbered(3, NOW));
    append_at(&log, &[&old], NOW - 60 * DAY).await;
    append_at(&log, &[&late, &new], NOW).await;
    maintained(&log, NOW).await;
    assert_eq!(held(&log, NOW).await, None);
    assert_eq!(everything(&log).await, [late.clone(), new.clone()]);
    // And goes when its time has come.
    let today = numbered(4, NOW + 31 * DAY);
    append_at(&log, &[&today], NOW + 31 * DAY).await;
    maintained(&log, NOW + 31 * DAY).await;
    let left = everything(&log).await;
    assert!(!left.contains(&late) && left.contains(&today), "{left:?}");
}

pub async fn a_clock_that_was_set_forward_deletes_nothing_and_a_young_event_makes_it_go_on(backend: Backend) {
    let log = kept(&backend).await;
    // Also rows of two weeks ago, which twenty days more would make old enough.
    let past = [numbered(1, NOW - 60 * DAY), numbered(2, NOW - 14 * DAY)];
    for (info, at) in past.iter().zip([NOW - 14 * DAY, NOW - 14 * DAY]) {
        append_at(&log, &[info], at).await;
    }
    append_at(&log, &[numbered(3, NOW)], NOW).await;
    maintained(&log, NOW).await;
    for jump in [20 * DAY, 90 * DAY] {
        let now = NOW + jump;
        // What arrives meanwhile is stamped by a clock that jumped too.
        append_at(&log, &[numbered(jump as usize, NOW)], now).await;
        maintained(&log, now).await;
        maintained(&backend.open_with(Some(RETENTION)), now).await;
        let why = held(&log, now).await.expect("it is held back");
        assert!(matches!(why, RetentionHeld::Clock { .. } | RetentionHeld::Quiet { .. }), "{why}");
    }
    let all = everything(&log).await;
    assert!(past.iter().all(|info| all.contains(info)) && all.len() == 5, "{all:?}");
    // The clock is right again.
    maintained(&log, NOW + 3_600_000).await;
    assert_eq!((held(&log, NOW + 3_600_000).await, everything(&log).await.len()), (None, 5));
    // Or it was right, and the service was off.
    let now = NOW + 90 * DAY;
    append_at(&log, &[numbered(9, now)], now).await;
    maintained(&log, now).await;
    let all = everything(&log).await;
    assert!(held(&log, now).await.is_none() && !all.contains(&past[0]), "{all:?}");
}

pub async fn a_cursor_that_reads_no_more_holds_retention_back_and_is_named(backend: Backend) {
    let log = kept(&backend).await;
    log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease");
    let old = numbered(1, NOW - 60 * DAY);
    append_at(&log, &[&old], NOW - 60 * DAY).await;
    append_at(&log, &[numbered(2, NOW)], NOW).await;
    maintained(&log, NOW).await;
    let why = held(&log, NOW).await.expect("it is held back");
    assert_eq!(why, RetentionHeld::Cursor { cursor: "bus".to_owned(), position: 0 });
    assert_eq!(everything(&log).await.len(), 2);
    let first = log.read(Seq::START, 1).await.expect("it can be read")[0].seq;
    log.advance("bus", "a", first, LONG_TIMEOUT).await.expect("moved");
    assert_eq!(held(&log, NOW).await, None);
    maintained(&backend.open_with(Some(RETENTION)), NOW + 600_000).await;
    assert_eq!(everything(&log).await, [numbered(2, NOW)]);
}

pub async fn old_entries_of_the_quarantine_are_deleted_unless_they_are_kept_for_ever(backend: Backend) {
    let log = backend.log().await;
    append_at(&log, &[numbered(1, NOW)], NOW).await;
    for (n, at) in [NOW - 91 * DAY, NOW - 89 * DAY].into_iter().enumerate() {
        let unreadable = Unreadable {
            subscriber_id: APP_ID.into(),
            received_at: millis(at),
            reason: "a test".to_owned(),
            body: Bytes::from(format!("body {n}")),
        };
        log.quarantine(&unreadable, 1).await.expect("kept");
    }
    maintained(&log, NOW).await;
    assert_eq!(log.counts().await.expect("counted").quarantined, 2);
    let quarantine_retention = Some(Duration::from_secs(90 * 86_400));
    let options = Options { url: backend.url.clone(), quarantine_retention, ..Options::default() };
    let log = open(&options).expect("a URL");
    // Not by a clock that jumped.
    maintained(&log, NOW + 300 * DAY).await;
    assert_eq!(log.counts().await.expect("counted").quarantined, 2);
    maintained(&open(&options).expect("a URL"), NOW).await;
    let left = log.list_quarantined(0, 10).await.expect("listed");
    assert_eq!(left.iter().map(|entry| &entry.body[..]).collect::<Vec<_>>(), [b"body 1"]);
}

pub async fn a_count_that_was_set_back_gives_no_place_that_a_cursor_has_passed(backend: Backend) {
    let log = backend.log().await;
    append_at(&log, &(0..20).map(|n| numbered(n, NOW)).collect::<Vec<_>>(), NOW).await;
    let head = log.head().await.expect("a head");
    log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease");
    log.advance("bus", "a", head, LONG_TIMEOUT).await.expect("moved");
    let set_back = if backend.postgres.is_some() {
        "ALTER SEQUENCE events_seq RESTART WITH 1"
    } else {
        // What a copy of the rows alone has; the newest row is gone, too.
        "DELETE FROM sqlite_sequence; DELETE FROM events WHERE seq > 5"
    };
    backend.execute(set_back).await;
    // At the start …
    let again = backend.open();
    again.migrate(true).await.expect("it can be migrated");
    assert_eq!(append_at(&again, &[numbered(30, NOW)], NOW).await, [Appended::Stored]);
    let id = crate::support::sign::id_of(&numbered(30, NOW));
    assert!(again.find(&[id]).await.expect("found")[&id] > head);
    // … and while it runs: what is not stored is not said to be.
    if backend.postgres.is_some() {
        backend.execute(set_back).await;
        let batch = [super::fixture::delivered(&numbered(31, NOW))];
        assert!(super::fixture::is_unavailable(&again.append(&batch).await));
        assert_eq!(again.append(&batch).await.expect("mended").outcomes, [Appended::Stored]);
        assert_eq!(backend.value("SELECT count(*) - count(DISTINCT seq) FROM events").await, "0");
    }
}

pub async fn a_row_that_the_database_swallows_is_not_said_to_be_kept(backend: Backend) {
    let log = backend.log().await;
    append_at(&log, &[numbered(1, NOW)], NOW).await;
    let swallow = if backend.postgres.is_some() {
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER swallow BEFORE INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION swallow();
         CREATE TRIGGER swallow BEFORE INSERT OR UPDATE ON quarantine FOR EACH ROW EXECUTE FUNCTION swallow()"
    } else {
        "CREATE TRIGGER swallow BEFORE INSERT ON events BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER swallow_again BEFORE UPDATE ON events BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER swallow_body BEFORE INSERT ON quarantine BEGIN SELECT RAISE(IGNORE); END"
    };
    backend.execute(swallow).await;
    let deliver = |n| super::fixture::delivered(&numbered(n, NOW));
    for batch in [vec![deliver(2)], vec![deliver(1)], vec![deliver(1), deliver(3)]] {
        let kept = log.append(&batch).await;
        assert!(kept.is_err(), "{kept:?}");
    }
    let unreadable = Unreadable {
        subscriber_id: APP_ID.into(),
        received_at: millis(NOW),
        reason: "a test".to_owned(),
        body: Bytes::from_static(b"a body"),
    };
    assert!(log.quarantine(&unreadable, 1).await.is_err());
}
