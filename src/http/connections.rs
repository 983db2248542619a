//! The connections of one listener: how many there may be, and which of them go when there are too many.
//!
//! There is no cap for a source: behind a proxy all requests have one source, and whoever attacks from many would not meet
//! it. Instead nobody is turned away, and when the table is full, room is made at the cost of whoever is least likely to be
//! the platform: connections that never brought a signed delivery go before those that did, among them those of the source
//! that holds the most, among those the ones that were silent for longest. What waits for its commit is never cut, and
//! everybody has half a second to send a request. So a flood pays for itself, and who stands behind one proxy with others loses
//! nothing but what is idle.
//!
//! Room is made before it runs out, so that accepting need not wait for those who leave: while it waits, the kernel's queue
//! is full, and who finds it full comes again a second later, the platform as well as its attackers.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use prometheus::{IntCounter, IntGauge};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::metrics::Registry;
use convoke_core::throttle::Throttle;

/// Connections of the events listener, if there are file descriptors for so many.
const MOST: usize = 8192;

/// File descriptors kept for everything else: databases, the bus, the admin listener, files.
const RESERVED: u64 = 256;

/// When less than this part of the table is free, room is made until twice as much is: many leave at once, so that the
/// search for them costs little each.
const SPARE: usize = 16;

/// So much of an answer is handed out at a time.
const PIECE: usize = 64 << 10;

/// Nobody is sent away so soon: time for a request from the other side of the world. Longer would be kinder to the slow,
/// and let a flood fill the table with newcomers of whom none may be sent away.
const TENURE: Duration = Duration::from_millis(500);

/// Whoever does not take anything of an answer for so long does not read it any more.
const STALLED: Duration = Duration::from_secs(60);

/// If there is no room at all, it is looked for again after this time; while there is little, not more often.
const AGAIN: Duration = Duration::from_millis(5);

/// How many connections the events listener may hold. Raises the soft limit of file descriptors to the hard one first.
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
    if room < MOST {
        tracing::warn!(
            open_files = limit,
            connections = room,
            "few open files are allowed: raise the limit (ulimit -n, LimitNOFILE) to {}",
            MOST as u64 + RESERVED
        );
    }
    room
}

/// `None`: without a limit.
fn connections_within(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return MOST };
    // A quarter, if there is next to nothing: then connections are not what will fail first.
    let room = descriptors.saturating_sub(RESERVED).max(descriptors / 4);
    usize::try_from(room).unwrap_or(MOST).clamp(1, MOST)
}

/// The part of an address that one party holds: IPv6 gives everybody a /64.
pub(super) fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// One connection: who is at the other end, and what it does.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    source: IpAddr,
    opened: Instant,
    /// When something of it was last heard, in milliseconds after it was opened.
    heard: AtomicU64,
    under_way: AtomicUsize,
    /// Answers that are being sent.
    answers: AtomicUsize,
    storing: AtomicUsize,
    proven: AtomicBool,
    leaving: AtomicBool,
    evicted: Notify,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            source: source(peer.ip()),
            opened: Instant::now(),
            heard: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            storing: AtomicUsize::new(0),
            proven: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            evicted: Notify::new(),
        }
    }

    /// The address of the other end.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn touch(&self) {
        // 0 is for a connection of which nothing was heard.
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.heard.store(now, Ordering::Relaxed);
    }

    fn heard_at(&self) -> Instant {
        self.opened + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// A request has begun; it is under way until what is returned is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> UnderWay {
        self.touch();
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether no request is under way; the answers may be on their way yet.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Whether nothing is under way, not even an answer of which something was taken within `time`.
    #[must_use]
    pub fn is_silent(&self, time: Duration) -> bool {
        self.is_idle() && (self.answers.load(Ordering::Relaxed) == 0 || self.heard_at().elapsed() > time)
    }

    /// Whether no request of it has begun so far.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_idle() && self.heard.load(Ordering::Relaxed) == 0
    }

    /// How long it may be idle yet, if that may last `time`. An answer that is being sent is not idle while somebody takes it,
    /// however slowly.
    #[must_use]
    pub fn patience(&self, time: Duration) -> Duration {
        if !self.is_idle() {
            return time;
        }
        let sends = self.answers.load(Ordering::Relaxed) > 0;
        let time = if sends { time.max(STALLED) } else { time };
        time.saturating_sub(self.heard_at().elapsed())
    }

    /// It brought something signed: it is among the last to go, and does not go at all until what is returned is dropped.
    #[must_use]
    pub fn proven(&self) -> Storing<'_> {
        self.proven.store(true, Ordering::Relaxed);
        self.storing.fetch_add(1, Ordering::Relaxed);
        Storing(self)
    }

    fn evict(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.evicted.notify_one();
    }

    /// Waits until it has to make room.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct UnderWay(Arc<Connection>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.touch();
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer on its way: in pieces, so that it is known how much of it was taken.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// What was taken from the body and not yet from here.
    rest: Bytes,
    connection: Arc<Connection>,
}

impl Answer {
    /// Over this connection.
    #[must_use]
    pub fn new(body: Body, connection: &Arc<Connection>) -> Self {
        connection.answers.fetch_add(1, Ordering::Relaxed);
        Self { body, rest: Bytes::new(), connection: Arc::clone(connection) }
    }

    fn piece(&mut self) -> Option<Frame<Bytes>> {
        let length = self.rest.len().min(PIECE);
        (length > 0).then(|| Frame::data(self.rest.split_to(length)))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.connection.touch();
        if let Some(piece) = self.piece() {
            return Poll::Ready(Some(Ok(piece)));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.len() > PIECE => {
                    self.rest = data;
                    Poll::Ready(self.piece().map(Ok))
                }
                Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(other) => Poll::Ready(Some(Ok(other))),
            },
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.touch();
        self.connection.answers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A signed delivery that waits for its commit.
#[derive(Debug)]
pub struct Storing<'a>(&'a Connection);

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.0.storing.fetch_sub(1, Ordering::Relaxed);
    }
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

/// Where the events listener's connections are counted.
#[derive(Clone, Debug)]
struct Gauges {
    /// Those that are open.
    open: IntGauge,
    /// Those that had to make room.
    evicted: IntCounter,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    /// When room was last looked for.
    searched: Option<Instant>,
}

impl Connections {
    /// Room for so many, counted on `registry`.
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
            spare: most / SPARE,
            held: Mutex::default(),
            gauges,
            throttle: Throttle::new(1, Duration::from_secs(60)),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection that was accepted, and makes room for it if there is none.
    pub async fn admit(self: &Arc<Self>, peer: SocketAddr) -> Admitted {
        let permit = loop {
            if self.room.available_permits() <= self.spare {
                self.make_room();
            }
            // If all of them are new, or wait for their commits, that takes a while.
            if let Ok(Ok(permit)) = tokio::time::timeout(AGAIN, Arc::clone(&self.room).acquire_owned()).await {
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
            if held.searched.is_some_and(|at| at.elapsed() < AGAIN) {
                return;
            }
            held.searched = Some(Instant::now());
            let leaving =
                held.connections.values().filter(|connection| connection.leaving.load(Ordering::Relaxed)).count();
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
            tracing::warn!(evicted, suppressed, "too many connections: the most idle ones are closed");
        });
    }
}

/// Who has to go, at most `count` of them. While there are strangers, also such as are too new to go, it is one of them.
fn victims<'a>(connections: impl Iterator<Item = &'a Arc<Connection>>, count: usize) -> Vec<&'a Arc<Connection>> {
    let proven = |connection: &&Arc<Connection>| connection.proven.load(Ordering::Relaxed);
    let (known, strangers): (Vec<_>, Vec<_>) = connections.partition(proven);
    let mut candidates = if strangers.is_empty() { known } else { strangers };
    let mut holdings: HashMap<IpAddr, usize> = HashMap::new();
    for connection in &candidates {
        *holdings.entry(connection.source).or_default() += 1;
    }
    candidates.retain(|connection| {
        !connection.leaving.load(Ordering::Relaxed)
            && connection.storing.load(Ordering::Relaxed) == 0
            && connection.opened.elapsed() >= TENURE
    });
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

/// A connection in the table, until dropped.
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
        let mut connection = Connection::new(SocketAddr::new(address.parse().unwrap(), 1));
        connection.opened = Instant::now().checked_sub(TENURE).unwrap();
        connection.heard.store(heard, Ordering::Relaxed);
        Arc::new(connection)
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
    fn an_answer_that_is_being_taken_keeps_its_connection_and_one_that_is_not_does_not() {
        let connection = from("192.0.2.1", 0);
        let now = |heard: Duration| {
            connection.heard.store((connection.opened.elapsed() - heard).as_millis() as u64, Ordering::Relaxed);
            let idle = Duration::from_millis(100);
            (connection.is_silent(idle), connection.patience(idle).is_zero())
        };
        assert_eq!(now(Duration::from_millis(400)), (true, true), "without an answer");
        let mut answer = Answer::new(Body::from(vec![b'x'; 200 << 10]), &connection);
        assert_eq!(
            now(Duration::from_millis(400)),
            (true, false),
            "it is waited for at the end no longer, and else it is"
        );
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut sizes = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut answer).poll_frame(&mut context) {
            sizes.push(frame.into_data().unwrap().len() >> 10);
        }
        assert_eq!(sizes, [64, 64, 64, 8]);
        assert_eq!((connection.is_silent(TENURE), answer.is_end_stream()), (false, true));
        drop(answer);
        assert!(connection.is_silent(TENURE));
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
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_its_ipv4_one() {
        let source = |text: &str| source(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn descriptors_are_kept_for_everything_else() {
        assert_eq!(connections_within(None), MOST);
        assert_eq!(connections_within(Some(1 << 20)), MOST);
        assert_eq!(connections_within(Some(1024)), 768);
        assert_eq!(connections_within(Some(64)), 16);
        assert_eq!(connections_within(Some(0)), 1);
    }
}
