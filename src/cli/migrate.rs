//! `convoke migrate`.

use super::Outcome;
use crate::app;
use crate::config::{ConfigArgs, Env};
use convoke_log::{self as log, DaysKept};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke migrate --config /etc/convoke/convoke.toml")]
pub struct MigrateArguments {
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &MigrateArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let log = log::open(&app::log_options(&settings))?;
    let schema = log.migrate(true).await?;
    let now = log.now().await?;
    log.maintain(now).await?;
    let zone = &settings.reports.time_zone;
    if log.keep_days(zone, now, true).await? == DaysKept::Written {
        eprintln!("the days of the views are those of {} now (reports.time_zone)", zone.name());
    }
    match schema.applied {
        0 => println!("{}: up to date, version {}", log.describe(), schema.version),
        n => println!("{}: applied {n} migrations, now version {}", log.describe(), schema.version),
    }
    log.close().await;
    if let Some(problem) = log::files_of_another(&settings.database.url) {
        eprintln!("convoke: {problem}");
    }
    Ok(())
}
