//! Serving, and the ordered shutdown.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use super::App;

impl App {
    /// Serves until `stop`, then shuts down in order: not ready any more, no new connections, requests under way finished and
    /// stored, cursors stopped at a transaction boundary. `force` cuts that short.
    ///
    /// # Errors
    /// The task that ended early, or what could not be finished.
    pub async fn run(mut self, stop: CancellationToken, force: CancellationToken) -> anyhow::Result<()> {
        let early = tokio::select! {
            () = stop.cancelled() => None,
            ended = self.tasks.next() => Some(ended),
        };
        if let Some(ended) = early {
            self.shutdown.force.cancel();
            let (name, result) = ended?;
            result.with_context(|| format!("the {name}"))?;
            bail!("the {name} ended unexpectedly");
        }
        let (delay, timeout) = (self.delay, self.timeout);
        tracing::info!("stopping: no new connections after {delay:?}; a second Ctrl-C or SIGTERM stops at once");
        self.shutdown.closing.set();
        tokio::select! {
            result = tokio::time::timeout(timeout, self.finish(delay)) => {
                self.health.deliveries.log_rest();
                if let Ok(result) = result {
                    result?;
                    tracing::info!("stopped");
                } else {
                    tracing::warn!(?timeout, "listen.shutdown_timeout has passed: unfinished requests were cut off");
                }
                Ok(())
            }
            () = force.cancelled() => bail!("forced to stop before everything was finished"),
        }
    }

    async fn finish(&mut self, delay: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(delay).await;
        self.tasks.stop_all().await?;
        // When the platform is not needed any more, its tokens are given back.
        let log_out = async {
            if let Some(client) = &self.client {
                client.log_out().await;
            }
        };
        tokio::join!(self.log.close(), log_out);
        Ok(())
    }
}
