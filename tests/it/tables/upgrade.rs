//! Tables that an earlier version filled, under this one.

use std::path::Path;

use convoke_core::time::Millis;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection, migrate::Migrator};

use super::{
    as_json::Seen,
    projection::{UUID, catch_up, cursor, event, event_of, who},
};
use crate::{
    log_contract::fixture::{Backend, append},
    support::sign::{NOW, millis},
};

/// The last migration before stays were kept in the order of joining.
const BEFORE: i64 = 6;

/// The last migration before it was known what is over.
const BEFORE_OVER: i64 = 14;

/// The last migration before it was found out who is one person.
const BEFORE_PEOPLE: i64 = 15;

/// Makes the schema as it was then.
async fn as_it_was(backend: &Backend, version: i64) {
    let folder = if backend.postgres.is_some() { "migrations/postgres" } else { "migrations/sqlite" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let migrations = Migrator::new(&*folder).await.expect("the migrations");
    if backend.postgres.is_some() {
        let mut connection = PgConnection::connect(&backend.url).await.expect("a connection");
        migrations.run_to(version, &mut connection).await.expect("migrated");
    } else {
        let url = format!("{}?mode=rwc", backend.url);
        let mut connection = SqliteConnection::connect(&url).await.expect("a connection");
        migrations.run_to(version, &mut connection).await.expect("migrated");
    }
}

/// What both have before the cursor has gone through all runs.
fn at_once(seen: &Seen) -> (Vec<Value>, Vec<Value>) {
    let mut attendance = seen.attendance.clone();
    for row in attendance.iter_mut().filter_map(Value::as_object_mut) {
        row.remove("person_by");
        row.remove("estimated");
    }
    (seen.meetings.clone(), attendance)
}

/// `INSERT` of rows that are objects of their columns.
async fn insert(backend: &Backend, table: &str, rows: &[Value]) {
    for row in rows {
        let mut row = row.as_object().expect("an object").clone();
        // What is newer than all of these versions.
        row.remove("person_by");
        row.remove("estimated");
        let columns = row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let literal = |value: &Value| match value {
            Value::String(text) => format!("'{}'", text.replace('\'', "''")),
            other => other.to_string(),
        };
        let values = row.values().map(literal).collect::<Vec<_>>().join(", ");
        backend.execute(&format!("INSERT INTO {table} ({columns}) VALUES ({values})")).await;
    }
}

pub async fn rows_of_an_earlier_version_are_kept_and_gone_on_with(backend: Backend) {
    // The same events, with this version alone.
    let alone = Backend::sqlite();
    let log = alone.log().await;
    let infos = [
        event("meeting.started", 0, ""),
        event("meeting.join", 20, &who("p1", 10, 0)),
        event("meeting.join", 40, &who("p2", 30, 0)),
        event("meeting.left", 90, &who("p2", 30, 80)),
        event("meeting.left", 95, &who("p3", 50, 90)),
        event("meeting.end", 500, ""),
        event("meeting.started", 600, ""),
    ];
    append(&log, &infos).await;
    let mut expected = cursor(&log, "a");
    catch_up(&mut expected).await;
    let seen = Seen::of(&alone).await;
    assert_eq!((seen.meetings.len(), seen.attendance.len()), (1, 3));

    as_it_was(&backend, BEFORE).await;
    let mut meetings = seen.meetings.clone();
    meetings[0]["internal"] = json!(alone.value("SELECT internal FROM meetings").await);
    let mut attendance = Vec::new();
    for row in &seen.attendance {
        let of = |event: &str| {
            let participant = row["participant_id"].as_str().expect("a participant");
            format!("SELECT event_id FROM events WHERE event = '{event}' AND participant_id = '{participant}'")
        };
        let mut row = row.clone();
        let mut internal = json!({});
        let join = alone.value(&of("meeting.join")).await;
        if !join.is_empty() {
            internal["join"] = json!(join);
        }
        let left = alone.value(&of("meeting.left")).await;
        if left.is_empty() {
            // Closed for good by the first end, as it was then.
            row["closed_by"] = json!("meeting_end");
            row["left_at"] = alone.value("SELECT occurred_at FROM events WHERE event = 'meeting.end'").await.into();
            row["duration_s"] = json!(0.49);
        } else {
            internal["left"] = json!(left);
            let at = Millis::parse(row["left_at"].as_str().expect("a text")).expect("a time");
            internal["left_at"] = json!(at.get());
        }
        row["internal"] = json!(internal.to_string());
        attendance.push(row);
    }
    meetings.iter_mut().for_each(|row| drop(row.as_object_mut().expect("an object").remove("over")));
    insert(&backend, "meetings", &meetings).await;
    insert(&backend, "attendance", &attendance).await;

    let log = backend.log().await;
    assert_eq!(at_once(&Seen::of(&backend).await), at_once(&seen), "and who did not leave is open again");
    // The log does not remember what is in the tables; they go on all the same.
    let following = [event("meeting.left", 700, &who("p1", 10, 690)), event("meeting.end", 900, "")];
    append(&log, &following).await;
    catch_up(&mut cursor(&log, "a")).await;
    let log = alone.open();
    append(&log, &following).await;
    catch_up(&mut expected).await;
    assert_eq!(Seen::of(&backend).await, Seen::of(&alone).await);
}

pub async fn what_an_earlier_version_took_for_going_on_is_over(backend: Backend) {
    // The same events, with this version alone.
    let alone = Backend::sqlite();
    let log = alone.log().await;
    let infos = [
        event("meeting.started", 0, ""),
        event("meeting.join", 20, &who("p1", 10, 0)),
        event("meeting.left", 90, &who("p2", 50, 40)),
        event("meeting.end", 500, ""),
        // Late, and not seen leaving.
        event("meeting.join", 550, &who("p3", 530, 0)),
        event_of("lost", "meeting.started", 600, ""),
        event_of("next", "meeting.started", 700, ""),
    ];
    append(&log, &infos).await;
    let mut expected = cursor(&log, "a");
    catch_up(&mut expected).await;
    let seen = Seen::of(&alone).await;

    as_it_was(&backend, BEFORE_OVER).await;
    let mut meetings = seen.meetings.clone();
    for row in &mut meetings {
        let uuid = row["meeting_uuid"].as_str().expect("a UUID").to_owned();
        let internal = format!("SELECT internal FROM meetings WHERE meeting_uuid = '{uuid}'");
        row["internal"] = json!(alone.value(&internal).await);
        row.as_object_mut().expect("an object").remove("over");
        if uuid == UUID {
            (row["status"], row["ended_at"]) = (json!("live"), Value::Null);
        }
    }
    let mut attendance = seen.attendance.clone();
    for row in &mut attendance {
        let id = row["stay_id"].as_str().expect("an id");
        row["internal"] = json!(alone.value(&format!("SELECT internal FROM attendance WHERE stay_id = '{id}'")).await);
        if row["participant_id"] == "p2" {
            row["left_at"] = json!(millis(NOW + 40).to_string());
        } else {
            // Everybody was there again, for one was late.
            (row["closed_by"], row["left_at"], row["duration_s"]) = (json!("open"), Value::Null, Value::Null);
        }
    }
    insert(&backend, "meetings", &meetings).await;
    insert(&backend, "attendance", &attendance).await;
    let log = backend.log().await;
    assert_eq!(at_once(&Seen::of(&backend).await), at_once(&seen));
    let over = "SELECT count(*) FROM meetings WHERE over AND meeting_uuid <> 'next'";
    assert_eq!(backend.value(over).await, "2");
    let following = [event("meeting.left", 700, &who("p3", 530, 690)), event_of("next", "meeting.end", 900, "")];
    append(&log, &following).await;
    catch_up(&mut cursor(&log, "a")).await;
    let log = alone.open();
    append(&log, &following).await;
    catch_up(&mut expected).await;
    assert_eq!(Seen::of(&backend).await, Seen::of(&alone).await);
}

pub async fn who_is_one_person_is_found_out_of_the_tables_of_before(backend: Backend) {
    let of = |n: i64, ids: &str| {
        let times = format!(r#""participantID":"p{n}","joinTime":{},"leftTime":{}"#, NOW + n * 100, NOW + n * 100 + 50);
        event_of(&format!("run-{}", n % 2), "meeting.left", n * 100 + 60, &format!("{ids},{times}"))
    };
    let infos = [
        of(1, r#""account":"ada","displayName":"Ada""#),
        of(2, r#""account":"ada","userUUID":"u1","displayName":"Ada""#),
        of(3, r#""displayName":"Guest""#),
        of(5, r#""displayName":"Guest""#),
    ];
    let alone = Backend::sqlite();
    let log = alone.log().await;
    append(&log, &infos).await;
    catch_up(&mut cursor(&log, "a")).await;
    let seen = Seen::of(&alone).await;

    as_it_was(&backend, BEFORE_PEOPLE).await;
    let mut meetings = seen.meetings.clone();
    for row in &mut meetings {
        let uuid = row["meeting_uuid"].as_str().expect("a UUID");
        row["internal"] =
            json!(alone.value(&format!("SELECT internal FROM meetings WHERE meeting_uuid = '{uuid}'")).await);
        row["participants"] = row["stays"].clone();
        row.as_object_mut().expect("an object").remove("over");
    }
    let mut attendance = seen.attendance.clone();
    for row in &mut attendance {
        let id = row["stay_id"].as_str().expect("an id");
        row["internal"] = json!(alone.value(&format!("SELECT internal FROM attendance WHERE stay_id = '{id}'")).await);
        let told = ["user_uuid", "account", "call_number", "participant_id"].iter().find(|name| !row[**name].is_null());
        row["person"] = row[*told.expect("an id")].clone();
        row.as_object_mut().expect("an object").remove("person_by");
    }
    insert(&backend, "meetings", &meetings).await;
    insert(&backend, "attendance", &attendance).await;
    let log = backend.log().await;
    assert_ne!(Seen::of(&backend).await, seen);
    // The log does not remember what is in the tables.
    catch_up(&mut cursor(&log, "a")).await;
    let found = Seen::of(&backend).await;
    assert_eq!((&found.meetings, &found.attendance), (&seen.meetings, &seen.attendance));
}
