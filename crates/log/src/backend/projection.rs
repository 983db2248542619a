//! The analyst tables.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;

use super::Backend;
use super::bulk::BulkStatement;
use super::log::advance;
use super::rows::{CALL_RESULT, IDENTITY, KEPT, MEETING, PROJECTED_EVENT, RECORDING, STAY};
use crate::projection::{RUNS_BEFORE_LOG, TABLE_COUNTS};
use crate::query::Begin;
use crate::query::{Connection, Dialect, Query};
use crate::{
    CallResultRow, Changes, Handle, IdentityRow, KeptRow, Lease, LogError, MeetingRow, Moved, PersonBy, ProjectedEvent,
    Projection, RecordingRow, RunKey, StayRow, Stored,
};
use convoke_core::id::{EventId, Seq};

static MEETINGS: LazyLock<BulkStatement> = LazyLock::new(|| BulkStatement::upsert("meetings", MEETING, 2, 2));
static KEPT_ATTENDANCE: LazyLock<BulkStatement> =
    LazyLock::new(|| BulkStatement::upsert("kept_attendance", KEPT, 10, 2).or_rollback());
static ATTENDANCE: LazyLock<BulkStatement> = LazyLock::new(|| BulkStatement::upsert("attendance", STAY, 3, 1));
static CALLS: LazyLock<BulkStatement> = LazyLock::new(|| BulkStatement::upsert("call_results", CALL_RESULT, 2, 2));
static RECORDINGS: LazyLock<BulkStatement> = LazyLock::new(|| BulkStatement::upsert("recordings", RECORDING, 1, 1));
static IDENTITIES: LazyLock<BulkStatement> = LazyLock::new(|| BulkStatement::upsert("identities", IDENTITY, 4, 4));

/// Notes the runs that have a stay that may be somebody else's, now that these handles' people are known or not any more: those
/// with such a handle and without a user, and those with a number of such an account.
static UNSETTLE: LazyLock<BulkStatement> = LazyLock::new(|| {
    BulkStatement::new(3, |rows| {
        format!(
            "WITH known (subscriber_id, kind, handle) AS MATERIALIZED (VALUES {rows})
             INSERT INTO unsettled (subscriber_id, meeting_uuid)
             SELECT a.subscriber_id, a.meeting_uuid FROM known k CROSS JOIN attendance a
              WHERE k.kind = 'account' AND a.user_uuid IS NULL AND a.account IS NOT NULL AND a.account = k.handle
                AND a.subscriber_id = k.subscriber_id
              UNION
             SELECT a.subscriber_id, a.meeting_uuid FROM known k CROSS JOIN attendance a
              WHERE k.kind <> 'account' AND a.user_uuid IS NULL AND a.call_number IS NOT NULL
                AND a.call_number = k.handle AND a.subscriber_id = k.subscriber_id
              UNION
             SELECT a.subscriber_id, a.meeting_uuid FROM known k CROSS JOIN identities i CROSS JOIN attendance a
              WHERE k.kind = 'account' AND i.person = k.handle AND i.kind = 'number_account'
                AND i.subscriber_id = k.subscriber_id AND a.user_uuid IS NULL AND a.call_number IS NOT NULL
                AND a.call_number = i.handle AND a.subscriber_id = k.subscriber_id
             ON CONFLICT DO NOTHING"
        )
    })
});

/// In the column `internal` of a run into which calls were told.
const CALLS_MARK: &str = "\"calls\":true";

/// A run that has not ended is over once another one of its number has started since: its end was lost, or it was held under
/// another UUID than it was scheduled under. Asked of the numbers that follow.
const SUCCEED: &str = "UPDATE meetings AS m SET succeeded = NOT succeeded
     WHERE m.status IN ('scheduled', 'live') AND m.meeting_id IS NOT NULL
       AND succeeded <> EXISTS (
           SELECT 1 FROM meetings o
            WHERE o.meeting_id = m.meeting_id AND o.meeting_id IS NOT NULL AND o.subscriber_id = m.subscriber_id
              AND o.meeting_uuid <> m.meeting_uuid
              AND o.started_at > CASE m.status WHEN 'live' THEN coalesce(m.started_at, m.first_event_at)
                                               ELSE m.last_event_at END)";

#[async_trait]
impl Projection for Backend {
    async fn read_projected(&self, after: Seq, limit: u32) -> Result<Vec<ProjectedEvent>, LogError> {
        let sql = format!("SELECT {PROJECTED_EVENT} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");
        self.along(self.query(sql).bind(after).bind(i64::from(limit))).await
    }

    async fn load_runs(&self, runs: &[RunKey]) -> Result<Vec<Stored>, LogError> {
        self.transaction(Begin::ReadKeys, async |connection| {
            let meetings: Vec<MeetingRow> = rows_of(connection, "meetings", MEETING, &mut runs.iter()).await?;
            let stored = |meeting: MeetingRow| {
                (meeting.run.clone(), Stored { meeting, stays: Vec::new(), recordings: Vec::new(), calls: Vec::new() })
            };
            let mut found: HashMap<RunKey, Stored> = meetings.into_iter().map(stored).collect();
            if found.is_empty() {
                return Ok(Vec::new());
            }
            // By the UUID of the run alone, which the index has; stays of another subscriber's run with
            // the same UUID are ignored.
            let uuids = found.keys().map(|run| run.meeting_uuid.to_string()).collect::<Vec<_>>();
            let among = connection.dialect().among("$1");
            let stays = connection.query(format!("SELECT {STAY} FROM attendance WHERE meeting_uuid {among}"));
            for stay in connection.fetch::<StayRow>(stays.bind_list(&uuids)).await? {
                if let Some(stored) = found.get_mut(&stay.run) {
                    stored.stays.push(stay);
                }
            }
            let recorded = found.values().filter(|stored| stored.meeting.recordings > 0);
            let mut recorded = recorded.map(|stored| &stored.meeting.run).collect::<Vec<_>>().into_iter();
            for recording in rows_of::<RecordingRow>(connection, "recordings", RECORDING, &mut recorded).await? {
                let Some(uuid) = &recording.meeting_uuid else { continue };
                let key = RunKey { subscriber_id: recording.subscriber_id.clone(), meeting_uuid: uuid.clone() };
                if let Some(stored) = found.get_mut(&key) {
                    stored.recordings.push(recording);
                }
            }
            let called = found.values().filter(|stored| stored.meeting.internal.contains(CALLS_MARK));
            let mut called = called.map(|stored| &stored.meeting.run).collect::<Vec<_>>().into_iter();
            if called.len() > 0 {
                for call in rows_of::<CallResultRow>(connection, "call_results", CALL_RESULT, &mut called).await? {
                    let key =
                        RunKey { subscriber_id: call.subscriber_id.clone(), meeting_uuid: call.meeting_uuid.clone() };
                    if let Some(stored) = found.get_mut(&key) {
                        stored.calls.push(call);
                    }
                }
            }
            Ok(found.into_values().collect())
        })
        .await
    }

    async fn identities(&self, handles: &[Handle]) -> Result<Vec<IdentityRow>, LogError> {
        let sql = format!(
            "SELECT {IDENTITY} FROM identities
              WHERE (subscriber_id, kind, handle) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM {} AS wanted)",
            self.dialect().each("$1")
        );
        let handle = |it: &Handle| vec![it.subscriber_id.to_string(), it.kind.as_str().to_owned(), it.text.to_string()];
        self.along(self.query(sql).bind_json(handles.iter().map(handle))).await
    }

    async fn unsettled_runs(&self, limit: u32) -> Result<Vec<RunKey>, LogError> {
        let sql = "SELECT subscriber_id, meeting_uuid FROM unsettled LIMIT $1";
        self.along(self.query(sql).bind(i64::from(limit))).await
    }

    async fn orphaned_identities(&self) -> Result<Vec<IdentityRow>, LogError> {
        let shown = |kind: &str, handle: &str, person: &str, others: &str| {
            format!(
                "SELECT i.subscriber_id, i.kind, i.handle, i.person
                   FROM identities i
                   LEFT JOIN (SELECT DISTINCT subscriber_id, {handle} AS handle, {person} AS person FROM attendance
                               WHERE {handle} IS NOT NULL AND {person} IS NOT NULL{others}) AS s
                     ON s.subscriber_id = i.subscriber_id AND s.handle = i.handle AND s.person = i.person
                  WHERE i.kind = '{kind}' AND s.handle IS NULL"
            )
        };
        let sql = [
            shown("account", "account", "user_uuid", ""),
            shown("number", "call_number", "user_uuid", ""),
            shown("number_account", "call_number", "account", " AND user_uuid IS NULL"),
        ];
        self.all_in_time(self.query(sql.join(" UNION ALL "))).await
    }

    async fn delete_identities(&self, identities: &[IdentityRow]) -> Result<(), LogError> {
        self.transaction(Begin::Write, async |connection| {
            UNSETTLE.run(connection, identities, add_handle).await?;
            let delete = connection.query(format!(
                "DELETE FROM identities WHERE (subscriber_id, kind, handle, person) IN
                        (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM {} AS gone)",
                connection.dialect().each("$1")
            ));
            connection.execute(delete.bind_json(identities.iter().map(listed))).await.map(drop)
        })
        .await
    }

    async fn project(&self, lease: Lease<'_>, to: Seq, changes: &Changes) -> Result<Moved, LogError> {
        self.transaction(Begin::Write, async |connection| {
            let moved = advance(connection, lease, Some(to)).await?;
            if moved != Moved::LeaseLost {
                write(connection, changes).await?;
            }
            Ok(moved)
        })
        .await
    }

    async fn clear_tables(&self, lease: Lease<'_>) -> Result<Moved, LogError> {
        self.transaction(Begin::Write, async |connection| {
            let moved = advance(connection, lease, None).await?;
            if moved != Moved::LeaseLost {
                // If a long query of these tables blocks this, it times out and nothing has changed.
                let empty: &[&str] = match connection.dialect() {
                    Dialect::Postgres => {
                        &["TRUNCATE meetings, attendance, recordings, call_results, identities, unsettled, kept_attendance"]
                    }
                    Dialect::Sqlite => &[
                        "DELETE FROM meetings",
                        "DELETE FROM attendance",
                        "DELETE FROM recordings",
                        "DELETE FROM call_results",
                        "DELETE FROM identities",
                        "DELETE FROM unsettled",
                        "DELETE FROM kept_attendance",
                    ],
                };
                for sql in empty {
                    connection.execute(connection.query(*sql)).await?;
                }
                let aside = connection.query("DELETE FROM set_aside WHERE cursor = $1").bind(lease.cursor);
                connection.execute(aside).await?;
            }
            Ok(moved)
        })
        .await
    }

    async fn runs_before_log(&self) -> Result<i64, LogError> {
        let runs: Vec<(i64,)> = self.all_in_time(self.query(RUNS_BEFORE_LOG)).await?;
        Ok(runs.first().map_or(0, |(runs,)| *runs))
    }

    async fn table_counts(&self) -> Result<[i64; 3], LogError> {
        let counts: Vec<(i64, i64, i64)> = self.all_in_time(self.query(TABLE_COUNTS)).await?;
        Ok(counts.first().map_or([0; 3], |(meetings, stays, recordings)| [*meetings, *stays, *recordings]))
    }
}

/// The rows of these runs, in a table whose key starts with the run.
async fn rows_of<T: super::FromAnyRow>(
    connection: &mut Connection<'_>,
    table: &str,
    columns: &str,
    runs: &mut (dyn Iterator<Item = &RunKey> + Send),
) -> Result<Vec<T>, sqlx::Error> {
    let each = connection.dialect().each("$1");
    let rows = connection.query(format!(
        "SELECT {columns} FROM {table}
          WHERE (subscriber_id, meeting_uuid) IN (SELECT value ->> 0, value ->> 1 FROM {each} AS wanted)"
    ));
    let rows = rows.bind_json(runs.map(|run| vec![&*run.subscriber_id, &*run.meeting_uuid]));
    connection.fetch(rows).await
}

pub(super) async fn write(connection: &mut Connection<'_>, changes: &Changes) -> Result<(), sqlx::Error> {
    MEETINGS.run(connection, &changes.meetings, add_meeting).await?;
    keep(connection, &changes.meetings).await?;
    ATTENDANCE.run(connection, &changes.stays, add_stay).await?;
    for (run, stay_id) in &changes.gone {
        let delete = "DELETE FROM attendance WHERE subscriber_id = $1 AND meeting_uuid = $2 AND stay_id = $3";
        let delete = connection.query(delete).bind(&*run.subscriber_id).bind(&*run.meeting_uuid);
        connection.execute(delete.bind(EventId::from_uuid(*stay_id))).await?;
    }
    RECORDINGS.run(connection, &changes.recordings, add_recording).await?;
    CALLS.run(connection, &changes.calls, add_call).await?;
    IDENTITIES.run(connection, &changes.identities, add_identity).await?;
    UNSETTLE.run(connection, &changes.identities, add_handle).await?;
    if !changes.settled.is_empty() {
        let settled = connection.query(format!(
            "DELETE FROM unsettled WHERE (subscriber_id, meeting_uuid) IN (SELECT value ->> 0, value ->> 1 FROM {} AS done)",
            connection.dialect().each("$1")
        ));
        let runs = changes.settled.iter().map(|run| vec![&*run.subscriber_id, &*run.meeting_uuid]);
        connection.execute(settled.bind_json(runs)).await?;
    }
    let numbers: BTreeSet<&Arc<str>> = changes.meetings.iter().flat_map(|row| &row.numbers).collect();
    succeed(connection, &numbers.into_iter().map(ToString::to_string).collect::<Vec<_>>()).await
}

/// Writes who was in these runs, where that is kept, and deletes it where it is not any more.
async fn keep(connection: &mut Connection<'_>, meetings: &[MeetingRow]) -> Result<(), sqlx::Error> {
    let before = meetings.iter().filter_map(|row| row.kept.as_ref()?.before.or(row.kept_id));
    let before: Vec<EventId> = before.map(EventId::from_uuid).collect();
    if !before.is_empty() {
        let delete = format!("DELETE FROM kept_attendance WHERE kept_id {}", connection.dialect().among("$1"));
        connection.execute(connection.query(delete).bind_list(&before)).await?;
    }
    let kept = meetings.iter().filter_map(|row| row.kept_id.map(EventId::from_uuid).zip(row.kept.as_ref()));
    let rows: Vec<(EventId, (i64, &KeptRow))> =
        kept.flat_map(|(id, kept)| (0..).zip(&kept.people).map(move |row| (id, row))).collect();
    KEPT_ATTENDANCE.run(connection, &rows, add_kept).await
}

/// Looks again which runs with these numbers are over that have not ended.
pub(super) async fn succeed(connection: &mut Connection<'_>, numbers: &[String]) -> Result<(), sqlx::Error> {
    if numbers.is_empty() {
        return Ok(());
    }
    let succeed = connection.query(format!("{SUCCEED} AND m.meeting_id {}", connection.dialect().among("$1")));
    connection.execute(succeed.bind_list(numbers)).await.map(drop)
}

fn listed(identity: &IdentityRow) -> Vec<&str> {
    let IdentityRow { handle, person } = identity;
    vec![&*handle.subscriber_id, handle.kind.as_str(), &*handle.text, &**person]
}

fn add_handle(query: &mut Query, row: &IdentityRow) {
    let Handle { subscriber_id, kind, text } = &row.handle;
    query.add(subscriber_id.clone()).add(kind.as_str()).add(text.clone());
}

fn add_identity(query: &mut Query, row: &IdentityRow) {
    add_handle(query, row);
    query.add(row.person.clone());
}

fn add_meeting(query: &mut Query, row: &MeetingRow) {
    query
        .add(row.run.subscriber_id.clone())
        .add(row.run.meeting_uuid.clone())
        .add(row.meeting_id.clone())
        .add(row.meeting_cycle_sub_id.clone())
        .add(row.status.as_str())
        .add(row.created_at)
        .add(row.modified_at)
        .add(row.modifications)
        .add(row.cancelled_at)
        .add(row.started_at)
        .add(row.ended_at)
        .add(row.concluded_at)
        .add(row.stays)
        .add(row.participants)
        .add(row.peak_participants)
        .add(row.recordings)
        .add(row.first_event_at)
        .add(row.last_event_at)
        .add(&*row.internal)
        .add(row.kept_id.map(EventId::from_uuid));
}

fn add_kept(query: &mut Query, (kept_id, (item, row)): &(EventId, (i64, &KeptRow))) {
    query
        .add(*kept_id)
        .add(*item)
        .add(row.person.clone())
        .add(row.display_name.clone())
        .add(row.stays)
        .add(row.devices)
        .add(row.present_ms)
        .add(row.first_joined_at)
        .add(row.last_left_at)
        .add(row.estimated);
}

fn add_stay(query: &mut Query, row: &StayRow) {
    let attributes = row.attributes.unpack();
    query
        .add(EventId::from_uuid(row.stay_id))
        .add(row.run.subscriber_id.clone())
        .add(row.run.meeting_uuid.clone())
        .add_text(attributes.meeting_id)
        .add_text(attributes.participant_id)
        .add(row.person.clone())
        .add_text(attributes.user_uuid)
        .add_text(attributes.account)
        .add_text(attributes.display_name)
        .add_text(attributes.call_number)
        .add_text(attributes.user_agent)
        .add_text(attributes.role)
        .add(row.joined_at)
        .add(row.left_at)
        .add(row.duration.map(|duration| duration.as_secs_f64()))
        .add_text(Some(row.closed_by.as_str()))
        .add_text(Some(&row.internal))
        .add_text(row.person_by.map(PersonBy::as_str))
        .add_text(attributes.device_type)
        .add_text(attributes.media_type)
        .add_text(attributes.department)
        .add_text(attributes.leave_reason);
}

fn add_call(query: &mut Query, row: &CallResultRow) {
    query
        .add(row.event_id)
        .add(row.item)
        .add(row.subscriber_id.clone())
        .add(row.meeting_uuid.clone())
        .add(row.meeting_id.clone())
        .add(row.told_at)
        .add(row.call_number.clone())
        .add(row.code.clone())
        .add(row.outcome.as_str())
        .add(row.reason.clone());
}

fn add_recording(query: &mut Query, row: &RecordingRow) {
    let ready = row.ready.as_ref();
    query
        .add(row.event_id)
        .add(row.subscriber_id.clone())
        .add(row.meeting_uuid.clone())
        .add(row.meeting_id.clone())
        .add(row.finished_at)
        .add(ready.map(|ready| ready.at))
        .add(ready.and_then(|ready| ready.length_s))
        .add(ready.and_then(|ready| ready.size_mb))
        .add(ready.and_then(|ready| ready.files))
        .add(ready.and_then(|ready| ready.view_url.as_deref()))
        .add(ready.and_then(|ready| ready.viewers.as_deref()));
}
