//! NATS JetStream, and nothing else of Convoke but the words of `event`.
//!
//! Publishing is done in windows: every message of a window is sent before the first acknowledgement is awaited, and
//! every acknowledgement is awaited here, under one deadline. They come to one inbox that lives as long as the connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, ErrorCode, consumer};
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, HeaderName, HeaderValue, ServerAddr, StatusCode, Subscriber,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::event::EventId;
use crate::metrics::{Metrics, PublishError};
use crate::telemetry::Throttle;

const MSG_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
const EXPECTED_STREAM: HeaderName = HeaderName::from_static("Nats-Expected-Stream");
const EXPECTED_LAST_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Expected-Last-Sequence");
const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REPLAY: HeaderName = HeaderName::from_static("Convoke-Replay");

/// A window must be sent, and all of its acknowledgements must be here, by then. Well within the relay's lease, so that
/// what was acknowledged until then still moves the position.
const ACK_TIME: Duration = Duration::from_secs(3);

/// While the bus complains of the same, it is said this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How long the reader of a stream waits for a message before it asks whether there is one.
const READ_TIME: Duration = Duration::from_secs(5);

/// How the stream is reached, and how it is made if it is missing.
#[derive(Clone)]
pub struct Options {
    /// One URL, or several separated by commas.
    pub url: String,
    /// The stream's name.
    pub stream: String,
    /// The first tokens of every subject.
    pub subject_prefix: String,
    /// A NATS credentials file.
    pub creds_file: Option<PathBuf>,
    /// A CA to trust, in PEM.
    pub tls_ca: Option<PathBuf>,
    /// A user …
    pub user: Option<String>,
    /// … and its password.
    pub password: Option<SecretString>,
    /// A token instead.
    pub token: Option<SecretString>,
    /// Copies of the stream in a cluster.
    pub replicas: usize,
    /// How long messages stay.
    pub max_age: Duration,
    /// How many bytes of them.
    pub max_bytes: Option<i64>,
    /// How long the server recognises a message's copy.
    pub duplicate_window: Duration,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Why the bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no connection now; one is being tried for.
    #[error("no connection to NATS")]
    Disconnected,
    /// The server is there and does not let us in; it is tried again.
    #[error("NATS refuses the credentials")]
    Refused,
    /// A credentials or CA file cannot be used, or the URL.
    #[error("{0}")]
    Settings(String),
    /// The server refused, or did not answer.
    #[error("{doing}: {cause}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        cause: String,
    },
}

fn failed(doing: &'static str) -> impl Fn(&dyn std::fmt::Display) -> BusError {
    move |cause| BusError::Failed { doing, cause: cause.to_string() }
}

/// A user, or a token, and a password, as a URL may hold them.
type Login = (String, Option<String>);

/// The servers of a comma-separated list, and the first credentials in it. The client does not use those of a URL, and
/// writes the URL to its log: so they are taken out.
fn servers(urls: &str) -> std::io::Result<(Vec<ServerAddr>, Option<Login>)> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut login = None;
    let mut servers = Vec::new();
    for part in urls.split(',').map(str::trim) {
        let server: ServerAddr = part.parse()?;
        if let Some(user) = server.username()
            && login.is_none()
        {
            login = Some((decoded(user), server.password().map(decoded)));
        }
        servers.push(match part.rsplit_once('@') {
            Some((_, host)) => format!("{}://{host}", server.scheme()).parse()?,
            None => server,
        });
    }
    Ok((servers, login))
}

/// A message to be published.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where.
    pub subject: String,
    /// What the server recognises a copy by.
    pub id: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Whether it was published before, on purpose.
    pub replay: bool,
    /// A CloudEvent in structured JSON.
    pub payload: Bytes,
}

/// An acknowledgement: the message is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Its number there.
    pub sequence: u64,
    /// Whether it had been there before.
    pub duplicate: bool,
}

/// What [`Bus::ensure_stream`] found or made.
#[derive(Clone, Debug)]
pub struct StreamState {
    /// Whether it was made just now.
    pub created_now: bool,
    /// When it was made, in nanoseconds since the epoch: another time means another stream.
    pub created_at: i128,
    /// The number of its newest message, 0 if there was none yet.
    pub last_sequence: u64,
    /// The number of its oldest message.
    pub first_sequence: u64,
    /// How many there are.
    pub messages: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// What is not as the settings say, for people.
    pub differences: Vec<String>,
    /// Its limit in bytes, if it has one.
    pub max_bytes: Option<i64>,
}

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

/// A connection to NATS, which comes and goes by itself.
pub struct Bus {
    client: Client,
    jetstream: jetstream::Context,
    options: Options,
    inbox: String,
    windows: AtomicU64,
    state: Arc<ConnectionState>,
    acks: Mutex<Option<Subscriber>>,
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Relaxed);
    }
}

/// What the connection has told of itself.
struct ConnectionState {
    /// How often the server said that we may not publish or subscribe somewhere.
    denials: AtomicU64,
    /// Whether the server refused our credentials when it was tried last.
    refused: AtomicBool,
    /// Set when the end of the connection is our own wish.
    closing: AtomicBool,
    metrics: Arc<Metrics>,
    /// For the connection's coming and going …
    throttle: Throttle,
    /// … and for complaints, which come in great numbers.
    complaints: Throttle,
}

impl ConnectionState {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.refused.store(false, Ordering::Relaxed);
                self.metrics.bus_connected.set(1);
                self.throttle.run("connected", |suppressed| tracing::info!(suppressed, "connected to NATS"));
            }
            Event::Disconnected | Event::Closed => {
                if self.metrics.bus_connected.get() == 1 && !self.closing.load(Ordering::Relaxed) {
                    self.throttle.run("lost", |suppressed| {
                        tracing::warn!(suppressed, "lost the connection to NATS; events are kept and published later");
                    });
                }
                self.metrics.bus_connected.set(0);
            }
            // One comes for each message that was refused.
            Event::ServerError(error) => {
                let denied = error.to_string().to_ascii_lowercase().contains("permissions violation");
                if denied {
                    self.denials.fetch_add(1, Ordering::Relaxed);
                }
                self.complaints.run(if denied { "denied" } else { "server" }, |suppressed| {
                    tracing::warn!(%error, suppressed, "NATS says");
                });
            }
            // One comes for each attempt to connect that failed.
            Event::ClientError(error) => {
                let text = error.to_string().to_ascii_lowercase();
                let refused = text.contains("authorization") || text.contains("authentication");
                self.refused.store(refused, Ordering::Relaxed);
                self.complaints.run(if refused { "refused" } else { "client" }, |suppressed| {
                    tracing::warn!(%error, suppressed, "cannot connect to NATS; trying again");
                });
            }
            event => tracing::debug!(%event, "NATS"),
        }
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bus({})", self.options.stream)
    }
}

impl Bus {
    /// Starts to connect, and returns while that goes on: a server that is away is tried again and again.
    ///
    /// # Errors
    /// [`BusError::Settings`].
    pub async fn connect(options: Options, metrics: Arc<Metrics>) -> Result<Self, BusError> {
        let settings = |error: &dyn std::fmt::Display| BusError::Settings(error.to_string());
        let state = Arc::new(ConnectionState {
            denials: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            metrics,
            throttle: Throttle::new(5, SAY_AGAIN),
            complaints: Throttle::new(1, SAY_AGAIN),
        });
        let told = Arc::clone(&state);
        let mut connect = ConnectOptions::new()
            .name("convoke")
            .retry_on_initial_connect()
            .connection_timeout(Duration::from_secs(3))
            .ping_interval(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(5)))
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(100)
                    .saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX))
                    .min(Duration::from_secs(2))
            })
            .event_callback(move |event| {
                let told = Arc::clone(&told);
                async move { told.note(&event) }
            });
        if let Some(ca) = &options.tls_ca {
            connect = connect.add_root_certificates(ca.clone());
        }
        if let Some(creds) = &options.creds_file {
            let text = std::fs::read_to_string(creds)
                .map_err(|error| BusError::Settings(format!("nats.creds_file {}: {error}", creds.display())))?;
            connect = connect.credentials(&text).map_err(|error| settings(&error))?;
        }
        if let (Some(user), Some(password)) = (&options.user, &options.password) {
            connect = connect.user_and_password(user.clone(), password.expose_secret().to_owned());
        }
        if let Some(token) = &options.token {
            connect = connect.token(token.expose_secret().to_owned());
        }
        let (servers, login) = servers(&options.url).map_err(|error| settings(&error))?;
        if let Some((user, password)) = login
            && options.user.is_none()
            && options.token.is_none()
            && options.creds_file.is_none()
        {
            connect = match password {
                Some(password) => connect.user_and_password(user, password),
                // As other clients of NATS read it.
                None => connect.token(user),
            };
        }
        let client = connect.connect(servers).await.map_err(|error| settings(&error))?;
        let inbox = client.new_inbox();
        Ok(Self {
            jetstream: jetstream::new(client.clone()),
            client,
            options,
            inbox,
            windows: AtomicU64::new(0),
            state,
            acks: Mutex::new(None),
        })
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.options.stream
    }

    /// The first tokens of every subject.
    #[must_use]
    pub fn subject_prefix(&self) -> &str {
        &self.options.subject_prefix
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How often the server has said that we may not do something there.
    #[must_use]
    pub fn denials(&self) -> u64 {
        self.state.denials.load(Ordering::Relaxed)
    }

    /// Waits for a connection, for no longer than `patience`.
    ///
    /// # Errors
    /// [`BusError::Disconnected`] or [`BusError::Refused`].
    pub async fn wait_connected(&self, patience: Duration) -> Result<(), BusError> {
        if self.connected() {
            return Ok(());
        }
        // The client flushes once it is connected.
        match tokio::time::timeout(patience, self.client.flush()).await {
            Ok(Ok(())) if self.connected() => Ok(()),
            _ if self.state.refused.load(Ordering::Relaxed) => Err(BusError::Refused),
            _ => Err(BusError::Disconnected),
        }
    }

    fn config(&self) -> Config {
        let options = &self.options;
        Config {
            name: options.stream.clone(),
            subjects: vec![format!("{}.>", options.subject_prefix)],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            num_replicas: options.replicas,
            max_age: options.max_age,
            max_bytes: options.max_bytes.unwrap_or(-1),
            duplicate_window: options.duplicate_window,
            deny_delete: false,
            deny_purge: false,
            description: Some("Meeting events, published by Convoke".to_owned()),
            ..Config::default()
        }
    }

    /// Looks at the stream, and makes it if it is missing. An existing one is never changed.
    ///
    /// # Errors
    /// [`BusError`]; nothing is known of the stream then.
    pub async fn ensure_stream(&self) -> Result<StreamState, BusError> {
        if let Some(state) = self.stream_state().await? {
            return Ok(state);
        }
        self.jetstream.create_stream(self.config()).await.map_err(|error| failed("making the stream")(&error))?;
        let state = self.stream_state().await?.ok_or(BusError::Failed {
            doing: "making the stream",
            cause: "it is not there after it was made".to_owned(),
        })?;
        Ok(StreamState { created_now: true, ..state })
    }

    /// Looks at the stream; `None` if there is none.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn stream_state(&self) -> Result<Option<StreamState>, BusError> {
        if !self.connected() {
            return Err(BusError::Disconnected);
        }
        let stream = match self.jetstream.get_stream(&self.options.stream).await {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        Ok(None)
                    }
                    _ => Err(failed("looking at the stream")(&error)),
                };
            }
        };
        let info = stream.cached_info();
        Ok(Some(StreamState {
            created_now: false,
            created_at: info.created.unix_timestamp_nanos(),
            last_sequence: info.state.last_sequence,
            first_sequence: info.state.first_sequence,
            messages: info.state.messages,
            bytes: info.state.bytes,
            differences: differences(&info.config, &self.config()),
            max_bytes: Some(info.config.max_bytes).filter(|bytes| *bytes > 0),
        }))
    }

    /// Publishes `window` in order, and tells of each message whether the stream has it.
    ///
    /// With `last_sequence`, the number of the stream's newest message, each message demands to follow the one before it:
    /// after a gap, the rest of the window is refused, so that the stream keeps the window's order. A copy of what the
    /// stream knows is acknowledged as a duplicate all the same.
    pub async fn publish(&self, window: &[Message], last_sequence: Option<u64>) -> Vec<Result<Ack, PublishError>> {
        let mut results = vec![Err(PublishError::Disconnected); window.len()];
        let mut guard = self.acks.lock().await;
        if !self.connected() {
            return results;
        }
        let mut acks = match guard.take() {
            Some(acks) => acks,
            None => match self.client.subscribe(format!("{}.*.*", self.inbox)).await {
                Ok(acks) => acks,
                Err(_) => return results,
            },
        };
        let number = self.windows.fetch_add(1, Ordering::Relaxed);
        let denials = self.denials();
        let deadline = tokio::time::Instant::now() + ACK_TIME;
        let mut waiting = 0;
        let send = async {
            for (index, message) in window.iter().enumerate() {
                let expected = last_sequence.map(|last| last + index as u64);
                let reply = format!("{}.{number}.{index}", self.inbox);
                let sent = self
                    .client
                    .publish_with_reply_and_headers(
                        message.subject.clone(),
                        reply,
                        self.headers(message, expected),
                        message.payload.clone(),
                    )
                    .await;
                match sent {
                    Ok(()) => {
                        results[index] = Err(PublishError::Timeout);
                        waiting += 1;
                    }
                    Err(error) => {
                        results[index] = Err(match error.kind() {
                            async_nats::client::PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge,
                            _ => PublishError::Other,
                        });
                        // What follows it would leave a gap.
                        return;
                    }
                }
            }
        };
        if tokio::time::timeout_at(deadline, send).await.is_err() {
            // The connection takes nothing any more: what was not sent was not lost either.
            *guard = Some(acks);
            return results;
        }
        let prefix = format!("{}.{number}.", self.inbox);
        let collect = async {
            while waiting > 0 {
                let Some(reply) = acks.next().await else { return false };
                // Late acknowledgements of an earlier window are of no use any more.
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
        // A subscription that has ended is not put back: the next window makes a new one.
        *guard = (complete != Ok(false)).then_some(acks);
        let silent = results.iter().all(|result| *result == Err(PublishError::Timeout));
        if silent && !denied && !window.is_empty() {
            // Not a word within the time: the connection may be dead without knowing it, which its pings would find out
            // much later.
            if let Err(error) = self.client.force_reconnect().await {
                tracing::debug!(%error, "asking for a new connection to NATS");
            }
        }
        results
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

    /// The server's version.
    ///
    /// # Errors
    /// [`BusError::Disconnected`].
    pub fn server_version(&self) -> Result<String, BusError> {
        if !self.connected() {
            return Err(BusError::Disconnected);
        }
        Ok(self.client.server_info().version)
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

/// What of an existing stream is not as it would be made, for people.
fn differences(is: &Config, want: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |name: &str, is: String, want: String| {
        if is != want {
            found.push(format!("{name} is {is}, not {want}"));
        }
    };
    compare("subjects", format!("{:?}", is.subjects), format!("{:?}", want.subjects));
    compare("retention", format!("{:?}", is.retention), format!("{:?}", want.retention));
    compare("discard", format!("{:?}", is.discard), format!("{:?}", want.discard));
    compare("storage", format!("{:?}", is.storage), format!("{:?}", want.storage));
    compare("replicas", is.num_replicas.to_string(), want.num_replicas.to_string());
    compare("max_age", format!("{:?}", is.max_age), format!("{:?}", want.max_age));
    compare("max_bytes", limit(is.max_bytes), limit(want.max_bytes));
    compare("duplicate_window", format!("{:?}", is.duplicate_window), format!("{:?}", want.duplicate_window));
    compare("max_messages", limit(is.max_messages), limit(want.max_messages));
    compare("max_messages_per_subject", limit(is.max_messages_per_subject), limit(want.max_messages_per_subject));
    compare("max_message_size", limit(is.max_message_size.into()), limit(want.max_message_size.into()));
    compare("no_ack", is.no_ack.to_string(), want.no_ack.to_string());
    compare("sealed", is.sealed.to_string(), want.sealed.to_string());
    compare("deletes denied", is.deny_delete.to_string(), want.deny_delete.to_string());
    compare("purges denied", is.deny_purge.to_string(), want.deny_purge.to_string());
    found
}

/// The server writes "no limit" as -1 or, where it was not asked, as 0.
fn limit(value: i64) -> String {
    if value > 0 { value.to_string() } else { "unlimited".to_owned() }
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
    fn refusals_are_told_apart_by_their_code() {
        let refused = |code: u64| outcome(None, format!(r#"{{"error":{{"code":400,"err_code":{code}}}}}"#).as_bytes());
        assert_eq!(refused(10071), Err(PublishError::WrongSequence));
        assert_eq!(refused(10054), Err(PublishError::TooLarge));
        assert_eq!(refused(10077), Err(PublishError::Full));
        assert_eq!(refused(10060), Err(PublishError::NoStream));
        assert_eq!(refused(1), Err(PublishError::Other));
        assert_eq!(outcome(Some(StatusCode::NO_RESPONDERS), b""), Err(PublishError::NoStream));
    }

    #[test]
    fn the_id_of_a_second_replay_is_still_the_events() {
        let id = "0178a0b1-c2d3-8e4f-8a5b-6c7d8e9f0a1b";
        assert_eq!(event_id(&format!("{id}.r1700000000000")).map(|id| id.to_string()).as_deref(), Some(id));
        assert_eq!(event_id("short"), None);
    }
}
