//! Erasing a person in PostgreSQL.

use sqlx::AssertSqlSafe;

use super::{PostgresLog, failed};
use crate::LogError;

/// Tables whose rows are erased.
const ERASED_TABLES: &str =
    "events, attendance, kept_attendance, meetings, enrichments, invitations, people, quarantine, erased_stays";

impl PostgresLog {
    /// Implements [`Erasures::scrub`](crate::Erasures::scrub).
    pub async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
        let mut left = Vec::new();
        if vacuum {
            let mut connection = self.pool.acquire().await.map_err(failed)?;
            let sql = AssertSqlSafe(format!("VACUUM {ERASED_TABLES}"));
            sqlx::raw_sql(sql).execute(&mut *connection).await.map_err(failed)?;
            left.push(
                "free space in the tables' files, until it is reused: VACUUM FULL rewrites a table, and locks it \
                 meanwhile"
                    .to_owned(),
            );
        } else {
            left.push(
                "dead rows in the tables' files, until PostgreSQL's autovacuum removes them: --vacuum removes them now"
                    .to_owned(),
            );
        }
        left.push(
            "PostgreSQL's write-ahead log, its archive, and logical replicas that do not replicate updates".to_owned(),
        );
        Ok(left)
    }
}
