//! Records failed attempts to enable the subscription: the platform tells neither how many there were nor how long a lock lasts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use convoke_core::time::Millis;
use convoke_log::{LogError, Notes};
use convoke_platform::Status;

/// How long a lock lasts. It may well start over with every further attempt.
pub const LOCK_DURATION: Duration = Duration::from_millis(LOCK_MS.unsigned_abs());
const LOCK_MS: i64 = 3_600_000;

/// The name of the note in the database.
const NOTE_NAME: &str = "subscription enable";

/// The recorded failures, by the database's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    failed_at: Option<i64>,
    locked_at: Option<i64>,
}

impl Memory {
    /// Loads what was saved.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn load(log: &dyn Notes) -> Result<Self, LogError> {
        // A note that cannot be parsed is of another version, and is ignored.
        Ok(log.note(NOTE_NAME).await?.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default())
    }

    /// Loads what was saved, and updates it with a status that was read at `now`.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn noticed(log: &dyn Notes, status: Option<Status>, now: Millis) -> Result<Self, LogError> {
        let before = Self::load(log).await?;
        let mut memory = before;
        memory.see(status, now);
        if memory != before {
            memory.keep(log).await?;
        }
        Ok(memory)
    }

    /// Saves it for the next command, on whatever machine that runs.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn keep(&self, log: &dyn Notes) -> Result<(), LogError> {
        let note = serde_json::to_string(self).map_err(|error| LogError::Rejected(error.into()))?;
        log.keep_note(NOTE_NAME, &note).await
    }

    /// Notes that enabling failed.
    pub fn fail(&mut self, now: Millis) {
        self.failed_at = Some(now.get());
    }

    /// Notes that the platform reported a lock.
    pub fn lock(&mut self, now: Millis) {
        self.locked_at = Some(now.get());
    }

    /// Takes a status into account. For a lock that no command here has caused, the time is counted from when it is first seen.
    pub fn see(&mut self, status: Option<Status>, now: Millis) {
        match (status, self.locked_at) {
            (Some(Status::Locked), None) => self.lock(now),
            (Some(Status::Locked), Some(_)) => {}
            (Some(Status::Enabled), _) => *self = Self::default(),
            _ if self.locked_until(now).is_none() => self.locked_at = None,
            _ => {}
        }
    }

    /// Until when the platform refuses to enable the subscription, as far as is known; `None`: it may be asked.
    #[must_use]
    pub fn locked_until(&self, now: Millis) -> Option<Millis> {
        let locked_at = Millis::new(self.locked_at?)?;
        let until = Millis::new(locked_at.get().saturating_add(LOCK_MS))?;
        // A time in the future was recorded before the clock was set back.
        (now < until && locked_at <= now).then_some(until)
    }

    /// How long ago enabling failed, if less than an hour: one more failure may cause a lock.
    #[must_use]
    pub fn failed_lately(&self, now: Millis) -> Option<Duration> {
        let failed_at = Millis::new(self.failed_at?)?;
        Some(now.since(failed_at)).filter(|ago| *ago < LOCK_DURATION && failed_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;

    fn at(minutes: i64) -> Millis {
        Millis::new(1_781_524_800_000 + minutes * MINUTE_MS).expect("a time in range")
    }

    #[test]
    fn a_lock_lasts_an_hour_from_when_it_was_reported_however_often_it_is_seen() {
        let mut memory = Memory::default();
        memory.lock(at(0));
        for minute in [1, 30, 59] {
            memory.see(Some(Status::Locked), at(minute));
            assert_eq!(memory.locked_until(at(minute)), Some(at(60)));
        }
        memory.see(Some(Status::Locked), at(60));
        assert_eq!(memory.locked_until(at(60)), None, "it may be asked again, whatever the status says");
    }

    #[test]
    fn a_lock_that_others_caused_is_counted_from_when_it_was_first_seen() {
        let mut memory = Memory::default();
        memory.see(Some(Status::Disabled), at(0));
        memory.see(Some(Status::Locked), at(10));
        memory.see(Some(Status::Locked), at(40));
        assert_eq!(memory.locked_until(at(50)), Some(at(70)));
        // The lock was lifted and set again.
        memory.see(Some(Status::Disabled), at(75));
        memory.see(Some(Status::Locked), at(80));
        assert_eq!(memory.locked_until(at(81)), Some(at(140)));
    }

    #[test]
    fn a_lock_that_was_reported_outlasts_a_status_that_does_not_show_it_but_no_success() {
        let mut memory = Memory::default();
        memory.lock(at(0));
        memory.see(Some(Status::Disabled), at(5));
        memory.see(None, at(6));
        assert_eq!(memory.locked_until(at(7)), Some(at(60)));
        memory.see(Some(Status::Enabled), at(8));
        assert_eq!(memory, Memory::default());
    }

    #[test]
    fn a_failure_is_remembered_for_an_hour_and_none_from_the_future() {
        let mut memory = Memory::default();
        assert_eq!(memory.failed_lately(at(0)), None);
        memory.fail(at(0));
        assert_eq!(memory.failed_lately(at(59)), Some(Duration::from_secs(59 * 60)));
        assert_eq!(memory.failed_lately(at(60)), None);
        memory.lock(at(10));
        assert_eq!((memory.failed_lately(at(-5)), memory.locked_until(at(-5))), (None, None));
    }
}
