//! The runs that are to be enriched, in PostgreSQL.

use super::{PostgresLog, UPKEEP, failed};
use crate::LogError;
use crate::work_lists::LONGEST_UUID;
use convoke_core::time::Millis;

pub(super) async fn queue_runs(log: &PostgresLog, now: Millis) -> Result<u64, LogError> {
    let queue = sqlx::query(
        "INSERT INTO enrichments (subscriber_id, meeting_uuid, status, modifications, state, tries, due_at)
         SELECT m.subscriber_id, m.meeting_uuid, m.status, m.modifications, 'waiting', 0, $1 FROM meetings m
           LEFT JOIN enrichments e ON e.subscriber_id = m.subscriber_id AND e.meeting_uuid = m.meeting_uuid
          WHERE m.status <> 'cancelled' AND octet_length(m.meeting_uuid) <= $2
            AND (e.subscriber_id IS NULL OR e.modifications < m.modifications
                 OR e.state = 'given_up' AND e.status <> m.status)
          LIMIT 1000
         ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
            SET status = excluded.status, modifications = excluded.modifications, state = 'waiting', tries = 0,
                due_at = excluded.due_at, given_up_at = NULL",
    );
    // A scan of all runs, and nobody waits for it.
    let queue = queue.bind(now).bind(LONGEST_UUID).execute(&log.pool);
    match tokio::time::timeout(UPKEEP, queue).await {
        Ok(done) => done.map(|done| done.rows_affected()).map_err(failed),
        Err(_) => Err(LogError::unavailable(format!("no answer within {UPKEEP:?}"))),
    }
}
