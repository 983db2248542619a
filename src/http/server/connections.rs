//! The connections of one listener: their maximum number, and which of them are evicted when there are too many.
//!
//! There is no limit per source address: behind a proxy all requests have the same source, and an attack from many addresses
//! would not reach such a limit. Instead every connection is accepted, and when the table is nearly full, the connections that
//! are least likely to be the platform's are evicted. Connections that never brought a signed delivery go before those that did;
//! among them, those of the source that holds the most connections; among those, the ones that have been silent for longest. A
//! connection whose delivery waits for its commit is never closed, and every connection has half a second to send a request. So a
//! flood evicts its own connections, and clients that share one proxy lose only idle ones.
//!
//! Room is made before it runs out, so that accepting need not wait until evicted connections are closed. While it waits, the
//! kernel's queue fills up, and a client that finds the queue full retries only after a second, the platform as well as an
//! attacker.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Connection;
use crate::metrics::Registry;
use convoke_core::throttle::Throttle;
use convoke_core::time::instant;

/// Maximum of the events listener, if there are enough file descriptors.
const MAX_CONNECTIONS: usize = 8192;

/// File descriptors kept for everything else: databases, the bus, the admin listener, files.
const RESERVED_DESCRIPTORS: u64 = 256;

/// When less than this fraction of the places (1/16) is free, connections are evicted until twice that fraction is free: many at
/// once, so that the search costs little per connection.
const SPARE_PART: usize = 16;

/// Minimum age of a connection before it may be evicted: enough time for a request from the other side of the world. With a
/// longer time, a flood could fill the table with new connections, none of which may be evicted.
const MIN_AGE: Duration = Duration::from_millis(500);

/// Minimum time between two searches for connections to evict.
const SEARCH_INTERVAL: Duration = Duration::from_millis(5);

/// Maximum number of connections of the events listener. Raises the soft limit of file descriptors to the hard limit first.
#[must_use]
pub fn room_by_descriptors() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut limit = current;
    if current.is_some() && current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => limit = maximum,
            Err(error) => tracing::warn!(%error, "could not raise the limit of open files"),
        }
    }
    let room = connections_within(limit);
    if room < MAX_CONNECTIONS {
        tracing::warn!(
            open_files = limit,
            connections = room,
            "the limit of open files is low: raise it (ulimit -n, LimitNOFILE) to {}",
            MAX_CONNECTIONS as u64 + RESERVED_DESCRIPTORS
        );
    }
    room
}

/// `None`: no limit.
fn connections_within(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return MAX_CONNECTIONS };
    // A quarter if there are very few descriptors: then connections are not the first thing to fail.
    let room = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(descriptors / 4);
    usize::try_from(room).unwrap_or(MAX_CONNECTIONS).clamp(1, MAX_CONNECTIONS)
}

/// All connections of one listener.
#[derive(Debug)]
pub struct Connections {
    room: Arc<Semaphore>,
    spare: usize,
    held: Mutex<Held>,
    gauges: Option<Gauges>,
    throttle: Throttle,
}

/// Metrics of the events listener's connections.
#[derive(Clone, Debug)]
struct Gauges {
    /// Open connections.
    open: IntGauge,
    /// Connections closed to make room for others.
    evicted: IntCounter,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    /// When the last search for connections to evict was made.
    searched: Option<Instant>,
}

impl Connections {
    /// Room for `most` connections; the metrics are registered with `registry`.
    #[must_use]
    pub fn new(most: usize, registry: Option<&Registry>) -> Arc<Self> {
        let gauges = registry.map(|registry| Gauges {
            open: registry.int_gauge("convoke_connections", "Open connections to the events listener."),
            evicted: registry.counter(
                "convoke_connections_evicted_total",
                "Connections to the events listener that were closed to make room for others.",
            ),
        });
        Arc::new(Self {
            room: Arc::new(Semaphore::new(most)),
            spare: most / SPARE_PART,
            held: Mutex::default(),
            gauges,
            throttle: Throttle::new(1, Duration::from_secs(60)),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits an accepted connection. If there is no room, it is made first.
    pub async fn admit(self: &Arc<Self>, peer: SocketAddr) -> Admitted {
        let permit = loop {
            if self.room.available_permits() <= self.spare {
                self.make_room();
            }
            // Takes a while if all of them are new, or have deliveries that wait for their commits.
            if let Ok(Ok(permit)) = tokio::time::timeout(SEARCH_INTERVAL, Arc::clone(&self.room).acquire_owned()).await
            {
                break permit;
            }
        };
        let connection = Arc::new(Connection::new(peer));
        let mut held = self.held();
        let id = held.next;
        held.next += 1;
        held.connections.insert(id, Arc::clone(&connection));
        if let Some(gauges) = &self.gauges {
            gauges.open.inc();
        }
        drop(held);
        Admitted { connection, id, connections: Arc::clone(self), _permit: permit }
    }

    fn make_room(&self) {
        let evicted = {
            let mut held = self.held();
            if held.searched.is_some_and(|at| at.elapsed() < SEARCH_INTERVAL) {
                return;
            }
            held.searched = Some(instant());
            let leaving = held.connections.values().filter(|connection| connection.is_leaving()).count();
            let wanted = (2 * self.spare).max(1).saturating_sub(self.room.available_permits() + leaving);
            let victims = victims(held.connections.values(), wanted);
            victims.iter().for_each(|victim| victim.evict());
            victims.len()
        };
        if evicted == 0 {
            return;
        }
        if let Some(gauges) = &self.gauges {
            gauges.evicted.inc_by(evicted as u64);
        }
        self.throttle.run("crowded", |suppressed| {
            tracing::warn!(evicted, suppressed, "too many connections: closing the most idle ones");
        });
    }
}

/// The connections to evict, at most `count`. As long as there are unproven connections, even ones too new to be evicted, only
/// unproven ones are chosen.
fn victims<'a>(connections: impl Iterator<Item = &'a Arc<Connection>>, count: usize) -> Vec<&'a Arc<Connection>> {
    let (known, strangers): (Vec<_>, Vec<_>) = connections.partition(|connection| connection.is_proven());
    let mut candidates = if strangers.is_empty() { known } else { strangers };
    let mut holdings: HashMap<IpAddr, usize> = HashMap::new();
    for connection in &candidates {
        *holdings.entry(connection.source).or_default() += 1;
    }
    candidates.retain(|connection| connection.may_leave() && connection.age() >= MIN_AGE);
    let rank = |connection: &&Arc<Connection>| {
        let holds = holdings.get(&connection.source).copied().unwrap_or(0);
        (Reverse(holds), connection.heard_at())
    };
    if count < candidates.len() {
        candidates.select_nth_unstable_by_key(count, rank);
        candidates.truncate(count);
    }
    candidates
}

/// A connection in the table. Dropping it frees the place.
#[derive(Debug)]
pub struct Admitted {
    /// The connection.
    pub connection: Arc<Connection>,
    id: u64,
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.held().connections.remove(&self.id);
        if let Some(gauges) = &self.connections.gauges {
            gauges.open.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str, heard: u64) -> Arc<Connection> {
        Arc::new(Connection::of_age(SocketAddr::new(address.parse().unwrap(), 1), MIN_AGE, heard))
    }

    fn chosen(connections: &[Arc<Connection>], count: usize) -> Vec<usize> {
        let victims = victims(connections.iter(), count);
        let mut places: Vec<usize> =
            victims.iter().map(|victim| connections.iter().position(|it| Arc::ptr_eq(it, victim)).unwrap()).collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn the_source_that_holds_the_most_gives_up_those_that_were_silent_for_longest() {
        let all = [
            from("192.0.2.1", 0),
            from("198.51.100.1", 50_000),
            from("198.51.100.1", 10_000),
            from("198.51.100.1", 90_000),
        ];
        assert_eq!(chosen(&all, 1), [2]);
        assert_eq!(chosen(&all, 2), [1, 2]);
        assert_eq!(chosen(&all, 4), [0, 1, 2, 3]);
    }

    #[test]
    fn one_that_brought_something_signed_goes_last_and_one_that_is_being_stored_not_at_all() {
        let all = [from("198.51.100.1", 0), from("198.51.100.1", 0), from("198.51.100.1", 10_000)];
        drop(all[0].proven());
        let storing = all[1].proven();
        assert_eq!(chosen(&all, 1), [2]);
        assert_eq!(chosen(&all, 3), [2]);
        assert_eq!(chosen(&all[..2], 2), [0]);
        drop(storing);
        assert_eq!(chosen(&all[..2], 2), [0, 1]);
        let new = Arc::new(Connection::new("192.0.2.1:1".parse().unwrap()));
        assert_eq!(chosen(&[new, Arc::clone(&all[0])], 1), [0_usize; 0], "a stranger goes first, when it may");
    }

    #[test]
    fn whoever_has_just_come_has_time_to_say_something() {
        let all = [Arc::new(Connection::new("198.51.100.1:1".parse().unwrap())), from("192.0.2.1", 90_000)];
        assert_eq!(chosen(&all, 1), [1]);
        assert_eq!(chosen(&all[..1], 1), [0_usize; 0]);
    }

    #[test]
    fn behind_one_proxy_the_idle_ones_go() {
        let all = [from("10.0.0.1", 20_000), from("10.0.0.1", 0), from("10.0.0.1", 10_000)];
        assert_eq!(chosen(&all, 1), [1]);
    }

    #[test]
    fn descriptors_are_kept_for_everything_else() {
        assert_eq!(connections_within(None), MAX_CONNECTIONS);
        assert_eq!(connections_within(Some(1 << 20)), MAX_CONNECTIONS);
        assert_eq!(connections_within(Some(1024)), 768);
        assert_eq!(connections_within(Some(64)), 16);
        assert_eq!(connections_within(Some(0)), 1);
    }
}
