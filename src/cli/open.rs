//! What commands need: settings, logging, the log, the bus.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::Failure;
use crate::app;
use crate::config::{ConfigArgs, Env, LogFormat, Settings, redact_url};
use crate::telemetry;
use convoke_bus::Bus;
use convoke_log::{self as log, Store};

/// How long a command waits for a connection to the bus.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The platform's API, for a command that cannot do without.
pub fn platform_options(settings: &Settings) -> Result<convoke_platform::Options, Failure> {
    app::platform_options(settings).ok_or_else(|| {
        Failure::Usage(
            "platform.app_id is not set: this command needs the platform's API; set platform.app_id and \
             platform.app_key_file"
                .to_owned(),
        )
    })
}

/// Reads the settings and sets up logging with `level`, unless `RUST_LOG` is set.
pub fn settings(args: &ConfigArgs, env: &Env, level: &str) -> Result<Settings, Failure> {
    let settings = Settings::load(args, env)?;
    let format = settings.log.format.unwrap_or_else(|| LogFormat::for_terminal(std::io::stderr().is_terminal()));
    logging(env, level, matches!(format, LogFormat::Json), settings.telemetry.otlp_endpoint.as_deref())?;
    Ok(settings)
}

/// Sets up logging.
pub fn logging(env: &Env, level: &str, json: bool, otlp_endpoint: Option<&str>) -> Result<(), Failure> {
    // The client's own errors are turned off: [`open_bus`] reports them once, in plain words.
    let quiet = format!("{level},async_nats=off");
    telemetry::init(json, env.get("RUST_LOG").unwrap_or(&quiet), otlp_endpoint)
        .map_err(|error| Failure::Usage(format!("RUST_LOG: {error}; write for example info or convoke=debug")))
}

/// The log according to the settings; it must exist and be migrated.
pub async fn open_log(settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    let log = log::open(&app::log_options(settings))?;
    log.migrate(false).await?;
    Ok(log)
}

/// Opens the log for `work`, and closes it whatever the outcome.
pub async fn with_log<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&Arc<dyn Store>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let log = open_log(settings).await?;
    let outcome = work(&log).await;
    log.close().await;
    outcome
}

/// A connection to the bus according to the settings; `None`: none is set.
pub async fn open_bus_if_named(settings: &Settings) -> anyhow::Result<Option<Bus>> {
    let Some(options) = app::bus_options(settings) else { return Ok(None) };
    let shown = redact_url(&options.url);
    let bus = Bus::connect(options).await?;
    bus.wait_connected(CONNECT_TIMEOUT).await.with_context(|| shown)?;
    Ok(Some(bus))
}

/// A connection to the bus according to the settings.
pub async fn open_bus(settings: &Settings) -> Result<Bus, Failure> {
    open_bus_if_named(settings).await?.ok_or_else(|| {
        Failure::Usage(
            "nats.url is none, but this command needs the stream: name a NATS server \
                                       (--nats-url)"
                .to_owned(),
        )
    })
}
