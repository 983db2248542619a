//! Lists for people: filtered, in order, a page at a time.

use std::{fmt::Debug, sync::Arc, time::Duration};

use convoke_core::event::Source;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;
use convoke_log::recent::{RecentRow, RecentRows};
use convoke_log::{
    Append, ClosedBy, EventFilter, ListedEvent, ListedMeeting, ListedRecording, ListedStay, Listing, MeetingFilter,
    MeetingKey, Order, Page, QuarantineFilter, RecordingFilter, RunKey, Scope, Status, StayFilter, Store,
};
use uuid::Uuid;

use super::fixture::{Backend, append, delivered};
use crate::{
    support::sign::{APP_ID, NOW, id_of, millis, numbered},
    tables::projection::{catch_up, cursor, happened},
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);
/// More than there ever is here.
const ALL: u32 = 100_000;

fn page<K>(order: Order, after: Option<K>, limit: u32) -> Page<K> {
    Page { order, after, limit, within: WAIT_TIMEOUT }
}

/// All pages of a list, of so many rows each.
async fn pages<T: Clone, K>(limit: u32, order: Order, read: impl AsyncFn(Page<K>) -> Listing<T, K>) -> Vec<T> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let listing = read(page(order, after.take(), limit)).await;
        let full = usize::try_from(limit).is_ok_and(|limit| listing.rows.len() == limit);
        assert!(full || listing.next.is_none(), "only the last page is short");
        all.extend(listing.rows);
        match listing.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

/// The list is the same in pages, and the other way round; it is in the order of its key.
async fn whole<T, K>(key: impl Fn(&T) -> K, read: impl AsyncFn(Page<K>) -> Listing<T, K>) -> Vec<T>
where
    T: Clone + Debug + PartialEq,
    K: PartialOrd,
{
    let oldest = pages(ALL, Order::Oldest, &read).await;
    assert!(oldest.is_sorted_by(|one, next| key(one) < key(next)), "by key, and each once");
    assert_eq!(pages(7, Order::Oldest, &read).await, oldest);
    let newest: Vec<T> = oldest.iter().rev().cloned().collect();
    assert_eq!(pages(ALL, Order::Newest, &read).await, newest);
    assert_eq!(pages(50, Order::Newest, &read).await, newest);
    oldest
}

async fn events(log: &Arc<dyn Store>, filter: EventFilter) -> Vec<ListedEvent> {
    let read = async |page: Page<EventId>| log.list_events(&filter, &page).await.expect("events");
    whole(|row: &ListedEvent| row.event_id, read).await
}

async fn meetings(log: &Arc<dyn Store>, filter: MeetingFilter) -> Vec<ListedMeeting> {
    let read = async |page: Page<MeetingKey>| log.list_meetings(&filter, &page).await.expect("meetings");
    whole(ListedMeeting::key, read).await
}

async fn stays(log: &Arc<dyn Store>, filter: StayFilter) -> Vec<ListedStay> {
    let read = async |page: Page<Uuid>| log.list_stays(&filter, &page).await.expect("stays");
    whole(|row: &ListedStay| row.stay_id, read).await
}

async fn recordings(log: &Arc<dyn Store>, filter: RecordingFilter) -> Vec<ListedRecording> {
    let read = async |page: Page<EventId>| log.list_recordings(&filter, &page).await.expect("recordings");
    whole(|row: &ListedRecording| row.event_id, read).await
}

/// Some days of an enterprise, and two runs with oddities, in the tables as well.
pub async fn filled(backend: &Backend) -> Arc<dyn Store> {
    let log = backend.log().await;
    log.append(&happened(700)).await.expect("appended");
    let no_number = |event: &str, at: i64| {
        format!(
            r#"{{"event":"{event}","timestamp":{at},"payload":{{"meetingInfo":{{"meetingUUID":"without-a-number"}}}}}}"#
        )
    };
    append(&log, &[no_number("meeting.started", NOW + 5), no_number("meeting.end", NOW + 90_000)]).await;
    // Ties: all at the same millisecond.
    append(&log, &(0..30).map(|n| numbered(n, NOW)).collect::<Vec<_>>()).await;
    catch_up(&mut cursor(&log, "a")).await;
    log
}

pub async fn every_list_is_whole_in_pages_of_either_order(backend: Backend) {
    let log = filled(&backend).await;
    let count = async |table: &str| {
        let count = backend.value(&format!("SELECT count(*) FROM {table}")).await;
        count.parse::<usize>().expect("a number")
    };
    let all = events(&log, EventFilter::default()).await;
    assert_eq!(all.len(), count("events").await);
    assert_eq!(meetings(&log, MeetingFilter::default()).await.len(), count("meetings").await);
    assert_eq!(stays(&log, StayFilter::default()).await.len(), count("attendance").await);
    let recorded = recordings(&log, RecordingFilter::default()).await;
    assert!(recorded.len() == count("recordings").await && !recorded.is_empty());

    let tied = all.iter().find(|row| row.account.as_deref() == Some("a7")).expect("one of the tied");
    let info = numbered(7, NOW);
    let expected = ListedEvent {
        seq: tied.seq,
        event_id: id_of(&info),
        subscriber_id: APP_ID.to_owned(),
        event: "meeting.join".to_owned(),
        occurred_at: millis(NOW),
        received_at: millis(NOW),
        meeting_id: Some("960000017".to_owned()),
        meeting_uuid: None,
        meeting_cycle_sub_id: None,
        user_uuid: None,
        user_agent: None,
        account: Some("a7".to_owned()),
        participant_id: None,
        display_name: None,
        role: None,
        call_number: None,
        join_time: None,
        left_time: None,
        source: "push".to_owned(),
        deliveries: 1,
        last_delivered_at: millis(NOW),
        request_id: Some("a-request".to_owned()),
        event_info: Some(info),
        forgotten_at: None,
        masked: false,
    };
    assert_eq!(*tied, expected);
    assert_eq!(log.get_event(tied.event_id).await.expect("a database"), Some(expected));
    assert_eq!(log.get_event(EventId::lower_bound(millis(NOW))).await.expect("a database"), None);
}

pub async fn a_run_has_what_was_fetched_of_it(backend: Backend) {
    let log = filled(&backend).await;
    let run = RunKey { subscriber_id: APP_ID.into(), meeting_uuid: "without-a-number".into() };
    let set = "UPDATE meetings SET subject = 'Ünïcode', scheduled_start_at = first_event_at, host = 'h', corp_id = 'c' \
               WHERE meeting_uuid = 'without-a-number'";
    backend.execute(set).await;
    let found = log.get_meeting(&run).await.expect("a database").expect("the run");
    assert_eq!((found.meeting_id.as_deref(), found.status), (None, Status::Ended));
    assert_eq!((found.started_at, found.ended_at), (Some(millis(NOW + 5)), Some(millis(NOW + 90_000))));
    assert_eq!((found.subject.as_deref(), found.scheduled_start_at), (Some("Ünïcode"), Some(millis(NOW + 5))));
    assert_eq!((found.host.as_deref(), found.corp_id.as_deref(), found.scheduled_end_at), (Some("h"), Some("c"), None));
    let other = RunKey { meeting_uuid: "another".into(), ..run };
    assert_eq!(log.get_meeting(&other).await.expect("a database"), None);
}

pub async fn events_are_filtered_by_whatever_they_are_asked_for(backend: Backend) {
    let log = filled(&backend).await;
    let all = events(&log, EventFilter::default()).await;
    let of = async |filter: EventFilter, wanted: &dyn Fn(&ListedEvent) -> bool, some: bool| {
        let expected: Vec<ListedEvent> = all.iter().filter(|row| wanted(row)).cloned().collect();
        assert_eq!(!expected.is_empty(), some, "{filter:?}");
        assert_eq!(events(&log, filter.clone()).await, expected, "{filter:?}");
        // The same in the order of the log, in pieces.
        let mut in_order = expected;
        in_order.sort_by_key(|row| row.seq);
        let (mut found, mut after) = (Vec::new(), Seq::START);
        loop {
            let piece = log.events_between(&filter, after, Seq(i64::MAX), 20, WAIT_TIMEOUT).await.expect("events");
            found.extend(piece.rows);
            let Some(next) = piece.next else { break };
            after = next;
        }
        assert_eq!(found, in_order, "{filter:?}");
    };
    let scoped = |scope: Scope| EventFilter { scope, ..EventFilter::default() };
    let middle = all[all.len() / 2].occurred_at;
    let (since, until) = (Some(middle), Some(middle.plus(HOUR)));
    of(scoped(Scope { since, ..Scope::default() }), &|row| row.occurred_at >= middle, true).await;
    of(scoped(Scope { until, ..Scope::default() }), &|row| row.occurred_at < middle.plus(HOUR), true).await;
    let within = |row: &ListedEvent| row.occurred_at >= middle && row.occurred_at < middle.plus(HOUR);
    of(scoped(Scope { since, until, ..Scope::default() }), &within, true).await;
    of(scoped(Scope { since: until, until: since, ..Scope::default() }), &|_| false, false).await;
    let join = || EventFilter { event: Some("meeting.join".to_owned()), ..EventFilter::default() };
    of(join(), &|row| row.event == "meeting.join", true).await;
    let narrow = EventFilter { scope: Scope { since, until, ..Scope::default() }, ..join() };
    of(narrow, &|row| row.event == "meeting.join" && within(row), true).await;
    of(EventFilter { source: Some(Source::Push), ..join() }, &|row| row.event == "meeting.join", true).await;
    of(EventFilter { source: Some(Source::Backfill), ..join() }, &|_| false, false).await;
    let subscriber = |it: &str| scoped(Scope { subscriber: Some(it.to_owned()), ..Scope::default() });
    of(subscriber(APP_ID), &|_| true, true).await;
    of(subscriber("another"), &|_| false, false).await;

    let some = all.iter().find(|row| row.user_uuid.is_some() && row.meeting_uuid.is_some()).expect("a join");
    let number = some.meeting_id.as_deref();
    let meeting = |it: Option<&str>| Scope { meeting: it.map(str::to_owned), ..Scope::default() };
    of(scoped(meeting(number)), &|row| row.meeting_id.as_deref() == number, true).await;
    let numbered = |row: &ListedEvent| row.meeting_id.as_deref() == number && row.occurred_at >= some.occurred_at;
    of(scoped(Scope { since: Some(some.occurred_at), ..meeting(number) }), &numbered, true).await;
    for uuid in [some.meeting_uuid.as_deref(), Some("without-a-number")] {
        of(scoped(meeting(uuid)), &|row| row.meeting_uuid.as_deref() == uuid, true).await;
    }
    of(scoped(meeting(Some("no such meeting"))), &|_| false, false).await;
    let named = |row: &ListedEvent, name: Option<&String>| {
        [&row.user_uuid, &row.account, &row.call_number, &row.participant_id, &row.display_name]
            .into_iter()
            .any(|it| it.as_ref() == name)
    };
    for handle in [&some.user_uuid, &some.participant_id, &some.display_name, &Some("a7".to_owned())] {
        let person = handle.as_ref().expect("the simulator sends it");
        of(scoped(Scope { person: handle.clone(), ..Scope::default() }), &|row| named(row, Some(person)), true).await;
    }
    let both = Scope { person: some.user_uuid.clone(), ..meeting(some.meeting_uuid.as_deref()) };
    let wanted = |row: &ListedEvent| row.meeting_uuid == some.meeting_uuid && row.user_uuid == some.user_uuid;
    of(scoped(both), &wanted, true).await;
}

pub async fn tables_are_filtered_by_whatever_they_are_asked_for(backend: Backend) {
    let log = filled(&backend).await;
    let all = meetings(&log, MeetingFilter::default()).await;
    let everybody = stays(&log, StayFilter::default()).await;
    let recorded = recordings(&log, RecordingFilter::default()).await;
    let scopes = |scope: Scope| {
        let stays = StayFilter { scope: scope.clone(), ..StayFilter::default() };
        let recordings = RecordingFilter { scope: scope.clone(), run: None };
        (MeetingFilter { scope, status: None }, stays, recordings)
    };
    let of = async |scope: Scope, wanted: &dyn Fn(Millis, &str, Option<&str>) -> bool, some: bool| {
        let (meeting, stay, recording) = scopes(scope.clone());
        let expected: Vec<_> = all
            .iter()
            .filter(|row| wanted(row.key().at, &row.meeting_uuid, row.meeting_id.as_deref()))
            .cloned()
            .collect();
        assert_eq!(meetings(&log, meeting).await, expected, "{scope:?}");
        assert_eq!(!expected.is_empty(), some, "{scope:?}");
        let joined = |row: &ListedStay| EventId::from_uuid(row.stay_id).occurred_at();
        let expected: Vec<_> = everybody
            .iter()
            .filter(|row| wanted(joined(row), &row.meeting_uuid, row.meeting_id.as_deref()))
            .cloned()
            .collect();
        assert_eq!(stays(&log, stay).await, expected, "{scope:?}");
        let expected: Vec<_> = recorded
            .iter()
            .filter(|row| wanted(row.finished_at, row.meeting_uuid.as_deref().unwrap_or(""), row.meeting_id.as_deref()))
            .cloned()
            .collect();
        assert_eq!(recordings(&log, recording).await, expected, "{scope:?}");
    };
    let run = recorded.iter().find_map(|row| row.meeting_uuid.as_deref()).expect("a recorded run").to_owned();
    let number = all.iter().find(|row| row.meeting_uuid == run).and_then(|row| row.meeting_id.clone()).expect("it");
    let middle = all[all.len() / 2].key().at;
    let range = Scope { since: Some(middle), until: Some(middle.plus(HOUR)), ..Scope::default() };
    of(range, &|at, _, _| at >= middle && at < middle.plus(HOUR), true).await;
    let subscriber = |it: &str| Scope { subscriber: Some(it.to_owned()), ..Scope::default() };
    of(subscriber(APP_ID), &|_, _, _| true, true).await;
    of(subscriber("another"), &|_, _, _| false, false).await;
    let meeting = |it: &str| Scope { meeting: Some(it.to_owned()), ..Scope::default() };
    of(meeting(&run), &|_, uuid, _| uuid == run, true).await;
    of(meeting(&number), &|_, _, id| id == Some(&number), true).await;
    of(meeting("without-a-number"), &|_, uuid, _| uuid == "without-a-number", true).await;
    of(Scope { since: Some(Millis::MAX), ..meeting(&run) }, &|_, _, _| false, false).await;
    of(meeting("no such meeting"), &|_, _, _| false, false).await;

    let key = RunKey { subscriber_id: APP_ID.into(), meeting_uuid: run.as_str().into() };
    let of_run = everybody.iter().filter(|row| row.meeting_uuid == run).cloned().collect::<Vec<_>>();
    assert!(!of_run.is_empty());
    assert_eq!(stays(&log, StayFilter { run: Some(key.clone()), ..StayFilter::default() }).await, of_run);
    let of_run = recorded.iter().filter(|row| row.meeting_uuid.as_deref() == Some(&run)).cloned().collect::<Vec<_>>();
    assert_eq!(recordings(&log, RecordingFilter { run: Some(key), ..RecordingFilter::default() }).await, of_run);
    for status in [Status::Scheduled, Status::Cancelled, Status::Live, Status::Ended, Status::Concluded] {
        let expected: Vec<_> = all.iter().filter(|row| row.status == status).cloned().collect();
        let filter = MeetingFilter { status: Some(status), ..MeetingFilter::default() };
        assert_eq!(meetings(&log, filter).await, expected);
    }
    for closed_by in [ClosedBy::Left, ClosedBy::MeetingEnd, ClosedBy::Open] {
        let expected: Vec<_> = everybody.iter().filter(|row| row.closed_by == closed_by).cloned().collect();
        let filter = StayFilter { closed_by: Some(closed_by), ..StayFilter::default() };
        assert_eq!(stays(&log, filter).await, expected);
    }
}

pub async fn a_person_is_found_by_any_exact_handle(backend: Backend) {
    let log = filled(&backend).await;
    let everybody = stays(&log, StayFilter::default()).await;
    let recorded = recordings(&log, RecordingFilter::default()).await;
    let somebody = everybody
        .iter()
        .find(|stay| recorded.iter().any(|row| row.meeting_uuid.as_deref() == Some(&stay.meeting_uuid)))
        .expect("somebody in a recorded run");
    for handle in [&somebody.person, &somebody.user_uuid, &somebody.participant_id, &somebody.display_name] {
        let scope = Scope { person: handle.clone(), ..Scope::default() };
        assert!(scope.person.is_some());
        let is = |row: &&ListedStay| {
            [&row.person, &row.user_uuid, &row.account, &row.call_number, &row.participant_id, &row.display_name]
                .contains(&handle)
        };
        let expected: Vec<_> = everybody.iter().filter(is).cloned().collect();
        let runs: Vec<_> = expected.iter().map(|row| row.meeting_uuid.as_str()).collect();
        assert_eq!(stays(&log, StayFilter { scope: scope.clone(), ..StayFilter::default() }).await, expected);
        let found = meetings(&log, MeetingFilter { scope: scope.clone(), status: None }).await;
        let all = meetings(&log, MeetingFilter::default()).await;
        assert_eq!(found, all.into_iter().filter(|it| runs.contains(&&*it.meeting_uuid)).collect::<Vec<_>>());
        let found = recordings(&log, RecordingFilter { scope: scope.clone(), run: None }).await;
        assert!(!found.is_empty());
        assert!(found.iter().all(|row| row.meeting_uuid.as_deref().is_some_and(|uuid| runs.contains(&uuid))));
        // A part of a handle, or one in other letters, is another one.
        let name = handle.as_deref().expect("it is sent");
        for other in [&name[..name.char_indices().nth(1).map_or(0, |(at, _)| at)], &format!("{name} "), "%", ""] {
            let scope = Scope { person: Some(other.to_owned()), ..Scope::default() };
            assert_eq!(stays(&log, StayFilter { scope, ..StayFilter::default() }).await, []);
        }
        let far = Scope { since: Some(millis(NOW).plus(HOUR * 24 * 365)), ..scope };
        assert_eq!(meetings(&log, MeetingFilter { scope: far, status: None }).await, []);
    }
}

pub async fn what_arrives_between_two_pages_moves_nothing(backend: Backend) {
    let log = backend.log().await;
    let at = |n: i64| NOW + n / 3;
    append(&log, &(0..30).map(|n| numbered(n, at(i64::try_from(n).unwrap_or(0)))).collect::<Vec<_>>()).await;
    for order in [Order::Newest, Order::Oldest] {
        let before = events(&log, EventFilter::default()).await;
        let (mut seen, mut after, mut number) = (Vec::new(), None, 1_000 * before.len());
        loop {
            let filter = EventFilter::default();
            let listing = log.list_events(&filter, &page(order, after.take(), 4)).await.expect("events");
            seen.extend(listing.rows);
            let Some(next) = listing.next else { break };
            after = Some(next);
            // Late ones and new ones, on both sides of the page, and within its millisecond.
            let late = [NOW - 5_000, NOW + 5_000, next.occurred_at().get()];
            append(
                &log,
                &late.map(|at| {
                    numbered(
                        {
                            number += 1;
                            number
                        },
                        at,
                    )
                }),
            )
            .await;
            if seen.len() > 300 {
                break;
            }
        }
        let ids: Vec<EventId> = seen.iter().map(|row| row.event_id).collect();
        let known = before.iter().filter(|row| ids.contains(&row.event_id)).count();
        let mut once = ids.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), ids.len(), "none twice");
        assert_eq!(known, before.len(), "none left out");
    }
}

pub async fn hostile_text_is_only_text(backend: Backend) {
    let log = backend.log().await;
    let hostile = [
        "' OR '1'='1",
        "'; DROP TABLE events; --",
        "$1",
        "?1",
        "%",
        "_",
        "\\",
        "<script>alert(1)</script>",
        "=HYPERLINK(\"x\")",
        "\u{202e}\u{0}\u{fffd}",
        "👩‍👩‍👧",
    ];
    let info = |name: &str| {
        let text = serde_json::Value::from(name).to_string();
        format!(
            r#"{{"event":{text},"timestamp":{NOW},"payload":{{"meetingInfo":{{"meetingID":{text},"meetingUUID":{text}}},"attendeeInfo":{{"displayName":{text},"joinTime":{NOW},"leftTime":0}}}}}}"#
        )
    };
    let join = |name: &str| info(name).replacen(&serde_json::Value::from(name).to_string(), "\"meeting.join\"", 1);
    append(&log, &hostile.map(info)).await;
    append(&log, &hostile.map(join)).await;
    catch_up(&mut cursor(&log, "a")).await;
    for name in hostile {
        let stored = name.replace('\0', "\u{fffd}");
        let text = || Some(name.to_owned());
        let only = |rows: &[ListedEvent], count: usize| {
            let names: Vec<_> = rows.iter().map(|row| row.display_name.as_deref()).collect();
            assert_eq!(names, vec![Some(&*stored); count], "{name}");
        };
        only(&events(&log, EventFilter { event: text(), ..EventFilter::default() }).await, 1);
        for scope in [Scope { meeting: text(), ..Scope::default() }, Scope { person: text(), ..Scope::default() }] {
            only(&events(&log, EventFilter { scope: scope.clone(), ..EventFilter::default() }).await, 2);
            let runs = meetings(&log, MeetingFilter { scope: scope.clone(), status: None }).await;
            assert_eq!(runs.iter().map(|row| &*row.meeting_uuid).collect::<Vec<_>>(), [&*stored], "{scope:?}");
            assert_eq!(stays(&log, StayFilter { scope, ..StayFilter::default() }).await.len(), 1);
        }
        let scope = Scope { subscriber: text(), ..Scope::default() };
        assert_eq!(events(&log, EventFilter { scope, ..EventFilter::default() }).await, []);
        let run = RunKey { subscriber_id: APP_ID.into(), meeting_uuid: name.into() };
        assert!(log.get_meeting(&run).await.expect("a database").is_some());
    }
    assert_eq!(backend.value("SELECT count(*) FROM events").await, (2 * hostile.len()).to_string());
}

pub async fn the_quarantine_is_listed_without_its_bodies(backend: Backend) {
    let log = backend.log().await;
    let unreadable = |n: i64| format!(r#"{{"event":"","timestamp":{}}}"#, NOW + n);
    for n in 0..20 {
        log.append(&[super::fixture::delivered_at(&unreadable(n), NOW + n)]).await.expect("appended");
    }
    let list = async |filter: QuarantineFilter| {
        let read = async |page: Page<i64>| log.list_quarantine(&filter, &page).await.expect("the quarantine");
        whole(|row: &convoke_log::ListedQuarantined| row.id, read).await
    };
    let all = list(QuarantineFilter::default()).await;
    assert_eq!(all.len(), 20);
    let whole = log.get_quarantined(all[3].id).await.expect("a database").expect("it is there");
    assert_eq!((all[3].bytes, &all[3].reason), (i64::try_from(whole.body.len()).unwrap_or(0), &whole.reason));
    assert_eq!((all[3].received_at, all[3].deliveries, &*all[3].subscriber_id), (millis(NOW + 3), 1, APP_ID));
    let (since, until) = (Some(millis(NOW + 2)), Some(millis(NOW + 5)));
    assert_eq!(list(QuarantineFilter { since, until, ..QuarantineFilter::default() }).await, all[2..5]);
    let another = QuarantineFilter { subscriber: Some("another".to_owned()), ..QuarantineFilter::default() };
    assert_eq!(list(another).await, []);
}

pub async fn a_row_in_memory_is_listed_as_the_log_lists_it(backend: Backend) {
    let log = backend.log().await;
    let odd = r#"{"event":"meeting.join","timestamp":1790000000000,"payload":{"meetingInfo":{"meetingID":7},"attendeeInfo":{"displayName":"A\u0000B","joinTime":1790000000001},"x":"\u0000"}}"#;
    let mut batch = happened(200);
    batch.push(Append { deliveries: 3, last_delivered_at: millis(NOW + 5), ..delivered(odd) });
    let recent = RecentRows::default();
    let first = log.append(&batch).await.expect("it is appended").first.expect("they follow one another");
    recent.push(first, &batch);
    let listed: Vec<_> = recent.after(Seq(first.0 - 1), 1_000).iter().filter_map(RecentRow::listed).collect();
    let mut read = events(&log, EventFilter::default()).await;
    read.sort_by_key(|row| row.seq);
    assert_eq!((listed.len(), listed), (batch.len(), read));
}
