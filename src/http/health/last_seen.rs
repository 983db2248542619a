//! When the platform's newest event and handshake of each subscriber arrived. They are read from the database, whichever process
//! received them, so that an alert on silence works across restarts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Opts};

use crate::metrics::Registry;
use convoke_core::event::{Record, Source};
use convoke_core::time::Millis;
use convoke_log::{Handshakes, LogError};

/// Time limit for searching the log for a subscriber's newest event. An event that is further back is found in the note.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Minimum time between two writes of a note.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// A configured subscriber.
#[derive(Clone, Debug)]
pub struct NamedSubscriber {
    /// The `appID`.
    pub id: Arc<str>,
    /// Its display name.
    pub name: Option<String>,
}

/// When each subscriber was last seen.
#[derive(Debug)]
pub struct LastSeen {
    log: Arc<dyn Handshakes>,
    subscribers: RwLock<HashMap<Arc<str>, Arc<SubscriberSeen>>>,
    /// The subscribers that were read from the database, and what was saved for them.
    kept: Mutex<HashMap<Arc<str>, Kept>>,
    events: GaugeVec,
    handshakes: GaugeVec,
}

/// When one subscriber was last seen.
#[derive(Debug)]
pub struct SubscriberSeen {
    /// The newest event that the platform pushed and that is in the log.
    pub event: Latest,
    /// The newest handshake that was answered.
    pub handshake: Latest,
}

/// The latest of several times, and the gauge that shows it in seconds.
#[derive(Debug)]
pub struct Latest {
    millis: AtomicI64,
    shown: Gauge,
}

impl Latest {
    fn new(shown: Gauge) -> Self {
        Self { millis: AtomicI64::new(Millis::EPOCH.get()), shown }
    }

    /// Sets the time, unless a later one is known.
    pub fn raise(&self, at: Millis) {
        if self.millis.fetch_max(at.get(), Ordering::Relaxed) < at.get() {
            self.shown.set(at.seconds());
        }
    }

    /// The time; `None`: none is known.
    #[must_use]
    pub fn get(&self) -> Option<Millis> {
        Millis::new(self.millis.load(Ordering::Relaxed)).filter(|at| *at > Millis::EPOCH)
    }
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    event: Option<Millis>,
    at: Millis,
}

fn name(subscriber: &str) -> String {
    format!("last event {subscriber}")
}

impl LastSeen {
    /// Without subscribers; times from before this process started are read from `log`.
    #[must_use]
    pub fn new(log: Arc<dyn Handshakes>, registry: &Registry) -> Self {
        let gauges = |name, help| registry.register(GaugeVec::new(Opts::new(name, help), &["subscriber"]));
        Self {
            log,
            subscribers: RwLock::default(),
            kept: Mutex::default(),
            events: gauges(
                "convoke_last_event_timestamp_seconds",
                "Arrival of the newest stored event that the platform pushed, at any process; 0: none.",
            ),
            handshakes: gauges(
                "convoke_last_handshake_timestamp_seconds",
                "Time of the last answered handshake of the platform, at any process; 0: never.",
            ),
        }
    }

    /// The entry of a configured subscriber, created if necessary.
    #[must_use]
    pub fn of(&self, subscriber_id: &Arc<str>) -> Arc<SubscriberSeen> {
        if let Some(known) = self.known(subscriber_id) {
            return known;
        }
        let latest = |gauges: &GaugeVec| Latest::new(gauges.with_label_values(&[&**subscriber_id]));
        let new = Arc::new(SubscriberSeen { event: latest(&self.events), handshake: latest(&self.handshakes) });
        let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(subscribers.entry(Arc::clone(subscriber_id)).or_insert(new))
    }

    /// The entry of a subscriber that may not be configured.
    #[must_use]
    pub fn known(&self, subscriber_id: &str) -> Option<Arc<SubscriberSeen>> {
        self.subscribers.read().unwrap_or_else(PoisonError::into_inner).get(subscriber_id).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Arc<str>, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the times of subscribers that have not been read yet.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; the next call continues.
    pub async fn recall(&self, subscribers: &[NamedSubscriber], now: Millis) -> Result<(), LogError> {
        for subscriber in subscribers {
            if self.kept().contains_key(&subscriber.id) {
                continue;
            }
            let seen = self.of(&subscriber.id);
            let (found, kept) = match tokio::time::timeout(SEARCH_TIMEOUT, self.log.last_push(&subscriber.id)).await {
                // Not marked as saved: by the next start the event may be too far back to be found, so it is saved soon.
                Ok(found) => (found?, None),
                Err(_) => {
                    let note = self.log.note(&name(&subscriber.id)).await?;
                    let noted = note.and_then(|note| note.parse().ok()).and_then(Millis::new);
                    (noted, noted)
                }
            };
            if let Some(at) = found {
                seen.event.raise(at);
            }
            if let Some(at) = self.log.handshakes(&subscriber.id).await?.newest {
                seen.handshake.raise(at);
            }
            self.kept().insert(Arc::clone(&subscriber.id), Kept { event: kept, at: now });
        }
        Ok(())
    }

    /// Takes the newest row of the log into account, whichever process stored it.
    pub fn note(&self, newest: &Record) {
        if newest.source == Source::Push.as_str()
            && let Some(seen) = self.known(&newest.subscriber_id)
        {
            seen.event.raise(newest.received_at);
        }
    }

    /// Saves what has changed.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn keep(&self, now: Millis) -> Result<(), LogError> {
        let known: Vec<(Arc<str>, Kept)> = self.kept().iter().map(|(id, kept)| (Arc::clone(id), *kept)).collect();
        for (id, kept) in known {
            let event = self.of(&id).event.get();
            // If the clock was set back, the time is saved all the same.
            if event.is_some() && event != kept.event && (now < kept.at || now.since(kept.at) >= SAVE_INTERVAL) {
                let text = event.map(|at| at.get().to_string()).unwrap_or_default();
                self.log.keep_note(&name(&id), &text).await?;
                self.kept().insert(id, Kept { event, at: now });
            }
        }
        Ok(())
    }
}
