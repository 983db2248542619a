//! The end: announced, in order, within its time.

use super::*;

#[tokio::test]
async fn a_stop_is_announced_before_it_begins() {
    let mut service = Service::with(settings().setting("SHUTDOWN_DELAY", "5s"), Database::Sqlite).await;
    let (events, admin) = (service.convoke.events, service.convoke.admin);
    let mut kept = RawConnection::open(events).await;
    service.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    eventually("it is not ready any more", WAIT_TIMEOUT, async || {
        http::get(&format!("http://{events}/readyz")).await.status == 503
    })
    .await;
    assert_eq!(http::get(&format!("http://{admin}/readyz")).await.status, 503);
    assert_eq!(http::get(&format!("http://{admin}/livez")).await.status, 200);
    // Events are still taken, on new and on kept connections, and each answer asks for another connection.
    service.acknowledged(&event("meeting.join", "1")).await;
    let body = signed(&event("meeting.join", "2"));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    kept.send(&[head.as_bytes(), &body].concat()).await;
    let answer = String::from_utf8(kept.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(service.convoke.exited().is_none(), "all of this was before it began: {:?}", begun.elapsed());
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(service.count("events"), 2);
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_end() {
    let postgres = Postgres::start().await;
    let proxy = Proxy::start(postgres.address());
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let mut service =
        Service::with(settings().setting("DATABASE_URL", url), Database::Postgres(Box::new(postgres))).await;
    // One waits for the database, one is still being sent.
    let body = signed(&event("meeting.join", "1"));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut half = RawConnection::open(service.convoke.events).await;
    half.send(&[head.as_bytes(), &body[..20]].concat()).await;
    proxy.stall();
    let stored = http::post(service.convoke.events, PATH, signed(&event("meeting.join", "2")), &[]);
    let story = async {
        eventually("it is in the writer's hands", WAIT_TIMEOUT, async || {
            service.metric("convoke_signature_form_total").await == 1.0
        })
        .await;
        service.convoke.signal(Signal::TERM);
        eventually("it takes no connections", WAIT_TIMEOUT, async || {
            tokio::net::TcpStream::connect(service.convoke.events).await.is_err()
        })
        .await;
        proxy.heal();
        half.send(&body[20..]).await;
        half.answer().await
    };
    let (stored, half) = tokio::join!(stored, story);
    assert_eq!(stored.status, 200);
    assert!(half.starts_with("HTTP/1.1 200 "), "{half}");
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert_eq!(service.count("events"), 2);
}

#[tokio::test]
async fn an_end_is_not_held_up_by_who_sends_nothing() {
    let mut service = Service::with(settings().setting("SHUTDOWN_TIMEOUT", "20s"), Database::Sqlite).await;
    let events = service.convoke.events;
    let silent = RawConnection::open(events).await;
    let mut begun_head = RawConnection::open(events).await;
    begun_head.send(b"POST /openapi/meeting").await;
    let mut idle = RawConnection::open(events).await;
    idle.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
    idle.answer().await;
    let mut http2 = RawConnection::open(events).await;
    http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut idle_head = RawConnection::open(events).await;
    idle_head.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
    idle_head.answer().await;
    idle_head.send(b"GET /live").await;
    eventually("all are accepted", WAIT_TIMEOUT, async || {
        http::get(&format!("http://{events}/livez")).await.status == 200
    })
    .await;
    service.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert!(begun.elapsed() < stretched(Duration::from_secs(3)), "{:?}", begun.elapsed());
    drop((silent, begun_head, idle, http2, idle_head));
}

#[tokio::test]
async fn an_end_that_takes_too_long_is_cut_short_by_its_timeout_or_by_a_second_signal() {
    let half_a_request = async |convoke: &Convoke| {
        let mut connection = RawConnection::open(convoke.events).await;
        connection.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{{").as_bytes()).await;
        eventually("it is being read", WAIT_TIMEOUT, async || {
            http::get(&format!("http://{}/livez", convoke.events)).await.status == 200
        })
        .await;
        connection
    };
    let mut bounded = Service::with(settings().setting("SHUTDOWN_TIMEOUT", "1s"), Database::Sqlite).await;
    let _under_way = half_a_request(&bounded.convoke).await;
    bounded.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(bounded.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(800) && took < stretched(Duration::from_secs(4)), "{took:?}");

    let mut forced = Service::start().await;
    let _under_way = half_a_request(&forced.convoke).await;
    forced.convoke.signal(Signal::INT);
    eventually("it stops", WAIT_TIMEOUT, async || forced.convoke.logs().contains("stopping")).await;
    forced.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(forced.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(1));
    assert!(begun.elapsed() < stretched(Duration::from_secs(3)), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn stops_and_starts_under_load_lose_nothing() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let builder = settings().setting("NATS_URL", nats.url()).setting("SHUTDOWN_DELAY", "300ms");
    let mut service = Service::with(builder, Database::Sqlite).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = folder.path().join("ledger");
    let simulation = Simulation {
        rate: Some(300.0),
        duration: Some(Duration::from_secs(4)),
        resign_retries: true,
        duplicates: 0.05,
        time_scale: 60.0,
        ledger: Some(ledger.clone()),
        ..Simulation::new(format!("http://{}{PATH}", service.convoke.events), APP_ID, KEY.into())
    };
    let stops = async {
        for n in 1..=2 {
            eventually("some events are in", WAIT_TIMEOUT, async || service.count("events") > n * 200).await;
            service.convoke.signal(Signal::TERM);
            assert_eq!(service.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(0));
            service.convoke.restart().await;
        }
    };
    let (report, ()) = tokio::join!(simulation.run(CancellationToken::new()), stops);
    let report = report.expect("a report");
    assert_eq!((report.given_up, report.unsettled, report.acknowledged), (0, 0, report.sent), "{report}");
    // Between a stop and a start there is nobody; nothing else went wrong.
    let kinds: Vec<_> = report.failures.keys().map(String::as_str).collect();
    assert!(kinds.iter().all(|kind| matches!(*kind, "connect" | "broken" | "status_503")), "{report}");
    let audit = service.convoke.run(&["audit", "--ledger", ledger.to_str().expect("a plain path")]).await;
    assert_eq!((audit.code(), audit.stdout.lines().last()), (0, Some("clean")), "{}", audit.stdout);
}

#[tokio::test]
async fn a_stop_under_load_cuts_no_answer_in_the_middle() {
    #[derive(Default)]
    struct Seen {
        whole: u64,
        nothing: u64,
        cut: Vec<String>,
    }
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut service = Service::with(settings().setting("SHUTDOWN_DELAY", "300ms"), Database::Sqlite).await;
    let events = service.convoke.events;
    let client = move |client: usize| async move {
        let mut seen = Seen::default();
        for n in 0.. {
            let Ok(mut stream) = tokio::net::TcpStream::connect(events).await else { break };
            // On one connection until it is closed.
            for m in 0.. {
                let body = signed(&event("meeting.join", &format!("{client}-{n}-{m}")));
                let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
                let mut answer = Vec::new();
                let sent = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                while !answer.ends_with(b"\r\n\r\n") {
                    match stream.read_buf(&mut answer).await {
                        Ok(1..) => {}
                        _ => break,
                    }
                }
                let text = String::from_utf8_lossy(&answer).into_owned();
                if text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n") {
                    seen.whole += 1;
                } else if text.is_empty() {
                    seen.nothing += 1;
                } else {
                    seen.cut.push(text.clone());
                }
                if sent.is_err() || text.is_empty() || text.contains("connection: close") {
                    break;
                }
            }
        }
        seen
    };
    let clients: Vec<_> = (0..8).map(|n| tokio::spawn(client(n))).collect();
    eventually("the load is on", WAIT_TIMEOUT, async || service.count("events") > 50).await;
    service.convoke.signal(Signal::TERM);
    assert_eq!(service.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(0));
    let mut whole = 0;
    for client in clients {
        let seen = client.await.expect("a client");
        whole += seen.whole;
        assert!(seen.cut.is_empty(), "{:?}", seen.cut);
        // At most the one that was on its way to a connection nobody accepted any more.
        assert!(seen.nothing <= 1, "{}", seen.nothing);
    }
    assert!(whole > 50);
    let deliveries: u64 = service.sql("SELECT sum(deliveries) FROM events").parse().expect("a number");
    assert!(deliveries >= whole, "{whole} acknowledged, {deliveries} kept");
}
