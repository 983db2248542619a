//! The log: the `events` table, which is the record, and the few small tables beside it.
//!
//! [`Log`] is the contract of a back end, and its doc comments are the specification; `sqlite` and `postgres`
//! implement it side by side, in plain SQL, and one suite runs every promise on both. One method is one transaction. No
//! type of the database driver leaves this module.
//!
//! The order of the log is the order in which commits became visible: whoever has read up to `seq` N never finds a
//! smaller number later.

pub mod disk;
mod erasure;
mod fetches;
mod gaps;
mod postgres;
mod probes;
mod reading;
mod retention;
mod sign_outs;
mod sqlite;
mod stats;
mod tables;
pub mod tail;
mod told;

use std::collections::{HashMap, HashSet};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

pub use erasure::{Erased, Erasure, Erasures, FORGOTTEN, Handles, Host, PersonRow, PersonStay, StayKey};
pub use gaps::{Gaps, KnownRun, KnownStay};
pub use reading::{
    APART, EventFilter, ListedEvent, ListedMeeting, ListedQuarantined, ListedStay, Listing, MeetingFilter, MeetingKey,
    Order, Page, QuarantineFilter, Reading, RecordingFilter, Scope, StayFilter,
};
pub use retention::Held as RetentionHeld;
pub use sign_outs::Sessions;
pub use stats::{Arrived, GoingOn, Held, LONGEST, Statistics};
pub use tables::{
    Changes, ClosedBy, Fact, Lease, MeetingRow, Ready, RecordingRow, RunKey, Status, StayRow, Stored, Tables,
};

use crate::disk::Disk;
use convoke_core::event::{Content, Event, Record, Verified};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

pub use fetches::{Details, Enriched, Fetch, Fetched, Fetches, Finish, Run, WorkCounts};
pub use probes::{Handshakes, Probes};
pub use told::{Texts, Told};

/// Why the log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database cannot be reached, is full, read-only, too slow, or not migrated. Try again later; whether a write
    /// took place is unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(Box<dyn StdError + Send + Sync>),
    /// It is as unavailable, but for something that a person has to mend: a password, a right, a missing folder. The text
    /// says what. Trying again helps as soon as it is mended.
    #[error("{0}")]
    Unusable(String),
    /// The tables are not up to date, and were not to be brought up to date.
    #[error("{database} {tables}")]
    Unmigrated {
        /// Which database.
        database: String,
        /// What is missing.
        tables: Unmigrated,
    },
    /// The database refuses the values. Trying the same again is useless; nothing was written.
    #[error("the database refuses the values: {0}")]
    Rejected(Box<dyn StdError + Send + Sync>),
    /// The database has no place for one of the rows now, and may have one later; nothing was written, and the others may be
    /// tried by themselves.
    #[error("the database has no place for it now: {0}")]
    NoPlace(Box<dyn StdError + Send + Sync>),
    /// A query for people took longer than it may, and was broken off. Ask for less.
    #[error("the query took longer than {0:?}, and was broken off")]
    TooSlow(Duration),
    /// The database's schema is not one that this version can use, and waiting will not change that.
    #[error("{0}")]
    Schema(String),
    /// The settings do not describe a database.
    #[error("database.url: {0}")]
    Url(String),
}

/// In what way the tables are not up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmigrated {
    /// There is no file of that name.
    NoFile,
    /// There are no tables: nobody has used the database yet.
    Empty,
    /// So many migrations are pending.
    Pending(usize),
}

impl std::fmt::Display for Unmigrated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = "(with `database.migrate = false`, `convoke migrate`, run as the same user)";
        let other = "If it should be there, database.url names another one";
        match self {
            Self::NoFile => write!(f, "is not there: `convoke serve` makes it at its first start. {other}"),
            Self::Empty => write!(f, "is empty: `convoke serve` makes the tables at its first start. {other}"),
            Self::Pending(1) => write!(f, "lacks 1 migration: `convoke serve` applies it at its start {by}"),
            Self::Pending(n) => write!(f, "lacks {n} migrations: `convoke serve` applies them at its start {by}"),
        }
    }
}

impl LogError {
    /// Whether nobody has made the log yet.
    #[must_use]
    pub fn not_made(&self) -> bool {
        matches!(self, Self::Unmigrated { tables: Unmigrated::NoFile | Unmigrated::Empty, .. })
    }

    /// Whether trying again later may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unusable(_) | Self::Unmigrated { .. })
    }

    fn unavailable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(error.into())
    }
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug)]
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
    pub body: Bytes,
}

/// A row that a cursor passed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
    /// Why.
    pub reason: String,
}

/// What is counted in the database, for metrics.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Entries of the quarantine; more than 10,000 count as so many.
    pub quarantined: i64,
    /// Rows set aside, by cursor.
    pub set_aside: HashMap<String, i64>,
    /// The newest handshake, by subscriber.
    pub handshakes: HashMap<String, Millis>,
}

/// The state of a database's schema after [`Log::migrate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The newest migration that is applied.
    pub version: i64,
    /// How many were applied just now.
    pub applied: usize,
}

/// A back end of the log. See the module's documentation for the order it keeps.
#[async_trait]
pub trait Log:
    Tables + Gaps + Fetches + Probes + Reading + Statistics + Erasures + Sessions + Send + Sync + std::fmt::Debug + 'static
{
    /// What it is and where, for people: no password in it.
    fn describe(&self) -> String;

    /// Brings the schema up to date if `apply`, else only checks that it is. Safe when several processes do it at once.
    ///
    /// # Errors
    /// [`LogError::Schema`] if the schema was made by a newer version or by something else; [`LogError::Unavailable`] or
    /// [`LogError::Unusable`] if the database cannot be reached or used; [`LogError::Unmigrated`] if migrations are pending and
    /// `apply` is false.
    async fn migrate(&self, apply: bool) -> Result<Schema, LogError>;

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
    ///
    /// # Errors
    /// As for all methods, [`LogError::Unavailable`].
    async fn quarantine(&self, unreadable: &convoke_core::event::Unreadable, deliveries: u32) -> Result<(), LogError>;

    /// Writes a row durably and forgets it: whether an event could be stored now.
    ///
    /// # Errors
    /// The reason why not.
    async fn probe(&self) -> Result<(), LogError>;

    /// Notes that events are accepted now.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn beat(&self) -> Result<(), LogError>;

    /// The newest [`Log::beat`], of whichever process; `None` if there never was one.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError>;

    /// What was kept under this name with [`Log::keep_note`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn note(&self, name: &str) -> Result<Option<String>, LogError>;

    /// Keeps what a background task wants to remember, in place of what it kept before.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError>;

    /// The first `limit` rows after `after`, in the order of the log.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn read(&self, after: Seq, limit: u32) -> Result<Vec<Record>, LogError>;

    /// The first `limit` rows after `after` that `filter` wants, in the order of the log.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError>;

    /// The rows with these ids: how many there are of each (never more than one, if the log keeps its promise).
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError>;

    /// The place of the row with this id.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn find(&self, id: EventId) -> Result<Option<Seq>, LogError>;

    /// The places of the rows with these ids; an id that the log does not know is left out.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn places(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError>;

    /// The newest row's place; [`Seq::START`] if the log is empty.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn head(&self) -> Result<Seq, LogError>;

    /// Takes or renews the lease of a cursor for `owner`, by the database's clock, until `ttl` from now. `None` if
    /// another owner's lease has not ended. A lease that would last more than twice `ttl` has ended: it is from before the
    /// clock was set back. A cursor that does not exist starts before the first row.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn lease(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<Option<Leased>, LogError>;

    /// Moves a cursor forward to a position and renews its lease, if `owner` still holds it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn advance(&self, cursor: &str, owner: &str, to: Seq, ttl: Duration) -> Result<Moved, LogError>;

    /// Asks whoever holds the lease of a cursor to hand it over to `owner`; the wish is forgotten after `ttl`, and does
    /// nothing while another's stands.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn claim(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<(), LogError>;

    /// Ends the lease of `owner`, so that another need not wait for it. Who has claimed it has it from now on, until its
    /// claim would have ended.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn release(&self, cursor: &str, owner: &str) -> Result<(), LogError>;

    /// The database's clock.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn now(&self) -> Result<Millis, LogError>;

    /// All cursors.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn cursors(&self) -> Result<Vec<CursorState>, LogError>;

    /// How far a cursor is behind.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn lag(&self, cursor: &str) -> Result<Lag, LogError>;

    /// Records that a cursor passed a row by. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn set_aside(&self, cursor: &str, seq: Seq, id: EventId, reason: &str) -> Result<(), LogError>;

    /// Forgets that a cursor passed a row by.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError>;

    /// The rows that a cursor passed by, after `after`.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError>;

    /// The first `limit` entries of the quarantine with a number over `after`.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError>;

    /// One entry of the quarantine.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError>;

    /// Deletes an entry of the quarantine; whether there was one.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError>;

    /// What the metrics need to know.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn counts(&self) -> Result<Counts, LogError>;

    /// Does what the database needs doing from time to time (checkpoints, partitions, retention), without holding up
    /// `append` for longer than a few milliseconds. To be called every [`Log::maintenance_interval`], with the database's own
    /// time ([`Log::now`]).
    ///
    /// Deleted is what both happened and was received before the retention's bound, that every cursor has read, unless
    /// [`Log::retention_held`] says why not; of the quarantine, what was received before its own.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; the next call goes on.
    async fn maintain(&self, now: Millis) -> Result<(), LogError>;

    /// What keeps [`Log::maintain`] from deleting what is beyond the retention; `None` if nothing does, or if there is none.
    /// `now` is [`Log::now`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn retention_held(&self, now: Millis) -> Result<Option<RetentionHeld>, LogError>;

    /// How often [`Log::maintain`] wants to be called.
    fn maintenance_interval(&self) -> Duration;

    /// Changes whenever another process may have appended something, for each of the receivers, while [`Log::listen`] runs.
    /// A help, not a promise: who waits for it looks now and then all the same. What this process appends, it knows by itself.
    fn appended_elsewhere(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }

    /// Hears of what other processes append, if the back end can, for as long as it is polled.
    async fn listen(&self) {
        std::future::pending::<()>().await;
    }

    /// What about the database itself breaks the promise that what was committed survives a power cut: a sentence each,
    /// which says what to change.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn weaknesses(&self) -> Result<Vec<String>, LogError>;

    /// The file system of an embedded database.
    fn disk(&self) -> Option<Disk>;

    /// Closes all connections.
    async fn close(&self);
}

/// Asked for every second: exact up to 10,000.
const COUNT_QUARANTINED: &str = "SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT 10000) AS q";

/// What an `INSERT` of a batch's events did.
#[derive(Default)]
struct Inserted {
    /// Those that had been there before.
    duplicates: HashSet<EventId>,
    /// As in [`Committed`].
    first: Option<Seq>,
}

/// The events of a batch.
fn events(batch: &[Append]) -> Vec<(&Append, &Event)> {
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
fn all_kept(meant: usize, written: u64) -> Result<(), sqlx::Error> {
    if usize::try_from(written) == Ok(meant) {
        return Ok(());
    }
    Err(sqlx::Error::Protocol(format!("the database kept {written} of {meant} rows, and did not say why")))
}

/// What became of each of a batch, of whose events these were no news.
fn outcomes(batch: &[Append], duplicates: &HashSet<EventId>) -> Vec<Appended> {
    let outcome = |append: &Append| match append.verified.content() {
        Content::Event(event) if duplicates.contains(&event.event_id) => Appended::Duplicate,
        Content::Event(_) => Appended::Stored,
        Content::Unreadable(_) => Appended::Quarantined,
        Content::Handshake(_) => Appended::Noted,
    };
    batch.iter().map(outcome).collect()
}

/// How to open a log. Its `Debug` output leaves the URL out, which may hold a password.
#[derive(Clone, Default)]
pub struct Options {
    /// `sqlite://…` or `postgres://…`.
    pub url: String,
    /// How long events are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// How long entries of the quarantine are kept; `None`: for ever.
    pub quarantine_retention: Option<Duration>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("retention", &self.retention)
            .field("quarantine_retention", &self.quarantine_retention)
            .finish_non_exhaustive()
    }
}

/// Opens the log that `options` describe. Connects to nothing yet, so it succeeds while the database is away.
///
/// # Errors
/// [`LogError::Url`] if the URL is not one of a database that we know.
pub fn open(options: &Options) -> Result<Arc<dyn Log>, LogError> {
    if options.url.starts_with("sqlite:") {
        Ok(Arc::new(sqlite::SqliteLog::new(options)?))
    } else if options.url.starts_with("postgres:") || options.url.starts_with("postgresql:") {
        Ok(Arc::new(postgres::PostgresLog::new(options)?))
    } else {
        Err(LogError::Url("must begin with sqlite: or postgres:".to_owned()))
    }
}

/// What is wrong with the URL of one or more PostgreSQL servers, in words that follow it; no part of a password is in them.
#[must_use]
pub fn postgres_url_problem(url: &str) -> Option<String> {
    postgres::url::ServerUrl::parse(url).err()
}

/// The files of an embedded database that its service may be unable to write, and what to do.
#[must_use]
pub fn files_of_another(url: &str) -> Option<String> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path).split('?').next()?;
    sqlite::files::of_another(std::path::Path::new(path))
}

/// Applies or checks migrations; the part that both back ends share. `explain` says what an error of the driver means.
async fn run_migrations<C>(
    migrator: &sqlx::migrate::Migrator,
    connection: &mut C,
    apply: bool,
    database: String,
    explain: impl Fn(sqlx::Error) -> LogError,
) -> Result<Schema, LogError>
where
    C: sqlx::migrate::Migrate,
{
    use sqlx::migrate::MigrateError;
    let table = "_sqlx_migrations";
    let ours = || migrator.iter().filter(|migration| !migration.migration_type.is_down_migration());
    let newest = ours().map(|migration| migration.version).max().unwrap_or(0);
    let before = match connection.list_applied_migrations(table).await {
        Ok(applied) => applied,
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) if is_missing_table(&error) => {
            Vec::new()
        }
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => return Err(explain(error)),
        Err(error) => return Err(LogError::unavailable(error)),
    };
    if let Some(unknown) = before.iter().find(|applied| ours().all(|known| known.version != applied.version)) {
        return Err(LogError::Schema(format!(
            "the database's schema has version {}, made by a newer Convoke; this one knows versions up to {newest}",
            unknown.version
        )));
    }
    let changed = before
        .iter()
        .find(|applied| ours().any(|known| known.version == applied.version && known.checksum != applied.checksum));
    if let Some(changed) = changed {
        return Err(LogError::Schema(format!("migration {} of the database is not Convoke's", changed.version)));
    }
    let pending = ours().count() - before.len();
    if pending > 0 && !apply {
        let tables = if before.is_empty() { Unmigrated::Empty } else { Unmigrated::Pending(pending) };
        return Err(LogError::Unmigrated { database, tables });
    }
    if pending > 0 {
        migrator.run_direct(None, connection, false).await.map_err(|error| match error {
            MigrateError::VersionMismatch(_) | MigrateError::VersionMissing(_) | MigrateError::Dirty(_) => {
                LogError::Schema(format!("the database's schema is not Convoke's: {error}"))
            }
            // A table of that name is there already, and so on: somebody else's database.
            MigrateError::ExecuteMigration(ref cause, _) if is_schema_conflict(cause) => {
                LogError::Schema(format!("the database cannot take Convoke's schema: {error}"))
            }
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => explain(cause),
            error => LogError::unavailable(error),
        })?;
    }
    Ok(Schema { version: newest, applied: pending })
}

/// PostgreSQL's class 42 (syntax error or access rule violation), SQLite's plain SQLITE_ERROR.
fn is_schema_conflict(error: &sqlx::Error) -> bool {
    let conflicts = |code: &str| code == "1" || code.starts_with("42") && code != postgres::INSUFFICIENT_PRIVILEGE;
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| conflicts(&code))
}

/// PostgreSQL's undefined_table, SQLite's plain SQLITE_ERROR.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42P01" || code == "1")
}

/// Of a database in which somebody else's tables are in the way.
fn somebody_elses(database: &str, table: &str) -> LogError {
    LogError::Schema(format!(
        "{database} has a table `{table}` that is not Convoke's: give Convoke a database of its own, and name it in database.url"
    ))
}
