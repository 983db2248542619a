//! The scheduled backfill of `serve`. It runs on the replica that runs the cursor of the analyst tables.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, IntCounter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plan::Unfillable;
use super::report::Counts;
use super::synthesis::FilledEvent;
use super::{
    Backfill, BackfillReport, BackfillRequest, Error, List, NoSubscriber, Note, subscriber, tables_are_current,
};
use crate::cursor::lease;
use crate::intake::Intake;
use crate::metrics::{Counters, Label, Registry};
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, Millis};
use convoke_log::{LogError, Snapshots};
use convoke_platform::{Client, PlatformError};

/// The name of the note that holds the progress.
const NOTE_NAME: &str = "backfill.every";

/// How often it is checked whether a backfill is due.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How far the first backfill goes back.
const FIRST_RANGE: Duration = Duration::from_secs(7 * 86_400);

/// How much consecutive ranges overlap, because the times in lists are whole minutes, and clocks may be adjusted.
const RANGE_OVERLAP: Duration = Duration::from_secs(3_600);

/// Back-off after a failure; it doubles with each further one.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(60);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(6 * 3_600);

/// Metrics of the task.
#[derive(Clone, Debug)]
pub struct BackfillMetrics {
    events: Counters<FilledEvent>,
    not_fillable: Counters<Unfillable>,
    incomplete: Counters<List>,
    failures: IntCounter,
    completed: Gauge,
}

impl BackfillMetrics {
    /// Registers the metrics, at zero.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            events: registry.counters(
                "convoke_backfill_events_total",
                "Events that were made from the platform's history because the platform had not delivered them.",
                "event",
            ),
            not_fillable: registry.counters(
                "convoke_backfill_not_fillable_total",
                "Events that could not be made because the platform's history lacks data.",
                "reason",
            ),
            incomplete: registry.counters(
                "convoke_backfill_incomplete_total",
                "Lists for which the platform returned fewer entries than it announced.",
                "list",
            ),
            failures: registry.counter(
                "convoke_backfill_failures_total",
                "Searches for gaps in the platform's history that were interrupted.",
            ),
            completed: registry.gauge(
                "convoke_backfill_completed_timestamp_seconds",
                "Time of the last complete search for gaps; 0: never, or another replica does it.",
            ),
        }
    }

    /// Adds what is new in the report since it was last `counted`.
    fn count(&self, counted: &mut Option<BackfillReport>, report: &BackfillReport) {
        fn add<L: Label + Ord>(series: &Counters<L>, counted: Option<&Counts<L>>, now: &Counts<L>) {
            for (label, count) in now {
                series.of(*label).inc_by(count - counted.and_then(|counted| counted.get(label)).unwrap_or(&0));
            }
        }
        let before = counted.as_ref();
        add(&self.events, before.map(|before| &before.filled), &report.filled);
        add(&self.not_fillable, before.map(|before| &before.not_fillable), &report.not_fillable);
        add(&self.incomplete, before.map(|before| &before.incomplete_by_list), &report.incomplete_by_list);
        *counted = Some(report.clone());
    }
}

/// The scheduled backfill.
#[derive(Debug)]
pub struct Task {
    /// How often it runs.
    pub every: Duration,
    /// The owner name under which this process takes the cursor's lease.
    pub owner: String,
    /// The cursor of the analyst tables.
    pub cursor: &'static str,
    /// The IDs of the configured subscribers; they may change.
    pub subscribers: watch::Receiver<Arc<[Arc<str>]>>,
    /// The retention: older events are not filled.
    pub retention: Option<Duration>,
    /// The log.
    pub log: Arc<dyn Snapshots>,
    /// The entrance to the log.
    pub intake: Intake,
    /// The client of the platform's API.
    pub client: Client,
    /// The metrics.
    pub metrics: BackfillMetrics,
    /// The clock.
    pub clock: Clock,
}

/// Why a backfill did not finish.
#[derive(Debug, thiserror::Error)]
enum ScheduledBackfillError {
    #[error(transparent)]
    Nobody(#[from] NoSubscriber),
    #[error(transparent)]
    Backfill(#[from] Error),
    #[error("the platform returned {0} incomplete lists: the next search for gaps starts there again")]
    Incomplete(u64),
}

impl From<LogError> for ScheduledBackfillError {
    fn from(error: LogError) -> Self {
        Self::Backfill(error.into())
    }
}

impl ScheduledBackfillError {
    const fn platform_error(&self) -> Option<&PlatformError> {
        match self {
            Self::Nobody(NoSubscriber::Platform(error)) | Self::Backfill(Error::Platform(error)) => Some(error),
            _ => None,
        }
    }
}

impl Task {
    /// Runs a backfill whenever one is due, until `stop`.
    pub async fn run(self, migrated: CancellationToken, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = async {
                migrated.cancelled().await;
                self.for_ever().await;
            } => {}
        }
    }

    async fn for_ever(&self) {
        let mut pause = MIN_RETRY_DELAY;
        let throttle = Throttle::new(2, Duration::from_secs(3_600));
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            // If the configured subscribers change, the current backfill is dropped, and it is determined anew which one is due.
            let mut others = self.subscribers.clone();
            others.mark_unchanged();
            let turn = tokio::select! {
                turn = self.turn() => turn,
                Ok(()) = others.changed() => Ok(false),
            };
            match turn {
                Ok(true) => pause = MIN_RETRY_DELAY,
                Ok(false) => {}
                Err(failed) => {
                    self.metrics.failures.inc();
                    let advice = failed.platform_error().map_or("", |error| error.advice);
                    let wait = failed.platform_error().and_then(|error| error.wait).unwrap_or_default().max(pause);
                    throttle.run("failed", |suppressed| {
                        tracing::warn!(error = %failed, advice, ?wait, suppressed, "the backfill was interrupted; it continues later");
                    });
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        Ok(()) = others.changed() => {}
                    }
                    pause = (pause * 2).min(MAX_RETRY_DELAY);
                }
            }
        }
    }

    /// Runs a backfill, if one is due and this replica holds the lease. Returns whether it did.
    async fn turn(&self) -> Result<bool, ScheduledBackfillError> {
        if lease::moved_by(&*self.log, self.cursor, &self.owner).await?.is_none() {
            return Ok(false);
        }
        let last = Note::load(&*self.log, NOTE_NAME).await?;
        let now = self.clock.now();
        let finished = last.as_ref().and_then(|note| note.finished_at).and_then(Millis::new);
        if let Some(finished) = finished {
            self.show(finished);
        }
        if finished.is_some_and(|finished| finished <= now && now.since(finished) < self.every) {
            return Ok(false);
        }
        let subscribers = Arc::clone(&self.subscribers.borrow());
        let subscriber_id = subscriber(&subscribers, &self.client).await?;
        tables_are_current(&*self.log, self.cursor).await?;
        let backfill = Backfill {
            log: self.log.clone(),
            client: self.client.clone(),
            intake: self.intake.clone(),
            clock: self.clock.clone(),
            subscriber_id,
        };
        let request =
            self.request(last.filter(|note| *note.subscriber_id == *backfill.subscriber_id), &backfill).await?;
        tracing::info!(since = %request.since, "looking for gaps in the platform's history");
        let mut counted = None;
        let report = backfill.run(&request, |report, _| self.metrics.count(&mut counted, report)).await?;
        if report.incomplete_lists == 0 {
            self.show(self.clock.now());
        }
        if report.events() > 0 {
            tracing::warn!(
                events = report.events(),
                runs = report.runs,
                since = %report.since,
                until = %report.until,
                "added events to the log that the platform had not delivered, or that were not accepted"
            );
        } else {
            tracing::info!(runs = report.runs, since = %report.since, until = %report.until, "the backfill found no gaps to fill");
        }
        if report.incomplete_lists > 0 {
            return Err(ScheduledBackfillError::Incomplete(report.incomplete_lists));
        }
        Ok(true)
    }

    /// Shows when a backfill last finished, on any replica.
    fn show(&self, completed: Millis) {
        self.metrics.completed.set(completed.seconds());
    }

    /// The next range: the rest of an interrupted one, everything since an incomplete list, or what follows the last range.
    async fn request(&self, last: Option<Note>, backfill: &Backfill) -> Result<BackfillRequest, Error> {
        let boundary = backfill.boundary().await?;
        let kept = self.retention.map_or(Millis::EPOCH, |retention| self.clock.now().minus(retention));
        let range = |note: &Note| Some((Millis::new(note.since)?, Millis::new(note.until?)?));
        let (since, until) = match last {
            // Newer events do not wait until that list is complete, whatever is wrong with it.
            Some(note) if note.finished_at.is_none() && note.hole.is_some() => {
                (Millis::new(note.place).unwrap_or(boundary).max(kept).min(boundary), boundary)
            }
            Some(note) if note.finished_at.is_none() && range(&note).is_some() => {
                range(&note).unwrap_or((boundary, boundary))
            }
            Some(note) => {
                let end = note.until.into_iter().chain(note.young).min().and_then(Millis::new);
                (end.map_or_else(|| boundary.minus(FIRST_RANGE), |end| end.minus(RANGE_OVERLAP)).max(kept), boundary)
            }
            None => (boundary.minus(FIRST_RANGE).max(kept), boundary),
        };
        Ok(BackfillRequest { since, until: Some(until), dry_run: false, note: NOTE_NAME })
    }
}
