//! Takes the lease of a running cursor for another task: claims it, and shares it in turns with its owner.

use std::time::{Duration, Instant};

use super::lease::{CLAIM_TIME, LEASE_TIME, MIN_TURN_TIME, RENEW_INTERVAL, TURN_POLL_INTERVAL};
use convoke_core::id::Seq;
use convoke_core::time::instant;
use convoke_log::{Log, LogError};

/// A running cursor hands its lease over when asked, and a dead one loses it. An owner that has done neither by this time never
/// will.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the lease could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The database is unavailable.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another process keeps the lease.
    #[error(
        "another process keeps the lease of the cursor {0}: does it run an older version, which does not hand \
             over?"
    )]
    Kept(&'static str),
}

/// The lease of a cursor, held by a task that does not run the cursor.
#[derive(Debug)]
pub struct Handover<'a> {
    log: &'a dyn Log,
    cursor: &'static str,
    owner: String,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    position: Seq,
    since: Instant,
    renewed: Instant,
}

impl<'a> Handover<'a> {
    /// Nothing is claimed yet. `owner` is the name of this process among all.
    #[must_use]
    pub fn new(log: &'a dyn Log, cursor: &'static str, owner: &str) -> Self {
        Self { log, cursor, owner: owner.to_owned(), held: None }
    }

    /// Waits until a piece of work may be done under the lease, and returns the cursor's position. The owner of the cursor gets
    /// its turn first, if one is due and it wants it.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub async fn take(&mut self) -> Result<Seq, HandoverError> {
        let fresh = |held: &&Held| held.since.elapsed() < MIN_TURN_TIME && held.renewed.elapsed() < RENEW_INTERVAL;
        if let Some(held) = self.held.as_ref().filter(fresh) {
            return Ok(held.position);
        }
        let begun = instant();
        loop {
            match self.ask().await {
                Ok(Some(position)) => return Ok(position),
                Ok(None) if begun.elapsed() > HANDOVER_TIMEOUT => return Err(HandoverError::Kept(self.cursor)),
                Err(error) if begun.elapsed() > HANDOVER_TIMEOUT => return Err(error.into()),
                Ok(None) => {}
                // Two processes that write to the same SQLite database block each other now and then.
                Err(error) => tracing::debug!(%error, "asking for the lease once more"),
            }
            tokio::time::sleep(TURN_POLL_INTERVAL).await;
        }
    }

    /// The cursor's position if this process has the lease now; otherwise the lease is claimed.
    async fn ask(&mut self) -> Result<Option<Seq>, LogError> {
        let asked = instant();
        if let Some(leased) = self.log.lease(self.cursor, &self.owner, LEASE_TIME).await? {
            let since = self.held.filter(|_| leased.wanted).map_or_else(instant, |held| held.since);
            if since.elapsed() < MIN_TURN_TIME {
                self.held = Some(Held { position: leased.position, since, renewed: asked });
                return Ok(Some(leased.position));
            }
            self.log.release(self.cursor, &self.owner).await?;
        }
        self.held = None;
        self.log.claim(self.cursor, &self.owner, CLAIM_TIME).await?;
        Ok(None)
    }

    /// Releases the lease.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; the lease then expires.
    pub async fn end(mut self) -> Result<(), LogError> {
        if self.held.take().is_some() {
            self.log.release(self.cursor, &self.owner).await?;
        }
        Ok(())
    }
}
