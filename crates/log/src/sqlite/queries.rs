//! People's queries in SQLite: short reads on connections of their own, which are broken off when their time is over. While a
//! read goes on the WAL cannot start over: so none may go on for long.

use std::time::Duration;

use sqlx::SqlitePool;

use super::failed;
use crate::LogError;
use crate::query::Connection;
use convoke_core::time::instant;

/// Steps of SQLite's machine between two looks at the clock: some hundred microseconds.
const STEPS_PER_CHECK: i32 = 10_000;

const SQLITE_INTERRUPT: &str = "9";

/// Reads for so long at the most.
pub async fn read_within<T>(
    pool: &SqlitePool,
    within: Duration,
    read: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
) -> Result<T, LogError> {
    let work = async {
        let mut connection = pool.acquire().await?;
        let begun = instant();
        // Stays in place if nobody waits any more, and ends what is still at work for nobody.
        connection.lock_handle().await?.set_progress_handler(STEPS_PER_CHECK, move || begun.elapsed() < within);
        read(&mut Connection::Sqlite(&mut connection)).await
    };
    work.await.map_err(|error| match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == SQLITE_INTERRUPT => LogError::TooSlow(within),
        _ => failed(error),
    })
}
