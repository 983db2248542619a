//! What people read of the log and its tables: lists that are filtered, in order, a page at a time.
//!
//! A page goes on after the key of the last row of the one before, so that what arrives meanwhile moves nothing: no row is
//! left out or told twice, but for runs of meetings, whose place in time changes when they start. Each page is one short
//! query with a limit in time, on connections that nothing else uses: whatever somebody asks, the cursors go on. Times of
//! events, stays and recordings are ranges of their ids, which are led by the time.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{ClosedBy, LogError, LogReader, RecordingRow, RunKey, Status};
use convoke_core::event::Source;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// What can be asked of every list. What is `None` leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// At this time or later.
    pub since: Option<Millis>,
    /// Before this time.
    pub until: Option<Millis>,
    /// Of this subscriber.
    pub subscriber: Option<String>,
    /// Of the meeting with this number or UUID. A UUID that the table `meetings` knows is one; anything else is a number.
    pub meeting: Option<String>,
    /// Of whom exactly this is the user UUID, the account, the call number, the participant, the name, or the person. Runs and
    /// recordings are those of runs in which the person stayed, if the stay began within [`APART`] of the times asked for.
    pub person: Option<String>,
}

/// So far from a run's or a recording's time may somebody's stay in it have begun.
pub const APART: Duration = Duration::from_secs(2 * 86_400);

/// Which events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// What every list can be asked for; the time is when they happened.
    pub scope: Scope,
    /// Of this type, as sent.
    pub event: Option<String>,
    /// That came in this way.
    pub source: Option<Source>,
}

/// Which runs of meetings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeetingFilter {
    /// What every list can be asked for; the time is the key's.
    pub scope: Scope,
    /// In this state.
    pub status: Option<Status>,
}

/// Which stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StayFilter {
    /// What every list can be asked for; the time is when they began. One of which that is not known is in no range.
    pub scope: Scope,
    /// Of exactly this run.
    pub run: Option<RunKey>,
    /// That ended so.
    pub closed_by: Option<ClosedBy>,
}

/// Which recordings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingFilter {
    /// What every list can be asked for; the time is when they were finished.
    pub scope: Scope,
    /// Of exactly this run.
    pub run: Option<RunKey>,
}

/// Which entries of the quarantine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuarantineFilter {
    /// That arrived at this time or later.
    pub since: Option<Millis>,
    /// That arrived before this time.
    pub until: Option<Millis>,
    /// Of this subscriber.
    pub subscriber: Option<String>,
}

/// Which end of a list comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The newest.
    #[default]
    Newest,
    /// The oldest.
    Oldest,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<K> {
    /// Which end comes first.
    pub order: Order,
    /// What comes after this, in that order; else from the beginning.
    pub after: Option<K>,
    /// So many rows at the most; at least 1.
    pub limit: u32,
    /// How long each of its queries may take.
    pub within: Duration,
}

/// A page that was read.
#[derive(Clone, Debug)]
pub struct Listing<T, K> {
    /// Its rows, in its order.
    pub rows: Vec<T>,
    /// What to go on after; `None` at the list's end.
    pub next: Option<K>,
}

/// Bytes of `eventInfo` that one listing of events holds: with the row that passes it, it ends.
pub const BYTES: i64 = 2 << 20;

impl<K> Listing<ListedEvent, K> {
    /// Of rows that were read until there was one more than `limit`, or until they held [`BYTES`].
    pub(super) fn of_events(rows: Vec<ListedEvent>, limit: u32, key: impl Fn(&ListedEvent) -> K) -> Self {
        let held: usize = rows.iter().filter_map(|row| row.event_info.as_deref()).map(str::len).sum();
        let full = i64::try_from(held).unwrap_or(i64::MAX) >= BYTES;
        let last = rows.last().filter(|_| full).map(&key);
        let listing = Self::of(rows, limit, key);
        Self { next: listing.next.or(last), ..listing }
    }
}

impl<T, K> Listing<T, K> {
    /// Of the rows of a query for one more than `limit`.
    pub(super) fn of(mut rows: Vec<T>, limit: u32, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(key);
        Self { rows, next }
    }
}

/// The place of a run in time, and in the list of runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeetingKey {
    /// When it started first; until it does, when its first event happened.
    pub at: Millis,
    /// The run.
    pub meeting_uuid: String,
    /// The subscriber that told of it.
    pub subscriber_id: String,
}

/// A row of `events`, but for the trace of its first delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedEvent {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: String,
    /// Its type, as sent.
    pub event: String,
    /// When it happened.
    pub occurred_at: Millis,
    /// When it arrived first.
    pub received_at: Millis,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The run.
    pub meeting_uuid: Option<String>,
    /// The occurrence of a series.
    pub meeting_cycle_sub_id: Option<String>,
    /// The user.
    pub user_uuid: Option<String>,
    /// The kind of client.
    pub user_agent: Option<String>,
    /// The login name.
    pub account: Option<String>,
    /// The participant in the meeting.
    pub participant_id: Option<String>,
    /// The name shown in the meeting.
    pub display_name: Option<String>,
    /// The role in the meeting.
    pub role: Option<String>,
    /// The number, for SIP and telephone.
    pub call_number: Option<String>,
    /// When the attendee joined.
    pub join_time: Option<Millis>,
    /// When the attendee left.
    pub left_time: Option<Millis>,
    /// `push`, `backfill` or `platform`.
    pub source: String,
    /// How often it was delivered.
    pub deliveries: i64,
    /// When last.
    pub last_delivered_at: Millis,
    /// Of the first delivery.
    pub request_id: Option<String>,
    /// `eventInfo`, verbatim; `None` once the person in it was forgotten.
    pub event_info: Option<String>,
    /// When that was.
    pub forgotten_at: Option<Millis>,
}

/// A row of `meetings`, with what was fetched from the platform.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedMeeting {
    /// The subscriber.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The occurrence of a series.
    pub meeting_cycle_sub_id: Option<String>,
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
    /// What it is about, if enriched.
    pub subject: Option<String>,
    /// For when it was planned, if enriched.
    pub scheduled_start_at: Option<Millis>,
    /// Until when it was planned, if enriched.
    pub scheduled_end_at: Option<Millis>,
    /// Who holds it, if enriched.
    pub host: Option<String>,
    /// The enterprise, if enriched.
    pub corp_id: Option<String>,
}

impl ListedMeeting {
    /// Its place in the list.
    #[must_use]
    pub fn key(&self) -> MeetingKey {
        MeetingKey {
            at: self.started_at.unwrap_or(self.first_event_at),
            meeting_uuid: self.meeting_uuid.clone(),
            subscriber_id: self.subscriber_id.clone(),
        }
    }
}

/// A row of `attendance`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedStay {
    /// Its id, led by the time at which it began.
    pub stay_id: Uuid,
    /// The subscriber.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The participant in the meeting.
    pub participant_id: Option<String>,
    /// Who that is.
    pub person: Option<String>,
    /// The user.
    pub user_uuid: Option<String>,
    /// The login name.
    pub account: Option<String>,
    /// The name shown in the meeting.
    pub display_name: Option<String>,
    /// The number, for SIP and telephone.
    pub call_number: Option<String>,
    /// The kind of client.
    pub user_agent: Option<String>,
    /// The role in the meeting.
    pub role: Option<String>,
    /// When it began.
    pub joined_at: Option<Millis>,
    /// When it ended.
    pub left_at: Option<Millis>,
    /// How long it was, in seconds.
    pub duration_s: Option<f64>,
    /// How it ended.
    pub closed_by: ClosedBy,
}

/// An entry of the quarantine, without the body itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedQuarantined {
    /// Its number.
    pub id: i64,
    /// The subscriber whose key signed it.
    pub subscriber_id: String,
    /// When it arrived first.
    pub received_at: Millis,
    /// How often it was delivered.
    pub deliveries: i64,
    /// Why no event could be made of it.
    pub reason: String,
    /// How long the body is.
    pub bytes: i64,
}

/// Lists for people. Nothing here writes.
#[async_trait]
pub trait Reading: LogReader {
    /// Events by their id, which is the order in which they happened.
    ///
    /// # Errors
    /// [`LogError::TooSlow`] if a query takes longer than the page allows, here and in all that follow.
    async fn list_events(
        &self,
        filter: &EventFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedEvent, EventId>, LogError>;

    /// The first events after `after` up to `up_to`, in the order of the log, `limit` or `BYTES` of them: without a `next` there
    /// are no others up to there. A meeting is its number or UUID as the events have it.
    ///
    /// # Errors
    /// As [`Reading::list_events`].
    async fn events_between(
        &self,
        filter: &EventFilter,
        after: Seq,
        up_to: Seq,
        limit: u32,
        within: Duration,
    ) -> Result<Listing<ListedEvent, Seq>, LogError>;

    /// The event with this id.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn get_event(&self, id: EventId) -> Result<Option<ListedEvent>, LogError>;

    /// Runs of meetings, by [`MeetingKey`].
    ///
    /// # Errors
    /// As [`Reading::list_events`].
    async fn list_meetings(
        &self,
        filter: &MeetingFilter,
        page: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError>;

    /// The run with this key.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn get_meeting(&self, run: &RunKey) -> Result<Option<ListedMeeting>, LogError>;

    /// Stays by their id, which is the order in which they began.
    ///
    /// # Errors
    /// As [`Reading::list_events`].
    async fn list_stays(&self, filter: &StayFilter, page: &Page<Uuid>) -> Result<Listing<ListedStay, Uuid>, LogError>;

    /// Recordings by their event's id, which is the order in which they were finished.
    ///
    /// # Errors
    /// As [`Reading::list_events`].
    async fn list_recordings(
        &self,
        filter: &RecordingFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<RecordingRow, EventId>, LogError>;

    /// The quarantine by number, which is the order in which they arrived.
    ///
    /// # Errors
    /// As [`Reading::list_events`].
    async fn list_quarantine(
        &self,
        filter: &QuarantineFilter,
        page: &Page<i64>,
    ) -> Result<Listing<ListedQuarantined, i64>, LogError>;
}

/// How long the query for one row by its key may take.
pub(super) const ONE: Duration = Duration::from_secs(5);

pub(super) const EVENT: &str = "seq, event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, \
     meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number, join_time, \
     left_time, source, deliveries, last_delivered_at, request_id, event_info, forgotten_at";

pub(super) const MEETING: &str = "subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, status, created_at, \
     modified_at, modifications, cancelled_at, started_at, ended_at, concluded_at, stays, participants, \
     peak_participants, recordings, first_event_at, last_event_at, subject, scheduled_start_at, scheduled_end_at, host, \
     corp_id";

pub(super) const STAY: &str = "stay_id, subscriber_id, meeting_uuid, meeting_id, participant_id, person, user_uuid, \
     account, display_name, call_number, user_agent, role, joined_at, left_at, duration_s, closed_by";

pub(super) const RECORDING: &str = "event_id, subscriber_id, meeting_uuid, meeting_id, finished_at, ready_at, length_s, \
     size_mb, files, view_url";

/// Runs with a UUID, whoever told of them. Each subscriber is looked up in the key, which it leads.
pub(super) const RUNS_WITH_UUID: &str = "WITH RECURSIVE known (id) AS (
         SELECT min(subscriber_id) FROM meetings
         UNION ALL
         SELECT (SELECT min(subscriber_id) FROM meetings WHERE subscriber_id > known.id) FROM known WHERE id IS NOT NULL)
     SELECT m.subscriber_id, m.meeting_id, m.first_event_at, m.last_event_at
       FROM known JOIN meetings m ON m.subscriber_id = known.id AND m.meeting_uuid = $1";

/// What [`Scope::meeting`] turned out to be.
pub(super) enum Meant {
    /// A number.
    Number(String),
    /// The UUID of these runs.
    Runs(String, Vec<MeantRun>),
}

impl Meant {
    pub fn of(meeting: String, runs: Vec<MeantRun>) -> Self {
        if runs.is_empty() { Self::Number(meeting) } else { Self::Runs(meeting, runs) }
    }
}

pub(super) struct MeantRun {
    pub subscriber_id: String,
    pub meeting_id: Option<String>,
    pub first_event_at: Millis,
    pub last_event_at: Millis,
}

impl MeantRun {
    /// The numbers of all of them; `None` if one has none.
    pub fn numbers(runs: &[Self]) -> Option<Vec<String>> {
        runs.iter().map(|run| run.meeting_id.clone()).collect()
    }

    /// From when to when there were events of them.
    pub fn span(runs: &[Self]) -> (EventId, EventId) {
        let first = runs.iter().map(|run| run.first_event_at).min().unwrap_or(Millis::EPOCH);
        let last = runs.iter().map(|run| run.last_event_at).max().unwrap_or(Millis::MAX);
        (EventId::lower_bound(first), EventId::lower_bound(last.plus(Duration::from_millis(1))))
    }
}

/// A text as the typed columns have it, so that what cannot be in them is looked for as what they have in its place.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// The ids of stays that can have to do with times from `since` to `until`.
pub(super) fn stays_about(scope: &Scope) -> (Option<EventId>, Option<EventId>) {
    (
        scope.since.map(|since| EventId::lower_bound(since.minus(APART))),
        scope.until.map(|until| EventId::lower_bound(until.plus(APART))),
    )
}
