//! Handshakes and probes in PostgreSQL.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::{PostgresLog, bounded};
use crate::{Handshakes, HandshakesSeen, LogError};
use convoke_core::event::Handshake;
use convoke_core::time::Millis;

/// Notes a handshake that was answered `times` times.
pub(super) async fn note_handshake(
    connection: &mut PgConnection,
    handshake: &Handshake,
    times: u32,
) -> Result<(), sqlx::Error> {
    let note = if handshake.is_probe() {
        sqlx::query("UPDATE probes SET arrived_at = $1 WHERE nonce = $2 AND subscriber_id = $3 AND arrived_at IS NULL")
            .bind(handshake.received_at.date_time())
            .bind(&handshake.nonce)
            .bind(&*handshake.subscriber_id)
    } else {
        sqlx::query(
            "INSERT INTO handshakes AS h (subscriber_id, at, answered) VALUES ($1, $2, $3)
             ON CONFLICT (subscriber_id) DO UPDATE
                SET at = greatest(h.at, excluded.at), answered = h.answered + excluded.answered",
        )
        .bind(&*handshake.subscriber_id)
        .bind(handshake.received_at.date_time())
        .bind(i64::from(times))
    };
    note.execute(connection).await.map(drop)
}

#[async_trait]
impl Handshakes for PostgresLog {
    async fn expect_probe(&self, subscriber: &str, nonce: &str) -> Result<(), LogError> {
        bounded(async {
            sqlx::query("DELETE FROM probes WHERE expected_at < now() - interval '1 day'").execute(&self.pool).await?;
            sqlx::query("INSERT INTO probes (nonce, subscriber_id, expected_at) VALUES ($1, $2, now())")
                .bind(nonce)
                .bind(subscriber)
                .execute(&self.pool)
                .await
        })
        .await
        .map(drop)
    }

    async fn probe_arrived(&self, nonce: &str) -> Result<bool, LogError> {
        bounded(
            sqlx::query_scalar("SELECT count(*) FROM probes WHERE nonce = $1 AND arrived_at IS NOT NULL")
                .bind(nonce)
                .fetch_one(&self.pool),
        )
        .await
        .map(|count: i64| count > 0)
    }

    async fn handshakes(&self, subscriber: &str) -> Result<HandshakesSeen, LogError> {
        let row = bounded(
            sqlx::query("SELECT answered, at FROM handshakes WHERE subscriber_id = $1")
                .bind(subscriber)
                .fetch_optional(&self.pool),
        )
        .await?;
        Ok(row.map_or_else(HandshakesSeen::default, |row| HandshakesSeen {
            answered: row.get::<i64, _>(0).unsigned_abs(),
            newest: Some(Millis::from_date_time(row.get(1))),
        }))
    }

    async fn last_push(&self, subscriber: &str) -> Result<Option<Millis>, LogError> {
        let at = bounded(
            sqlx::query_scalar(
                "SELECT received_at FROM events WHERE subscriber_id = $1 AND source = 'push' ORDER BY seq DESC LIMIT 1",
            )
            .bind(subscriber)
            .fetch_optional(&self.pool),
        );
        Ok(at.await?.map(Millis::from_date_time))
    }
}
