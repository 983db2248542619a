//! What operators did by way of the admin listener, for as long as somebody may ask: known to every replica.

use async_trait::async_trait;

use super::LogError;

/// Notes of operators' actions, each under the id that its client made.
#[async_trait]
pub trait ActionNotes: std::fmt::Debug + Send + Sync {
    /// Notes a new action, unless there is one with this id; whether it is new. Those that are older than 90 days are dropped.
    async fn begin_action(&self, id: &str, note: &str) -> Result<bool, LogError>;

    /// Keeps how an action stands, in place of what was noted before.
    async fn keep_action(&self, id: &str, note: &str) -> Result<(), LogError>;

    /// What is noted of an action.
    async fn action(&self, id: &str) -> Result<Option<String>, LogError>;

    /// What is noted of the newest `limit` actions, the newest first.
    async fn recent_actions(&self, limit: u32) -> Result<Vec<String>, LogError>;
}
