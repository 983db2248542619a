//! Notes, the quarantine and operators' operations.

use std::collections::HashMap;

use async_trait::async_trait;

use super::Backend;
use super::rows::{self, RecordRow};
use crate::query::Query;
use crate::{Filter, LogError, Notes, Operations, Quarantine, Quarantined, SetAside};
use convoke_core::event::Record;
use convoke_core::id::{EventId, Seq};

/// Maximum number of ids per query when counting.
const MAX_IDS: usize = 500;

#[async_trait]
impl Notes for Backend {
    async fn note(&self, name: &str) -> Result<Option<String>, LogError> {
        let note = self.query("SELECT note FROM task_notes WHERE name = $1").bind(name);
        self.optional::<(String,)>(note).await.map(|found| found.map(|(note,)| note))
    }

    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError> {
        let now = self.dialect().now();
        let sql = format!(
            "INSERT INTO task_notes (name, note, at) VALUES ($1, $2, {now})
             ON CONFLICT (name) DO UPDATE SET note = excluded.note, at = excluded.at"
        );
        self.write(self.query(sql).bind(name).bind(note)).await.map(drop)
    }
}

#[async_trait]
impl Quarantine for Backend {
    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError> {
        let list = "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine
                     WHERE id > $1 ORDER BY id LIMIT $2";
        self.all(self.query(list).bind(after).bind(i64::from(limit))).await
    }

    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError> {
        let get = "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine WHERE id = $1";
        self.optional(self.query(get).bind(id)).await
    }
}

/// The rows after `$1` that match a [`Filter`].
const SELECTED: &str = "FROM events
      WHERE seq > $1 AND seq <= coalesce($2, 9223372036854775807)
        AND (CAST($3 AS timestamptz) IS NULL OR occurred_at >= $3)
        AND (CAST($4 AS timestamptz) IS NULL OR occurred_at < $4)
        AND (CAST($5 AS text) IS NULL OR event = $5)
        AND (CAST($6 AS text) IS NULL OR meeting_id = $6 OR meeting_uuid = $6)";

impl Backend {
    fn selected(&self, sql: String, filter: &Filter, after: Seq, limit: i64) -> Query {
        self.query(sql)
            .bind(after)
            .bind(filter.up_to)
            .bind(filter.since)
            .bind(filter.until)
            .bind(filter.event.as_deref())
            .bind(filter.meeting.as_deref())
            .bind(limit)
    }
}

#[async_trait]
impl Operations for Backend {
    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        // An operator's command may read any part of the log and take long. The planner can read in log order or,
        // because ids start with the time, along the unique index.
        let sql = format!("SELECT {} {SELECTED} ORDER BY seq LIMIT $7", rows::RECORD);
        let select = self.selected(sql, filter, after, limit.into());
        Ok(self.all_in_time(select).await?.into_iter().map(|RecordRow(record)| record).collect())
    }

    async fn count_selected(&self, filter: &Filter, limit: u64) -> Result<u64, LogError> {
        let sql = format!("SELECT count(*) FROM (SELECT 1 {SELECTED} LIMIT $7) AS wanted");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (count,): (i64,) = self.one(self.selected(sql, filter, Seq::START, limit)).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError> {
        let among = self.dialect().among("$1");
        let sql = format!("SELECT event_id, count(*) FROM events WHERE event_id {among} GROUP BY event_id");
        let mut counts = HashMap::with_capacity(ids.len());
        for some in ids.chunks(MAX_IDS) {
            let rows: Vec<(EventId, i64)> = self.all_in_time(self.query(sql.clone()).bind_list(some)).await?;
            counts.extend(rows.into_iter().map(|(id, count)| (id, count.unsigned_abs())));
        }
        Ok(counts)
    }

    async fn find(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError> {
        let sql = format!("SELECT event_id, seq FROM events WHERE event_id {}", self.dialect().among("$1"));
        let found: Vec<(EventId, Seq)> = self.all(self.query(sql).bind_list(ids)).await?;
        Ok(found.into_iter().collect())
    }

    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError> {
        let list = "SELECT seq, event_id, reason FROM set_aside WHERE cursor = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        self.all(self.query(list).bind(cursor).bind(after).bind(i64::from(limit))).await
    }

    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError> {
        let delete = self.query("DELETE FROM set_aside WHERE cursor = $1 AND seq = $2");
        self.write(delete.bind(cursor).bind(seq)).await.map(drop)
    }

    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError> {
        self.write(self.query("DELETE FROM quarantine WHERE id = $1").bind(id)).await.map(|rows| rows == 1)
    }

    async fn erased_messages(&self) -> Result<u64, LogError> {
        let sum = self.query("SELECT CAST(coalesce(sum(messages), 0) AS bigint) FROM erasures");
        self.one::<(i64,)>(sum).await.map(|(sum,)| sum.unsigned_abs())
    }
}
