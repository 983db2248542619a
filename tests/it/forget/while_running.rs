//! Forgetting while a service, or several, go on.

use std::{sync::Arc, time::Duration};

use convoke::{
    audit::{
        mark::Setback,
        watch::{CheckOutcome, StreamMetrics, StreamWatch},
    },
    metrics::{Label as _, Registry},
};
use convoke_bus::{self as bus, Bus};
use serde_json::json;

use super::person::{ADA, deliver, dump, event, forget_ada, meetings, no_secret, settled};
use crate::{
    log_contract::fixture::Backend,
    replicas::{newest_bus, replicas},
    support::{
        postgres::Postgres,
        rig::{LONG_TIMEOUT, Load, STREAM, TEN, convoke, nothing_is_lost, read_stream, stream_holds},
    },
};

pub async fn what_was_not_published_yet_never_is(backend: Backend) {
    let nats = newest_bus().await;
    let off = convoke(&backend.url, "none").start().await;
    off.wait_ready(LONG_TIMEOUT).await;
    let infos = meetings();
    deliver(&off, &backend, &infos).await;
    assert_eq!(forget_ada(&off, &[]).await["erased"]["events"], 6);
    drop(off);
    let on = convoke(&backend.url, &nats.url()).start().await;
    on.wait_ready(LONG_TIMEOUT).await;
    let messages = stream_holds(&nats.jetstream().await, infos.len() - 6, LONG_TIMEOUT).await;
    settled(&backend).await;
    assert_eq!(messages.len(), infos.len() - 6);
    for message in messages {
        no_secret("the stream", &message.body);
    }
    let (code, findings) = crate::support::rig::audit(&on, None).await;
    assert_eq!((code, &findings["stream"]["forgotten"]), (0, &json!(6)), "{findings:#}");
}

pub async fn the_stream_watch_and_the_audit_take_it_for_no_loss(backend: Backend) {
    let nats = newest_bus().await;
    let mut service = convoke(&backend.url, &nats.url()).start().await;
    service.wait_ready(LONG_TIMEOUT).await;
    // The stream's first message and its last are Ada's, too.
    let mut infos = ADA.stay("11", -50, -40).to_vec();
    infos.extend(meetings());
    infos.extend(ADA.stay("22", 2_000, 2_100));
    deliver(&service, &backend, &infos).await;
    let js = nats.jetstream().await;
    stream_holds(&js, infos.len(), LONG_TIMEOUT).await;
    service.signal(rustix::process::Signal::TERM);
    assert!(service.wait_exit(LONG_TIMEOUT).await.success());

    let log = backend.open();
    let metrics = StreamMetrics::new(&Registry::default());
    let bus = Arc::new(Bus::connect(options(&nats.url())).await.expect("a bus"));
    bus.wait_connected(TEN).await.expect("a connection");
    let mut watch = StreamWatch::new(log.clone(), Arc::clone(&bus), metrics.clone(), "us".to_owned(), None, 0);
    let hour = Duration::from_secs(3_600);
    assert!(log.lease("bus", "us", hour).await.expect("a database").is_some());
    assert_eq!(watch.look(LONG_TIMEOUT).await.expect("it can be read"), CheckOutcome::Done);
    log.release("bus", "us").await.expect("released");

    let report = forget_ada(&service, &[]).await;
    assert_eq!(report["erased"]["messages"], 10);
    let check = service.run(&["check"]).await;
    assert!(!check.stdout.contains("FAIL  stream"), "{}", check.stdout);
    assert!(log.lease("bus", "us", hour).await.expect("a database").is_some());
    assert_eq!(watch.look(LONG_TIMEOUT).await.expect("it can be read"), CheckOutcome::Done);
    for kind in [Setback::Recreated, Setback::Backwards, Setback::Purged, Setback::Deleted] {
        assert_eq!(metrics.setbacks.of(kind).get(), 0, "{}", kind.as_str());
    }
    assert_eq!((metrics.missing.get(), metrics.unknown.get()), (0, 0));

    // One that somebody deletes is still a loss.
    let stream = js.get_stream(STREAM).await.expect("the stream");
    let bobs = read_stream(&js, STREAM).await[3].stream_sequence;
    stream.delete_message(bobs).await.expect("deleted");
    assert_eq!(watch.look(LONG_TIMEOUT).await.expect("it can be read"), CheckOutcome::Done);
    assert_eq!((metrics.setbacks.of(Setback::Deleted).get(), metrics.missing.get()), (1, 1));
}

fn options(url: &str) -> bus::Options {
    bus::Options::new(url, STREAM, "meetings")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_go_on_under_load_and_publish_nothing_that_was_forgotten() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let backend =
        Backend { url: postgres.url(), folder: tempfile::tempdir().expect("a folder"), postgres: Some(postgres) };
    let replicas = replicas(2, &backend.url, &nats.url()).await;
    let mut load = Load::steady(replicas[0].events, 77);
    load.proceeds(50).await;
    let js = nats.jetstream().await;
    for round in 0..3 {
        // What has just been delivered, to both, may be anywhere: in the log, in memory, on its way to the stream.
        for n in 0..20 {
            let at = round * 10_000 + n * 100;
            let to = &replicas[usize::from(n % 2 == 0)];
            for (nonce, info) in (1..).zip(ADA.stay("77", at, at + 50)) {
                let body = super::person::body(nonce, &info);
                let answer = crate::support::http::post(to.events, crate::support::rig::PATH, body, &[]).await;
                assert_eq!(answer.status, 200);
            }
        }
        let report = forget_ada(&replicas[1], &[]).await;
        assert_eq!(report["erased"]["events"], 40, "{report:#}");
    }
    load.proceeds(50).await;
    let report = load.stop().await;
    assert_eq!(report.given_up, 0, "{report}");
    // A mark at the end of the log: what is behind it in memory is published, if it ever is.
    let last = event("88", "meeting.started", 0, "");
    deliver(&replicas[0], &backend, &[last]).await;
    nothing_is_lost(&replicas[0], &js, &load.ledger).await;
    for message in read_stream(&js, STREAM).await {
        no_secret("the stream", &message.body);
    }
    no_secret("the database", &dump(&backend).await);
    for replica in &replicas {
        no_secret("a service's log", &replica.logs());
    }
}
