//! `convoke migrate`.

use super::Outcome;
use crate::app;
use crate::config::{ConfigArgs, Env};
use convoke_log as log;

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
    log.maintain(log.now().await?).await?;
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
