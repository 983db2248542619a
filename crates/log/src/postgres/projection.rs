//! The analyst tables in PostgreSQL.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use super::rows::{MEETING, PROJECTED_EVENT, RECORDING, STAY};
use super::{PostgresLog, bounded, failed};
use crate::projection::{
    Changes, Lease, MeetingRow, ProjectedEvent, Projection, RUNS_BEFORE_LOG, Ready, RecordingRow, RunKey, StayRow,
    Stored, TABLE_COUNTS,
};
use crate::{Attributes, LogError, Moved};
use convoke_core::id::Seq;

/// A join by nested loops over the keys' index, whatever the planner believes of a table that was empty a minute ago.
const BEGIN_LOAD: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan";

#[async_trait]
impl Projection for PostgresLog {
    async fn read_projected(&self, after: Seq, limit: u32) -> Result<Vec<ProjectedEvent>, LogError> {
        let sql = format!("SELECT {PROJECTED_EVENT} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");
        self.along(sqlx::query_as(AssertSqlSafe(sql)).bind(after).bind(i64::from(limit))).await
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
                let meeting = MeetingRow::from_row(row)?;
                found.insert(meeting.run.clone(), Stored { meeting, stays: Vec::new(), recordings: Vec::new() });
            }
            if !found.is_empty() {
                let (subscribers, uuids) = keys(found.keys());
                let rows =
                    sqlx::query(select(STAY, "attendance")).bind(subscribers).bind(uuids).fetch_all(&mut *tx).await?;
                let stays: Vec<StayRow> = rows.iter().map(StayRow::from_row).collect::<Result<_, _>>()?;
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
                for recording in rows.iter().map(RecordingRow::from_row) {
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
        sqlx::query_scalar(RUNS_BEFORE_LOG).fetch_one(self.pool()).await.map_err(failed)
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
                super::advance(&mut tx, lease.cursor, lease.owner, forward.map(|(to, _)| to), lease.ttl).await?;
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
        .bind(column(rows, |row| row.created_at))
        .bind(column(rows, |row| row.modified_at))
        .bind(column(rows, |row| row.modifications))
        .bind(column(rows, |row| row.cancelled_at))
        .bind(column(rows, |row| row.started_at))
        .bind(column(rows, |row| row.ended_at))
        .bind(column(rows, |row| row.concluded_at))
        .bind(column(rows, |row| row.stays))
        .bind(column(rows, |row| row.participants))
        .bind(column(rows, |row| row.peak_participants))
        .bind(column(rows, |row| row.recordings))
        .bind(column(rows, |row| row.first_event_at))
        .bind(column(rows, |row| row.last_event_at))
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
    let attributes = column(rows, |row| row.attributes.unpack());
    sqlx::query(upsert("attendance", STAY, &types, 3, 1))
        .bind(column(rows, |row| row.stay_id))
        .bind(column(rows, |row| &*row.run.subscriber_id))
        .bind(column(rows, |row| &*row.run.meeting_uuid))
        .bind(column(&attributes, |attributes| attributes.meeting_id))
        .bind(column(&attributes, |attributes| attributes.participant_id))
        .bind(column(&attributes, Attributes::person))
        .bind(column(&attributes, |attributes| attributes.user_uuid))
        .bind(column(&attributes, |attributes| attributes.account))
        .bind(column(&attributes, |attributes| attributes.display_name))
        .bind(column(&attributes, |attributes| attributes.call_number))
        .bind(column(&attributes, |attributes| attributes.user_agent))
        .bind(column(&attributes, |attributes| attributes.role))
        .bind(column(rows, |row| row.joined_at))
        .bind(column(rows, |row| row.left_at))
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
        .bind(column(rows, |row| row.event_id))
        .bind(column(rows, |row| &*row.subscriber_id))
        .bind(column(rows, |row| row.meeting_uuid.as_deref()))
        .bind(column(rows, |row| row.meeting_id.as_deref()))
        .bind(column(rows, |row| row.finished_at))
        .bind(column(rows, |row| row.ready.as_ref().map(|ready| ready.at)))
        .bind(column(rows, |row| ready(row, |ready| ready.length_s)))
        .bind(column(rows, |row| ready(row, |ready| ready.size_mb)))
        .bind(column(rows, |row| ready(row, |ready| ready.files)))
        .bind(column(rows, |row| row.ready.as_ref().and_then(|ready| ready.view_url.as_deref())))
        .execute(connection)
        .await
        .map(drop)
}
