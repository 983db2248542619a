//! How long one thing is asked for that the platform does not give. Pure: the time is passed in.

use std::time::Duration;

use convoke_core::time::Millis;

use super::Class;

/// Tries of a question that the platform says is wrong.
const MAX_WRONG_TRIES: u32 = 3;

/// What is never answered at all is given up after so many tries, and twice the period.
const MIN_TRIES: u32 = 10;

/// When a question is asked again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The first pause; doubled with each try …
    pub min_delay: Duration,
    /// … up to this …
    pub max_delay: Duration,
    /// … until what is asked about is so old. What is older is asked about once.
    pub period: Duration,
}

/// What a failed call means for what was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it says something about us, or about the platform.
    Unrelated,
    /// The platform does not have it.
    Gone,
    /// It was the last try.
    GiveUp,
    /// It is asked again.
    Retry,
}

impl RetryPolicy {
    /// When to ask again after so many tries.
    #[must_use]
    pub fn retry_at(&self, tries: u32, now: Millis) -> Millis {
        now.plus(self.min_delay.saturating_mul(1 << tries.min(8)).min(self.max_delay))
    }

    /// What a failure of this class means after so many tries, if what is asked about is so old.
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
