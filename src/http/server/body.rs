//! Request bodies while they arrive: limits on their size, their time, and the memory that all of them take together.
//!
//! A body that is complete within [`UNCOUNTED_TIME`] is never counted. All others are counted, and when together they hold too
//! much memory, the oldest one is dropped. A client that sends slowly on purpose therefore loses its request, however many such
//! clients there are, while an event of a few kilobytes is complete long before.
//!
//! Large bodies are rare among events. Only a few are read at the same time, and not for long; the others wait unread, which
//! costs their clients more than the server. A flood of large bodies therefore leaves the CPU to the small ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Time limit for a complete body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of bytes of a rejected body that are read and discarded, so that the client gets to see the response.
const MAX_DRAINED_BYTES: usize = 4 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A body that is incomplete after this time, or larger than this, is counted.
const UNCOUNTED_TIME: Duration = Duration::from_millis(20);
const MAX_UNCOUNTED_BYTES: usize = 16 << 10;

/// Maximum number of bodies larger than [`MAX_UNCOUNTED_BYTES`] that are read at the same time.
const MAX_LARGE_BODIES: usize = 64;

/// Time limit for reading one large body, without its wait for its turn.
const LARGE_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The minimum that is counted for a body, including its request.
const MIN_COUNTED_BYTES: usize = 4 << 10;

/// Maximum for all counted bodies together, unless the limit of a single body is larger.
const MAX_HELD_BYTES: usize = 32 << 20;

/// Why a body could not be read.
#[derive(Debug)]
pub enum NoBody {
    /// It is larger than the limit.
    TooLarge,
    /// It took longer than [`BODY_TIMEOUT`].
    TooSlow,
    /// It was the oldest when all bodies together held too much.
    Crowded,
    /// The connection ended before the body was complete.
    Cut(String),
}

/// What the request head says about the body.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    length: Option<usize>,
    asks: bool,
}

impl Announced {
    /// Reads `Content-Length` and `Expect`.
    pub fn of(headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { length, asks: headers.contains_key(EXPECT) }
    }
}

/// All counted bodies of one listener.
#[derive(Debug)]
pub struct Bodies {
    limit: usize,
    most: usize,
    held: Mutex<Held>,
    large: Semaphore,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    next: u64,
    /// By age, oldest first.
    bodies: BTreeMap<u64, (usize, Arc<Notify>)>,
}

/// A counted body. Dropping it ends the counting.
#[derive(Debug)]
struct Counted<'a> {
    bodies: &'a Bodies,
    id: u64,
    crowded: Arc<Notify>,
}

impl Bodies {
    /// For bodies of at most `limit` bytes each.
    pub fn new(limit: usize) -> Self {
        Self { limit, most: MAX_HELD_BYTES.max(limit), held: Mutex::default(), large: Semaphore::new(MAX_LARGE_BODIES) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, bytes: usize) -> Counted<'_> {
        let crowded = Arc::new(Notify::new());
        let mut held = self.held();
        let id = held.next;
        held.next += 1;
        held.bodies.insert(id, (0, Arc::clone(&crowded)));
        self.grow(&mut held, id, MIN_COUNTED_BYTES + bytes);
        Counted { bodies: self, id, crowded }
    }

    /// Adds `bytes` to one body, and drops the oldest bodies while the total is too large; the oldest may be the same body.
    fn grow(&self, held: &mut Held, id: u64, bytes: usize) {
        let Some((size, _)) = held.bodies.get_mut(&id) else { return };
        *size += bytes;
        held.bytes += bytes;
        while held.bytes > self.most && held.bodies.len() > 1 {
            let Some((_, (size, crowded))) = held.bodies.pop_first() else { return };
            held.bytes -= size;
            crowded.notify_one();
        }
    }

    /// Reads the complete body, if it is within the limit and arrives in time. Of a body that is too large, the rest is read for
    /// a while, unless its client sent `Expect: 100-continue`.
    ///
    /// # Errors
    /// [`NoBody`].
    pub async fn read(&self, announced: Announced, body: &mut Body) -> Result<Bytes, NoBody> {
        if announced.length.is_some_and(|length| length > self.limit) {
            drain(announced, body).await;
            return Err(NoBody::TooLarge);
        }
        let deadline = Instant::now() + BODY_TIMEOUT;
        let mut reading = Reading { first: Bytes::new(), all: BytesMut::new(), limit: self.limit };
        let is_large = announced.length.is_some_and(|length| length > MAX_UNCOUNTED_BYTES);
        let early = if is_large { Ok(Step::Large) } else { timeout(UNCOUNTED_TIME, reading.read(body, None)).await };
        let result = match early {
            Ok(Step::Done(result)) => result,
            early @ (Ok(Step::Large) | Err(_)) => {
                let turn = match early {
                    Ok(_) => Some(timeout_at(deadline, self.large.acquire()).await.map_err(|_| NoBody::Crowded)?),
                    Err(_) => None,
                };
                let deadline =
                    if turn.is_some() { deadline.min(Instant::now() + LARGE_BODY_TIMEOUT) } else { deadline };
                let counted = self.count(reading.settle());
                tokio::select! {
                    biased;
                    () = counted.crowded.notified() => Err(NoBody::Crowded),
                    step = timeout_at(deadline, reading.read(body, Some(&counted))) => match step {
                        Ok(Step::Done(result)) => result,
                        Ok(Step::Large) => Err(NoBody::TooLarge),
                        Err(_) => Err(NoBody::TooSlow),
                    }
                }
            }
        };
        if let Err(NoBody::TooLarge) = result {
            drop(reading);
            drain(announced, body).await;
            return Err(NoBody::TooLarge);
        }
        result.map(|()| reading.whole())
    }
}

impl Counted<'_> {
    fn grow(&self, bytes: usize) {
        self.bodies.grow(&mut self.bodies.held(), self.id, bytes);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut held = self.bodies.held();
        if let Some((size, _)) = held.bodies.remove(&self.id) {
            held.bytes -= size;
        }
    }
}

/// The part of a body that has arrived.
struct Reading {
    /// The first piece. It is nearly always the only one, and then nothing is copied.
    first: Bytes,
    all: BytesMut,
    limit: usize,
}

enum Step {
    Done(Result<(), NoBody>),
    /// The body is incomplete, and too large to go on uncounted.
    Large,
}

impl Reading {
    /// Reads on. Cancel-safe: the future may be dropped at any time, and the method called again.
    async fn read(&mut self, body: &mut Body, counted: Option<&Counted<'_>>) -> Step {
        while !body.is_end_stream() {
            let data = match body.frame().await {
                None => break,
                Some(Err(error)) => return Step::Done(Err(NoBody::Cut(error.to_string()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_) => continue,
                },
            };
            let length = self.first.len() + self.all.len() + data.len();
            if length > self.limit {
                return Step::Done(Err(NoBody::TooLarge));
            }
            if self.first.is_empty() && self.all.is_empty() {
                self.first = data;
            } else {
                self.settle();
                let room = self.all.capacity();
                self.all.extend_from_slice(&data);
                if let Some(counted) = counted {
                    counted.grow(self.all.capacity() - room);
                }
            }
            if counted.is_none() && length > MAX_UNCOUNTED_BYTES && !body.is_end_stream() {
                return Step::Large;
            }
        }
        Step::Done(Ok(()))
    }

    /// Copies the first piece, which keeps the connection's whole buffer alive. Returns the number of bytes held after that.
    fn settle(&mut self) -> usize {
        if !self.first.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.capacity()
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

/// Reads and discards the rest of a request, so that the client gets to see the response.
pub async fn drain_request(request: Request) {
    let announced = Announced::of(request.headers());
    drain(announced, &mut request.into_body()).await;
}

/// Reads and discards the rest of a body for a while: if the connection were closed before the end of the request, the response
/// would be lost with it. A client that sent `Expect: 100-continue` gets the response instead of the go-ahead, so nothing is read
/// from it.
pub async fn drain(announced: Announced, body: &mut Body) {
    if announced.asks {
        return;
    }
    let rest = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > MAX_DRAINED_BYTES {
                return;
            }
        }
    };
    // Bounded on purpose. A client that sends for longer than this may not get to see the response.
    let _ = timeout(DRAIN_TIMEOUT, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_crowded(counted: &Counted<'_>) -> bool {
        use futures_util::FutureExt as _;
        counted.crowded.notified().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_bodies_go_when_all_together_hold_too_much() {
        let bodies = Bodies::new(256 << 10);
        let size = (8 << 20) - MIN_COUNTED_BYTES;
        let mut counted: Vec<_> = (0..4).map(|_| bodies.count(size)).collect();
        assert!(!counted.iter().any(is_crowded));
        counted.push(bodies.count(size));
        assert_eq!(counted.iter().map(is_crowded).collect::<Vec<_>>(), [true, false, false, false, false]);
        counted[2].grow(1);
        assert!(is_crowded(&counted[1]));
        drop(counted);
        assert_eq!(bodies.held().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_wait_their_turn_and_small_ones_do_not() {
        let bodies = Bodies::new(256 << 10);
        let read = async |length: usize, mut body: Body| {
            bodies.read(Announced { length: Some(length), asks: false }, &mut body).await
        };
        let whole = |length: usize| Body::from(vec![b' '; length]);
        let stalled = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let begun = Instant::now();
        let slow = futures_util::future::join_all((0..MAX_LARGE_BODIES + 1).map(|_| read(100_000, stalled())));
        let (slow, large, small) = tokio::join!(
            slow,
            async { (read(100_000, whole(100_000)).await.map(|body| body.len()), begun.elapsed()) },
            async { (read(1_000, whole(1_000)).await.map(|body| body.len()), begun.elapsed()) },
        );
        assert!(slow.iter().all(|result| matches!(result, Err(NoBody::TooSlow))), "{slow:?}");
        assert!(matches!(small, (Ok(1_000), took) if took < UNCOUNTED_TIME), "{small:?}");
        assert!(
            matches!(large, (Ok(100_000), took) if took >= LARGE_BODY_TIMEOUT && took < 2 * LARGE_BODY_TIMEOUT),
            "{large:?}"
        );
    }

    #[test]
    fn one_body_alone_may_be_larger_than_all_together() {
        let bodies = Bodies::new(64 << 20);
        let one = bodies.count(80 << 20);
        assert!(!is_crowded(&one));
        let next = bodies.count(0);
        assert!(is_crowded(&one) && !is_crowded(&next));
        drop((one, next));
        assert_eq!(bodies.held().bytes, 0);
    }
}
