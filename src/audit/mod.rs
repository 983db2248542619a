//! Compares the log with the stream, and a ledger with the log. Used by `audit`, `check`, `replay --missing` and the stream watch
//! ([`watch`]).
//!
//! Log and stream are read side by side. Both are in the order of the log, so only the difference has to be kept in memory: what
//! was found in one of them and not yet in the other.

pub mod mark;
mod seq_set;
pub mod watch;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::relay;
use crate::words::counted;
use convoke_bus::{Bus, Scan, StreamState};
use convoke_core::event::Record;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;
use convoke_log::{LogError, Operations};

/// Maximum number of rows that are read at a time.
const PAGE_ROWS: u32 = 1_000;

/// A row of the log that is not in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its sequence number.
    pub seq: Seq,
    /// Its ID.
    pub event_id: EventId,
}

/// The result of comparing log and stream.
#[derive(Debug, Default, Serialize)]
pub struct Comparison {
    /// Number of rows of the log that should be in the stream.
    pub expected: u64,
    /// Number of messages in the stream.
    pub messages: u64,
    /// Rows that should be in the stream and are not, for whatever reason.
    pub missing: Vec<Missing>,
    /// Number of missing rows that are older than the stream's oldest message, although the stream discarded them neither by age
    /// nor by size: it was purged.
    pub purged: u64,
    /// Number of missing rows that the relay has not published yet.
    pub unpublished: u64,
    /// Events of which the stream has more than one copy that was not replayed on purpose.
    pub doubled: Vec<EventId>,
    /// Copies that were replayed on purpose.
    pub replayed: u64,
    /// Number of rows that the relay set aside.
    pub set_aside: u64,
    /// Number of rows whose person was erased.
    pub forgotten: u64,
    /// Number of erased rows whose message is in the stream all the same.
    pub forgotten_there: u64,
    /// Number of rows that the stream has discarded as configured, or that were purged on purpose ([`accept_purged`]).
    pub before_stream: u64,
    /// Number of messages that belong to no event of the log.
    pub foreign: u64,
    /// The last row that was compared.
    #[serde(skip)]
    pub up_to: Seq,
    /// The stream as it was when the comparison began.
    #[serde(skip)]
    state: Option<StreamState>,
    /// The sequence number in the log of the stream's oldest message.
    #[serde(skip)]
    oldest: Option<Seq>,
    /// The last row that the relay had published.
    #[serde(skip)]
    published: Seq,
}

impl Comparison {
    /// What is wrong, with advice; `None`: nothing. `audit`, `check` and `replay --missing` print this text.
    #[must_use]
    pub fn verdict(&self) -> Option<String> {
        let mut said = Vec::new();
        let lost = (self.missing.len() as u64).saturating_sub(self.unpublished);
        if lost > 0 {
            let events = counted(lost, "event", "events");
            let (are, them) = if lost == 1 { ("is", "it") } else { ("are", "them") };
            let what = match self.purged {
                0 => format!("{events} of the log {are} not in the stream"),
                purged if purged == lost => {
                    format!("{events} {} purged from the stream", if lost == 1 { "was" } else { "were" })
                }
                purged => format!("{events} of the log are not in the stream, {purged} of them purged from it"),
            };
            let meant =
                if self.purged > 0 { " (if it was purged on purpose: `convoke audit --accept-purged`)" } else { "" };
            said.push(format!("{what}; `convoke replay --missing` restores {them}{meant}"));
        }
        if self.unpublished > 0 {
            let (events, are) =
                (counted(self.unpublished, "event", "events"), if self.unpublished == 1 { "is" } else { "are" });
            said.push(format!("{events} {are} not published yet; `convoke serve` publishes them"));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// The stream's last sequence number when the comparison began: no message up to it holds a missing row.
    #[must_use]
    pub fn last_message(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.last_sequence)
    }

    /// Whether a missing row was purged from the stream.
    fn purged_of(&self, seq: Seq) -> bool {
        seq <= self.published && self.oldest.is_none_or(|oldest| seq < oldest)
    }

    /// Saves the result, for `check` and for the stream watch, in place of their last one.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn keep(&self, log: &dyn Operations, bus: &Bus) -> anyhow::Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        let missing = self.missing.iter().filter(|missing| missing.seq <= self.published).count() as u64;
        mark::Mark::compared(log, bus.stream(), state, missing).await
    }
}

/// Saves the result like [`Comparison::keep`], but only logs a failure.
pub async fn keep(found: &Comparison, log: &dyn Operations, bus: &Bus) {
    if let Err(error) = found.keep(log, bus).await {
        tracing::warn!(error = format!("{error:#}"), "could not save the findings for `convoke check`");
    }
}

/// Decides which published rows the stream need not hold any more.
#[derive(Clone, Copy, Debug)]
struct Excuse {
    /// The stream discards its oldest messages by number or size.
    discards: bool,
    /// The stream discards messages at any place.
    thins: bool,
    max_age: Option<Duration>,
    now: Millis,
    /// The sequence number in the log of the stream's oldest message; rows that the stream discarded by itself are older.
    oldest: Option<Seq>,
    /// The stream was purged on purpose up to this row.
    accepted: Seq,
}

impl Excuse {
    fn new(state: &StreamState, now: Millis, oldest: Option<Seq>, accepted: Seq) -> Self {
        Self { discards: state.discards, thins: state.thins, max_age: state.max_age, now, oldest, accepted }
    }

    fn holds_for(&self, record: &Record) -> bool {
        let older = self.oldest.is_none_or(|oldest| record.seq < oldest);
        record.seq <= self.accepted
            || self.thins
            || (older && (self.discards || aged_out(record.received_at, self.max_age, self.now)))
    }
}

/// The last row up to which the stream was purged on purpose.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn accepted(log: &dyn Operations, stream: &str) -> Result<Seq, LogError> {
    let note = log.note(&accepted_name(stream)).await?;
    Ok(note.and_then(|note| note.parse().ok()).map_or(Seq::START, Seq))
}

/// Notes that the stream was purged on purpose of the rows that are purged according to `found`: they do not count as missing any
/// more. Returns the newest of them; `None` if there are none.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn accept_purged(log: &dyn Operations, stream: &str, found: &Comparison) -> Result<Option<Seq>, LogError> {
    let purged = found.missing.iter().filter(|missing| found.purged_of(missing.seq));
    let Some(newest) = purged.map(|missing| missing.seq).max() else { return Ok(None) };
    log.keep_note(&accepted_name(stream), &newest.0.to_string()).await?;
    Ok(Some(newest))
}

fn accepted_name(stream: &str) -> String {
    format!("purged on purpose {stream}")
}

/// Reads log and stream up to `up_to`.
///
/// The stream should hold the whole log, except for what it discarded by age or size, which is older than its oldest message, and
/// for what was purged on purpose.
///
/// # Errors
/// If the database or the bus cannot be read.
pub async fn compare(log: &dyn Operations, bus: &Bus, up_to: Seq) -> anyhow::Result<Comparison> {
    let state = bus.stream_state().await?.with_context(|| format!("there is no stream {}", bus.stream()))?;
    let set_aside = set_aside(log).await?;
    let published = relay::position(log).await?;
    let mut found = Comparison { messages: state.messages, up_to, published, ..Comparison::default() };
    let mut scan = bus.scan().await?;
    let excuse = Excuse::new(&state, log.now().await?, None, accepted(log, bus.stream()).await?);
    let mut walk = Walk::new(excuse, published);
    found.oldest = walk.oldest(log, &mut scan, &mut found).await?;
    walk.excuse.oldest = found.oldest;
    found.state = Some(state);
    let mut position = Seq::START;
    let (mut log_ended, mut stream_ended) = (false, false);
    while !(log_ended && stream_ended) {
        if !log_ended {
            let page = log.read(position, PAGE_ROWS).await?;
            log_ended = page.len() < PAGE_ROWS as usize || page.last().is_some_and(|record| record.seq >= up_to);
            for record in page.iter().take_while(|record| record.seq <= up_to) {
                position = record.seq;
                walk.row(record, &set_aside, &mut found);
            }
        }
        for _ in 0..PAGE_ROWS {
            let Some(entry) = (if stream_ended { None } else { scan.next().await? }) else {
                stream_ended = true;
                break;
            };
            walk.message(entry.id, entry.replay, &mut found);
        }
    }
    walk.finish(log, up_to, &mut found).await?;
    Ok(found)
}

struct Walk {
    excuse: Excuse,
    /// The relay has not published the rows after this one: they are missing, whatever the stream has discarded.
    published: Seq,
    log_only: HashMap<EventId, Seq>,
    /// Rows that need not be in the stream, but may be; the value tells whether the row was erased.
    excused: HashMap<EventId, bool>,
    /// Copies that were found in the stream and not (yet) in the log; replayed ones are counted separately.
    stream_only: HashMap<EventId, Copies>,
}

#[derive(Default)]
struct Copies {
    plain: u64,
    replayed: u64,
}

impl Walk {
    fn new(excuse: Excuse, published: Seq) -> Self {
        Self { excuse, published, log_only: HashMap::new(), excused: HashMap::new(), stream_only: HashMap::new() }
    }

    /// The sequence number in the log of the oldest message that is a first copy; the messages read on the way are counted.
    /// `None`: there are only replayed or foreign messages.
    async fn oldest(
        &mut self,
        log: &dyn Operations,
        scan: &mut Scan,
        found: &mut Comparison,
    ) -> anyhow::Result<Option<Seq>> {
        while let Some(entry) = scan.next().await? {
            self.message(entry.id, entry.replay, found);
            if let Some(id) = entry.id.filter(|_| !entry.replay)
                && let Some(seq) = log.find(&[id]).await?.remove(&id)
            {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    fn row(&mut self, record: &Record, set_aside: &HashMap<EventId, ()>, found: &mut Comparison) {
        let copies = self.stream_only.remove(&record.event_id);
        if let Some(copies) = &copies {
            self.surplus(record.event_id, copies, found);
        }
        let forgotten = record.event_info.is_none();
        if forgotten || set_aside.contains_key(&record.event_id) {
            *(if forgotten { &mut found.forgotten } else { &mut found.set_aside }) += 1;
            match copies {
                Some(_) => found.forgotten_there += u64::from(forgotten),
                None => drop(self.excused.insert(record.event_id, forgotten)),
            }
        } else if copies.is_some() {
            found.expected += 1;
        } else if record.seq <= self.published && self.excuse.holds_for(record) {
            found.before_stream += 1;
        } else {
            found.expected += 1;
            self.log_only.insert(record.event_id, record.seq);
        }
    }

    /// One of the copies of an event counts as the event; the others are counted here.
    fn surplus(&self, id: EventId, copies: &Copies, found: &mut Comparison) {
        let first = u64::from(copies.plain == 0);
        found.replayed += copies.replayed.saturating_sub(first);
        if copies.plain > 1 {
            found.doubled.push(id);
        }
    }

    fn message(&mut self, id: Option<EventId>, replay: bool, found: &mut Comparison) {
        let Some(id) = id else {
            found.foreign += 1;
            return;
        };
        if self.log_only.remove(&id).is_some() {
            return;
        }
        if let Some(forgotten) = self.excused.remove(&id) {
            found.forgotten_there += u64::from(forgotten);
            return;
        }
        let copies = self.stream_only.entry(id).or_default();
        if replay {
            copies.replayed += 1;
        } else {
            copies.plain += 1;
        }
    }

    /// Evaluates what is left over on either side.
    async fn finish(self, log: &dyn Operations, up_to: Seq, found: &mut Comparison) -> anyhow::Result<()> {
        found.missing = in_order(self.log_only);
        found.unpublished = found.missing.iter().filter(|missing| missing.seq > found.published).count() as u64;
        found.purged = found.missing.iter().filter(|missing| found.purged_of(missing.seq)).count() as u64;
        let left: Vec<EventId> = self.stream_only.keys().copied().collect();
        for ids in left.chunks(500) {
            let known = log.count(ids).await?;
            for id in ids {
                let copies = &self.stream_only[id];
                if !known.contains_key(id) {
                    found.foreign += copies.plain + copies.replayed;
                    continue;
                }
                found.replayed += copies.replayed;
                // Rows after `up_to` are published meanwhile; their messages are not copies.
                if copies.plain > 0 && log.find(&[*id]).await?.get(id).is_some_and(|seq| *seq <= up_to) {
                    found.doubled.push(*id);
                }
            }
        }
        Ok(())
    }
}

fn in_order(rows: HashMap<EventId, Seq>) -> Vec<Missing> {
    let mut rows: Vec<Missing> = rows.into_iter().map(|(event_id, seq)| Missing { seq, event_id }).collect();
    rows.sort_by_key(|missing| missing.seq);
    rows
}

/// Whether the stream may have discarded, because of its age, a message that was published at or after `received_at`.
fn aged_out(received_at: Millis, max_age: Option<Duration>, now: Millis) -> bool {
    // The clocks of the database and the bus may differ a little.
    max_age.is_some_and(|age| now.since(received_at) + age / 50 + Duration::from_secs(60) >= age)
}

async fn set_aside(log: &dyn Operations) -> anyhow::Result<HashMap<EventId, ()>> {
    let mut all = HashMap::new();
    let mut after = Seq::START;
    loop {
        let page = log.list_set_aside(relay::CURSOR, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.seq;
        all.extend(page.iter().map(|row| (row.event_id, ())));
    }
}

/// The result of comparing a ledger with the log.
#[derive(Debug, Default, Serialize)]
pub struct LedgerComparison {
    /// Number of acknowledged events.
    pub acknowledged: u64,
    /// Acknowledged events that are not in the log.
    pub missing: Vec<String>,
    /// Events that are in the log more than once.
    pub doubled: Vec<String>,
    /// Number of acknowledged events that are older than the retention.
    pub expired: u64,
    /// Number of lines that are not ledger lines.
    pub unreadable_lines: u64,
    /// Number of incomplete lines, as a killed simulator leaves them.
    pub cut_lines: u64,
}

impl LedgerComparison {
    /// What is wrong; `None`: nothing.
    #[must_use]
    pub fn verdict(&self) -> Option<String> {
        let mut said = Vec::new();
        let mut say = |count: u64, one: &str, many: &str, rest: &str| {
            if count > 0 {
                said.push(format!("{} {rest}", counted(count, one, many)));
            }
        };
        say(self.missing.len() as u64, "acknowledged event is", "acknowledged events are", "not in the log");
        say(self.doubled.len() as u64, "event is", "events are", "in the log more than once");
        say(self.unreadable_lines, "line", "lines", "of the ledger cannot be read");
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// Looks up every event of a ledger in the log. Events older than `kept_since` may have been dropped by the retention.
///
/// # Errors
/// If the database cannot be read.
pub async fn compare_ledger(
    log: &dyn Operations,
    ledger: impl Iterator<Item = std::io::Result<String>>,
    kept_since: Option<EventId>,
) -> anyhow::Result<LedgerComparison> {
    #[derive(serde::Deserialize)]
    struct Line {
        event_id: uuid::Uuid,
    }
    let mut found = LedgerComparison::default();
    let mut ids = Vec::with_capacity(500);
    // Several runs that append to the same ledger may acknowledge the same event.
    let mut seen = HashSet::new();
    let mut lines = ledger.peekable();
    while let Some(line) = lines.next() {
        let text = line.context("reading the ledger")?;
        match serde_json::from_str::<Line>(&text) {
            Ok(line) => {
                let id = EventId::from_uuid(line.event_id);
                if seen.insert(id) {
                    ids.push(id);
                }
            }
            Err(error) if error.is_eof() && text.starts_with('{') => found.cut_lines += 1,
            Err(_) => found.unreadable_lines += 1,
        }
        if ids.len() == 500 || lines.peek().is_none() {
            let counts = log.count(&ids).await?;
            for id in ids.drain(..) {
                found.acknowledged += 1;
                match counts.get(&id) {
                    Some(1) => {}
                    Some(_) => found.doubled.push(id.to_string()),
                    None if kept_since.is_some_and(|since| id < since) => found.expired += 1,
                    None => found.missing.push(id.to_string()),
                }
            }
        }
    }
    Ok(found)
}
