//! Reads rows with the columns listed here. Rows that are read in log order are read by column position.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, FromRow, Postgres, Row, Sqlite, Type};
use uuid::Uuid;

use crate::attributes::Attributes;
use crate::erasure::PersonRow;
use crate::projection::{
    ClosedBy, Handle, HandleKind, IdentityRow, MeetingRow, PersonBy, ProjectedEvent, Ready, RecordingRow, RunKey,
    Status, StayRow,
};
use convoke_core::event::{Attendee, Meeting, Record, Source};
use convoke_core::id::EventId;

type Result<T> = std::result::Result<T, sqlx::Error>;

pub(crate) const RECORD: &str = "seq, event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, source, \
     traceparent, event_info";

pub(crate) const PROJECTED_EVENT: &str = "seq, event_id, subscriber_id, event, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, \
     user_agent, account, participant_id, display_name, role, call_number, join_time, left_time, \
     source, CASE WHEN event IN ('record.ready', 'live.call_result') OR source NOT IN ('push', 'live') THEN event_info END";

pub(crate) const MEETING: &str = "subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, status, created_at, modified_at, \
     modifications, cancelled_at, started_at, ended_at, concluded_at, stays, participants, peak_participants, recordings, \
     first_event_at, last_event_at, internal, kept_id";

pub(crate) const KEPT: &str =
    "kept_id, item, person, display_name, stays, devices, present_ms, first_joined_at, last_left_at, estimated";

pub(crate) const STAY: &str = "stay_id, subscriber_id, meeting_uuid, meeting_id, participant_id, person, user_uuid, account, \
     display_name, call_number, user_agent, role, joined_at, left_at, duration_s, closed_by, internal, \
     person_by, device_type, media_type, department, leave_reason";

pub(crate) const RECORDING: &str = "event_id, subscriber_id, meeting_uuid, meeting_id, finished_at, ready_at, length_s, size_mb, \
     files, view_url, viewers";

pub(crate) const CALL_RESULT: &str =
    "event_id, item, subscriber_id, meeting_uuid, meeting_id, told_at, call_number, code, outcome, reason";

pub(crate) const PERSON: &str = "seq, event_id, subscriber_id, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, \
     user_agent, account, participant_id, display_name, role, call_number, join_time, left_time";

/// A type that can be read from both databases.
pub(crate) trait Column<'r>: Decode<'r, Postgres> + Type<Postgres> + Decode<'r, Sqlite> + Type<Sqlite> {}

impl<'r, T: Decode<'r, Postgres> + Type<Postgres> + Decode<'r, Sqlite> + Type<Sqlite>> Column<'r> for T {}

/// A row of either database, read by column position.
pub(crate) trait AnyRow: Row {
    fn at<'r, T: Column<'r>>(&'r self, index: usize) -> Result<T>;
}

impl AnyRow for PgRow {
    fn at<'r, T: Column<'r>>(&'r self, index: usize) -> Result<T> {
        self.try_get(index)
    }
}

impl AnyRow for SqliteRow {
    fn at<'r, T: Column<'r>>(&'r self, index: usize) -> Result<T> {
        self.try_get(index)
    }
}

fn shared(row: &impl AnyRow, index: usize) -> Result<Option<Arc<str>>> {
    Ok(row.at::<Option<&str>>(index)?.map(Arc::from))
}

fn known(row: &impl AnyRow, index: usize) -> Result<Arc<str>> {
    row.at::<&str>(index).map(Arc::from)
}

fn uuid(row: &impl AnyRow, index: usize) -> Result<Uuid> {
    row.at::<EventId>(index).map(EventId::uuid)
}

/// Parses a column that allows only certain words.
fn word<T>(row: &impl AnyRow, index: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let text: &str = row.at(index)?;
    parse(text).ok_or_else(|| sqlx::Error::Decode(format!("{text} is not a word of this column").into()))
}

/// Reads a run from two columns, starting at `index`.
fn run(row: &impl AnyRow, index: usize) -> Result<RunKey> {
    Ok(RunKey { subscriber_id: known(row, index)?, meeting_uuid: known(row, index + 1)? })
}

/// Reads three columns, starting at `index`.
fn meeting(row: &impl AnyRow, index: usize) -> Result<Meeting> {
    Ok(Meeting { id: shared(row, index)?, uuid: shared(row, index + 1)?, cycle_sub_id: shared(row, index + 2)? })
}

/// Reads nine columns, starting at `index`.
fn attendee(row: &impl AnyRow, index: usize) -> Result<Attendee> {
    Ok(Attendee {
        user_uuid: shared(row, index)?,
        user_agent: shared(row, index + 1)?,
        account: shared(row, index + 2)?,
        participant_id: shared(row, index + 3)?,
        display_name: shared(row, index + 4)?,
        role: shared(row, index + 5)?,
        call_number: shared(row, index + 6)?,
        join_time: row.at(index + 7)?,
        left_time: row.at(index + 8)?,
    })
}

/// A [`Record`], wrapped because its type is from another crate.
pub(crate) struct RecordRow(pub Record);

impl<R: AnyRow> FromRow<'_, R> for RecordRow {
    fn from_row(row: &R) -> Result<Self> {
        Ok(Self(Record {
            seq: row.at(0)?,
            event_id: row.at(1)?,
            subscriber_id: row.at(2)?,
            event: row.at(3)?,
            occurred_at: row.at(4)?,
            received_at: row.at(5)?,
            meeting_id: row.at(6)?,
            meeting_uuid: row.at(7)?,
            source: row.at(8)?,
            traceparent: row.at(9)?,
            event_info: row.at(10)?,
        }))
    }
}

impl<R: AnyRow> FromRow<'_, R> for ProjectedEvent {
    fn from_row(row: &R) -> Result<Self> {
        Ok(Self {
            seq: row.at(0)?,
            event_id: row.at(1)?,
            subscriber_id: known(row, 2)?,
            event: known(row, 3)?,
            meeting: meeting(row, 4)?,
            attendee: attendee(row, 7)?,
            source: word(row, 16, Source::parse)?,
            event_info: shared(row, 17)?,
        })
    }
}

impl<R: AnyRow> FromRow<'_, R> for MeetingRow {
    fn from_row(row: &R) -> Result<Self> {
        Ok(Self {
            run: run(row, 0)?,
            meeting_id: shared(row, 2)?,
            meeting_cycle_sub_id: shared(row, 3)?,
            status: word(row, 4, Status::parse)?,
            created_at: row.at(5)?,
            modified_at: row.at(6)?,
            modifications: row.at(7)?,
            cancelled_at: row.at(8)?,
            started_at: row.at(9)?,
            ended_at: row.at(10)?,
            concluded_at: row.at(11)?,
            stays: row.at(12)?,
            participants: row.at(13)?,
            peak_participants: row.at(14)?,
            recordings: row.at(15)?,
            first_event_at: row.at(16)?,
            last_event_at: row.at(17)?,
            internal: row.at(18)?,
            kept_id: row.at::<Option<EventId>>(19)?.map(EventId::uuid),
            kept: None,
            numbers: Vec::new(),
        })
    }
}

impl<R: AnyRow> FromRow<'_, R> for StayRow {
    fn from_row(row: &R) -> Result<Self> {
        Ok(Self {
            stay_id: uuid(row, 0)?,
            run: run(row, 1)?,
            attributes: Attributes {
                meeting_id: row.at(3)?,
                participant_id: row.at(4)?,
                user_uuid: row.at(6)?,
                account: row.at(7)?,
                display_name: row.at(8)?,
                call_number: row.at(9)?,
                user_agent: row.at(10)?,
                role: row.at(11)?,
                device_type: row.at(18)?,
                media_type: row.at(19)?,
                department: row.at(20)?,
                leave_reason: row.at(21)?,
            }
            .pack(),
            person: shared(row, 5)?,
            person_by: row.at::<Option<&str>>(17)?.and_then(PersonBy::parse),
            joined_at: row.at(12)?,
            left_at: row.at(13)?,
            // Convoke never writes an invalid duration. If there is one, the next write of the row replaces it.
            duration: row.at::<Option<f64>>(14)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            closed_by: word(row, 15, ClosedBy::parse)?,
            internal: row.at(16)?,
        })
    }
}

pub(crate) const IDENTITY: &str = "subscriber_id, kind, handle, person";

impl<R: AnyRow> FromRow<'_, R> for IdentityRow {
    fn from_row(row: &R) -> Result<Self> {
        let kind = word(row, 1, HandleKind::parse)?;
        Ok(Self {
            handle: Handle { subscriber_id: known(row, 0)?, kind, text: known(row, 2)? },
            person: known(row, 3)?,
        })
    }
}

impl<R: AnyRow> FromRow<'_, R> for RecordingRow {
    fn from_row(row: &R) -> Result<Self> {
        let ready = |at| -> Result<Ready> {
            let (length_s, size_mb, files) = (row.at(6)?, row.at(7)?, row.at(8)?);
            Ok(Ready { at, length_s, size_mb, files, view_url: row.at(9)?, viewers: row.at(10)? })
        };
        Ok(Self {
            event_id: row.at(0)?,
            subscriber_id: known(row, 1)?,
            meeting_uuid: shared(row, 2)?,
            meeting_id: shared(row, 3)?,
            finished_at: row.at(4)?,
            ready: row.at::<Option<_>>(5)?.map(ready).transpose()?,
        })
    }
}

impl<R: AnyRow> FromRow<'_, R> for PersonRow {
    fn from_row(row: &R) -> Result<Self> {
        Ok(Self {
            seq: row.at(0)?,
            event_id: row.at(1)?,
            subscriber_id: known(row, 2)?,
            meeting: meeting(row, 3)?,
            attendee: attendee(row, 6)?,
        })
    }
}
