//! Reading the stream back, without the messages' bodies.

use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::StreamExt as _;
use uuid::Uuid;

use super::{Bus, BusError, MSG_ID, REPLAY, failed};
use crate::event::{EventId, Seq};

/// How long the reader of a stream waits for a message before it asks whether there is one.
const READ_TIME: Duration = Duration::from_secs(5);

/// One message of the stream, without its body.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number.
    pub sequence: u64,
    /// Its `Nats-Msg-Id`, if it is one of ours.
    pub id: Option<EventId>,
    /// Whether it says that it was replayed.
    pub replay: bool,
}

impl Bus {
    /// Reads every message that the stream holds now, oldest first, without their bodies.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn scan(&self) -> Result<Scan, BusError> {
        self.scan_after(0).await
    }

    /// The same from the message after this one on.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn scan_after(&self, sequence: u64) -> Result<Scan, BusError> {
        let reading = failed("reading the stream");
        let stream = self.jetstream.get_stream(&self.options.stream).await.map_err(|error| reading(&error))?;
        let (last, messages) = (stream.cached_info().state.last_sequence, stream.cached_info().state.messages);
        if messages == 0 || !more(&stream, sequence, last).await? {
            return Ok(Scan { stream, messages: None, seen: sequence, last });
        }
        let deliver_policy = consumer::DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 };
        let consumer = stream
            .create_consumer(consumer::pull::OrderedConfig { headers_only: true, deliver_policy, ..Default::default() })
            .await
            .map_err(|error| reading(&error))?;
        let messages = consumer.messages().await.map_err(|error| reading(&error))?;
        Ok(Scan { stream, messages: Some(messages), seen: sequence, last })
    }

    /// The newest message that says which event it is: the event's id and its place in the log when it was published.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn newest_event(&self) -> Result<Option<(EventId, Seq)>, BusError> {
        #[derive(serde::Deserialize)]
        struct Body {
            id: uuid::Uuid,
            sequence: String,
        }
        let reading = failed("reading the stream");
        let stream = self.jetstream.get_stream(&self.options.stream).await.map_err(|error| reading(&error))?;
        match stream.get_last_raw_message_by_subject(&format!("{}.>", self.options.subject_prefix)).await {
            Ok(message) => Ok(serde_json::from_slice::<Body>(&message.payload)
                .ok()
                .and_then(|body| Some((EventId::from_uuid(body.id), Seq(body.sequence.parse().ok()?))))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(reading(&error)),
        }
    }

    /// Whether the stream holds any message on `subject`.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn holds_subject(&self, subject: &str) -> Result<bool, BusError> {
        let reading = failed("reading the stream");
        let stream = self.jetstream.get_stream(&self.options.stream).await.map_err(|error| reading(&error))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
            Err(error) => Err(reading(&error)),
        }
    }
}

/// The messages of a stream, one after the other; ends with the one that was the newest when it began.
pub struct Scan {
    stream: Stream,
    messages: Option<consumer::pull::Ordered>,
    /// The number of the message that came last.
    seen: u64,
    last: u64,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scan(to {})", self.last)
    }
}

impl Scan {
    /// The number of the message with which it ends.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// [`BusError`]; what came until then is still true.
    pub async fn next(&mut self) -> Result<Option<Entry>, BusError> {
        let reading = failed("reading the stream");
        let Some(messages) = &mut self.messages else { return Ok(None) };
        let message = match tokio::time::timeout(READ_TIME, messages.next()).await {
            Ok(Some(message)) => message.map_err(|error| reading(&error))?,
            Ok(None) => return Err(reading(&"the consumer ended")),
            Err(_) if more(&self.stream, self.seen, self.last).await? => {
                return Err(reading(&format!("no message within {READ_TIME:?}")));
            }
            Err(_) => {
                self.messages = None;
                return Ok(None);
            }
        };
        let (sequence, pending) = {
            let info = message.info().map_err(|error| reading(&error))?;
            (info.stream_sequence, info.pending)
        };
        let headers = message.headers.as_ref();
        let id = headers.and_then(|headers| headers.get(MSG_ID)).and_then(|id| event_id(id.as_str()));
        let replay = headers.is_some_and(|headers| headers.get(REPLAY).is_some());
        self.seen = sequence;
        // The newest message may have been deleted, and then never comes.
        if sequence >= self.last || (pending == 0 && !more(&self.stream, self.seen, self.last).await?) {
            self.messages = None;
        }
        Ok((sequence <= self.last).then_some(Entry { sequence, id, replay }))
    }
}

/// Whether the stream holds a message after `after`, up to `last`.
async fn more(stream: &Stream, after: u64, last: u64) -> Result<bool, BusError> {
    match stream.get_first_raw_message_by_subject(">", after + 1).await {
        Ok(message) => Ok(message.sequence <= last),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
        Err(error) => Err(failed("reading the stream")(&error)),
    }
}

/// The id of an event in a `Nats-Msg-Id`, which may have a suffix that marks a second replay.
fn event_id(header: &str) -> Option<EventId> {
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
