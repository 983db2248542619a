//! The log itself: appending, reading in its order, and the cursors that read it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::LogError;
use convoke_core::event::{Content, Event, Record, Unreadable, Verified};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Deliveries of one event, or of one unreadable body, to be appended together.
#[derive(Clone, Debug)]
pub struct Append {
    /// What was delivered, first.
    pub verified: Arc<Verified>,
    /// How often: copies in one batch are merged. At least 1.
    pub deliveries: u32,
    /// When the last of them arrived.
    pub last_delivered_at: Millis,
}

/// What became of one [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is new in the log.
    Stored,
    /// It had been in the log before; its count of deliveries went up.
    Duplicate,
    /// It is in the quarantine, whether new or not.
    Quarantined,
    /// It is a handshake, which was noted.
    Noted,
}

/// What one commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// What became of each, in the order of the batch.
    pub outcomes: Vec<Appended>,
    /// The place of the batch's first event, if all of its events are new and their places follow one another.
    pub first: Option<Seq>,
}

/// A cursor's lease and position, as found when the lease was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Leased {
    /// Everything up to here is done.
    pub position: Seq,
    /// Whether somebody else asks for the lease ([`Log::claim`]).
    pub wanted: bool,
}

/// What became of an attempt to move a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It stands at the new position, and the lease was renewed.
    Yes {
        /// Whether somebody else asks for the lease ([`Log::claim`]).
        wanted: bool,
    },
    /// The lease had ended, another owner has it, or the cursor is further already: nothing was changed.
    LeaseLost,
}

/// How far a cursor is behind the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Rows not read yet: exact up to [`Lag::EXACT`], an upper bound beyond it.
    pub events: u64,
    /// When the oldest of them arrived.
    pub oldest: Option<Millis>,
}

impl Lag {
    /// Up to this many rows are counted; a longer backlog is judged by the distance of `seq`.
    pub const EXACT: i64 = 10_000;
}

/// Where a cursor stands, and who moves it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CursorState {
    /// `bus`, …
    pub name: String,
    /// Everything up to here is done.
    pub position: Seq,
    /// Who holds the lease, if it has not ended.
    pub owner: Option<String>,
}

/// When events were last accepted, by whichever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// When.
    pub at: Millis,
    /// How long ago that is. Both ends are the database's clock.
    pub age: Duration,
    /// Whether it was written into another file, of which this one is a copy.
    pub elsewhere: bool,
}

/// Reads the log, and sees how far its readers have come. Every other trait of a back end stands on this one.
#[async_trait]
pub trait LogReader: std::fmt::Debug + Send + Sync + 'static {
    /// The first `limit` rows after `after`, in the order of the log.
    async fn read(&self, after: Seq, limit: u32) -> Result<Vec<Record>, LogError>;

    /// The newest row's place; [`Seq::START`] if the log is empty.
    async fn head(&self) -> Result<Seq, LogError>;

    /// The database's clock.
    async fn now(&self) -> Result<Millis, LogError>;

    /// All cursors.
    async fn cursors(&self) -> Result<Vec<CursorState>, LogError>;

    /// How far a cursor is behind.
    async fn lag(&self, cursor: &str) -> Result<Lag, LogError>;

    /// The newest [`Log::record_heartbeat`], of whichever process; `None` if there never was one.
    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError>;

    /// Changes whenever another process may have appended something, for each of the receivers, while [`Maintenance::listen`](super::Maintenance::listen) runs.
    /// A help, not a promise: who waits for it looks now and then all the same. What this process appends, it knows by itself.
    fn appended_elsewhere(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

/// The log itself: what accepts events and what moves a cursor along them. See the crate's documentation for the order it keeps.
#[async_trait]
pub trait Log: LogReader {
    /// Appends a batch, its new events in one transaction, and answers, in the same order, what became of each. When it returns, the
    /// batch is durable: it survives the power going off.
    ///
    /// An event that is in the log already, whoever put it there and however concurrently, is a duplicate: only its
    /// `deliveries` and `last_delivered_at` change. No id may occur twice in one batch.
    ///
    /// # Errors
    /// [`LogError::Rejected`] if one of the rows can never be stored, [`LogError::NoPlace`] if one cannot be stored now; the
    /// caller finds out which.
    async fn append(&self, batch: &[Append]) -> Result<Committed, LogError>;

    /// Puts a body into the quarantine whose event the database refused, with the reason.
    async fn quarantine(&self, unreadable: &Unreadable, deliveries: u32) -> Result<(), LogError>;

    /// Writes a row durably and forgets it: whether an event could be stored now.
    ///
    /// # Errors
    /// The reason why not.
    async fn probe(&self) -> Result<(), LogError>;

    /// Notes that events are accepted now.
    async fn record_heartbeat(&self) -> Result<(), LogError>;

    /// Takes or renews the lease of a cursor for `owner`, by the database's clock, until `ttl` from now. `None` if
    /// another owner's lease has not ended. A lease that would last more than twice `ttl` has ended: it is from before the
    /// clock was set back. A cursor that does not exist starts before the first row.
    async fn lease(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<Option<Leased>, LogError>;

    /// Moves a cursor forward to a position and renews its lease, if `owner` still holds it.
    async fn advance(&self, cursor: &str, owner: &str, to: Seq, ttl: Duration) -> Result<Moved, LogError>;

    /// Asks whoever holds the lease of a cursor to hand it over to `owner`; the wish is forgotten after `ttl`, and does
    /// nothing while another's stands.
    async fn claim(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<(), LogError>;

    /// Ends the lease of `owner`, so that another need not wait for it. Who has claimed it has it from now on, until its
    /// claim would have ended.
    async fn release(&self, cursor: &str, owner: &str) -> Result<(), LogError>;

    /// Records that a cursor passed a row by. Doing it again changes nothing.
    async fn set_aside(&self, cursor: &str, seq: Seq, id: EventId, reason: &str) -> Result<(), LogError>;
}

/// What an `INSERT` of a batch's events did.
#[derive(Default)]
pub(crate) struct Inserted {
    /// Those that had been there before.
    pub duplicates: HashSet<EventId>,
    /// As in [`Committed`].
    pub first: Option<Seq>,
}

/// The events of a batch.
pub(crate) fn events(batch: &[Append]) -> Vec<(&Append, &Event)> {
    batch
        .iter()
        .filter_map(|append| match append.verified.content() {
            Content::Event(event) => Some((append, event)),
            _ => None,
        })
        .collect()
}

/// That rows were written as many as were meant to be: an `INSERT` or `UPDATE` that does less without a word (somebody's rule or
/// trigger, a row that was deleted in between) has kept nothing.
pub(crate) fn all_kept(meant: usize, written: u64) -> Result<(), sqlx::Error> {
    if usize::try_from(written) == Ok(meant) {
        return Ok(());
    }
    Err(sqlx::Error::Protocol(format!("the database kept {written} of {meant} rows, and did not say why")))
}

/// What became of each of a batch, of whose events these were no news.
pub(crate) fn outcomes(batch: &[Append], duplicates: &HashSet<EventId>) -> Vec<Appended> {
    let outcome = |append: &Append| match append.verified.content() {
        Content::Event(event) if duplicates.contains(&event.event_id) => Appended::Duplicate,
        Content::Event(_) => Appended::Stored,
        Content::Unreadable(_) => Appended::Quarantined,
        Content::Handshake(_) => Appended::Noted,
    };
    batch.iter().map(outcome).collect()
}
