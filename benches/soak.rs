//! `make soak`: random faults for a chosen time. The tests run the same for some seconds.
#![expect(clippy::disallowed_methods, reason = "as in the tests, tasks are spawned and the clock is read")]

#[path = "../tests/it/soak/mod.rs"]
mod soak;
#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use soak::Backend;
use tokio::signal::unix::{SignalKind, signal};

/// Kills, stops and cuts off the service, its databases and its bus at random, under load, and compares what was
/// acknowledged with what is there in the end.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// For how long things go wrong, in seconds; the databases share it, and the audits come on top
    #[arg(long, default_value_t = 240)]
    seconds: u64,

    /// What is left to chance comes from here (default: a new one, which is printed)
    #[arg(long)]
    seed: Option<u64>,

    /// On one database only
    #[arg(long, value_parser = ["sqlite", "postgres"])]
    only: Option<String>,

    /// New events per second
    #[arg(long, default_value_t = 200.0)]
    rate: f64,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let mut terminate = signal(SignalKind::terminate()).expect("a handler");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler");
    // After a signal, everything that was started is still ended and removed by its owner.
    tokio::select! {
        biased;
        _ = terminate.recv() => eprintln!("terminated"),
        _ = interrupt.recv() => eprintln!("interrupted"),
        code = soak(&options) => return code,
    }
    ExitCode::FAILURE
}

async fn soak(options: &Options) -> ExitCode {
    // Short enough to be typed again.
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let backends: Vec<Backend> = match options.only.as_deref() {
        Some("sqlite") => vec![Backend::Sqlite],
        Some(_) => vec![Backend::Postgres],
        None => vec![Backend::Sqlite, Backend::Postgres],
    };
    let time = Duration::from_secs(options.seconds) / u32::try_from(backends.len()).expect("one or two");
    println!("seed {seed}: {} s on each of {} databases, {} events/s", time.as_secs(), backends.len(), options.rate);
    let mut summaries = Vec::new();
    for backend in backends {
        println!("{backend}");
        match soak::run(backend, options.rate, time, seed, |line| println!("{line}")).await {
            Ok(summary) => summaries.push(summary),
            Err(kept) => {
                eprintln!("{backend}: NOT CLEAN; everything is kept in {}", kept.display());
                let only = options.only.as_ref().map(|only| format!(" ARGS=\"--only {only}\"")).unwrap_or_default();
                eprintln!("again: make soak SEED={seed} SECONDS={}{only}", options.seconds);
                return ExitCode::FAILURE;
            }
        }
    }
    for summary in summaries {
        println!("{summary}");
    }
    println!("clean, with seed {seed}");
    ExitCode::SUCCESS
}
