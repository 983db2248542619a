//! Compares the log with the stream, and a ledger with the log. `audit`, `check`, `replay --missing` and the stream watch
//! ([`watch`]) are its faces.
//!
//! Log and stream are walked side by side. Both are in the order of the log, so what has to be remembered is only what
//! one of them has and the other has not shown yet.

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

/// Rows read at a time.
const PAGE_ROWS: u32 = 1_000;

/// A row of the log that is not in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
}

/// What a comparison of log and stream found.
#[derive(Debug, Default, Serialize)]
pub struct Comparison {
    /// Rows of the log that should be in the stream.
    pub expected: u64,
    /// Messages of the stream.
    pub messages: u64,
    /// Rows that should be in the stream and are not, whatever took them from it.
    pub missing: Vec<Missing>,
    /// So many of them are older than the stream's oldest message, and it discarded them neither for their age nor for its
    /// size: somebody purged it of them.
    pub purged: u64,
    /// So many of them the relay has yet to publish.
    pub unpublished: u64,
    /// Events of which the stream has more than one copy that nobody asked for.
    pub doubled: Vec<EventId>,
    /// Copies that were replayed on purpose.
    pub replayed: u64,
    /// Rows that the relay set aside.
    pub set_aside: u64,
    /// Rows whose person was forgotten.
    pub forgotten: u64,
    /// Those of them whose message is in the stream all the same.
    pub forgotten_there: u64,
    /// Rows that the stream has discarded as configured, or that it was purged of on purpose ([`accept_purged`]).
    pub before_stream: u64,
    /// Messages that are of no event of the log.
    pub foreign: u64,
    /// The last row that was compared.
    #[serde(skip)]
    pub up_to: Seq,
    /// The stream as it was when the comparison began.
    #[serde(skip)]
    state: Option<StreamState>,
    /// Its oldest message's place in the log.
    #[serde(skip)]
    oldest: Option<Seq>,
    /// Up to where the relay had published.
    #[serde(skip)]
    published: Seq,
}

impl Comparison {
    /// What is wrong, and what helps; `None`: nothing. `audit`, `check` and `replay --missing` say it with these words.
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
            said.push(format!("{what}; `convoke replay --missing` puts {them} back{meant}"));
        }
        if self.unpublished > 0 {
            let (events, are) =
                (counted(self.unpublished, "event", "events"), if self.unpublished == 1 { "is" } else { "are" });
            said.push(format!("{events} {are} not published yet; `convoke serve` does it"));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// The newest message that was there when the comparison began: what is missing, none up to it holds.
    #[must_use]
    pub fn last_message(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.last_sequence)
    }

    /// Whether the stream was purged of this row, if it misses it.
    fn purged_of(&self, seq: Seq) -> bool {
        seq <= self.published && self.oldest.is_none_or(|oldest| seq < oldest)
    }

    /// Keeps what was found, for `check` and for the stream watch, in place of what they knew.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn keep(&self, log: &dyn Operations, bus: &Bus) -> anyhow::Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        let missing = self.missing.iter().filter(|missing| missing.seq <= self.published).count() as u64;
        mark::Mark::compared(log, bus.stream(), state, missing).await
    }
}

/// Keeps what was found, as [`Comparison::keep`]; that it could not is only logged.
pub async fn keep(found: &Comparison, log: &dyn Operations, bus: &Bus) {
    if let Err(error) = found.keep(log, bus).await {
        tracing::warn!(error = format!("{error:#}"), "could not save the findings for `convoke check`");
    }
}

/// Which rows of the log a stream need not hold, though they were published.
#[derive(Clone, Copy, Debug)]
struct Excuse {
    /// It discards messages for their number or size, from its beginning on …
    discards: bool,
    /// … or from anywhere.
    thins: bool,
    max_age: Option<Duration>,
    now: Millis,
    /// Its oldest message's place in the log: what the stream discards on its own is older.
    oldest: Option<Seq>,
    /// Up to here it was purged on purpose.
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

/// Up to which row the stream was purged on purpose.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn accepted(log: &dyn Operations, stream: &str) -> Result<Seq, LogError> {
    let note = log.note(&accepted_name(stream)).await?;
    Ok(note.and_then(|note| note.parse().ok()).map_or(Seq::START, Seq))
}

/// Notes that the stream was purged on purpose of what `found` says it was purged of: nobody misses it any more. Its newest row;
/// `None` if there is nothing of the kind.
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

/// Walks log and stream up to `up_to`.
///
/// The stream should hold the log, but for what it has discarded by age or size, which is older than its oldest message, and for
/// what it was purged of on purpose.
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
    /// Rows after this one the relay has yet to publish: they are missing, whatever the stream has discarded.
    published: Seq,
    log_only: HashMap<EventId, Seq>,
    /// Rows that need not be in the stream, and whose messages may be in it all the same; whether they were forgotten.
    excused: HashMap<EventId, bool>,
    /// Copies that the stream has shown and the log has not (yet), replayed ones apart.
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

    /// The place in the log of the oldest message that is a first copy; the messages read on the way are counted. `None`: there
    /// are only replayed or foreign ones.
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

    /// Of the copies of one event one is the event; the others are counted.
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

    /// What is left over on either side.
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
                // Rows beyond the stretch that was compared are published meanwhile; they are no copies.
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

/// Whether the stream may have discarded a message for its age that was published when this arrived, or later.
fn aged_out(received_at: Millis, max_age: Option<Duration>, now: Millis) -> bool {
    // The clocks of the database and of the bus may differ a little.
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

/// What a comparison of a ledger with the log found.
#[derive(Debug, Default, Serialize)]
pub struct LedgerComparison {
    /// Events that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged events that are not in the log.
    pub missing: Vec<String>,
    /// Events that are in the log more than once.
    pub doubled: Vec<String>,
    /// Acknowledged events that are beyond the retention.
    pub expired: u64,
    /// Lines that are no ledger lines.
    pub unreadable_lines: u64,
    /// Lines that a killed simulator did not write to their end.
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

/// Looks up every event of a ledger in the log. `kept_since`: older events may have been dropped by the retention.
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
    // Runs that append to one ledger may acknowledge an event again.
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
