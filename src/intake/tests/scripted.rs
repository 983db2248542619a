//! A log that stores in memory, when it is allowed to, and fails on demand.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::*;
use convoke_core::event::{Content, Record};
use convoke_core::id::{EventId, Seq};
use convoke_log::{CursorState, Heartbeat, Lag, Leased, LogReader, Moved};

#[derive(Debug)]
pub struct Scripted {
    script: Mutex<Script>,
    /// One permit for each append that may proceed.
    through: Semaphore,
    /// One permit for each append that has begun.
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

/// The event's name; `-` if the delivery is no event.
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

    /// Lets no more appends through, and resets the count of begun ones.
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

    /// Sets how long ago some process last accepted events.
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

    /// The number of deliveries and the time of the newest one, for every entry that was appended.
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

    async fn record_heartbeat(&self) -> Result<(), LogError> {
        self.script().beats += 1;
        Ok(())
    }

    // The intake does not use cursors.

    async fn lease(&self, _: &str, _: &str, _: Duration) -> Result<Option<Leased>, LogError> {
        Err(unavailable())
    }
    async fn advance(&self, _: &str, _: &str, _: Seq, _: Duration) -> Result<Moved, LogError> {
        Err(unavailable())
    }
    async fn claim(&self, _: &str, _: &str, _: Duration) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn release(&self, _: &str, _: &str) -> Result<(), LogError> {
        Err(unavailable())
    }
    async fn set_aside(&self, _: &str, _: Seq, _: EventId, _: &str) -> Result<(), LogError> {
        Err(unavailable())
    }
}

#[async_trait]
impl LogReader for Scripted {
    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError> {
        Ok(self.script().heartbeat)
    }

    // Nor does it read the log.

    async fn read(&self, _: Seq, _: u32) -> Result<Vec<Record>, LogError> {
        Err(unavailable())
    }
    async fn head(&self) -> Result<Seq, LogError> {
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
}
