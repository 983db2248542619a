//! An erasure that ends in the middle, however that comes about, goes on when it is run again.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::{
    person::{ADA, dump, meetings, no_secret, settled},
    tables::{Running, ada, forget, rebuilt},
};
use crate::{
    log_contract::fixture::{Backend, append, delivered},
    support::{child::OwnChild, rig::LONG_TIMEOUT, sign::NOW, wait::eventually},
    tables::as_json::Seen,
};

pub async fn it_can_be_broken_off_anywhere_and_goes_on(backend: Backend) {
    let log = backend.log().await;
    append(&log, &meetings()).await;
    let running = Running::start(&log);
    settled(&backend).await;
    let mut broken = 0;
    for tries in 0_u64.. {
        // Dropped in the middle, as the end of the process would drop it: whatever was under way may be done or not.
        let patience = Duration::from_millis(3 + 7 * tries);
        let forget = forget(&backend, ada());
        if tokio::time::timeout(patience, forget.erase(false, |_| {})).await.is_ok_and(|done| done.is_ok()) {
            break;
        }
        broken += 1;
        assert!(patience < LONG_TIMEOUT, "it never ends");
    }
    assert!(broken > 1, "it was broken off {broken} times");
    settled(&backend).await;
    running.end().await;
    no_secret("the database", &dump(&backend).await);
    assert_eq!(backend.value("SELECT count(*) FROM events WHERE forgotten_at IS NOT NULL").await, "6");
    let record =
        "SELECT count(*) || ' ' || sum(events) || ' ' || sum(stays) FROM erasures WHERE finished_at IS NOT NULL";
    // The last one that was broken off may have ended all the same: then the next one found nobody any more.
    let record = format!("{record} AND events + stays > 0");
    assert_eq!(backend.value(&record).await, "1 6 3", "one erasure, each thing counted once");
    assert_eq!(backend.value("SELECT count(*) FROM erasures WHERE finished_at IS NULL").await, "0");
    let seen = Seen::of(&backend).await;
    assert_eq!(rebuilt(&backend, &log).await, seen);
}

fn command(backend: &Backend, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoke"));
    command.arg("forget").args(arguments).current_dir(backend.folder.path()).env_clear();
    command.env("CONVOKE_DATABASE_URL", &backend.url).env("CONVOKE_NATS_URL", "none");
    command
}

fn spawn(backend: &Backend, arguments: &[&str], out: &Path) -> OwnChild {
    OwnChild::spawn("forget", &mut command(backend, arguments), out, &backend.folder.path().join("stderr"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_in_the_middle_goes_on_where_it_was() {
    const EVENTS: usize = 4_000;
    let backend = Backend::sqlite();
    let log = backend.log().await;
    let infos: Vec<String> = (0..EVENTS)
        .map(|n| {
            format!(
                r#"{{"event":"meeting.join","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"{}"}},"attendeeInfo":{{"account":"{}"}}}}}}"#,
                NOW + i64::try_from(n).expect("small"),
                n % 7,
                ADA.account
            )
        })
        .collect();
    for chunk in infos.chunks(256) {
        log.append(&chunk.iter().map(|info| delivered(info)).collect::<Vec<_>>()).await.expect("appended");
    }
    // Each row takes so long that what is found half done is not through before the process is killed.
    backend
        .execute(
            "CREATE TRIGGER slow AFTER UPDATE OF forgotten_at ON events BEGIN
                 SELECT count(*) FROM
                     (WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000) SELECT n FROM n);
             END",
        )
        .await;
    let done = "SELECT count(*) FROM events WHERE forgotten_at IS NOT NULL";
    let arguments = ["--account", ADA.account, "--yes", "--json"];
    let out = backend.folder.path().join("stdout");
    let mut child = spawn(&backend, &arguments, &out);
    eventually("it has begun", LONG_TIMEOUT, async || {
        let erased = backend.value(done).await;
        if erased != "0" { Ok(()) } else { Err(erased) }
    })
    .await;
    child.kill();
    let until: usize = backend.value(done).await.parse().expect("a count");
    assert!(until < EVENTS, "it was through already");
    backend.execute("DROP TRIGGER slow").await;
    let out = backend.folder.path().join("again");
    let mut again = spawn(&backend, &arguments, &out);
    assert!(again.wait_exit(LONG_TIMEOUT).await.success());
    let report: Value = serde_json::from_str(&std::fs::read_to_string(out).expect("a file")).expect("a report");
    assert_eq!((&report["resumed"], &report["erased"]["events"]), (&true.into(), &EVENTS.into()), "{report:#}");
    assert_eq!(backend.value(done).await, EVENTS.to_string());
    assert_eq!(backend.value("SELECT count(*) FROM erasures").await, "1");
}
