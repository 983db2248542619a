//! How long to keep requesting something that the platform does not return. Pure: the time is a parameter.

use std::time::Duration;

use convoke_core::time::Millis;

use super::Class;

/// Number of attempts of a request that the platform calls wrong.
const MAX_WRONG_TRIES: u32 = 3;

/// A request that keeps failing temporarily is given up after at least this many attempts, once its object is
/// older than twice the period.
const MIN_TRIES: u32 = 10;

/// When to repeat a request.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The first delay; doubled with each attempt.
    pub min_delay: Duration,
    /// The maximum delay.
    pub max_delay: Duration,
    /// Retries end when the object of the request is this old. An older object is requested once.
    pub period: Duration,
}

/// What a failed call means for the object of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the failure concerns our account or the platform.
    Unrelated,
    /// The platform does not have the object.
    Gone,
    /// There are no more attempts.
    GiveUp,
    /// The request is repeated.
    Retry,
}

impl RetryPolicy {
    /// When to repeat the request after `tries` attempts.
    #[must_use]
    pub fn retry_at(&self, tries: u32, now: Millis) -> Millis {
        now.plus(self.min_delay.saturating_mul(1 << tries.min(8)).min(self.max_delay))
    }

    /// What a failure of this class means after `tries` attempts, for an object of this age.
    #[must_use]
    pub fn judge(&self, class: Class, tries: u32, age: Duration) -> Verdict {
        let give_up = match class {
            Class::Token | Class::Configuration | Class::Locked => return Verdict::Unrelated,
            Class::Gone => return Verdict::Gone,
            Class::Bug => tries + 1 >= MAX_WRONG_TRIES,
            Class::Transient | Class::Incomplete => tries + 1 >= MIN_TRIES && age >= 2 * self.period,
        };
        if give_up { Verdict::GiveUp } else { Verdict::Retry }
    }
}
