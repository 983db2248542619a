//! The commands, one file each, and how they end: 0 done, 1 failed while running, 2 wrong usage or settings.

mod audit;
mod backfill;
mod check;
mod demo;
mod export;
mod forget;
mod migrate;
mod open;
mod quarantine;
mod rebuild;
mod replay;
mod serve;
mod signals;
mod simulate;
mod subscription;
mod terminal;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::open::{open_bus, open_bus_if_named, open_log, settings, with_log};
use self::signals::with_token;
use self::terminal::print_json;
use crate::config::{ConfigError, Env};
use crate::telemetry;
use convoke_log::LogError;

/// Receives Huawei Cloud Meeting's event push, verifies it, keeps it in SQL and republishes it onto NATS JetStream.
///
/// `convoke demo` shows all of it without any set-up. Exit status: 0 done; 1 failed while running; 2 wrong usage or
/// settings.
#[derive(Debug, Parser)]
#[command(name = "convoke", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: both listeners and the relay
    Serve(serve::ServeArguments),
    /// Show the main job on this machine, with a private database, bus and platform
    Demo(demo::DemoArguments),
    /// Play the platform against any receiver: a handshake, then signed meetings
    Simulate(convoke_simulator::SimulateArgs),
    /// Compare ledger, log and stream; status 1 if something is missing or doubled
    Audit(audit::AuditArguments),
    /// Check the signature of one captured request body, offline
    Verify(verify::VerifyArguments),
    /// Publish a part of the log again
    Replay(replay::ReplayArguments),
    /// Work on signed bodies of which no event could be made
    Quarantine(quarantine::QuarantineArguments),
    /// Show, set, enable, disable or delete the subscription at the platform
    Subscription(subscription::SubscriptionArguments),
    /// Check settings, database, bus, stream, clock; status 1 if something is wrong
    Check(check::CheckArguments),
    /// Find what the platform dropped in its history, and fill it
    Backfill(backfill::BackfillArguments),
    /// Bring the database's tables up to date
    Migrate(migrate::MigrateArguments),
    /// Write the log or an analyst table as CSV, NDJSON or Parquet, also while the service runs
    Export(export::ExportArguments),
    /// Make the analyst tables anew from the log, also while the service runs
    Rebuild(rebuild::RebuildArguments),
    /// Erase one person: from the log, the tables, the quarantine and the stream; also while the service runs
    Forget(forget::ForgetArguments),
}

/// How a command ends, if not well.
enum Failure {
    /// Wrong usage or settings: status 2.
    Usage(String),
    /// It failed: status 1.
    Failed(anyhow::Error),
    /// It did its work, and what it found is not well: status 1. It has said so itself.
    Found,
}

/// Settings that turn out wrong only when they are used are wrong settings all the same.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<ConfigError>() {
            Ok(error) => error.into(),
            Err(error) => Self::Failed(error),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Url(_) => Self::Usage(error.to_string()),
            error => Self::Failed(error.into()),
        }
    }
}

type Outcome = Result<(), Failure>;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    telemetry::log_panics();
    let arguments = Arguments::parse();
    let env = Env::from_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::say(&format!("convoke: cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(run(arguments.command, &env));
    // Nothing is left to wait for: what needs an orderly end has had it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let printed = crate::output::finish().map_err(|error| Failure::Failed(anyhow::anyhow!(error)));
    let (status, words) = match outcome.and(printed) {
        Ok(()) => (0, None),
        Err(Failure::Found) => (1, None),
        Err(Failure::Failed(error)) => (1, Some(format!("{error:#}"))),
        Err(Failure::Usage(message)) => (2, Some(message)),
    };
    if let Some(words) = words {
        telemetry::say(&format!("convoke: {words}"));
    }
    telemetry::finish();
    ExitCode::from(status)
}

async fn run(command: Command, env: &Env) -> Outcome {
    match command {
        Command::Serve(arguments) => serve::run(&arguments, env).await,
        Command::Demo(arguments) => demo::run(&arguments, env).await,
        Command::Simulate(arguments) => simulate::run(&arguments, env).await,
        Command::Audit(arguments) => audit::run(&arguments, env).await,
        Command::Verify(arguments) => verify::run(&arguments, env),
        Command::Replay(arguments) => replay::run(&arguments, env).await,
        Command::Quarantine(arguments) => quarantine::run(&arguments, env).await,
        Command::Subscription(arguments) => subscription::run(&arguments, env).await,
        Command::Check(arguments) => check::run(&arguments, env).await,
        Command::Backfill(arguments) => backfill::run(&arguments, env).await,
        Command::Migrate(arguments) => migrate::run(&arguments, env).await,
        Command::Export(arguments) => export::run(&arguments, env).await,
        Command::Rebuild(arguments) => rebuild::run(&arguments, env).await,
        Command::Forget(arguments) => forget::run(&arguments, env).await,
    }
}

/// Reads a point in time as people write it.
fn parse_time(text: &str) -> Result<convoke_core::time::Millis, String> {
    convoke_core::time::Millis::read(text)
}
