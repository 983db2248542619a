//! Several owners of the relay's lease.

use super::*;

on_both_versions! {
    an_owner_that_slept_through_its_lease_does_no_harm
    another_replica_goes_on_within_ten_seconds_of_the_owners_death
    two_replicas_keep_each_event_once_and_the_stream_in_order
}

/// Two replicas on one PostgreSQL and one bus, and the one that owns the relay first.
async fn replicas(version: NatsVersion) -> (NatsServer, Postgres, Convoke, Convoke) {
    let (nats, postgres) = tokio::join!(NatsServer::start(version, NatsOptions::default()), Postgres::start());
    let (url, bus) = (postgres.url(), nats.url());
    let one = convoke(&url, &bus).start().await;
    one.wait_ready(TEN).await;
    eventually("the first owns the relay", TEN, async || owner(&url).ends_with_process(one.id())).await;
    let two = convoke(&url, &bus).start().await;
    two.wait_ready(TEN).await;
    (nats, postgres, one, two)
}

struct Owner(String);

impl Owner {
    /// The name of an owner has the id of its process in it, second last.
    fn ends_with_process(&self, id: u32) -> bool {
        self.0.rsplit('-').nth(1) == Some(&id.to_string())
    }
}

fn owner(database: &str) -> Owner {
    Owner(psql(database, "SELECT coalesce(max(lease_owner), '') FROM cursors WHERE name = 'bus'"))
}

async fn an_owner_that_slept_through_its_lease_does_no_harm(version: NatsVersion) {
    let (nats, postgres, mut one, two) = replicas(version).await;
    let mut load = Load::steady(two.events, 4);
    load.proceeds(100).await;
    one.signal(Signal::STOP);
    let asleep = position(&postgres.url());
    eventually("the other goes on", TEN, async || {
        owner(&postgres.url()).ends_with_process(two.id()) && position(&postgres.url()) > asleep
    })
    .await;
    load.proceeds(100).await;
    one.signal(Signal::CONT);
    load.proceeds(200).await;
    // And the same again, the other way round if the lease has changed hands.
    one.signal(Signal::STOP);
    load.proceeds(50).await;
    one.signal(Signal::CONT);
    load.proceeds(50).await;
    load.stop().await;
    nothing_is_lost(&two, &nats.jetstream().await, &load.ledger).await;
}

async fn another_replica_goes_on_within_ten_seconds_of_the_owners_death(version: NatsVersion) {
    let (nats, postgres, mut one, two) = replicas(version).await;
    deliver(&one, 0..5).await;
    let js = nats.jetstream().await;
    stream_holds(&js, 5, TEN).await;
    one.kill().await;
    let samples = deliver(&two, 5..10).await;
    let messages = stream_holds(&js, 10, TEN).await;
    assert_eq!(ids(&messages[5..]), sample_ids(&samples));
    assert!(owner(&postgres.url()).ends_with_process(two.id()));
}

async fn two_replicas_keep_each_event_once_and_the_stream_in_order(version: NatsVersion) {
    let (nats, postgres, one, two) = replicas(version).await;
    // The same world, delivered to both: every event is a duplicate of the other's.
    let base = convoke_core::time::Millis::new(1_790_000_000_000);
    let simulation =
        |convoke: &Convoke| Simulation { meetings: 40, connections: 6, base, ..Load::simulation(convoke.events, 5) };
    let (mut load, mut same) = (Load::start(simulation(&one)), Load::start(simulation(&two)));
    let (report, _) = tokio::join!(load.finish(), same.finish());
    let rows = psql(&postgres.url(), "SELECT count(*) || '/' || count(DISTINCT event_id) FROM events");
    assert_eq!(rows, format!("{0}/{0}", report.acknowledged));
    let stored = http::metric(one.admin, r#"convoke_deliveries_total{outcome="stored"}"#).await
        + http::metric(two.admin, r#"convoke_deliveries_total{outcome="stored"}"#).await;
    assert_eq!(stored, report.acknowledged as f64);
    let js = nats.jetstream().await;
    let messages = stream_holds(&js, report.acknowledged as usize, LONG_TIMEOUT).await;
    assert_eq!(messages.len(), report.acknowledged as usize);
    nothing_is_lost(&one, &js, &load.ledger).await;
    nothing_is_lost(&two, &js, &same.ledger).await;
}
