//! A person's messages in the stream: found on the subjects of the person's meetings, deleted by sequence number.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ForgetError, retrying};
use crate::cursor::Handover;
use crate::projection::stay_id;
use crate::relay::{self, meeting_subjects};
use convoke_bus::{Bus, FoundMessage};
use convoke_core::event::{Meeting, TEST_MEETINGS};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::{Millis, instant};
use convoke_core::verify::{self, Times};
use convoke_log::{Erasures, Handles, Operations, StayKey};

/// Maximum number of subjects that are read at a time.
const PAGE_SUBJECTS: usize = 100;

/// Maximum number of messages that are checked at a time.
const PAGE_MESSAGES: usize = 256;

/// Number of messages that are counted together before they are deleted: if the erasure is interrupted, no more than these were
/// counted without being deleted.
const COUNTED_MESSAGES: usize = 64;

/// Maximum number of concurrent deletions.
const MAX_CONCURRENT_DELETES: usize = 16;

/// How long a running relay may take to publish what it has read, and another cursor to pass a sequence number; and how often
/// that is checked.
const CURSOR_TIMEOUT: Duration = Duration::from_secs(10);
const CURSOR_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Identifies the messages of a person.
pub struct Person<'a> {
    /// Messages of these events.
    pub events: &'a HashSet<EventId>,
    /// Messages that name the person, if the log does not have their event any more.
    pub handles: &'a Handles,
    /// Messages of these stays, likewise.
    pub stays: &'a HashSet<StayKey>,
}

/// Waits until no relay has rows in memory that were erased from the log up to `place`.
///
/// A new owner of the lease reads what it publishes from the log, so it is enough to have held the lease once; what the owner
/// before had sent is in the stream by then. In addition, a running relay gets some time to pass `place`: a relay that lost its
/// lease without noticing has noticed it by then.
pub async fn wait_for_relay(log: &dyn Operations, owner: &str, place: Seq) -> Result<(), ForgetError> {
    let mut lease = Handover::new(log, relay::CURSOR, owner);
    lease.take().await?;
    lease.end().await?;
    wait_for_cursor(log, relay::CURSOR, place).await
}

/// Waits for a limited time until a cursor that some process runs has passed `place`.
pub async fn wait_for_cursor(log: &dyn Operations, cursor: &str, place: Seq) -> Result<(), ForgetError> {
    let begun = instant();
    while begun.elapsed() < CURSOR_TIMEOUT {
        let states = log.cursors().await?;
        let behind =
            |state: &convoke_log::CursorState| state.name == cursor && state.owner.is_some() && state.position < place;
        if !states.iter().any(behind) {
            break;
        }
        tokio::time::sleep(CURSOR_POLL_INTERVAL).await;
    }
    Ok(())
}

/// The sequence numbers of the person's messages.
pub async fn find(
    log: &dyn Operations,
    bus: &Bus,
    person: &Person<'_>,
    meetings: HashSet<Option<String>>,
) -> Result<Vec<u64>, ForgetError> {
    find_among(bus, meetings, async |page| {
        let unsure: Vec<EventId> =
            page.iter().filter_map(|message| message.id).filter(|id| !person.events.contains(id)).collect();
        let known: HashMap<EventId, Seq> = log.find(&unsure).await?;
        Ok(page.iter().map(|message| is_of(message, person, &known)).collect())
    })
    .await
}

/// The sequence numbers of the messages of test data on the subjects of these meetings.
pub async fn find_test_data(bus: &Bus, meetings: HashSet<Option<String>>) -> Result<Vec<u64>, ForgetError> {
    #[derive(Deserialize)]
    struct Body {
        subject: Option<String>,
    }
    let is_test = |message: &FoundMessage| {
        let body = serde_json::from_slice::<Body>(&message.payload);
        message.id.is_some() && body.is_ok_and(|body| body.subject.is_some_and(|run| run.starts_with(TEST_MEETINGS)))
    };
    find_among(bus, meetings, async |page| Ok(page.iter().map(is_test).collect())).await
}

/// The sequence numbers of the messages on the subjects of `meetings` that `judge` accepts; it gets a page at a time.
async fn find_among(
    bus: &Bus,
    meetings: HashSet<Option<String>>,
    mut judge: impl AsyncFnMut(&[FoundMessage]) -> Result<Vec<bool>, ForgetError>,
) -> Result<Vec<u64>, ForgetError> {
    // Different meetings may share a subject.
    let subjects: BTreeSet<String> =
        meetings.iter().map(|meeting| meeting_subjects(bus.subject_prefix(), meeting.as_deref())).collect();
    let subjects: Vec<String> = subjects.into_iter().collect();
    let mut found = Vec::new();
    if bus.eraser().await?.is_none() {
        return Ok(found);
    }
    for subjects in subjects.chunks(PAGE_SUBJECTS) {
        let mut reading = bus.read_subjects(subjects.to_vec());
        loop {
            let mut page = Vec::with_capacity(PAGE_MESSAGES);
            while page.len() < PAGE_MESSAGES
                && let Some(message) = reading.next().await?
            {
                page.push(message);
            }
            if page.is_empty() {
                break;
            }
            let judged = judge(&page).await?;
            found.extend(page.iter().zip(judged).filter(|(_, yes)| *yes).map(|(message, _)| message.sequence));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn is_of(message: &FoundMessage, person: &Person<'_>, known: &HashMap<EventId, Seq>) -> bool {
    match message.id {
        Some(id) if person.events.contains(&id) => true,
        // The log has this event, and it is another person's, or new.
        Some(id) if known.contains_key(&id) => false,
        Some(_) => names_person(&message.payload, person),
        None => false,
    }
}

/// Whether a message's own content says that it is the person's.
fn names_person(payload: &[u8], person: &Person<'_>) -> bool {
    #[derive(Deserialize)]
    struct Body<'a> {
        source: String,
        subject: Option<String>,
        time: Option<String>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let Ok(body) = serde_json::from_slice::<Body<'_>>(payload) else { return false };
    // The message does not contain the time of receipt; the time of the event serves as well here.
    let times = Times::at(body.time.as_deref().and_then(Millis::parse).unwrap_or(Millis::MAX));
    let (meeting, attendee) = verify::columns(body.data.map(RawValue::get), times);
    if person.handles.name(&meeting, &attendee) {
        return true;
    }
    let subscriber = body.source.rsplit('/').next().unwrap_or_default();
    let subscriber = percent_encoding::percent_decode_str(subscriber).decode_utf8_lossy();
    let meeting = Meeting { uuid: body.subject.map(Arc::from), ..Meeting::default() };
    super::matches::run_of(&Arc::from(&*subscriber), &meeting).is_some_and(|run| {
        let stay_id = stay_id(&run, &attendee);
        person.stays.contains(&StayKey { run, stay_id })
    })
}

/// Deletes messages. Each chunk is counted before it is deleted, so that the stream watch does not report it as a loss.
pub async fn delete(log: &dyn Erasures, bus: &Bus, erasure: i64, messages: &[u64]) -> Result<(), ForgetError> {
    let Some(eraser) = bus.eraser().await? else { return Ok(()) };
    for piece in messages.chunks(COUNTED_MESSAGES) {
        retrying(async || log.count_messages(erasure, piece.len() as u64).await).await?;
        stream::iter(piece)
            .map(|sequence| eraser.delete(*sequence))
            .buffer_unordered(MAX_CONCURRENT_DELETES)
            .try_collect::<Vec<()>>()
            .await?;
    }
    Ok(())
}
