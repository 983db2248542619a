//! Limits on repeated log lines: [`Throttle`] logs some and counts the rest, [`Reminder`] repeats a
//! lasting condition at intervals.

use crate::time::instant;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limits how often a line of one kind is logged, so that a sender of invalid requests cannot fill the disk.
#[derive(Debug)]
pub struct Throttle {
    lines: u32,
    stretch: Duration,
    windows: Mutex<HashMap<&'static str, Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

/// Five lines of each kind per ten seconds.
impl Default for Throttle {
    fn default() -> Self {
        Self::new(5, Duration::from_secs(10))
    }
}

impl Throttle {
    /// At most `lines` of each kind per `stretch`.
    #[must_use]
    pub fn new(lines: u32, stretch: Duration) -> Self {
        Self { lines, stretch, windows: Mutex::default() }
    }

    /// Calls `log` with the number of lines of this kind that were suppressed before it, if any; or suppresses this one too.
    pub fn run(&self, kind: &'static str, log: impl FnOnce(Option<u64>)) {
        let suppressed = {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            let now = instant();
            let window = windows.entry(kind).or_insert(Window { since: now, lines: 0, suppressed: 0 });
            if now.duration_since(window.since) >= self.stretch {
                window.since = now;
                window.lines = 0;
            }
            if window.lines == self.lines {
                window.suppressed += 1;
                return;
            }
            window.lines += 1;
            std::mem::take(&mut window.suppressed)
        };
        log((suppressed > 0).then_some(suppressed));
    }
}

/// Decides when to log a lasting condition: at once when it starts or gets worse, otherwise at most once per interval.
#[derive(Debug)]
pub struct Reminder<L> {
    /// Minimum interval between two lines when the level changes or the condition returns.
    changed: Duration,
    said: Option<(L, Duration)>,
    /// Whether the condition was logged and its end was not.
    lasts: bool,
}

impl<L: Copy + Ord> Reminder<L> {
    /// Starts without a condition. One that comes and goes without getting worse is logged at most once per `changed`.
    #[must_use]
    pub const fn new(changed: Duration) -> Self {
        Self { changed, said: None, lasts: false }
    }

    /// Notes that the condition has `level` at `now` (monotonic time). Returns whether to log it: an
    /// unchanged one once per `repeat`.
    pub fn is_due(&mut self, level: L, repeat: Duration, now: Duration) -> bool {
        let due = self.said.is_none_or(|(said, at)| {
            let interval = if level == said && self.lasts { repeat } else { self.changed };
            level > said || now.saturating_sub(at) >= interval
        });
        if due {
            (self.said, self.lasts) = (Some((level, now)), true);
        }
        due
    }

    /// Notes that the condition is over. Returns whether to log the end, which is so if the start was logged.
    pub fn is_over(&mut self) -> bool {
        std::mem::take(&mut self.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log lines as (minute, whether bad) for a course of (minute, level). Level 0 means healthy.
    fn said(course: impl IntoIterator<Item = (u64, u32)>) -> Vec<(u64, bool)> {
        let minutes = |minutes| Duration::from_secs(minutes * 60);
        let mut reminder = Reminder::new(minutes(10));
        let mut note = |minute, level| match level {
            0 => reminder.is_over().then_some(false),
            _ => reminder.is_due(level, minutes(60), minutes(minute)).then_some(true),
        };
        course.into_iter().filter_map(|(minute, level)| note(minute, level).map(|bad| (minute, bad))).collect()
    }

    #[test]
    fn what_is_well_is_not_mentioned_and_what_stays_bad_is_hourly() {
        assert_eq!(said((0..100).map(|minute| (minute, 0))), []);
        let course = (0..150).map(|minute| (minute, if minute < 10 { 0 } else { 3 }));
        assert_eq!(said(course), [(10, true), (70, true), (130, true)]);
    }

    #[test]
    fn what_gets_worse_is_said_at_once_and_what_is_well_again_once() {
        let course = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (6, 0)];
        let bad = [0, 1, 2, 3, 4].map(|minute| (minute, true));
        assert_eq!(said(course), [&bad[..], &[(5, false)]].concat());
    }

    #[test]
    fn what_comes_and_goes_is_said_every_ten_minutes_at_most() {
        let wavering = (0..60).map(|minute| (minute, u32::from(minute % 2 == 0)));
        let expected: Vec<_> = (0..60).step_by(10).flat_map(|minute| [(minute, true), (minute + 1, false)]).collect();
        assert_eq!(said(wavering), expected);
        let wavering = (0..60).map(|minute| (minute, if minute % 2 == 0 { 4 } else { 3 }));
        // A level that rises in between is logged at once.
        assert_eq!(said(wavering).len(), 10);
    }
}
