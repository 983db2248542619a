//! The log's record of contacts from the platform: its handshakes, its newest event, and our own probes.

use async_trait::async_trait;

use super::{LogError, Notes};
use convoke_core::time::Millis;

/// The platform's handshakes with one subscriber. Any change means that one more arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct HandshakesSeen {
    /// Number of handshakes answered, by any process. For display and for comparison with an earlier value: it lacks
    /// those that arrived while the database was down.
    #[sqlx(try_from = "i64")]
    pub answered: u64,
    /// When the newest arrived, by the clock of the process that answered it.
    pub newest: Option<Millis>,
}

/// The platform's contacts, as far as they are recorded.
#[async_trait]
pub trait Handshakes: Notes {
    /// Registers a probe with this nonce: from now on [`super::Log::append`] records its arrival. An unregistered probe
    /// leaves no trace, and a registration lasts at most a day.
    async fn expect_probe(&self, subscriber: &str, nonce: &str) -> Result<(), LogError>;

    /// Whether the probe with this nonce was registered and has arrived, at any process.
    async fn probe_arrived(&self, nonce: &str) -> Result<bool, LogError>;

    /// The platform's handshakes with this subscriber, without probes.
    async fn handshakes(&self, subscriber: &str) -> Result<HandshakesSeen, LogError>;

    /// When the newest pushed event of this subscriber was received. Fast if it is among the newest rows of the log;
    /// otherwise all later rows are read.
    async fn last_push(&self, subscriber: &str) -> Result<Option<Millis>, LogError>;
}
