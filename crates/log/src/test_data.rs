//! The database side of `convoke forget --test-data`: finding and deleting the rows of test meetings.

use async_trait::async_trait;

use super::{Erasures, Lease, LogError, PersonRow, RunKey};
use convoke_core::id::Seq;

/// The amount of test data found or deleted.
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
    /// Entries of the work lists.
    pub work_items: i64,
    /// Quarantine entries.
    pub quarantined: i64,
    /// Messages in the stream.
    pub messages: i64,
}

/// Test data: everything of meetings whose UUID starts with [`convoke_core::event::TEST_MEETINGS`]. Each
/// deletion is one transaction.
#[async_trait]
pub trait TestData: Erasures {
    /// The log rows after `after`, up to `up_to`, in log order.
    async fn test_rows(&self, after: Seq, up_to: Seq) -> Result<Vec<PersonRow>, LogError>;

    /// The runs in any table besides the log.
    async fn test_runs(&self) -> Result<Vec<RunKey>, LogError>;

    /// The meeting numbers of these runs.
    async fn test_meetings(&self) -> Result<Vec<Option<String>>, LogError>;

    /// The number of their rows in the tables besides the log.
    async fn test_table_counts(&self) -> Result<TestDataCounts, LogError>;

    /// Deletes runs from the tables besides the log, if the owner still holds the lease and the cursor is still at
    /// `at`, where it stays. `None` if not.
    async fn delete_runs(
        &self,
        lease: Lease<'_>,
        at: Seq,
        erasure: i64,
        runs: &[RunKey],
    ) -> Result<Option<TestDataCounts>, LogError>;

    /// Deletes quarantine entries. Returns how many there were.
    async fn delete_quarantined(&self, erasure: i64, ids: &[i64]) -> Result<u64, LogError>;

    /// Deletes log rows and the records about them. Returns how many there were. Call it when nothing needs
    /// their positions any more.
    async fn delete_rows(&self, erasure: i64, rows: &[PersonRow]) -> Result<u64, LogError>;
}
