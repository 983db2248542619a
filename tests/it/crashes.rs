//! The promises while everything around the service dies, again and again, and the platform goes on delivering: an event
//! that was answered 200 is in the log once and reaches the stream, whose first copies stand in the log's order.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use convoke_core::sign;
use convoke_simulator::Simulation;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::soak::{self, Backend};
use crate::support::{
    disk::SmallDisk,
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::{Postgres, PostgresOptions, psql},
    process::Convoke,
    proxy::Proxy,
    rig::*,
    wait::eventually,
};

/// After a body is complete, an answer takes no longer; the rest is for a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_millis(3_400);

async fn newest_bus() -> NatsServer {
    NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await
}

/// The database's URL as it is to be used through the proxy.
fn through(proxy: &Proxy) -> String {
    format!("postgres://postgres@{}/postgres", proxy.address())
}

/// Delivers new events, one after the other, until `until` answers, and measures each: the statuses that were seen.
async fn every_answer_is_in_time(events: SocketAddr, first: u32, until: impl Future<Output = ()>) -> Vec<u16> {
    let mut statuses = Vec::new();
    let deliver = async {
        for number in first.. {
            let started = Instant::now();
            statuses.push(Sample::number(number).deliver(events).await);
            let took = started.elapsed();
            assert!(took < ANSWER_WITHIN, "an answer took {took:?}");
        }
    };
    tokio::select! {
        () = deliver => {}
        () = until => {}
    }
    statuses
}

async fn killed_again_and_again(database: &str) {
    let nats = newest_bus().await;
    let mut convoke = convoke(database, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let mut load = Load::steady(convoke.events, 11);
    for round in 0..6 {
        // Further and further into a run: while it takes the lease, while it catches up, while all is quiet.
        load.proceeds(10 + 40 * round).await;
        convoke.kill().await;
        convoke.restart().await;
    }
    load.proceeds(100).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_under_load_on_sqlite() {
    killed_again_and_again(SQLITE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_under_load_on_postgresql() {
    let postgres = Postgres::start().await;
    killed_again_and_again(&postgres.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgresql_is_answered_503_and_recovered_from_under_load() {
    let (nats, mut postgres) = tokio::join!(newest_bus(), Postgres::start());
    let convoke = convoke(&postgres.url(), &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let mut load = Load::steady(convoke.events, 12);
    for round in 0..3_u32 {
        load.proceeds(100).await;
        postgres.kill().await;
        let gone = async {
            let url = format!("http://{}/readyz", convoke.events);
            eventually("it is not ready", TEN, async || http::get(&url).await.status == 503).await;
        };
        let statuses = every_answer_is_in_time(convoke.events, round * 100_000, gone).await;
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
        assert_eq!(Sample::number(round * 100_000 + 99_999).deliver(convoke.events).await, 503);
        let refused = http::metric(convoke.admin, "convoke_not_accepting_seconds").await;
        assert!(refused >= 0.0);
        postgres.restart().await;
        convoke.wait_ready(TEN).await;
    }
    load.proceeds(100).await;
    load.stop().await;
    assert!(lines_with(&convoke, "cannot store events") <= 5, "{}", convoke.logs());
    let noise = convoke.logs().lines().filter(|line| !line.contains("\"INFO\"")).count();
    assert!(noise <= 45, "{noise} lines about three outages:\n{}", convoke.logs());
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_or_stalled_postgresql_is_answered_in_time_and_recovered_from_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let proxy = Proxy::start(postgres.address());
    let convoke = convoke(&through(&proxy), &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let mut load = Load::steady(convoke.events, 13);
    load.proceeds(100).await;
    // A connection that is cut once costs nobody anything.
    let before = http::metric(convoke.admin, "convoke_rejections_total").await;
    proxy.cut();
    proxy.heal();
    load.proceeds(100).await;
    let refused = http::metric(convoke.admin, "convoke_rejections_total").await - before;
    for (round, stall) in [(1_u32, true), (2, false), (3, true)] {
        if stall {
            proxy.stall();
        } else {
            proxy.cut();
        }
        let felt = async {
            metric_over(&convoke, "convoke_not_accepting_seconds", 3.0, LONG_TIMEOUT).await;
        };
        let statuses = every_answer_is_in_time(convoke.events, round * 100_000, felt).await;
        assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
        if round == 3 {
            // Connections that fell silent for good, as behind a firewall that forgot them.
            proxy.cut();
        }
        proxy.heal();
        convoke.wait_ready(TEN).await;
        load.proceeds(100).await;
    }
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
    assert!(refused <= 16.0, "{refused} deliveries were refused because of one lost connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_absent_at_the_start_is_waited_for_under_load() {
    let (nats, mut postgres) = tokio::join!(newest_bus(), Postgres::start());
    postgres.kill().await;
    let mut convoke = convoke(&postgres.url(), &nats.url()).start().await;
    let mut load = Load::steady(convoke.events, 14);
    assert_eq!(Sample::number(1).deliver(convoke.events).await, 503);
    assert_eq!(http::get(&format!("http://{}/readyz", convoke.events)).await.status, 503);
    assert_eq!(http::get(&format!("http://{}/livez", convoke.events)).await.status, 200);
    let shaken = sign::envelope(
        APP_ID,
        1_790_000_000_000,
        "1",
        br#"{"event":"meeting.verify","timestamp":1790000000000}"#,
        KEY.as_bytes(),
    );
    assert_eq!(http::post(convoke.events, PATH, shaken, &[]).await.status, 200);
    // It may be ended all the same, at once and well, and started again.
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(TEN).await.success());
    convoke.restart().await;
    let used = cpu_time(convoke.id());
    postgres.restart().await;
    convoke.wait_ready(TEN).await;
    load.proceeds(100).await;
    load.stop().await;
    assert!(cpu_time(convoke.id()) - used < TEN);
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_database_and_the_bus_stall_is_orderly_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let (database, bus) = (Proxy::start(postgres.address()), Proxy::start(nats.address()));
    let mut convoke = convoke(&through(&database), &format!("nats://{}", bus.address()))
        .setting("SHUTDOWN_TIMEOUT", "20s")
        .start()
        .await;
    convoke.wait_ready(TEN).await;
    let mut load = Load::steady(convoke.events, 15);
    for stalled in [true, false] {
        load.proceeds(100).await;
        for proxy in [&database, &bus] {
            if stalled {
                proxy.stall();
            } else {
                proxy.cut();
            }
        }
        metric_over(&convoke, "convoke_rejections_total", 0.0, TEN).await;
        convoke.signal(Signal::TERM);
        assert!(convoke.wait_exit(Duration::from_secs(22)).await.success());
        assert_eq!(lines_with(&convoke, "shutdown_timeout has passed"), 0, "it ended only because its time was over");
        database.heal();
        bus.heal();
        convoke.restart().await;
        convoke.wait_ready(TEN).await;
    }
    load.proceeds(100).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

/// Fills the file system at `path` to its last byte.
fn fill(path: &std::path::Path) -> std::path::PathBuf {
    use std::io::Write;
    let filler = path.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a small file fits");
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    filler
}

/// The disk is full, refuses, and has room again, twice, without anybody starting anything again.
async fn full_and_free_again(convoke: &Convoke, nats: &NatsServer, disk: &SmallDisk, mut load: Load) {
    for round in 0..2 {
        load.proceeds(100).await;
        let filler = fill(disk.path());
        let refusals = r#"convoke_rejections_total{reason="unavailable"}"#;
        let before = http::metric(convoke.admin, refusals).await;
        metric_over(convoke, refusals, before + 20.0, LONG_TIMEOUT).await;
        let url = format!("http://{}/readyz", convoke.events);
        eventually("it is not ready", TEN, async || http::get(&url).await.status == 503).await;
        let refused = Sample::number(round).deliver(convoke.events).await;
        assert_eq!(refused, 503);
        std::fs::remove_file(filler).expect("our own file");
        convoke.wait_ready(TEN).await;
        load.proceeds(100).await;
    }
    load.stop().await;
    nothing_is_lost(convoke, &nats.jetstream().await, &load.ledger).await;
    assert!(lines_with(convoke, "cannot store events") <= 10, "{}", convoke.logs());
    let noise = convoke.logs().lines().filter(|line| !line.contains("\"INFO\"")).count();
    assert!(noise <= 60, "{noise} lines about two outages:\n{}", convoke.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_sqlite_is_answered_503_and_recovered_from_under_load() {
    let Some(disk) = SmallDisk::mount(24 << 20) else { return };
    let nats = newest_bus().await;
    let database = format!("sqlite://{}", disk.path().join("convoke.db").display());
    let convoke = convoke(&database, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let free = http::metric(convoke.admin, "convoke_disk_free_bytes").await;
    assert!(free > 0.0 && free <= f64::from(24 << 20), "{free}");
    let load = Load::steady(convoke.events, 16);
    full_and_free_again(&convoke, &nats, &disk, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_postgresql_is_answered_503_and_recovered_from_under_load() {
    let Some(disk) = SmallDisk::mount(112 << 20) else { return };
    // Without spare room in its own log, and with tables that grow out of what there is.
    let settings = [("min_wal_size", "32MB"), ("max_wal_size", "48MB"), ("restart_after_crash", "on")];
    let options = PostgresOptions {
        within: Some(disk.path().to_owned()),
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    };
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start_with(options));
    let convoke = convoke(&postgres.url(), &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let load = Load::steady(convoke.events, 17);
    full_and_free_again(&convoke, &nats, &disk, load).await;
}

/// What `make soak` does, for some seconds.
async fn everything_fails_at_random(backend: Backend) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u32>);
    eprintln!("SEED={seed} repeats the order of these faults");
    match soak::run(backend, 120.0, Duration::from_secs(12), u64::from(seed), |line| eprintln!("{line}")).await {
        Ok(summary) => eprintln!("{summary}"),
        Err(kept) => panic!("not clean with SEED={seed}; everything is kept in {}", kept.display()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_everything_fails_at_random_under_load_on_sqlite() {
    everything_fails_at_random(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_everything_fails_at_random_under_load_on_two_replicas() {
    everything_fails_at_random(Backend::Postgres).await;
}

/// Copies of one event on many connections at once, to all of these listeners.
async fn copies_at_once(listeners: &[SocketAddr], number: u32) -> Vec<u16> {
    let mut copies = JoinSet::new();
    for copy in 0..40 {
        let (sample, to) = (Sample::number(number), listeners[copy % listeners.len()]);
        copies.spawn(async move { sample.deliver(to).await });
    }
    copies.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_copies_under_load_exactly_one_is_stored() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let (url, bus) = (postgres.url(), nats.url());
    let (one, two) = tokio::join!(convoke(&url, &bus).start(), convoke(&url, &bus).start());
    let embedded = convoke(SQLITE, &bus).setting("NATS_URL", "none").start().await;
    for (services, listeners) in
        [(vec![&embedded], vec![embedded.events]), (vec![&one, &two], vec![one.events, two.events])]
    {
        for service in &services {
            service.wait_ready(TEN).await;
        }
        for number in 0..5 {
            assert_eq!(copies_at_once(&listeners, number).await, [200; 40]);
        }
        let (mut stored, mut duplicate) = (0.0, 0.0);
        for service in services {
            stored += http::metric(service.admin, r#"convoke_deliveries_total{outcome="stored"}"#).await;
            duplicate += http::metric(service.admin, r#"convoke_deliveries_total{outcome="duplicate"}"#).await;
        }
        assert_eq!((stored, duplicate), (5.0, 195.0));
    }
    assert_eq!(psql(&url, "SELECT count(*), sum(deliveries) FROM events"), "5|200");
    let rows = sqlite(embedded.folder(), "SELECT count(*) || '|' || sum(deliveries) FROM events").await;
    assert_eq!(rows, [[Some("5|200".to_owned())]]);
    assert_eq!(stream_holds(&nats.jetstream().await, 5, TEN).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_events_leaves_nothing_behind_under_load() {
    let nats = newest_bus().await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let simulation = Simulation { meetings: 40, connections: 4, ..Load::simulation(convoke.events, 18) };
    let mut load = Load::start(simulation);
    let mut flood = JoinSet::new();
    for attacker in 0..4_u32 {
        let events = convoke.events;
        flood.spawn(async move {
            for number in 0_u32.. {
                let forged = Sample::of("meeting.join", attacker * 1_000_000 + number, "666", "Forged");
                let body = sign::envelope(APP_ID, 1_790_000_000_000, "1", forged.info.as_bytes(), b"guessed");
                assert_eq!(http::post(events, PATH, body, &[]).await.status, 401);
            }
        });
    }
    let report = tokio::select! {
        report = load.finish() => report,
        Some(ended) = flood.join_next() => panic!("the flood ended: {ended:?}"),
    };
    flood.shutdown().await;
    assert!(report.failures.is_empty(), "{report}");
    let forged = http::metric(convoke.admin, r#"convoke_rejections_total{reason="signature"}"#).await;
    assert!(forged > 100.0, "only {forged} forged events");
    let kept = "SELECT (SELECT count(*) FROM events WHERE meeting_id = '666' OR event_info LIKE '%Forged%')
                    || '/' || (SELECT count(*) FROM quarantine)";
    assert_eq!(sqlite(convoke.folder(), kept).await, [[Some("0/0".to_owned())]]);
    let lines = lines_with(&convoke, "refused a delivery");
    assert!(lines <= 60, "{lines} lines about {forged} forged events");
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
    assert!(!convoke.logs().contains("Forged"));
}
