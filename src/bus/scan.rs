//! Reading the stream back, without the messages' bodies.

use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::StreamExt as _;
use uuid::Uuid;

use super::{Bus, BusError, MSG_ID, REPLAY, failed};
use crate::event::EventId;

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
        let reading = failed("reading the stream");
        let stream = self.jetstream.get_stream(&self.options.stream).await.map_err(|error| reading(&error))?;
        let state = &stream.cached_info().state;
        let last = state.last_sequence;
        if state.messages == 0 {
            return Ok(Scan { stream, messages: None, seen: 0, last });
        }
        let consumer = stream
            .create_consumer(consumer::pull::OrderedConfig { headers_only: true, ..Default::default() })
            .await
            .map_err(|error| reading(&error))?;
        let messages = consumer.messages().await.map_err(|error| reading(&error))?;
        Ok(Scan { stream, messages: Some(messages), seen: 0, last })
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
            Err(_) if self.more().await? => return Err(reading(&format!("no message within {READ_TIME:?}"))),
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
        if sequence >= self.last || (pending == 0 && !self.more().await?) {
            self.messages = None;
        }
        Ok((sequence <= self.last).then_some(Entry { sequence, id, replay }))
    }
}

impl Scan {
    /// Whether the stream holds a message after the one that came last.
    async fn more(&self) -> Result<bool, BusError> {
        match self.stream.get_first_raw_message_by_subject(">", self.seen + 1).await {
            Ok(message) => Ok(message.sequence <= self.last),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
            Err(error) => Err(failed("reading the stream")(&error)),
        }
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
