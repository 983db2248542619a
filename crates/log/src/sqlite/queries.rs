//! Users' queries in SQLite: short reads on separate connections, with a timeout. The WAL cannot be restarted while a
//! read is running, so no read may run for long.

use std::time::Duration;

use sqlx::SqlitePool;

use super::failed;
use crate::LogError;
use crate::query::Connection;
use convoke_core::time::instant;

/// Instructions of SQLite's virtual machine between two checks of the clock: some hundred microseconds.
const STEPS_PER_CHECK: i32 = 10_000;

const SQLITE_INTERRUPT: &str = "9";

/// Reads, for at most `within`.
pub async fn read_within<T>(
    pool: &SqlitePool,
    within: Duration,
    read: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
) -> Result<T, LogError> {
    let work = async {
        let mut connection = pool.acquire().await?;
        let begun = instant();
        // Stays set if the caller stops waiting, and then ends the abandoned query.
        connection.lock_handle().await?.set_progress_handler(STEPS_PER_CHECK, move || begun.elapsed() < within);
        read(&mut Connection::Sqlite(&mut connection)).await
    };
    work.await.map_err(|error| match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == SQLITE_INTERRUPT => LogError::TooSlow(within),
        _ => failed(error),
    })
}
