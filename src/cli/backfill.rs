//! `convoke backfill`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::terminal::progress_bar;
use super::{Failure, Outcome};
use crate::backfill::{
    self, Backfill, BackfillReport, BackfillRequest, DEFAULT_HISTORY_PERIOD, Enterprises, MAX_HISTORY_PERIOD,
    PUSH_PERIOD, SeenEnterprise, note_name, seen_enterprises,
};
use crate::config::{ConfigArgs, Env, Settings};
use crate::intake::Intake;
use crate::projection::{self, Projector};
use crate::words::counted;
use crate::{app, cursor};
use convoke_core::time::{Clock, Millis};
use convoke_core::zone::WrittenTime;
use convoke_log::Store;
use convoke_log::recent::RecentRows;
use convoke_platform::{Client, PlatformError};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke backfill --since 2026-03-01T00:00:00+08:00 --dry-run")]
pub struct BackfillArguments {
    /// Meetings that began at or after this time, for example 2026-03-01 or "2026-03-01 08:30" (in
    /// reports.time_zone), or 2026-03-01T08:30:00+08:00
    #[arg(long, value_name = "TIME")]
    since: WrittenTime,
    /// Meetings that began at or before this time [default: 24 h 30 min ago, when the platform has stopped pushing them]
    #[arg(long, value_name = "TIME")]
    until: Option<WrittenTime>,
    /// Only report what is missing; write nothing
    #[arg(long)]
    dry_run: bool,
    /// How long the platform keeps its history, if an administrator changed it from six months; at most 366d
    #[arg(long, value_name = "DURATION", default_value = "184d", value_parser = history)]
    history: Duration,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

/// The name of the note that holds the progress.
const NOTE_NAME: &str = "backfill";

fn history(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 184d"))?;
    if duration <= MAX_HISTORY_PERIOD {
        Ok(duration)
    } else {
        Err("the platform keeps it for 12 months at most".to_owned())
    }
}

pub async fn run(arguments: &BackfillArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let options = super::platform_options(&settings)?;
    let clock = Clock::System;
    let range = check_range(arguments, &settings, clock.now())?;
    let client = Client::new(options, clock.clone()).map_err(|error| failed(&error))?;
    let (reports, failures) = super::with_log(&settings, async |log| {
        super::with_token(&client, fill(arguments, &settings, log, client.clone(), clock, range)).await?
    })
    .await?;
    for (corp_id, report) in &reports {
        if arguments.json {
            super::print_json(report)?;
        } else {
            corp_id.iter().for_each(|corp_id| println!("enterprise {corp_id}"));
            println!("{}", report.shown(&settings.reports.time_zone));
        }
    }
    // What one enterprise refuses costs the others nothing.
    let mut failures = failures.into_iter();
    if let Some(first) = failures.next() {
        failures.filter_map(|failure| failure.words()).for_each(|words| eprintln!("convoke: {words}"));
        return Err(first);
    }
    let incomplete: u64 = reports.iter().map(|(_, report)| report.incomplete_lists).sum();
    if incomplete == 0 {
        return Ok(());
    }
    Err(Failure::Failed(anyhow::anyhow!(
        "the platform returned {} (see INCOMPLETE): what is missing in it was not examined. Run the same command \
         again later; it starts there. If it persists, the platform truncates long lists, or counts `offset` in \
         pages instead of records: report the numbers to its support.",
        counted(incomplete, "incomplete list", "incomplete lists")
    )))
}

async fn fill(
    arguments: &BackfillArguments,
    settings: &Settings,
    log: &Arc<dyn Store>,
    client: Client,
    clock: Clock,
    (since, until): (Millis, Option<Millis>),
) -> Result<(Vec<(Option<String>, BackfillReport)>, Vec<Failure>), Failure> {
    let Enterprises { seen, refused } =
        seen_enterprises(&settings.subscriber_ids(), &client).await.map_err(|error| super::not_compared(&error))?;

    let recent = Arc::new(RecentRows::default());
    let (intake, writer) = Intake::new(log.clone(), clock.clone(), Arc::clone(&recent));
    // The tables that the backfill compares with are kept up to date by `serve` if it runs, otherwise from here.
    let tables = Projector::new(log.clone(), app::owner());
    let (stop, migrated) = (CancellationToken::new(), CancellationToken::new());
    migrated.cancel();
    let work = async {
        let mut failures: Vec<Failure> = refused.iter().map(super::not_compared).collect();
        let mut reports = Vec::new();
        for of in seen {
            let corp_id = client.name_of(&of.client);
            let note = note_name(NOTE_NAME, &client, &of.client);
            let request = BackfillRequest { since, until, dry_run: arguments.dry_run, note };
            let SeenEnterprise { client, subscriber_id } = of;
            let (log, intake, clock) = (log.clone(), intake.clone(), clock.clone());
            let backfill = Backfill { log, client, intake, clock, subscriber_id };
            match fill_showing_progress(&backfill, &request, arguments.json).await {
                Ok(report) => reports.push((corp_id, report)),
                Err(failure) => failures.push(failure),
            }
        }
        stop.cancel();
        (reports, failures)
    };
    let (reports, (), ()) = tokio::join!(
        work,
        writer.without_heartbeat().run(migrated, stop.clone()),
        cursor::run(tables, log.clone(), recent, stop.clone())
    );
    Ok(reports)
}

/// The platform and the log must both have data for the range.
fn check_range(
    arguments: &BackfillArguments,
    settings: &Settings,
    now: Millis,
) -> Result<(Millis, Option<Millis>), Failure> {
    let zone = &settings.reports.time_zone;
    let (history, since) = (arguments.history, arguments.since.in_zone(zone));
    let until = arguments.until.map(|until| until.in_zone(zone));
    let (youngest, oldest) = (now.minus(PUSH_PERIOD), now.minus(history));
    let shown = |at| zone.local(at);
    if since < oldest {
        let days = history.as_secs() / 86_400;
        let longer = if history == DEFAULT_HISTORY_PERIOD {
            ", unless its administrator has chosen up to 12 months (then say so by --history)"
        } else {
            ""
        };
        return Err(Failure::Usage(format!(
            "--since {}: the platform keeps its history for {days} days{longer}, and would report no meetings \
             before that: write --since {} or later",
            shown(since),
            shown(oldest)
        )));
    }
    if let Some(retention) = settings.database.retention
        && let Some(kept_since) = settings.kept_since(now)
        && since < kept_since
    {
        return Err(Failure::Usage(format!(
            "--since {}: events are kept for {} days here (database.retention), and older ones would be deleted \
             at once: write --since {} or later",
            shown(since),
            retention.as_secs() / 86_400,
            shown(kept_since)
        )));
    }
    if since > youngest {
        return Err(Failure::Usage(format!(
            "--since {}: the platform may still push events of that time; only meetings older than 24 h 30 min \
             are examined: write --since {} or earlier",
            shown(since),
            shown(youngest)
        )));
    }
    match until {
        Some(until) if until < since => {
            let (since, until) = (shown(since), shown(until));
            Err(Failure::Usage(format!("--until {until} is before --since {since}: change one of them")))
        }
        Some(until) if until > youngest => {
            let (until, youngest) = (shown(until), shown(youngest));
            eprintln!(
                "--until {until}: the platform may still push events after {youngest}, so the backfill ends \
                       there"
            );
            Ok((since, arguments.until.map(|until| until.in_zone(zone))))
        }
        _ => Ok((since, until)),
    }
}

async fn fill_showing_progress(
    backfill: &Backfill,
    request: &BackfillRequest,
    quiet: bool,
) -> Result<BackfillReport, Failure> {
    let log = &*backfill.log;
    backfill::tables_are_current(log, projection::CURSOR).await?;
    let bar = progress_bar(!quiet, "{spinner} {elapsed_precise} {bar:30} {percent} %, {msg} (ETA {eta})");
    let done = backfill
        .run(request, |report, reached| {
            bar.set_length(report.until.since(report.since).as_secs().max(1));
            bar.set_position(reached.since(report.since).as_secs());
            let (runs, stays) = (report.runs, report.stays);
            bar.set_message(format!("{runs} runs, {stays} stays, {} events", report.events()));
        })
        .await;
    bar.finish_and_clear();
    if done.is_ok() && !request.dry_run {
        // Also covers a process that ran the cursor and was killed a moment ago: its lease must expire first.
        backfill::tables_are_current(log, projection::CURSOR).await?;
    }
    done.map_err(|error| {
        let failure = match error {
            backfill::Error::Platform(error) => failed(&error),
            error => anyhow::anyhow!("{:#}.", anyhow::Error::from(error)),
        };
        Failure::Failed(if request.dry_run {
            failure
        } else {
            anyhow::anyhow!("{failure:#} The gaps found until then are filled; run the same command again to continue.")
        })
    })
}

fn failed(error: &PlatformError) -> anyhow::Error {
    anyhow::anyhow!(error.with_advice())
}
