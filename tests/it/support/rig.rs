//! Convoke between a database and a bus: what is delivered to it, and what came out at the other end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::jetstream::{self, consumer::pull, stream};
use convoke_core::id::EventId;
use convoke_core::sign;
use convoke_core::time::Millis;
use convoke_simulator::{Report, Simulation};
use futures_util::StreamExt;
use secrecy::SecretString;
use serde_json::Value;
use sqlx::{Connection, Row};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    http,
    process::{Convoke, ConvokeBuilder},
    wait::eventually,
};

pub const APP_ID: &str = "7700001234";
pub const KEY: &str = "fault-tests-key-1";
pub const PATH: &str = "/openapi/meetingevent";
/// The stream's name and the first token of its subjects, unless a test sets others.
pub const STREAM: &str = "MEETINGS";
/// In an embedded database in Convoke's own folder.
pub const SQLITE: &str = "sqlite://convoke.db";

/// Within this time a cursor moves again after anything that ends.
pub const TEN: Duration = Duration::from_secs(10);
pub const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// `convoke serve` for the one subscriber of these tests.
pub fn convoke(database: &str, nats: &str) -> ConvokeBuilder {
    Convoke::builder()
        .setting("APP_ID", APP_ID)
        .setting("APP_KEY", KEY)
        .setting("DATABASE_URL", database)
        .setting("NATS_URL", nats)
        .setting("SHUTDOWN_DELAY", "0s")
}

/// An event as the platform sends it, and its id.
#[derive(Debug, Clone)]
pub struct Sample {
    pub info: String,
    pub id: String,
}

impl Sample {
    /// The `number`th of a series: each is another event, a second later than the one before.
    pub fn number(number: u32) -> Self {
        Self::of("meeting.join", number, "987446316", "Zhang San")
    }

    pub fn of(event: &str, number: u32, meeting: &str, name: &str) -> Self {
        let at = 1_790_000_000_000 + i64::from(number) * 1_000;
        let info = format!(
            r#"{{"event":"{event}","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"{meeting}","meetingUUID":"uuid-{meeting}"}},"attendeeInfo":{{"displayName":"{name}","role":"CHAIR","callNumber":"+86{number:08}"}}}}}}"#
        );
        let at = Millis::new(at).expect("a time of this century");
        let id = EventId::of(APP_ID, at, info.as_bytes()).to_string();
        Self { info, id }
    }

    pub fn body(&self) -> Vec<u8> {
        sign::envelope(APP_ID, 1_790_000_000_000, "12345678", self.info.as_bytes(), KEY.as_bytes())
    }

    /// Posts it; the status of the answer.
    pub async fn deliver(&self, events: SocketAddr) -> u16 {
        self.deliver_with(events, &[]).await
    }

    pub async fn deliver_with(&self, events: SocketAddr, headers: &[(&str, &str)]) -> u16 {
        http::post(events, PATH, self.body(), headers).await.status
    }
}

/// Delivers the events with these numbers, one after the other; all must be acknowledged.
pub async fn deliver(convoke: &Convoke, numbers: std::ops::Range<u32>) -> Vec<Sample> {
    let samples: Vec<Sample> = numbers.map(Sample::number).collect();
    for sample in &samples {
        assert_eq!(sample.deliver(convoke.events).await, 200);
    }
    samples
}

/// The simulated platform at work in the background.
#[derive(Debug)]
pub struct Load {
    pub ledger: PathBuf,
    task: JoinHandle<Report>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Load {
    /// Everything that makes a receiver's life hard, against this listener. Retries come after some
    /// milliseconds, then every 0.6 s, for half a minute.
    pub fn simulation(events: SocketAddr, seed: u64) -> Simulation {
        Simulation {
            connections: 8,
            attendees: 6,
            duplicates: 0.1,
            resign_retries: true,
            shuffle: true,
            time_scale: 3_000.0,
            seed,
            handshake: false,
            ..Simulation::new(format!("http://{events}{PATH}"), APP_ID, SecretString::from(KEY))
        }
    }

    /// New events at a steady, moderate rate, until the test ends it.
    pub fn steady(events: SocketAddr, seed: u64) -> Self {
        let duration = Some(Duration::from_secs(100));
        Self::start(Simulation { rate: Some(150.0), duration, ..Self::simulation(events, seed) })
    }

    pub fn start(simulation: Simulation) -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-load-").tempdir().expect("a temporary folder");
        let ledger = folder.path().join("ledger.ndjson");
        let stop = CancellationToken::new();
        let (simulation, token) = (Simulation { ledger: Some(ledger.clone()), ..simulation }, stop.clone());
        let task = tokio::spawn(async move { simulation.run(token).await.expect("a run of the simulated platform") });
        Self { ledger, task, stop, _folder: folder }
    }

    /// How many events were acknowledged until now.
    pub fn acknowledged(&self) -> usize {
        std::fs::read_to_string(&self.ledger).unwrap_or_default().lines().count()
    }

    /// Waits until so many more are acknowledged.
    pub async fn proceeds(&self, by: usize) {
        let goal = self.acknowledged() + by;
        eventually("the load proceeds", LONG_TIMEOUT, async || {
            let now = self.acknowledged();
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        })
        .await;
    }

    /// Waits for the run's own end, when every event is acknowledged.
    pub async fn finish(&mut self) -> Report {
        let report = timeout(Duration::from_secs(80), &mut self.task).await.expect("the load ends").expect("no panic");
        assert_eq!((report.given_up, report.unsettled), (0, 0), "not everything was delivered in the end: {report}");
        report
    }

    /// Ends it now.
    pub async fn stop(&mut self) -> Report {
        self.stop.cancel();
        timeout(LONG_TIMEOUT, &mut self.task).await.expect("the load ends when it is stopped").expect("no panic")
    }
}

/// One message of the stream.
#[derive(Debug, Clone)]
pub struct Message {
    pub stream_sequence: u64,
    pub subject: String,
    pub headers: async_nats::HeaderMap,
    pub body: String,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    pub fn msg_id(&self) -> &str {
        self.header("Nats-Msg-Id").expect("every message of ours has an id")
    }

    /// The event's id: the message's, without what a second replay adds.
    pub fn event_id(&self) -> &str {
        &self.msg_id()[..36]
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a CloudEvent")
    }

    /// The attribute `sequence`: the place in the log.
    pub fn sequence(&self) -> i64 {
        self.json()["sequence"].as_str().and_then(|digits| digits.parse().ok()).expect("a sequence")
    }
}

/// Everything that a stream holds, in its order.
pub async fn read_stream(jetstream: &jetstream::Context, name: &str) -> Vec<Message> {
    let mut all = Vec::new();
    // A cluster that has just got a node back refuses one or the other for a moment.
    let opened = eventually("the stream can be read", LONG_TIMEOUT, async || {
        let stream = jetstream.get_stream(name).await.map_err(|error| error.to_string())?;
        if stream.cached_info().state.messages == 0 {
            return Ok(None);
        }
        let consumer =
            stream.create_consumer(pull::OrderedConfig::default()).await.map_err(|error| error.to_string())?;
        consumer.messages().await.map(Some).map_err(|error| error.to_string())
    })
    .await;
    let Some(mut messages) = opened else { return all };
    loop {
        let next = timeout(TEN, messages.next()).await.expect("a message in time");
        let message = next.expect("not ended").expect("a message");
        let info = message.info().expect("a JetStream message");
        let (stream_sequence, pending) = (info.stream_sequence, info.pending);
        all.push(Message {
            stream_sequence,
            subject: message.subject.to_string(),
            headers: message.headers.clone().unwrap_or_default(),
            body: String::from_utf8(message.payload.to_vec()).expect("UTF-8"),
        });
        if pending == 0 {
            return all;
        }
    }
}

/// The first copies in the stream's order; panics unless that is the order of the log.
pub fn first_copies_in_log_order(messages: &[Message]) -> Vec<Message> {
    let mut seen = std::collections::HashSet::new();
    let first: Vec<Message> = messages.iter().filter(|m| seen.insert(m.event_id().to_owned())).cloned().collect();
    let mut last = 0;
    for message in &first {
        let sequence = message.sequence();
        assert!(
            sequence > last,
            "seq {sequence} stands after seq {last} in the stream, at {}",
            message.stream_sequence
        );
        last = sequence;
    }
    first
}

/// Waits until the stream holds so many messages, and reads them.
pub async fn stream_holds(jetstream: &jetstream::Context, count: usize, within: Duration) -> Vec<Message> {
    eventually(&format!("the stream holds {count} messages"), within, async || {
        let stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        let there = stream.cached_info().state.messages;
        if there >= count as u64 { Ok(()) } else { Err(format!("{there}")) }
    })
    .await;
    read_stream(jetstream, STREAM).await
}

/// A stream as somebody made it by hand for Convoke's subjects.
pub fn hand_made(change: impl FnOnce(&mut stream::Config)) -> stream::Config {
    let mut config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["meetings.>".to_owned()],
        duplicate_window: Duration::from_secs(600),
        max_age: Duration::from_secs(30 * 86_400),
        ..stream::Config::default()
    };
    change(&mut config);
    config
}

/// The log of an embedded database, read as an analyst would while Convoke runs.
pub async fn sqlite(folder: &Path, sql: &str) -> Vec<Vec<Option<String>>> {
    let path = folder.join("convoke.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(TEN);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("the database can be opened");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.expect("valid SQL");
    let text = |row: &sqlx::sqlite::SqliteRow, index| {
        row.try_get_unchecked::<Option<String>, _>(index).expect("something that has a text form")
    };
    let found = rows.iter().map(|row| (0..row.len()).map(|index| text(row, index)).collect()).collect();
    connection.close().await.expect("closed");
    found
}

/// A run of `convoke audit --json` beside the service: its exit status and its findings.
pub async fn audit(convoke: &Convoke, ledger: Option<&Path>) -> (i32, Value) {
    let mut arguments = vec!["audit", "--json", "--wait", "30s"];
    if let Some(ledger) = ledger {
        arguments.extend(["--ledger", ledger.to_str().expect("a plain path")]);
    }
    let finished = convoke.run(&arguments).await;
    let json = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("no findings ({error}): {}{}", finished.stdout, finished.stderr));
    (finished.code(), json)
}

/// Everything that was acknowledged is in the log once and in the stream, whose first copies are in the log's order.
pub async fn nothing_is_lost(convoke: &Convoke, jetstream: &jetstream::Context, ledger: &Path) {
    let (status, findings) = audit(convoke, Some(ledger)).await;
    assert_eq!(status, 0, "{findings:#}");
    assert_eq!(findings["clean"], true);
    let acknowledged = std::fs::read_to_string(ledger).expect("a ledger").lines().count();
    assert_eq!(findings["ledger"]["acknowledged"].as_u64(), Some(acknowledged as u64), "{findings:#}");
    let first = first_copies_in_log_order(&read_stream(jetstream, STREAM).await);
    assert!(first.len() >= acknowledged, "{} of {acknowledged} in the stream", first.len());
}

/// How many lines of the log have this text in them.
pub fn lines_with(convoke: &Convoke, text: &str) -> usize {
    convoke.logs().lines().filter(|line| line.contains(text)).count()
}

/// The value of a metric, once it is over `floor`.
pub async fn metric_over(convoke: &Convoke, series: &str, floor: f64, within: Duration) -> f64 {
    eventually(&format!("{series} is over {floor}"), within, async || {
        let value = http::metric(convoke.admin, series).await;
        if value > floor { Ok(value) } else { Err(value.to_string()) }
    })
    .await
}

/// Processor time that a process has used so far, by its id.
pub fn cpu_time(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("a running process");
    // After the name in parentheses: the 12th and 13th field are user and system time in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
