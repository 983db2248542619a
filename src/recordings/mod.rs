//! The cursor `recordings`: asks the platform for the recording that a `record.finish` announces, until it is decoded, and
//! appends a `record.ready` to the log.
//!
//! A `record.finish` means that a recording has ended, not that it can be watched. So the cursor puts its run into a work list in
//! the database, asks for the recording (`decide` determines when), writes the resulting `record.ready` into the work list,
//! appends exactly that to the log like any other event, and notes that it did. If a replica dies in between, or another one does
//! the same at the same time, the same bytes are appended again, and the log recognises them.
//!
//! A call may take longer than the lease lasts: it is kept from one tick to the next, and meanwhile the lease is renewed and the
//! log is read.

mod decide;
mod ready;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use crate::cursor::lease::{LEASE_TIME, RENEW_INTERVAL};
use crate::cursor::{Cursor, Progress, Retry};
use crate::intake::Intake;
use crate::metrics::Counters;
use convoke_core::event::{Content, Source};
use convoke_core::id::Seq;
use convoke_core::time::{Clock, instant};
use convoke_core::verify;
use convoke_log::{FinishedRecording, LogError, Moved, RecordingOutcome, RecordingWorkItem, WorkLists};
use convoke_platform::backoff::Backoff;
use convoke_platform::{Class, Client, PlatformError};

pub use ready::EVENT;
use ready::Found;

/// The cursor's name.
pub const CURSOR: &str = "recordings";

/// How often the log and the work list are checked: nothing is urgent here.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Number of sequence numbers that are searched for recordings at a time.
const MAX_SPAN_SEQS: i64 = 10_000;

/// How long a tick waits for a response before it leaves that to the next tick.
const TICK_TIMEOUT: Duration = Duration::from_millis(500);

/// The cursor `recordings`.
pub struct Recordings {
    log: Arc<dyn WorkLists>,
    intake: Intake,
    client: Client,
    failures: Counters<Class>,
    clock: Clock,
    owner: String,
    stop: CancellationToken,
    held: Option<HeldLease>,
    pending: Option<PendingCall>,
    backoff: Backoff,
    /// When there was last nothing to do.
    rested: Option<Instant>,
}

impl std::fmt::Debug for Recordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recordings({})", self.owner)
    }
}

/// The lease, as long as this process believes that it holds it.
struct HeldLease {
    position: Seq,
    renewed: Instant,
    /// When the log was last read.
    read: Option<Instant>,
}

/// A call in progress.
struct PendingCall {
    fetch: RecordingWorkItem,
    answer: ReusableBoxFuture<'static, Result<Found, PlatformError>>,
}

impl Recordings {
    /// The cursor. `owner` is the name of this process among the replicas; after `stop` no new calls are made.
    #[must_use]
    pub fn new(
        log: Arc<dyn WorkLists>,
        intake: Intake,
        client: Client,
        failures: Counters<Class>,
        clock: Clock,
        owner: String,
        stop: CancellationToken,
    ) -> Self {
        Self {
            log,
            intake,
            client,
            failures,
            clock,
            owner,
            stop,
            held: None,
            pending: None,
            backoff: Backoff::new(CURSOR),
            rested: None,
        }
    }

    /// Takes or renews the lease if necessary; `false` if another process has it.
    async fn hold(&mut self) -> Result<bool, Retry> {
        if self.held.as_ref().is_none_or(|held| held.renewed.elapsed() > RENEW_INTERVAL) {
            let renewed = instant();
            let leased =
                self.log.lease(CURSOR, &self.owner, LEASE_TIME).await.map_err(|error| self.log_failed(&error))?;
            let read = self.held.as_ref().and_then(|held| held.read);
            self.held = leased.map(|leased| HeldLease { position: leased.position, renewed, read });
        }
        if self.held.is_none() {
            self.pending = None;
        }
        Ok(self.held.is_some())
    }

    fn log_failed(&mut self, error: &LogError) -> Retry {
        self.held = None;
        Retry { reason: error.to_string(), soon: false }
    }

    /// Reads on in the log.
    async fn follow(&mut self) -> Result<Progress, Retry> {
        let Some(held) = &mut self.held else { return Ok(Progress::Standby) };
        if held.read.is_some_and(|read| read.elapsed() < POLL_INTERVAL) {
            return Ok(Progress::Idle);
        }
        let (from, renewed) = (held.position, instant());
        held.read = Some(renewed);
        let read = async {
            let head = self.log.head().await?;
            let to = head.min(Seq(from.0 + MAX_SPAN_SEQS));
            // The newest rows may have been deleted by the retention.
            if to <= from {
                return Ok(None);
            }
            let now = self.clock.now();
            let due = |finish: FinishedRecording| FinishedRecording {
                due_at: decide::first_attempt_at(finish.finished_at, now),
                ..finish
            };
            let finishes: Vec<_> = self.log.finished_recordings(from, to).await?.into_iter().map(due).collect();
            let moved = self.log.queue(CURSOR, &self.owner, to, LEASE_TIME, &finishes).await?;
            Ok(Some((to, to < head, finishes.len(), moved)))
        }
        .await;
        match read.map_err(|error| self.log_failed(&error))? {
            None => Ok(Progress::Idle),
            Some((_, _, _, Moved::LeaseLost)) => {
                self.held = None;
                Err(Retry { reason: "the lease was lost".to_owned(), soon: true })
            }
            Some((to, more, found, Moved::Yes { .. })) => {
                self.held = Some(HeldLease { position: to, renewed, read: Some(renewed).filter(|_| !more) });
                self.rested = self.rested.filter(|_| found == 0);
                Ok(if more { Progress::More } else { Progress::Worked })
            }
        }
    }

    /// Works on the work list: continues the call in progress, or begins the next entry. Returns whether there was anything to
    /// do.
    async fn work(&mut self) -> Result<bool, Retry> {
        if self.stop.is_cancelled() {
            self.pending = None;
            return Ok(false);
        }
        let Some(pending) = &mut self.pending else { return self.begin().await };
        let Ok(answer) = tokio::time::timeout(TICK_TIMEOUT, &mut pending.answer).await else { return Ok(true) };
        let fetch = pending.fetch.clone();
        self.pending = None;
        let now = self.clock.now();
        let fetched = match &answer {
            Ok(found) => {
                self.backoff.answered();
                Some(decide::judge(&fetch, found, now))
            }
            Err(error) => {
                self.failures.of(error.class).inc();
                self.backoff.failed(self.clock.steady(), error, rand::random());
                decide::judge_failure(&fetch, error.class, &error.to_string(), now)
            }
        };
        let Some(fetched) = fetched else { return Ok(false) };
        if let RecordingOutcome::GivenUp { reason, .. } = &fetched {
            tracing::warn!(
                meeting_uuid = fetch.meeting_uuid,
                reason,
                "gave up waiting for a recording: the platform \
                                                                       did not provide it in time"
            );
        }
        self.log.settle_recording(&fetch, &fetched).await.map_err(|error| self.log_failed(&error))?;
        Ok(true)
    }

    /// Begins the next entry that is due.
    async fn begin(&mut self) -> Result<bool, Retry> {
        if self.rested.is_some_and(|rested| rested.elapsed() < POLL_INTERVAL) {
            return Ok(false);
        }
        let due = self.log.due_recordings(self.clock.now(), 1).await.map_err(|error| self.log_failed(&error))?;
        match due.into_iter().next() {
            Some(fetch) if fetch.ready => self.publish(&fetch).await.map(|()| true),
            Some(fetch) if self.backoff.left(self.clock.steady()).is_zero() => {
                let (client, run) = (self.client.clone(), fetch.clone());
                self.pending = Some(PendingCall {
                    fetch,
                    answer: ReusableBoxFuture::new(async move { ask_enterprises(&client, &run).await }),
                });
                Ok(true)
            }
            _ => {
                self.rested = Some(instant());
                Ok(false)
            }
        }
    }

    /// Appends a `record.ready` exactly as it is in the work list, and notes that it is in the log.
    async fn publish(&mut self, fetch: &RecordingWorkItem) -> Result<(), Retry> {
        let info = fetch.event_info.as_deref().unwrap_or_default();
        let now = self.clock.now();
        let verified = verify::pulled(&Arc::from(fetch.subscriber_id.as_str()), info, Source::Platform, now);
        if let Content::Unreadable(unreadable) = verified.content() {
            tracing::warn!(reason = unreadable.reason, "a {EVENT} cannot be read: moved to the quarantine");
        }
        let stored = self.intake.store(verified, Bytes::copy_from_slice(info.as_bytes()), now).await;
        stored.map_err(|_| Retry { reason: format!("cannot store a {EVENT} at present"), soon: false })?;
        let fetched = RecordingOutcome::Published { due_at: decide::RETRIES.retry_at(0, now) };
        self.log.settle_recording(fetch, &fetched).await.map_err(|error| self.log_failed(&error)).map(drop)
    }
}

impl Cursor for Recordings {
    fn name(&self) -> &'static str {
        CURSOR
    }

    async fn tick(&mut self) -> Result<Progress, Retry> {
        if !self.hold().await? {
            return Ok(Progress::Standby);
        }
        let progress = self.follow().await?;
        let worked = self.work().await?;
        Ok(if worked && progress == Progress::Idle { Progress::Worked } else { progress })
    }

    async fn release(&mut self) {
        self.pending = None;
        if self.held.take().is_some()
            && let Err(error) = self.log.release(CURSOR, &self.owner).await
        {
            tracing::debug!(%error, "could not release the lease; it expires");
        }
    }
}

/// Asks the enterprise of the run, or, where it is not known which of several that is, one after the other.
async fn ask_enterprises(client: &Client, run: &RecordingWorkItem) -> Result<Found, PlatformError> {
    let mut outcome = Ok(Found::Nothing);
    for enterprise in client.of_meeting(run.meeting_id.as_deref()).await? {
        match ask(&enterprise, &run.meeting_uuid).await {
            Ok(Found::Nothing) => {}
            Err(error) if error.class == Class::Configuration => outcome = Err(error),
            answer => return answer,
        }
    }
    outcome
}

/// Asks the older recording system, and if that has nothing, the newer one. An enterprise uses one of the two; an error of the
/// newer one means nothing as long as the older one responds.
async fn ask(client: &Client, conf_uuid: &str) -> Result<Found, PlatformError> {
    let refused = match client.recording(conf_uuid).await {
        Ok(Some(file)) => return Ok(Found::of_file(&file)),
        Ok(None) => None,
        Err(error) => match error.class {
            Class::Gone => None,
            Class::Configuration | Class::Bug => Some(error),
            Class::Token | Class::Locked | Class::Transient | Class::Incomplete => return Err(error),
        },
    };
    let found = match client.segments(conf_uuid).await {
        Ok(segments) => Found::of_segments(&segments),
        Err(error) => match error.class {
            Class::Gone | Class::Configuration | Class::Bug => Found::Nothing,
            Class::Token | Class::Locked | Class::Transient | Class::Incomplete => return Err(error),
        },
    };
    match refused {
        Some(error) if found == Found::Nothing => Err(error),
        _ => Ok(found),
    }
}
