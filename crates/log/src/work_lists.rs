//! What is asked of the platform beside the events: the work lists of recordings and of enrichment.

use std::time::Duration;

use async_trait::async_trait;

use super::{Log, LogError, Moved, Notes, Suppression};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

/// A run whose UUID takes more bytes, which none does, is left out: an index entry has no room for it.
pub(super) const MAX_UUID_BYTES: i64 = 1_000;

/// A time of a work list that lies so far ahead was written by a clock that was wrong: no pause is as long, and no two clocks are
/// as far apart. What was put off until then is due, and what was given up then is asked for again.
pub(super) const MAX_AHEAD_TIME: Duration = Duration::from_secs(2 * 3600);

/// The four counts of both lists, to 10,000 each: they are asked for every second.
pub(super) const WORK_COUNTS: &str = "SELECT
    (SELECT count(*) FROM (SELECT 1 FROM fetches WHERE due_at IS NOT NULL LIMIT 10000) AS f),
    (SELECT count(*) FROM (SELECT 1 FROM fetches WHERE state = 'given_up' LIMIT 10000) AS f),
    (SELECT count(*) FROM (SELECT 1 FROM enrichments WHERE due_at IS NOT NULL LIMIT 10000) AS e),
    (SELECT count(*) FROM (SELECT 1 FROM enrichments WHERE state = 'given_up' LIMIT 10000) AS e)";

/// A `record.finish` of the log, of a run that it names.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct FinishedRecording {
    /// Its place.
    pub seq: Seq,
    /// Of the event.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// When it happened.
    pub finished_at: Millis,
    /// When the platform is to be asked for it first.
    pub due_at: Millis,
}

/// A run whose recordings are asked for.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RecordingWorkItem {
    /// Of its events.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// How many recordings of it have finished.
    #[sqlx(try_from = "i64")]
    pub finishes: u32,
    /// When the newest of them did.
    pub finished_at: Millis,
    /// How often it was asked for since then.
    #[sqlx(try_from = "i64")]
    pub tries: u32,
    /// Whether `event_info` is yet to be appended.
    pub ready: bool,
    /// The `record.ready` that was made last.
    pub event_info: Option<String>,
}

/// What came of a [`RecordingWorkItem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordingOutcome {
    /// The recordings are decoded: this `record.ready` is to be appended, and no other, whoever does it.
    Ready {
        /// Its `eventInfo`.
        event_info: String,
        /// Now.
        due_at: Millis,
    },
    /// Not yet.
    Later {
        /// When to ask again.
        due_at: Millis,
        /// Why, for people.
        reason: String,
    },
    /// Never.
    GivenUp {
        /// Now.
        at: Millis,
        /// Why, for people.
        reason: String,
    },
    /// `event_info` is in the log.
    Published {
        /// When to ask again, if another recording has finished in the meantime.
        due_at: Millis,
    },
}

/// A run that is to be enriched.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct EnrichmentWorkItem {
    /// Of its events.
    pub subscriber_id: String,
    /// The run.
    pub meeting_uuid: String,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The occurrence of a recurring meeting.
    pub meeting_cycle_sub_id: Option<String>,
    /// `scheduled`, `live`, `ended` or `concluded`.
    pub status: String,
    /// When its first event happened …
    pub first_event_at: Millis,
    /// … and its last.
    pub last_event_at: Millis,
    /// How often it was asked for.
    #[sqlx(try_from = "i64")]
    pub tries: u32,
}

/// What the platform says about a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Its subject.
    pub subject: Option<String>,
    /// When it was to begin …
    pub scheduled_start_at: Option<Millis>,
    /// … and to end.
    pub scheduled_end_at: Option<Millis>,
    /// Who scheduled it.
    pub host: Option<String>,
    /// Its enterprise.
    pub corp_id: Option<String>,
}

/// What came of a [`EnrichmentWorkItem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrichmentOutcome {
    /// It is known now.
    Known(Details),
    /// Not yet.
    Later {
        /// When to ask again.
        due_at: Millis,
        /// Why, for people.
        reason: String,
    },
    /// The platform does not know it, but for this.
    GivenUp {
        /// Now.
        at: Millis,
        /// What is known all the same.
        details: Details,
        /// Why, for people.
        reason: String,
    },
}

/// An [`EnrichmentOutcome`] as its row has it.
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

/// How many entries of a work list are in which state; more than 10,000 count as so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCounts {
    /// Still to be asked for, or to be appended.
    pub waiting: i64,
    /// Asked for in vain for as long as makes sense.
    pub given_up: i64,
}

/// The work lists of who asks the platform.
#[async_trait]
pub trait WorkLists: Log + Notes + Suppression {
    /// The `record.finish` events after `after`, up to `up_to`, that name a run, in the order of the log.
    /// `due_at` is when they happened.
    async fn finished_recordings(&self, after: Seq, up_to: Seq) -> Result<Vec<FinishedRecording>, LogError>;

    /// Puts finished recordings into the work list, and moves the cursor to `to` as [`super::Log::advance`] does: both, or, if the
    /// lease is lost, neither. What is in the list already, by its place in the log, is not counted again. A further recording of
    /// a run makes it due anew, whatever came of it before; a `record.ready` that was made and not yet appended still will be.
    async fn queue(
        &self,
        cursor: &str,
        owner: &str,
        to: Seq,
        ttl: Duration,
        finishes: &[FinishedRecording],
    ) -> Result<Moved, LogError>;

    /// At most `limit` of the runs whose recordings are due at `now`: those with something to append first, then the newest.
    /// What was put off or given up by a clock that was far ahead of `now` is due, too.
    async fn due_recordings(&self, now: Millis, limit: u32) -> Result<Vec<RecordingWorkItem>, LogError>;

    /// Notes what came of a fetch. False, and nothing is changed, if it is not any more what it was when it was read: somebody
    /// else has asked, or another recording has finished.
    async fn settle_recording(&self, fetch: &RecordingWorkItem, fetched: &RecordingOutcome) -> Result<bool, LogError>;

    /// Puts the runs of `meetings` that are not in the work list of enrichment into it, due at `now`: some, if there are many. Those
    /// that were modified since are put there again, and those that were given up and have begun or ended since. Cancelled ones are
    /// left out, which the platform does not know any more. How many.
    async fn queue_enrichments(&self, now: Millis) -> Result<u64, LogError>;

    /// At most `limit` of the runs that are due to be enriched at `now`, the newest first. What was put off or given up by a clock
    /// that was far ahead of `now` is due, too.
    async fn due_enrichments(&self, now: Millis, limit: u32) -> Result<Vec<EnrichmentWorkItem>, LogError>;

    /// Notes what came of a run, and copies it to its row in `meetings` in the same transaction. What is not known now and was
    /// known before stays.
    async fn settle_enrichment(&self, run: &EnrichmentWorkItem, enriched: &EnrichmentOutcome) -> Result<(), LogError>;

    /// How much there is in the work lists: of recordings, and of enrichment.
    async fn work_counts(&self) -> Result<(WorkCounts, WorkCounts), LogError>;
}
