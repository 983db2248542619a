//! Who watches: places, and their connections.
//!
//! A connection with nothing under way is closed after a while, and so a stream counts as under way, but not for ever: whoever
//! does not read any more is let go of, and the listener's own rule for idle connections closes what is left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::KEEP_ALIVE;
use crate::http::connections::{Connection, UnderWay};

/// Who was not ready for more for so long does not read: something is said every [`KEEP_ALIVE`].
const PATIENCE: Duration = Duration::from_secs(60);

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The log.
    Events,
    /// What the page shows.
    Live,
}

/// How many watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub events: usize,
    pub live: usize,
}

impl Counts {
    fn of(&mut self, what: What) -> &mut usize {
        match what {
            What::Events => &mut self.events,
            What::Live => &mut self.live,
        }
    }
}

/// All who watch.
#[derive(Debug)]
pub(super) struct Watchers {
    most: usize,
    places: Mutex<Places>,
    counts: watch::Sender<Counts>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: HashMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    /// When its body was last asked for more.
    asked: Instant,
    under_way: Option<UnderWay>,
}

impl Watchers {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, places: Mutex::default(), counts: watch::Sender::default() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for whoever watches over this connection; `None` if all are taken.
    pub fn admit(self: &Arc<Self>, what: What, connection: Option<&Arc<Connection>>) -> Option<Watcher> {
        let mut places = self.places();
        if places.taken.len() >= self.most {
            return None;
        }
        let id = places.next;
        places.next += 1;
        places.taken.insert(id, Place { asked: Instant::now(), under_way: connection.map(Connection::request) });
        drop(places);
        self.counts.send_modify(|counts| *counts.of(what) += 1);
        Some(Watcher { id, what, all: Arc::clone(self) })
    }

    /// How many watch, as it changes.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// Lets go of those who do not read, now and then.
    pub async fn reap(&self) {
        loop {
            tokio::time::sleep(KEEP_ALIVE).await;
            for place in self.places().taken.values_mut() {
                if place.asked.elapsed() > PATIENCE {
                    place.under_way = None;
                }
            }
        }
    }

    /// Lets go of all of them.
    pub fn end(&self) {
        for place in self.places().taken.values_mut() {
            place.under_way = None;
        }
    }
}

/// A place, until dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    id: u64,
    what: What,
    all: Arc<Watchers>,
}

impl Watcher {
    /// Whoever watches is ready for more.
    pub fn ready(&self) {
        if let Some(place) = self.all.places().taken.get_mut(&self.id) {
            place.asked = Instant::now();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.all.places().taken.remove(&self.id);
        self.all.counts.send_modify(|counts| *counts.of(self.what) -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_counted_and_given_back() {
        let watchers = Watchers::new(2);
        let one = watchers.admit(What::Events, None).unwrap();
        let _other = watchers.admit(What::Live, None).unwrap();
        assert!(watchers.admit(What::Live, None).is_none());
        assert_eq!(*watchers.counts().borrow(), Counts { events: 1, live: 1 });
        drop(one);
        assert_eq!(*watchers.counts().borrow(), Counts { events: 0, live: 1 });
        assert!(watchers.admit(What::Live, None).is_some());
    }

    #[test]
    fn whoever_is_let_go_of_does_not_keep_its_connection() {
        let watchers = Watchers::new(2);
        let connection = Arc::new(Connection::new("192.0.2.1:1".parse().unwrap()));
        let watcher = watchers.admit(What::Events, Some(&connection)).unwrap();
        assert!(!connection.is_idle());
        watchers.end();
        assert!(connection.is_idle());
        drop(watcher);
    }
}
