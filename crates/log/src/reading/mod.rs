//! What users read from the log and its tables: lists with filters, in order, one page at a time.
//!
//! A page continues after the key of the last row of the page before, so rows that arrive in between shift nothing: no
//! row is missing or repeated, except for runs of meetings, whose key changes when they start. Each page is one short
//! query with a timeout, on connections that nothing else uses, so that no query can hold up the cursors. Time ranges
//! of events, stays and recordings are ranges of their ids, which start with the time.

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

/// The filters that every list has. `None` does not filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Only at this time or later.
    pub since: Option<Millis>,
    /// Only before this time.
    pub until: Option<Millis>,
    /// Only from this subscriber.
    pub subscriber: Option<String>,
    /// Only of the meeting with this number or UUID. It is a UUID if the table `meetings` contains it, otherwise a number.
    pub meeting: Option<String>,
    /// Only of the person for whom exactly this is the user UUID, the account, the call number, the participant, the
    /// name, or the person. Runs and recordings: only of runs in which the person stayed, if the stay began within
    /// [`MAX_STAY_DISTANCE`] of the requested times.
    pub person: Option<String>,
}

/// Maximum distance between the start of a stay and the time of its run or recording, when filtering by person.
pub const MAX_STAY_DISTANCE: Duration = Duration::from_secs(2 * 86_400);

/// A filter for events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// The common filters; the time is when the events happened.
    pub scope: Scope,
    /// Only of this type, as sent.
    pub event: Option<String>,
    /// Only from this source.
    pub source: Option<Source>,
}

/// A filter for runs of meetings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeetingFilter {
    /// The common filters; the time is that of the key.
    pub scope: Scope,
    /// Only in this state.
    pub status: Option<Status>,
}

/// A filter for stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StayFilter {
    /// The common filters; the time is when the stays began. A stay without that time is in no range.
    pub scope: Scope,
    /// Only of exactly this run.
    pub run: Option<RunKey>,
    /// Only those that ended this way.
    pub closed_by: Option<ClosedBy>,
}

/// A filter for recordings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingFilter {
    /// The common filters; the time is when the recordings finished.
    pub scope: Scope,
    /// Only of exactly this run.
    pub run: Option<RunKey>,
}

/// A filter for quarantine entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuarantineFilter {
    /// Only those that arrived at this time or later.
    pub since: Option<Millis>,
    /// Only those that arrived before this time.
    pub until: Option<Millis>,
    /// Only from this subscriber.
    pub subscriber: Option<String>,
}

convoke_core::words! {
    /// Which end of a list comes first.
    #[derive(Default)]
    pub enum Order as "Order" {
        /// The newest first.
        #[default]
        Newest = "newest",
        /// The oldest first.
        Oldest = "oldest",
    }
}

/// A request for part of a list.
#[derive(Clone, Debug)]
pub struct Page<K> {
    /// Which end comes first.
    pub order: Order,
    /// Start after this key, in that order; `None`: from the beginning.
    pub after: Option<K>,
    /// Maximum number of rows; at least 1.
    pub limit: u32,
    /// Timeout of each query.
    pub within: Duration,
}

/// The response with a page of a list.
#[derive(Clone, Debug)]
pub struct Listing<T, K> {
    /// The rows, in the requested order.
    pub rows: Vec<T>,
    /// The key after which the next page starts; `None` at the end of the list.
    pub next: Option<K>,
}

/// Maximum number of `eventInfo` bytes in one listing of events: it ends with the row that reaches it.
pub const MAX_LISTING_BYTES: i64 = 2 << 20;

impl<K> Listing<ListedEvent, K> {
    /// Makes a listing of rows that were read up to one more than `limit`, or up to [`MAX_LISTING_BYTES`].
    pub(super) fn of_events(rows: Vec<ListedEvent>, limit: u32, key: impl Fn(&ListedEvent) -> K) -> Self {
        let held: usize = rows.iter().filter_map(|row| row.event_info.as_deref()).map(str::len).sum();
        let full = i64::try_from(held).unwrap_or(i64::MAX) >= MAX_LISTING_BYTES;
        let last = rows.last().filter(|_| full).map(&key);
        let listing = Self::of(rows, limit, key);
        Self { next: listing.next.or(last), ..listing }
    }
}

impl<T, K> Listing<T, K> {
    /// Makes a listing of the rows of a query for one more than `limit`.
    pub(super) fn of(mut rows: Vec<T>, limit: u32, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(key);
        Self { rows, next }
    }
}

/// The key of a run in the list of runs, which is ordered by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MeetingKey {
    /// When it first started; before that, when its first event happened.
    pub at: Millis,
    /// The run.
    pub meeting_uuid: String,
    /// The subscriber of its events.
    pub subscriber_id: String,
}

/// Lists for users. Read-only.
#[async_trait]
pub trait Reading: LogReader {
    /// Events in the order of their ids, which is the order in which they happened.
    ///
    /// # Errors
    /// [`LogError::TooSlow`] if a query takes longer than the page allows, as for all methods below.
    async fn list_events(
        &self,
        filter: &EventFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedEvent, EventId>, LogError>;

    /// The first events after `after`, up to `up_to`, in log order, at most `limit` of them or `MAX_LISTING_BYTES`. If `next`
    /// is `None`, there are no more up to `up_to`. The meeting filter compares the number or UUID in the events themselves.
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

    /// Runs of meetings in the order of [`MeetingKey`].
    async fn list_meetings(
        &self,
        filter: &MeetingFilter,
        page: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError>;

    /// The run with this key.
    async fn get_meeting(&self, run: &RunKey) -> Result<Option<ListedMeeting>, LogError>;

    /// Stays in the order of their ids, which is the order in which they began.
    async fn list_stays(&self, filter: &StayFilter, page: &Page<Uuid>) -> Result<Listing<ListedStay, Uuid>, LogError>;

    /// Recordings in the order of their events' ids, which is the order in which they finished.
    async fn list_recordings(
        &self,
        filter: &RecordingFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedRecording, EventId>, LogError>;

    /// The quarantine in the order of its numbers, which is the order of arrival.
    async fn list_quarantine(
        &self,
        filter: &QuarantineFilter,
        page: &Page<i64>,
    ) -> Result<Listing<ListedQuarantined, i64>, LogError>;
}
