//! Cursors: named readers of the log, which may lag, crash and be rewound without affecting ingest.
//!
//! A cursor has a `tick`, which does one bounded piece of work; the loop ([`run()`]) only waits and calls it. Replicas share the
//! work by a [`lease`] on the cursor's row; a process that needs the lease for a while has it handed over ([`Handover`]).

mod handover;
pub mod lease;
mod run;

use std::future::Future;
use std::time::Duration;

pub use handover::{Handover, HandoverError};
pub use run::run;

/// The result of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing: the log has been read to its end.
    Idle,
    /// A piece of work, up to where the log ended a moment ago.
    Worked,
    /// A piece of work, and there is more to do.
    More,
    /// Nothing: another process has the lease.
    Standby,
    /// Nothing: the lease alternates between processes that take turns.
    Waiting,
}

/// Why a tick failed. It is retried forever, with growing back-off.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Retry {
    /// The reason, for the log.
    pub reason: String,
    /// Whether an immediate retry is likely to succeed.
    pub soon: bool,
}

/// Default of [`Cursor::gather`].
const GATHER_TIME: Duration = Duration::from_millis(3);

/// A reader of the log.
pub trait Cursor: Send {
    /// Its name in the database.
    fn name(&self) -> &'static str;

    /// Does one bounded piece of work.
    fn tick(&mut self) -> impl Future<Output = Result<Progress, Retry>> + Send;

    /// Releases the lease.
    fn release(&mut self) -> impl Future<Output = ()> + Send;

    /// How long to wait after a tick that found less than a full page: under load the next tick then finds more rows, and costs
    /// less per event.
    fn gather(&self) -> Duration {
        GATHER_TIME
    }

    /// How often to check for rows that other processes append; `None`: the cursor is woken at once.
    fn looks_every(&self) -> Option<Duration> {
        None
    }
}
