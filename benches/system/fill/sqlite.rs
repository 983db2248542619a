//! Fills SQLite in large transactions without a journal: an unfinished new file is worthless anyway.

use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::Context as _;
use convoke_core::event::Event;
use convoke_core::time::Millis;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments as _, AssertSqlSafe, Connection};

use super::{COLUMN_COUNT, COLUMNS, Progress};

/// Rows per statement.
const ROWS: usize = 256;

/// Rows per transaction.
const COMMIT_AFTER: usize = 500_000;

/// Writes all events, and returns the size of the file in bytes.
pub async fn write(url: &str, mut events: Progress) -> anyhow::Result<u64> {
    let options = SqliteConnectOptions::from_str(url)?;
    let file = options.get_filename().to_owned();
    let fast = options
        .clone()
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .pragma("cache_size", "-524288")
        .pragma("locking_mode", "exclusive");
    let mut connection = SqliteConnection::connect_with(&fast).await.context("cannot open the file")?;
    let insert = |rows: usize| -> Arc<str> {
        let row = format!("({})", vec!["?"; COLUMN_COUNT].join(", "));
        Arc::from(format!("INSERT INTO events ({COLUMNS}) VALUES {}", vec![row; rows].join(", ")))
    };
    let full = insert(ROWS);
    let mut rows = 0;
    sqlx::query("BEGIN").execute(&mut connection).await?;
    while let Some(chunk) = events.next().await {
        for part in chunk.chunks(ROWS) {
            let mut arguments = SqliteArguments::default();
            for event in part {
                bind(&mut arguments, event).map_err(anyhow::Error::from_boxed)?;
            }
            let sql = if part.len() == ROWS { Arc::clone(&full) } else { insert(part.len()) };
            sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut connection).await?;
        }
        rows += chunk.len();
        if rows >= COMMIT_AFTER {
            rows = 0;
            sqlx::raw_sql("COMMIT; BEGIN").execute(&mut connection).await?;
        }
    }
    sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
    connection.close().await?;
    // From here on as durable as the service leaves it.
    let durable = options.journal_mode(SqliteJournalMode::Wal);
    SqliteConnection::connect_with(&durable).await?.close().await?;
    let file = tokio::fs::File::open(file).await?;
    file.sync_all().await?;
    Ok(file.metadata().await?.len())
}

fn bind(to: &mut SqliteArguments, event: &Event) -> Result<(), sqlx::error::BoxDynError> {
    let text = |at: Millis| at.to_string();
    to.add(event.event_id.to_string())?;
    to.add(Arc::clone(&event.subscriber_id))?;
    to.add(Arc::clone(&event.event))?;
    to.add(text(event.occurred_at))?;
    to.add(text(event.received_at))?;
    for column in event.optional_texts() {
        to.add(column.clone())?;
    }
    to.add(event.attendee.join_time.map(text))?;
    to.add(event.attendee.left_time.map(text))?;
    to.add(event.source.as_str())?;
    to.add(1_i64)?;
    to.add(text(event.received_at))?;
    to.add(event.request_id.clone())?;
    to.add(Arc::clone(&event.event_info))
}
