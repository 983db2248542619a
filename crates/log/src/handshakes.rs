//! What the log knows of the platform's visits: its handshakes, its newest event, and our own probes.

use async_trait::async_trait;

use super::{LogError, Notes};
use convoke_core::time::Millis;

/// The platform's handshakes with one subscriber. Whatever differs later, one more has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct HandshakesSeen {
    /// How many were answered, by whichever process. Noted for people and for comparing with itself: what arrived while the
    /// database was away is not in it.
    #[sqlx(try_from = "i64")]
    pub answered: u64,
    /// When the newest arrived, by the clock of the process that answered it.
    pub newest: Option<Millis>,
}

/// The platform's visits, as far as they are noted.
#[async_trait]
pub trait Handshakes: Notes {
    /// Expects a probe with this nonce: from now on [`super::Log::append`] notes its arrival. A probe that is not expected
    /// leaves no trace, and none is expected for longer than a day.
    async fn expect_probe(&self, subscriber: &str, nonce: &str) -> Result<(), LogError>;

    /// Whether the probe with this nonce was expected and has arrived, at whichever process.
    async fn probe_arrived(&self, nonce: &str) -> Result<bool, LogError>;

    /// The platform's handshakes with this subscriber; probes are none.
    async fn handshakes(&self, subscriber: &str) -> Result<HandshakesSeen, LogError>;

    /// When the newest event of this subscriber that the platform pushed was received. Found at once if it is among the newest
    /// of the log; else all that came later is read.
    async fn last_push(&self, subscriber: &str) -> Result<Option<Millis>, LogError>;
}
