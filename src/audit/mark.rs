//! The progress of the comparison of log and stream, with the state of the stream at that time; saved in the database.

use serde::{Deserialize, Serialize};

use super::aged_out;
use convoke_bus::StreamState;
use convoke_core::time::Millis;
use convoke_log::Operations;

/// How often the time of the last comparison is saved when nothing else has changed, in milliseconds.
const SAVE_INTERVAL_MS: i64 = 600_000;

/// The state of the stream when it was last checked, and how far log and stream have been compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Creation time of the stream, in nanoseconds since the epoch.
    pub(super) made_at: i64,
    first: u64,
    first_at: i64,
    last: u64,
    deleted: u64,
    /// All messages up to this one have been read.
    pub(super) message: u64,
    /// All rows up to this one have been looked for among the messages.
    pub(super) place: i64,
    /// When the last comparison of everything began.
    pub(super) whole_at: i64,
    /// Number of messages that erasures had announced to delete when the stream was last checked.
    #[serde(default)]
    erased: u64,
    /// How many of those the stream may still hold.
    #[serde(default)]
    to_erase: u64,
    /// Number of rows that were not in the stream.
    pub missing: u64,
    /// Number of messages whose event is not in the log.
    pub unknown: u64,
    /// When the comparison last reached its end.
    #[serde(default)]
    pub(super) checked_at: i64,
    /// Whether another process has compared since: the stream watch then compares everything again.
    #[serde(default)]
    pub(super) again: bool,
}

impl Mark {
    /// Loads the state that was saved in the database, if there is one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn load(log: &dyn Operations, stream: &str) -> anyhow::Result<Option<Self>> {
        // A note that cannot be parsed is of another version: everything is compared again.
        Ok(log.note(&name(stream)).await?.and_then(|note| serde_json::from_str(&note).ok()))
    }

    /// Whether it should be saved: if nothing has changed, only once in a while.
    pub(super) fn is_news_after(&self, kept: Option<&Self>) -> bool {
        kept.is_none_or(|kept| {
            self.checked_at - kept.checked_at >= SAVE_INTERVAL_MS
                || Self { checked_at: kept.checked_at, ..self.clone() } != *kept
        })
    }

    /// Saves that everything was compared with the stream as it was in `state`, and that `missing` rows were not in it.
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

    /// How many messages were deleted from the beginning or the middle of the stream since.
    fn gone(&self, state: &StreamState) -> u64 {
        let holes = |first: u64, deleted: u64| first.saturating_sub(1) + deleted;
        holes(state.first_sequence, state.deleted).saturating_sub(holes(self.first, self.deleted))
    }

    /// Allows for what `convoke forget` deletes, so that it does not count as a loss. It is counted in the database before it is
    /// deleted, so `erased` must be read after the stream's state.
    pub fn allow(&mut self, erased: u64) {
        self.to_erase += erased.saturating_sub(self.erased);
        self.erased = erased;
    }

    /// How the stream has lost messages since, if it has, with a description. Deletions that [`Mark::allow`] allows for do not
    /// count.
    #[must_use]
    pub fn setback(&self, state: &StreamState, now: Millis) -> Option<(Setback, String)> {
        if self.made_at != nanos(state) {
            return Some((Setback::Recreated, "it was deleted and created again".to_owned()));
        }
        if state.last_sequence < self.last {
            let lost = self.last - state.last_sequence;
            return Some((Setback::Backwards, format!("it lost its newest {lost} messages")));
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
            return Some((Setback::Purged, format!("up to {lost} recent messages were purged from it")));
        }
        // Messages that aged out meanwhile say nothing about the middle.
        let lost = state.deleted.saturating_sub(self.deleted);
        if lost > self.to_erase && !state.thins {
            return Some((Setback::Deleted, format!("{lost} messages in its middle were deleted")));
        }
        None
    }

    /// A new mark for a full comparison that starts after `message`.
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

/// How a stream lost messages for reasons other than age or size, as in the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Setback {
    /// It is a new stream with the same name.
    Recreated,
    /// Its newest messages are gone.
    Backwards,
    /// Its oldest messages are gone.
    Purged,
    /// Messages in its middle are gone.
    Deleted,
}
