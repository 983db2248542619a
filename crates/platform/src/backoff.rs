//! How long a task stops calling the platform after a failure.
//!
//! Wrong credentials and locks do not go away by retrying: they cause one clear warning and a long pause. Temporary
//! failures are retried with growing pauses. A pause applies to the whole task, whatever it would request next.

use std::time::Duration;

use crate::{Class, PlatformError};
use convoke_core::throttle::Throttle;

/// Pause after a failure that an operator has to fix.
const REFUSED_DELAY: Duration = Duration::from_secs(1_800);

/// Pause for a lock whose duration the platform does not state.
const LOCKED_DELAY: Duration = Duration::from_secs(3_600);

/// Pause after a temporary failure; doubled with each consecutive one, up to [`MAX_RETRY_DELAY`].
const RETRY_DELAY: Duration = Duration::from_secs(10);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(300);

/// Minimum interval between two equal warnings.
const LOG_INTERVAL: Duration = Duration::from_secs(6 * 3_600);

/// The back-off of one task. Times are those of [`convoke_core::time::Clock::steady`].
#[derive(Debug)]
pub struct Backoff {
    task: &'static str,
    failures: u32,
    until: Duration,
    throttle: Throttle,
}

impl Backoff {
    /// For a task with this name, which is used in messages.
    #[must_use]
    pub fn new(task: &'static str) -> Self {
        Self { task, failures: 0, until: Duration::ZERO, throttle: Throttle::new(1, LOG_INTERVAL) }
    }

    /// The remaining pause.
    #[must_use]
    pub fn left(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }

    /// Notes a response of the platform.
    pub fn answered(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            self.throttle.run("answers again", |suppressed| {
                tracing::info!(task = self.task, suppressed, "the platform answers again");
            });
        }
    }

    /// Notes a failed call: logs it and starts a pause. `chance`, from 0 to 1, spreads tasks that failed at the same time.
    pub fn failed(&mut self, now: Duration, error: &PlatformError, chance: f64) {
        let pause = pause(error.class, error.wait, self.failures);
        let pause = pause.saturating_add(pause.mul_f64(chance / 4.0));
        self.until = now.saturating_add(pause);
        if !pause.is_zero() {
            self.failures = self.failures.saturating_add(1);
        }
        let Some(kind) = kind(error.class) else {
            return tracing::debug!(task = self.task, %error, request_id = error.request_id, "the platform refused a \
                                                                                             request");
        };
        self.throttle.run(kind, |suppressed| {
            tracing::warn!(
                task = self.task,
                %error,
                request_id = error.request_id,
                pause = convoke_core::human::duration(pause).to_string(),
                suppressed,
                "the platform's API fails: {}",
                error.advice
            );
        });
    }
}

/// The pause after a failure, given the number of consecutive failures before it.
fn pause(class: Class, asked_for: Option<Duration>, before: u32) -> Duration {
    match class {
        Class::Token | Class::Configuration => asked_for.unwrap_or_default().max(REFUSED_DELAY),
        Class::Locked => asked_for.unwrap_or(LOCKED_DELAY),
        Class::Transient | Class::Incomplete => {
            asked_for.unwrap_or_default().max(RETRY_DELAY.saturating_mul(1 << before.min(8)).min(MAX_RETRY_DELAY))
        }
        // These concern only the request, not the platform.
        Class::Gone | Class::Bug => Duration::ZERO,
    }
}

/// The kind of warning; `None`: no warning.
fn kind(class: Class) -> Option<&'static str> {
    match class {
        Class::Token => Some("token"),
        Class::Configuration => Some("configuration"),
        Class::Locked => Some("locked"),
        Class::Transient => Some("transient"),
        Class::Bug => Some("bug"),
        Class::Incomplete => Some("incomplete"),
        Class::Gone => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn error(class: Class, wait: Option<Duration>) -> PlatformError {
        PlatformError { wait, ..PlatformError::new(class, "asking", "no", "do something") }
    }

    #[test]
    fn what_may_pass_is_asked_again_with_growing_pauses_until_an_answer_comes() {
        let mut backoff = Backoff::new("test");
        let mut pauses = Vec::new();
        for _ in 0..7 {
            backoff.failed(Duration::ZERO, &error(Class::Transient, None), 0.0);
            pauses.push(backoff.left(Duration::ZERO).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        backoff.answered();
        backoff.failed(MINUTE, &error(Class::Transient, None), 0.0);
        assert_eq!(backoff.left(MINUTE).as_secs(), 10);
        assert_eq!(backoff.left(2 * MINUTE), Duration::ZERO);
    }

    #[test]
    fn wrong_credentials_and_locks_are_left_alone_for_long_and_a_single_question_is_not() {
        let left = |class, wait| {
            let mut backoff = Backoff::new("test");
            backoff.failed(MINUTE, &error(class, wait), 0.0);
            backoff.left(MINUTE)
        };
        assert_eq!(left(Class::Configuration, None), 30 * MINUTE);
        assert_eq!(left(Class::Token, Some(MINUTE)), 30 * MINUTE);
        assert_eq!(left(Class::Locked, None), 60 * MINUTE);
        assert_eq!(left(Class::Locked, Some(MINUTE)), MINUTE);
        assert_eq!(left(Class::Transient, Some(7 * MINUTE)), 7 * MINUTE);
        assert_eq!(left(Class::Gone, None), Duration::ZERO);
        assert_eq!(left(Class::Bug, None), Duration::ZERO);
    }

    #[test]
    fn nothing_that_anybody_asks_for_ends_in_a_panic() {
        for class in [Class::Token, Class::Locked, Class::Transient, Class::Incomplete] {
            let mut backoff = Backoff::new("test");
            backoff.failed(MINUTE, &error(class, Some(Duration::MAX)), 1.0);
            assert!(backoff.left(MINUTE) >= 60 * MINUTE);
        }
    }

    #[test]
    fn chance_lengthens_a_pause_by_a_quarter_at_most() {
        let mut backoff = Backoff::new("test");
        backoff.failed(Duration::ZERO, &error(Class::Transient, None), 1.0);
        assert_eq!(backoff.left(Duration::ZERO), Duration::from_millis(12_500));
    }
}
