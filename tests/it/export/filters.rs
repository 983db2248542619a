//! What is asked for, and what cannot be.

use serde_json::Value;

use super::{command, export, filled, rows};
use crate::log_contract::fixture::Backend;

pub async fn a_range_and_filters_leave_what_they_say(backend: Backend) {
    filled(&backend).await;
    let all = rows(&backend, &["events"]).await;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let (since, until) = ("2026-06-15T12:00:00.077Z", "2026-06-15T12:00:05.002Z");
    let wanted = |row: &&Value| (since..until).contains(&&*text(row, "occurred_at"));
    let expected: Vec<Value> = all.iter().filter(wanted).cloned().collect();
    assert!(expected.len() > 150 && expected.len() < all.len() / 2);
    assert_eq!(rows(&backend, &["events", "--since", since, "--until", until]).await, expected);
    let some = all.iter().find(|row| row["user_uuid"].is_string()).expect("somebody");
    for (flag, column) in [("--event", "event"), ("--meeting", "meeting_id"), ("--meeting", "meeting_uuid")] {
        let value = text(some, column);
        let expected: Vec<Value> = all.iter().filter(|row| text(row, column) == value).cloned().collect();
        assert_eq!(rows(&backend, &["events", flag, &value]).await, expected, "{flag} {value}");
    }
    let person = text(some, "user_uuid");
    let expected: Vec<Value> = all.iter().filter(|row| text(row, "user_uuid") == person).cloned().collect();
    assert_eq!(rows(&backend, &["events", "--person", &person]).await, expected);
    assert_eq!(rows(&backend, &["events", "--subscriber", "' OR 1=1 --"]).await, [Value::Null; 0]);
    let day = ["--since", "2026-06-13", "--until", "2026-06-14"];
    for (table, time) in [("meetings", "started_at"), ("attendance", "joined_at"), ("recordings", "finished_at")] {
        let all = rows(&backend, &[table]).await;
        let found = rows(&backend, &[&[table][..], &day].concat()).await;
        assert!(found.iter().all(|row| row[time].is_null() || text(row, time).starts_with("2026-06-13")), "{table}");
        let expected = all.iter().filter(|row| text(row, time).starts_with("2026-06-13")).count();
        assert!(!found.is_empty() && found.len() >= expected, "{table}: {} {expected}", found.len());
    }
}

pub async fn dates_are_those_of_the_time_zone_and_times_are_shown_with_their_offset(backend: Backend) {
    filled(&backend).await;
    let range = ["events", "--since", "2026-06-15T12:00:00.077Z", "--until", "2026-06-15T12:00:05.002Z"];
    let expected = export(&backend, &range).await.stdout;
    let there = async |since: &str, until: &str| {
        let arguments = ["events", "--since", since, "--until", until];
        command(&backend, &arguments).setting("TIME_ZONE", "Asia/Shanghai").run().await
    };
    let local = there("2026-06-15 20:00:00.077", "2026-06-15T20:00:05.002").await;
    assert_eq!(local.code(), 0, "{local:?}");
    // The same rows, and the same moments.
    assert_eq!(local.stdout.lines().count(), expected.lines().count());
    assert!(expected.contains("2026-06-15T12:00:00.077Z") && !expected.contains("+08:00"), "{expected}");
    assert!(local.stdout.contains("2026-06-15T20:00:00.077+08:00"), "{local:?}");
    let day = there("2026-06-16", "2026-06-17").await.stdout;
    assert!(day.lines().count() > 1, "{day}");
    let mut occurred = day.lines().skip(1).filter_map(|line| line.split(',').nth(4));
    assert!(occurred.all(|at| at.starts_with("2026-06-16T")), "{day}");
    let empty = there("2026-06-16", "2026-06-15 23:00").await;
    let words = "--since 2026-06-16T00:00:00.000+08:00 is not before --until 2026-06-15T23:00:00.000+08:00";
    assert!(empty.code() == 2 && empty.stderr.contains(words), "{empty:?}");
}

pub async fn what_cannot_be_exported_is_wrong_usage(backend: Backend) {
    backend.log().await;
    for (arguments, says) in [
        (&["people"][..], "possible values: events, meetings, attendance, recordings"),
        (&["meetings", "--event", "meeting.join"], "meetings have no type"),
        (&["events", "--since", "2026-03-02", "--until", "2026-03-01"], "is not before"),
        (&["events", "--since", "soon"], "write for example 2026-03-01"),
        (&["events", "--spreadsheet", "--format", "ndjson"], "--spreadsheet is for CSV"),
        (&["events", "--output", "."], "is a folder"),
        (&["events", "--output", "events.xls"], "use .csv, .ndjson, .jsonl, .parquet or .xlsx, or add --format"),
        (&["events", "--output", "events.json"], ".json is not a format that export writes"),
        (&["events", "--format", "xls"], "possible values: csv, ndjson, parquet, xlsx"),
        (&["events", "--spreadsheet", "--output", "events.xlsx"], "--spreadsheet is for CSV"),
    ] {
        let refused = export(&backend, arguments).await;
        assert!(refused.code() == 2 && refused.stderr.contains(says), "{arguments:?}: {refused:?}");
        assert_eq!(refused.stdout, "");
    }
}
