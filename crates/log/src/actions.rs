//! Operators' actions through the admin listener, kept as long as a client may ask for them, and shared by all replicas.

use async_trait::async_trait;

use super::LogError;

/// Records of operators' actions, each under the id chosen by its client.
#[async_trait]
pub trait ActionNotes: std::fmt::Debug + Send + Sync {
    /// Records a new action, unless there is one with this id. Returns whether it is new. Records older
    /// than 90 days are deleted.
    async fn begin_action(&self, id: &str, note: &str) -> Result<bool, LogError>;

    /// Replaces the record of an action with its current state.
    async fn keep_action(&self, id: &str, note: &str) -> Result<(), LogError>;

    /// The record of an action.
    async fn action(&self, id: &str) -> Result<Option<String>, LogError>;

    /// The records of the newest `limit` actions, the newest first.
    async fn recent_actions(&self, limit: u32) -> Result<Vec<String>, LogError>;
}
