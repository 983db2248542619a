//! Logs a summary line of the deliveries of each hour.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strum::VariantArray as _;

use super::refusals::{Refusals, Rejection};
use crate::metrics::Label as _;
use convoke_core::human;
use convoke_core::time::Clock;

const SUMMARY_INTERVAL: Duration = Duration::from_secs(3_600);

/// The outcome of a delivery that was answered `200`, as in the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// It is new in the log.
    Stored,
    /// It was in the log already.
    Duplicate,
    /// It was a handshake.
    Verified,
    /// It is in the quarantine.
    Quarantined,
}

/// Counts for the summary line, and the totals when the last one was logged.
#[derive(Debug)]
pub struct DeliverySummary {
    refusals: Arc<Refusals>,
    clock: Clock,
    answered: [AtomicU64; Outcome::VARIANTS.len()],
    last: Mutex<Totals>,
}

/// Totals at a moment of the steady clock.
#[derive(Clone, Debug)]
struct Totals {
    at: Duration,
    answered: [u64; Outcome::VARIANTS.len()],
    rejected: [u64; Rejection::VARIANTS.len()],
}

/// The difference between two totals.
#[derive(Debug, PartialEq, Eq)]
struct Period {
    length: Duration,
    answered: [u64; Outcome::VARIANTS.len()],
    rejected: [u64; Rejection::VARIANTS.len()],
}

impl DeliverySummary {
    /// Counts from now on.
    #[must_use]
    pub fn new(refusals: Arc<Refusals>, clock: Clock) -> Self {
        let last = Totals { at: clock.steady(), answered: Default::default(), rejected: refusals.rejections() };
        Self { refusals, clock, answered: Default::default(), last: Mutex::new(last) }
    }

    /// Counts a delivery that was answered `200`.
    pub fn answered(&self, outcome: Outcome) {
        self.answered[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Logs the summary, if an hour is over. Must be called about once a second.
    pub fn log_if_due(&self) {
        if let Some(period) = self.take(SUMMARY_INTERVAL) {
            period.log();
        }
    }

    /// Logs the summary of the unfinished hour, at shutdown.
    pub fn log_rest(&self) {
        if let Some(period) = self.take(Duration::ZERO) {
            period.log();
        }
    }

    /// The counts since the last call, if that was at least `interval` ago and there are any.
    fn take(&self, interval: Duration) -> Option<Period> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Totals {
            at: self.clock.steady(),
            answered: self.answered.each_ref().map(|count| count.load(Ordering::Relaxed)),
            rejected: self.refusals.rejections(),
        };
        let length = now.at.saturating_sub(last.at);
        if length < interval {
            return None;
        }
        let before = std::mem::replace(&mut *last, now.clone());
        let since = |now: &[u64], before: &[u64], place: usize| now[place].saturating_sub(before[place]);
        let period = Period {
            length,
            answered: std::array::from_fn(|place| since(&now.answered, &before.answered, place)),
            rejected: std::array::from_fn(|place| since(&now.rejected, &before.rejected, place)),
        };
        (period.answered.iter().chain(&period.rejected).any(|count| *count > 0)).then_some(period)
    }
}

impl Period {
    fn of(&self, outcome: Outcome) -> u64 {
        self.answered[outcome as usize]
    }

    fn log(&self) {
        let some = |count: u64| (count > 0).then_some(count);
        let refused = self.rejected.iter().sum::<u64>();
        tracing::info!(
            stored = self.of(Outcome::Stored),
            repeated = self.of(Outcome::Duplicate),
            refused,
            reasons = (refused > 0).then(|| tracing::field::display(Reasons(&self.rejected))),
            quarantined = some(self.of(Outcome::Quarantined)),
            handshakes = some(self.of(Outcome::Verified)),
            "deliveries in the last {}",
            human::duration(self.length)
        );
    }
}

/// Formats the reasons with a count above zero.
struct Reasons<'a>(&'a [u64; Rejection::VARIANTS.len()]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = Rejection::VARIANTS.iter().zip(self.0).filter(|(_, count)| **count > 0);
        for (place, (reason, count)) in counted.enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {count}", reason.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn an_hour_is_logged_once_when_it_is_over_and_not_at_all_if_nothing_came() {
        let steady = Arc::new(AtomicI64::new(5_000));
        let at = |seconds: i64| steady.store(5_000 + seconds * 1_000, Ordering::Relaxed);
        let refusals = Arc::new(Refusals::new(&Registry::default()));
        let summary = DeliverySummary::new(Arc::clone(&refusals), Clock::Set(Arc::clone(&steady)));
        let hour = || summary.take(SUMMARY_INTERVAL);

        at(3_600);
        assert_eq!(hour(), None, "nothing came");
        summary.answered(Outcome::Stored);
        summary.answered(Outcome::Stored);
        summary.answered(Outcome::Duplicate);
        refusals.rejected(Rejection::Path);
        refusals.rejected(Rejection::Signature);
        refusals.rejected(Rejection::Signature);
        at(7_199);
        assert_eq!(hour(), None, "the second hour is not over");
        at(7_201);
        let period = hour().expect("it is over");
        assert_eq!(period.length, Duration::from_secs(3_601));
        let counts = (period.of(Outcome::Stored), period.of(Outcome::Duplicate), period.of(Outcome::Verified));
        assert_eq!(counts, (2, 1, 0));
        assert_eq!(Reasons(&period.rejected).to_string(), "signature 2, path 1");
        at(10_900);
        assert_eq!(hour(), None, "nothing more came");

        // The process ends within an hour.
        summary.answered(Outcome::Quarantined);
        at(10_910);
        let rest = summary.take(Duration::ZERO).expect("something came");
        assert_eq!((rest.length, rest.of(Outcome::Quarantined)), (Duration::from_secs(10), 1));
        assert_eq!(summary.take(Duration::ZERO), None);
    }
}
