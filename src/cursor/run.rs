//! The loop that moves a cursor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::lease::{RENEW_INTERVAL, TURN_POLL_INTERVAL};
use super::{Cursor, Progress, Retry};
use convoke_core::throttle::Throttle;
use convoke_log::LogReader;
use convoke_log::recent::RecentRows;

/// The pause after the first failure; it doubles with each one that follows.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3);

/// So many failures in a row that are likely to pass are tried again without a growing pause.
const MAX_QUICK_RETRIES: u32 = 4;

/// While something keeps failing, it is logged this often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A tick that takes longer hangs, on whatever it waits for: it is dropped and tried again. All that a tick waits for
/// has a limit of its own, and together they stay below this.
const TICK_TIMEOUT: Duration = Duration::from_secs(20);

/// A cursor looks this often, even if nothing wakes it; so it learns soon that somebody asks for its lease.
const IDLE_POLL_INTERVAL: Duration = RENEW_INTERVAL;

/// How often it looks whether it can have the lease of another process.
const STANDBY_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// For how long a tick may go on when the process is to stop.
const LAST_TICK_TIMEOUT: Duration = Duration::from_secs(3);

/// For how long a cursor goes on reading at the end, to leave no lag behind.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Failures in a row.
#[derive(Default)]
struct Failing {
    times: u32,
    said: Option<Instant>,
}

/// Runs `cursor` until `stop`, then once more to the end of the log, within bounds, and gives up its lease.
pub async fn run(mut cursor: impl Cursor, log: Arc<dyn LogReader>, recent: Arc<RecentRows>, stop: CancellationToken) {
    let name = cursor.name();
    let mut failing: Option<Failing> = None;
    let throttle = Throttle::new(5, LOG_INTERVAL);
    let mut standby = false;
    // A tick is given some time to come to its end when the process is to stop, and cut short then: whatever it was
    // waiting for, the work is done again.
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_TICK_TIMEOUT).await;
    };
    tokio::pin!(overdue);
    let mut appended_elsewhere = log.appended_elsewhere();
    loop {
        // Armed before the log is read, so that no commit falls between reading and waiting.
        let notified = recent.appended();
        tokio::pin!(notified);
        notified.as_mut().enable();
        appended_elsewhere.mark_unchanged();
        let span = tracing::debug_span!("tick", cursor = name, idle = tracing::field::Empty);
        let ticked = tokio::select! {
            ticked = tokio::time::timeout(TICK_TIMEOUT, cursor.tick().instrument(span.clone())) => ticked.unwrap_or_else(|_| {
                Err(Retry { reason: format!("a step took more than {TICK_TIMEOUT:?}"), soon: false })
            }),
            () = &mut overdue => {
                failing.get_or_insert_default();
                break;
            }
        };
        // What did nothing is not worth a trace.
        if matches!(ticked, Ok(Progress::Idle | Progress::Standby | Progress::Waiting)) {
            span.record("idle", true);
        }
        drop(span);
        let pause = match ticked {
            Ok(progress) => {
                if failing.take().is_some_and(|failing| failing.said.is_some()) {
                    throttle.run("goes on", |suppressed| tracing::info!(cursor = name, suppressed, "goes on"));
                }
                if progress != Progress::Waiting && standby != (progress == Progress::Standby) {
                    standby = !standby;
                    throttle.run(if standby { "stands by" } else { "takes over" }, |suppressed| {
                        let role =
                            if standby { "another replica moves the cursor" } else { "this replica moves the cursor" };
                        tracing::info!(cursor = name, suppressed, "{role}");
                    });
                }
                match progress {
                    Progress::More => Some(Duration::ZERO),
                    Progress::Worked => Some(cursor.gather()),
                    Progress::Idle => None,
                    Progress::Standby => Some(STANDBY_POLL_INTERVAL),
                    Progress::Waiting => Some(TURN_POLL_INTERVAL),
                }
            }
            Err(retry) => {
                let failing = failing.get_or_insert_default();
                failing.times += 1;
                // A failure that is likely to pass is not worth a word, unless it does not pass.
                let passing = retry.soon && failing.times <= MAX_QUICK_RETRIES;
                if !passing && failing.said.is_none_or(|said| said.elapsed() > LOG_INTERVAL) {
                    failing.said = Some(Instant::now());
                    throttle.run("cannot go on", |suppressed| {
                        tracing::warn!(cursor = name, reason = retry.reason, suppressed, "cannot go on; trying again");
                    });
                } else {
                    tracing::debug!(cursor = name, reason = retry.reason, "trying again");
                }
                let doublings = if passing { 0 } else { failing.times.min(10) - 1 };
                Some((MIN_RETRY_DELAY * 2_u32.pow(doublings)).min(MAX_RETRY_DELAY))
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => tokio::select! {
                        () = notified => {}
                        () = elsewhere(&mut appended_elsewhere, cursor.looks_every()) => {}
                        () = tokio::time::sleep(IDLE_POLL_INTERVAL) => {}
                    }
                }
            } => {}
        }
    }
    if failing.is_some() {
        // There is no way to the end of the log now.
        return cursor.release().await;
    }
    let drain = async { while matches!(cursor.tick().await, Ok(Progress::Worked | Progress::More)) {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_err() {
        tracing::info!(cursor = name, "stopped before the end of the log; it goes on from there");
    }
    cursor.release().await;
}

/// Returns when another process may have appended something.
async fn elsewhere(appended: &mut watch::Receiver<()>, looks_every: Option<Duration>) {
    match looks_every {
        Some(pause) => tokio::time::sleep(pause).await,
        None if appended.changed().await.is_ok() => {}
        // Nobody will say so.
        None => std::future::pending().await,
    }
}
