//! `convoke audit`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Failure, Outcome};
use crate::app;
use crate::audit::{self, Comparison, LedgerComparison};
use crate::bus::Bus;
use crate::config::{ConfigArgs, Env};
use crate::event::{Clock, EventId, Seq};
use crate::log::Log;
use crate::relay;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A ledger of acknowledged events, as `convoke simulate` writes it
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// How long to wait for the relay to publish what the log holds now
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &Arguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let ledger = match &arguments.ledger {
        None => None,
        Some(path) => Some(BufReader::new(File::open(path).map_err(|error| {
            Failure::Usage(format!("--ledger {}: {error}; name a file that convoke simulate wrote", path.display()))
        })?)),
    };
    let log = super::open_log(&settings).await?;
    let bus = if app::bus_options(&settings).is_some() { Some(super::open_bus(&settings).await?) } else { None };
    let kept_since =
        settings.database.retention.map(|retention| EventId::lower_bound(Clock::System.now().minus(retention)));
    let ledger = match ledger {
        None => None,
        Some(file) => {
            // A killed simulator may have cut its last line anywhere, within a character too.
            let lines = file.split(b'\n').map(|line| line.map(|line| String::from_utf8_lossy(&line).into_owned()));
            Some(audit::compare_ledger(&*log, lines, kept_since).await?)
        }
    };
    let stream = match bus {
        None => None,
        Some(bus) => Some(compare_stream(&*log, &bus, arguments.wait).await?),
    };
    log.close().await;
    let findings = Findings::new(ledger, stream);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings).map_err(anyhow::Error::from)?);
    } else {
        findings.print();
    }
    if findings.clean { Ok(()) } else { Err(Failure::Found) }
}

/// Compares log and stream, up to where the log ends now, once the relay got there.
pub async fn compare_stream(log: &dyn Log, bus: &Bus, wait: Duration) -> anyhow::Result<Comparison> {
    let head = log.head().await?;
    let started = Instant::now();
    while position(log).await? < head && started.elapsed() < wait {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    audit::compare(log, bus, head).await
}

async fn position(log: &dyn Log) -> anyhow::Result<Seq> {
    let cursors = log.cursors().await?;
    Ok(cursors.iter().find(|cursor| cursor.name == relay::CURSOR).map_or(Seq::START, |cursor| cursor.position))
}

/// What an audit found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Whether nothing is missing and nothing is in the log twice.
    pub clean: bool,
    ledger: Option<LedgerComparison>,
    stream: Option<Stream>,
}

#[derive(Debug, Serialize)]
struct Stream {
    expected: u64,
    messages: u64,
    missing: Vec<MissingEvent>,
    purged: u64,
    doubled: Vec<String>,
    replayed: u64,
    set_aside: u64,
    forgotten: u64,
    forgotten_there: u64,
    before_stream: u64,
    foreign: u64,
}

#[derive(Debug, Serialize)]
struct MissingEvent {
    seq: i64,
    event_id: String,
}

/// So many of a kind are named to people; JSON has all.
const NAMED: usize = 20;

impl Findings {
    /// Judges what was found.
    #[must_use]
    pub fn new(ledger: Option<LedgerComparison>, stream: Option<Comparison>) -> Self {
        let clean = ledger.as_ref().is_none_or(|ledger| ledger.missing.is_empty() && ledger.doubled.is_empty())
            && stream.as_ref().is_none_or(|stream| stream.missing.is_empty());
        let stream = stream.map(|found| Stream {
            expected: found.expected,
            messages: found.messages,
            missing: found
                .missing
                .iter()
                .map(|missing| MissingEvent { seq: missing.seq.0, event_id: missing.event_id.to_string() })
                .collect(),
            purged: found.purged.len() as u64,
            doubled: found.doubled.iter().map(ToString::to_string).collect(),
            replayed: found.replayed,
            set_aside: found.set_aside,
            forgotten: found.forgotten,
            forgotten_there: found.forgotten_there,
            before_stream: found.before_stream,
            foreign: found.foreign,
        });
        Self { clean, ledger, stream }
    }

    /// Says it to people.
    pub fn print(&self) {
        if let Some(ledger) = &self.ledger {
            println!(
                "ledger: {} events acknowledged, {} of them not in the log, {} in it more than once",
                ledger.acknowledged,
                ledger.missing.len(),
                ledger.doubled.len()
            );
            name("not in the log", ledger.missing.iter());
            name("more than once in the log", ledger.doubled.iter());
            note("beyond the retention, perhaps dropped", ledger.expired);
            note("unreadable lines", ledger.unreadable_lines);
        }
        if let Some(stream) = &self.stream {
            println!(
                "stream: {} events of the log expected in it, {} of them missing; {} messages",
                stream.expected,
                stream.missing.len(),
                stream.messages
            );
            name("not in the stream", stream.missing.iter().map(|m| format!("{} (seq {})", m.event_id, m.seq)));
            name("in the stream more than once", stream.doubled.iter());
            note("copies replayed on purpose", stream.replayed);
            note("set aside as too large for the bus", stream.set_aside);
            note("forgotten", stream.forgotten);
            note("of these still in the stream: run `convoke forget` once more", stream.forgotten_there);
            note("older than the stream's oldest message", stream.before_stream);
            note("of these too young to have been discarded: the stream was purged of them", stream.purged);
            note("messages that are of no event of this log", stream.foreign);
            if !stream.missing.is_empty() || stream.purged > 0 {
                println!("`convoke replay --missing` publishes what is missing");
            }
        }
        println!("{}", if self.clean { "clean" } else { "NOT CLEAN" });
    }
}

fn note(what: &str, count: u64) {
    if count > 0 {
        println!("  {count} {what}");
    }
}

fn name(what: &str, ids: impl ExactSizeIterator<Item = impl std::fmt::Display>) {
    let count = ids.len();
    for id in ids.take(NAMED) {
        println!("  {what}: {id}");
    }
    if count > NAMED {
        println!("  … and {} more {what}; --json names all", count - NAMED);
    }
}
