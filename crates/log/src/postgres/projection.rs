//! The analyst tables in PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BEGIN_READ, PostgresLog, bounded, failed};
use crate::projection::{
    Changes, ClosedBy, Fact, Lease, MeetingRow, Projection, RUNS_BEFORE_LOG, Ready, RecordingRow, RunKey, Status,
    StayRow, Stored, TABLE_COUNTS,
};
use crate::{LogError, Moved, Texts};
use convoke_core::event::{Attendee, Meeting};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

const FACT: &str = "seq, event_id, subscriber_id, event, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, \
     user_agent, account, participant_id, display_name, role, call_number, join_time, left_time, \
     CASE WHEN event = 'record.ready' THEN event_info END";

const MEETING: &str = "subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, status, created_at, modified_at, \
     modifications, cancelled_at, started_at, ended_at, concluded_at, stays, participants, peak_participants, recordings, \
     first_event_at, last_event_at, internal";

const STAY: &str = "stay_id, subscriber_id, meeting_uuid, meeting_id, participant_id, person, user_uuid, account, \
     display_name, call_number, user_agent, role, joined_at, left_at, duration_s, closed_by, internal";

const RECORDING: &str = "event_id, subscriber_id, meeting_uuid, meeting_id, finished_at, ready_at, length_s, size_mb, \
     files, view_url";

/// A join by nested loops over the keys' index, whatever the planner believes of a table that was empty a minute ago.
const BEGIN_LOAD: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan";

#[async_trait]
impl Projection for PostgresLog {
    async fn read_facts(&self, after: Seq, limit: u32) -> Result<Vec<Fact>, LogError> {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_READ).await?;
            let sql = format!("SELECT {FACT} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");
            let rows = sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            rows.iter().map(fact).collect()
        })
        .await
    }

    async fn load_runs(&self, runs: &[RunKey]) -> Result<Vec<Stored>, LogError> {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_LOAD).await?;
            let select = |columns: &str, table: &str| {
                let columns = columns.split(", ").map(|name| format!("t.{name}")).collect::<Vec<_>>().join(", ");
                AssertSqlSafe(format!(
                    "SELECT {columns} FROM unnest($1::text[], $2::text[]) AS wanted (subscriber_id, meeting_uuid)
                       JOIN {table} t USING (subscriber_id, meeting_uuid)"
                ))
            };
            let (subscribers, uuids) = keys(runs.iter());
            let rows =
                sqlx::query(select(MEETING, "meetings")).bind(subscribers).bind(uuids).fetch_all(&mut *tx).await?;
            let mut found: HashMap<RunKey, Stored> = HashMap::with_capacity(rows.len());
            for row in &rows {
                let meeting = meeting(row)?;
                found.insert(meeting.run.clone(), Stored { meeting, stays: Vec::new(), recordings: Vec::new() });
            }
            if !found.is_empty() {
                let (subscribers, uuids) = keys(found.keys());
                let rows =
                    sqlx::query(select(STAY, "attendance")).bind(subscribers).bind(uuids).fetch_all(&mut *tx).await?;
                let stays: Vec<StayRow> = rows.iter().map(stay).collect::<Result<_, _>>()?;
                let recorded = found.values().filter(|stored| stored.meeting.recordings > 0);
                let (subscribers, uuids) = keys(recorded.map(|stored| &stored.meeting.run));
                let rows = sqlx::query(select(RECORDING, "recordings"))
                    .bind(subscribers)
                    .bind(uuids)
                    .fetch_all(&mut *tx)
                    .await?;
                for stay in stays {
                    if let Some(stored) = found.get_mut(&stay.run) {
                        stored.stays.push(stay);
                    }
                }
                for recording in rows.iter().map(recording) {
                    let recording = recording?;
                    let Some(uuid) = &recording.meeting_uuid else { continue };
                    let key = RunKey { subscriber_id: recording.subscriber_id.clone(), meeting_uuid: uuid.clone() };
                    if let Some(stored) = found.get_mut(&key) {
                        stored.recordings.push(recording);
                    }
                }
            }
            tx.commit().await?;
            Ok(found.into_values().collect())
        })
        .await
    }

    async fn project(&self, lease: Lease<'_>, to: Seq, changes: &Changes) -> Result<Moved, LogError> {
        self.move_with(lease, Some((to, changes))).await
    }

    async fn clear_tables(&self, lease: Lease<'_>) -> Result<Moved, LogError> {
        self.move_with(lease, None).await
    }

    async fn runs_before_log(&self) -> Result<i64, LogError> {
        sqlx::query_scalar(RUNS_BEFORE_LOG).fetch_one(&self.pool).await.map_err(failed)
    }

    async fn table_counts(&self) -> Result<[i64; 3], LogError> {
        let counts = sqlx::query_as(TABLE_COUNTS).fetch_one(&self.pool).await.map_err(failed)?;
        let (meetings, stays, recordings) = counts;
        Ok([meetings, stays, recordings])
    }
}

impl PostgresLog {
    /// Moves a cursor, and writes in the same transaction: changes, or, back at the beginning, that there is nothing.
    async fn move_with(&self, lease: Lease<'_>, forward: Option<(Seq, &Changes)>) -> Result<Moved, LogError> {
        bounded(async {
            let mut tx = self.pool.begin().await?;
            let wanted =
                super::advance(&mut *tx, lease.cursor, lease.owner, forward.map(|(to, _)| to), lease.ttl).await?;
            let Some(wanted) = wanted else {
                tx.rollback().await?;
                return Ok(Moved::LeaseLost);
            };
            write(&mut tx, lease.cursor, forward.map(|(_, changes)| changes)).await?;
            tx.commit().await?;
            Ok(Moved::Yes { wanted })
        })
        .await
    }
}

/// Writes the changes, or, without any, empties the tables and forgets what the cursor had set aside.
pub(super) async fn write(
    connection: &mut PgConnection,
    cursor: &str,
    changes: Option<&Changes>,
) -> Result<(), sqlx::Error> {
    match changes {
        Some(changes) => {
            write_meetings(connection, &changes.meetings).await?;
            write_stays(connection, &changes.stays).await?;
            write_recordings(connection, &changes.recordings).await
        }
        // A long query of these tables is in the way: then this fails in time, and nothing has changed.
        None => {
            sqlx::raw_sql("TRUNCATE meetings, attendance, recordings").execute(&mut *connection).await?;
            let aside = sqlx::query("DELETE FROM set_aside WHERE cursor = $1").bind(cursor);
            aside.execute(connection).await.map(drop)
        }
    }
}

fn keys<'a>(runs: impl Iterator<Item = &'a RunKey>) -> (Vec<&'a str>, Vec<&'a str>) {
    runs.map(|run| (&*run.subscriber_id, &*run.meeting_uuid)).unzip()
}

/// `INSERT … SELECT * FROM unnest(…)`, over rows that are there already. So many of the first columns never change, and so
/// many of these are the key.
fn upsert(table: &str, columns: &str, types: &[&str], fixed: usize, keys: usize) -> AssertSqlSafe<String> {
    let names: Vec<&str> = columns.split(", ").map(str::trim).collect();
    let arrays: Vec<String> = types.iter().zip(1..).map(|(kind, place)| format!("${place}::{kind}[]")).collect();
    let set: Vec<String> = names[fixed..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    AssertSqlSafe(format!(
        "INSERT INTO {table} ({columns}) SELECT * FROM unnest({}) ON CONFLICT ({}) DO UPDATE SET {}",
        arrays.join(", "),
        names[..keys].join(", "),
        set.join(", ")
    ))
}

fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

async fn write_meetings(connection: &mut PgConnection, rows: &[MeetingRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let types = [
        "text",
        "text",
        "text",
        "text",
        "text",
        "timestamptz",
        "timestamptz",
        "bigint",
        "timestamptz",
        "timestamptz",
        "timestamptz",
        "timestamptz",
        "bigint",
        "bigint",
        "bigint",
        "bigint",
        "timestamptz",
        "timestamptz",
        "text",
    ];
    sqlx::query(upsert("meetings", MEETING, &types, 2, 2))
        .bind(column(rows, |row| &*row.run.subscriber_id))
        .bind(column(rows, |row| &*row.run.meeting_uuid))
        .bind(column(rows, |row| row.meeting_id.as_deref()))
        .bind(column(rows, |row| row.meeting_cycle_sub_id.as_deref()))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.created_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.modified_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.modifications))
        .bind(column(rows, |row| row.cancelled_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.started_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.ended_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.concluded_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.stays))
        .bind(column(rows, |row| row.participants))
        .bind(column(rows, |row| row.peak_participants))
        .bind(column(rows, |row| row.recordings))
        .bind(column(rows, |row| row.first_event_at.date_time()))
        .bind(column(rows, |row| row.last_event_at.date_time()))
        .bind(column(rows, |row| &*row.internal))
        .execute(connection)
        .await
        .map(drop)
}

async fn write_stays(connection: &mut PgConnection, rows: &[StayRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let types = [
        "uuid",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "timestamptz",
        "timestamptz",
        "float8",
        "text",
        "text",
    ];
    let told = column(rows, |row| row.told.texts());
    sqlx::query(upsert("attendance", STAY, &types, 3, 1))
        .bind(column(rows, |row| row.stay_id))
        .bind(column(rows, |row| &*row.run.subscriber_id))
        .bind(column(rows, |row| &*row.run.meeting_uuid))
        .bind(column(&told, |told| told.meeting_id))
        .bind(column(&told, |told| told.participant_id))
        .bind(column(&told, Texts::person))
        .bind(column(&told, |told| told.user_uuid))
        .bind(column(&told, |told| told.account))
        .bind(column(&told, |told| told.display_name))
        .bind(column(&told, |told| told.call_number))
        .bind(column(&told, |told| told.user_agent))
        .bind(column(&told, |told| told.role))
        .bind(column(rows, |row| row.joined_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.left_at.map(Millis::date_time)))
        .bind(column(rows, |row| row.duration.map(|duration| duration.as_secs_f64())))
        .bind(column(rows, |row| row.closed_by.as_str()))
        .bind(column(rows, |row| &*row.internal))
        .execute(connection)
        .await
        .map(drop)
}

async fn write_recordings(connection: &mut PgConnection, rows: &[RecordingRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let types = ["uuid", "text", "text", "text", "timestamptz", "timestamptz", "bigint", "float8", "bigint", "text"];
    fn ready<T>(row: &RecordingRow, of: impl Fn(&Ready) -> Option<T>) -> Option<T> {
        row.ready.as_ref().and_then(of)
    }
    sqlx::query(upsert("recordings", RECORDING, &types, 1, 1))
        .bind(column(rows, |row| row.event_id.uuid()))
        .bind(column(rows, |row| &*row.subscriber_id))
        .bind(column(rows, |row| row.meeting_uuid.as_deref()))
        .bind(column(rows, |row| row.meeting_id.as_deref()))
        .bind(column(rows, |row| row.finished_at.date_time()))
        .bind(column(rows, |row| row.ready.as_ref().map(|ready| ready.at.date_time())))
        .bind(column(rows, |row| ready(row, |ready| ready.length_s)))
        .bind(column(rows, |row| ready(row, |ready| ready.size_mb)))
        .bind(column(rows, |row| ready(row, |ready| ready.files)))
        .bind(column(rows, |row| row.ready.as_ref().and_then(|ready| ready.view_url.as_deref())))
        .execute(connection)
        .await
        .map(drop)
}

pub(super) fn shared(row: &PgRow, index: usize) -> Result<Option<Arc<str>>, sqlx::Error> {
    Ok(row.try_get::<Option<&str>, _>(index)?.map(Arc::from))
}

pub(super) fn known(row: &PgRow, index: usize) -> Result<Arc<str>, sqlx::Error> {
    row.try_get::<&str, _>(index).map(Arc::from)
}

pub(super) fn when(row: &PgRow, index: usize) -> Result<Option<Millis>, sqlx::Error> {
    Ok(row.try_get::<Option<OffsetDateTime>, _>(index)?.map(Millis::from_date_time))
}

pub(super) fn always(row: &PgRow, index: usize) -> Result<Millis, sqlx::Error> {
    row.try_get(index).map(Millis::from_date_time)
}

pub(super) fn word<T>(row: &PgRow, index: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(index)?;
    parse(text).ok_or_else(|| sqlx::Error::Decode(format!("{text} is not a word of this column").into()))
}

fn fact(row: &PgRow) -> Result<Fact, sqlx::Error> {
    Ok(Fact {
        seq: Seq(row.try_get(0)?),
        event_id: EventId::from_uuid(row.try_get(1)?),
        subscriber_id: known(row, 2)?,
        event: known(row, 3)?,
        meeting: Meeting { id: shared(row, 4)?, uuid: shared(row, 5)?, cycle_sub_id: shared(row, 6)? },
        attendee: Attendee {
            user_uuid: shared(row, 7)?,
            user_agent: shared(row, 8)?,
            account: shared(row, 9)?,
            participant_id: shared(row, 10)?,
            display_name: shared(row, 11)?,
            role: shared(row, 12)?,
            call_number: shared(row, 13)?,
            join_time: when(row, 14)?,
            left_time: when(row, 15)?,
        },
        event_info: shared(row, 16)?,
    })
}

fn meeting(row: &PgRow) -> Result<MeetingRow, sqlx::Error> {
    Ok(MeetingRow {
        run: RunKey { subscriber_id: known(row, 0)?, meeting_uuid: known(row, 1)? },
        meeting_id: shared(row, 2)?,
        meeting_cycle_sub_id: shared(row, 3)?,
        status: word(row, 4, Status::parse)?,
        created_at: when(row, 5)?,
        modified_at: when(row, 6)?,
        modifications: row.try_get(7)?,
        cancelled_at: when(row, 8)?,
        started_at: when(row, 9)?,
        ended_at: when(row, 10)?,
        concluded_at: when(row, 11)?,
        stays: row.try_get(12)?,
        participants: row.try_get(13)?,
        peak_participants: row.try_get(14)?,
        recordings: row.try_get(15)?,
        first_event_at: always(row, 16)?,
        last_event_at: always(row, 17)?,
        internal: row.try_get(18)?,
    })
}

fn stay(row: &PgRow) -> Result<StayRow, sqlx::Error> {
    Ok(StayRow {
        stay_id: row.try_get::<Uuid, _>(0)?,
        run: RunKey { subscriber_id: known(row, 1)?, meeting_uuid: known(row, 2)? },
        told: Texts {
            meeting_id: row.try_get(3)?,
            participant_id: row.try_get(4)?,
            user_uuid: row.try_get(6)?,
            account: row.try_get(7)?,
            display_name: row.try_get(8)?,
            call_number: row.try_get(9)?,
            user_agent: row.try_get(10)?,
            role: row.try_get(11)?,
        }
        .told(),
        joined_at: when(row, 12)?,
        left_at: when(row, 13)?,
        // What cannot be one, which nothing here writes, is made anew with the row.
        duration: row.try_get::<Option<f64>, _>(14)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        closed_by: word(row, 15, ClosedBy::parse)?,
        internal: row.try_get(16)?,
    })
}

pub(super) fn recording(row: &PgRow) -> Result<RecordingRow, sqlx::Error> {
    Ok(RecordingRow {
        event_id: EventId::from_uuid(row.try_get(0)?),
        subscriber_id: known(row, 1)?,
        meeting_uuid: shared(row, 2)?,
        meeting_id: shared(row, 3)?,
        finished_at: always(row, 4)?,
        ready: match when(row, 5)? {
            Some(at) => Some(Ready {
                at,
                length_s: row.try_get(6)?,
                size_mb: row.try_get(7)?,
                files: row.try_get(8)?,
                view_url: row.try_get(9)?,
            }),
            None => None,
        },
    })
}
