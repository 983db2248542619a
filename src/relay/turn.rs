//! The right to publish beside a relay that runs: its lease, in turns.

use std::time::{Duration, Instant};

use super::CURSOR;
use crate::cursor::{CLAIM, LEASE, RENEW, TURN, TURN_POLL};
use convoke_log::{Log, LogError};

/// A relay hands over between two windows, and a dead one loses its lease; who does neither by then never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nothing may be published.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The database is away.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The lease is not to be had.
    #[error("the relay keeps its lease: is it of an older version, which hands nothing over?")]
    Kept,
}

/// The lease of the cursor `bus`, held by somebody who is not the relay and does not move it.
#[derive(Debug)]
pub struct Turn<'a> {
    log: &'a dyn Log,
    owner: String,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    renewed: Instant,
}

impl<'a> Turn<'a> {
    /// Nobody's turn yet. `owner` names who publishes among all processes.
    #[must_use]
    pub fn new(log: &'a dyn Log, owner: String) -> Self {
        Self { log, owner, held: None }
    }

    /// Returns when one window may be published now; lets the relay have its turn before, if it is due and wants it.
    ///
    /// # Errors
    /// [`TurnError`].
    pub async fn take(&mut self) -> Result<(), TurnError> {
        if self.held.as_ref().is_some_and(|held| held.since.elapsed() < TURN && held.renewed.elapsed() < RENEW) {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            match self.ask().await {
                Ok(true) => return Ok(()),
                Ok(false) if begun.elapsed() > PATIENCE => return Err(TurnError::Kept),
                Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
                Ok(false) => {}
                // Two processes that write to one SQLite database get into each other's way now and then.
                Err(error) => tracing::debug!(%error, "asking for the lease once more"),
            }
            tokio::time::sleep(TURN_POLL).await;
        }
    }

    /// Whether the lease is ours now; if not, it is claimed.
    async fn ask(&mut self) -> Result<bool, LogError> {
        let asked = Instant::now();
        if let Some(leased) = self.log.lease(CURSOR, &self.owner, LEASE).await? {
            let since = self.held.as_ref().filter(|_| leased.wanted).map_or_else(Instant::now, |held| held.since);
            if since.elapsed() < TURN {
                self.held = Some(Held { since, renewed: asked });
                return Ok(true);
            }
            self.log.release(CURSOR, &self.owner).await?;
        }
        self.held = None;
        self.log.claim(CURSOR, &self.owner, CLAIM).await?;
        Ok(false)
    }

    /// Gives the right back.
    ///
    /// # Errors
    /// [`TurnError::Log`]: it ends by itself then.
    pub async fn end(mut self) -> Result<(), TurnError> {
        if self.held.take().is_some() {
            self.log.release(CURSOR, &self.owner).await?;
        }
        Ok(())
    }
}
