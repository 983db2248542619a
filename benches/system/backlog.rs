//! An hour without a bus: the log fills, then the bus returns.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use serde::Serialize;

use crate::floor;
use crate::run::{self, Bench, Case, Setup, messages};
use crate::servers::Database;
use crate::support::postgres::psql;

/// New events per second while the backlog is published.
const INGEST: f64 = 2_000.0;

/// Timeout for publishing the backlog.
const WAIT_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Serialize)]
pub struct Backlog {
    pub events: u64,
    /// Messages per second that JetStream accepts from a program that only publishes.
    pub bare: f64,
    /// Messages per second while only the backlog is published.
    pub drained: f64,
    /// The same while events arrive at a steady rate, including their own messages.
    pub drained_with_ingest: f64,
    /// The part of that rate that was acknowledged in time.
    pub ingest: f64,
    /// The 99th percentile of their latency.
    pub ingest_p99_ms: f64,
    /// Acknowledged events per second with all connections busy, while a backlog is published.
    pub full_during: f64,
    /// The same without a backlog.
    pub full_without: f64,
}

pub async fn drain(bench: &mut Bench, case: Case) -> Backlog {
    let Case::Service { database, .. } = case else { panic!("only Convoke has a backlog") };
    let mut setup = bench.start(Case::Service { database, bus: false }).await;
    let mut events = fill(&mut setup, bench.options.backlog).await;
    setup.server.stop().await;

    open(&mut setup).await;
    let nats = setup.nats.as_ref().expect("just started");
    let bare = floor::publish_to(nats, events / 4).await.rate;
    // The same backlog three times, into an empty stream each time: the cursor is reset in between.
    let drained = {
        let bus = open(&mut setup).await;
        let started = Instant::now();
        setup.server.start().await;
        let connected = wait_first(&bus).await;
        caught_up(&bus, events).await;
        setup.server.stop().await;
        run::count(events) / (started.elapsed().min(connected.elapsed())).as_secs_f64()
    };
    reset(setup.server.database_url(), database).await;
    let (drained_with_ingest, ingest, ingest_p99_ms) = {
        let bus = open(&mut setup).await;
        setup.server.start().await;
        let connected = wait_first(&bus).await;
        let url = setup.server.url();
        let wanted = Duration::from_secs_f64(run::count(events) / drained * 0.8);
        let report = run::load(&url, 64, Some(INGEST), wanted, Duration::ZERO).await;
        let there = messages(&bus).await;
        let rate = run::count(there) / connected.elapsed().as_secs_f64();
        events += report.acknowledged;
        caught_up(&bus, events).await;
        setup.server.stop().await;
        (rate, report.throughput_per_s / INGEST, report.latency.p99_ms)
    };
    reset(setup.server.database_url(), database).await;
    let bus = open(&mut setup).await;
    setup.server.start().await;
    wait_first(&bus).await;
    let seconds = Duration::from_secs_f64(bench.options.seconds);
    let url = setup.server.url();
    let during = run::load(&url, 256, None, seconds, Duration::ZERO).await;
    events += during.acknowledged;
    assert!(messages(&bus).await < events, "the backlog must outlast the measurement");
    caught_up(&bus, events).await;
    let without = run::load(&url, 256, None, seconds, Duration::ZERO).await;
    setup.server.stop().await;
    Backlog {
        events,
        bare,
        drained,
        drained_with_ingest,
        ingest,
        ingest_p99_ms,
        full_during: during.throughput_per_s,
        full_without: without.throughput_per_s,
    }
}

/// Lets the service itself fill its log.
async fn fill(setup: &mut Setup, wanted: u64) -> u64 {
    let mut events = 0;
    while events < wanted {
        let started = Instant::now();
        let report =
            run::load(&setup.server.url(), 64, None, Duration::from_secs(2), Duration::from_secs(30 * 86_400)).await;
        events += report.acknowledged;
        assert!(started.elapsed() < WAIT_TIMEOUT, "the log does not fill");
    }
    events
}

/// Starts a new bus with an empty store, and configures the service to use it.
pub async fn open(setup: &mut Setup) -> jetstream::Context {
    setup.nats = None;
    let nats = crate::servers::nats().await;
    setup.server.set("NATS_URL", nats.url());
    let bus = jetstream::new(nats.client().await);
    setup.nats = Some(nats);
    bus
}

/// Resets the cursor to the start of the log, as an operator can do with SQL while the service is stopped.
pub async fn reset(url: &str, database: Database) {
    let sql = "DELETE FROM cursors WHERE name = 'bus'";
    match database {
        Database::Postgres => drop(psql(url, sql)),
        Database::Sqlite => {
            use sqlx::Connection as _;
            let mut connection = sqlx::SqliteConnection::connect(url).await.expect("the service's database");
            sqlx::query(sql).execute(&mut connection).await.expect("a cursor that nobody holds");
            connection.close().await.expect("a connection that is of no more use");
        }
    }
}

pub async fn wait_first(bus: &jetstream::Context) -> Instant {
    let started = Instant::now();
    while messages(bus).await == 0 {
        assert!(started.elapsed() < WAIT_TIMEOUT, "nothing is published");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

pub async fn caught_up(bus: &jetstream::Context, events: u64) {
    let started = Instant::now();
    while messages(bus).await < events {
        assert!(started.elapsed() < WAIT_TIMEOUT, "the backlog is not published in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
