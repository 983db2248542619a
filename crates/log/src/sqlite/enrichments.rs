//! The runs that are to be enriched, in SQLite.

use super::{SqliteLog, failed};
use crate::LogError;
use crate::work_lists::LONGEST_UUID;
use convoke_core::time::Millis;

pub(super) async fn queue_runs(log: &SqliteLog, now: Millis) -> Result<u64, LogError> {
    // Looked for without the writer: it is a scan, and mostly in vain.
    let news: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT m.subscriber_id, m.meeting_uuid, m.status, m.modifications FROM meetings m
           LEFT JOIN enrichments e ON e.subscriber_id = m.subscriber_id AND e.meeting_uuid = m.meeting_uuid
          WHERE m.status <> 'cancelled' AND octet_length(m.meeting_uuid) <= ?
            AND (e.subscriber_id IS NULL OR e.modifications < m.modifications
                 OR e.state = 'given_up' AND e.status <> m.status)
          LIMIT 1000",
    )
    .bind(LONGEST_UUID)
    .fetch_all(&log.readers)
    .await
    .map_err(failed)?;
    if news.is_empty() {
        return Ok(0);
    }
    let list = serde_json::json!(news).to_string();
    log.write(
        sqlx::query(
            "INSERT INTO enrichments (subscriber_id, meeting_uuid, status, modifications, state, tries, due_at)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, 'waiting', 0, ? FROM json_each(?) WHERE TRUE
             ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
                SET status = excluded.status, modifications = excluded.modifications, state = 'waiting', tries = 0,
                    due_at = excluded.due_at, given_up_at = NULL",
        )
        .bind(now)
        .bind(list),
    )
    .await
}
