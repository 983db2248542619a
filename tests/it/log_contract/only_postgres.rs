//! What only PostgreSQL does: months, other people's transactions, and a server that goes away.

use std::{sync::Arc, time::Duration};

use convoke_core::id::Seq;
use convoke_log::{Appended, EventFilter, LogError, Order, Page, Store};
use sqlx::{Connection, PgConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::fixture::{Backend, append, append_at, everything, is_unavailable};
use crate::support::{
    postgres,
    sign::{NOW, id_of, millis, numbered},
    wait::{eventually, stretched},
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);
const DAY: i64 = 86_400_000;
const LONG_TIMEOUT: Duration = Duration::from_secs(60);
const RETENTION: Duration = Duration::from_secs(48 * 3600);
/// Nothing expires, and the partitions are months.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The earliest time that an event can have, and the latest.
const FIRST_MS: i64 = 1_420_070_400_000;
const FAR: i64 = 9_999_999_999_999;

/// The partitions, with how many rows each has, in the order of their names.
async fn partitions(backend: &Backend) -> String {
    backend.execute("ANALYZE events").await;
    backend
        .value(
            "SELECT string_agg(regexp_replace(c.relname, '^events_', '') || ':' || c.reltuples::bigint, ' ' ORDER BY c.relname)
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass",
        )
        .await
}

/// An event of the day, which says that the clock is right.
async fn today(log: &Arc<dyn Store>, now: i64) {
    append_at(log, &[numbered(usize::try_from(now).expect("a time"), now)], now).await;
}

/// Those of `infos` that are still there.
async fn left(log: &Arc<dyn Store>, infos: &[String]) -> Vec<String> {
    everything(log).await.into_iter().filter(|info| infos.contains(info)).collect()
}

/// The names of the partitions, in order.
async fn names(backend: &Backend) -> String {
    partitions(backend)
        .await
        .split(' ')
        .map(|name| name.split(':').next().unwrap_or(name))
        .collect::<Vec<_>>()
        .join(" ")
}

async fn maintain(log: &Arc<dyn Store>, now: i64) {
    log.maintain(millis(now)).await.expect("maintained");
}

/// A transaction of somebody else, who has looked at the log and does not go.
async fn somebody(backend: &Backend) -> PgConnection {
    let mut connection = PgConnection::connect(&backend.url).await.expect("a connection");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM events").execute(&mut connection).await.expect("a transaction");
    connection
}

#[tokio::test]
async fn months_are_made_ahead_and_rows_move_to_where_they_belong() {
    let backend = Backend::postgres().await;
    backend.log().await;
    let log = backend.open_with(Some(FOR_EVER));
    // In May, June, July and December of 2026, and at both ends of time.
    let infos: Vec<_> = [FIRST_MS, NOW - 31 * DAY, NOW, NOW + 31 * DAY, NOW + 180 * DAY, FAR]
        .iter()
        .enumerate()
        .map(|(n, at)| numbered(n, *at))
        .collect();
    append(&log, &infos).await;
    assert_eq!(partitions(&backend).await, "future:6 past:0");
    maintain(&log, NOW).await;
    assert_eq!(partitions(&backend).await, "2026_05:1 2026_06:1 2026_07:1 2026_08:0 2026_09:0 future:2 past:1");
    assert_eq!(everything(&log).await, infos, "their order is the same");
    assert_eq!(append(&log, &infos).await, [Appended::Duplicate; 6], "and their ids are known");

    maintain(&log, NOW + 3_599_999).await;
    maintain(&backend.open_with(Some(FOR_EVER)), NOW + 1).await;
    assert_eq!(partitions(&backend).await.split(' ').count(), 7, "nothing to do");
    // Half a year later, after the new year.
    maintain(&log, NOW + 200 * DAY).await;
    assert_eq!(
        partitions(&backend).await,
        "2026_05:1 2026_06:1 2026_07:1 2026_08:0 2026_09:0 2026_10:0 2026_11:0 2026_12:1 2027_01:0 2027_02:0 2027_03:0 2027_04:0 future:1 past:1"
    );
    assert_eq!(append(&log, &infos).await, [Appended::Duplicate; 6]);
    assert_eq!(everything(&log).await, infos);
    let seqs: Vec<_> = log.read(Seq::START, 10).await.expect("it can be read").iter().map(|row| row.seq).collect();
    for (info, seq) in infos.iter().zip(seqs) {
        assert_eq!(log.find(&[id_of(info)]).await.expect("an answer").get(&id_of(info)), Some(&seq));
    }
    assert_eq!(log.lag("bus").await.expect("a lag").events, 6);
}

#[tokio::test]
async fn years_are_made_while_there_is_no_retention_and_shrink_when_there_is_one() {
    let backend = Backend::postgres().await;
    let log = backend.log().await;
    let infos: Vec<_> = [NOW - 190 * DAY, NOW - 31 * DAY, NOW, NOW + 80 * DAY, NOW + 181 * DAY, NOW + 220 * DAY]
        .iter()
        .enumerate()
        .map(|(n, at)| numbered(n, *at))
        .collect();
    append(&log, &infos[..4]).await;
    maintain(&log, NOW).await;
    assert_eq!(partitions(&backend).await, "2026:3 future:0 past:1", "from June nobody sees the new year");
    maintain(&log, NOW + 80 * DAY).await;
    assert_eq!(partitions(&backend).await, "2026:3 future:0 past:1");
    maintain(&log, NOW + 120 * DAY).await;
    assert_eq!(partitions(&backend).await, "2026:3 2027:0 future:0 past:1");
    append(&log, &infos[4..]).await;

    // A retention from now on: months come after the years that there are, whose rows are deleted as they expire.
    let log = backend.open_with(Some(RETENTION));
    today(&log, NOW + 200 * DAY).await;
    maintain(&log, NOW + 200 * DAY).await;
    assert_eq!(left(&log, &infos).await, infos[5..]);
    assert_eq!(partitions(&backend).await, "2026:0 2027:2 future:0 past:0", "on the first of January");
    today(&log, NOW + 500 * DAY).await;
    maintain(&log, NOW + 500 * DAY).await;
    assert_eq!(left(&log, &infos).await, [""; 0]);
    let months = "2027:1 2028_01:0";
    assert!(partitions(&backend).await.starts_with(months), "{}", partitions(&backend).await);
    // And none again: from the next year on.
    let log = backend.open();
    maintain(&log, NOW + 850 * DAY).await;
    assert!(partitions(&backend).await.ends_with("2028_12:0 2029:0 future:0 past:0"), "{}", partitions(&backend).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_make_months_at_once_while_others_append_lose_nothing() {
    let backend = Backend::postgres().await;
    backend.log().await;
    let writing = async {
        let log = backend.open();
        for batch in 0..40 {
            let infos: Vec<_> = (0..5).map(|n| numbered(batch * 5 + n, NOW + (batch as i64) * 5 * DAY)).collect();
            assert_eq!(append(&log, &infos).await, [Appended::Stored; 5]);
        }
    };
    let maintaining = async || {
        for month in 0..4 {
            let log = backend.open_with(Some(FOR_EVER));
            let now = millis(NOW + month * 31 * DAY);
            eventually("it is maintained", WAIT_TIMEOUT, async || log.maintain(now).await).await;
            log.close().await;
        }
    };
    tokio::join!(writing, maintaining(), maintaining());
    assert_eq!(everything(&backend.open()).await.len(), 200);
    assert_eq!(backend.value("SELECT count(*) FROM events_future").await, "0");
}

#[tokio::test]
async fn whole_months_beyond_the_retention_are_dropped_but_none_that_a_cursor_has_not_read() {
    let backend = Backend::postgres().await;
    backend.log().await;
    let log = backend.open_with(Some(RETENTION));
    // Years ago, two in May, one in June, one in July.
    let times = [FIRST_MS, NOW - 31 * DAY, NOW - 30 * DAY, NOW, NOW + 31 * DAY];
    let infos: Vec<_> = times.iter().enumerate().map(|(n, at)| numbered(n, *at)).collect();
    for (info, at) in infos.iter().zip(times) {
        append_at(&log, std::slice::from_ref(info), at).await;
    }
    let rows = log.read(Seq::START, 10).await.expect("it can be read");
    let advance = async |cursor: &str, n: usize| {
        log.lease(cursor, "a", LONG_TIMEOUT).await.expect("a lease");
        log.advance(cursor, "a", rows[n].seq, LONG_TIMEOUT).await.expect("moved");
    };
    let maintain = async |now| {
        today(&log, now).await;
        maintain(&log, now).await;
        left(&log, &infos).await
    };
    log.lease("meetings", "a", LONG_TIMEOUT).await.expect("a lease");
    advance("bus", 4).await;
    assert_eq!(maintain(NOW + 1).await, infos, "the slowest cursor has read nothing");
    advance("meetings", 1).await;
    assert_eq!(maintain(NOW + DAY).await, infos[1..], "half a month read is no month, the past has none");
    advance("meetings", 2).await;
    assert_eq!(maintain(NOW + 2 * DAY).await, infos[3..]);
    assert_eq!(names(&backend).await, "2026_06 2026_07 2026_08 2026_09 future past");
    // An event of a month that was dropped has a place, and is kept for its time.
    let late = numbered(7, NOW - 40 * DAY);
    assert_eq!(append_at(&log, &[&late], NOW + 2 * DAY).await, [Appended::Stored]);
    assert_eq!(log.counts().await.expect("counted").quarantined, 0);
    log.advance("meetings", "a", log.head().await.expect("a head"), LONG_TIMEOUT).await.expect("moved");
    assert_eq!(maintain(NOW + 17 * DAY - 1).await, infos[3..], "two days after the end of June, less a little");
    log.advance("meetings", "a", log.head().await.expect("a head"), LONG_TIMEOUT).await.expect("moved");
    log.advance("bus", "a", log.head().await.expect("a head"), LONG_TIMEOUT).await.expect("moved");
    // In June something was received late.
    append_at(&log, &[numbered(8, NOW + DAY)], NOW + 17 * DAY).await;
    log.advance("meetings", "a", log.head().await.expect("a head"), LONG_TIMEOUT).await.expect("moved");
    log.advance("bus", "a", log.head().await.expect("a head"), LONG_TIMEOUT).await.expect("moved");
    assert_eq!(maintain(NOW + 18 * DAY).await, infos[3..], "it stays with what is beside it");
    assert_eq!(maintain(NOW + 19 * DAY + 1).await, infos[4..]);
    assert_eq!(append(&log, &infos[4..]).await, [Appended::Duplicate]);
    assert_eq!(backend.value("SELECT count(*) FROM pg_class WHERE relname = 'events_2026_06'").await, "0");
}

#[tokio::test]
async fn an_event_whose_month_is_missing_is_stored_and_its_month_is_made_again() {
    let backend = Backend::postgres().await;
    backend.log().await;
    for (retention, now) in [(Some(FOR_EVER), NOW), (None, NOW + 400 * DAY)] {
        let log = backend.open_with(retention);
        maintain(&log, now).await;
        // As a clock that jumped did, and somebody who keeps months elsewhere.
        let table = backend
            .value("SELECT max(relname) FROM pg_class WHERE relname ~ '^events_202._?[0-9]*$' AND relispartition")
            .await;
        backend.execute(&format!("DROP TABLE {table}; DROP TABLE events_future")).await;
        let times: Vec<i64> = (-12..24).map(|month| now + month * 31 * DAY).chain([FIRST_MS, FAR]).collect();
        let infos: Vec<_> = times.iter().enumerate().map(|(n, at)| numbered(n + now as usize, *at)).collect();
        assert_eq!(append(&log, &infos).await, vec![Appended::Stored; infos.len()]);
        assert_eq!(log.counts().await.expect("counted").quarantined, 0);
        assert_eq!(left(&backend.open(), &infos).await, infos);
        // The upkeep finds such holes, too.
        backend.execute("ALTER TABLE events DETACH PARTITION events_future; DROP TABLE events_future").await;
        maintain(&backend.open_with(retention), now).await;
        assert!(names(&backend).await.contains("future"), "{}", names(&backend).await);
    }
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_name_is_refused() {
    let backend = Backend::postgres().await;
    for encoding in ["LATIN1", "EUC_CN", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        let sql =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        backend.execute(&sql).await;
        let url = format!("{}/{name}", backend.url.rsplit_once('/').expect("a URL").0);
        let log = Backend { url, ..Backend::sqlite() }.open();
        for apply in [true, false] {
            let refused = log.migrate(apply).await;
            assert!(super::fixture::is_schema(&refused), "{refused:?}");
            let said = refused.expect_err("refused").to_string();
            assert!(said.contains(encoding) && said.contains("ENCODING 'UTF8'"), "{said}");
        }
    }
}

#[tokio::test]
async fn what_a_crash_of_the_server_empties_is_named() {
    let backend = Backend::postgres().await;
    let log = backend.log().await;
    let before = log.weaknesses().await.expect("an answer").len();
    backend.execute("ALTER TABLE events_future SET UNLOGGED; ALTER SEQUENCE events_seq RESTART WITH 1").await;
    append(&log, &[numbered(1, NOW)]).await;
    backend.execute("ALTER SEQUENCE events_seq RESTART WITH 1").await;
    let weaknesses = log.weaknesses().await.expect("an answer");
    assert_eq!(weaknesses.len(), before + 2, "{weaknesses:?}");
    assert!(weaknesses.iter().any(|line| line.contains("events_future SET LOGGED")), "{weaknesses:?}");
    assert!(weaknesses.iter().any(|line| line.contains("events_seq")), "{weaknesses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_an_analyst_held_up_is_finished_later() {
    let backend = Backend::postgres().await;
    backend.log().await;
    let log = backend.open_with(Some(RETENTION));
    append_at(&log, &[numbered(1, NOW - 31 * DAY)], NOW - 31 * DAY).await;
    append(&log, &[numbered(2, NOW)]).await;
    maintain(&backend.open_with(Some(FOR_EVER)), NOW).await;
    let mut analyst = somebody(&backend).await;
    assert!(is_unavailable(&log.maintain(millis(NOW)).await), "the analyst still reads it");
    let half = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    assert_eq!(backend.value(half).await, "1");
    // Meanwhile all goes on; only what belongs there has to wait, and does not go to the quarantine.
    let late = log.append(&[super::fixture::delivered(&numbered(4, NOW - 31 * DAY))]).await;
    assert!(matches!(late, Err(LogError::NoPlace(_))), "{late:?}");
    assert_eq!(append(&log, &[numbered(3, NOW)]).await, [Appended::Stored]);
    assert_eq!(everything(&log).await.len(), 2);
    sqlx::raw_sql("COMMIT").execute(&mut analyst).await.expect("the end");
    maintain(&log, NOW + 61_000).await;
    assert_eq!(backend.value(half).await, "0");
    assert_eq!(partitions(&backend).await, "2026_06:2 2026_07:0 2026_08:0 2026_09:0 future:0 past:0");
    assert_eq!(backend.value("SELECT count(*) FROM pg_class WHERE relname = 'events_2026_05'").await, "0");
    // Detached, and then the process ended: known by the comment. What people detach is theirs.
    for (month, comment) in [("07", "Convoke: beyond the retention, to be dropped"), ("08", "for the archive")] {
        backend.execute(&format!("COMMENT ON TABLE events_2026_{month} IS '{comment}'")).await;
        backend.execute(&format!("ALTER TABLE events DETACH PARTITION events_2026_{month}")).await;
    }
    today(&log, NOW + DAY).await;
    maintain(&log, NOW + DAY).await;
    assert_eq!(append(&log, &[numbered(5, NOW + 50 * DAY)]).await, [Appended::Stored], "its month is made again");
    let left = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relname IN ('events_2026_07', 'events_2026_08')";
    assert_eq!(backend.value(left).await, "events_2026_08");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_open_transaction_stalls_neither_readers_nor_writers() {
    let backend = Backend::postgres().await;
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    let mut reader = somebody(&backend).await;
    let mut writer = PgConnection::connect(&backend.url).await.expect("a connection");
    let idle = "CREATE TABLE notes (n int); BEGIN; INSERT INTO notes VALUES (1); SELECT txid_current()";
    sqlx::raw_sql(idle).execute(&mut writer).await.expect("a transaction");

    assert_eq!(append(&log, &[numbered(2, NOW)]).await, [Appended::Stored]);
    assert_eq!(everything(&log).await.len(), 2, "what was committed after they began is there at once");
    // Months cannot be made now. Asking for them must not hold anybody up for long, nor over and over.
    assert!(is_unavailable(&log.maintain(millis(NOW)).await));
    for _ in 0..20 {
        log.maintain(millis(NOW + 5_000)).await.expect("put off for a while");
    }
    let mut slowest = Duration::ZERO;
    let asking = async {
        for turn in 1..5 {
            assert!(is_unavailable(&log.maintain(millis(NOW + turn * 60_000)).await));
        }
    };
    let mut appending = async |n| {
        let started = Instant::now();
        let info = [numbered(n, NOW)];
        let (stored, _) = tokio::join!(append(&log, &info), everything(&log));
        assert_eq!(stored, [Appended::Stored]);
        slowest = slowest.max(started.elapsed());
    };
    let meanwhile = async {
        for n in 10..60 {
            appending(n).await;
        }
    };
    tokio::join!(asking, meanwhile);
    assert!(slowest < stretched(Duration::from_millis(1_500)), "{slowest:?}");
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.expect("the end");
    maintain(&log, NOW + 3_600_000).await;
    assert!(partitions(&backend).await.contains("2026:52"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_unavailable_and_the_same_handle_works_afterwards() {
    let mut backend = Backend::postgres().await;
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    log.lease("bus", "a", LONG_TIMEOUT).await.expect("a lease");
    backend.postgres.as_mut().expect("a server").kill().await;
    let batch = [super::fixture::delivered(&numbered(2, NOW))];
    assert!(is_unavailable(&log.append(&batch).await));
    assert!(is_unavailable(&log.append(&batch).await), "nor on a new connection");
    assert!(is_unavailable(&log.read(Seq::START, 1).await));
    assert!(is_unavailable(&log.probe().await));
    assert!(is_unavailable(&log.lease("bus", "a", LONG_TIMEOUT).await));
    assert!(is_unavailable(&log.maintain(millis(NOW)).await));
    assert!(is_unavailable(&log.migrate(true).await));
    backend.postgres.as_mut().expect("a server").restart().await;
    eventually("it can be written again", WAIT_TIMEOUT, async || log.probe().await).await;
    assert_eq!(append(&log, &[numbered(1, NOW), numbered(2, NOW)]).await, [Appended::Duplicate, Appended::Stored]);
    assert_eq!(everything(&log).await.len(), 2, "what was acknowledged before the crash is there");
    assert!(log.lease("bus", "b", LONG_TIMEOUT).await.expect("an answer").is_none(), "the lease, too");
    maintain(&log, NOW).await;
}

/// Passes connections on; those made before the server vanished get no byte more, and no end either.
async fn vanishing(upstream: std::net::SocketAddr) -> (std::net::SocketAddr, watch::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (vanish, _) = watch::channel(());
    let vanished = vanish.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut vanished = vanished.subscribe();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.expect("the server is there");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = vanished.changed() => std::future::pending::<()>().await,
                }
            });
        }
    });
    (address, vanish)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_vanished_without_a_word_does_not_keep_the_pools_places() {
    let mut backend = Backend::postgres().await;
    let (address, vanish) = vanishing(backend.postgres.as_ref().expect("a server").address()).await;
    backend.url = format!("postgres://postgres@{address}/postgres");
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    let direct = backend.postgres.as_ref().expect("a server").url();
    let mut analyst = PgConnection::connect(&direct).await.expect("a connection");
    let waiting = "SELECT count(*) >= 6 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    // As many at once as there are places, and more.
    let all = async || {
        futures_util::future::join_all((0..12).map(|n| {
            let log = &log;
            async move { log.lag(&format!("cursor {n}")).await }
        }))
        .await
    };
    assert!(all().await.iter().all(Result::is_ok));
    // In the middle of their queries.
    sqlx::raw_sql("BEGIN; LOCK TABLE cursors").execute(&mut analyst).await.expect("a lock");
    let vanishing = async {
        eventually("all places wait", WAIT_TIMEOUT, async || postgres::psql(&direct, waiting) == "t").await;
        vanish.send_replace(());
    };
    let started = Instant::now();
    let (gone, ()) = tokio::join!(all(), vanishing);
    assert!(gone.iter().all(Result::is_err));
    assert!(started.elapsed() < stretched(Duration::from_secs(6)), "{:?}", started.elapsed());
    sqlx::raw_sql("COMMIT").execute(&mut analyst).await.expect("the end");
    eventually("all places are free again", WAIT_TIMEOUT, async || all().await.iter().all(Result::is_ok)).await;
    eventually("it can be appended", WAIT_TIMEOUT, async || log.append(&[]).await).await;
    assert_eq!(append(&log, &[numbered(2, NOW)]).await, [Appended::Stored]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_defaults_do_not_weaken_the_log() {
    let backend = Backend::postgres().await;
    backend.execute("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'").await;
    backend.execute("ALTER DATABASE postgres SET synchronous_commit = off").await;
    backend.log().await;
    let info = numbered(1, NOW);
    let appending = futures_util::future::join_all((0..8).map(|_| async {
        let log = backend.open();
        let stored = append(&log, std::slice::from_ref(&info)).await;
        log.close().await;
        stored[0]
    }))
    .await;
    assert_eq!(appending.iter().filter(|appended| **appended == Appended::Stored).count(), 1);
    let used = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'convoke'";
    assert_eq!(backend.value(used).await, "0", "closing ends the connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_appends_is_announced_to_all_who_wait() {
    let backend = Backend::postgres().await;
    let log = backend.log().await;
    let other = backend.open();
    let mut waiting = [log.appended_elsewhere(), log.appended_elsewhere(), log.appended_elsewhere()];
    let all_hear = async {
        // That it listens from now on is announced, too.
        eventually("it listens", WAIT_TIMEOUT, async || waiting[0].has_changed().expect("it lives")).await;
        for n in 0..20 {
            waiting.iter_mut().for_each(watch::Receiver::mark_unchanged);
            append(&other, &[numbered(n, NOW)]).await;
            // Whoever comes to wait after the commit hears of it as well: nobody has taken it away.
            for receiver in &mut waiting {
                tokio::time::timeout(WAIT_TIMEOUT, receiver.changed()).await.expect("heard").expect("it lives");
            }
        }
    };
    tokio::select! {
        () = all_hear => {}
        () = log.listen() => {}
    }
}

#[tokio::test]
async fn no_password_is_printed() {
    let log = Backend { url: "postgres://u:s3cret@127.0.0.1:1/db".to_owned(), ..Backend::sqlite() }.open();
    for text in [log.describe(), format!("{log:?}"), log.migrate(true).await.unwrap_err().to_string()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_long_is_broken_off_and_the_next_one_is_not() {
    let backend = Backend::postgres().await;
    let log = backend.log().await;
    append(&log, &[numbered(1, NOW)]).await;
    let page = |within| Page { order: Order::Newest, after: None, limit: 10, within };
    let mut in_the_way = PgConnection::connect(&backend.url).await.expect("a connection");
    sqlx::raw_sql("BEGIN; LOCK TABLE events").execute(&mut in_the_way).await.expect("a lock");
    let short = Duration::from_millis(300);
    for _ in 0..4 {
        let broken_off = log.list_events(&EventFilter::default(), &page(short)).await;
        assert!(matches!(broken_off, Err(LogError::TooSlow(within)) if within == short), "{broken_off:?}");
        // What people wait for holds no cursor up.
        log.heartbeat().await.expect("an answer");
    }
    in_the_way.close().await.expect("the lock goes");
    let listing = log.list_events(&EventFilter::default(), &page(WAIT_TIMEOUT)).await.expect("it has time");
    assert_eq!(listing.rows.len(), 1);
}
