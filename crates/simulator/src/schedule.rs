//! When the platform tries again (manual, section 6.2.2): 30 s after a failure, three times; then every 30 minutes; 24 hours
//! after the first try it gives up. Pure.

use std::time::Duration;

const QUICK_RETRY_DELAY: Duration = Duration::from_secs(30);
const QUICK_RETRIES: u32 = 3;
const SLOW_RETRY_DELAY: Duration = Duration::from_secs(30 * 60);
const RETRY_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// The platform's schedule, all of it divided by a time scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    scale: f64,
}

impl Schedule {
    /// The schedule sped up `scale` times; `scale` must be positive.
    pub(super) const fn new(scale: f64) -> Self {
        Self { scale }
    }

    /// How long after its `failures`-th failure (from 1) an event is tried again, or `None` if that would be more than a day
    /// after its first try, which was `since_first` ago.
    pub(super) fn after(self, failures: u32, since_first: Duration) -> Option<Duration> {
        let wait = self.scaled(if failures <= QUICK_RETRIES { QUICK_RETRY_DELAY } else { SLOW_RETRY_DELAY });
        (since_first + wait <= self.scaled(RETRY_PERIOD)).then_some(wait)
    }

    /// `time` in the platform's world, as it passes here.
    pub(super) fn scaled(self, time: Duration) -> Duration {
        Duration::try_from_secs_f64(time.as_secs_f64() / self.scale).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(schedule: Schedule) -> Vec<Duration> {
        let (mut at, mut all) = (Duration::ZERO, Vec::new());
        for failures in 1.. {
            let Some(wait) = schedule.after(failures, at) else { break };
            at += wait;
            all.push(at);
        }
        all
    }

    #[test]
    fn three_quick_retries_are_followed_by_one_every_half_hour_for_a_day() {
        let all = tries(Schedule::new(1.0));
        assert_eq!(all[..4], [30, 60, 90, 90 + 1800].map(Duration::from_secs));
        assert_eq!(all.len(), 50);
        assert_eq!(all.last(), Some(&Duration::from_secs(90 + 47 * 1800)));
    }

    #[test]
    fn the_time_scale_divides_everything_and_changes_no_number_of_tries() {
        let all = tries(Schedule::new(64.0));
        assert_eq!(all.len(), 50);
        assert_eq!(all[0], Duration::from_secs(30) / 64);
    }
}
