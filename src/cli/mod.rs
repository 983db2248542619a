//! The commands, one file each, and their exit status: 0 success, 1 failure, 2 wrong usage or settings.

mod audit;
mod backfill;
mod check;
mod completeness;
mod completions;
mod config;
mod demo;
mod export;
mod forget;
mod health;
mod init;
mod live;
mod migrate;
mod open;
mod quarantine;
mod rebuild;
mod replay;
mod running;
mod send;
mod serve;
mod signals;
mod simulate;
mod subscription;
mod terminal;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::open::{open_bus, open_bus_if_named, open_log, platform_options, settings, with_log};
use self::signals::with_token;
use self::terminal::print_json;
use crate::backfill::{ComparisonError, NoSubscriber};
use crate::config::{ConfigError, Env};
use crate::telemetry;
use convoke_log::LogError;

/// Receives the event push of Huawei Cloud Meeting, verifies it, stores it in SQL and publishes it to NATS JetStream.
///
/// `convoke demo` shows all of it without any set-up. Exit status: 0 success; 1 failure; 2 wrong usage or settings.
#[derive(Debug, Parser)]
#[command(
    name = "convoke",
    version = crate::VERSION,
    max_term_width = 110,
    after_help = "Help on a command: convoke <COMMAND> --help\n\nExamples:\n  convoke demo\n  convoke init && convoke serve\n  convoke check"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create settings, a key file and a token in a folder, and print the next steps; overwrites nothing
    Init(init::InitArguments),
    /// Run the service: both listeners and the relay
    Serve(serve::ServeArguments),
    /// Show everything on this machine, with a private database and NATS and a simulated platform
    Demo(demo::DemoArguments),
    /// Simulate the platform: send a handshake and the signed events of meetings to any receiver
    Simulate(simulate::SimulateArguments),
    /// Compare log and stream (and a ledger); status 1 if events are missing or duplicated
    Audit(audit::AuditArguments),
    /// Check the signature of one captured request body, offline
    Verify(verify::VerifyArguments),
    /// Publish events of the log again
    Replay(replay::ReplayArguments),
    /// List, show, retry or discard signed bodies that Convoke could not read as events
    Quarantine(quarantine::QuarantineArguments),
    /// Show, set, enable, disable or delete the subscription at the platform
    Subscription(subscription::SubscriptionArguments),
    /// Check settings, service, database, NATS, stream and clock; status 1 if something is wrong
    Check(check::CheckArguments),
    /// Show the effective settings and where they come from, or check them
    Config(config::ConfigArguments),
    /// Send one signed test event, or the handshake, to any URL
    Send(send::SendArguments),
    /// Ask the running service whether it is healthy, for example in a container
    Health(health::HealthArguments),
    /// Find undelivered events in the platform's history, and add them to the log
    Backfill(backfill::BackfillArguments),
    /// Compare the platform's own counts of each day with what was received; status 1 if a day differs
    Completeness(completeness::CompletenessArguments),
    /// Attend a running meeting, whatever the settings say of it; or show how it stands with those that are attended
    Live(live::LiveArguments),
    /// Create or upgrade the database's tables
    Migrate(migrate::MigrateArguments),
    /// Export the log or an analyst table as CSV, NDJSON or Parquet
    Export(export::ExportArguments),
    /// Rebuild the analyst tables from the log
    Rebuild(rebuild::RebuildArguments),
    /// Erase a person, or test data, from log, tables, quarantine and stream
    Forget(forget::ForgetArguments),
    /// Print the completion script for a shell
    Completions(completions::CompletionsArguments),
    /// Write the man pages
    #[command(hide = true)]
    Man(completions::ManArguments),
}

/// The settings flags that a command's help shows: those that it uses. Every command accepts all of them, so that the same flags
/// work for `serve` and for commands next to it.
fn shown_settings(command: &str) -> &'static [&'static str] {
    match command {
        "serve" | "check" | "config" => &[
            "config",
            "listen",
            "admin_listen",
            "path",
            "app_id",
            "app_key_file",
            "database_url",
            "nats_url",
            "log_format",
        ],
        "verify" => &["config", "app_id", "app_key_file"],
        "send" => &["config", "listen", "path", "app_id", "app_key_file"],
        "health" => &["config", "admin_listen"],
        "subscription" => &["config", "app_id", "app_key_file", "database_url", "log_format"],
        "audit" | "replay" | "forget" | "backfill" => &["config", "database_url", "nats_url", "log_format"],
        _ => &["config", "database_url", "log_format"],
    }
}

/// The commands by what they are for, as the help lists them.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Set up and run", &["init", "config", "serve", "check", "health", "completions"]),
    ("Try and test", &["demo", "send", "simulate", "verify"]),
    ("Work with the platform", &["subscription", "backfill", "completeness", "live"]),
    ("Inspect and repair", &["audit", "replay", "quarantine", "rebuild", "migrate"]),
    ("Use and erase data", &["export", "forget"]),
];

/// The help of `convoke` itself, with the commands in groups, which clap has not.
fn help_template(command: &clap::Command) -> String {
    let header = command.get_styles().get_header();
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (title, names) in GROUPS {
        text.push_str(&format!("\n{header}{title}:{header:#}\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            text.push_str(&format!("  {name:<13} {}\n", about.map(ToString::to_string).unwrap_or_default()));
        }
    }
    text + &format!("\n{header}Options:{header:#}\n{{options}}{{after-help}}")
}

/// The argument parser.
fn command() -> clap::Command {
    fn hide(command: clap::Command, shown: &'static [&'static str]) -> clap::Command {
        let settings = |arg: &clap::Arg| arg.get_help_heading() == Some("Settings");
        command
            .mut_args(|arg| {
                let hidden = settings(&arg) && !shown.contains(&arg.get_id().as_str());
                if hidden { arg.hide(true) } else { arg }
            })
            .mut_subcommands(|inner| hide(inner, shown))
    }
    let command = Arguments::command();
    let template = help_template(&command);
    command.help_template(template).mut_subcommands(|command| {
        let shown = shown_settings(command.get_name());
        hide(command, shown)
    })
}

/// How a command fails.
enum Failure {
    /// Wrong usage or settings: status 2.
    Usage(String),
    /// The command failed: status 1.
    Failed(anyhow::Error),
    /// The command succeeded, but it found something wrong: status 1. It has printed its findings itself.
    Found,
}

impl Failure {
    /// What there is to say of it.
    fn words(self) -> Option<String> {
        match self {
            Self::Usage(message) => Some(message),
            Self::Failed(error) => Some(format!("{error:#}")),
            Self::Found => None,
        }
    }
}

/// Settings that turn out to be wrong only when they are used are a usage error too.
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
    let arguments = Arguments::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    let env = Env::from_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::say(&format!("convoke: cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(run(arguments.command, &env));
    // Nothing is worth waiting for: everything that needs an orderly shutdown has had it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let printed = crate::output::finish().map_err(|error| Failure::Failed(anyhow::anyhow!(error)));
    let (status, words) = match outcome.and(printed) {
        Ok(()) => (0, None),
        Err(failure @ Failure::Usage(_)) => (2, failure.words()),
        Err(failure) => (1, failure.words()),
    };
    if let Some(words) = words {
        telemetry::say(&format!("convoke: {words}"));
    }
    telemetry::finish();
    ExitCode::from(status)
}

async fn run(command: Command, env: &Env) -> Outcome {
    match command {
        Command::Init(arguments) => init::run(&arguments, env),
        Command::Serve(arguments) => serve::run(&arguments, env).await,
        Command::Demo(arguments) => demo::run(&arguments, env).await,
        Command::Simulate(arguments) => simulate::run(&arguments, env).await,
        Command::Audit(arguments) => audit::run(&arguments, env).await,
        Command::Verify(arguments) => verify::run(&arguments, env),
        Command::Replay(arguments) => replay::run(&arguments, env).await,
        Command::Quarantine(arguments) => quarantine::run(&arguments, env).await,
        Command::Subscription(arguments) => subscription::run(&arguments, env).await,
        Command::Check(arguments) => check::run(&arguments, env).await,
        Command::Config(arguments) => config::run(&arguments, env),
        Command::Send(arguments) => send::run(&arguments, env).await,
        Command::Health(arguments) => health::run(&arguments, env).await,
        Command::Backfill(arguments) => backfill::run(&arguments, env).await,
        Command::Completeness(arguments) => completeness::run(&arguments, env).await,
        Command::Live(arguments) => live::run(&arguments, env).await,
        Command::Migrate(arguments) => migrate::run(&arguments, env).await,
        Command::Export(arguments) => export::run(&arguments, env).await,
        Command::Rebuild(arguments) => rebuild::run(&arguments, env).await,
        Command::Forget(arguments) => forget::run(&arguments, env).await,
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man(arguments) => completions::man(&arguments),
    }
}

/// What a command says if the platform's lists cannot be compared with the tables.
fn not_compared(error: &ComparisonError) -> Failure {
    match error {
        ComparisonError::OfEnterprise { corp_id, error } => match not_compared(error) {
            Failure::Usage(sentence) => Failure::Usage(format!("enterprise {corp_id}: {sentence}")),
            Failure::Failed(error) => Failure::Failed(anyhow::anyhow!("enterprise {corp_id}: {error:#}")),
            found @ Failure::Found => found,
        },
        ComparisonError::NotAdministrator(sentence) => Failure::Usage((*sentence).to_owned()),
        ComparisonError::Nobody(NoSubscriber::Unknown(sentence)) => Failure::Usage(sentence.clone()),
        error => match error.platform_error() {
            Some(error) => Failure::Failed(anyhow::anyhow!(error.with_advice())),
            None => Failure::Failed(anyhow::anyhow!("{error}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_command_once() {
        let command = command();
        let mut known: Vec<&str> =
            command.get_subcommands().filter(|command| !command.is_hide_set()).map(clap::Command::get_name).collect();
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        known.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, known);
    }
}
