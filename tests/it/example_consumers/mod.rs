//! The consumers in `deploy/examples`, each at work on a real stream: refused, killed, started again, with copies and with what
//! can never be read.

mod types;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use async_nats::jetstream::{self, consumer};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    packages::deploy,
    support::service::{Database, Service, WAIT_TIMEOUT, settings, sqlite},
    support::{
        child::{OwnChild, print_if_failing, read_log},
        nats::{NatsOptions, NatsServer, NatsVersion},
        tools,
        wait::eventually,
    },
};

/// Longer than any of it takes on a busy machine, a message that comes again after seconds included.
const LONG_TIMEOUT: Duration = Duration::from_secs(45);
const MINUTE: i64 = 60_000;
const BEGIN: i64 = 1_735_700_000_000;
/// Half a surrogate pair; an attendee that is none; nobody; nothing.
const POISON: [&str; 4] = [
    r#"{"event":"meeting.join","timestamp":1735700000001,"payload":{"meetingInfo":{"meetingID":"666"},"attendeeInfo":{"userUUID":"x","displayName":"\ud800"}}}"#,
    r#"{"event":"meeting.join","timestamp":1735700000002,"payload":{"meetingInfo":{"meetingID":"666"},"attendeeInfo":"x"}}"#,
    r#"{"event":"meeting.left","timestamp":1735700000003,"payload":{"meetingInfo":{"meetingID":"666"},"attendeeInfo":{"userUUID":null,"account":""}}}"#,
    r#"{"event":"meeting.left","timestamp":1735700000004}"#,
];

/// One of the examples, ready to be started.
struct Example {
    name: &'static str,
    command: Vec<PathBuf>,
    /// Its own folder, where its database and its log are.
    folder: TempDir,
}

impl Example {
    fn new(name: &'static str, command: impl IntoIterator<Item = PathBuf>) -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-example-").tempdir().expect("a temporary folder");
        Self { name, command: command.into_iter().collect(), folder }
    }

    fn start(&self, nats: &NatsServer) -> OwnChild {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(self.folder.path()).env_clear();
        // Seconds, so that what a killed consumer had in its hands comes again within the test.
        command.envs([("NATS_URL", nats.url()), ("ACK_WAIT", "2".to_owned())]);
        OwnChild::spawn(self.name, &mut command, &self.log_file(), &self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("consumer.log")
    }

    /// How many lines of its log have this text in them.
    fn said(&self, text: &str) -> usize {
        read_log(&self.log_file()).lines().filter(|line| line.contains(text)).count()
    }

    fn sql(&self, query: &str) -> String {
        sqlite(&self.folder.path().join("attendance.db"), query)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        print_if_failing(self.name, &self.log_file());
    }
}

/// A join, or a left with both times, in minutes.
fn stay(person: &str, device: u8, joined: i64, left: Option<i64>) -> String {
    let (joined, left) = (BEGIN + joined * MINUTE, left.map(|left| BEGIN + left * MINUTE));
    let (kind, at) = left.map_or(("join", joined), |left| ("left", left));
    // Told by the first id that there is; the platform's history gives few.
    let ids = match person.chars().next() {
        Some('+') => format!(r#""userUUID":null,"account":null,"participantID":null,"callNumber":"{person}""#),
        Some('@') => format!(r#""userUUID":"","account":"{person}","participantID":"{person}-{device}""#),
        Some('#') => format!(r#""participantID":"{person}""#),
        _ => format!(r#""userUUID":"{person}","participantID":"{person}-{device}""#),
    };
    // Both spellings of the platform's manual.
    let attendee = if person.starts_with('#') { "attendeelInfo" } else { "attendeeInfo" };
    format!(
        r#"{{"event":"meeting.{kind}","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"42","meetingUUID":"run-1"}},"{attendee}":{{{ids},"displayName":"{person} '王'","joinTime":{joined},"leftTime":{}}}}}}}"#,
        left.unwrap_or(0)
    )
}

/// What the server knows of the durable consumer.
async fn known(jetstream: &jetstream::Context) -> Result<consumer::Info, String> {
    let stream = jetstream.get_stream("MEETINGS").await.map_err(|error| error.to_string())?;
    stream.consumer_info("attendance").await.map_err(|error| error.to_string())
}

/// Waits until it has read all of the stream and settled it.
async fn has_read_all(jetstream: &jetstream::Context) -> consumer::Info {
    eventually("the consumer has settled all", LONG_TIMEOUT, async || {
        let info = known(jetstream).await?;
        let left = (info.num_pending, info.num_ack_pending);
        if left == (0, 0) { Ok(info) } else { Err(format!("{left:?}")) }
    })
    .await
}

/// A bus, and a Convoke that publishes to it.
async fn parts() -> (NatsServer, Service) {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let service = Service::with(settings().setting("NATS_URL", nats.url()), Database::Sqlite).await;
    (nats, service)
}

async fn published(service: &Service, events: &[String]) {
    for info in events {
        service.acknowledged(info).await;
    }
    let rows = service.count("events") as f64;
    eventually("it is published", WAIT_TIMEOUT, async || {
        let published = service.metric(r#"convoke_published_total{outcome="new"}"#).await;
        if published >= rows { Ok(()) } else { Err(published.to_string()) }
    })
    .await;
}

/// The story that each of them has to come through. `refuse` makes its store fail for the person called `unlucky`, and lets it work
/// again.
async fn comes_through(example: &Example) {
    let (nats, service) = parts().await;
    let jetstream = nats.jetstream().await;
    let before = [stay("Wang", 1, 0, None), stay("Li", 1, 5, Some(20))];
    let poison = POISON.map(str::to_owned);
    published(&service, &before).await;
    published(&service, &poison).await;

    let mut child = example.start(&nats);
    eventually("the consumer is there", LONG_TIMEOUT, async || known(&jetstream).await).await;
    let first = has_read_all(&jetstream).await;
    assert_eq!(example.sql("SELECT count(*) FROM done"), "2");
    assert_eq!(example.said("is terminated"), POISON.len());
    let config = &first.config;
    assert_eq!(
        (config.durable_name.as_deref(), config.ack_policy, config.max_ack_pending),
        (Some("attendance"), consumer::AckPolicy::Explicit, 200)
    );

    // A failure undoes all that the event did, and the event comes again.
    let database = example.folder.path().join("attendance.db");
    let change = |statement: &str| tools::output_of(Command::new("sqlite3").arg(&database).arg(statement));
    change(
        "CREATE TRIGGER refuse BEFORE INSERT ON presence WHEN new.person = 'unlucky' BEGIN SELECT RAISE(ABORT, 'not now'); END",
    );
    published(&service, &[stay("unlucky", 1, 7, None)]).await;
    eventually("it is tried again", LONG_TIMEOUT, async || example.said("is tried again") >= 2).await;
    assert_eq!(example.sql("SELECT count(*) FROM done"), "2", "the id is kept only with what the event did");

    // Killed with messages in its hands: they are on the way to it while it is stopped.
    child.signal(Signal::STOP);
    published(&service, &[stay("Wang", 2, 1, None), stay("Wang", 1, 0, Some(10))]).await;
    eventually("messages are in its hands", LONG_TIMEOUT, async || {
        let info = known(&jetstream).await?;
        // The refused one is, until it has come again; how many more depends on how the client pulls.
        if info.num_ack_pending >= 2 { Ok(()) } else { Err(format!("{}", info.num_ack_pending)) }
    })
    .await;
    child.kill();
    change("DROP TRIGGER refuse");

    // Copies of all, beyond the duplicate window, and more.
    let replay = service.convoke.run(&["replay", "--meeting", "42", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let phone = |left| stay("+8657100000001", 1, 2, left);
    let more = [stay("Li", 1, 5, None), phone(None), phone(Some(3)), stay("@zhao", 1, 4, None), stay("#7", 1, 4, None)];
    published(&service, &more).await;
    let mut child = example.start(&nats);
    eventually("the second start has begun", LONG_TIMEOUT, async || {
        example.said("reading MEETINGS as attendance") == 2
    })
    .await;
    let last = has_read_all(&jetstream).await;
    assert_eq!(last.created, first.created, "it goes on with what it had");
    assert!(last.delivered.consumer_sequence > last.delivered.stream_sequence, "some came again: {last:?}");

    child.signal(Signal::TERM);
    let status = child.wait_exit(WAIT_TIMEOUT).await;
    assert!(status.success(), "{status}");
    let source = "/huawei-cloud-meeting/1988692299";
    assert_eq!(
        example.sql("SELECT source, meeting, person, name, devices, milliseconds FROM presence ORDER BY person"),
        [
            format!("{source}|run-1|#7|#7 '王'|1|0"),
            format!("{source}|run-1|+8657100000001|+8657100000001 '王'|0|60000"),
            format!("{source}|run-1|@zhao|@zhao '王'|1|0"),
            format!("{source}|run-1|Li|Li '王'|0|900000"),
            format!("{source}|run-1|Wang|Wang '王'|1|600000"),
            format!("{source}|run-1|unlucky|unlucky '王'|1|0"),
        ]
        .join("\n")
    );
    assert_eq!(example.sql("SELECT count(*) FROM done"), "10");
    assert_eq!(example.said("is terminated"), POISON.len(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_in_rust_is_killed_and_does_nothing_twice() {
    comes_through(&Example::new("rust", [tools::example("consumer")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_in_python_is_killed_and_does_nothing_twice() {
    comes_through(&Example::new("python", [tools::python(), deploy("examples/python/consumer.py")])).await;
}

/// The example in TypeScript with its packages beside it, as `npm ci` leaves them.
fn typescript(folder: &Path) -> PathBuf {
    for file in ["consumer.ts", "package.json", "tsconfig.json"] {
        fs::copy(deploy("examples/typescript").join(file), folder.join(file)).expect("a copy");
    }
    std::os::unix::fs::symlink(tools::node_modules("typescript"), folder.join("node_modules")).expect("a link");
    folder.join("consumer.ts")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_in_typescript_is_killed_and_does_nothing_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    comes_through(&Example::new("typescript", [tools::node(), typescript(folder.path())])).await;
}
