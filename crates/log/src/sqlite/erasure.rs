//! Erasing a person in SQLite. Each transaction is short, and what it frees on a page is overwritten there.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, FromRow, Row};
use uuid::Uuid;

use super::rows::PERSON;
use super::{BEGIN, SqliteLog, Writer, array, failed};
use crate::erasure::{internal_members, internal_names};
use crate::{Handles, LogError, PersonRow, PersonStay, RunKey, StayKey};
use convoke_core::id::Seq;
use convoke_core::time::{Millis, instant};

pub(super) const BEGIN_ROWS: &str = BEGIN;

/// How long others may keep the WAL from being emptied.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(5);
const CHECKPOINT_RETRY_DELAY: Duration = Duration::from_millis(100);

impl SqliteLog {
    /// Where to write, told to overwrite what is freed.
    pub(super) async fn eraser(&self) -> Result<Writer<'_>, LogError> {
        let mut writer = self.writer().await?;
        sqlx::raw_sql("PRAGMA secure_delete = ON").execute(writer.connection()).await.map_err(failed)?;
        Ok(writer)
    }

    /// As [`Erasures::scrub`](crate::Erasures::scrub) has it.
    pub(super) async fn scrub_files(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
        let mut left = Vec::new();
        let mut writer = self.eraser().await?;
        if vacuum {
            sqlx::raw_sql("VACUUM").execute(writer.connection()).await.map_err(failed)?;
        } else {
            left.push(
                "free space in the database's file, where older versions of a row may stand: --vacuum writes the file \
                 anew, and holds events up for as long"
                    .to_owned(),
            );
        }
        let begun = instant();
        loop {
            let row = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(writer.connection()).await;
            if row.map_err(failed)?.try_get::<i64, _>(0).map_err(failed)? == 0 {
                break;
            }
            if begun.elapsed() > CHECKPOINT_TIMEOUT {
                left.push(format!(
                    "{}-wal, which is in use: it is written over as events come, and gone when the service ends",
                    self.files.path().display()
                ));
                break;
            }
            tokio::time::sleep(CHECKPOINT_RETRY_DELAY).await;
        }
        left.push("copies of the database's file, and what the file system and the disk keep of older ones".to_owned());
        Ok(left)
    }
}

/// As [`Erasures::person_rows`](crate::Erasures::person_rows) has it.
pub(super) async fn person_rows(
    log: &SqliteLog,
    handles: &Handles,
    runs: &[RunKey],
    after: Seq,
    up_to: Seq,
) -> Result<Vec<PersonRow>, LogError> {
    let sql = format!(
        "SELECT {PERSON}
           FROM events
          WHERE seq > ?1 AND seq <= ?2 AND forgotten_at IS NULL
            AND (user_uuid IN (SELECT value FROM json_each(?3)) OR account IN (SELECT value FROM json_each(?4))
                 OR call_number IN (SELECT value FROM json_each(?5))
                 OR display_name IN (SELECT value FROM json_each(?7)) AND ?8 IN (meeting_id, meeting_uuid)
                 OR coalesce(participant_id, call_number, display_name, user_uuid, account) IS NOT NULL
                    AND (subscriber_id, meeting_uuid) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?6)))
          ORDER BY seq"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(after)
        .bind(up_to)
        .bind(array(&handles.users))
        .bind(array(&handles.accounts))
        .bind(array(&handles.call_numbers))
        .bind(
            serde_json::Value::from_iter(runs.iter().map(|run| vec![&*run.subscriber_id, &*run.meeting_uuid]))
                .to_string(),
        )
        .bind(array(&handles.names))
        .bind(&handles.meeting)
        .fetch_all(&log.readers)
        .await
        .map_err(failed)
}

/// The stays of a page that the handles name, and its last one; of each whether they name it.
pub(super) async fn person_stays(
    log: &SqliteLog,
    handles: &Handles,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<(PersonStay, bool)>, LogError> {
    let rows = sqlx::query(
        "WITH page AS (SELECT * FROM attendance WHERE stay_id > ?1 ORDER BY stay_id LIMIT ?2)
         SELECT subscriber_id, meeting_uuid, stay_id, meeting_id, display_name, call_number, user_uuid, account,
                coalesce(user_uuid IN (SELECT value FROM json_each(?3)), FALSE)
                OR coalesce(account IN (SELECT value FROM json_each(?4)), FALSE)
                OR coalesce(call_number IN (SELECT value FROM json_each(?5)), FALSE)
                OR EXISTS (SELECT 1 FROM json_each(?6) WHERE instr(internal, value) > 0)
                OR stay_id IN (SELECT value FROM json_each(?7))
                OR coalesce(?9 IN (meeting_id, meeting_uuid), FALSE)
                   AND (coalesce(display_name IN (SELECT value FROM json_each(?8)), FALSE)
                        OR EXISTS (SELECT 1 FROM json_each(?10) WHERE instr(internal, value) > 0)) AS theirs
           FROM page WHERE theirs OR stay_id = (SELECT max(stay_id) FROM page) ORDER BY stay_id",
    )
    .bind(after.map_or(String::new(), |stay_id| stay_id.to_string()))
    .bind(limit)
    .bind(array(&handles.users))
    .bind(array(&handles.accounts))
    .bind(array(&handles.call_numbers))
    .bind(array(&internal_members(handles)))
    .bind(array(&handles.stays))
    .bind(array(&handles.names))
    .bind(&handles.meeting)
    .bind(array(&internal_names(handles)))
    .fetch_all(&log.readers)
    .await
    .map_err(failed)?;
    rows.iter().map(|row| Ok((PersonStay::from_row(row)?, row.try_get(8)?))).collect::<Result<_, _>>().map_err(failed)
}

pub(super) async fn remember(
    connection: &mut SqliteConnection,
    hashes: &[String],
    at: Millis,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO forgotten (hash, at) SELECT value, $1 FROM json_each($2) WHERE TRUE
         ON CONFLICT (hash) DO UPDATE SET at = max(at, excluded.at)",
    )
    .bind(at)
    .bind(array(hashes))
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn note(
    connection: &mut SqliteConnection,
    erasure: i64,
    stays: &[(StayKey, Option<String>)],
) -> Result<(), sqlx::Error> {
    let stays = stays.iter().map(|(key, meeting_id)| {
        serde_json::json!([key.run.subscriber_id, key.run.meeting_uuid, key.stay_id.to_string(), meeting_id])
    });
    sqlx::query(
        "INSERT INTO erased_stays (erasure, subscriber_id, meeting_uuid, stay_id, meeting_id)
         SELECT $1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each($2) WHERE TRUE
         ON CONFLICT DO NOTHING",
    )
    .bind(erasure)
    .bind(serde_json::Value::from_iter(stays).to_string())
    .execute(connection)
    .await
    .map(drop)
}

/// Takes stays out of `attendance`; how many were there.
pub(super) async fn remove(connection: &mut SqliteConnection, stays: &[StayKey]) -> Result<u64, sqlx::Error> {
    let keys = stays
        .iter()
        .map(|key| serde_json::json!([key.run.subscriber_id, key.run.meeting_uuid, key.stay_id.to_string()]));
    sqlx::query(
        "DELETE FROM attendance WHERE (subscriber_id, meeting_uuid, stay_id) IN
                (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1))",
    )
    .bind(serde_json::Value::from_iter(keys).to_string())
    .execute(connection)
    .await
    .map(|done| done.rows_affected())
}
