//! Notifications of appends by other replicas.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::{ANSWER_TIMEOUT, PostgresLog, hosts};

/// Interval at which an idle listening connection is tested, and delay before a lost one is replaced.
const LISTEN_TEST_INTERVAL: Duration = Duration::from_secs(5);
const LISTEN_RETRY_DELAY: Duration = Duration::from_millis(500);

/// The channel on which commits are announced to the other replicas.
const CHANNEL: &str = "convoke_log";

impl PostgresLog {
    /// Implements [`Maintenance::listen`](crate::Maintenance::listen).
    pub async fn listen(&self) {
        loop {
            // Listening is only an optimisation: if it fails, the cursors still poll from time to time.
            if let Err(error) = self.hear().await {
                tracing::debug!(%error, "cannot listen for new events of other replicas; retrying");
            }
            tokio::time::sleep(LISTEN_RETRY_DELAY).await;
        }
    }

    /// Listens on one connection until it is lost.
    async fn hear(&self) -> Result<(), sqlx::Error> {
        self.hosts.look().await;
        let mut listener = PgListener::connect_with(&self.listeners).await?;
        listener.listen(CHANNEL).await?;
        // Appends may have been missed while nothing listened.
        self.heard.send_modify(|()| {});
        loop {
            match tokio::time::timeout(LISTEN_TEST_INTERVAL, listener.try_recv()).await {
                Ok(Ok(Some(_))) => self.heard.send_modify(|()| {}),
                Ok(lost) => return lost.map(drop),
                Err(_) => match tokio::time::timeout(ANSWER_TIMEOUT, hosts::writable(&mut listener)).await {
                    Ok(Ok(true)) => {}
                    Ok(answer) => return answer.map(drop),
                    Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
                },
            }
        }
    }
}
