//! Fills PostgreSQL with `COPY` in its binary format.

use std::path::PathBuf;

use anyhow::Context as _;
use convoke_core::event::Event;
use convoke_core::time::Millis;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{COLUMN_COUNT, COLUMNS, Progress, free_at};

/// Rows per transaction.
const COMMIT_AFTER: usize = 500_000;

/// 2000-01-01T00:00:00Z, the server's epoch.
const SERVER_EPOCH_MS: i64 = 946_684_800_000;

/// Free bytes on the server's data disk, if it is on this machine and the role may see where it is.
pub async fn disk_free(url: &str) -> anyhow::Result<Option<u64>> {
    let mut connection = PgConnection::connect(url).await.context("cannot connect")?;
    let folder: Result<String, _> = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await;
    connection.close().await?;
    Ok(folder.ok().and_then(|folder| free_at(&PathBuf::from(folder))))
}

/// Writes all events, and returns their size on the disk in bytes.
pub async fn write(url: &str, mut events: Progress) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(url).await.context("cannot connect")?;
    let copy = format!("COPY events ({COLUMNS}) FROM STDIN (FORMAT binary)");
    let mut chunk = events.next().await;
    while chunk.is_some() {
        let mut to = connection.copy_in_raw(&copy).await?;
        let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
        bytes.extend_from_slice(&[0; 8]);
        let mut rows = 0;
        while let Some(events_now) = chunk.take() {
            rows += events_now.len();
            for event in &events_now {
                encode(&mut bytes, event)?;
            }
            to.send(&bytes[..]).await?;
            bytes.clear();
            chunk = events.next().await;
            if rows >= COMMIT_AFTER {
                break;
            }
        }
        to.send(&(-1_i16).to_be_bytes()[..]).await?;
        to.finish().await?;
    }
    // Does what autovacuum would have done in the meantime.
    sqlx::query("VACUUM (ANALYZE) events").execute(&mut connection).await?;
    sqlx::query("CHECKPOINT").execute(&mut connection).await?;
    let bytes = size(&mut connection).await?;
    connection.close().await?;
    Ok(bytes)
}

/// Does what autovacuum would have done for the analyst tables in the meantime.
pub async fn vacuum(url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await.context("cannot connect")?;
    sqlx::query("VACUUM (ANALYZE) meetings, attendance, recordings").execute(&mut connection).await?;
    sqlx::query("CHECKPOINT").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Size of the table with its indexes, all months together, in bytes.
async fn size(connection: &mut PgConnection) -> anyhow::Result<u64> {
    let sql =
        "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'events'::regclass";
    let bytes: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await?;
    Ok(bytes.unsigned_abs())
}

fn encode(to: &mut Vec<u8>, event: &Event) -> anyhow::Result<()> {
    to.extend_from_slice(&i16::try_from(COLUMN_COUNT)?.to_be_bytes());
    field(to, event.event_id.uuid().as_bytes())?;
    field(to, event.subscriber_id.as_bytes())?;
    field(to, event.event.as_bytes())?;
    time(to, Some(event.occurred_at))?;
    time(to, Some(event.received_at))?;
    for text in event.optional_texts() {
        match text {
            Some(text) => field(to, text.as_bytes())?,
            None => to.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    time(to, event.attendee.join_time)?;
    time(to, event.attendee.left_time)?;
    field(to, event.source.as_str().as_bytes())?;
    field(to, &1_i32.to_be_bytes())?;
    time(to, Some(event.received_at))?;
    field(to, event.request_id.as_deref().unwrap_or_default().as_bytes())?;
    field(to, event.event_info.as_bytes())
}

fn field(to: &mut Vec<u8>, bytes: &[u8]) -> anyhow::Result<()> {
    to.extend_from_slice(&i32::try_from(bytes.len())?.to_be_bytes());
    to.extend_from_slice(bytes);
    Ok(())
}

fn time(to: &mut Vec<u8>, at: Option<Millis>) -> anyhow::Result<()> {
    match at {
        Some(at) => field(to, &((at.get() - SERVER_EPOCH_MS) * 1_000).to_be_bytes()),
        None => {
            to.extend_from_slice(&(-1_i32).to_be_bytes());
            Ok(())
        }
    }
}
