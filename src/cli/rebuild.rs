//! `convoke rebuild`.

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, Outcome};
use crate::app;
use crate::config::{ConfigArgs, Env};
use crate::projection::Projector;

#[derive(Debug, clap::Args)]
pub struct RebuildArguments {
    /// Give up the rows of runs whose events the log no longer has, because they are beyond the retention
    #[arg(long)]
    drop_expired: bool,
    /// Do not ask; needed where standard input is no terminal
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &RebuildArguments, env: &Env) -> Outcome {
    super::confirm::can_ask(arguments.yes)?;
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let log = super::open_log(&settings).await?;
    let expired = log.runs_before_log().await?;
    if expired > 0 && !arguments.drop_expired {
        let advice = "the log cannot tell of them any more. --drop-expired makes the tables without them";
        return Err(Failure::Failed(anyhow!("{expired} runs began before the log's oldest event: {advice}")));
    }
    if !arguments.yes {
        super::confirm::ask(
            "empty the analyst tables, and make them anew from the log? It may take a while",
            "nothing was changed",
        )?;
    }
    let head = log.head().await?;
    let bar = ProgressBar::new(head.0.unsigned_abs());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {elapsed} of about {duration}") {
        bar.set_style(style);
    }
    let tables = Projector::new(log.clone(), app::owner());
    let rebuilt = tables.rebuild(|at| bar.set_position(at.0.unsigned_abs())).await;
    bar.finish_and_clear();
    let counts = match rebuilt {
        Ok(()) => log.table_counts().await,
        Err(error) => {
            log.close().await;
            return Err(Failure::Failed(error.into()));
        }
    };
    log.close().await;
    let [meetings, stays, recordings] = counts?;
    println!("made {meetings} meetings, {stays} stays and {recordings} recordings from the log up to {head}");
    Ok(())
}
