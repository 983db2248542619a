//! Notes, the quarantine and what operators do, in PostgreSQL.

use super::*;

#[async_trait]
impl Notes for PostgresLog {
    async fn note(&self, name: &str) -> Result<Option<String>, LogError> {
        bounded(sqlx::query_scalar("SELECT note FROM task_notes WHERE name = $1").bind(name).fetch_optional(&self.pool))
            .await
    }

    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError> {
        let keep = sqlx::query(
            "INSERT INTO task_notes (name, note, at) VALUES ($1, $2, now())
             ON CONFLICT (name) DO UPDATE SET note = excluded.note, at = excluded.at",
        );
        bounded(keep.bind(name).bind(note).execute(&self.pool)).await.map(drop)
    }
}

#[async_trait]
impl Quarantine for PostgresLog {
    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError> {
        let list = sqlx::query(
            "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine
              WHERE id > $1 ORDER BY id LIMIT $2",
        );
        let rows = bounded(list.bind(after).bind(i64::from(limit)).fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(quarantined).collect())
    }

    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError> {
        let get = sqlx::query(
            "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine WHERE id = $1",
        );
        let row = bounded(get.bind(id).fetch_optional(&self.pool)).await?;
        Ok(row.as_ref().map(quarantined))
    }
}

#[async_trait]
impl Operations for PostgresLog {
    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        let sql = format!(
            "SELECT {RECORD} FROM events
              WHERE seq > $1 AND ($2::bigint IS NULL OR seq <= $2)
                AND ($3::timestamptz IS NULL OR occurred_at >= $3) AND ($4::timestamptz IS NULL OR occurred_at < $4)
                AND ($5::text IS NULL OR event = $5) AND ($6::text IS NULL OR meeting_id = $6 OR meeting_uuid = $6)
              ORDER BY seq LIMIT $7"
        );
        // A person's command, over any stretch of the log: it may take its time.
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(after.0)
            .bind(filter.up_to.map(|seq| seq.0))
            .bind(filter.since.map(Millis::date_time))
            .bind(filter.until.map(Millis::date_time))
            .bind(&filter.event)
            .bind(&filter.meeting)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(record).collect::<Result<_, _>>().map_err(failed)
    }

    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows = sqlx::query("SELECT event_id, count(*) FROM events WHERE event_id = ANY ($1) GROUP BY event_id")
            .bind(ids)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(rows.iter().map(|row| (EventId::from_uuid(row.get(0)), row.get::<i64, _>(1).unsigned_abs())).collect())
    }

    async fn places(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let places = sqlx::query("SELECT event_id, seq FROM events WHERE event_id = ANY ($1)").bind(ids);
        let rows = bounded(places.fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(|row| (EventId::from_uuid(row.get(0)), Seq(row.get(1)))).collect())
    }

    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError> {
        let list = sqlx::query(
            "SELECT seq, event_id, reason FROM set_aside WHERE cursor = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        );
        let rows = bounded(list.bind(cursor).bind(after.0).bind(i64::from(limit)).fetch_all(&self.pool)).await?;
        Ok(rows
            .iter()
            .map(|row| SetAside { seq: Seq(row.get(0)), event_id: EventId::from_uuid(row.get(1)), reason: row.get(2) })
            .collect())
    }

    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError> {
        let delete = sqlx::query("DELETE FROM set_aside WHERE cursor = $1 AND seq = $2");
        bounded(delete.bind(cursor).bind(seq.0).execute(&self.pool)).await.map(drop)
    }

    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError> {
        let done = bounded(sqlx::query("DELETE FROM quarantine WHERE id = $1").bind(id).execute(&self.pool)).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn erased_messages(&self) -> Result<u64, LogError> {
        let sum = sqlx::query_scalar::<_, i64>("SELECT coalesce(sum(messages), 0)::bigint FROM erasures");
        bounded(sum.fetch_one(&self.pool)).await.map(i64::unsigned_abs)
    }
}
