//! PostgreSQL that takes no writes for a while, or somewhere else from now on: whatever was open before, all of Convoke's parts
//! are where writes are taken within seconds.

use std::time::{Duration, Instant};

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::Postgres,
    process::{Convoke, run_convoke},
    proxy::Proxy,
    rig::*,
    wait::eventually,
};

/// For a machine that has other things to do; alone it takes seconds.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

async fn newest_bus() -> NatsServer {
    NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await
}

/// An event is answered so, and `/readyz` with the same.
async fn answers(convoke: &Convoke, number: u32, status: u16) {
    eventually(&format!("events are answered {status}"), WAIT_TIMEOUT, async || {
        Sample::number(number).deliver(convoke.events).await == status
    })
    .await;
    let url = format!("http://{}/readyz", convoke.events);
    eventually(&format!("readiness is answered {status}, and nothing else"), WAIT_TIMEOUT, async || {
        for _ in 0..20 {
            if http::get(&url).await.status != status {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    })
    .await;
}

/// Every cursor is at the log's end, and the stream holds all.
async fn all_catch_up(database: &str, nats: &NatsServer, events: usize) {
    stream_holds(&nats.jetstream().await, events, WAIT_TIMEOUT).await;
    eventually("the cursors are at the log's end", WAIT_TIMEOUT, async || {
        let behind = "SELECT count(*) FROM cursors WHERE position < (SELECT max(seq) FROM events)";
        crate::support::postgres::psql(database, behind) == "0"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_read_only_for_a_while_is_used_again_by_every_part() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let database = postgres.database("meetings");
    let convoke = convoke(&database, &nats.url()).start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    deliver(&convoke, 0..5).await;
    let end_sessions =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'convoke'";
    postgres.psql("ALTER DATABASE meetings SET default_transaction_read_only = on");
    postgres.psql(end_sessions);
    answers(&convoke, 90, 503).await;
    metric_over(&convoke, "convoke_not_accepting_seconds", 3.0, WAIT_TIMEOUT).await;
    postgres.psql("ALTER DATABASE meetings RESET default_transaction_read_only");
    // Nobody ends the sessions that began meanwhile.
    let writable = Instant::now();
    answers(&convoke, 91, 200).await;
    deliver(&convoke, 5..10).await;
    all_catch_up(&database, &nats, 11).await;
    println!("everything moves {:.1?} after the database took writes again", writable.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_a_balancer_led_to_a_standby_are_given_up() {
    let (nats, primary) = tokio::join!(newest_bus(), Postgres::start());
    let proxy = Proxy::start(primary.address());
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let convoke = convoke(&url, &nats.url()).start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    deliver(&convoke, 0..5).await;
    let standby = primary.standby().await;
    proxy.cut();
    proxy.redirect(standby.address());
    proxy.heal();
    answers(&convoke, 90, 503).await;
    metric_over(&convoke, "convoke_not_accepting_seconds", 3.0, WAIT_TIMEOUT).await;
    // What is open stays at the standby.
    proxy.redirect(primary.address());
    answers(&convoke, 91, 200).await;
    deliver(&convoke, 5..10).await;
    all_catch_up(&primary.url(), &nats, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_promoted_is_found_and_nothing_is_lost_under_load() {
    let (nats, mut primary) = tokio::join!(newest_bus(), Postgres::start());
    let standby = primary.standby().await;
    primary.psql("ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.psql("SELECT pg_reload_conf()");
    // The one that takes writes is not the first, and not named as such.
    let url =
        |one: &Postgres, two: &Postgres| format!("postgres://postgres@{},{}/postgres", one.address(), two.address());
    let convoke = convoke(&url(&standby, &primary), &nats.url()).start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    let mut load = Load::steady(convoke.events, 41);
    load.proceeds(200).await;
    primary.kill().await;
    answers(&convoke, 900_000, 503).await;
    standby.promote();
    let promoted = Instant::now();
    eventually("events are stored again", WAIT_TIMEOUT, async || {
        Sample::number(900_001).deliver(convoke.events).await == 200
    })
    .await;
    println!("events are stored again {:.1?} after the promotion", promoted.elapsed());
    convoke.wait_ready(WAIT_TIMEOUT).await;
    load.proceeds(200).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
    // Commands find it as well, in whichever order the two stand.
    let url = url(&primary, &standby);
    let migrate = run_convoke(&["migrate"], &[("CONVOKE_DATABASE_URL", &url)]).await;
    assert!(migrate.code() == 0 && migrate.stdout.contains("up to date"), "{}{}", migrate.stdout, migrate.stderr);
}
