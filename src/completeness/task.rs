//! The hourly comparison of `serve`, and the look at today's count in between. The replica that runs the cursor of the analyst tables
//! does it; the others show what it found.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, IntGauge};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::compare::{TodayReading, silent_since};
use super::{Completeness, CompletenessReport, DayState, days_before};
use crate::backfill::{ComparisonError, tables_are_current};
use crate::cursor::lease;
use crate::metrics::{Counters, Registry};
use convoke_core::throttle::{Reminder, Throttle};
use convoke_core::time::{Clock, Millis};
use convoke_core::zone::TimeZone;
use convoke_log::{LogError, Notes, Snapshots};
use convoke_platform::{Class, Client};

/// The task's name, for logs and metrics, and the note with what it found last.
pub const TASK: &str = "completeness";

/// How often a replica checks whether something is due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How often today's count is read (4.2.25).
const READING_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The days that are compared: the last ones, without today.
const DAYS: u32 = 7;

/// For how long readings of today's count are kept.
const READINGS_TIME: Duration = Duration::from_secs(24 * 3_600);

/// How often an unchanged finding is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(6 * 3_600);

/// What was found last: the note.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastFound {
    /// The last comparison.
    pub comparison: Option<CompletenessReport>,
    /// Since when the platform counts meetings while nothing arrives, in milliseconds.
    pub silent_since: Option<i64>,
    /// Readings of today's count.
    pub readings: Vec<TodayReading>,
}

impl LastFound {
    /// The note; one that cannot be read counts as none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn load(log: &dyn Notes) -> Result<Self, LogError> {
        Ok(log.note(TASK).await?.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    async fn keep(&self, log: &dyn Notes) -> Result<(), LogError> {
        log.keep_note(TASK, &serde_json::to_string(self).expect("texts and numbers have a JSON form")).await
    }
}

/// Metrics of the task.
#[derive(Clone, Debug)]
pub struct CompletenessMetrics {
    differing: IntGauge,
    missing: IntGauge,
    compared: Gauge,
    silent: IntGauge,
    failures: Counters<Class>,
}

impl CompletenessMetrics {
    /// Registers the metrics, at zero. `failures` counts failed calls.
    #[must_use]
    pub fn new(registry: &Registry, failures: Counters<Class>) -> Self {
        Self {
            differing: registry.int_gauge(
                "convoke_completeness_differing",
                "Days of the last week for which the platform counts more meetings or attendances than were received.",
            ),
            missing: registry.int_gauge(
                "convoke_completeness_missing_meetings",
                "Meetings of those days that the platform counts and that were not received.",
            ),
            compared: registry.gauge(
                "convoke_completeness_compared_timestamp_seconds",
                "Time of the last comparison with the platform's counts; 0: none, or another replica does it.",
            ),
            silent: registry.int_gauge(
                "convoke_completeness_silent",
                "1 while the platform counts meetings of which no event arrives.",
            ),
            failures,
        }
    }

    fn show(&self, known: &LastFound) {
        let count = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok()).unwrap_or(0);
        let comparison = known.comparison.as_ref();
        self.differing.set(count(comparison.map(|it| it.differing as u64)));
        self.missing.set(count(comparison.map(|it| it.missing_meetings)));
        self.compared.set(comparison.map_or(0.0, |it| it.compared_at.seconds()));
        self.silent.set(i64::from(known.silent_since.is_some()));
    }

    fn hide(&self) {
        self.show(&LastFound::default());
    }
}

/// What the task needs.
#[derive(Clone, Debug)]
pub struct CompletenessParts {
    /// The name under which this process takes the cursor's lease.
    pub owner: String,
    /// The cursor of the analyst tables.
    pub cursor: &'static str,
    /// The IDs of the configured subscribers; they may change.
    pub subscribers: watch::Receiver<Arc<[Arc<str>]>>,
    /// The log.
    pub log: Arc<dyn Snapshots>,
    /// The client of the platform's API.
    pub client: Client,
    /// The zone of the reports.
    pub zone: TimeZone,
    /// The metrics.
    pub metrics: CompletenessMetrics,
    /// The clock.
    pub clock: Clock,
}

/// The task.
#[derive(Debug)]
pub struct CompletenessTask {
    parts: CompletenessParts,
    /// How often days are compared.
    every: Duration,
    /// When the next reading is due, and the next comparison.
    next: [Duration; 2],
    silent: Reminder<()>,
    differing: Reminder<usize>,
    throttle: Throttle,
}

impl CompletenessTask {
    /// The task, which compares days once per `every`.
    #[must_use]
    pub fn new(parts: CompletenessParts, every: Duration) -> Self {
        let throttle = Throttle::new(1, LOG_INTERVAL);
        let (silent, differing) = (Reminder::new(Duration::ZERO), Reminder::new(Duration::ZERO));
        Self { parts, every, next: [Duration::ZERO; 2], silent, differing, throttle }
    }

    /// Reads and compares whenever it is due, until `stop`.
    pub async fn run(mut self, migrated: CancellationToken, stop: CancellationToken) {
        let work = async {
            migrated.cancelled().await;
            loop {
                tokio::time::sleep(POLL_INTERVAL).await;
                match lease::moved_by(&*self.parts.log, self.parts.cursor, &self.parts.owner).await {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        self.parts.metrics.hide();
                        self.next = [Duration::ZERO; 2];
                        continue;
                    }
                    Err(_) => continue,
                }
                if let Err(error) = self.step().await {
                    self.failed(&error);
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    fn failed(&self, error: &ComparisonError) {
        let advice = error.platform_error().map_or("", |error| error.advice);
        if let Some(error) = error.platform_error() {
            self.parts.metrics.failures.of(error.class).inc();
        }
        self.throttle.run("failed", |suppressed| {
            tracing::warn!(%error, advice, suppressed, "could not compare with the platform's counts: nothing else is affected");
        });
    }

    /// Does what is due.
    ///
    /// # Errors
    /// [`ComparisonError`]; it is due again after a while.
    pub async fn step(&mut self) -> Result<(), ComparisonError> {
        let CompletenessParts { log, client, clock, metrics, .. } = self.parts.clone();
        let now = clock.steady();
        let [reads, compares] = self.next.map(|next| now >= next);
        if !reads && !compares {
            return Ok(());
        }
        let mut known = LastFound::load(&*log).await?;
        metrics.show(&known);
        let mut failed = Ok(());
        if reads {
            self.next[0] = now + READING_INTERVAL.min(self.every);
            failed = self.read(&mut known, &client).await;
        }
        if compares {
            self.next[1] = now + self.every;
            tables_are_current(&*log, self.parts.cursor).await?;
            let (since, until) = days_before(clock.now(), DAYS);
            let completeness = Completeness {
                log: log.clone(),
                client,
                clock: clock.clone(),
                subscribers: Arc::clone(&self.parts.subscribers.borrow()),
                zone: self.parts.zone.clone(),
            };
            match completeness.compare(since, until).await {
                Ok(comparison) => {
                    self.tell(&comparison);
                    for refused in &comparison.not_compared {
                        self.throttle.run("refused", |suppressed| {
                            tracing::warn!(
                                refused,
                                suppressed,
                                "an enterprise is not compared with the platform's counts: the others are"
                            );
                        });
                    }
                    known.comparison = Some(comparison);
                }
                Err(error) => failed = Err(error),
            }
        }
        known.keep(&*log).await?;
        metrics.show(&known);
        failed
    }

    /// Reads today's count, and whether anything arrives.
    async fn read(&mut self, known: &mut LastFound, client: &Client) -> Result<(), ComparisonError> {
        let CompletenessParts { log, clock, .. } = self.parts.clone();
        let mut failed = Ok(());
        for enterprise in client.enterprises().iter().filter(|enterprise| !enterprise.is_provider()) {
            let corp_id = client.name_of(enterprise);
            match enterprise.today().await {
                Ok(today) => {
                    let reading = |meetings| TodayReading { corp_id, at: clock.now().get(), meetings };
                    known.readings.extend(today.meetings.map(reading));
                }
                // What one enterprise refuses costs the others nothing.
                Err(error) => failed = Err(ComparisonError::from(error).of_enterprise(corp_id)),
            }
        }
        let now = clock.now();
        let oldest = now.minus(READINGS_TIME).get();
        known.readings.retain(|reading| (oldest..=now.get()).contains(&reading.at));
        let silent = silent_since(&known.readings, log.last_pushed_at().await?, now);
        known.silent_since = silent.map(Millis::get);
        if let Some(since) = silent {
            if self.silent.is_due((), LOG_INTERVAL, clock.steady()) {
                tracing::warn!(
                    %since,
                    "the platform counts meetings of today, and no event arrives: check the subscription (`convoke subscription show`) \
                     and whether the platform reaches the push URL (`convoke check`)"
                );
            }
        } else if self.silent.is_over() {
            tracing::info!("events of the platform's meetings arrive again");
        }
        failed
    }

    fn tell(&mut self, comparison: &CompletenessReport) {
        if comparison.differing == 0 {
            if self.differing.is_over() {
                tracing::info!(days = comparison.compared, "the platform's counts and the tables agree");
            }
        } else if self.differing.is_due(comparison.differing, LOG_INTERVAL, self.parts.clock.steady()) {
            let days = comparison.days.iter().filter(|day| day.state == DayState::Differs);
            let days: Vec<&str> = days.map(|day| &*day.day).collect();
            tracing::warn!(
                days = days.join(", "),
                missing_meetings = comparison.missing_meetings,
                "the platform counts more than was received: `convoke completeness` has the numbers, `convoke backfill` fills what \
                 history has"
            );
        }
    }
}
