//! The disk of an embedded database: warns before it is full, and estimates how long it will last.

use std::collections::VecDeque;
use std::time::Duration;

use convoke_core::throttle::Reminder;
use convoke_core::time::Clock;

/// A volume; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Free space.
    pub free: u64,
    /// Total size.
    pub total: u64,
}

/// How much space is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Enough.
    Plenty,
    /// Less than 1 GiB; or less than a tenth of the volume and less than 10 GiB.
    Low,
    /// Less than 256 MiB.
    NearlyFull,
}

const GIB: u64 = 1 << 30;

impl Disk {
    /// How much space is left.
    #[must_use]
    pub fn level(self) -> Level {
        if self.free < GIB / 4 {
            Level::NearlyFull
        } else if self.free < GIB.max((self.total / 10).min(10 * GIB)) {
            Level::Low
        } else {
            Level::Plenty
        }
    }
}

/// Interval at which an unchanged shortage is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// Minimum interval between log lines of a level that comes and goes.
const CHANGE_LOG_INTERVAL: Duration = Duration::from_secs(600);

/// The rate at which the disk fills is measured over `MAX_STEPS` steps of this length.
const STEP_INTERVAL: Duration = Duration::from_secs(60);
const MAX_STEPS: usize = 30;

/// A warning about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// How much space is left.
    pub level: Level,
    /// Time until it is full, if it fills as in the last half hour; `None`: it does not fill.
    pub full_in: Option<Duration>,
}

impl Warning {
    /// Logs the warning, and what to do.
    pub fn say(self, disk: Disk) {
        let free = bytesize::ByteSize(disk.free).to_string();
        let full_in = self.full_in.map_or_else(
            || "unknown".to_owned(),
            |left| humantime::format_duration(Duration::from_secs(left.as_secs())).to_string(),
        );
        if self.level == Level::NearlyFull {
            tracing::error!(
                free,
                full_in,
                "the database's disk is almost full: once it is full, events are answered 503. Free space, or move \
                 the database to a larger volume"
            );
        } else {
            tracing::warn!(
                free,
                full_in,
                "the database's disk is filling up: free space, set database.retention, or enlarge the disk"
            );
        }
    }
}

/// Watches one disk and decides when to warn.
#[derive(Debug)]
pub struct DiskWatch {
    clock: Clock,
    /// Free space by time, in steps of a minute.
    past: VecDeque<(Duration, u64)>,
    reminder: Reminder<Level>,
}

impl DiskWatch {
    /// Starts without any measurement.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, past: VecDeque::new(), reminder: Reminder::new(CHANGE_LOG_INTERVAL) }
    }

    /// Records the current state of the disk. Returns a warning if one is due.
    pub fn note(&mut self, disk: Disk) -> Option<Warning> {
        let now = self.clock.steady();
        if self.past.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= STEP_INTERVAL) {
            self.past.push_back((now, disk.free));
            if self.past.len() > MAX_STEPS {
                self.past.pop_front();
            }
        }
        let level = disk.level();
        if level == Level::Plenty || !self.reminder.is_due(level, LOG_INTERVAL, now) {
            return None;
        }
        Some(Warning { level, full_in: self.full_in(now, disk.free) })
    }

    fn full_in(&self, now: Duration, free: u64) -> Option<Duration> {
        let (at, was_free) = self.past.front()?;
        let (took, filled) = (now.saturating_sub(*at), was_free.saturating_sub(free));
        if took < STEP_INTERVAL || filled == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        Duration::try_from_secs_f64(took.as_secs_f64() * (free as f64 / filled as f64)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_disk_is_short_below_a_gibibyte_or_a_tenth_and_nearly_full_below_a_quarter() {
        let level = |free, total| Disk { free, total }.level();
        assert_eq!(level(100 * GIB, 1_000 * GIB), Level::Plenty);
        assert_eq!(level(11 * GIB, 10_000 * GIB), Level::Plenty);
        assert_eq!(level(9 * GIB, 10_000 * GIB), Level::Low);
        assert_eq!(level(2 * GIB, 30 * GIB), Level::Low);
        assert_eq!(level(2 * GIB, 10 * GIB), Level::Plenty);
        assert_eq!(level(GIB - 1, 2 * GIB), Level::Low);
        assert_eq!(level(256 * MIB - 1, GIB), Level::NearlyFull);
    }

    #[test]
    fn a_filling_disk_is_said_to_be_short_once_a_level_and_for_how_long_it_lasts() {
        let time = Arc::new(AtomicI64::new(0));
        let mut watch = DiskWatch::new(Clock::Set(Arc::clone(&time)));
        let mut said = Vec::new();
        for second in 0..700 {
            time.store(second * 1_000, Ordering::Relaxed);
            let free = (1_400 - 2 * second.unsigned_abs()) * MIB;
            said.extend(watch.note(Disk { free, total: 8 * GIB }).map(|warning| (second, warning)));
        }
        let [(189, low), (573, nearly)] = said[..] else { panic!("{said:?}") };
        assert_eq!((low.level, nearly.level), (Level::Low, Level::NearlyFull));
        // 1022 MiB at 2 MiB per second.
        assert_eq!(low.full_in.map(|left| left.as_secs()), Some(511));
        assert_eq!(nearly.full_in.map(|left| left.as_secs()), Some(127));
    }

    #[test]
    fn a_disk_that_stays_short_is_mentioned_hourly_and_one_that_wavers_not_every_time() {
        let time = Arc::new(AtomicI64::new(0));
        let mut watch = DiskWatch::new(Clock::Set(Arc::clone(&time)));
        let mut said = 0;
        for minute in 0..180 {
            time.store(minute * 60_000, Ordering::Relaxed);
            let free = if minute < 120 { 500 * MIB } else { (1_000 + 100 * (minute.unsigned_abs() % 2)) * MIB };
            let warning = watch.note(Disk { free, total: 8 * GIB });
            said += usize::from(warning.is_some());
            assert!(warning.is_none_or(|warning| warning.full_in.is_none()), "it does not fill");
        }
        assert_eq!(said, 3);
    }
}
