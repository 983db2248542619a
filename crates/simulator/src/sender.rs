//! The connections: each takes a delivery, sends it, notes the answer, takes the next.

use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::macros::format_description;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Fault, Target};
use super::fresh::Job;
use super::ledger::Ledger;
use super::people::mix;
use super::queue::{Outcome, Queue, Turn};
use super::report::Failure;
use super::response::Response;
use convoke_core::id::EventId;
use convoke_core::sign::{Signer, hex_into, itoa};
use convoke_core::time::{Clock, Millis};

/// How long a connection rests when the receiver cannot be reached, if nothing else sets the pace.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What all connections of a run share.
pub(super) struct Shared {
    pub target: Arc<Target>,
    pub signer: Signer,
    pub ledger: Option<Ledger>,
    pub clock: Clock,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
    /// A retry or copy gets an envelope of its own.
    pub resign: bool,
    /// New events come at a rate, so that unreachable receivers need not slow them down.
    pub paced: bool,
    /// Makes nonces and request ids.
    pub salt: u64,
    pub stop: CancellationToken,
    pub queue: Mutex<Queue>,
    /// Held by the one connection that waits for the next delivery to fall due; the others wait for it.
    pub turn: tokio::sync::Mutex<()>,
    /// Something was added to the queue, or nothing is under way any more.
    pub changed: Notify,
}

impl Shared {
    /// The queue. A connection that panicked leaves it usable: its counts may be off by the delivery it had.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how the last delivery went and takes the next; `false` at the end of the run.
    async fn next(&self, job: &mut Job, settled: Option<Outcome>) -> io::Result<bool> {
        let stop = self.stop.is_cancelled();
        let turn = {
            let now = Instant::now();
            let mut queue = self.queue();
            if let Some(outcome) = settled
                && queue.settle(job, outcome, now)
            {
                self.changed.notify_one();
            }
            if stop { Turn::Done } else { queue.turn(job, now)? }
        };
        match turn {
            Turn::Send => return Ok(true),
            Turn::Done => return Ok(false),
            Turn::Wait(_) => {}
        }
        let _only_one_waits = tokio::select! {
            guard = self.turn.lock() => guard,
            () = self.stop.cancelled() => return Ok(false),
        };
        loop {
            let turn = self.queue().turn(job, Instant::now())?;
            let until = match turn {
                Turn::Send => return Ok(true),
                Turn::Done => return Ok(false),
                Turn::Wait(until) => until,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = async { match until { Some(until) => sleep_until(until).await, None => std::future::pending().await } } => {}
                () = self.stop.cancelled() => return Ok(false),
            }
        }
    }
}

/// Runs one connection until the run is over.
///
/// # Errors
/// The ledger or the truth cannot be written: the run must end, since its record would be wrong.
pub(super) async fn connection(shared: &Shared) -> io::Result<()> {
    let mut client = Client::new(Arc::clone(&shared.target));
    let mut request = RequestWriter::new(&shared.target);
    let (mut job, mut line, mut settled) = (Job::empty(), Vec::new(), None);
    // One timer for all requests: moving it is much cheaper than making one each.
    let mut limit = pin!(sleep(shared.timeout));
    while shared.next(&mut job, settled.take()).await? {
        let bytes = request.event(shared, &job);
        limit.as_mut().reset(Instant::now() + shared.timeout);
        let outcome = match deliver(&mut client, bytes, limit.as_mut()).await {
            Ok(Response { status: 200, .. }) => {
                // A copy that shares no flag follows an acknowledgement.
                let first = job.acknowledged.as_ref().map_or(!job.copy, |flag| !flag.swap(true, Relaxed));
                if let (true, Some(ledger)) = (first, &shared.ledger) {
                    let id = EventId::of(shared.signer.app_id(), job.occurred_at, &job.info);
                    ledger.note(&mut line, id, shared.signer.app_id(), job.event, shared.clock.now())?;
                }
                Outcome::Acknowledged { first }
            }
            Ok(response) => Outcome::Failed(Failure::Status(response.status)),
            Err(failure) => Outcome::Failed(failure),
        };
        if outcome == Outcome::Failed(Failure::Connect) && !shared.paced {
            // As fast as possible means as fast as the receiver, not as fast as its port can refuse.
            let _cut_short = timeout(RETRY_DELAY, shared.stop.cancelled()).await;
        }
        settled = Some(outcome);
    }
    Ok(())
}

/// Sends one request and waits for its answer, at most until `limit`.
async fn deliver(client: &mut Client, request: &[u8], limit: std::pin::Pin<&mut Sleep>) -> Result<Response, Failure> {
    tokio::select! {
        biased;
        answer = client.exchange(request) => answer.map_err(|fault| match fault {
            Fault::Connect(_) | Fault::PlainHttp => Failure::Connect,
            Fault::Broken => Failure::Broken,
            Fault::Malformed => Failure::Malformed,
        }),
        () = limit => Err(Failure::Timeout),
    }
}

/// Writes requests with the platform's headers (manual, the examples of section 6.2.3), into the same memory again and again.
pub(super) struct RequestWriter {
    /// Request line and the headers that do not change, up to the value of `Date`.
    head: Vec<u8>,
    date: Vec<u8>,
    date_written: Option<Instant>,
    body: Vec<u8>,
    bytes: Vec<u8>,
}

impl RequestWriter {
    pub(super) fn new(target: &Target) -> Self {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json;charset=UTF-8\r\nConnection: keep-alive\r\n\
             Pragma: No-cache\r\nCache-Control: no-cache\r\nDate: ",
            target.path, target.authority
        );
        let (body, bytes) = (Vec::with_capacity(1024), Vec::with_capacity(2048));
        Self { head: head.into_bytes(), date: Vec::new(), date_written: None, body, bytes }
    }

    /// The request that delivers `job`: the same bytes again for a retry, or new ones if retries are signed again.
    fn event(&mut self, shared: &Shared, job: &Job) -> &[u8] {
        let try_number = u64::from(job.failures) * 2 + u64::from(job.copy);
        let (timestamp, salt) = if shared.resign && try_number > 0 {
            (shared.clock.now().get(), mix(shared.salt ^ mix(try_number)))
        } else {
            (job.occurred_at.get(), shared.salt)
        };
        let salt = mix(salt ^ mix(job.number));
        self.write(&shared.signer, &shared.clock, timestamp, salt, &job.info)
    }

    /// A signed request; nonce and `X-Request-ID` come from `salt`.
    pub(super) fn write(&mut self, signer: &Signer, clock: &Clock, timestamp: i64, salt: u64, info: &[u8]) -> &[u8] {
        self.body.clear();
        signer.envelope_into(&mut self.body, timestamp, itoa(nonce(salt), &mut [0; 20]), info);
        if self.date_written.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.date = http_date(clock.now()).into_bytes();
            self.date_written = Some(Instant::now());
        }
        let mut request_id = [0; 32];
        hex_into(&salt.to_be_bytes(), &mut request_id[..16]);
        hex_into(&mix(salt).to_be_bytes(), &mut request_id[16..]);
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(&self.date);
        bytes.extend_from_slice(b"\r\nX-Request-ID: ");
        bytes.extend_from_slice(&request_id);
        bytes.extend_from_slice(b"\r\nContent-Length: ");
        let length = i64::try_from(self.body.len()).unwrap_or(i64::MAX);
        bytes.extend_from_slice(itoa(length, &mut [0; 20]));
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The form of the header `Date`.
pub(super) fn http_date(at: Millis) -> String {
    let format =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    at.date_time().format(format).unwrap_or_default()
}

/// Eight decimal digits, as in the manual's samples.
pub(super) fn nonce(salt: u64) -> i64 {
    i64::try_from(mix(salt ^ 3) % 90_000_000).unwrap_or(0) + 10_000_000
}
