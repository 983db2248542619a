//! What a run ends with.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

/// What the platform takes for a failure: anything but exactly 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Connect,
    Broken,
    Malformed,
    Timeout,
    Status(u16),
}

/// The longest time that the histogram knows, in microseconds: a day.
const MAX_LATENCY_MICROS: u64 = 24 * 60 * 60 * 1_000_000;

/// How a run went. Serialised, the names are as here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What the run can be repeated with, together with `base`.
    pub seed: u64,
    /// When the simulated world began, RFC 3339.
    pub base: String,
    /// Events that happened in the simulated world.
    pub events: u64,
    /// Events that the platform lost on purpose, and never sent.
    pub dropped: u64,
    /// Events that were due at the given rate but not sent before the given duration was over, because all connections were
    /// waiting for answers. The latencies do not contain them.
    pub behind: u64,
    /// Events that were sent at least once.
    pub sent: u64,
    /// Events that were acknowledged with 200, each counted once.
    pub acknowledged: u64,
    /// Deliveries, that is requests, retries and copies included; without the handshake.
    pub deliveries: u64,
    /// Deliveries that were retries.
    pub retried: u64,
    /// Deliveries that were extra copies.
    pub duplicates: u64,
    /// Events that were given up after a (scaled) day of retries.
    pub given_up: u64,
    /// Events that were neither acknowledged nor given up when the run ended.
    pub unsettled: u64,
    /// Failed deliveries by kind: `connect`, `broken`, `malformed`, `timeout`, `status_503` …
    pub failures: BTreeMap<String, u64>,
    /// How long it took, in seconds, waiting for retries included.
    pub elapsed_s: f64,
    /// Events acknowledged per second, until the last event was delivered for the first time.
    pub throughput_per_s: f64,
    /// From when an acknowledged delivery should have been sent to when its answer was complete.
    pub latency: Latency,
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// The worst.
    pub max_ms: f64,
}

/// The text for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "events        {} ({} dropped on purpose)", self.events, self.dropped)?;
        writeln!(f, "sent          {} in {} deliveries", self.sent, self.deliveries)?;
        writeln!(f, "acknowledged  {}", self.acknowledged)?;
        writeln!(f, "duplicates    {}", self.duplicates)?;
        writeln!(f, "retried       {}", self.retried)?;
        writeln!(f, "given up      {}", self.given_up)?;
        if self.behind > 0 {
            writeln!(f, "behind        {} (due at this rate, but no connection was free)", self.behind)?;
        }
        if self.unsettled > 0 {
            writeln!(f, "unsettled     {} (still waiting for a retry when the run ended)", self.unsettled)?;
        }
        if !self.failures.is_empty() {
            let kinds: Vec<_> = self.failures.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            writeln!(f, "failures      {}", kinds.join(", "))?;
        }
        writeln!(f, "throughput    {:.0} events/s, {:.2} s in all", self.throughput_per_s, self.elapsed_s)?;
        let Latency { p50_ms, p99_ms, p999_ms, max_ms } = self.latency;
        write!(f, "latency       p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, p99.9 {p999_ms:.2} ms, max {max_ms:.2} ms")
    }
}

/// Counts while a run goes on.
pub(super) struct Tally {
    started: Instant,
    pub sent: u64,
    pub acknowledged: u64,
    pub deliveries: u64,
    pub retried: u64,
    pub duplicates: u64,
    pub given_up: u64,
    failures: BTreeMap<Failure, u64>,
    /// `None` only if its fixed bounds were refused.
    latency: Option<Histogram<u64>>,
    /// When the last first delivery was answered, and how many events were acknowledged by then.
    plateau: (Instant, u64),
}

impl Tally {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            sent: 0,
            acknowledged: 0,
            deliveries: 0,
            retried: 0,
            duplicates: 0,
            given_up: 0,
            failures: BTreeMap::new(),
            latency: Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3).ok(),
            plateau: (started, 0),
        }
    }

    pub(super) fn acknowledged(&mut self, first: bool, after: Duration) {
        self.acknowledged += u64::from(first);
        if let Some(latency) = &mut self.latency {
            latency.saturating_record(u64::try_from(after.as_micros()).unwrap_or(MAX_LATENCY_MICROS));
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    pub(super) fn first_deliveries_until(&mut self, now: Instant) {
        self.plateau = (now, self.acknowledged);
    }

    /// The report at `now`.
    #[expect(clippy::cast_precision_loss, reason = "for people and ratios")]
    pub(super) fn report(
        &self,
        now: Instant,
        (seed, base): (u64, String),
        (events, dropped): (u64, u64),
        (behind, unsettled): (u64, u64),
    ) -> Report {
        let (until, acknowledged) = self.plateau;
        let sending = until.saturating_duration_since(self.started).as_secs_f64();
        let at = |quantile| self.latency.as_ref().map_or(0, |it| it.value_at_quantile(quantile)) as f64 / 1_000.0;
        Report {
            seed,
            base,
            events,
            dropped,
            behind,
            sent: self.sent,
            acknowledged: self.acknowledged,
            deliveries: self.deliveries,
            retried: self.retried,
            duplicates: self.duplicates,
            given_up: self.given_up,
            unsettled,
            failures: self.failures.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
            elapsed_s: now.saturating_duration_since(self.started).as_secs_f64(),
            throughput_per_s: if sending > 0.0 { acknowledged as f64 / sending } else { 0.0 },
            latency: Latency { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), max_ms: at(1.0) },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Broken => f.write_str("broken"),
            Self::Malformed => f.write_str("malformed"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => write!(f, "status_{status}"),
        }
    }
}
