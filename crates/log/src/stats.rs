//! How much there was, and what goes on: counts over time, and what is newest.
//!
//! Counts of events are counts of ranges of their ids, which are led by the time, so that an index alone answers them. A stay
//! or a run of a meeting lasts a day at the most, as far as is counted here: whoever has not left by then was not seen leaving.

use std::time::Duration;

use async_trait::async_trait;

use super::{ListedEvent, ListedMeeting, LogError, LogReader};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

/// The longest stay, and the longest run of a meeting, that is counted as going on.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// When a run of a meeting was held: scheduled ones that nobody has entered were not.
pub(super) const HELD: &str = "(started_at IS NOT NULL OR stays > 0)";

/// How many runs were held, and who was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Runs of meetings.
    pub meetings: i64,
    /// Distinct people in each of them, together.
    pub participants: i64,
    /// Their stays.
    pub stays: i64,
}

/// What came into the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// How many events.
    pub events: i64,
    /// How many of them happened in the time that was asked for.
    pub in_time: i64,
    /// The newest one's place; `None` if there are none.
    pub newest: Option<Seq>,
}

/// What goes on.
#[derive(Clone, Debug, Default)]
pub struct GoingOn {
    /// How many runs.
    pub total: i64,
    /// The newest of them, and how many distinct people are in them now.
    pub runs: Vec<(ListedMeeting, i64)>,
}

/// Statistics for people. Nothing here writes, and no query takes longer than `within`.
#[async_trait]
pub trait Statistics: LogReader {
    /// How many events happened between each of these times and the next.
    ///
    /// # Errors
    /// [`LogError::TooSlow`], here and in all that follow.
    async fn count_events(&self, bounds: &[Millis], within: Duration) -> Result<Vec<i64>, LogError>;

    /// How many stays overlap each of `steps` steps after `since`, a whole second, each of whole seconds.
    ///
    /// # Errors
    /// As [`Statistics::count_events`].
    async fn count_stays(
        &self,
        since: Millis,
        step: Duration,
        steps: usize,
        within: Duration,
    ) -> Result<Vec<i64>, LogError>;

    /// What was held between each of these times and the next.
    ///
    /// # Errors
    /// As [`Statistics::count_events`].
    async fn count_meetings(&self, bounds: &[Millis], within: Duration) -> Result<Vec<Held>, LogError>;

    /// What stands in the log after `after`, and how much of it happened from `since` until `until`.
    ///
    /// # Errors
    /// As [`Statistics::count_events`].
    async fn count_arrived(
        &self,
        after: Seq,
        since: Millis,
        until: Millis,
        within: Duration,
    ) -> Result<Arrived, LogError>;

    /// The newest events of the log, the newest first, without their `event_info`.
    ///
    /// # Errors
    /// As [`Statistics::count_events`].
    async fn newest_events(&self, limit: u32, within: Duration) -> Result<Vec<ListedEvent>, LogError>;

    /// The runs that go on, of those that began at `since` or later; the newest first.
    ///
    /// # Errors
    /// As [`Statistics::count_events`].
    async fn going_on(&self, since: Millis, limit: u32, within: Duration) -> Result<GoingOn, LogError>;
}

/// What a change of the number of people is counted as.
pub(super) const BEFORE: i64 = 0;
pub(super) const JOINED: i64 = 1;
pub(super) const LEFT: i64 = 2;

/// How many overlap each step, of how many there were before the first, joined in each and left in each.
pub(super) fn overlapping(changes: &[(i64, i64, i64)], steps: usize) -> Vec<i64> {
    let (mut joined, mut left, mut present) = (vec![0; steps], vec![0; steps], 0);
    for (what, step, count) in changes {
        let step = usize::try_from(*step).ok().filter(|step| *step < steps);
        match (*what, step) {
            (BEFORE, _) => present += count,
            (JOINED, Some(step)) => joined[step] += count,
            (LEFT, Some(step)) => left[step] += count,
            _ => {}
        }
    }
    let overlapping = joined.into_iter().zip(left).map(|(joined, left)| {
        let during = present + joined;
        present = during - left;
        during
    });
    overlapping.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_within_a_step_was_there_in_it_and_not_in_the_next() {
        let changes = [(BEFORE, 0, 2), (JOINED, 1, 3), (LEFT, 1, 4), (LEFT, 3, 1), (JOINED, 9, 7), (LEFT, -1, 7)];
        assert_eq!(overlapping(&changes, 4), [2, 5, 1, 1]);
        assert_eq!(overlapping(&[], 2), [0, 0]);
    }
}
