//! `convoke live`.

use std::path::PathBuf;

use secrecy::ExposeSecret as _;

use super::{Failure, Outcome};
use crate::config::{self, ConfigArgs, Env};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  convoke live attach 960000017 --password-file host.password\n  convoke live list")]
pub struct LiveArguments {
    #[command(subcommand)]
    action: LiveAction,
}

#[derive(Debug, clap::Subcommand)]
enum LiveAction {
    /// Attend a meeting: now if it is running, or once it begins within a day
    Attach {
        /// The number of the meeting
        #[arg(value_name = "NUMBER")]
        meeting: String,
        /// File with the host's password, in one line, if the platform does not tell it; `-`: the standard input. It is kept in the
        /// database until the meeting is over
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        settings: ConfigArgs,
    },
    /// List the meetings that are wanted, and how it stands with each
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ConfigArgs,
    },
}

pub async fn run(arguments: &LiveArguments, env: &Env) -> Outcome {
    match &arguments.action {
        LiveAction::Attach { meeting, password_file, settings } => {
            let settings = super::settings(settings, env, "warn")?;
            if settings.platform.as_ref().is_none_or(|platform| platform.live.is_none()) {
                return Err(Failure::Usage(
                    "live.enabled is not set: no service attends meetings; write live.enabled = true, and start it again"
                        .to_owned(),
                ));
            }
            if meeting.is_empty() || !meeting.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Failure::Usage(format!(
                    "`{meeting}` is not the number of a meeting: write it in digits alone"
                )));
            }
            let password = password_file.as_deref().map(config::load_meeting_password).transpose()?;
            let password = password.as_ref().map(|password| password.expose_secret());
            super::with_log(&settings, async |log| Ok(log.attach_live(meeting, password).await?)).await?;
            println!("{meeting}: a running service attends it as soon as it is running");
        }
        LiveAction::List { json, settings } => {
            let settings = super::settings(settings, env, "warn")?;
            let all = super::with_log(&settings, async |log| Ok(log.live_standings().await?)).await?;
            if *json {
                super::print_json(&all)?;
            } else if all.is_empty() {
                println!("no meeting is wanted");
            }
            for standing in all.iter().filter(|_| !json) {
                let why = standing.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                println!("{:<12} {}{why}", standing.meeting_id, standing.state.as_str());
            }
        }
    }
    Ok(())
}
