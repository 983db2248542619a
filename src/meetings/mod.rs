//! The cursor `meetings`: keeps the analyst tables `meetings`, `attendance` and `recordings`.
//!
//! # The rules
//!
//! Events come late, and in any order. So what is kept of a run is a merge that is commutative, associative and idempotent:
//! of each fact the least or the greatest, or a set of them; the rows are a function of that, and the same in whatever order, how
//! often, and in whatever pieces the events came.
//!
//! - A **run** is a subscriber and a `meeting_uuid`; an event without one makes no row. Of meeting numbers, if there are
//!   several, the greatest counts.
//! - **Times.** `created_at` and `started_at` are the first, `modified_at`, `cancelled_at`, `ended_at`, `concluded_at` the last
//!   of their events.
//! - **Status.** `concluded` once there is a conclusion, whatever comes after. Else, if it was held (a start, a stay or a
//!   recording): `ended` if it neither started, nor did anybody come, after its last end, else `live`, and `ended_at` is
//!   null. Else `cancelled` or `scheduled`.
//! - A **stay** is the joins and lefts of a run with one participant (without `participant_id`: one call number, else one
//!   name, else user, else account) and one `joinTime`. Of several joins, or lefts, the one with the greatest event id counts,
//!   which is the newest. What the left tells counts more than what the join tells.
//! - A stay ends with its left; if there is none, at the run's first end or conclusion at or after its beginning
//!   (`meeting_end`), whether or not the run goes on later; if there is none of these either, it is `open`. So an end that becomes known
//!   closes stays, and a left or an earlier end that becomes known later corrects that.
//! - A stay without `joinTime` begins when its newest join happened; a left without `leftTime` ends it when the left happened.
//! - **People** are distinct `person`s, or else names, or else stays. The peak counts each once, on however many
//!   devices; who leaves in the same millisecond makes room first.
//! - A **recording** is a `record.finish`. The run's newest `record.ready` describes all that were finished before it.
//!
//! # The work
//!
//! A step takes a page of the log and folds it into the runs that it concerns. Each second the rows that changed are written in
//! pieces, the position with the last one, each in a transaction that asks whether the lease is still held. What is written ahead of the position
//! does no harm: to fold a page again changes nothing. Runs stay in memory as long as it is, up to a bound; the others are read back. A
//! row that the database never takes is found by halving the page, and set aside.

mod forget;
mod ready;
mod rebuild;
mod run;
mod stay;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cursor::{Cursor, LEASE, Progress, RENEW, Retry};
use crate::event::Seq;
use crate::log::{Changes, Fact, Lease, Log, LogError, Moved, RecordingRow, RunKey};
use crate::metrics::Metrics;
use crate::tail::Tail;
pub use rebuild::RebuildError;
use run::Run;
pub use stay::stay_id;

/// The cursor's name.
pub const CURSOR: &str = "meetings";

/// Rows of the log in one step.
const PAGE: u32 = 2048;

/// Rows of the log that may wait in memory: what comes in while this cursor rests, and some.
pub const FOLLOWED: usize = 8192;

/// Rows of the tables in one transaction. While it lasts, an embedded database cannot store events.
const PIECE: usize = 256;

/// While it follows the log, the tables are written this often: ingest waits for each commit, and who joins and leaves
/// in between, or meets with many, is written once.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// At so many rows of the log they are written in any case.
const UNWRITTEN: usize = 4_096;

/// At the end of the log so much time is left for more to gather.
const GATHER: Duration = Duration::from_millis(250);

/// How often the log is looked at for what other processes append.
const LOOK: Duration = Duration::from_millis(500);

/// Rows of the tables that are kept in memory, of runs that are not over: about 20 MB.
const KEPT: usize = 30_000;

/// A UUID that is longer than this is none, and too long for an index.
pub const LONGEST_UUID: usize = 512;

/// The cursor.
#[derive(Debug)]
pub struct Meetings {
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    owner: String,
    held: Option<Held>,
    tail: Option<Arc<Tail>>,
    /// How many rows of the log are tried at once.
    page: u32,
}

/// The lease, while we believe to hold it, and what only its holder may rely on.
#[derive(Debug)]
struct Held {
    /// The tables are as new as this …
    position: Seq,
    /// … and the runs in memory as this.
    folded: Seq,
    renewed: Instant,
    written: Instant,
    runs: Runs,
    unwritten: Unwritten,
}

/// What was folded and is not in the tables yet.
#[derive(Debug, Default)]
struct Unwritten {
    /// So many rows of the log.
    facts: usize,
    last: Option<Fact>,
    runs: HashSet<RunKey>,
    /// Recordings of no run.
    loose: Vec<RecordingRow>,
}

/// Runs as the tables have them.
#[derive(Debug, Default)]
struct Runs {
    /// With the number of the step that used it last.
    runs: HashMap<RunKey, (Run, u64)>,
    step: u64,
}

impl Runs {
    /// Forgets those that are over, of which hardly anything is heard again, and those that were not used for longest, if
    /// there are too many.
    fn trim(&mut self) {
        self.runs.retain(|_, (run, _)| !run.is_over());
        let rows = |runs: &HashMap<RunKey, (Run, u64)>| runs.values().map(|(run, _)| run.rows()).sum::<usize>();
        let total = rows(&self.runs);
        if total <= KEPT {
            return;
        }
        let mut by_age: Vec<(u64, usize)> = self.runs.values().map(|(run, used)| (*used, run.rows())).collect();
        by_age.sort_unstable();
        let mut left = total;
        let since = by_age.iter().find(|(_, rows)| {
            left -= rows;
            left <= KEPT / 2
        });
        let since = since.map_or(u64::MAX, |(used, _)| *used);
        self.runs.retain(|_, (_, used)| *used > since);
    }
}

impl Meetings {
    /// The cursor over `log`. `owner` names this process among the replicas.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, metrics: Arc<Metrics>, owner: String) -> Self {
        Self { log, metrics, owner, held: None, tail: None, page: PAGE }
    }

    /// Takes the newest rows from here, as far as they are there, instead of reading them back.
    #[must_use]
    pub fn following(self, tail: Arc<Tail>) -> Self {
        Self { tail: Some(tail), ..self }
    }

    /// The rows after `position`.
    async fn read(&self, position: Seq) -> Result<Vec<Fact>, LogError> {
        let fresh = self.tail.as_ref().map(|tail| tail.take(position, self.page as usize)).unwrap_or_default();
        if fresh.is_empty() {
            return self.log.read_facts(position, self.page).await;
        }
        Ok(fresh.iter().filter_map(|(seq, verified)| Fact::of(*seq, verified)).collect())
    }

    fn lease(&self) -> Lease<'_> {
        Lease { cursor: CURSOR, owner: &self.owner, ttl: LEASE }
    }

    /// Takes or renews the lease, if need be; whether this process has it.
    async fn hold(&mut self) -> Result<bool, LogError> {
        if self.held.as_ref().is_some_and(|held| held.renewed.elapsed() < RENEW) {
            return Ok(true);
        }
        let asked = Instant::now();
        let before = self.held.take();
        let Some(leased) = self.log.lease(CURSOR, &self.owner, LEASE).await? else { return Ok(false) };
        if leased.wanted {
            // Somebody is going to make the tables anew.
            self.log.release(CURSOR, &self.owner).await?;
            return Ok(false);
        }
        // What is in memory is what is written only if nobody else had the lease since.
        let kept = before.filter(|held| held.position == leased.position && held.renewed.elapsed() < LEASE);
        if let (None, Some(tail)) = (&kept, &self.tail) {
            // Somebody in it may have been forgotten meanwhile.
            tail.clear();
        }
        self.held = Some(match kept {
            Some(held) => Held { renewed: asked, ..held },
            None => Held {
                position: leased.position,
                folded: leased.position,
                renewed: asked,
                // Long enough ago.
                written: asked.checked_sub(WRITE_EVERY).unwrap_or(asked),
                runs: Runs::default(),
                unwritten: Unwritten::default(),
            },
        });
        Ok(true)
    }

    /// Folds a page of the log into the runs in memory.
    async fn fold(&mut self, page: &[Fact]) -> Result<(), Retry> {
        let (Some(mut held), Some(last)) = (self.held.take(), page.last()) else { return Ok(()) };
        let mut by_run: HashMap<RunKey, Vec<&Fact>> = HashMap::new();
        for fact in page {
            match &fact.meeting.uuid {
                Some(uuid) if uuid.len() > LONGEST_UUID => {
                    self.set_aside(fact, "its meetingUUID is too long").await?;
                }
                Some(uuid) => {
                    let key = RunKey { subscriber_id: fact.subscriber_id.clone(), meeting_uuid: uuid.clone() };
                    by_run.entry(key).or_default().push(fact);
                }
                None if &*fact.event == "record.finish" => held.unwritten.loose.push(ready::finished(fact)),
                None => {}
            }
        }
        held.runs.step += 1;
        let unknown: Vec<RunKey> = by_run.keys().filter(|key| !held.runs.runs.contains_key(key)).cloned().collect();
        if !unknown.is_empty() {
            let stored = self.log.load_runs(&unknown).await.map_err(|error| log_failed(&error))?;
            for stored in stored {
                let key = stored.meeting.run.clone();
                match Run::of(stored) {
                    Some(run) => drop(held.runs.runs.insert(key, (run, 0))),
                    None => tracing::warn!(
                        meeting_uuid = &*key.meeting_uuid,
                        "the analyst tables hold a run that this version did not write: `convoke rebuild` makes them anew"
                    ),
                }
            }
        }
        for (key, facts) in by_run {
            held.unwritten.runs.insert(key.clone());
            let (run, used) = held.runs.runs.entry(key).or_insert_with_key(|key| (Run::new(key.clone()), 0));
            *used = held.runs.step;
            facts.into_iter().for_each(|fact| run.add(fact));
        }
        held.unwritten.facts += page.len();
        held.unwritten.last = Some(last.clone());
        held.folded = last.seq;
        self.held = Some(held);
        Ok(())
    }

    /// Writes what was folded since the last time.
    async fn flush(&mut self) -> Result<(), Retry> {
        let Some(mut held) = self.held.take() else { return Ok(()) };
        let unwritten = std::mem::take(&mut held.unwritten);
        let mut changes = Changes { recordings: unwritten.loose, ..Changes::default() };
        for key in &unwritten.runs {
            if let Some((run, _)) = held.runs.runs.get_mut(key) {
                run.settle(&mut changes);
            }
        }
        let asked = Instant::now();
        match self.write(held.position, held.folded, changes).await {
            Ok(Moved::Yes { wanted }) => {
                held.runs.trim();
                // Looked at at once, if somebody asks for the lease.
                held.renewed = if wanted { asked.checked_sub(RENEW).unwrap_or(asked) } else { asked };
                held.position = held.folded;
                held.written = Instant::now();
                self.held = Some(held);
                self.page = (self.page * 2).min(PAGE);
                Ok(())
            }
            Ok(Moved::LeaseLost) => Err(Retry { reason: "the lease was lost".to_owned(), soon: true }),
            Err(LogError::Rejected(reason)) => match unwritten.last {
                Some(poison) if unwritten.facts == 1 => {
                    self.set_aside(&poison, &format!("the analyst tables cannot hold it: {reason}")).await?;
                    let moved = self.log.advance(CURSOR, &self.owner, poison.seq, LEASE).await;
                    moved.map(drop).map_err(|error| log_failed(&error))
                }
                _ => {
                    self.page = (u32::try_from(unwritten.facts).unwrap_or(PAGE) / 2).clamp(1, PAGE / 2);
                    Ok(())
                }
            },
            Err(error) => Err(log_failed(&error)),
        }
    }

    /// Whether what was folded is to be written now.
    fn due(&self) -> bool {
        self.held.as_ref().is_some_and(|held| {
            let waits = self.tail.is_some() && self.page == PAGE;
            held.unwritten.facts > 0
                && (!waits || held.written.elapsed() >= WRITE_EVERY || held.unwritten.facts >= UNWRITTEN)
        })
    }

    /// Writes the changes in pieces, the position with the last of them. What was written before it is what the same rows of
    /// the log make of it again, if this process ends in between.
    async fn write(&self, from: Seq, to: Seq, changes: Changes) -> Result<Moved, LogError> {
        let mut pieces = changes.pieces(PIECE);
        let last = pieces.pop().unwrap_or_default();
        for piece in pieces {
            if self.log.project(self.lease(), from, &piece).await? == Moved::LeaseLost {
                return Ok(Moved::LeaseLost);
            }
        }
        self.log.project(self.lease(), to, &last).await
    }

    /// Passes by a row that the tables can never take.
    async fn set_aside(&self, fact: &Fact, reason: &str) -> Result<(), Retry> {
        tracing::warn!(seq = fact.seq.0, event_id = %fact.event_id, reason,
            "an event is left out of the analyst tables: it is in the log and in the table set_aside");
        let set_aside = self.log.set_aside(CURSOR, fact.seq, fact.event_id, reason).await;
        self.metrics.set_aside(CURSOR).inc();
        set_aside.map_err(|error| log_failed(&error))
    }
}

impl Cursor for Meetings {
    fn name(&self) -> &'static str {
        CURSOR
    }

    async fn tick(&mut self) -> Result<Progress, Retry> {
        if !self.hold().await.map_err(|error| log_failed(&error))? {
            return Ok(Progress::Standby);
        }
        let folded = self.held.as_ref().map_or(Seq::START, |held| held.folded);
        let limit = self.page;
        let page = self.read(folded).await.map_err(|error| log_failed(&error))?;
        if !page.is_empty() {
            self.fold(&page).await?;
        }
        if self.due() {
            self.flush().await?;
        }
        Ok(match page.len() {
            0 => Progress::Idle,
            rows if rows >= limit as usize => Progress::More,
            _ => Progress::Worked,
        })
    }

    async fn release(&mut self) {
        if self.held.as_ref().is_some_and(|held| held.unwritten.facts > 0)
            && let Err(Retry { reason, .. }) = self.flush().await
        {
            tracing::debug!(reason, "what was folded last is folded again at the next start");
        }
        if self.held.take().is_some()
            && let Err(error) = self.log.release(CURSOR, &self.owner).await
        {
            tracing::debug!(%error, "the lease ends by itself");
        }
    }

    fn gather(&self) -> Duration {
        GATHER
    }

    fn looks_every(&self) -> Option<Duration> {
        Some(LOOK)
    }
}

fn log_failed(error: &LogError) -> Retry {
    Retry { reason: error.to_string(), soon: false }
}

#[cfg(test)]
mod tests;
