//! Handshakes and probes in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::{NOW, SqliteLog, failed, time};
use crate::{Handshakes, HandshakesSeen, LogError};
use convoke_core::event::Handshake;
use convoke_core::time::Millis;

/// Notes a handshake that was answered `times` times.
pub(super) async fn note_handshake(
    connection: &mut SqliteConnection,
    handshake: &Handshake,
    times: u32,
) -> Result<(), sqlx::Error> {
    let note = if handshake.is_probe() {
        sqlx::query("UPDATE probes SET arrived_at = ? WHERE nonce = ? AND subscriber_id = ? AND arrived_at IS NULL")
            .bind(handshake.received_at.to_string())
            .bind(handshake.nonce.clone())
            .bind(Arc::clone(&handshake.subscriber_id))
    } else {
        sqlx::query(
            "INSERT INTO handshakes (subscriber_id, at, answered) VALUES (?, ?, ?)
             ON CONFLICT (subscriber_id) DO UPDATE SET at = max(at, excluded.at), answered = answered + excluded.answered",
        )
        .bind(Arc::clone(&handshake.subscriber_id))
        .bind(handshake.received_at.to_string())
        .bind(times)
    };
    note.execute(connection).await.map(drop)
}

#[async_trait]
impl Handshakes for SqliteLog {
    async fn expect_probe(&self, subscriber: &str, nonce: &str) -> Result<(), LogError> {
        self.write(sqlx::query(
            "DELETE FROM probes WHERE expected_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')",
        ))
        .await?;
        let sql = format!("INSERT INTO probes (nonce, subscriber_id, expected_at) VALUES (?, ?, {NOW})");
        self.write(sqlx::query(AssertSqlSafe(sql)).bind(nonce.to_owned()).bind(subscriber.to_owned())).await.map(drop)
    }

    async fn probe_arrived(&self, nonce: &str) -> Result<bool, LogError> {
        sqlx::query_scalar("SELECT count(*) FROM probes WHERE nonce = ? AND arrived_at IS NOT NULL")
            .bind(nonce.to_owned())
            .fetch_one(&self.readers)
            .await
            .map(|count: i64| count > 0)
            .map_err(failed)
    }

    async fn handshakes(&self, subscriber: &str) -> Result<HandshakesSeen, LogError> {
        let row = sqlx::query("SELECT answered, at FROM handshakes WHERE subscriber_id = ?")
            .bind(subscriber.to_owned())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok(HandshakesSeen::default()) };
        let answered = row.get::<i64, _>(0).unsigned_abs();
        Ok(HandshakesSeen { answered, newest: Some(time(row.get(1)).map_err(failed)?) })
    }

    async fn last_push(&self, subscriber: &str) -> Result<Option<Millis>, LogError> {
        let row = sqlx::query(
            "SELECT received_at FROM events WHERE subscriber_id = ? AND source = 'push' ORDER BY seq DESC LIMIT 1",
        );
        let row = row.bind(subscriber.to_owned()).fetch_optional(&self.readers).await.map_err(failed)?;
        row.map(|row| time(row.get(0))).transpose().map_err(failed)
    }
}
