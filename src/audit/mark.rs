//! How far log and stream were compared, and what the stream's numbers were then: kept in the database.

use serde::{Deserialize, Serialize};

use super::aged_out;
use convoke_bus::StreamState;
use convoke_core::time::Millis;
use convoke_log::Operations;

/// When nothing has changed, the time of the last comparison is kept so often, in milliseconds.
const SAVE_INTERVAL_MS: i64 = 600_000;

/// What was found when the stream was last looked at, and how far log and stream have been compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When the stream was made, in nanoseconds since the epoch.
    pub(super) made_at: i64,
    first: u64,
    first_at: i64,
    last: u64,
    deleted: u64,
    /// All messages up to here have been read,
    pub(super) message: u64,
    /// and all rows up to here looked for among them.
    pub(super) place: i64,
    /// When everything was last begun to be compared.
    pub(super) whole_at: i64,
    /// Messages that erasures had counted for deletion when the stream was last looked at,
    #[serde(default)]
    erased: u64,
    /// and so many of them that the stream may still have.
    #[serde(default)]
    to_erase: u64,
    /// Rows that were not in the stream.
    pub missing: u64,
    /// Messages whose event is not in the log.
    pub unknown: u64,
    /// When the comparison last came to its end.
    #[serde(default)]
    pub(super) checked_at: i64,
    /// Whether somebody else compared since: who goes on from here compares everything.
    #[serde(default)]
    pub(super) again: bool,
}

impl Mark {
    /// What was kept in the database, if anything was.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn load(log: &dyn Operations, stream: &str) -> anyhow::Result<Option<Self>> {
        // One that cannot be read is of another version: everything is compared again.
        Ok(log.note(&name(stream)).await?.and_then(|note| serde_json::from_str(&note).ok()))
    }

    /// Whether it is worth keeping: that nothing has changed is so only once in a while.
    pub(super) fn is_news_after(&self, kept: Option<&Self>) -> bool {
        kept.is_none_or(|kept| {
            self.checked_at - kept.checked_at >= SAVE_INTERVAL_MS
                || Self { checked_at: kept.checked_at, ..self.clone() } != *kept
        })
    }

    /// Keeps that everything was compared with the stream as it was in `state`, and that so many rows are missing.
    ///
    /// # Errors
    /// If the database cannot be read or written.
    pub async fn compared(log: &dyn Operations, stream: &str, state: &StreamState, missing: u64) -> anyhow::Result<()> {
        let erased = log.erased_messages().await?;
        let mut mark = Self::load(log, stream).await?.unwrap_or_else(|| Self { erased, ..Self::default() });
        mark.allow(erased);
        mark.note_numbers(state);
        (mark.again, mark.checked_at, mark.missing) = (true, log.now().await?.get(), missing);
        mark.save(log, stream).await
    }

    pub(super) async fn save(&self, log: &dyn Operations, stream: &str) -> anyhow::Result<()> {
        Ok(log.keep_note(&name(stream), &serde_json::to_string(self)?).await?)
    }

    /// How many messages that were in the stream's middle, or its oldest, are gone.
    fn gone(&self, state: &StreamState) -> u64 {
        let holes = |first: u64, deleted: u64| first.saturating_sub(1) + deleted;
        holes(state.first_sequence, state.deleted).saturating_sub(holes(self.first, self.deleted))
    }

    /// Takes what `convoke forget` deleted for no loss: it counts in the database before it deletes, so `erased` is to be read
    /// there after the stream's numbers.
    pub fn allow(&mut self, erased: u64) {
        self.to_erase += erased.saturating_sub(self.erased);
        self.erased = erased;
    }

    /// How the stream lost messages since, if it did, and a word on it. Those that [`Mark::allow`] allows are none.
    #[must_use]
    pub fn setback(&self, state: &StreamState, now: Millis) -> Option<(Setback, String)> {
        if self.made_at != nanos(state) {
            return Some((Setback::Recreated, "it was deleted and is a new one".to_owned()));
        }
        if state.last_sequence < self.last {
            let lost = self.last - state.last_sequence;
            return Some((Setback::Backwards, format!("it went backwards, and has lost its newest {lost} messages")));
        }
        if self.to_erase > 0 && self.gone(state) <= self.to_erase {
            return None;
        }
        let first_at = Millis::new(self.first_at).unwrap_or(Millis::EPOCH);
        if state.first_sequence > self.first
            && !state.discards
            && !state.thins
            && !aged_out(first_at, state.max_age, now)
        {
            let lost = state.first_sequence - self.first;
            return Some((Setback::Purged, format!("it was purged of up to {lost} messages that were not old")));
        }
        // What aged out meanwhile says nothing about the middle.
        let lost = state.deleted.saturating_sub(self.deleted);
        if lost > self.to_erase && !state.thins {
            return Some((Setback::Deleted, format!("{lost} messages in its middle were deleted")));
        }
        None
    }

    /// The same, when everything from behind `message` on is begun to be compared again.
    pub(super) fn anew(&self, message: u64, erased: u64, now: Millis) -> Self {
        let (to_erase, checked_at) = (self.to_erase, self.checked_at);
        Self { whole_at: now.get(), message, erased, to_erase, checked_at, ..Self::default() }
    }

    pub(super) fn note_numbers(&mut self, state: &StreamState) {
        if self.made_at == nanos(state) {
            self.to_erase = self.to_erase.saturating_sub(self.gone(state));
        }
        self.made_at = nanos(state);
        self.first = state.first_sequence;
        self.first_at = state.first_at.get();
        self.last = state.last_sequence;
        self.deleted = state.deleted;
    }
}

fn nanos(state: &StreamState) -> i64 {
    i64::try_from(state.created_at).unwrap_or(0)
}

fn name(stream: &str) -> String {
    format!("stream watch {stream}")
}

/// How a stream lost messages that neither age nor size explain, as in the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Setback {
    /// It is another stream of the same name.
    Recreated,
    /// Its newest messages are gone.
    Backwards,
    /// Its oldest messages are gone.
    Purged,
    /// Messages in its middle are gone.
    Deleted,
}
