//! Erasing a person in SQLite.

use std::time::Duration;

use sqlx::Row as _;

use super::{SqliteLog, failed};
use crate::LogError;
use convoke_core::time::instant;

/// How long to wait for others that keep the WAL from being emptied.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(5);
const CHECKPOINT_RETRY_DELAY: Duration = Duration::from_millis(100);

impl SqliteLog {
    /// Implements [`Erasures::scrub`](crate::Erasures::scrub).
    pub async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
        let mut left = Vec::new();
        if vacuum {
            let vacuum = "PRAGMA secure_delete = ON; VACUUM";
            self.write(async |connection| sqlx::raw_sql(vacuum).execute(connection).await).await?;
        } else {
            left.push(
                "free space in the database's file, where older versions of a row may remain: --vacuum rewrites the \
                 file, and events wait meanwhile"
                    .to_owned(),
            );
        }
        let begun = instant();
        loop {
            let checkpoint = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)");
            let row = self.write(async |connection| checkpoint.fetch_one(connection).await).await?;
            if row.try_get::<i64, _>(0).map_err(failed)? == 0 {
                break;
            }
            if begun.elapsed() > CHECKPOINT_TIMEOUT {
                left.push(format!(
                    "{}-wal, which is in use: new events overwrite it, and it is removed when the service stops",
                    self.files.path().display()
                ));
                break;
            }
            tokio::time::sleep(CHECKPOINT_RETRY_DELAY).await;
        }
        left.push(
            "copies of the database's file, and older versions that the file system or the disk keeps".to_owned(),
        );
        Ok(left)
    }
}
