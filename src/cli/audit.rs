//! `convoke audit`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{Failure, Outcome};
use crate::app;
use crate::audit::{self, Comparison, LedgerComparison};
use crate::config::{ConfigArgs, Env, Settings};
use crate::relay;
use crate::words::counted;
use convoke_bus::Bus;
use convoke_core::id::EventId;
use convoke_core::time::{Clock, instant};
use convoke_log::{Operations, Store};

/// How often the relay's position is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  convoke audit\n  convoke audit --ledger ledger.jsonl --json")]
pub struct AuditArguments {
    /// Also compare the log with this ledger of acknowledged events, written by `convoke simulate`
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// How long to wait for the relay to publish all events of the log
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Accept that events were purged from the stream on purpose: do not count them as missing any more
    #[arg(long)]
    accept_purged: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &AuditArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let ledger = match &arguments.ledger {
        None => None,
        Some(path) => Some(BufReader::new(File::open(path).map_err(|error| {
            Failure::Usage(format!("--ledger {}: {error}; name a file that `convoke simulate` wrote", path.display()))
        })?)),
    };
    if ledger.is_none() && app::bus_options(&settings).is_none() {
        return Err(Failure::Usage(
            "nothing compared: nats.url is none, and no --ledger was given; name one of the two".to_owned(),
        ));
    }
    let findings = super::with_log(&settings, async |log| find(arguments, &settings, ledger, &**log).await).await?;
    if arguments.json {
        super::print_json(&findings)?;
    } else {
        findings.print();
    }
    match findings.wrong.is_empty() {
        true if findings.empty_ledger() => {
            Err(Failure::Usage("the ledger has no readable line: nothing was compared with it".to_owned()))
        }
        true => Ok(()),
        false => Err(Failure::Found),
    }
}

async fn find(
    arguments: &AuditArguments,
    settings: &Settings,
    ledger: Option<BufReader<File>>,
    log: &dyn Store,
) -> Result<Findings, Failure> {
    let bus = super::open_bus_if_named(settings).await?;
    let ledger = match ledger {
        None => None,
        Some(file) => {
            // A killed simulator may have cut off its last line anywhere, even within a character.
            let lines = file.split(b'\n').map(|line| line.map(|line| String::from_utf8_lossy(&line).into_owned()));
            let kept_since = settings.kept_since(Clock::System.now()).map(EventId::lower_bound);
            Some(audit::compare_ledger(log, lines, kept_since).await?)
        }
    };
    let stream = match bus {
        None => None,
        Some(bus) => {
            let mut found = compare_stream(log, &bus, arguments.wait).await?;
            if arguments.accept_purged && audit::accept_purged(log, bus.stream(), &found).await?.is_some() {
                found = audit::compare(log, &bus, found.up_to).await?;
            }
            audit::keep(&found, log, &bus).await;
            Some(found)
        }
    };
    Ok(Findings::new(ledger, stream))
}

/// Compares log and stream up to the current end of the log, after waiting at most `wait` for the relay to get there.
pub async fn compare_stream(log: &dyn Operations, bus: &Bus, wait: Duration) -> anyhow::Result<Comparison> {
    let head = log.head().await?;
    let started = instant();
    while relay::position(log).await? < head && started.elapsed() < wait {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    audit::compare(log, bus, head).await
}

/// The findings of an audit.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Whether something was compared, nothing is missing, and nothing is in the log twice.
    pub clean: bool,
    /// What is wrong, with advice.
    wrong: Vec<String>,
    ledger: Option<LedgerComparison>,
    stream: Option<Comparison>,
}

/// Maximum number of items of each kind that are printed; the JSON output has all.
const MAX_NAMED: usize = 20;

impl Findings {
    /// Evaluates the comparisons.
    #[must_use]
    pub fn new(ledger: Option<LedgerComparison>, stream: Option<Comparison>) -> Self {
        let ledgers = ledger.as_ref().and_then(LedgerComparison::verdict);
        let streams = stream.as_ref().and_then(Comparison::verdict);
        let wrong: Vec<String> = ledgers.into_iter().chain(streams).collect();
        let mut findings = Self { clean: false, wrong, ledger, stream };
        findings.clean = findings.wrong.is_empty() && !findings.empty_ledger();
        findings
    }

    /// Whether there is a ledger without any acknowledged event.
    fn empty_ledger(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.acknowledged == 0)
    }

    /// Prints the findings as text.
    pub fn print(&self) {
        if let Some(ledger) = &self.ledger {
            println!(
                "ledger: {} acknowledged, {} of them not in the log, {} in it more than once",
                counted(ledger.acknowledged, "event", "events"),
                ledger.missing.len(),
                ledger.doubled.len()
            );
            print_named("not in the log", ledger.missing.iter());
            print_named("more than once in the log", ledger.doubled.iter());
            print_count("beyond the retention, possibly deleted", ledger.expired);
            print_count("of its lines cannot be read", ledger.unreadable_lines);
            print_count("of its lines are incomplete: the simulator was killed", ledger.cut_lines);
        }
        if let Some(stream) = &self.stream {
            println!(
                "stream: {} of the log expected in it, {} of them missing; {}",
                counted(stream.expected, "event", "events"),
                stream.missing.len(),
                counted(stream.messages, "message", "messages")
            );
            print_named("not in the stream", stream.missing.iter().map(|m| format!("{} (seq {})", m.event_id, m.seq)));
            print_named("in the stream more than once", stream.doubled.iter());
            print_count(
                "of these are older than its oldest message but too recent to have expired: purged",
                stream.purged,
            );
            print_count("of these not published yet", stream.unpublished);
            print_count("copies replayed on purpose", stream.replayed);
            print_count(
                "set aside as too large for NATS: `convoke replay --set-aside` publishes them once max_payload of \
                 NATS is raised",
                stream.set_aside,
            );
            print_count("forgotten", stream.forgotten);
            print_count("of these still in the stream: run `convoke forget` once more", stream.forgotten_there);
            print_count("discarded by the stream's limits, or purged on purpose", stream.before_stream);
            print_count("messages whose event is not in this log", stream.foreign);
        }
        match self.wrong.is_empty() {
            true if self.clean => println!("clean"),
            true => println!("nothing was compared with the ledger"),
            false => println!("NOT clean: {}", self.wrong.join("; ")),
        }
    }
}

fn print_count(what: &str, count: u64) {
    if count > 0 {
        println!("  {count} {what}");
    }
}

fn print_named(what: &str, ids: impl ExactSizeIterator<Item = impl std::fmt::Display>) {
    let count = ids.len();
    for id in ids.take(MAX_NAMED) {
        println!("  {what}: {}", crate::printable::printable(&id.to_string()));
    }
    if count > MAX_NAMED {
        println!("  … and {} more {what}; --json names all", count - MAX_NAMED);
    }
}
