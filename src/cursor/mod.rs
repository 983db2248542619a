//! Cursors: named readers of the log, which may lag, crash and be rewound without touching ingest.
//!
//! A cursor is a `tick`, one bounded piece of work, and a loop ([`run()`]), which only waits and calls it. Replicas share the
//! work by a [`lease`] on the cursor's row; who wants it for a while has it handed over ([`Handover`]).

mod handover;
pub mod lease;
mod run;

use std::future::Future;
use std::time::Duration;

pub use handover::{Handover, HandoverError};
pub use run::run;

/// What a tick has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing: the log has been read to its end.
    Idle,
    /// A piece of work, to where the log ended a moment ago.
    Worked,
    /// A piece of work, and there is more.
    More,
    /// Nothing: another process has the lease.
    Standby,
    /// Nothing: the lease goes to and fro between processes that take turns.
    Waiting,
}

/// Why a tick failed. It is tried again, for ever, with growing pauses.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Retry {
    /// For the log.
    pub reason: String,
    /// Whether the next try is likely to succeed at once.
    pub soon: bool,
}

/// How long a cursor gathers, unless it says otherwise.
const GATHER_TIME: Duration = Duration::from_millis(3);

/// A reader of the log.
pub trait Cursor: Send {
    /// Its name in the database.
    fn name(&self) -> &'static str;

    /// Does one bounded piece of work.
    fn tick(&mut self) -> impl Future<Output = Result<Progress, Retry>> + Send;

    /// Gives up the lease.
    fn release(&mut self) -> impl Future<Output = ()> + Send;

    /// After a tick that found less than a full page, the next one waits so long: under load it then finds more, and costs
    /// less for each event.
    fn gather(&self) -> Duration {
        GATHER_TIME
    }

    /// How often it looks for what other processes append; `None`: it is woken at once.
    fn looks_every(&self) -> Option<Duration> {
        None
    }
}
