//! Erasing a person in PostgreSQL. Each transaction is short; the one that erases rows of the log appends nothing and takes
//! the log's lock all the same, so that it never waits for a row that an append waits for.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::projection::{self, known, shared, when};
use super::{BEGIN_PROBE, PostgresLog, advance, bounded, failed};
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

/// The erasure $1 and earlier ones of the same person.
const SAME: &str = "erasure IN (SELECT id FROM erasures WHERE person = (SELECT person FROM erasures WHERE id = $1))";

/// Tables of which rows are erased.
const ERASED_TABLES: &str = "events, attendance, meetings, enrichments, quarantine, erased_stays";

/// Taken while an erasure begins: of one person there is one that is not finished.
const BEGIN_ERASURE: &str = "BEGIN; LOCK TABLE erasures IN SHARE ROW EXCLUSIVE MODE";

async fn count(connection: &mut PgConnection, erasure: i64, what: &str, by: i64) -> Result<(), sqlx::Error> {
    let sql = format!("UPDATE erasures SET {what} = {what} + $1 WHERE id = $2");
    sqlx::query(AssertSqlSafe(sql)).bind(by).bind(erasure).execute(connection).await.map(drop)
}

fn rows(affected: u64) -> i64 {
    i64::try_from(affected).unwrap_or(i64::MAX)
}

#[async_trait]
impl Suppression for PostgresLog {
    async fn forgotten_key(&self) -> Result<Option<String>, LogError> {
        bounded(sqlx::query_scalar("SELECT key FROM forgotten_key").fetch_optional(&self.pool)).await
    }

    async fn forgotten(&self, hashes: &[String]) -> Result<HashMap<String, Millis>, LogError> {
        let found = sqlx::query("SELECT hash, at FROM forgotten WHERE hash = ANY($1)").bind(hashes);
        let rows = bounded(found.fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(|row| (row.get(0), Millis::from_date_time(row.get(1)))).collect())
    }
}

#[async_trait]
impl Erasures for PostgresLog {
    async fn make_forgotten_key(&self, fresh: &str) -> Result<String, LogError> {
        let insert = sqlx::query("INSERT INTO forgotten_key (id, key) VALUES (1, $1) ON CONFLICT DO NOTHING");
        bounded(insert.bind(fresh).execute(&self.pool)).await?;
        self.forgotten_key().await?.ok_or_else(|| LogError::unavailable("the key of the hashes is gone"))
    }

    async fn remember_forgotten(&self, hashes: &[String], at: Millis) -> Result<(), LogError> {
        bounded(async { remember(&mut *self.pool.acquire().await?, hashes, at).await }).await
    }

    async fn begin_erasure(&self, person: &str, named_by: &str) -> Result<Erasure, LogError> {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_ERASURE).await?;
            let sql = format!(
                "SELECT {ERASURE} FROM erasures WHERE person = $1 AND finished_at IS NULL ORDER BY id DESC LIMIT 1"
            );
            let row = match sqlx::query(AssertSqlSafe(sql)).bind(person).fetch_optional(&mut *tx).await? {
                Some(row) => row,
                None => {
                    let sql = format!(
                        "INSERT INTO erasures (person, named_by, begun_at)
                         VALUES ($1, $2, date_trunc('milliseconds', clock_timestamp())) RETURNING {ERASURE}"
                    );
                    sqlx::query(AssertSqlSafe(sql)).bind(person).bind(named_by).fetch_one(&mut *tx).await?
                }
            };
            tx.commit().await?;
            erasure(&row)
        })
        .await
    }

    async fn erasure(&self, id: i64) -> Result<Erasure, LogError> {
        let sql = format!("SELECT {ERASURE} FROM erasures WHERE id = $1");
        let row = bounded(sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_one(&self.pool)).await?;
        erasure(&row).map_err(failed)
    }

    async fn finish_erasure(&self, id: i64) -> Result<(), LogError> {
        bounded(async {
            let mut tx = self.pool.begin().await?;
            sqlx::query("DELETE FROM erased_stays WHERE erasure = $1").bind(id).execute(&mut *tx).await?;
            let finished = sqlx::query("UPDATE erasures SET finished_at = clock_timestamp() WHERE id = $1");
            finished.bind(id).execute(&mut *tx).await?;
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
        let (subscribers, uuids) = keys(runs);
        // A person's command, over a bounded stretch of the log: it may take its time.
        let rows = sqlx::query(
            "SELECT seq, event_id, subscriber_id, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, user_agent,
                    account, participant_id, display_name, role, call_number, join_time, left_time
               FROM events
              WHERE seq > $1 AND seq <= $2 AND forgotten_at IS NULL
                AND (user_uuid = ANY($3) OR account = ANY($4) OR call_number = ANY($5)
                     OR display_name = ANY($8) AND $9 IN (meeting_id, meeting_uuid)
                     OR coalesce(participant_id, call_number, display_name, user_uuid, account) IS NOT NULL
                        AND (subscriber_id, meeting_uuid) IN (SELECT * FROM unnest($6::text[], $7::text[])))
              ORDER BY seq",
        )
        .bind(after.0)
        .bind(up_to.0)
        .bind(&handles.users)
        .bind(&handles.accounts)
        .bind(&handles.call_numbers)
        .bind(subscribers)
        .bind(uuids)
        .bind(&handles.names)
        .bind(&handles.meeting)
        .fetch_all(&self.pool)
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
            "WITH page AS (SELECT * FROM attendance WHERE stay_id > $1 ORDER BY stay_id LIMIT $2),
                  told AS (SELECT page.*, coalesce(user_uuid = ANY($3), false) OR coalesce(account = ANY($4), false)
                                  OR coalesce(call_number = ANY($5), false)
                                  OR EXISTS (SELECT 1 FROM unnest($6::text[]) AS m (member)
                                              WHERE strpos(internal, member) > 0)
                                  OR stay_id = ANY($7)
                                  OR coalesce($9 IN (meeting_id, meeting_uuid), false)
                                     AND (coalesce(display_name = ANY($8), false)
                                          OR EXISTS (SELECT 1 FROM unnest($10::text[]) AS m (member)
                                                      WHERE strpos(internal, member) > 0)) AS theirs FROM page)
             SELECT subscriber_id, meeting_uuid, stay_id, meeting_id, display_name, call_number, user_uuid, account, theirs
               FROM told WHERE theirs OR stay_id = (SELECT stay_id FROM page ORDER BY stay_id DESC LIMIT 1)
              ORDER BY stay_id",
        )
        .bind(after.unwrap_or(Uuid::nil()))
        .bind(i64::from(limit))
        .bind(&handles.users)
        .bind(&handles.accounts)
        .bind(&handles.call_numbers)
        .bind(internal_members(handles))
        .bind(&handles.stays)
        .bind(&handles.names)
        .bind(&handles.meeting)
        .bind(internal_names(handles))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let stay = |row: &PgRow| {
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
        bounded(async {
            let mut tx = self.pool.begin().await?;
            remember(&mut tx, hashes, erasure.begun_at).await?;
            sqlx::query(
                "INSERT INTO erased_stays (erasure, subscriber_id, meeting_uuid, stay_id, meeting_id)
                 SELECT $1, * FROM unnest($2::text[], $3::text[], $4::uuid[], $5::text[]) ON CONFLICT DO NOTHING",
            )
            .bind(erasure.id)
            .bind(stays.iter().map(|(key, _)| &*key.run.subscriber_id).collect::<Vec<_>>())
            .bind(stays.iter().map(|(key, _)| &*key.run.meeting_uuid).collect::<Vec<_>>())
            .bind(stays.iter().map(|(key, _)| key.stay_id).collect::<Vec<_>>())
            .bind(stays.iter().map(|(_, meeting_id)| meeting_id.as_deref()).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
            tx.commit().await
        })
        .await
    }

    async fn noted_stays(&self, erasure: i64) -> Result<Vec<StayKey>, LogError> {
        let noted = sqlx::query("SELECT subscriber_id, meeting_uuid, stay_id FROM erased_stays WHERE erasure = $1");
        let rows = bounded(noted.bind(erasure).fetch_all(&self.pool)).await?;
        rows.iter().map(stay_key).collect::<Result<_, _>>().map_err(failed)
    }

    async fn erase_rows(&self, erasure: &Erasure, rows: &[PersonRow]) -> Result<(), LogError> {
        let ids: Vec<Uuid> = rows.iter().map(|row| row.event_id.uuid()).collect();
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_PROBE).await?;
            sqlx::query(
                "INSERT INTO erased_events (erasure, event_id, meeting_id)
                 SELECT $1, event_id, meeting_id FROM events WHERE event_id = ANY($2) AND forgotten_at IS NULL
                 ON CONFLICT DO NOTHING",
            )
            .bind(erasure.id)
            .bind(&ids)
            .execute(&mut *tx)
            .await?;
            let erased = sqlx::query(
                "UPDATE events
                    SET user_uuid = NULL, user_agent = NULL, account = NULL, participant_id = NULL, display_name = NULL,
                        role = NULL, call_number = NULL, request_id = NULL, traceparent = NULL, event_info = NULL,
                        forgotten_at = $1
                  WHERE event_id = ANY($2) AND forgotten_at IS NULL",
            )
            .bind(erasure.begun_at.date_time())
            .bind(&ids)
            .execute(&mut *tx)
            .await?;
            count(&mut tx, erasure.id, "events", self::rows(erased.rows_affected())).await?;
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
        bounded(async {
            let mut tx = self.pool.begin().await?;
            let Some(wanted) = advance(&mut *tx, lease.cursor, lease.owner, Some(at), lease.ttl).await? else {
                tx.rollback().await?;
                return Ok(Moved::LeaseLost);
            };
            let gone = sqlx::query(
                "DELETE FROM attendance a USING unnest($1::text[], $2::text[], $3::uuid[]) AS gone (s, m, stay)
                  WHERE a.subscriber_id = gone.s AND a.meeting_uuid = gone.m AND a.stay_id = gone.stay",
            )
            .bind(removed.iter().map(|key| &*key.run.subscriber_id).collect::<Vec<_>>())
            .bind(removed.iter().map(|key| &*key.run.meeting_uuid).collect::<Vec<_>>())
            .bind(removed.iter().map(|key| key.stay_id).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
            projection::write(&mut tx, lease.cursor, Some(changes)).await?;
            count(&mut tx, erasure, "stays", rows(gone.rows_affected())).await?;
            tx.commit().await?;
            Ok(Moved::Yes { wanted })
        })
        .await
    }

    async fn erase_quarantined(&self, erasure: i64, id: i64) -> Result<(), LogError> {
        bounded(async {
            let mut tx = self.pool.begin().await?;
            let erase = sqlx::query("UPDATE quarantine SET body = '', reason = $1 WHERE id = $2 AND reason <> $1");
            let erased = erase.bind(FORGOTTEN).bind(id).execute(&mut *tx).await?;
            count(&mut tx, erasure, "quarantined", rows(erased.rows_affected())).await?;
            tx.commit().await
        })
        .await
    }

    async fn hosts(&self, after: Option<&RunKey>, limit: u32) -> Result<Vec<Host>, LogError> {
        let hosts = sqlx::query(
            "SELECT subscriber_id, meeting_uuid, host, subject FROM enrichments
              WHERE (subscriber_id, meeting_uuid) > ($1, $2) AND host IS NOT NULL
              ORDER BY subscriber_id, meeting_uuid LIMIT $3",
        )
        .bind(after.map_or("", |run| &*run.subscriber_id))
        .bind(after.map_or("", |run| &*run.meeting_uuid))
        .bind(i64::from(limit));
        let host = |row: &PgRow| {
            let run = RunKey { subscriber_id: known(row, 0)?, meeting_uuid: known(row, 1)? };
            Ok(Host { run, host: row.try_get(2)?, subject: row.try_get(3)? })
        };
        let rows = hosts.fetch_all(&self.pool).await.map_err(failed)?;
        rows.iter().map(host).collect::<Result<_, _>>().map_err(failed)
    }

    async fn erase_host(&self, erasure: i64, run: &RunKey, subject: bool) -> Result<(), LogError> {
        bounded(async {
            let mut tx = self.pool.begin().await?;
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
            count(&mut tx, erasure, "hosts", rows(changed)).await?;
            tx.commit().await
        })
        .await
    }

    async fn erased_events(&self, erasure: i64) -> Result<Vec<EventId>, LogError> {
        let sql = format!("SELECT DISTINCT event_id FROM erased_events WHERE {SAME}");
        let rows = bounded(sqlx::query(AssertSqlSafe(sql)).bind(erasure).fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(|row| EventId::from_uuid(row.get(0))).collect())
    }

    async fn erased_meetings(&self, erasure: i64) -> Result<Vec<Option<String>>, LogError> {
        let sql = format!(
            "SELECT meeting_id FROM erased_events WHERE {SAME} UNION SELECT meeting_id FROM erased_stays WHERE {SAME}"
        );
        bounded(sqlx::query_scalar(AssertSqlSafe(sql)).bind(erasure).fetch_all(&self.pool)).await
    }

    async fn count_messages(&self, erasure: i64, messages: u64) -> Result<(), LogError> {
        bounded(async { count(&mut *self.pool.acquire().await?, erasure, "messages", rows(messages)).await }).await
    }

    async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
        let mut left = Vec::new();
        if vacuum {
            let mut connection = self.pool.acquire().await.map_err(failed)?;
            let sql = AssertSqlSafe(format!("VACUUM {ERASED_TABLES}"));
            sqlx::raw_sql(sql).execute(&mut *connection).await.map_err(failed)?;
            left.push(
                "free space in the tables' files until it is used again: VACUUM FULL writes a table anew, and locks it \
                 for as long"
                    .to_owned(),
            );
        } else {
            left.push(
                "dead rows in the tables' files, until PostgreSQL's autovacuum has been there: --vacuum does it now"
                    .to_owned(),
            );
        }
        left.push(
            "PostgreSQL's write-ahead log, its archive, and logical replicas that do not follow updates".to_owned(),
        );
        Ok(left)
    }
}

async fn remember(connection: &mut PgConnection, hashes: &[String], at: Millis) -> Result<(), sqlx::Error> {
    // In one order, so that two who remember at once do not wait for one another.
    let mut hashes: Vec<&String> = hashes.iter().collect();
    hashes.sort_unstable();
    hashes.dedup();
    sqlx::query(
        "INSERT INTO forgotten AS f (hash, at) SELECT hash, $1 FROM unnest($2::text[]) AS h (hash)
         ON CONFLICT (hash) DO UPDATE SET at = greatest(f.at, excluded.at)",
    )
    .bind(at.date_time())
    .bind(hashes)
    .execute(connection)
    .await
    .map(drop)
}

fn keys(runs: &[RunKey]) -> (Vec<&str>, Vec<&str>) {
    runs.iter().map(|run| (&*run.subscriber_id, &*run.meeting_uuid)).unzip()
}

fn erasure(row: &PgRow) -> Result<Erasure, sqlx::Error> {
    Ok(Erasure {
        id: row.try_get(0)?,
        begun_at: row.try_get::<OffsetDateTime, _>(1).map(Millis::from_date_time)?,
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

fn stay_key(row: &PgRow) -> Result<StayKey, sqlx::Error> {
    let run = RunKey { subscriber_id: known(row, 0)?, meeting_uuid: known(row, 1)? };
    Ok(StayKey { run, stay_id: row.try_get(2)? })
}

fn person_row(row: &PgRow) -> Result<PersonRow, sqlx::Error> {
    Ok(PersonRow {
        seq: Seq(row.try_get(0)?),
        event_id: EventId::from_uuid(row.try_get(1)?),
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
