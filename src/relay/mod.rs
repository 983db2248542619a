//! The cursor `bus`: publishes the log to JetStream, in the order of the log, at least once.
//!
//! It reads a page, publishes it as one window in which each message requires the previous one to be the last in the stream,
//! waits for every acknowledgement, and advances its position past the messages that were acknowledged without a gap. This
//! requirement keeps the order: if a message in a window fails, all messages after it fail too, and the messages of an owner
//! whose lease expired unnoticed are refused.

mod message;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use message::{Encoder, meeting_subjects, subject};
use window::{RelayLease, Rows, Sent};

use crate::cursor::lease::{CLAIM_TIME, LEASE_TIME, MIN_TURN_TIME, RENEW_INTERVAL, TURN_POLL_INTERVAL};
use crate::cursor::{Cursor, Progress, Retry};
use crate::metrics::{Counters, Label as _, Registry};
use crate::telemetry::traces;
use convoke_bus::{Behind, Bus, BusError, Message, PublishError, StreamState};
use convoke_core::event::Row;
use convoke_core::id::Seq;
use convoke_core::throttle::Throttle;
use convoke_core::time::instant;
use convoke_log::recent::RecentRows;
use convoke_log::{Log, LogError, Moved, Operations};

/// The cursor's name.
pub const CURSOR: &str = "bus";

/// Maximum number of rows that are read, and of messages that are published, at a time.
pub const WINDOW_ROWS: u32 = 512;

/// How often an idle relay checks whether the stream still exists.
const STREAM_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Time limit for that check. A cluster whose stream has lost its leader does not answer, and requests sent before there is a new
/// leader are never answered; so it is asked again soon.
const STREAM_TIMEOUT: Duration = Duration::from_millis(2_500);

/// While there is more to publish, the position in the database trails the acknowledged messages by this much: advancing it is a
/// commit, for which ingest would have to wait. After a crash, the messages in between are published again and recognised as
/// copies.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

/// How long to wait for a connection that was just lost, or is just being made, before that counts as a failure.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// What happened to an acknowledged message, as in the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
enum Published {
    /// The message was new.
    New,
    /// The message was in the stream already.
    Duplicate,
}

/// Metrics of the relay.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    published: Counters<Published>,
    errors: Counters<PublishError>,
}

impl RelayMetrics {
    /// Registers the metrics, at zero.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let (published, errors) = ("convoke_published_total", "convoke_publish_errors_total");
        Self {
            published: registry.counters(published, "Messages that the stream acknowledged.", "outcome"),
            errors: registry.counters(errors, "Publishes that NATS did not accept.", "reason"),
        }
    }
}

/// The last row of the log that was published.
///
/// # Errors
/// If the database cannot be read.
pub async fn position(log: &dyn Operations) -> Result<Seq, LogError> {
    let cursors = log.cursors().await?;
    Ok(cursors.iter().find(|cursor| cursor.name == CURSOR).map_or(Seq::START, |cursor| cursor.position))
}

/// The relay.
#[derive(Debug)]
pub struct Relay {
    log: Arc<dyn Log>,
    recent: Arc<RecentRows>,
    bus: Arc<Bus>,
    encoder: Encoder,
    metrics: RelayMetrics,
    owner: String,
    held: Option<RelayLease>,
    stream: Option<KnownStream>,
    /// Creation time of the stream that was last seen, and the highest sequence number seen in it; both outlive `stream`.
    created_at: Option<i128>,
    highest: u64,
    differences: Vec<String>,
    /// When the lease was last handed over to a process that claimed it.
    yielded: Option<Instant>,
    throttle: Throttle,
}

/// What is known about the stream.
#[derive(Debug)]
struct KnownStream {
    last_sequence: u64,
    at: Instant,
}

impl Relay {
    /// The relay from `log` to `bus`. `owner` is the name of this process among the replicas.
    #[must_use]
    pub fn new(
        log: Arc<dyn Log>,
        recent: Arc<RecentRows>,
        bus: Arc<Bus>,
        encoder: Encoder,
        metrics: RelayMetrics,
        owner: String,
    ) -> Self {
        Self {
            log,
            recent,
            bus,
            encoder,
            metrics,
            owner,
            held: None,
            stream: None,
            created_at: None,
            highest: 0,
            differences: Vec::new(),
            yielded: None,
            throttle: Throttle::new(10, Duration::from_secs(60)),
        }
    }

    /// Takes or renews the lease if necessary; `None` if another process has it.
    async fn hold(&mut self) -> Result<Option<&mut RelayLease>, Retry> {
        let often = if self.takes_turns() { TURN_POLL_INTERVAL } else { RENEW_INTERVAL };
        if self.held.as_ref().is_none_or(|held| held.renewed.elapsed() > often) {
            let asked = instant();
            let leased = self.log.lease(CURSOR, &self.owner, LEASE_TIME).await.map_err(|error| log_failed(&error))?;
            self.held = match (leased, self.held.take()) {
                (None, _) => None,
                (Some(leased), Some(held))
                    if held.position == leased.position && held.renewed.elapsed() < LEASE_TIME =>
                {
                    Some(RelayLease { renewed: asked, wanted: leased.wanted, ..held })
                }
                (Some(leased), _) => {
                    // Taken again, or the position was moved by another process in the meantime: the stream may have grown too,
                    // and rows in memory may have been erased.
                    self.stream = None;
                    self.recent.clear();
                    Some(RelayLease::new(leased, asked))
                }
            };
        }
        Ok(self.held.as_mut())
    }

    /// Returns the stream's last sequence number. Asks for the stream, and creates it if necessary, unless that was done a moment
    /// ago.
    async fn look(&mut self) -> Result<u64, Retry> {
        if let Some(seen) = &self.stream {
            return Ok(seen.last_sequence);
        }
        let denials = self.bus.denials();
        let looked = match tokio::time::timeout(STREAM_TIMEOUT, self.bus.ensure_stream()).await {
            Ok(looked) => looked.map_err(|error| (PublishError::Other, error.to_string())),
            Err(_) => {
                if self.bus.denials() == denials {
                    self.bus.reconnect().await;
                }
                Err((PublishError::Timeout, format!("reading the stream's state: no answer within {STREAM_TIMEOUT:?}")))
            }
        };
        let state = looked.map_err(|(otherwise, reason)| {
            let kind = if !self.bus.connected() {
                PublishError::Disconnected
            } else if self.bus.denials() != denials {
                PublishError::Permission
            } else {
                otherwise
            };
            self.metrics.errors.of(kind).inc();
            Retry { reason, soon: false }
        })?;
        self.notice(&state);
        self.stream = Some(KnownStream { last_sequence: state.last_sequence, at: instant() });
        Ok(state.last_sequence)
    }

    /// Logs changes of the stream that operators should know, each once.
    fn notice(&mut self, state: &StreamState) {
        let stream = self.bus.stream();
        if state.created_now {
            tracing::info!(stream, "created the stream");
        }
        if self.created_at.is_some_and(|before| before != state.created_at) {
            tracing::warn!(
                stream,
                "the stream was deleted and created again, so its messages are gone: `convoke replay --missing` \
                 restores them"
            );
        }
        // The server acknowledges before it calls fsync: after a power cut, or when restored from a backup, the stream may have
        // lost its newest messages.
        if self.created_at == Some(state.created_at) && state.last_sequence < self.highest {
            tracing::warn!(
                stream,
                lost = self.highest - state.last_sequence,
                "the stream lost its newest messages: `convoke replay --missing` restores them"
            );
        }
        self.created_at = Some(state.created_at);
        self.highest = state.last_sequence;
        if state.differences != self.differences {
            if !state.differences.is_empty() {
                tracing::warn!(
                    stream,
                    differences = state.differences.join("; "),
                    "the stream differs from the \
                                                                                    settings"
                );
            }
            self.differences.clone_from(&state.differences);
        }
    }

    /// Publishes a page. The position advances past the messages that were acknowledged without a gap: a little later if all
    /// were, otherwise at once.
    async fn publish(&mut self, page: &Rows, last_sequence: u64) -> Result<Progress, Retry> {
        // Rows that were erased have no message; the position passes them.
        let window = page.rows().filter_map(|row| self.encoder.encode(row, false).map(|message| (row.seq, message)));
        let (seqs, messages): (Vec<Seq>, Vec<Message>) = window.unzip();
        let end = page.rows().last().map_or(Seq::START, |row| row.seq);
        let read_on = page.is_full() && matches!(page, Rows::Read(_));
        let before = self.held.as_ref().and_then(|held| held.at);
        let asked = instant();
        let mut sent = self.send(&messages, last_sequence, read_on.then_some(end)).await;
        let last = self.count(&sent, last_sequence);
        if let Some((to, moved)) = sent.moved.take() {
            self.moved(to, asked, moved)?;
        }
        let acked = sent.acked();
        let at = sent.results[..acked].last().and_then(|result| result.ok()).map(|ack| ack.sequence).or(before);
        if let Some(reason) = sent.failure() {
            if let Some(to) = acked.checked_sub(1).and_then(|last| seqs.get(last)) {
                self.advance(*to).await?;
                if let Some(held) = &mut self.held {
                    held.at = at;
                }
            }
            // The messages after the gap may or may not be in the stream: check before going on.
            self.stream = None;
            return match reason {
                PublishError::TooLarge => {
                    if let Some(row) = page.rows().find(|row| row.seq == seqs[acked]) {
                        self.set_aside(row, messages[acked].payload.len()).await?;
                    }
                    Ok(Progress::Worked)
                }
                _ if acked > 0 => Ok(Progress::Worked),
                reason => {
                    let soon = reason == PublishError::WrongSequence;
                    Err(Retry { reason: format!("publishing to {}: {}", self.bus.stream(), reason.as_str()), soon })
                }
            };
        }
        self.stream = Some(KnownStream { last_sequence: last, at: instant() });
        if let Some(held) = &mut self.held {
            (held.published, held.at) = (end, at);
            held.ahead = sent.ahead.filter(|page| !page.is_empty());
        }
        Ok(if page.is_full() { Progress::More } else { Progress::Worked })
    }

    /// Sends a window. While its acknowledgements are outstanding, the page after `read_on` is read, and the position follows the
    /// last window. A relay that has lost the lease notices it there, possibly only after this window. The order holds all the
    /// same: it publishes the same messages as the new owner, and each of them requires the same predecessor.
    async fn send(&self, messages: &[Message], last_sequence: u64, read_on: Option<Seq>) -> Sent {
        let due =
            self.held.as_ref().filter(|held| held.settled.elapsed() >= SETTLE_INTERVAL).and_then(RelayLease::unsettled);
        let at = self.held.as_ref().and_then(|held| held.at);
        let behind_newest = Behind { last_sequence, copies: at.map_or(0, |at| last_sequence.saturating_sub(at)) };
        // Each span belongs to the trace of its delivery, and lasts until the window is acknowledged.
        let spans: Vec<_> = messages
            .iter()
            .filter_map(|message| traces::publish(&message.subject, &message.id, message.traceparent.as_deref()))
            .collect();
        let (results, ahead, moved) = tokio::join!(
            async {
                let results = self.bus.publish(messages, Some(behind_newest)).await;
                drop(spans);
                results
            },
            async { self.log.read(read_on?, WINDOW_ROWS).await.ok() },
            async { Some((due?, self.log.advance(CURSOR, &self.owner, due?, LEASE_TIME).await)) },
        );
        Sent { results, ahead, moved }
    }

    /// Counts the results of a window. Returns the highest sequence number in the stream after it.
    fn count(&mut self, sent: &Sent, last_sequence: u64) -> u64 {
        let mut last = last_sequence;
        for ack in sent.results.iter().filter_map(|result| result.ok()) {
            let published = if ack.duplicate { Published::Duplicate } else { Published::New };
            self.metrics.published.of(published).inc();
            last = last.max(ack.sequence);
        }
        self.highest = self.highest.max(last);
        // A copy that was acknowledged takes no sequence number, so the messages after it were refused; that is not a failure.
        let copies = sent.results.iter().take(sent.acked()).any(|result| result.is_ok_and(|ack| ack.duplicate));
        if let Some(reason) = sent.failure().filter(|reason| !(copies && *reason == PublishError::WrongSequence)) {
            self.metrics.errors.of(reason).inc();
        }
        last
    }

    async fn advance(&mut self, to: Seq) -> Result<(), Retry> {
        let asked = instant();
        let moved = self.log.advance(CURSOR, &self.owner, to, LEASE_TIME).await;
        self.moved(to, asked, moved)?;
        if let Some(held) = &mut self.held {
            (held.published, held.ahead) = (to, None);
        }
        Ok(())
    }

    /// Gives the lease to the process that claimed it. Only the lease holder publishes, so that no other messages come in between
    /// those of a window: if exactly as many others were inserted as messages were refused, the sequence numbers would match
    /// again, and the rest of the window would be accepted after the gap.
    async fn hand_over(&mut self) -> Progress {
        self.release().await;
        self.stream = None;
        self.yielded = Some(instant());
        Progress::Waiting
    }

    /// Whether another process claimed the lease a moment ago, and will probably claim it again.
    fn takes_turns(&self) -> bool {
        self.yielded.is_some_and(|at| at.elapsed() < LEASE_TIME)
    }

    /// Advances the position to the last row up to which everything was acknowledged.
    async fn settle(&mut self) -> Result<(), Retry> {
        match self.held.as_ref().and_then(RelayLease::unsettled) {
            Some(to) => self.advance(to).await,
            None => Ok(()),
        }
    }

    /// Handles the result of advancing the position to `to`.
    fn moved(&mut self, to: Seq, asked: Instant, moved: Result<Moved, LogError>) -> Result<(), Retry> {
        let moved = moved.map_err(|error| {
            // As long as the database cannot be written, nothing is published over and over again: the lease must be renewed
            // first, which is a write too.
            self.held = None;
            log_failed(&error)
        })?;
        match moved {
            Moved::Yes { wanted } => {
                if let Some(held) = &mut self.held {
                    (held.position, held.wanted) = (to, wanted);
                    (held.renewed, held.settled) = (asked, instant());
                }
                Ok(())
            }
            Moved::LeaseLost => {
                self.held = None;
                self.stream = None;
                Err(Retry { reason: "the lease was lost".to_owned(), soon: true })
            }
        }
    }

    /// Sets aside a row that the bus will never accept, and advances past it.
    async fn set_aside(&mut self, row: Row<'_>, size: usize) -> Result<(), Retry> {
        let reason = format!("too large for NATS: {size} bytes");
        self.throttle.run("set aside", |suppressed| {
            tracing::warn!(seq = row.seq.0, event_id = %row.event_id, size, suppressed,
                "an event is too large for NATS and was set aside: it is in the log and in the table set_aside, not \
                 in the stream. Raise max_payload of NATS, then run `convoke replay --set-aside`");
        });
        self.log.set_aside(CURSOR, row.seq, row.event_id, &reason).await.map_err(|error| log_failed(&error))?;
        self.advance(row.seq).await
    }
}

impl Cursor for Relay {
    fn name(&self) -> &'static str {
        CURSOR
    }

    async fn tick(&mut self) -> Result<Progress, Retry> {
        if let Err(error) = self.bus.wait_connected(CONNECT_TIMEOUT).await {
            // Do not keep the lease: another replica may have a connection.
            self.stream = None;
            if self.held.is_some() {
                self.release().await;
            }
            let refused = matches!(error, BusError::Refused(_));
            let reason = if refused { PublishError::Permission } else { PublishError::Disconnected };
            self.metrics.errors.of(reason).inc();
            return Err(Retry { reason: error.to_string(), soon: false });
        }
        let Some(held) = self.hold().await? else {
            if !self.takes_turns() {
                return Ok(Progress::Standby);
            }
            self.log.claim(CURSOR, &self.owner, CLAIM_TIME).await.map_err(|error| log_failed(&error))?;
            return Ok(Progress::Waiting);
        };
        if held.wanted && held.since.elapsed() >= MIN_TURN_TIME {
            return Ok(self.hand_over().await);
        }
        let position = held.published;
        let ahead = held.ahead.take();
        if self.stream.as_ref().is_some_and(|seen| seen.at.elapsed() > STREAM_POLL_INTERVAL) {
            self.stream = None;
        }
        let last_sequence = self.look().await?;
        let page = match ahead {
            Some(records) => Rows::Read(records),
            None => match self.recent.after(position, WINDOW_ROWS as usize) {
                rows if !rows.is_empty() => Rows::Recent(rows),
                _ => Rows::Read(self.log.read(position, WINDOW_ROWS).await.map_err(|error| log_failed(&error))?),
            },
        };
        if page.rows().next().is_none() {
            self.settle().await?;
            if self.held.as_ref().is_some_and(|held| held.wanted) {
                return Ok(self.hand_over().await);
            }
            return Ok(if self.takes_turns() { Progress::Waiting } else { Progress::Idle });
        }
        self.publish(&page, last_sequence).await
    }

    async fn release(&mut self) {
        if let Err(error) = self.settle().await {
            tracing::debug!(%error, "could not save the position: some events will be published again");
        }
        if self.held.take().is_some()
            && let Err(error) = self.log.release(CURSOR, &self.owner).await
        {
            tracing::debug!(%error, "could not release the lease; it expires");
        }
    }
}

fn log_failed(error: &LogError) -> Retry {
    Retry { reason: error.to_string(), soon: false }
}
