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

/// A run that goes on, by all that the tables know.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LiveRun {
    /// The subscriber, who may no longer be configured.
    pub subscriber_id: String,
    /// The run (`meetingUUID`).
    pub meeting_uuid: String,
    /// When its last event happened.
    pub last_event_at: Millis,
}

/// What began in a quarter of an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct QuarterCounts {
    /// Its number, counted from the epoch.
    pub quarter: i64,
    /// Runs that started in it.
    #[sqlx(try_from = "i64")]
    pub meetings: u64,
    /// Stays that began in it.
    #[sqlx(try_from = "i64")]
    pub attendances: u64,
    /// How long those runs lasted together, in seconds.
    #[sqlx(try_from = "i64")]
    pub seconds: u64,
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

    /// At most `limit` of the runs that are live and not over, those that were heard of last first.
    async fn live_runs(&self, limit: u32) -> Result<Vec<LiveRun>, LogError>;

    /// What began of a subscriber's in each quarter of an hour in `since..until`; those without anything are left out.
    async fn counts_by_quarter(
        &self,
        subscriber_id: &str,
        since: Millis,
        until: Millis,
    ) -> Result<Vec<QuarterCounts>, LogError>;

    /// When the newest event arrived that was pushed.
    async fn last_pushed_at(&self) -> Result<Option<Millis>, LogError>;

    /// The stays of a run, from the events of any subscriber, in the order of joining. Stays without a join time come
    /// first. Of stays that began at the same time, those with a leave event come first.
    async fn known_stays(&self, meeting_uuid: &str) -> Result<Vec<StaySnapshot>, LogError>;
}
