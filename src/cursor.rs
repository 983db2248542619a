//! Cursors: named readers of the log, which may lag, crash and be rewound without touching ingest.
//!
//! A cursor is a `tick`, one bounded piece of work, and the loop here, which only waits and calls it. Replicas share the
//! work by a lease on the cursor's row.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use convoke_core::id::Seq;
use convoke_core::throttle::Throttle;
use convoke_log::{LogError, LogReader};

/// A lease lasts this long after it was renewed: the longest time for which a cursor stands still when its owner dies.
pub const LEASE: Duration = Duration::from_secs(5);

/// A lease is renewed when it is this old.
pub const RENEW: Duration = Duration::from_millis(1_500);

/// Who is asked for its lease ([`convoke_log::Log::claim`]) keeps it this long at least, while it has something to do.
pub const TURN: Duration = Duration::from_millis(100);

/// How often who takes turns looks whether the turn is its own.
pub const TURN_POLL: Duration = Duration::from_millis(10);

/// A wish for a lease stands this long.
pub const CLAIM: Duration = Duration::from_secs(2);

/// What a tick has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing: the log has been read to its end.
    Idle,
    /// A piece of work, to where the log ended a moment ago.
    Worked,
    /// A piece of work, and there is more.
    More,
    /// Nothing: another process has the lease.
    Standby,
    /// Nothing: the lease goes to and fro between processes that take turns.
    Waiting,
}

/// Why a tick failed. It is tried again, for ever, with growing pauses.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Retry {
    /// For the log.
    pub reason: String,
    /// Whether the next try is likely to succeed at once.
    pub soon: bool,
}

/// Where a cursor stands, if `owner` moves it: what is to be done by one replica only is done by that one.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn moved_by(log: &dyn LogReader, cursor: &str, owner: &str) -> Result<Option<Seq>, LogError> {
    let states = log.cursors().await?;
    let ours = states.iter().find(|state| state.name == cursor && state.owner.as_deref() == Some(owner));
    Ok(ours.map(|state| state.position))
}

/// A reader of the log.
pub trait Cursor: Send {
    /// Its name in the database.
    fn name(&self) -> &'static str;

    /// Does one bounded piece of work.
    fn tick(&mut self) -> impl Future<Output = Result<Progress, Retry>> + Send;

    /// Gives up the lease.
    fn release(&mut self) -> impl Future<Output = ()> + Send;

    /// After a tick that found less than a full page, the next one waits so long: under load it then finds more, and costs
    /// less for each event.
    fn gather(&self) -> Duration {
        GATHER
    }

    /// How often it looks for what other processes append; `None`: it is told at once.
    fn looks_every(&self) -> Option<Duration> {
        None
    }
}

/// The first pause after a failure; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// So many failures in a row that are likely to pass are tried again without a growing pause.
const SOON: u32 = 4;

/// While something keeps failing, it is said this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How long a cursor gathers, unless it says otherwise.
const GATHER: Duration = Duration::from_millis(3);

/// A tick that takes longer hangs, on whatever it waits for: it is dropped and tried again. All that a tick waits for
/// has a limit of its own, and together they stay below this.
const LONGEST_TICK: Duration = Duration::from_secs(20);

/// A cursor looks this often, whatever it hears; and so it learns soon that somebody asks for its lease.
const LONGEST_IDLE: Duration = RENEW;

/// For how long a tick may go on when the process is to stop.
const LAST_TICK: Duration = Duration::from_secs(3);

/// For how long a cursor goes on reading at the end, to leave no lag behind.
const LAST_DRAIN: Duration = Duration::from_secs(3);

/// Failures in a row.
#[derive(Default)]
struct Failing {
    times: u32,
    said: Option<Instant>,
}

/// Runs `cursor` until `stop`, then once more to the end of the log, within bounds, and gives up its lease.
pub async fn run(mut cursor: impl Cursor, log: Arc<dyn LogReader>, appended: Arc<Notify>, stop: CancellationToken) {
    let name = cursor.name();
    let mut failing: Option<Failing> = None;
    let throttle = Throttle::new(5, SAY_AGAIN);
    let mut standby = false;
    // A tick is given some time to come to its end when the process is to stop, and cut short then: whatever it was
    // waiting for, the work is done again.
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_TICK).await;
    };
    tokio::pin!(overdue);
    let mut appended_elsewhere = log.appended_elsewhere();
    loop {
        // Armed before the log is read, so that no commit falls between reading and waiting.
        let notified = appended.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        appended_elsewhere.mark_unchanged();
        let ticked = tokio::select! {
            ticked = tokio::time::timeout(LONGEST_TICK, cursor.tick()) => ticked.unwrap_or_else(|_| {
                Err(Retry { reason: format!("a step took more than {LONGEST_TICK:?}"), soon: false })
            }),
            () = &mut overdue => {
                failing.get_or_insert_default();
                break;
            }
        };
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
                    Progress::Standby => Some(Duration::from_secs(1)),
                    Progress::Waiting => Some(TURN_POLL),
                }
            }
            Err(retry) => {
                let failing = failing.get_or_insert_default();
                failing.times += 1;
                // A failure that is likely to pass is not worth a word, unless it does not pass.
                let passing = retry.soon && failing.times <= SOON;
                if !passing && failing.said.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
                    failing.said = Some(Instant::now());
                    throttle.run("cannot go on", |suppressed| {
                        tracing::warn!(cursor = name, reason = retry.reason, suppressed, "cannot go on; trying again");
                    });
                } else {
                    tracing::debug!(cursor = name, reason = retry.reason, "trying again");
                }
                let doublings = if passing { 0 } else { failing.times.min(10) - 1 };
                Some((MIN_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE))
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
                        () = tokio::time::sleep(LONGEST_IDLE) => {}
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
    if tokio::time::timeout(LAST_DRAIN, drain).await.is_err() {
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
