//! The work lists in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;

use super::{BEGIN_READ, PostgresLog, UPKEEP, advance, bounded, failed};
use crate::work_lists::{
    Enriched, FAR, Fetch, Fetched, Finish, LONGEST_UUID, Run, Settled, WORK_COUNTS, WorkCounts, WorkLists,
};
use crate::{LogError, Moved};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

#[async_trait]
impl WorkLists for PostgresLog {
    async fn finishes(&self, after: Seq, up_to: Seq) -> Result<Vec<Finish>, LogError> {
        let rows = bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_READ).await?;
            let rows = sqlx::query(
                "SELECT seq, subscriber_id, meeting_uuid, meeting_id, occurred_at FROM events
                  WHERE seq > $1 AND seq <= $2 AND event = 'record.finish' AND octet_length(meeting_uuid) <= $3
                  ORDER BY seq",
            )
            .bind(after.0)
            .bind(up_to.0)
            .bind(LONGEST_UUID)
            .fetch_all(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(rows)
        })
        .await?;
        let finish = |row: &PgRow| {
            let finished_at = Millis::from_date_time(row.try_get(4)?);
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
        bounded(async {
            let mut tx = self.pool.begin().await?;
            let moved = advance(&mut *tx, cursor, owner, Some(to), ttl).await?;
            let Some(wanted) = moved else { return Ok(Moved::LeaseLost) };
            for finish in finishes {
                sqlx::query(
                    "INSERT INTO fetches AS f (subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, last_seq,
                                               state, tries, due_at)
                     VALUES ($1, $2, $3, 1, $4, $5, 'waiting', 0, $6)
                     ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
                        SET meeting_id = coalesce(excluded.meeting_id, f.meeting_id), finishes = f.finishes + 1,
                            finished_at = greatest(f.finished_at, excluded.finished_at), last_seq = excluded.last_seq,
                            state = CASE f.state WHEN 'ready' THEN f.state ELSE 'waiting' END,
                            due_at = CASE f.state WHEN 'ready' THEN f.due_at ELSE excluded.due_at END, tries = 0,
                            given_up_at = NULL, reason = NULL
                      WHERE excluded.last_seq > f.last_seq",
                )
                .bind(&finish.subscriber_id)
                .bind(&finish.meeting_uuid)
                .bind(&finish.meeting_id)
                .bind(finish.finished_at.date_time())
                .bind(finish.seq.0)
                .bind(finish.due_at.date_time())
                .execute(&mut *tx)
                .await?;
            }
            tx.commit().await?;
            Ok(Moved::Yes { wanted })
        })
        .await
    }

    async fn due_fetches(&self, now: Millis, limit: u32) -> Result<Vec<Fetch>, LogError> {
        let due = sqlx::query(
            "SELECT subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, tries, state = 'ready', event_info
               FROM fetches WHERE due_at <= $1 OR due_at > $3 OR given_up_at > $3
              ORDER BY state = 'ready' DESC, finished_at DESC LIMIT $2",
        );
        let due = due.bind(now.date_time()).bind(i64::from(limit)).bind(now.plus(FAR).date_time());
        let rows = bounded(due.fetch_all(&self.pool)).await?;
        let fetch = |row: &PgRow| {
            Ok(Fetch {
                subscriber_id: row.try_get(0)?,
                meeting_uuid: row.try_get(1)?,
                meeting_id: row.try_get(2)?,
                finishes: count(row, 3)?,
                finished_at: Millis::from_date_time(row.try_get(4)?),
                tries: count(row, 5)?,
                ready: row.try_get(6)?,
                event_info: row.try_get(7)?,
            })
        };
        rows.iter().map(fetch).collect::<Result<_, _>>().map_err(failed)
    }

    async fn settle_fetch(&self, fetch: &Fetch, fetched: &Fetched) -> Result<bool, LogError> {
        // $1 to $3 say which fetch, and as what it was read.
        let (set, text, at) = match fetched {
            Fetched::Ready { event_info, due_at } => (
                "state = 'ready', event_info = $4, due_at = $5, given_up_at = NULL, reason = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(event_info),
                Some(due_at),
            ),
            Fetched::Later { due_at, reason } => (
                "tries = tries + 1, state = 'waiting', reason = $4, due_at = $5, given_up_at = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(reason),
                Some(due_at),
            ),
            Fetched::GivenUp { at, reason } => (
                "tries = tries + 1, state = 'given_up', reason = $4, due_at = NULL, given_up_at = $5
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(reason),
                Some(at),
            ),
            Fetched::Published { due_at } => (
                "state = CASE finishes WHEN $3 THEN 'published' ELSE 'waiting' END,
                 due_at = CASE finishes WHEN $3 THEN NULL ELSE $5 END
                  WHERE state = 'ready' AND event_info = $4",
                fetch.event_info.as_ref(),
                Some(due_at),
            ),
        };
        let sql = format!("UPDATE fetches SET {set} AND subscriber_id = $1 AND meeting_uuid = $2");
        let settle = sqlx::query(AssertSqlSafe(sql))
            .bind(&fetch.subscriber_id)
            .bind(&fetch.meeting_uuid)
            .bind(i64::from(fetch.finishes))
            .bind(text)
            .bind(at.map(|at| at.date_time()));
        bounded(settle.execute(&self.pool)).await.map(|done| done.rows_affected() == 1)
    }

    async fn queue_enrichments(&self, now: Millis) -> Result<u64, LogError> {
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
        let queue = queue.bind(now.date_time()).bind(LONGEST_UUID).execute(&self.pool);
        match tokio::time::timeout(UPKEEP, queue).await {
            Ok(done) => done.map(|done| done.rows_affected()).map_err(failed),
            Err(_) => Err(LogError::unavailable(format!("no answer within {UPKEEP:?}"))),
        }
    }

    async fn due_enrichments(&self, now: Millis, limit: u32) -> Result<Vec<Run>, LogError> {
        let due = sqlx::query(
            "SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, m.meeting_cycle_sub_id, m.status, m.first_event_at,
                    m.last_event_at, e.tries
               FROM enrichments e JOIN meetings m ON m.subscriber_id = e.subscriber_id AND m.meeting_uuid = e.meeting_uuid
              WHERE e.due_at <= $1 OR e.due_at > $3 OR e.given_up_at > $3 ORDER BY m.last_event_at DESC LIMIT $2",
        );
        let due = due.bind(now.date_time()).bind(i64::from(limit)).bind(now.plus(FAR).date_time());
        let rows = bounded(due.fetch_all(&self.pool)).await?;
        let run = |row: &PgRow| {
            Ok(Run {
                subscriber_id: row.try_get(0)?,
                meeting_uuid: row.try_get(1)?,
                meeting_id: row.try_get(2)?,
                meeting_cycle_sub_id: row.try_get(3)?,
                status: row.try_get(4)?,
                first_event_at: Millis::from_date_time(row.try_get(5)?),
                last_event_at: Millis::from_date_time(row.try_get(6)?),
                tries: count(row, 7)?,
            })
        };
        rows.iter().map(run).collect::<Result<_, _>>().map_err(failed)
    }

    async fn settle_enrichment(&self, run: &Run, enriched: &Enriched) -> Result<(), LogError> {
        let Settled { state, due_at, given_up_at, reason, details } = enriched.settled();
        let time = |at: Option<Millis>| -> Option<OffsetDateTime> { at.map(Millis::date_time) };
        bounded(async {
            let mut tx = self.pool.begin().await?;
            sqlx::query(
                "UPDATE enrichments
                    SET state = $3, due_at = $4, reason = $5, tries = tries + 1, subject = coalesce($6, subject),
                        scheduled_start_at = coalesce($7, scheduled_start_at),
                        scheduled_end_at = coalesce($8, scheduled_end_at), host = coalesce($9, host),
                        corp_id = coalesce($10, corp_id), given_up_at = $11
                  WHERE subscriber_id = $1 AND meeting_uuid = $2",
            )
            .bind(&run.subscriber_id)
            .bind(&run.meeting_uuid)
            .bind(state)
            .bind(time(due_at))
            .bind(reason)
            .bind(&details.subject)
            .bind(time(details.scheduled_start_at))
            .bind(time(details.scheduled_end_at))
            .bind(&details.host)
            .bind(&details.corp_id)
            .bind(time(given_up_at))
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "UPDATE meetings m
                    SET subject = e.subject, scheduled_start_at = e.scheduled_start_at,
                        scheduled_end_at = e.scheduled_end_at, host = e.host, corp_id = e.corp_id
                   FROM enrichments e
                  WHERE m.subscriber_id = $1 AND m.meeting_uuid = $2 AND e.subscriber_id = $1 AND e.meeting_uuid = $2",
            )
            .bind(&run.subscriber_id)
            .bind(&run.meeting_uuid)
            .execute(&mut *tx)
            .await?;
            tx.commit().await
        })
        .await
    }

    async fn work_counts(&self) -> Result<(WorkCounts, WorkCounts), LogError> {
        let counts = sqlx::query(WORK_COUNTS);
        let row = bounded(counts.fetch_one(&self.pool)).await?;
        let counts = |at: usize| WorkCounts { waiting: row.get(at), given_up: row.get(at + 1) };
        Ok((counts(0), counts(2)))
    }
}

/// A count that was written from a `u32`.
fn count(row: &PgRow, index: usize) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i64, _>(index)?).map_err(|error| sqlx::Error::Decode(error.into()))
}
