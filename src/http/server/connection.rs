//! One connection: its peer, its requests and its responses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use convoke_core::time::instant;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// A response is sent in chunks, so that it is visible how much of it the client has read.
const CHUNK_BYTES: usize = 64 << 10;

/// A client that has read nothing of a response for this long has stopped reading it.
const STALLED_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The part of an address that identifies one party: for IPv6 the /64 network, since every customer gets a whole one.
pub fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// One connection: its peer, its requests and its responses.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    pub(super) source: IpAddr,
    opened: Instant,
    /// Time of the last activity, in milliseconds after the connection was opened; 0: none so far.
    heard: AtomicU64,
    under_way: AtomicUsize,
    /// Number of responses that are being sent.
    answers: AtomicUsize,
    storing: AtomicUsize,
    proven: AtomicBool,
    leaving: AtomicBool,
    evicted: Notify,
}

impl Connection {
    pub(in crate::http) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            source: source(peer.ip()),
            opened: instant(),
            heard: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            storing: AtomicUsize::new(0),
            proven: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            evicted: Notify::new(),
        }
    }

    /// The address of the peer.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn touch(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.heard.store(now, Ordering::Relaxed);
    }

    pub(super) fn heard_at(&self) -> Instant {
        self.opened + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Notes the start of a request; it is under way until the returned value is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> UnderWay {
        self.touch();
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether no request is under way; responses may still be being sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Whether nothing is under way, and no response of which the client has read something within `time`.
    #[must_use]
    pub fn is_silent(&self, time: Duration) -> bool {
        self.is_idle() && (self.answers.load(Ordering::Relaxed) == 0 || self.heard_at().elapsed() > time)
    }

    /// Whether the connection has had no request so far.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_idle() && self.heard.load(Ordering::Relaxed) == 0
    }

    /// How much longer the connection may be idle, if `time` is the limit. While a response is being sent, the connection is not
    /// idle as long as the client reads, however slowly.
    #[must_use]
    pub fn idle_left(&self, time: Duration) -> Duration {
        if !self.is_idle() {
            return time;
        }
        let sends = self.answers.load(Ordering::Relaxed) > 0;
        let time = if sends { time.max(STALLED_ANSWER_TIMEOUT) } else { time };
        time.saturating_sub(self.heard_at().elapsed())
    }

    /// Notes that the connection brought a signed delivery: from now on it is among the last to be evicted, and it is not evicted
    /// at all until the returned value is dropped.
    #[must_use]
    pub fn proven(&self) -> Storing<'_> {
        self.proven.store(true, Ordering::Relaxed);
        self.storing.fetch_add(1, Ordering::Relaxed);
        Storing(self)
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether it may be evicted: no delivery of this connection waits for its commit.
    pub(super) fn may_leave(&self) -> bool {
        !self.is_leaving() && self.storing.load(Ordering::Relaxed) == 0
    }

    pub(super) fn evict(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.evicted.notify_one();
    }

    /// Waits until the connection is evicted.
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

/// The body of a response while it is sent: in chunks, so that it is known how much of it the client has read.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// The part that was taken from `body` and not sent yet.
    rest: Bytes,
    connection: Arc<Connection>,
}

impl Answer {
    /// A response body that is sent over `connection`.
    #[must_use]
    pub fn new(body: Body, connection: &Arc<Connection>) -> Self {
        connection.answers.fetch_add(1, Ordering::Relaxed);
        Self { body, rest: Bytes::new(), connection: Arc::clone(connection) }
    }

    fn chunk(&mut self) -> Option<Frame<Bytes>> {
        let length = self.rest.len().min(CHUNK_BYTES);
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
        if let Some(chunk) = self.chunk() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.len() > CHUNK_BYTES => {
                    self.rest = data;
                    Poll::Ready(self.chunk().map(Ok))
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

#[cfg(test)]
impl Connection {
    /// A connection that was opened `age` ago and was last active `heard` milliseconds after that.
    pub(super) fn of_age(peer: SocketAddr, age: Duration, heard: u64) -> Self {
        let mut connection = Self::new(peer);
        connection.opened = connection.opened.checked_sub(age).unwrap();
        connection.heard.store(heard, Ordering::Relaxed);
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_millis(500);

    #[test]
    fn an_answer_that_is_being_taken_keeps_its_connection_and_one_that_is_not_does_not() {
        let connection = Arc::new(Connection::of_age("192.0.2.1:1".parse().unwrap(), AGE, 0));
        let now = |heard: Duration| {
            connection.heard.store((connection.opened.elapsed() - heard).as_millis() as u64, Ordering::Relaxed);
            let idle = Duration::from_millis(100);
            (connection.is_silent(idle), connection.idle_left(idle).is_zero())
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
        assert_eq!((connection.is_silent(AGE), answer.is_end_stream()), (false, true));
        drop(answer);
        assert!(connection.is_silent(AGE));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_its_ipv4_one() {
        let source = |text: &str| source(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
