//! What only the embedded database does: its file, its WAL, and retention by deleting.

use std::{fs, sync::Arc, time::Duration};

use convoke::event::Seq;
use convoke::log::{Appended, EventFilter, Log, LogError, Options, Order, Page, Scope, open};

use super::fixture::{Backend, append, everything, is_schema, is_unavailable};
use crate::support::sign::{NOW, millis, numbered};

const DAY: i64 = 86_400_000;
const RETENTION: Duration = Duration::from_secs(48 * 3600);

async fn rows(log: &Arc<dyn Log>) -> usize {
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
async fn a_database_in_memory_is_refused() {
    for url in ["sqlite::memory:", "sqlite://", "sqlite:///tmp/x.db?mode=memory", "mysql://x/y", "postgres"] {
        let refused = open(&Options { url: url.to_owned(), retention: None });
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
    assert!(is_unavailable(&log.migrate(false).await));
    assert!(is_unavailable(&log.read(Seq::START, 1).await));
    assert!(!backend.folder.path().join("log.db").exists());
}

#[tokio::test]
async fn retention_deletes_in_pieces_what_every_cursor_has_read() {
    let backend = Backend::sqlite();
    backend.log().await;
    let log = backend.open_with(Some(RETENTION));
    let old: Vec<_> = (0..1200).map(|n| numbered(n, NOW - 3 * DAY)).collect();
    let young: Vec<_> = (0..10).map(|n| numbered(n, NOW - DAY)).collect();
    append(&log, &[&old[..], &young].concat()).await;
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
    // The newest rows went, too: numbers are not given twice.
    now += 3 * DAY;
    log.maintain(millis(now)).await.expect("maintained");
    assert_eq!(rows(&log).await, 0);
    assert_eq!(append(&log, &[numbered(1, now)]).await, [Appended::Stored]);
    assert!(log.head().await.expect("a head") > all[1209].seq);
}

#[tokio::test]
async fn without_a_retention_nothing_is_ever_deleted() {
    let backend = Backend::sqlite();
    let log = backend.log().await;
    append(&log, &[numbered(1, 0)]).await;
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
