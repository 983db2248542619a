//! A platform with a history, a database, and what of that history was pushed.

use std::{process::Command, sync::LazyLock, time::Duration};

use convoke_core::time::{Clock, Millis};
use convoke_log::{Append, Options, open};
use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Run};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    child::OwnChild,
    process::{Convoke, ConvokeBuilder, Finished},
    rig,
    sign::{APP_ID, KEY, verified_at},
};

pub const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
pub const API_APP: &str = "0123456789abcdef0123456789abcdef";
pub const API_KEY: &str = "DemoAppKeyDemoAppKeyDemoAppKey01";

/// When the day began, as it was when it was first asked for.
static TODAY: LazyLock<i64> = LazyLock::new(|| now() / DAY * DAY);

pub fn now() -> i64 {
    Clock::System.now().get()
}

pub fn at(ms: i64) -> Millis {
    Millis::new(ms).expect("a time in range")
}

/// A platform that is not in a hurry to throttle.
pub fn options() -> PlatformOptions {
    PlatformOptions { limit: 1_000_000, ..PlatformOptions::new(API_APP, API_KEY.into()) }
}

pub struct Scene {
    pub platform: Platform,
    pub folder: TempDir,
    pub database: String,
}

impl Scene {
    /// A migrated, empty, embedded database.
    pub async fn new(options: PlatformOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-it-").tempdir().expect("a temporary folder");
        let database = format!("sqlite://{}", folder.path().join("convoke.db").display());
        Self::on(options, folder, database).await
    }

    pub async fn on(options: PlatformOptions, folder: TempDir, database: String) -> Self {
        let platform = Platform::start(options).await.expect("a free port");
        std::fs::write(folder.path().join("api.key"), API_KEY).expect("a file");
        let scene = Self { platform, folder, database };
        let migrated = scene.builder().arg("migrate").run().await;
        assert_eq!(migrated.code(), 0, "{}", migrated.stderr);
        scene
    }

    /// With these runs in the platform's history.
    pub async fn with(runs: impl IntoIterator<Item = Run>) -> Self {
        let scene = Self::new(options()).await;
        scene.remember(runs);
        scene
    }

    pub fn remember(&self, runs: impl IntoIterator<Item = Run>) {
        self.platform.edit(|archive| runs.into_iter().for_each(|run| archive.put(run)));
    }

    /// Convoke with what it needs of the settings.
    pub fn builder(&self) -> ConvokeBuilder {
        self.builder_for_nobody().setting("APP_ID", APP_ID).setting("APP_KEY", KEY)
    }

    /// The same without a subscriber.
    pub fn builder_for_nobody(&self) -> ConvokeBuilder {
        Convoke::builder()
            .setting("DATABASE_URL", &self.database)
            .setting("NATS_URL", "none")
            .setting("PLATFORM_URL", self.platform.url())
            .setting("PLATFORM_APP_ID", API_APP)
            .setting("PLATFORM_APP_KEY_FILE", self.folder.path().join("api.key"))
    }

    pub async fn run(&self, arguments: &[&str]) -> Finished {
        arguments.iter().fold(self.builder().arg("backfill"), |builder, argument| builder.arg(argument)).run().await
    }

    /// A backfill of the last four days that comes to its end: its report.
    pub async fn backfill(&self) -> Value {
        self.report(&["--since", &self.since()]).await
    }

    pub async fn report(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        serde_json::from_str(&finished.stdout).expect("a report")
    }

    /// The same beginning for all backfills of a scene, four days ago.
    pub fn since(&self) -> String {
        at(*TODAY - 4 * DAY).to_string()
    }

    /// The range of five hours in which [`lost`] runs lie: one window.
    pub fn around_the_lost(&self) -> [String; 4] {
        let begin = lost_from() - HOUR;
        ["--since".to_owned(), at(begin).to_string(), "--until".to_owned(), at(begin + 5 * HOUR).to_string()]
    }

    /// The same as a process that can be killed.
    pub fn spawn(&self, arguments: &[&str]) -> OwnChild {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoke"));
        command.arg("backfill").args(arguments).current_dir(self.folder.path()).env_clear();
        let settings = [
            ("APP_ID", APP_ID.to_owned()),
            ("APP_KEY", KEY.to_owned()),
            ("DATABASE_URL", self.database.clone()),
            ("NATS_URL", "none".to_owned()),
            ("PLATFORM_URL", self.platform.url()),
            ("PLATFORM_APP_ID", API_APP.to_owned()),
            ("PLATFORM_APP_KEY_FILE", self.folder.path().join("api.key").display().to_string()),
        ];
        command.envs(settings.map(|(name, value)| (format!("CONVOKE_{name}"), value)));
        OwnChild::spawn(
            "backfill",
            &mut command,
            &self.folder.path().join("stdout"),
            &self.folder.path().join("stderr"),
        )
    }

    /// What of the platform's history was pushed.
    pub async fn push(&self, infos: &[String]) {
        let log = open(&Options { url: self.database.clone(), ..Options::default() }).expect("a database");
        for chunk in infos.chunks(256) {
            let batch: Vec<Append> = chunk
                .iter()
                .map(|info| Append {
                    verified: verified_at(info, at(now())),
                    deliveries: 1,
                    last_delivered_at: at(now()),
                })
                .collect();
            log.append(&batch).await.expect("it is appended");
        }
        log.close().await;
    }

    pub async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        rig::sqlite(self.folder.path(), sql).await
    }

    pub async fn count(&self, sql: &str) -> u64 {
        let rows = self.rows(&format!("SELECT CAST(count(*) AS TEXT) FROM {sql}")).await;
        rows[0][0].as_deref().and_then(|count| count.parse().ok()).expect("a number")
    }

    /// How often the lists were asked for.
    pub fn calls(&self) -> [u64; 3] {
        [Call::Authenticate, Call::History, Call::Attendees].map(|call| self.platform.count(call))
    }

    /// Every run of the history is in the tables as it was: once, with its stays to the millisecond, and one of its
    /// recordings.
    pub async fn everything_is_there(&self) {
        let runs: Vec<Run> = self.platform.edit(|archive| archive.runs().cloned().collect());
        let mut stays: Vec<Vec<Option<String>>> = Vec::new();
        for run in &runs {
            for stay in &run.stays {
                let texts = [
                    run.conf_uuid.clone(),
                    stay.call_number.to_string(),
                    stay.joined.to_string(),
                    stay.left.expect("it is over").to_string(),
                ];
                stays.push(texts.map(Some).to_vec());
            }
        }
        stays.sort();
        let sql = "SELECT meeting_uuid, call_number, joined_at, left_at FROM attendance ORDER BY 1, 2, 3, 4";
        assert_eq!(self.rows(sql).await, stays);
        let held =
            "meetings WHERE started_at IS NOT NULL AND ended_at > started_at AND status IN ('ended', 'concluded')";
        assert_eq!(self.count(held).await, runs.len() as u64);
        let recorded = runs.iter().filter(|run| !run.recordings.is_empty()).count() as u64;
        assert_eq!(self.count("meetings WHERE recordings > 0").await, recorded);
        assert_eq!(self.count("(SELECT event_id FROM events GROUP BY event_id HAVING count(*) > 1)").await, 0);
    }
}

/// Two days ago, at an hour at which a backfill from [`Scene::since`] on reads up to five hours in one window, and once.
fn lost_from() -> i64 {
    *TODAY - 2 * DAY + HOUR
}

/// Runs that nobody pushed, two days ago.
pub fn lost(runs: usize, stays: usize) -> impl Iterator<Item = Run> {
    Run::made_up(at(lost_from()), Duration::from_secs(10), runs, stays)
}

/// A page with nothing in it of a list that has `count` items, as it says.
pub fn nothing_of(count: u64) -> Fault {
    Fault::Body(serde_json::json!({ "offset": 0, "limit": 500, "count": count, "data": [] }).to_string())
}

/// What the platform pushes of a run: the event's type and its `eventInfo`, a moment after what it describes.
pub fn pushes(run: &Run) -> Vec<(&'static str, String)> {
    let meeting = format!(r#""meetingInfo":{{"meetingID":"{}","meetingUUID":"{}"}}"#, run.conference_id, run.conf_uuid);
    let of_meeting = |event: &'static str, at: Millis| {
        (event, format!(r#"{{"event":"{event}","timestamp":{},"payload":{{{meeting}}}}}"#, at.get()))
    };
    let mut all = vec![of_meeting("meeting.started", run.started.expect("it is over"))];
    for (number, stay) in run.stays.iter().enumerate() {
        let (joined, left) = (stay.joined.get(), stay.left.expect("it is over").get());
        for (event, time, left) in [("meeting.join", joined, 0), ("meeting.left", left, left)] {
            let info = format!(
                r#"{{"event":"{event}","timestamp":{},"payload":{{{meeting},"attendeeInfo":{{"userUUID":"user{number}","userAgent":"Web","account":"","participantID":"participant{number}","displayName":"{}","joinTime":{joined},"leftTime":{left},"role":"GENERAL","callNumber":"{}"}}}}}}"#,
                time + 120,
                stay.display_name,
                stay.call_number
            );
            all.push((event, info));
        }
    }
    all.extend(run.recordings.iter().map(|recorded| of_meeting("record.finish", recorded.finished)));
    all.push(of_meeting("meeting.end", run.ended.expect("it is over")));
    all
}
