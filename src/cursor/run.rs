//! The loop that runs a cursor.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::lease::{RENEW_INTERVAL, TURN_POLL_INTERVAL};
use super::{Cursor, Progress, Retry};
use convoke_core::throttle::{Reminder, Throttle};
use convoke_core::time::Clock;
use convoke_log::LogReader;
use convoke_log::recent::RecentRows;

/// Back-off after the first failure; it doubles with each further one.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3);

/// Maximum number of failures in a row that are retried without growing back-off, if a retry is likely to succeed.
const MAX_QUICK_RETRIES: u32 = 4;

/// How often a persistent failure is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A tick that takes longer than this is stuck: it is dropped and retried. Everything that a tick waits for has its own time
/// limit, and together those are shorter than this.
const TICK_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a cursor ticks even if nothing wakes it, so that it notices soon when another process claims its lease.
const IDLE_POLL_INTERVAL: Duration = RENEW_INTERVAL;

/// How often it tries to get the lease of another process.
const STANDBY_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a tick may still take when the process stops.
const LAST_TICK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a cursor goes on reading at shutdown, so that it leaves no lag behind.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A cursor with the state of its loop.
struct Running<C> {
    cursor: C,
    /// Number of failures in a row.
    failures: u32,
    /// Whether another process has the lease.
    standby: bool,
    failing: Reminder<()>,
    throttle: Throttle,
}

impl<C: Cursor> Running<C> {
    async fn tick(&mut self) -> Result<Progress, Retry> {
        let span = tracing::debug_span!("tick", cursor = self.cursor.name(), idle = tracing::field::Empty);
        let tick = tokio::time::timeout(TICK_TIMEOUT, self.cursor.tick().instrument(span.clone()));
        let ticked = tick
            .await
            .unwrap_or_else(|_| Err(Retry { reason: format!("a step took more than {TICK_TIMEOUT:?}"), soon: false }));
        // A tick that did nothing is not worth a trace.
        if matches!(ticked, Ok(Progress::Idle | Progress::Standby | Progress::Waiting)) {
            span.record("idle", true);
        }
        ticked
    }

    /// How long to wait after a successful tick; `None`: until there is something new.
    fn went_on(&mut self, progress: Progress) -> Option<Duration> {
        let name = self.cursor.name();
        self.failures = 0;
        if self.failing.is_over() {
            self.throttle
                .run("goes on", |suppressed| tracing::info!(cursor = name, suppressed, "processes the log again"));
        }
        if progress != Progress::Waiting && self.standby != (progress == Progress::Standby) {
            self.standby = !self.standby;
            let (kind, role) = match self.standby {
                true => ("stands by", "another replica holds the lease of this cursor"),
                false => ("takes over", "this replica holds the lease of this cursor"),
            };
            self.throttle.run(kind, |suppressed| tracing::info!(cursor = name, suppressed, "{role}"));
        }
        match progress {
            Progress::More => Some(Duration::ZERO),
            Progress::Worked => Some(self.cursor.gather()),
            Progress::Idle => None,
            Progress::Standby => Some(STANDBY_POLL_INTERVAL),
            Progress::Waiting => Some(TURN_POLL_INTERVAL),
        }
    }

    /// How long to wait after a failed tick.
    fn failed(&mut self, retry: &Retry) -> Duration {
        let name = self.cursor.name();
        self.failures += 1;
        // A failure that is likely to pass is not logged unless it persists.
        let passing = retry.soon && self.failures <= MAX_QUICK_RETRIES;
        if !passing && self.failing.is_due((), LOG_INTERVAL, Clock::System.steady()) {
            self.throttle.run("cannot go on", |suppressed| {
                tracing::warn!(cursor = name, reason = retry.reason, suppressed, "cannot process the log; retrying");
            });
        } else {
            tracing::debug!(cursor = name, reason = retry.reason, "retrying");
        }
        let doublings = if passing { 0 } else { self.failures.min(10) - 1 };
        (MIN_RETRY_DELAY * 2_u32.pow(doublings)).min(MAX_RETRY_DELAY)
    }

    async fn drain(&mut self) {
        while matches!(self.cursor.tick().await, Ok(Progress::Worked | Progress::More)) {}
    }

    /// Reads to the end of the log, so that no lag is left, unless the last tick failed; then releases the lease.
    async fn end(mut self) {
        if self.failures == 0 && tokio::time::timeout(DRAIN_TIMEOUT, self.drain()).await.is_err() {
            tracing::info!(
                cursor = self.cursor.name(),
                "stopped before the end of the log; the next start continues there"
            );
        }
        self.cursor.release().await;
    }
}

/// Runs `cursor` until `stop`, then once more to the end of the log, within a time limit, and releases its lease.
pub async fn run(cursor: impl Cursor, log: Arc<dyn LogReader>, recent: Arc<RecentRows>, stop: CancellationToken) {
    let looks_every = cursor.looks_every();
    let (failing, throttle) = (Reminder::new(Duration::ZERO), Throttle::new(5, LOG_INTERVAL));
    let mut running = Running { cursor, failures: 0, standby: false, failing, throttle };
    // At shutdown a tick gets some time to finish, and is then dropped: its work is done again later, whatever it was waiting
    // for.
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_TICK_TIMEOUT).await;
    };
    tokio::pin!(overdue);
    let mut appended_elsewhere = log.appended_elsewhere();
    loop {
        // Armed before the log is read, so that no commit is missed between reading and waiting.
        let notified = recent.appended();
        tokio::pin!(notified);
        notified.as_mut().enable();
        appended_elsewhere.mark_unchanged();
        let ticked = tokio::select! {
            ticked = running.tick() => ticked,
            () = &mut overdue => return running.cursor.release().await,
        };
        let pause = match ticked {
            Ok(progress) => running.went_on(progress),
            Err(retry) => Some(running.failed(&retry)),
        };
        let waited = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => tokio::select! {
                    () = notified => {}
                    () = elsewhere(&mut appended_elsewhere, looks_every) => {}
                    () = tokio::time::sleep(IDLE_POLL_INTERVAL) => {}
                },
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = waited => {}
        }
    }
    running.end().await;
}

/// Returns when another process may have appended rows.
async fn elsewhere(appended: &mut watch::Receiver<()>, looks_every: Option<Duration>) {
    match looks_every {
        Some(pause) => tokio::time::sleep(pause).await,
        None if appended.changed().await.is_ok() => {}
        // The log never notifies, so this never returns.
        None => std::future::pending().await,
    }
}
