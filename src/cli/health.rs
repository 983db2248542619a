//! `convoke health`.

use super::running;
use super::{Failure, Outcome};
use crate::config::{ConfigArgs, Env, Settings};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example, in a Dockerfile:\n  HEALTHCHECK CMD [\"convoke\", \"health\", \"--live\"]")]
pub struct HealthArguments {
    /// Ask only whether the process answers, not whether it accepts events
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &HealthArguments, env: &Env) -> Outcome {
    let settings = Settings::load(&arguments.settings, env)?;
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let admin = running::reachable(settings.listen.admin);
    match running::get(&settings, path).await {
        Ok(answer) => {
            println!("{}", String::from_utf8_lossy(&answer.body).trim_end());
            if answer.status.is_success() { Ok(()) } else { Err(Failure::Found) }
        }
        Err(reason) => Err(Failure::Failed(anyhow::anyhow!("no answer from {admin}: {reason}"))),
    }
}
