//! The log itself in SQLite.

use super::*;
use crate::{Committed, CursorState, Heartbeat, Lag, Leased, Log, LogReader, Moved};

#[async_trait]
impl LogReader for SqliteLog {
    async fn read(&self, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        let sql = format!("SELECT {} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", rows::RECORD);
        let rows =
            sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(limit).fetch_all(&self.readers).await.map_err(failed)?;
        rows.iter().map(rows::record).collect::<Result<_, _>>().map_err(failed)
    }

    async fn find(&self, id: EventId) -> Result<Option<Seq>, LogError> {
        sqlx::query_scalar("SELECT seq FROM events WHERE event_id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map(|seq| seq.map(Seq))
            .map_err(failed)
    }

    async fn head(&self) -> Result<Seq, LogError> {
        sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM events")
            .fetch_one(&self.readers)
            .await
            .map(Seq)
            .map_err(failed)
    }

    async fn now(&self) -> Result<Millis, LogError> {
        self.one::<(Millis,)>(sqlx::query_as(AssertSqlSafe(format!("SELECT {NOW}")))).await.map(|(now,)| now)
    }

    async fn cursors(&self) -> Result<Vec<CursorState>, LogError> {
        let sql = format!(
            "SELECT name, position, CASE WHEN lease_until > {NOW} THEN lease_owner END AS owner FROM cursors ORDER BY name"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.readers).await.map_err(failed)?;
        Ok(rows
            .iter()
            .map(|row| CursorState { name: row.get(0), position: Seq(row.get(1)), owner: row.get(2) })
            .collect())
    }

    async fn lag(&self, cursor: &str) -> Result<Lag, LogError> {
        let row = sqlx::query(
            "WITH here AS (SELECT coalesce((SELECT position FROM cursors WHERE name = ?1), 0) AS position)
             SELECT (SELECT count(*) FROM (SELECT 1 FROM events, here WHERE seq > position LIMIT ?2)),
                    (SELECT max(seq) FROM events) - (SELECT position FROM here),
                    (SELECT received_at FROM events, here WHERE seq > position ORDER BY seq LIMIT 1)",
        )
        .bind(cursor.to_owned())
        .bind(Lag::EXACT)
        .fetch_one(&self.readers)
        .await
        .map_err(failed)?;
        let (counted, distance): (i64, Option<i64>) = (row.get(0), row.get(1));
        let events = if counted < Lag::EXACT { counted } else { counted.max(distance.unwrap_or(0)) };
        let oldest = row.try_get(2).map_err(failed)?;
        Ok(Lag { events: events.unsigned_abs(), oldest })
    }

    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError> {
        let sql = format!("SELECT at, {NOW}, file FROM heartbeat");
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(&self.readers).await.map_err(failed)?;
        let heartbeat = |row: SqliteRow| {
            let at: Millis = row.try_get(0)?;
            let written_into: Option<i64> = row.try_get(2)?;
            let elsewhere = written_into.is_some_and(|file| self.files.mark().is_some_and(|here| here != file));
            Ok(Heartbeat { at, age: row.try_get::<Millis, _>(1)?.since(at), elsewhere })
        };
        row.map(heartbeat).transpose().map_err(failed)
    }
}

#[async_trait]
impl Log for SqliteLog {
    async fn append(&self, batch: &[Append]) -> Result<Committed, LogError> {
        let mut writer = self.writer().await?;
        // Out of its place while it is in use: if this future is dropped half-way, or anything fails, the connection goes
        // with it, and so does the transaction that it may be in.
        let Some(mut connection) = writer.0.take() else { return Err(LogError::unavailable("no connection")) };
        let result = async {
            let connection = &mut connection;
            let Inserted { duplicates, first } = self.insert_events(connection, &crate::log::events(batch)).await?;
            let outcomes = crate::log::outcomes(batch, &duplicates);
            if outcomes.iter().any(|outcome| *outcome != Appended::Stored) {
                Self::note(connection, batch, &outcomes).await?;
            }
            Ok(Committed { outcomes, first })
        }
        .await
        .map_err(|error| self.explained(failed(error)));
        if result.is_ok() {
            *writer.0 = Some(connection);
        }
        // Whoever opens the database from now on finds it.
        self.files.check()?;
        result
    }

    async fn quarantine(&self, unreadable: &Unreadable, deliveries: u32) -> Result<(), LogError> {
        let mut writer = self.writer().await?;
        insert_quarantined(writer.connection(), unreadable, deliveries).await.map_err(failed)?;
        self.files.check()
    }

    async fn probe(&self) -> Result<(), LogError> {
        self.write(sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO probe (id, at) VALUES (1, {NOW}) ON CONFLICT (id) DO UPDATE SET at = excluded.at"
        ))))
        .await
        .map(drop)
    }

    async fn beat(&self) -> Result<(), LogError> {
        let sql = format!(
            "INSERT INTO heartbeat (id, at, file) VALUES (1, {NOW}, ?)
             ON CONFLICT (id) DO UPDATE SET at = excluded.at, file = excluded.file"
        );
        self.write(sqlx::query(AssertSqlSafe(sql)).bind(self.files.mark())).await.map(drop)
    }

    async fn lease(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<Option<Leased>, LogError> {
        let mut writer = self.writer().await?;
        let sql = format!(
            "INSERT INTO cursors (name, position, lease_owner, lease_until, updated_at)
             VALUES (?1, 0, ?2, strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?3), {NOW})
             ON CONFLICT (name) DO UPDATE SET lease_owner = excluded.lease_owner, lease_until = excluded.lease_until
              WHERE lease_owner IS NULL OR lease_owner = excluded.lease_owner
                 OR lease_until NOT BETWEEN {NOW} AND strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?3, ?3)
             RETURNING position, coalesce(wanted_by <> ?2 AND wanted_until > {NOW}, FALSE)"
        );
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(cursor.to_owned())
            .bind(owner.to_owned())
            .bind(seconds(ttl))
            .fetch_optional(writer.connection())
            .await
            .map(|found| found.map(|(position, wanted)| Leased { position: Seq(position), wanted }))
            .map_err(failed)
    }

    async fn advance(&self, cursor: &str, owner: &str, to: Seq, ttl: Duration) -> Result<Moved, LogError> {
        let mut writer = self.writer().await?;
        advance(writer.connection(), cursor, owner, Some(to), ttl)
            .await
            .map(|moved| moved.map_or(Moved::LeaseLost, |wanted| Moved::Yes { wanted }))
            .map_err(failed)
    }

    async fn claim(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<(), LogError> {
        let sql = format!(
            "UPDATE cursors SET wanted_by = ?2, wanted_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?3)
              WHERE name = ?1 AND (wanted_by IS NULL OR wanted_by = ?2 OR wanted_until <= {NOW})"
        );
        let claim = sqlx::query(AssertSqlSafe(sql));
        self.write(claim.bind(cursor.to_owned()).bind(owner.to_owned()).bind(seconds(ttl))).await.map(drop)
    }

    async fn release(&self, cursor: &str, owner: &str) -> Result<(), LogError> {
        let sql = format!(
            "UPDATE cursors SET lease_owner = CASE WHEN wanted_by <> ?2 AND wanted_until > {NOW} THEN wanted_by END,
                    lease_until = wanted_until, wanted_by = NULL, wanted_until = NULL
              WHERE name = ?1 AND lease_owner = ?2"
        );
        self.write(sqlx::query(AssertSqlSafe(sql)).bind(cursor.to_owned()).bind(owner.to_owned())).await.map(drop)
    }

    async fn set_aside(&self, cursor: &str, seq: Seq, id: EventId, reason: &str) -> Result<(), LogError> {
        let sql = format!(
            "INSERT INTO set_aside (cursor, seq, event_id, reason, at) VALUES (?, ?, ?, ?, {NOW}) ON CONFLICT DO NOTHING"
        );
        self.write(
            sqlx::query(AssertSqlSafe(sql))
                .bind(cursor.to_owned())
                .bind(seq.0)
                .bind(id.to_string())
                .bind(reason.to_owned()),
        )
        .await
        .map(drop)
    }
}
