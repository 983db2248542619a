//! Ended sessions.

use async_trait::async_trait;

use super::Backend;
use crate::{LogError, Sessions};
use convoke_core::time::Millis;

#[async_trait]
impl Sessions for Backend {
    async fn end_session(&self, id: &str, expires: Millis) -> Result<(), LogError> {
        let end = "INSERT INTO ended_sessions (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.write(self.query(end).bind(id).bind(expires)).await?;
        let an_hour_ago = self.dialect().in_seconds("-3600");
        self.write(self.query(format!("DELETE FROM ended_sessions WHERE expires_at < {an_hour_ago}"))).await.map(drop)
    }

    async fn ended_sessions(&self) -> Result<Vec<String>, LogError> {
        let ids = self.all::<(String,)>(self.query("SELECT id FROM ended_sessions")).await?;
        Ok(ids.into_iter().map(|(id,)| id).collect())
    }
}
