//! The rows as they are told. What is personal comes here through [`super::mask`] alone.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::ask::Time;
use convoke_log::{ClosedBy, Status};

/// `eventInfo` as the platform sent it, where it is JSON that every parser takes; else its text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Info {
    Json(Box<RawValue>),
    Text(String),
}

/// An event of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// Its place in the log.
    pub seq: i64,
    /// Its id, made of its content and led by its time.
    #[schema(format = Uuid)]
    pub event_id: String,
    /// The push configuration (appID) that brought it.
    pub subscriber_id: String,
    /// Its type, as sent.
    #[schema(example = "meeting.join")]
    pub event: String,
    /// When it happened.
    pub occurred_at: Time,
    /// When it arrived first.
    pub received_at: Time,
    /// The meeting's number, which later meetings may have again.
    pub meeting_id: Option<String>,
    /// The run of the meeting.
    pub meeting_uuid: Option<String>,
    /// The occurrence of a recurring meeting.
    pub meeting_cycle_sub_id: Option<String>,
    /// The user. Null if masked.
    pub user_uuid: Option<String>,
    /// The kind of client; devices are called after their owners. Null if masked.
    pub user_agent: Option<String>,
    /// The login name. Its first character if masked.
    pub account: Option<String>,
    /// The participant in the meeting. Null if masked.
    pub participant_id: Option<String>,
    /// The name shown in the meeting. Its first character if masked.
    pub display_name: Option<String>,
    /// The role in the meeting.
    pub role: Option<String>,
    /// The number, for SIP and telephone. Its last two digits if masked.
    pub call_number: Option<String>,
    /// When the attendee joined.
    pub join_time: Option<Time>,
    /// When the attendee left.
    pub left_time: Option<Time>,
    /// `push`, `backfill` or `platform`.
    pub source: String,
    /// How often it was delivered.
    pub deliveries: i64,
    /// When it was delivered last.
    pub last_delivered_at: Time,
    /// `X-Request-ID` of the first delivery.
    pub request_id: Option<String>,
    /// `eventInfo`, verbatim: as JSON, or as text if it is none that every parser takes. Null if masked or forgotten.
    #[schema(value_type = serde_json::Value)]
    pub event_info: Option<Info>,
    /// When the person in it was forgotten.
    pub forgotten_at: Option<Time>,
    /// Whether personal data is masked.
    pub masked: bool,
}

/// A run of a meeting.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Meeting {
    /// The push configuration (appID) that told of it.
    pub subscriber_id: String,
    /// The run, as the platform names it.
    pub meeting_uuid: String,
    /// The meeting's number, which later meetings may have again.
    pub meeting_id: Option<String>,
    /// The occurrence of a recurring meeting.
    pub meeting_cycle_sub_id: Option<String>,
    /// What is known of its state.
    pub status: Standing,
    /// When it was scheduled.
    pub created_at: Option<Time>,
    /// When it was edited last.
    pub modified_at: Option<Time>,
    /// How often it was edited.
    pub modifications: i64,
    /// When it was cancelled.
    pub cancelled_at: Option<Time>,
    /// When it started first.
    pub started_at: Option<Time>,
    /// When it ended last; null while it is live.
    pub ended_at: Option<Time>,
    /// When it was closed: nobody can enter it again.
    pub concluded_at: Option<Time>,
    /// How many stays there were.
    pub stays: i64,
    /// How many distinct people came.
    pub participants: i64,
    /// The most distinct people at one moment.
    pub peak_participants: i64,
    /// How many recordings were finished.
    pub recordings: i64,
    /// When the first of its events happened.
    pub first_event_at: Time,
    /// When the last of its events happened.
    pub last_event_at: Time,
    /// What it is about, if enriched. Null if masked: unless told otherwise it is named after its host.
    pub subject: Option<String>,
    /// For when it was planned, if enriched.
    pub scheduled_start_at: Option<Time>,
    /// Until when it was planned, if enriched.
    pub scheduled_end_at: Option<Time>,
    /// Who holds it, if enriched. The first character if masked.
    pub host: Option<String>,
    /// The enterprise, if enriched.
    pub corp_id: Option<String>,
    /// Whether personal data is masked.
    pub masked: bool,
}

/// Somebody in a run of a meeting on one device, from joining to leaving.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stay {
    /// Its id, led by the time of joining; the same after every rebuild. If masked, another one, led by the same, which is
    /// the same until Convoke is started again.
    #[schema(format = Uuid)]
    pub stay_id: String,
    /// The push configuration (appID) that told of it.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The participant in the meeting. Null if masked.
    pub participant_id: Option<String>,
    /// Who that is: the user UUID, else the account, else the call number, else the participant. If masked, a pseudonym that
    /// is the same for one person until Convoke is started again.
    pub person: Option<String>,
    /// The user. Null if masked.
    pub user_uuid: Option<String>,
    /// The login name. Its first character if masked.
    pub account: Option<String>,
    /// The name shown in the meeting. Its first character if masked.
    pub display_name: Option<String>,
    /// The number, for SIP and telephone. Its last two digits if masked.
    pub call_number: Option<String>,
    /// The kind of client; devices are called after their owners. Null if masked.
    pub user_agent: Option<String>,
    /// The role in the meeting.
    pub role: Option<String>,
    /// When it began.
    pub joined_at: Option<Time>,
    /// When it ended; null while it is open.
    pub left_at: Option<Time>,
    /// How long it was, in seconds.
    pub duration_s: Option<f64>,
    /// How it ended.
    pub closed_by: Closed,
    /// Whether personal data is masked.
    pub masked: bool,
}

/// A finished recording.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Recording {
    /// The event that told of it.
    #[schema(format = Uuid)]
    pub event_id: String,
    /// The push configuration (appID) that told of it.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: Option<String>,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// When it was finished; it may not be playable yet.
    pub finished_at: Time,
    /// Since when the run's recordings can be played, if fetched.
    pub ready_at: Option<Time>,
    /// How long they are together, in seconds, if fetched.
    pub length_s: Option<i64>,
    /// How large they are together, in megabytes, if fetched.
    pub size_mb: Option<f64>,
    /// Of how many files they are, if fetched.
    pub files: Option<i64>,
    /// Where to look at them, if fetched; no token in it. Null if masked.
    pub view_url: Option<String>,
    /// Whether personal data is masked.
    pub masked: bool,
}

/// A signed body of which no event could be made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quarantined {
    /// Its number.
    pub id: i64,
    /// The subscriber whose key signed it.
    pub subscriber_id: String,
    /// When it arrived first.
    pub received_at: Time,
    /// How often it was delivered.
    pub deliveries: i64,
    /// Why no event could be made of it.
    pub reason: String,
    /// How long the body is.
    pub bytes: i64,
    /// Whether personal data is masked.
    pub masked: bool,
}

super::ask::words! {
    /// What is known of a meeting's state.
    Standing: "scheduled" => Scheduled, "cancelled" => Cancelled, "live" => Live, "ended" => Ended, "concluded" => Concluded,
}

super::ask::words! {
    /// How a stay ended: somebody left, the run ended before that, or it goes on.
    Closed: "left" => Left, "meeting_end" => MeetingEnd, "open" => Open,
}

impl From<Status> for Standing {
    fn from(status: Status) -> Self {
        match status {
            Status::Scheduled => Self::Scheduled,
            Status::Cancelled => Self::Cancelled,
            Status::Live => Self::Live,
            Status::Ended => Self::Ended,
            Status::Concluded => Self::Concluded,
        }
    }
}

impl From<Standing> for Status {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Scheduled => Self::Scheduled,
            Standing::Cancelled => Self::Cancelled,
            Standing::Live => Self::Live,
            Standing::Ended => Self::Ended,
            Standing::Concluded => Self::Concluded,
        }
    }
}

impl From<ClosedBy> for Closed {
    fn from(closed_by: ClosedBy) -> Self {
        match closed_by {
            ClosedBy::Left => Self::Left,
            ClosedBy::MeetingEnd => Self::MeetingEnd,
            ClosedBy::Open => Self::Open,
        }
    }
}

impl From<Closed> for ClosedBy {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Left => Self::Left,
            Closed::MeetingEnd => Self::MeetingEnd,
            Closed::Open => Self::Open,
        }
    }
}
