//! Everything fails at random, from a seed, while the simulated platform goes on delivering; then everything is compared.
//!
//! A storm is a handful of faults that overlap: processes killed, stopped and started again, networks cut, silent or
//! slow. After each storm everything is whole, and ingest and the relay must move again within [`watch::PROGRESS_TIMEOUT`]; they
//! are watched until the next. In the end the audit has to find nothing, Convoke's own and one that shares no code with
//! it.

mod faults;
mod parts;
mod simulator;
mod verdict;
mod watch;

use std::{
    fmt,
    panic::AssertUnwindSafe,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use parts::Backend;

use faults::{Counts, storm};
use parts::Parts;
use verdict::Verdict;
use watch::{Stalls, Watch};

/// Said this often.
const PROGRESS: Duration = Duration::from_secs(5);

/// The longest rest between two storms.
const LONGEST_REST: u64 = 4_000;

/// What a soak came to.
#[derive(Debug)]
pub struct Summary {
    backend: Backend,
    took: Duration,
    storms: u32,
    faults: Counts,
    stalls: Stalls,
    verdict: Verdict,
}

/// The audits, and a storm that was under way when the time was over, take no longer than this.
const AFTERWARDS: Duration = Duration::from_secs(240);

/// Storms for `time`, on `rate` new events per second, then the audits; `say` gets a line now and then.
///
/// # Errors
/// If anything is not as promised: what it is has been printed, and a folder has the data and the logs of all parts.
pub async fn run(
    backend: Backend,
    rate: f64,
    time: Duration,
    seed: u64,
    say: impl Fn(String),
) -> Result<Summary, PathBuf> {
    let mut parts = Parts::start(backend, rate).await;
    let run = storms_and_audits(&mut parts, time, seed, say);
    match AssertUnwindSafe(tokio::time::timeout(time + AFTERWARDS, run)).catch_unwind().await {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(_)) => eprintln!("no end within {AFTERWARDS:?} after the time"),
        // The panic has said it.
        Err(_) => {}
    }
    let folder = tempfile::Builder::new().prefix("convoke-soak-").tempdir().expect("a folder").keep();
    parts.keep(&folder);
    Err(folder)
}

async fn storms_and_audits(parts: &mut Parts, time: Duration, seed: u64, say: impl Fn(String)) -> Summary {
    let mut dice = StdRng::seed_from_u64(seed);
    let (backend, started) = (parts.backend, Instant::now());
    let mut faults = Counts::default();
    parts.simulator.start(u64::from(dice.random::<u32>())).await;
    let mut watch = Watch::start(parts.simulator.ledger(), parts.nats.client().await);
    let (mut storms, mut said) = (0, Instant::now());
    loop {
        watch.all_is_well(parts).await;
        if started.elapsed() >= time {
            break;
        }
        let rest = Duration::from_millis(dice.random_range(0..LONGEST_REST));
        let simulators = u64::from(dice.random::<u32>());
        let steps = storm(&mut dice, backend);
        watch.rest(parts, rest.min(time.saturating_sub(started.elapsed()))).await;
        if started.elapsed() >= time {
            break;
        }
        storms += 1;
        watch.all_is_not_well();
        let began = Instant::now();
        for step in steps {
            tokio::time::sleep(step.at.saturating_sub(began.elapsed())).await;
            faults.note(&step);
            parts.carry_out(&step).await;
            if said.elapsed() > PROGRESS {
                said = Instant::now();
                let (acknowledged, published) = watch.counts();
                let at = started.elapsed().as_secs();
                say(format!("{at:>4} s  {acknowledged} acknowledged, {published} messages, {faults}"));
            }
        }
        parts.simulator.start_unless_running(simulators).await;
    }
    parts.simulator.come_to_an_end().await;
    let verdict = verdict::judge(parts).await;
    Summary { backend, took: started.elapsed(), storms, faults, stalls: watch.end(), verdict }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { deliveries, stored, acknowledged, messages, requests, caught_up } = &self.verdict;
        let copies = deliveries - stored;
        writeln!(f, "{}: clean", self.backend)?;
        writeln!(f, "  time          {:.0} s, {} storms", self.took.as_secs_f64(), self.storms)?;
        writeln!(f, "  faults        {}", self.faults)?;
        writeln!(f, "  delivered     {requests} requests by simulators that lived to tell")?;
        writeln!(f, "  log           {stored} events, {copies} copies recognised")?;
        writeln!(f, "  acknowledged  {acknowledged} events in the ledger, all of them in the log once")?;
        writeln!(f, "  stream        {messages} messages, their first copies exactly the log, in its order")?;
        writeln!(f, "  caught up     {:.1} s after the last event", caught_up.as_secs_f64())?;
        write!(f, "{}", self.stalls)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_event_that_is_nowhere_is_noticed() {
    use std::io::Write;
    let mut parts = Parts::start(Backend::Sqlite, 50.0).await;
    parts.simulator.start(1).await;
    parts.simulator.come_to_an_end().await;
    let sound = verdict::judge(&parts).await;
    let mut ledger = std::fs::File::options().append(true).open(parts.simulator.ledger()).expect("a ledger");
    writeln!(ledger, r#"{{"event_id":"0178aaaa-aaaa-8aaa-aaaa-aaaaaaaaaaaa"}}"#).expect("our own file");
    let judged = AssertUnwindSafe(verdict::judge(&parts)).catch_unwind().await;
    assert!(judged.is_err(), "{sound:?}, and then {judged:?}");
}
