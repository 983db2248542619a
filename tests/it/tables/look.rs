//! The analyst tables as JSON, the same from either database.

use serde_json::Value;

use crate::log_contract::fixture::Backend;

const MEETINGS: [&str; 18] = [
    "subscriber_id",
    "meeting_uuid",
    "meeting_id",
    "meeting_cycle_sub_id",
    "status",
    "created_at",
    "modified_at",
    "modifications",
    "cancelled_at",
    "started_at",
    "ended_at",
    "concluded_at",
    "stays",
    "participants",
    "peak_participants",
    "recordings",
    "first_event_at",
    "last_event_at",
];

const ATTENDANCE: [&str; 16] = [
    "stay_id",
    "subscriber_id",
    "meeting_uuid",
    "meeting_id",
    "participant_id",
    "person",
    "user_uuid",
    "account",
    "display_name",
    "call_number",
    "user_agent",
    "role",
    "joined_at",
    "left_at",
    "duration_s",
    "closed_by",
];

const RECORDINGS: [&str; 10] = [
    "event_id",
    "subscriber_id",
    "meeting_uuid",
    "meeting_id",
    "finished_at",
    "ready_at",
    "length_s",
    "size_mb",
    "files",
    "view_url",
];

/// All rows of all three tables, in an order of their own.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub meetings: Vec<Value>,
    pub attendance: Vec<Value>,
    pub recordings: Vec<Value>,
}

impl Seen {
    pub async fn of(backend: &Backend) -> Self {
        Self {
            meetings: rows(backend, "meetings", &MEETINGS).await,
            attendance: rows(backend, "attendance", &ATTENDANCE).await,
            recordings: rows(backend, "recordings", &RECORDINGS).await,
        }
    }
}

async fn rows(backend: &Backend, table: &str, columns: &[&str]) -> Vec<Value> {
    let postgres = backend.postgres.is_some();
    let value = |name: &str| {
        if postgres && name.ends_with("_at") {
            format!(r#"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#)
        } else {
            name.to_owned()
        }
    };
    let members = columns.iter().map(|name| format!("'{name}', {}", value(name))).collect::<Vec<_>>().join(", ");
    let sql = if postgres {
        format!("SELECT coalesce(json_agg(json_build_object({members})), '[]') FROM {table}")
    } else {
        format!("SELECT json_group_array(json_object({members})) FROM {table}")
    };
    let mut rows: Vec<Value> = serde_json::from_str(&backend.value(&sql).await).expect("an array");
    rows.sort_by_cached_key(ToString::to_string);
    rows
}
