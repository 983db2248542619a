//! A log with many rows compared with a new one: the effect on the service, its cursors and its users.
//!
//! Both logs exist at the same time, and everything is measured on both alternately.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke::relay::{CURSOR, WINDOW_ROWS};
use convoke_core::event::Record;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Clock;
use convoke_log::{self as log, Store};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::{Scale, Tables};
use crate::backlog;
use crate::comparison::{Must, Table};
use crate::fill::{Fill, Filled};
use crate::moments;
use crate::run::{Bench, Case, Setup, count};
use crate::servers::Database;
use crate::statistics::median;

const CONNECTIONS: usize = 256;

/// Deliveries for measuring how duplicates are recognised: every other one is a duplicate of an event in the log, of
/// any month, and the others are new.
const DELIVERIES: usize = 20_000;

/// How often each query runs in a round.
const QUESTIONS: usize = 60;

/// Pages read one after the other, as by a cursor that lags behind.
const PAGES: usize = 20;

/// Events that are published when the bus returns.
const BACKLOG: i64 = 200_000;

/// Only meetings of about the same size are compared: the number of their rows.
const MEETING: std::ops::RangeInclusive<usize> = 60..=240;

/// Bytes in a terabyte, and a log size that users ask about.
const TERABYTE: f64 = 1e12;
const BILLION: f64 = 1e9;

/// One of the two logs.
struct Side {
    setup: Setup,
    log: Arc<dyn Store>,
    database: Database,
    /// Who used the processors during its last load.
    shares: String,
}

pub(super) async fn run(bench: &mut Bench, scale: &Scale, tables: &mut Tables, database: Database) {
    let case = Case::Service { database, bus: false };
    let title = format!("{}, {} rows over {} days", case.name(), scale.rows, scale.days);
    let mut table = Table::new(title, "begun", "full");
    let mut begun = open(bench, case, database, "begun").await;
    let mut full = open(bench, case, database, "large").await;
    full.setup.server.stop().await;
    let fill = Fill { rows: scale.rows, url: full.setup.server.database_url().to_owned(), days: scale.days };
    eprintln!("  filling a log with {} rows", scale.rows);
    // A fill creates its log itself.
    full.clear(bench).await;
    let filled = match fill.run().await {
        Ok(filled) => filled,
        Err(error) => {
            eprintln!("  not measured: {error:#}");
            remove(bench, database).await;
            return;
        }
    };
    eprintln!("  filled in {:.0} s", filled.seconds);
    full.setup.server.start().await;
    table.note(cost(&filled));
    for round in 1..=bench.options.rounds {
        eprintln!("  round {round}");
        let mut found = Vec::new();
        // The second one finds the processors warm and the disk busy, so they take turns.
        for full_now in [round % 2 == 0, round % 2 == 1] {
            let side = if full_now { &mut full } else { &mut begun };
            found.push((full_now, side.measure(bench).await));
        }
        found.sort_by_key(|(full_now, _)| *full_now);
        let [(_, first), (_, second)] = &found[..] else { unreachable!("two were measured") };
        for (one, two) in first.iter().zip(second) {
            table.pair(one.what, one.must, one.value, two.value);
        }
    }
    for (name, side) in [("begun", &begun), ("full", &full)] {
        table.note(format!("{name}, at full load: {}", side.shares));
    }
    tables.add(table);
    tables.add(full.expiring(bench, scale.days).await);
    for side in [&mut begun, &mut full] {
        side.setup.server.stop().await;
        side.log.close().await;
    }
    remove(bench, database).await;
}

/// Frees the disk space of the databases. Files are removed by their owners.
async fn remove(bench: &mut Bench, database: Database) {
    if database == Database::Postgres {
        bench.drop_database("begun").await;
        bench.drop_database("large").await;
    }
}

async fn open(bench: &mut Bench, case: Case, database: Database, name: &str) -> Side {
    let url = match database {
        Database::Postgres => Some(bench.database(name).await),
        Database::Sqlite => None,
    };
    let setup = bench.start_on(case, url).await;
    let url = setup.server.database_url().to_owned();
    let log = log::open(&log::Options { url, ..log::Options::default() }).expect("a sound URL");
    Side { setup, log, database, shares: String::new() }
}

/// The size that a billion of these rows would have.
fn cost(filled: &Filled) -> String {
    format!(
        "{:.0} bytes a row on the disk, indexes included: {:.2} TB for a billion; filled at {:.0} rows/s",
        filled.bytes_per_row(),
        filled.bytes_per_row() * BILLION / TERABYTE,
        count(filled.rows) / filled.seconds
    )
}

struct Figure {
    what: &'static str,
    must: Must,
    value: f64,
}

/// A rate must not fall, and a time must not rise, by more than a fifth.
const fn rate(what: &'static str, value: f64) -> Figure {
    Figure { what, must: Must::AtLeast(0.8), value }
}

const fn time(what: &'static str, value: f64) -> Figure {
    Figure { what, must: Must::AtMost(1.2), value }
}

impl Side {
    /// Removes what the service created at its first start.
    async fn clear(&self, bench: &mut Bench) {
        match self.database {
            Database::Postgres => drop(bench.database("large").await),
            Database::Sqlite => {
                let url = self.setup.server.database_url();
                let file = url.strip_prefix("sqlite://").expect("the URL of a file");
                std::fs::remove_file(file).expect("the service's database");
            }
        }
    }

    async fn measure(&mut self, bench: &Bench) -> Vec<Figure> {
        let load = self.setup.measure(CONNECTIONS, None, bench.options.seconds).await;
        self.shares = load.shares();
        let rows = self.rows(DELIVERIES / 2).await;
        let mut figures = vec![
            rate("ingest, events/s", load.rate),
            time("ingest, p99 ms", load.p99_ms),
            rate("half of them copies of old events, deliveries/s", self.copies(&rows).await),
        ];
        figures.extend(self.asked(&rows).await);
        figures.push(rate("a cursor that is behind reads, rows/s", self.reading().await));
        figures.push(rate("relay, events/s from the log to the stream", self.relay().await));
        let mut ready = Vec::new();
        for _ in 0..3 {
            self.setup.server.stop().await;
            ready.push(self.setup.server.start().await.as_secs_f64() * 1e3);
        }
        figures.push(Figure { what: "ready after its start, ms", must: Must::Nothing, value: median(&mut ready) });
        figures
    }

    /// Rows from random places in the log.
    async fn rows(&self, wanted: usize) -> Vec<Record> {
        const TOGETHER: u32 = 32;
        let head = self.log.head().await.expect("a healthy database").0;
        let mut rows = Vec::with_capacity(wanted);
        while rows.len() < wanted {
            let after = Seq(rand::random_range(0..head));
            rows.extend(self.log.read(after, TOGETHER).await.expect("a healthy database"));
        }
        rows
    }

    /// Deliveries per second, half of which are duplicates.
    async fn copies(&self, rows: &[Record]) -> f64 {
        let mut requests = Vec::with_capacity(rows.len() * 2);
        for (n, row) in rows.iter().enumerate() {
            requests.push(moments::request(row.event_info.as_deref().expect("nothing is forgotten")));
            requests.push(moments::leaving(n));
        }
        let sent = count(requests.len() as u64);
        let started = moments::send_all(self.setup.server.events(), requests, CONNECTIONS).await;
        sent / started.elapsed().as_secs_f64()
    }

    /// The queries of the service's gauges, of its commands and of analysts.
    async fn asked(&self, rows: &[Record]) -> Vec<Figure> {
        const OWNER: &str = "bench";
        let log = &self.log;
        let ttl = Duration::from_secs(60);
        let head = log.head().await.expect("a healthy database");
        log.lease(OWNER, OWNER, ttl).await.expect("a healthy database").expect("a lease that nobody else wants");
        log.advance(OWNER, OWNER, head, ttl).await.expect("a healthy database");
        let (mut find, mut lag, mut top, mut counts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in rows.iter().step_by((rows.len() / QUESTIONS).max(1)) {
            let id: EventId = row.event_id;
            timed(&mut find, async { assert_eq!(log.find(&[id]).await.expect("a row").get(&id), Some(&row.seq)) })
                .await;
            timed(&mut lag, async { assert_eq!(log.lag(OWNER).await.expect("a cursor").events, 0) }).await;
            timed(&mut top, async { assert_eq!(log.head().await.expect("a healthy database"), head) }).await;
            timed(&mut counts, async { drop(log.counts().await.expect("a healthy database")) }).await;
        }
        let mut upkeep = Vec::new();
        // PostgreSQL checks its partitions once an hour.
        for hours in 0..3 {
            let later = Clock::System.now().get() + hours * 3_600_001;
            let later = convoke_core::time::Millis::new(later).expect("a time");
            timed(&mut upkeep, async { log.maintain(later).await.expect("a healthy database") }).await;
        }
        vec![
            time("one meeting's rows, in the log's order, ms", self.meetings(rows).await),
            time("one event by its id, ms", median(&mut find)),
            time("a cursor's lag, ms", median(&mut lag)),
            time("the newest row's place, ms", median(&mut top)),
            time("the gauges' counts, ms", median(&mut counts)),
            Figure { what: "upkeep, ms", must: Must::Nothing, value: median(&mut upkeep) },
        ]
    }

    /// A simple query of an analyst, on a separate connection; the median in milliseconds.
    async fn meetings(&self, rows: &[Record]) -> f64 {
        let mut connection = Analyst::open(self.database, self.setup.server.database_url()).await;
        let mut times = Vec::new();
        for row in rows {
            let Some(meeting) = &row.meeting_id else { continue };
            let started = Instant::now();
            let found = connection.meeting(meeting).await;
            if MEETING.contains(&found) {
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
            if times.len() == QUESTIONS {
                break;
            }
        }
        median(&mut times)
    }

    /// Rows per second that a lagging cursor reads, page after page, from several positions.
    async fn reading(&self) -> f64 {
        let head = self.log.head().await.expect("a healthy database").0;
        let pages = i64::try_from(PAGES).expect("few") * i64::from(WINDOW_ROWS);
        let (mut read, mut seconds) = (0, 0.0);
        for _ in 0..4 {
            let mut position = Seq(rand::random_range(0..(head - pages).max(1)));
            let started = Instant::now();
            for _ in 0..PAGES {
                let page = self.log.read(position, WINDOW_ROWS).await.expect("a healthy database");
                read += page.len() as u64;
                position = page.last().map_or(position, |row| row.seq);
            }
            seconds += started.elapsed().as_secs_f64();
        }
        count(read) / seconds
    }

    /// The number of rows after `position`. The positions may have gaps.
    async fn after(&self, mut position: Seq) -> u64 {
        let mut rows = 0;
        loop {
            let page = self.log.read(position, WINDOW_ROWS).await.expect("a healthy database");
            let Some(last) = page.last() else { return rows };
            rows += page.len() as u64;
            position = last.seq;
        }
    }

    /// Events per second that the service publishes into an empty stream when it starts with a backlog.
    async fn relay(&mut self) -> f64 {
        const OWNER: &str = "bench";
        let ttl = Duration::from_secs(60);
        self.setup.server.stop().await;
        backlog::reset(self.setup.server.database_url(), self.database).await;
        let head = self.log.head().await.expect("a healthy database");
        let from = Seq((head.0 - BACKLOG).max(0));
        self.log.lease(CURSOR, OWNER, ttl).await.expect("a healthy database").expect("a lease that nobody else wants");
        self.log.advance(CURSOR, OWNER, from, ttl).await.expect("a healthy database");
        self.log.release(CURSOR, OWNER).await.expect("a healthy database");
        let events = self.after(from).await;
        let bus = backlog::open(&mut self.setup).await;
        self.setup.server.start().await;
        let first = backlog::wait_first(&bus).await;
        backlog::caught_up(&bus, events).await;
        let rate = count(events) / first.elapsed().as_secs_f64();
        self.setup.server.stop().await;
        self.setup.nats = None;
        self.setup.server.set("NATS_URL", "none".to_owned());
        self.setup.server.start().await;
        rate
    }
}

impl Side {
    /// Ingest while a sixth of the log is beyond the retention, and a query of the whole log is running.
    async fn expiring(&mut self, bench: &Bench, days: u32) -> Table {
        let title =
            format!("{}, a sixth of the log expired", Case::Service { database: self.database, bus: false }.name());
        let mut table = Table::new(title, "kept", "being dropped");
        let url = self.setup.server.database_url().to_owned();
        let mut kept = Vec::new();
        for _ in 0..bench.options.rounds {
            kept.push(self.setup.measure(CONNECTIONS, None, bench.options.seconds).await);
        }
        self.setup.server.stop().await;
        self.setup.server.set("RETENTION", format!("{}d", u64::from(days) * 5 / 6));
        let mut analyst = Analyst::open(self.database, &url).await;
        analyst.hold().await;
        self.setup.server.start().await;
        for kept in kept {
            let dropped = self.setup.measure(CONNECTIONS, None, bench.options.seconds).await;
            table.pair("ingest, events/s", Must::AtLeast(0.8), kept.rate, dropped.rate);
            table.pair("ingest, p99 ms", Must::Nothing, kept.p99_ms, dropped.p99_ms);
        }
        analyst.let_go().await;
        table
    }
}

enum Analyst {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Analyst {
    async fn open(database: Database, url: &str) -> Self {
        match database {
            Database::Postgres => Self::Postgres(PgConnection::connect(url).await.expect("the database")),
            Database::Sqlite => Self::Sqlite(SqliteConnection::connect(url).await.expect("the database")),
        }
    }

    /// Starts to read the log, and keeps the transaction open.
    async fn hold(&mut self) {
        self.run("BEGIN; SELECT min(occurred_at) FROM (SELECT occurred_at FROM events LIMIT 1000) AS oldest").await;
    }

    async fn let_go(&mut self) {
        self.run("COMMIT").await;
    }

    async fn run(&mut self, sql: &'static str) {
        match self {
            Self::Postgres(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.expect("an answer")),
            Self::Sqlite(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.expect("an answer")),
        }
    }

    /// The number of rows of a meeting; fetches all of them.
    async fn meeting(&mut self, id: &str) -> usize {
        // The query in docs/internals/performance.md.
        let sql = "SELECT seq, event, occurred_at, display_name FROM events WHERE meeting_id = $1 ORDER BY seq";
        match self {
            Self::Postgres(connection) => sqlx::query(sql).bind(id).fetch_all(connection).await.expect("rows").len(),
            Self::Sqlite(connection) => {
                sqlx::query(sql).bind(id.to_owned()).fetch_all(connection).await.expect("rows").len()
            }
        }
    }
}

async fn timed(to: &mut Vec<f64>, work: impl Future<Output = ()>) {
    let started = Instant::now();
    work.await;
    to.push(started.elapsed().as_secs_f64() * 1e3);
}
