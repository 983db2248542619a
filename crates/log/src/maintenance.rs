//! What a database needs from time to time, and what there is to know of it.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::{LogError, LogReader, RetentionHeld};
use crate::disk::Disk;
use convoke_core::time::Millis;

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

/// The state of a database's schema after [`Maintenance::migrate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The newest migration that is applied.
    pub version: i64,
    /// How many were applied just now.
    pub applied: usize,
}

/// Asked for every second: exact up to 10,000.
pub(crate) const COUNT_QUARANTINED: &str = "SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT 10000) AS q";

/// What keeps a database fit for its work, and who runs the service informed.
#[async_trait]
pub trait Maintenance: LogReader {
    /// What it is and where, for people: no password in it.
    fn describe(&self) -> String;

    /// Brings the schema up to date if `apply`, else only checks that it is. Safe when several processes do it at once.
    ///
    /// # Errors
    /// [`LogError::Schema`] if the schema was made by a newer version or by something else; [`LogError::Unavailable`] or
    /// [`LogError::Unusable`] if the database cannot be reached or used; [`LogError::Unmigrated`] if migrations are pending and
    /// `apply` is false.
    async fn migrate(&self, apply: bool) -> Result<Schema, LogError>;

    /// Does what the database needs doing from time to time (checkpoints, partitions, retention), without holding up
    /// `append` for longer than a few milliseconds. To be called every [`Maintenance::maintenance_interval`], with the database's own
    /// time ([`LogReader::now`]).
    ///
    /// Deleted is what both happened and was received before the retention's bound, that every cursor has read, unless
    /// [`Maintenance::retention_held`] says why not; of the quarantine, what was received before its own.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; the next call goes on.
    async fn maintain(&self, now: Millis) -> Result<(), LogError>;

    /// What keeps [`Maintenance::maintain`] from deleting what is beyond the retention; `None` if nothing does, or if there is none.
    /// `now` is [`LogReader::now`].
    async fn retention_held(&self, now: Millis) -> Result<Option<RetentionHeld>, LogError>;

    /// How often [`Maintenance::maintain`] wants to be called.
    fn maintenance_interval(&self) -> Duration;

    /// Hears of what other processes append, if the back end can, for as long as it is polled.
    async fn listen(&self) {
        std::future::pending::<()>().await;
    }

    /// What about the database itself breaks the promise that what was committed survives a power cut: a sentence each,
    /// which says what to change.
    async fn weaknesses(&self) -> Result<Vec<String>, LogError>;

    /// The file system of an embedded database.
    fn disk(&self) -> Option<Disk>;

    /// What the metrics need to know.
    async fn counts(&self) -> Result<Counts, LogError>;

    /// Closes all connections.
    async fn close(&self);
}
