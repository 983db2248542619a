//! What people read of the log and its tables: lists that are filtered, in order, a page at a time.
//!
//! A page goes on after the key of the last row of the one before, so that what arrives meanwhile moves nothing: no row is
//! left out or told twice, but for runs of meetings, whose place in time changes when they start. Each page is one short
//! query with a limit in time, on connections that nothing else uses: whatever somebody asks, the cursors go on. Times of
//! events, stays and recordings are ranges of their ids, which are led by the time.

mod lists;
pub(crate) mod rows;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use rows::{ListedEvent, ListedMeeting, ListedQuarantined, ListedRecording, ListedStay};

use super::{ClosedBy, LogError, LogReader, RunKey, Status};
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
    /// recordings are those of runs in which the person stayed, if the stay began within [`MAX_STAY_DISTANCE`] of the times asked for.
    pub person: Option<String>,
}

/// So far from a run's or a recording's time may somebody's stay in it have begun.
pub const MAX_STAY_DISTANCE: Duration = Duration::from_secs(2 * 86_400);

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

convoke_core::words! {
    /// Which end of a list comes first.
    #[derive(Default)]
    pub enum Order as "Order" {
        /// The newest.
        #[default]
        Newest = "newest",
        /// The oldest.
        Oldest = "oldest",
    }
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
pub const MAX_LISTING_BYTES: i64 = 2 << 20;

impl<K> Listing<ListedEvent, K> {
    /// Of rows that were read until there was one more than `limit`, or until they held [`MAX_LISTING_BYTES`].
    pub(super) fn of_events(rows: Vec<ListedEvent>, limit: u32, key: impl Fn(&ListedEvent) -> K) -> Self {
        let held: usize = rows.iter().filter_map(|row| row.event_info.as_deref()).map(str::len).sum();
        let full = i64::try_from(held).unwrap_or(i64::MAX) >= MAX_LISTING_BYTES;
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MeetingKey {
    /// When it started first; until it does, when its first event happened.
    pub at: Millis,
    /// The run.
    pub meeting_uuid: String,
    /// The subscriber that told of it.
    pub subscriber_id: String,
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

    /// The first events after `after` up to `up_to`, in the order of the log, `limit` or `MAX_LISTING_BYTES` of them: without a `next` there
    /// are no others up to there. A meeting is its number or UUID as the events have it.
    async fn events_between(
        &self,
        filter: &EventFilter,
        after: Seq,
        up_to: Seq,
        limit: u32,
        within: Duration,
    ) -> Result<Listing<ListedEvent, Seq>, LogError>;

    /// The event with this id.
    async fn get_event(&self, id: EventId) -> Result<Option<ListedEvent>, LogError>;

    /// Runs of meetings, by [`MeetingKey`].
    async fn list_meetings(
        &self,
        filter: &MeetingFilter,
        page: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError>;

    /// The run with this key.
    async fn get_meeting(&self, run: &RunKey) -> Result<Option<ListedMeeting>, LogError>;

    /// Stays by their id, which is the order in which they began.
    async fn list_stays(&self, filter: &StayFilter, page: &Page<Uuid>) -> Result<Listing<ListedStay, Uuid>, LogError>;

    /// Recordings by their event's id, which is the order in which they were finished.
    async fn list_recordings(
        &self,
        filter: &RecordingFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedRecording, EventId>, LogError>;

    /// The quarantine by number, which is the order in which they arrived.
    async fn list_quarantine(
        &self,
        filter: &QuarantineFilter,
        page: &Page<i64>,
    ) -> Result<Listing<ListedQuarantined, i64>, LogError>;
}
