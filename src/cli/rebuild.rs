//! `convoke rebuild`.

use std::sync::Arc;

use anyhow::anyhow;

use super::terminal::{can_ask, confirm, progress_bar};
use super::{Failure, Outcome};
use crate::app;
use crate::config::{ConfigArgs, Env};
use crate::projection::Projector;
use crate::words::counted;
use convoke_log::Store;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke rebuild")]
pub struct RebuildArguments {
    /// Drop the rows of meeting runs whose events are no longer in the log (beyond database.retention)
    #[arg(long)]
    drop_expired: bool,
    /// Do not ask for confirmation; required if standard input is not a terminal
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &RebuildArguments, env: &Env) -> Outcome {
    can_ask(arguments.yes)?;
    let settings = super::settings(&arguments.settings, env, "warn")?;
    super::with_log(&settings, async |log| rebuild(arguments, log).await).await
}

async fn rebuild(arguments: &RebuildArguments, log: &Arc<dyn Store>) -> Outcome {
    let expired = log.runs_before_log().await?;
    if expired > 0 && !arguments.drop_expired {
        let advice = "the log no longer contains them. --drop-expired rebuilds the tables without them";
        return Err(Failure::Failed(anyhow!("{expired} runs began before the log's oldest event: {advice}")));
    }
    let question = "empty the analyst tables and rebuild them from the log? It may take a while";
    confirm(arguments.yes, question, "nothing was changed")?;
    let head = log.head().await?;
    let bar = progress_bar(true, "{bar:40} {percent:>3} %  {elapsed} of about {duration}");
    bar.set_length(head.0.unsigned_abs());
    let tables = Projector::new(log.clone(), app::owner());
    let rebuilt = tables.rebuild(|at| bar.set_position(at.0.unsigned_abs())).await;
    bar.finish_and_clear();
    rebuilt.map_err(anyhow::Error::from)?;
    let [meetings, stays, recordings] = log.table_counts().await?;
    let meetings = counted(meetings, "meeting", "meetings");
    let (stays, recordings) = (counted(stays, "stay", "stays"), counted(recordings, "recording", "recordings"));
    println!("rebuilt {meetings}, {stays} and {recordings} from the log up to {head}");
    Ok(())
}
