//! Hears of what other replicas append.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::{ANSWER_TIMEOUT, PostgresLog, hosts};

/// How often a listening connection that hears nothing is tested, and how soon another is opened in place of a lost one.
const LISTEN_TEST_INTERVAL: Duration = Duration::from_secs(5);
const LISTEN_RETRY_DELAY: Duration = Duration::from_millis(500);

/// The channel on which a commit is announced to the other replicas.
const CHANNEL: &str = "convoke_log";

impl PostgresLog {
    /// As [`Maintenance::listen`](crate::Maintenance::listen) has it.
    pub async fn listen(&self) {
        loop {
            // Listening is a help, not a need: whatever fails here, the cursors look by themselves now and then.
            if let Err(error) = self.hear().await {
                tracing::debug!(%error, "does not hear of what other replicas append");
            }
            tokio::time::sleep(LISTEN_RETRY_DELAY).await;
        }
    }

    /// Listens on one connection until it is lost.
    async fn hear(&self) -> Result<(), sqlx::Error> {
        self.hosts.look().await;
        let mut listener = PgListener::connect_with(&self.listeners).await?;
        listener.listen(CHANNEL).await?;
        // While nobody listened, anything may have happened.
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
