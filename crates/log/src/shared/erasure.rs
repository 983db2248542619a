//! Finding a person's rows and erasing them. Each transaction is short.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _};
use uuid::Uuid;

use super::{BEGIN, BEGIN_ERASURE, Backend, DbConnection, MEMBER, NOW_MILLIS, advance, array, bounded, erasure};
use crate::erasure::FORGOTTEN;
use crate::projection::{Changes, Lease, RunKey};
use crate::{Erasure, Erasures, Handles, Host, LogError, Moved, PersonRow, PersonStay, StayKey, Suppression};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

const ERASURE: &str = "id, begun_at, finished_at, events, stays, quarantined, hosts, messages";

/// The erasure $1 and earlier ones of the same person.
const SAME: &str = "erasure IN (SELECT id FROM erasures WHERE person = (SELECT person FROM erasures WHERE id = $1))";

async fn count(connection: &mut DbConnection, erasure: i64, what: &str, by: u64) -> Result<(), sqlx::Error> {
    let sql = format!("UPDATE erasures SET {what} = {what} + $1 WHERE id = $2");
    let by = i64::try_from(by).unwrap_or(i64::MAX);
    sqlx::query(AssertSqlSafe(sql)).bind(by).bind(erasure).execute(connection).await.map(drop)
}

#[async_trait]
impl Suppression for Backend {
    async fn forgotten_key(&self) -> Result<Option<String>, LogError> {
        let key = sqlx::query_as("SELECT key FROM forgotten_key");
        self.optional::<(String,)>(key).await.map(|found| found.map(|(key,)| key))
    }

    async fn forgotten(&self, hashes: &[String]) -> Result<HashMap<String, Millis>, LogError> {
        let sql = format!("SELECT hash, at FROM forgotten WHERE hash {MEMBER}");
        let found: Vec<(String, Millis)> = self.all(sqlx::query_as(AssertSqlSafe(sql)).bind(array(hashes))).await?;
        Ok(found.into_iter().collect())
    }
}

#[async_trait]
impl Erasures for Backend {
    async fn make_forgotten_key(&self, fresh: &str) -> Result<String, LogError> {
        let insert = sqlx::query("INSERT INTO forgotten_key (id, key) VALUES (1, $1) ON CONFLICT DO NOTHING");
        self.write(insert.bind(fresh)).await?;
        self.forgotten_key().await?.ok_or_else(|| LogError::unavailable("the key of the hashes is gone"))
    }

    async fn remember_forgotten(&self, hashes: &[String], at: Millis) -> Result<(), LogError> {
        let mut session = self.session().await?;
        bounded(erasure::remember(&mut session, hashes, at)).await
    }

    async fn begin_erasure(&self, person: &str, named_by: &str) -> Result<Erasure, LogError> {
        let mut session = self.session().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN_ERASURE).await?;
            let sql = format!(
                "SELECT {ERASURE} FROM erasures WHERE person = $1 AND finished_at IS NULL ORDER BY id DESC LIMIT 1"
            );
            let erasure = match sqlx::query_as(AssertSqlSafe(sql)).bind(person).fetch_optional(&mut *tx).await? {
                Some(unfinished) => unfinished,
                None => {
                    let sql = format!(
                        "INSERT INTO erasures (person, named_by, begun_at) VALUES ($1, $2, {NOW_MILLIS})
                         RETURNING {ERASURE}"
                    );
                    sqlx::query_as(AssertSqlSafe(sql)).bind(person).bind(named_by).fetch_one(&mut *tx).await?
                }
            };
            tx.commit().await?;
            Ok(erasure)
        })
        .await
    }

    async fn erasure(&self, id: i64) -> Result<Erasure, LogError> {
        let sql = format!("SELECT {ERASURE} FROM erasures WHERE id = $1");
        self.one(sqlx::query_as(AssertSqlSafe(sql)).bind(id)).await
    }

    async fn finish_erasure(&self, id: i64) -> Result<(), LogError> {
        let mut session = self.eraser().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN).await?;
            sqlx::query("DELETE FROM erased_stays WHERE erasure = $1").bind(id).execute(&mut *tx).await?;
            let finished = format!("UPDATE erasures SET finished_at = {NOW_MILLIS} WHERE id = $1");
            sqlx::query(AssertSqlSafe(finished)).bind(id).execute(&mut *tx).await?;
            tx.commit().await
        })
        .await
    }

    async fn person_rows(
        &self,
        handles: &Handles,
        runs: &[RunKey],
        after: Seq,
        up_to: Seq,
    ) -> Result<Vec<PersonRow>, LogError> {
        erasure::person_rows(self, handles, runs, after, up_to).await
    }

    async fn person_stays(
        &self,
        handles: &Handles,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<PersonStay>, Option<Uuid>), LogError> {
        // The last one of the page comes in any case.
        let rows: Vec<(PersonStay, bool)> = erasure::person_stays(self, handles, after, limit).await?;
        let last = rows.last().map(|(stay, _)| stay.key.stay_id);
        Ok((rows.into_iter().filter_map(|(stay, theirs)| theirs.then_some(stay)).collect(), last))
    }

    async fn note_stays(
        &self,
        erasure: &Erasure,
        stays: &[(StayKey, Option<String>)],
        hashes: &[String],
    ) -> Result<(), LogError> {
        let mut session = self.session().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN).await?;
            erasure::remember(&mut tx, hashes, erasure.begun_at).await?;
            erasure::note(&mut tx, erasure.id, stays).await?;
            tx.commit().await
        })
        .await
    }

    async fn noted_stays(&self, erasure: i64) -> Result<Vec<StayKey>, LogError> {
        let noted = "SELECT subscriber_id, meeting_uuid, stay_id FROM erased_stays WHERE erasure = $1";
        self.all(sqlx::query_as(noted).bind(erasure)).await
    }

    async fn erase_rows(&self, erasure: &Erasure, rows: &[PersonRow]) -> Result<(), LogError> {
        let ids: Vec<EventId> = rows.iter().map(|row| row.event_id).collect();
        let mut session = self.eraser().await?;
        bounded(async {
            let mut tx = session.begin_with(erasure::BEGIN_ROWS).await?;
            let erased = format!(
                "INSERT INTO erased_events (erasure, event_id, meeting_id)
                 SELECT $2, event_id, meeting_id FROM events WHERE event_id {MEMBER} AND forgotten_at IS NULL
                 ON CONFLICT DO NOTHING"
            );
            sqlx::query(AssertSqlSafe(erased)).bind(array(&ids)).bind(erasure.id).execute(&mut *tx).await?;
            let erase = format!(
                "UPDATE events
                    SET user_uuid = NULL, user_agent = NULL, account = NULL, participant_id = NULL, display_name = NULL,
                        role = NULL, call_number = NULL, request_id = NULL, traceparent = NULL, event_info = NULL,
                        forgotten_at = $2
                  WHERE event_id {MEMBER} AND forgotten_at IS NULL"
            );
            let erase = sqlx::query(AssertSqlSafe(erase)).bind(array(&ids)).bind(erasure.begun_at);
            let erased = erase.execute(&mut *tx).await?.rows_affected();
            count(&mut tx, erasure.id, "events", erased).await?;
            tx.commit().await
        })
        .await
    }

    async fn erase_stays(
        &self,
        lease: Lease<'_>,
        at: Seq,
        erasure: i64,
        removed: &[StayKey],
        changes: &Changes,
    ) -> Result<Moved, LogError> {
        let mut session = self.eraser().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN).await?;
            let Some(wanted) = advance(&mut tx, lease.cursor, lease.owner, Some(at), lease.ttl).await? else {
                tx.rollback().await?;
                return Ok(Moved::LeaseLost);
            };
            let gone = erasure::remove(&mut tx, removed).await?;
            super::projection::write(&mut tx, lease.cursor, Some(changes)).await?;
            count(&mut tx, erasure, "stays", gone).await?;
            tx.commit().await?;
            Ok(Moved::Yes { wanted })
        })
        .await
    }

    async fn erase_quarantined(&self, erasure: i64, id: i64) -> Result<(), LogError> {
        let mut session = self.eraser().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN).await?;
            let erase = sqlx::query("UPDATE quarantine SET body = $3, reason = $1 WHERE id = $2 AND reason <> $1");
            let erase = erase.bind(FORGOTTEN).bind(id).bind(&[][..] as &[u8]);
            let erased = erase.execute(&mut *tx).await?.rows_affected();
            count(&mut tx, erasure, "quarantined", erased).await?;
            tx.commit().await
        })
        .await
    }

    async fn hosts(&self, after: Option<&RunKey>, limit: u32) -> Result<Vec<Host>, LogError> {
        let hosts = "SELECT subscriber_id, meeting_uuid, host, subject FROM enrichments
                      WHERE (subscriber_id, meeting_uuid) > ($1, $2) AND host IS NOT NULL
                      ORDER BY subscriber_id, meeting_uuid LIMIT $3";
        let (subscriber, uuid) = after.map_or(("", ""), |run| (&*run.subscriber_id, &*run.meeting_uuid));
        self.all(sqlx::query_as(hosts).bind(subscriber).bind(uuid).bind(i64::from(limit))).await
    }

    async fn erase_host(&self, erasure: i64, run: &RunKey, subject: bool) -> Result<(), LogError> {
        let mut session = self.eraser().await?;
        bounded(async {
            let mut tx = session.begin_with(BEGIN).await?;
            let mut changed = 0;
            for table in ["meetings", "enrichments"] {
                let sql = format!(
                    "UPDATE {table} SET host = NULL, subject = CASE WHEN $1 THEN NULL ELSE subject END
                      WHERE subscriber_id = $2 AND meeting_uuid = $3 AND host IS NOT NULL"
                );
                let erase = sqlx::query(AssertSqlSafe(sql)).bind(subject);
                let erase = erase.bind(&*run.subscriber_id).bind(&*run.meeting_uuid);
                changed = erase.execute(&mut *tx).await?.rows_affected();
            }
            count(&mut tx, erasure, "hosts", changed).await?;
            tx.commit().await
        })
        .await
    }

    async fn erased_events(&self, erasure: i64) -> Result<Vec<EventId>, LogError> {
        let sql = format!("SELECT DISTINCT event_id FROM erased_events WHERE {SAME}");
        let ids = self.all::<(EventId,)>(sqlx::query_as(AssertSqlSafe(sql)).bind(erasure)).await?;
        Ok(ids.into_iter().map(|(id,)| id).collect())
    }

    async fn erased_meetings(&self, erasure: i64) -> Result<Vec<Option<String>>, LogError> {
        let sql = format!(
            "SELECT meeting_id FROM erased_events WHERE {SAME} UNION SELECT meeting_id FROM erased_stays WHERE {SAME}"
        );
        let ids = self.all::<(Option<String>,)>(sqlx::query_as(AssertSqlSafe(sql)).bind(erasure)).await?;
        Ok(ids.into_iter().map(|(id,)| id).collect())
    }

    async fn count_messages(&self, erasure: i64, messages: u64) -> Result<(), LogError> {
        let mut session = self.session().await?;
        bounded(count(&mut session, erasure, "messages", messages)).await
    }

    async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
        self.scrub_files(vacuum).await
    }
}
