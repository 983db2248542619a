//! The work lists in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::{SqliteLog, advance, failed, time};
use crate::work_lists::{
    Enriched, FAR, Fetch, Fetched, Finish, LONGEST_UUID, Run, Settled, WORK_COUNTS, WorkCounts, WorkLists,
};
use crate::{LogError, Moved};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

#[async_trait]
impl WorkLists for SqliteLog {
    async fn finishes(&self, after: Seq, up_to: Seq) -> Result<Vec<Finish>, LogError> {
        let rows = sqlx::query(
            "SELECT seq, subscriber_id, meeting_uuid, meeting_id, occurred_at FROM events
              WHERE seq > ? AND seq <= ? AND event = 'record.finish' AND octet_length(meeting_uuid) <= ? ORDER BY seq",
        )
        .bind(after.0)
        .bind(up_to.0)
        .bind(LONGEST_UUID)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        let finish = |row: &SqliteRow| {
            let finished_at = time(row.try_get(4)?)?;
            Ok(Finish {
                seq: Seq(row.try_get(0)?),
                subscriber_id: row.try_get(1)?,
                meeting_uuid: row.try_get(2)?,
                meeting_id: row.try_get(3)?,
                finished_at,
                due_at: finished_at,
            })
        };
        rows.iter().map(finish).collect::<Result<_, _>>().map_err(failed)
    }

    async fn queue(
        &self,
        cursor: &str,
        owner: &str,
        to: Seq,
        ttl: Duration,
        finishes: &[Finish],
    ) -> Result<Moved, LogError> {
        let mut writer = self.writer().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let moved = advance(&mut tx, cursor, owner, Some(to), ttl).await.map_err(failed)?;
        let Some(wanted) = moved else { return Ok(Moved::LeaseLost) };
        for finish in finishes {
            sqlx::query(
                "INSERT INTO fetches (subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, last_seq, state,
                                      tries, due_at)
                 VALUES (?, ?, ?, 1, ?, ?, 'waiting', 0, ?)
                 ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
                    SET meeting_id = coalesce(excluded.meeting_id, meeting_id), finishes = finishes + 1,
                        finished_at = max(finished_at, excluded.finished_at), last_seq = excluded.last_seq,
                        state = CASE state WHEN 'ready' THEN state ELSE 'waiting' END,
                        due_at = CASE state WHEN 'ready' THEN due_at ELSE excluded.due_at END, tries = 0,
                        given_up_at = NULL, reason = NULL
                  WHERE excluded.last_seq > last_seq",
            )
            .bind(finish.subscriber_id.clone())
            .bind(finish.meeting_uuid.clone())
            .bind(finish.meeting_id.clone())
            .bind(finish.finished_at.to_string())
            .bind(finish.seq.0)
            .bind(finish.due_at.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(Moved::Yes { wanted })
    }

    async fn due_fetches(&self, now: Millis, limit: u32) -> Result<Vec<Fetch>, LogError> {
        let rows = sqlx::query(
            "SELECT subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, tries, state = 'ready', event_info
               FROM fetches WHERE due_at <= ?1 OR due_at > ?3 OR given_up_at > ?3
              ORDER BY state = 'ready' DESC, finished_at DESC LIMIT ?2",
        )
        .bind(now.to_string())
        .bind(limit)
        .bind(now.plus(FAR).to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        let fetch = |row: &SqliteRow| {
            Ok(Fetch {
                subscriber_id: row.try_get(0)?,
                meeting_uuid: row.try_get(1)?,
                meeting_id: row.try_get(2)?,
                finishes: row.try_get(3)?,
                finished_at: time(row.try_get(4)?)?,
                tries: row.try_get(5)?,
                ready: row.try_get(6)?,
                event_info: row.try_get(7)?,
            })
        };
        rows.iter().map(fetch).collect::<Result<_, _>>().map_err(failed)
    }

    async fn settle_fetch(&self, fetch: &Fetch, fetched: &Fetched) -> Result<bool, LogError> {
        // ?1 to ?3 say which fetch, and as what it was read.
        let (set, text, at) = match fetched {
            Fetched::Ready { event_info, due_at } => (
                "state = 'ready', event_info = ?4, due_at = ?5, given_up_at = NULL, reason = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = ?3",
                Some(event_info),
                Some(due_at),
            ),
            Fetched::Later { due_at, reason } => (
                "tries = tries + 1, state = 'waiting', reason = ?4, due_at = ?5, given_up_at = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = ?3",
                Some(reason),
                Some(due_at),
            ),
            Fetched::GivenUp { at, reason } => (
                "tries = tries + 1, state = 'given_up', reason = ?4, due_at = NULL, given_up_at = ?5
                  WHERE state IN ('waiting', 'given_up') AND finishes = ?3",
                Some(reason),
                Some(at),
            ),
            Fetched::Published { due_at } => (
                "state = CASE finishes WHEN ?3 THEN 'published' ELSE 'waiting' END,
                 due_at = CASE finishes WHEN ?3 THEN NULL ELSE ?5 END
                  WHERE state = 'ready' AND event_info = ?4",
                fetch.event_info.as_ref(),
                Some(due_at),
            ),
        };
        let sql = format!("UPDATE fetches SET {set} AND subscriber_id = ?1 AND meeting_uuid = ?2");
        let settle = sqlx::query(AssertSqlSafe(sql))
            .bind(fetch.subscriber_id.clone())
            .bind(fetch.meeting_uuid.clone())
            .bind(fetch.finishes)
            .bind(text.cloned())
            .bind(at.map(ToString::to_string));
        self.write(settle).await.map(|changed| changed == 1)
    }

    async fn queue_enrichments(&self, now: Millis) -> Result<u64, LogError> {
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
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        if news.is_empty() {
            return Ok(0);
        }
        let list = serde_json::json!(news).to_string();
        self.write(
            sqlx::query(
                "INSERT INTO enrichments (subscriber_id, meeting_uuid, status, modifications, state, tries, due_at)
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, 'waiting', 0, ? FROM json_each(?) WHERE TRUE
                 ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
                    SET status = excluded.status, modifications = excluded.modifications, state = 'waiting', tries = 0,
                        due_at = excluded.due_at, given_up_at = NULL",
            )
            .bind(now.to_string())
            .bind(list),
        )
        .await
    }

    async fn due_enrichments(&self, now: Millis, limit: u32) -> Result<Vec<Run>, LogError> {
        let rows = sqlx::query(
            "SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, m.meeting_cycle_sub_id, m.status, m.first_event_at,
                    m.last_event_at, e.tries
               FROM enrichments e JOIN meetings m ON m.subscriber_id = e.subscriber_id AND m.meeting_uuid = e.meeting_uuid
              WHERE e.due_at <= ?1 OR e.due_at > ?3 OR e.given_up_at > ?3 ORDER BY m.last_event_at DESC LIMIT ?2",
        )
        .bind(now.to_string())
        .bind(limit)
        .bind(now.plus(FAR).to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        let run = |row: &SqliteRow| {
            Ok(Run {
                subscriber_id: row.try_get(0)?,
                meeting_uuid: row.try_get(1)?,
                meeting_id: row.try_get(2)?,
                meeting_cycle_sub_id: row.try_get(3)?,
                status: row.try_get(4)?,
                first_event_at: time(row.try_get(5)?)?,
                last_event_at: time(row.try_get(6)?)?,
                tries: row.try_get(7)?,
            })
        };
        rows.iter().map(run).collect::<Result<_, _>>().map_err(failed)
    }

    async fn settle_enrichment(&self, run: &Run, enriched: &Enriched) -> Result<(), LogError> {
        let Settled { state, due_at, given_up_at, reason, details } = enriched.settled();
        let mut writer = self.writer().await?;
        let mut tx = writer.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        sqlx::query(
            "UPDATE enrichments
                SET state = ?3, due_at = ?4, reason = ?5, tries = tries + 1, subject = coalesce(?6, subject),
                    scheduled_start_at = coalesce(?7, scheduled_start_at),
                    scheduled_end_at = coalesce(?8, scheduled_end_at), host = coalesce(?9, host),
                    corp_id = coalesce(?10, corp_id), given_up_at = ?11
              WHERE subscriber_id = ?1 AND meeting_uuid = ?2",
        )
        .bind(run.subscriber_id.clone())
        .bind(run.meeting_uuid.clone())
        .bind(state)
        .bind(due_at.map(|at| at.to_string()))
        .bind(reason.map(str::to_owned))
        .bind(details.subject.clone())
        .bind(details.scheduled_start_at.map(|at| at.to_string()))
        .bind(details.scheduled_end_at.map(|at| at.to_string()))
        .bind(details.host.clone())
        .bind(details.corp_id.clone())
        .bind(given_up_at.map(|at| at.to_string()))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        sqlx::query(
            "UPDATE meetings SET (subject, scheduled_start_at, scheduled_end_at, host, corp_id) =
                    (SELECT subject, scheduled_start_at, scheduled_end_at, host, corp_id FROM enrichments
                      WHERE subscriber_id = ?1 AND meeting_uuid = ?2)
              WHERE subscriber_id = ?1 AND meeting_uuid = ?2",
        )
        .bind(run.subscriber_id.clone())
        .bind(run.meeting_uuid.clone())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn work_counts(&self) -> Result<(WorkCounts, WorkCounts), LogError> {
        let row = sqlx::query(WORK_COUNTS).fetch_one(&self.readers).await.map_err(failed)?;
        let counts = |at: usize| WorkCounts { waiting: row.get(at), given_up: row.get(at + 1) };
        Ok((counts(0), counts(2)))
    }
}
