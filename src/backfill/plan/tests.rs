use super::*;
use crate::metrics::Label as _;
use convoke_platform::Occurrence;

const UUID: &str = "11112222333344445555666677778888";
const START: i64 = 1_790_000_000_000;

/// A time in seconds after the beginning of the run's first minute.
fn at(seconds: i64) -> Millis {
    Millis::new(START + seconds * 1_000).expect("a time in range")
}

fn conference() -> Conference {
    Conference {
        conference_id: Some("960000017".to_owned()),
        conf_uuid: Some(UUID.to_owned()),
        start: Some(at(0)),
        end: Some(at(3_600)),
        state: Some("Destroyed".to_owned()),
        has_record_file: Some(false),
        ..Conference::default()
    }
}

fn past(number: &str, joined: i64, left: i64) -> PastStay {
    let name = format!("Person {number}");
    let (joined_at, left_at) = (Some(at(joined)), Some(at(left)));
    let call_number = Some(number.to_owned());
    PastStay { display_name: Some(name), call_number, joined_at, left_at, ..PastStay::default() }
}

/// The stay as the tables know it if both events were pushed.
fn known(past: &PastStay) -> StaySnapshot {
    StaySnapshot {
        participant_id: Some("p".to_owned()),
        display_name: past.display_name.clone(),
        call_number: past.call_number.clone(),
        joined_at: past.joined_at,
        left_at: past.left_at,
        left: true,
        ..StaySnapshot::default()
    }
}

fn run(started: Option<i64>, ended: Option<i64>) -> RunSnapshot {
    RunSnapshot {
        meeting_uuid: UUID.to_owned(),
        meeting_id: Some("960000017".to_owned()),
        started_at: started.map(at),
        ended_at: ended.map(at),
        ..RunSnapshot::default()
    }
}

fn compared(past: &[PastStay], run: Option<&RunSnapshot>, stays: &[StaySnapshot]) -> Plan {
    plan(&conference(), UUID, past, run, stays, Millis::MAX)
}

fn made(plan: &Plan) -> Vec<(&'static str, i64)> {
    plan.events.iter().map(|event| (event.kind.as_str(), (event.at.get() - START) / 1_000)).collect()
}

#[test]
fn a_run_that_nothing_is_missing_of_needs_nothing() {
    let there = [past("+1", 5, 60), past("+2", 9, 70)];
    let stays: Vec<_> = there.iter().map(known).collect();
    assert_eq!(compared(&there, Some(&run(Some(4), Some(71))), &stays), Plan::default());
}

#[test]
fn a_run_that_the_log_never_saw_begins_with_the_first_join_and_ends_with_the_last_leave() {
    let plan = compared(&[past("+2", 9, 70), past("+1", 5, 60)], None, &[]);
    let expected =
        [("meeting.started", 5), ("meeting.join", 5), ("meeting.join", 9), ("meeting.left", 60), ("meeting.left", 70)];
    assert_eq!(made(&plan)[..5], expected);
    assert_eq!(made(&plan)[5..], [("meeting.end", 70)]);
    assert_eq!(plan.gaps, [Gap::Run, Gap::Start, Gap::End, Gap::Stay, Gap::Stay]);
    assert_eq!(plan.unfillable, []);
}

#[test]
fn a_run_without_stays_has_the_minutes_of_the_list() {
    assert_eq!(made(&compared(&[], None, &[])), [("meeting.started", 0), ("meeting.end", 3_600)]);
    let bare = Conference { start: None, end: None, has_record_file: Some(true), ..conference() };
    let plan = plan(&bare, UUID, &[], None, &[], Millis::MAX);
    assert_eq!((plan.events.len(), plan.unfillable), (0, vec![Unfillable::NoTime; 3]));
}

#[test]
fn an_end_is_not_before_the_start_or_a_join_or_what_was_last_seen() {
    // The list's end, cut to the minute, is before the start that was pushed.
    let cut = Conference { end: Some(at(0)), ..conference() };
    assert_eq!(made(&plan(&cut, UUID, &[], Some(&run(Some(30), None)), &[], Millis::MAX)), [("meeting.end", 30)]);
    let open = PastStay { left_at: None, ..past("+2", 90, 0) };
    let plan = compared(&[past("+1", 5, 60), open], Some(&run(Some(4), None)), &[]);
    assert_eq!(made(&plan).last(), Some(&("meeting.end", 90)));
    let live = RunSnapshot { live_at: Some(at(100)), ..run(Some(4), None) };
    assert_eq!(made(&compared(&[], Some(&live), &[])), [("meeting.end", 3_600)]);
    let there = past("+1", 5, 60);
    assert_eq!(made(&compared(std::slice::from_ref(&there), Some(&live), &[known(&there)])), [("meeting.end", 100)]);
}

#[test]
fn a_join_without_a_leave_gets_the_leave_with_the_ids_of_the_join() {
    let there = [past("+1", 5, 60), past("+2", 9, 70)];
    let open = StaySnapshot { left: false, left_at: None, joined_at: Some(at(6)), ..known(&there[0]) };
    let plan = compared(&there, Some(&run(Some(4), Some(71))), &[open, known(&there[1])]);
    assert_eq!((made(&plan), &plan.gaps[..]), (vec![("meeting.left", 60)], &[Gap::Leave][..]));
    assert!(plan.events[0].event_info.contains(r#""participantID":"p""#));
    assert!(plan.events[0].event_info.contains(&format!(r#""joinTime":{}"#, at(6).get())), "the join's own");
}

#[test]
fn who_was_there_until_the_end_needs_no_leave() {
    let there = [past("+1", 5, 69)];
    let open = StaySnapshot { left: false, left_at: Some(at(69)), ..known(&there[0]) };
    let with_end = |end| compared(&there, Some(&run(Some(4), Some(end))), std::slice::from_ref(&open));
    assert_eq!(with_end(69), Plan::default(), "the end says it");
    assert_eq!(made(&with_end(70)), [("meeting.left", 69)]);
    let without = StaySnapshot { left_at: None, ..open };
    let plan = compared(&there, Some(&run(Some(4), None)), &[without]);
    assert_eq!(made(&plan), [("meeting.left", 69), ("meeting.end", 69)], "exact, where nothing says it");
}

#[test]
fn a_session_that_was_lost_moves_the_start_or_the_end() {
    let there = [past("+1", 5, 60), past("+1", 500, 600)];
    let stays: Vec<_> = there.iter().map(known).collect();
    let second_lost = compared(&there, Some(&run(Some(4), Some(61))), &stays[..1]);
    assert_eq!(made(&second_lost), [("meeting.join", 500), ("meeting.left", 600), ("meeting.end", 600)]);
    let first_lost = compared(&there, Some(&run(Some(499), Some(601))), &stays[1..]);
    assert_eq!(made(&first_lost), [("meeting.started", 5), ("meeting.join", 5), ("meeting.left", 60)]);
}

#[test]
fn a_recording_that_nobody_reported_finished_with_the_run() {
    let there = [past("+1", 5, 60)];
    let recorded = Conference { has_record_file: Some(true), ..conference() };
    let plan_with = |recordings| {
        let run = RunSnapshot { recordings, ..run(Some(4), Some(62)) };
        plan(&recorded, UUID, &there, Some(&run), &[known(&there[0])], Millis::MAX)
    };
    assert_eq!(made(&plan_with(0)), [("record.finish", 62)]);
    assert_eq!(plan_with(1), Plan::default());
}

#[test]
fn what_history_does_not_say_is_not_filled_and_said() {
    let run = run(Some(0), Some(600));
    let no_join = PastStay { joined_at: None, ..past("+1", 0, 60) };
    let plan = compared(&[no_join], Some(&run), &[]);
    assert_eq!((plan.events.len(), &plan.unfillable[..]), (0, &[Unfillable::NoJoinTime][..]));
    for left in [None, Some(at(1))] {
        let plan = compared(&[PastStay { left_at: left, ..past("+1", 5, 60) }], Some(&run), &[]);
        assert_eq!((made(&plan), &plan.unfillable[..]), (vec![("meeting.join", 5)], &[Unfillable::NoLeaveTime][..]));
    }
}

#[test]
fn what_may_still_be_pushed_is_left_alone() {
    assert!(is_over(&conference(), at(3_600)) && !is_over(&conference(), at(3_599)));
    assert!(!is_over(&Conference { state: Some("Created".to_owned()), ..conference() }, Millis::MAX));
    // The list's end is the scheduled one, but a participant stayed longer.
    let plan = plan(&conference(), UUID, &[past("+1", 5, 4_000)], None, &[], at(3_900));
    assert_eq!((plan.events.len(), plan.gaps.len(), &plan.unfillable[..]), (0, 0, &[Unfillable::TooYoung][..]));
}

#[test]
fn an_occurrence_is_the_pushed_one_or_one_that_was_to_begin_when_the_run_did_and_else_none() {
    let occurrence = |id: &str, start: i64| Occurrence { id: id.to_owned(), start: Some(at(start)), end: None };
    let occurrences = vec![occurrence("first", -7 * 86_400), occurrence("of history", 600)];
    let conference = Conference { occurrences, start: Some(at(0)), ..conference() };
    let run = RunSnapshot { meeting_cycle_sub_id: Some("pushed".to_owned()), ..run(None, Some(60)) };
    let of = |run| plan(&conference, UUID, &[], run, &[], Millis::MAX).events[0].event_info.clone();
    assert!(of(Some(&run)).contains(r#""meetingCycleSubID":"pushed""#));
    assert!(of(None).contains(r#""meetingCycleSubID":"of history""#));
    let later = Conference { start: Some(at(3_600)), ..conference.clone() };
    let event_info = plan(&later, UUID, &[], None, &[], Millis::MAX).events[0].event_info.clone();
    assert!(!event_info.contains("meetingCycleSubID"), "{event_info}");
}
