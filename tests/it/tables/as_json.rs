//! The analyst tables as JSON, the same from either database.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::log_contract::fixture::Backend;

const MEETINGS: [&str; 19] = [
    "subscriber_id",
    "meeting_uuid",
    "meeting_id",
    "meeting_cycle_sub_id",
    "status",
    "over",
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

const ATTENDANCE: [&str; 18] = [
    "stay_id",
    "subscriber_id",
    "meeting_uuid",
    "meeting_id",
    "participant_id",
    "person",
    "person_by",
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
    "estimated",
];

const RECORDINGS: [&str; 11] = [
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
    "viewers",
];

/// The views, and their columns, without `silent_hours`, which the clock moves.
pub const VIEWS: [(&str, &[&str]); 10] = [
    (
        "presence",
        &[
            "stay_id",
            "subscriber_id",
            "meeting_uuid",
            "person",
            "display_name",
            "joined_at",
            "left_at",
            "present_from",
            "present_until",
            "person_by",
            "estimated",
            "duration_s",
        ],
    ),
    (
        "person_attendance",
        &[
            "subscriber_id",
            "meeting_uuid",
            "meeting_id",
            "began_at",
            "person",
            "display_name",
            "stays",
            "devices",
            "minutes",
            "first_joined_at",
            "last_left_at",
            "still_in",
            "estimated",
        ],
    ),
    (
        "late_joiners",
        &[
            "subscriber_id",
            "meeting_uuid",
            "meeting_id",
            "started_at",
            "person",
            "display_name",
            "joined_at",
            "minutes_late",
            "scheduled_start_at",
        ],
    ),
    (
        "meeting_numbers",
        &[
            "subscriber_id",
            "meeting_id",
            "meeting_cycle_sub_id",
            "began_at",
            "status",
            "over",
            "created_at",
            "modified_at",
            "modifications",
            "cancelled_at",
            "concluded_at",
            "scheduled_start_at",
            "scheduled_end_at",
            "subject",
            "host",
            "host_user_uuid",
            "runs",
            "started_at",
            "ended_at",
            "stays",
            "participants",
            "peak_participants",
            "recordings",
        ],
    ),
    ("no_end_seen", &["subscriber_id", "meeting_uuid", "meeting_id", "began_at", "last_event_at", "open_stays"]),
    (
        "presence_days",
        &[
            "day",
            "subscriber_id",
            "meeting_uuid",
            "stay_id",
            "person",
            "display_name",
            "present_from",
            "present_until",
            "person_by",
            "estimated",
        ],
    ),
    (
        "person_days",
        &[
            "day",
            "subscriber_id",
            "meeting_uuid",
            "meeting_id",
            "person",
            "display_name",
            "stays",
            "minutes",
            "present_from",
            "present_until",
            "estimated",
        ],
    ),
    (
        "daily_usage",
        &[
            "day",
            "subscriber_id",
            "meetings",
            "participants",
            "stays",
            "minutes",
            "recordings",
            "attendances",
            "run_minutes",
        ],
    ),
    ("daily_peak", &["day", "subscriber_id", "participants", "devices", "peak_at"]),
    ("daily_events", &["day", "subscriber_id", "event", "events"]),
];

/// All rows of all three tables, and of the views on them, in an order of their own. (The other view, `daily_events`, is on
/// the log itself.)
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub meetings: Vec<Value>,
    pub attendance: Vec<Value>,
    pub recordings: Vec<Value>,
    pub views: BTreeMap<String, Vec<Value>>,
}

impl Seen {
    pub async fn of(backend: &Backend) -> Self {
        let views = VIEWS.into_iter().filter(|(view, _)| *view != "daily_events");
        let tables = [("meetings", &MEETINGS[..]), ("attendance", &ATTENDANCE), ("recordings", &RECORDINGS)];
        let postgres = backend.postgres.is_some();
        let member = |(name, columns)| match postgres {
            true => format!("'{name}', ({})", array(postgres, name, columns)),
            false => format!("'{name}', json(({}))", array(postgres, name, columns)),
        };
        // One statement, so that it is one moment, and one session.
        let members = tables.into_iter().chain(views).map(member).collect::<Vec<_>>().join(", ");
        let object = if postgres { "json_build_object" } else { "json_object" };
        // Compiling such questions takes far longer than answering them.
        let before = if postgres { "SET jit = off; " } else { "" };
        let all = backend.value(&format!("{before}SELECT {object}({members})")).await;
        let mut all: BTreeMap<String, Vec<Value>> = serde_json::from_str(&all).expect("arrays");
        for rows in all.values_mut() {
            rows.iter_mut().for_each(alike);
            rows.sort_by_cached_key(ToString::to_string);
        }
        let mut table = |name: &str| all.remove(name).expect(name);
        Self {
            meetings: table("meetings"),
            attendance: table("attendance"),
            recordings: table("recordings"),
            views: all,
        }
    }
}

/// SQLite has no booleans, and PostgreSQL writes whole numbers without a decimal.
fn alike(row: &mut Value) {
    let Some(row) = row.as_object_mut() else { return };
    for (name, value) in row {
        match name.as_str() {
            "still_in" | "over" | "estimated" => *value = json!(*value == true || *value == 1),
            "minutes" | "run_minutes" | "minutes_late" | "duration_s" => *value = json!(value.as_f64()),
            _ => {}
        }
    }
}

/// What a query answers.
pub async fn rows(backend: &Backend, query: &str, columns: &[&str]) -> Vec<Value> {
    let sql = array(backend.postgres.is_some(), &format!("(\n{query}\n)"), columns);
    let mut rows: Vec<Value> = serde_json::from_str(&backend.value(&sql).await).expect("an array");
    rows.sort_by_cached_key(ToString::to_string);
    rows
}

fn array(postgres: bool, table: &str, columns: &[&str]) -> String {
    let value = |name: &str| {
        if postgres && (name.ends_with("_at") || name.starts_with("present_")) {
            format!(r#"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#)
        } else {
            name.to_owned()
        }
    };
    let members = columns.iter().map(|name| format!("'{name}', {}", value(name))).collect::<Vec<_>>().join(", ");
    if postgres {
        format!("SELECT coalesce(json_agg(json_build_object({members})), '[]') FROM {table} AS t")
    } else {
        format!("SELECT json_group_array(json_object({members})) FROM {table} AS t")
    }
}
