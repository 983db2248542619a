//! The analysts' role, made as docs/use/attendance.md says, and what SQLite's read-only ways keep analysts from.

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use super::{
    as_json::VIEWS,
    projection::{catch_up, cursor},
    questions::small_world,
};
use crate::{
    log_contract::fixture::{Backend, append},
    support::docs,
};

const TABLES: [&str; 11] = [
    "meetings",
    "attendance",
    "recordings",
    "days",
    "invitations",
    "people",
    "call_results",
    "failed_invitations",
    "invitees",
    "absentees",
    "department_attendance",
];

async fn filled(backend: &Backend) {
    let log = backend.log().await;
    append(&log, &small_world()).await;
    catch_up(&mut cursor(&log, "a")).await;
}

/// The code of the refusal.
async fn refused(session: &mut PgConnection, sql: &str) -> String {
    let error = sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await.expect_err(sql);
    error.as_database_error().and_then(|error| error.code()).expect(sql).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_role_reads_what_analysts_ask_and_nothing_else() {
    let backend = Backend::postgres().await;
    filled(&backend).await;
    let statements = docs::role();
    backend.execute(&statements).await;
    let url = backend.url.replace("postgres@", "analyst@");
    let mut session = PgConnection::connect(&url).await.expect("the role may log in");
    for query in docs::queries() {
        sqlx::raw_sql(AssertSqlSafe(query.sql.as_str())).fetch_all(&mut session).await.expect(&query.sql);
    }
    for table in TABLES.into_iter().chain(VIEWS.map(|(view, _)| view)) {
        let sql = format!("SELECT count(*) FROM {table}");
        let _: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut session).await.expect(table);
    }
    let mut others = Vec::new();
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c
          WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition",
    )
    .fetch_all(&mut session)
    .await
    .expect("the catalogue can be read");
    for table in all {
        let sql = format!("SELECT count(*) FROM {table}");
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await {
            assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{table}");
            others.push(table);
        }
    }
    others.sort();
    assert!(
        ["cursors", "handshakes", "heartbeat", "quarantine", "set_aside"]
            .iter()
            .all(|it| others.contains(&(*it).into()))
    );
    assert_eq!(others.len() + TABLES.len() + VIEWS.len() + 1, {
        let count = "SELECT count(*) FROM pg_class c
                      WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition";
        backend.value(count).await.parse::<usize>().expect("a number")
    });

    for sql in ["DELETE FROM meetings", "UPDATE attendance SET display_name = ''", "CREATE TABLE mine (id integer)"] {
        assert_eq!(refused(&mut session, sql).await, "25006", "{sql}");
    }
    // Whoever switches that off has no right to write either.
    sqlx::raw_sql("SET default_transaction_read_only = off").execute(&mut session).await.expect("anybody may");
    for sql in [
        "DELETE FROM meetings",
        "INSERT INTO recordings SELECT * FROM recordings",
        "UPDATE events SET event = ''",
        "TRUNCATE attendance",
        "CREATE TABLE mine (id integer)",
        "SELECT nextval('events_seq')",
        "SELECT * FROM quarantine",
    ] {
        assert_eq!(refused(&mut session, sql).await, "42501", "{sql}");
    }
    session.close().await.expect("it closes");
    let session = &mut PgConnection::connect(&url).await.expect("the role may log in");
    let patience: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(session).await.expect("a setting");
    assert_eq!(patience, "30s");

    // Without the last line, events are not theirs, and the views are.
    backend.execute("REVOKE SELECT ON events FROM analyst").await;
    let mut session = PgConnection::connect(&url).await.expect("the role may log in");
    assert_eq!(refused(&mut session, "SELECT * FROM events").await, "42501");
    let days: i64 =
        sqlx::query_scalar("SELECT count(*) FROM daily_events").fetch_one(&mut session).await.expect("a view");
    assert!(days > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn views_alone_are_enough_for_a_role_that_has_nothing_else() {
    let backend = Backend::postgres().await;
    filled(&backend).await;
    let views = VIEWS.map(|(view, _)| view).join(", ");
    backend.execute(&format!("CREATE ROLE viewer LOGIN; GRANT SELECT ON {views} TO viewer")).await;
    let mut session = PgConnection::connect(&backend.url.replace("postgres@", "viewer@")).await.expect("it may log in");
    for (view, _) in VIEWS {
        let rows =
            sqlx::raw_sql(AssertSqlSafe(format!("SELECT * FROM {view}"))).fetch_all(&mut session).await.expect(view);
        assert!(!rows.is_empty(), "{view}");
    }
    assert_eq!(refused(&mut session, "SELECT * FROM attendance").await, "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_opened_read_only_answers_and_takes_nothing() {
    let backend = Backend::sqlite();
    filled(&backend).await;
    let url = format!("{}?mode=ro", backend.url);
    let mut session = SqliteConnection::connect(&url).await.expect("the file can be opened");
    for query in docs::queries() {
        sqlx::raw_sql(AssertSqlSafe(query.sql.as_str())).fetch_all(&mut session).await.expect(&query.sql);
    }
    for sql in ["DELETE FROM meetings", "UPDATE events SET event = ''", "CREATE TABLE mine (id)"] {
        let error = sqlx::raw_sql(sql).execute(&mut session).await.expect_err(sql).to_string();
        assert!(error.contains("readonly"), "{error}");
    }
}
