//! Command-line options of all measurements.

use std::collections::BTreeSet;

use clap::Args;

/// The values of `--only`, in the order in which the parts run.
pub const PARTS: [&str; 16] = [
    "bare", "sqlite", "postgres", "bus", "naive", "batched", "floor", "open", "burst", "stream", "backlog", "start",
    "tables", "live", "choices", "attack",
];

/// Run only on request: the reasons for Convoke's constants, and its behaviour under attack, do not say how fast it is.
const ON_REQUEST: [&str; 2] = ["choices", "attack"];

/// Options of every measurement.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Parts to run, separated by commas: bare (the load generator's ceiling), sqlite, postgres, bus (both databases with
    /// JetStream), naive, batched (others' ways), floor (what cannot be avoided), open, burst, stream, backlog, start,
    /// tables (with and without the analyst tables), live (with and without running meetings attended), choices, attack. Default:
    /// all but the last two
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(PARTS))]
    pub only: Vec<String>,

    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 4.0, global = true)]
    pub seconds: f64,

    /// How often everything is measured; the medians are shown
    #[arg(long, default_value_t = 3, global = true)]
    pub rounds: usize,

    /// Connections, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [256, 64])]
    pub connections: Vec<usize>,

    /// Events in the backlog
    #[arg(long, default_value_t = 1_000_000, global = true)]
    pub backlog: u64,

    /// One short round at 256 connections with a small backlog: whether it works, not how fast it is
    #[arg(long, global = true)]
    pub quick: bool,

    /// Rounds in which the host took more of the processors than this, in percent, are measured once more, then dropped
    #[arg(long, default_value_t = 5.0, global = true)]
    pub steal: f64,

    /// Another convoke to measure, such as that of an earlier version
    #[arg(long, global = true)]
    pub convoke: Option<std::path::PathBuf>,

    /// Compare the CPU time of an event with what was recorded on this kind of machine; fail if it is 10 % more. Measures
    /// only that, unless --only names more
    #[arg(long, conflicts_with = "record")]
    pub guard: bool,

    /// Record the CPU time of an event for this kind of machine, in benches/recorded.json
    #[arg(long)]
    pub record: bool,

    /// Passed by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,

    /// Runs one of the servers that are compared with, instead
    #[arg(long, hide = true)]
    pub child: Option<String>,
}

impl Options {
    /// What --quick and --guard mean for the others.
    pub fn settle(&mut self) {
        if (self.guard || self.record) && self.only.is_empty() {
            self.only = ["bare", "sqlite", "postgres", "bus"].map(str::to_owned).to_vec();
            self.connections = vec![256];
        }
        if self.quick {
            self.seconds = self.seconds.min(1.5);
            self.rounds = 1;
            self.connections = vec![256];
            self.backlog = self.backlog.min(50_000);
        }
    }

    pub fn wants(&self, part: &str) -> bool {
        let only: BTreeSet<&str> = self.only.iter().map(String::as_str).collect();
        if only.is_empty() { !ON_REQUEST.contains(&part) } else { only.contains(part) }
    }
}
