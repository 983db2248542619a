//! `convoke export`, as a process, and what others read of what it writes.

mod filters;
mod memory;
pub mod readers;
mod target;

use std::{path::Path, sync::Arc};

use convoke_log::Store;
use serde_json::Value;

use crate::{
    log_contract::fixture::{Backend, append, on_both},
    support::{
        process::{Convoke, ConvokeBuilder, Finished},
        sign::NOW,
    },
    tables::projection::{catch_up, cursor, event, event_of, happened, who},
};

const CONVOKE: &str = env!("CARGO_BIN_EXE_convoke");

const TABLES: [&str; 4] = ["events", "meetings", "attendance", "recordings"];

/// `convoke export`, with these arguments, of this database.
fn command(backend: &Backend, arguments: &[&str]) -> ConvokeBuilder {
    let builder = Convoke::builder().setting("DATABASE_URL", &backend.url).arg("export");
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument))
}

async fn export(backend: &Backend, arguments: &[&str]) -> Finished {
    command(backend, arguments).run().await
}

/// The rows of an export that goes well.
async fn rows(backend: &Backend, arguments: &[&str]) -> Vec<Value> {
    let done = export(backend, &[arguments, &["--format", "ndjson"]].concat()).await;
    assert_eq!(done.code(), 0, "{done:?}");
    lines(&done.stdout)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

/// The rows of an exported file.
fn read(path: &Path) -> Vec<Value> {
    lines(&std::fs::read_to_string(path).expect("it is there"))
}

/// Some days of an enterprise; and events at both ends of what is plausible, many at one moment, some of hostile people.
async fn filled(backend: &Backend) -> Arc<dyn Store> {
    let log = backend.log().await;
    log.append(&happened(500)).await.expect("appended");
    let named = |n: i64, name: &str| {
        let join = who(&format!("p{n}"), 5_000 + n, 0);
        event("meeting.join", 5_000 + n, &join.replace("\"Li\"", &Value::from(name).to_string()))
    };
    let hostile =
        ["=1+1", "@SUM(A1)", "a,\"b\";\r\nc\td", "'); DROP TABLE events; --", "<b>王小明</b>", "\u{0}null\\N", " "];
    let hostile: Vec<String> = (0..).zip(hostile).map(|(n, name)| named(n, name)).collect();
    append(&log, &hostile).await;
    let at_once: Vec<String> = (0..150).map(|n| event("meeting.modify", 77, &format!(r#""account":"a{n}""#))).collect();
    append(&log, &at_once).await;
    let last = event_of("z", "meeting.end", 86_400_000, "");
    let unknown = event("meeting.left", 9_000, &format!(r#""participantID":"who","leftTime":{}"#, NOW + 9_000));
    let first = r#"{"event":"odd","timestamp":1420070400000,"large":123456789012345678901234567890}"#;
    append(&log, &[first, &last, &unknown]).await;
    catch_up(&mut cursor(&log, "a")).await;
    log
}

on_both! {
    readers:
        every_table_in_every_format_is_what_the_database_holds
        an_empty_table_is_a_valid_file
        the_documented_example_answers;
    target:
        a_file_is_there_only_once_it_is_whole;
    filters:
        a_range_and_filters_leave_what_they_say
        dates_are_those_of_the_time_zone_and_times_are_shown_with_their_offset
        what_cannot_be_exported_is_wrong_usage;
}
