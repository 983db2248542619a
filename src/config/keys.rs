//! All names of all settings in one table: the key in the file, the variable, the flag, and the default.

use super::error::{ConfigError, Origin};

/// The type of a value in the settings file. In the environment and on the command line all values are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string.
    Text,
    /// A string with the path of a file, which is watched for changes.
    File,
    /// An array of strings; elsewhere comma-separated.
    List,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A whole number of bytes, or a string with a unit.
    Bytes,
}

/// One setting with all of its names.
#[derive(Debug)]
pub(super) struct Key {
    /// The key in the file, for example `listen.events`.
    pub path: &'static str,
    /// The environment variable, without `CONVOKE_`.
    pub env: &'static str,
    /// The command line flag.
    pub flag: Option<&'static str>,
    /// The type in the file.
    pub shape: Shape,
    /// The default, as it would be written; [`NONE`] if there is none.
    pub default: &'static str,
}

impl Key {
    /// Whether the value itself is a secret.
    pub fn secret(&self) -> bool {
        matches!(self.path, "admin.token" | "admin.viewer_token")
    }

    /// Whether the value is a URL, in which a password may be written.
    pub fn is_url(&self) -> bool {
        self.path.ends_with("url") || self.path == "telemetry.otlp_endpoint"
    }
}

/// Means no value for every setting without a default, so that a higher layer can undo a lower one.
pub(super) const NONE: &str = "none";

const fn key(
    path: &'static str,
    env: &'static str,
    flag: Option<&'static str>,
    shape: Shape,
    default: &'static str,
) -> Key {
    Key { path, env, flag, shape, default }
}

/// All settings except the two lists: the subscribers are read by `subscribers`, the admin listener's tokens by `admin`.
pub(super) const KEYS: [Key; 61] = [
    key("listen.events", "LISTEN", Some("--listen"), Shape::Text, "127.0.0.1:8080"),
    key("listen.admin", "ADMIN_LISTEN", Some("--admin-listen"), Shape::Text, "127.0.0.1:8081"),
    key("listen.path", "PATH_EVENTS", Some("--path"), Shape::Text, "/openapi/meetingevent"),
    key("listen.tls_cert", "TLS_CERT", None, Shape::File, NONE),
    key("listen.tls_key", "TLS_KEY", None, Shape::File, NONE),
    key("listen.max_body", "MAX_BODY", None, Shape::Bytes, "256 KiB"),
    key("listen.allow_from", "ALLOW_FROM", None, Shape::List, NONE),
    key("listen.trusted_proxies", "TRUSTED_PROXIES", None, Shape::List, NONE),
    key("listen.idle_timeout", "IDLE_TIMEOUT", None, Shape::Text, "90s"),
    key("listen.shutdown_delay", "SHUTDOWN_DELAY", None, Shape::Text, "2s"),
    key("listen.shutdown_timeout", "SHUTDOWN_TIMEOUT", None, Shape::Text, "25s"),
    key("database.url", "DATABASE_URL", Some("--database-url"), Shape::Text, "sqlite://convoke.db"),
    key("database.migrate", "MIGRATE", None, Shape::Bool, "true"),
    key("database.retention", "RETENTION", None, Shape::Text, NONE),
    key("database.quarantine_retention", "QUARANTINE_RETENTION", None, Shape::Text, "90d"),
    key("nats.url", "NATS_URL", Some("--nats-url"), Shape::Text, "nats://127.0.0.1:4222"),
    key("nats.stream", "NATS_STREAM", None, Shape::Text, "MEETINGS"),
    key("nats.subject_prefix", "NATS_SUBJECT_PREFIX", None, Shape::Text, "meetings"),
    key("nats.creds_file", "NATS_CREDS_FILE", None, Shape::File, NONE),
    key("nats.tls_ca", "NATS_TLS_CA", None, Shape::File, NONE),
    key("nats.user", "NATS_USER", None, Shape::Text, NONE),
    key("nats.tls_cert", "NATS_TLS_CERT", None, Shape::File, NONE),
    key("nats.tls_key", "NATS_TLS_KEY", None, Shape::File, NONE),
    key("nats.nkey_file", "NATS_NKEY_FILE", None, Shape::File, NONE),
    key("nats.password_file", "NATS_PASSWORD_FILE", None, Shape::File, NONE),
    key("nats.token_file", "NATS_TOKEN_FILE", None, Shape::File, NONE),
    key("nats.replicas", "NATS_REPLICAS", None, Shape::Integer, "1"),
    key("nats.max_age", "NATS_MAX_AGE", None, Shape::Text, "30d"),
    key("nats.max_bytes", "NATS_MAX_BYTES", None, Shape::Bytes, NONE),
    key("nats.duplicate_window", "NATS_DUPLICATE_WINDOW", None, Shape::Text, "10m"),
    key("admin.token", "ADMIN_TOKEN", None, Shape::Text, NONE),
    key("admin.token_file", "ADMIN_TOKEN_FILE", None, Shape::File, NONE),
    key("admin.viewer_token", "ADMIN_VIEWER_TOKEN", None, Shape::Text, NONE),
    key("admin.viewer_token_file", "ADMIN_VIEWER_TOKEN_FILE", None, Shape::File, NONE),
    key("privacy.mask", "PRIVACY_MASK", None, Shape::List, NONE),
    key("platform.url", "PLATFORM_URL", None, Shape::Text, NONE),
    key("platform.app_id", "PLATFORM_APP_ID", None, Shape::Text, NONE),
    key("platform.app_key_file", "PLATFORM_APP_KEY_FILE", None, Shape::File, NONE),
    key("platform.user_id", "PLATFORM_USER_ID", None, Shape::Text, NONE),
    key("platform.corp_id", "PLATFORM_CORP_ID", None, Shape::Text, NONE),
    key("platform.sp_id", "PLATFORM_SP_ID", None, Shape::Text, NONE),
    key("platform.corp_ids", "PLATFORM_CORP_IDS", None, Shape::List, NONE),
    key("platform.callback_url", "PLATFORM_CALLBACK_URL", None, Shape::Text, NONE),
    key("platform.watch_every", "PLATFORM_WATCH_EVERY", None, Shape::Text, "off"),
    key("platform.running_every", "PLATFORM_RUNNING_EVERY", None, Shape::Text, "3m"),
    key("platform.completeness_every", "PLATFORM_COMPLETENESS_EVERY", None, Shape::Text, "1h"),
    key("backfill.every", "BACKFILL_EVERY", None, Shape::Text, "off"),
    key("recordings.enabled", "RECORDINGS_ENABLED", None, Shape::Bool, "false"),
    key("enrich.enabled", "ENRICH_ENABLED", None, Shape::Bool, "false"),
    key("enrich.people", "ENRICH_PEOPLE", None, Shape::Bool, "false"),
    key("live.enabled", "LIVE_ENABLED", None, Shape::Bool, "false"),
    key("live.meetings", "LIVE_MEETINGS", None, Shape::List, NONE),
    key("live.hosts", "LIVE_HOSTS", None, Shape::List, NONE),
    key("live.max_meetings", "LIVE_MAX_MEETINGS", None, Shape::Integer, "20"),
    key("live.messages", "LIVE_MESSAGES", None, Shape::List, "status,participants,invitations,waiting_room,leaving"),
    key("live.retention", "LIVE_RETENTION", None, Shape::Text, "30d"),
    key("live.tls_ca", "LIVE_TLS_CA", None, Shape::File, NONE),
    key("live.tls_name", "LIVE_TLS_NAME", None, Shape::Text, "address"),
    key("reports.time_zone", "TIME_ZONE", None, Shape::Text, "UTC"),
    key("log.format", "LOG_FORMAT", Some("--log-format"), Shape::Text, "auto"),
    key("telemetry.otlp_endpoint", "OTLP_ENDPOINT", None, Shape::Text, NONE),
];

/// The keys of a `[[subscriber]]`.
pub(super) const SUBSCRIBER_KEYS: [&str; 4] = ["app_id", "keys", "key_files", "name"];

/// The keys of an `[[admin.tokens]]`.
pub(super) const TOKEN_KEYS: [&str; 4] = ["name", "rights", "token", "token_file"];

/// Variables that have no key in the file.
const OTHER_VARIABLES: [&str; 4] = ["CONFIG", "APP_ID", "APP_KEY", "APP_KEY_FILE"];

/// The prefix of all variables of Convoke.
const PREFIX: &str = "CONVOKE_";

/// The environment variable of `key`.
pub(super) fn variable(key: &Key) -> String {
    format!("{PREFIX}{}", key.env)
}

/// The variable that other programs use too; it has a lower precedence than the file.
pub(super) fn shared_variable(key: &Key) -> Option<&'static str> {
    match key.path {
        "database.url" => Some("DATABASE_URL"),
        "nats.url" => Some("NATS_URL"),
        _ => None,
    }
}

/// Whether the variable `name` could be a setting.
pub(super) fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX) || KEYS.iter().any(|key| shared_variable(key) == Some(name))
}

/// Rejects an unknown variable with the prefix: a misspelt setting must not go unnoticed.
pub(super) fn check_variable(name: &str, value: &str) -> Result<(), ConfigError> {
    let Some(ours) = name.strip_prefix(PREFIX) else { return Ok(()) };
    let known = || KEYS.iter().map(|key| key.env).chain(OTHER_VARIABLES);
    if known().any(|known| known == ours) || is_service_link(ours, value) {
        return Ok(());
    }
    let instead = match nearest(ours, known()) {
        Some(near) => format!("did you mean {PREFIX}{near}?"),
        None => "remove it; docs/configuration.md lists all variables".to_owned(),
    };
    Err(ConfigError::new(name, &Origin::Variable(name.to_owned()), "no setting uses this variable", instead))
}

/// Kubernetes sets such variables in every pod for each service of the namespace: a service named `convoke` would otherwise
/// prevent every start.
fn is_service_link(ours: &str, value: &str) -> bool {
    let name = format!("_{ours}");
    let is_port = |(_, tail): (&str, &str)| tail.starts_with(|c: char| c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.split_once("_PORT_").is_some_and(is_port)
}

/// The name that `given` was probably meant to be, if there is a similar one.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.into_iter().map(|name| (distance(given, name), name)).min()?;
    (best.0 <= (given.len() / 4).clamp(1, 4)).then_some(best.1)
}

/// The number of characters to insert, delete or replace in order to get from `a` to `b` (Levenshtein distance).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(&b));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
