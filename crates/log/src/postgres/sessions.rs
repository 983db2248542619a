//! Ended sessions in PostgreSQL.

use async_trait::async_trait;

use super::{PostgresLog, bounded};
use crate::{LogError, Sessions};
use convoke_core::time::Millis;

#[async_trait]
impl Sessions for PostgresLog {
    async fn end_session(&self, id: &str, expires: Millis) -> Result<(), LogError> {
        let end = sqlx::query(
            "WITH gone AS (DELETE FROM ended_sessions WHERE expires_at < clock_timestamp() - interval '1 hour')
             INSERT INTO ended_sessions (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        );
        bounded(end.bind(id).bind(expires.date_time()).execute(&self.pool)).await.map(drop)
    }

    async fn ended_sessions(&self) -> Result<Vec<String>, LogError> {
        bounded(sqlx::query_scalar("SELECT id FROM ended_sessions").fetch_all(&self.pool)).await
    }
}
