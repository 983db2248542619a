//! The work lists of requests to the platform: recordings and enrichment.

use std::time::Duration;

use async_trait::async_trait;

use super::{Log, LogError, Moved, Notes, Suppression};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

/// A run with a longer UUID is left out, because an index entry could not hold it. Real UUIDs are shorter.
pub(super) const MAX_UUID_BYTES: i64 = 1_000;

/// A time in a work list that is further ahead was written with a wrong clock: no back-off is that long, and clocks do
/// not differ that much. A request postponed until then is due, and one given up then is tried again.
pub(super) const MAX_AHEAD_TIME: Duration = Duration::from_secs(2 * 3600);

/// The four counts of both lists, each up to 10,000, because they are queried every second.
pub(super) const WORK_COUNTS: &str = "SELECT
    (SELECT count(*) FROM (SELECT 1 FROM fetches WHERE due_at IS NOT NULL LIMIT 10000) AS f),
    (SELECT count(*) FROM (SELECT 1 FROM fetches WHERE state = 'given_up' LIMIT 10000) AS f),
    (SELECT count(*) FROM (SELECT 1 FROM enrichments WHERE due_at IS NOT NULL LIMIT 10000) AS e),
    (SELECT count(*) FROM (SELECT 1 FROM enrichments WHERE state = 'given_up' LIMIT 10000) AS e)";

/// A `record.finish` event that names a run.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct FinishedRecording {
    /// Its position in the log.
    pub seq: Seq,
    /// The subscriber of the event.
    pub subscriber_id: String,
    /// The run (`meetingUUID`).
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// When it happened.
    pub finished_at: Millis,
    /// When to ask the platform first.
    pub due_at: Millis,
}

/// A run whose recordings are requested from the platform.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RecordingWorkItem {
    /// The subscriber of its events.
    pub subscriber_id: String,
    /// The run (`meetingUUID`).
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// Number of its finished recordings.
    #[sqlx(try_from = "i64")]
    pub finishes: u32,
    /// When the newest of them finished.
    pub finished_at: Millis,
    /// Number of requests since then.
    #[sqlx(try_from = "i64")]
    pub tries: u32,
    /// Whether `event_info` has not been appended yet.
    pub ready: bool,
    /// The newest `record.ready` that was made.
    pub event_info: Option<String>,
}

/// The outcome of a [`RecordingWorkItem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordingOutcome {
    /// The recordings can be played: exactly this `record.ready` has to be appended, by whichever process.
    Ready {
        /// Its `eventInfo`.
        event_info: String,
        /// The current time.
        due_at: Millis,
    },
    /// Not available yet.
    Later {
        /// When to ask again.
        due_at: Millis,
        /// The reason, for users.
        reason: String,
    },
    /// Never available.
    GivenUp {
        /// The current time.
        at: Millis,
        /// The reason, for users.
        reason: String,
    },
    /// `event_info` is in the log.
    Published {
        /// When to ask again, if another recording has finished in the meantime.
        due_at: Millis,
    },
}

/// A run to enrich.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct EnrichmentWorkItem {
    /// The subscriber of its events.
    pub subscriber_id: String,
    /// The run (`meetingUUID`).
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The occurrence of a recurring meeting.
    pub meeting_cycle_sub_id: Option<String>,
    /// `scheduled`, `live`, `ended` or `concluded`.
    pub status: String,
    /// When its first event happened.
    pub first_event_at: Millis,
    /// When its last event happened.
    pub last_event_at: Millis,
    /// Number of requests so far.
    #[sqlx(try_from = "i64")]
    pub tries: u32,
}

/// The platform's data of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Its subject.
    pub subject: Option<String>,
    /// Scheduled start.
    pub scheduled_start_at: Option<Millis>,
    /// Scheduled end.
    pub scheduled_end_at: Option<Millis>,
    /// Who scheduled it, by name …
    pub host: Option<String>,
    /// … and as user.
    pub host_user_uuid: Option<String>,
    /// Its enterprise.
    pub corp_id: Option<String>,
    /// What kind of meeting it is, in the platform's words.
    pub conference_type: Option<String>,
    /// Whether it is a webinar.
    pub webinar: Option<bool>,
    /// The number of the cloud meeting room, or the personal number, that it is held in.
    pub virtual_room: Option<String>,
    /// Who was invited. What is known of a meeting that is still to come replaces what was; later it is only added to.
    pub invitations: Vec<Invitation>,
}

/// Somebody who was invited to a run: a person, or a room's terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Invitation {
    /// The user UUID.
    pub user_uuid: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The number.
    pub call_number: Option<String>,
    /// The name.
    pub display_name: Option<String>,
    /// The department.
    pub department: Option<String>,
    /// `normal`, `terminal`, `outside` or `mobile`.
    pub attendee_type: Option<String>,
}

impl Invitation {
    /// Who that is, in this run: the user, else the account, the number or the name.
    #[must_use]
    pub fn invitee(&self) -> Option<&str> {
        let handles = [&self.user_uuid, &self.account, &self.call_number, &self.display_name];
        handles.into_iter().find_map(|handle| handle.as_deref())
    }
}

/// A user to ask the directory for.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DuePerson {
    /// The user UUID.
    pub user_uuid: String,
    /// An account of the user, if events tell one.
    pub account: Option<String>,
}

/// What the directory says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPerson {
    /// The user UUID.
    pub user_uuid: String,
    /// Whether it knows the user and tells it.
    pub told: bool,
    /// Whether nothing has changed since the last time; then the rest is not told.
    pub unchanged: bool,
    /// The department.
    pub department: Option<String>,
    /// The title.
    pub title: Option<String>,
}

/// The outcome of an [`EnrichmentWorkItem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrichmentOutcome {
    /// The data of the run.
    Known(Details),
    /// Not available yet.
    Later {
        /// When to ask again.
        due_at: Millis,
        /// The reason, for users.
        reason: String,
    },
    /// The platform does not know the run, apart from `details`.
    GivenUp {
        /// The current time.
        at: Millis,
        /// What is known nevertheless.
        details: Details,
        /// The reason, for users.
        reason: String,
    },
}

/// An [`EnrichmentOutcome`] as the columns of its row.
pub(super) struct Settled<'a> {
    pub state: &'static str,
    pub due_at: Option<Millis>,
    pub given_up_at: Option<Millis>,
    pub reason: Option<&'a str>,
    pub details: Details,
}

impl EnrichmentOutcome {
    pub(super) fn settled(&self) -> Settled<'_> {
        let (state, due_at, given_up_at, reason, details) = match self {
            Self::Known(details) => ("enriched", None, None, None, details.clone()),
            Self::Later { due_at, reason } => {
                ("waiting", Some(*due_at), None, Some(reason.as_str()), Details::default())
            }
            Self::GivenUp { at, details, reason } => {
                ("given_up", None, Some(*at), Some(reason.as_str()), details.clone())
            }
        };
        Settled { state, due_at, given_up_at, reason, details }
    }
}

/// The number of entries of a work list by state, each up to 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCounts {
    /// To be requested or appended.
    pub waiting: i64,
    /// Given up after the longest useful time.
    pub given_up: i64,
}

/// The work lists of the tasks that query the platform.
#[async_trait]
pub trait WorkLists: Log + Notes + Suppression {
    /// The `record.finish` events after `after`, up to `up_to`, that name a run, in log order. `due_at`
    /// is the time of the event.
    async fn finished_recordings(&self, after: Seq, up_to: Seq) -> Result<Vec<FinishedRecording>, LogError>;

    /// Adds finished recordings to the work list and moves the cursor to `to` as [`super::Log::advance`] does: both, or
    /// neither if the lease is lost. A recording already in the list, by its position in the log, is not counted again.
    /// Another recording of a run makes the run due again, whatever its earlier outcome; a `record.ready` that was made
    /// and not yet appended will still be appended.
    async fn queue(
        &self,
        cursor: &str,
        owner: &str,
        to: Seq,
        ttl: Duration,
        finishes: &[FinishedRecording],
    ) -> Result<Moved, LogError>;

    /// At most `limit` runs whose recordings are due at `now`: first those with something to append, then the newest. A
    /// run postponed or given up while the clock was far ahead of `now` is due, too.
    async fn due_recordings(&self, now: Millis, limit: u32) -> Result<Vec<RecordingWorkItem>, LogError>;

    /// Records the outcome of a request. Returns false, and changes nothing, if the entry has changed since it was
    /// read: another process has sent a request, or another recording has finished.
    async fn settle_recording(&self, fetch: &RecordingWorkItem, fetched: &RecordingOutcome) -> Result<bool, LogError>;

    /// Adds runs of `meetings` that are not in the enrichment list, due at `now`; only some of them if there are many.
    /// Runs modified since are added again, and so are given-up runs that have started or ended since. Cancelled runs
    /// are left out, because the platform no longer knows them. Returns how many were added.
    async fn queue_enrichments(&self, now: Millis) -> Result<u64, LogError>;

    /// Adds users who were in meetings to `people`, due at `now`, if they are not in it; only some of them if there are many.
    async fn queue_people(&self, now: Millis) -> Result<u64, LogError>;

    /// At most `limit` users who are due at `now`, also those who would only be due more than `refresh` after it.
    async fn due_people(&self, now: Millis, refresh: Duration, limit: u32) -> Result<Vec<DuePerson>, LogError>;

    /// Stores what the directory said at `now` of users that are still in `people`; they are due again at `due_at`.
    async fn settle_people(&self, people: &[KnownPerson], now: Millis, due_at: Millis) -> Result<(), LogError>;

    /// At most `limit` runs that are due for enrichment at `now`, newest first. A run postponed or given up while the
    /// clock was far ahead of `now` is due, too.
    async fn due_enrichments(&self, now: Millis, limit: u32) -> Result<Vec<EnrichmentWorkItem>, LogError>;

    /// Records the outcome of a run, and copies it to its row in `meetings` in the same transaction. Values that are
    /// unknown now keep their earlier value.
    async fn settle_enrichment(&self, run: &EnrichmentWorkItem, enriched: &EnrichmentOutcome) -> Result<(), LogError>;

    /// The sizes of the work lists: of recordings, and of enrichment.
    async fn work_counts(&self) -> Result<(WorkCounts, WorkCounts), LogError>;
}
