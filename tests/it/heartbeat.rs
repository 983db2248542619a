//! The 24-hour clock: how long nobody has accepted events, over restarts and before the database is back.

use std::path::Path;

use serde_json::Value;

use crate::support::{
    http,
    postgres::{Postgres, psql},
    process::Convoke,
    rig::*,
    wait::eventually,
};

const REFUSING: &str = "convoke_not_accepting_seconds";
const HOURS: f64 = 5.0 * 3600.0;

/// The report of `/readyz?verbose`.
async fn report(convoke: &Convoke) -> Value {
    let answer = http::get(&format!("http://{}/readyz?verbose", convoke.admin)).await;
    serde_json::from_str(&answer.text()).expect("JSON")
}

fn of_check(stdout: &str, what: &str) -> String {
    let line = stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(what));
    line.unwrap_or_else(|| panic!("no line on {what}:\n{stdout}")).to_owned()
}

async fn stop(convoke: &mut Convoke) {
    convoke.signal(rustix::process::Signal::TERM);
    assert!(convoke.wait_exit(TEN).await.success());
}

#[tokio::test]
async fn a_first_start_and_a_quick_restart_have_no_gap_and_five_hours_down_are_reported() {
    let mut convoke = convoke(SQLITE, "none").start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..1).await;
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    assert_eq!(lines_with(&convoke, "before this start"), 0, "{}", convoke.logs());
    let check = convoke.run(&["check"]).await;
    assert!(of_check(&check.stdout, "heartbeat").starts_with("ok"), "{check:?}");

    stop(&mut convoke).await;
    move_heartbeat(convoke.folder(), 5).await;
    let check = convoke.run(&["check"]).await;
    let line = of_check(&check.stdout, "heartbeat");
    assert!(check.code() == 1 && line.starts_with("FAIL") && line.contains("5h") && line.contains("18h"), "{line}");
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    assert_eq!(lines_with(&convoke, "no service accepted events before this start"), 1, "{}", convoke.logs());
    assert!(convoke.logs().lines().any(|line| line.contains("\"gap\":\"5h")), "{}", convoke.logs());
    assert_eq!(http::metric(convoke.admin, REFUSING).await, 0.0);
    // It is over as soon as events are accepted, also when none comes and the process dies at once.
    eventually("the heartbeat is fresh", TEN, async || {
        of_check(&convoke.run(&["check"]).await.stdout, "heartbeat").starts_with("ok")
    })
    .await;

    stop(&mut convoke).await;
    move_heartbeat(convoke.folder(), 30).await;
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    let logs = convoke.logs();
    let lost =
        logs.lines().find(|line| line.contains("more than a day before this start")).expect("a line on the loss");
    assert!(lost.contains("\"ERROR\"") && lost.contains("run `convoke backfill`"), "{lost}");
}

async fn move_heartbeat(folder: &Path, hours: u32) {
    let sql = format!("UPDATE heartbeat SET at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{hours} hours')");
    sqlite(folder, &sql).await;
}

#[tokio::test]
async fn while_events_are_refused_the_gap_counts_and_until_the_database_is_back_it_is_the_least() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    let mut convoke = convoke(&url, "none").start().await;
    convoke.wait_ready(TEN).await;
    stop(&mut convoke).await;
    psql(&url, "UPDATE heartbeat SET at = now() - interval '5 hours'");
    // Readable, and not to be written to.
    psql(&url, "ALTER TABLE probe RENAME TO away");
    postgres.stop_fast().await;
    convoke.restart().await;
    eventually("its own time counts", TEN, async || http::metric(convoke.admin, REFUSING).await > 0.0).await;
    let least = report(&convoke).await;
    assert_eq!(least["not_accepting_is_lower_bound"], true);
    assert!(least["not_accepting_seconds"].as_f64().expect("a number") < HOURS, "{least}");

    postgres.restart().await;
    eventually("the gap counts", LONG_TIMEOUT, async || http::metric(convoke.admin, REFUSING).await >= HOURS).await;
    let whole = report(&convoke).await;
    assert_eq!((&whole["not_accepting_is_lower_bound"], &whole["accepting"]), (&false.into(), &false.into()));
    // A command that asks whether the database can be written does not pass for somebody who accepts events.
    let check = convoke.run(&["check"]).await;
    assert!(of_check(&check.stdout, "heartbeat").contains("5h"), "{check:?}");
    psql(&url, "ALTER TABLE away RENAME TO probe");
    convoke.wait_ready(TEN).await;
    assert_eq!(http::metric(convoke.admin, REFUSING).await, 0.0);
    assert_eq!(report(&convoke).await["not_accepting_seconds"], 0.0);
}
