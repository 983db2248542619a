//! Notes, the quarantine and what operators do.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::{Backend, MEMBER, NOW, array, failed, rows};
use crate::{Filter, LogError, Notes, Operations, Quarantine, Quarantined, SetAside};
use convoke_core::event::Record;
use convoke_core::id::{EventId, Seq};

/// Ids that are counted at a time.
const MAX_IDS: usize = 500;

#[async_trait]
impl Notes for Backend {
    async fn note(&self, name: &str) -> Result<Option<String>, LogError> {
        let note = sqlx::query_as("SELECT note FROM task_notes WHERE name = $1").bind(name);
        self.optional::<(String,)>(note).await.map(|found| found.map(|(note,)| note))
    }

    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError> {
        let sql = format!(
            "INSERT INTO task_notes (name, note, at) VALUES ($1, $2, {NOW})
             ON CONFLICT (name) DO UPDATE SET note = excluded.note, at = excluded.at"
        );
        self.write(sqlx::query(AssertSqlSafe(sql)).bind(name).bind(note)).await.map(drop)
    }
}

#[async_trait]
impl Quarantine for Backend {
    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError> {
        let list = "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine
                     WHERE id > $1 ORDER BY id LIMIT $2";
        self.all(sqlx::query_as(list).bind(after).bind(i64::from(limit))).await
    }

    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError> {
        let get = "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine WHERE id = $1";
        self.optional(sqlx::query_as(get).bind(id)).await
    }
}

#[async_trait]
impl Operations for Backend {
    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        // A person's command, over any stretch of the log: it may take its time. The planner may walk in the log's order, or, as
        // ids are led by the time, along the unique index.
        let sql = format!(
            "SELECT {} FROM events
              WHERE seq > $1 AND seq <= coalesce($2, 9223372036854775807)
                AND (CAST($3 AS timestamptz) IS NULL OR occurred_at >= $3)
                AND (CAST($4 AS timestamptz) IS NULL OR occurred_at < $4)
                AND (CAST($5 AS text) IS NULL OR event = $5)
                AND (CAST($6 AS text) IS NULL OR meeting_id = $6 OR meeting_uuid = $6)
              ORDER BY seq LIMIT $7",
            rows::RECORD
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(after)
            .bind(filter.up_to)
            .bind(filter.since)
            .bind(filter.until)
            .bind(&filter.event)
            .bind(&filter.meeting)
            .bind(i64::from(limit))
            .fetch_all(self.pool())
            .await
            .map_err(failed)?;
        rows.iter().map(rows::record).collect::<Result<_, _>>().map_err(failed)
    }

    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError> {
        let sql = format!("SELECT event_id, count(*) FROM events WHERE event_id {MEMBER} GROUP BY event_id");
        let mut counts = HashMap::with_capacity(ids.len());
        for some in ids.chunks(MAX_IDS) {
            let some = sqlx::query_as(AssertSqlSafe(sql.clone())).bind(array(some));
            let rows: Vec<(EventId, i64)> = some.fetch_all(self.pool()).await.map_err(failed)?;
            counts.extend(rows.into_iter().map(|(id, count)| (id, count.unsigned_abs())));
        }
        Ok(counts)
    }

    async fn places(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError> {
        let sql = format!("SELECT event_id, seq FROM events WHERE event_id {MEMBER}");
        let places: Vec<(EventId, Seq)> = self.all(sqlx::query_as(AssertSqlSafe(sql)).bind(array(ids))).await?;
        Ok(places.into_iter().collect())
    }

    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError> {
        let list = "SELECT seq, event_id, reason FROM set_aside WHERE cursor = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        self.all(sqlx::query_as(list).bind(cursor).bind(after).bind(i64::from(limit))).await
    }

    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError> {
        let delete = sqlx::query("DELETE FROM set_aside WHERE cursor = $1 AND seq = $2");
        self.write(delete.bind(cursor).bind(seq)).await.map(drop)
    }

    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError> {
        self.wrote_one(sqlx::query("DELETE FROM quarantine WHERE id = $1").bind(id)).await
    }

    async fn erased_messages(&self) -> Result<u64, LogError> {
        let sum = sqlx::query_as("SELECT CAST(coalesce(sum(messages), 0) AS bigint) FROM erasures");
        self.one::<(i64,)>(sum).await.map(|(sum,)| sum.unsigned_abs())
    }
}
