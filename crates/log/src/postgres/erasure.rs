//! Erasing a person in PostgreSQL. Each transaction is short; the one that erases rows of the log appends nothing and takes
//! the log's lock all the same, so that it never waits for a row that an append waits for.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, FromRow, Row};
use uuid::Uuid;

use super::rows::PERSON;
use super::{BEGIN_PROBE, Db, PostgresLog, failed};
use crate::erasure::{internal_members, internal_names};
use crate::{Handles, LogError, PersonRow, PersonStay, RunKey, StayKey};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

pub(super) const BEGIN_ROWS: &str = BEGIN_PROBE;

/// Tables of which rows are erased.
const ERASED_TABLES: &str = "events, attendance, meetings, enrichments, quarantine, erased_stays";

impl PostgresLog {
    pub(super) async fn eraser(&self) -> Result<PoolConnection<Db>, LogError> {
        self.session().await
    }

    /// As [`Erasures::scrub`](crate::Erasures::scrub) has it.
    pub(super) async fn scrub_files(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
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

/// As [`Erasures::person_rows`](crate::Erasures::person_rows) has it.
pub(super) async fn person_rows(
    log: &PostgresLog,
    handles: &Handles,
    runs: &[RunKey],
    after: Seq,
    up_to: Seq,
) -> Result<Vec<PersonRow>, LogError> {
    let (subscribers, uuids) = keys(runs);
    // A person's command, over a bounded stretch of the log: it may take its time.
    let sql = format!(
        "SELECT {PERSON}
           FROM events
          WHERE seq > $1 AND seq <= $2 AND forgotten_at IS NULL
            AND (user_uuid = ANY($3) OR account = ANY($4) OR call_number = ANY($5)
                 OR display_name = ANY($8) AND $9 IN (meeting_id, meeting_uuid)
                 OR coalesce(participant_id, call_number, display_name, user_uuid, account) IS NOT NULL
                    AND (subscriber_id, meeting_uuid) IN (SELECT * FROM unnest($6::text[], $7::text[])))
          ORDER BY seq"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(after)
        .bind(up_to)
        .bind(&handles.users)
        .bind(&handles.accounts)
        .bind(&handles.call_numbers)
        .bind(subscribers)
        .bind(uuids)
        .bind(&handles.names)
        .bind(&handles.meeting)
        .fetch_all(&log.pool)
        .await
        .map_err(failed)
}

/// The stays of a page that the handles name, and its last one; of each whether they name it.
pub(super) async fn person_stays(
    log: &PostgresLog,
    handles: &Handles,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<(PersonStay, bool)>, LogError> {
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
    .fetch_all(&log.pool)
    .await
    .map_err(failed)?;
    rows.iter().map(|row| Ok((PersonStay::from_row(row)?, row.try_get(8)?))).collect::<Result<_, _>>().map_err(failed)
}

pub(super) async fn remember(connection: &mut PgConnection, hashes: &[String], at: Millis) -> Result<(), sqlx::Error> {
    // In one order, so that two who remember at once do not wait for one another.
    let mut hashes: Vec<&String> = hashes.iter().collect();
    hashes.sort_unstable();
    hashes.dedup();
    sqlx::query(
        "INSERT INTO forgotten AS f (hash, at) SELECT hash, $1 FROM unnest($2::text[]) AS h (hash)
         ON CONFLICT (hash) DO UPDATE SET at = greatest(f.at, excluded.at)",
    )
    .bind(at)
    .bind(hashes)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn note(
    connection: &mut PgConnection,
    erasure: i64,
    stays: &[(StayKey, Option<String>)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO erased_stays (erasure, subscriber_id, meeting_uuid, stay_id, meeting_id)
         SELECT $1, * FROM unnest($2::text[], $3::text[], $4::uuid[], $5::text[]) ON CONFLICT DO NOTHING",
    )
    .bind(erasure)
    .bind(stays.iter().map(|(key, _)| &*key.run.subscriber_id).collect::<Vec<_>>())
    .bind(stays.iter().map(|(key, _)| &*key.run.meeting_uuid).collect::<Vec<_>>())
    .bind(stays.iter().map(|(key, _)| key.stay_id).collect::<Vec<_>>())
    .bind(stays.iter().map(|(_, meeting_id)| meeting_id.as_deref()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

/// Takes stays out of `attendance`; how many were there.
pub(super) async fn remove(connection: &mut PgConnection, stays: &[StayKey]) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "DELETE FROM attendance a USING unnest($1::text[], $2::text[], $3::uuid[]) AS gone (s, m, stay)
          WHERE a.subscriber_id = gone.s AND a.meeting_uuid = gone.m AND a.stay_id = gone.stay",
    )
    .bind(stays.iter().map(|key| &*key.run.subscriber_id).collect::<Vec<_>>())
    .bind(stays.iter().map(|key| &*key.run.meeting_uuid).collect::<Vec<_>>())
    .bind(stays.iter().map(|key| key.stay_id).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(|done| done.rows_affected())
}

fn keys(runs: &[RunKey]) -> (Vec<&str>, Vec<&str>) {
    runs.iter().map(|run| (&*run.subscriber_id, &*run.meeting_uuid)).unzip()
}
