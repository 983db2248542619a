//! Erases one person: what `convoke forget` does.
//!
//! Everything is found by comparing columns with the person's handles. If one event of a stay names the person, the whole stay
//! belongs to the person, with all of its events. A guest without an account is named by a stay, or by a name in one meeting, and
//! is recognised later only in the runs of that meeting. The steps, in this order, because each makes the next one final:
//!
//! 1. **What is found is recorded**: keyed hashes ([`suppression`]), by which the person is recognised when the platform reports
//!    them again, and the person's stays, before the rows that show them are erased.
//! 2. **The log.** A row keeps its sequence number, its ID, its times and its meeting. From then on it contains nothing personal.
//! 3. **The quarantine**, body by body.
//! 4. **The analyst tables**, under the lease of their cursor; its former owner drops what it has in memory.
//! 5. **Hosts** that enrichment found.
//! 6. **The stream**: the lease of the relay is taken once, after which no relay has erased rows in memory. Then the messages on
//!    the subjects of the person's meetings are read, and those of the person are deleted.
//!
//! Every step is a transaction that can be repeated, so an interrupted erasure continues when it is run again. What arrives while
//! it runs is found in a second round; what arrives later is new.

mod matches;
mod stream;
pub mod suppression;
mod test_data;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::cursor::HandoverError;
use crate::projection::{Projector, RebuildError, is_nobody};
use convoke_bus::{Bus, BusError};
use convoke_core::id::Seq;
use convoke_core::raw_json;
use convoke_core::time::{Millis, instant};
use convoke_log::{
    Erased, Erasure, Erasures, FORGOTTEN, Handles, InvitationRow, LogError, MeetingFilter, Order, Page, PersonRow,
    RunKey, Scope, StayKey,
};
use matches::{Matches, key_of};
use suppression::SuppressionKey;

pub use matches::OtherHandles;
pub use test_data::ForgetTestData;

/// Number of sequence numbers that are searched in one query.
const SPAN_SEQS: i64 = 20_000;

/// Maximum number of rows of the log that are erased in one transaction: storing events waits for it.
const TRANSACTION_ROWS: usize = 200;

/// Maximum number of stays, of runs with a host, and of quarantine entries in one query.
const PAGE_STAYS: u32 = 20_000;
const PAGE_RUNS: u32 = 500;
const PAGE_BODIES: u32 = 50;

/// How long a failed database operation is retried: two processes that write to the same SQLite database block each other now and
/// then.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Why a person was not erased completely. What was erased until then stays erased; running it again continues.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The database failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Erasing from the analyst tables failed.
    #[error("the analyst tables: {0}")]
    Tables(#[from] RebuildError),
    /// The lease of the relay could not be taken.
    #[error(transparent)]
    Relay(#[from] HandoverError),
    /// The stream failed.
    #[error("the stream: {0}")]
    Bus(#[from] BusError),
}

/// The current step of an erasure, for progress output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Searching the log for the person: the sequence number that was reached, and the last one.
    Finding(Seq, Seq),
    /// Erasing rows of the log, likewise.
    Log(Seq, Seq),
    /// Erasing bodies in the quarantine.
    Quarantine,
    /// Erasing from the analyst tables.
    Tables,
    /// Erasing from the stream.
    Stream,
}

/// What is stored about a person.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Survey {
    /// How much would be erased.
    pub found: Erased,
    /// When the first and the last of these events occurred.
    #[serde(skip)]
    pub between: Option<(Millis, Millis)>,
    /// Other handles of the person in the same rows.
    pub others: OtherHandles,
}

/// The result of an erasure.
#[derive(Clone, Debug)]
pub struct ForgetReport {
    /// Its number, when it began, and how much it erased.
    pub erasure: Erasure,
    /// Whether it continues an interrupted one.
    pub resumed: bool,
    /// Other handles of the person in the rows that this run erased.
    pub others: OtherHandles,
    /// What the database may still have in its files.
    pub left: Vec<String>,
}

/// The erasure of one person.
#[derive(Debug)]
pub struct Forget {
    log: Arc<dyn Erasures>,
    /// `None`: there is no stream.
    bus: Option<Arc<Bus>>,
    handles: Handles,
    owner: String,
}

impl Forget {
    /// For the person that `handles` name. `owner` is the name of this process among the replicas.
    #[must_use]
    pub fn new(log: Arc<dyn Erasures>, bus: Option<Arc<Bus>>, handles: Handles, owner: String) -> Self {
        Self { log, bus, handles, owner }
    }

    /// Counts what is stored, without changing anything.
    ///
    /// # Errors
    /// [`ForgetError`].
    pub async fn survey(&self, mut progress: impl FnMut(Part)) -> Result<Survey, ForgetError> {
        // A temporary key: the hashes are not saved.
        let suppression = SuppressionKey::new(&SuppressionKey::fresh_key());
        let mut matches = Matches::new(&self.handles, &suppression);
        let head = self.log.head().await?;
        self.find(Seq::START, head, &mut matches, None, &mut progress).await?;
        let mut survey = Survey::default();
        self.find_stays(&mut matches, None).await?;
        let (mut stays, runs) = of_runs(matches.stays());
        survey.found.stays = count(stays.len());
        stays.extend(matches.untimed().cloned());
        let mut events = HashSet::new();
        let mut meetings: HashSet<Option<String>> = matches.meetings().cloned().collect();
        let mut at = Seq::START;
        while at < head {
            let to = Seq(head.0.min(at.0 + SPAN_SEQS));
            for row in self.person_rows(&runs, &stays, &matches.live_texts(), (at, to)).await? {
                events.insert(row.event_id);
                meetings.insert(row.meeting.id.as_deref().map(str::to_owned));
                matches.others(&row.attendee);
                let happened = row.event_id.occurred_at();
                let (first, last) = survey.between.unwrap_or((happened, happened));
                survey.between = Some((first.min(happened), last.max(happened)));
            }
            at = to;
            progress(Part::Log(at, head));
        }
        survey.found.events = count(events.len());
        progress(Part::Quarantine);
        let known: HashSet<String> =
            suppression.of_handles(&self.handles).into_iter().chain(matches.take_hashes()).collect();
        survey.found.quarantined = count(self.quarantined(&suppression, &runs, Some(&known)).await?.len());
        let mut after = None;
        loop {
            let page = self.log.hosts(after.as_ref(), PAGE_RUNS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.run.clone());
            let hosts =
                page.iter().map(|host| suppression.of_host(host.host.as_deref(), host.host_user_uuid.as_deref()));
            survey.found.hosts += count(hosts.filter(|hashes| hashes.iter().any(|hash| known.contains(hash))).count());
        }
        let mut after = None;
        loop {
            let page = self.log.invitations(after.as_ref(), PAGE_RUNS).await?;
            let Some(last) = page.last() else { break };
            let theirs = page.iter().filter(|row| {
                suppression.of_invitation(&row.run, &row.invitation).iter().any(|hash| known.contains(hash))
            });
            survey.found.invitations += count(theirs.count());
            after = Some(last.clone());
        }
        survey.found.people = self.log.known_people(&self.handles.users).await?;
        if let Some(bus) = &self.bus {
            progress(Part::Stream);
            let person = stream::Person { events: &events, handles: &self.handles, stays: &stays };
            survey.found.messages = count(stream::find(&*self.log, bus, &person, meetings).await?.len());
        }
        survey.others = matches.into_others();
        Ok(survey)
    }

    /// Erases the person. For `vacuum` see [`convoke_log::Erasures::scrub`].
    ///
    /// # Errors
    /// [`ForgetError`].
    pub async fn erase(&self, vacuum: bool, mut progress: impl FnMut(Part)) -> Result<ForgetReport, ForgetError> {
        let log = &*self.log;
        let fresh = SuppressionKey::fresh_key();
        let suppression = SuppressionKey::new(&retrying(async || log.make_forgotten_key(&fresh).await).await?);
        let person = suppression.person(&self.handles);
        let named_by = self.named_by();
        let begun = retrying(async || log.begin_erasure(&person, &named_by).await).await?;
        let resumed = begun.counts != Erased::default();
        let mut hashes = suppression.of_handles(&self.handles);
        for run in self.runs_of_meeting().await? {
            hashes.extend(self.handles.names.iter().map(|name| suppression.of_name(&run, name)));
        }
        retrying(async || log.remember_forgotten(&hashes, begun.begun_at).await).await?;

        let mut matches = Matches::new(&self.handles, &suppression);
        let mut done = Seq::START;
        // What arrived during the first round is found in the second.
        for _ in 0..2 {
            let head = log.head().await?;
            self.find(done, head, &mut matches, Some(&begun), &mut progress).await?;
            self.find_stays(&mut matches, Some(&begun)).await?;
            let noted = log.noted_stays(begun.id).await?;
            self.erase_rows(&begun, noted.iter(), (done, head), &mut matches, &mut progress).await?;
            done = head;
        }
        progress(Part::Quarantine);
        let noted = log.noted_stays(begun.id).await?;
        for id in self.quarantined(&suppression, &of_runs(noted.iter()).1, None).await? {
            retrying(async || log.erase_quarantined(begun.id, id).await).await?;
        }
        progress(Part::Tables);
        let noted = log.noted_stays(begun.id).await?;
        let tables = Projector::new(self.log.clone(), self.owner.clone());
        tables.forget(&*self.log, begun.id, &noted, |_| progress(Part::Tables)).await?;
        self.erase_hosts(&begun, &suppression).await?;
        self.erase_invitations(&begun, &suppression).await?;
        let texts = matches.live_texts();
        retrying(async || log.erase_live(&texts).await).await?;
        retrying(async || log.erase_people(begun.id, &self.handles.users).await).await?;
        if let Some(bus) = &self.bus {
            progress(Part::Stream);
            stream::wait_for_relay(log, &self.owner, done).await?;
            let events: HashSet<_> = log.erased_events(begun.id).await?.into_iter().collect();
            let meetings = log.erased_meetings(begun.id).await?.into_iter().collect();
            let (stays, _) = of_runs(noted.iter().chain(matches.untimed()));
            let person = stream::Person { events: &events, handles: &self.handles, stays: &stays };
            let found = stream::find(log, bus, &person, meetings).await?;
            stream::delete(log, bus, begun.id, &found).await?;
        }
        let left = retrying(async || log.scrub(vacuum).await).await?;
        retrying(async || log.finish_erasure(begun.id).await).await?;
        let erasure = log.erasure(begun.id).await?;
        Ok(ForgetReport { erasure, resumed, others: matches.into_others(), left })
    }

    /// The kinds of handles that name the person.
    fn named_by(&self) -> String {
        let Handles { users, accounts, call_numbers, stays, meeting: _, names } = &self.handles;
        let kinds = [
            ("user", users.len()),
            ("account", accounts.len()),
            ("call_number", call_numbers.len()),
            ("stay", stays.len()),
            ("name", names.len()),
        ];
        kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ")
    }

    /// Searches the log for rows that name the person; for an erasure, also records what will be needed once they are erased.
    async fn find(
        &self,
        from: Seq,
        head: Seq,
        matches: &mut Matches<'_>,
        erasure: Option<&Erasure>,
        progress: &mut impl FnMut(Part),
    ) -> Result<(), LogError> {
        let mut at = from;
        while at < head {
            let to = Seq(head.0.min(at.0 + SPAN_SEQS));
            for row in retrying(async || self.log.person_rows(&self.handles, &[], at, to).await).await? {
                matches.row(&row);
            }
            if let Some(erasure) = erasure {
                self.note(matches, erasure).await?;
            }
            at = to;
            progress(Part::Finding(at, head));
        }
        Ok(())
    }

    /// Searches the analyst tables likewise; they may know more than the log still has.
    async fn find_stays(&self, matches: &mut Matches<'_>, erasure: Option<&Erasure>) -> Result<(), LogError> {
        let mut after = None;
        loop {
            let (page, last) = retrying(async || self.log.person_stays(&self.handles, after, PAGE_STAYS).await).await?;
            if last.is_none() {
                return Ok(());
            }
            after = last;
            page.iter().for_each(|stay| matches.stay(stay));
            if let Some(erasure) = erasure {
                self.note(matches, erasure).await?;
            }
        }
    }

    async fn note(&self, matches: &mut Matches<'_>, erasure: &Erasure) -> Result<(), LogError> {
        let (stays, hashes) = matches.take();
        if stays.is_empty() && hashes.is_empty() {
            return Ok(());
        }
        retrying(async || self.log.note_stays(erasure, &stays, &hashes).await).await
    }

    /// The person's rows in a part of the log: rows that name the person, and rows of `stays`.
    async fn person_rows(
        &self,
        runs: &[RunKey],
        stays: &HashSet<StayKey>,
        texts: &[String],
        (after, up_to): (Seq, Seq),
    ) -> Result<Vec<PersonRow>, LogError> {
        let mut rows = retrying(async || self.log.person_rows(&self.handles, runs, after, up_to).await).await?;
        rows.retain(|row| {
            self.handles.name(&row.meeting, &row.attendee) || key_of(row).is_some_and(|key| stays.contains(&key))
        });
        rows.extend(retrying(async || self.log.live_rows(texts, after, up_to).await).await?);
        Ok(rows)
    }

    async fn erase_rows(
        &self,
        erasure: &Erasure,
        stays: impl Iterator<Item = &StayKey>,
        (from, head): (Seq, Seq),
        matches: &mut Matches<'_>,
        progress: &mut impl FnMut(Part),
    ) -> Result<(), LogError> {
        let (mut stays, runs) = of_runs(stays);
        stays.extend(matches.untimed().cloned());
        let mut at = from;
        while at < head {
            let to = Seq(head.0.min(at.0 + SPAN_SEQS));
            let rows = self.person_rows(&runs, &stays, &matches.live_texts(), (at, to)).await?;
            // Includes rows that are only found by their stay: their names and numbers are recorded too.
            rows.iter().filter(|row| !is_nobody(&row.attendee)).for_each(|row| matches.row(row));
            self.note(matches, erasure).await?;
            for piece in rows.chunks(TRANSACTION_ROWS) {
                let begun = instant();
                retrying(async || self.log.erase_rows(erasure, piece).await).await?;
                // Leaves half of the time to other writers.
                tokio::time::sleep(begun.elapsed().min(RETRY_DELAY)).await;
            }
            at = to;
            progress(Part::Log(at, head));
        }
        Ok(())
    }

    /// The runs of the meeting in which the person is named by a name.
    async fn runs_of_meeting(&self) -> Result<Vec<RunKey>, LogError> {
        let Some(meeting) = self.handles.meeting.clone() else { return Ok(Vec::new()) };
        let filter = MeetingFilter { scope: Scope { meeting: Some(meeting), ..Scope::default() }, status: None };
        let (mut runs, mut after) = (Vec::new(), None);
        loop {
            let page = Page { order: Order::Newest, after, limit: PAGE_RUNS, within: RETRY_TIMEOUT };
            let found = retrying(async || self.log.list_meetings(&filter, &page).await).await?;
            runs.extend(
                found.rows.into_iter().map(|row| RunKey {
                    subscriber_id: row.subscriber_id.into(),
                    meeting_uuid: row.meeting_uuid.into(),
                }),
            );
            after = found.next;
            if after.is_none() {
                return Ok(runs);
            }
        }
    }

    /// The quarantine entries that contain one of the handles anywhere, or the UUID of one of the person's `runs` together with
    /// something that identifies the person in it, according to `known`, or if that is `None`, to the database.
    async fn quarantined(
        &self,
        suppression: &SuppressionKey,
        runs: &[RunKey],
        known: Option<&HashSet<String>>,
    ) -> Result<Vec<i64>, LogError> {
        let handles: HashSet<&str> = self.handles.all().collect();
        let mut found = Vec::new();
        let mut after = 0;
        loop {
            let page = self.log.list_quarantined(after, PAGE_BODIES).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.id;
            for entry in page.iter().filter(|entry| entry.reason != FORGOTTEN) {
                let body = String::from_utf8_lossy(&entry.body);
                let texts: HashSet<Cow<'_, str>> = raw_json::scalars(&body).collect();
                let named = self.handles.meeting.as_deref().is_some_and(|meeting| texts.contains(meeting))
                    && self.handles.names.iter().any(|name| texts.contains(&**name));
                let named_runs = runs.iter().filter(|run| texts.contains(&*run.meeting_uuid));
                let hashes: Vec<String> =
                    named_runs.flat_map(|run| texts.iter().flat_map(|text| suppression.of_text(run, text))).collect();
                if named
                    || handles.iter().any(|handle| texts.contains(*handle))
                    || match known {
                        Some(known) => hashes.iter().any(|hash| known.contains(hash)),
                        None => self.any_forgotten(&hashes).await?,
                    }
                {
                    found.push(entry.id);
                }
            }
        }
    }

    async fn any_forgotten(&self, hashes: &[String]) -> Result<bool, LogError> {
        for chunk in hashes.chunks(1_000) {
            if !self.log.forgotten(chunk).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn erase_hosts(&self, erasure: &Erasure, suppression: &SuppressionKey) -> Result<(), LogError> {
        let mut after: Option<RunKey> = None;
        loop {
            let page = retrying(async || self.log.hosts(after.as_ref(), PAGE_RUNS).await).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.run.clone());
            for host in &page {
                let (name, user) = (host.host.as_deref(), host.host_user_uuid.as_deref());
                if suppression.host_forgotten(&*self.log, name, user).await?.is_some() {
                    let named = host.subject.as_deref().zip(name).is_some_and(|(subject, name)| subject.contains(name));
                    retrying(async || self.log.erase_host(erasure.id, &host.run, named).await).await?;
                }
            }
        }
    }

    async fn erase_invitations(&self, erasure: &Erasure, suppression: &SuppressionKey) -> Result<(), LogError> {
        let mut after: Option<InvitationRow> = None;
        loop {
            let page = retrying(async || self.log.invitations(after.as_ref(), PAGE_RUNS).await).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let rows: Vec<_> = page.iter().map(|row| (&row.run, &row.invitation)).collect();
            let mut forgotten = suppression.forgotten_invitations(&*self.log, &rows).await?.into_iter();
            let theirs: Vec<InvitationRow> =
                page.into_iter().filter(|_| forgotten.next().flatten().is_some()).collect();
            if !theirs.is_empty() {
                retrying(async || self.log.erase_invitations(erasure.id, &theirs).await).await?;
            }
        }
    }
}

/// The stays as a set, and their runs without duplicates.
fn of_runs<'a>(stays: impl Iterator<Item = &'a StayKey>) -> (HashSet<StayKey>, Vec<RunKey>) {
    let stays: HashSet<StayKey> = stays.cloned().collect();
    let runs: HashSet<&RunKey> = stays.iter().map(|key| &key.run).collect();
    let runs = runs.into_iter().cloned().collect();
    (stays, runs)
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Retries a database operation for a while.
async fn retrying<T>(mut work: impl AsyncFnMut() -> Result<T, LogError>) -> Result<T, LogError> {
    let begun = instant();
    loop {
        match work().await {
            Err(error) if error.may_pass() && begun.elapsed() < RETRY_TIMEOUT => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
            done => return done,
        }
    }
}
