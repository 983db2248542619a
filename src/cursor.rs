//! Cursors: named readers of the log, which may lag, crash and be rewound without touching ingest.
//!
//! A cursor is a `tick`, one bounded piece of work, and the loop here, which only waits and calls it. Replicas share the
//! work by a lease on the cursor's row.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::log::Log;

/// A lease lasts this long after it was renewed: the longest time for which a cursor stands still when its owner dies.
pub const LEASE: Duration = Duration::from_secs(5);

/// A lease is renewed when it is this old.
pub const RENEW: Duration = Duration::from_millis(1_500);

/// What a tick has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing: the log has been read to its end.
    Idle,
    /// A piece of work; there may be more.
    Worked,
    /// Nothing: another process has the lease.
    Standby,
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

/// A reader of the log.
pub trait Cursor: Send {
    /// Its name in the database.
    fn name(&self) -> &'static str;

    /// Does one bounded piece of work.
    fn tick(&mut self) -> impl Future<Output = Result<Progress, Retry>> + Send;

    /// Gives up the lease.
    fn release(&mut self) -> impl Future<Output = ()> + Send;
}

/// The first pause after a failure; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// While something keeps failing, it is said this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// After a tick that found less than a full page, the next one waits so long: under load it then finds more, and costs
/// less for each event.
const GATHER: Duration = Duration::from_millis(3);

/// For how long a cursor goes on reading at the end, to leave no lag behind.
const LAST_DRAIN: Duration = Duration::from_secs(3);

/// Runs `cursor` until `stop`, then once more to the end of the log, within bounds, and gives up its lease.
pub async fn run(mut cursor: impl Cursor, log: Arc<dyn Log>, appended: Arc<Notify>, stop: CancellationToken) {
    let name = cursor.name();
    let mut failing: Option<(Instant, Duration)> = None;
    loop {
        // Armed before the log is read, so that no commit falls between reading and waiting.
        let notified = appended.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        let pause = match cursor.tick().await {
            Ok(progress) => {
                if failing.take().is_some() {
                    tracing::info!(cursor = name, "goes on");
                }
                match progress {
                    Progress::Worked => Some(GATHER),
                    Progress::Idle => None,
                    Progress::Standby => Some(Duration::from_secs(1)),
                }
            }
            Err(retry) => {
                let (said, pause) = failing.unwrap_or((Instant::now(), Duration::ZERO));
                let first = pause.is_zero();
                let say = (first && !retry.soon) || said.elapsed() > SAY_AGAIN;
                if say {
                    tracing::warn!(cursor = name, reason = retry.reason, "cannot go on; trying again");
                } else {
                    tracing::debug!(cursor = name, reason = retry.reason, "trying again");
                }
                let pause = (pause * 2).clamp(MIN_PAUSE, MAX_PAUSE);
                // A first failure that is likely to pass is not worth a word; a second one is.
                let remembered = if first && retry.soon { MIN_PAUSE / 2 } else { pause };
                failing = Some((if say { Instant::now() } else { said }, remembered));
                Some(if retry.soon { MIN_PAUSE } else { pause })
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => tokio::select! {
                        () = notified => {}
                        () = log.appended_elsewhere() => {}
                    }
                }
            } => {}
        }
    }
    let drain = async { while matches!(cursor.tick().await, Ok(Progress::Worked)) {} };
    if tokio::time::timeout(LAST_DRAIN, drain).await.is_err() {
        tracing::info!(cursor = name, "stopped before the end of the log; it goes on from there");
    }
    cursor.release().await;
}
