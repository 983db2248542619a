//! One measurement: servers, load and cost.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use convoke_core::time::Clock;
use convoke_simulator::{Report, Simulation};
use secrecy::SecretString;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::machine::{self, Processors};
use crate::options::Options;
use crate::servers::{self, APP_ID, Database, KEY, Server};
use crate::support::nats::NatsServer;
use crate::support::postgres::Postgres;

/// People in each simulated meeting: most events are joins and leaves, which have the largest bodies.
pub const ATTENDEES: usize = 50;

/// Length of the same load before each measurement, to prepare statements and allocate memory.
const WARM_UP: Duration = Duration::from_millis(1_000);

/// Time limit for the relay to publish the rest of the log after the load; then the measurement fails.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// L0.
    Bare,
    /// L1.
    Baseline,
    /// Convoke; `bus`: with JetStream.
    Service { database: Database, bus: bool },
    /// An insert and a publish per request.
    Naive,
    /// An insert and publishes for all that gathered.
    Batched,
}

impl Case {
    pub const SQLITE: Self = Self::Service { database: Database::Sqlite, bus: false };
    pub const SQLITE_BUS: Self = Self::Service { database: Database::Sqlite, bus: true };
    pub const POSTGRES: Self = Self::Service { database: Database::Postgres, bus: false };
    pub const POSTGRES_BUS: Self = Self::Service { database: Database::Postgres, bus: true };

    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare server, body read (L0)",
            Self::Baseline => "baseline: verified, not kept (L1)",
            Self::Service { database: Database::Sqlite, bus: false } => "Convoke, SQLite",
            Self::Service { database: Database::Sqlite, bus: true } => "Convoke, SQLite + JetStream",
            Self::Service { database: Database::Postgres, bus: false } => "Convoke, PostgreSQL",
            Self::Service { database: Database::Postgres, bus: true } => "Convoke, PostgreSQL + JetStream",
            Self::Naive => "naive: INSERT and publish per request",
            Self::Batched => "batched: INSERT and publish of what gathered",
        }
    }

    const fn has_bus(self) -> bool {
        matches!(self, Self::Naive | Self::Batched | Self::Service { bus: true, .. })
    }

    const fn has_postgres(self) -> bool {
        matches!(self, Self::Naive | Self::Batched | Self::Service { database: Database::Postgres, .. })
    }
}

/// CPU time, in microseconds per event (or seconds per million).
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    pub service: f64,
    pub database: f64,
    pub bus: f64,
    pub load: f64,
}

impl Cpu {
    /// Without the load generator.
    pub fn whole(&self) -> f64 {
        self.service + self.database + self.bus
    }
}

/// The result of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub events: u64,
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    pub cpu: Cpu,
    /// The service's memory at the end, and its maximum.
    pub resident_mb: f64,
    pub peak_mb: f64,
    /// How long after the last acknowledgement everything was in the stream, and how many events were
    /// missing when the load ended.
    pub drained_ms: Option<f64>,
    pub lag_events: Option<u64>,
    /// Percent of the processors: stolen by the host, and used by unrelated processes.
    pub stolen: f64,
    pub foreign: f64,
}

impl Measured {
    /// The shares of the processors by user.
    pub fn shares(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let of = |per_event: f64| per_event * self.rate / 1e4 / count(cores as u64);
        format!(
            "of the processors: load {:.0} %, service {:.0} %, database {:.0} %, NATS {:.0} %, others {:.0} %",
            of(self.cpu.load),
            of(self.cpu.service),
            of(self.cpu.database),
            of(self.cpu.bus),
            self.foreign
        )
    }
}

/// The state shared by all measurements.
pub struct Bench {
    pub options: Options,
    pub program: std::path::PathBuf,
    postgres: Option<Postgres>,
    databases: usize,
}

impl Bench {
    pub fn new(options: Options) -> Self {
        let program = match &options.convoke {
            Some(path) => path.canonicalize().expect("--convoke names a program"),
            None => std::path::PathBuf::from(env!("CARGO_BIN_EXE_convoke")),
        };
        Self { options, program, postgres: None, databases: 0 }
    }

    /// The URL of a new database in the cluster, after a checkpoint. Drops the previous one.
    pub async fn new_database(&mut self) -> String {
        self.drop_database(&format!("bench{}", self.databases)).await;
        self.databases += 1;
        self.database(&format!("bench{}", self.databases)).await
    }

    /// The URL of a new database of that name, which stays until it is dropped.
    pub async fn database(&mut self, name: &str) -> String {
        self.drop_database(name).await;
        let postgres = self.cluster().await;
        let url = postgres.database(name);
        postgres.psql("CHECKPOINT");
        url
    }

    pub async fn drop_database(&mut self, name: &str) {
        self.cluster().await.psql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
    }

    async fn cluster(&mut self) -> &Postgres {
        if self.postgres.is_none() {
            self.postgres = Some(servers::postgres().await);
        }
        self.postgres.as_ref().expect("just started")
    }

    /// The process id of the database's server; 0: none, or not started.
    pub fn database_server(&self, database: Database) -> u32 {
        match database {
            Database::Sqlite => 0,
            Database::Postgres => self.postgres.as_ref().map_or(0, Postgres::id),
        }
    }

    /// Starts the servers of a case.
    pub async fn start(&mut self, case: Case) -> Setup {
        let database = if case.has_postgres() { Some(self.new_database().await) } else { None };
        self.start_on(case, database).await
    }

    /// The same on an existing database; `None`: a new SQLite file, or none.
    pub async fn start_on(&mut self, case: Case, database: Option<String>) -> Setup {
        let nats = if case.has_bus() { Some(servers::nats().await) } else { None };
        let url = nats.as_ref().map(NatsServer::url);
        let mut server = match case {
            Case::Bare => Server::child("bare", None, None),
            Case::Baseline => Server::child("baseline", None, None),
            Case::Naive => Server::child("naive", database, url),
            Case::Batched => Server::child("batched", database, url),
            Case::Service { .. } => Server::convoke(&self.program, database, url),
        };
        server.start().await;
        let postgres = if case.has_postgres() { self.database_server(Database::Postgres) } else { 0 };
        Setup { server, replicas: Vec::new(), nats, postgres }
    }

    /// Measures a case under load, and again if the host stole too much; `None` if it did so again.
    pub async fn measure(&mut self, case: Case, connections: usize, rate: Option<f64>) -> Option<Measured> {
        for _ in 0..2 {
            let mut setup = self.start(case).await;
            let measured = setup.measure(connections, rate, self.options.seconds).await;
            setup.server.stop().await;
            if measured.stolen <= self.options.steal {
                return Some(measured);
            }
            eprintln!("  the host took {:.0} % of the processors", measured.stolen);
        }
        None
    }
}

/// Running servers.
pub struct Setup {
    pub server: Server,
    /// Further replicas on the same database and bus, which share the load.
    pub replicas: Vec<Server>,
    pub nats: Option<NatsServer>,
    /// The process id of the postmaster; 0: none.
    postgres: u32,
}

impl Setup {
    fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.server).chain(&self.replicas)
    }

    /// Loads all replicas equally. Returns their totals, with the latencies of the slowest one.
    pub async fn load(&self, connections: usize, rate: Option<f64>, duration: Duration, ago: Duration) -> Report {
        let servers = 1 + self.replicas.len();
        let share = rate.map(|rate| rate / count(servers as u64));
        let loads = self.servers().map(|server| {
            let run = Run { rate: share, connections: connections / servers, ca_file: server.certificate() };
            run.load(server.url(), duration, ago)
        });
        let reports = futures_util::future::join_all(loads).await;
        reports.into_iter().reduce(together).expect("at least one server")
    }

    fn cpu(&self) -> Cpu {
        Cpu {
            service: self.servers().map(|server| machine::cpu(server.id())).sum(),
            database: if self.postgres == 0 { 0.0 } else { machine::cpu(self.postgres) },
            bus: self.nats.as_ref().map_or(0.0, |nats| machine::cpu(nats.id())),
            load: machine::own_cpu(),
        }
    }

    /// Warms up, loads, and waits until everything is in the stream, if there is one.
    pub async fn measure(&mut self, connections: usize, rate: Option<f64>, seconds: f64) -> Measured {
        let day = Duration::from_secs(24 * 60 * 60);
        let warmed = self.load(connections, rate, WARM_UP, day).await;
        let bus = match &self.nats {
            Some(nats) => Some(jetstream::new(nats.client().await)),
            None => None,
        };
        if let Some(bus) = &bus {
            drained(bus, warmed.acknowledged).await;
        }
        let (before, processors) = (self.cpu(), Processors::now());
        let report = self.load(connections, rate, Duration::from_secs_f64(seconds), Duration::ZERO).await;
        let ended = Instant::now();
        let total = warmed.acknowledged + report.acknowledged;
        let mut lag = None;
        if let Some(bus) = &bus {
            lag = Some(total.saturating_sub(messages(bus).await));
            drained(bus, total).await;
        }
        let drained = bus.is_some().then(|| ended.elapsed().as_secs_f64() * 1e3);
        let (after, now) = (self.cpu(), Processors::now());
        let (stolen, busy) = now.since(processors);
        let events = count(report.acknowledged);
        let per_event = |before: f64, after: f64| (after - before) * 1e6 / events;
        let cpu = Cpu {
            service: per_event(before.service, after.service),
            database: per_event(before.database, after.database),
            bus: per_event(before.bus, after.bus),
            load: per_event(before.load, after.load),
        };
        let ours = (cpu.whole() + cpu.load) * events / 1e6;
        let foreign = busy * (1.0 - ours / now.busy_since(processors).max(0.01)).max(0.0);
        let (resident_mb, peak_mb) = machine::memory(self.server.id());
        let latency = report.latency;
        Measured {
            events: report.acknowledged,
            rate: report.throughput_per_s,
            p50_ms: latency.p50_ms,
            p99_ms: latency.p99_ms,
            p999_ms: latency.p999_ms,
            max_ms: latency.max_ms,
            cpu,
            resident_mb,
            peak_mb,
            drained_ms: drained,
            lag_events: lag,
            stolen,
            foreign,
        }
    }
}

/// The platform's deliveries, all different, from a simulation that begins `ago`: later loads continue where its time is.
pub async fn load(url: &str, connections: usize, rate: Option<f64>, duration: Duration, ago: Duration) -> Report {
    Run { rate, connections, ca_file: None }.load(url.to_owned(), duration, ago).await
}

/// The load on a server.
struct Run {
    rate: Option<f64>,
    connections: usize,
    ca_file: Option<std::path::PathBuf>,
}

impl Run {
    async fn load(self, url: String, duration: Duration, ago: Duration) -> Report {
        let simulation = Simulation {
            ca_file: self.ca_file,
            attendees: ATTENDEES,
            connections: self.connections,
            rate: self.rate,
            duration: Some(duration),
            seed: rand::random(),
            base: Some(Clock::System.now().minus(ago)),
            handshake: false,
            settle: Some(Duration::ZERO),
            ..Simulation::new(url, APP_ID, SecretString::from(KEY))
        };
        let report = simulation.run(CancellationToken::new()).await.expect("a run of the load");
        assert!(report.failures.is_empty(), "deliveries failed: {:?}", report.failures);
        report
    }
}

/// Combines two simultaneous loads: the totals, with the latencies of the slower one.
fn together(one: Report, two: Report) -> Report {
    let acknowledged = one.acknowledged + two.acknowledged;
    let throughput_per_s = one.throughput_per_s + two.throughput_per_s;
    let slower = if one.latency.p99_ms > two.latency.p99_ms { one } else { two };
    Report { acknowledged, throughput_per_s, ..slower }
}

/// The number of messages in the stream.
pub async fn messages(bus: &jetstream::Context) -> u64 {
    match bus.get_stream("MEETINGS").await {
        Ok(stream) => stream.cached_info().state.messages,
        Err(_) => 0,
    }
}

/// Waits until the stream holds `events` messages.
///
/// # Panics
/// If they are not there in time: then something was lost, and no figure is valid.
pub async fn drained(bus: &jetstream::Context, events: u64) {
    let started = Instant::now();
    loop {
        let there = messages(bus).await;
        if there >= events {
            return;
        }
        assert!(started.elapsed() < DRAIN_WITHIN, "only {there} of {events} events came into the stream");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below the limit")]
pub fn count(events: u64) -> f64 {
    events.max(1) as f64
}
