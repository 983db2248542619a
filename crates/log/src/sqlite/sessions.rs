//! Ended sessions in SQLite.

use async_trait::async_trait;

use super::{NOW, SqliteLog, failed};
use crate::{LogError, Sessions};
use convoke_core::time::Millis;

#[async_trait]
impl Sessions for SqliteLog {
    async fn end_session(&self, id: &str, expires: Millis) -> Result<(), LogError> {
        let end = sqlx::query("INSERT INTO ended_sessions (id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING");
        self.write(end.bind(id.to_owned()).bind(expires.to_string())).await?;
        let clean = format!("DELETE FROM ended_sessions WHERE expires_at < {NOW}");
        self.write(sqlx::query(sqlx::AssertSqlSafe(clean))).await.map(drop)
    }

    async fn ended_sessions(&self) -> Result<Vec<String>, LogError> {
        sqlx::query_scalar("SELECT id FROM ended_sessions").fetch_all(&self.readers).await.map_err(failed)
    }
}
