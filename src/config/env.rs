//! Sources of settings other than the file: the environment and the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::redact_url;

/// A snapshot of the process's environment, so that a reload sees the same as the start, and tests can set it.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
    /// Names of variables whose value is not UTF-8.
    odd: Vec<String>,
    directory: PathBuf,
}

impl Env {
    /// The environment and the working directory of this process.
    #[must_use]
    pub fn from_process() -> Self {
        // An empty directory leaves relative paths as they are, relative to the process's working directory.
        let mut env = Self::default();
        #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(env.variables.insert(name, value)),
                Err(_) => env.odd.push(name),
            }
        }
        env
    }

    /// An environment with only these variables, and `directory` as the working directory.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>, directory: impl Into<PathBuf>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { variables, odd: Vec::new(), directory: directory.into() }
    }

    /// The value of the variable `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names of variables whose values are not UTF-8; no other method returns them.
    pub(super) fn odd(&self) -> &[String] {
        &self.odd
    }

    /// `path`, relative to the working directory.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }
}

/// Only the names, because any value may be a secret.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("variables", &self.variables.keys()).field("directory", &self.directory).finish()
    }
}

/// Flags that set settings. They have the highest precedence. They are validated with the other settings and not by clap, so that
/// all errors have the same form.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct ConfigArgs {
    /// Settings file in TOML [env: CONVOKE_CONFIG] [default: ./convoke.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address that receives the platform's events [env: CONVOKE_LISTEN] [key: listen.events] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,

    /// Address of the page, the API and metrics; needs admin.token if it is not loopback [env: CONVOKE_ADMIN_LISTEN]
    /// [key: listen.admin] [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,

    /// Path that receives the platform's events [env: CONVOKE_PATH_EVENTS] [key: listen.path] [default: /openapi/meetingevent]
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,

    /// Subscriber ID (appID), instead of all subscribers in the file [env: CONVOKE_APP_ID]
    /// [key: app_id of a `[[subscriber]]`] [default: none]
    #[arg(long, value_name = "ID")]
    pub app_id: Option<String>,

    /// File with that subscriber's keys, one per line [env: CONVOKE_APP_KEY_FILE, or the key itself in CONVOKE_APP_KEY]
    /// [key: key_files of a `[[subscriber]]`] [default: none]
    #[arg(long, value_name = "FILE")]
    pub app_key_file: Option<String>,

    /// Database: sqlite://FILE or postgres://USER:PASSWORD@HOST/NAME [env: CONVOKE_DATABASE_URL, then DATABASE_URL]
    /// [key: database.url] [default: sqlite://convoke.db]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,

    /// NATS servers, separated by commas; `none`: publish nothing [env: CONVOKE_NATS_URL, then NATS_URL]
    /// [key: nats.url] [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,

    /// Log format: text, json or auto [env: CONVOKE_LOG_FORMAT] [key: log.format]
    /// [default: auto: text on a terminal, otherwise json]; RUST_LOG sets the level
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl ConfigArgs {
    /// The value of `flag`, if it was given.
    pub(super) fn get(&self, flag: &str) -> Option<&str> {
        let value = match flag {
            "--listen" => &self.listen,
            "--admin-listen" => &self.admin_listen,
            "--path" => &self.path,
            "--app-id" => &self.app_id,
            "--app-key-file" => &self.app_key_file,
            "--database-url" => &self.database_url,
            "--nats-url" => &self.nats_url,
            "--log-format" => &self.log_format,
            _ => &None,
        };
        value.as_deref()
    }
}

/// Without the passwords in URLs.
impl fmt::Debug for ConfigArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigArgs")
            .field("config", &self.config)
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("path", &self.path)
            .field("app_id", &self.app_id)
            .field("app_key_file", &self.app_key_file)
            .field("database_url", &self.database_url.as_deref().map(redact_url))
            .field("nats_url", &self.nats_url.as_deref().map(redact_url))
            .field("log_format", &self.log_format)
            .finish()
    }
}
