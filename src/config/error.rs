//! The error for a rejected setting. It never contains a secret: callers put only text into it that anyone may read.

use std::fmt;

/// Where the value of a setting was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A command line flag, for example `--listen`.
    Flag(&'static str),
    /// An environment variable, for example `CONVOKE_LISTEN` or `DATABASE_URL`.
    Variable(String),
    /// The settings file.
    File {
        /// The path as given in `--config` or `CONVOKE_CONFIG`, or `convoke.toml`.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// Nowhere: the default is used.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{path}, line {line}"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// A setting that cannot be used, and what to write instead. The process exits with status 2.
///
/// Its text never contains a key, a token or a password.
#[derive(Debug, thiserror::Error)]
#[error("`{setting}` (from {origin}): {problem}; {instead}")]
pub struct ConfigError {
    setting: String,
    origin: Box<Origin>,
    problem: String,
    instead: String,
}

impl ConfigError {
    pub(super) fn new(
        setting: impl Into<String>,
        origin: &Origin,
        problem: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Self {
            setting: setting.into(),
            origin: Box::new(origin.clone()),
            problem: problem.into(),
            instead: instead.into(),
        }
    }

    /// The setting's key in the settings file, for example `database.retention`; for an unknown name, that name.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// Where the rejected value came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// `url` without secrets, for display: without the user, the password and, if it may contain one, the query. Several
/// comma-separated URLs are treated one by one.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let query = url.to_ascii_lowercase().contains("password=");
    // A comma or a slash within a password must not make its second half look like a separate URL.
    let user = url.contains('@');
    let show = |part: &str| {
        let (part, tail) = match part.split_once('?') {
            Some((part, _)) if query || user => (part, "?***"),
            _ => (part, ""),
        };
        let shown = match (part.split_once("://"), part.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) if !scheme.contains('@') => format!("{scheme}://***@{host}"),
            (_, Some((_, host))) => format!("***@{host}"),
            (_, None) if user || query && tail.is_empty() => "***".to_owned(),
            (Some((scheme, rest)), None) if !rest.split('/').next().is_some_and(names_hosts) => {
                format!("{scheme}://***")
            }
            (_, None) => part.to_owned(),
        };
        shown + tail
    };
    // A single PostgreSQL URL may name several hosts.
    if url.starts_with("postgres") { show(url) } else { url.split(',').map(show).collect::<Vec<_>>().join(",") }
}

/// Whether these are hosts, with or without ports. Something that is in the place of a port but is not one may be a password
/// whose `@HOST` was forgotten.
fn names_hosts(authority: &str) -> bool {
    authority.split(',').all(|host| match host.rsplit_once(':') {
        Some((_, port)) => host.ends_with(']') || port.is_empty() || port.parse::<u16>().is_ok(),
        None => true,
    })
}
