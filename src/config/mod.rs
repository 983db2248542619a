//! The settings: one tree of plain data, complete and checked before anything binds. This module defines all names, defaults and
//! limits, and is the only reader of the environment.
//!
//! In order of precedence: command line flag, `CONVOKE_*` variable, settings file, `DATABASE_URL` and `NATS_URL`, default. A
//! setting that cannot be used is rejected with a [`ConfigError`], which names the setting, where its value came from, and what
//! to write instead, and never contains a secret.

mod admin;
mod build;
mod effective;
mod env;
mod error;
mod file;
mod keys;
mod layers;
mod parse;
mod platform;
mod secrets;
mod subscribers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use crate::live::LiveOptions;
use convoke_bus::Login;
use convoke_core::event::Subscriber;
use convoke_core::time::Millis;
use convoke_core::zone::TimeZone;

pub use effective::toml_string;
pub use env::{ConfigArgs, Env};
pub use error::{ConfigError, Origin, redact_url};
pub use secrets::{load_key_file, load_meeting_password, load_password, write_secret, write_settings};
pub use subscribers::{SubscriberSource, load_subscribers};

use layers::Layers;

/// Why the platform cannot push to this URL, if it cannot: it must be `https`, or lead to this machine.
#[must_use]
pub fn callback_url_problem(url: &str) -> Option<String> {
    parse::callback_url(url).err().map(|refusal| refusal.problem)
}

/// Who else may read the file with a secret, with advice; `None`: nobody else, or the file does not exist.
fn read_by_others(file: &std::path::Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    let (mode, group) = (found.mode() & 0o777, found.gid());
    let ours = || {
        rustix::process::getegid().as_raw() == group
            || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|id| id.as_raw() == group))
    };
    // Skipped for root, whose groups say nothing about the group of the service.
    let (who, remedy) = if mode & 0o004 != 0 {
        ("every user of this machine", "o-rwx")
    } else if mode & 0o040 != 0 && !rustix::process::geteuid().is_root() && !ours() {
        ("a group that this process is not in", "g-rwx")
    } else {
        return None;
    };
    let file = file.display();
    Some(format!("{file} holds a secret, and {who} may read it (mode {mode:04o}): `chmod {remedy} {file}`"))
}

/// The reference: every setting with its default, its meaning and its variable.
pub const REFERENCE: &str = include_str!("convoke.default.toml");

/// All settings, checked individually and together.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The two listeners.
    pub listen: Listen,
    /// The subscribers; they may be empty, see [`Settings::check_serve`].
    pub subscribers: Vec<Subscriber>,
    /// Where the subscribers and their keys came from, in the same order.
    pub subscriber_sources: Vec<SubscriberSource>,
    /// Files named by settings that contain a secret.
    pub secret_files: Vec<PathBuf>,
    /// The database of the log.
    pub database: Database,
    /// The bus.
    pub nats: Nats,
    /// Access to the admin listener.
    pub admin: Admin,
    /// What is kept out of the stream.
    pub privacy: Privacy,
    /// The platform's API; `None`: it is not used.
    pub platform: Option<Platform>,
    /// Figures, and times that are shown to people.
    pub reports: Reports,
    /// The log lines of the process.
    pub log: Log,
    /// Where traces go.
    pub telemetry: Telemetry,
    /// All files that settings name: keys, certificates, credentials.
    pub files: Vec<PathBuf>,
    /// The sources of the settings.
    pub sources: SettingsSources,
    origins: BTreeMap<&'static str, Origin>,
}

/// Where and how requests are accepted.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Address of the events listener, for the platform's events.
    pub events: SocketAddr,
    /// Address of the admin listener, for metrics and readiness among others.
    pub admin: SocketAddr,
    /// The path that events are posted to.
    pub path: String,
    /// Certificate and key of the events listener; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Maximum size of a delivery's body, in bytes.
    pub max_body: usize,
    /// Networks that events may come from; empty means any.
    pub allow_from: Vec<IpNet>,
    /// Networks of proxies whose `X-Forwarded-For` is trusted; empty means none.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a connection may be idle after a request.
    pub idle_timeout: Duration,
    /// How long requests are still accepted after readiness is withdrawn.
    pub shutdown_delay: Duration,
    /// Time limit for the whole shutdown.
    pub shutdown_timeout: Duration,
}

/// A certificate and its key, in PEM files that are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its intermediate certificates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The database of the log. Its `Debug` output omits the password.
#[derive(Clone)]
pub struct Database {
    /// `sqlite:` or `postgres:`; it may contain a password, so display it only with [`redact_url`].
    pub url: String,
    /// Whether `serve` migrates the tables.
    pub migrate: bool,
    /// How long events are kept, at least 48 h; `None`: forever.
    pub retention: Option<Duration>,
    /// How long quarantine entries are kept; `None`: forever.
    pub quarantine_retention: Option<Duration>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("url", &redact_url(&self.url))
            .field("migrate", &self.migrate)
            .field("retention", &self.retention)
            .field("quarantine_retention", &self.quarantine_retention)
            .finish()
    }
}

/// The bus. Its `Debug` output omits passwords.
#[derive(Clone)]
pub struct Nats {
    /// One or more servers, comma-separated; it may contain a password, so display it only with [`redact_url`]. `None`: the relay
    /// is off.
    pub url: Option<String>,
    /// The stream's name.
    pub stream: String,
    /// The prefix of all subjects, without the dot after it.
    pub subject_prefix: String,
    /// CA certificates in PEM for verifying the server, instead of those of the system.
    pub tls_ca: Option<PathBuf>,
    /// The client certificate and its key.
    pub tls: Option<TlsFiles>,
    /// The login; `None`: none, or the one in the URL.
    pub login: Option<Login>,
    /// Number of copies of the stream on different servers, 1 to 5. This setting and the following ones are used only when
    /// Convoke creates the stream.
    pub replicas: usize,
    /// How long messages stay in the stream; zero: no limit.
    pub max_age: Duration,
    /// Maximum size of the stream, in bytes; `None`: no limit.
    pub max_bytes: Option<i64>,
    /// How long the stream remembers message IDs, to drop copies.
    pub duplicate_window: Duration,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("url", &self.url.as_deref().map(redact_url))
            .field("stream", &self.stream)
            .field("subject_prefix", &self.subject_prefix)
            .field("tls_ca", &self.tls_ca)
            .field("tls", &self.tls)
            .field("login", &self.login)
            .field("replicas", &self.replicas)
            .field("max_age", &self.max_age)
            .field("max_bytes", &self.max_bytes)
            .field("duplicate_window", &self.duplicate_window)
            .finish()
    }
}

/// Access to the admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The tokens, in the order of the settings. If empty, everyone who reaches the listener, which is then on loopback, sees it
    /// without personal data.
    pub tokens: Vec<AdminToken>,
}

impl Admin {
    /// The token with the most rights.
    #[must_use]
    pub fn widest(&self) -> Option<&AdminToken> {
        self.tokens.iter().find(|token| token.rights.see_people).or_else(|| self.tokens.first())
    }
}

/// A token of the admin listener.
#[derive(Clone, Debug)]
pub struct AdminToken {
    /// The unique name of the token, as shown in logs and on the page.
    pub name: Arc<str>,
    /// The token itself.
    pub token: SecretString,
    /// Its rights.
    pub rights: AdminRights,
}

/// The rights of a token in addition to viewing, which every token may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdminRights {
    /// May see personal data, which is masked otherwise.
    pub see_people: bool,
    /// May act: on the quarantine, and to replay.
    pub operate: bool,
}

/// What is kept out of the stream.
#[derive(Clone, Debug)]
pub struct Privacy {
    /// Members of `payload.attendeeInfo`, by the platform's names.
    pub mask: Vec<String>,
}

/// The platform's API: its address, the credentials, and what it is used for.
#[derive(Clone, Debug)]
pub struct Platform {
    /// The base URL is `https`, or `http` to a loopback address. With a service provider's ID, calls are made as that provider:
    /// for the enterprise `corp_id`, or without one as the provider's administrator.
    pub api: convoke_platform::Options,
    /// The URL to which the platform should push events.
    pub callback_url: Option<String>,
    /// How often the subscription is checked; `None`: never.
    pub watch_every: Option<Duration>,
    /// How often the list of running meetings is read while any is live; `None`: never.
    pub running_every: Option<Duration>,
    /// How often the platform's counts are compared with the tables; `None`: never.
    pub completeness_every: Option<Duration>,
    /// How often gaps are searched for and filled; `None`: never.
    pub backfill_every: Option<Duration>,
    /// Whether details of recordings are fetched.
    pub recordings: bool,
    /// Whether details of meetings are fetched.
    pub enrich: bool,
    /// Whether departments and titles of people are fetched.
    pub people: bool,
    /// Which running meetings are attended; `None`: it is off.
    pub live: Option<LiveOptions>,
}

/// Figures, and times that are shown to people.
#[derive(Clone, Debug)]
pub struct Reports {
    /// What a day is, and what a time means that is written without an offset.
    pub time_zone: TimeZone,
}

/// The log lines of the process.
#[derive(Clone, Debug)]
pub struct Log {
    /// `None`: see [`LogFormat::for_terminal`].
    pub format: Option<LogFormat>,
}

/// Where traces go.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The base URL of a collector, without a trailing slash; `None`: nothing is traced.
    pub otlp_endpoint: Option<String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

impl LogFormat {
    /// The format if the settings do not say: text on a terminal, otherwise JSON.
    #[must_use]
    pub const fn for_terminal(terminal: bool) -> Self {
        if terminal { Self::Text } else { Self::Json }
    }
}

/// The sources of the settings: flags, environment, and the settings file as it was read. Settings built from them again differ
/// only by the content of the files that they name. The `Debug` output is empty, because they may contain secrets.
#[derive(Clone)]
pub struct SettingsSources {
    args: ConfigArgs,
    env: Env,
    file: Option<file::Text>,
}

impl fmt::Debug for SettingsSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SettingsSources")
    }
}

impl SettingsSources {
    /// Reads the settings file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(args: &ConfigArgs, env: &Env) -> Result<Self, ConfigError> {
        Ok(Self { args: args.clone(), env: env.clone(), file: file::read(args, env)? })
    }

    /// The same sources with the current content of the settings file.
    ///
    /// # Errors
    /// As [`SettingsSources::read`].
    pub fn again(&self) -> Result<Self, ConfigError> {
        Self::read(&self.args, &self.env)
    }

    /// The settings, with the current content of the files that they name.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let mut layers = Layers::collect(&self.args, &self.env, self.file.as_ref())?;
        let subscriber_sources = subscribers::sources(&self.args, &self.env, std::mem::take(&mut layers.entries))?;
        build::settings(layers, subscriber_sources, self)
    }
}

impl Settings {
    /// Reads and checks everything. It is not an error here if there is no subscriber: most commands do not need one.
    ///
    /// # Errors
    /// The first value that cannot be used; the process should print it and exit with status 2.
    pub fn load(args: &ConfigArgs, env: &Env) -> Result<Self, ConfigError> {
        SettingsSources::read(args, env)?.settings()
    }

    /// The IDs of the subscribers, without their keys.
    #[must_use]
    pub fn subscriber_ids(&self) -> Arc<[Arc<str>]> {
        self.subscribers.iter().map(|subscriber| Arc::clone(&subscriber.app_id)).collect()
    }

    /// Warnings about secrets that may be intended all the same: others may read their files, or a key begins or ends with white
    /// space, which is part of it.
    pub fn secret_warnings(&self) -> impl Iterator<Item = String> {
        let spaced = self.subscribers.iter().flat_map(|subscriber| {
            subscriber.keys.iter().enumerate().filter_map(|(place, key)| {
                let key = key.expose_secret();
                (key.trim() != key).then(|| {
                    format!(
                        "key number {} of subscriber {} begins or ends with white space, which counts as a part of it: remove it, \
                         unless the password in the platform's push configuration has it too",
                        place + 1,
                        subscriber.app_id
                    )
                })
            })
        });
        self.secret_files.iter().filter_map(|file| read_by_others(file)).chain(spaced)
    }

    /// The start of the retention period; older events may be deleted already. `None`: all events are kept.
    #[must_use]
    pub fn kept_since(&self, now: Millis) -> Option<Millis> {
        self.database.retention.map(|retention| now.minus(retention))
    }

    /// Checks what only commands that verify signatures need.
    ///
    /// # Errors
    /// There is no subscriber.
    pub fn require_subscribers(&self) -> Result<(), ConfigError> {
        if self.subscribers.is_empty() { Err(nobody()) } else { Ok(()) }
    }

    /// Checks what only `serve` needs.
    ///
    /// # Errors
    /// There is no subscriber, the admin listener is open to others without a token, or a TLS file cannot be read.
    pub fn check_serve(&self) -> Result<(), ConfigError> {
        self.require_subscribers()?;
        if self.admin.tokens.is_empty() && !self.listen.admin.ip().to_canonical().is_loopback() {
            return Err(ConfigError::new(
                "listen.admin",
                self.origin("listen.admin"),
                format!("{} can be reached from other hosts, and there is no admin.token", self.listen.admin),
                "set admin.token_file (CONVOKE_ADMIN_TOKEN_FILE), or listen on a loopback address as in 127.0.0.1:8081",
            ));
        }
        if let Some(TlsFiles { cert, key }) = &self.listen.tls {
            for (path, file) in [("listen.tls_cert", cert), ("listen.tls_key", key)] {
                secrets::read_secret(file)
                    .map_err(|refusal| ConfigError::new(path, self.origin(path), refusal.problem, refusal.instead))?;
            }
        }
        Ok(())
    }

    /// The error for a setting that only the part that uses it can check, such as a certificate.
    #[must_use]
    pub fn refuse(&self, path: &str, problem: &dyn fmt::Display, instead: &str) -> ConfigError {
        ConfigError::new(path, self.origin(path), problem.to_string(), instead)
    }

    /// Where the value of a setting came from, for example of `database.url`.
    #[must_use]
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }
}

fn nobody() -> ConfigError {
    ConfigError::new(
        "subscriber",
        &Origin::Default,
        "nobody is configured, so every event would be refused",
        "set CONVOKE_APP_ID and CONVOKE_APP_KEY_FILE (or --app-id and --app-key-file), \
         or write a [[subscriber]] with app_id and key_files into the settings file",
    )
}
