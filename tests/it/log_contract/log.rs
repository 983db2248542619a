//! What every back end promises.

use std::{collections::HashMap, time::Duration};

use convoke_core::event::{Content, PROBE, Unreadable};
use convoke_core::id::{EventId, Seq};
use convoke_log::{Append, Appended, CursorState, Filter, HandshakesSeen, Lag, Leased, Moved, SetAside};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::fixture::{Backend, append, delivered, delivered_at, everything};
use crate::support::{
    sign::{APP_ID, NOW, id_of, millis, numbered, signed, signed_with, verified},
    wait::eventually,
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);
const LONG_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE: &str = r#"{"event":"meeting.verify","timestamp":1781524800000}"#;
const UNREADABLE: &str = r#"{"event":"","timestamp":1781524800000}"#;

fn all_stored(appended: &[Appended]) -> bool {
    appended.iter().all(|appended| *appended == Appended::Stored)
}

pub async fn a_batch_is_answered_in_its_order_and_read_back(backend: Backend) {
    use Appended::{Duplicate, Noted, Quarantined, Stored};
    let log = backend.log().await;
    let [a, b, c] = [1, 2, 3].map(|n| numbered(n, NOW));
    assert_eq!(append(&log, &[&*a, UNREADABLE, HANDSHAKE, &*b]).await, [Stored, Quarantined, Noted, Stored]);
    // Two copies merged, an hour later; one that arrived earlier than what is known changes no time.
    let hour = 3_600_000;
    let again = [Append { deliveries: 2, ..delivered_at(&b, NOW + hour) }, delivered(&c), delivered_at(&a, NOW - hour)];
    assert_eq!(log.append(&again).await.expect("it is appended").outcomes, [Duplicate, Stored, Duplicate]);
    assert_eq!(log.append(&[]).await.expect("nothing is appended").outcomes, []);

    let rows = log.read(Seq::START, 100).await.expect("it can be read");
    assert_eq!(everything(&log).await, [a.clone(), b.clone(), c.clone()]);
    assert!(rows.is_sorted_by(|one, next| one.seq < next.seq && one.seq > Seq::START));
    let row = &rows[1];
    assert_eq!((row.event_id, &*row.subscriber_id, &*row.event), (id_of(&b), APP_ID, "meeting.join"));
    assert_eq!((row.occurred_at, row.received_at), (millis(NOW), millis(NOW)), "of the first delivery");
    assert_eq!((row.meeting_id.as_deref(), row.meeting_uuid.as_deref()), (Some("960000017"), None));
    assert_eq!((&*row.source, row.traceparent.as_deref()), ("push", None));
    let deliveries =
        "SELECT sum(deliveries * CASE account WHEN 'a1' THEN 1 WHEN 'a2' THEN 100 ELSE 10000 END) FROM events";
    assert_eq!(backend.value(deliveries).await, "10302");
    let last = "SELECT count(*) FROM events e WHERE (account = 'a2') = (last_delivered_at > received_at)";
    assert_eq!(backend.value(last).await, "3");

    let next = log.read(rows[0].seq, 1).await.expect("it can be read");
    assert_eq!(next.iter().map(|row| row.seq).collect::<Vec<_>>(), [rows[1].seq]);
    assert!(log.read(rows[2].seq, 10).await.expect("it can be read").is_empty());
}

pub async fn the_places_of_a_batch_are_reported_only_if_they_follow_one_another(backend: Backend) {
    let log = backend.log().await;
    let mut number = 0;
    for size in [1, 2, 255, 256] {
        let mut batch: Vec<_> = (0..size).map(|n| delivered(&numbered(number + n, NOW))).collect();
        number += size;
        batch.insert(batch.len() / 2, delivered(UNREADABLE));
        let head = log.head().await.expect("it can be read");
        let first = log.append(&batch).await.expect("it is appended").first.expect("all events are new");
        let rows = log.read(head, 1000).await.expect("it can be read");
        let places: Vec<_> = rows.iter().map(|row| (row.seq.0, row.event_info.clone())).collect();
        let events = batch.iter().filter_map(|append| match append.verified.content() {
            Content::Event(event) => Some(Some(event.event_info.to_string())),
            _ => None,
        });
        assert_eq!(places, (first.0..).zip(events).collect::<Vec<_>>());
    }
    for batch in [vec![numbered(0, NOW)], vec![numbered(number, NOW), numbered(1, NOW)], vec![UNREADABLE.to_owned()]] {
        let batch: Vec<_> = batch.iter().map(|info| delivered(info)).collect();
        assert_eq!(log.append(&batch).await.expect("it is appended").first, None);
    }
}

pub async fn a_duplicate_is_known_after_the_log_was_opened_again(backend: Backend) {
    let log = backend.log().await;
    let info = numbered(1, NOW);
    assert_eq!(append(&log, &[&info]).await, [Appended::Stored]);
    log.close().await;
    let log = backend.open();
    assert_eq!(append(&log, &[&info, &numbered(2, NOW)]).await, [Appended::Duplicate, Appended::Stored]);
    assert_eq!(everything(&log).await.len(), 2);
}

pub async fn copies_appended_at_once_by_several_replicas_are_stored_once(backend: Backend) {
    const EVENTS: usize = 48;
    const REPLICAS: usize = 4;
    backend.log().await;
    let mut replicas = JoinSet::new();
    for replica in 0..REPLICAS {
        let log = backend.open();
        replicas.spawn(async move {
            // The same events in another order, so that the replicas meet in the middle of batches.
            let mut infos: Vec<_> = (0..EVENTS).map(|n| numbered((n * 7 + replica * 11) % EVENTS, NOW)).collect();
            infos.rotate_left(replica);
            let mut stored = 0;
            for infos in infos.chunks(6) {
                stored += append(&log, infos).await.iter().filter(|appended| **appended == Appended::Stored).count();
            }
            stored
        });
    }
    assert_eq!(replicas.join_all().await.iter().sum::<usize>(), EVENTS);
    assert_eq!(backend.value("SELECT count(*) FROM events").await, EVENTS.to_string());
    assert_eq!(backend.value("SELECT sum(deliveries) FROM events").await, (EVENTS * REPLICAS).to_string());
}

pub async fn a_reader_never_finds_a_smaller_number_later(backend: Backend) {
    const WRITERS: usize = 4;
    const BATCHES: usize = 25;
    const ROWS: usize = 8;
    let log = backend.log().await;
    let follow = async |limit| {
        let log = backend.open();
        let mut seen: Vec<Seq> = Vec::new();
        eventually("everything was read", WAIT_TIMEOUT, async || {
            // Page after page, and a pause at the end only.
            loop {
                let after = seen.last().copied().unwrap_or(Seq::START);
                let rows = log.read(after, limit).await.map_err(|error| error.to_string())?;
                seen.extend(rows.iter().map(|row| row.seq));
                if seen.len() == WRITERS * BATCHES * ROWS {
                    return Ok(());
                }
                if rows.is_empty() {
                    return Err(format!("{} rows", seen.len()));
                }
            }
        })
        .await;
        seen
    };
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let log = backend.open();
        writers.spawn(async move {
            for batch in 0..BATCHES {
                let infos: Vec<_> =
                    (0..ROWS).map(|row| numbered((writer * BATCHES + batch) * ROWS + row, NOW)).collect();
                assert!(all_stored(&append(&log, &infos).await));
            }
        });
    }
    let (seen, few, many) = tokio::join!(follow(3), follow(17), follow(1000));
    writers.join_all().await;
    let whole: Vec<_> = log.read(Seq::START, 10_000).await.expect("it can be read").iter().map(|row| row.seq).collect();
    assert_eq!(whole.len(), WRITERS * BATCHES * ROWS);
    for seen in [seen, few, many] {
        assert_eq!(seen, whole, "a reader that went along saw what one sees that begins now");
    }
}

pub async fn odd_values_are_stored_and_kept_verbatim(backend: Backend) {
    let log = backend.log().await;
    // Nothing in it repeats, so nothing compresses it.
    let long: String = (0..300_u32).map(|n| hex::encode(Sha256::digest(n.to_be_bytes()))).collect();
    let payloads = [
        r#"{"meetingInfo":{"meetingID":"a\u0000b","meetingUUID":"\ud800"},"attendeeInfo":{"displayName":"\u0000"}}"#
            .to_owned(),
        r#"{"attendeeInfo":{"joinTime":99999999999999999999,"leftTime":-1,"displayName":"王\ud83d\ude00\udfff"}}"#
            .to_owned(),
        r#"{"x":123456789012345678901234567890.12345678901234567890e-400,"y":1E400,"\ud800":null,"\u0000":0}"#
            .to_owned(),
        r#"{"attendeeInfo":{"joinTime":253402300799999,"leftTime":1}}"#.to_owned(),
        format!(r#"{{"meetingInfo":{{"meetingID":"{long}","meetingUUID":"{long}","meetingCycleSubID":"{long}"}}}}"#),
        format!(
            r#"{{"attendeeInfo":{{"displayName":"{0}","account":"{0}","callNumber":"{0}"}}}}"#,
            "王".repeat(20_000)
        ),
        format!("{}{}", "[".repeat(511), "]".repeat(511)),
        "null".to_owned(),
    ];
    let infos: Vec<_> = payloads
        .iter()
        .map(|payload| format!(r#"{{"event":"x\ud800\u0000","timestamp":1735700465789,"payload":{payload}}}"#))
        .collect();
    assert!(all_stored(&append(&log, &infos).await), "nothing is refused because of its payload");
    // In time from the first that is plausible to the last.
    let (first, last) = (1_420_070_400_000, NOW + 86_400_000);
    let far: Vec<_> = [first, first + 1, last].iter().map(|at| numbered(0, *at)).collect();
    assert!(all_stored(&append(&log, &far).await));
    assert_eq!(everything(&log).await, [infos.clone(), far.clone()].concat());
    let rows = log.read(Seq::START, 100).await.expect("it can be read");
    assert_eq!(rows[0].event, "x\u{fffd}\u{fffd}");
    assert_eq!(rows[0].meeting_id.as_deref(), Some("a\u{fffd}b"));
    // Whole, or as much of it as an index takes.
    let stored = rows[4].meeting_id.clone().expect("a meeting number");
    assert!(stored.len() >= 2_000 && long.starts_with(&stored));
    assert_eq!(rows[10].occurred_at.get(), last);
    assert_eq!(append(&log, &infos).await, vec![Appended::Duplicate; infos.len()]);
    let of_meeting = Filter { meeting: Some(stored), ..Filter::default() };
    assert_eq!(log.select(&of_meeting, Seq::START, 10).await.expect("it can be read").len(), 1);
}

pub async fn an_unreadable_body_is_in_the_quarantine_once(backend: Backend) {
    let log = backend.log().await;
    let other = r#"{"event":[],"timestamp":1}"#;
    for deliveries in [1, 3] {
        let batch = [Append { deliveries, ..delivered(UNREADABLE) }, delivered_at(other, NOW + 1)];
        let outcome = log.append(&batch).await.expect("it is appended").outcomes;
        assert_eq!(outcome, [Appended::Quarantined, Appended::Quarantined]);
    }
    let entries = log.list_quarantined(0, 10).await.expect("it can be listed");
    assert_eq!(entries.iter().map(|entry| entry.deliveries).collect::<Vec<_>>(), [4, 2]);
    let first = &entries[0];
    assert_eq!((&*first.subscriber_id, first.received_at, &*first.reason), (APP_ID, millis(NOW), "event is empty"));
    assert_eq!(first.body, signed(UNREADABLE));
    assert!(log.read(Seq::START, 10).await.expect("it can be read").is_empty(), "it is no event");

    // What the database refused is put there by another way, by the same rule.
    let refused = Unreadable {
        subscriber_id: APP_ID.into(),
        received_at: millis(NOW),
        reason: "the database refuses it".to_owned(),
        body: vec![0, 255, b'\'', 0].into(),
    };
    for _ in 0..2 {
        log.quarantine(&refused, 2).await.expect("it is kept");
    }
    let entries = log.list_quarantined(entries[0].id, 10).await.expect("it can be listed");
    assert_eq!(entries.iter().map(|entry| entry.deliveries).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(entries[1].body, refused.body);
    assert_eq!(log.list_quarantined(0, 1).await.expect("it can be listed").len(), 1);

    let id = entries[1].id;
    assert_eq!(log.counts().await.expect("it can be counted").quarantined, 3);
    assert_eq!(log.get_quarantined(id).await.expect("it can be read").map(|entry| entry.id), Some(id));
    assert!(log.discard_quarantined(id).await.expect("it can be deleted"));
    assert!(!log.discard_quarantined(id).await.expect("nothing is to be deleted"));
    assert!(log.get_quarantined(id).await.expect("it can be read").is_none());
    assert_eq!(log.counts().await.expect("it can be counted").quarantined, 2);
}

pub async fn a_lease_is_refused_to_others_until_it_ends(backend: Backend) {
    let log = backend.log().await;
    let other = backend.open();
    let at = |position| Some(Leased { position: Seq(position), wanted: false });
    let cursors = async || log.cursors().await.expect("cursors");
    let state = |position, owner: Option<&str>| {
        vec![CursorState { name: "bus".to_owned(), position: Seq(position), owner: owner.map(str::to_owned) }]
    };
    assert_eq!(cursors().await, []);
    assert_eq!(log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease"), at(0));
    assert_eq!(other.lease("bus", "b", LONG_TIMEOUT).await.expect("no lease"), None);
    assert_eq!(cursors().await, state(0, Some("a")));
    assert_eq!(log.advance("bus", "a", Seq(7), LONG_TIMEOUT).await.expect("moved"), Moved::Yes { wanted: false });
    assert_eq!(other.advance("bus", "b", Seq(9), LONG_TIMEOUT).await.expect("not moved"), Moved::LeaseLost);
    assert_eq!(other.advance("none", "b", Seq(9), LONG_TIMEOUT).await.expect("not moved"), Moved::LeaseLost);
    assert_eq!(log.lease("bus", "a", LONG_TIMEOUT).await.expect("renewed"), at(7));

    // Who has no lease ends nobody's.
    other.release("bus", "b").await.expect("nothing to release");
    assert_eq!(other.lease("bus", "b", LONG_TIMEOUT).await.expect("no lease"), None);
    log.release("bus", "a").await.expect("released");
    assert_eq!(cursors().await, state(7, None));
    assert_eq!(log.advance("bus", "a", Seq(8), LONG_TIMEOUT).await.expect("not moved"), Moved::LeaseLost);
    assert_eq!(other.lease("bus", "b", LONG_TIMEOUT).await.expect("a lease"), at(7));

    // Renewed for a moment: it expires.
    assert_eq!(other.lease("bus", "b", Duration::from_millis(300)).await.expect("renewed"), at(7));
    let taken =
        eventually("the lease ends", WAIT_TIMEOUT, async || log.lease("bus", "a", LONG_TIMEOUT).await.ok().flatten())
            .await;
    assert_eq!(taken.position, Seq(7));
    assert_eq!(other.advance("bus", "b", Seq(10), LONG_TIMEOUT).await.expect("not moved"), Moved::LeaseLost);
    // Moving renews: the lease is as long as was said last.
    let moment = Duration::from_millis(50);
    assert_eq!(log.advance("bus", "a", Seq(11), moment).await.expect("moved"), Moved::Yes { wanted: false });
    // Looked at, not asked for: each move would renew it.
    eventually("the lease ends", WAIT_TIMEOUT, async || cursors().await == state(11, None)).await;
    assert_eq!(log.advance("bus", "a", Seq(12), LONG_TIMEOUT).await.expect("not moved"), Moved::LeaseLost);
    assert_eq!(cursors().await, state(11, None));
    assert_eq!(log.lease("meetings", "a", LONG_TIMEOUT).await.expect("another cursor"), at(0));
    assert_eq!(cursors().await.len(), 2);
}

pub async fn a_lease_is_handed_over_to_who_claims_it(backend: Backend) {
    let log = backend.log().await;
    let other = backend.open();
    let at = |position, wanted| Some(Leased { position: Seq(position), wanted });
    log.claim("bus", "b", LONG_TIMEOUT).await.expect("there is no such cursor yet, and nothing to do");
    assert_eq!(log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease"), at(0, false));
    other.claim("bus", "b", LONG_TIMEOUT).await.expect("claimed");
    assert_eq!(other.lease("bus", "b", LONG_TIMEOUT).await.expect("no lease"), None, "a wish takes nothing");
    assert_eq!(log.lease("bus", "a", LONG_TIMEOUT).await.expect("renewed"), at(0, true));
    assert_eq!(log.advance("bus", "a", Seq(3), LONG_TIMEOUT).await.expect("moved"), Moved::Yes { wanted: true });
    // A second wish waits until the first is over.
    other.claim("bus", "c", LONG_TIMEOUT).await.expect("nothing happens");
    log.release("bus", "a").await.expect("handed over");
    assert_eq!(log.lease("bus", "a", LONG_TIMEOUT).await.expect("no lease"), None);
    assert_eq!(other.lease("bus", "c", LONG_TIMEOUT).await.expect("no lease"), None);
    assert_eq!(other.lease("bus", "b", LONG_TIMEOUT).await.expect("the lease"), at(3, false));

    // One's own wish is none, and one that is over is forgotten.
    other.claim("bus", "b", LONG_TIMEOUT).await.expect("claimed");
    assert_eq!(other.lease("bus", "b", LONG_TIMEOUT).await.expect("renewed"), at(3, false));
    other.release("bus", "b").await.expect("released");
    assert_eq!(log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease"), at(3, false));
    other.claim("bus", "b", Duration::from_millis(50)).await.expect("claimed");
    eventually("the wish is forgotten", WAIT_TIMEOUT, async || {
        log.lease("bus", "a", LONG_TIMEOUT).await.ok() == Some(at(3, false))
    })
    .await;
    log.release("bus", "a").await.expect("released");
    assert_eq!(other.lease("bus", "c", LONG_TIMEOUT).await.expect("a lease"), at(3, false));
}

pub async fn a_lease_from_before_the_clock_was_set_back_has_ended(backend: Backend) {
    let log = backend.log().await;
    log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease");
    log.advance("bus", "a", Seq(7), LONG_TIMEOUT).await.expect("moved");
    backend.execute("UPDATE cursors SET lease_until = '2999-01-01T00:00:00.000Z'").await;
    assert_eq!(
        log.lease("bus", "b", LONG_TIMEOUT).await.expect("a lease"),
        Some(Leased { position: Seq(7), wanted: false })
    );
    assert_eq!(log.advance("bus", "a", Seq(8), LONG_TIMEOUT).await.expect("not moved"), Moved::LeaseLost);
    assert_eq!(log.lease("bus", "a", LONG_TIMEOUT).await.expect("no lease"), None);
}

pub async fn two_replicas_that_ask_at_once_get_one_lease(backend: Backend) {
    let log = backend.log().await;
    for round in 0..10 {
        let cursor = format!("cursor {round}");
        let mut replicas = JoinSet::new();
        for owner in ["a", "b", "c", "d"] {
            let (log, cursor) = (backend.open(), cursor.clone());
            replicas.spawn(async move { log.lease(&cursor, owner, LONG_TIMEOUT).await.expect("an answer").is_some() });
        }
        assert_eq!(replicas.join_all().await.iter().filter(|leased| **leased).count(), 1);
    }
    assert_eq!(log.cursors().await.expect("cursors").len(), 10);
}

pub async fn what_is_set_aside_twice_is_listed_once(backend: Backend) {
    let log = backend.log().await;
    let ids: Vec<_> = (0..3).map(|n| id_of(&numbered(n, NOW))).collect();
    for _ in 0..2 {
        for (n, id) in ids.iter().enumerate() {
            log.set_aside("bus", Seq(n as i64 * 10 + 1), *id, "too large").await.expect("set aside");
        }
    }
    log.set_aside("bus", Seq(1), ids[0], "another reason").await.expect("it stays as it is");
    log.set_aside("meetings", Seq(1), ids[0], "odd").await.expect("set aside");
    let list = async |after, limit| log.list_set_aside("bus", Seq(after), limit).await.expect("a list");
    let aside = |n: usize| SetAside { seq: Seq(n as i64 * 10 + 1), event_id: ids[n], reason: "too large".to_owned() };
    assert_eq!(list(0, 10).await, [aside(0), aside(1), aside(2)]);
    assert_eq!(list(1, 1).await, [aside(1)]);
    assert_eq!(list(21, 10).await, []);
    let counts = log.counts().await.expect("counts").set_aside;
    assert_eq!(counts, HashMap::from([("bus".to_owned(), 3), ("meetings".to_owned(), 1)]));
    for _ in 0..2 {
        log.take_up("bus", Seq(1)).await.expect("taken up");
    }
    assert_eq!(list(0, 10).await, [aside(1), aside(2)]);
    assert_eq!(log.counts().await.expect("counts").set_aside["meetings"], 1, "another cursor's stays");
}

pub async fn lag_is_exact_up_to_ten_thousand_and_no_less_beyond(backend: Backend) {
    let log = backend.log().await;
    let lag = async || log.lag("bus").await.expect("a lag");
    assert_eq!(lag().await, Lag::default(), "of an empty log, without a cursor");
    for (n, info) in (0..3).map(|n| (n, numbered(n as usize, NOW))) {
        log.append(&[delivered_at(&info, NOW + n)]).await.expect("it is appended");
        // A duplicate leaves a gap in the numbers, at most.
        log.append(&[delivered_at(&info, NOW + 1000)]).await.expect("it is appended");
    }
    assert_eq!(lag().await, Lag { events: 3, oldest: Some(millis(NOW)) });
    let rows = log.read(Seq::START, 10).await.expect("it can be read");
    log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease");
    log.advance("bus", "a", rows[0].seq, LONG_TIMEOUT).await.expect("moved");
    assert_eq!(lag().await, Lag { events: 2, oldest: Some(millis(NOW + 1)) });
    log.advance("bus", "a", rows[2].seq, LONG_TIMEOUT).await.expect("moved");
    assert_eq!(lag().await, Lag::default());

    for chunk in (10..10_160).collect::<Vec<_>>().chunks(1_050) {
        let infos: Vec<_> = chunk.iter().map(|n| numbered(*n, NOW)).collect();
        append(&log, &infos).await;
    }
    let far = lag().await;
    assert!((10_150..11_000).contains(&far.events), "{far:?}");
    assert_eq!(far.oldest, Some(millis(NOW)));
    let rows = log.read(rows[2].seq, 1_000).await.expect("it can be read");
    log.advance("bus", "a", rows[999].seq, LONG_TIMEOUT).await.expect("moved");
    assert_eq!(lag().await.events, 9_150);
}

pub async fn a_selection_is_by_time_type_meeting_and_place(backend: Backend) {
    let log = backend.log().await;
    let info = |event: &str, at: i64, id: &str, uuid: &str| {
        format!(
            r#"{{"event":"{event}","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"{id}","meetingUUID":"{uuid}"}}}}}}"#
        )
    };
    // Not in the order of their time.
    let infos = [
        info("meeting.join", NOW + 3_000, "1", "u1"),
        info("meeting.join", NOW + 1_000, "1", "u2"),
        info("meeting.left", NOW + 2_000, "2", "u1"),
        info("meeting.left", NOW + 4_000, "3", "1"),
    ];
    append(&log, &infos).await;
    let rows = log.read(Seq::START, 10).await.expect("it can be read");
    let select = async |filter: Filter, after: Seq, limit: u32| -> Vec<usize> {
        let found = log.select(&filter, after, limit).await.expect("it can be read");
        found.iter().map(|row| rows.iter().position(|other| other.seq == row.seq).expect("a row")).collect()
    };
    let filter = Filter::default;
    assert_eq!(select(filter(), Seq::START, 10).await, [0, 1, 2, 3]);
    assert_eq!(select(filter(), rows[0].seq, 2).await, [1, 2]);
    assert_eq!(select(Filter { since: Some(millis(NOW + 2_000)), ..filter() }, Seq::START, 10).await, [0, 2, 3]);
    assert_eq!(select(Filter { until: Some(millis(NOW + 2_000)), ..filter() }, Seq::START, 10).await, [1]);
    let range = Filter { since: Some(millis(NOW + 1_001)), until: Some(millis(NOW + 4_000)), ..filter() };
    assert_eq!(select(range, Seq::START, 10).await, [0, 2]);
    assert_eq!(select(Filter { event: Some("meeting.left".into()), ..filter() }, Seq::START, 10).await, [2, 3]);
    assert_eq!(select(Filter { event: Some("meeting".into()), ..filter() }, Seq::START, 10).await, [0; 0]);
    assert_eq!(select(Filter { meeting: Some("1".into()), ..filter() }, Seq::START, 10).await, [0, 1, 3]);
    assert_eq!(select(Filter { meeting: Some("u1".into()), ..filter() }, Seq::START, 10).await, [0, 2]);
    assert_eq!(select(Filter { up_to: Some(rows[1].seq), ..filter() }, Seq::START, 10).await, [0, 1]);
    let all = Filter {
        since: Some(millis(NOW + 1_000)),
        until: Some(millis(NOW + 3_001)),
        event: Some("meeting.join".into()),
        meeting: Some("1".into()),
        up_to: Some(rows[3].seq),
    };
    assert_eq!(select(all.clone(), Seq::START, 10).await, [0, 1]);
    assert_eq!(select(all, rows[0].seq, 10).await, [1]);
}

pub async fn rows_are_counted_and_found_by_id(backend: Backend) {
    let log = backend.log().await;
    assert_eq!(log.head().await.expect("a head"), Seq::START);
    assert!(log.count(&[]).await.expect("nothing").is_empty());
    let infos: Vec<_> = (0..600).map(|n| numbered(n, NOW + n as i64)).collect();
    append(&log, &infos).await;
    let rows = log.read(Seq::START, 1_000).await.expect("it can be read");
    assert_eq!(log.head().await.expect("a head"), rows[599].seq);
    let found = log.find(&[rows[17].event_id]).await.expect("an answer");
    assert_eq!(found.get(&rows[17].event_id), Some(&rows[17].seq));
    let unknown = id_of(&numbered(9_999, NOW));
    assert!(log.find(&[unknown]).await.expect("an answer").is_empty());
    let ids: Vec<EventId> = rows.iter().map(|row| row.event_id).chain([unknown]).collect();
    let counts = log.count(&ids).await.expect("an answer");
    assert_eq!(counts.len(), 600);
    assert!(counts.values().all(|count| *count == 1) && !counts.contains_key(&unknown));
}

pub async fn places_are_reported_of_the_ids_that_are_known(backend: Backend) {
    let log = backend.log().await;
    append(&log, &(0..3).map(|n| format!(r#"{{"event":"e","timestamp":{}}}"#, NOW + n)).collect::<Vec<_>>()).await;
    let rows = log.read(Seq::START, 10).await.expect("it can be read");
    let unknown = EventId::lower_bound(millis(NOW - 1));
    let ids: Vec<EventId> = rows.iter().map(|row| row.event_id).chain([unknown]).collect();
    let places = log.find(&ids).await.expect("it can be read");
    assert_eq!(places, rows.iter().map(|row| (row.event_id, row.seq)).collect());
    assert!(log.find(&[]).await.expect("it can be read").is_empty());
}

pub async fn a_heartbeat_is_read_back_with_its_age_and_a_probe_is_none(backend: Backend) {
    let log = backend.log().await;
    log.probe().await.expect("it can be written");
    assert_eq!(log.heartbeat().await.expect("it can be read"), None);
    log.record_heartbeat().await.expect("it can be written");
    let fresh = log.heartbeat().await.expect("it can be read").expect("there is one");
    assert!(fresh.age < Duration::from_secs(60), "{fresh:?}");
    let at = "2026-01-01T00:00:00.000Z";
    backend.execute(&format!("UPDATE heartbeat SET at = '{at}'")).await;
    log.probe().await.expect("it can be written");
    let old = backend.open().heartbeat().await.expect("it can be read").expect("there is one");
    assert_eq!(old.at.to_string(), at);
    let later = log.now().await.expect("a clock").since(old.at);
    assert!(old.age <= later && later - old.age < Duration::from_secs(60), "{old:?}");
}

pub async fn a_note_is_kept_until_it_is_replaced(backend: Backend) {
    let log = backend.log().await;
    assert_eq!(log.note("a").await.expect("it can be read"), None);
    for note in ["one", "", "{\"two\":2}"] {
        log.keep_note("a", note).await.expect("it can be written");
        log.keep_note("b", "another").await.expect("it can be written");
        assert_eq!(backend.open().note("a").await.expect("it can be read").as_deref(), Some(note));
    }
}

pub async fn an_append_that_nobody_waits_for_any_more_leaves_the_log_usable(backend: Backend) {
    const TURNS: usize = 60;
    let log = backend.log().await;
    for turn in 0..TURNS {
        let infos: Vec<_> = (0..4).map(|n| numbered(turn * 4 + n, NOW)).collect();
        let batch: Vec<_> = infos.iter().map(|info| delivered(info)).collect();
        // Given up sooner or later in its course.
        let _ = tokio::time::timeout(Duration::from_micros(turn as u64 * 50), log.append(&batch)).await;
        if turn % 10 == 9 {
            append(&log, &infos).await;
        }
    }
    let infos: Vec<_> = (0..TURNS * 4).map(|n| numbered(n, NOW)).collect();
    append(&log, &infos).await;
    let mut kept = everything(&log).await;
    kept.sort();
    let mut infos = infos;
    infos.sort();
    assert_eq!(kept, infos, "each once, and nothing by halves");
    log.probe().await.expect("it can be written");
}

pub async fn handshakes_leave_the_newest_time_and_their_number(backend: Backend) {
    let log = backend.log().await;
    for at in [NOW, NOW + 5, NOW + 2] {
        let noted = delivered_at(HANDSHAKE, at);
        assert!(matches!(noted.verified.content(), Content::Handshake(_)));
        assert_eq!(log.append(&[noted]).await.expect("it is noted").outcomes, [Appended::Noted]);
    }
    let newest = HashMap::from([(APP_ID.to_owned(), millis(NOW + 5))]);
    assert_eq!(log.counts().await.expect("counts").handshakes, newest);
    let merged = Append { deliveries: 2, ..delivered_at(HANDSHAKE, NOW) };
    log.append(&[merged]).await.expect("it is noted");
    let known = HandshakesSeen { answered: 5, newest: Some(millis(NOW + 5)) };
    assert_eq!(log.handshakes(APP_ID).await.expect("handshakes"), known);
    assert_eq!(log.handshakes("another").await.expect("handshakes"), HandshakesSeen::default());
    assert_eq!(log.head().await.expect("a head"), Seq::START, "it is no event");
}

pub async fn a_probe_is_noted_only_if_it_is_expected_and_is_no_handshake_of_the_platform(backend: Backend) {
    let log = backend.log().await;
    let [expected, other] = ["expected", "other"].map(|name| format!("{PROBE}{name}"));
    let arrive = async |nonce: &str| {
        let verified = verified(&signed_with(nonce, HANDSHAKE), millis(NOW));
        let append = Append { verified, deliveries: 1, last_delivered_at: millis(NOW) };
        assert_eq!(log.append(&[append]).await.expect("it is noted").outcomes, [Appended::Noted]);
    };
    let arrived = async |nonce: &str| log.probe_arrived(nonce).await.expect("it can be asked");
    log.expect_probe(APP_ID, &expected).await.expect("it is expected");
    log.expect_probe("another subscriber", &other).await.expect("it is expected");
    assert!(!arrived(&expected).await && !arrived("a stranger").await);
    for nonce in [&other, &format!("{PROBE}a stranger"), &expected, &expected] {
        arrive(nonce).await;
    }
    assert!(arrived(&expected).await);
    assert!(!arrived(&other).await, "another subscriber's key signed it");
    assert_eq!(backend.value("SELECT count(*) FROM probes").await, "2", "who is not expected leaves nothing");
    assert_eq!(log.handshakes(APP_ID).await.expect("handshakes"), HandshakesSeen::default());
    assert!(log.counts().await.expect("counts").handshakes.is_empty());

    backend.execute("UPDATE probes SET expected_at = '2026-01-01T00:00:00.000Z'").await;
    log.expect_probe(APP_ID, &format!("{PROBE}next")).await.expect("it is expected");
    assert_eq!(backend.value("SELECT count(*) FROM probes").await, "1", "after a day nobody waits for it");
}
