//! `convoke quarantine`.

use std::borrow::Cow;
use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::Subcommand;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::terminal::{can_ask, confirm};
use super::{Failure, Outcome};
use crate::config::{ConfigArgs, Env};
use crate::printable::printable;
use crate::quarantine::{self, PAGE_ROWS, Retried, WhyItStays};
use crate::words::counted;
use convoke_core::verify::{Admit, IMPLAUSIBLE};
use convoke_core::zone::TimeZone;
use convoke_log::{FORGOTTEN, Operations, Quarantined};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke quarantine list\n  convoke quarantine show 12\n  convoke quarantine retry --all"
)]
pub struct QuarantineArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the entries, oldest first
    List {
        /// Print JSON lines
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ConfigArgs,
    },
    /// Show one entry; its body is printed unchanged, except for control characters on a terminal
    Show {
        /// The entry's number
        id: i64,
        #[command(flatten)]
        settings: ConfigArgs,
    },
    /// Try to read entries again, for example after an upgrade; those that can be read are added to the log
    Retry {
        /// The entries' numbers
        #[arg(required_unless_present = "all")]
        ids: Vec<i64>,
        /// All entries
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// How to read an implausible time
        #[arg(long = "as", value_parser = unit(), value_name = "UNIT")]
        unit: Option<Admit>,
        #[command(flatten)]
        settings: ConfigArgs,
    },
    /// Delete entries for ever
    Discard {
        /// The entries' numbers
        #[arg(required = true)]
        ids: Vec<i64>,
        /// Do not ask for confirmation; required if standard input is not a terminal
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        settings: ConfigArgs,
    },
}

/// The words of [`Admit`], and what they mean.
fn unit() -> impl TypedValueParser<Value = Admit> {
    let units = [
        (Admit::Seconds, "The time is in seconds"),
        (Admit::Microseconds, "The time is in microseconds"),
        (Admit::Received, "Ignore the time: use the time of receipt"),
    ];
    let words = units.map(|(unit, meaning)| PossibleValue::new(unit.as_str()).help(meaning));
    PossibleValuesParser::new(words).try_map(Admit::try_from)
}

pub async fn run(arguments: &QuarantineArguments, env: &Env) -> Outcome {
    let (Command::List { settings, .. }
    | Command::Show { settings, .. }
    | Command::Retry { settings, .. }
    | Command::Discard { settings, .. }) = &arguments.command;
    if let Command::Discard { yes, .. } = &arguments.command {
        can_ask(*yes)?;
    }
    let settings = super::settings(settings, env, "warn")?;
    let zone = &settings.reports.time_zone;
    super::with_log(&settings, async |log| match &arguments.command {
        Command::List { json, .. } => list(&**log, zone, *json).await,
        Command::Show { id, .. } => show(&**log, zone, *id).await,
        Command::Retry { ids, all, unit, .. } => retry(&**log, ids, *all, *unit).await,
        Command::Discard { ids, yes, .. } => discard(&**log, ids, *yes).await,
    })
    .await
}

/// Advice for an implausible time.
const ADVICE: &str = "; `convoke quarantine show` prints it; retry with --as seconds, microseconds or received to \
                      say how to read it";

async fn list(log: &dyn Operations, zone: &TimeZone, json: bool) -> Outcome {
    let mut after = 0;
    let mut count = 0_u64;
    loop {
        let page = log.list_quarantined(after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for entry in &page {
            count += 1;
            let received = zone.local(entry.received_at).to_string();
            if count == 1 && !json && std::io::stdout().is_terminal() {
                let width = received.len();
                println!("{:>6}  {:<width$}  {:<10}  why", "id", "received at", "subscriber");
            }
            if json {
                println!(
                    "{}",
                    serde_json::json!({"id": entry.id, "subscriber_id": entry.subscriber_id,
                        "received_at": entry.received_at.to_string(), "deliveries": entry.deliveries,
                        "bytes": entry.body.len(), "reason": entry.reason})
                );
            } else {
                let Quarantined { id, subscriber_id, deliveries, reason, body, .. } = entry;
                let (bytes, subscriber_id, reason) = (body.len(), printable(subscriber_id), printable(reason));
                println!("{id:>6}  {received}  {subscriber_id}  {deliveries} x  {bytes} bytes  {reason}");
            }
        }
    }
    if !json && count == 0 {
        println!("the quarantine is empty");
    }
    Ok(())
}

async fn get(log: &dyn Operations, id: i64) -> Result<Quarantined, Failure> {
    let entry = log.get_quarantined(id).await?;
    Ok(entry.ok_or_else(|| anyhow!("there is no entry {id}"))?)
}

async fn show(log: &dyn Operations, zone: &TimeZone, id: i64) -> Outcome {
    let entry = get(log, id).await?;
    eprintln!("entry        {}", entry.id);
    eprintln!("subscriber   {}", printable(&entry.subscriber_id));
    let deliveries = counted(entry.deliveries.unsigned_abs(), "delivery", "deliveries");
    eprintln!("received at  {}, {deliveries}", zone.local(entry.received_at));
    eprintln!("reason       {}", printable(&entry.reason));
    let body = if std::io::stdout().is_terminal() {
        Cow::Owned(printable(&String::from_utf8_lossy(&entry.body)).into_owned().into_bytes())
    } else {
        Cow::Borrowed(&entry.body[..])
    };
    crate::output::bytes(&body);
    println!();
    Ok(())
}

async fn retry(log: &dyn Operations, ids: &[i64], all: bool, admit: Option<Admit>) -> Outcome {
    let mut failed = 0;
    if all {
        let mut after = 0;
        loop {
            let page = log.list_quarantined(after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for entry in page {
                failed += u64::from(!retry_one(log, entry, admit).await?);
            }
        }
    } else {
        for id in ids {
            failed += u64::from(!retry_one(log, get(log, *id).await?, admit).await?);
        }
    }
    if failed > 0 { Err(Failure::Found) } else { Ok(()) }
}

/// Retries one entry. Returns whether it is in the log now.
async fn retry_one(log: &dyn Operations, entry: Quarantined, admit: Option<Admit>) -> Result<bool, Failure> {
    let id = entry.id;
    match quarantine::retry(log, &entry, admit).await? {
        Retried::Stored => println!("{id}: stored in the log"),
        Retried::Known => println!("{id}: already in the log"),
        Retried::Stays(why) => {
            match why {
                WhyItStays::Forgotten => println!("{id}: stays in the quarantine: {FORGOTTEN}"),
                WhyItStays::Unreadable(reason) => {
                    let advice = if reason == IMPLAUSIBLE { ADVICE } else { "" };
                    println!("{id}: stays in the quarantine: {}{advice}", printable(&reason));
                }
                WhyItStays::Rejected(cause) => println!(
                    "{id}: stays in the quarantine: the database rejects it: \
                                                         {cause}"
                ),
            }
            return Ok(false);
        }
    }
    Ok(true)
}

async fn discard(log: &dyn Operations, ids: &[i64], yes: bool) -> Outcome {
    let entries = if ids.len() == 1 { "this entry" } else { "these entries" };
    let question = format!("delete {entries} of the quarantine? This cannot be undone");
    confirm(yes, &question, "nothing was deleted")?;
    let mut missing = false;
    for id in ids {
        if log.discard_quarantined(*id).await? {
            println!("{id}: deleted");
        } else {
            println!("{id}: no such entry");
            missing = true;
        }
    }
    if missing { Err(Failure::Found) } else { Ok(()) }
}
