//! What people ask the tables: the queries of the README, and the comments in PostgreSQL.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use super::projection::{catch_up, cursor, event, who};
use crate::log_contract::fixture::{Backend, append};

/// The queries of the README about these tables, by their comment's first words, without those of the other database.
fn queries(postgres: bool) -> BTreeMap<String, String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let (_, section) = readme.split_once("### Runs, stays, recordings").expect("the section");
    let (_, sql) = section.split_once("```sql\n").expect("queries");
    let (sql, _) = sql.split_once("```").expect("the end of the queries");
    let mut last = "";
    let mut found = BTreeMap::new();
    for query in sql.split_terminator(";\n").map(str::trim).filter(|query| !query.is_empty()) {
        let comment = query.lines().next().and_then(|line| line.strip_prefix("-- ")).expect("a comment");
        let dialect = match comment {
            "The same in SQLite" => Some(false),
            _ => {
                last = comment;
                comment.ends_with("(PostgreSQL)").then_some(true)
            }
        };
        if dialect.is_none_or(|dialect| dialect == postgres) {
            found.insert(last.trim_end_matches(" (PostgreSQL)").to_owned(), query.to_owned());
        }
    }
    found
}

async fn answer(backend: &Backend, query: &str, members: &[&str]) -> Value {
    let members = members.iter().map(|name| format!("'{name}', q.{name}")).collect::<Vec<_>>().join(", ");
    let sql = if backend.postgres.is_some() {
        format!("SELECT coalesce(json_agg(json_build_object({members})), '[]') FROM (\n{query}\n) AS q")
    } else {
        format!("SELECT json_group_array(json_object({members})) FROM (\n{query}\n) AS q")
    };
    serde_json::from_str(&backend.value(&sql).await).expect("an array")
}

pub async fn the_queries_of_the_readme_answer_what_they_say(backend: Backend) {
    let log = backend.log().await;
    let minute = 60_000;
    let stay = |participant: &str, user: &str, joined, left| {
        event("meeting.left", left, &who(participant, joined, left).replace(&format!("user-{participant}"), user))
    };
    append(
        &log,
        &[
            event("meeting.started", 0, ""),
            // On two devices, five of the minutes on both, and once more after a break.
            stay("p1", "li", minute, 11 * minute),
            stay("p2", "li", 6 * minute, 21 * minute),
            stay("p3", "li", 31 * minute, 41 * minute),
            event("meeting.join", 20, &who("p4", 10, 0)),
        ],
    )
    .await;
    catch_up(&mut cursor(&log, "a")).await;
    let queries = queries(backend.postgres.is_some());
    assert_eq!(queries.len(), 4, "{queries:?}");
    let of = |words: &str| queries.iter().find(|(comment, _)| comment.starts_with(words)).expect(words).1.clone();

    let now = answer(&backend, &of("What is on now"), &["meeting_id", "people"]).await;
    assert_eq!(now, json!([{"meeting_id": "960000017", "people": 1}]));
    let longest = answer(&backend, &of("The longest stays"), &["minutes", "closed_by"]).await;
    let minutes: Vec<_> = longest.as_array().expect("rows").iter().map(|row| row["minutes"].as_f64()).collect();
    assert!(minutes.contains(&Some(15.0)) && minutes.len() == 4, "{longest}");
    let people = answer(&backend, &of("Minutes of each person"), &["person", "devices", "minutes"]).await;
    let li = people.as_array().expect("rows").iter().find(|row| row["person"] == "li").expect("Li");
    assert_eq!((&li["devices"], li["minutes"].as_f64()), (&json!(3), Some(30.0)), "20 minutes, and 10 more: {people}");

    let unfinished = async || answer(&backend, &of("Runs of which no end"), &["meeting_id"]).await;
    assert_eq!(unfinished().await, json!([{"meeting_id": "960000017"}]), "its events are months old");
    append(&log, &[event("meeting.end", 50 * minute, "")]).await;
    catch_up(&mut cursor(&log, "a")).await;
    assert_eq!(unfinished().await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_has_a_comment_in_postgresql() {
    let backend = Backend::postgres().await;
    backend.log().await;
    let without = backend
        .value(
            "SELECT coalesce(string_agg(c.relname || '.' || a.attname, ', '), '')
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
              WHERE c.relname IN ('meetings', 'attendance', 'recordings') AND c.relkind = 'r' AND a.attnum > 0
                AND col_description(c.oid, a.attnum) IS NULL",
        )
        .await;
    assert_eq!(without, "");
}
