use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::{PostgresLog, bounded};
use crate::LogError;
use crate::snapshots::{KnownRun, KnownStay, Snapshots};
use convoke_core::time::Millis;

#[async_trait]
impl Snapshots for PostgresLog {
    async fn known_runs(&self, uuids: &[String]) -> Result<Vec<KnownRun>, LogError> {
        let runs = sqlx::query(
            "SELECT subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, started_at, ended_at,
                    CASE WHEN status = 'live' THEN last_event_at END, recordings
               FROM meetings WHERE meeting_uuid = ANY($1) ORDER BY last_event_at, subscriber_id",
        );
        let rows = bounded(runs.bind(uuids).fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(run).collect())
    }

    async fn known_stays(&self, meeting_uuid: &str) -> Result<Vec<KnownStay>, LogError> {
        let stays = sqlx::query(
            "SELECT participant_id, user_uuid, account, display_name, call_number, user_agent, role, joined_at, left_at,
                    closed_by = 'left'
               FROM attendance WHERE meeting_uuid = $1
              ORDER BY joined_at NULLS FIRST, closed_by = 'left' DESC, subscriber_id, stay_id",
        );
        let rows = bounded(stays.bind(meeting_uuid).fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(stay).collect())
    }
}

fn run(row: &PgRow) -> KnownRun {
    KnownRun {
        subscriber_id: row.get(0),
        meeting_uuid: row.get(1),
        meeting_id: row.get(2),
        meeting_cycle_sub_id: row.get(3),
        started_at: optional_time(row, 4),
        ended_at: optional_time(row, 5),
        live_at: optional_time(row, 6),
        recordings: row.get::<i64, _>(7).unsigned_abs(),
    }
}

fn stay(row: &PgRow) -> KnownStay {
    KnownStay {
        participant_id: row.get(0),
        user_uuid: row.get(1),
        account: row.get(2),
        display_name: row.get(3),
        call_number: row.get(4),
        user_agent: row.get(5),
        role: row.get(6),
        joined_at: optional_time(row, 7),
        left_at: optional_time(row, 8),
        left: row.get(9),
    }
}

fn optional_time(row: &PgRow, index: usize) -> Option<Millis> {
    row.get::<Option<OffsetDateTime>, _>(index).map(Millis::from_date_time)
}
