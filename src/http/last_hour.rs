//! What was refused in the last hour: the counters of rejections, and of connections that came to nothing, as they were at
//! each minute of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::metrics::{ConnectionFailure, Metrics, Rejection};
use convoke_core::time::Millis;

const MINUTE: Duration = Duration::from_secs(60);
const MINUTES: usize = 60;

type Counts = [u64; Rejection::ALL.len() + ConnectionFailure::ALL.len()];

/// The counters of the last hour. To be looked at every second or so.
#[derive(Debug, Default)]
pub struct LastHour {
    /// The oldest first.
    samples: Mutex<VecDeque<(Millis, Counts)>>,
}

/// What was counted.
#[derive(Debug)]
pub struct Hour {
    /// From when on.
    pub since: Millis,
    /// Full minutes since then.
    pub minutes: u64,
    /// How many there were of each reason, as in the label `reason`.
    pub counts: Vec<(&'static str, u64)>,
}

fn now_counted(metrics: &Metrics) -> Counts {
    let mut counts = Counts::default();
    for (count, (_, now)) in counts.iter_mut().zip(series(metrics)) {
        *count = now;
    }
    counts
}

fn series(metrics: &Metrics) -> impl Iterator<Item = (&'static str, u64)> {
    let rejections = Rejection::ALL.into_iter().map(|reason| (reason.as_str(), metrics.rejections(reason).get()));
    let failures = ConnectionFailure::ALL.into_iter();
    rejections.chain(failures.map(|reason| (reason.as_str(), metrics.connection_failures(reason).get())))
}

impl LastHour {
    fn samples(&self) -> MutexGuard<'_, VecDeque<(Millis, Counts)>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample, if the last one is a minute old. A clock that was set back begins anew.
    pub fn look(&self, metrics: &Metrics, now: Millis) {
        let mut samples = self.samples();
        if samples.back().is_some_and(|(at, _)| *at > now) {
            samples.clear();
        }
        if samples.back().is_none_or(|(at, _)| now.since(*at) >= MINUTE) {
            samples.push_back((now, now_counted(metrics)));
            while samples.len() > MINUTES {
                samples.pop_front();
            }
        }
    }

    /// What came since the oldest sample of the last hour.
    #[must_use]
    pub fn read(&self, metrics: &Metrics, now: Millis) -> Hour {
        let samples = self.samples();
        let hour = MINUTE * u32::try_from(MINUTES).unwrap_or(u32::MAX);
        let oldest = samples.iter().find(|(at, _)| *at <= now && now.since(*at) <= hour);
        let counted = now_counted(metrics);
        let (since, before) = oldest.copied().unwrap_or((now, counted));
        let counts = series(metrics).map(|(reason, _)| reason).zip(counted.iter().zip(before));
        Hour {
            since,
            minutes: now.since(since).as_secs().div_ceil(60).min(MINUTES as u64),
            counts: counts.map(|(reason, (now, before))| (reason, now.saturating_sub(before))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Millis {
        Millis::new(seconds * 1000).unwrap()
    }

    fn signatures(hour: &Hour) -> u64 {
        hour.counts.iter().filter(|(reason, _)| *reason == Rejection::Signature.as_str()).map(|(_, count)| count).sum()
    }

    #[test]
    fn what_is_older_than_an_hour_is_not_counted_any_more() {
        let (metrics, last) = (Metrics::new(), LastHour::default());
        for second in 0..=7_200 {
            last.look(&metrics, at(second));
            if second % 60 == 30 {
                metrics.rejections(Rejection::Signature).inc();
            }
            if second == 90 {
                let hour = last.read(&metrics, at(second));
                assert_eq!((signatures(&hour), hour.since, hour.minutes), (2, at(0), 2));
            }
        }
        let hour = last.read(&metrics, at(7_200));
        assert!((59..=60).contains(&signatures(&hour)) && hour.minutes <= 60, "{hour:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_begins_anew() {
        let (metrics, last) = (Metrics::new(), LastHour::default());
        last.look(&metrics, at(7_200));
        metrics.rejections(Rejection::Signature).inc();
        last.look(&metrics, at(100));
        metrics.rejections(Rejection::Signature).inc();
        let hour = last.read(&metrics, at(110));
        assert_eq!((signatures(&hour), hour.since), (1, at(100)));
        assert_eq!(signatures(&LastHour::default().read(&metrics, at(1))), 0);
    }
}
