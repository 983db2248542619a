//! The analyst tables in SQLite.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, AssertSqlSafe, FromRow};

use super::rows::{MEETING, PROJECTED_EVENT, RECORDING, STAY};
use super::{SqliteLog, failed};
use crate::projection::{
    Changes, Lease, MeetingRow, ProjectedEvent, Projection, RUNS_BEFORE_LOG, RecordingRow, RunKey, StayRow, Stored,
    TABLE_COUNTS,
};
use crate::{LogError, Moved};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

/// Rows that one statement writes: few distinct statements, each prepared once and kept.
const SHAPES: [usize; 4] = [128, 32, 8, 1];

/// A statement for each of [`SHAPES`].
struct Upsert([Arc<str>; SHAPES.len()]);

impl Upsert {
    /// So many of the first columns are the `key`, and so many never change, as the key does not.
    fn into(table: &str, columns: &str, fixed: usize, keys: usize) -> Self {
        let names: Vec<&str> = columns.split(", ").map(str::trim).collect();
        let row = format!("({})", vec!["?"; names.len()].join(", "));
        let set = names[fixed..].iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
        let key = names[..keys].join(", ");
        Self(SHAPES.map(|rows| {
            let values = vec![row.as_str(); rows].join(", ");
            format!("INSERT INTO {table} ({columns}) VALUES {values} ON CONFLICT ({key}) DO UPDATE SET {set}").into()
        }))
    }

    async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        bind: impl Fn(&mut SqliteArguments, &T) -> Result<(), sqlx::error::BoxDynError>,
    ) -> Result<(), sqlx::Error> {
        for (sql, shape) in self.0.iter().zip(SHAPES) {
            while let Some((chunk, rest)) = rows.split_at_checked(shape) {
                let mut arguments = SqliteArguments::default();
                for row in chunk {
                    bind(&mut arguments, row).map_err(sqlx::Error::Encode)?;
                }
                sqlx::query_with(AssertSqlSafe(Arc::clone(sql)), arguments).execute(&mut *connection).await?;
                rows = rest;
            }
        }
        Ok(())
    }
}

static MEETINGS: LazyLock<Upsert> = LazyLock::new(|| Upsert::into("meetings", MEETING, 2, 2));
static ATTENDANCE: LazyLock<Upsert> = LazyLock::new(|| Upsert::into("attendance", STAY, 3, 1));
static RECORDINGS: LazyLock<Upsert> = LazyLock::new(|| Upsert::into("recordings", RECORDING, 1, 1));

#[async_trait]
impl Projection for SqliteLog {
    async fn read_projected(&self, after: Seq, limit: u32) -> Result<Vec<ProjectedEvent>, LogError> {
        let sql = format!("SELECT {PROJECTED_EVENT} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");
        self.along(sqlx::query_as(AssertSqlSafe(sql)).bind(after).bind(i64::from(limit))).await
    }

    async fn load_runs(&self, runs: &[RunKey]) -> Result<Vec<Stored>, LogError> {
        let load = async {
            let wanted = "(subscriber_id, meeting_uuid) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))";
            let list = |keys: &mut dyn Iterator<Item = &RunKey>| {
                serde_json::Value::from_iter(keys.map(|key| vec![&*key.subscriber_id, &*key.meeting_uuid])).to_string()
            };
            let sql = format!("SELECT {MEETING} FROM meetings WHERE {wanted}");
            let rows = sqlx::query(AssertSqlSafe(sql)).bind(list(&mut runs.iter())).fetch_all(&self.readers).await?;
            let mut found: HashMap<RunKey, Stored> = HashMap::with_capacity(rows.len());
            for row in &rows {
                let meeting = MeetingRow::from_row(row)?;
                found.insert(meeting.run.clone(), Stored { meeting, stays: Vec::new(), recordings: Vec::new() });
            }
            if found.is_empty() {
                return Ok(Vec::new());
            }
            let (known, recorded) = (
                list(&mut found.keys()),
                list(&mut found.values().filter(|stored| stored.meeting.recordings > 0).map(|it| &it.meeting.run)),
            );
            // By the run alone, as the index has it: of another subscriber's run of the same name nothing is taken.
            let sql =
                format!("SELECT {STAY} FROM attendance WHERE meeting_uuid IN (SELECT value ->> 1 FROM json_each(?))");
            for row in &sqlx::query(AssertSqlSafe(sql)).bind(known).fetch_all(&self.readers).await? {
                let stay = StayRow::from_row(row)?;
                if let Some(stored) = found.get_mut(&stay.run) {
                    stored.stays.push(stay);
                }
            }
            let sql = format!("SELECT {RECORDING} FROM recordings WHERE {wanted}");
            for row in &sqlx::query(AssertSqlSafe(sql)).bind(recorded).fetch_all(&self.readers).await? {
                let recording = RecordingRow::from_row(row)?;
                let Some(uuid) = &recording.meeting_uuid else { continue };
                let key = RunKey { subscriber_id: recording.subscriber_id.clone(), meeting_uuid: uuid.clone() };
                if let Some(stored) = found.get_mut(&key) {
                    stored.recordings.push(recording);
                }
            }
            Ok::<_, sqlx::Error>(found.into_values().collect())
        };
        load.await.map_err(failed)
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
        let counts = sqlx::query_as(TABLE_COUNTS).fetch_one(&self.readers).await.map_err(failed)?;
        let (meetings, stays, recordings) = counts;
        Ok([meetings, stays, recordings])
    }
}

impl SqliteLog {
    /// Moves a cursor, and writes in the same transaction: changes, or, back at the beginning, that there is nothing.
    async fn move_with(&self, lease: Lease<'_>, forward: Option<(Seq, &Changes)>) -> Result<Moved, LogError> {
        let mut writer = self.writer().await?;
        // As in `append`: out of its place, so that a transaction that was begun goes with it.
        let Some(mut connection) = writer.0.take() else { return Err(LogError::unavailable("no connection")) };
        let moved = async {
            let connection = &mut connection;
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await?;
            let wanted =
                super::advance(connection, lease.cursor, lease.owner, forward.map(|(to, _)| to), lease.ttl).await?;
            let end = match wanted {
                Some(_) => {
                    write(connection, lease.cursor, forward.map(|(_, changes)| changes)).await?;
                    "COMMIT"
                }
                None => "ROLLBACK",
            };
            sqlx::raw_sql(end).execute(connection).await?;
            Ok(wanted.map_or(Moved::LeaseLost, |wanted| Moved::Yes { wanted }))
        }
        .await
        .map_err(failed);
        if moved.is_ok() {
            *writer.0 = Some(connection);
        }
        moved
    }
}

/// Writes the changes, or, without any, empties the tables and forgets what the cursor had set aside.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    cursor: &str,
    changes: Option<&Changes>,
) -> Result<(), sqlx::Error> {
    match changes {
        Some(changes) => {
            MEETINGS.run(connection, &changes.meetings, bind_meeting).await?;
            ATTENDANCE.run(connection, &changes.stays, bind_stay).await?;
            RECORDINGS.run(connection, &changes.recordings, bind_recording).await
        }
        None => {
            sqlx::raw_sql("DELETE FROM meetings; DELETE FROM attendance; DELETE FROM recordings")
                .execute(&mut *connection)
                .await?;
            let aside = sqlx::query("DELETE FROM set_aside WHERE cursor = ?").bind(cursor.to_owned());
            aside.execute(connection).await.map(drop)
        }
    }
}

type Bound = Result<(), sqlx::error::BoxDynError>;

fn text(time: Millis) -> String {
    time.to_string()
}

fn bind_meeting(to: &mut SqliteArguments, row: &MeetingRow) -> Bound {
    to.add(row.run.subscriber_id.clone())?;
    to.add(row.run.meeting_uuid.clone())?;
    to.add(row.meeting_id.clone())?;
    to.add(row.meeting_cycle_sub_id.clone())?;
    to.add(row.status.as_str())?;
    to.add(row.created_at.map(text))?;
    to.add(row.modified_at.map(text))?;
    to.add(row.modifications)?;
    for time in [row.cancelled_at, row.started_at, row.ended_at, row.concluded_at] {
        to.add(time.map(text))?;
    }
    for count in [row.stays, row.participants, row.peak_participants, row.recordings] {
        to.add(count)?;
    }
    to.add(text(row.first_event_at))?;
    to.add(text(row.last_event_at))?;
    to.add(row.internal.clone())
}

fn bind_stay(to: &mut SqliteArguments, row: &StayRow) -> Bound {
    to.add(row.stay_id.to_string())?;
    to.add(row.run.subscriber_id.clone())?;
    to.add(row.run.meeting_uuid.clone())?;
    let attributes = row.attributes.unpack();
    for text in [
        attributes.meeting_id,
        attributes.participant_id,
        attributes.person(),
        attributes.user_uuid,
        attributes.account,
        attributes.display_name,
        attributes.call_number,
        attributes.user_agent,
        attributes.role,
    ] {
        to.add(text.map(Arc::<str>::from))?;
    }
    to.add(row.joined_at.map(text))?;
    to.add(row.left_at.map(text))?;
    to.add(row.duration.map(|duration| duration.as_secs_f64()))?;
    to.add(row.closed_by.as_str())?;
    to.add(row.internal.clone())
}

fn bind_recording(to: &mut SqliteArguments, row: &RecordingRow) -> Bound {
    to.add(row.event_id.to_string())?;
    to.add(row.subscriber_id.clone())?;
    to.add(row.meeting_uuid.clone())?;
    to.add(row.meeting_id.clone())?;
    to.add(text(row.finished_at))?;
    let ready = row.ready.as_ref();
    to.add(ready.map(|ready| text(ready.at)))?;
    to.add(ready.and_then(|ready| ready.length_s))?;
    to.add(ready.and_then(|ready| ready.size_mb))?;
    to.add(ready.and_then(|ready| ready.files))?;
    to.add(ready.and_then(|ready| ready.view_url.clone()))
}
