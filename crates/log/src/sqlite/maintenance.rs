//! Upkeep in SQLite.

use super::*;
use crate::disk::Disk;
use crate::maintenance::COUNT_QUARANTINED;
use crate::migrations::{run_migrations, somebody_elses};
use crate::{Counts, RetentionHeld, Schema, Unmigrated};

#[async_trait]
impl Maintenance for SqliteLog {
    fn describe(&self) -> String {
        format!("SQLite {}", self.files.path().display())
    }

    async fn migrate(&self, apply: bool) -> Result<Schema, LogError> {
        if !apply && self.files.now().is_none() {
            let path = std::path::absolute(self.files.path()).unwrap_or_else(|_| self.files.path().to_owned());
            let database = format!("SQLite {}", path.display());
            return Err(LogError::Unmigrated { database, tables: Unmigrated::NoFile });
        }
        let mut writer = self.writer().await?;
        // Put back if all goes well. Else the next try opens the file anew: a connection that found a file which it may only
        // read never writes, whatever is mended.
        let Some(mut connection) = writer.0.take() else { return Err(LogError::unavailable("no connection")) };
        // One transaction around all of it: sqlx locks nothing in SQLite, so another process could be in the middle of the
        // same migrations.
        let begin = if apply { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let explain = |error| self.explained(failed(error));
        let mut tx = connection.begin_with(begin).await.map_err(explain)?;
        let place = self.describe();
        let found = run_migrations(&MIGRATIONS, &mut *tx, false, place.clone(), explain).await;
        if let Err(LogError::Unmigrated { tables: Unmigrated::Empty, .. }) = found {
            let theirs = "SELECT name FROM sqlite_schema WHERE type = 'table'
                             AND name IN ('events', 'cursors', 'quarantine', 'meetings', 'attendance')";
            let theirs: Option<String> = sqlx::query_scalar(theirs).fetch_optional(&mut *tx).await.map_err(explain)?;
            if let Some(table) = theirs {
                return Err(somebody_elses(&place, &table));
            }
        }
        let schema = match found {
            Err(LogError::Unmigrated { .. }) if apply => {
                run_migrations(&MIGRATIONS, &mut *tx, true, place, explain).await?
            }
            found => found?,
        };
        // A database that was restored from its rows may count anew, and no row may get a place that cursors have passed. Looked at
        // first, as a transaction that began by reading cannot write beside a service that does.
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
            tracing::warn!("the log's count was behind its rows, as after a restore: moved on");
        }
        tx.commit().await.map_err(explain)?;
        *writer.0 = Some(connection);
        Ok(schema)
    }

    async fn maintain(&self, now: Millis) -> Result<(), LogError> {
        self.expire(now).await?;
        let length = tokio::fs::metadata(self.files.wal()).await.map_or(0, |metadata| metadata.len());
        if length > CHECKPOINT_BYTES {
            let mut connection = self.readers.acquire().await.map_err(failed)?;
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut *connection).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn retention_held(&self, now: Millis) -> Result<Option<RetentionHeld>, LogError> {
        let Some(retention) = self.retention else { return Ok(None) };
        Ok(self.known_of_retention(now).await?.held(now, retention))
    }

    fn maintenance_interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    async fn weaknesses(&self) -> Result<Vec<String>, LogError> {
        // As in Linux's statfs(2).
        let weakness = match rustix::fs::statfs(self.directory()).map(|stat| stat.f_type & 0xffff_ffff) {
            Ok(0x6969) => "on NFS, whose locks and shared memory SQLite cannot rely on: put it on a local disk",
            Ok(0xff53_4d42 | 0xfe53_4d42 | 0x517b) => {
                "on an SMB share, where SQLite's WAL does not work: put it on a local disk"
            }
            Ok(0x0102_1994) => "in memory (tmpfs), and gone with the next restart of the machine: put it on a disk",
            Ok(0x794c_7630) => {
                "in a container's own layer (overlayfs), and gone with the container: put it on a volume"
            }
            _ => return Ok(Vec::new()),
        };
        Ok(vec![format!("{} lies {weakness}", self.files.path().display())])
    }

    fn disk(&self) -> Option<Disk> {
        let stat = rustix::fs::statvfs(self.directory()).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Disk { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    async fn counts(&self) -> Result<Counts, LogError> {
        let mut counts = Counts {
            quarantined: sqlx::query_scalar(COUNT_QUARANTINED).fetch_one(&self.readers).await.map_err(failed)?,
            ..Counts::default()
        };
        for row in sqlx::query("SELECT cursor, count(*) FROM set_aside GROUP BY cursor")
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?
        {
            counts.set_aside.insert(row.get(0), row.get(1));
        }
        for row in
            sqlx::query("SELECT subscriber_id, at FROM handshakes").fetch_all(&self.readers).await.map_err(failed)?
        {
            counts.handshakes.insert(row.get(0), row.try_get(1).map_err(failed)?);
        }
        Ok(counts)
    }

    async fn close(&self) {
        tokio::join!(self.readers.close(), self.people.close());
        let connections = [self.anchor.lock().await.take(), self.writer.lock().await.take()];
        if self.files.check().is_err() {
            // The last one to close deletes the WAL, by its name: it may be that of another database by now.
            self.files.part_with_wal();
            return std::mem::forget(connections);
        }
        for connection in connections.into_iter().flatten() {
            // Checkpoints and deletes the WAL, if no other process has the database open.
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "could not close the database cleanly; nothing is lost");
            }
        }
    }
}
