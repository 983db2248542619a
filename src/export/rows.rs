//! The tables' columns, in the order of docs/use/tables.md, and the rows' values for them.

use super::{Column, Kind, Table, Value};
use convoke_core::time::Millis;
use convoke_log::{ListedEvent, ListedMeeting, ListedRecording, ListedStay};

/// A row of a table.
pub(crate) trait Tabular {
    /// Which table.
    const TABLE: Table;

    /// A value for each column.
    fn values(&self) -> impl AsRef<[Value<'_>]>;
}

const fn always(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, optional: false }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, optional: true }
}

use Kind::{Boolean, Float, Integer, Json, Text, Time};

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

impl Tabular for ListedEvent {
    const TABLE: Table = Table::Events;

    fn values(&self) -> impl AsRef<[Value<'_>]> {
        [
            Value::Integer(self.seq.0),
            Value::Text(self.event_id.to_string().into()),
            text(&self.subscriber_id),
            text(&self.event),
            Value::Time(self.occurred_at),
            Value::Time(self.received_at),
            optional_text(self.meeting_id.as_deref()),
            optional_text(self.meeting_uuid.as_deref()),
            optional_text(self.meeting_cycle_sub_id.as_deref()),
            optional_text(self.user_uuid.as_deref()),
            optional_text(self.user_agent.as_deref()),
            optional_text(self.account.as_deref()),
            optional_text(self.participant_id.as_deref()),
            optional_text(self.display_name.as_deref()),
            optional_text(self.role.as_deref()),
            optional_text(self.call_number.as_deref()),
            time(self.join_time),
            time(self.left_time),
            text(&self.source),
            Value::Integer(self.deliveries),
            Value::Time(self.last_delivered_at),
            optional_text(self.request_id.as_deref()),
            self.event_info.as_deref().map_or(Value::Null, Value::Json),
            time(self.forgotten_at),
        ]
    }
}

pub const MEETINGS: [Column; 28] = [
    always("subscriber_id", Text),
    always("meeting_uuid", Text),
    optional("meeting_id", Text),
    optional("meeting_cycle_sub_id", Text),
    always("status", Text),
    always("over", Boolean),
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
    optional("host_user_uuid", Text),
    optional("corp_id", Text),
    optional("conference_type", Text),
    optional("webinar", Boolean),
    optional("virtual_room", Text),
];

impl Tabular for ListedMeeting {
    const TABLE: Table = Table::Meetings;

    fn values(&self) -> impl AsRef<[Value<'_>]> {
        [
            text(&self.subscriber_id),
            text(&self.meeting_uuid),
            optional_text(self.meeting_id.as_deref()),
            optional_text(self.meeting_cycle_sub_id.as_deref()),
            text(self.status.as_str()),
            Value::Boolean(self.over),
            time(self.created_at),
            time(self.modified_at),
            Value::Integer(self.modifications),
            time(self.cancelled_at),
            time(self.started_at),
            time(self.ended_at),
            time(self.concluded_at),
            Value::Integer(self.stays),
            Value::Integer(self.participants),
            Value::Integer(self.peak_participants),
            Value::Integer(self.recordings),
            Value::Time(self.first_event_at),
            Value::Time(self.last_event_at),
            optional_text(self.subject.as_deref()),
            time(self.scheduled_start_at),
            time(self.scheduled_end_at),
            optional_text(self.host.as_deref()),
            optional_text(self.host_user_uuid.as_deref()),
            optional_text(self.corp_id.as_deref()),
            optional_text(self.conference_type.as_deref()),
            self.webinar.map_or(Value::Null, Value::Boolean),
            optional_text(self.virtual_room.as_deref()),
        ]
    }
}

pub const ATTENDANCE: [Column; 22] = [
    always("stay_id", Text),
    always("subscriber_id", Text),
    always("meeting_uuid", Text),
    optional("meeting_id", Text),
    optional("participant_id", Text),
    optional("person", Text),
    optional("person_by", Text),
    optional("user_uuid", Text),
    optional("account", Text),
    optional("display_name", Text),
    optional("call_number", Text),
    optional("user_agent", Text),
    optional("role", Text),
    optional("device_type", Text),
    optional("media_type", Text),
    optional("department", Text),
    optional("leave_reason", Text),
    optional("joined_at", Time),
    optional("left_at", Time),
    optional("duration_s", Float),
    always("closed_by", Text),
    always("estimated", Boolean),
];

impl Tabular for ListedStay {
    const TABLE: Table = Table::Attendance;

    fn values(&self) -> impl AsRef<[Value<'_>]> {
        [
            Value::Text(self.stay_id.to_string().into()),
            text(&self.subscriber_id),
            text(&self.meeting_uuid),
            optional_text(self.meeting_id.as_deref()),
            optional_text(self.participant_id.as_deref()),
            optional_text(self.person.as_deref()),
            optional_text(self.person_by.as_deref()),
            optional_text(self.user_uuid.as_deref()),
            optional_text(self.account.as_deref()),
            optional_text(self.display_name.as_deref()),
            optional_text(self.call_number.as_deref()),
            optional_text(self.user_agent.as_deref()),
            optional_text(self.role.as_deref()),
            optional_text(self.device_type.as_deref()),
            optional_text(self.media_type.as_deref()),
            optional_text(self.department.as_deref()),
            optional_text(self.leave_reason.as_deref()),
            time(self.joined_at),
            time(self.left_at),
            self.duration_s.map_or(Value::Null, Value::Float),
            text(self.closed_by.as_str()),
            Value::Boolean(self.estimated),
        ]
    }
}

pub const RECORDINGS: [Column; 11] = [
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
    optional("viewers", Text),
];

impl Tabular for ListedRecording {
    const TABLE: Table = Table::Recordings;

    fn values(&self) -> impl AsRef<[Value<'_>]> {
        [
            Value::Text(self.event_id.to_string().into()),
            text(&self.subscriber_id),
            optional_text(self.meeting_uuid.as_deref()),
            optional_text(self.meeting_id.as_deref()),
            Value::Time(self.finished_at),
            time(self.ready_at),
            self.length_s.map_or(Value::Null, Value::Integer),
            self.size_mb.map_or(Value::Null, Value::Float),
            self.files.map_or(Value::Null, Value::Integer),
            optional_text(self.view_url.as_deref()),
            optional_text(self.viewers.as_deref()),
        ]
    }
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
