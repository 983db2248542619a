//! Recovers events that the platform dropped from its history: compares the history with the analyst tables, and puts the missing
//! events into the log in the same way as pushed ones, with the source `backfill`.
//!
//! Some parts are pure: [`matching`] (which stays match), [`synthesis`] (the bytes of an event), [`plan`] (what a run lacks). The
//! rest streams: one page of runs at a time, and the stays of one run at a time. The events depend on nothing but the history and
//! the tables, so another backfill, also after a crash half-way, makes the same events, and the log recognises them.

pub mod matching;
mod merged_run;
mod note;
pub mod plan;
mod report;
mod subscriber;
pub mod synthesis;
pub mod task;
mod whole_lists;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

pub use merged_run::{MergedRun, by_uuid as merged_runs};
pub use note::Note;
pub use report::{BackfillReport, Incomplete, List};
pub use subscriber::{NoSubscriber, subscriber};
pub use whole_lists::{ComparisonError, Enterprises, SeenEnterprise, seen_enterprises};

use crate::forget::suppression::{self, PlatformStay};
use crate::intake::{Intake, MAX_BATCH};
use crate::metrics::Label as _;
use convoke_core::event::{Content, Source};
use convoke_core::time::{Clock, Millis};
use convoke_core::verify;
use convoke_core::zone::TimeZone;
use convoke_log::{Appended, LogError, RunKey, Snapshots};
use convoke_platform::{AttendeeRecord, Class, Client, Conference, Item, Pages, Participant, PlatformError};
use matching::PastStay;
use plan::{Plan, Unfillable};

/// Events younger than this may still be pushed: the platform retries for 24 hours. The rest allows for clocks that differ.
pub const PUSH_PERIOD: Duration = Duration::from_secs(24 * 3_600 + 30 * 60);

/// How long the platform keeps its history, unless its administrator has chosen otherwise (4.2.18): six months.
pub const DEFAULT_HISTORY_PERIOD: Duration = Duration::from_secs(184 * 86_400);

/// The longest time for which the platform can be configured to keep its history.
pub const MAX_HISTORY_PERIOD: Duration = Duration::from_secs(366 * 86_400);

/// How far back the dashboard goes (7.1.2.2).
const DASHBOARD_PERIOD: Duration = Duration::from_secs(45 * 86_400);

/// A difference between clocks larger than this is logged, in seconds.
const MAX_CLOCK_DIFFERENCE_S: u64 = 60;

/// Length of the windows in which the history is requested: short enough that a list is hardly ever longer than a page.
const WINDOW_LENGTH: Duration = Duration::from_secs(86_400);

/// How much consecutive windows overlap. The manual does not say whether a run belongs to the window in which it begins, to the
/// one in which it ends, or only to one that contains all of it.
const WINDOW_OVERLAP: Duration = Duration::from_secs(6 * 3_600);

/// How often the progress is saved.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// How often, and how many times, an event is offered to a log that does not store it.
const RETRY_DELAY: Duration = Duration::from_millis(500);
const MAX_TRIES: u32 = 120;

/// How often it is checked whether the tables have caught up with the log.
const TABLES_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why a backfill was interrupted. What it had done until then stays, and the next one for the same range continues from there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the platform's API failed.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The database failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The database does not store events.
    #[error("the database has not stored an event for a minute: run `convoke check` to find the cause")]
    NotStored,
}

/// The range of a backfill.
#[derive(Clone, Debug)]
pub struct BackfillRequest {
    /// Only runs that began at or after this time.
    pub since: Millis,
    /// Only runs that began at or before this time; in any case only what is older than [`PUSH_PERIOD`].
    pub until: Option<Millis>,
    /// Only report what is missing.
    pub dry_run: bool,
    /// The name of the note that holds the progress.
    pub note: String,
}

/// What a backfill needs.
#[derive(Clone, Debug)]
pub struct Backfill {
    /// The log whose tables are compared. They must have caught up with the log: see [`tables_are_current`].
    pub log: Arc<dyn Snapshots>,
    /// The platform whose history is read.
    pub client: Client,
    /// The entrance to the log.
    pub intake: Intake,
    /// The clock.
    pub clock: Clock,
    /// The subscriber of runs that are not known yet. A known run keeps the subscriber of its events, configured or not.
    pub subscriber_id: Arc<str>,
}

/// Waits until the analyst tables have caught up with the current end of the log. Some process must be running the cursor.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn tables_are_current(log: &dyn Snapshots, cursor: &str) -> Result<(), LogError> {
    let head = log.head().await?;
    loop {
        let states = log.cursors().await?;
        if states.iter().any(|state| state.name == cursor && state.position >= head)
            || head == convoke_core::id::Seq::START
        {
            return Ok(());
        }
        tokio::time::sleep(TABLES_POLL_INTERVAL).await;
    }
}

/// The name of the note of an enterprise: that of the backfill, and, for a service provider, the enterprise's ID.
#[must_use]
pub fn note_name(backfill: &str, of: &Client, enterprise: &Client) -> String {
    match of.name_of(enterprise) {
        Some(corp_id) => format!("{backfill}.{corp_id}"),
        None => backfill.to_owned(),
    }
}

impl Backfill {
    /// The newest time that a backfill may cover, by this host's clock, the database's or the platform's, whichever is behind.
    ///
    /// # Errors
    /// The platform or the database does not tell the time.
    pub async fn boundary(&self) -> Result<Millis, Error> {
        // The response contains the platform's time.
        self.client.identity().await?;
        let ahead = u64::try_from(-self.client.clock_behind()).unwrap_or(0);
        let now = self.clock.now();
        if ahead > MAX_CLOCK_DIFFERENCE_S {
            tracing::warn!(
                ahead,
                "this machine's clock is ahead of the platform's: check NTP; the backfill uses the platform's clock"
            );
        }
        Ok(now.minus(Duration::from_secs(ahead)).min(self.log.now().await?).minus(PUSH_PERIOD))
    }

    /// Reads the range and fills the gaps. `progress` is called after every run, after every window, and at the end, whatever the
    /// outcome, with the report so far and the time up to which it reaches.
    ///
    /// Lists of which the platform gives less than it announces are in the report: their missing entries were not checked, and
    /// the next backfill with the same request begins there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn run(
        &self,
        request: &BackfillRequest,
        mut progress: impl FnMut(&BackfillReport, Millis),
    ) -> Result<BackfillReport, Error> {
        let boundary = self.boundary().await?;
        let until = request.until.map_or(boundary, |until| until.min(boundary));
        let mut report = BackfillReport::new(Arc::clone(&self.subscriber_id), request.since, until, request.dry_run);
        let mut note = Note {
            subscriber_id: self.subscriber_id.to_string(),
            since: request.since.get(),
            until: request.until.map(Millis::get),
            place: request.since.get(),
            window: None,
            young: None,
            hole: None,
            finished_at: None,
        };
        if !request.dry_run
            && let Some(last) = Note::load(&*self.log, &request.note).await?
            && last.resumes(&self.subscriber_id, request.since, request.until)
        {
            report.resumed_at = Millis::new(last.place).filter(|place| *place > request.since);
            report.young = last.young.and_then(Millis::new);
            note = Note { hole: None, ..last };
        }
        // A window may list a run that began before the point that was reached, and ends after the window that was under way
        // then.
        let resumed = report.resumed_at.map(|place| (note.clone(), place.minus(WINDOW_OVERLAP).max(request.since)));
        let walked = self.walk(resumed, until, boundary, request, &mut report, &mut note, &mut progress).await;
        progress(&report, Millis::new(note.place).unwrap_or(until));
        if !request.dry_run {
            if walked.is_ok() && report.incomplete_lists == 0 {
                note.finished_at = Some(self.clock.now().get());
            }
            let kept = note.keep(&*self.log, &request.note).await;
            if let (Err(_), Err(error)) = (&walked, &kept) {
                tracing::warn!(%error, "could not save the progress of the backfill: the next one starts over");
            }
            // The error that interrupted the backfill is reported first.
            walked?;
            kept?;
        } else {
            walked?;
        }
        Ok(report)
    }

    #[expect(clippy::too_many_arguments, reason = "the state of one walk, in one place")]
    async fn walk(
        &self,
        resumed: Option<(Note, Millis)>,
        until: Millis,
        boundary: Millis,
        request: &BackfillRequest,
        report: &mut BackfillReport,
        note: &mut Note,
        progress: &mut impl FnMut(&BackfillReport, Millis),
    ) -> Result<(), Error> {
        let mut noted = self.clock.steady();
        let (earlier, mut from) = resumed.map_or((None, request.since), |(note, from)| (Some(note), from));
        // The runs of the previous window, which may be listed again.
        let mut before = HashSet::new();
        while from <= until {
            let to = from.plus(WINDOW_LENGTH).min(until);
            let next = if to < until { to.minus(WINDOW_OVERLAP) } else { to };
            let mut seen = HashSet::new();
            note.entered(to);
            let mut pages = self.client.history(from, to);
            while let Some(page) = self.page(&mut pages, (List::History, None, from, to), report, note).await? {
                let uuids: Vec<String> = page.iter().filter_map(|conference| conference.conf_uuid.clone()).collect();
                let known = merged_run::by_uuid(self.log.known_runs(&uuids).await?);
                for conference in &page {
                    if earlier.as_ref().is_some_and(|note| note.has_seen(conference.start, conference.end)) {
                        continue;
                    }
                    if let Some(uuid) = &conference.conf_uuid {
                        seen.insert(uuid.clone());
                        if before.contains(uuid) {
                            continue;
                        }
                    }
                    let known = conference.conf_uuid.as_deref().and_then(|uuid| known.get(uuid));
                    self.one(conference, known, boundary, request.dry_run, (report, note)).await?;
                    if let Some(start) = conference.start {
                        note.reached(start);
                    }
                    note.young = report.young.map(Millis::get);
                    progress(report, conference.start.unwrap_or(from));
                    let now = self.clock.steady();
                    if !request.dry_run && now.saturating_sub(noted) >= NOTE_INTERVAL {
                        note.keep(&*self.log, &request.note).await?;
                        noted = now;
                    }
                }
            }
            note.reached(next);
            progress(report, to);
            if to == until {
                break;
            }
            (from, before) = (next, seen);
        }
        Ok(())
    }

    /// The next page of a list; `None` at its end. If the list ends early, that is noted and reported.
    async fn page<T: Item>(
        &self,
        pages: &mut Pages<T>,
        (list, uuid, since, until): (List, Option<&str>, Millis, Millis),
        report: &mut BackfillReport,
        note: &mut Note,
    ) -> Result<Option<Vec<T>>, Error> {
        match pages.next().await {
            Err(error) if error.class == Class::Incomplete => {
                let missing = Incomplete {
                    list,
                    meeting_uuid: uuid.map(str::to_owned),
                    since,
                    until,
                    announced: pages.total().unwrap_or_default(),
                    given: pages.given(),
                    problem: error.to_string(),
                };
                tracing::warn!(
                    list = list.as_str(),
                    advice = error.advice,
                    "the platform returned an incomplete \
                                                                             list: {}",
                    missing.shown(&TimeZone::default())
                );
                report.missed(missing);
                note.missed(since);
                Ok(None)
            }
            page => Ok(page?),
        }
    }

    /// The stays of a run; `None` if the platform does not give all of them.
    async fn stays(
        &self,
        conference: &Conference,
        uuid: &str,
        report: &mut BackfillReport,
        note: &mut Note,
    ) -> Result<Option<Vec<AttendeeRecord>>, Error> {
        let (lists, mut records) = (report.incomplete_lists, Vec::new());
        // A run without any known time is found again from the beginning of the range.
        let since = conference.start.or(conference.end).unwrap_or(report.since);
        let of = (List::Participants, Some(uuid), since, conference.end.unwrap_or(since));
        let mut pages = self.client.attendees(uuid);
        while let Some(page) = self.page(&mut pages, of, report, note).await? {
            records.extend(page);
        }
        Ok(Some(records).filter(|_| report.incomplete_lists == lists))
    }

    /// Who was in a run, by the dashboard (7.1.2.3); nobody where it does not tell. After a refusal it is not asked again: what it
    /// adds, the history does not need.
    async fn participants(&self, conference: &Conference, uuid: &str, report: &mut BackfillReport) -> Vec<Participant> {
        let too_old = conference.start.is_some_and(|start| self.clock.now().since(start) > DASHBOARD_PERIOD);
        if too_old || report.identities_refused.is_some() {
            return Vec::new();
        }
        let (mut pages, mut participants) = (self.client.participants(uuid), Vec::new());
        loop {
            match pages.next().await {
                Ok(Some(page)) => participants.extend(page),
                Ok(None) => return participants,
                // A part of them would look like all.
                Err(error) if error.class == Class::Incomplete => return Vec::new(),
                Err(error) => {
                    tracing::info!(%error, "the dashboard does not tell who was in meetings: stays are filled from history alone");
                    report.identities_refused = Some(error.to_string());
                    return Vec::new();
                }
            }
        }
    }

    /// Compares one run of the history, and fills its gaps.
    async fn one(
        &self,
        conference: &Conference,
        known: Option<&MergedRun>,
        boundary: Millis,
        dry_run: bool,
        (report, note): (&mut BackfillReport, &mut Note),
    ) -> Result<(), Error> {
        report.runs += 1;
        let unfillable =
            |report: &mut BackfillReport, reason: Unfillable| *report.not_fillable.entry(reason).or_default() += 1;
        let Some(uuid) = conference.conf_uuid.as_deref() else {
            unfillable(report, Unfillable::NoRun);
            return Ok(());
        };
        let plan = if plan::is_over(conference, boundary) {
            let Some(records) = self.stays(conference, uuid, report, note).await? else {
                unfillable(report, Unfillable::Incomplete);
                return Ok(());
            };
            let participants = self.participants(conference, uuid, report).await;
            report.identified += participants.len() as u64;
            let mut past = plan::identified(records, participants);
            report.stays += past.len() as u64;
            report.forgotten += self.mark_forgotten(uuid, known, &mut past).await?;
            let stays = match known {
                Some(_) => self.log.known_stays(uuid).await?,
                None => Vec::new(),
            };
            plan::plan(conference, uuid, &past, known.map(|known| &known.run), &stays, boundary)
        } else {
            Plan { unfillable: vec![Unfillable::TooYoung], ..Plan::default() }
        };
        if plan == Plan::default() {
            report.complete += 1;
        }
        for gap in &plan.gaps {
            *report.gaps.entry(*gap).or_default() += 1;
        }
        for reason in &plan.unfillable {
            if *reason == Unfillable::TooYoung {
                report.young = report.young.into_iter().chain(conference.start).min();
            }
            unfillable(report, *reason);
        }
        if dry_run {
            for event in &plan.events {
                *report.filled.entry(event.kind).or_default() += 1;
            }
            return Ok(());
        }
        let whose = known.map_or(&self.subscriber_id, MergedRun::last_subscriber);
        for chunk in plan.events.chunks(MAX_BATCH) {
            let stored = store(&self.intake, &self.clock, (whose, Source::Backfill), chunk).await?;
            for (event, appended) in chunk.iter().zip(stored) {
                match appended {
                    Appended::Stored => *report.filled.entry(event.kind).or_default() += 1,
                    Appended::Duplicate | Appended::Noted => report.already_there += 1,
                    Appended::Quarantined => unfillable(report, Unfillable::Refused),
                }
            }
        }
        Ok(())
    }

    /// Marks the stays of people who were erased since. Returns how many there are.
    async fn mark_forgotten(
        &self,
        uuid: &str,
        known: Option<&MergedRun>,
        past: &mut [PastStay],
    ) -> Result<u64, LogError> {
        let stays: Vec<PlatformStay<'_>> = past
            .iter()
            .map(|stay| PlatformStay {
                name: stay.display_name.as_deref(),
                number: stay.call_number.as_deref(),
                at: stay.joined_at.or(stay.left_at),
            })
            .collect();
        let mut forgotten = vec![false; stays.len()];
        for subscriber_id in known.map_or(std::slice::from_ref(&self.subscriber_id), |known| &known.subscribers) {
            let run = RunKey { subscriber_id: Arc::clone(subscriber_id), meeting_uuid: Arc::from(uuid) };
            let here = suppression::forgotten_stays(&*self.log, &run, &stays).await?;
            forgotten.iter_mut().zip(here).for_each(|(forgotten, here)| *forgotten |= here);
        }
        for (stay, forgotten) in past.iter_mut().zip(&forgotten) {
            stay.forgotten = *forgotten;
        }
        Ok(forgotten.iter().filter(|forgotten| **forgotten).count() as u64)
    }
}

/// Puts events that were made from the platform's answers into the log, in order and together. Returns the outcome of each.
///
/// # Errors
/// [`Error::NotStored`].
pub async fn store(
    intake: &Intake,
    clock: &Clock,
    (subscriber_id, source): (&Arc<str>, Source),
    events: &[impl AsRef<str> + Sync],
) -> Result<Vec<Appended>, Error> {
    let mut outcomes = vec![None; events.len()];
    let mut waiting: Vec<usize> = (0..events.len()).collect();
    for _ in 0..MAX_TRIES {
        let mut again = Vec::new();
        for chunk in waiting.chunks(MAX_BATCH) {
            let offers = chunk.iter().map(|place| {
                let event_info = events[*place].as_ref();
                let now = clock.now();
                let verified = verify::pulled(subscriber_id, event_info, source, now);
                if let Content::Unreadable(unreadable) = verified.content() {
                    tracing::warn!(
                        reason = unreadable.reason,
                        "an event made from the platform's answers is unreadable: moved to the quarantine"
                    );
                }
                let body = Bytes::copy_from_slice(event_info.as_bytes());
                async move { (*place, intake.store(verified, body, now).await) }
            });
            for (place, stored) in join_all(offers).await {
                match stored {
                    Ok(appended) => outcomes[place] = Some(appended),
                    Err(_) => again.push(place),
                }
            }
        }
        if again.is_empty() {
            return Ok(outcomes.into_iter().flatten().collect());
        }
        waiting = again;
        tokio::time::sleep(RETRY_DELAY).await;
    }
    Err(Error::NotStored)
}
