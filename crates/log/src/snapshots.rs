//! What the analyst tables contain about runs and stays: our side of the comparison with the platform's history.

use async_trait::async_trait;

use super::{LogError, Notes, Suppression};
use convoke_core::time::Millis;

/// The data of a run from the events of one subscriber.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct RunSnapshot {
    /// The subscriber, who may no longer be configured.
    pub subscriber_id: String,
    /// The run (`meetingUUID`).
    pub meeting_uuid: String,
    /// The meeting's number, if an event contained it.
    pub meeting_id: Option<String>,
    /// The occurrence of a recurring meeting, if an event contained it.
    pub meeting_cycle_sub_id: Option<String>,
    /// When it first started.
    pub started_at: Option<Millis>,
    /// When it last ended; `None` if it has continued since.
    pub ended_at: Option<Millis>,
    /// The last activity, if the run may still be live: it was started and has not ended since.
    pub live_at: Option<Millis>,
    /// The number of its finished recordings.
    #[sqlx(try_from = "i64")]
    pub recordings: u64,
}

/// The data of a stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct StaySnapshot {
    /// `participantID`, as pushed.
    pub participant_id: Option<String>,
    /// `userUUID`, as pushed.
    pub user_uuid: Option<String>,
    /// `account`, as pushed.
    pub account: Option<String>,
    /// `displayName`, as pushed.
    pub display_name: Option<String>,
    /// `callNumber`, as pushed.
    pub call_number: Option<String>,
    /// `userAgent`, as pushed.
    pub user_agent: Option<String>,
    /// `role`, as pushed.
    pub role: Option<String>,
    /// When it began.
    pub joined_at: Option<Millis>,
    /// When it ended, whatever ended it.
    pub left_at: Option<Millis>,
    /// Whether a leave event ended it, and not only the end of the run.
    #[sqlx(rename = "closed_by_left")]
    pub left: bool,
}

/// Reads the analyst tables, which are as current as the cursor `meetings`.
#[async_trait]
pub trait Snapshots: Notes + Suppression {
    /// The runs in the tables with these UUIDs, from the events of any subscriber: UUIDs are unique across enterprises.
    /// The run with the latest activity comes last.
    async fn known_runs(&self, uuids: &[String]) -> Result<Vec<RunSnapshot>, LogError>;

    /// The stays of a run, from the events of any subscriber, in the order of joining. Stays without a join time come
    /// first. Of stays that began at the same time, those with a leave event come first.
    async fn known_stays(&self, meeting_uuid: &str) -> Result<Vec<StaySnapshot>, LogError>;
}
