//! What the cursor `meetings` needs of a database: the log as input, the analyst tables as output.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::attributes::ParticipantAttributes;
use super::{Log, LogError, Moved, Suppression};
use convoke_core::event::{Attendee, Content, Meeting, Source, Verified};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Ids start with their time, so the lowest id is that of the oldest event.
pub(super) const RUNS_BEFORE_LOG: &str = "SELECT CASE WHEN EXISTS (SELECT 1 FROM events)
                 THEN (SELECT count(*) FROM meetings
                        WHERE first_event_at < (SELECT occurred_at FROM events ORDER BY event_id LIMIT 1))
                 ELSE (SELECT count(*) FROM meetings) END";

pub(super) const TABLE_COUNTS: &str =
    "SELECT (SELECT count(*) FROM meetings), (SELECT count(*) FROM attendance), (SELECT count(*) FROM recordings)";

/// The part of a log row from which the analyst tables are computed.
#[derive(Clone, Debug)]
pub struct ProjectedEvent {
    /// Its position in the log.
    pub seq: Seq,
    /// Its id, which starts with the time of the event.
    pub event_id: EventId,
    /// The `appID` of the subscriber.
    pub subscriber_id: Arc<str>,
    /// The event type, as sent.
    pub event: Arc<str>,
    /// The meeting.
    pub meeting: Meeting,
    /// The participant.
    pub attendee: Attendee,
    /// Where it came from.
    pub source: Source,
    /// `eventInfo`, if the type is [`ProjectedEvent::DETAILED`] or [`ProjectedEvent::CALLS`], or if it was made from the platform's
    /// answers: it may tell more than the columns.
    pub event_info: Option<Arc<str>>,
}

impl ProjectedEvent {
    /// Makes one from an appended delivery; `None` if it is not an event.
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
            source: event.source,
            event_info: Self::is_detailed(&event.event, event.source).then(|| event.event_info.clone()),
        })
    }

    /// What running meetings tell is large, and there is much of it.
    fn is_detailed(event: &str, source: Source) -> bool {
        match source {
            Source::Push => event == Self::DETAILED,
            Source::Live => event == Self::CALLS,
            Source::Backfill | Source::Platform => true,
        }
    }

    /// The type of a running meeting's event that tells what came of calls.
    pub const CALLS: &'static str = "live.call_result";

    /// The event type for which `eventInfo` is needed besides its columns.
    pub const DETAILED: &'static str = "record.ready";
}

/// The key of a run of a meeting: numbers are reused, UUIDs are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::FromRow)]
pub struct RunKey {
    /// The `appID` of the subscriber.
    #[sqlx(try_from = "String")]
    pub subscriber_id: Arc<str>,
    /// The run (`meetingUUID`).
    #[sqlx(try_from = "String")]
    pub meeting_uuid: Arc<str>,
}

convoke_core::words! {
    /// The state of a meeting: the column `status`.
    pub enum Status as "Standing" {
        /// It has not started yet.
        Scheduled = "scheduled",
        /// It will not take place.
        Cancelled = "cancelled",
        /// It is in progress.
        Live = "live",
        /// It has ended, but can be resumed.
        Ended = "ended",
        /// It is over for good.
        Concluded = "concluded",
    }
}

convoke_core::words! {
    /// How a stay ended: the column `closed_by`.
    pub enum ClosedBy as "Closed" {
        /// The participant left.
        Left = "left",
        /// The meeting ended.
        MeetingEnd = "meeting_end",
        /// The participant joined again: they had left by then.
        Rejoin = "rejoin",
        /// It has not ended.
        Open = "open",
    }
}

convoke_core::words! {
    /// By what it is known who stayed, the surest first: the column `person_by`.
    pub enum PersonBy as "PersonBy" {
        /// The event names the user.
        User = "user",
        /// The account, or the user whose account it is.
        Account = "account",
        /// The number, or the only person whose number it is.
        Number = "number",
        /// A name alone.
        Name = "name",
        /// Nothing but the participant in the run.
        Participant = "participant",
    }
}

convoke_core::words! {
    /// What names a person beside another name: the column `kind` of `identities`.
    #[derive(PartialOrd, Ord)]
    pub enum HandleKind as "HandleKind" {
        /// An account, of a user.
        Account = "account",
        /// A number, of a user.
        Number = "number",
        /// A number, of an account of which no user was told.
        NumberAccount = "number_account",
    }
}

/// What may name a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle {
    /// Of whose events.
    pub subscriber_id: Arc<str>,
    /// Which kind it is.
    pub kind: HandleKind,
    /// The account or the number.
    pub text: Arc<str>,
}

/// That one event told a handle and a person together: a row of `identities`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityRow {
    /// The handle …
    pub handle: Handle,
    /// … and the user, or the account.
    pub person: Arc<str>,
}

/// A row of `meetings`, without the columns fetched from the platform.
#[derive(Clone, Debug, PartialEq)]
pub struct MeetingRow {
    /// `subscriber_id`, `meeting_uuid`.
    pub run: RunKey,
    /// The meeting's number.
    pub meeting_id: Option<Arc<str>>,
    /// The occurrence of a recurring meeting.
    pub meeting_cycle_sub_id: Option<Arc<str>>,
    /// The state of the meeting.
    pub status: Status,
    /// When it was first scheduled.
    pub created_at: Option<Millis>,
    /// When it was last edited.
    pub modified_at: Option<Millis>,
    /// How often it was edited.
    pub modifications: i64,
    /// When it was last cancelled.
    pub cancelled_at: Option<Millis>,
    /// When it first started.
    pub started_at: Option<Millis>,
    /// When it last ended; `None` while it is live.
    pub ended_at: Option<Millis>,
    /// When it was concluded.
    pub concluded_at: Option<Millis>,
    /// Number of stays.
    pub stays: i64,
    /// Number of distinct people.
    pub participants: i64,
    /// Maximum number of people at the same time.
    pub peak_participants: i64,
    /// Number of finished recordings.
    pub recordings: i64,
    /// When its first event happened.
    pub first_event_at: Millis,
    /// When its last event happened.
    pub last_event_at: Millis,
    /// The state from which the cursor continues with this run.
    pub internal: String,
    /// Under which id `kept_attendance` has who was there; `None`: it does not.
    pub kept_id: Option<Uuid>,
    /// No column: what changes in `kept_attendance` with this row.
    pub kept: Option<KeptRows>,
    /// No column: the numbers of which it is to be looked at with this row which runs are over that have not ended.
    pub numbers: Vec<Arc<str>>,
}

impl MeetingRow {
    /// How many rows it stands for: it is not written without those that are kept with it.
    fn rows(&self) -> usize {
        1 + self.kept.as_ref().map_or(0, |kept| kept.people.len())
    }
}

/// What `kept_attendance` is to have of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRows {
    /// The id whose rows they replace.
    pub before: Option<Uuid>,
    /// The rows, with the `kept_id` of the run.
    pub people: Vec<KeptRow>,
}

/// A row of `kept_attendance` beside its `kept_id`: somebody who was in a run that does not go on.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRow {
    /// Who.
    pub person: Arc<str>,
    /// The name that was used last.
    pub display_name: Option<Arc<str>>,
    /// How many stays there were.
    pub stays: i64,
    /// The most devices at one moment.
    pub devices: i64,
    /// Milliseconds; two devices at once count once.
    pub present_ms: i64,
    /// When the first stay began.
    pub first_joined_at: Millis,
    /// When the last one ended.
    pub last_left_at: Millis,
    /// Whether it rests on a stay of which nobody told the end.
    pub estimated: bool,
}

/// A row of `attendance`.
#[derive(Clone, Debug, PartialEq)]
pub struct StayRow {
    /// A hash of the run, the participant and the join time only.
    pub stay_id: Uuid,
    /// `subscriber_id`, `meeting_uuid`.
    pub run: RunKey,
    /// The participant: `meeting_id`, `participant_id`, `user_uuid`, `account`, `display_name`, `call_number`,
    /// `user_agent`, `role`, `device_type`, `media_type`, `department`, `leave_reason`.
    pub attributes: ParticipantAttributes,
    /// Who that is …
    pub person: Option<Arc<str>>,
    /// … and by what that is known; both are missing if nothing is told.
    pub person_by: Option<PersonBy>,
    /// When it began.
    pub joined_at: Option<Millis>,
    /// When it ended.
    pub left_at: Option<Millis>,
    /// How long it lasted.
    pub duration: Option<Duration>,
    /// How it ended.
    pub closed_by: ClosedBy,
    /// The state from which the cursor continues with this stay.
    pub internal: String,
}

/// A row of `recordings`.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingRow {
    /// The id of the `record.finish` event.
    pub event_id: EventId,
    /// The `appID` of the subscriber.
    pub subscriber_id: Arc<str>,
    /// The run (`meetingUUID`).
    pub meeting_uuid: Option<Arc<str>>,
    /// The meeting's number.
    pub meeting_id: Option<Arc<str>>,
    /// When it finished.
    pub finished_at: Millis,
    /// What a later `record.ready` added.
    pub ready: Option<Ready>,
}

convoke_core::words! {
    /// What came of a call: the column `outcome` of `call_results`.
    pub enum CallOutcome as "CallOutcome" {
        /// They answered.
        Reached = "reached",
        /// They did not come.
        NotReached = "not_reached",
        /// They were in the meeting, and left it.
        Left = "left",
        /// The code is not known.
        Unknown = "unknown",
    }
}

/// A row of `call_results`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CallResultRow {
    /// The event that tells it …
    pub event_id: EventId,
    /// … and which of its it is.
    pub item: i64,
    /// The `appID` of the subscriber.
    #[sqlx(try_from = "String")]
    pub subscriber_id: Arc<str>,
    /// The run (`meetingUUID`).
    #[sqlx(try_from = "String")]
    pub meeting_uuid: Arc<str>,
    /// The meeting's number.
    pub meeting_id: Option<Arc<str>>,
    /// When it was told.
    pub told_at: Millis,
    /// The number that was called.
    #[sqlx(try_from = "String")]
    pub call_number: Arc<str>,
    /// As the platform has it.
    #[sqlx(try_from = "String")]
    pub code: Arc<str>,
    /// What came of it.
    #[sqlx(try_from = "String")]
    pub outcome: CallOutcome,
    /// Why.
    pub reason: Option<Arc<str>>,
}

/// The state of recordings that can be played.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// When decoding was expected to end.
    pub at: Millis,
    /// Total length in seconds.
    pub length_s: Option<i64>,
    /// Total size in megabytes.
    pub size_mb: Option<f64>,
    /// Number of files.
    pub files: Option<i64>,
    /// Where to view them. Contains no token.
    pub view_url: Option<String>,
    /// Who may watch: `link`, `enterprise` or `participants`.
    pub viewers: Option<String>,
}

/// All rows of one run.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its row in `meetings`.
    pub meeting: MeetingRow,
    /// Its stays.
    pub stays: Vec<StayRow>,
    /// Its recordings.
    pub recordings: Vec<RecordingRow>,
    /// What came of calls into it.
    pub calls: Vec<CallResultRow>,
}

/// Rows to write. A row replaces the row with the same key.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Rows of `meetings`. The columns fetched from the platform are not changed.
    pub meetings: Vec<MeetingRow>,
    /// Rows of `attendance`.
    pub stays: Vec<StayRow>,
    /// From `attendance`: stays that turned out to be others.
    pub gone: Vec<(RunKey, Uuid)>,
    /// Rows of `recordings`.
    pub recordings: Vec<RecordingRow>,
    /// Rows of `call_results`.
    pub calls: Vec<CallResultRow>,
    /// To `identities`: new ones. The runs that have a stay with such a handle, and without a user, go to `unsettled`.
    pub identities: Vec<IdentityRow>,
    /// From `unsettled`.
    pub settled: Vec<RunKey>,
}

impl Changes {
    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        let meetings = self.meetings.iter().map(MeetingRow::rows).sum::<usize>();
        let tables = meetings + self.stays.len() + self.gone.len() + self.recordings.len() + self.calls.len();
        tables + self.identities.len() + self.settled.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Moves rows to `piece` until it has `rows` rows.
    pub fn move_to(&mut self, piece: &mut Self, rows: usize) {
        let mut room = rows.saturating_sub(piece.rows());
        while room > 0
            && let Some(meeting) = self.meetings.pop()
        {
            room = room.saturating_sub(meeting.rows());
            piece.meetings.push(meeting);
        }
        room -= take(&mut self.stays, &mut piece.stays, room);
        room -= take(&mut self.gone, &mut piece.gone, room);
        room -= take(&mut self.recordings, &mut piece.recordings, room);
        room -= take(&mut self.calls, &mut piece.calls, room);
        // After the stays that have them; what is read again after a crash is new again until then.
        room -= take(&mut self.identities, &mut piece.identities, room);
        take(&mut self.settled, &mut piece.settled, room);
    }
}

/// Moves up to `most` items. Returns how many.
fn take<T>(from: &mut Vec<T>, to: &mut Vec<T>, most: usize) -> usize {
    let count = from.len().min(most);
    to.extend(from.drain(from.len() - count..));
    count
}

/// A lease of a cursor, and how long it lasts from now.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    /// The cursor.
    pub cursor: &'a str,
    /// The holder of the lease.
    pub owner: &'a str,
    /// How long it lasts.
    pub ttl: Duration,
}

/// The analyst tables `meetings`, `attendance` and `recordings`.
#[async_trait]
pub trait Projection: Log + Suppression {
    /// The first `limit` rows of the log after `after`, in log order.
    async fn read_projected(&self, after: Seq, limit: u32) -> Result<Vec<ProjectedEvent>, LogError>;

    /// The rows of these runs, in any order; unknown runs are left out.
    async fn load_runs(&self, runs: &[RunKey]) -> Result<Vec<Stored>, LogError>;

    /// The identities with one of these handles.
    async fn identities(&self, handles: &[Handle]) -> Result<Vec<IdentityRow>, LogError>;

    /// At most `limit` of the runs of which it is to be found out again who was there.
    async fn unsettled_runs(&self, limit: u32) -> Result<Vec<RunKey>, LogError>;

    /// The identities that no stay shows any more.
    async fn orphaned_identities(&self) -> Result<Vec<IdentityRow>, LogError>;

    /// Deletes identities; the runs that may rest on them go to `unsettled`.
    async fn delete_identities(&self, identities: &[IdentityRow]) -> Result<(), LogError>;

    /// Writes rows, moves the cursor forward to `to` and renews its lease, all in one transaction, if the owner still
    /// holds the lease; otherwise nothing is changed.
    ///
    /// # Errors
    /// [`LogError::Rejected`] if one of the rows can never be stored; the caller has to find out which.
    async fn project(&self, lease: Lease<'_>, to: Seq, changes: &Changes) -> Result<Moved, LogError>;

    /// Empties the tables, deletes the records of rows that the cursor skipped, and moves the cursor back to before the
    /// first row, in one transaction, if the owner still holds the lease; otherwise nothing is changed.
    async fn clear_tables(&self, lease: Lease<'_>) -> Result<Moved, LogError>;

    /// Number of runs in the tables that began before the oldest event still in the log.
    async fn runs_before_log(&self) -> Result<i64, LogError>;

    /// Number of meetings, stays and recordings.
    async fn table_counts(&self) -> Result<[i64; 3], LogError>;
}
