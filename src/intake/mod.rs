//! The queue in front of the log and its single writer: group commit.
//!
//! Everything that arrived during the last commit goes into the next one, without waiting for more. Copies of one event within a
//! batch are merged. A delivery is answered only when its batch is durable. If the database rejects a batch for a reason other
//! than its own health, the batch is split until the offending row is alone, and that row goes to the quarantine: one bad row
//! never fails the others.

mod batch;
mod outage;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::Histogram;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::metrics::{LATENCY_SECONDS, Registry, histogram};
use batch::merge;
use convoke_core::event::{Unreadable, Verified};
use convoke_core::human;
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, Millis, instant};
use convoke_log::recent::RecentRows;
use convoke_log::{Append, Appended, Committed, Log, LogError};
use outage::{EndedOutage, Evidence, HEARTBEAT_INTERVAL, Outage};

pub use outage::{HEARTBEAT_TIMEOUT, PLATFORM_RETRY_TIME};

/// The prefix of the quarantine reason of a delivery that the database rejects.
pub const REFUSED_BY_DATABASE: &str = "the database refuses it";

/// Advice for an outage, in which no events are accepted.
const OUTAGE_ADVICE: &str = "make the database accept events again (`convoke check` shows the cause)";

/// Advice for events that the platform has dropped.
const LOST_ADVICE: &str = "the platform no longer delivers events that it first tried more than 24 h before the end \
                           of the outage: run `convoke backfill` to get them from its history";

/// Maximum number of deliveries in the queue: a fifth of a second's worth at 20,000 per second.
const MAX_QUEUED: usize = 4096;

/// Maximum total size of the bodies in the queue, in bytes.
const MAX_QUEUED_BYTES: usize = 48 << 20;

/// Maximum number of deliveries in one commit: larger batches only add delay.
pub const MAX_BATCH: usize = 256;

/// How often an idle log is probed for whether it can store events, so that `/readyz` is correct.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The same while the log cannot store events.
const PROBE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why a delivery was not stored, as far as is known; both are answered `503`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The queue is full.
    QueueFull,
    /// The log is unavailable.
    Unavailable,
}

struct QueuedDelivery {
    verified: Arc<Verified>,
    body: Bytes,
    received_at: Millis,
    /// `None` if no caller waits for the result.
    answer: Option<oneshot::Sender<Result<Appended, NotStored>>>,
    _bytes: OwnedSemaphorePermit,
}

/// The entrance to the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake {
    queue: mpsc::Sender<QueuedDelivery>,
    bytes: Arc<Semaphore>,
    outage: Arc<Outage>,
    histograms: Histograms,
}

/// Metrics of a commit.
#[derive(Clone, Debug)]
struct Histograms {
    /// Deliveries in one commit.
    batch_size: Histogram,
    /// Duration of one commit in seconds.
    commit_duration: Histogram,
}

impl Histograms {
    fn new() -> Self {
        let batches = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
        let (size, duration) = ("convoke_commit_batch_size", "convoke_commit_duration_seconds");
        let sound = "names and buckets are sound";
        Self {
            batch_size: histogram(size, "Deliveries in one commit.", &batches).expect(sound),
            commit_duration: histogram(duration, "How long one commit took.", &LATENCY_SECONDS).expect(sound),
        }
    }
}

impl Intake {
    /// Creates the queue and its writer. Events are not accepted before the writer runs.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, clock: Clock, recent: Arc<RecentRows>) -> (Self, Writer) {
        let (queue, jobs) = mpsc::channel(MAX_QUEUED);
        let (outage, histograms) = (Arc::new(Outage::new(clock.clone())), Histograms::new());
        let intake = Self {
            queue,
            bytes: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)),
            outage: Arc::clone(&outage),
            histograms: histograms.clone(),
        };
        let throttle = Throttle::new(5, Duration::from_secs(60));
        let writer = Writer {
            jobs,
            log,
            outage,
            clock,
            heartbeat_at: None,
            writes_heartbeat: true,
            histograms,
            recent,
            ready: OnceLock::new(),
            throttle,
        };
        (intake, writer)
    }

    /// Registers the metrics with `registry`.
    pub fn register(&self, registry: &Registry) {
        let _ = registry.register(Ok(self.histograms.batch_size.clone()));
        let _ = registry.register(Ok(self.histograms.commit_duration.clone()));
        let queue = self.queue.downgrade();
        let waiting = move || queue.upgrade().map_or(0, |queue| MAX_QUEUED - queue.capacity());
        registry.show("convoke_store_queue", "Deliveries waiting to be stored.", &[], move || waiting() as f64);
        let outage = Arc::clone(&self.outage);
        registry.show(
            "convoke_not_accepting_seconds",
            "How long events have been refused, including the time before the start of this process. Until the \
             database is back after a start, this is a lower bound. The platform drops an event 24 h after its first \
             try.",
            &[],
            move || outage.refused_for().as_secs_f64(),
        );
    }

    /// Stores a verified delivery; `Ok` means that it is durable. `body` is the original body, in case the database rejects the
    /// event that was read from it.
    ///
    /// # Errors
    /// [`NotStored`]; the delivery may have been stored all the same.
    pub async fn store(&self, verified: Verified, body: Bytes, received_at: Millis) -> Result<Appended, NotStored> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(verified, body, received_at, Some(answer))?;
        answered.await.unwrap_or(Err(NotStored::Unavailable))
    }

    /// Notes a handshake if the queue has room and the database is available; no caller waits for it.
    pub fn note(&self, verified: Verified, received_at: Millis) {
        if self.enqueue(verified, Bytes::new(), received_at, None).is_err() {
            tracing::debug!("the queue is full: a handshake is not noted");
        }
    }

    fn enqueue(
        &self,
        verified: Verified,
        body: Bytes,
        received_at: Millis,
        answer: Option<oneshot::Sender<Result<Appended, NotStored>>>,
    ) -> Result<(), NotStored> {
        // A delivery larger than the whole queue gets all of it, because it must be possible to store it at all.
        let size = u32::try_from((body.len() + 512).min(MAX_QUEUED_BYTES)).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(size).map_err(|_| NotStored::QueueFull)?;
        let job = QueuedDelivery { verified: Arc::new(verified), body, received_at, answer, _bytes: bytes };
        self.queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotStored::QueueFull,
            mpsc::error::TrySendError::Closed(_) => NotStored::Unavailable,
        })?;
        Ok(())
    }

    /// Whether more is waiting than what the platform pushes should find before it: whoever can wait does.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.queue.capacity() < MAX_QUEUED / 4 * 3
    }

    /// Whether events can be stored, as of the last attempt.
    #[must_use]
    pub fn accepting(&self) -> bool {
        self.outage.accepting()
    }

    /// How long events have been refused, including the time before the start during which no process accepted any; zero while
    /// they are accepted.
    #[must_use]
    pub fn refusing_for(&self) -> Duration {
        self.outage.refused_for()
    }

    /// Whether [`Intake::refusing_for`] is only a lower bound, because the time before the start has not been read from the
    /// database yet.
    #[must_use]
    pub fn refusing_at_least(&self) -> bool {
        self.outage.at_least()
    }

    /// Why events are refused, as text; `None` while they are accepted, or before the first attempt.
    #[must_use]
    pub fn refusing_because(&self) -> Option<String> {
        self.outage.why()
    }

    /// Logs that events have been refused for 1, 12, 20 or 24 hours, each once per outage. Must be called regularly.
    pub fn warn_if_due(&self) {
        let Some(lasted) = self.outage.due() else { return };
        let (refused_for, at_least) = (human::duration(lasted).to_string(), self.outage.at_least());
        if lasted < PLATFORM_RETRY_TIME {
            let left = human::duration(PLATFORM_RETRY_TIME - lasted).to_string();
            tracing::error!(
                refused_for,
                at_least,
                left,
                "events are refused, and the platform drops each 24 h after its first try: {OUTAGE_ADVICE}"
            );
        } else {
            tracing::error!(
                refused_for,
                at_least,
                "events are refused, and the platform drops them now: {OUTAGE_ADVICE}; {LOST_ADVICE}"
            );
        }
    }
}

/// The single writer. [`Writer::run`] must run as long as there is an [`Intake`].
#[derive(Debug)]
pub struct Writer {
    jobs: mpsc::Receiver<QueuedDelivery>,
    log: Arc<dyn Log>,
    outage: Arc<Outage>,
    clock: Clock,
    /// When the heartbeat was last written, by the steady clock.
    heartbeat_at: Option<Duration>,
    /// Whether this process writes a heartbeat.
    writes_heartbeat: bool,
    histograms: Histograms,
    recent: Arc<RecentRows>,
    ready: OnceLock<()>,
    throttle: Throttle,
}

impl Writer {
    /// The writer of a command that takes no deliveries. It writes no heartbeat, because a heartbeat means that events are
    /// accepted.
    #[must_use]
    pub fn without_heartbeat(self) -> Self {
        Self { writes_heartbeat: false, ..self }
    }

    /// Commits batch after batch until `finish`, and then the rest of the queue. `migrated` signals that the log may be written;
    /// until then all deliveries are refused at once.
    pub async fn run(mut self, migrated: CancellationToken, finish: CancellationToken) {
        let mut jobs = Vec::with_capacity(MAX_BATCH);
        let mut last_write = instant();
        let mut begun = false;
        loop {
            if finish.is_cancelled() {
                // No new deliveries are accepted from here on; those in the queue are still written.
                self.jobs.close();
            }
            self.write_heartbeat().await;
            let probe_in = if self.outage.accepting() { PROBE_INTERVAL } else { PROBE_RETRY_INTERVAL }
                .saturating_sub(last_write.elapsed());
            let received = tokio::select! {
                biased;
                received = self.jobs.recv_many(&mut jobs, MAX_BATCH) => received,
                () = finish.cancelled(), if !self.jobs.is_closed() => continue,
                () = migrated.cancelled(), if !begun => {
                    begun = true;
                    last_write = self.probe().await;
                    continue;
                }
                () = tokio::time::sleep(probe_in), if migrated.is_cancelled() => {
                    last_write = self.probe().await;
                    continue;
                }
            };
            if received == 0 {
                self.heartbeat_at = None;
                return self.write_heartbeat().await;
            }
            if migrated.is_cancelled() {
                self.commit(&mut jobs).await;
                last_write = instant();
            } else {
                refuse(jobs.drain(..));
            }
        }
    }

    async fn probe(&self) -> Instant {
        if !self.outage.known() {
            self.read_heartbeat().await;
        }
        match self.log.probe().await {
            Ok(()) => self.stored(Evidence::Probe).await,
            Err(error) => self.refused(Evidence::Probe, &error),
        }
        instant()
    }

    /// Writes the heartbeat if it is due.
    async fn write_heartbeat(&mut self) {
        let now = self.clock.steady();
        if !self.writes_heartbeat
            || !self.outage.settled()
            || self.heartbeat_at.is_some_and(|heartbeat_at| now.saturating_sub(heartbeat_at) < HEARTBEAT_INTERVAL)
        {
            return;
        }
        match self.log.record_heartbeat().await {
            Ok(()) => self.heartbeat_at = Some(now),
            Err(error) => self.refused(Evidence::Probe, &error),
        }
    }

    /// Reads how long no process has accepted events, and logs it at startup.
    async fn read_heartbeat(&self) {
        let first = !self.outage.known();
        let heartbeat = match self.log.heartbeat().await {
            Ok(heartbeat) => heartbeat,
            Err(error) => return tracing::debug!(%error, "the heartbeat cannot be read"),
        };
        self.outage.heartbeat(heartbeat.map(|heartbeat| heartbeat.age));
        let Some(heartbeat) = heartbeat.filter(|heartbeat| first && heartbeat.age > HEARTBEAT_TIMEOUT) else { return };
        let (gap, since) = (human::duration(heartbeat.age).to_string(), heartbeat.at);
        if heartbeat.age < PLATFORM_RETRY_TIME {
            tracing::warn!(
                gap,
                %since,
                "no service accepted events before this start; none is lost if they are accepted from now on: the platform \
                retries each for 24 h"
            );
        } else {
            tracing::error!(gap, %since, "no service accepted events for more than a day before this start; {LOST_ADVICE}");
        }
    }

    /// Notes that events cannot be stored; logged once per outage.
    fn refused(&self, by: Evidence, error: &LogError) {
        self.outage.because(error.to_string());
        // A small write may succeed where a large one fails, so outages may begin and end in quick succession.
        if self.outage.refused(by) {
            self.throttle.run("refusing", |suppressed| {
                tracing::error!(%error, suppressed, "cannot store events: they are answered 503, and the platform retries for 24 hours");
            });
        }
    }

    /// Notes that events can be stored; logged once after an outage.
    async fn stored(&self, by: Evidence) {
        if !self.outage.accepting() {
            self.read_heartbeat().await;
        }
        let Some(over) = self.outage.accepted(by) else { return };
        if self.ready.set(()).is_ok() {
            tracing::info!(database = format!("{:?}", self.log), "accepting events");
        } else {
            self.throttle.run("again", |suppressed| log_end(over, suppressed));
        }
    }

    async fn commit(&self, jobs: &mut Vec<QueuedDelivery>) {
        // A caller that gave up was answered 503, and the platform will retry.
        jobs.retain(|job| job.answer.as_ref().is_none_or(|answer| !answer.is_closed()));
        if jobs.is_empty() {
            return;
        }
        let (batch, places) = merge(jobs);
        let started = instant();
        let mut outcomes = vec![Err(NotStored::Unavailable); batch.len()];
        self.append(&batch, jobs, &places, &mut outcomes).await;
        self.histograms.commit_duration.observe(started.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.histograms.batch_size.observe(jobs.len() as f64);
        // Also for duplicates: the first attempt of a batch may have been committed although its result was lost.
        if outcomes.iter().any(Result::is_ok) {
            self.recent.wake();
        }
        // The first copy of a new event is the one that was stored; its other copies were merged into it.
        let mut stored = vec![false; batch.len()];
        for (job, place) in jobs.drain(..).zip(places) {
            let outcome = match outcomes[place] {
                Ok(Appended::Stored) if stored[place] => Ok(Appended::Duplicate),
                outcome => outcome,
            };
            stored[place] = true;
            if let Some(answer) = job.answer {
                // If the caller is gone, it was answered 503 in the meantime, which does not mean "not stored".
                let _ = answer.send(outcome);
            }
        }
    }

    /// Appends `batch`, splits it while the database rejects it, and fills in the outcome of each entry.
    async fn append(
        &self,
        batch: &[Append],
        jobs: &[QueuedDelivery],
        places: &[usize],
        outcomes: &mut [Result<Appended, NotStored>],
    ) {
        // The ranges of the batch that are still to be appended; the next one is last.
        let whole = 0..batch.len();
        let mut ranges = vec![whole];
        while let Some(range) = ranges.pop() {
            match self.append_once(&batch[range.clone()]).await {
                Ok(committed) => {
                    self.stored(Evidence::Event).await;
                    if let Some(first) = committed.first {
                        self.recent.push(first, &batch[range.clone()]);
                    }
                    for (slot, appended) in outcomes[range].iter_mut().zip(committed.outcomes) {
                        *slot = Ok(appended);
                    }
                }
                Err(LogError::Rejected(_) | LogError::NoPlace(_)) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
                Err(LogError::Rejected(cause)) => {
                    let place = range.start;
                    let body =
                        places.iter().position(|p| *p == place).map(|n| jobs[n].body.clone()).unwrap_or_default();
                    outcomes[place] = self.set_apart(&batch[place], body, &cause.to_string()).await;
                }
                // It is answered 503 and comes again; the rest of the batch was stored or will be.
                Err(error @ LogError::NoPlace(_)) => self.throttle.run("no place", |suppressed| {
                    tracing::error!(%error, suppressed, "cannot store an event now: it is answered 503, and the platform retries for 24 hours");
                }),
                Err(error) => {
                    self.refused(Evidence::Event, &error);
                    // The rest of the batch would fail as well; it is answered 503, and the platform retries.
                    return;
                }
            }
        }
    }

    /// A connection may have died since its last use, which says nothing about the database, so the append is retried once on a
    /// new one. Appending twice is harmless.
    async fn append_once(&self, batch: &[Append]) -> Result<Committed, LogError> {
        match self.log.append(batch).await {
            Err(LogError::Unavailable(first)) => {
                tracing::debug!(error = %first, "appending failed; trying once more");
                self.log.append(batch).await
            }
            result => result,
        }
    }

    /// Quarantines a delivery whose event the database will never accept.
    async fn set_apart(&self, append: &Append, body: Bytes, cause: &str) -> Result<Appended, NotStored> {
        let unreadable = Unreadable {
            subscriber_id: Arc::clone(append.verified.subscriber_id()),
            received_at: append.last_delivered_at,
            reason: format!("{REFUSED_BY_DATABASE}: {cause}"),
            body,
        };
        match self.log.quarantine(&unreadable, append.deliveries).await {
            Ok(()) => Ok(Appended::Quarantined),
            Err(error) => {
                self.refused(Evidence::Event, &error);
                Err(NotStored::Unavailable)
            }
        }
    }
}

/// Logs the end of an outage, and whether events may have been lost.
fn log_end(over: EndedOutage, suppressed: Option<u64>) {
    let (refused_for, nobody_for) =
        (human::duration(over.refused_for).to_string(), human::duration(over.nobody_for).to_string());
    if over.nobody_for < PLATFORM_RETRY_TIME {
        tracing::info!(suppressed, refused_for, nobody_for, "events are stored again; none was lost");
    } else {
        tracing::error!(suppressed, refused_for, nobody_for, "events are stored again; {LOST_ADVICE}");
    }
}

fn refuse(jobs: impl Iterator<Item = QueuedDelivery>) {
    for answer in jobs.filter_map(|job| job.answer) {
        // A caller that is gone needs no result, as above.
        let _ = answer.send(Err(NotStored::Unavailable));
    }
}

#[cfg(test)]
mod tests;
