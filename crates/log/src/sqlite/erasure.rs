//! Erasing a person in SQLite. Each transaction is short, and what it frees on a page is overwritten there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use uuid::Uuid;

use super::projection::{self, known, shared, when};
use super::{NOW, SqliteLog, Writer, advance, event_id, failed, time};
use crate::erasure::{
    Erased, Erasure, Erasures, FORGOTTEN, Handles, Host, PersonRow, PersonStay, StayKey, internal_members,
    internal_names,
};
use crate::projection::{Changes, Lease, RunKey};
use crate::{LogError, Moved, Suppression};
use convoke_core::event::{Attendee, Meeting};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

const ERASURE: &str = "id, begun_at, finished_at, events, stays, quarantined, hosts, messages";

/// The erasure ?1 and earlier ones of the same person.
const SAME: &str = "erasure IN (SELECT id FROM erasures WHERE person = (SELECT person FROM erasures WHERE id = ?1))";

/// How long others may keep the WAL from being emptied.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(5);
const CHECKPOINT_AGAIN: Duration = Duration::from_millis(100);

impl SqliteLog {
    /// The writer, told to overwrite what is freed.
    async fn eraser(&self) -> Result<Writer<'_>, LogError> {
        let mut writer = self.writer().await?;
        sqlx::raw_sql("PRAGMA secure_delete = ON").execute(writer.connection()).await.map_err(failed)?;
        Ok(writer)
    }
}

async fn count(connection: &mut SqliteConnection, erasure: i64, what: &str, by: i64) -> Result<(), LogError> {
    let sql = format!("UPDATE erasures SET {what} = {what} + ? WHERE id = ?");
    sqlx::query(AssertSqlSafe(sql)).bind(by).bind(erasure).execute(connection).await.map(drop).map_err(failed)
}

fn list(values: &[String]) -> String {
    serde_json::json!(values).to_string()
}

#[async_trait]
impl Suppression for SqliteLog {
    async fn forgotten_key(&self) -> Result<Option<String>, LogError> {
        sqlx::query_scalar("SELECT key FROM forgotten_key").fetch_optional(&self.readers).await.map_err(failed)
    }

    async fn forgotten(&self, hashes: &[String]) -> Result<HashMap<String, Millis>, LogError> {
        let rows = sqlx::query("SELECT hash, at FROM forgotten WHERE hash IN (SELECT value FROM json_each(?))")
            .bind(list(hashes))
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok((row.try_get(0)?, time(row.try_get(1)?)?))).collect::<Result<_, _>>().map_err(failed)
    }
}

#[async_trait]
impl Erasures for SqliteLog {
    async fn make_forgotten_key(&self, fresh: &str) -> Result<String, LogError> {
        let insert = sqlx::query("INSERT INTO forgotten_key (id, key) VALUES (1, ?) ON CONFLICT DO NOTHING");
        self.write(insert.bind(fresh.to_owned())).await?;
        self.forgotten_key().await?.ok_or_else(|| LogError::unavailable("the key of the hashes is gone"))
    }

    async fn remember_forgotten(&self, hashes: &[String], at: Millis) -> Result<(), LogError> {
        let mut writer = self.writer().await?;
        remember(writer.connection(), hashes, at).await
    }

    async fn begin_erasure(&self, person: &str, named_by: &str) -> Result<Erasure, LogError> {
        let mut writer = self.writer().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let sql =
            format!("SELECT {ERASURE} FROM erasures WHERE person = ? AND finished_at IS NULL ORDER BY id DESC LIMIT 1");
        let unfinished = sqlx::query(AssertSqlSafe(sql)).bind(person.to_owned()).fetch_optional(&mut *tx).await;
        let row = match unfinished.map_err(failed)? {
            Some(row) => row,
            None => {
                let sql = format!(
                    "INSERT INTO erasures (person, named_by, begun_at) VALUES (?, ?, {NOW}) RETURNING {ERASURE}"
                );
                let insert = sqlx::query(AssertSqlSafe(sql)).bind(person.to_owned()).bind(named_by.to_owned());
                insert.fetch_one(&mut *tx).await.map_err(failed)?
            }
        };
        tx.commit().await.map_err(failed)?;
        erasure(&row).map_err(failed)
    }

    async fn erasure(&self, id: i64) -> Result<Erasure, LogError> {
        let sql = format!("SELECT {ERASURE} FROM erasures WHERE id = ?");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_one(&self.readers).await.map_err(failed)?;
        erasure(&row).map_err(failed)
    }

    async fn finish_erasure(&self, id: i64) -> Result<(), LogError> {
        let mut writer = self.eraser().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let stays = sqlx::query("DELETE FROM erased_stays WHERE erasure = ?").bind(id);
        stays.execute(&mut *tx).await.map_err(failed)?;
        let finished = sqlx::query(AssertSqlSafe(format!("UPDATE erasures SET finished_at = {NOW} WHERE id = ?")));
        finished.bind(id).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn person_rows(
        &self,
        handles: &Handles,
        runs: &[RunKey],
        after: Seq,
        up_to: Seq,
    ) -> Result<Vec<PersonRow>, LogError> {
        let rows = sqlx::query(
            "SELECT seq, event_id, subscriber_id, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, user_agent,
                    account, participant_id, display_name, role, call_number, join_time, left_time
               FROM events
              WHERE seq > ?1 AND seq <= ?2 AND forgotten_at IS NULL
                AND (user_uuid IN (SELECT value FROM json_each(?3)) OR account IN (SELECT value FROM json_each(?4))
                     OR call_number IN (SELECT value FROM json_each(?5))
                     OR display_name IN (SELECT value FROM json_each(?7)) AND ?8 IN (meeting_id, meeting_uuid)
                     OR coalesce(participant_id, call_number, display_name, user_uuid, account) IS NOT NULL
                        AND (subscriber_id, meeting_uuid) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?6)))
              ORDER BY seq",
        )
        .bind(after.0)
        .bind(up_to.0)
        .bind(list(&handles.users))
        .bind(list(&handles.accounts))
        .bind(list(&handles.call_numbers))
        .bind(
            serde_json::Value::from_iter(runs.iter().map(|run| vec![&*run.subscriber_id, &*run.meeting_uuid]))
                .to_string(),
        )
        .bind(list(&handles.names))
        .bind(&handles.meeting)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(person_row).collect::<Result<_, _>>().map_err(failed)
    }

    async fn person_stays(
        &self,
        handles: &Handles,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<PersonStay>, Option<Uuid>), LogError> {
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
        .bind(list(&handles.users))
        .bind(list(&handles.accounts))
        .bind(list(&handles.call_numbers))
        .bind(list(&internal_members(handles)))
        .bind(list(&handles.stays.iter().map(Uuid::to_string).collect::<Vec<_>>()))
        .bind(list(&handles.names))
        .bind(&handles.meeting)
        .bind(list(&internal_names(handles)))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        let stay = |row: &SqliteRow| {
            Ok(PersonStay {
                key: stay_key(row)?,
                meeting_id: row.try_get(3)?,
                display_name: row.try_get(4)?,
                call_number: row.try_get(5)?,
                user_uuid: row.try_get(6)?,
                account: row.try_get(7)?,
            })
        };
        let last = rows.last().map(stay_key).transpose().map_err(failed)?.map(|key| key.stay_id);
        let theirs = rows.iter().filter(|row| row.get(8)).map(stay).collect::<Result<_, _>>().map_err(failed)?;
        Ok((theirs, last))
    }

    async fn note_stays(
        &self,
        erasure: &Erasure,
        stays: &[(StayKey, Option<String>)],
        hashes: &[String],
    ) -> Result<(), LogError> {
        let stays = stays.iter().map(|(key, meeting_id)| {
            serde_json::json!([key.run.subscriber_id, key.run.meeting_uuid, key.stay_id.to_string(), meeting_id])
        });
        let stays = serde_json::Value::from_iter(stays).to_string();
        let mut writer = self.writer().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        remember(&mut tx, hashes, erasure.begun_at).await?;
        sqlx::query(
            "INSERT INTO erased_stays (erasure, subscriber_id, meeting_uuid, stay_id, meeting_id)
             SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?) WHERE TRUE
             ON CONFLICT DO NOTHING",
        )
        .bind(erasure.id)
        .bind(stays)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn noted_stays(&self, erasure: i64) -> Result<Vec<StayKey>, LogError> {
        let rows = sqlx::query("SELECT subscriber_id, meeting_uuid, stay_id FROM erased_stays WHERE erasure = ?")
            .bind(erasure)
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(stay_key).collect::<Result<_, _>>().map_err(failed)
    }

    async fn erase_rows(&self, erasure: &Erasure, rows: &[PersonRow]) -> Result<(), LogError> {
        let seqs = serde_json::Value::from_iter(rows.iter().map(|row| row.seq.0)).to_string();
        let mut writer = self.eraser().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        sqlx::query(
            "INSERT INTO erased_events (erasure, event_id, meeting_id)
             SELECT ?, event_id, meeting_id FROM events
              WHERE seq IN (SELECT value FROM json_each(?)) AND forgotten_at IS NULL
             ON CONFLICT DO NOTHING",
        )
        .bind(erasure.id)
        .bind(seqs.clone())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        let erased = sqlx::query(
            "UPDATE events
                SET user_uuid = NULL, user_agent = NULL, account = NULL, participant_id = NULL, display_name = NULL,
                    role = NULL, call_number = NULL, request_id = NULL, traceparent = NULL, event_info = NULL,
                    forgotten_at = ?
              WHERE seq IN (SELECT value FROM json_each(?)) AND forgotten_at IS NULL",
        )
        .bind(erasure.begun_at.to_string())
        .bind(seqs)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        count(&mut tx, erasure.id, "events", i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX)).await?;
        tx.commit().await.map_err(failed)
    }

    async fn erase_stays(
        &self,
        lease: Lease<'_>,
        at: Seq,
        erasure: i64,
        removed: &[StayKey],
        changes: &Changes,
    ) -> Result<Moved, LogError> {
        let keys = removed
            .iter()
            .map(|key| serde_json::json!([key.run.subscriber_id, key.run.meeting_uuid, key.stay_id.to_string()]));
        let keys = serde_json::Value::from_iter(keys).to_string();
        let mut writer = self.eraser().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let moved = advance(&mut tx, lease.cursor, lease.owner, Some(at), lease.ttl).await.map_err(failed)?;
        let Some(wanted) = moved else { return Ok(Moved::LeaseLost) };
        let gone = sqlx::query(
            "DELETE FROM attendance WHERE (subscriber_id, meeting_uuid, stay_id) IN
                    (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))",
        )
        .bind(keys)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        projection::write(&mut tx, lease.cursor, Some(changes)).await.map_err(failed)?;
        count(&mut tx, erasure, "stays", i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX)).await?;
        tx.commit().await.map_err(failed)?;
        Ok(Moved::Yes { wanted })
    }

    async fn erase_quarantined(&self, erasure: i64, id: i64) -> Result<(), LogError> {
        let mut writer = self.eraser().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let erase = sqlx::query("UPDATE quarantine SET body = x'', reason = ?1 WHERE id = ?2 AND reason <> ?1");
        let erased = erase.bind(FORGOTTEN).bind(id).execute(&mut *tx).await.map_err(failed)?;
        count(&mut tx, erasure, "quarantined", i64::from(erased.rows_affected() > 0)).await?;
        tx.commit().await.map_err(failed)
    }

    async fn hosts(&self, after: Option<&RunKey>, limit: u32) -> Result<Vec<Host>, LogError> {
        let rows = sqlx::query(
            "SELECT subscriber_id, meeting_uuid, host, subject FROM enrichments
              WHERE (subscriber_id, meeting_uuid) > (?, ?) AND host IS NOT NULL
              ORDER BY subscriber_id, meeting_uuid LIMIT ?",
        )
        .bind(after.map_or(String::new(), |run| run.subscriber_id.to_string()))
        .bind(after.map_or(String::new(), |run| run.meeting_uuid.to_string()))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        let host = |row: &SqliteRow| {
            let run = RunKey { subscriber_id: known(row, 0)?, meeting_uuid: known(row, 1)? };
            Ok(Host { run, host: row.try_get(2)?, subject: row.try_get(3)? })
        };
        rows.iter().map(host).collect::<Result<_, _>>().map_err(failed)
    }

    async fn erase_host(&self, erasure: i64, run: &RunKey, subject: bool) -> Result<(), LogError> {
        let mut writer = self.eraser().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut changed = 0;
        for table in ["meetings", "enrichments"] {
            let sql = format!(
                "UPDATE {table} SET host = NULL, subject = CASE WHEN ? THEN NULL ELSE subject END
                  WHERE subscriber_id = ? AND meeting_uuid = ? AND host IS NOT NULL"
            );
            let erase = sqlx::query(AssertSqlSafe(sql)).bind(subject);
            let erase = erase.bind(run.subscriber_id.to_string()).bind(run.meeting_uuid.to_string());
            changed = erase.execute(&mut *tx).await.map_err(failed)?.rows_affected();
        }
        count(&mut tx, erasure, "hosts", i64::from(changed > 0)).await?;
        tx.commit().await.map_err(failed)
    }

    async fn erased_events(&self, erasure: i64) -> Result<Vec<EventId>, LogError> {
        let sql = format!("SELECT DISTINCT event_id FROM erased_events WHERE {SAME}");
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(erasure).fetch_all(&self.readers).await.map_err(failed)?;
        rows.iter().map(|row| event_id(row, 0)).collect::<Result<_, _>>().map_err(failed)
    }

    async fn erased_meetings(&self, erasure: i64) -> Result<Vec<Option<String>>, LogError> {
        let sql = format!(
            "SELECT meeting_id FROM erased_events WHERE {SAME} UNION SELECT meeting_id FROM erased_stays WHERE {SAME}"
        );
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(erasure).fetch_all(&self.readers).await.map_err(failed)
    }

    async fn count_messages(&self, erasure: i64, messages: u64) -> Result<(), LogError> {
        let mut writer = self.writer().await?;
        count(writer.connection(), erasure, "messages", i64::try_from(messages).unwrap_or(i64::MAX)).await
    }

    async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
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
        let begun = Instant::now();
        loop {
            let row = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(writer.connection()).await;
            if row.map_err(failed)?.try_get::<i64, _>(0).map_err(failed)? == 0 {
                break;
            }
            if begun.elapsed() > CHECKPOINT_PATIENCE {
                left.push(format!(
                    "{}-wal, which is in use: it is written over as events come, and gone when the service ends",
                    self.files.path().display()
                ));
                break;
            }
            tokio::time::sleep(CHECKPOINT_AGAIN).await;
        }
        left.push("copies of the database's file, and what the file system and the disk keep of older ones".to_owned());
        Ok(left)
    }
}

async fn remember(connection: &mut SqliteConnection, hashes: &[String], at: Millis) -> Result<(), LogError> {
    sqlx::query(
        "INSERT INTO forgotten (hash, at) SELECT value, ?1 FROM json_each(?2) WHERE TRUE
         ON CONFLICT (hash) DO UPDATE SET at = max(at, excluded.at)",
    )
    .bind(at.to_string())
    .bind(list(hashes))
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed)
}

fn erasure(row: &SqliteRow) -> Result<Erasure, sqlx::Error> {
    Ok(Erasure {
        id: row.try_get(0)?,
        begun_at: time(row.try_get(1)?)?,
        finished_at: when(row, 2)?,
        counts: Erased {
            events: row.try_get(3)?,
            stays: row.try_get(4)?,
            quarantined: row.try_get(5)?,
            hosts: row.try_get(6)?,
            messages: row.try_get(7)?,
        },
    })
}

fn stay_key(row: &SqliteRow) -> Result<StayKey, sqlx::Error> {
    let stay_id = Uuid::try_parse(row.try_get(2)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(StayKey { run: RunKey { subscriber_id: known(row, 0)?, meeting_uuid: known(row, 1)? }, stay_id })
}

fn person_row(row: &SqliteRow) -> Result<PersonRow, sqlx::Error> {
    Ok(PersonRow {
        seq: Seq(row.try_get(0)?),
        event_id: event_id(row, 1)?,
        subscriber_id: known(row, 2)?,
        meeting: Meeting { id: shared(row, 3)?, uuid: shared(row, 4)?, cycle_sub_id: shared(row, 5)? },
        attendee: Attendee {
            user_uuid: shared(row, 6)?,
            user_agent: shared(row, 7)?,
            account: shared(row, 8)?,
            participant_id: shared(row, 9)?,
            display_name: shared(row, 10)?,
            role: shared(row, 11)?,
            call_number: shared(row, 12)?,
            join_time: when(row, 13)?,
            left_time: when(row, 14)?,
        },
    })
}
