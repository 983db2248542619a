//! The tables rebuilt, by the same steps as ever.

use std::time::{Duration, Instant};

use super::{CURSOR, Projector};
use crate::cursor::lease::LEASE_TIME;
use crate::cursor::{Cursor as _, Handover, HandoverError, Progress};
use convoke_core::id::Seq;
use convoke_core::time::instant;
use convoke_log::{Lease, LogError, Moved};

/// Whatever fails for so long is not going to pass.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before what failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Why the tables were not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The database is away. If the tables are empty already, the next owner of the cursor fills them.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The lease is not to be had.
    #[error(transparent)]
    Lease(#[from] HandoverError),
    /// A step fails again and again; the tables are filled up to there.
    #[error("the tables are filled up to {at} of the log, and not further: {reason}")]
    Stuck {
        /// How far they got.
        at: Seq,
        /// What the database says.
        reason: String,
    },
    /// The tables hold what this version does not read.
    #[error("the tables hold a run that this version did not write: `convoke rebuild` makes them anew")]
    Unreadable,
    /// Another process has the lease now.
    #[error("another process took the lease, and goes on from {at}")]
    Overtaken {
        /// How far this one got.
        at: Seq,
    },
}

impl Projector {
    /// Empties the tables and fills them from the whole log; what was fetched from the platform is kept elsewhere. Asks who
    /// moves the cursor for its lease, and gives it back in the end. `progress` hears how far it is.
    ///
    /// If it is broken off, the next owner of the cursor goes on with it.
    ///
    /// # Errors
    /// [`RebuildError`].
    pub async fn rebuild(mut self, mut progress: impl FnMut(Seq)) -> Result<(), RebuildError> {
        self.take_over().await?;
        let lease = Lease { cursor: CURSOR, owner: &self.owner, ttl: LEASE_TIME };
        if self.log.clear_tables(lease).await? == Moved::LeaseLost {
            return Err(RebuildError::Overtaken { at: Seq::START });
        }
        let mut at = Seq::START;
        let mut failing: Option<Instant> = None;
        loop {
            match self.tick().await {
                Ok(Progress::Idle) => break,
                Ok(Progress::Standby | Progress::Waiting) => return Err(RebuildError::Overtaken { at }),
                Ok(Progress::Worked | Progress::More) => failing = None,
                Err(retry) if failing.get_or_insert_with(instant).elapsed() > RETRY_TIMEOUT => {
                    return Err(RebuildError::Stuck { at, reason: retry.reason });
                }
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
            if let Some(held) = &self.held {
                at = held.position;
                progress(at);
            }
        }
        self.release().await;
        Ok(())
    }

    /// Waits until the lease is ours; where the cursor stands.
    pub(super) async fn take_over(&self) -> Result<Seq, RebuildError> {
        Ok(Handover::new(&*self.log, CURSOR, &self.owner).take().await?)
    }
}
