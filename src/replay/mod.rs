//! Publishes parts of the log once more; used by the command and by the admin listener.
//!
//! Rows that the relay has not published yet are left to the relay: the first copies in the stream are in the order of the log.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::cursor::Handover;
use crate::metrics::Label as _;
use crate::relay::{self, Encoder};
use convoke_bus::PublishError;
use convoke_bus::{Bus, Message};
use convoke_core::event::Record;
use convoke_core::id::Seq;
use convoke_core::time::Clock;
use convoke_log::{Filter, Operations};

/// Maximum number of windows in a row of which the bus accepts nothing.
const MAX_ATTEMPTS: u32 = 10;

/// The pause after such a window, and how long a lost connection may take to come back.
const RETRY_DELAY: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of messages that are published at a time.
const WINDOW_ROWS: u32 = 256;

/// What to publish again.
#[derive(Clone, Debug, Default)]
pub struct ReplayRequest {
    /// Rows that are missing in the stream according to an audit.
    pub missing: bool,
    /// Rows that were set aside as too large.
    pub set_aside: bool,
    /// Rows of the log.
    pub range: Option<Filter>,
    /// Publish even what the stream received within its duplicate window.
    pub again: bool,
}

/// The outcome of a replay, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Messages that were not in the stream, and are now.
    pub new: u64,
    /// How many of those got the suffix because of the duplicate window.
    pub suffixed: u64,
    /// Messages that the stream had within its duplicate window.
    pub duplicate: u64,
    /// Messages that are too large for the bus.
    pub too_large: u64,
    /// Rows that were not published because their person was erased.
    pub forgotten: u64,
}

impl ReplayCounts {
    /// Number of rows that are done.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.settled() + self.forgotten
    }

    const fn settled(&self) -> u64 {
        self.new + self.duplicate + self.too_large
    }
}

/// The result of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The outcome.
    pub counts: ReplayCounts,
    /// What an audit still finds after the missing rows were published; `None`: nothing.
    pub verdict: Option<String>,
    /// The suffix of `Nats-Msg-Id` with which a copy counts as a different message.
    pub suffix: String,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

/// Publishes again, until everything is done or `stop`. `owner` is the name under which the relay's lease is held meanwhile;
/// `progress` is called with the counts.
///
/// # Errors
/// If the database or the bus does not answer.
pub async fn replay(
    log: &dyn Operations,
    bus: &Bus,
    encoder: Encoder,
    owner: &str,
    request: &ReplayRequest,
    progress: &(dyn Fn(ReplayCounts) + Send + Sync),
    stop: &CancellationToken,
) -> anyhow::Result<Replayed> {
    bus.ensure_stream().await?;
    let mut replay = Replay {
        log,
        handover: Handover::new(log, relay::CURSOR, owner),
        bus,
        encoder,
        suffix: format!(".r{}", Clock::System.now().get()),
        again: request.again,
        not_held_up_to: 0,
        counts: ReplayCounts::default(),
        progress,
    };
    let outcome = tokio::select! {
        outcome = replay.run(request) => Some(outcome),
        () = stop.cancelled() => None,
    };
    let Replay { handover, suffix, counts, .. } = replay;
    let ended = handover.end().await;
    let stopped = outcome.is_none();
    let verdict = outcome.transpose()?.flatten();
    ended?;
    Ok(Replayed { counts, verdict, suffix, stopped })
}

struct Replay<'a> {
    log: &'a dyn Operations,
    handover: Handover<'a>,
    bus: &'a Bus,
    encoder: Encoder,
    /// The suffix with which a copy counts as a different message.
    suffix: String,
    /// Whether all messages get the suffix.
    again: bool,
    /// The stream holds none of the rows to be published up to this message: if it reports one as a duplicate, only its duplicate
    /// window has it.
    not_held_up_to: u64,
    counts: ReplayCounts,
    progress: &'a (dyn Fn(ReplayCounts) + Send + Sync),
}

/// A row to be published, and whether its ID has the suffix.
struct PendingMessage {
    seq: Seq,
    message: Message,
    suffixed: bool,
}

impl Replay<'_> {
    /// Returns what an audit finds at the end, if one was requested.
    async fn run(&mut self, request: &ReplayRequest) -> anyhow::Result<Option<String>> {
        let end = relay::position(self.log).await?;
        let verdict = if request.missing { self.missing(end).await? } else { None };
        if request.set_aside {
            self.not_held_up_to = 0;
            self.set_aside().await?;
        }
        if let Some(range) = &request.range {
            self.range(&Filter { up_to: Some(end), ..range.clone() }).await?;
        }
        Ok(verdict)
    }

    /// Publishes the rows that an audit finds missing. Returns what the audit still finds after that.
    async fn missing(&mut self, end: Seq) -> anyhow::Result<Option<String>> {
        let mut found = audit::compare(self.log, self.bus, end).await?;
        self.not_held_up_to = found.last_message();
        self.rows(found.missing.iter().map(|missing| missing.seq).collect()).await?;
        if !found.missing.is_empty() {
            found = audit::compare(self.log, self.bus, end).await?;
        }
        audit::keep(&found, self.log, self.bus).await;
        Ok(found.verdict())
    }

    async fn range(&mut self, filter: &Filter) -> anyhow::Result<()> {
        let mut after = Seq::START;
        loop {
            let page = self.log.select(filter, after, WINDOW_ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            self.add(&page).await?;
        }
    }

    async fn set_aside(&mut self) -> anyhow::Result<()> {
        let mut after = Seq::START;
        loop {
            let page = self.log.list_set_aside(relay::CURSOR, after, WINDOW_ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            self.rows(page.iter().map(|row| row.seq).collect()).await?;
        }
    }

    /// Publishes these rows, which are in the order of the log and mostly consecutive.
    async fn rows(&mut self, rows: Vec<Seq>) -> anyhow::Result<()> {
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.peek() {
            let mut page = self.log.read(Seq(first.0 - 1), WINDOW_ROWS).await?;
            let last = page.last().map_or(*first, |record| record.seq);
            let wanted: HashSet<Seq> = std::iter::from_fn(|| rows.next_if(|seq| *seq <= last)).collect();
            page.retain(|record| wanted.contains(&record.seq));
            self.add(&page).await?;
        }
        Ok(())
    }

    /// Publishes `records`, and retries a few times what the bus does not accept now.
    async fn add(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        for record in records {
            match self.encoder.encode(record.row(), true) {
                Some(message) => {
                    let waits = PendingMessage { seq: record.seq, message, suffixed: false };
                    waiting.push(if self.again { self.with_suffix(waits) } else { waits });
                }
                None => self.counts.forgotten += 1,
            }
        }
        let mut published = HashSet::new();
        let mut attempts = 0;
        while !waiting.is_empty() {
            let before = self.counts.settled();
            let failure = self.publish(&mut waiting, &mut published).await?;
            let Some(reason) = failure else { continue };
            // Only attempts without any progress count: after a message that is too large, for example, the others are still to
            // be sent.
            attempts = if self.counts.settled() > before { 0 } else { attempts + 1 };
            if attempts == MAX_ATTEMPTS {
                bail!(
                    "NATS did not accept an event: {}; {} were published before it",
                    reason.as_str(),
                    self.counts.new
                );
            }
            if attempts > 0 {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            self.bus.wait_connected(CONNECT_TIMEOUT).await.context("publishing")?;
        }
        (self.progress)(self.counts);
        self.take_up(records, &published).await
    }

    /// Publishes the messages once, and leaves those that must be sent again in `waiting`. Returns why the bus did not accept one
    /// of them.
    async fn publish(
        &mut self,
        waiting: &mut Vec<PendingMessage>,
        published: &mut HashSet<Seq>,
    ) -> anyhow::Result<Option<PublishError>> {
        self.handover.take().await?;
        let window: Vec<Message> = waiting.iter().map(|waits| waits.message.clone()).collect();
        let results = self.bus.publish(&window, None).await;
        let mut failure = None;
        for (waits, result) in std::mem::take(waiting).into_iter().zip(results) {
            match result {
                Ok(ack) if ack.duplicate && !waits.suffixed && ack.sequence <= self.not_held_up_to => {
                    waiting.push(self.with_suffix(waits));
                    self.counts.suffixed += 1;
                    continue;
                }
                // The first attempt got through, only its acknowledgement was lost.
                Ok(ack) if ack.duplicate && (waits.suffixed || self.not_held_up_to > 0) => self.counts.new += 1,
                Ok(ack) if ack.duplicate => self.counts.duplicate += 1,
                Ok(_) => self.counts.new += 1,
                Err(PublishError::TooLarge) => {
                    self.counts.too_large += 1;
                    continue;
                }
                Err(reason) => {
                    failure = Some(reason);
                    waiting.push(waits);
                    continue;
                }
            }
            published.insert(waits.seq);
        }
        Ok(failure)
    }

    fn with_suffix(&self, waits: PendingMessage) -> PendingMessage {
        let id = format!("{}{}", waits.message.id, self.suffix);
        PendingMessage { message: Message { id, ..waits.message }, suffixed: true, ..waits }
    }

    /// Removes published rows from the ones that are set aside.
    async fn take_up(&self, records: &[Record], published: &HashSet<Seq>) -> anyhow::Result<()> {
        let Some(first) = records.first() else { return Ok(()) };
        for row in self.log.list_set_aside(relay::CURSOR, Seq(first.seq.0 - 1), WINDOW_ROWS).await? {
            if published.contains(&row.seq) {
                self.log.take_up(relay::CURSOR, row.seq).await?;
            }
        }
        Ok(())
    }
}
