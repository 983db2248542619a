//! Translates the settings into the options of each part.

use crate::config::{ConfigError, Settings, TlsFiles};
use crate::http::server::{Certificates, TlsError};
use convoke_log as log;

/// The options of the log.
#[must_use]
pub fn log_options(settings: &Settings) -> log::Options {
    log::Options {
        url: settings.database.url.clone(),
        retention: settings.database.retention,
        quarantine_retention: settings.database.quarantine_retention,
    }
}

/// The options of the bus; `None`: the relay is off.
#[must_use]
pub fn bus_options(settings: &Settings) -> Option<convoke_bus::Options> {
    let nats = &settings.nats;
    Some(convoke_bus::Options {
        url: nats.url.clone()?,
        stream: nats.stream.clone(),
        subject_prefix: nats.subject_prefix.clone(),
        tls_ca: nats.tls_ca.clone(),
        tls: nats.tls.as_ref().map(|files| (files.cert.clone(), files.key.clone())),
        login: nats.login.clone(),
        replicas: nats.replicas,
        max_age: nats.max_age,
        max_bytes: nats.max_bytes,
        duplicate_window: nats.duplicate_window,
    })
}

/// The options of the client of the platform's API; `None`: it is not used.
#[must_use]
pub fn platform_options(settings: &Settings) -> Option<convoke_platform::Options> {
    Some(settings.platform.as_ref()?.api.clone())
}

/// Loads the service's certificate. One that cannot be used is an invalid setting, like any other.
///
/// # Errors
/// The rejected setting, with what to write instead.
pub fn certificates(settings: &Settings, files: &TlsFiles) -> Result<Certificates, ConfigError> {
    Certificates::load(&files.cert, &files.key).map_err(|error| match error {
        TlsError::File(..) | TlsError::Empty(_) => {
            settings.refuse("listen.tls_cert", &error, "name a PEM file with the certificate and its chain")
        }
        TlsError::Key(..) | TlsError::Mismatch(..) | TlsError::Unusable(_) => {
            settings.refuse("listen.tls_key", &error, "name a PEM file with the private key of listen.tls_cert")
        }
    })
}

/// This process's name among the replicas.
#[must_use]
pub fn owner() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>())
}
