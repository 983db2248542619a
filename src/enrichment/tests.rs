//! Which calls are made, which responses are accepted, and how long a run is retried.

use std::time::Duration;

use super::decide::{Call, calls, details, failed, unknown};
use convoke_core::time::Millis;
use convoke_log::{Details, EnrichmentOutcome, EnrichmentWorkItem};
use convoke_platform::{Class, Conference, Occurrence};

const DAY: Duration = Duration::from_secs(86_400);

fn at(ms: i64) -> Millis {
    Millis::new(ms).expect("a time in range")
}

const CREATED: i64 = 1_781_524_830_000;

fn run(status: &str) -> EnrichmentWorkItem {
    EnrichmentWorkItem {
        subscriber_id: "7700001234".to_owned(),
        meeting_uuid: "uuid-1".to_owned(),
        meeting_id: Some("960000017".to_owned()),
        meeting_cycle_sub_id: None,
        status: status.to_owned(),
        first_event_at: at(CREATED),
        last_event_at: at(CREATED),
        tries: 0,
    }
}

fn conference(conf_uuid: Option<&str>) -> Conference {
    Conference {
        conf_uuid: conf_uuid.map(str::to_owned),
        subject: Some("Weekly sync".to_owned()),
        start: Some(at(CREATED + 3_570_000)),
        end: Some(at(CREATED + 7_170_000)),
        scheduler_name: Some("Demo User".to_owned()),
        scheduler_uuid: Some("aaaa".to_owned()),
        ..Conference::default()
    }
}

fn expected() -> Details {
    Details {
        subject: Some("Weekly sync".to_owned()),
        scheduled_start_at: Some(at(CREATED + 3_570_000)),
        scheduled_end_at: Some(at(CREATED + 7_170_000)),
        host: Some("Demo User".to_owned()),
        host_user_uuid: Some("aaaa".to_owned()),
        ..Details::default()
    }
}

#[test]
fn the_likeliest_call_comes_first() {
    assert_eq!(calls(&run("scheduled")), [Call::Current]);
    assert_eq!(calls(&run("live")), [Call::Current, Call::Past]);
    assert_eq!(calls(&run("ended")), [Call::Past, Call::Current]);
    assert_eq!(calls(&run("concluded")), [Call::Past]);
}

#[test]
fn an_answer_about_another_run_with_the_same_number_is_not_taken() {
    for status in ["scheduled", "live", "ended"] {
        assert_eq!(details(&run(status), Call::Current, &conference(Some("uuid-2"))), None, "{status}");
        assert_eq!(details(&run(status), Call::Current, &conference(Some("uuid-1"))), Some(expected()), "{status}");
    }
    assert_eq!(details(&run("ended"), Call::Past, &conference(Some("uuid-2"))), None);
    let held = Details { scheduled_start_at: None, scheduled_end_at: None, ..expected() };
    let asked = details(&run("ended"), Call::Past, &conference(None));
    assert_eq!(asked, Some(held), "it was asked by its UUID; when it was held is no plan");
}

#[test]
fn a_meeting_without_a_uuid_is_taken_for_the_scheduled_one_if_it_lies_after_it_was_scheduled() {
    assert_eq!(details(&run("scheduled"), Call::Current, &conference(None)), Some(expected()));
    assert_eq!(details(&run("live"), Call::Current, &conference(None)), None);
    let whole_minute = Conference { start: None, end: Some(at(CREATED - 30_000)), ..conference(None) };
    assert!(details(&run("scheduled"), Call::Current, &whole_minute).is_some());
    let before = Conference { start: None, end: Some(at(CREATED - 90_000)), ..conference(None) };
    assert_eq!(details(&run("scheduled"), Call::Current, &before), None);
    let timeless = Conference { start: None, end: None, ..conference(None) };
    assert_eq!(details(&run("scheduled"), Call::Current, &timeless), None);
}

#[test]
fn of_a_recurring_meeting_the_times_are_those_of_the_occurrence() {
    let occurrence =
        |id: &str, start: i64| Occurrence { id: id.to_owned(), start: Some(at(start)), end: Some(at(start + 60_000)) };
    let run = EnrichmentWorkItem { meeting_cycle_sub_id: Some("b".to_owned()), ..run("live") };
    let with = |occurrences| Conference { occurrences, ..conference(Some("uuid-1")) };
    let scheduled = |start, end| Some(Details { scheduled_start_at: start, scheduled_end_at: end, ..expected() });
    let (first, second) = (occurrence("a", CREATED), occurrence("b", CREATED + 86_400_000));
    let described = details(&run, Call::Current, &with(vec![first.clone(), second.clone()]));
    assert_eq!(described, scheduled(second.start, second.end));
    let without = details(&run, Call::Current, &with(vec![first]));
    assert_eq!(without, scheduled(None, None), "another's are left out");
    assert_eq!(
        details(&run, Call::Current, &with(Vec::new())),
        scheduled(None, None),
        "nothing says that they are its own"
    );
    // Of a run that does not tell its occurrence it is the one of about then, also if it is over.
    let untold = EnrichmentWorkItem { meeting_cycle_sub_id: None, first_event_at: at(CREATED + 86_300_000), ..run };
    let (first, second) = (occurrence("a", CREATED), occurrence("b", CREATED + 86_400_000));
    let both = || with(vec![first.clone(), second.clone()]);
    assert_eq!(details(&untold, Call::Current, &both()), scheduled(second.start, second.end));
    let held = Conference { start: second.start, end: second.start, ..both() };
    assert_eq!(details(&untold, Call::Past, &held), scheduled(second.start, second.end));
    let between = EnrichmentWorkItem { first_event_at: at(CREATED + 43_200_000), ..untold };
    assert_eq!(details(&between, Call::Current, &both()), scheduled(None, None));
}

#[test]
fn the_host_is_known_by_name_or_by_id() {
    let nameless = Conference { scheduler_name: None, ..conference(Some("uuid-1")) };
    let details = details(&run("live"), Call::Current, &nameless).expect("it is ours");
    assert_eq!(details.host.as_deref(), Some("aaaa"));
}

#[test]
fn an_unknown_run_is_asked_for_again_for_a_day_and_an_old_one_once() {
    let mut run = run("concluded");
    let (mut now, mut asked) = (at(CREATED), 0);
    let given_up = loop {
        asked += 1;
        match unknown(&run, Some("corp".to_owned()), now) {
            EnrichmentOutcome::Later { due_at, .. } => now = due_at,
            other => break other,
        }
        run.tries += 1;
    };
    let known = Details { corp_id: Some("corp".to_owned()), ..Details::default() };
    assert!(matches!(given_up, EnrichmentOutcome::GivenUp { details, .. } if details == known));
    assert!(now.since(at(CREATED)) >= DAY && now.since(at(CREATED)) < DAY + DAY / 24);
    assert_eq!(asked, 30);
    let old = at(CREATED).plus(DAY);
    let judged = unknown(&self::run("ended"), None, old);
    assert!(
        matches!(judged, EnrichmentOutcome::GivenUp { at, .. } if at == old),
        "it is known by which clock: {judged:?}"
    );
}

#[test]
fn a_failed_call_says_something_about_a_run_or_about_the_platform() {
    let (young, old) = (at(CREATED), at(CREATED).plus(2 * DAY));
    let tried = |tries| EnrichmentWorkItem { tries, ..run("live") };
    for class in [Class::Token, Class::Configuration, Class::Locked] {
        assert_eq!(failed(&tried(1_000), class, "no", old), None, "{class:?}");
    }
    let given_up =
        |tries, class, now| matches!(failed(&tried(tries), class, "no", now), Some(EnrichmentOutcome::GivenUp { .. }));
    assert!(!given_up(1_000, Class::Transient, young), "an outage costs nothing");
    assert!(given_up(9, Class::Transient, old));
    assert!(!given_up(1, Class::Bug, young));
    assert!(given_up(2, Class::Bug, young));
    assert!(given_up(0, Class::Gone, old));
}
