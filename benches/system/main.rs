//! How fast Convoke is: the real service, on real databases and a real bus, compared with a baseline in the same run.
//!
//! Absolute figures depend on the machine; only ratios between lines of one run are meaningful. Everything runs on the
//! same processors: the load generator, the service, PostgreSQL and NATS.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, its environment, and spawns its own tasks"
)]

mod attack;
mod backfill;
mod backlog;
mod child;
mod choices;
mod comparison;
mod fill;
mod floor;
mod guard;
mod live;
mod machine;
mod moments;
mod options;
mod page;
mod plain;
mod questions;
mod report;
mod run;
mod scale;
mod servers;
mod statistics;
#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../../tests/it/support/mod.rs"]
mod support;
mod tables;

use clap::{Parser, Subcommand};
use options::Options;
use report::Findings;
use run::{Bench, Case};
use servers::Database;
use tokio::signal::unix::{SignalKind, signal};

/// The rate of the open loop: what a platform with several thousand companies sends on a busy morning.
const OPEN_RATE: f64 = 2_000.0;

/// Measures the whole service, with its databases and its bus as real processes, side by side with a baseline.
#[derive(Debug, Parser)]
#[command(name = "system", about, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
enum Command {
    Backfill(backfill::Backfill),
    Fill(fill::Fill),
    Questions(questions::Questions),
    Page(page::Page),
    Scale(scale::Scale),
}

#[tokio::main]
async fn main() {
    let CommandLine { command, mut options } = CommandLine::parse();
    options.settle();
    if let Some(which) = &options.child {
        return child::run(which).await;
    }
    let mut terminate = signal(SignalKind::terminate()).expect("a handler");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler");
    // After a signal, everything that was started is still ended and removed by its owner.
    tokio::select! {
        () = execute(command, options) => {}
        _ = terminate.recv() => eprintln!("terminated"),
        _ = interrupt.recv() => eprintln!("interrupted"),
    }
}

async fn execute(command: Option<Command>, options: Options) {
    match &command {
        None => run(options).await,
        Some(Command::Scale(parts)) => scale::run(&mut Bench::new(options.clone()), parts).await,
        Some(Command::Backfill(backfill)) => backfill.run().await,
        Some(Command::Page(page)) => page.run(&mut Bench::new(options.clone())).await,
        Some(Command::Fill(fill)) => match fill.run().await {
            Ok(filled) => println!(
                "{} rows in {:.0} s; {:.0} bytes each on the disk, indexes included; the analyst tables in {:.0} s",
                filled.rows,
                filled.seconds,
                filled.bytes_per_row(),
                filled.tables_seconds
            ),
            Err(error) => failed("fill", &error),
        },
        Some(Command::Questions(questions)) => {
            if let Err(error) = questions.run(options.rounds).await {
                failed("questions", &error);
            }
        }
    }
}

fn failed(what: &str, error: &anyhow::Error) -> ! {
    eprintln!("{what}: {error:#}");
    std::process::exit(1)
}

async fn run(options: Options) {
    let mut findings = Findings::new(&options);
    let mut bench = Bench::new(options.clone());
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        throughput(&mut bench, &mut findings).await;
        if options.wants("floor") {
            for (case, database) in [(Case::SQLITE, Database::Sqlite), (Case::POSTGRES, Database::Postgres)] {
                eprintln!("  floor: inserts of {}", case.name());
                let cost = floor::insert(&mut bench, database).await;
                findings.insert(case, cost);
            }
            eprintln!("  floor: a bare publisher");
            findings.publish(floor::publish().await);
        }
        if options.wants("open") {
            for case in [Case::Baseline, Case::SQLITE_BUS, Case::POSTGRES_BUS] {
                eprintln!("  {} at {OPEN_RATE}/s", case.name());
                if let Some(measured) = bench.measure(case, 64, Some(OPEN_RATE)).await {
                    findings.open(case, measured);
                }
            }
        }
        for case in [Case::SQLITE_BUS, Case::POSTGRES_BUS] {
            if options.wants("burst") {
                eprintln!("  {}: a burst", case.name());
                findings.burst(case, moments::burst(&mut bench, case).await);
            }
            if options.wants("stream") {
                eprintln!("  {}: from commit to stream", case.name());
                findings.stream(case, moments::stream(&mut bench, case).await);
            }
        }
    }
    for case in [Case::SQLITE_BUS, Case::POSTGRES_BUS] {
        if options.wants("start") {
            eprintln!("{}: start", case.name());
            findings.start(case, moments::start(&mut bench, case).await);
        }
        if options.wants("backlog") {
            eprintln!("{}: a backlog of {}", case.name(), options.backlog);
            findings.backlog(case, backlog::drain(&mut bench, case).await);
        }
    }
    findings.print();
    let costs = findings.costs();
    if options.record {
        guard::record(&costs);
    }
    if options.guard && !guard::compare(&costs) {
        std::process::exit(1);
    }
    if options.wants("tables") {
        tables::run(&mut bench).await;
    }
    if options.wants("live") {
        live::run(&mut bench).await;
    }
    if options.wants("choices") {
        choices::run(&mut bench).await;
    }
    if options.wants("attack") {
        attack::run(&mut bench).await;
    }
}

/// The closed loop: each connection sends again as soon as it gets a response.
async fn throughput(bench: &mut Bench, findings: &mut Findings) {
    let wants = |part| bench.options.wants(part);
    let mut cases = Vec::new();
    if wants("bare") {
        cases.push(Case::Bare);
    }
    // All other lines are compared with this one.
    if ["bare", "sqlite", "postgres", "bus", "naive", "batched", "floor"].into_iter().any(wants) {
        cases.push(Case::Baseline);
    }
    for (part, case) in [("sqlite", Case::SQLITE), ("postgres", Case::POSTGRES)] {
        if wants(part) {
            cases.push(case);
        }
    }
    if wants("bus") {
        cases.extend([Case::SQLITE_BUS, Case::POSTGRES_BUS]);
    }
    for (part, case) in [("naive", Case::Naive), ("batched", Case::Batched)] {
        if wants(part) {
            cases.push(case);
        }
    }
    for connections in bench.options.connections.clone() {
        let mut baseline = None;
        for &case in &cases {
            eprintln!("  {}, {connections} connections", case.name());
            let Some(measured) = bench.measure(case, connections, None).await else { continue };
            if case == Case::Baseline {
                baseline = Some(measured.rate);
            }
            findings.closed(case, connections, measured, baseline);
        }
    }
}
