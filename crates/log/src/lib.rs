//! The log: the `events` table, which is the record, and the small tables beside it.
//!
//! [`Log`] accepts events and moves cursors along them. Each kind of reader has a small trait of its own, and gets only that
//! trait: the holder of an `Arc<dyn Queries>` cannot write, and code without [`Erasures`] cannot erase. [`open`] returns the
//! whole, a [`Store`], which converts to any of the traits. The doc comments of the traits are the specification. `backend`
//! implements them in SQL that both databases accept, `sqlite` and `postgres` hold the parts that differ, and one test suite
//! checks every guarantee on both. One method is one transaction. No type of the database driver is visible outside this crate.
//!
//! Every method fails with [`LogError::Unavailable`] while the database does not respond; other errors
//! are listed at the method.
//!
//! The order of the log is the order in which commits became visible: a reader that has read up to `seq` N never
//! finds a smaller number later.

mod actions;
mod attributes;
mod backend;
pub mod disk;
mod erasure;
mod error;
mod handshakes;
mod live;
mod log;
mod maintenance;
mod migrations;
mod operations;
mod postgres;
mod projection;
mod query;
mod reading;
pub mod recent;
mod retention;
mod sessions;
mod snapshots;
mod sqlite;
mod statements;
mod stats;
mod test_data;
mod work_lists;

use std::sync::Arc;
use std::time::Duration;

use backend::Backend;
use postgres::PostgresLog;
use sqlite::SqliteLog;

pub use actions::ActionNotes;
pub use attributes::{Attributes, ParticipantAttributes};
pub use erasure::{
    Erased, Erasure, Erasures, FORGOTTEN, Handles, Host, InvitationRow, PersonRow, PersonSearch, PersonStay, StayKey,
    Suppression,
};
pub use error::{LogError, Unmigrated};
pub use handshakes::{Handshakes, HandshakesSeen};
pub use live::{LiveMeeting, LiveMeetings, LiveReading, LiveStanding, LiveState, Place, PresentNow};
pub use log::{Append, Appended, Committed, CursorState, Heartbeat, Lag, Leased, Log, LogReader, Moved};
pub use maintenance::{Counts, DaysKept, Maintenance, Schema};
pub use operations::{Filter, Notes, Operations, Quarantine, Quarantined, SetAside};
pub use projection::{
    CallOutcome, CallResultRow, Changes, ClosedBy, Handle, HandleKind, IdentityRow, KeptRow, KeptRows, Lease,
    MeetingRow, PersonBy, ProjectedEvent, Projection, Ready, RecordingRow, RunKey, Status, StayRow, Stored,
};
pub use reading::{
    EventFilter, ListedEvent, ListedMeeting, ListedQuarantined, ListedRecording, ListedStay, Listing,
    MAX_STAY_DISTANCE, MeetingFilter, MeetingKey, Order, Page, QuarantineFilter, Reading, RecordingFilter, Scope,
    StayFilter,
};
pub use retention::RetentionHeld;
pub use sessions::Sessions;
pub use snapshots::{LiveRun, QuarterCounts, RunSnapshot, Snapshots, StaySnapshot};
pub use stats::{Arrived, GoingOn, MAX_SILENCE, MeetingCounts, Statistics};
pub use test_data::{TestData, TestDataCounts};
pub use work_lists::{
    Details, DuePerson, EnrichmentOutcome, EnrichmentWorkItem, FinishedRecording, Invitation, KnownPerson,
    RecordingOutcome, RecordingWorkItem, WorkCounts, WorkLists,
};

/// Everything that users query: read-only.
pub trait Queries: Reading + Statistics + Quarantine + LiveReading {}

/// A whole back end, for the code that assembles the service.
pub trait Store:
    Projection + WorkLists + LiveMeetings + Handshakes + Queries + TestData + Sessions + ActionNotes + Maintenance
{
}

/// How to open a log. The `Debug` output omits the URL, which can contain a password.
#[derive(Clone, Default)]
pub struct Options {
    /// `sqlite://…` or `postgres://…`.
    pub url: String,
    /// How long events are kept; `None`: without limit.
    pub retention: Option<Duration>,
    /// How long quarantine entries are kept; `None`: without limit.
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

/// Opens the log described by `options`. Does not connect yet, so it succeeds while the database is down.
///
/// # Errors
/// [`LogError::Url`] if the URL is not one of a supported database.
pub fn open(options: &Options) -> Result<Arc<dyn Store>, LogError> {
    if options.url.starts_with("sqlite:") {
        Ok(Arc::new(Backend::Sqlite(Box::new(SqliteLog::new(options)?))))
    } else if options.url.starts_with("postgres:") || options.url.starts_with("postgresql:") {
        Ok(Arc::new(Backend::Postgres(PostgresLog::new(options)?)))
    } else {
        Err(LogError::Url("must begin with sqlite: or postgres:".to_owned()))
    }
}

/// What is wrong with the URL of one or more PostgreSQL servers, as the rest of a sentence. Contains no part of a password.
#[must_use]
pub fn postgres_url_problem(url: &str) -> Option<String> {
    postgres::url::ServerUrl::parse(url).err()
}

/// The files of an embedded database that the service may be unable to write, and what to do about it.
#[must_use]
pub fn files_of_another(url: &str) -> Option<String> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path).split('?').next()?;
    sqlite::files::of_another(std::path::Path::new(path))
}
