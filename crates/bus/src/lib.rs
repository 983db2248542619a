//! The NATS JetStream client. Of Convoke's other code it uses only the types of the core.
//!
//! Messages are published in windows: every message of a window is sent before the first acknowledgement is awaited, and
//! all acknowledgements are awaited here, with one deadline. They arrive at one inbox that lives as long as the connection.

mod connect_error;
mod erase;
mod login;
mod publish;
mod scan;
mod stream;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::{Client, ConnectOptions, Event, HeaderName, ServerAddr, Subscriber};
use tokio::sync::Mutex;

use convoke_core::throttle::Throttle;

pub use erase::{Eraser, FoundMessage, SubjectReader};
pub use login::Login;
pub use publish::{Ack, Behind, Message, PublishError};
pub use scan::{Scan, StreamEntry};
pub use stream::StreamState;

const MSG_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
const REPLAY: HeaderName = HeaderName::from_static("Convoke-Replay");

/// Interval at which an unchanged complaint of the bus is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Timeout of the request for a new connection: it may have to wait for room in the client's queue.
const RECONNECT_TIMEOUT: Duration = Duration::from_millis(100);

/// How to connect to the stream, and how to create it if it is missing.
#[derive(Clone)]
pub struct Options {
    /// One URL, or several separated by commas.
    pub url: String,
    /// The stream's name.
    pub stream: String,
    /// The first tokens of every subject.
    pub subject_prefix: String,
    /// A CA certificate to trust, in PEM.
    pub tls_ca: Option<PathBuf>,
    /// The client certificate and its key, in PEM. They are read at every connection, as are the files of the login.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The login; `None`: the credentials in the URL, if there are any.
    pub login: Option<Login>,
    /// Number of stream replicas in a cluster.
    pub replicas: usize,
    /// Maximum age of messages.
    pub max_age: Duration,
    /// Maximum size of the stream in bytes.
    pub max_bytes: Option<i64>,
    /// How long the server detects duplicates of a message.
    pub duplicate_window: Duration,
}

impl Options {
    /// A stream with one replica, a maximum age of 30 days, and duplicate detection for ten minutes.
    #[must_use]
    pub fn new(url: impl Into<String>, stream: impl Into<String>, subject_prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            stream: stream.into(),
            subject_prefix: subject_prefix.into(),
            tls_ca: None,
            tls: None,
            login: None,
            replicas: 1,
            max_age: Duration::from_secs(30 * 86_400),
            max_bytes: None,
            duplicate_window: Duration::from_secs(600),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Why the bus could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no connection now; the client keeps trying.
    #[error("no connection to NATS")]
    Disconnected,
    /// The same, with the reason.
    #[error("no connection to NATS: {0}")]
    Unreachable(String),
    /// The server refuses the login; the client keeps trying.
    #[error("{0}")]
    Refused(String),
    /// The server runs without JetStream.
    #[error(
        "the NATS server at {0} runs without JetStream: start it with -js, or add `jetstream {{ store_dir: … }}` to its settings"
    )]
    NoJetStream(String),
    /// The account of the credentials has no JetStream.
    #[error("JetStream is off for this account of the NATS server at {0}: add `jetstream: enabled` to the account")]
    NoJetStreamForAccount(String),
    /// A credentials file, a CA file or the URL cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The server refused, or did not respond.
    #[error("{doing}: {cause}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// The server's response.
        cause: String,
    },
}

fn failed(doing: &'static str) -> impl Fn(&dyn std::fmt::Display) -> BusError {
    move |cause| BusError::Failed { doing, cause: cause.to_string() }
}

/// The servers of a comma-separated list, and the first credentials in it. They are removed from the URLs, because the
/// client does not use them there, and it writes the URLs to its log.
fn servers(urls: &str) -> std::io::Result<(Vec<ServerAddr>, Option<Login>)> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut login = None;
    let mut servers = Vec::new();
    for part in urls.split(',').map(str::trim) {
        let server: ServerAddr = part.parse()?;
        if let Some(user) = server.username()
            && login.is_none()
        {
            login = Some(match server.password() {
                Some(password) => Login::KnownPassword(decoded(user), decoded(password).into()),
                // Other NATS clients read it the same way.
                None => Login::KnownToken(decoded(user).into()),
            });
        }
        servers.push(match part.rsplit_once('@') {
            Some((_, host)) => format!("{}://{host}", server.scheme()).parse()?,
            None => server,
        });
    }
    Ok((servers, login))
}

/// A connection to NATS that reconnects automatically.
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

/// The state of the connection.
struct ConnectionState {
    /// Number of permission errors for publishing or subscribing.
    denials: AtomicU64,
    /// Why the last attempt to connect failed, in plain words.
    connect_error: std::sync::Mutex<Option<String>>,
    login: RwLock<Option<Login>>,
    client_certificate: bool,
    /// Set when this process closes the connection.
    closing: AtomicBool,
    connected: AtomicBool,
    /// For connects and disconnects.
    throttle: Throttle,
    /// For complaints, which can be numerous.
    complaints: Throttle,
}

impl ConnectionState {
    fn new(login: Option<Login>, client_certificate: bool) -> Self {
        Self {
            denials: AtomicU64::new(0),
            connect_error: std::sync::Mutex::default(),
            login: RwLock::new(login),
            client_certificate,
            closing: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            throttle: Throttle::new(5, LOG_INTERVAL),
            complaints: Throttle::new(1, LOG_INTERVAL),
        }
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.set_connect_error(None);
                self.set_connected(true);
                self.throttle.run("connected", |suppressed| tracing::info!(suppressed, "connected to NATS"));
            }
            Event::Disconnected | Event::Closed => {
                if self.set_connected(false) && !self.closing.load(Ordering::Relaxed) {
                    self.throttle.run("lost", |suppressed| {
                        tracing::warn!(suppressed, "lost the connection to NATS; events are kept and published later");
                    });
                }
            }
            // One arrives for each refused message.
            Event::ServerError(error) => {
                let denied = error.to_string().to_ascii_lowercase().contains("permissions violation");
                if denied {
                    self.denials.fetch_add(1, Ordering::Relaxed);
                }
                self.complaints.run(if denied { "denied" } else { "server" }, |suppressed| {
                    tracing::warn!(%error, suppressed, "NATS reported an error");
                });
            }
            // One arrives for each failed round of attempts, with only the kind of failure. A server's own message is
            // noted before the next round.
            Event::ClientError(error) => {
                let text = error.to_string();
                if text.contains("DNS") {
                    self.complain(None, &text);
                }
            }
            event => tracing::debug!(%event, "NATS"),
        }
    }

    /// Returns the previous value.
    fn set_connected(&self, connected: bool) -> bool {
        self.connected.swap(connected, Ordering::Relaxed)
    }

    fn login(&self) -> Option<Login> {
        self.login.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs why an attempt to connect failed.
    fn complain(&self, server: Option<&str>, text: &str) {
        let reason = connect_error::explain(text, self.login().as_ref(), self.client_certificate);
        let kind = if connect_error::is_refusal(&reason) { "refused" } else { "away" };
        let words = server.map_or_else(|| reason.clone(), |server| format!("{server}: {reason}"));
        let changed = self.set_connect_error(Some(if kind == "refused" { reason } else { words.clone() }));
        let say = |suppressed| tracing::warn!(reason = words, suppressed, "cannot connect to NATS; retrying");
        // A new reason is logged soon, an unchanged one rarely.
        if changed { self.throttle.run(kind, say) } else { self.complaints.run(kind, say) }
    }

    /// Returns whether it differs from the previous one.
    fn set_connect_error(&self, connect_error: Option<String>) -> bool {
        let mut known = self.connect_error.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != connect_error;
        *known = connect_error;
        changed
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bus({})", self.options.stream)
    }
}

impl Bus {
    /// Starts to connect and returns immediately: the client retries until the server is available.
    ///
    /// # Errors
    /// [`BusError::Settings`].
    pub async fn connect(options: Options) -> Result<Self, BusError> {
        let settings = |error: &dyn std::fmt::Display| BusError::Settings(error.to_string());
        let (servers, in_url) = servers(&options.url).map_err(|error| settings(&error))?;
        let login = options.login.clone().or(in_url);
        let state = Arc::new(ConnectionState::new(login, options.tls.is_some()));
        let asked = Arc::clone(&state);
        let connect = ConnectOptions::with_auth_callback(move |nonce| {
            let auth = asked.login().map_or_else(|| Ok(async_nats::Auth::new()), |login| login.auth(&nonce));
            async { auth }
        });
        let (noting, looking) = (Arc::clone(&state), Arc::clone(&state));
        let mut connect = connect
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
                let noting = Arc::clone(&noting);
                async move { noting.note(&event) }
            })
            // Called before each round of attempts: reads the result of the last one, and leaves the choice of server alone.
            .reconnect_to_server_callback(move |servers, _| {
                let failed: Option<(String, String)> =
                    servers.into_iter().find_map(|server| Some((server.to_string(), server.last_error?)));
                if let Some((server, error)) = failed {
                    looking.complain(Some(&server), &error);
                }
                async { None }
            });
        if let Some(ca) = &options.tls_ca {
            connect = connect.add_root_certificates(ca.clone());
        }
        if let Some((cert, key)) = &options.tls {
            connect = connect.add_client_certificate(cert.clone(), key.clone());
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

    /// Number of permission errors from the server so far.
    #[must_use]
    pub fn denials(&self) -> u64 {
        self.state.denials.load(Ordering::Relaxed)
    }

    /// Waits for a connection, at most for `timeout`.
    ///
    /// # Errors
    /// [`BusError::Refused`], [`BusError::Unreachable`], or [`BusError::Disconnected`] while no reason is known.
    pub async fn wait_connected(&self, timeout: Duration) -> Result<(), BusError> {
        if self.connected() {
            return Ok(());
        }
        // The flush completes once the client is connected.
        match tokio::time::timeout(timeout, self.client.flush()).await {
            Ok(Ok(())) if self.connected() => Ok(()),
            _ => Err(self.connect_error()),
        }
    }

    /// Uses this login from the next connection on. The current connection stays until the server ends it.
    pub fn set_login(&self, login: Option<Login>) {
        // Without a new login, the credentials of the URL stay.
        if login.is_some() {
            *self.state.login.write().unwrap_or_else(PoisonError::into_inner) = login;
        }
    }

    /// Why there is no connection, as far as it is known.
    fn connect_error(&self) -> BusError {
        match self.state.connect_error.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(words) if connect_error::is_refusal(&words) => BusError::Refused(words),
            Some(words) => BusError::Unreachable(words),
            None => BusError::Disconnected,
        }
    }

    /// Drops a connection that may be dead; its pings would detect that much later.
    pub async fn reconnect(&self) {
        let asked = tokio::time::timeout(RECONNECT_TIMEOUT, self.client.force_reconnect()).await;
        if !matches!(asked, Ok(Ok(()))) {
            tracing::debug!("could not request a new connection to NATS");
        }
    }

    /// The maximum message size of the server, in bytes.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.client.server_info().max_payload
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
