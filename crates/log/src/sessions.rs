//! Sessions of the admin listener that were ended before their time, for as long as they would have lasted.

use async_trait::async_trait;

use super::LogError;
use convoke_core::time::Millis;

/// What every replica has to know of sessions.
#[async_trait]
pub trait Sessions: std::fmt::Debug + Send + Sync {
    /// Notes that the session is over, which would have lasted until `expires`; and drops those that have expired meanwhile.
    async fn end_session(&self, id: &str, expires: Millis) -> Result<(), LogError>;

    /// The sessions that were ended.
    async fn ended_sessions(&self) -> Result<Vec<String>, LogError>;
}
