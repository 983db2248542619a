//! A JetStream cluster of three nodes, of which one dies and comes back while the platform goes on.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use futures_util::future::join_all;

use crate::support::{
    nats::{NatsOptions, NatsServer, NatsVersion},
    port::Port,
    postgres::{Postgres, psql},
    process::Convoke,
    rig::*,
    wait::{eventually, stretched},
};

/// Three servers that form one JetStream.
struct Cluster {
    nodes: Vec<NatsServer>,
    _routes: Vec<Port>,
}

impl Cluster {
    async fn start() -> Self {
        let routes: Vec<Port> = (0..3).map(|_| Port::lease()).collect();
        let others: Vec<String> = routes.iter().map(|port| format!("\"nats://{}\"", port.address())).collect();
        let options = |number: usize| NatsOptions {
            config: format!(
                "server_name: {}\ncluster {{ name: convoke, listen: \"{}\", routes: [{}] }}\n",
                name(number),
                routes[number].address(),
                others.join(", ")
            ),
            ..NatsOptions::default()
        };
        let nodes = join_all((0..3).map(|number| NatsServer::start(NatsVersion::Newest, options(number)))).await;
        Self { nodes, _routes: routes }
    }

    fn url(&self) -> String {
        self.nodes.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    async fn jetstream(&self) -> jetstream::Context {
        let client = eventually("a node takes connections", TEN, async || {
            let servers: Vec<String> = self.nodes.iter().map(NatsServer::url).collect();
            async_nats::connect(servers).await
        })
        .await;
        jetstream::new(client)
    }
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

/// The stream as its leader sees it.
async fn info(jetstream: &jetstream::Context) -> stream::Info {
    eventually("the stream has a leader", LONG_TIMEOUT, async || {
        let stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        let info = stream.cached_info().clone();
        let led = info.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some());
        if led { Ok(info) } else { Err("no leader".to_owned()) }
    })
    .await
}

/// The number of the node that leads the stream, and of one that does not.
async fn roles(jetstream: &jetstream::Context) -> (usize, usize) {
    let leader = info(jetstream).await.cluster.and_then(|cluster| cluster.leader);
    let leads = |number: &usize| leader.as_deref() == Some(name(*number).as_str());
    let leading = (0..3).find(leads).expect("one of ours");
    (leading, (leading + 1) % 3)
}

/// Waits until every copy of the stream has everything.
async fn all_current(jetstream: &jetstream::Context) {
    eventually("every node has the whole stream", LONG_TIMEOUT, async || {
        let replicas = info(jetstream).await.cluster.map(|cluster| cluster.replicas).unwrap_or_default();
        let current = replicas.len() == 2 && replicas.iter().all(|replica| replica.current && !replica.offline);
        if current { Ok(()) } else { Err(format!("{replicas:?}")) }
    })
    .await;
}

/// How long it takes until the relay moves past where the log ends now.
async fn relayed_after(database: &str) -> Duration {
    let since = Instant::now();
    let end: i64 = psql(database, "SELECT coalesce(max(seq), 0) FROM events").parse().expect("a number");
    eventually("the relay goes on", LONG_TIMEOUT, async || {
        let position: i64 = psql(database, "SELECT max(position) FROM cursors").parse().expect("a number");
        if position > end { Ok(()) } else { Err(format!("{position} of {end}")) }
    })
    .await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_three_may_die_and_come_back_under_load() {
    let (mut cluster, postgres) = tokio::join!(Cluster::start(), Postgres::start());
    let url = postgres.url();
    let bus = cluster.url();
    let replica = || convoke(&url, &bus).setting("NATS_REPLICAS", "3").start();
    let (one, two): (Convoke, Convoke) = tokio::join!(replica(), replica());
    one.wait_ready(TEN).await;
    two.wait_ready(TEN).await;
    let (mut load, mut other) = (Load::steady(one.events, 61), Load::steady(two.events, 62));
    relayed_after(&url).await;
    assert_eq!(info(&cluster.jetstream().await).await.config.num_replicas, 3, "the stream is made as it is configured");

    for (round, leads) in [(0, true), (1, false), (2, true)] {
        let js = cluster.jetstream().await;
        all_current(&js).await;
        let (leader, follower) = roles(&js).await;
        let victim = if leads { leader } else { follower };
        let accepted = load.acknowledged();
        cluster.nodes[victim].kill().await;
        let took = relayed_after(&url).await;
        assert!(took < stretched(Duration::from_secs(20)), "round {round}: the relay was silent for {took:?}");
        // Ingest did not wait for any of that.
        assert!(load.acknowledged() > accepted);
        cluster.nodes[victim].restart().await;
        load.proceeds(50).await;
        relayed_after(&url).await;
    }
    // Without a second node there is no stream to publish to; the log is all that is needed.
    cluster.nodes[0].kill().await;
    cluster.nodes[1].kill().await;
    load.proceeds(100).await;
    for node in &mut cluster.nodes[..2] {
        node.restart().await;
    }
    relayed_after(&url).await;
    load.stop().await;
    other.stop().await;
    let js = cluster.jetstream().await;
    all_current(&js).await;
    nothing_is_lost(&one, &js, &load.ledger).await;
    nothing_is_lost(&one, &js, &other.ledger).await;
    for replica in [&one, &two] {
        for alarm in ["lost its newest", "was deleted", "differs from the settings"] {
            assert_eq!(lines_with(replica, alarm), 0, "{}", replica.logs());
        }
    }
}
