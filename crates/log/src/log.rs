//! The log itself: appending, reading in order, and cursors.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::LogError;
use convoke_core::event::{Content, Event, Record, Unreadable, Verified};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// One event or one unreadable body to append, with all its deliveries in the batch.
#[derive(Clone, Debug)]
pub struct Append {
    /// The content of the first delivery.
    pub verified: Arc<Verified>,
    /// Number of deliveries: copies in one batch are merged. At least 1.
    pub deliveries: u32,
    /// When the last delivery arrived.
    pub last_delivered_at: Millis,
}

/// The outcome of one [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// A new event was stored.
    Stored,
    /// The event was in the log already; its count of deliveries went up.
    Duplicate,
    /// The body is in the quarantine, as a new entry or an old one.
    Quarantined,
    /// It is a handshake, which was recorded.
    Noted,
}

/// The outcome of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The outcomes, in the order of the batch.
    pub outcomes: Vec<Appended>,
    /// The position of the first event of the batch, if all its events are new and their positions are consecutive.
    pub first: Option<Seq>,
}

/// The position of a cursor when its lease was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Leased {
    /// Every row up to here is processed.
    pub position: Seq,
    /// Whether another process asks for the lease ([`Log::claim`]).
    pub wanted: bool,
}

/// The outcome of an attempt to move a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The cursor is at the new position, and the lease was renewed.
    Yes {
        /// Whether another process asks for the lease ([`Log::claim`]).
        wanted: bool,
    },
    /// The lease had expired, has another owner, or the cursor is already further ahead: nothing was changed.
    LeaseLost,
}

/// How far a cursor lags behind the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Rows not read yet: exact up to [`Lag::EXACT`], an upper bound above it.
    pub events: u64,
    /// When the oldest unread row arrived.
    pub oldest: Option<Millis>,
}

impl Lag {
    /// Maximum number of rows that are counted; a longer backlog is estimated from the difference of `seq`.
    pub const EXACT: i64 = 10_000;
}

/// The position and owner of a cursor.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CursorState {
    /// The name, for example `bus`.
    pub name: String,
    /// Every row up to here is processed.
    pub position: Seq,
    /// The holder of the lease, unless it has expired.
    pub owner: Option<String>,
}

/// When any process last accepted events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The time.
    pub at: Millis,
    /// Its age. Both times are from the database's clock.
    pub age: Duration,
    /// Whether it was written to another file, of which this one is a copy.
    pub elsewhere: bool,
}

/// Reads the log and the positions of its readers. Every other trait of a back end builds on this one.
#[async_trait]
pub trait LogReader: std::fmt::Debug + Send + Sync + 'static {
    /// The first `limit` rows after `after`, in log order.
    async fn read(&self, after: Seq, limit: u32) -> Result<Vec<Record>, LogError>;

    /// The position of the newest row; [`Seq::START`] if the log is empty.
    async fn head(&self) -> Result<Seq, LogError>;

    /// The current time of the database's clock.
    async fn now(&self) -> Result<Millis, LogError>;

    /// All cursors.
    async fn cursors(&self) -> Result<Vec<CursorState>, LogError>;

    /// How far a cursor lags behind.
    async fn lag(&self, cursor: &str) -> Result<Lag, LogError>;

    /// The newest [`Log::record_heartbeat`] of any process; `None` if there is none.
    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError>;

    /// Signals each receiver when another process may have appended something, while
    /// [`Maintenance::listen`](super::Maintenance::listen) runs. Signals can be lost, so a waiting reader must also
    /// poll from time to time. Appends of this process are not signalled here.
    fn appended_elsewhere(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

/// The log itself: accepts events and moves cursors along them. The crate's documentation defines its order.
#[async_trait]
pub trait Log: LogReader {
    /// Appends a batch, with its new events in one transaction, and returns the outcome of each entry in the same
    /// order. When it returns, the batch is durable: it survives a power failure.
    ///
    /// An event that is in the log already, even one appended concurrently by another process, is a duplicate: only its
    /// `deliveries` and `last_delivered_at` change. An id must not occur twice in one batch.
    ///
    /// # Errors
    /// [`LogError::Rejected`] if one of the rows can never be stored, [`LogError::NoPlace`] if one cannot be stored
    /// now; the caller has to find out which.
    async fn append(&self, batch: &[Append]) -> Result<Committed, LogError>;

    /// Quarantines a body whose event the database refused, with the reason.
    async fn quarantine(&self, unreadable: &Unreadable, deliveries: u32) -> Result<(), LogError>;

    /// Writes a row durably and deletes it, to check whether an event could be stored now.
    ///
    /// # Errors
    /// Why it could not.
    async fn probe(&self) -> Result<(), LogError>;

    /// Records that events are being accepted now.
    async fn record_heartbeat(&self) -> Result<(), LogError>;

    /// Takes or renews the lease of a cursor for `owner`, by the database's clock, until `ttl` from now. `None` if
    /// another owner's lease has not expired. A lease with more than twice `ttl` left counts as expired: it is from
    /// before the clock was set back. A cursor that does not exist starts before the first row.
    async fn lease(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<Option<Leased>, LogError>;

    /// Moves a cursor forward to a position and renews its lease, if `owner` still holds the lease.
    async fn advance(&self, cursor: &str, owner: &str, to: Seq, ttl: Duration) -> Result<Moved, LogError>;

    /// Asks the holder of a cursor's lease to hand it over to `owner`. The claim expires after `ttl`, and has no effect
    /// while another owner's claim is valid.
    async fn claim(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<(), LogError>;

    /// Ends the lease of `owner`, so that another process need not wait for it to expire. If there is a claim, its
    /// owner gets the lease now, until the claim would have expired.
    async fn release(&self, cursor: &str, owner: &str) -> Result<(), LogError>;

    /// Records that a cursor skipped a row. Repeating it changes nothing.
    async fn set_aside(&self, cursor: &str, seq: Seq, id: EventId, reason: &str) -> Result<(), LogError>;
}

/// The outcome of the `INSERT` of a batch's events.
#[derive(Default)]
pub(crate) struct Inserted {
    /// The events that were in the log already.
    pub duplicates: HashSet<EventId>,
    /// As in [`Committed`].
    pub first: Option<Seq>,
}

/// The events of a batch, without its other entries.
pub(crate) fn events(batch: &[Append]) -> Vec<(&Append, &Event)> {
    batch
        .iter()
        .filter_map(|append| match append.verified.content() {
            Content::Event(event) => Some((append, event)),
            _ => None,
        })
        .collect()
}

/// Fails unless all intended rows were written. An `INSERT` or `UPDATE` can silently write fewer (because of a rule or
/// trigger, or a row deleted in between); then the batch counts as not stored.
pub(crate) fn all_kept(meant: usize, written: u64) -> Result<(), sqlx::Error> {
    if usize::try_from(written) == Ok(meant) {
        return Ok(());
    }
    Err(sqlx::Error::Protocol(format!("the database stored {written} of {meant} rows, without an error")))
}

/// The outcome of each entry of a batch, given which of its events are duplicates.
pub(crate) fn outcomes(batch: &[Append], duplicates: &HashSet<EventId>) -> Vec<Appended> {
    let outcome = |append: &Append| match append.verified.content() {
        Content::Event(event) if duplicates.contains(&event.event_id) => Appended::Duplicate,
        Content::Event(_) => Appended::Stored,
        Content::Unreadable(_) => Appended::Quarantined,
        Content::Handshake(_) => Appended::Noted,
    };
    batch.iter().map(outcome).collect()
}
