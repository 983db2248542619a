//! Builds the checked settings from one text per setting: each value on its own, then the values that must be consistent.

use std::path::PathBuf;
use std::time::Duration;

use convoke_bus::Login;

use super::admin;
use super::env::Env;
use super::error::{ConfigError, Origin};
use super::keys::{KEYS, NONE};
use super::layers::{Layers, Refusal};
use super::secrets;
use super::subscribers::{SubscriberSource, load_subscribers};
use super::{Database, Listen, Log, Nats, Privacy, Reports, Settings, SettingsSources, Telemetry, TlsFiles, parse};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The platform repeats an event for 24 h. With a retention shorter than twice that, a copy could count as a new event.
const MIN_RETENTION: Duration = Duration::from_secs(48 * 3600);
/// Below JetStream's limit of 292 years: it keeps times as 64-bit nanoseconds.
const MAX_AGE: Duration = Duration::from_secs(100 * 31_557_600);
/// The minimum age and duplicate window that JetStream accepts.
const MIN_AGE: Duration = Duration::from_millis(100);
/// No event is smaller than this; a bare `256` was meant as KiB.
const MIN_BODY_BYTES: u64 = 1000;
/// A body larger than this is not an event (they have a few KiB), and many of them at once would fill the memory.
const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;

pub(super) fn settings(
    mut layers: Layers,
    subscriber_sources: Vec<SubscriberSource>,
    sources: &SettingsSources,
) -> Result<Settings, ConfigError> {
    let env = &sources.env;
    let token_entries = std::mem::take(&mut layers.tokens);
    let token_files: Vec<_> = token_entries.iter().filter_map(|entry| entry.file(env)).collect();
    let key_files = subscriber_sources.iter().flat_map(|source| source.key_files.iter().cloned());
    let files: Vec<_> =
        layers.files().map(|path| env.resolve(path)).chain(key_files.clone()).chain(token_files.clone()).collect();
    let secret = KEYS.iter().filter(|key| key.path.ends_with("_file") || key.path.ends_with("tls_key"));
    let secret = secret.map(|key| &layers.found(key.path).text).filter(|text| *text != NONE);
    let secret_files = secret.map(|text| env.resolve(text)).chain(key_files).chain(token_files).collect();
    Ok(Settings {
        files,
        secret_files,
        sources: sources.clone(),
        listen: listen(&layers, env)?,
        subscribers: load_subscribers(&subscriber_sources)?,
        subscriber_sources,
        database: Database {
            url: layers.read("database.url", parse::database_url)?,
            migrate: layers.read("database.migrate", parse::boolean)?,
            retention: layers
                .read_optional("database.retention", |text| parse::duration(text, MIN_RETENTION..=MAX_AGE))?,
            quarantine_retention: layers.read_optional("database.quarantine_retention", |text| {
                parse::duration(text, MIN_RETENTION..=MAX_AGE)
            })?,
        },
        nats: nats(&layers, env)?,
        admin: admin::admin(&layers, token_entries, env)?,
        privacy: Privacy { mask: layers.read("privacy.mask", parse::mask)? },
        platform: super::platform::platform(&layers, env)?,
        reports: Reports { time_zone: layers.read("reports.time_zone", parse::time_zone)? },
        log: Log { format: layers.read("log.format", parse::log_format)? },
        telemetry: Telemetry { otlp_endpoint: layers.read_optional("telemetry.otlp_endpoint", parse::otlp_endpoint)? },
        origins: layers.into_origins(),
    })
}

fn listen(layers: &Layers, env: &Env) -> Result<Listen, ConfigError> {
    let tls = tls_files(layers, env, "listen.tls_cert", "listen.tls_key")?;
    let listen = Listen {
        events: layers.read("listen.events", parse::address)?,
        admin: layers.read("listen.admin", parse::address)?,
        path: layers.read("listen.path", parse::route)?,
        tls,
        // A size within these bounds fits into any `usize`.
        max_body: layers.read("listen.max_body", |text| parse::size(text, MIN_BODY_BYTES..=MAX_BODY_BYTES))? as usize,
        allow_from: layers.read("listen.allow_from", parse::networks)?,
        trusted_proxies: layers.read("listen.trusted_proxies", parse::proxies)?,
        idle_timeout: layers.read("listen.idle_timeout", |text| parse::duration(text, SECOND..=HOUR))?,
        shutdown_delay: layers.read("listen.shutdown_delay", |text| parse::duration(text, Duration::ZERO..=HOUR))?,
        shutdown_timeout: layers
            .read("listen.shutdown_timeout", |text| parse::duration(text, Duration::ZERO..=HOUR))?,
    };
    let (events, admin) = (listen.events, listen.admin);
    // An unspecified address occupies the port on all other addresses too.
    let same_host = events.ip() == admin.ip() || events.ip().is_unspecified() || admin.ip().is_unspecified();
    if events.port() != 0 && events.port() == admin.port() && same_host {
        let blamed = match layers.found("listen.admin").origin {
            Origin::Default => "listen.events",
            _ => "listen.admin",
        };
        return Err(layers.refuse(
            blamed,
            Refusal::new(
                format!("listen.events ({events}) and listen.admin ({admin}) are the same address"),
                "write another port for one of them",
            ),
        ));
    }
    if listen.shutdown_delay > listen.shutdown_timeout {
        let (delay, timeout) = (layers.found("listen.shutdown_delay"), layers.found("listen.shutdown_timeout"));
        return Err(layers.refuse(
            match timeout.origin {
                Origin::Default => "listen.shutdown_delay",
                _ => "listen.shutdown_timeout",
            },
            Refusal::new(
                format!(
                    "a shutdown may take {} in all, but listen.shutdown_delay alone is {} (from {})",
                    timeout.text, delay.text, delay.origin
                ),
                "write a longer listen.shutdown_timeout or a shorter listen.shutdown_delay",
            ),
        ));
    }
    Ok(listen)
}

fn nats(layers: &Layers, env: &Env) -> Result<Nats, ConfigError> {
    let url = layers.read_optional("nats.url", parse::nats_url)?;
    let tls = tls_files(layers, env, "nats.tls_cert", "nats.tls_key")?;
    let login = nats_login(layers, env, url.as_deref())?;
    // Without a bus these files are not needed. With one, they are read when they are used, but unreadable ones are rejected now.
    if url.is_some() {
        for path in ["nats.password_file", "nats.token_file", "nats.nkey_file"] {
            layers.read_optional(path, |text| secrets::secret_of(&env.resolve(text)).map(drop))?;
        }
        for path in ["nats.creds_file", "nats.tls_ca", "nats.tls_cert", "nats.tls_key"] {
            layers.read_optional(path, |text| secrets::read_secret(&env.resolve(text)).map(drop))?;
        }
    }
    let age = |text: &str| parse::duration(text, MIN_AGE..=MAX_AGE);
    // JetStream uses zero for no limit.
    let max_age = match layers.found("nats.max_age").text.as_str() {
        NONE | "0" | "0s" => Duration::ZERO,
        _ => layers.read("nats.max_age", age)?,
    };
    let duplicate_window = layers.read("nats.duplicate_window", age)?;
    if !max_age.is_zero() && duplicate_window > max_age {
        let (window, most) = (&layers.found("nats.duplicate_window").text, &layers.found("nats.max_age").text);
        let from = &layers.found("nats.max_age").origin;
        return Err(layers.refuse(
            "nats.duplicate_window",
            Refusal::new(
                format!("{window} is longer than nats.max_age, {most} (from {from})"),
                format!("write {most} or less (CONVOKE_NATS_DUPLICATE_WINDOW), or a longer nats.max_age"),
            ),
        ));
    }
    Ok(Nats {
        url,
        stream: layers.read("nats.stream", parse::stream)?,
        subject_prefix: layers.read("nats.subject_prefix", parse::subject_prefix)?,
        tls_ca: layers.read_optional("nats.tls_ca", file)?.map(|path| env.resolve(path)),
        tls,
        login,
        replicas: layers.read("nats.replicas", |text| parse::integer(text, 1..=5))?,
        max_age,
        max_bytes: layers
            .read_optional("nats.max_bytes", |text| parse::size(text, 1..=i64::MAX.unsigned_abs()))?
            .and_then(|bytes| i64::try_from(bytes).ok()),
        duplicate_window,
    })
}

/// The configured login, if there is one; there may be only one.
fn nats_login(layers: &Layers, env: &Env, url: Option<&str>) -> Result<Option<Login>, ConfigError> {
    let path = |path: &str| Ok(layers.read_optional(path, file)?.map(|path| env.resolve(path)));
    let user = layers.read_optional("nats.user", |text| Ok(text.to_owned()))?;
    let password = match (user, path("nats.password_file")?) {
        (Some(user), Some(file)) => Some(Login::Password(user, file)),
        (Some(_), None) => return Err(layers.alone("nats.user", "nats.password_file")),
        (None, Some(_)) => return Err(layers.alone("nats.password_file", "nats.user")),
        (None, None) => None,
    };
    let ways = [
        ("nats.creds_file", path("nats.creds_file")?.map(Login::Creds)),
        ("nats.nkey_file", path("nats.nkey_file")?.map(Login::Nkey)),
        ("nats.user", password),
        ("nats.token_file", path("nats.token_file")?.map(Login::Token)),
    ];
    let mut used = ways.into_iter().filter_map(|(path, login)| Some((path, login?)));
    let (used, other) = (used.next(), used.next());
    if let (Some((one, _)), Some((other, _))) = (&used, &other) {
        let from = &layers.found(one).origin;
        return Err(layers.refuse(
            other,
            Refusal::new(
                format!("{one} (from {from}) is set too, and NATS accepts one way to log in"),
                format!("leave one of them out, or set it to {NONE}"),
            ),
        ));
    }
    if let Some((way, _)) = used
        && url.is_some_and(|url| url.contains('@'))
    {
        let from = &layers.found("nats.url").origin;
        return Err(layers.refuse(
            way,
            Refusal::new(
                format!("nats.url (from {from}) contains credentials too, and NATS accepts one way to log in"),
                format!("take them out of the URL, or set this to {NONE}"),
            ),
        ));
    }
    Ok(used.map(|(_, login)| login))
}

fn tls_files(
    layers: &Layers,
    env: &Env,
    cert: &'static str,
    key: &'static str,
) -> Result<Option<TlsFiles>, ConfigError> {
    match (layers.read_optional(cert, file)?, layers.read_optional(key, file)?) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: env.resolve(cert), key: env.resolve(key) })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(layers.alone(cert, key)),
        (None, Some(_)) => Err(layers.alone(key, cert)),
    }
}

fn file(text: &str) -> Result<PathBuf, Refusal> {
    Ok(PathBuf::from(text))
}
