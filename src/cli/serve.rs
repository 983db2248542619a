//! `convoke serve`.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::signals::{self, EndSignals};
use crate::app::App;
use crate::config::{ConfigArgs, Env};

/// The log level of the service. Its libraries only log problems.
const LEVEL: &str = "info,sqlx=warn,sqlx_core::pool=off,hyper=warn,rustls=warn";

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke serve --config /etc/convoke/convoke.toml")]
pub struct ServeArguments {
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &ServeArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, LEVEL)?;
    settings.check_serve()?;
    // Before anything is bound, so that an early signal is not lost.
    let mut signals = EndSignals::listen()?;
    let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP")?;

    tracing::info!(version = crate::VERSION, subscribers = settings.subscribers.len(), "convoke starts");
    for problem in settings.secret_warnings() {
        tracing::warn!("{problem}");
    }
    let app = App::start(&settings).await?;
    // The plain keys are not needed any more.
    drop(settings);
    let reloader = app.reloader();
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let mut running = std::pin::pin!(app.run(stop.clone(), force.clone()));
    loop {
        tokio::select! {
            result = &mut running => return Ok(result?),
            _ = signals.next() => signals::end(&stop, &force),
            _ = hang_up.recv() => reloader.reload(),
        }
    }
}
