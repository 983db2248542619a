//! How far a backfill came, kept in the database, so that the next one goes on from there.

use serde::{Deserialize, Serialize};

use convoke_core::time::Millis;
use convoke_log::{LogError, Notes};

/// What is kept, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Whose events.
    pub subscriber_id: String,
    /// Of which range, as it was asked for.
    pub since: i64,
    /// `None`: to the youngest that may be looked at.
    pub until: Option<i64>,
    /// Runs that began before this are done.
    pub place: i64,
    /// Runs that began before `place` and ended after this may not be: the window that was under way ends here.
    #[serde(default)]
    pub window: Option<i64>,
    /// The first run that was too young, if any.
    pub young: Option<i64>,
    /// The platform gave less than all of what began at this time or later, if anything was left out: `place` stays there.
    #[serde(default)]
    pub hole: Option<i64>,
    /// When all of it was done.
    pub finished_at: Option<i64>,
}

impl Note {
    /// The note of this name. One that cannot be read, from another version say, is as good as none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn load(log: &dyn Notes, name: &str) -> Result<Option<Self>, LogError> {
        let Some(text) = log.note(name).await? else { return Ok(None) };
        let read = serde_json::from_str(&text);
        if let Err(error) = &read {
            tracing::warn!(name, %error, "how far the last backfill came cannot be read: it begins anew");
        }
        Ok(read.ok())
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn keep(&self, log: &dyn Notes, name: &str) -> Result<(), LogError> {
        log.keep_note(name, &serde_json::to_string(self).expect("texts and numbers have a JSON form")).await
    }

    /// All that began before `at` was looked at.
    pub fn reached(&mut self, at: Millis) {
        if self.hole.is_none() {
            self.place = self.place.max(at.get());
        }
    }

    /// The windows that end at `at` or before are begun.
    pub fn entered(&mut self, at: Millis) {
        if self.hole.is_none() {
            self.window = Some(at.get());
        }
    }

    /// Whether a run was looked at before this was kept.
    #[must_use]
    pub fn has_seen(&self, start: Option<Millis>, end: Option<Millis>) -> bool {
        let window = self.window.and_then(Millis::new);
        let ended = end.or(start).zip(window).is_some_and(|(end, window)| end <= window);
        ended && start.is_some_and(|start| start.get() < self.place)
    }

    /// Something that began at `at` or later was not given.
    pub fn missed(&mut self, at: Millis) {
        self.place = self.place.min(at.get());
        self.window = self.window.map(|window| window.min(self.place));
        self.hole = Some(self.place);
    }

    /// Where to go on with the range that was asked for, if the last one was the same and came to no end.
    #[must_use]
    pub fn resumes(&self, subscriber_id: &str, since: Millis, until: Option<Millis>) -> bool {
        self.finished_at.is_none()
            && self.subscriber_id == subscriber_id
            && self.since == since.get()
            && self.until == until.map(Millis::get)
    }
}
