//! The work lists.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _};

use super::{BEGIN, Backend, GREATEST, advance, bounded, enrichments};
use crate::work_lists::{FAR, LONGEST_UUID, Settled, WORK_COUNTS};
use crate::{Enriched, Fetch, Fetched, Finish, LogError, Moved, Run, WorkCounts, WorkLists};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

#[async_trait]
impl WorkLists for Backend {
    async fn finishes(&self, after: Seq, up_to: Seq) -> Result<Vec<Finish>, LogError> {
        let finishes =
            "SELECT seq, subscriber_id, meeting_uuid, meeting_id, occurred_at AS finished_at, occurred_at AS due_at
                          FROM events
                         WHERE seq > $1 AND seq <= $2 AND event = 'record.finish' AND octet_length(meeting_uuid) <= $3
                         ORDER BY seq";
        self.along(sqlx::query_as(finishes).bind(after).bind(up_to).bind(LONGEST_UUID)).await
    }

    async fn queue(
        &self,
        cursor: &str,
        owner: &str,
        to: Seq,
        ttl: Duration,
        finishes: &[Finish],
    ) -> Result<Moved, LogError> {
        let mut session = self.session().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN).await?;
            let Some(wanted) = advance(&mut tx, cursor, owner, Some(to), ttl).await? else {
                tx.rollback().await?;
                return Ok(Moved::LeaseLost);
            };
            for finish in finishes {
                sqlx::query(AssertSqlSafe(format!(
                    "INSERT INTO fetches AS f (subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, last_seq,
                                               state, tries, due_at)
                     VALUES ($1, $2, $3, 1, $4, $5, 'waiting', 0, $6)
                     ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
                        SET meeting_id = coalesce(excluded.meeting_id, f.meeting_id), finishes = f.finishes + 1,
                            finished_at = {GREATEST}(f.finished_at, excluded.finished_at), last_seq = excluded.last_seq,
                            state = CASE f.state WHEN 'ready' THEN f.state ELSE 'waiting' END,
                            due_at = CASE f.state WHEN 'ready' THEN f.due_at ELSE excluded.due_at END, tries = 0,
                            given_up_at = NULL, reason = NULL
                      WHERE excluded.last_seq > f.last_seq"
                )))
                .bind(&finish.subscriber_id)
                .bind(&finish.meeting_uuid)
                .bind(&finish.meeting_id)
                .bind(finish.finished_at)
                .bind(finish.seq)
                .bind(finish.due_at)
                .execute(&mut *tx)
                .await?;
            }
            tx.commit().await?;
            Ok(Moved::Yes { wanted })
        })
        .await
    }

    async fn due_fetches(&self, now: Millis, limit: u32) -> Result<Vec<Fetch>, LogError> {
        let due =
            "SELECT subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, tries, state = 'ready' AS ready,
                          event_info
                     FROM fetches WHERE due_at <= $1 OR due_at > $3 OR given_up_at > $3
                    ORDER BY state = 'ready' DESC, finished_at DESC LIMIT $2";
        self.all(sqlx::query_as(due).bind(now).bind(i64::from(limit)).bind(now.plus(FAR))).await
    }

    async fn settle_fetch(&self, fetch: &Fetch, fetched: &Fetched) -> Result<bool, LogError> {
        // $1 to $3 say which fetch, and as what it was read.
        let (set, text, at) = match fetched {
            Fetched::Ready { event_info, due_at } => (
                "state = 'ready', event_info = $4, due_at = $5, given_up_at = NULL, reason = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(event_info),
                due_at,
            ),
            Fetched::Later { due_at, reason } => (
                "tries = tries + 1, state = 'waiting', reason = $4, due_at = $5, given_up_at = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(reason),
                due_at,
            ),
            Fetched::GivenUp { at, reason } => (
                "tries = tries + 1, state = 'given_up', reason = $4, due_at = NULL, given_up_at = $5
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(reason),
                at,
            ),
            Fetched::Published { due_at } => (
                "state = CASE finishes WHEN $3 THEN 'published' ELSE 'waiting' END,
                 due_at = CASE finishes WHEN $3 THEN NULL ELSE $5 END
                  WHERE state = 'ready' AND event_info = $4",
                fetch.event_info.as_ref(),
                due_at,
            ),
        };
        let sql = format!("UPDATE fetches SET {set} AND subscriber_id = $1 AND meeting_uuid = $2");
        let settle = sqlx::query(AssertSqlSafe(sql))
            .bind(&fetch.subscriber_id)
            .bind(&fetch.meeting_uuid)
            .bind(i64::from(fetch.finishes))
            .bind(text)
            .bind(at);
        self.wrote_one(settle).await
    }

    async fn queue_enrichments(&self, now: Millis) -> Result<u64, LogError> {
        enrichments::queue_runs(self, now).await
    }

    async fn due_enrichments(&self, now: Millis, limit: u32) -> Result<Vec<Run>, LogError> {
        let due =
            "SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, m.meeting_cycle_sub_id, m.status, m.first_event_at,
                    m.last_event_at, e.tries
               FROM enrichments e JOIN meetings m ON m.subscriber_id = e.subscriber_id AND m.meeting_uuid = e.meeting_uuid
              WHERE e.due_at <= $1 OR e.due_at > $3 OR e.given_up_at > $3 ORDER BY m.last_event_at DESC LIMIT $2";
        self.all(sqlx::query_as(due).bind(now).bind(i64::from(limit)).bind(now.plus(FAR))).await
    }

    async fn settle_enrichment(&self, run: &Run, enriched: &Enriched) -> Result<(), LogError> {
        let Settled { state, due_at, given_up_at, reason, details } = enriched.settled();
        let mut session = self.session().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN).await?;
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
            .bind(due_at)
            .bind(reason)
            .bind(&details.subject)
            .bind(details.scheduled_start_at)
            .bind(details.scheduled_end_at)
            .bind(&details.host)
            .bind(&details.corp_id)
            .bind(given_up_at)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "UPDATE meetings SET (subject, scheduled_start_at, scheduled_end_at, host, corp_id) =
                        (SELECT subject, scheduled_start_at, scheduled_end_at, host, corp_id FROM enrichments
                          WHERE subscriber_id = $1 AND meeting_uuid = $2)
                  WHERE subscriber_id = $1 AND meeting_uuid = $2",
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
        let counts: (i64, i64, i64, i64) = self.one(sqlx::query_as(WORK_COUNTS)).await?;
        Ok((WorkCounts { waiting: counts.0, given_up: counts.1 }, WorkCounts { waiting: counts.2, given_up: counts.3 }))
    }
}
