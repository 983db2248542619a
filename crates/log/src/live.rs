//! The meetings whose own push is attended, and who is how in them.

use std::time::Duration;

use async_trait::async_trait;

use super::{LogError, LogReader, RunKey, Snapshots};
use convoke_core::time::Millis;

convoke_core::words! {
    /// How it stands with a meeting whose own push is wanted: the column `state` of `live_meetings`.
    pub enum LiveState as "LiveState" {
        /// It has not begun, or there is no place for it, or no replica has come to it yet.
        Waiting = "waiting",
        /// A replica attends it, or tries to.
        Attending = "attending",
        /// The platform does not tell our account the host's password.
        NoPassword = "no_password",
        /// The platform refused us.
        Refused = "refused",
        /// Its host is not among those of the settings.
        Unwanted = "unwanted",
    }
}

convoke_core::words! {
    /// Where somebody is: the column `place` of `live_presence`.
    pub enum Place as "Place" {
        /// In the meeting.
        In = "in",
        /// Being called.
        Called = "called",
        /// In the waiting room.
        Waiting = "waiting",
    }
}

/// A meeting that this process attends, while its lease lasts.
#[derive(Clone, sqlx::FromRow)]
pub struct LiveMeeting {
    /// Its number.
    pub meeting_id: String,
    /// The subscriber of its events; `None`: it is not known to be running.
    pub subscriber_id: Option<String>,
    /// The run.
    pub meeting_uuid: Option<String>,
    /// The host's password, if the command gave it.
    pub password: Option<String>,
    /// Whether a command asked for it, and not the settings.
    pub asked: bool,
    /// When its newest message came, to whichever replica.
    pub heard_at: Option<Millis>,
    /// Whether it goes on, by all that the tables know.
    pub goes_on: bool,
}

/// Without the password.
impl std::fmt::Debug for LiveMeeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveMeeting({})", self.meeting_id)
    }
}

impl LiveMeeting {
    /// The run, if it is known.
    #[must_use]
    pub fn run(&self) -> Option<RunKey> {
        Some(RunKey {
            subscriber_id: self.subscriber_id.as_deref()?.into(),
            meeting_uuid: self.meeting_uuid.as_deref()?.into(),
        })
    }
}

/// Somebody in a running meeting, now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema, sqlx::FromRow)]
pub struct PresentNow {
    /// The participant.
    pub participant_id: String,
    /// Where they are.
    #[sqlx(try_from = "String")]
    pub place: Place,
    /// The name that is shown.
    pub display_name: Option<String>,
    /// The user.
    pub user_uuid: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The number.
    pub call_number: Option<String>,
    /// Whether they are the host.
    pub host: bool,
    /// Whether their microphone is off.
    pub muted: bool,
    /// Whether they raise a hand.
    pub hand_raised: bool,
    /// Whether they share.
    pub sharing: bool,
    /// Whether they are among the loudest.
    pub speaking: bool,
    /// Since when.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Millis>,
}

/// How it stands with a meeting, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct LiveStanding {
    /// Its number.
    pub meeting_id: String,
    /// How it stands.
    #[sqlx(try_from = "String")]
    pub state: LiveState,
    /// Why.
    pub reason: Option<String>,
}

/// What users see of the meetings that are attended.
#[async_trait]
pub trait LiveReading: LogReader {
    /// How it stands with a run, if it is wanted, and who is in it now: at most 500, those who wait first. The query times out after
    /// `within`.
    async fn live_now(
        &self,
        run: &RunKey,
        within: Duration,
    ) -> Result<(Option<LiveStanding>, Vec<PresentNow>), LogError>;
}

/// The meetings that are attended.
#[async_trait]
pub trait LiveMeetings: Snapshots {
    /// Adds the meetings that go on and have a number: those with one of these numbers, or all (`None`). What is there
    /// already stays as it is, unless it is of another run.
    async fn want_live(&self, numbers: Option<&[String]>) -> Result<u64, LogError>;

    /// Adds a meeting by its number, or tries it again. The password stays until the meeting is over.
    async fn attach_live(&self, meeting_id: &str, password: Option<&str>) -> Result<(), LogError>;

    /// Takes or renews the leases of `owner`, until `ttl` from now, among the first `places` meetings that are to be attended,
    /// and returns all that it has.
    async fn lease_live(&self, owner: &str, ttl: Duration, places: u32) -> Result<Vec<LiveMeeting>, LogError>;

    /// Notes how it stands with a meeting of `owner`'s. Returns whether that is new.
    async fn settle_live(
        &self,
        meeting_id: &str,
        owner: &str,
        state: LiveState,
        reason: Option<&str>,
    ) -> Result<bool, LogError>;

    /// How it stands with every meeting that is wanted, by number.
    async fn live_standings(&self) -> Result<Vec<LiveStanding>, LogError>;

    /// Gives back a lease.
    async fn release_live(&self, meeting_id: &str, owner: &str) -> Result<(), LogError>;

    /// Deletes the meetings that are over, with who was in them, and those that were wanted a day ago and did not begin; but none
    /// of another owner's.
    async fn end_live(&self, owner: &str) -> Result<u64, LogError>;

    /// Writes who is in a meeting, and notes when it was heard of. `gone` are participants who are not; `None`: all others.
    async fn keep_present(
        &self,
        run: &RunKey,
        heard_at: Millis,
        present: &[PresentNow],
        gone: Option<&[String]>,
    ) -> Result<(), LogError>;

    /// Deletes at most some of the rows of the log that a meeting told longer than `keep` ago and that every cursor has read,
    /// unless retention is held. Returns how many.
    async fn expire_live(&self, keep: Duration) -> Result<u64, LogError>;
}
