//! Users' queries in PostgreSQL: short read-only transactions, on separate connections, with a timeout in the server.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};

use super::failed;
use crate::LogError;
use crate::query::{Connection, Plan};

/// How much longer than the server the client waits, in case the server has disappeared.
const CLIENT_GRACE_TIME: Duration = Duration::from_millis(500);

const QUERY_CANCELED: &str = "57014";

impl Plan {
    /// The planner settings for one transaction.
    const fn settings(self) -> &'static str {
        match self {
            Self::Free => "",
            Self::Indexed => "SET LOCAL enable_seqscan = off",
            Self::Along => {
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"
            }
            Self::ByMeeting => {
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
            }
            Self::Ranges => {
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off; \
                 SET LOCAL enable_mergejoin = off"
            }
        }
    }
}

/// Reads in one transaction.
pub async fn read_within<T>(
    pool: &PgPool,
    within: Duration,
    plan: Plan,
    read: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
) -> Result<T, LogError> {
    let timeout = within.as_millis().max(1);
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout}; {}", plan.settings());
    let work = async {
        let mut tx = pool.begin_with(AssertSqlSafe(begin)).await?;
        let rows = read(&mut Connection::Postgres(&mut tx)).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(rows)
    };
    match tokio::time::timeout(within + CLIENT_GRACE_TIME, work).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => match error.as_database_error().and_then(|error| error.code()) {
            Some(code) if code == QUERY_CANCELED => Err(LogError::TooSlow(within)),
            _ => Err(failed(error)),
        },
        Err(_) => Err(LogError::TooSlow(within)),
    }
}
