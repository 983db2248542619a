use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{SqliteLog, failed, time};
use crate::LogError;
use crate::snapshots::{KnownRun, KnownStay, Snapshots};
use convoke_core::time::Millis;

#[async_trait]
impl Snapshots for SqliteLog {
    async fn known_runs(&self, uuids: &[String]) -> Result<Vec<KnownRun>, LogError> {
        let rows = sqlx::query(
            "SELECT subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, started_at, ended_at,
                    CASE WHEN status = 'live' THEN last_event_at END, recordings
               FROM meetings WHERE meeting_uuid IN (SELECT value FROM json_each(?)) ORDER BY last_event_at, subscriber_id",
        )
        .bind(serde_json::json!(uuids).to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(run).collect::<Result<_, _>>().map_err(failed)
    }

    async fn known_stays(&self, meeting_uuid: &str) -> Result<Vec<KnownStay>, LogError> {
        let rows = sqlx::query(
            "SELECT participant_id, user_uuid, account, display_name, call_number, user_agent, role, joined_at, left_at,
                    closed_by = 'left'
               FROM attendance WHERE meeting_uuid = ? ORDER BY joined_at, closed_by = 'left' DESC, subscriber_id, stay_id",
        )
        .bind(meeting_uuid.to_owned())
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(stay).collect::<Result<_, _>>().map_err(failed)
    }
}

fn run(row: &SqliteRow) -> Result<KnownRun, sqlx::Error> {
    Ok(KnownRun {
        subscriber_id: row.try_get(0)?,
        meeting_uuid: row.try_get(1)?,
        meeting_id: row.try_get(2)?,
        meeting_cycle_sub_id: row.try_get(3)?,
        started_at: optional_time(row, 4)?,
        ended_at: optional_time(row, 5)?,
        live_at: optional_time(row, 6)?,
        recordings: row.try_get::<i64, _>(7)?.unsigned_abs(),
    })
}

fn stay(row: &SqliteRow) -> Result<KnownStay, sqlx::Error> {
    Ok(KnownStay {
        participant_id: row.try_get(0)?,
        user_uuid: row.try_get(1)?,
        account: row.try_get(2)?,
        display_name: row.try_get(3)?,
        call_number: row.try_get(4)?,
        user_agent: row.try_get(5)?,
        role: row.try_get(6)?,
        joined_at: optional_time(row, 7)?,
        left_at: optional_time(row, 8)?,
        left: row.try_get(9)?,
    })
}

fn optional_time(row: &SqliteRow, index: usize) -> Result<Option<Millis>, sqlx::Error> {
    row.try_get::<Option<&str>, _>(index)?.map(time).transpose()
}
