//! Maintenance in SQLite.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::{SqliteLog, failed};
use crate::disk::Disk;
use crate::migrations::{run_migrations, somebody_elses};
use crate::retention::RetentionQueries;
use crate::{LogError, Schema, Unmigrated};
use convoke_core::time::Millis;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/sqlite");

/// A WAL longer than this is checkpointed by [`SqliteLog::maintain`].
const MAX_WAL_BYTES: u64 = 2 << 20;

impl SqliteLog {
    pub fn describe(&self) -> String {
        format!("SQLite {}", self.files.path().display())
    }

    pub async fn migrate(&self, apply: bool) -> Result<Schema, LogError> {
        if !apply && self.files.now().is_none() {
            let path = std::path::absolute(self.files.path()).unwrap_or_else(|_| self.files.path().to_owned());
            let database = format!("SQLite {}", path.display());
            return Err(LogError::Unmigrated { database, tables: Unmigrated::NoFile });
        }
        let mut place = self.writer().await?;
        // Put back only on success. Otherwise the next attempt opens the file again: a connection that could only read
        // the file never writes, even after the permissions are fixed.
        let Some(mut connection) = place.take() else { return Err(LogError::unavailable("no connection")) };
        // One transaction around everything: sqlx takes no lock in SQLite, so another process could be
        // running the same migrations.
        let begin = if apply { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let explain = |error| self.explained(failed(error));
        let mut tx = connection.begin_with(begin).await.map_err(explain)?;
        let database = self.describe();
        let found = run_migrations(&MIGRATIONS, &mut *tx, false, database.clone(), explain).await;
        if let Err(LogError::Unmigrated { tables: Unmigrated::Empty, .. }) = found {
            let theirs = "SELECT name FROM sqlite_schema WHERE type = 'table'
                             AND name IN ('events', 'cursors', 'quarantine', 'meetings', 'attendance')";
            let theirs: Option<String> = sqlx::query_scalar(theirs).fetch_optional(&mut *tx).await.map_err(explain)?;
            if let Some(table) = theirs {
                return Err(somebody_elses(&database, &table));
            }
        }
        let schema = match found {
            Err(LogError::Unmigrated { .. }) if apply => {
                run_migrations(&MIGRATIONS, &mut *tx, true, database, explain).await?
            }
            found => found?,
        };
        // A database restored from its rows may count from the start again, and no row may get a position that cursors have
        // passed. Checked first, because a transaction that began with a read cannot write beside a running service.
        let behind: bool = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT {LAST_GIVEN} > coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)"
        )))
        .fetch_one(&mut *tx)
        .await
        .map_err(explain)?;
        if behind {
            if !apply {
                tx.commit().await.map_err(explain)?;
                tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(explain)?;
            }
            count_on(&mut tx).await.map_err(explain)?;
            tracing::warn!("the log's counter was behind its rows, as after a restore: it was advanced");
        }
        tx.commit().await.map_err(explain)?;
        *place = Some(connection);
        Ok(schema)
    }

    pub async fn maintain(&self, common: &dyn RetentionQueries, now: Millis) -> Result<(), LogError> {
        self.expire(common, now).await?;
        let length = tokio::fs::metadata(self.files.wal()).await.map_or(0, |metadata| metadata.len());
        if length > MAX_WAL_BYTES {
            let mut connection = self.readers.acquire().await.map_err(failed)?;
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut *connection).await.map_err(failed)?;
        }
        Ok(())
    }

    pub fn weaknesses(&self) -> Vec<String> {
        // Magic numbers of Linux's statfs(2).
        let weakness = match rustix::fs::statfs(self.directory()).map(|stat| stat.f_type & 0xffff_ffff) {
            Ok(0x6969) => "on NFS, whose locks and shared memory SQLite cannot rely on: put it on a local disk",
            Ok(0xff53_4d42 | 0xfe53_4d42 | 0x517b) => {
                "on an SMB share, where SQLite's WAL does not work: put it on a local disk"
            }
            Ok(0x0102_1994) => "in memory (tmpfs), and is lost when the machine restarts: put it on a disk",
            Ok(0x794c_7630) => {
                "in a container's own layer (overlayfs), and is lost with the container: put it on a volume"
            }
            _ => return Vec::new(),
        };
        vec![format!("{} is {weakness}", self.files.path().display())]
    }

    pub fn disk(&self) -> Option<Disk> {
        let stat = rustix::fs::statvfs(self.directory()).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Disk { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    pub async fn close(&self) {
        tokio::join!(self.readers.close(), self.people.close());
        let connections = [self.anchor.lock().await.take(), self.writer.lock().await.take()];
        if self.files.check().is_err() {
            // Closing the last connection deletes the WAL by its name, which may belong to another database by now.
            self.files.part_with_wal();
            self.files.closed();
            return std::mem::forget(connections);
        }
        for connection in connections.into_iter().flatten() {
            // Checkpoints and deletes the WAL, if no other process has the database open.
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "could not close the database cleanly; nothing is lost");
            }
        }
        self.files.closed();
    }
}

/// The highest position that was assigned, as far as the tables show.
const LAST_GIVEN: &str =
    "max(coalesce((SELECT max(seq) FROM events), 0), coalesce((SELECT max(position) FROM cursors), 0),
     coalesce((SELECT max(seq) FROM set_aside), 0), coalesce((SELECT max(last_seq) FROM fetches), 0))";

/// Makes the log count from above every assigned position.
async fn count_on(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT INTO sqlite_sequence (name, seq)
             SELECT 'events', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events');
         UPDATE sqlite_sequence SET seq = max(seq, {LAST_GIVEN}) WHERE name = 'events'"
    )))
    .execute(connection)
    .await
    .map(drop)
}
