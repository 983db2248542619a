//! Signals that ask a command to end.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use convoke_platform::Client;

/// SIGINT and SIGTERM. From its creation on, they no longer end the process by themselves.
pub struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Starts listening.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
        })
    }

    /// Waits for the next signal. Returns its name and kind.
    pub async fn next(&mut self) -> (&'static str, SignalKind) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
        }
    }
}

/// The first signal requests a shutdown, the second one forces it.
pub fn end(stop: &CancellationToken, force: &CancellationToken) {
    if stop.is_cancelled() {
        force.cancel();
    } else {
        stop.cancel();
    }
}

/// Runs `work`, and gives the client's token back whatever the outcome, also if a signal ends the process meanwhile.
pub async fn with_token<T>(client: &Client, work: impl Future<Output = T>) -> anyhow::Result<T> {
    let mut signals = EndSignals::listen()?;
    let ended = tokio::select! {
        done = work => Ok(done),
        (_, signal) = signals.next() => Err(signal),
    };
    client.log_out().await;
    ended.map_err(|signal| {
        eprintln!("convoke: interrupted");
        // The status with which a shell reports that a signal ended a process.
        std::process::exit(128 + signal.as_raw_value())
    })
}
