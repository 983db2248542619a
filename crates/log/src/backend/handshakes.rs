//! Handshakes and probes.

use async_trait::async_trait;

use super::Backend;
use crate::{Handshakes, HandshakesSeen, LogError};
use convoke_core::time::Millis;

#[async_trait]
impl Handshakes for Backend {
    async fn expect_probe(&self, subscriber: &str, nonce: &str) -> Result<(), LogError> {
        let now = self.dialect().now();
        let yesterday = self.dialect().in_seconds("-86400");
        self.write(self.query(format!("DELETE FROM probes WHERE expected_at < {yesterday}"))).await?;
        let sql = format!("INSERT INTO probes (nonce, subscriber_id, expected_at) VALUES ($1, $2, {now})");
        self.write(self.query(sql).bind(nonce).bind(subscriber)).await.map(drop)
    }

    async fn probe_arrived(&self, nonce: &str) -> Result<bool, LogError> {
        let count = "SELECT count(*) FROM probes WHERE nonce = $1 AND arrived_at IS NOT NULL";
        self.one::<(i64,)>(self.query(count).bind(nonce)).await.map(|(count,)| count > 0)
    }

    async fn handshakes(&self, subscriber: &str) -> Result<HandshakesSeen, LogError> {
        let seen = "SELECT answered, at AS newest FROM handshakes WHERE subscriber_id = $1";
        self.optional(self.query(seen).bind(subscriber)).await.map(Option::unwrap_or_default)
    }

    async fn last_push(&self, subscriber: &str) -> Result<Option<Millis>, LogError> {
        let newest = "SELECT received_at FROM events WHERE subscriber_id = $1 AND source = 'push'
                       ORDER BY seq DESC LIMIT 1";
        self.optional::<(Millis,)>(self.query(newest).bind(subscriber)).await.map(|row| row.map(|(at,)| at))
    }
}
