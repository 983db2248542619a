//! Others in the same database: a replica that vanished with the log's lock in its hands, an analyst, a backup.

use std::time::Instant;

use super::*;
use crate::support::wait::stretched;

/// Whether a session that waits for its client, in the middle of a transaction, has the lock on the log's order.
const HELD: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND (l.classid::bigint << 32) + l.objid::bigint = 4865178305 AND l.granted
       AND a.state LIKE 'idle in transaction%'";

/// Lets `vanish` happen again and again until it left the lock held by nobody who answers; `back` undoes it.
async fn vanish_with_the_lock(postgres: &Postgres, vanish: impl AsyncFn(), back: impl AsyncFn()) {
    eventually("it vanishes in the middle of a transaction", LONG_TIMEOUT, async || {
        vanish().await;
        // What was under way at the server comes to its end: then it waits for its client, if it is in a transaction.
        let active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'convoke' AND state = 'active'";
        eventually("the server's work is done", TEN, async || postgres.psql(active) == "0").await;
        let held = postgres.psql(HELD) != "0";
        if !held {
            back().await;
        }
        held
    })
    .await;
}

/// How long it takes until the other replica stores an event; it answers in time all the while.
async fn stored_after(events: SocketAddr, number: u32) -> Duration {
    let since = Instant::now();
    eventually("the other replica stores an event", TEN, async || {
        let asked = Instant::now();
        let status = Sample::number(number).deliver(events).await;
        assert!(asked.elapsed() < stretched(Duration::from_millis(3_400)), "an answer took {:?}", asked.elapsed());
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_vanishes_with_the_logs_lock_blocks_the_others_for_ten_seconds_at_most_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let proxy = Proxy::start(postgres.address());
    let through = format!("postgres://postgres@{}/postgres", proxy.address());
    let one = convoke(&through, "none").start().await;
    let two = convoke(&postgres.url(), &nats.url()).start().await;
    one.wait_ready(TEN).await;
    two.wait_ready(TEN).await;
    let mut load = Load::steady(one.events, 51);
    load.proceeds(50).await;

    // Its network is gone: no byte and no end of a connection gets through.
    vanish_with_the_lock(&postgres, async || proxy.stall(), async || proxy.heal()).await;
    let took = stored_after(two.events, 1).await;
    assert!(took < stretched(TEN), "{took:?}");
    proxy.cut();
    proxy.heal();
    one.wait_ready(TEN).await;
    load.proceeds(50).await;

    // It sleeps: its connections are open, and nobody reads from them.
    let pid = rustix::process::Pid::from_raw(one.id().cast_signed()).expect("a process");
    let signal = |signal| rustix::process::kill_process(pid, signal).expect("our own child");
    vanish_with_the_lock(&postgres, async || signal(Signal::STOP), async || signal(Signal::CONT)).await;
    let took = stored_after(two.events, 2).await;
    assert!(took < stretched(TEN), "{took:?}");
    // The other is ready and stays so: while the lock was held it said that it was not, and that did not flicker.
    two.wait_ready(TEN).await;
    signal(Signal::CONT);
    one.wait_ready(TEN).await;
    load.proceeds(50).await;
    load.stop().await;
    assert!(lines_with(&two, "events are stored again") <= 2, "{}", two.logs());
    nothing_is_lost(&two, &nats.jetstream().await, &load.ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebodys_open_transaction_holds_up_neither_ingest_nor_the_relay_under_load() {
    use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let url = postgres.url();
    // With a retention partitions are months, and there is always one to be made.
    let mut replicas = replicas_with(2, &url, &nats.url(), &[("RETENTION", "90d")]).await;
    let mut load = Load::steady(replicas[0].events, 52);
    load.proceeds(50).await;
    let mut open = Vec::new();
    for begin in [
        // An analyst, who left a query's transaction open; a backup; somebody who writes to the table and forgot to commit.
        "BEGIN; SELECT count(*) FROM events",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM events; SELECT count(*) FROM cursors",
        "BEGIN; UPDATE events SET deliveries = deliveries WHERE seq = (SELECT min(seq) FROM events); \
         LOCK TABLE events IN ROW EXCLUSIVE MODE",
    ] {
        let mut connection = PgConnection::connect(&url).await.expect("a connection");
        raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.expect(begin);
        open.push(connection);
    }
    let acknowledged = load.acknowledged();
    let (position, _) = relay(&url);
    load.proceeds(300).await;
    eventually("the relay keeps up", TEN, async || {
        let seq: i64 = psql(&url, "SELECT max(seq) FROM events").parse().expect("a number");
        let (now, _) = relay(&url);
        if now > position && seq - now < 150 { Ok(()) } else { Err(format!("{now} of {seq}")) }
    })
    .await;
    assert!(load.acknowledged() >= acknowledged + 300);
    let refused = http::metric(replicas[0].admin, "convoke_rejections_total").await;
    assert_eq!(refused, 0.0, "no delivery was refused");

    // New partitions are due, for which there is no way past the analyst: a replica starts and takes events all the same.
    let last = psql(&url, "SELECT max(relname::text) FROM pg_class WHERE relname ~ '^events_[0-9]{4}_[0-9]{2}$'");
    drop(open.drain(..));
    let shorten = format!(
        "DO $$ DECLARE bound text; BEGIN
             SELECT substring(pg_get_expr(relpartbound, oid) FROM 'FROM \\(''([^'']+)''\\)') INTO bound
               FROM pg_class WHERE relname = '{last}';
             PERFORM pg_advisory_xact_lock(4865178305);
             ALTER TABLE events DETACH PARTITION events_future;
             DROP TABLE {last};
             EXECUTE format('ALTER TABLE events ATTACH PARTITION events_future FOR VALUES FROM (%L) TO (MAXVALUE)', bound);
         END $$"
    );
    psql(&url, &shorten);
    let mut analyst = PgConnection::connect(&url).await.expect("a connection");
    raw_sql("BEGIN; SELECT count(*) FROM events").execute(&mut analyst).await.expect("rows");
    replicas[1].restart().await;
    replicas[1].wait_ready(TEN).await;
    assert_eq!(Sample::number(1).deliver(replicas[1].events).await, 200);
    assert_eq!(lines_with(&replicas[1], "database maintenance failed"), 1, "{}", replicas[1].logs());
    let there = format!("SELECT count(*) FROM pg_class WHERE relname = '{last}'");
    assert_eq!(psql(&url, &there), "0");
    analyst.close().await.expect("a polite end");
    load.proceeds(50).await;
    load.stop().await;
    nothing_is_lost(&replicas[0], &nats.jetstream().await, &load.ledger).await;
}
