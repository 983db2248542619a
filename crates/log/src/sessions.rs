//! Sessions of the admin listener that were ended early, kept until they would have expired.

use async_trait::async_trait;

use super::LogError;
use convoke_core::time::Millis;

/// What every replica needs to know about sessions.
#[async_trait]
pub trait Sessions: std::fmt::Debug + Send + Sync {
    /// Marks a session as ended that would have lasted until `expires`, and deletes the marks of expired sessions.
    async fn end_session(&self, id: &str, expires: Millis) -> Result<(), LogError>;

    /// The ids of the ended sessions.
    async fn ended_sessions(&self) -> Result<Vec<String>, LogError>;
}
