//! Rows, as the columns that are named beside them have them. What is read along the log goes by position.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{FromRow, Row};

use super::{DbRow, uuid};
use crate::attributes::Attributes;
use crate::erasure::{Host, PersonRow, PersonStay, StayKey};
use crate::projection::{ClosedBy, MeetingRow, ProjectedEvent, Ready, RecordingRow, RunKey, Status, StayRow};
use convoke_core::event::{Attendee, Meeting, Record};

type Result<T> = std::result::Result<T, sqlx::Error>;

pub const RECORD: &str = "seq, event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, source, \
     traceparent, event_info";

pub const PROJECTED_EVENT: &str = "seq, event_id, subscriber_id, event, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, \
     user_agent, account, participant_id, display_name, role, call_number, join_time, left_time, \
     CASE WHEN event = 'record.ready' THEN event_info END";

pub const MEETING: &str = "subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, status, created_at, modified_at, \
     modifications, cancelled_at, started_at, ended_at, concluded_at, stays, participants, peak_participants, recordings, \
     first_event_at, last_event_at, internal";

pub const STAY: &str = "stay_id, subscriber_id, meeting_uuid, meeting_id, participant_id, person, user_uuid, account, \
     display_name, call_number, user_agent, role, joined_at, left_at, duration_s, closed_by, internal";

pub const RECORDING: &str = "event_id, subscriber_id, meeting_uuid, meeting_id, finished_at, ready_at, length_s, size_mb, \
     files, view_url";

pub const PERSON: &str = "seq, event_id, subscriber_id, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, \
     user_agent, account, participant_id, display_name, role, call_number, join_time, left_time";

fn shared(row: &DbRow, index: usize) -> Result<Option<Arc<str>>> {
    Ok(row.try_get::<Option<&str>, _>(index)?.map(Arc::from))
}

fn known(row: &DbRow, index: usize) -> Result<Arc<str>> {
    row.try_get::<&str, _>(index).map(Arc::from)
}

/// A word of a column that knows some.
pub fn word<T>(row: &DbRow, index: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let text: &str = row.try_get(index)?;
    parse(text).ok_or_else(|| sqlx::Error::Decode(format!("{text} is not a word of this column").into()))
}

/// A run by two columns, the first of them at `index`.
fn run(row: &DbRow, index: usize) -> Result<RunKey> {
    Ok(RunKey { subscriber_id: known(row, index)?, meeting_uuid: known(row, index + 1)? })
}

/// Three columns, the first of them at `index`.
fn meeting(row: &DbRow, index: usize) -> Result<Meeting> {
    Ok(Meeting { id: shared(row, index)?, uuid: shared(row, index + 1)?, cycle_sub_id: shared(row, index + 2)? })
}

/// Nine columns, the first of them at `index`.
fn attendee(row: &DbRow, index: usize) -> Result<Attendee> {
    Ok(Attendee {
        user_uuid: shared(row, index)?,
        user_agent: shared(row, index + 1)?,
        account: shared(row, index + 2)?,
        participant_id: shared(row, index + 3)?,
        display_name: shared(row, index + 4)?,
        role: shared(row, index + 5)?,
        call_number: shared(row, index + 6)?,
        join_time: row.try_get(index + 7)?,
        left_time: row.try_get(index + 8)?,
    })
}

pub fn record(row: &DbRow) -> Result<Record> {
    Ok(Record {
        seq: row.try_get(0)?,
        event_id: row.try_get(1)?,
        subscriber_id: row.try_get(2)?,
        event: row.try_get(3)?,
        occurred_at: row.try_get(4)?,
        received_at: row.try_get(5)?,
        meeting_id: row.try_get(6)?,
        meeting_uuid: row.try_get(7)?,
        source: row.try_get(8)?,
        traceparent: row.try_get(9)?,
        event_info: row.try_get(10)?,
    })
}

impl FromRow<'_, DbRow> for ProjectedEvent {
    fn from_row(row: &DbRow) -> Result<Self> {
        Ok(Self {
            seq: row.try_get(0)?,
            event_id: row.try_get(1)?,
            subscriber_id: known(row, 2)?,
            event: known(row, 3)?,
            meeting: meeting(row, 4)?,
            attendee: attendee(row, 7)?,
            event_info: shared(row, 16)?,
        })
    }
}

impl FromRow<'_, DbRow> for MeetingRow {
    fn from_row(row: &DbRow) -> Result<Self> {
        Ok(Self {
            run: run(row, 0)?,
            meeting_id: shared(row, 2)?,
            meeting_cycle_sub_id: shared(row, 3)?,
            status: word(row, 4, Status::parse)?,
            created_at: row.try_get(5)?,
            modified_at: row.try_get(6)?,
            modifications: row.try_get(7)?,
            cancelled_at: row.try_get(8)?,
            started_at: row.try_get(9)?,
            ended_at: row.try_get(10)?,
            concluded_at: row.try_get(11)?,
            stays: row.try_get(12)?,
            participants: row.try_get(13)?,
            peak_participants: row.try_get(14)?,
            recordings: row.try_get(15)?,
            first_event_at: row.try_get(16)?,
            last_event_at: row.try_get(17)?,
            internal: row.try_get(18)?,
        })
    }
}

impl FromRow<'_, DbRow> for StayRow {
    fn from_row(row: &DbRow) -> Result<Self> {
        Ok(Self {
            stay_id: uuid(row, 0)?,
            run: run(row, 1)?,
            attributes: Attributes {
                meeting_id: row.try_get(3)?,
                participant_id: row.try_get(4)?,
                user_uuid: row.try_get(6)?,
                account: row.try_get(7)?,
                display_name: row.try_get(8)?,
                call_number: row.try_get(9)?,
                user_agent: row.try_get(10)?,
                role: row.try_get(11)?,
            }
            .pack(),
            joined_at: row.try_get(12)?,
            left_at: row.try_get(13)?,
            // What cannot be one, which nothing here writes, is made anew with the row.
            duration: row.try_get::<Option<f64>, _>(14)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            closed_by: word(row, 15, ClosedBy::parse)?,
            internal: row.try_get(16)?,
        })
    }
}

impl FromRow<'_, DbRow> for RecordingRow {
    fn from_row(row: &DbRow) -> Result<Self> {
        let ready = |at| -> Result<Ready> {
            Ok(Ready {
                at,
                length_s: row.try_get(6)?,
                size_mb: row.try_get(7)?,
                files: row.try_get(8)?,
                view_url: row.try_get(9)?,
            })
        };
        Ok(Self {
            event_id: row.try_get(0)?,
            subscriber_id: known(row, 1)?,
            meeting_uuid: shared(row, 2)?,
            meeting_id: shared(row, 3)?,
            finished_at: row.try_get(4)?,
            ready: row.try_get::<Option<_>, _>(5)?.map(ready).transpose()?,
        })
    }
}

impl FromRow<'_, DbRow> for PersonRow {
    fn from_row(row: &DbRow) -> Result<Self> {
        Ok(Self {
            seq: row.try_get(0)?,
            event_id: row.try_get(1)?,
            subscriber_id: known(row, 2)?,
            meeting: meeting(row, 3)?,
            attendee: attendee(row, 6)?,
        })
    }
}

impl FromRow<'_, DbRow> for StayKey {
    fn from_row(row: &DbRow) -> Result<Self> {
        Ok(Self { run: run(row, 0)?, stay_id: uuid(row, 2)? })
    }
}

impl FromRow<'_, DbRow> for PersonStay {
    fn from_row(row: &DbRow) -> Result<Self> {
        Ok(Self {
            key: StayKey::from_row(row)?,
            meeting_id: row.try_get(3)?,
            display_name: row.try_get(4)?,
            call_number: row.try_get(5)?,
            user_uuid: row.try_get(6)?,
            account: row.try_get(7)?,
        })
    }
}

impl FromRow<'_, DbRow> for Host {
    fn from_row(row: &DbRow) -> Result<Self> {
        Ok(Self { run: run(row, 0)?, host: row.try_get(2)?, subject: row.try_get(3)? })
    }
}
