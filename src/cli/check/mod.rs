//! `convoke check`: checks one part after the other, and prints lines for each.

mod database;
mod files;
mod platform;
mod refusals;
mod report;
mod stream;

use std::time::Duration;

use self::refusals::RecentRefusals;
use self::report::Report;
use super::running::Running;
use super::{Failure, Outcome};
use crate::app;
use crate::config::{ConfigArgs, Env, Settings, redact_url};
use convoke_core::time::{Clock, Millis};
use convoke_log::Store;
use convoke_platform::Client;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke check --config /etc/convoke/convoke.toml")]
pub struct CheckArguments {
    #[command(flatten)]
    settings: ConfigArgs,
}

/// Time limit for all calls of the platform's API together.
const PLATFORM_TIMEOUT: Duration = Duration::from_secs(30);

pub async fn run(arguments: &CheckArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "error")?;
    let mut report = Report::default();
    files::files(&mut report, &settings);
    let now = Clock::System.now();
    let (log, made) = database::open_log(&mut report, &settings).await;
    if let Some(log) = &log {
        database::database(&mut report, &settings, &**log, now).await;
        let outcome = database::handshakes(&report, &settings, &**log).await;
        report.part("handshake", outcome);
    }
    service(&mut report, &settings).await;
    platform(&mut report, &settings).await?;
    bus(&mut report, &settings, log.as_deref(), made, now).await;
    if let Some(log) = log {
        log.close().await;
    }
    if report.failed { Err(Failure::Found) } else { Ok(()) }
}

/// What only a running service knows: which file it has open, the state of its helpers, and what it refused (another replica has
/// its own counts).
async fn service(report: &mut Report, settings: &Settings) {
    if let Some(running) = Running::fetch(settings).await {
        if let Some(sentence) = running.refuses() {
            report.fail("service", sentence);
        }
        if let Some(sentence) = running.restarted() {
            report.warn("helpers", sentence);
        }
    }
    if let Some(refusals) = RecentRefusals::fetch(settings).await {
        for sentence in refusals.sentences(&settings.listen.path) {
            report.warn("refused", format!("in the last {} min, {sentence}", refusals.minutes));
        }
    }
}

async fn platform(report: &mut Report, settings: &Settings) -> Outcome {
    let Some(options) = app::platform_options(settings) else { return Ok(()) };
    match Client::new(options, Clock::System) {
        Ok(client) => {
            let asked = tokio::time::timeout(PLATFORM_TIMEOUT, platform::platform(report, settings, &client));
            if super::with_token(&client, asked).await?.is_err() {
                report.fail("platform", format!("no answer within {PLATFORM_TIMEOUT:?}"));
            }
        }
        Err(error) => report.fail("platform", error),
    }
    Ok(())
}

async fn bus(report: &mut Report, settings: &Settings, log: Option<&dyn Store>, made: bool, now: Millis) {
    let Some(options) = app::bus_options(settings) else {
        return report.warn("bus", "nats.url is none: nothing is published");
    };
    match super::open_bus(settings).await {
        Ok(bus) => {
            let shown = redact_url(&options.url);
            report.ok("bus", format!("{shown}, nats-server {}", bus.server_version().unwrap_or_default()));
            let outcome = stream::stream(report, settings, &bus, log, made, now).await;
            report.part("stream", outcome);
        }
        Err(Failure::Usage(message)) => report.fail("bus", message),
        Err(Failure::Failed(error)) => report.fail("bus", format!("{error:#}")),
        Err(Failure::Found) => {}
    }
}
