//! What only the embedded database does: its file, its WAL, and retention by deleting.

use std::path::{Path, PathBuf};
use std::{fs, sync::Arc, time::Duration};

use convoke_core::id::Seq;
use convoke_log::{Appended, EventFilter, LogError, Options, Order, Page, Scope, Store, open};

use super::fixture::{Backend, append, append_at, everything, is_schema, is_unavailable};
use crate::support::sign::{NOW, millis, numbered};

const DAY: i64 = 86_400_000;
const RETENTION: Duration = Duration::from_secs(48 * 3600);

async fn rows(log: &Arc<dyn Store>) -> usize {
    everything(log).await.len()
}

#[tokio::test]
async fn the_file_is_made_and_holds_a_wal_database_with_large_pages() {
    let backend = Backend::sqlite();
    let file = backend.folder.path().join("log.db");
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    // From the file's header, which any SQLite honours: the page size, and the format versions that mean WAL.
    let header = fs::read(&file).expect("the file is there");
    assert_eq!((&header[16..18], &header[18..20]), (&[0x20, 0x00][..], &[2, 2][..]));
    assert!(backend.folder.path().join("log.db-wal").exists());
    assert!(log.disk().expect("it has a disk").free > 0);
    assert!(log.describe().contains("log.db"));
    log.close().await;
    assert!(!backend.folder.path().join("log.db-wal").exists(), "closing leaves one whole file");
    assert_eq!(backend.value("SELECT count(*) FROM events").await, "1");
}

#[tokio::test]
async fn whoever_looks_into_a_file_that_a_process_has_open_twice_does_not_take_its_wal_away() {
    let backend = Backend::sqlite();
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    let again = backend.open();
    assert_eq!(rows(&again).await, 1);
    again.close().await;
    let mut look = std::process::Command::new("sqlite3");
    look.arg(backend.folder.path().join("log.db")).arg("SELECT count(*) FROM events");
    assert_eq!(crate::support::tools::output_of(&mut look).trim_end(), "1");
    append(&log, &[numbered(2, NOW)]).await;
    log.close().await;
    assert_eq!(backend.value("SELECT count(*) FROM events").await, "2");
}

#[tokio::test]
async fn a_database_in_memory_is_refused() {
    for url in [
        "sqlite::memory:",
        "sqlite://",
        "sqlite:///tmp/x.db?mode=memory",
        "sqlite:///tmp/x.db?vfs=memdb",
        "mysql://x/y",
        "postgres",
    ] {
        let refused = open(&Options { url: url.to_owned(), ..Options::default() });
        assert!(matches!(refused, Err(LogError::Url(_))), "{url}: {refused:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let backend = Backend::sqlite();
    let file = backend.folder.path().join("log.db");
    let text = "a shopping list, long enough to be taken for a page\n".repeat(200);
    fs::write(&file, &text).expect("a temporary file");
    for apply in [true, false] {
        let refused = backend.open().migrate(apply).await;
        assert!(is_schema(&refused), "{refused:?}");
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), text);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_made_only_by_migrating() {
    let backend = Backend::sqlite();
    let log = backend.open();
    assert!(log.migrate(false).await.is_err_and(|error| error.not_made()));
    assert!(is_unavailable(&log.read(Seq::START, 1).await));
    assert!(!backend.folder.path().join("log.db").exists());
}

#[tokio::test]
async fn retention_deletes_in_pieces_what_every_cursor_has_read() {
    let backend = Backend::sqlite();
    backend.log().await;
    let log = backend.open_with(Some(RETENTION));
    let old: Vec<_> = (0..1200).map(|n| numbered(n, NOW - 3 * DAY)).collect();
    let young: Vec<_> = (0..10).map(|n| numbered(n, NOW)).collect();
    append_at(&log, &old, NOW - 3 * DAY).await;
    append_at(&log, &young, NOW).await;
    let all = log.read(Seq::START, 2000).await.expect("it can be read");
    let long = Duration::from_secs(60);
    log.lease("bus", "a", long).await.expect("a lease");
    log.lease("meetings", "a", long).await.expect("a lease");
    log.advance("bus", "a", all[1209].seq, long).await.expect("moved");
    let mut now = NOW;
    let mut maintain = async || {
        // Later than it waits after it found nothing.
        now += 61_000;
        log.maintain(millis(now)).await.expect("maintained");
        rows(&log).await
    };
    assert_eq!(maintain().await, 1210, "the slowest cursor has read nothing");
    log.advance("meetings", "a", all[599].seq, long).await.expect("moved");
    assert_eq!([maintain().await, maintain().await, maintain().await], [710, 610, 610]);
    log.advance("meetings", "a", all[1209].seq, long).await.expect("moved");
    assert_eq!([maintain().await, maintain().await, maintain().await], [110, 10, 10]);
}

/// What happens to the files of a database that a service has open.
async fn harmed(harm: impl Fn(&Path), mend: Option<&dyn Fn(&Path)>, said: &str) {
    let backend = Backend::sqlite();
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    log.lease("bus", "a", Duration::from_secs(60)).await.expect("a lease");
    let file = backend.folder.path().join("log.db");
    harm(&file);
    for _ in 0..2 {
        let batch = [super::fixture::delivered(&numbered(2, NOW))];
        let refused = log.append(&batch).await.expect_err("it would be lost").to_string();
        assert!(refused.contains(said) && refused.contains("restart"), "{refused}");
    }
    assert!(is_unavailable(&log.probe().await));
    assert!(is_unavailable(&log.record_heartbeat().await));
    assert!(is_unavailable(&log.advance("bus", "a", Seq(1), Duration::from_secs(60)).await));
    let Some(mend) = mend else {
        log.close().await;
        return;
    };
    mend(&file);
    assert_eq!(append(&log, &[numbered(2, NOW)]).await, [Appended::Stored]);
    log.close().await;
    assert_eq!(everything(&backend.open()).await.len(), 2, "and the next open finds it");
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    file.with_file_name(format!("log.db{ending}"))
}

#[tokio::test]
async fn nothing_is_said_to_be_kept_in_a_file_that_was_removed_until_it_is_back() {
    let away = |file: &Path| fs::rename(file, beside(file, ".away")).expect("moved");
    let back = |file: &Path| fs::rename(beside(file, ".away"), file).expect("moved back");
    harmed(away, Some(&back), "was removed").await;
    harmed(|file| fs::remove_file(file).expect("removed"), None, "was removed").await;
}

#[tokio::test]
async fn nothing_is_said_to_be_kept_in_a_file_over_which_another_was_moved() {
    let replace = |file: &Path| {
        fs::copy(file, beside(file, ".copy")).expect("a copy");
        fs::hard_link(file, beside(file, ".old")).expect("the old one stays");
        fs::rename(beside(file, ".copy"), file).expect("moved over it");
    };
    let back = |file: &Path| fs::rename(beside(file, ".old"), file).expect("moved back");
    harmed(replace, Some(&back), "was replaced").await;
}

#[tokio::test]
async fn nothing_is_said_to_be_kept_in_a_database_whose_wal_was_removed() {
    for ending in ["-wal", "-shm"] {
        harmed(|file| fs::remove_file(beside(file, ending)).expect("removed"), None, "was removed").await;
    }
}

#[tokio::test]
async fn nothing_is_said_to_be_kept_in_a_folder_that_was_moved_or_behind_a_link_that_leads_elsewhere() {
    let other = tempfile::tempdir().expect("a folder");
    let there = other.path().join("moved");
    harmed(|file| fs::rename(file.parent().expect("a folder"), &there).expect("moved"), None, "was removed").await;

    let mut backend = Backend::sqlite();
    let (real, link) = (backend.folder.path().join("real.db"), backend.folder.path().join("link.db"));
    fs::write(&real, b"").expect("an empty file is an empty database");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    backend.url = format!("sqlite://{}", link.display());
    let log = backend.log().await;
    assert_eq!(append(&log, &[numbered(1, NOW)]).await, [Appended::Stored]);
    fs::copy(&real, backend.folder.path().join("copy.db")).expect("a copy");
    fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(backend.folder.path().join("copy.db"), &link).expect("a link");
    let refused = log.append(&[super::fixture::delivered(&numbered(2, NOW))]).await;
    assert!(refused.expect_err("it would be lost").to_string().contains("was replaced"));
    log.close().await;
}

#[tokio::test]
async fn a_heartbeat_of_the_file_that_this_one_is_a_copy_of_is_distinguished_from_its_own() {
    let backend = Backend::sqlite();
    let log = backend.log().await;
    log.record_heartbeat().await.expect("written");
    assert!(!log.heartbeat().await.expect("read").expect("there is one").elsewhere);
    log.close().await;
    let file = backend.folder.path().join("log.db");
    fs::copy(&file, beside(&file, ".copy")).expect("a copy");
    fs::rename(beside(&file, ".copy"), &file).expect("moved over it");
    let log = backend.open();
    assert!(log.heartbeat().await.expect("read").expect("there is one").elsewhere);
    log.record_heartbeat().await.expect("written");
    assert!(!log.heartbeat().await.expect("read").expect("there is one").elsewhere);
}

#[tokio::test]
async fn without_a_retention_nothing_is_ever_deleted() {
    let backend = Backend::sqlite();
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    log.maintain(millis(253_402_300_799_999)).await.expect("maintained");
    assert_eq!(rows(&log).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wal_stays_bounded_under_load_with_readers_and_maintenance() {
    let backend = Backend::sqlite();
    let log = backend.log().await;
    let wal = backend.folder.path().join("log.db-wal");
    let (mut longest, mut read) = (0, Seq::START);
    for commit in 0..1_800 {
        // A commit writes at least three pages of 8 KiB, however small the row: the table's and those of two indexes.
        let info = [numbered(commit, NOW + commit as i64)];
        let (stored, rows) = tokio::join!(append(&log, &info), log.read(read, 64));
        assert_eq!(stored, [Appended::Stored]);
        read = rows.expect("it can be read").last().map_or(read, |row| row.seq);
        if commit % 50 == 0 {
            log.maintain(millis(NOW)).await.expect("maintained");
        }
        longest = longest.max(fs::metadata(&wal).expect("a WAL").len());
    }
    // All of it together would be 42 MiB and more. The writer's own checkpoint comes at 32 MiB.
    assert!(longest < 36 << 20, "{longest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_long_is_broken_off_and_the_next_one_is_not() {
    let backend = Backend::sqlite();
    let log = backend.log().await;
    append(&log, &(0..2_000).map(|n| numbered(n, NOW)).collect::<Vec<_>>()).await;
    let scope = Scope { person: Some("nobody".to_owned()), ..Scope::default() };
    let filter = EventFilter { scope, ..EventFilter::default() };
    let page = |within| Page { order: Order::Newest, after: None, limit: 10, within };
    let broken_off = log.list_events(&filter, &page(Duration::ZERO)).await;
    assert!(matches!(broken_off, Err(LogError::TooSlow(Duration::ZERO))), "{broken_off:?}");
    for _ in 0..5 {
        assert_eq!(log.list_events(&filter, &page(RETENTION)).await.expect("it has time").rows, []);
    }
}
