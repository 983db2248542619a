//! The settings: one tree of plain data, complete and checked before anything binds. Owns every name, default and
//! limit, and is the only reader of the environment.
//!
//! A flag counts more than a `CONVOKE_*` variable, that more than the settings file, that more than `DATABASE_URL`
//! and `NATS_URL`, and those more than the default. What cannot be used is refused with a [`ConfigError`], which
//! names the setting, where its value came from, and what to write instead, and never holds a secret.

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

use convoke_bus::Login;
use convoke_core::event::Subscriber;
use convoke_core::time::Millis;

pub use env::{ConfigArgs, Env};
pub use error::{ConfigError, Origin, redact_url};
pub use subscribers::{SubscriberSource, load_key_file, load_subscribers};

use layers::Layers;

/// Why the platform should not push to this URL, if so: it has to be `https`, or lead to this machine.
#[must_use]
pub fn callback_url_problem(url: &str) -> Option<String> {
    parse::callback_url(url).err().map(|refusal| refusal.problem)
}

/// Who else may read the file with a secret, and what to do; `None`: nobody, or there is no such file.
fn read_by_others(file: &std::path::Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    let (mode, group) = (found.mode() & 0o777, found.gid());
    let ours = || {
        rustix::process::getegid().as_raw() == group
            || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|id| id.as_raw() == group))
    };
    // Who looks as root says nothing on the group of the service.
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

/// Every setting with its default, its meaning and its variable: the reference for people.
pub const REFERENCE: &str = include_str!("convoke.default.toml");

/// All settings, valid each and together.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The two listeners.
    pub listen: Listen,
    /// Who may send events; empty if nobody is configured, see [`Settings::check_serve`].
    pub subscribers: Vec<Subscriber>,
    /// Where the subscribers and their keys came from, in the same order.
    pub subscriber_sources: Vec<SubscriberSource>,
    /// The files that settings name and that hold a secret.
    pub secret_files: Vec<PathBuf>,
    /// The log's database.
    pub database: Database,
    /// The bus.
    pub nats: Nats,
    /// The admin listener's access.
    pub admin: Admin,
    /// What the stream must not hold.
    pub privacy: Privacy,
    /// The platform's API; `None`: it is not used.
    pub platform: Option<Platform>,
    /// The process's own log.
    pub log: Log,
    /// Where traces go.
    pub telemetry: Telemetry,
    /// Every file that a setting names: of keys, certificates, credentials.
    pub files: Vec<PathBuf>,
    /// What they were made of.
    pub sources: SettingsSources,
    origins: BTreeMap<&'static str, Origin>,
}

/// Where and how requests are taken.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The platform's events.
    pub events: SocketAddr,
    /// Metrics and readiness.
    pub admin: SocketAddr,
    /// The path that events are posted to.
    pub path: String,
    /// Certificate and key of the events listener; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Longest body of a delivery, in bytes.
    pub max_body: usize,
    /// Networks that events may come from; empty: from everywhere.
    pub allow_from: Vec<IpNet>,
    /// Networks whose `X-Forwarded-For` is believed; empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a connection may be silent after a request.
    pub idle_timeout: Duration,
    /// How long requests are still accepted after readiness is withdrawn.
    pub shutdown_delay: Duration,
    /// How long a stop may take in all.
    pub shutdown_timeout: Duration,
}

/// A certificate and its key, in PEM files, which are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that vouch for it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The log's database. Its `Debug` output leaves the password out.
#[derive(Clone)]
pub struct Database {
    /// `sqlite:` or `postgres:`; may hold a password, so show it with [`redact_url`] only.
    pub url: String,
    /// Whether `serve` brings the tables up to date.
    pub migrate: bool,
    /// How long events are kept, at least 48 h; `None`: for ever.
    pub retention: Option<Duration>,
    /// How long entries of the quarantine are kept; `None`: for ever.
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

/// The bus. Its `Debug` output leaves passwords out.
#[derive(Clone)]
pub struct Nats {
    /// One or more servers, comma separated; may hold a password, so show it with [`redact_url`] only. `None`: the
    /// relay is off.
    pub url: Option<String>,
    /// The stream's name.
    pub stream: String,
    /// What every subject begins with, without the dot after it.
    pub subject_prefix: String,
    /// Certificates, in PEM, that may vouch for the server, instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// The certificate that we show to the server, and its key.
    pub tls: Option<TlsFiles>,
    /// How we log in; `None`: not at all, or with what the URL holds.
    pub login: Option<Login>,
    /// Copies of the stream on different servers, 1 to 5. This and what follows are used only when Convoke creates it.
    pub replicas: usize,
    /// How long messages stay in the stream; zero: without a limit.
    pub max_age: Duration,
    /// Largest size of the stream, in bytes; `None`: without a limit.
    pub max_bytes: Option<i64>,
    /// How long the stream remembers ids, to drop copies.
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

/// Who may use the admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its tokens, in the order of the settings. None: everyone who reaches the listener, which then is a loopback one, sees it
    /// without personal data.
    pub tokens: Vec<AdminToken>,
}

impl Admin {
    /// The token that may see the most.
    #[must_use]
    pub fn widest(&self) -> Option<&AdminToken> {
        self.tokens.iter().find(|token| token.rights.see_people).or_else(|| self.tokens.first())
    }
}

/// A token of the admin listener.
#[derive(Clone, Debug)]
pub struct AdminToken {
    /// Whose it is, as the log and the page say it: no two are alike.
    pub name: Arc<str>,
    /// What is sent.
    pub token: SecretString,
    /// What it gives a right to.
    pub rights: AdminRights,
}

/// What a token gives a right to beside viewing, which every one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdminRights {
    /// To see personal data, which is masked otherwise.
    pub see_people: bool,
    /// To act: on the quarantine, and to replay.
    pub operate: bool,
}

/// What is kept from the stream's readers.
#[derive(Clone, Debug)]
pub struct Privacy {
    /// Fields of `payload.attendeeInfo`, by the platform's names.
    pub mask: Vec<String>,
}

/// The platform's API: where it is, who we are there, and what it is used for.
#[derive(Clone, Debug)]
pub struct Platform {
    /// Its base is `https`, or `http` to a loopback address. With a service provider's id, we act as one: for the enterprise
    /// `corp_id`, or without that as its administrator.
    pub api: convoke_platform::Options,
    /// Where the platform is to push events.
    pub callback_url: Option<String>,
    /// How often the subscription is looked at; `None`: never.
    pub watch_every: Option<Duration>,
    /// How often gaps are looked for and filled; `None`: never.
    pub backfill_every: Option<Duration>,
    /// Whether recordings' details are fetched.
    pub recordings: bool,
    /// Whether meetings' details are fetched.
    pub enrich: bool,
}

/// The process's own log.
#[derive(Clone, Debug)]
pub struct Log {
    /// `None`: see [`LogFormat::for_terminal`].
    pub format: Option<LogFormat>,
}

/// Where traces go.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The base of a collector's URLs, without a slash at the end; `None`: nothing is traced.
    pub otlp_endpoint: Option<String>,
}

/// How lines of the process's log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

impl LogFormat {
    /// What is used if the settings do not say: text on a terminal, else JSON.
    #[must_use]
    pub const fn for_terminal(terminal: bool) -> Self {
        if terminal { Self::Text } else { Self::Json }
    }
}

/// What the settings are made of: flags, environment, and the settings file as it was when it was read. Settings made of it
/// again differ only by what is in the files that they name. Its `Debug` output is empty: it may hold secrets.
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

    /// The same, with the settings file as it is now.
    ///
    /// # Errors
    /// As [`SettingsSources::read`].
    pub fn again(&self) -> Result<Self, ConfigError> {
        Self::read(&self.args, &self.env)
    }

    /// The settings, with what the files that they name hold now.
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
    /// Reads and checks everything. That nobody is subscribed is no error here: most commands do without.
    ///
    /// # Errors
    /// The first thing found that cannot be used; the process should say so and exit with status 2.
    pub fn load(args: &ConfigArgs, env: &Env) -> Result<Self, ConfigError> {
        SettingsSources::read(args, env)?.settings()
    }

    /// The ids of the subscribers, without their keys.
    #[must_use]
    pub fn subscriber_ids(&self) -> Arc<[Arc<str>]> {
        self.subscribers.iter().map(|subscriber| Arc::clone(&subscriber.app_id)).collect()
    }

    /// What is suspicious about the secrets, and can be meant all the same: who else may read their files, and keys with white
    /// space at an end, which is a part of them.
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

    /// Since when the log has events, but for older ones that are not deleted yet; `None`: it keeps all.
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
                subscribers::read_secret(file)
                    .map_err(|refusal| ConfigError::new(path, self.origin(path), refusal.problem, refusal.instead))?;
            }
        }
        Ok(())
    }

    /// The refusal of a setting that only its user can judge, such as a certificate.
    #[must_use]
    pub fn refuse(&self, path: &str, problem: &dyn fmt::Display, instead: &str) -> ConfigError {
        ConfigError::new(path, self.origin(path), problem.to_string(), instead)
    }

    /// Where the value of a setting, for example `database.url`, came from.
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
