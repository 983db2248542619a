//! Reads the messages on some subjects, with their bodies, and deletes single messages.

use async_nats::jetstream::consumer::{self, pull::Ordered};
use async_nats::jetstream::stream::{DeleteMessageErrorKind, LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::scan::{Broken, READ_TIMEOUT, READING, RETRY_TIMEOUT, event_id, get, wait};
use super::{Bus, BusError, MSG_ID, failed};
use convoke_core::id::EventId;
use convoke_core::time::instant;

const DELETING: &str = "deleting from the stream";

/// One message, with its body.
#[derive(Clone, Debug)]
pub struct FoundMessage {
    /// Its number in the stream.
    pub sequence: u64,
    /// Its `Nats-Msg-Id`, if it is an event's id.
    pub id: Option<EventId>,
    /// Its body.
    pub payload: Bytes,
}

/// The messages on some subjects, from the oldest to the one that was the newest in the stream when reading began.
pub struct SubjectReader<'a> {
    bus: &'a Bus,
    subjects: Vec<String>,
    messages: Option<Ordered>,
    /// The number of the last message read.
    seen: u64,
    last: Option<u64>,
    ended: bool,
}

impl std::fmt::Debug for SubjectReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SubjectReader(at {})", self.seen)
    }
}

impl SubjectReader<'_> {
    /// The next message; `None` at the end. After a failure, reading restarts after the last message read.
    ///
    /// # Errors
    /// [`BusError`] if restarting does not succeed for a while.
    pub async fn next(&mut self) -> Result<Option<FoundMessage>, BusError> {
        let began = instant();
        loop {
            match self.step().await {
                Ok(found) => return Ok(found),
                Err(Broken::Briefly(reason)) if began.elapsed() <= RETRY_TIMEOUT => wait(&reason).await,
                Err(Broken::Briefly(reason) | Broken::ForGood(reason)) => return Err(failed(READING)(&reason)),
            }
            self.messages = None;
        }
    }

    async fn step(&mut self) -> Result<Option<FoundMessage>, Broken> {
        if self.ended {
            return Ok(None);
        }
        if self.messages.is_none() {
            self.messages = self.open().await?;
        }
        let Some(messages) = &mut self.messages else {
            self.ended = true;
            return Ok(None);
        };
        // A message that was deleted in the meantime never arrives: then reading restarts, and finds no more messages.
        let message = match tokio::time::timeout(READ_TIMEOUT, messages.next()).await {
            Ok(Some(message)) => message?,
            Ok(None) => return Err("the consumer ended".into()),
            Err(_) => return Err(format!("no message within {READ_TIMEOUT:?}").into()),
        };
        let info = message.info()?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        let id = message.headers.as_ref().and_then(|headers| headers.get(MSG_ID)).and_then(|id| event_id(id.as_str()));
        self.seen = sequence;
        let last = self.last.unwrap_or(u64::MAX);
        self.ended = pending == 0 || sequence >= last;
        Ok((sequence <= last).then(|| FoundMessage { sequence, id, payload: message.payload.clone() }))
    }

    /// `None`: there are no more messages on these subjects.
    async fn open(&mut self) -> Result<Option<Ordered>, Broken> {
        let stream = get(&self.bus.jetstream, self.bus.stream()).await?;
        self.last.get_or_insert(stream.cached_info().state.last_sequence);
        let config = consumer::pull::OrderedConfig {
            filter_subjects: self.subjects.clone(),
            deliver_policy: consumer::DeliverPolicy::ByStartSequence { start_sequence: self.seen + 1 },
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(None);
        }
        Ok(Some(consumer.messages().await?))
    }
}

/// Deletes messages of the stream permanently: the server overwrites them on its disk.
#[derive(Debug)]
pub struct Eraser {
    stream: Stream,
}

impl Bus {
    /// Reads the messages that the stream contains now on these subjects, which may have wildcards and must not overlap.
    #[must_use]
    pub fn read_subjects(&self, subjects: Vec<String>) -> SubjectReader<'_> {
        let ended = subjects.is_empty();
        SubjectReader { bus: self, subjects, messages: None, seen: 0, last: None, ended }
    }

    /// Opens the stream for deleting; `None` if there is no stream.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn eraser(&self) -> Result<Option<Eraser>, BusError> {
        let began = instant();
        loop {
            match get(&self.jetstream, self.stream()).await {
                Ok(stream) => {
                    let config = &stream.cached_info().config;
                    if config.deny_delete || config.sealed {
                        return Err(failed(DELETING)(&"the stream's settings forbid deleting messages"));
                    }
                    return Ok(Some(Eraser { stream }));
                }
                Err(Broken::Briefly(reason)) if began.elapsed() <= RETRY_TIMEOUT => wait(&reason).await,
                Err(Broken::Briefly(reason)) => return Err(failed(READING)(&reason)),
                Err(Broken::ForGood(_)) => return Ok(None),
            }
        }
    }
}

impl Eraser {
    /// Deletes a message. Succeeds if the message is gone already.
    ///
    /// # Errors
    /// [`BusError`] if the server refuses, or does not respond for a while.
    pub async fn delete(&self, sequence: u64) -> Result<(), BusError> {
        let began = instant();
        loop {
            let Err(error) = self.stream.delete_message(sequence).await else { return Ok(()) };
            if self.is_gone(sequence).await {
                return Ok(());
            }
            // The stream may forbid deletes, or be sealed: then a retry is useless.
            let refused = matches!(error.kind(), DeleteMessageErrorKind::JetStream(answer) if answer.code() < 500);
            if refused || began.elapsed() > RETRY_TIMEOUT {
                return Err(failed(DELETING)(&error));
            }
            wait(&error.to_string()).await;
        }
    }

    async fn is_gone(&self, sequence: u64) -> bool {
        let looked = self.stream.get_raw_message(sequence).await;
        looked.is_err_and(|error| error.kind() == LastRawMessageErrorKind::NoMessageFound)
    }
}
