//! Fills a log with past events: rows that the service would have made of the platform's deliveries.
//!
//! The bodies are signed, verified and read by the service's own code; only the write into the database is different,
//! and faster. So only a new log is filled, without other clients: an interrupted fill leaves an unusable log. The
//! analyst tables are then made from it by the service's own cursor.

mod postgres;
mod sqlite;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use convoke::projection::Projector;
use convoke_core::event::{Content, Delivery, Event, Subscriber};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::{Clock, Millis};
use convoke_core::verify::{self, Keyring};
use convoke_log::{self as log, Store};
use convoke_simulator::History;
use secrecy::SecretString;
use tokio::sync::mpsc;

use crate::run::{ATTENDEES, count};
use crate::servers::{APP_ID, KEY};

/// The columns of a past row, in the order in which both writers send them.
const COLUMNS: &str = "event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, \
     meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number, join_time, \
     left_time, source, deliveries, last_delivered_at, request_id, event_info";
const COLUMN_COUNT: usize = 22;

/// Events per chunk on the way to the writer.
const CHUNK: usize = 4096;

/// Assumed disk space per row, including indexes, write-ahead log and analyst tables, for the check before filling.
const ROW: u64 = 1_400;
/// Free disk space to leave: the maximum of the write-ahead log, and a reserve for other programs.
const SPARE: u64 = 3 << 30;

/// Interval between progress messages.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// Number of rows read back and checked, per sample.
const SAMPLE: u32 = 1_000;

/// Fill a new log with the past
#[derive(Clone, Debug, Args)]
pub struct Fill {
    /// Events to make
    #[arg(long)]
    pub rows: u64,

    /// The database: postgres://… or sqlite://…; its log must be empty, and no service may be running on it
    #[arg(long)]
    pub url: String,

    /// How many days they are spread over, up to yesterday
    #[arg(long, default_value_t = 365)]
    pub days: u32,
}

/// The result of a fill.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    pub rows: u64,
    /// Time for the log.
    pub seconds: f64,
    /// Time for the analyst tables.
    pub tables_seconds: f64,
    /// Size of the log on the disk, including indexes.
    pub bytes: u64,
}

impl Filled {
    pub fn bytes_per_row(&self) -> f64 {
        count(self.bytes) / count(self.rows)
    }
}

impl Fill {
    /// Fills the log, checks samples, and leaves the database as a service that has run for a long time would.
    pub async fn run(&self) -> anyhow::Result<Filled> {
        let started = Instant::now();
        let now = Clock::System.now();
        let log = self.log()?;
        log.migrate(true).await?;
        ensure!(log.head().await? == Seq::START, "the log is not empty: name a new database");
        self.room(log.as_ref()).await?;
        let history = History::new(APP_ID, KEY.as_bytes(), self.rows, (self.days, now), ATTENDEES);
        // Creates the partitions that the service would have created then and since.
        log.maintain(history.begins()).await?;
        log.maintain(now).await?;
        // The writer needs exclusive access.
        log.close().await;
        let (sender, chunks) = mpsc::channel(4);
        let reader = std::thread::spawn(move || read(history, &sender));
        let bytes = if self.is_postgres() {
            postgres::write(&self.url, Progress::new(self.rows, chunks)).await?
        } else {
            sqlite::write(&self.url, Progress::new(self.rows, chunks)).await?
        };
        reader.join().ok().context("the thread that makes the events")?;
        let log = self.log()?;
        look(log.as_ref(), self.rows).await?;
        let seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        tables(&log).await?;
        log.close().await;
        if self.is_postgres() {
            postgres::vacuum(&self.url).await?;
        }
        Ok(Filled { rows: self.rows, seconds, tables_seconds: started.elapsed().as_secs_f64(), bytes })
    }

    fn log(&self) -> anyhow::Result<Arc<dyn Store>> {
        Ok(log::open(&log::Options { url: self.url.clone(), ..log::Options::default() })?)
    }

    fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// Refuses to fill if the disk is too small, as far as that can be determined from here.
    async fn room(&self, log: &dyn Store) -> anyhow::Result<()> {
        let free =
            if self.is_postgres() { postgres::disk_free(&self.url).await? } else { log.disk().map(|disk| disk.free) };
        let Some(free) = free else {
            eprintln!("the database's disk cannot be seen from here: it needs about {} GB", gigabytes(self.needs()));
            return Ok(());
        };
        if free < self.needs() {
            bail!(
                "{} rows need about {} GB, and the disk has {} GB free: name fewer rows or a larger disk",
                self.rows,
                gigabytes(self.needs()),
                gigabytes(free)
            );
        }
        Ok(())
    }

    fn needs(&self) -> u64 {
        self.rows.saturating_mul(ROW).saturating_add(SPARE)
    }
}

fn gigabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000_000)
}

/// Free bytes at `path`; `None` if it cannot be determined from here.
pub fn free_at(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Makes the events, in the order in which they happened, until the receiver is closed.
fn read(history: History, to: &mpsc::Sender<Vec<Event>>) {
    let subscriber = Subscriber { app_id: APP_ID.into(), keys: vec![SecretString::from(KEY)], name: None };
    let keyring = Keyring::new(&[subscriber]);
    let mut chunk = Vec::with_capacity(CHUNK);
    for (number, (at, body)) in (0_u128..).zip(history) {
        // Received a moment later, as over a network, with a request id like those of the service.
        let received_at = at.get() + 40 + i64::try_from(number % 97).unwrap_or(0);
        let delivery = Delivery {
            received_at: Millis::new(received_at).unwrap_or(at),
            request_id: Some(format!("{:032x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).into()),
            traceparent: None,
        };
        let checked = verify::verify(&body, &keyring, &delivery).expect("our own signature");
        let Content::Event(event) = checked.verified.content() else { panic!("the platform sends events") };
        chunk.push(event.clone());
        if chunk.len() == CHUNK && to.blocking_send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))).is_err() {
            return;
        }
    }
    // If the writer is gone, it has failed and reports why.
    let _ = to.blocking_send(chunk);
}

/// The events on their way to the writer; prints the progress to standard error.
struct Progress {
    chunks: mpsc::Receiver<Vec<Event>>,
    rows: u64,
    done: u64,
    started: Instant,
    said: Instant,
}

impl Progress {
    fn new(rows: u64, chunks: mpsc::Receiver<Vec<Event>>) -> Self {
        Self { chunks, rows, done: 0, started: Instant::now(), said: Instant::now() }
    }

    async fn next(&mut self) -> Option<Vec<Event>> {
        let chunk = self.chunks.recv().await?;
        self.done += chunk.len() as u64;
        if self.said.elapsed() > SAY_EVERY {
            self.said = Instant::now();
            let rate = count(self.done) / self.started.elapsed().as_secs_f64();
            eprintln!("  {} of {} rows, {rate:.0}/s", self.done, self.rows);
        }
        Some(chunk)
    }
}

/// Makes the analyst tables as `convoke rebuild` does.
async fn tables(log: &Arc<dyn Store>) -> anyhow::Result<()> {
    let head = log.head().await?;
    let (started, mut said) = (Instant::now(), Instant::now());
    let cursor = Projector::new(log.clone(), "fill".to_owned());
    cursor
        .rebuild(|at| {
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                let rate = count(at.0.unsigned_abs()) / started.elapsed().as_secs_f64();
                eprintln!("  tables of {at} of {head} rows, {rate:.0}/s");
            }
        })
        .await?;
    let counts = log.table_counts().await?;
    ensure!(counts[0] > 0 && counts[1] > 0, "the analyst tables are empty");
    Ok(())
}

/// Reads rows back from the beginning, the middle and the end, and checks that their ids match their content and that
/// a row is found by its id.
async fn look(log: &dyn Store, rows: u64) -> anyhow::Result<()> {
    let rows = i64::try_from(rows).context("too many rows")?;
    for after in [0, rows / 2, (rows - i64::from(SAMPLE)).max(0)] {
        let sample = log.read(Seq(after), SAMPLE).await?;
        ensure!(!sample.is_empty(), "no rows after {after}");
        let ids: Vec<EventId> = sample.iter().map(|row| row.event_id).collect();
        let found = log.count(&ids).await?;
        for row in sample {
            let info = row.event_info.context("a row without its event")?;
            let id = EventId::of(&row.subscriber_id, row.occurred_at, info.as_bytes());
            ensure!(id == row.event_id, "row {} has the id {} instead of {id}", row.seq, row.event_id);
            ensure!(found.get(&id) == Some(&1), "row {} is not there once by its id", row.seq);
        }
    }
    ensure!(log.head().await? == Seq(rows), "the log ends at {} instead of {rows}", log.head().await?);
    Ok(())
}
