//! Notes, the quarantine and what operators do, in SQLite.

use super::*;

#[async_trait]
impl Notes for SqliteLog {
    async fn note(&self, name: &str) -> Result<Option<String>, LogError> {
        sqlx::query_scalar("SELECT note FROM task_notes WHERE name = ?")
            .bind(name.to_owned())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)
    }

    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError> {
        let sql = format!(
            "INSERT INTO task_notes (name, note, at) VALUES (?, ?, {NOW})
             ON CONFLICT (name) DO UPDATE SET note = excluded.note, at = excluded.at"
        );
        self.write(sqlx::query(AssertSqlSafe(sql)).bind(name.to_owned()).bind(note.to_owned())).await.map(drop)
    }
}

#[async_trait]
impl Quarantine for SqliteLog {
    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError> {
        let rows = sqlx::query(
            "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine WHERE id > ? ORDER BY id LIMIT ?",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(quarantined).collect::<Result<_, _>>().map_err(failed)
    }

    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError> {
        let row =
            sqlx::query("SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine WHERE id = ?")
                .bind(id)
                .fetch_optional(&self.readers)
                .await
                .map_err(failed)?;
        row.as_ref().map(quarantined).transpose().map_err(failed)
    }
}

#[async_trait]
impl Operations for SqliteLog {
    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        // The id is led by the time: a range of times is a range of the unique index. The planner may still choose to walk
        // in the log's order.
        let sql = format!(
            "SELECT {RECORD} FROM events
              WHERE seq > ?1 AND seq <= coalesce(?2, 9223372036854775807)
                AND (?3 IS NULL OR occurred_at >= ?3) AND (?4 IS NULL OR occurred_at < ?4)
                AND (?5 IS NULL OR event = ?5) AND (?6 IS NULL OR meeting_id = ?6 OR meeting_uuid = ?6)
              ORDER BY seq LIMIT ?7"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(after.0)
            .bind(filter.up_to.map(|seq| seq.0))
            .bind(filter.since.map(|time| time.to_string()))
            .bind(filter.until.map(|time| time.to_string()))
            .bind(filter.event.clone())
            .bind(filter.meeting.clone())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(record).collect::<Result<_, _>>().map_err(failed)
    }

    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError> {
        let mut counts = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(500) {
            let list = vec!["?"; chunk.len()].join(", ");
            let sql = format!("SELECT event_id, count(*) FROM events WHERE event_id IN ({list}) GROUP BY event_id");
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            for id in chunk {
                query = query.bind(id.to_string());
            }
            for row in query.fetch_all(&self.readers).await.map_err(failed)? {
                counts.insert(event_id(&row, 0).map_err(failed)?, row.get::<i64, _>(1).unsigned_abs());
            }
        }
        Ok(counts)
    }

    async fn places(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError> {
        let list = serde_json::Value::from_iter(ids.iter().map(ToString::to_string)).to_string();
        let rows = sqlx::query("SELECT event_id, seq FROM events WHERE event_id IN (SELECT value FROM json_each(?))")
            .bind(list)
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok((event_id(row, 0)?, Seq(row.try_get(1)?)))).collect::<Result<_, _>>().map_err(failed)
    }

    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError> {
        let rows = sqlx::query(
            "SELECT seq, event_id, reason FROM set_aside WHERE cursor = ? AND seq > ? ORDER BY seq LIMIT ?",
        )
        .bind(cursor.to_owned())
        .bind(after.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| Ok(SetAside { seq: Seq(row.get(0)), event_id: event_id(row, 1)?, reason: row.get(2) }))
            .collect::<Result<_, _>>()
            .map_err(failed)
    }

    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError> {
        let delete = sqlx::query("DELETE FROM set_aside WHERE cursor = ? AND seq = ?");
        self.write(delete.bind(cursor.to_owned()).bind(seq.0)).await.map(drop)
    }

    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError> {
        self.write(sqlx::query("DELETE FROM quarantine WHERE id = ?").bind(id)).await.map(|deleted| deleted == 1)
    }

    async fn erased_messages(&self) -> Result<u64, LogError> {
        let sum = sqlx::query_scalar::<_, i64>("SELECT coalesce(sum(messages), 0) FROM erasures");
        sum.fetch_one(&self.readers).await.map(i64::unsigned_abs).map_err(failed)
    }
}
