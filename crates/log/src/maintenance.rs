//! Maintenance of a database, and information about it.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::{LogError, LogReader, RetentionHeld};
use crate::disk::Disk;
use convoke_core::time::Millis;
use convoke_core::zone::TimeZone;

/// Counts in the database, for metrics.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Quarantine entries, counted up to 10,000.
    pub quarantined: i64,
    /// Number of skipped rows, by cursor.
    pub set_aside: HashMap<String, i64>,
    /// Time of the newest handshake, by subscriber.
    pub handshakes: HashMap<String, Millis>,
}

/// The state of a database's schema after [`Maintenance::migrate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The newest applied migration.
    pub version: i64,
    /// Number of migrations applied by this call.
    pub applied: usize,
}

/// How the table `days` was found by [`Maintenance::keep_days`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaysKept {
    /// As it should be.
    AsBefore,
    /// Otherwise; it was written anew.
    Written,
    /// With the days of this other time zone, and left so.
    OfAnother(String),
}

/// Queried every second, so it counts only up to 10,000.
pub(crate) const COUNT_QUARANTINED: &str = "SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT 10000) AS q";

/// Keeps a database in working order, and informs the operator.
#[async_trait]
pub trait Maintenance: LogReader {
    /// A description of the database and its location, without a password.
    fn describe(&self) -> String;

    /// Migrates the schema if `apply`, otherwise only checks that it is up to date. Safe in several processes at once.
    ///
    /// # Errors
    /// [`LogError::Schema`] if the schema was made by a newer version or by something else; [`LogError::Unavailable`] or
    /// [`LogError::Unusable`] if the database cannot be reached or used; [`LogError::Unmigrated`] if migrations are pending and
    /// `apply` is false.
    async fn migrate(&self, apply: bool) -> Result<Schema, LogError>;

    /// Does regular maintenance (checkpoints, partitions, retention) without delaying `append` by more than a few milliseconds.
    /// Call it every [`Maintenance::maintenance_interval`], with the database's own time ([`LogReader::now`]).
    ///
    /// It deletes rows that both happened and were received before the retention limit and that every cursor has read, unless
    /// [`Maintenance::retention_held`] gives a reason not to; of the quarantine, entries received before its own limit.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; the next call continues.
    async fn maintain(&self, now: Millis) -> Result<(), LogError>;

    /// Makes the days of the table `days`, which the views count by, those of `zone`: from 2015 until two years after the present
    /// one. Days of another zone are replaced only if `replace`. One transaction, if there is anything to write.
    async fn keep_days(&self, zone: &TimeZone, now: Millis, replace: bool) -> Result<DaysKept, LogError>;

    /// The time zone whose days the table `days` has; `None` if it has none.
    async fn days_zone(&self) -> Result<Option<String>, LogError>;

    /// What keeps [`Maintenance::maintain`] from deleting rows beyond the retention; `None` if nothing does, or without
    /// a retention. `now` is [`LogReader::now`].
    async fn retention_held(&self, now: Millis) -> Result<Option<RetentionHeld>, LogError>;

    /// How often to call [`Maintenance::maintain`].
    fn maintenance_interval(&self) -> Duration;

    /// Receives notifications of other processes' appends, if the back end supports it, for as long as it is polled.
    async fn listen(&self) {
        std::future::pending::<()>().await;
    }

    /// Settings of the database that break the guarantee that a commit survives a power failure: one sentence each,
    /// which says what to change.
    async fn weaknesses(&self) -> Result<Vec<String>, LogError>;

    /// The volume of an embedded database.
    fn disk(&self) -> Option<Disk>;

    /// The counts for the metrics.
    async fn counts(&self) -> Result<Counts, LogError>;

    /// Closes all connections.
    async fn close(&self);
}
