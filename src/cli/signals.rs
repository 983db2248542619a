//! Signals that ask a command to end.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use convoke_platform::Client;

/// SIGINT and SIGTERM, from the moment of its making on: they no longer end the process by themselves.
pub struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Listens for them.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
        })
    }

    /// Waits for the next one; its name and kind.
    pub async fn next(&mut self) -> (&'static str, SignalKind) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
        }
    }
}

/// The first signal asks for an end, the second forces it.
pub fn end(stop: &CancellationToken, force: &CancellationToken) {
    if stop.is_cancelled() {
        force.cancel();
    } else {
        stop.cancel();
    }
}

/// What `work` comes to. The client's token is given back whatever that is, also if the process is asked to end meanwhile.
pub async fn with_token<T>(client: &Client, work: impl Future<Output = T>) -> anyhow::Result<T> {
    let mut signals = EndSignals::listen()?;
    let ended = tokio::select! {
        done = work => Ok(done),
        (_, signal) = signals.next() => Err(signal),
    };
    client.log_out().await;
    ended.map_err(|signal| {
        eprintln!("convoke: told to end before it was done");
        // As a shell says that a signal ended it.
        std::process::exit(128 + signal.as_raw_value())
    })
}
