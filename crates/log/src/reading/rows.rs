//! What is listed: a type for each table, and its columns.

use sqlx::FromRow;
use uuid::Uuid;

use super::MeetingKey;
use crate::{ClosedBy, Status};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// A row of `events`, but for the trace of its first delivery.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct ListedEvent {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: String,
    /// Its type, as sent.
    pub event: String,
    /// When it happened.
    pub occurred_at: Millis,
    /// When it arrived first.
    pub received_at: Millis,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The run.
    pub meeting_uuid: Option<String>,
    /// The occurrence of a series.
    pub meeting_cycle_sub_id: Option<String>,
    /// The user.
    pub user_uuid: Option<String>,
    /// The kind of client.
    pub user_agent: Option<String>,
    /// The login name.
    pub account: Option<String>,
    /// The participant in the meeting.
    pub participant_id: Option<String>,
    /// The name shown in the meeting.
    pub display_name: Option<String>,
    /// The role in the meeting.
    pub role: Option<String>,
    /// The number, for SIP and telephone.
    pub call_number: Option<String>,
    /// When the attendee joined.
    pub join_time: Option<Millis>,
    /// When the attendee left.
    pub left_time: Option<Millis>,
    /// `push`, `backfill` or `platform`.
    pub source: String,
    /// How often it was delivered.
    pub deliveries: i64,
    /// When last.
    pub last_delivered_at: Millis,
    /// Of the first delivery.
    pub request_id: Option<String>,
    /// `eventInfo`, verbatim; `None` once the person in it was forgotten.
    pub event_info: Option<String>,
    /// When that was.
    pub forgotten_at: Option<Millis>,
}

/// A row of `meetings`, with what was fetched from the platform.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct ListedMeeting {
    /// The subscriber.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The occurrence of a series.
    pub meeting_cycle_sub_id: Option<String>,
    /// What is known of its state.
    #[sqlx(try_from = "String")]
    pub status: Status,
    /// When it was scheduled first.
    pub created_at: Option<Millis>,
    /// When it was edited last.
    pub modified_at: Option<Millis>,
    /// How often it was edited.
    pub modifications: i64,
    /// When it was cancelled last.
    pub cancelled_at: Option<Millis>,
    /// When it started first.
    pub started_at: Option<Millis>,
    /// When it ended last; `None` while it is live.
    pub ended_at: Option<Millis>,
    /// When it was closed.
    pub concluded_at: Option<Millis>,
    /// How many stays there were.
    pub stays: i64,
    /// How many people.
    pub participants: i64,
    /// The most people at one moment.
    pub peak_participants: i64,
    /// How many recordings were finished.
    pub recordings: i64,
    /// When its first event happened.
    pub first_event_at: Millis,
    /// When its last event happened.
    pub last_event_at: Millis,
    /// What it is about, if enriched.
    pub subject: Option<String>,
    /// For when it was planned, if enriched.
    pub scheduled_start_at: Option<Millis>,
    /// Until when it was planned, if enriched.
    pub scheduled_end_at: Option<Millis>,
    /// Who holds it, if enriched.
    pub host: Option<String>,
    /// The enterprise, if enriched.
    pub corp_id: Option<String>,
}

impl ListedMeeting {
    /// Its place in the list.
    #[must_use]
    pub fn key(&self) -> MeetingKey {
        MeetingKey {
            at: self.started_at.unwrap_or(self.first_event_at),
            meeting_uuid: self.meeting_uuid.clone(),
            subscriber_id: self.subscriber_id.clone(),
        }
    }
}

/// A row of `attendance`.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct ListedStay {
    /// Its id, led by the time at which it began.
    #[sqlx(try_from = "EventId")]
    pub stay_id: Uuid,
    /// The subscriber.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The participant in the meeting.
    pub participant_id: Option<String>,
    /// Who that is.
    pub person: Option<String>,
    /// The user.
    pub user_uuid: Option<String>,
    /// The login name.
    pub account: Option<String>,
    /// The name shown in the meeting.
    pub display_name: Option<String>,
    /// The number, for SIP and telephone.
    pub call_number: Option<String>,
    /// The kind of client.
    pub user_agent: Option<String>,
    /// The role in the meeting.
    pub role: Option<String>,
    /// When it began.
    pub joined_at: Option<Millis>,
    /// When it ended.
    pub left_at: Option<Millis>,
    /// How long it was, in seconds.
    pub duration_s: Option<f64>,
    /// How it ended.
    #[sqlx(try_from = "String")]
    pub closed_by: ClosedBy,
}

/// A row of `recordings`.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct ListedRecording {
    /// The event that told of it.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: Option<String>,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// When it was finished; it may not be playable yet.
    pub finished_at: Millis,
    /// Since when the run's recordings can be played, if fetched.
    pub ready_at: Option<Millis>,
    /// How long they are together, in seconds, if fetched.
    pub length_s: Option<i64>,
    /// How large they are together, in megabytes, if fetched.
    pub size_mb: Option<f64>,
    /// Of how many files they are, if fetched.
    pub files: Option<i64>,
    /// Where to look at them, if fetched; no token in it.
    pub view_url: Option<String>,
}

/// An entry of the quarantine, without the body itself.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ListedQuarantined {
    /// Its number.
    pub id: i64,
    /// The subscriber whose key signed it.
    pub subscriber_id: String,
    /// When it arrived first.
    pub received_at: Millis,
    /// How often it was delivered.
    pub deliveries: i64,
    /// Why no event could be made of it.
    pub reason: String,
    /// How long the body is.
    pub bytes: i64,
}

pub(crate) const EVENT: &str = "seq, event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, \
     meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number, join_time, \
     left_time, source, CAST(deliveries AS bigint) AS deliveries, last_delivered_at, request_id, event_info, forgotten_at";

pub(crate) const MEETING: &str = "subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, status, created_at, \
     modified_at, modifications, cancelled_at, started_at, ended_at, concluded_at, stays, participants, \
     peak_participants, recordings, first_event_at, last_event_at, subject, scheduled_start_at, scheduled_end_at, host, \
     corp_id";

pub(crate) const STAY: &str = "stay_id, subscriber_id, meeting_uuid, meeting_id, participant_id, person, user_uuid, \
     account, display_name, call_number, user_agent, role, joined_at, left_at, duration_s, closed_by";

pub(crate) const RECORDING: &str = "event_id, subscriber_id, meeting_uuid, meeting_id, finished_at, ready_at, length_s, \
     size_mb, files, view_url";

pub(crate) const QUARANTINED: &str =
    "id, subscriber_id, received_at, deliveries, reason, CAST(length(body) AS bigint) AS bytes";
