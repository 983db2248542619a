//! The cost of the analyst tables: the same load with and without the cursor that maintains them, alternately.
//!
//! Without: this program holds the cursor's lease meanwhile, as another replica would, and does nothing with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke::projection::CURSOR;
use convoke_core::time::Clock;
use convoke_log::{self as log, Store};

use crate::run::{Bench, Case, Measured, Setup};
use crate::statistics::median;

/// Lifetime of the lease, and interval between renewals.
const HELD: Duration = Duration::from_secs(9);
const RENEW: Duration = Duration::from_secs(3);

/// How often the progress of the tables is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Time limit for completing the tables after the load.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The guarantee: the tables are at most this old.
const FRESH_S: f64 = 2.0;

/// One round on one database.
struct Round {
    without: Measured,
    with: Measured,
    /// The age of the oldest row that was not in the tables at the worst moment, and the time after the
    /// load until all rows were.
    worst_s: f64,
    complete_s: f64,
}

/// Measures and prints it for both databases.
pub async fn run(bench: &mut Bench) {
    println!(
        "\n| analyst tables, closed loop | connections | events/s without / with | CPU s per 1000 events without / with | \
         the tables' to ingest's | must | oldest row not in them, at worst s | all in them after s | MB at most without / with | must |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for case in [Case::SQLITE, Case::POSTGRES] {
        for connections in bench.options.connections.clone() {
            let mut rounds = Vec::new();
            for round in 1..=bench.options.rounds {
                eprintln!("  round {round}, the tables of {}, {connections} connections", case.name());
                rounds.extend(measure(bench, case, connections).await);
            }
            print(case, connections, &rounds);
        }
    }
}

fn print(case: Case, connections: usize, rounds: &[Round]) {
    let of = |of: &dyn Fn(&Round) -> f64| median(&mut rounds.iter().map(of).collect::<Vec<_>>());
    let ratio = of(&|round| round.with.cpu.whole() / round.without.cpu.whole() - 1.0);
    let worst = of(&|round| round.worst_s);
    let (peak, limit) = (of(&|round| round.with.peak_mb), if case == Case::SQLITE { 128.0 } else { 64.0 });
    let mark = |good| if good { "PASS" } else { "MISS" };
    println!(
        "| {} | {connections} | {:.0} / {:.0} | {:.4} / {:.4} | {ratio:.2} | < 0.33 {} | {worst:.2} {} | {:.2} | {:.0} / {peak:.0} | ≤ {limit:.0} {} |",
        case.name(),
        of(&|round| round.without.rate),
        of(&|round| round.with.rate),
        of(&|round| round.without.cpu.whole()) / 1e3,
        of(&|round| round.with.cpu.whole()) / 1e3,
        mark(ratio < 1.0 / 3.0),
        mark(worst <= FRESH_S),
        of(&|round| round.complete_s),
        of(&|round| round.without.peak_mb),
        mark(peak <= limit),
    );
}

/// One round; `None` if the host stole too much CPU time.
async fn measure(bench: &mut Bench, case: Case, connections: usize) -> Option<Round> {
    let seconds = bench.options.seconds;
    let (mut setup, log) = start(bench, case, true).await;
    let (without, _) = watched(&mut setup, &log, true, connections, seconds).await;
    setup.server.stop().await;
    let (mut setup, log) = start(bench, case, false).await;
    let (with, worst_s) = watched(&mut setup, &log, false, connections, seconds).await;
    let ended = Instant::now();
    while log.lag(CURSOR).await.expect("a lag").events > 0 {
        assert!(ended.elapsed() < WAIT_TIMEOUT, "the tables do not become complete");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let complete_s = ended.elapsed().as_secs_f64();
    setup.server.stop().await;
    let stolen = without.stolen.max(with.stolen);
    if stolen > bench.options.steal {
        eprintln!("  the host took {stolen:.0} % of the processors");
        return None;
    }
    Some(Round { without, with, worst_s, complete_s })
}

/// Starts the service on a new database. If `held`, the lease is taken first.
async fn start(bench: &mut Bench, case: Case, held: bool) -> (Setup, Arc<dyn Store>) {
    let mut setup = bench.start(case).await;
    setup.server.stop().await;
    let url = setup.server.database_url().to_owned();
    let log = log::open(&log::Options { url, ..log::Options::default() }).expect("a sound URL");
    log.migrate(false).await.expect("the service has made it");
    if held {
        hold(&log).await;
    }
    setup.server.start().await;
    (setup, log)
}

async fn hold(log: &Arc<dyn Store>) {
    let leased = log.lease(CURSOR, "benchmark", HELD).await.expect("the database");
    assert!(leased.is_some(), "the service has the lease");
}

/// Measures, and observes the age of the oldest row that is not in the tables.
async fn watched(
    setup: &mut Setup,
    log: &Arc<dyn Store>,
    held: bool,
    connections: usize,
    seconds: f64,
) -> (Measured, f64) {
    let mut worst = 0.0_f64;
    let mut renewed = Instant::now();
    let watch = async {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            if held && renewed.elapsed() >= RENEW {
                renewed = Instant::now();
                hold(log).await;
            }
            if let Some(oldest) = log.lag(CURSOR).await.expect("a lag").oldest {
                worst = worst.max(Clock::System.now().since(oldest).as_secs_f64());
            }
        }
    };
    let measured = tokio::select! {
        measured = setup.measure(connections, None, seconds) => measured,
        () = watch => unreachable!("it looks for ever"),
    };
    (measured, worst)
}
