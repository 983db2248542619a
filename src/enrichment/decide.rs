//! Which call may know a run, whether an answer is about it, and when to ask again. Pure: the time is passed in.

use std::time::Duration;

use convoke_core::time::Millis;
use convoke_log::{Details, Enriched, Run};
use convoke_platform::{Class, Conference};

/// The first pause; doubled with each try …
const MIN_RETRY_DELAY: Duration = Duration::from_secs(60);
/// … up to this …
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3_600);
/// … until so long after the run's last event. What is older is asked for once.
const RETRY_PERIOD: Duration = Duration::from_secs(86_400);

/// The platform writes times in whole minutes.
const MINUTE: Duration = Duration::from_secs(60);

/// Tries of a question that the platform says is wrong.
const MAX_WRONG_TRIES: u32 = 3;

/// What is never answered at all is given up after so many tries.
const MIN_TRIES: u32 = 10;

/// A call that may know a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A meeting that is not over, by its number (section 4.2.10).
    Current,
    /// A run that is over, by its UUID (section 4.2.19).
    Past,
}

/// The calls that may know a run, the likeliest first.
#[must_use]
pub fn calls(run: &Run) -> &'static [Call] {
    match run.status.as_str() {
        "scheduled" => &[Call::Current],
        "live" => &[Call::Current, Call::Past],
        "ended" => &[Call::Past, Call::Current],
        _ => &[Call::Past],
    }
}

/// What an answer says about the run; `None` if it is about another: numbers are used again.
#[must_use]
pub fn details(run: &Run, call: Call, conference: &Conference) -> Option<Details> {
    let same = conference.conf_uuid.as_deref().map(|uuid| uuid == run.meeting_uuid);
    let ours = match (call, same) {
        (_, Some(same)) => same,
        (Call::Past, None) => true,
        // One that is scheduled may have no UUID yet; it lies after the event that reported it.
        (Call::Current, None) => {
            let ends = conference.end.or(conference.start);
            run.status == "scheduled" && ends.is_some_and(|ends| ends.plus(MINUTE) >= run.first_event_at)
        }
    };
    if !ours {
        return None;
    }
    // Of a recurring meeting that is not over the times are those of one occurrence, as a rule the first; each occurrence's own
    // stand beside it. Where ours is not among them they are another's.
    let (scheduled_start_at, scheduled_end_at) = match &run.meeting_cycle_sub_id {
        Some(ours) if !conference.occurrences.is_empty() => {
            let ours = conference.occurrences.iter().find(|occurrence| occurrence.id == *ours);
            ours.map_or((None, None), |ours| (ours.start, ours.end))
        }
        _ => (conference.start, conference.end),
    };
    Some(Details {
        subject: conference.subject.clone(),
        scheduled_start_at,
        scheduled_end_at,
        host: conference.scheduler_name.clone().or_else(|| conference.scheduler_uuid.clone()),
        corp_id: None,
    })
}

/// What it means that no call knew the run; `corp_id` is known on its own.
#[must_use]
pub fn unknown(run: &Run, corp_id: Option<String>, now: Millis) -> Enriched {
    let reason = "the platform does not know the meeting".to_owned();
    if now.since(run.last_event_at) >= RETRY_PERIOD {
        return Enriched::GivenUp { at: now, details: Details { corp_id, ..Details::default() }, reason };
    }
    Enriched::Later { due_at: retry_at(run.tries, now), reason }
}

/// What a failed call means for the run that was asked for; `None`: nothing, for it says nothing about it.
#[must_use]
pub fn failed(run: &Run, class: Class, problem: &str, now: Millis) -> Option<Enriched> {
    let given_up = match class {
        Class::Token | Class::Configuration | Class::Locked => return None,
        Class::Gone => return Some(unknown(run, None, now)),
        Class::Bug => run.tries + 1 >= MAX_WRONG_TRIES,
        Class::Transient | Class::Incomplete => {
            run.tries + 1 >= MIN_TRIES && now.since(run.last_event_at) >= 2 * RETRY_PERIOD
        }
    };
    let reason = problem.to_owned();
    Some(if given_up {
        Enriched::GivenUp { at: now, details: Details::default(), reason }
    } else {
        Enriched::Later { due_at: retry_at(run.tries, now), reason }
    })
}

fn retry_at(tries: u32, now: Millis) -> Millis {
    now.plus(MIN_RETRY_DELAY.saturating_mul(1 << tries.min(8)).min(MAX_RETRY_DELAY))
}
