//! The scheduled backfill of `serve`. It runs on the replica that runs the cursor of the analyst tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, IntCounter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plan::Unfillable;
use super::report::Counts;
use super::synthesis::FilledEvent;
use super::{
    Backfill, BackfillReport, BackfillRequest, ComparisonError, Enterprises, Error, List, Note, SeenEnterprise,
    note_name, seen_enterprises, tables_are_current,
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
    Failed(#[from] ComparisonError),
    #[error("the platform returned {0} incomplete lists: the next search for gaps starts there again")]
    Incomplete(u64),
}

impl From<LogError> for ScheduledBackfillError {
    fn from(error: LogError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Error> for ScheduledBackfillError {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl ScheduledBackfillError {
    fn platform_error(&self) -> Option<&PlatformError> {
        match self {
            Self::Failed(error) => error.platform_error(),
            Self::Incomplete(_) => None,
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
                    // Other enterprises are due as ever.
                    pause = (pause * 2).min(MAX_RETRY_DELAY).min(self.every.max(MIN_RETRY_DELAY));
                }
            }
        }
    }

    /// Runs a backfill, if one is due and this replica holds the lease. Returns whether it did.
    async fn turn(&self) -> Result<bool, ScheduledBackfillError> {
        if lease::moved_by(&*self.log, self.cursor, &self.owner).await?.is_none() {
            return Ok(false);
        }
        let now = self.clock.now();
        let mut notes: HashMap<String, Option<Note>> = HashMap::new();
        for enterprise in self.client.enterprises() {
            let name = note_name(NOTE_NAME, &self.client, &enterprise);
            let last = Note::load(&*self.log, &name).await?;
            notes.insert(name, last);
        }
        let finished = |last: &Option<Note>| last.as_ref().and_then(|note| note.finished_at).and_then(Millis::new);
        if let Some(Some(finished)) = notes.values().map(finished).min() {
            self.show(finished);
        }
        notes.retain(|_, last| self.is_due(finished(last), now));
        if notes.is_empty() {
            return Ok(false);
        }
        let subscribers = Arc::clone(&self.subscribers.borrow());
        // What one enterprise refuses costs the others nothing.
        let Enterprises { seen, refused } = seen_enterprises(&subscribers, &self.client).await?;
        let mut failures: Vec<ScheduledBackfillError> = refused.into_iter().map(Into::into).collect();
        let mut worked = false;
        for enterprise in seen {
            let name = note_name(NOTE_NAME, &self.client, &enterprise.client);
            let Some(last) = notes.remove(&name) else { continue };
            let corp_id = self.client.name_of(&enterprise.client);
            match self.enterprise(enterprise, name, last).await {
                Ok(()) => worked = true,
                Err(ScheduledBackfillError::Failed(error)) => failures.push(error.of_enterprise(corp_id).into()),
                Err(error) => failures.push(error),
            }
        }
        let failed = failures.pop();
        for error in failures {
            let advice = error.platform_error().map_or("", |error| error.advice);
            tracing::warn!(%error, advice, "the backfill of an enterprise was interrupted; it continues later");
        }
        match failed {
            Some(error) => Err(error),
            None => {
                if worked {
                    self.show(self.clock.now());
                }
                Ok(worked)
            }
        }
    }

    fn is_due(&self, finished: Option<Millis>, now: Millis) -> bool {
        finished.is_none_or(|finished| finished > now || now.since(finished) >= self.every)
    }

    /// Runs the backfill of one enterprise, which goes on from the note with this name.
    async fn enterprise(
        &self,
        of: SeenEnterprise,
        name: String,
        last: Option<Note>,
    ) -> Result<(), ScheduledBackfillError> {
        tables_are_current(&*self.log, self.cursor).await?;
        let SeenEnterprise { client, subscriber_id } = of;
        let (log, intake, clock) = (self.log.clone(), self.intake.clone(), self.clock.clone());
        let backfill = Backfill { log, client, intake, clock, subscriber_id };
        let last = last.filter(|note| *note.subscriber_id == *backfill.subscriber_id);
        let request = self.request(last, &backfill, name).await?;
        tracing::info!(since = %request.since, enterprise = backfill.client.corp_id(), "looking for gaps in the platform's history");
        let mut counted = None;
        let report = backfill.run(&request, |report, _| self.metrics.count(&mut counted, report)).await?;
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
        Ok(())
    }

    /// Shows when a backfill last finished, on any replica.
    fn show(&self, completed: Millis) {
        self.metrics.completed.set(completed.seconds());
    }

    /// The next range: the rest of an interrupted one, everything since an incomplete list, or what follows the last range.
    async fn request(&self, last: Option<Note>, backfill: &Backfill, note: String) -> Result<BackfillRequest, Error> {
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
        Ok(BackfillRequest { since, until: Some(until), dry_run: false, note })
    }
}
