//! A service in which all helpers panic.

use std::io;
use std::sync::{Mutex, PoisonError};

use convoke_core::id::Seq;
use convoke_core::sign;

use super::*;
use crate::config::{ConfigArgs, Env};
use crate::projection;

const APP_ID: &str = "7700001234";
const KEY: &str = "a-key-of-a-subscriber";

/// A port on which nothing listens: the task that connects to it keeps retrying.
const CLOSED: &str = "127.0.0.1:1";

/// Generous, for a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The captured log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Settings with every helper enabled.
fn settings(folder: &std::path::Path) -> Settings {
    std::fs::write(folder.join("platform.key"), "a-key-of-the-platform\n").expect("a file");
    let (database, platform, bus) = (
        format!("sqlite://{}", folder.join("log.db").display()),
        format!("http://{CLOSED}"),
        format!("nats://{CLOSED}"),
    );
    let variables = [
        ("CONVOKE_LISTEN", "127.0.0.1:0"),
        ("CONVOKE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("CONVOKE_DATABASE_URL", &database),
        ("CONVOKE_NATS_URL", &bus),
        ("CONVOKE_APP_ID", APP_ID),
        ("CONVOKE_APP_KEY", KEY),
        ("CONVOKE_PLATFORM_URL", &platform),
        ("CONVOKE_PLATFORM_APP_ID", "0123456789abcdef"),
        ("CONVOKE_PLATFORM_APP_KEY_FILE", "platform.key"),
        ("CONVOKE_PLATFORM_WATCH_EVERY", "5m"),
        ("CONVOKE_BACKFILL_EVERY", "7d"),
        ("CONVOKE_RECORDINGS_ENABLED", "true"),
        ("CONVOKE_ENRICH_ENABLED", "true"),
        ("CONVOKE_ENRICH_PEOPLE", "true"),
        ("CONVOKE_LIVE_ENABLED", "true"),
        ("CONVOKE_SHUTDOWN_DELAY", "0s"),
    ];
    Settings::load(&ConfigArgs::default(), &Env::of(variables, folder)).expect("settings")
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let reached = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_TIMEOUT, reached).await.unwrap_or_else(|_| panic!("waited for: {what}"));
}

/// Delivers an event of the `n`th meeting, and returns the status of the response.
async fn deliver(url: &str, n: u32) -> u16 {
    let now = Clock::System.now().get();
    let info = format!(
        r#"{{"event":"meeting.started","timestamp":{now},"payload":{{"meetingInfo":{{"meetingUUID":"run-{n}"}}}}}}"#
    );
    let body = sign::envelope(APP_ID, now, &format!("{n:08}"), info.as_bytes(), KEY.as_bytes());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    client.post(url).body(body).send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn every_helper_that_panics_is_logged_counted_and_started_again_and_events_are_taken_meanwhile() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = settings(folder.path());
    let app = App::start(&settings).await.expect("it starts");
    let (health, log, sabotage) = (Arc::clone(&app.health), app.log.clone(), Arc::clone(&app.tasks.sabotage));
    let (events, metrics) =
        (format!("http://{}{}", app.events, settings.listen.path), format!("http://{}/metrics", app.admin));
    let running = || {
        let all = health.helpers.all();
        helpers::NAMES.iter().all(|name| all.get(name).is_some_and(|helper| helper.running))
    };
    assert!(running(), "all are supervised: {:?}", health.helpers.all());

    let stop = CancellationToken::new();
    let story = async {
        eventually("it takes events", async || health.ready()).await;
        assert_eq!(deliver(&events, 1).await, 200);
        sabotage.notify_waiters();
        eventually("all have panicked", async || health.helpers.all().values().all(|helper| helper.restarts > 0)).await;
        assert_eq!(deliver(&events, 2).await, 200, "while they wait to be started again");
        eventually("all run again", async || running()).await;
        assert_eq!(deliver(&events, 3).await, 200);
        eventually("the tables have them all", async || {
            let head = log.head().await.expect("a database");
            let cursors = log.cursors().await.expect("a database");
            head == Seq(3) && cursors.iter().any(|cursor| cursor.name == projection::CURSOR && cursor.position == head)
        })
        .await;
        let page = reqwest::get(&metrics).await.expect("an answer").text().await.expect("a page");
        let said = String::from_utf8(lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text");
        for (name, helper) in health.helpers.all() {
            assert_eq!(
                (helper.restarts, helper.last_failure.as_deref()),
                (1, Some("it panicked: sabotaged")),
                "{name}"
            );
            assert!(page.contains(&format!("convoke_task_restarts_total{{task=\"{name}\"}} 1\n")), "{name}: {page}");
            let line = format!("a task of the service failed; restarting it task=\"{name}\"");
            assert!(said.contains(&line), "{name}: {said}");
        }
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(app.run(stop.clone(), CancellationToken::new()), story);
    ended.expect("an orderly end");
}
