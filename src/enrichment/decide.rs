//! Decides which call may know a run, whether a response is about it, and when to ask again. Pure: the time is passed in.

use std::time::Duration;

use convoke_core::time::Millis;
use convoke_log::{Details, EnrichmentOutcome, EnrichmentWorkItem, Invitation};
use convoke_platform::retry_policy::{RetryPolicy, Verdict};
use convoke_platform::{Class, Conference, Invitee};

/// A run is retried until its last event is this old.
const RETRIES: RetryPolicy = RetryPolicy {
    min_delay: Duration::from_secs(60),
    max_delay: Duration::from_secs(3_600),
    period: Duration::from_secs(86_400),
};

/// The platform writes times in whole minutes.
const MINUTE: Duration = Duration::from_secs(60);

/// A call of the platform's API that may know a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A meeting that has not ended, by its number (section 4.2.10).
    Current,
    /// A run that has ended, by its UUID (section 4.2.19).
    Past,
}

/// The calls that may know a run, the most likely first.
#[must_use]
pub fn calls(run: &EnrichmentWorkItem) -> &'static [Call] {
    match run.status.as_str() {
        "scheduled" => &[Call::Current],
        "live" => &[Call::Current, Call::Past],
        "ended" => &[Call::Past, Call::Current],
        _ => &[Call::Past],
    }
}

/// The details of the run in a response; `None` if the response is about another run, because meeting numbers are reused.
#[must_use]
pub fn details(run: &EnrichmentWorkItem, call: Call, conference: &Conference) -> Option<Details> {
    let same = conference.conf_uuid.as_deref().map(|uuid| uuid == run.meeting_uuid);
    let ours = match (call, same) {
        (_, Some(same)) => same,
        (Call::Past, None) => true,
        // A scheduled meeting may not have a UUID yet; then it must end after the event that reported it.
        (Call::Current, None) => {
            let ends = conference.end.or(conference.start);
            run.status == "scheduled" && ends.is_some_and(|ends| ends.plus(MINUTE) >= run.first_event_at)
        }
    };
    if !ours {
        return None;
    }
    let (scheduled_start_at, scheduled_end_at) = plan(run, call, conference);
    Some(Details {
        subject: conference.subject.clone(),
        scheduled_start_at,
        scheduled_end_at,
        host: conference.scheduler_name.clone().or_else(|| conference.scheduler_uuid.clone()),
        host_user_uuid: conference.scheduler_uuid.clone(),
        corp_id: None,
        conference_type: conference.conference_type.clone(),
        webinar: conference.webinar,
        virtual_room: conference.vmr_conference_id.clone().filter(|number| !number.is_empty()),
        invitations: conference.invitees.iter().map(invitation).collect(),
    })
}

fn invitation(invitee: &Invitee) -> Invitation {
    let Invitee { user_uuid, account, number, name, department, attendee_type } = invitee.clone();
    Invitation { user_uuid, account, call_number: number, display_name: name, department, attendee_type }
}

/// The schedule, as far as the answer has it. The times of a run that is over are those at which it was held. Those of a recurring
/// meeting are the times of one occurrence, usually the first; the times of each occurrence are listed besides.
fn plan(run: &EnrichmentWorkItem, call: Call, conference: &Conference) -> (Option<Millis>, Option<Millis>) {
    let occurrence = match (&run.meeting_cycle_sub_id, call) {
        (Some(ours), _) => conference.occurrences.iter().find(|occurrence| occurrence.id == *ours),
        (None, Call::Past) => conference.occurrence_held(),
        // The booking itself, or a meeting that does not recur.
        (None, Call::Current) if run.status == "scheduled" || conference.occurrences.is_empty() => {
            return (conference.start, conference.end);
        }
        (None, Call::Current) => conference.occurrence_at(run.first_event_at),
    };
    occurrence.map_or((None, None), |occurrence| (occurrence.start, occurrence.end))
}

/// The outcome if no call knew the run; `corp_id` comes from another call.
#[must_use]
pub fn unknown(run: &EnrichmentWorkItem, corp_id: Option<String>, now: Millis) -> EnrichmentOutcome {
    let reason = "the platform does not know the meeting".to_owned();
    if now.since(run.last_event_at) >= RETRIES.period {
        return EnrichmentOutcome::GivenUp { at: now, details: Details { corp_id, ..Details::default() }, reason };
    }
    EnrichmentOutcome::Later { due_at: RETRIES.retry_at(run.tries, now), reason }
}

/// The outcome of a failed call for the run; `None`: the failure says nothing about the run.
#[must_use]
pub fn failed(run: &EnrichmentWorkItem, class: Class, problem: &str, now: Millis) -> Option<EnrichmentOutcome> {
    let reason = problem.to_owned();
    match RETRIES.judge(class, run.tries, now.since(run.last_event_at)) {
        Verdict::Unrelated => None,
        Verdict::Gone => Some(unknown(run, None, now)),
        Verdict::GiveUp => Some(EnrichmentOutcome::GivenUp { at: now, details: Details::default(), reason }),
        Verdict::Retry => Some(EnrichmentOutcome::Later { due_at: RETRIES.retry_at(run.tries, now), reason }),
    }
}
