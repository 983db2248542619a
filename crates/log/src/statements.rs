//! What an append writes besides events, in the same SQL for both databases.

use super::query::Connection;
use crate::log::all_kept;
use convoke_core::event::{Handshake, Unreadable};

/// Records a handshake that was answered `times` times.
pub(crate) async fn note_handshake(
    connection: &mut Connection<'_>,
    handshake: &Handshake,
    times: u32,
) -> Result<(), sqlx::Error> {
    let note = if handshake.is_probe() {
        connection
            .query("UPDATE probes SET arrived_at = $1 WHERE nonce = $2 AND subscriber_id = $3 AND arrived_at IS NULL")
            .bind(handshake.received_at)
            .bind(&*handshake.nonce)
            .bind(&*handshake.subscriber_id)
    } else {
        let greatest = connection.dialect().greatest();
        connection
            .query(format!(
                "INSERT INTO handshakes AS h (subscriber_id, at, answered) VALUES ($1, $2, $3)
                 ON CONFLICT (subscriber_id) DO UPDATE
                    SET at = {greatest}(h.at, excluded.at), answered = h.answered + excluded.answered"
            ))
            .bind(&*handshake.subscriber_id)
            .bind(handshake.received_at)
            .bind(i64::from(times))
    };
    connection.execute(note).await.map(drop)
}

/// Adds a body to the quarantine, or counts its deliveries there.
pub(crate) async fn insert_quarantined(
    connection: &mut Connection<'_>,
    unreadable: &Unreadable,
    deliveries: u32,
) -> Result<(), sqlx::Error> {
    let insert = connection.query(
        "INSERT INTO quarantine AS q (digest, subscriber_id, received_at, deliveries, reason, body)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (digest) DO UPDATE SET deliveries = q.deliveries + excluded.deliveries",
    );
    let insert = insert
        .bind(unreadable.digest().as_slice())
        .bind(&*unreadable.subscriber_id)
        .bind(unreadable.received_at)
        .bind(i64::from(deliveries))
        .bind(&*unreadable.reason)
        .bind(&unreadable.body[..]);
    all_kept(1, connection.execute(insert).await?)
}
