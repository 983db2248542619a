//! How the figures scale: rows, replicas, TLS, time.
//!
//! Each part measures two cases alternately, in the same run, and shows them side by side.

mod growth;
mod replicas;
mod steady;
mod tls;

use std::future::Future;
use std::pin::Pin;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::backlog;
use crate::comparison::{Must, Table};
use crate::machine;
use crate::run::{Bench, Case};
use crate::servers::Database;

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

struct Part {
    name: &'static str,
    run: for<'a> fn(&'a mut Bench, &'a Scale, &'a mut Tables) -> Running<'a>,
}

/// The results. Each is printed at once, because the next part may take long.
#[derive(Default)]
struct Tables(Vec<Table>);

impl Tables {
    fn add(&mut self, table: Table) {
        println!("\n{}", table.text());
        self.0.push(table);
    }
}

/// The values of `--only`, in the order in which the parts run.
const PARTS: [Part; 6] = [
    Part { name: "tls", run: |bench, _, tables| Box::pin(tls::run(bench, tables)) },
    Part { name: "replicas", run: |bench, _, tables| Box::pin(replicas::run(bench, tables)) },
    Part { name: "backlog", run: |bench, _, tables| Box::pin(drained(bench, tables)) },
    Part {
        name: "growth-sqlite",
        run: |bench, scale, tables| Box::pin(growth::run(bench, scale, tables, Database::Sqlite)),
    },
    Part {
        name: "growth-postgres",
        run: |bench, scale, tables| Box::pin(growth::run(bench, scale, tables, Database::Postgres)),
    },
    Part { name: "steady", run: |bench, scale, tables| Box::pin(steady::run(bench, scale, tables)) },
];

/// Measure what becomes of the figures with many rows, two replicas, TLS, a backlog, and over time
#[derive(Clone, Debug, Args)]
pub struct Scale {
    /// Parts to run, separated by commas: tls, replicas, backlog, growth-sqlite, growth-postgres, steady. Default: all
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(PARTS.map(|part| part.name)))]
    pub only: Vec<String>,

    /// Rows of the large table
    #[arg(long, default_value_t = 20_000_000)]
    pub rows: u64,

    /// How many days they are spread over
    #[arg(long, default_value_t = 365)]
    pub days: u32,

    /// Length of the steady run, in minutes
    #[arg(long, default_value_t = 30.0)]
    pub minutes: f64,
}

pub async fn run(bench: &mut Bench, scale: &Scale) {
    println!(
        "{}; everything on the same cores; medians of {} rounds, ratios of the same round",
        machine::describe(),
        bench.options.rounds
    );
    let mut tables = Tables::default();
    for part in &PARTS {
        if scale.only.is_empty() || scale.only.iter().any(|only| only == part.name) {
            eprintln!("{}", part.name);
            (part.run)(bench, scale, &mut tables).await;
        }
    }
    let file = crate::servers::disk().parent().expect("within the target folder").join("bench-scale.json");
    std::fs::write(&file, format!("{:#}\n", serde_json::json!(tables.0))).expect("the target folder can be written");
    println!("\nevery measurement: {}", file.display());
}

/// The backlog, as measured by `make bench`.
async fn drained(bench: &mut Bench, tables: &mut Tables) {
    let mut table = Table::new(
        format!("A backlog of {} events after an outage of the bus", bench.options.backlog),
        "bare",
        "drained",
    );
    for case in [Case::SQLITE_BUS, Case::POSTGRES_BUS] {
        eprintln!("  {}", case.name());
        let found = backlog::drain(bench, case).await;
        let name = case.name();
        table.pair(&format!("{name}: messages/s, bare publisher and relay"), Must::Nothing, found.bare, found.drained);
        let with_ingest = format!("{name}: the same with 2,000 events/s coming in");
        table.pair(&with_ingest, Must::AtLeast(0.6), found.bare, found.drained_with_ingest);
        let full = format!("{name}: events/s at full load, without a backlog and with one");
        table.pair(&full, Must::Nothing, found.full_without, found.full_during);
    }
    tables.add(table);
}
