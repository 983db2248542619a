//! What `convoke forget --test-data` needs of a database: the rows of meetings that are test data, found and deleted.

use async_trait::async_trait;

use super::{Erasures, Lease, LogError, PersonRow, RunKey};
use convoke_core::id::Seq;

/// How much test data there is, or was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct TestDataCounts {
    /// Rows of `events`.
    pub events: i64,
    /// Rows of `meetings`.
    pub meetings: i64,
    /// Rows of `attendance`.
    pub stays: i64,
    /// Rows of `recordings`.
    pub recordings: i64,
    /// What the platform was, or was to be, asked for.
    pub work_items: i64,
    /// Entries of the quarantine.
    pub quarantined: i64,
    /// Messages of the stream.
    pub messages: i64,
}

/// Test data: all of the meetings whose UUID begins with [`convoke_core::event::TEST_MEETINGS`]. Each deletion is one transaction.
#[async_trait]
pub trait TestData: Erasures {
    /// The rows of the log with a place after `after`, up to `up_to`, in the order of the log.
    async fn test_rows(&self, after: Seq, up_to: Seq) -> Result<Vec<PersonRow>, LogError>;

    /// The runs that any table beside the log knows.
    async fn test_runs(&self) -> Result<Vec<RunKey>, LogError>;

    /// The numbers of the meetings of these runs.
    async fn test_meetings(&self) -> Result<Vec<Option<String>>, LogError>;

    /// What the tables beside the log hold of them.
    async fn test_table_counts(&self) -> Result<TestDataCounts, LogError>;

    /// Deletes runs from the tables beside the log, if the lease's owner still holds it and the cursor still stands at `at`, where it
    /// stays; `None`: it does not.
    async fn delete_runs(
        &self,
        lease: Lease<'_>,
        at: Seq,
        erasure: i64,
        runs: &[RunKey],
    ) -> Result<Option<TestDataCounts>, LogError>;

    /// Deletes entries of the quarantine; how many there were.
    async fn delete_quarantined(&self, erasure: i64, ids: &[i64]) -> Result<u64, LogError>;

    /// Deletes rows of the log, and what was noted of them; how many there were. To be called when nothing needs their place any more.
    async fn delete_rows(&self, erasure: i64, rows: &[PersonRow]) -> Result<u64, LogError>;
}
