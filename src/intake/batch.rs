//! The deliveries of one commit: copies of one event become one row.

use std::collections::HashMap;
use std::sync::Arc;

use super::QueuedDelivery;
use convoke_core::event::{Content, Verified};
use convoke_core::id::EventId;
use convoke_log::Append;

/// Merges copies. Returns the batch to append, and for each job its index in the batch.
pub(super) fn merge(jobs: &[QueuedDelivery]) -> (Vec<Append>, Vec<usize>) {
    let mut batch: Vec<Append> = Vec::with_capacity(jobs.len());
    let mut seen: HashMap<MergeKey, usize> = HashMap::with_capacity(jobs.len());
    let mut places = Vec::with_capacity(jobs.len());
    for job in jobs {
        let place = *seen.entry(key(&job.verified)).or_insert(batch.len());
        if let Some(append) = batch.get_mut(place) {
            append.deliveries += 1;
            append.last_delivered_at = append.last_delivered_at.max(job.received_at);
        } else {
            batch.push(Append {
                verified: Arc::clone(&job.verified),
                deliveries: 1,
                last_delivered_at: job.received_at,
            });
        }
        places.push(place);
    }
    (batch, places)
}

/// Deliveries with the same key are copies.
#[derive(PartialEq, Eq, Hash)]
enum MergeKey {
    Event(EventId),
    Unreadable([u8; 32]),
    Handshake(Arc<str>),
    Probe(String),
}

fn key(verified: &Verified) -> MergeKey {
    match verified.content() {
        Content::Event(event) => MergeKey::Event(event.event_id),
        Content::Unreadable(unreadable) => MergeKey::Unreadable(unreadable.digest()),
        Content::Handshake(handshake) if handshake.is_probe() => MergeKey::Probe(handshake.nonce.clone()),
        Content::Handshake(handshake) => MergeKey::Handshake(Arc::clone(&handshake.subscriber_id)),
    }
}
