//! When to ask, and what to make of an answer. Pure: the time is passed in.

use std::time::Duration;

use super::ready::{Found, Ready};
use convoke_core::time::Millis;
use convoke_log::{RecordingOutcome, RecordingWorkItem};
use convoke_platform::Class;
use convoke_platform::retry_policy::{RetryPolicy, Verdict};

/// What is older when it is found is asked for once.
pub const RETRY_PERIOD: Duration = Duration::from_secs(7 * 86_400);

/// The platform is asked first a minute after a recording finished, and again until it is decoded.
pub const RETRIES: RetryPolicy =
    RetryPolicy { min_delay: Duration::from_secs(60), max_delay: Duration::from_secs(1_800), period: RETRY_PERIOD };

/// A run's newest recording may be missing from an answer about its earlier ones. After so many tries it is believed to be in it:
/// with the pauses between them they take an hour, which no clock that jumps makes any shorter.
const MIN_SETTLED_TRIES: u32 = 6;

/// When to ask first. By our clock: the platform's may be another.
#[must_use]
pub fn first_attempt_at(finished_at: Millis, now: Millis) -> Millis {
    finished_at.plus(RETRIES.min_delay).clamp(now, now.plus(RETRIES.min_delay))
}

/// What an answer means.
#[must_use]
pub fn judge(fetch: &RecordingWorkItem, found: &Found, now: Millis) -> RecordingOutcome {
    let reason = match found {
        Found::Ready(ready) if covers(fetch, ready) => {
            return RecordingOutcome::Ready { event_info: ready.event_info(fetch, now), due_at: now };
        }
        // However old it is: it is believed soon.
        Found::Ready(_) => {
            let reason = "the newest recording of the meeting is not in the platform's answer yet".to_owned();
            return RecordingOutcome::Later { due_at: RETRIES.retry_at(fetch.tries, now), reason };
        }
        Found::Unfinished => "the platform has not decoded it yet",
        Found::Nothing => "the platform has no recording of the meeting",
    };
    if now.since(fetch.finished_at) >= RETRY_PERIOD {
        return RecordingOutcome::GivenUp { at: now, reason: reason.to_owned() };
    }
    RecordingOutcome::Later { due_at: RETRIES.retry_at(fetch.tries, now), reason: reason.to_owned() }
}

/// What a failed call means for what it asked for; `None`: nothing, for it says nothing about it.
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

/// Whether the answer is about the newest recording too, and not only about those before it.
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
