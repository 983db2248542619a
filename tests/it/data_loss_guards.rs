//! A `200` is kept: in the file that the next start opens, and for as long as was asked for.

use std::path::Path;
use std::time::Duration;

use convoke_core::time::Clock;
use convoke_log::{Options, open};

use crate::backup_restore::{block, run};
use crate::support::{http, postgres::Postgres, process::Convoke, rig::*, sign::numbered, wait::eventually};

const DAYS: i64 = 86_400_000;

fn now() -> i64 {
    Clock::System.now().get()
}

/// Posts an event that happened at `at`; the status.
async fn post(convoke: &Convoke, number: usize, at: i64) -> u16 {
    let id = convoke_core::id::EventId::of(APP_ID, Clock::System.now(), b"").to_string();
    Sample { info: numbered(number, at), id }.deliver(convoke.events).await
}

async fn check(convoke: &Convoke) -> (i32, String) {
    let checked = convoke.run(&["check"]).await;
    (checked.code(), checked.stdout)
}

/// Moves the database, with the files beside it.
fn move_database(folder: &Path, from: &str, to: &str) {
    for ending in ["", "-wal", "-shm"] {
        let name = |of: &str| folder.join(format!("{of}{ending}"));
        if name(from).exists() {
            std::fs::rename(name(from), name(to)).expect("moved");
        }
    }
}

#[tokio::test]
async fn a_database_that_is_moved_away_or_replaced_is_noticed_before_the_next_200() {
    let mut convoke = convoke(SQLITE, "none").start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..3).await;
    let backup = convoke.folder().join("backup.db");
    sqlite(convoke.folder(), &format!("VACUUM INTO '{}'", backup.display())).await;
    let fails =
        |said: &str, why: &str| said.lines().any(|line| line.starts_with("FAIL  service") && line.contains(why));
    let readyz = async || http::get(&format!("http://{}/readyz", convoke.admin)).await.status;

    move_database(convoke.folder(), "convoke.db", "old.db");
    assert_eq!(Sample::number(10).deliver(convoke.events).await, 503);
    eventually("it is not ready", TEN, async || readyz().await == 503).await;
    let (code, said) = check(&convoke).await;
    assert!(said.contains("does not exist"), "{said}");
    assert!(code == 1 && fails(&said, "was removed"), "{said}");
    let line = "was removed while the database was open";
    eventually("it is said", TEN, async || convoke.logs().contains(line)).await;

    move_database(convoke.folder(), "backup.db", "convoke.db");
    assert_eq!(Sample::number(11).deliver(convoke.events).await, 503);
    assert_eq!(readyz().await, 503);
    let (code, said) = check(&convoke).await;
    assert!(code == 1 && said.contains("into another file"), "{said}");
    assert!(fails(&said, "was replaced"), "{said}");

    move_database(convoke.folder(), "convoke.db", "backup.db");
    move_database(convoke.folder(), "old.db", "convoke.db");
    convoke.wait_ready(TEN).await;
    assert_eq!(Sample::number(12).deliver(convoke.events).await, 200);

    // Over the file alone: its WAL, which is not that of the new one, is out of the way at the next start.
    std::fs::rename(&backup, convoke.folder().join("convoke.db")).expect("moved over it");
    assert_eq!(Sample::number(13).deliver(convoke.events).await, 503);
    convoke.signal(rustix::process::Signal::TERM);
    assert!(convoke.wait_exit(LONG_TIMEOUT).await.success(), "{}", convoke.logs());
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    assert_eq!(sqlite(convoke.folder(), "SELECT count(*) FROM events").await, [[Some("3".to_owned())]]);
    assert_eq!(sqlite(convoke.folder(), "PRAGMA integrity_check").await, [[Some("ok".to_owned())]]);
    assert_eq!(Sample::number(13).deliver(convoke.events).await, 200);
}

#[tokio::test]
async fn a_copy_that_is_put_in_the_place_of_a_killed_services_database_is_not_mixed_with_the_wal_that_was_left() {
    let mut convoke = convoke(SQLITE, "none").start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..3).await;
    let (backup, database) = (convoke.folder().join("backup.db"), convoke.folder().join("convoke.db"));
    sqlite(convoke.folder(), &format!("VACUUM INTO '{}'", backup.display())).await;
    let count = async |convoke: &Convoke| sqlite(convoke.folder(), "SELECT count(*) FROM events").await;
    for (first, kept) in [(10, "convoke.db-wal.replaced"), (20, "convoke.db-wal.replaced-2")] {
        deliver(&convoke, first..first + 5).await;
        convoke.kill().await;
        let wal = std::fs::read(convoke.folder().join("convoke.db-wal")).expect("a WAL is left");
        // Into the same file, as `cp` does: only its contents show it.
        std::fs::copy(&backup, &database).expect("copied");
        // The first to open it may be any command.
        let (_, said) = check(&convoke).await;
        assert!(said.contains("the database accepts events"), "{said}");
        convoke.restart().await;
        convoke.wait_ready(TEN).await;
        assert_eq!(count(&convoke).await, [[Some("3".to_owned())]]);
        assert_eq!(sqlite(convoke.folder(), "PRAGMA integrity_check").await, [[Some("ok".to_owned())]]);
        assert_eq!(std::fs::read(convoke.folder().join(kept)).expect("it is kept"), wal);
    }
    // Its file is gone altogether: SQLite would delete what is left of it.
    deliver(&convoke, 40..45).await;
    convoke.kill().await;
    std::fs::remove_file(&database).expect("removed");
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    assert!(convoke.folder().join("convoke.db-wal.replaced-3").exists());
    assert!(convoke.logs().contains("belongs to the replaced database file"), "{}", convoke.logs());
    assert_eq!(count(&convoke).await, [[Some("0".to_owned())]]);
    // Killed without any of that, it goes on with its own WAL.
    deliver(&convoke, 50..55).await;
    convoke.kill().await;
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    assert_eq!(count(&convoke).await, [[Some("5".to_owned())]]);

    // No other copy can be recognised, and what the runbook says to remove is what SQLite would read as a part of it.
    convoke.signal(rustix::process::Signal::TERM);
    assert!(convoke.wait_exit(LONG_TIMEOUT).await.success(), "{}", convoke.logs());
    std::fs::copy(&database, &backup).expect("copied");
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 60..65).await;
    convoke.kill().await;
    let folder = convoke.folder().to_str().expect("a plain path");
    run(&block(include_str!("../../docs/operate/runbook.md"), "remove-wal"), &[("/var/lib/convoke", folder)], &[]);
    assert!(!convoke.folder().join("convoke.db-wal").exists());
    std::fs::copy(&backup, &database).expect("copied");
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    assert_eq!(count(&convoke).await, [[Some("5".to_owned())]]);
}

/// As far as rows can tell: a clock that went on by 90 days, while the service runs.
async fn rows_of_long_ago(database: &str, age: impl AsyncFn(&Convoke)) {
    let convoke = convoke(database, "none").setting("RETENTION", "30d").start().await;
    convoke.wait_ready(TEN).await;
    for number in 0..20 {
        assert_eq!(post(&convoke, number, now()).await, 200);
    }
    let lag = || async { http::metric(convoke.admin, "convoke_cursor_lag_events").await };
    eventually("the tables are made", LONG_TIMEOUT, async || lag().await == 0.0).await;
    age(&convoke).await;
    let blocked = async || http::metric(convoke.admin, "convoke_retention_blocked").await;
    eventually("it is noticed", LONG_TIMEOUT, async || blocked().await == 1.0).await;
    assert_eq!(lines_with(&convoke, "retention is paused"), 1, "{}", convoke.logs());
    let (_, said) = check(&convoke).await;
    assert!(said.lines().any(|line| line.starts_with("warn  retention")), "{said}");
    let url = if database == SQLITE {
        format!("sqlite://{}", convoke.folder().join("convoke.db").display())
    } else {
        database.to_owned()
    };
    let rows = async || {
        let log = open(&Options { url: url.clone(), ..Options::default() }).expect("a database");
        let rows = log.read(convoke_core::id::Seq::START, 100).await.expect("it can be read").len();
        log.close().await;
        rows
    };
    assert_eq!(rows().await, 20);
    // With an event of the day it goes on.
    assert_eq!(post(&convoke, 30, now()).await, 200);
    eventually("it goes on", LONG_TIMEOUT, async || blocked().await == 0.0).await;
}

#[tokio::test]
async fn rows_that_seem_old_all_at_once_are_kept_in_sqlite_until_an_event_of_the_day_comes() {
    let id = format!("{:08x}-{:04x}", (now() - 90 * DAYS) >> 16, (now() - 90 * DAYS) & 0xffff);
    let sql = format!(
        "UPDATE events SET received_at = strftime('%Y-%m-%dT%H:%M:%fZ', received_at, '-90 days'),
                occurred_at = strftime('%Y-%m-%dT%H:%M:%fZ', occurred_at, '-90 days'), event_id = '{id}' || substr(event_id, 14)"
    );
    rows_of_long_ago(SQLITE, async |convoke: &Convoke| drop(sqlite(convoke.folder(), &sql).await)).await;
}

#[tokio::test]
async fn rows_that_seem_old_all_at_once_are_kept_in_postgresql_until_an_event_of_the_day_comes() {
    let postgres = Postgres::start().await;
    let id = format!("{:08x}-{:04x}", (now() - 90 * DAYS) >> 16, (now() - 90 * DAYS) & 0xffff);
    let sql = format!(
        "UPDATE events SET received_at = received_at - interval '90 days', occurred_at = occurred_at - interval '90 days',
                event_id = ('{id}' || substr(event_id::text, 14))::uuid"
    );
    rows_of_long_ago(&postgres.url(), async |_: &Convoke| drop(postgres.psql(&sql))).await;
}

#[tokio::test]
async fn a_cursor_that_was_switched_off_and_holds_retention_back_is_named() {
    let mut convoke = convoke(SQLITE, "none").setting("RETENTION", "30d").start().await;
    convoke.wait_ready(TEN).await;
    assert_eq!(post(&convoke, 1, now()).await, 200);
    assert_eq!(post(&convoke, 2, now()).await, 200);
    let sql = "UPDATE events SET received_at = strftime('%Y-%m-%dT%H:%M:%fZ', received_at, '-90 days') WHERE seq = 1";
    sqlite(convoke.folder(), sql).await;
    sqlite(
        convoke.folder(),
        "INSERT INTO cursors (name, position, updated_at) VALUES ('bus', 0, '2026-01-01T00:00:00.000Z')",
    )
    .await;
    convoke.restart().await;
    let blocked = async || http::metric(convoke.admin, "convoke_retention_blocked").await;
    eventually("it is noticed", LONG_TIMEOUT, async || blocked().await == 1.0).await;
    let (_, said) = check(&convoke).await;
    assert!(said.lines().any(|line| line.starts_with("warn  retention") && line.contains("cursor bus")), "{said}");
    sqlite(convoke.folder(), "DELETE FROM cursors WHERE name = 'bus'").await;
    eventually("it goes on", Duration::from_secs(60), async || blocked().await == 0.0).await;
}
