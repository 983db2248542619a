//! Decides when to ask for a recording, and what a response means. Pure: the time is passed in.

use std::time::Duration;

use super::ready::{Found, Ready};
use convoke_core::time::Millis;
use convoke_log::{RecordingOutcome, RecordingWorkItem};
use convoke_platform::Class;
use convoke_platform::retry_policy::{RetryPolicy, Verdict};

/// A recording that is older than this when it is found is asked for only once.
pub const RETRY_PERIOD: Duration = Duration::from_secs(7 * 86_400);

/// The platform is asked for the first time one minute after a recording finished, and again until it is decoded.
pub const RETRIES: RetryPolicy =
    RetryPolicy { min_delay: Duration::from_secs(60), max_delay: Duration::from_secs(1_800), period: RETRY_PERIOD };

/// A response about a run's earlier recordings may lack the newest one. After this many attempts it is taken as complete: with
/// their back-off they take an hour, which a clock that jumps cannot shorten.
const MIN_SETTLED_TRIES: u32 = 6;

/// When to ask for the first time. Uses this host's clock, because the platform's may differ.
#[must_use]
pub fn first_attempt_at(finished_at: Millis, now: Millis) -> Millis {
    finished_at.plus(RETRIES.min_delay).clamp(now, now.plus(RETRIES.min_delay))
}

/// The outcome of a response.
#[must_use]
pub fn judge(fetch: &RecordingWorkItem, found: &Found, now: Millis) -> RecordingOutcome {
    let reason = match found {
        Found::Ready(ready) if covers(fetch, ready) => {
            return RecordingOutcome::Ready { event_info: ready.event_info(fetch, now), due_at: now };
        }
        // Not given up, however old the recording is: the response is accepted soon.
        Found::Ready(_) => {
            let reason = "the platform does not list the meeting's newest recording yet".to_owned();
            return RecordingOutcome::Later { due_at: RETRIES.retry_at(fetch.tries, now), reason };
        }
        Found::Unfinished => "the platform has not processed it yet",
        Found::Nothing => "the platform has no recording of the meeting",
    };
    if now.since(fetch.finished_at) >= RETRY_PERIOD {
        return RecordingOutcome::GivenUp { at: now, reason: reason.to_owned() };
    }
    RecordingOutcome::Later { due_at: RETRIES.retry_at(fetch.tries, now), reason: reason.to_owned() }
}

/// The outcome of a failed call; `None`: the failure says nothing about the recording.
#[must_use]
pub fn judge_failure(fetch: &RecordingWorkItem, class: Class, problem: &str, now: Millis) -> Option<RecordingOutcome> {
    let reason = problem.to_owned();
    match RETRIES.judge(class, fetch.tries, now.since(fetch.finished_at)) {
        Verdict::Unrelated => None,
        Verdict::Gone => Some(judge(fetch, &Found::Nothing, now)),
        Verdict::GiveUp => Some(RecordingOutcome::GivenUp { at: now, reason }),
        Verdict::Retry => Some(RecordingOutcome::Later { due_at: RETRIES.retry_at(fetch.tries, now), reason }),
    }
}

/// Whether the response includes the newest recording, not only earlier ones.
fn covers(fetch: &RecordingWorkItem, ready: &Ready) -> bool {
    if fetch.finishes < 2 || fetch.tries >= MIN_SETTLED_TRIES {
        return true;
    }
    match ready.starts {
        Some(starts) => starts >= fetch.finishes,
        None => {
            let known = fetch.event_info.as_ref().is_some_and(|info| ready.is_in(info));
            !known && ready.at.is_none_or(|at| at >= fetch.finished_at)
        }
    }
}
