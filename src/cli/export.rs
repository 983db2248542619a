//! `convoke export`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::HumanCount;

use super::signals::EndSignals;
use super::terminal::progress_bar;
use super::{Failure, Outcome};
use crate::config::{ConfigArgs, Env};
use crate::export::{ExportError, ExportProgress, ExportRequest, Format, Style, Table, Target, TargetError, export};
use convoke_core::time::{Clock, Millis};
use convoke_core::zone::{TimeZone, WrittenTime};
use convoke_log::{Reading, Scope};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke export attendance --since 2026-03-01T00:00:00+08:00 --output march.csv --spreadsheet\n  convoke export events --meeting 987446316 --format ndjson"
)]
pub struct ExportArguments {
    /// What to export
    #[arg(value_name = "TABLE")]
    table: Table,
    /// Rows from this time on (inclusive), for example 2026-03-01 or "2026-03-01 08:30" (in
    /// reports.time_zone), or 2026-03-01T08:30:00+08:00
    #[arg(long, value_name = "TIME")]
    since: Option<WrittenTime>,
    /// Rows before this time (exclusive) [default: up to the newest row at the start]
    #[arg(long, value_name = "TIME")]
    until: Option<WrittenTime>,
    /// Only events of this type, for example meeting.join
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Only this meeting, by its number or UUID
    #[arg(long, value_name = "ID")]
    meeting: Option<String>,
    /// Only this subscriber
    #[arg(long, value_name = "APP_ID")]
    subscriber: Option<String>,
    /// Only this person, by the exact user UUID, account, call number, participant ID or display name
    #[arg(long, value_name = "HANDLE")]
    person: Option<String>,
    /// Format of the output [default: from the file name (.csv, .ndjson, .jsonl, .parquet, .xlsx), otherwise csv]
    #[arg(long)]
    format: Option<Format>,
    /// File to write; it appears only once it is complete [default: -, the standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
    /// CSV for spreadsheets: with a UTF-8 mark, and an apostrophe before text that looks like a formula
    #[arg(long)]
    spreadsheet: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &ExportArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let zone = &settings.reports.time_zone;
    let request = request(arguments, zone)?;
    let style = style(arguments, &request, zone)?;
    let target = target(arguments, &style)?;
    super::with_log(&settings, async |log| {
        let file = target.is_file();
        let work = write(&**log, &request, &style, target);
        if !file {
            return work.await;
        }
        // An incomplete file is removed. Writing to standard output is ended by a signal at once.
        let mut signals = EndSignals::listen()?;
        tokio::select! {
            outcome = work => outcome,
            (name, _) = signals.next() => Err(Failure::Failed(anyhow::anyhow!("interrupted by {name}: no file was \
                                                                               written"))),
        }
    })
    .await
}

fn request(arguments: &ExportArguments, zone: &TimeZone) -> Result<ExportRequest, Failure> {
    let ExportArguments { table, since, until, event, meeting, subscriber, person, .. } = arguments;
    if event.is_some() && *table != Table::Events {
        return Err(Failure::Usage(format!(
            "--event: {} have no type; leave it out, or export events",
            table.as_str()
        )));
    }
    let at = |time: &Option<WrittenTime>| time.map(|time| time.in_zone(zone));
    let (since, until) = (at(since), at(until));
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        let (since, until) = (zone.local(since), zone.local(until));
        return Err(Failure::Usage(format!("--since {since} is not before --until {until}: the range is empty")));
    }
    let scope =
        Scope { since, until, subscriber: subscriber.clone(), meeting: meeting.clone(), person: person.clone() };
    Ok(ExportRequest { table: *table, scope, event: event.clone() })
}

fn style(arguments: &ExportArguments, request: &ExportRequest, zone: &TimeZone) -> Result<Style, Failure> {
    let format = match (arguments.format, arguments.output.as_deref()) {
        (Some(format), _) => format,
        (None, Some(output)) => by_name(output)?,
        (None, None) => Format::Csv,
    };
    if arguments.spreadsheet && format != Format::Csv {
        return Err(Failure::Usage("--spreadsheet is for CSV: leave it out, or write --format csv".to_owned()));
    }
    let filters = [
        ("since", request.scope.since.map(|time| time.to_string())),
        ("until", request.scope.until.map(|time| time.to_string())),
        ("event", arguments.event.clone()),
        ("meeting", arguments.meeting.clone()),
        ("subscriber", arguments.subscriber.clone()),
    ];
    let mut about = vec![
        ("convoke.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("convoke.table".to_owned(), arguments.table.as_str().to_owned()),
        ("convoke.exported_at".to_owned(), Clock::System.now().to_string()),
    ];
    about.extend(filters.into_iter().filter_map(|(key, value)| Some((format!("convoke.{key}"), value?))));
    Ok(Style { format, spreadsheet: arguments.spreadsheet, about, zone: zone.clone() })
}

/// The format for a file name's extension; CSV if there is none.
fn by_name(output: &Path) -> Result<Format, Failure> {
    let ending = output.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "csv" | "" => Ok(Format::Csv),
        "ndjson" | "jsonl" => Ok(Format::Ndjson),
        "parquet" => Ok(Format::Parquet),
        "xlsx" => Ok(Format::Xlsx),
        _ => Err(Failure::Usage(format!(
            "--output: .{ending} is not a format that export writes: use .csv, .ndjson, .jsonl, .parquet or .xlsx, or add --format"
        ))),
    }
}

fn target(arguments: &ExportArguments, style: &Style) -> Result<Target, Failure> {
    match arguments.output.as_deref().filter(|output| *output != Path::new("-")) {
        Some(output) => Target::file(output, arguments.force).map_err(|error| match error {
            TargetError::Exists(_) | TargetError::Folder(_) => Failure::Usage(format!("--output: {error}")),
            error => Failure::Failed(error.into()),
        }),
        None if matches!(style.format, Format::Parquet | Format::Xlsx) && io::stdout().is_terminal() => {
            let format = if style.format == Format::Parquet { "Parquet" } else { "a workbook" };
            Err(Failure::Usage(format!(
                "{format} cannot be shown on a terminal: add --output FILE, or pipe it to a program"
            )))
        }
        None => Ok(Target::stdout().context("standard output")?),
    }
}

async fn write(log: &dyn Reading, request: &ExportRequest, style: &Style, target: Target) -> Outcome {
    // Shown on a terminal, unless the rows themselves go there.
    let shown = target.is_file() || !io::stdout().is_terminal();
    let bar = progress_bar(shown, "{bar:30} {percent:>3} %  {msg}  {elapsed}, about {eta} left");
    let clock = Clock::System;
    let begun = clock.steady();
    let show = |progress: &ExportProgress| {
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
    let done = export(log, request, style, target, show).await;
    bar.finish_and_clear();
    let (target, rows) = match done {
        Ok(done) => done,
        // The reader has closed the pipe.
        Err(ExportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(ExportError::Io(error)) => return Err(Failure::Failed(anyhow::Error::from(error).context("writing"))),
        Err(ExportError::Log(error)) => return Err(error.into()),
    };
    let bytes = target.keep().map_err(anyhow::Error::from)?;
    let size = bytesize::ByteSize(bytes).display().si();
    let noun = if rows == 1 { "row" } else { "rows" };
    eprintln!("exported {} {noun} of {}, {size}", HumanCount(rows), request.table.as_str());
    Ok(())
}

fn millis(from: Millis, to: Millis) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
