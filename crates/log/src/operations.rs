//! What operators and background tasks do beside the cursors: notes, the quarantine, looking rows up.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Log, LogError, LogReader};
use convoke_core::event::Record;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Which rows of the log are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// That happened at this time or later.
    pub since: Option<Millis>,
    /// That happened before this time.
    pub until: Option<Millis>,
    /// Of this type, as sent.
    pub event: Option<String>,
    /// Of the meeting with this number or UUID.
    pub meeting: Option<String>,
    /// Up to this place in the log.
    pub up_to: Option<Seq>,
}

/// An entry of the quarantine.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Quarantined {
    /// Its number.
    pub id: i64,
    /// The subscriber whose key signed it.
    pub subscriber_id: String,
    /// When it arrived first.
    pub received_at: Millis,
    /// How often it was delivered.
    pub deliveries: i64,
    /// Why no event could be made of it.
    pub reason: String,
    /// The whole request body.
    #[sqlx(try_from = "Vec<u8>")]
    pub body: Bytes,
}

/// A row that a cursor passed by.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SetAside {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
    /// Why.
    pub reason: String,
}

/// What background tasks remember from one run to the next.
#[async_trait]
pub trait Notes: LogReader {
    /// What was kept under this name with [`Notes::keep_note`].
    async fn note(&self, name: &str) -> Result<Option<String>, LogError>;

    /// Keeps what a background task wants to remember, in place of what it kept before.
    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError>;
}

/// Looks into the quarantine.
#[async_trait]
pub trait Quarantine: LogReader {
    /// The first `limit` entries of the quarantine with a number over `after`.
    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError>;

    /// One entry of the quarantine.
    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError>;
}

/// What operators do, and the comparison with the stream: looking rows up, whatever their order, and setting right.
#[async_trait]
pub trait Operations: Log + Notes + Quarantine {
    /// The first `limit` rows after `after` that `filter` wants, in the order of the log.
    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError>;

    /// How many rows `filter` wants, counted up to `limit`.
    async fn count_selected(&self, filter: &Filter, limit: u64) -> Result<u64, LogError>;

    /// The rows with these ids: how many there are of each (never more than one, if the log keeps its promise).
    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError>;

    /// The places of the rows with these ids; an id that the log does not know is left out.
    async fn find(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError>;

    /// The rows that a cursor passed by, after `after`.
    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError>;

    /// Forgets that a cursor passed a row by.
    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError>;

    /// Deletes an entry of the quarantine; whether there was one.
    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError>;

    /// How many messages of the stream all erasures have deleted, or are about to.
    async fn erased_messages(&self) -> Result<u64, LogError>;
}
