//! The rate of good events during an attack, relative to the rate without an attack in the same round.
//!
//! The attackers run on the same processors, in this process: their own cost is part of the loss.

use std::time::Duration;

use convoke_core::time::Clock;
use convoke_simulator::{Report, Simulation};
use rustix::process::{Resource, getrlimit};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::OPEN_RATE;
use crate::run::{self, Bench, Case};
use crate::servers::{APP_ID, KEY, PATH};
use crate::statistics::median;
use crate::support::attack::{Attack, Kind, Target, many_files};

/// Connections of the platform.
const CONNECTIONS: usize = 64;

/// Number of attackers for an attack that needs more of them than the connection table holds, and for one that
/// keeps the processors busy.
const MANY: usize = 10_000;
const FEW: usize = 64;

/// How long the attack runs before the measurement starts.
const HEAD_START: Duration = Duration::from_secs(3);

/// An attack, and how good events fared.
#[derive(Default)]
struct Line {
    rates: Vec<f64>,
    ratios: Vec<f64>,
    shares: Vec<f64>,
    p99_ms: Vec<f64>,
    blows: Vec<f64>,
    peak_mb: Vec<f64>,
}

/// Measures and prints all attacks.
pub async fn run(bench: &mut Bench) {
    many_files();
    let kinds: Vec<Option<Kind>> = std::iter::once(None).chain(Kind::ALL.map(Some)).collect();
    let mut lines: Vec<Line> = kinds.iter().map(|_| Line::default()).collect();
    for round in 1..=bench.options.rounds {
        let mut alone = f64::NAN;
        for (kind, line) in kinds.iter().zip(&mut lines) {
            eprintln!("  round {round}, attack: {}", name(*kind));
            let rate = measure(bench, *kind, line).await;
            if kind.is_none() {
                alone = rate;
            }
            line.ratios.push(rate / alone);
        }
    }
    println!(
        "\n| attack | good events/s, closed loop | ratio to none | at {OPEN_RATE}/s: acknowledged within 3 s | p99 ms | \
         attack/s | MB at most |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    for (kind, line) in kinds.iter().zip(&mut lines) {
        println!(
            "| {} | {:.0} | {:.2} | {:.2} % | {:.1} | {:.0} | {:.0} |",
            name(*kind),
            median(&mut line.rates),
            median(&mut line.ratios),
            median(&mut line.shares) * 100.0,
            median(&mut line.p99_ms),
            median(&mut line.blows),
            median(&mut line.peak_mb),
        );
    }
}

fn name(kind: Option<Kind>) -> String {
    let Some(kind) = kind else { return "none".to_owned() };
    let what = match kind {
        Kind::Idle => "idle connections, opened again when closed",
        Kind::Churn => "connections opened and closed",
        Kind::SlowHeads => "slow heads",
        Kind::SlowBodies => "slow bodies of 200 kB",
        Kind::SlowReading => "answers not read",
        Kind::Forgeries => "forged signatures",
        Kind::HugeBodies => "bodies of 8 MiB",
        Kind::Cancelled => "HTTP/2 requests, cancelled at once",
    };
    format!("{} x {what}", many(kind))
}

/// Limits the number of attackers to the open files that this process may have.
fn many(kind: Kind) -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    if kind.is_of_many() { files.map_or(MANY, |files| MANY.min(files / 2)) } else { FEW }
}

/// Measures one attack; returns the rate of the closed loop.
async fn measure(bench: &mut Bench, kind: Option<Kind>, line: &mut Line) -> f64 {
    let seconds = bench.options.seconds;
    let mut setup = bench.start(Case::SQLITE).await;
    let url = setup.server.url();
    let day = Duration::from_secs(24 * 60 * 60);
    run::load(&url, CONNECTIONS, None, Duration::from_secs(1), day).await;
    let target = Target { events: setup.server.events(), path: PATH, app_id: APP_ID };
    let attack = kind.map(|kind| Attack::start(kind, target, many(kind)));
    tokio::time::sleep(if attack.is_some() { HEAD_START } else { Duration::ZERO }).await;
    let before = attack.as_ref().map_or(0, Attack::blows);
    let closed = good(&url, None, seconds).await;
    let blows = attack.as_ref().map_or(0, Attack::blows) - before;
    let open = good(&url, Some(OPEN_RATE), seconds).await;
    drop(attack);
    line.peak_mb.push(crate::machine::memory(setup.server.id()).1);
    setup.server.stop().await;
    line.rates.push(closed.throughput_per_s);
    line.shares.push(run::count(open.acknowledged) / run::count(open.sent + open.behind));
    line.p99_ms.push(open.latency.p99_ms);
    line.blows.push(run::count(blows) / closed.elapsed_s);
    closed.throughput_per_s
}

/// The platform's deliveries. One that is not acknowledged within 3 s counts as failed.
async fn good(url: &str, rate: Option<f64>, seconds: f64) -> Report {
    let simulation = Simulation {
        connections: CONNECTIONS,
        rate,
        duration: Some(Duration::from_secs_f64(seconds)),
        seed: rand::random(),
        base: Some(Clock::System.now()),
        handshake: false,
        settle: Some(Duration::ZERO),
        timeout: Duration::from_secs(3),
        ..Simulation::new(url, APP_ID, SecretString::from(KEY))
    };
    simulation.run(CancellationToken::new()).await.expect("a run of the load")
}
