//! Publishing in windows.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::{Bus, MSG_ID, REPLAY};

const EXPECTED_STREAM: HeaderName = HeaderName::from_static("Nats-Expected-Stream");
const EXPECTED_LAST_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Expected-Last-Sequence");
const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Time limit for sending a window and receiving all its acknowledgements. Well below the relay's lease, so that the
/// position can still be moved past the acknowledged messages.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a publish failed, temporarily or permanently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum PublishError {
    /// No connection to the bus.
    Disconnected,
    /// No acknowledgement in time.
    Timeout,
    /// The stream does not exist, or has other subjects.
    NoStream,
    /// Another client published in between.
    WrongSequence,
    /// The stream or its server is full.
    Full,
    /// The message is too large for the bus.
    TooLarge,
    /// Publishing there is not permitted.
    Permission,
    /// Any other error of the server.
    Other,
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Message {
    /// The subject.
    pub subject: String,
    /// The message id by which the server detects duplicates.
    pub id: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Whether it is a deliberate replay of a published message.
    pub replay: bool,
    /// A CloudEvent in structured JSON.
    pub payload: Bytes,
}

/// An acknowledgement: the message is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The message's number in the stream.
    pub sequence: u64,
    /// Whether it was in the stream already.
    pub duplicate: bool,
}

/// The expected position of a window in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The number of the stream's newest message.
    pub last_sequence: u64,
    /// Number of messages at the start of the window that are expected to be in the stream already. A duplicate gets no
    /// number, and must not demand one: newer servers (2.15, but not 2.10) check the demand before the duplicate.
    pub copies: u64,
}

impl Behind {
    /// The number that the message at `index` requires as the stream's last one. If fewer messages are duplicates than
    /// expected, it is wrong for all following messages, and the server refuses them.
    fn expected(self, index: u64) -> u64 {
        self.last_sequence + index.saturating_sub(self.copies)
    }
}

impl Bus {
    /// Publishes `window` in order. Returns for each message whether it is in the stream.
    ///
    /// With `behind`, each message requires the one before it: after a gap the rest of the window is refused, so that
    /// the stream keeps the order of the window.
    pub async fn publish(&self, window: &[Message], behind: Option<Behind>) -> Vec<Result<Ack, PublishError>> {
        let mut results = vec![Err(PublishError::Disconnected); window.len()];
        let mut guard = self.acks.lock().await;
        if !self.connected() {
            return results;
        }
        let deadline = tokio::time::Instant::now() + ACK_TIMEOUT;
        // Every call to the client can wait for room in its queue, which a stalled connection does not empty.
        let mut acks = match guard.take() {
            Some(acks) => acks,
            None => {
                match tokio::time::timeout_at(deadline, self.client.subscribe(format!("{}.*.*", self.inbox))).await {
                    Ok(Ok(acks)) => acks,
                    Ok(Err(_)) | Err(_) => return results,
                }
            }
        };
        let number = self.windows.fetch_add(1, Ordering::Relaxed);
        let denials = self.denials();
        let prefix = format!("{}.{number}.", self.inbox);
        if tokio::time::timeout_at(deadline, self.send(window, behind, &prefix, &mut results)).await.is_err() {
            // The connection accepts nothing any more. Messages that were not sent are not lost either.
            *guard = Some(acks);
            return results;
        }
        let mut waiting = results.iter().filter(|result| **result == Err(PublishError::Timeout)).count();
        let collect = async {
            while waiting > 0 {
                let Some(reply) = acks.next().await else { return false };
                // Ignore late acknowledgements of an earlier window.
                let index = reply.subject.strip_prefix(prefix.as_str()).and_then(|n| n.parse::<usize>().ok());
                if let Some(slot) = index.and_then(|index| results.get_mut(index)) {
                    *slot = outcome(reply.status, &reply.payload);
                    waiting -= 1;
                }
            }
            true
        };
        let complete = tokio::time::timeout_at(deadline, collect).await;
        let denied = self.denials() != denials;
        if complete != Ok(true) && denied {
            for result in results.iter_mut().filter(|result| **result == Err(PublishError::Timeout)) {
                *result = Err(PublishError::Permission);
            }
        }
        // A subscription that has ended is dropped: the next window creates a new one.
        *guard = (complete != Ok(false)).then_some(acks);
        let silent = results.iter().all(|result| *result == Err(PublishError::Timeout));
        if silent && !denied && !window.is_empty() {
            // The server did not respond at all.
            self.reconnect().await;
        }
        results
    }

    /// Sends the window. A sent message has the result [`PublishError::Timeout`] until its acknowledgement arrives.
    async fn send(
        &self,
        window: &[Message],
        behind: Option<Behind>,
        prefix: &str,
        results: &mut [Result<Ack, PublishError>],
    ) {
        for (index, message) in window.iter().enumerate() {
            let headers = self.headers(message, behind.map(|behind| behind.expected(index as u64)));
            let (subject, payload) = (message.subject.clone(), message.payload.clone());
            let reply = format!("{prefix}{index}");
            let sent = self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
            results[index] = Err(match sent.map_err(|error| error.kind()) {
                Ok(()) => PublishError::Timeout,
                Err(async_nats::client::PublishErrorKind::MaxPayloadExceeded) => PublishError::TooLarge,
                Err(_) => PublishError::Other,
            });
            if results[index] != Err(PublishError::Timeout) {
                // Sending the rest would leave a gap.
                return;
            }
        }
    }

    fn headers(&self, message: &Message, expected_last: Option<u64>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(MSG_ID, HeaderValue::from(message.id.as_str()));
        headers.insert(CONTENT_TYPE, HeaderValue::from("application/cloudevents+json"));
        headers.insert(EXPECTED_STREAM, HeaderValue::from(self.options.stream.as_str()));
        if let Some(expected) = expected_last {
            headers.insert(EXPECTED_LAST_SEQUENCE, HeaderValue::from(expected));
        }
        if let Some(traceparent) = &message.traceparent {
            headers.insert(TRACEPARENT, HeaderValue::from(traceparent.as_str()));
        }
        if message.replay {
            headers.insert(REPLAY, HeaderValue::from("true"));
        }
        headers
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ServerError>,
}

#[derive(Deserialize)]
struct ServerError {
    #[serde(default)]
    err_code: u64,
}

fn outcome(status: Option<StatusCode>, payload: &[u8]) -> Result<Ack, PublishError> {
    if status == Some(StatusCode::NO_RESPONDERS) {
        return Err(PublishError::NoStream);
    }
    let answer: Answer = serde_json::from_slice(payload).map_err(|_| PublishError::Other)?;
    match answer.error.map(|error| ErrorCode(error.err_code)) {
        None => Ok(Ack { sequence: answer.seq, duplicate: answer.duplicate }),
        Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE) => Err(PublishError::WrongSequence),
        Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => Err(PublishError::TooLarge),
        Some(ErrorCode::STREAM_NOT_MATCH | ErrorCode::STREAM_NOT_FOUND) => Err(PublishError::NoStream),
        Some(
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ) => Err(PublishError::Full),
        Some(_) => Err(PublishError::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_read_with_its_number() {
        let ack = outcome(None, br#"{"stream":"MEETINGS","seq":7,"duplicate":true}"#);
        assert_eq!(ack, Ok(Ack { sequence: 7, duplicate: true }));
    }

    #[test]
    fn copies_take_no_number_and_what_is_new_follows_the_newest_message() {
        let expected = |copies| [0, 1, 2, 3].map(|index| Behind { last_sequence: 7, copies }.expected(index));
        assert_eq!(expected(0), [7, 8, 9, 10]);
        assert_eq!(expected(2), [7, 7, 7, 8]);
    }

    #[test]
    fn refusals_are_distinguished_by_their_code() {
        let refused = |code: u64| outcome(None, format!(r#"{{"error":{{"code":400,"err_code":{code}}}}}"#).as_bytes());
        assert_eq!(refused(10071), Err(PublishError::WrongSequence));
        assert_eq!(refused(10054), Err(PublishError::TooLarge));
        assert_eq!(refused(10077), Err(PublishError::Full));
        assert_eq!(refused(10060), Err(PublishError::NoStream));
        assert_eq!(refused(1), Err(PublishError::Other));
        assert_eq!(outcome(Some(StatusCode::NO_RESPONDERS), b""), Err(PublishError::NoStream));
    }
}
