//! What gauges tell of the past: when the platform's newest event of each subscriber arrived, and its newest handshake. The
//! database knows, whichever process took them, so that an alert on silence does not fall asleep with a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ops::Known;
use crate::metrics::Metrics;
use convoke_core::event::{Record, Source};
use convoke_core::time::Millis;
use convoke_log::{Handshakes, LogError};

/// The log is searched for a subscriber's newest event for so long. One that came long ago is found in the note.
const SEARCH: Duration = Duration::from_secs(1);

/// A note is written no more often than this.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What is told of each subscriber.
#[derive(Debug)]
pub struct Past {
    log: Arc<dyn Handshakes>,
    metrics: Arc<Metrics>,
    /// Those that were asked for, and what was kept of them.
    kept: Mutex<HashMap<Arc<str>, Kept>>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    event: Option<Millis>,
    at: Millis,
}

fn name(subscriber: &str) -> String {
    format!("last event {subscriber}")
}

impl Past {
    /// Reads it in `log`, and shows it in `metrics`.
    #[must_use]
    pub fn new(log: Arc<dyn Handshakes>, metrics: Arc<Metrics>) -> Self {
        Self { log, metrics, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Arc<str>, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is known of those of whom nothing was read yet.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; it goes on the next time.
    pub async fn recall(&self, subscribers: &[Known], now: Millis) -> Result<(), LogError> {
        for subscriber in subscribers {
            if self.kept().contains_key(&subscriber.id) {
                continue;
            }
            let series = self.metrics.subscriber(&subscriber.id);
            let (found, kept) = match tokio::time::timeout(SEARCH, self.log.last_push(&subscriber.id)).await {
                // It may be too far back the next time, and is kept then.
                Ok(found) => (found?, None),
                Err(_) => {
                    let note = self.log.note(&name(&subscriber.id)).await?;
                    let noted = note.and_then(|note| note.parse().ok()).and_then(Millis::new);
                    (noted, noted)
                }
            };
            if let Some(at) = found {
                series.event_stored(at);
            }
            if let Some(at) = self.log.handshakes(&subscriber.id).await?.newest {
                series.handshake(at);
            }
            self.kept().insert(Arc::clone(&subscriber.id), Kept { event: kept, at: now });
        }
        Ok(())
    }

    /// The newest row of the log, whoever stored it.
    pub fn note(&self, newest: &Record) {
        if newest.source == Source::Push.as_str() {
            self.metrics.note_event(&newest.subscriber_id, newest.received_at);
        }
    }

    /// Keeps what is news.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn keep(&self, now: Millis) -> Result<(), LogError> {
        let known: Vec<(Arc<str>, Kept)> = self.kept().iter().map(|(id, kept)| (Arc::clone(id), *kept)).collect();
        for (id, kept) in known {
            let event = self.metrics.subscriber(&id).last_event();
            // A clock that was set back does not stop it.
            if event.is_some() && event != kept.event && (now < kept.at || now.since(kept.at) >= KEEP_EVERY) {
                let text = event.map(|at| at.get().to_string()).unwrap_or_default();
                self.log.keep_note(&name(&id), &text).await?;
                self.kept().insert(id, Kept { event, at: now });
            }
        }
        Ok(())
    }
}
