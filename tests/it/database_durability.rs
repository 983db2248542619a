//! Databases that would break the promise behind a `200`.

use crate::support::{
    postgres::{Postgres, PostgresOptions},
    process::Convoke,
    rig::convoke,
    wait::eventually,
};
use std::time::Duration;

const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What `check` calls wrong, and what the service warned of, in this order.
async fn said(database: &str) -> (Vec<String>, String) {
    let checked = convoke(database, "none").arg("check").run().await;
    let wrong = checked.stdout.lines().filter_map(|line| line.strip_prefix("FAIL  durable"));
    let wrong: Vec<String> = wrong.map(|line| line.trim().to_owned()).collect();
    assert_eq!(checked.code(), i32::from(!wrong.is_empty()), "{checked:?}");
    let service: Convoke = convoke(database, "none").start().await;
    service.wait_ready(WAIT_TIMEOUT).await;
    let warned = eventually("what it thinks of the database is said at the start", WAIT_TIMEOUT, async || {
        let logs = service.logs();
        if logs.contains("accepting events") { Ok(logs) } else { Err(logs) }
    })
    .await;
    (wrong, warned)
}

#[tokio::test]
async fn a_server_that_does_not_sync_is_named_by_check_and_by_the_service() {
    let settings = vec![("fsync".to_owned(), "off".to_owned())];
    let postgres = Postgres::start_with(PostgresOptions { settings, ..PostgresOptions::default() }).await;
    migrated(&postgres.url()).await;
    let (wrong, warned) = said(&postgres.url()).await;
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("set fsync = on"), "{wrong:?}");
    assert!(warned.contains("set fsync = on") && warned.contains("may not survive a power cut"), "{warned}");
}

#[tokio::test]
async fn a_server_that_syncs_is_not_blamed() {
    let postgres = Postgres::start().await;
    migrated(&postgres.url()).await;
    let (wrong, warned) = said(&postgres.url()).await;
    assert_eq!(wrong, [""; 0]);
    assert!(!warned.contains("power cut"), "{warned}");
}

#[tokio::test]
async fn an_embedded_database_in_memory_is_named_by_check_and_by_the_service() {
    // On every Linux, and for everybody.
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let database = format!("sqlite://{}", folder.path().join("convoke.db").display());
    migrated(&database).await;
    let (wrong, warned) = said(&database).await;
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("in memory (tmpfs)"), "{wrong:?}");
    assert!(warned.contains("in memory (tmpfs)"), "{warned}");
}

async fn migrated(database: &str) {
    let finished = convoke(database, "none").arg("migrate").run().await;
    assert_eq!(finished.code(), 0, "{finished:?}");
}
