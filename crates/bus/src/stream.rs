//! The stream itself: created if it is missing, inspected, never changed.

use std::time::Duration;

use async_nats::RequestErrorKind;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use super::{Bus, BusError, failed};
use convoke_core::time::Millis;

/// The stream as [`Bus::ensure_stream`] found or created it.
#[derive(Clone, Debug)]
pub struct StreamState {
    /// Whether it was created just now.
    pub created_now: bool,
    /// When it was created, in nanoseconds since the epoch. A different time means a different stream.
    pub created_at: i128,
    /// The number of its newest message, 0 if there was never one.
    pub last_sequence: u64,
    /// The number of its oldest message.
    pub first_sequence: u64,
    /// When its oldest message arrived; the epoch if there is none.
    pub first_at: Millis,
    /// Number of deleted messages after the oldest one.
    pub deleted: u64,
    /// Number of messages.
    pub messages: u64,
    /// Total size of the messages in bytes.
    pub bytes: u64,
    /// Differences from the settings, as text.
    pub differences: Vec<String>,
    /// Its maximum size in bytes, if it has one.
    pub max_bytes: Option<i64>,
    /// Maximum age of messages, as configured in the stream; `None`: unlimited.
    pub max_age: Option<Duration>,
    /// Whether it discards, or will soon discard, messages because it is near its limit of messages or bytes.
    pub discards: bool,
    /// Whether its configuration removes messages at any position: after an acknowledgement, or by subject.
    pub thins: bool,
}

impl Bus {
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

    /// Inspects the stream, and creates it if it is missing. An existing stream is never changed.
    ///
    /// # Errors
    /// [`BusError`]; the state of the stream is then unknown.
    pub async fn ensure_stream(&self) -> Result<StreamState, BusError> {
        if let Some(state) = self.stream_state().await? {
            return Ok(state);
        }
        self.jetstream.create_stream(self.config()).await.map_err(|error| match self.contradiction(&error) {
            Some(sentence) => failed("creating the stream")(&sentence),
            None => failed("creating the stream")(&error),
        })?;
        let state = self.stream_state().await?.ok_or(BusError::Failed {
            doing: "creating the stream",
            cause: "the stream does not exist although it was just created".to_owned(),
        })?;
        Ok(StreamState { created_now: true, ..state })
    }

    /// Whether the server would create the stream: creates one of another name with the same limits, and deletes it.
    /// `Some` says which setting the server refuses, and what to write instead.
    ///
    /// # Errors
    /// [`BusError`] if the server did not judge the settings.
    pub async fn try_stream(&self) -> Result<Option<String>, BusError> {
        let name = format!("{}_TRIAL_{:08x}", self.options.stream, rand::random::<u32>());
        let config = Config { name: name.clone(), subjects: vec![format!("{name}.>")], ..self.config() };
        match self.jetstream.create_stream(config).await {
            Ok(_) => {
                self.jetstream.delete_stream(&name).await.map_err(|error| failed("deleting a trial stream")(&error))?;
                Ok(None)
            }
            Err(error) => match self.contradiction(&error) {
                Some(sentence) => Ok(Some(sentence)),
                None => Err(failed("creating a trial stream")(&error)),
            },
        }
    }

    /// Which of our settings the server refuses, and what to write instead.
    fn contradiction(&self, error: &CreateStreamError) -> Option<String> {
        let CreateStreamErrorKind::JetStream(error) = error.kind() else { return None };
        let options = &self.options;
        let bound = options.max_bytes.and_then(|bytes| u64::try_from(bytes).ok()).map(bytesize::ByteSize);
        match (error.error_code(), bound) {
            (
                ErrorCode::STORAGE_RESOURCES_EXCEEDED
                | ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED,
                Some(bound),
            ) => Some(format!(
                "the server has no room for nats.max_bytes = {bound} ({error}): set a smaller nats.max_bytes, or \
                 give JetStream (max_file_store) or the account more storage"
            )),
            (ErrorCode::STREAM_MAX_BYTES_REQUIRED, _) => {
                Some(format!("the account requires a size limit ({error}): set nats.max_bytes"))
            }
            (ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED | ErrorCode::CLUSTER_NO_PEERS, _) => Some(format!(
                "too few servers for nats.replicas = {} ({error}): set a smaller nats.replicas (1 for a single \
                 server), or add servers",
                options.replicas
            )),
            (ErrorCode::STREAM_SUBJECT_OVERLAP, _) => Some(format!(
                "another stream already uses subjects below {} ({error}): set another nats.subject_prefix, or delete \
                 that stream",
                options.subject_prefix
            )),
            _ => None,
        }
    }

    /// Whether JetStream does not respond on this server.
    async fn answers_nothing(&self) -> bool {
        let asked = self.client.request("$JS.API.INFO", "".into()).await;
        asked.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
    }

    /// The servers, without credentials.
    fn servers(&self) -> String {
        let servers = super::servers(&self.options.url).map(|(servers, _)| servers).unwrap_or_default();
        let servers: Vec<String> =
            servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        servers.join(", ")
    }

    /// Inspects the stream; `None` if there is none.
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
                    GetStreamErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT =>
                    {
                        Err(BusError::NoJetStreamForAccount(self.servers()))
                    }
                    // No responder on JetStream's own subject.
                    GetStreamErrorKind::Request if self.answers_nothing().await => {
                        Err(BusError::NoJetStream(self.servers()))
                    }
                    _ => Err(failed("reading the stream's state")(&error)),
                };
            }
        };
        let info = stream.cached_info();
        Ok(Some(StreamState {
            created_now: false,
            created_at: info.created.unix_timestamp_nanos(),
            last_sequence: info.state.last_sequence,
            first_sequence: info.state.first_sequence,
            first_at: Millis::from_date_time(info.state.first_timestamp),
            deleted: info.state.deleted_count.unwrap_or(0),
            messages: info.state.messages,
            bytes: info.state.bytes,
            differences: differences(&info.config, &self.config()),
            max_bytes: Some(info.config.max_bytes).filter(|bytes| *bytes > 0),
            max_age: Some(info.config.max_age).filter(|age| !age.is_zero()),
            discards: near(info.state.bytes, info.config.max_bytes)
                || near(info.state.messages, info.config.max_messages),
            thins: info.config.retention != RetentionPolicy::Limits || info.config.max_messages_per_subject > 0,
        }))
    }
}

/// Lists how an existing stream differs from the one that would be created.
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

/// Whether at least nine tenths of a limit are used, if there is one.
fn near(used: u64, limit: i64) -> bool {
    u64::try_from(limit).is_ok_and(|limit| limit > 0 && used >= limit / 10 * 9)
}

/// The server reports "no limit" as -1, or as 0 if none was requested.
fn limit(value: i64) -> String {
    if value > 0 { value.to_string() } else { "unlimited".to_owned() }
}
