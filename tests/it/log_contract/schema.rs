//! What `migrate` makes of the databases that it may find.

use convoke_core::id::Seq;
use convoke_log::{Appended, LogError};
use tokio::task::JoinSet;

use super::fixture::{Backend, append, delivered, everything, is_schema, is_unavailable};
use crate::support::sign::{NOW, numbered};

pub async fn a_database_that_is_not_migrated_is_unavailable(backend: Backend) {
    let log = backend.open();
    let is_unmigrated = |result| matches!(result, Err(LogError::Unmigrated { .. }));
    assert!(is_unmigrated(log.migrate(false).await));
    assert!(is_unavailable(&log.append(&[delivered(&numbered(1, NOW))]).await));
    assert!(is_unavailable(&log.probe().await));
    assert!(is_unavailable(&log.read(Seq::START, 1).await));
    assert!(is_unmigrated(log.migrate(false).await), "nothing was made by the way");
    log.migrate(true).await.expect("it can be migrated");
    log.migrate(false).await.expect("nothing is pending");
    log.probe().await.expect("it can be written");
    assert_eq!(append(&log, &[numbered(1, NOW)]).await, [Appended::Stored]);
}

pub async fn migrating_again_changes_nothing_and_keeps_the_rows(backend: Backend) {
    let log = backend.open();
    let first = log.migrate(true).await.expect("it can be migrated");
    assert!(first.applied > 0);
    append(&log, &[numbered(1, NOW), numbered(2, NOW - 1)]).await;
    for apply in [true, false] {
        let again = backend.open().migrate(apply).await.expect("nothing is pending");
        assert_eq!((again.version, again.applied), (first.version, 0));
    }
    assert_eq!(everything(&log).await.len(), 2);
}

pub async fn several_processes_migrate_at_once(backend: Backend) {
    let mut processes = JoinSet::new();
    for n in 0..4 {
        let log = backend.open();
        processes.spawn(async move {
            log.migrate(true).await.expect("it can be migrated");
            append(&log, &[numbered(n, NOW)]).await
        });
    }
    assert_eq!(processes.join_all().await.concat(), [Appended::Stored; 4]);
}

pub async fn a_schema_of_a_newer_version_is_refused(backend: Backend) {
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    let copy = |version: &str| {
        format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT {version}, 'from the future', success, checksum, 0 FROM _sqlx_migrations LIMIT 1"
        )
    };
    backend.execute(&copy("99999999999999")).await;
    for apply in [true, false] {
        let refused = backend.open().migrate(apply).await;
        assert!(is_schema(&refused), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains("99999999999999"));
    }
    backend.execute("DELETE FROM _sqlx_migrations WHERE version = 99999999999999").await;
    backend.open().migrate(false).await.expect("ours again");
    // The same number, another content.
    let other = if backend.postgres.is_some() { "'\\x00'" } else { "x'00'" };
    backend.execute(&format!("UPDATE _sqlx_migrations SET checksum = {other}")).await;
    assert!(is_schema(&backend.open().migrate(true).await));
    assert_eq!(everything(&log).await.len(), 1);
}

pub async fn somebody_elses_database_is_refused_and_left_alone(backend: Backend) {
    backend.execute("CREATE TABLE events (id integer, title text)").await;
    backend.execute("INSERT INTO events VALUES (1, 'a concert')").await;
    for apply in [true, false, true] {
        let refused = backend.open().migrate(apply).await;
        assert!(is_schema(&refused), "{refused:?}");
    }
    assert_eq!(backend.value("SELECT title FROM events").await, "a concert");
    let made = if backend.postgres.is_some() {
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename IN ('quarantine', 'cursors')"
    } else {
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('quarantine', 'cursors')"
    };
    assert_eq!(backend.value(made).await, "0");
}
