//! What the log's analyst tables know of runs and stays: the side of a comparison with the platform's history that is ours.

use async_trait::async_trait;

use super::{LogError, Notes, Suppression};
use convoke_core::time::Millis;

/// What the tables know of a run from one subscriber's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct RunSnapshot {
    /// Whose events; not necessarily one who is configured still.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number, if an event told it.
    pub meeting_id: Option<String>,
    /// The occurrence of a recurring meeting, if an event told it.
    pub meeting_cycle_sub_id: Option<String>,
    /// The first start.
    pub started_at: Option<Millis>,
    /// The last end; `None` also while the run goes on after one.
    pub ended_at: Option<Millis>,
    /// When something happened in it last, if that may still be going on: the run was started and has not ended since.
    pub live_at: Option<Millis>,
    /// Its finished recordings.
    #[sqlx(try_from = "i64")]
    pub recordings: u64,
}

/// What the tables know of a stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct StaySnapshot {
    /// As pushed.
    pub participant_id: Option<String>,
    /// As pushed.
    pub user_uuid: Option<String>,
    /// As pushed.
    pub account: Option<String>,
    /// As pushed.
    pub display_name: Option<String>,
    /// As pushed.
    pub call_number: Option<String>,
    /// As pushed.
    pub user_agent: Option<String>,
    /// As pushed.
    pub role: Option<String>,
    /// When it began.
    pub joined_at: Option<Millis>,
    /// When it ended, by whatever closed it.
    pub left_at: Option<Millis>,
    /// Whether an event said that the person left, and not only that the run ended.
    #[sqlx(rename = "closed_by_left")]
    pub left: bool,
}

/// Reads the analyst tables, which are as current as the cursor `meetings`.
#[async_trait]
pub trait Snapshots: Notes + Suppression {
    /// Those of these runs that the tables know, from whichever subscriber's events: a UUID is never that of another
    /// enterprise's run. What was heard of last comes last.
    async fn known_runs(&self, uuids: &[String]) -> Result<Vec<RunSnapshot>, LogError>;

    /// The stays of a run, from whichever subscriber's events, in the order in which people joined; those without a time of
    /// joining first, and of stays that began at the same time those that somebody left.
    async fn known_stays(&self, meeting_uuid: &str) -> Result<Vec<StaySnapshot>, LogError>;
}
