//! `convoke subscription`.

use std::time::Duration;

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;

use super::{Failure, Outcome};
use crate::app;
use crate::config::{ConfigArgs, Env, Settings};
use crate::subscription::Expected;
use crate::subscription::actions::{Actions, Enable, Set};
use crate::subscription::report::{Problem, SubscriptionReport};
use convoke_core::event::Subscriber;
use convoke_core::time::Clock;
use convoke_platform::Client;

/// Works on the subscription at the platform, by its API: needs platform.app_id and platform.app_key_file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke subscription show\n  convoke subscription set\n  convoke subscription enable"
)]
pub struct SubscriptionArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the subscription, and how it differs from the settings
    Show {
        #[command(flatten)]
        common: Common,
    },
    /// Create or change the subscription: push to platform.callback_url, sign with the subscriber's first key
    Set {
        /// The subscriber to use, if several are configured
        #[arg(long, value_name = "ID")]
        subscriber: Option<String>,
        /// Replace a subscription that has another subscriber or URL
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Probe the public URL, ask the platform to enable the subscription, and wait for its handshake
    ///
    /// The platform counts failures, and too many lock the subscription for an hour. Therefore this command first sends a signed
    /// probe to the subscription's URL, and asks the platform only if the probe arrives in this Convoke. `convoke serve` must be
    /// running with the same database.
    Enable {
        /// Ask the platform without a probe, if this machine cannot reach the public URL
        #[arg(long)]
        without_probe: bool,
        /// Ask the platform although it locked the subscription less than an hour ago
        #[arg(long)]
        force: bool,
        /// How long to wait for the platform's handshake to arrive
        #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
        wait: Duration,
        #[command(flatten)]
        common: Common,
    },
    /// Stop the push
    Disable {
        #[command(flatten)]
        common: Common,
    },
    /// Delete the subscription; it must be disabled
    Delete {
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    fn common(&self) -> (&'static str, &Common) {
        match self {
            Self::Show { common } => ("show", common),
            Self::Set { common, .. } => ("set", common),
            Self::Enable { common, .. } => ("enable", common),
            Self::Disable { common } => ("disable", common),
            Self::Delete { common } => ("delete", common),
        }
    }
}

/// The JSON output; every action and outcome has the same members.
#[derive(Serialize)]
struct Json<'a> {
    action: &'static str,
    done: bool,
    #[serde(flatten)]
    report: &'a SubscriptionReport,
    problem: Option<&'a Problem>,
}

pub async fn run(arguments: &SubscriptionArguments, env: &Env) -> Outcome {
    let (action, common) = arguments.command.common();
    let settings = super::settings(&common.settings, env, "warn")?;
    let Some(options) = app::platform_options(&settings) else {
        let problem = "the platform's API is not configured";
        let instead =
            "set platform.app_id and platform.app_key_file (CONVOKE_PLATFORM_APP_ID, CONVOKE_PLATFORM_APP_KEY_FILE)";
        return Err(settings.refuse("platform.app_id", &problem, instead).into());
    };
    let set = match &arguments.command {
        Command::Set { subscriber, replace, .. } => Some(Set {
            subscriber: choose(&settings, subscriber.as_deref())?,
            url: callback_url(&settings)?,
            replace: *replace,
        }),
        _ => None,
    };
    let client = Client::new(options, Clock::System).map_err(anyhow::Error::from)?;
    let enables = matches!(arguments.command, Command::Enable { .. });
    let (log, no_log) = match super::open_log(&settings).await {
        Ok(log) => (Some(log), None),
        Err(Failure::Failed(error)) if !enables => (None, Some(format!("{error:#}"))),
        Err(failure) => return Err(failure),
    };
    let mut actions = Actions {
        client: &client,
        log: log.as_deref().map(|log| log as _),
        expected: Expected::by(&settings),
        subscribers: &settings.subscribers,
        clock: Clock::System,
        zone: settings.reports.time_zone.clone(),
        report: SubscriptionReport::default(),
        say: &mut |line| {
            if !common.json {
                println!("{line}");
            }
        },
    };
    if let Some(error) = no_log {
        actions.warn(format!("cannot read the stored handshakes and locks: {error}"));
    }
    let result = super::with_token(&client, act(&mut actions, &arguments.command, set)).await?;
    let report = actions.report;
    if let Some(log) = log {
        log.close().await;
    }
    if common.json {
        super::print_json(&Json { action, done: result.is_ok(), report: &report, problem: result.as_ref().err() })?;
        return result.map_err(|_| Failure::Found);
    }
    result.map_err(|problem| Failure::Failed(anyhow!(problem.message)))
}

async fn act(actions: &mut Actions<'_>, command: &Command, set: Option<Set<'_>>) -> Result<(), Problem> {
    match (command, set) {
        (_, Some(set)) => actions.set(set).await,
        (Command::Enable { without_probe, force, wait, .. }, None) => {
            actions.enable(Enable { probe: !without_probe, force: *force, wait: *wait }).await
        }
        (Command::Disable { .. }, None) => actions.disable().await,
        (Command::Delete { .. }, None) => actions.delete().await,
        (Command::Show { .. } | Command::Set { .. }, None) => actions.show().await,
    }
}

/// The subscriber for the subscription.
fn choose<'a>(settings: &'a Settings, wanted: Option<&str>) -> Result<&'a Subscriber, Failure> {
    settings.require_subscribers()?;
    let all = &settings.subscribers;
    let names = || all.iter().map(|subscriber| &*subscriber.app_id).collect::<Vec<_>>().join(", ");
    match (&all[..], wanted) {
        (_, Some(id)) => all.iter().find(|subscriber| &*subscriber.app_id == id).ok_or_else(|| {
            Failure::Usage(format!(
                "--subscriber {}: this subscriber is not configured; write one of {}",
                id.escape_debug(),
                names()
            ))
        }),
        ([one], None) => Ok(one),
        _ => Err(Failure::Usage(format!(
            "several subscribers are configured, and the platform accepts one: add --subscriber with one of {}",
            names()
        ))),
    }
}

fn callback_url(settings: &Settings) -> Result<&str, Failure> {
    settings.platform.as_ref().and_then(|platform| platform.callback_url.as_deref()).ok_or_else(|| {
        let instead = "set it to the URL at which the platform reaches this Convoke, as in \
             https://hooks.example.com/openapi/meetingevent";
        settings
            .refuse("platform.callback_url", &"it is not set, and the platform needs the URL to push to", instead)
            .into()
    })
}
