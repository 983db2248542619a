//! Several `convoke serve` on one PostgreSQL and one bus: what each of them promises alone they promise together, whichever
//! of them dies, sleeps, starts or stops.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use rustix::process::Signal;

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::{Postgres, psql},
    process::Convoke,
    proxy::Proxy,
    rig::*,
    wait::eventually,
};

mod blocked_under_load;
mod rolling_under_load;
mod start;

pub async fn newest_bus() -> NatsServer {
    NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await
}

/// So many replicas, all of them ready.
pub async fn replicas(count: usize, database: &str, nats: &str) -> Vec<Convoke> {
    replicas_with(count, database, nats, &[]).await
}

/// The same, with these settings.
pub async fn replicas_with(count: usize, database: &str, nats: &str, settings: &[(&str, &str)]) -> Vec<Convoke> {
    let builder = |_| settings.iter().fold(convoke(database, nats), |to, (name, value)| to.setting(name, value));
    let replicas = join_all((0..count).map(|n| builder(n).start())).await;
    join_all(replicas.iter().map(|replica| replica.wait_ready(LONG_TIMEOUT))).await;
    replicas
}

pub fn listeners(replicas: &[Convoke]) -> Vec<SocketAddr> {
    replicas.iter().map(|replica| replica.events).collect()
}

/// Where the relay stands, and the id of the process that moves it, if one does.
pub fn relay(database: &str) -> (i64, Option<u32>) {
    let sql = "SELECT coalesce(max(position), 0), max(lease_owner) FILTER (WHERE lease_until > clock_timestamp())
                 FROM cursors WHERE name = 'bus'";
    let row = psql(database, sql);
    let (position, owner) = row.split_once('|').expect("two columns");
    // The name of an owner has the id of its process in it, second last.
    (position.parse().expect("a number"), owner.rsplit('-').nth(1).and_then(|id| id.parse().ok()))
}

/// Which of the replicas moves the relay.
pub async fn owner(database: &str, replicas: &[Convoke]) -> usize {
    eventually("one of the replicas owns the relay", TEN, async || {
        let (_, id) = relay(database);
        replicas.iter().position(|replica| Some(replica.id()) == id)
    })
    .await
}

/// Waits until the relay stands behind `position`, moved by another process than `not`.
async fn moves_on(database: &str, position: i64, not: u32) {
    eventually("another replica moves the relay", TEN, async || {
        let (now, owner) = relay(database);
        if now > position && owner.is_some_and(|id| id != not) { Ok(()) } else { Err(format!("{now}, by {owner:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_keep_each_event_once_and_the_stream_in_order_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let replicas = replicas(3, &postgres.url(), &nats.url()).await;
    let addresses = listeners(&replicas);
    // A load of its own for each, and on top of it the same events to all at the same moment.
    let mut loads: Vec<Load> = addresses.iter().zip(41..).map(|(to, seed)| Load::steady(*to, seed)).collect();
    for number in 0..60 {
        let sample = Sample::number(number);
        let answers = join_all(addresses.iter().cycle().take(12).map(|to| sample.deliver(*to))).await;
        assert_eq!(answers, [200; 12]);
    }
    for load in &mut loads {
        load.proceeds(20).await;
        load.stop().await;
    }
    let (rows, ids, copies) = {
        let sql = "SELECT count(*), count(DISTINCT event_id),
                          (SELECT sum(deliveries) FROM events WHERE meeting_uuid = 'uuid-987446316') FROM events";
        let row = postgres.psql(sql);
        let numbers: Vec<usize> = row.split('|').map(|number| number.parse().expect("a number")).collect();
        (numbers[0], numbers[1], numbers[2])
    };
    assert_eq!((rows, copies), (ids, 60 * 12));
    let mut stored = 0.0;
    for replica in &replicas {
        let here = http::metric(replica.admin, r#"convoke_deliveries_total{outcome="stored"}"#).await;
        assert!(here > 0.0, "each has stored something");
        stored += here;
    }
    assert_eq!(stored, rows as f64);
    let js = nats.jetstream().await;
    // Nobody died: there is no second copy of anything.
    assert_eq!(stream_holds(&js, rows, LONG_TIMEOUT).await.len(), rows);
    for load in &loads {
        nothing_is_lost(&replicas[0], &js, &load.ledger).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_moves_the_relay_within_ten_seconds_of_its_owners_death_or_sleep_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let url = postgres.url();
    let mut replicas = replicas(3, &url, &nats.url()).await;
    // The load goes to one that has no relay and is left alone: what is tested is the relay.
    let ingest = convoke(&url, "none").start().await;
    ingest.wait_ready(TEN).await;
    let mut load = Load::steady(ingest.events, 42);
    for signal in [Signal::KILL, Signal::STOP] {
        load.proceeds(50).await;
        let victim = owner(&url, &replicas).await;
        let id = replicas[victim].id();
        replicas[victim].signal(signal);
        let (position, _) = relay(&url);
        moves_on(&url, position, id).await;
        load.proceeds(20).await;
        if signal == Signal::KILL {
            replicas[victim].restart().await;
        } else {
            // It wakes up in the middle of whatever it did, long after its lease ended: the position does not go back, and
            // nothing that it still had to publish gets into the stream behind newer events.
            let (asleep, _) = relay(&url);
            replicas[victim].signal(Signal::CONT);
            load.proceeds(50).await;
            assert!(relay(&url).0 >= asleep);
        }
        replicas[victim].wait_ready(TEN).await;
    }
    load.stop().await;
    nothing_is_lost(&replicas[0], &nats.jetstream().await, &load.ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_moves_the_relay_when_its_owner_reaches_the_bus_or_the_database_no_more_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let url = postgres.url();
    let (database, bus) = (Proxy::start(postgres.address()), Proxy::start(nats.address()));
    let through = format!("postgres://postgres@{}/postgres", database.address());
    let one = convoke(&through, &format!("nats://{}", bus.address())).start().await;
    one.wait_ready(TEN).await;
    let mut two = convoke(&url, &nats.url()).start().await;
    two.wait_ready(TEN).await;
    let ingest = convoke(&url, "none").start().await;
    ingest.wait_ready(TEN).await;
    let mut load = Load::steady(ingest.events, 43);
    for network in [&bus, &database] {
        load.proceeds(20).await;
        eventually("the first owns the relay", TEN, async || relay(&url).1 == Some(one.id())).await;
        network.stall();
        let (position, _) = relay(&url);
        moves_on(&url, position, one.id()).await;
        network.heal();
        one.wait_ready(LONG_TIMEOUT).await;
        load.proceeds(20).await;
        // And back: one that ends in order leaves the relay to another at once.
        two.signal(Signal::TERM);
        assert!(two.wait_exit(TEN).await.success());
        eventually("the first goes on", TEN, async || relay(&url).1 == Some(one.id())).await;
        two.restart().await;
        two.wait_ready(TEN).await;
    }
    load.stop().await;
    nothing_is_lost(&two, &nats.jetstream().await, &load.ledger).await;
    assert!(lines_with(&two, "another replica holds the lease of this cursor") > 0, "{}", two.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_goes_on_although_the_databases_clock_was_set_back() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let url = postgres.url();
    let replica = replicas(1, &url, &nats.url()).await.remove(0);
    deliver(&replica, 0..3).await;
    let js = nats.jetstream().await;
    stream_holds(&js, 3, TEN).await;
    // As a lease looks that was taken before the clock was set back by an hour, by a process that is no more.
    postgres.psql("UPDATE cursors SET lease_owner = 'gone-1-0', lease_until = clock_timestamp() + interval '1 hour'");
    deliver(&replica, 3..6).await;
    let ids: HashSet<String> = stream_holds(&js, 6, TEN).await.iter().map(|m| m.event_id().to_owned()).collect();
    assert_eq!(ids.len(), 6);
    // Its position follows what was acknowledged.
    eventually("it holds the lease again", TEN, async || relay(&url).1 == Some(replica.id())).await;
}
