//! Operations besides the cursors, for operators and background tasks: notes, the quarantine, finding rows.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Log, LogError, LogReader};
use convoke_core::event::Record;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// A selection of log rows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Events that happened at this time or later.
    pub since: Option<Millis>,
    /// Events that happened before this time.
    pub until: Option<Millis>,
    /// Events of this type, as sent.
    pub event: Option<String>,
    /// Events of the meeting with this number or UUID.
    pub meeting: Option<String>,
    /// Rows up to this position in the log.
    pub up_to: Option<Seq>,
}

/// A quarantine entry.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Quarantined {
    /// Its number.
    pub id: i64,
    /// The subscriber whose key signed it.
    pub subscriber_id: String,
    /// When it first arrived.
    pub received_at: Millis,
    /// Number of deliveries.
    pub deliveries: i64,
    /// Why it could not be read as an event.
    pub reason: String,
    /// The whole request body.
    #[sqlx(try_from = "Vec<u8>")]
    pub body: Bytes,
}

/// A row that a cursor skipped.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SetAside {
    /// Its position in the log.
    pub seq: Seq,
    /// The event's id.
    pub event_id: EventId,
    /// The reason.
    pub reason: String,
}

/// Notes that background tasks keep between runs.
#[async_trait]
pub trait Notes: LogReader {
    /// The note stored under this name with [`Notes::keep_note`].
    async fn note(&self, name: &str) -> Result<Option<String>, LogError>;

    /// Stores a note, replacing the earlier one with this name.
    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError>;
}

/// Reads the quarantine.
#[async_trait]
pub trait Quarantine: LogReader {
    /// The first `limit` quarantine entries with a number above `after`.
    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError>;

    /// One quarantine entry.
    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError>;
}

/// For operators and for the comparison with the stream: finding rows in any order, and corrections.
#[async_trait]
pub trait Operations: Log + Notes + Quarantine {
    /// The first `limit` rows after `after` that match `filter`, in log order.
    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError>;

    /// The number of rows that match `filter`, counted up to `limit`.
    async fn count_selected(&self, filter: &Filter, limit: u64) -> Result<u64, LogError>;

    /// The number of rows with each of these ids (never more than one if the log is consistent).
    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError>;

    /// The positions of the rows with these ids; unknown ids are left out.
    async fn find(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError>;

    /// The rows after `after` that a cursor skipped.
    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError>;

    /// Deletes the record that a cursor skipped a row.
    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError>;

    /// Deletes a quarantine entry. Returns whether there was one.
    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError>;

    /// The number of stream messages that erasures have deleted or are about to delete.
    async fn erased_messages(&self) -> Result<u64, LogError>;
}
