//! What cannot be avoided: a loop that inserts rows and syncs them, and a program that only publishes, each alone on the
//! machine. With the baseline (L1) they are the floor of the whole path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use convoke_core::event::{Content, Event, Verified};
use futures_util::StreamExt as _;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Semaphore;

use crate::choices;
use crate::plain;
use crate::run::{self, Bench};
use crate::servers::{self, Database};
use crate::support::nats::NatsServer;
use crate::{machine, servers::disk};

/// Events in a commit.
const BATCH: usize = 128;

/// Batches whose events are made before they are inserted: making them is not measured.
const AT_ONCE: usize = 64;

/// Maximum number of unacknowledged messages of the bare publisher.
const IN_FLIGHT: usize = 1_024;

/// Messages of the bare publisher.
const MESSAGES: u64 = 200_000;

/// Events per second of one part alone, and its CPU time: microseconds an event of this program and of the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    pub rate: f64,
    pub own: f64,
    pub server: f64,
}

impl Cost {
    fn of(events: u64, elapsed: Duration, own: f64, server: f64) -> Self {
        let events = run::count(events);
        Self { rate: events / elapsed.as_secs_f64(), own: own * 1e6 / events, server: server * 1e6 / events }
    }

    pub fn cpu(&self) -> f64 {
        self.own + self.server
    }
}

/// CPU seconds of this program, all of its threads.
fn own_cpu() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default().as_secs_f64()
}

enum Session {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// One loop inserts batches of 128 events into the tables of Convoke and waits for the disk each time.
pub async fn insert(bench: &mut Bench, database: Database) -> Cost {
    let folder = tempfile::tempdir_in(disk()).expect("a temporary folder");
    let url = match database {
        Database::Sqlite => format!("sqlite://{}", folder.path().join("floor.db").display()),
        Database::Postgres => bench.new_database().await,
    };
    plain::migrate(&url).await;
    let mut session = match database {
        Database::Sqlite => {
            let options = SqliteConnectOptions::new().filename(folder.path().join("floor.db"));
            let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
            Session::Sqlite(options.connect().await.expect("the new database"))
        }
        Database::Postgres => Session::Postgres(PgConnection::connect(&url).await.expect("the new database")),
    };
    let server = bench.database_server(database);
    let keyring = choices::keyring();
    let (mut events, mut elapsed, mut own) = (0_u64, Duration::ZERO, 0.0);
    let server_before = machine::cpu(server);
    while elapsed.as_secs_f64() < bench.options.seconds {
        let made: Vec<Verified> = (0..BATCH * AT_ONCE)
            .map(|n| choices::event(&keyring, n % choices::SENDERS, events + n as u64, true))
            .collect();
        let (started, before) = (Instant::now(), own_cpu());
        for batch in made.chunks(BATCH) {
            let batch: Vec<&Event> = batch.iter().map(event).collect();
            match &mut session {
                Session::Sqlite(connection) => plain::insert_sqlite(connection, &batch).await,
                Session::Postgres(connection) => plain::insert_postgres(connection, &batch).await,
            }
            .expect("a healthy database");
        }
        elapsed += started.elapsed();
        own += own_cpu() - before;
        events += made.len() as u64;
    }
    Cost::of(events, elapsed, own, machine::cpu(server) - server_before)
}

fn event(verified: &Verified) -> &Event {
    let Content::Event(event) = verified.content() else { panic!("an event") };
    event
}

/// A program that only publishes.
pub async fn publish() -> Cost {
    let nats = servers::nats().await;
    publish_to(&nats, MESSAGES).await
}

/// The same: messages of the same size with an id, with as many unacknowledged as useful.
pub async fn publish_to(nats: &NatsServer, messages: u64) -> Cost {
    let config = jetstream::stream::Config {
        name: "MEETINGS".to_owned(),
        subjects: vec!["meetings.>".to_owned()],
        ..Default::default()
    };
    jetstream::new(nats.client().await).create_stream(config).await.expect("a stream");
    let client = nats.client().await;
    let mut acknowledgements = client.subscribe("_INBOX.bare").await.expect("a subscription");
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let room = Arc::clone(&in_flight);
    let counting = tokio::spawn(async move {
        for _ in 0..messages {
            acknowledgements.next().await.expect("an acknowledgement");
            room.add_permits(1);
        }
    });
    let payload = Bytes::from(vec![b'x'; 880]);
    let (started, own, server) = (Instant::now(), own_cpu(), machine::cpu(nats.id()));
    for n in 0..messages {
        in_flight.acquire().await.expect("never closed").forget();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("0178a0b1-c2d3-8e4f-8a5b-{n:012x}"));
        headers.insert("Content-Type", "application/cloudevents+json");
        client
            .publish_with_reply_and_headers(
                "meetings.1988692299.meeting.join.987446316",
                "_INBOX.bare",
                headers,
                payload.clone(),
            )
            .await
            .expect("a connection");
    }
    counting.await.expect("all are acknowledged");
    Cost::of(messages, started.elapsed(), own_cpu() - own, machine::cpu(nats.id()) - server)
}
