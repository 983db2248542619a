//! Enrichment: asks the platform for what events do not contain (subject, the schedule, host, enterprise), once for each run,
//! the newest first.
//!
//! A work list in the database holds what is to be asked. The details stay there and in the rows of `meetings`, and are included
//! when those are rebuilt. The replica that runs the cursor `meetings` does the work. If two replicas ask at the same time, while
//! the lease changes hands, both write the same.

mod decide;
mod people;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::cursor::lease;
use crate::forget::suppression;
use crate::metrics::Counters;
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, instant};
use convoke_log::{Details, EnrichmentOutcome, EnrichmentWorkItem, LogError, RunKey, WorkLists};
use convoke_platform::backoff::Backoff;
use convoke_platform::{Class, Client, PlatformError};
use decide::Call;
pub use people::{Directory, PEOPLE_TASK};

/// The task's name, for logs and metrics.
pub const TASK: &str = "enrichment";

/// How often an idle task checks the work list, and whether it should do the work.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often new runs are searched for. If a search takes long, the task rests this many times as long as the search took.
const SEARCH_INTERVAL: Duration = Duration::from_secs(2);
const SEARCH_REST_FACTOR: u32 = 60;

/// The task.
#[derive(Debug)]
pub struct Enrichment {
    log: Arc<dyn WorkLists>,
    client: Client,
    failures: Counters<Class>,
    clock: Clock,
    /// The cursor whose owner does the work, and this process's owner name.
    leader: (&'static str, String),
    backoff: Backoff,
    /// When the next search for new runs is due.
    next_search: Option<Instant>,
}

impl Enrichment {
    /// The task. It works while `leader.1` holds the lease of the cursor `leader.0`.
    #[must_use]
    pub fn new(
        log: Arc<dyn WorkLists>,
        client: Client,
        failures: Counters<Class>,
        clock: Clock,
        leader: (&'static str, String),
    ) -> Self {
        Self { log, client, failures, clock, leader, backoff: Backoff::new(TASK), next_search: None }
    }

    /// Enriches runs until `stop`.
    pub async fn run(self, migrated: CancellationToken, stop: CancellationToken) {
        run(self, migrated, stop).await;
    }

    /// Enriches one run. Returns whether there was one.
    ///
    /// # Errors
    /// [`LogError`]; nothing is lost.
    pub async fn step(&mut self) -> Result<bool, LogError> {
        if !self.leads().await? {
            return Ok(false);
        }
        let begun = instant();
        if self.next_search.is_none_or(|next_search| begun >= next_search) {
            self.log.queue_enrichments(self.clock.now()).await?;
            self.next_search = Some(instant() + SEARCH_INTERVAL.max(begun.elapsed() * SEARCH_REST_FACTOR));
        }
        if !self.backoff.left(self.clock.steady()).is_zero() {
            return Ok(false);
        }
        let Some(run) = self.log.due_enrichments(self.clock.now(), 1).await?.pop() else { return Ok(false) };
        let answer = self.ask(&run).await;
        let now = self.clock.now();
        let enriched = match answer {
            Ok(enriched) => {
                self.backoff.answered();
                Some(enriched)
            }
            Err(error) => {
                self.failures.of(error.class).inc();
                self.backoff.failed(self.clock.steady(), &error, rand::random());
                decide::failed(&run, error.class, &error.to_string(), now)
            }
        };
        let Some(mut enriched) = enriched else { return Ok(false) };
        if let EnrichmentOutcome::Known(details) | EnrichmentOutcome::GivenUp { details, .. } = &mut enriched {
            let key = RunKey { subscriber_id: (*run.subscriber_id).into(), meeting_uuid: (*run.meeting_uuid).into() };
            suppression::without_forgotten(&*self.log, &key, run.first_event_at, details).await?;
        }
        self.log.settle_enrichment(&run, &enriched).await?;
        Ok(true)
    }

    async fn leads(&self) -> Result<bool, LogError> {
        let (cursor, us) = &self.leader;
        Ok(lease::moved_by(&*self.log, cursor, us).await?.is_some())
    }

    async fn ask(&self, run: &EnrichmentWorkItem) -> Result<EnrichmentOutcome, PlatformError> {
        let clients = self.client.of_meeting(run.meeting_id.as_deref()).await?;
        let (mut corp, mut refused) = (None, None);
        for client in &clients {
            let corp_id = match client.corp_id() {
                Some(corp_id) => Some(corp_id.to_owned()),
                None if client.is_provider() => None,
                None => client.identity().await?.corp_id,
            };
            match details_of(client, run).await {
                Ok(Some(details)) => return Ok(EnrichmentOutcome::Known(Details { corp_id, ..details })),
                Ok(None) => {}
                Err(error) if error.class == Class::Configuration => refused = Some(error),
                Err(error) => return Err(error),
            }
            corp = corp_id;
        }
        // Of several it is not known whose it is.
        let corp_id = corp.filter(|_| clients.len() == 1);
        match refused {
            None => Ok(decide::unknown(run, corp_id, self.clock.now())),
            // A service provider may be allowed to ask for the enterprise of a meeting, but for nothing else.
            Some(error) if self.client.is_provider() && corp_id.is_some() => {
                let details = Details { corp_id, ..Details::default() };
                Ok(EnrichmentOutcome::GivenUp { at: self.clock.now(), details, reason: error.to_string() })
            }
            Some(error) => Err(error),
        }
    }
}

async fn details_of(client: &Client, run: &EnrichmentWorkItem) -> Result<Option<Details>, PlatformError> {
    for call in decide::calls(run) {
        let answer = match (call, &run.meeting_id) {
            (Call::Past, _) => client.past_conference(&run.meeting_uuid).await,
            (Call::Current, Some(number)) => client.conference(number).await,
            (Call::Current, None) => Ok(None),
        };
        if let Some(conference) = absent(answer)?
            && let Some(details) = decide::details(run, *call, &conference)
        {
            return Ok(Some(details));
        }
    }
    Ok(None)
}

impl Steps for Enrichment {
    const NAMES: (&'static str, &'static str) = (TASK, "cannot enrich meetings");
    const PAUSE: Duration = POLL_INTERVAL;

    fn next(&mut self) -> impl Future<Output = Result<bool, LogError>> + Send {
        self.step()
    }
}

/// A task that does one step after the other.
trait Steps: Send {
    /// The task's name, and what its warning says if a step fails.
    const NAMES: (&'static str, &'static str);
    /// How long it rests when there was nothing to do.
    const PAUSE: Duration;

    /// Does a step. Returns whether there was something to do.
    fn next(&mut self) -> impl Future<Output = Result<bool, LogError>> + Send;
}

/// Does the steps of a task once the database is there, until `stop`.
async fn run<T: Steps>(mut task: T, migrated: CancellationToken, stop: CancellationToken) {
    let (name, fails) = T::NAMES;
    let throttle = Throttle::default();
    let work = async {
        migrated.cancelled().await;
        loop {
            match task.next().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => throttle.run("database", |suppressed| {
                    tracing::warn!(task = name, %error, suppressed, "{fails}; retrying");
                }),
            }
            tokio::time::sleep(T::PAUSE).await;
        }
    };
    // May be dropped at any point: asking again loses nothing.
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// A missing meeting is not a failure.
fn absent<T>(answer: Result<Option<T>, PlatformError>) -> Result<Option<T>, PlatformError> {
    match answer {
        Err(error) if error.class == Class::Gone => Ok(None),
        answer => answer,
    }
}
