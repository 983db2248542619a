//! The log: the `events` table, which is the record, and the few small tables beside it.
//!
//! [`Log`] is what accepts events and moves cursors along them; each reader has a small trait of its own beside it, and gets
//! that one alone: who is given an `Arc<dyn Queries>` cannot write, and who has no [`Erasures`] cannot erase. [`open`] gives the
//! whole, a [`Store`], which becomes any of them wherever one is expected. The traits' doc comments are the specification;
//! `backend` implements them in SQL that both databases take, `sqlite` and `postgres` hold what each does in its own way, and one
//! suite runs every promise on both. One method is one transaction. No type of the database driver leaves this crate.
//!
//! Every method fails with [`LogError::Unavailable`] while the database does not answer; what else may go wrong stands with it.
//!
//! The order of the log is the order in which commits became visible: whoever has read up to `seq` N never finds a
//! smaller number later.

mod actions;
mod attributes;
mod backend;
pub mod disk;
mod erasure;
mod error;
mod handshakes;
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
    Erased, Erasure, Erasures, FORGOTTEN, Handles, Host, PersonRow, PersonSearch, PersonStay, StayKey, Suppression,
};
pub use error::{LogError, Unmigrated};
pub use handshakes::{Handshakes, HandshakesSeen};
pub use log::{Append, Appended, Committed, CursorState, Heartbeat, Lag, Leased, Log, LogReader, Moved};
pub use maintenance::{Counts, Maintenance, Schema};
pub use operations::{Filter, Notes, Operations, Quarantine, Quarantined, SetAside};
pub use projection::{
    Changes, ClosedBy, Lease, MeetingRow, ProjectedEvent, Projection, Ready, RecordingRow, RunKey, Status, StayRow,
    Stored,
};
pub use reading::{
    EventFilter, ListedEvent, ListedMeeting, ListedQuarantined, ListedRecording, ListedStay, Listing,
    MAX_STAY_DISTANCE, MeetingFilter, MeetingKey, Order, Page, QuarantineFilter, Reading, RecordingFilter, Scope,
    StayFilter,
};
pub use retention::RetentionHeld;
pub use sessions::Sessions;
pub use snapshots::{RunSnapshot, Snapshots, StaySnapshot};
pub use stats::{Arrived, GoingOn, MAX_COUNTED_DURATION, MeetingCounts, Statistics};
pub use test_data::{TestData, TestDataCounts};
pub use work_lists::{
    Details, EnrichmentOutcome, EnrichmentWorkItem, FinishedRecording, RecordingOutcome, RecordingWorkItem, WorkCounts,
    WorkLists,
};

/// All that people ask: reads alone.
pub trait Queries: Reading + Statistics + Quarantine {}

/// A whole back end, for who puts the parts together.
pub trait Store:
    Projection + WorkLists + Snapshots + Handshakes + Queries + TestData + Sessions + ActionNotes + Maintenance
{
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
pub fn open(options: &Options) -> Result<Arc<dyn Store>, LogError> {
    if options.url.starts_with("sqlite:") {
        Ok(Arc::new(Backend::Sqlite(Box::new(SqliteLog::new(options)?))))
    } else if options.url.starts_with("postgres:") || options.url.starts_with("postgresql:") {
        Ok(Arc::new(Backend::Postgres(PostgresLog::new(options)?)))
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
