//! The tables' columns, in the order of docs/use/tables.md, and the rows' values for them.

use super::{Column, Kind, Value};
use convoke_core::time::Millis;
use convoke_log::{ListedEvent, ListedMeeting, ListedRecording, ListedStay};

const fn always(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, optional: false }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, optional: true }
}

use Kind::{Float, Integer, Json, Text, Time};

pub const EVENTS: [Column; 24] = [
    always("seq", Integer),
    always("event_id", Text),
    always("subscriber_id", Text),
    always("event", Text),
    always("occurred_at", Time),
    always("received_at", Time),
    optional("meeting_id", Text),
    optional("meeting_uuid", Text),
    optional("meeting_cycle_sub_id", Text),
    optional("user_uuid", Text),
    optional("user_agent", Text),
    optional("account", Text),
    optional("participant_id", Text),
    optional("display_name", Text),
    optional("role", Text),
    optional("call_number", Text),
    optional("join_time", Time),
    optional("left_time", Time),
    always("source", Text),
    always("deliveries", Integer),
    always("last_delivered_at", Time),
    optional("request_id", Text),
    optional("event_info", Json),
    optional("forgotten_at", Time),
];

pub fn event(row: &ListedEvent) -> [Value<'_>; EVENTS.len()] {
    [
        Value::Integer(row.seq.0),
        Value::Text(row.event_id.to_string().into()),
        text(&row.subscriber_id),
        text(&row.event),
        Value::Time(row.occurred_at),
        Value::Time(row.received_at),
        optional_text(row.meeting_id.as_deref()),
        optional_text(row.meeting_uuid.as_deref()),
        optional_text(row.meeting_cycle_sub_id.as_deref()),
        optional_text(row.user_uuid.as_deref()),
        optional_text(row.user_agent.as_deref()),
        optional_text(row.account.as_deref()),
        optional_text(row.participant_id.as_deref()),
        optional_text(row.display_name.as_deref()),
        optional_text(row.role.as_deref()),
        optional_text(row.call_number.as_deref()),
        time(row.join_time),
        time(row.left_time),
        text(&row.source),
        Value::Integer(row.deliveries),
        Value::Time(row.last_delivered_at),
        optional_text(row.request_id.as_deref()),
        row.event_info.as_deref().map_or(Value::Null, Value::Json),
        time(row.forgotten_at),
    ]
}

pub const MEETINGS: [Column; 23] = [
    always("subscriber_id", Text),
    always("meeting_uuid", Text),
    optional("meeting_id", Text),
    optional("meeting_cycle_sub_id", Text),
    always("status", Text),
    optional("created_at", Time),
    optional("modified_at", Time),
    always("modifications", Integer),
    optional("cancelled_at", Time),
    optional("started_at", Time),
    optional("ended_at", Time),
    optional("concluded_at", Time),
    always("stays", Integer),
    always("participants", Integer),
    always("peak_participants", Integer),
    always("recordings", Integer),
    always("first_event_at", Time),
    always("last_event_at", Time),
    optional("subject", Text),
    optional("scheduled_start_at", Time),
    optional("scheduled_end_at", Time),
    optional("host", Text),
    optional("corp_id", Text),
];

pub fn meeting(row: &ListedMeeting) -> [Value<'_>; MEETINGS.len()] {
    [
        text(&row.subscriber_id),
        text(&row.meeting_uuid),
        optional_text(row.meeting_id.as_deref()),
        optional_text(row.meeting_cycle_sub_id.as_deref()),
        text(row.status.as_str()),
        time(row.created_at),
        time(row.modified_at),
        Value::Integer(row.modifications),
        time(row.cancelled_at),
        time(row.started_at),
        time(row.ended_at),
        time(row.concluded_at),
        Value::Integer(row.stays),
        Value::Integer(row.participants),
        Value::Integer(row.peak_participants),
        Value::Integer(row.recordings),
        Value::Time(row.first_event_at),
        Value::Time(row.last_event_at),
        optional_text(row.subject.as_deref()),
        time(row.scheduled_start_at),
        time(row.scheduled_end_at),
        optional_text(row.host.as_deref()),
        optional_text(row.corp_id.as_deref()),
    ]
}

pub const ATTENDANCE: [Column; 16] = [
    always("stay_id", Text),
    always("subscriber_id", Text),
    always("meeting_uuid", Text),
    optional("meeting_id", Text),
    optional("participant_id", Text),
    optional("person", Text),
    optional("user_uuid", Text),
    optional("account", Text),
    optional("display_name", Text),
    optional("call_number", Text),
    optional("user_agent", Text),
    optional("role", Text),
    optional("joined_at", Time),
    optional("left_at", Time),
    optional("duration_s", Float),
    always("closed_by", Text),
];

pub fn stay(row: &ListedStay) -> [Value<'_>; ATTENDANCE.len()] {
    [
        Value::Text(row.stay_id.to_string().into()),
        text(&row.subscriber_id),
        text(&row.meeting_uuid),
        optional_text(row.meeting_id.as_deref()),
        optional_text(row.participant_id.as_deref()),
        optional_text(row.person.as_deref()),
        optional_text(row.user_uuid.as_deref()),
        optional_text(row.account.as_deref()),
        optional_text(row.display_name.as_deref()),
        optional_text(row.call_number.as_deref()),
        optional_text(row.user_agent.as_deref()),
        optional_text(row.role.as_deref()),
        time(row.joined_at),
        time(row.left_at),
        row.duration_s.map_or(Value::Null, Value::Float),
        text(row.closed_by.as_str()),
    ]
}

pub const RECORDINGS: [Column; 10] = [
    always("event_id", Text),
    always("subscriber_id", Text),
    optional("meeting_uuid", Text),
    optional("meeting_id", Text),
    always("finished_at", Time),
    optional("ready_at", Time),
    optional("length_s", Integer),
    optional("size_mb", Float),
    optional("files", Integer),
    optional("view_url", Text),
];

pub fn recording(row: &ListedRecording) -> [Value<'_>; RECORDINGS.len()] {
    [
        Value::Text(row.event_id.to_string().into()),
        text(&row.subscriber_id),
        optional_text(row.meeting_uuid.as_deref()),
        optional_text(row.meeting_id.as_deref()),
        Value::Time(row.finished_at),
        time(row.ready_at),
        row.length_s.map_or(Value::Null, Value::Integer),
        row.size_mb.map_or(Value::Null, Value::Float),
        row.files.map_or(Value::Null, Value::Integer),
        optional_text(row.view_url.as_deref()),
    ]
}

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

fn optional_text(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, self::text)
}

fn time(time: Option<Millis>) -> Value<'static> {
    time.map_or(Value::Null, Value::Time)
}
