//! A log that stores in memory, when it is let, and fails as it is told.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use convoke_core::event::Record;
use convoke_core::id::{EventId, Seq};
use convoke_log::disk::Disk;
use convoke_log::{
    Changes, Counts, CursorState, Enriched, Erasure, Erasures, EventFilter, Fact, Fetch, Fetched, Fetches, Filter,
    Finish, Gaps, Handles, Handshakes, Heartbeat, Host, KnownRun, KnownStay, Lag, Lease, Leased, ListedEvent,
    ListedMeeting, ListedQuarantined, ListedStay, Listing, MeetingFilter, MeetingKey, Moved, Page, PersonRow,
    PersonStay, Probes, QuarantineFilter, Quarantined, Reading, RecordingFilter, RecordingRow, Run, RunKey, Schema,
    Sessions, SetAside, StayFilter, StayKey, Stored, Tables, WorkCounts,
};

#[derive(Debug)]
pub struct Scripted {
    script: Mutex<Script>,
    /// One for each append that may go on.
    through: Semaphore,
    /// One for each append that has begun.
    begun: Semaphore,
}

#[derive(Debug, Default)]
struct Script {
    refused: HashSet<&'static str>,
    quarantine_fails: bool,
    /// Whether each of the next appends fails.
    failures: VecDeque<bool>,
    batches: Vec<Vec<String>>,
    merged: Vec<(u32, i64)>,
    stored: Vec<String>,
    quarantined: Vec<(Unreadable, u32)>,
    probes_fail: bool,
    heartbeat: Option<Heartbeat>,
    beats: u32,
}

impl Default for Scripted {
    fn default() -> Self {
        Self { script: Mutex::default(), through: Semaphore::new(0), begun: Semaphore::new(0) }
    }
}

/// The event's name; `-` for what is none.
fn name(append: &Append) -> String {
    match append.verified.content() {
        Content::Event(event) => event.event.to_string(),
        Content::Handshake(_) => convoke_core::event::HANDSHAKE.to_owned(),
        Content::Unreadable(_) => "-".to_owned(),
    }
}

fn unavailable() -> LogError {
    LogError::Unavailable("by the script".into())
}

impl Scripted {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn let_through(&self, appends: usize) {
        self.through.add_permits(appends);
    }

    /// Lets no more through, and counts from here.
    pub fn hold(&self) {
        self.through.forget_permits(usize::MAX);
        self.begun.forget_permits(usize::MAX);
    }

    pub async fn wait_begun(&self) {
        self.begun.acquire().await.expect("never closed").forget();
    }

    pub fn refuse<const N: usize>(&self, names: [&'static str; N]) {
        self.script().refused.extend(names);
    }

    pub fn refuse_quarantine(&self) {
        self.script().quarantine_fails = true;
    }

    pub fn fail_next(&self, failures: &[bool]) {
        self.script().failures.extend(failures);
    }

    /// Somebody accepted events so long ago.
    pub fn set_heartbeat(&self, age: Duration) {
        self.script().heartbeat = Some(Heartbeat { at: Millis::EPOCH, age, elsewhere: false });
    }

    pub fn refuse_probes(&self, refuse: bool) {
        self.script().probes_fail = refuse;
    }

    pub fn beats(&self) -> u32 {
        self.script().beats
    }

    pub fn batches(&self) -> Vec<Vec<String>> {
        self.script().batches.clone()
    }

    /// Deliveries and time of the newest one, of everything that was to be appended.
    pub fn merged(&self) -> Vec<(u32, i64)> {
        self.script().merged.clone()
    }

    pub fn stored(&self) -> Vec<String> {
        self.script().stored.clone()
    }

    pub fn quarantined(&self) -> Vec<(Unreadable, u32)> {
        self.script().quarantined.clone()
    }
}

#[async_trait]
impl Log for Scripted {
    fn describe(&self) -> String {
        "a script".to_owned()
    }

    async fn append(&self, batch: &[Append]) -> Result<Committed, LogError> {
        self.begun.add_permits(1);
        self.through.acquire().await.expect("never closed").forget();
        let mut script = self.script();
        let names: Vec<_> = batch.iter().map(name).collect();
        script.batches.push(names.clone());
        if script.failures.pop_front() == Some(true) {
            return Err(unavailable());
        }
        if names.iter().any(|name| script.refused.contains(&**name)) {
            return Err(LogError::Rejected("by the script".into()));
        }
        script.merged.extend(batch.iter().map(|append| (append.deliveries, append.last_delivered_at.get())));
        let outcomes = batch
            .iter()
            .zip(names)
            .map(|(append, name)| match append.verified.content() {
                Content::Handshake(_) => Appended::Noted,
                Content::Unreadable(_) => Appended::Quarantined,
                Content::Event(_) if script.stored.contains(&name) => Appended::Duplicate,
                Content::Event(_) => {
                    script.stored.push(name);
                    Appended::Stored
                }
            })
            .collect();
        Ok(Committed { outcomes, first: None })
    }

    async fn quarantine(&self, unreadable: &Unreadable, deliveries: u32) -> Result<(), LogError> {
        let mut script = self.script();
        if script.quarantine_fails {
            return Err(unavailable());
        }
        script.quarantined.push((unreadable.clone(), deliveries));
        Ok(())
    }

    async fn probe(&self) -> Result<(), LogError> {
        if self.script().probes_fail { Err(unavailable()) } else { Ok(()) }
    }

    async fn beat(&self) -> Result<(), LogError> {
        self.script().beats += 1;
        Ok(())
    }

    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError> {
        Ok(self.script().heartbeat)
    }

    // The intake has no use for the rest.

    async fn note(&self, _: &str) -> Result<Option<String>, LogError> {
        Err(unavailable())
    }
    async fn keep_note(&self, _: &str, _: &str) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn places(&self, _: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError> {
        Err(unavailable())
    }

    async fn migrate(&self, _: bool) -> Result<Schema, LogError> {
        Err(unavailable())
    }
    async fn read(&self, _: Seq, _: u32) -> Result<Vec<Record>, LogError> {
        Err(unavailable())
    }
    async fn select(&self, _: &Filter, _: Seq, _: u32) -> Result<Vec<Record>, LogError> {
        Err(unavailable())
    }
    async fn count(&self, _: &[EventId]) -> Result<HashMap<EventId, u64>, LogError> {
        Err(unavailable())
    }
    async fn find(&self, _: EventId) -> Result<Option<Seq>, LogError> {
        Err(unavailable())
    }
    async fn head(&self) -> Result<Seq, LogError> {
        Err(unavailable())
    }
    async fn lease(&self, _: &str, _: &str, _: Duration) -> Result<Option<Leased>, LogError> {
        Err(unavailable())
    }
    async fn advance(&self, _: &str, _: &str, _: Seq, _: Duration) -> Result<Moved, LogError> {
        Err(unavailable())
    }
    async fn weaknesses(&self) -> Result<Vec<String>, LogError> {
        Err(unavailable())
    }
    async fn claim(&self, _: &str, _: &str, _: Duration) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn release(&self, _: &str, _: &str) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn now(&self) -> Result<Millis, LogError> {
        Err(unavailable())
    }

    async fn cursors(&self) -> Result<Vec<CursorState>, LogError> {
        Err(unavailable())
    }
    async fn lag(&self, _: &str) -> Result<Lag, LogError> {
        Err(unavailable())
    }
    async fn set_aside(&self, _: &str, _: Seq, _: EventId, _: &str) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn take_up(&self, _: &str, _: Seq) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn list_set_aside(&self, _: &str, _: Seq, _: u32) -> Result<Vec<SetAside>, LogError> {
        Err(unavailable())
    }
    async fn list_quarantined(&self, _: i64, _: u32) -> Result<Vec<Quarantined>, LogError> {
        Err(unavailable())
    }
    async fn get_quarantined(&self, _: i64) -> Result<Option<Quarantined>, LogError> {
        Err(unavailable())
    }
    async fn discard_quarantined(&self, _: i64) -> Result<bool, LogError> {
        Err(unavailable())
    }
    async fn counts(&self) -> Result<Counts, LogError> {
        Err(unavailable())
    }
    async fn retention_held(&self, _: Millis) -> Result<Option<convoke_log::RetentionHeld>, LogError> {
        Err(unavailable())
    }
    async fn maintain(&self, _: Millis) -> Result<(), LogError> {
        Err(unavailable())
    }
    fn maintenance_interval(&self) -> Duration {
        Duration::MAX
    }
    fn disk(&self) -> Option<Disk> {
        None
    }
    async fn close(&self) {}
}

#[async_trait]
impl Gaps for Scripted {
    async fn known_runs(&self, _: &[String]) -> Result<Vec<KnownRun>, LogError> {
        Err(unavailable())
    }
    async fn known_stays(&self, _: &str) -> Result<Vec<KnownStay>, LogError> {
        Err(unavailable())
    }
}

#[async_trait]
impl Fetches for Scripted {
    async fn finishes(&self, _: Seq, _: Seq) -> Result<Vec<Finish>, LogError> {
        Err(unavailable())
    }
    async fn queue(&self, _: &str, _: &str, _: Seq, _: Duration, _: &[Finish]) -> Result<Moved, LogError> {
        Err(unavailable())
    }
    async fn due_fetches(&self, _: Millis, _: u32) -> Result<Vec<Fetch>, LogError> {
        Err(unavailable())
    }
    async fn settle_fetch(&self, _: &Fetch, _: &Fetched) -> Result<bool, LogError> {
        Err(unavailable())
    }
    async fn queue_enrichments(&self, _: Millis) -> Result<u64, LogError> {
        Err(unavailable())
    }
    async fn due_enrichments(&self, _: Millis, _: u32) -> Result<Vec<Run>, LogError> {
        Err(unavailable())
    }
    async fn settle_enrichment(&self, _: &Run, _: &Enriched) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn work_counts(&self) -> Result<(WorkCounts, WorkCounts), LogError> {
        Err(unavailable())
    }
}

#[async_trait]
impl Erasures for Scripted {
    async fn make_forgotten_key(&self, _: &str) -> Result<String, LogError> {
        Err(unavailable())
    }
    async fn forgotten_key(&self) -> Result<Option<String>, LogError> {
        Err(unavailable())
    }
    async fn remember_forgotten(&self, _: &[String], _: Millis) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn forgotten(&self, _: &[String]) -> Result<HashMap<String, Millis>, LogError> {
        Err(unavailable())
    }
    async fn begin_erasure(&self, _: &str, _: &str) -> Result<Erasure, LogError> {
        Err(unavailable())
    }
    async fn erasure(&self, _: i64) -> Result<Erasure, LogError> {
        Err(unavailable())
    }
    async fn finish_erasure(&self, _: i64) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn person_rows(&self, _: &Handles, _: &[RunKey], _: Seq, _: Seq) -> Result<Vec<PersonRow>, LogError> {
        Err(unavailable())
    }
    async fn person_stays(
        &self,
        _: &Handles,
        _: Option<Uuid>,
        _: u32,
    ) -> Result<(Vec<PersonStay>, Option<Uuid>), LogError> {
        Err(unavailable())
    }
    async fn note_stays(&self, _: &Erasure, _: &[(StayKey, Option<String>)], _: &[String]) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn noted_stays(&self, _: i64) -> Result<Vec<StayKey>, LogError> {
        Err(unavailable())
    }
    async fn erase_rows(&self, _: &Erasure, _: &[PersonRow]) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn erase_stays(&self, _: Lease<'_>, _: Seq, _: i64, _: &[StayKey], _: &Changes) -> Result<Moved, LogError> {
        Err(unavailable())
    }
    async fn erase_quarantined(&self, _: i64, _: i64) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn hosts(&self, _: Option<&RunKey>, _: u32) -> Result<Vec<Host>, LogError> {
        Err(unavailable())
    }
    async fn erase_host(&self, _: i64, _: &RunKey, _: bool) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn erased_events(&self, _: i64) -> Result<Vec<EventId>, LogError> {
        Err(unavailable())
    }
    async fn erased_meetings(&self, _: i64) -> Result<Vec<Option<String>>, LogError> {
        Err(unavailable())
    }
    async fn count_messages(&self, _: i64, _: u64) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn erased_messages(&self) -> Result<u64, LogError> {
        Err(unavailable())
    }
    async fn scrub(&self, _: bool) -> Result<Vec<String>, LogError> {
        Err(unavailable())
    }
}

#[async_trait]
impl Probes for Scripted {
    async fn expect_probe(&self, _: &str, _: &str) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn probe_arrived(&self, _: &str) -> Result<bool, LogError> {
        Err(unavailable())
    }
    async fn handshakes(&self, _: &str) -> Result<Handshakes, LogError> {
        Err(unavailable())
    }

    async fn last_push(&self, _subscriber: &str) -> Result<Option<Millis>, LogError> {
        Ok(None)
    }
}

#[async_trait]
impl Sessions for Scripted {
    async fn end_session(&self, _: &str, _: Millis) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn ended_sessions(&self) -> Result<Vec<String>, LogError> {
        Err(unavailable())
    }
}

#[async_trait]
impl Reading for Scripted {
    async fn list_events(&self, _: &EventFilter, _: &Page<EventId>) -> Result<Listing<ListedEvent, EventId>, LogError> {
        Err(unavailable())
    }
    async fn events_between(
        &self,
        _: &EventFilter,
        _: Seq,
        _: Seq,
        _: u32,
        _: Duration,
    ) -> Result<Listing<ListedEvent, Seq>, LogError> {
        Err(unavailable())
    }
    async fn get_event(&self, _: EventId) -> Result<Option<ListedEvent>, LogError> {
        Err(unavailable())
    }
    async fn list_meetings(
        &self,
        _: &MeetingFilter,
        _: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError> {
        Err(unavailable())
    }
    async fn get_meeting(&self, _: &RunKey) -> Result<Option<ListedMeeting>, LogError> {
        Err(unavailable())
    }
    async fn list_stays(&self, _: &StayFilter, _: &Page<Uuid>) -> Result<Listing<ListedStay, Uuid>, LogError> {
        Err(unavailable())
    }
    async fn list_recordings(
        &self,
        _: &RecordingFilter,
        _: &Page<EventId>,
    ) -> Result<Listing<RecordingRow, EventId>, LogError> {
        Err(unavailable())
    }
    async fn list_quarantine(
        &self,
        _: &QuarantineFilter,
        _: &Page<i64>,
    ) -> Result<Listing<ListedQuarantined, i64>, LogError> {
        Err(unavailable())
    }
}

#[async_trait]
impl convoke_log::Statistics for Scripted {
    async fn count_events(&self, _: &[Millis], _: Duration) -> Result<Vec<i64>, LogError> {
        Err(unavailable())
    }
    async fn count_stays(&self, _: Millis, _: Duration, _: usize, _: Duration) -> Result<Vec<i64>, LogError> {
        Err(unavailable())
    }
    async fn count_meetings(&self, _: &[Millis], _: Duration) -> Result<Vec<convoke_log::Held>, LogError> {
        Err(unavailable())
    }
    async fn count_arrived(&self, _: Seq, _: Millis, _: Millis, _: Duration) -> Result<convoke_log::Arrived, LogError> {
        Err(unavailable())
    }
    async fn newest_events(&self, _: u32, _: Duration) -> Result<Vec<ListedEvent>, LogError> {
        Err(unavailable())
    }
    async fn going_on(&self, _: Millis, _: u32, _: Duration) -> Result<convoke_log::GoingOn, LogError> {
        Err(unavailable())
    }
}

#[async_trait]
impl Tables for Scripted {
    async fn read_facts(&self, _: Seq, _: u32) -> Result<Vec<Fact>, LogError> {
        Err(unavailable())
    }
    async fn load_runs(&self, _: &[RunKey]) -> Result<Vec<Stored>, LogError> {
        Err(unavailable())
    }
    async fn project(&self, _: Lease<'_>, _: Seq, _: &Changes) -> Result<Moved, LogError> {
        Err(unavailable())
    }
    async fn runs_before_log(&self) -> Result<i64, LogError> {
        Err(unavailable())
    }
    async fn table_counts(&self) -> Result<[i64; 3], LogError> {
        Err(unavailable())
    }
    async fn clear_tables(&self, _: Lease<'_>) -> Result<Moved, LogError> {
        Err(unavailable())
    }
}
