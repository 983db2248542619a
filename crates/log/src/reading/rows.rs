//! The rows of the lists: for each table a type, with which rows are read, shown and documented, and its columns.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::MeetingKey;
use crate::{ClosedBy, Status};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// An event of the log.
#[derive(Clone, Debug, PartialEq, FromRow, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct ListedEvent {
    /// Its place in the log.
    #[schema(value_type = i64)]
    pub seq: Seq,
    /// Its id, made of its content and led by its time.
    #[schema(value_type = Uuid)]
    pub event_id: EventId,
    /// The push configuration (appID) that brought it.
    pub subscriber_id: String,
    /// Its type, as sent.
    #[schema(example = "meeting.join")]
    pub event: String,
    /// When it happened.
    pub occurred_at: Millis,
    /// When it arrived first.
    pub received_at: Millis,
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
    pub join_time: Option<Millis>,
    /// When the attendee left.
    pub left_time: Option<Millis>,
    /// `push`, `backfill` or `platform`.
    pub source: String,
    /// How often it was delivered.
    pub deliveries: i64,
    /// When it was delivered last.
    pub last_delivered_at: Millis,
    /// `X-Request-ID` of the first delivery.
    pub request_id: Option<String>,
    /// `eventInfo`, verbatim: as JSON, or as text if it is none that every parser takes. Null if masked or forgotten.
    #[schema(value_type = serde_json::Value)]
    #[serde(serialize_with = "json_or_text")]
    pub event_info: Option<String>,
    /// When the person in it was forgotten.
    pub forgotten_at: Option<Millis>,
    /// Whether personal data is masked.
    #[sqlx(skip)]
    pub masked: bool,
}

/// A run of a meeting.
#[derive(Clone, Debug, PartialEq, FromRow, Serialize, ToSchema)]
#[schema(as = Meeting)]
pub struct ListedMeeting {
    /// The push configuration (appID) that told of it.
    pub subscriber_id: String,
    /// The run, as the platform names it.
    pub meeting_uuid: String,
    /// The meeting's number, which later meetings may have again.
    pub meeting_id: Option<String>,
    /// The occurrence of a recurring meeting.
    pub meeting_cycle_sub_id: Option<String>,
    /// What is known of its state.
    #[sqlx(try_from = "String")]
    pub status: Status,
    /// Whether nothing more is to come of this run, by all that is known: it was cancelled, has ended or was concluded, or another
    /// run of its number has started since.
    pub over: bool,
    /// When it was scheduled.
    pub created_at: Option<Millis>,
    /// When it was edited last.
    pub modified_at: Option<Millis>,
    /// How often it was edited.
    pub modifications: i64,
    /// When it was cancelled.
    pub cancelled_at: Option<Millis>,
    /// When it started first.
    pub started_at: Option<Millis>,
    /// When it ended last; null while it is live.
    pub ended_at: Option<Millis>,
    /// When it was closed: nobody can enter it again.
    pub concluded_at: Option<Millis>,
    /// How many stays there were.
    pub stays: i64,
    /// How many distinct people came.
    pub participants: i64,
    /// The most distinct people at one moment.
    pub peak_participants: i64,
    /// How many recordings were finished.
    pub recordings: i64,
    /// When the first of its events happened.
    pub first_event_at: Millis,
    /// When the last of its events happened.
    pub last_event_at: Millis,
    /// What it is about, if enriched. Null if masked: unless told otherwise it is named after its host.
    pub subject: Option<String>,
    /// For when it was planned, if enriched before it was over.
    pub scheduled_start_at: Option<Millis>,
    /// Until when it was planned, if enriched before it was over.
    pub scheduled_end_at: Option<Millis>,
    /// Who scheduled it, if enriched. The first character if masked.
    pub host: Option<String>,
    /// The user who scheduled it, if enriched. Null if masked.
    pub host_user_uuid: Option<String>,
    /// The enterprise, if enriched.
    pub corp_id: Option<String>,
    /// `FUTURE` (scheduled), `IMMEDIATELY` or `CYCLE` (of a series), as the platform says, if enriched.
    pub conference_type: Option<String>,
    /// Whether it is a webinar, if enriched.
    pub webinar: Option<bool>,
    /// The number of the cloud meeting room, or the personal number, that it is held in, if enriched. Null if masked.
    pub virtual_room: Option<String>,
    /// Whether personal data is masked.
    #[sqlx(skip)]
    pub masked: bool,
}

impl ListedMeeting {
    /// Its sort key in the list.
    #[must_use]
    pub fn key(&self) -> MeetingKey {
        MeetingKey {
            at: self.started_at.unwrap_or(self.first_event_at),
            meeting_uuid: self.meeting_uuid.clone(),
            subscriber_id: self.subscriber_id.clone(),
        }
    }
}

/// Somebody in a run of a meeting on one device, from joining to leaving.
#[derive(Clone, Debug, PartialEq, FromRow, Serialize, ToSchema)]
#[schema(as = Stay)]
pub struct ListedStay {
    /// Its id, led by the time of joining; the same after every rebuild. If masked, another one, led by the same, which is
    /// the same until Convoke is started again.
    #[sqlx(try_from = "EventId")]
    pub stay_id: Uuid,
    /// The push configuration (appID) that told of it.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The participant in the meeting. Null if masked.
    pub participant_id: Option<String>,
    /// Who that is: the user; without one the person whose account or number it shares, if that is one person; else the account,
    /// the number, the name (stays of one name that overlap are two people: the second is "name (2)") or the participant.
    /// If masked, a pseudonym that is the same for one person until Convoke is started again.
    pub person: Option<String>,
    /// By what that is known, the surest first: `user`, `account`, `number`, `name` or `participant`.
    pub person_by: Option<String>,
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
    /// The kind of device, where the platform's history told it.
    pub device_type: Option<String>,
    /// What was shown or heard, where the platform's history told it.
    pub media_type: Option<String>,
    /// The department, where the platform's history told it. Null if masked.
    pub department: Option<String>,
    /// Why they left, where the platform's dashboard told it: `left`, or `network`.
    pub leave_reason: Option<String>,
    /// When it began.
    pub joined_at: Option<Millis>,
    /// When it ended; null while it is open.
    pub left_at: Option<Millis>,
    /// How long it was, in seconds.
    pub duration_s: Option<f64>,
    /// How it ended.
    #[sqlx(try_from = "String")]
    pub closed_by: ClosedBy,
    /// Whether nobody told when it ended: it is open, or of somebody who came after the end of the run. In figures it ends with
    /// the last event of its run.
    pub estimated: bool,
    /// Whether personal data is masked.
    #[sqlx(skip)]
    pub masked: bool,
}

/// A finished recording.
#[derive(Clone, Debug, PartialEq, FromRow, Serialize, ToSchema)]
#[schema(as = Recording)]
pub struct ListedRecording {
    /// The event that told of it.
    #[schema(value_type = Uuid)]
    pub event_id: EventId,
    /// The push configuration (appID) that told of it.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: Option<String>,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// When it was finished; it may not be playable yet.
    pub finished_at: Millis,
    /// When the platform expected their processing to end, once they can be played; the time of `record.ready`. Null if not
    /// fetched, as all that follow.
    pub ready_at: Option<Millis>,
    /// How long they are together, in seconds, if fetched.
    pub length_s: Option<i64>,
    /// How large they are together, in megabytes, if fetched.
    pub size_mb: Option<f64>,
    /// Of how many files they are, if fetched.
    pub files: Option<i64>,
    /// Where to look at them, if fetched; no token in it. Null if masked.
    pub view_url: Option<String>,
    /// Who may watch: `link` (everybody who has it), `enterprise` (its users) or `participants`.
    pub viewers: Option<String>,
    /// Whether personal data is masked.
    #[sqlx(skip)]
    pub masked: bool,
}

/// A signed body of which no event could be made.
#[derive(Clone, Debug, PartialEq, FromRow, Serialize, ToSchema)]
#[schema(as = Quarantined)]
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
    /// Whether personal data is masked.
    #[sqlx(skip)]
    pub masked: bool,
}

/// Writes JSON if every parser accepts it, otherwise text: many parsers reject lone surrogates or deep nesting, and
/// with them the whole response.
fn json_or_text<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    let strict = |text: &String| serde_json::from_str::<serde_json::Value>(text).is_ok();
    match text.as_ref().filter(|text| strict(text)).map(|text| serde_json::from_str::<&RawValue>(text)) {
        Some(Ok(json)) => json.serialize(to),
        _ => text.serialize(to),
    }
}

pub(crate) const EVENT: &str = "seq, event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, \
     meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number, join_time, \
     left_time, source, CAST(deliveries AS bigint) AS deliveries, last_delivered_at, request_id, event_info, forgotten_at";

pub(crate) const MEETING: &str = "subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, status, over, created_at, \
     modified_at, modifications, cancelled_at, started_at, ended_at, concluded_at, stays, participants, \
     peak_participants, recordings, first_event_at, last_event_at, subject, scheduled_start_at, scheduled_end_at, host, \
     host_user_uuid, corp_id, conference_type, webinar, virtual_room";

pub(crate) const STAY: &str = "stay_id, subscriber_id, meeting_uuid, meeting_id, participant_id, person, person_by, user_uuid, \
     account, display_name, call_number, user_agent, role, device_type, media_type, department, leave_reason, joined_at, left_at, \
     duration_s, closed_by, estimated";

pub(crate) const QUARANTINED: &str =
    "id, subscriber_id, received_at, deliveries, reason, CAST(length(body) AS bigint) AS bytes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_for_everybody_is_told_as_text() {
        let written = |text: &str| {
            let mut json = Vec::new();
            json_or_text(&Some(text.to_owned()), &mut serde_json::Serializer::new(&mut json)).unwrap();
            String::from_utf8(json).unwrap()
        };
        assert_eq!(written(r#"{"a":1.0}"#), r#"{"a":1.0}"#);
        assert_eq!(written(r#"{"a":"\ud800"}"#), r#""{\"a\":\"\\ud800\"}""#);
        let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
        assert_eq!(written(&deep), format!("\"{deep}\""));
    }
}
