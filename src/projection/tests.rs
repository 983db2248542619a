//! The rules, and that order, repetition and delay do not matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::people::People;
use super::run::Run;
use convoke_core::event::{Attendee, Meeting, Source};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;
use convoke_log::{
    CallResultRow, Changes, ClosedBy, KeptRow, KeptRows, MeetingRow, PersonBy, ProjectedEvent, RecordingRow, RunKey,
    Status, StayRow, Stored,
};

const SUBSCRIBER: &str = "7700001234";

fn key() -> RunKey {
    RunKey { subscriber_id: SUBSCRIBER.into(), meeting_uuid: "11112222333344445555666677778888".into() }
}

fn at(ms: i64) -> Millis {
    Millis::new(ms).expect("a time")
}

/// An event of the run at `ms`; events that differ in nothing have one id.
fn fact(event: &str, ms: i64, attendee: Attendee) -> ProjectedEvent {
    fact_of(event, ms, attendee, None)
}

fn fact_of(event: &str, ms: i64, attendee: Attendee, info: Option<&str>) -> ProjectedEvent {
    let content = format!("{event} {attendee:?} {info:?}");
    ProjectedEvent {
        seq: Seq(1),
        event_id: EventId::of(SUBSCRIBER, at(ms), content.as_bytes()),
        subscriber_id: SUBSCRIBER.into(),
        event: event.into(),
        meeting: Meeting { id: Some("960000017".into()), uuid: Some(key().meeting_uuid), cycle_sub_id: None },
        attendee,
        source: Source::Push,
        event_info: info.map(Arc::from),
    }
}

/// Somebody who came at `joined` and has left, if that is not 0.
fn who(participant: &str, user: &str, joined: i64, left: i64) -> Attendee {
    let some = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Arc::from);
    Attendee {
        participant_id: some(participant),
        user_uuid: some(user),
        join_time: Some(joined).filter(|ms| *ms > 0).map(at),
        left_time: Some(left).filter(|ms| *ms > 0).map(at),
        ..Attendee::default()
    }
}

/// All that these events tell of who is one person.
fn people(facts: &[ProjectedEvent]) -> People {
    let mut people = People::default();
    for fact in facts {
        let identities: Vec<_> = people.unknown(fact).collect();
        for identity in identities {
            people.learn(identity);
        }
    }
    people
}

/// Folds these facts into `run`: the rows that change.
fn settled(run: &mut Run, people: &People, facts: &[ProjectedEvent]) -> Changes {
    let (mut changes, mut stays) = (Changes::default(), Vec::new());
    facts.iter().for_each(|fact| {
        run.add(fact);
    });
    run.settle(people, &mut changes, &mut stays);
    changes.stays.extend(stays.into_iter().map(|id| run.stay_row(id).expect("a stay of the run")));
    changes
}

/// The tables, in memory.
type AllRows<'a> = (
    BTreeMap<&'a RunKey, MeetingRow>,
    &'a BTreeMap<Uuid, StayRow>,
    &'a BTreeMap<EventId, RecordingRow>,
    &'a BTreeMap<(EventId, i64), CallResultRow>,
    Vec<&'a KeptRow>,
);

#[derive(Debug, Default)]
struct Database {
    people: People,
    meetings: BTreeMap<RunKey, MeetingRow>,
    stays: BTreeMap<Uuid, StayRow>,
    recordings: BTreeMap<EventId, RecordingRow>,
    calls: BTreeMap<(EventId, i64), CallResultRow>,
    kept: BTreeMap<Uuid, Vec<KeptRow>>,
}

impl Database {
    fn of(facts: &[ProjectedEvent]) -> Self {
        let mut database = Self { people: people(facts), ..Self::default() };
        let mut run = Run::new(key());
        database.take(&mut run, facts);
        database
    }

    /// Folds these facts into `run`, and writes what changed.
    fn take(&mut self, run: &mut Run, facts: &[ProjectedEvent]) {
        let changes = settled(run, &self.people, facts);
        for mut row in changes.meetings {
            if let Some(KeptRows { before, people }) = row.kept.take() {
                before.map(|id| self.kept.remove(&id));
                self.kept.extend(row.kept_id.map(|id| (id, people)));
            }
            self.meetings.insert(row.run.clone(), MeetingRow { numbers: Vec::new(), ..row });
        }
        self.stays.extend(changes.stays.into_iter().map(|row| (row.stay_id, row)));
        changes.gone.iter().for_each(|(_, id)| drop(self.stays.remove(id)));
        self.recordings.extend(changes.recordings.into_iter().map(|row| (row.event_id, row)));
        self.calls.extend(changes.calls.into_iter().map(|row| ((row.event_id, row.item), row)));
    }

    /// The same, but the process ends in the midst of it: the stays are written first, and the run with the last of all.
    fn take_in_part(&mut self, run: &mut Run, facts: &[ProjectedEvent], part: Index) {
        let stays = settled(run, &self.people, facts).stays;
        let written = part.index(stays.len() + 1);
        self.stays.extend(stays.into_iter().take(written).map(|row| (row.stay_id, row)));
    }

    /// The run, read back.
    fn load(&self) -> Run {
        let stored = self.meetings.get(&key()).map(|meeting| Stored {
            meeting: meeting.clone(),
            stays: self.stays.values().cloned().collect(),
            recordings: self.recordings.values().cloned().collect(),
            calls: self.calls.values().cloned().collect(),
        });
        stored.map_or_else(|| Run::new(key()), |stored| Run::of(stored).expect("rows of our own"))
    }

    fn rows(&self) -> AllRows<'_> {
        // Under which id it is kept who was there depends on when the run was first over.
        let meetings = self.meetings.iter().map(|(key, row)| (key, MeetingRow { kept_id: None, ..row.clone() }));
        let (meetings, kept) = (meetings.collect(), self.kept.values().flatten().collect());
        (meetings, &self.stays, &self.recordings, &self.calls, kept)
    }

    fn meeting(&self) -> &MeetingRow {
        &self.meetings[&key()]
    }

    /// Joined, left, by what, of each stay.
    fn stays(&self) -> Vec<(Option<i64>, Option<i64>, ClosedBy)> {
        let ms = |time: Option<Millis>| time.map(Millis::get);
        self.stays.values().map(|row| (ms(row.joined_at), ms(row.left_at), row.closed_by)).collect()
    }
}

fn ready(ms: i64, length: i64) -> ProjectedEvent {
    let info = format!(r#"{{"payload":{{"recordInfo":{{"lengthSeconds":{length},"sizeMB":1.5,"files":2}}}}}}"#);
    fact_of("record.ready", ms, Attendee::default(), Some(&info))
}

/// That `number` was called, or left: two results in one message.
fn called(ms: i64, number: &str, code: i64) -> ProjectedEvent {
    let info = format!(
        r#"{{"payload":{{"liveInfo":{{"data":[{{"callNumber":"{number}","resultCode":"1107600{code}"}},{{"callNumber":"n1","errorCode":11076010}}]}}}}}}"#
    );
    fact_of("live.call_result", ms, Attendee::default(), Some(&info))
}

/// Any event of a run, of few people at few moments, so that everything meets everything.
fn any_fact() -> impl Strategy<Value = ProjectedEvent> {
    let names = || prop_oneof![2 => Just(None), 3 => (0..3_u8).prop_map(|n| Some(Arc::from(format!("n{n}"))))];
    let moment = || prop_oneof![1 => Just(None), 4 => (1..12_i64).prop_map(|ms| Some(at(ms * 10)))];
    let texts = (names(), names(), names(), names(), names(), names());
    let attendee = (texts, moment(), moment()).prop_map(
        |((user_uuid, account, participant_id, display_name, role, call_number), join_time, left_time)| Attendee {
            user_uuid,
            account,
            participant_id,
            display_name,
            role,
            call_number,
            user_agent: None,
            join_time,
            left_time,
        },
    );
    let kind = prop_oneof![
        5 => Just("meeting.join"),
        5 => Just("meeting.left"),
        2 => Just("meeting.started"),
        2 => Just("meeting.end"),
        1 => Just("meeting.conclude"),
        1 => Just("meeting.create"),
        1 => Just("meeting.modify"),
        1 => Just("meeting.cancel"),
        1 => Just("record.finish"),
        1 => Just("record.ready"),
        2 => Just("live.call_result"),
        1 => Just("meeting.unheard-of"),
    ];
    let source = prop_oneof![3 => Just(Source::Push), 1 => Just(Source::Platform)];
    let given = (kind, 0..130_i64, attendee, 0..4_i64, names(), names(), source);
    given.prop_map(|(kind, ms, attendee, length, id, cycle, source)| {
        let fact = match kind {
            "record.ready" => ready(ms, length),
            "live.call_result" => called(ms, &format!("n{}", length % 3), length),
            "meeting.join" | "meeting.left" => fact(kind, ms, attendee),
            _ => fact(kind, ms, Attendee::default()),
        };
        let meeting = Meeting { id, cycle_sub_id: cycle, ..fact.meeting };
        let event_id = EventId::of(SUBSCRIBER, at(ms), format!("{} {meeting:?} {source:?}", fact.event_id).as_bytes());
        ProjectedEvent { meeting, event_id, source, ..fact }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_tables_do_not_depend_on_order_repetition_pieces_or_where_it_was_killed(
        facts in prop::collection::vec(any_fact(), 1..30),
        order in prop::collection::vec(any::<(Index, Index, bool, Option<bool>)>(), 30),
        repeated in prop::collection::vec(any::<Index>(), 0..10),
        part in any::<Index>(),
    ) {
        let expected = Database::of(&facts);
        let mut shuffled = facts.clone();
        shuffled.extend(repeated.iter().map(|index| index.get(&facts).clone()));
        for (one, other, ..) in &order {
            let length = shuffled.len();
            shuffled.swap(one.index(length), other.index(length));
        }
        let mut database = Database { people: people(&facts), ..Database::default() };
        let mut run = Run::new(key());
        let mut piece = Vec::new();
        for (fact, (_, _, ends, forgets)) in shuffled.into_iter().zip(order.into_iter().cycle()) {
            piece.push(fact);
            if ends && forgets == Some(false) {
                // Killed while it writes: all of it is folded again, in other pieces.
                database.take_in_part(&mut run, &piece, part);
                run = database.load();
                let again: Vec<_> = piece.drain(..piece.len() / 2).collect();
                database.take(&mut run, &again);
            } else if ends {
                database.take(&mut run, &std::mem::take(&mut piece));
                if forgets.is_some() {
                    run = database.load();
                }
            }
        }
        database.take(&mut run, &piece);
        prop_assert_eq!(database.rows(), expected.rows());
        let live = expected.meeting().status == Status::Live;
        let never = if live { ClosedBy::MeetingEnd } else { ClosedBy::Open };
        // The ids of one participant's stays differ in the time by which they are led. Who joined again was put out by an earlier end.
        let again = |id: &Uuid| expected.stays.keys().any(|other| other > id && (other.as_u128() ^ id.as_u128()) << 48 == 0);
        prop_assert!(expected.stays.iter().all(|(id, row)| row.closed_by != never || (live && again(id))));
        // Who was there is kept of all that is not live, under the id that the run has.
        let kept: Vec<_> = database.kept.keys().copied().collect();
        prop_assert_eq!(kept, database.meeting().kept_id.into_iter().collect::<Vec<_>>());
        let people = database.kept.values().flatten().count();
        prop_assert_eq!(people, if live { 0 } else { usize::try_from(expected.meeting().participants).expect("few") });
        prop_assert!(expected.stays().iter().all(|(joined, left, _)| left.is_none() || joined <= left));
        // Whatever was read back and found to say nothing new is not written again.
        prop_assert!(settled(&mut database.load(), &database.people, &[]).is_empty());
    }
}

#[test]
fn a_stay_pairs_join_and_left_and_a_left_alone_makes_one() {
    let facts = [
        fact("meeting.join", 105, who("p1", "u1", 100, 0)),
        fact("meeting.left", 205, who("p1", "u1", 100, 200)),
        // Again, as the same participant.
        fact("meeting.join", 255, who("p1", "u1", 250, 0)),
        fact("meeting.left", 405, who("p2", "u2", 300, 400)),
    ];
    let tables = Database::of(&facts);
    let mut stays = tables.stays();
    stays.sort_by_key(|(joined, ..)| *joined);
    assert_eq!(
        stays,
        [
            (Some(100), Some(200), ClosedBy::Left),
            (Some(250), None, ClosedBy::Open),
            (Some(300), Some(400), ClosedBy::Left)
        ]
    );
    assert_eq!((tables.meeting().stays, tables.meeting().participants, tables.meeting().peak_participants), (3, 2, 2));
    assert_eq!(tables.stays.values().map(|row| row.duration.map(|it| it.as_millis())).max(), Some(Some(100)));
}

#[test]
fn who_joins_again_without_a_left_had_left_by_then_and_a_left_that_comes_later_says_when() {
    let mut facts = vec![
        fact("meeting.join", 255, who("p1", "u1", 250, 0)),
        fact("meeting.join", 105, who("p1", "u1", 100, 0)),
        // Two devices of one user are there at once.
        fact("meeting.join", 305, who("p2", "u1", 300, 0)),
    ];
    let stays = |facts: &[ProjectedEvent]| Database::of(facts).stays();
    let open = |from| (Some(from), None, ClosedBy::Open);
    let rejoined = (Some(100), Some(250), ClosedBy::Rejoin);
    assert_eq!(stays(&facts), [rejoined, open(250), open(300)]);
    facts.push(fact("meeting.end", 500, Attendee::default()));
    let end = |from| (Some(from), Some(500), ClosedBy::MeetingEnd);
    assert_eq!(stays(&facts), [rejoined, end(250), end(300)]);
    let kept = Database::of(&facts).kept.into_values().flatten().next().expect("one person");
    assert_eq!((kept.present_ms, kept.stays, kept.devices, kept.estimated), (400, 3, 2, true));
    facts.push(fact("meeting.end", 200, Attendee::default()));
    assert_eq!(stays(&facts)[0], (Some(100), Some(200), ClosedBy::MeetingEnd), "an end came between");
    facts.push(fact("meeting.left", 185, who("p1", "u1", 100, 180)));
    assert_eq!(stays(&facts)[0], (Some(100), Some(180), ClosedBy::Left));
}

#[test]
fn without_a_participant_id_stays_pair_by_number_or_else_by_name() {
    let dial = |number: Option<&str>, name: &str, left| Attendee {
        call_number: number.map(Arc::from),
        display_name: Some(name.into()),
        ..who("", "", 100, left)
    };
    let facts = [
        fact("meeting.join", 105, dial(Some("+861"), "Li", 0)),
        fact("meeting.left", 205, dial(Some("+861"), "Li Si", 200)),
        fact("meeting.join", 105, dial(None, "Li", 0)),
        fact("meeting.left", 305, dial(None, "Li", 300)),
    ];
    let tables = Database::of(&facts);
    let stays: Vec<_> =
        tables.stays.values().map(|row| (row.person.as_deref(), row.left_at.map(Millis::get))).collect();
    assert_eq!(stays.len(), 2);
    assert!(stays.contains(&(Some("+861"), Some(200))) && stays.contains(&(Some("Li"), Some(300))), "{stays:?}");
    let names: Vec<_> = tables.stays.values().filter_map(|row| row.attributes.unpack().display_name).collect();
    assert!(names.contains(&"Li Si"), "the left says it as it was in the end: {names:?}");
    assert_eq!(tables.meeting().participants, 2);
}

#[test]
fn an_end_closes_stays_and_a_left_that_comes_later_corrects_that() {
    let mut facts = vec![
        fact("meeting.started", 50, Attendee::default()),
        fact("meeting.join", 105, who("p1", "u1", 100, 0)),
        fact("meeting.end", 500, Attendee::default()),
    ];
    let tables = Database::of(&facts);
    assert_eq!(tables.stays(), [(Some(100), Some(500), ClosedBy::MeetingEnd)]);
    assert_eq!((tables.meeting().status, tables.meeting().ended_at), (Status::Ended, Some(at(500))));
    facts.push(fact("meeting.left", 450, who("p1", "u1", 100, 440)));
    assert_eq!(Database::of(&facts).stays(), [(Some(100), Some(440), ClosedBy::Left)]);
}

#[test]
fn who_comes_after_the_end_does_not_make_the_run_go_on_and_stays_in_it_for_no_longer_than_is_told() {
    let mut facts = vec![
        fact("meeting.started", 50, Attendee::default()),
        fact("meeting.join", 105, who("p1", "u1", 100, 0)),
        fact("meeting.end", 500, Attendee::default()),
        fact("meeting.join", 540, who("p2", "u2", 530, 0)),
    ];
    let seen = |facts: &[ProjectedEvent]| {
        let tables = Database::of(facts);
        let mut stays = tables.stays();
        stays.sort_by_key(|(joined, ..)| *joined);
        (tables.meeting().status, tables.meeting().ended_at, stays)
    };
    let first = (Some(100), Some(500), ClosedBy::MeetingEnd);
    let gone = (Some(530), Some(530), ClosedBy::MeetingEnd);
    assert_eq!(seen(&facts), (Status::Ended, Some(at(500)), vec![first, gone]));
    assert_eq!(Database::of(&facts).meeting().peak_participants, 1);
    facts.push(fact("meeting.left", 601, who("p2", "u2", 530, 600)));
    let left = (Some(530), Some(600), ClosedBy::Left);
    assert_eq!(seen(&facts), (Status::Ended, Some(at(500)), vec![first, left]));
    // It was entered again, and that they came was no mistake.
    facts.pop();
    facts.push(fact("meeting.started", 520, Attendee::default()));
    let open = |joined| (Some(joined), None, ClosedBy::Open);
    assert_eq!(seen(&facts), (Status::Live, None, vec![open(100), open(530)]));
    facts.push(fact("meeting.end", 900, Attendee::default()));
    let last = (Some(530), Some(900), ClosedBy::MeetingEnd);
    assert_eq!(seen(&facts), (Status::Ended, Some(at(900)), vec![first, last]));
}

#[test]
fn nobody_leaves_before_they_join() {
    let facts =
        [fact("meeting.join", 105, who("p1", "u1", 100, 0)), fact("meeting.left", 210, who("p1", "u1", 100, 60))];
    let tables = Database::of(&facts);
    assert_eq!(tables.stays(), [(Some(100), Some(100), ClosedBy::Left)]);
    assert_eq!(tables.stays.values().next().and_then(|row| row.duration), Some(std::time::Duration::ZERO));
}

#[test]
fn a_run_goes_on_after_an_end_and_is_over_after_its_conclusion() {
    let mut facts = vec![
        fact("meeting.started", 50, Attendee::default()),
        fact("meeting.join", 105, who("p1", "u1", 100, 0)),
        fact("meeting.end", 500, Attendee::default()),
        fact("meeting.started", 600, Attendee::default()),
        fact("meeting.join", 705, who("p1", "u1", 700, 0)),
    ];
    let seen = |facts: &[ProjectedEvent]| {
        let tables = Database::of(facts);
        let mut stays = tables.stays();
        stays.sort_by_key(|(joined, ..)| *joined);
        let row = tables.meeting();
        let ms = |time: Option<Millis>| time.map(Millis::get);
        (row.status, ms(row.started_at), ms(row.ended_at), ms(row.concluded_at), stays)
    };
    let first = (Some(100), Some(500), ClosedBy::MeetingEnd);
    let open = |joined| (Some(joined), None, ClosedBy::Open);
    assert_eq!(seen(&facts), (Status::Live, Some(50), None, None, vec![first, open(700)]), "they joined again");
    facts.push(fact("meeting.end", 900, Attendee::default()));
    let closed = (Some(700), Some(900), ClosedBy::MeetingEnd);
    assert_eq!(seen(&facts), (Status::Ended, Some(50), Some(900), None, vec![first, closed]));
    facts.push(fact("meeting.conclude", 950, Attendee::default()));
    facts.push(fact("meeting.started", 960, Attendee::default()));
    assert_eq!(seen(&facts), (Status::Concluded, Some(50), Some(900), Some(950), vec![first, closed]));
}

#[test]
fn who_has_not_left_is_there_again_while_the_run_goes_on_after_its_end() {
    let mut database = Database::default();
    let mut run = Run::new(key());
    let mut after = |facts: &[ProjectedEvent]| {
        database.take(&mut run, facts);
        let peak = database.meeting().peak_participants;
        (database.meeting().status, database.stays().swap_remove(0), peak)
    };
    let closed_by_the_end = (Status::Ended, (Some(100), Some(500), ClosedBy::MeetingEnd), 1);
    let started =
        [fact("meeting.started", 50, Attendee::default()), fact("meeting.join", 105, who("p1", "u1", 100, 0))];
    assert_eq!(after(&started), (Status::Live, (Some(100), None, ClosedBy::Open), 1));
    assert_eq!(after(&[fact("meeting.end", 500, Attendee::default())]), closed_by_the_end);
    let again = fact("meeting.started", 600, Attendee::default());
    assert_eq!(after(&[again]), (Status::Live, (Some(100), None, ClosedBy::Open), 1));
    assert_eq!(after(&[fact("meeting.end", 700, Attendee::default())]), closed_by_the_end);
    // It starts again, and somebody else comes.
    let other = [fact("meeting.started", 790, Attendee::default()), fact("meeting.join", 805, who("p2", "u2", 800, 0))];
    assert_eq!(after(&other), (Status::Live, (Some(100), None, ClosedBy::Open), 1));
    let left = fact("meeting.left", 855, who("p1", "u1", 100, 850));
    assert_eq!(after(&[left]), (Status::Live, (Some(100), Some(850), ClosedBy::Left), 2));
    assert_eq!(
        after(&[fact("meeting.end", 900, Attendee::default())]),
        (Status::Ended, (Some(100), Some(850), ClosedBy::Left), 2)
    );
}

#[test]
fn what_was_never_held_is_scheduled_or_cancelled() {
    let mut facts = vec![
        fact("meeting.create", 10, Attendee::default()),
        fact("meeting.modify", 20, Attendee::default()),
        fact("meeting.modify", 30, Attendee::default()),
    ];
    let row = Database::of(&facts).meeting().clone();
    assert_eq!((row.status, row.modifications, row.modified_at), (Status::Scheduled, 2, Some(at(30))));
    assert_eq!((row.first_event_at, row.last_event_at), (at(10), at(30)));
    facts.push(fact("meeting.cancel", 40, Attendee::default()));
    let row = Database::of(&facts).meeting().clone();
    assert_eq!((row.status, row.cancelled_at), (Status::Cancelled, Some(at(40))));
}

#[test]
fn two_devices_are_two_stays_and_one_person() {
    let facts = [
        fact("meeting.left", 505, who("p1", "u1", 100, 500)),
        fact("meeting.left", 405, who("p2", "u1", 200, 400)),
        // Comes in the millisecond in which somebody leaves.
        fact("meeting.join", 401, who("p3", "u2", 400, 0)),
        fact("meeting.left", 101, who("p4", "u3", 90, 100)),
    ];
    let row = Database::of(&facts).meeting().clone();
    assert_eq!((row.stays, row.participants, row.peak_participants), (4, 3, 2));
}

/// Who each stay's person is, and by what that is known, in the order of joining.
fn persons(tables: &Database) -> Vec<(String, PersonBy)> {
    let mut rows: Vec<&StayRow> = tables.stays.values().collect();
    rows.sort_by_key(|row| row.joined_at);
    let person =
        |row: &&StayRow| (row.person.as_deref().unwrap_or("-").to_owned(), row.person_by.expect("it is known"));
    rows.iter().map(person).collect()
}

#[test]
fn one_person_with_all_of_their_ids_or_some_is_one_person() {
    let told = |n: i64, user: Option<&str>, account: Option<&str>, number: Option<&str>| Attendee {
        account: account.map(Arc::from),
        call_number: number.map(Arc::from),
        display_name: Some("Li".into()),
        ..who(&format!("p{n}"), user.unwrap_or(""), n * 100, n * 100 + 50)
    };
    let mut facts: Vec<ProjectedEvent> = [
        told(1, None, None, Some("+1")),
        told(2, None, Some("li"), None),
        told(3, Some("u1"), Some("li"), None),
        told(4, None, Some("li"), Some("+1")),
        // A room's number, and an account that two share.
        told(5, Some("u1"), None, Some("+9")),
        told(6, Some("u2"), Some("shared"), Some("+9")),
        told(7, Some("u3"), Some("shared"), None),
        told(8, None, None, Some("+9")),
        told(9, None, Some("shared"), Some("+8")),
    ]
    .into_iter()
    .map(|who| fact("meeting.left", who.left_time.expect("a time").get() + 5, who))
    .collect();
    let tables = Database::of(&facts);
    let expected = [
        ("u1", PersonBy::Number),
        ("u1", PersonBy::Account),
        ("u1", PersonBy::User),
        ("u1", PersonBy::Account),
        ("u1", PersonBy::User),
        ("u2", PersonBy::User),
        ("u3", PersonBy::User),
        ("+9", PersonBy::Number),
        ("shared", PersonBy::Account),
    ];
    assert_eq!(persons(&tables), expected.map(|(person, by)| (person.to_owned(), by)));
    assert_eq!(tables.meeting().participants, 5);
    facts.truncate(2);
    assert_eq!(Database::of(&facts).meeting().participants, 2, "nothing says that they are one");
}

#[test]
fn who_is_known_by_name_alone_is_one_guest_as_long_as_nobody_of_that_name_is_there_too() {
    let named = |participant: &str, joined, left| Attendee {
        display_name: Some("Li".into()),
        ..who(participant, "", joined, left)
    };
    let mut facts =
        vec![fact("meeting.left", 205, named("p1", 100, 200)), fact("meeting.left", 405, named("p2", 200, 400))];
    let tables = Database::of(&facts);
    assert_eq!(persons(&tables), [("Li".to_owned(), PersonBy::Name), ("Li".to_owned(), PersonBy::Name)]);
    assert_eq!((tables.meeting().participants, tables.meeting().peak_participants), (1, 1));
    facts.push(fact("meeting.left", 305, named("p3", 150, 300)));
    let tables = Database::of(&facts);
    let people: Vec<String> = persons(&tables).into_iter().map(|(person, _)| person).collect();
    assert_eq!(people, ["Li", "Li (2)", "Li"]);
    assert_eq!((tables.meeting().participants, tables.meeting().peak_participants), (2, 2));
}

#[test]
fn times_that_are_missing_are_taken_from_the_events() {
    let joined = fact("meeting.join", 100, who("p1", "u1", 0, 0));
    let left = fact("meeting.left", 200, who("p1", "u1", 0, 0));
    let again = fact("meeting.join", 300, who("p1", "u1", 0, 0));
    assert_eq!(Database::of(&[joined.clone(), left.clone()]).stays(), [(Some(100), Some(200), ClosedBy::Left)]);
    assert_eq!(Database::of(&[again, left, joined]).stays(), [(Some(300), None, ClosedBy::Open)]);
}

#[test]
fn the_newest_word_on_recordings_describes_those_that_were_finished_before_it() {
    let finished = |ms| fact("record.finish", ms, Attendee::default());
    let tables = Database::of(&[finished(100), ready(150, 60), finished(200), ready(250, 90), finished(300)]);
    let rows: Vec<_> = tables
        .recordings
        .values()
        .map(|row| {
            (row.finished_at.get(), row.ready.as_ref().map(|it| (it.at.get(), it.length_s, it.size_mb, it.files)))
        })
        .collect();
    let newest = Some((250, Some(90), Some(1.5), Some(2)));
    assert_eq!(rows, [(100, newest), (200, newest), (300, None)]);
    assert_eq!((tables.meeting().recordings, tables.meeting().status), (3, Status::Live));
}

#[test]
fn what_a_run_remembers_is_bounded() {
    let facts: Vec<_> = (0..3_000).map(|ms| fact("meeting.modify", ms, Attendee::default())).collect();
    let row = Database::of(&facts).meeting().clone();
    assert_eq!((row.modifications, row.modified_at), (1_000, Some(at(2_999))));
}
