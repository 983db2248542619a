//! A long run at half of the path's capacity: memory, lag and latency must not depend on its length.

use std::time::{Duration, Instant};

use async_nats::jetstream;

use super::{Scale, Tables};
use crate::comparison::{Must, Table};
use crate::machine;
use crate::run::{Bench, Case, Setup, count};
use crate::servers::disk;
use crate::statistics::median;

const CONNECTIONS: usize = 64;

/// Length of a load that gives one sample.
const SLICE_TIME: Duration = Duration::from_secs(10);

/// Maximum disk space of one event: log, write-ahead log, and its message.
const EVENT: f64 = 2_200.0;

/// Maximum size of the stream.
const STREAM_BYTES: u64 = 1 << 30;

struct Sample {
    minute: f64,
    p99_ms: f64,
    /// The largest number of acknowledged events that were not in the stream yet.
    lag: f64,
    resident_mb: f64,
    acknowledged: f64,
}

pub(super) async fn run(bench: &mut Bench, scale: &Scale, tables: &mut Tables) {
    let case = Case::POSTGRES_BUS;
    let mut limits = Vec::new();
    for _ in 0..bench.options.rounds {
        limits.extend(bench.measure(case, 256, None).await.map(|measured| measured.rate));
    }
    let rate = (median(&mut limits) / 2.0).round();
    let seconds = scale.minutes * 60.0;
    let free = crate::fill::free_at(disk()).map_or(f64::MAX, count);
    let rate = if rate * seconds * EVENT > free - 4e9 {
        let lower = ((free - 4e9).max(1e9) / seconds / EVENT).round();
        eprintln!("  {rate}/s for {} minutes do not fit on the disk: {lower}/s instead", scale.minutes);
        lower
    } else {
        rate
    };
    eprintln!("  {rate} events/s for {} minutes", scale.minutes);
    let mut setup = bench.start(case).await;
    setup.server.stop().await;
    setup.server.set("NATS_MAX_BYTES", STREAM_BYTES.to_string());
    let bus = crate::backlog::open(&mut setup).await;
    setup.server.start().await;
    let samples = samples(&setup, &bus, rate, Duration::from_secs_f64(seconds)).await;
    setup.server.stop().await;
    tables.add(judge(case, rate, scale.minutes, &samples));
}

async fn samples(setup: &Setup, bus: &jetstream::Context, rate: f64, length: Duration) -> Vec<Sample> {
    let started = Instant::now();
    let mut acknowledged = 0;
    let mut samples = Vec::new();
    while started.elapsed() < length {
        let done = tokio_util::sync::CancellationToken::new();
        let (report, worst) = tokio::join!(
            async {
                let report = setup.load(CONNECTIONS, Some(rate), SLICE_TIME, Duration::ZERO).await;
                done.cancel();
                report
            },
            worst_lag(setup, &done)
        );
        acknowledged += report.acknowledged;
        // In the end everything must be in the stream: a path that loses events is not measured.
        in_stream(bus, acknowledged).await;
        let (resident_mb, _) = machine::memory(setup.server.id());
        samples.push(Sample {
            minute: started.elapsed().as_secs_f64() / 60.0,
            p99_ms: report.latency.p99_ms,
            lag: worst,
            resident_mb,
            acknowledged: count(report.acknowledged) / (rate * SLICE_TIME.as_secs_f64()),
        });
    }
    samples
}

/// The largest lag that the service itself reports, until `done`.
async fn worst_lag(setup: &Setup, done: &tokio_util::sync::CancellationToken) -> f64 {
    let mut worst: f64 = 0.0;
    while !done.is_cancelled() {
        worst = worst.max(setup.server.metric("convoke_cursor_lag_events{cursor=\"bus\"}").await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    worst
}

/// Waits until the stream has received this many messages, even if it no longer holds them.
async fn in_stream(bus: &jetstream::Context, messages: u64) {
    let started = Instant::now();
    loop {
        let last = match bus.get_stream("MEETINGS").await {
            Ok(stream) => stream.cached_info().state.last_sequence,
            Err(_) => 0,
        };
        if last >= messages {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "only {last} of {messages} events came into the stream");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn judge(case: Case, rate: f64, minutes: f64, samples: &[Sample]) -> Table {
    let title = format!("{}, {rate:.0} events/s for {minutes} minutes", case.name());
    let mut table = Table::new(title, "first third", "last third");
    let third = samples.len() / 3;
    let (first, last) = (&samples[..third.max(1)], &samples[samples.len() - third.max(1)..]);
    let mut compare = |what: &str, must: Must, of: fn(&Sample) -> f64| {
        let middle = |samples: &[Sample]| median(&mut samples.iter().map(of).collect::<Vec<_>>());
        table.pair(what, must, middle(first), middle(last));
        (what.to_owned(), slope(samples, of))
    };
    let slopes = [
        compare("resident MB", Must::AtMost(1.1), |it| it.resident_mb),
        compare("lag of the relay at the worst moment, events", Must::AtMost(1.2), |it| it.lag.max(1.0)),
        compare("p99 ms", Must::AtMost(1.2), |it| it.p99_ms),
        compare("acknowledged, of what was due", Must::AtLeast(0.99), |it| it.acknowledged),
    ];
    for (what, slope) in slopes {
        table.note(format!(
            "{what}: {:+.3} an hour, by the straight line through {} samples",
            slope * 60.0,
            samples.len()
        ));
    }
    table
}

/// The slope of the regression line through the samples, per minute.
fn slope(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let n = count(samples.len() as u64);
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|it| it.minute), mean(&of));
    let both: f64 = samples.iter().map(|it| (it.minute - x) * (of(it) - y)).sum();
    let width: f64 = samples.iter().map(|it| (it.minute - x).powi(2)).sum();
    both / width.max(f64::MIN_POSITIVE)
}
