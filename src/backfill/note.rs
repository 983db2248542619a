//! The progress of a backfill, saved in the database, so that the next one can continue.

use serde::{Deserialize, Serialize};

use convoke_core::time::Millis;
use convoke_log::{LogError, Notes};

/// The saved progress; times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The subscriber of the events.
    pub subscriber_id: String,
    /// Start of the range, as it was requested.
    pub since: i64,
    /// End of the range, as it was requested; `None`: up to the newest time that may be covered.
    pub until: Option<i64>,
    /// Runs that began before this time are done.
    pub place: i64,
    /// End of the window that was under way: runs that began before `place` and ended after this time may not be done.
    #[serde(default)]
    pub window: Option<i64>,
    /// The start of the first run that was too young, if there was one.
    pub young: Option<i64>,
    /// Start of the first list of which the platform gave less than it announced, if there was one: `place` does not advance past
    /// it.
    #[serde(default)]
    pub hole: Option<i64>,
    /// When the whole range was done.
    pub finished_at: Option<i64>,
}

impl Note {
    /// Loads the note with this name. One that cannot be parsed, for example from another version, counts as none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn load(log: &dyn Notes, name: &str) -> Result<Option<Self>, LogError> {
        let Some(text) = log.note(name).await? else { return Ok(None) };
        let read = serde_json::from_str(&text);
        if let Err(error) = &read {
            tracing::warn!(name, %error, "cannot read the progress of the last backfill: it starts over");
        }
        Ok(read.ok())
    }

    /// Saves the note.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn keep(&self, log: &dyn Notes, name: &str) -> Result<(), LogError> {
        log.keep_note(name, &serde_json::to_string(self).expect("texts and numbers have a JSON form")).await
    }

    /// Notes that all runs that began before `at` are done.
    pub fn reached(&mut self, at: Millis) {
        if self.hole.is_none() {
            self.place = self.place.max(at.get());
        }
    }

    /// Notes that the window that ends at `at` has begun.
    pub fn entered(&mut self, at: Millis) {
        if self.hole.is_none() {
            self.window = Some(at.get());
        }
    }

    /// Whether a run was already done when this note was saved.
    #[must_use]
    pub fn has_seen(&self, start: Option<Millis>, end: Option<Millis>) -> bool {
        let window = self.window.and_then(Millis::new);
        let ended = end.or(start).zip(window).is_some_and(|(end, window)| end <= window);
        ended && start.is_some_and(|start| start.get() < self.place)
    }

    /// Notes that the platform left out something that began at or after `at`.
    pub fn missed(&mut self, at: Millis) {
        self.place = self.place.min(at.get());
        self.window = self.window.map(|window| window.min(self.place));
        self.hole = Some(self.place);
    }

    /// Whether a backfill of this range continues the last one, because the last one had the same range and did not finish.
    #[must_use]
    pub fn resumes(&self, subscriber_id: &str, since: Millis, until: Option<Millis>) -> bool {
        self.finished_at.is_none()
            && self.subscriber_id == subscriber_id
            && self.since == since.get()
            && self.until == until.map(Millis::get)
    }
}
