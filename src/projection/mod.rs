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
//! - **Status.** `concluded` once there is a conclusion, whatever comes after. Else `ended` if it did not start after its last
//!   end: who comes then is late, and it is over all the same. Else, if it was held (a start, a stay or a recording), `live`,
//!   and `ended_at` is null. Else `cancelled` or `scheduled`.
//! - What the platform's list of **running meetings** shows comes as events of the source `platform`, and counts less than what
//!   events tell: a start where none was told, an end where none was told near it. Who was there at the time of the list has no
//!   `joinTime`.
//! - **Over** is what is not scheduled or live, or of whose number another run has started since: the database finds that out,
//!   for the numbers of which something changed.
//! - A **stay** is the joins and lefts of a run with one participant (without `participant_id`: one call number, else one
//!   name, else user, else account) and one `joinTime`. Of several joins, or lefts, the one with the greatest event id counts,
//!   which is the newest. What the left says counts more than what the join says.
//! - A stay ends with its left. If there is none, it is `open` while the run is `live`; once it is not, the stay ended at the
//!   run's first end or conclusion at or after its beginning (`meeting_end`), for an end puts everybody out; if there is none,
//!   it began when the run was over, and ended at once. A participant who joined again without a left had left by then, also
//!   while the run goes on (`rejoin`), if it did not end before that. So an end closes stays, a run that starts again opens them again, its
//!   next end closes them as before, and a left or an earlier end that becomes known later corrects that.
//! - Joins and lefts without `joinTime` count only as long as there are none with one of the same participant. Their stay begins when
//!   its newest join happened; a left without `leftTime` ends it when the left happened, and
//!   one whose `leftTime` is before it began, when it began.
//! - **People** are distinct `person`s, or else names, or else stays. The peak counts each once, on however many
//!   devices; who leaves in the same millisecond makes room first. Who has not left counts until the first end, also while the
//!   run goes on.
//! - A **call** into a run, and why somebody left it, is what running meetings tell. A stay of which no reason of leaving is told
//!   otherwise has that of its number that was told within a minute of its end.
//! - **Who was there** is kept of a run that is not live, a row for each person, and written with the run's row whenever one of its stays changes.
//!   Of one that goes on, the views find it in the stays.
//! - A **recording** is a `record.finish`. The run's newest `record.ready` describes all that were finished before it.
//!
//! # The work
//!
//! A step takes a page of the log and folds it into the runs that it concerns, in memory. About once a second the rows that changed
//! are written, in pieces, each in a transaction that asks whether the lease is still held; the last one moves the position. Between
//! pieces the log is folded on. What is written ahead of the position does no harm: to fold a page again changes nothing. Runs
//! stay in memory as long as it is, up to a bound; the others are read back. A row that the database never takes is found by
//! halving the page, and set aside.

mod calls;
mod forget;
mod identify;
mod kept;
mod marks;
mod people;
mod ready;
mod rebuild;
mod rejoins;
mod run;
mod stay;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cursor::lease::{LEASE_TIME, RENEW_INTERVAL};
use crate::cursor::{Cursor, Progress, Retry};
use convoke_core::id::Seq;
use convoke_core::time::instant;
use convoke_log::recent::RecentRows;
use convoke_log::{Changes, Handle, Lease, LogError, Moved, ProjectedEvent, Projection, RunKey};
use people::People;
pub use rebuild::RebuildError;
use run::Run;
pub use stay::{is_nobody, stay_id};
use uuid::Uuid;

/// The cursor's name.
pub const CURSOR: &str = "meetings";

/// Rows of the log in one step.
const PAGE_ROWS: u32 = 2048;

/// Into so many transactions the rows of the tables are divided that are to be written, but into none of less than so many, or
/// of more. While one lasts, an embedded database cannot store events; but rows that were made at the same time lie beside
/// each other, and the more of them are written at once, the fewer pages are.
const WRITE_TRANSACTIONS: usize = 4;
const TRANSACTION_ROWS: std::ops::RangeInclusive<usize> = 256..=4_096;

/// While it follows the log, the tables are written this often: who joins and leaves in between, or meets with many, is
/// written once. With [`GATHER_TIME`] and the writing itself it stays below the two seconds that are promised.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// At so many rows of the log they are written in any case.
const MAX_UNWRITTEN_ROWS: usize = 32_768;

/// At the end of the log so much time is left for more to gather.
const GATHER_TIME: Duration = Duration::from_millis(100);

/// How often the log is looked at for what other processes append.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Rows of the tables that are kept in memory, of runs that are not over: about 15 MB.
const MAX_KEPT_ROWS: usize = 30_000;

/// Runs of which it is found out again who was there, at once.
const MAX_UNSETTLED_RUNS: u32 = 256;

/// A UUID that is longer than this is none, and too long for an index.
pub const MAX_UUID_BYTES: usize = 512;

/// The cursor.
#[derive(Debug)]
pub struct Projector {
    log: Arc<dyn Projection>,
    owner: String,
    held: Option<Held>,
    recent: Option<Arc<RecentRows>>,
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
    /// When writing began last.
    written: Instant,
    runs: Runs,
    people: People,
    /// Whether handles were forgotten that runs in memory need.
    trimmed: bool,
    /// Whether there may be runs of which it is to be found out again who was there.
    unsettled: bool,
    unwritten: Unwritten,
    writing: Option<Writing>,
}

/// What was folded and is not in the tables yet.
#[derive(Debug, Default)]
struct Unwritten {
    /// So many rows of the log.
    facts: usize,
    last: Option<ProjectedEvent>,
    runs: HashSet<RunKey>,
    /// Of no run.
    changes: Changes,
}

impl Unwritten {
    fn any(&self) -> bool {
        self.facts > 0 || !self.changes.settled.is_empty()
    }
}

/// What is being written.
#[derive(Debug)]
struct Writing {
    /// When all of it is, the tables are as new as this.
    to: Seq,
    /// So many rows of the log, and the last of them.
    facts: usize,
    last: Option<ProjectedEvent>,
    /// The stays, by their ids: in the order in which the table has them.
    stays: VecDeque<(Uuid, RunKey)>,
    /// All else.
    changes: Changes,
    /// Rows in one transaction.
    piece: usize,
    /// Whether more became known of somebody.
    identifies: bool,
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
    /// there are too many; but none that is not written.
    fn trim(&mut self, unwritten: &HashSet<RunKey>) {
        self.runs.retain(|key, (run, _)| !run.is_over() || unwritten.contains(key));
        let rows = |runs: &HashMap<RunKey, (Run, u64)>| runs.values().map(|(run, _)| run.rows()).sum::<usize>();
        let total = rows(&self.runs);
        if total <= MAX_KEPT_ROWS {
            return;
        }
        let mut by_age: Vec<(u64, usize)> = self.runs.values().map(|(run, used)| (*used, run.rows())).collect();
        by_age.sort_unstable();
        let mut left = total;
        let since = by_age.iter().find(|(_, rows)| {
            left -= rows;
            left <= MAX_KEPT_ROWS / 2
        });
        let since = since.map_or(u64::MAX, |(used, _)| *used);
        self.runs.retain(|key, (_, used)| *used > since || unwritten.contains(key));
    }
}

impl Projector {
    /// The cursor over `log`. `owner` names this process among the replicas.
    #[must_use]
    pub fn new(log: Arc<dyn Projection>, owner: String) -> Self {
        Self { log, owner, held: None, recent: None, page: PAGE_ROWS }
    }

    /// Takes the newest rows from here, as far as they are there, instead of reading them back.
    #[must_use]
    pub fn following(self, recent: Arc<RecentRows>) -> Self {
        Self { recent: Some(recent), ..self }
    }

    /// The rows after `position`. What this process did not append itself is not looked for while `busy`.
    async fn read(&self, position: Seq, busy: bool) -> Result<Vec<ProjectedEvent>, LogError> {
        let rows = self.recent.as_ref().map(|recent| recent.after(position, self.page as usize)).unwrap_or_default();
        if rows.is_empty() && !busy {
            return self.log.read_projected(position, self.page).await;
        }
        Ok(rows.iter().filter_map(|row| ProjectedEvent::of(row.seq, &row.append.verified)).collect())
    }

    fn lease(&self) -> Lease<'_> {
        Lease { cursor: CURSOR, owner: &self.owner, ttl: LEASE_TIME }
    }

    /// Takes or renews the lease, if need be; whether this process has it.
    async fn hold(&mut self) -> Result<bool, LogError> {
        if self.held.as_ref().is_some_and(|held| held.renewed.elapsed() < RENEW_INTERVAL) {
            return Ok(true);
        }
        let asked = instant();
        let before = self.held.take();
        let Some(leased) = self.log.lease(CURSOR, &self.owner, LEASE_TIME).await? else { return Ok(false) };
        if leased.wanted {
            // Somebody is going to rebuild the tables.
            self.log.release(CURSOR, &self.owner).await?;
            return Ok(false);
        }
        // What is in memory is what is written only if nobody else had the lease since.
        let kept = before.filter(|held| held.position == leased.position && held.renewed.elapsed() < LEASE_TIME);
        if let (None, Some(recent)) = (&kept, &self.recent) {
            // Somebody in it may have been forgotten meanwhile.
            recent.clear();
        }
        self.held = Some(match kept {
            Some(held) => Held { renewed: asked, ..held },
            None => Held {
                position: leased.position,
                folded: leased.position,
                renewed: asked,
                // Long enough ago.
                written: asked.checked_sub(WRITE_INTERVAL).unwrap_or(asked),
                runs: Runs::default(),
                people: People::default(),
                trimmed: false,
                unsettled: true,
                unwritten: Unwritten::default(),
                writing: None,
            },
        });
        Ok(true)
    }

    /// Folds a page of the log into the runs in memory.
    async fn fold(&mut self, page: &[ProjectedEvent], unsettled: Vec<RunKey>) -> Result<(), Retry> {
        if page.is_empty() && unsettled.is_empty() && !self.held.as_ref().is_some_and(|held| held.trimmed) {
            return Ok(());
        }
        let Some(mut held) = self.held.take() else { return Ok(()) };
        let mut by_run: HashMap<RunKey, Vec<&ProjectedEvent>> = HashMap::new();
        for fact in page {
            match &fact.meeting.uuid {
                Some(uuid) if uuid.len() > MAX_UUID_BYTES => {
                    self.set_aside(fact, "its meetingUUID is too long").await?;
                }
                Some(uuid) => {
                    let key = RunKey { subscriber_id: fact.subscriber_id.clone(), meeting_uuid: uuid.clone() };
                    by_run.entry(key).or_default().push(fact);
                }
                None if &*fact.event == "record.finish" => {
                    held.unwritten.changes.recordings.push(ready::finished(fact));
                }
                None => {}
            }
        }
        held.runs.step += 1;
        let mut handles: BTreeSet<Handle> = BTreeSet::new();
        let wanted = by_run.keys().chain(unsettled.iter().filter(|key| !by_run.contains_key(key)));
        let unknown: Vec<RunKey> = wanted.filter(|key| !held.runs.runs.contains_key(key)).cloned().collect();
        if !unknown.is_empty() {
            let stored = self.log.load_runs(&unknown).await.map_err(|error| log_failed(&error))?;
            for stored in stored {
                let key = stored.meeting.run.clone();
                match Run::of(stored) {
                    Some(run) => {
                        handles.extend(run.handles());
                        held.runs.runs.insert(key, (run, 0));
                    }
                    None => tracing::warn!(
                        meeting_uuid = &*key.meeting_uuid,
                        "the analyst tables hold a run that this version did not write: `convoke rebuild` makes them anew"
                    ),
                }
            }
        }
        let mut telling = Vec::new();
        for (key, facts) in by_run {
            held.unwritten.runs.insert(key.clone());
            let (run, used) = held.runs.runs.entry(key).or_insert_with_key(|key| (Run::new(key.clone()), 0));
            *used = held.runs.step;
            telling.extend(facts.into_iter().filter(|fact| run.add(fact)));
        }
        for key in unsettled {
            if let Some((run, used)) = held.runs.runs.get_mut(&key) {
                run.unsettle();
                handles.extend(run.handles());
                *used = held.runs.step;
                held.unwritten.runs.insert(key.clone());
            }
            held.unwritten.changes.settled.push(key);
        }
        if std::mem::take(&mut held.trimmed) {
            handles.extend(held.runs.runs.values().flat_map(|(run, _)| run.handles()));
        }
        self.identify(&mut held, &telling, handles).await.map_err(|error| log_failed(&error))?;
        if let Some(last) = page.last() {
            held.unwritten.facts += page.len();
            held.unwritten.last = Some(last.clone());
            held.folded = last.seq;
        }
        self.held = Some(held);
        Ok(())
    }

    /// Whether what was folded is to be written now, if the last page had `rows`.
    fn due(&self, rows: usize) -> bool {
        self.held.as_ref().is_some_and(|held| {
            // Whoever does not follow the log closely writes when it is read to its end.
            let waits = self.page == PAGE_ROWS && (self.recent.is_some() || rows >= PAGE_ROWS as usize);
            let due = !waits
                || !held.unwritten.changes.settled.is_empty()
                || held.written.elapsed() >= WRITE_INTERVAL
                || held.unwritten.facts >= MAX_UNWRITTEN_ROWS;
            held.unwritten.any() && held.writing.is_none() && due
        })
    }

    /// Begins to write what was folded since the last time.
    fn begin_to_write(&mut self) {
        let Some(held) = &mut self.held else { return };
        let Unwritten { facts, last, runs, mut changes } = std::mem::take(&mut held.unwritten);
        let (mut stays, mut of_run) = (Vec::new(), Vec::new());
        for key in runs {
            if let Some((run, _)) = held.runs.runs.get_mut(&key) {
                run.settle(&held.people, &mut changes, &mut of_run);
                stays.extend(of_run.drain(..).map(|id| (id, key.clone())));
            }
        }
        stays.sort_unstable_by_key(|(id, _)| *id);
        held.written = instant();
        let piece = (stays.len() + changes.rows())
            .div_ceil(WRITE_TRANSACTIONS)
            .clamp(*TRANSACTION_ROWS.start(), *TRANSACTION_ROWS.end());
        let identifies = !changes.identities.is_empty();
        held.writing = Some(Writing { to: held.folded, facts, last, stays: stays.into(), changes, piece, identifies });
    }

    /// Writes the next piece, the position with the last of them. What was written before it is what the same rows of the log
    /// make of it again, if this process ends in between.
    async fn write_chunk(&mut self) -> Result<(), Retry> {
        // Until it is written nobody can rely on what is in memory.
        let Some(mut held) = self.held.take() else { return Ok(()) };
        let Some(writing) = &mut held.writing else {
            self.held = Some(held);
            return Ok(());
        };
        let mut piece = Changes::default();
        for (id, key) in writing.stays.drain(..writing.stays.len().min(writing.piece)) {
            piece.stays.extend(held.runs.runs.get(&key).and_then(|(run, _)| run.stay_row(id)));
        }
        writing.changes.move_to(&mut piece, writing.piece);
        let ends = writing.stays.is_empty() && writing.changes.is_empty();
        let to = if ends { writing.to } else { held.position };
        let asked = instant();
        match self.log.project(self.lease(), to, &piece).await {
            Ok(Moved::Yes { wanted }) => {
                // Looked at at once, if somebody asks for the lease.
                held.renewed = if wanted { asked.checked_sub(RENEW_INTERVAL).unwrap_or(asked) } else { asked };
                held.position = to;
                if ends {
                    held.unsettled |= held.writing.take().is_some_and(|writing| writing.identifies);
                    held.runs.trim(&held.unwritten.runs);
                    if held.people.trim(&held.unwritten.changes.identities) {
                        // What is read back is looked up again.
                        let unwritten = &held.unwritten.runs;
                        held.runs.runs.retain(|key, _| unwritten.contains(key));
                        held.trimmed = true;
                    }
                    self.page = (self.page * 2).min(PAGE_ROWS);
                }
                self.held = Some(held);
                Ok(())
            }
            Ok(Moved::LeaseLost) => Err(Retry { reason: "the lease was lost".to_owned(), soon: true }),
            Err(LogError::Rejected(reason)) => match &writing.last {
                Some(poison) if writing.facts == 1 => {
                    self.set_aside(poison, &format!("the analyst tables cannot hold it: {reason}")).await?;
                    let moved = self.log.advance(CURSOR, &self.owner, poison.seq, LEASE_TIME).await;
                    moved.map(drop).map_err(|error| log_failed(&error))
                }
                _ => {
                    self.page = (u32::try_from(writing.facts).unwrap_or(PAGE_ROWS) / 2).clamp(1, PAGE_ROWS / 2);
                    Ok(())
                }
            },
            Err(error) => Err(log_failed(&error)),
        }
    }

    fn writes(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.writing.is_some())
    }

    /// Passes by a row that the tables can never take.
    async fn set_aside(&self, fact: &ProjectedEvent, reason: &str) -> Result<(), Retry> {
        tracing::warn!(seq = fact.seq.0, event_id = %fact.event_id, reason,
            "an event is left out of the analyst tables: it is in the log and in the table set_aside");
        let set_aside = self.log.set_aside(CURSOR, fact.seq, fact.event_id, reason).await;
        set_aside.map_err(|error| log_failed(&error))
    }
}

impl Cursor for Projector {
    fn name(&self) -> &'static str {
        CURSOR
    }

    async fn tick(&mut self) -> Result<Progress, Retry> {
        if !self.hold().await.map_err(|error| log_failed(&error))? {
            return Ok(Progress::Standby);
        }
        let limit = self.page;
        let busy = self.writes();
        let mut rows = 0;
        // Which row it is that the tables refuse is found with one page at a time.
        if !busy || limit == PAGE_ROWS {
            let folded = self.held.as_ref().map_or(Seq::START, |held| held.folded);
            let page = self.read(folded, busy).await.map_err(|error| log_failed(&error))?;
            rows = page.len();
            let unsettled = self.unsettled().await?;
            self.fold(&page, unsettled).await?;
        }
        if self.due(rows) {
            self.begin_to_write();
        }
        self.write_chunk().await?;
        Ok(match rows {
            _ if busy || self.writes() || self.held.as_ref().is_some_and(|held| held.unsettled) => Progress::More,
            0 => Progress::Idle,
            rows if rows >= limit as usize => Progress::More,
            _ => Progress::Worked,
        })
    }

    async fn release(&mut self) {
        while self.writes() || self.held.as_ref().is_some_and(|held| held.unwritten.any()) {
            if !self.writes() {
                self.begin_to_write();
            }
            if let Err(Retry { reason, .. }) = self.write_chunk().await {
                tracing::debug!(reason, "what was folded last is folded again at the next start");
            }
        }
        if self.held.take().is_some()
            && let Err(error) = self.log.release(CURSOR, &self.owner).await
        {
            tracing::debug!(%error, "the lease is not released: it expires");
        }
    }

    fn gather(&self) -> Duration {
        GATHER_TIME
    }

    fn looks_every(&self) -> Option<Duration> {
        let unwritten = self.held.as_ref().filter(|held| held.unwritten.any());
        Some(
            unwritten
                .map_or(POLL_INTERVAL, |held| POLL_INTERVAL.min(WRITE_INTERVAL.saturating_sub(held.written.elapsed()))),
        )
    }
}

fn log_failed(error: &LogError) -> Retry {
    Retry { reason: error.to_string(), soon: false }
}

#[cfg(test)]
mod tests;
