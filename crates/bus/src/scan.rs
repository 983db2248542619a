//! Reads the stream back, without the bodies of the messages.

use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt as _;
use uuid::Uuid;

use super::{Bus, BusError, MSG_ID, REPLAY, failed};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::instant;

/// How long to wait for a message before asking the server whether there is one.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a failed read is retried: a cluster that has just lost or regained a node does not respond to requests, or
/// refuses them, until it has elected its leaders.
pub(super) const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// Delay between retries.
const RETRY_DELAY: Duration = Duration::from_millis(250);

pub(super) const READING: &str = "reading the stream";

/// One message of the stream, without its body.
#[derive(Clone, Debug)]
pub struct StreamEntry {
    /// Its number in the stream.
    pub sequence: u64,
    /// Its `Nats-Msg-Id`, if it is an event's id.
    pub id: Option<EventId>,
    /// Whether it is marked as a replay.
    pub replay: bool,
}

impl Bus {
    /// Reads all messages that the stream contains now, oldest first, without their bodies.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn scan(&self) -> Result<Scan, BusError> {
        self.scan_after(0).await
    }

    /// The same, starting after this message.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn scan_after(&self, sequence: u64) -> Result<Scan, BusError> {
        let (jetstream, name) = (self.jetstream.clone(), self.options.stream.clone());
        let began = instant();
        let (stream, last, messages) = loop {
            match open(&jetstream, &name, sequence, None).await {
                Ok(opened) => break opened,
                Err(Broken::Briefly(reason)) if began.elapsed() > RETRY_TIMEOUT => {
                    return Err(failed(READING)(&reason));
                }
                Err(Broken::Briefly(reason)) => wait(&reason).await,
                Err(Broken::ForGood(reason)) => return Err(failed(READING)(&reason)),
            }
        };
        Ok(Scan { jetstream, name, stream, messages, seen: sequence, last })
    }

    /// The event of the newest message that contains one: the event's id, and its position in the log when it was published.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn newest_event(&self) -> Result<Option<(EventId, Seq)>, BusError> {
        #[derive(serde::Deserialize)]
        struct Body {
            id: uuid::Uuid,
            sequence: String,
        }
        let reading = failed(READING);
        let stream = self.jetstream.get_stream(&self.options.stream).await.map_err(|error| reading(&error))?;
        match stream.get_last_raw_message_by_subject(&format!("{}.>", self.options.subject_prefix)).await {
            Ok(message) => Ok(serde_json::from_slice::<Body>(&message.payload)
                .ok()
                .and_then(|body| Some((EventId::from_uuid(body.id), Seq(body.sequence.parse().ok()?))))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(reading(&error)),
        }
    }

    /// Whether the stream contains a message on `subject`.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn holds_subject(&self, subject: &str) -> Result<bool, BusError> {
        let reading = failed(READING);
        let stream = self.jetstream.get_stream(&self.options.stream).await.map_err(|error| reading(&error))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
            Err(error) => Err(reading(&error)),
        }
    }
}

/// Why the stream cannot be read.
pub(super) enum Broken {
    /// Probably temporary.
    Briefly(String),
    /// A permanent refusal by the server.
    ForGood(String),
}

impl<E: std::fmt::Display> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Briefly(error.to_string())
    }
}

pub(super) async fn wait(reason: &str) {
    tracing::debug!(reason, "cannot read the stream; retrying");
    tokio::time::sleep(RETRY_DELAY).await;
}

/// Looks up the stream. A missing stream is a permanent failure.
pub(super) async fn get(jetstream: &jetstream::Context, name: &str) -> Result<Stream, Broken> {
    jetstream.get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(answer) if answer.code() == 404 => Broken::ForGood(error.to_string()),
        _ => error.into(),
    })
}

/// Starts reading after `after`, up to `last` or the newest message.
async fn open(
    jetstream: &jetstream::Context,
    name: &str,
    after: u64,
    last: Option<u64>,
) -> Result<(Stream, u64, Option<consumer::pull::Ordered>), Broken> {
    let stream = get(jetstream, name).await?;
    let state = &stream.cached_info().state;
    let (last, messages) = (last.unwrap_or(state.last_sequence), state.messages);
    if messages == 0 || !more(&stream, after, last).await? {
        return Ok((stream, last, None));
    }
    let deliver_policy = consumer::DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
    let consumer = stream
        .create_consumer(consumer::pull::OrderedConfig { headers_only: true, deliver_policy, ..Default::default() })
        .await?;
    let messages = consumer.messages().await?;
    Ok((stream, last, Some(messages)))
}

/// The messages of a stream in order, up to the one that was the newest when reading began.
pub struct Scan {
    jetstream: jetstream::Context,
    name: String,
    stream: Stream,
    messages: Option<consumer::pull::Ordered>,
    /// The number of the last message read.
    seen: u64,
    last: u64,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scan(to {})", self.last)
    }
}

impl Scan {
    /// The number of the message at which it ends.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The next message; `None` at the end. After a failure, reading restarts after the last message read.
    ///
    /// # Errors
    /// [`BusError`] if restarting does not succeed for a while; the messages read so far remain valid.
    pub async fn next(&mut self) -> Result<Option<StreamEntry>, BusError> {
        let began = instant();
        let mut restarted = false;
        loop {
            match self.step(restarted).await {
                Ok(entry) => return Ok(entry),
                Err(Broken::Briefly(reason)) if began.elapsed() <= RETRY_TIMEOUT => wait(&reason).await,
                Err(Broken::Briefly(reason) | Broken::ForGood(reason)) => return Err(failed(READING)(&reason)),
            }
            restarted = true;
        }
    }

    /// Reads one message. With `restarted` it opens the stream again first, after the last message read.
    async fn step(&mut self, restarted: bool) -> Result<Option<StreamEntry>, Broken> {
        if restarted {
            (self.stream, _, self.messages) = open(&self.jetstream, &self.name, self.seen, Some(self.last)).await?;
        }
        let Some(messages) = &mut self.messages else { return Ok(None) };
        let message = match tokio::time::timeout(READ_TIMEOUT, messages.next()).await {
            Ok(Some(message)) => message?,
            Ok(None) => return Err("the consumer ended".into()),
            Err(_) if more(&self.stream, self.seen, self.last).await? => {
                return Err(format!("no message within {READ_TIMEOUT:?}").into());
            }
            Err(_) => {
                self.messages = None;
                return Ok(None);
            }
        };
        let (sequence, pending) = {
            let info = message.info()?;
            (info.stream_sequence, info.pending)
        };
        let headers = message.headers.as_ref();
        let id = headers.and_then(|headers| headers.get(MSG_ID)).and_then(|id| event_id(id.as_str()));
        let replay = headers.is_some_and(|headers| headers.get(REPLAY).is_some());
        // The newest message may have been deleted, and then never arrives.
        if sequence >= self.last || (pending == 0 && !more(&self.stream, sequence, self.last).await?) {
            self.messages = None;
        }
        self.seen = sequence;
        Ok((sequence <= self.last).then_some(StreamEntry { sequence, id, replay }))
    }
}

/// Whether the stream contains a message after `after`, up to `last`.
async fn more(stream: &Stream, after: u64, last: u64) -> Result<bool, Broken> {
    match stream.get_first_raw_message_by_subject(">", after + 1).await {
        Ok(message) => Ok(message.sequence <= last),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The event id in a `Nats-Msg-Id`, which can have a suffix that marks a repeated replay.
pub(super) fn event_id(header: &str) -> Option<EventId> {
    Uuid::try_parse(header.get(..36)?).ok().map(EventId::from_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_second_replay_is_still_the_events() {
        let id = "0178a0b1-c2d3-8e4f-8a5b-6c7d8e9f0a1b";
        assert_eq!(event_id(&format!("{id}.r1700000000000")).map(|id| id.to_string()).as_deref(), Some(id));
        assert_eq!(event_id("short"), None);
    }
}
