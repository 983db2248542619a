//! Whether ingest and the relay move while nothing is wrong.

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use async_nats::{Client, jetstream};
use tokio::task::JoinHandle;

use super::parts::Parts;
use crate::support::{http, postgres::psql, rig::STREAM};

/// When everything is whole, ingest and the relay may stand still for no longer.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The longest times that something stood still while everything was whole, the first moments after a storm included.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stalls {
    ingest: Duration,
    relay: Duration,
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ingest, relay) = (self.ingest.as_secs_f64(), self.relay.as_secs_f64());
        write!(f, "  stood still   ingest {ingest:.1} s, relay {relay:.1} s at the longest with everything healthy")
    }
}

/// Something that counts up.
#[derive(Debug)]
struct Counter {
    value: u64,
    moved: Instant,
}

impl Counter {
    fn new() -> Self {
        Self { value: 0, moved: Instant::now() }
    }

    fn see(&mut self, value: u64) -> bool {
        let moved = value != self.value;
        if moved {
            *self = Self { value, moved: Instant::now() };
        }
        moved
    }
}

#[derive(Debug)]
struct Seen {
    acknowledged: Counter,
    published: Counter,
    /// How many were acknowledged when something was published last.
    published_of: u64,
    well_since: Option<Instant>,
    stalls: Stalls,
}

impl Seen {
    /// How long ingest and the relay have been standing still.
    fn still(&self) -> Stalls {
        let Some(well) = self.well_since else { return Stalls::default() };
        let since = |counter: &Counter| counter.moved.max(well).elapsed();
        let behind = self.acknowledged.value > self.published_of;
        Stalls {
            ingest: since(&self.acknowledged),
            relay: if behind { since(&self.published) } else { Duration::ZERO },
        }
    }

    /// Whether both have moved since everything is whole.
    fn both_moved(&self) -> bool {
        let moved = |counter: &Counter| self.well_since.is_some_and(|well| counter.moved > well);
        moved(&self.acknowledged) && moved(&self.published)
    }
}

/// A look at ledger and stream, ten times a second.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    pub fn start(ledger: PathBuf, client: Client) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            acknowledged: Counter::new(),
            published: Counter::new(),
            published_of: 0,
            well_since: None,
            stalls: Stalls::default(),
        }));
        let task = tokio::spawn(look(Arc::clone(&seen), ledger, jetstream::new(client)));
        Self { seen, task }
    }

    /// From now on nothing is wrong: waits until both move, and panics if one does not.
    pub async fn all_is_well(&mut self, parts: &mut Parts) {
        self.seen().well_since = Some(Instant::now());
        while !self.seen().both_moved() {
            self.look_on(parts).await;
        }
    }

    /// Looks on for a while; panics if something stands still.
    pub async fn rest(&mut self, parts: &mut Parts, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look_on(parts).await;
        }
    }

    pub fn all_is_not_well(&mut self) {
        self.seen().well_since = None;
    }

    /// Acknowledged events, and messages in the stream.
    pub fn counts(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.acknowledged.value, seen.published.value)
    }

    pub fn end(self) -> Stalls {
        self.seen().stalls
    }

    async fn look_on(&mut self, parts: &mut Parts) {
        tokio::time::sleep(POLL_INTERVAL).await;
        assert!(!self.task.is_finished(), "the watch has ended");
        parts.simulator.assert_running();
        let still = {
            let mut seen = self.seen();
            let still = seen.still();
            seen.stalls.ingest = seen.stalls.ingest.max(still.ingest);
            seen.stalls.relay = seen.stalls.relay.max(still.relay);
            still
        };
        for (what, time) in [("ingest", still.ingest), ("the relay", still.relay)] {
            if time > PROGRESS_TIMEOUT {
                let now = time::OffsetDateTime::now_utc();
                panic!("{what} stands still for {time:?} with everything whole, at {now}\n{}", describe(parts).await);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics with it")
    }
}

async fn look(seen: Arc<Mutex<Seen>>, ledger: PathBuf, jetstream: jetstream::Context) {
    let mut lines = Lines::of(&ledger);
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let acknowledged = lines.count();
        // There is none while the bus is down.
        let stream = tokio::time::timeout(Duration::from_secs(1), jetstream.get_stream(STREAM)).await;
        let mut seen = seen.lock().expect("nobody panics with it");
        seen.acknowledged.see(acknowledged);
        if let Ok(Ok(stream)) = stream
            && seen.published.see(stream.cached_info().state.last_sequence)
        {
            seen.published_of = acknowledged;
        }
    }
}

/// Counts the lines of a file that grows, reading each byte once.
struct Lines {
    file: File,
    count: u64,
}

impl Lines {
    fn of(path: &Path) -> Self {
        Self { file: File::open(path).expect("a ledger"), count: 0 }
    }

    fn count(&mut self) -> u64 {
        let mut fresh = Vec::new();
        self.file.read_to_end(&mut fresh).expect("a ledger");
        self.count += fresh.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.count
    }
}

/// How things stand, for those who have to find out why nothing moves.
async fn describe(parts: &Parts) -> String {
    let mut text = String::new();
    for (number, service) in parts.services.iter().enumerate() {
        for page in ["readyz?verbose", "metrics"] {
            let answer = http::try_get(&format!("http://{}/{page}", service.admin)).await;
            let answer = answer.map_or_else(|error| error.to_string(), |answer| answer.text());
            let telling = answer.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
            let telling: Vec<&str> = telling.filter(|line| !line.contains("_bucket")).collect();
            text += &format!("── service {number}, /{page} ──\n{}\n", telling.join("\n"));
        }
    }
    if let Some(postgres) = &parts.postgres {
        for sql in [
            "SELECT * FROM cursors",
            "SELECT pid, state, wait_event_type, wait_event, now() - xact_start, pg_blocking_pids(pid), left(query, 120)
             FROM pg_stat_activity WHERE backend_type = 'client backend'",
        ] {
            text += &format!("── {sql} ──\n{}\n", psql(&postgres.url(), sql));
        }
    }
    text
}
