//! Records of operators' actions.

use async_trait::async_trait;

use super::Backend;
use crate::{ActionNotes, LogError};

/// Age at which they are deleted: 90 days, as an offset from now in seconds.
const KEEP_SECONDS: &str = "-7776000";

#[async_trait]
impl ActionNotes for Backend {
    async fn begin_action(&self, id: &str, note: &str) -> Result<bool, LogError> {
        let old = self.dialect().in_seconds(KEEP_SECONDS);
        self.write(self.query(format!("DELETE FROM actions WHERE begun_at < {old}"))).await?;
        let now = self.dialect().now();
        let sql =
            format!("INSERT INTO actions (id, begun_at, note) VALUES ($1, {now}, $2) ON CONFLICT (id) DO NOTHING");
        self.write(self.query(sql).bind(id).bind(note)).await.map(|rows| rows == 1)
    }

    async fn keep_action(&self, id: &str, note: &str) -> Result<(), LogError> {
        self.write(self.query("UPDATE actions SET note = $2 WHERE id = $1").bind(id).bind(note)).await.map(drop)
    }

    async fn action(&self, id: &str) -> Result<Option<String>, LogError> {
        let note = self.query("SELECT note FROM actions WHERE id = $1").bind(id);
        self.optional::<(String,)>(note).await.map(|found| found.map(|(note,)| note))
    }

    async fn recent_actions(&self, limit: u32) -> Result<Vec<String>, LogError> {
        let notes = self.query("SELECT note FROM actions ORDER BY begun_at DESC, id LIMIT $1").bind(i64::from(limit));
        Ok(self.all::<(String,)>(notes).await?.into_iter().map(|(note,)| note).collect())
    }
}
