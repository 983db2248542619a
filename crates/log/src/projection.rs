//! What the cursor `meetings` needs of a database: the log as facts, the analyst tables as rows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::attributes::ParticipantAttributes;
use super::{Log, LogError, Moved, Suppression};
use convoke_core::event::{Attendee, Content, Meeting, Verified};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Ids are led by their time: the first one is the oldest event's.
pub(super) const RUNS_BEFORE_LOG: &str = "SELECT CASE WHEN EXISTS (SELECT 1 FROM events)
                 THEN (SELECT count(*) FROM meetings
                        WHERE first_event_at < (SELECT occurred_at FROM events ORDER BY event_id LIMIT 1))
                 ELSE (SELECT count(*) FROM meetings) END";

pub(super) const TABLE_COUNTS: &str =
    "SELECT (SELECT count(*) FROM meetings), (SELECT count(*) FROM attendance), (SELECT count(*) FROM recordings)";

/// A row of the log, as far as the analyst tables are made of it.
#[derive(Clone, Debug)]
pub struct ProjectedEvent {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id, which is led by the time at which it happened.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: Arc<str>,
    /// The event type, as sent.
    pub event: Arc<str>,
    /// Which meeting.
    pub meeting: Meeting,
    /// Who.
    pub attendee: Attendee,
    /// `eventInfo`, if the type is [`ProjectedEvent::DETAILED`].
    pub event_info: Option<Arc<str>>,
}

impl ProjectedEvent {
    /// A row of the log as it was appended; `None` if it is no event.
    #[must_use]
    pub fn of(seq: Seq, verified: &Verified) -> Option<Self> {
        let Content::Event(event) = verified.content() else { return None };
        Some(Self {
            seq,
            event_id: event.event_id,
            subscriber_id: event.subscriber_id.clone(),
            event: event.event.clone(),
            meeting: event.meeting.clone(),
            attendee: event.attendee.clone(),
            event_info: (&*event.event == Self::DETAILED).then(|| event.event_info.clone()),
        })
    }

    /// The type whose `eventInfo` is needed beside its columns.
    pub const DETAILED: &'static str = "record.ready";
}

/// Which run of a meeting: numbers are used again, UUIDs are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::FromRow)]
pub struct RunKey {
    /// The subscriber.
    #[sqlx(try_from = "String")]
    pub subscriber_id: Arc<str>,
    /// The run.
    #[sqlx(try_from = "String")]
    pub meeting_uuid: Arc<str>,
}

convoke_core::words! {
    /// What is known of a meeting's state: the column `status`.
    pub enum Status as "Standing" {
        /// It was not held yet.
        Scheduled = "scheduled",
        /// It will not be held.
        Cancelled = "cancelled",
        /// It goes on.
        Live = "live",
        /// It has ended; it may go on.
        Ended = "ended",
        /// It is over.
        Concluded = "concluded",
    }
}

convoke_core::words! {
    /// How a stay ended: the column `closed_by`.
    pub enum ClosedBy as "Closed" {
        /// Whoever it was left.
        Left = "left",
        /// The meeting ended.
        MeetingEnd = "meeting_end",
        /// It has not.
        Open = "open",
    }
}

/// A row of `meetings`, without what is fetched from the platform.
#[derive(Clone, Debug, PartialEq)]
pub struct MeetingRow {
    /// `subscriber_id`, `meeting_uuid`.
    pub run: RunKey,
    /// The meeting's number.
    pub meeting_id: Option<Arc<str>>,
    /// The occurrence of a series.
    pub meeting_cycle_sub_id: Option<Arc<str>>,
    /// What is known of its state.
    pub status: Status,
    /// When it was scheduled first.
    pub created_at: Option<Millis>,
    /// When it was edited last.
    pub modified_at: Option<Millis>,
    /// How often it was edited.
    pub modifications: i64,
    /// When it was cancelled last.
    pub cancelled_at: Option<Millis>,
    /// When it started first.
    pub started_at: Option<Millis>,
    /// When it ended last; `None` while it is live.
    pub ended_at: Option<Millis>,
    /// When it was closed.
    pub concluded_at: Option<Millis>,
    /// How many stays there were.
    pub stays: i64,
    /// How many people.
    pub participants: i64,
    /// The most people at one moment.
    pub peak_participants: i64,
    /// How many recordings were finished.
    pub recordings: i64,
    /// When its first event happened.
    pub first_event_at: Millis,
    /// When its last event happened.
    pub last_event_at: Millis,
    /// What the cursor needs to go on with this run.
    pub internal: String,
}

/// A row of `attendance`.
#[derive(Clone, Debug, PartialEq)]
pub struct StayRow {
    /// From the run, the participant and the time of joining alone.
    pub stay_id: Uuid,
    /// `subscriber_id`, `meeting_uuid`.
    pub run: RunKey,
    /// Who: `meeting_id`, `participant_id`, `user_uuid`, `account`, `display_name`, `call_number`, `user_agent`, `role`, and what
    /// follows from them, `person`.
    pub attributes: ParticipantAttributes,
    /// When it began.
    pub joined_at: Option<Millis>,
    /// When it ended.
    pub left_at: Option<Millis>,
    /// How long it was.
    pub duration: Option<Duration>,
    /// How it ended.
    pub closed_by: ClosedBy,
    /// What the cursor needs to go on with this stay.
    pub internal: String,
}

/// A row of `recordings`.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingRow {
    /// The event that told of it.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: Arc<str>,
    /// The run.
    pub meeting_uuid: Option<Arc<str>>,
    /// The meeting's number.
    pub meeting_id: Option<Arc<str>>,
    /// When it was finished.
    pub finished_at: Millis,
    /// What the platform told about it since.
    pub ready: Option<Ready>,
}

/// That recordings can be played.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// Since when.
    pub at: Millis,
    /// How long they are together, in seconds.
    pub length_s: Option<i64>,
    /// How large they are together, in megabytes.
    pub size_mb: Option<f64>,
    /// Of how many files.
    pub files: Option<i64>,
    /// Where to look at them. No token in it.
    pub view_url: Option<String>,
}

/// All that the tables hold of one run.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The run.
    pub meeting: MeetingRow,
    /// Its stays.
    pub stays: Vec<StayRow>,
    /// Its recordings.
    pub recordings: Vec<RecordingRow>,
}

/// Rows to be written, in place of those that have the same key.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// To `meetings`. What was fetched from the platform stays as it is.
    pub meetings: Vec<MeetingRow>,
    /// To `attendance`.
    pub stays: Vec<StayRow>,
    /// To `recordings`.
    pub recordings: Vec<RecordingRow>,
}

impl Changes {
    /// How many rows these are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.meetings.len() + self.stays.len() + self.recordings.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Moves rows to `piece` until it has `rows` of them.
    pub fn move_to(&mut self, piece: &mut Self, rows: usize) {
        let mut room = rows.saturating_sub(piece.rows());
        room -= take(&mut self.meetings, &mut piece.meetings, room);
        room -= take(&mut self.stays, &mut piece.stays, room);
        take(&mut self.recordings, &mut piece.recordings, room);
    }
}

/// Moves `most` rows at the most from one to the other; how many.
fn take<T>(from: &mut Vec<T>, to: &mut Vec<T>, most: usize) -> usize {
    let count = from.len().min(most);
    to.extend(from.drain(from.len() - count..));
    count
}

/// Who moves which cursor, and how long its lease lasts from now on.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    /// The cursor.
    pub cursor: &'a str,
    /// Who holds the lease.
    pub owner: &'a str,
    /// How long it lasts.
    pub ttl: Duration,
}

/// The analyst tables `meetings`, `attendance` and `recordings`.
#[async_trait]
pub trait Projection: Log + Suppression {
    /// The first `limit` rows of the log after `after`, in its order.
    async fn read_projected(&self, after: Seq, limit: u32) -> Result<Vec<ProjectedEvent>, LogError>;

    /// What the tables hold of these runs, in any order; a run that they do not know is left out.
    async fn load_runs(&self, runs: &[RunKey]) -> Result<Vec<Stored>, LogError>;

    /// Writes rows and moves the cursor forward to `to`, renewing its lease, all of it in one transaction, if the lease's owner
    /// still holds it; else nothing is changed.
    ///
    /// # Errors
    /// [`LogError::Rejected`] if one of the rows can never be stored; the caller finds out which.
    async fn project(&self, lease: Lease<'_>, to: Seq, changes: &Changes) -> Result<Moved, LogError>;

    /// Empties the tables, forgets what the cursor has set aside, and moves it back to before the first row, in one transaction,
    /// if the lease's owner still holds it; else nothing is changed.
    async fn clear_tables(&self, lease: Lease<'_>) -> Result<Moved, LogError>;

    /// How many runs in the tables began before the oldest event that the log still has.
    async fn runs_before_log(&self) -> Result<i64, LogError>;

    /// How many meetings, stays and recordings there are.
    async fn table_counts(&self) -> Result<[i64; 3], LogError>;
}
