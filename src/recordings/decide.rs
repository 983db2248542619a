//! When to ask, and what to make of an answer. Pure: the time is passed in.

use std::time::Duration;

use super::ready::{Found, Ready};
use convoke_core::time::Millis;
use convoke_log::{Fetch, Fetched};
use convoke_platform::Class;

/// The platform is asked first so long after a recording finished, and again after pauses that double …
const FIRST: Duration = Duration::from_secs(60);
/// … up to this …
const LONGEST: Duration = Duration::from_secs(1_800);
/// … until it is so old. What is older when it is found is asked for once.
pub const WINDOW: Duration = Duration::from_secs(7 * 86_400);

/// A run's newest recording may be missing from an answer about its earlier ones. After so many tries it is believed to be in it:
/// with the pauses between them they take an hour, which no clock that jumps makes any shorter.
const SETTLED: u32 = 6;

/// What is never answered at all is given up after twice [`WINDOW`], and so many tries.
const LEAST_TRIES: u32 = 10;

/// Tries of a question that the platform says is wrong.
const WRONG_TRIES: u32 = 3;

/// When to ask first. By our clock: the platform's may be another.
#[must_use]
pub fn first(finished_at: Millis, now: Millis) -> Millis {
    finished_at.plus(FIRST).clamp(now, now.plus(FIRST))
}

/// When to ask again.
#[must_use]
pub fn again(tries: u32, now: Millis) -> Millis {
    now.plus(FIRST.saturating_mul(1 << tries.min(8)).min(LONGEST))
}

/// What an answer means.
#[must_use]
pub fn judge(fetch: &Fetch, found: &Found, now: Millis) -> Fetched {
    let reason = match found {
        Found::Ready(ready) if covers(fetch, ready) => {
            return Fetched::Ready { event_info: ready.event_info(fetch, now), due_at: now };
        }
        // However old it is: it is believed soon.
        Found::Ready(_) => {
            let reason = "the newest recording of the meeting is not in the platform's answer yet".to_owned();
            return Fetched::Later { due_at: again(fetch.tries, now), reason };
        }
        Found::Unfinished => "the platform has not decoded it yet",
        Found::Nothing => "the platform has no recording of the meeting",
    };
    if now.since(fetch.finished_at) >= WINDOW {
        return Fetched::GivenUp { at: now, reason: reason.to_owned() };
    }
    Fetched::Later { due_at: again(fetch.tries, now), reason: reason.to_owned() }
}

/// What a failed call means for what it asked for; `None`: nothing, for it says nothing about it.
#[must_use]
pub fn judge_failure(fetch: &Fetch, class: Class, problem: &str, now: Millis) -> Option<Fetched> {
    let given_up = match class {
        Class::Token | Class::Configuration | Class::Locked => return None,
        Class::Gone => return Some(judge(fetch, &Found::Nothing, now)),
        Class::Bug => fetch.tries + 1 >= WRONG_TRIES,
        Class::Transient | Class::Incomplete => {
            fetch.tries + 1 >= LEAST_TRIES && now.since(fetch.finished_at) >= 2 * WINDOW
        }
    };
    let reason = problem.to_owned();
    Some(if given_up {
        Fetched::GivenUp { at: now, reason }
    } else {
        Fetched::Later { due_at: again(fetch.tries, now), reason }
    })
}

/// Whether the answer is about the newest recording too, and not only about those before it.
fn covers(fetch: &Fetch, ready: &Ready) -> bool {
    if fetch.finishes < 2 || fetch.tries >= SETTLED {
        return true;
    }
    match ready.starts {
        Some(starts) => starts >= fetch.finishes,
        None => {
            let told = fetch.event_info.as_ref().is_some_and(|told| ready.is_told_by(told));
            !told && ready.at.is_none_or(|at| at >= fetch.finished_at)
        }
    }
}
