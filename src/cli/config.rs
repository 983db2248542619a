//! `convoke config`.

use super::Outcome;
use crate::config::{ConfigArgs, Env, REFERENCE, Settings, SettingsSources};
use crate::words::counted;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke config\n  convoke config --check --config /etc/convoke/convoke.toml\n  convoke config --default > convoke.toml"
)]
pub struct ConfigArguments {
    /// Show every setting with its default and its meaning
    #[arg(long, conflicts_with_all = ["effective", "check"])]
    default: bool,
    /// Show every setting with its effective value and where it comes from, without secrets (this is the default)
    #[arg(long, conflicts_with = "check")]
    effective: bool,
    /// Check the settings like `convoke serve` does; status 2 if it would not start
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub fn run(arguments: &ConfigArguments, env: &Env) -> Outcome {
    if arguments.default {
        print!("{REFERENCE}");
        return Ok(());
    }
    let sources = SettingsSources::read(&arguments.settings, env)?;
    if !arguments.check {
        print!("{}", sources.effective()?);
        // Values that are shown may be invalid all the same; then the error is printed too.
        sources.settings()?;
        return Ok(());
    }
    let settings: Settings = sources.settings()?;
    settings.check_serve()?;
    for problem in settings.secret_warnings() {
        println!("warn  {problem}");
    }
    println!(
        "ok    {} can be used, with {}",
        sources.name(),
        counted(settings.subscribers.len() as u64, "subscriber", "subscribers")
    );
    Ok(())
}
