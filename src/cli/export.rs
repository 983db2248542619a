//! `convoke export`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome};
use crate::config::{ConfigArgs, Env};
use crate::export::{ExportError, ExportProgress, ExportRequest, Format, Style, Table, Target, TargetError, export};
use convoke_core::time::{Clock, Millis};
use convoke_log::{Reading, Scope};

#[derive(Debug, clap::Args)]
pub struct ExportArguments {
    /// What to export
    #[arg(value_name = "TABLE")]
    table: Table,
    /// What happened, began or was finished at this time or later, for example 2026-03-01 or 2026-03-01T08:30:00Z
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    since: Option<Millis>,
    /// What did before this time; left out: up to the newest that is there at the start
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    until: Option<Millis>,
    /// Events of this type, for example meeting.join
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Of the meeting with this number or UUID
    #[arg(long, value_name = "ID")]
    meeting: Option<String>,
    /// Of this subscriber
    #[arg(long, value_name = "APP_ID")]
    subscriber: Option<String>,
    /// Of whom exactly this is the user UUID, account, call number, participant or name
    #[arg(long, value_name = "HANDLE")]
    person: Option<String>,
    /// As what; left out: as the output's name ends (.csv, .ndjson, .jsonl, .parquet), else csv
    #[arg(long)]
    format: Option<Format>,
    /// The file to write, which is there only once it is whole; left out, or -: standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// CSV for a spreadsheet: marked as UTF-8, and a text that would be taken for a formula begins with an apostrophe
    #[arg(long)]
    spreadsheet: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &ExportArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let request = request(arguments)?;
    let style = style(arguments)?;
    let target = target(arguments, &style)?;
    let log = super::open_log(&settings).await?;
    let file = target.is_file();
    let work = write(&*log, &request, &style, target);
    // Nothing is left of a file that did not become whole. Whatever else reads ends this process at once, as ever.
    let outcome = if file {
        tokio::select! {
            outcome = work => outcome,
            name = ended() => Err(Failure::Failed(anyhow::anyhow!("ended by {}: no file was written", name?))),
        }
    } else {
        work.await
    };
    log.close().await;
    outcome
}

/// Waits for a signal that ends the process.
async fn ended() -> anyhow::Result<&'static str> {
    let listen = || Ok::<_, io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    let (mut interrupt, mut terminate) = listen().context("waiting for signals")?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}

fn request(arguments: &ExportArguments) -> Result<ExportRequest, Failure> {
    let ExportArguments { table, since, until, event, meeting, subscriber, person, .. } = arguments;
    if event.is_some() && *table != Table::Events {
        return Err(Failure::Usage(format!(
            "--event: {} have no type; leave it out, or export events",
            table.as_str()
        )));
    }
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        return Err(Failure::Usage(format!(
            "--since {since} is not before --until {until}: nothing could be in between"
        )));
    }
    let scope = Scope {
        since: *since,
        until: *until,
        subscriber: subscriber.clone(),
        meeting: meeting.clone(),
        person: person.clone(),
    };
    Ok(ExportRequest { table: *table, scope, event: event.clone() })
}

fn style(arguments: &ExportArguments) -> Result<Style, Failure> {
    let format = arguments.format.or_else(|| by_name(arguments.output.as_deref()?)).unwrap_or(Format::Csv);
    if arguments.spreadsheet && format != Format::Csv {
        return Err(Failure::Usage("--spreadsheet is for CSV: leave it out, or write --format csv".to_owned()));
    }
    let said = [
        ("since", arguments.since.map(|time| time.to_string())),
        ("until", arguments.until.map(|time| time.to_string())),
        ("event", arguments.event.clone()),
        ("meeting", arguments.meeting.clone()),
        ("subscriber", arguments.subscriber.clone()),
    ];
    let mut about = vec![
        ("convoke.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("convoke.table".to_owned(), arguments.table.as_str().to_owned()),
        ("convoke.exported_at".to_owned(), Clock::System.now().to_string()),
    ];
    about.extend(said.into_iter().filter_map(|(key, value)| Some((format!("convoke.{key}"), value?))));
    Ok(Style { format, spreadsheet: arguments.spreadsheet, about })
}

fn by_name(output: &Path) -> Option<Format> {
    match output.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

fn target(arguments: &ExportArguments, style: &Style) -> Result<Target, Failure> {
    match arguments.output.as_deref().filter(|output| *output != Path::new("-")) {
        Some(output) => Target::file(output, arguments.force).map_err(|error| match error {
            TargetError::Exists(_) | TargetError::Folder(_) => Failure::Usage(format!("--output: {error}")),
            error => Failure::Failed(error.into()),
        }),
        None if style.format == Format::Parquet && io::stdout().is_terminal() => Err(Failure::Usage(
            "Parquet is not for a terminal: write --output FILE, or send it to a program".to_owned(),
        )),
        None => Ok(Target::stdout().context("standard output")?),
    }
}

async fn write(log: &dyn Reading, request: &ExportRequest, style: &Style, target: Target) -> Outcome {
    let bar = bar(target.is_file() || !io::stdout().is_terminal());
    let clock = Clock::System;
    let begun = clock.steady();
    let said = |progress: &ExportProgress| {
        let seconds = clock.steady().saturating_sub(begun).as_secs().max(1);
        bar.set_message(format!(
            "{} rows, {}, {}/s",
            HumanCount(progress.rows),
            bytesize::ByteSize(progress.bytes).display().si(),
            HumanCount(progress.rows / seconds)
        ));
        bar.set_length(millis(progress.first, progress.last).max(1));
        bar.set_position(millis(progress.first, progress.at));
    };
    let done = export(log, request, style, target, said).await;
    bar.finish_and_clear();
    let (target, rows) = match done {
        Ok(done) => done,
        // Whoever read it has read enough.
        Err(ExportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(ExportError::Io(error)) => return Err(Failure::Failed(anyhow::Error::from(error).context("writing"))),
        Err(ExportError::Log(error)) => return Err(error.into()),
    };
    let bytes = target.keep().map_err(anyhow::Error::from)?;
    let size = bytesize::ByteSize(bytes).display().si();
    eprintln!("exported {} rows of {}, {size}", HumanCount(rows), request.table.as_str());
    Ok(())
}

fn millis(from: Millis, to: Millis) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}

/// On a terminal, unless the rows themselves go there.
fn bar(shown: bool) -> ProgressBar {
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed}, about {eta} left") {
        bar.set_style(style);
    }
    bar
}
