//! A new version, or new settings, replica by replica, while the platform goes on: behind a load balancer that sends
//! requests only to those that say they are ready.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::*;

/// How often the load balancer asks.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    answered: u32,
    kept_alive: u32,
    wrong: Vec<String>,
}

/// One request on an open connection; the answer, empty if there was none.
async fn exchange(stream: &mut TcpStream, number: u32) -> String {
    let body = Sample::number(number).body();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
        return String::new();
    }
    let mut answer = Vec::new();
    // The answers to events have no body.
    while !answer.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut answer).await, Ok(1..)) {}
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends events, each on the connection of the one before for as long as the server leaves it open, else on a new one to a
/// ready replica.
async fn client(first: u32, ready: Arc<Mutex<Vec<SocketAddr>>>, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut kept: Option<TcpStream> = None;
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut stream = match kept.take() {
            Some(stream) => {
                seen.kept_alive += 1;
                stream
            }
            None => {
                let to = {
                    let ready = ready.lock().expect("not poisoned");
                    ready[number as usize % ready.len()]
                };
                match TcpStream::connect(to).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        seen.wrong.push(format!("{number}: no connection: {error}"));
                        continue;
                    }
                }
            }
        };
        let answer = exchange(&mut stream, number).await;
        if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n") {
            seen.answered += 1;
            if !answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
                kept = Some(stream);
            }
        } else {
            seen.wrong.push(format!("{number}: {answer:?}"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_and_cuts_no_request_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let url = postgres.url();
    let start = || convoke(&url, &nats.url()).setting("SHUTDOWN_DELAY", "1s").start();
    let mut replicas = join_all((0..3).map(|_| start())).await;
    join_all(replicas.iter().map(|replica| replica.wait_ready(LONG_TIMEOUT))).await;

    let ready = Arc::new(Mutex::new(listeners(&replicas)));
    let stop = Arc::new(AtomicBool::new(false));
    let balancer = {
        let (ready, all) = (Arc::clone(&ready), listeners(&replicas));
        tokio::spawn(async move {
            loop {
                let asked = join_all(all.iter().map(|to| async move {
                    let answer = http::try_get(&format!("http://{to}/readyz")).await;
                    answer.is_ok_and(|answer| answer.status == 200).then_some(*to)
                }));
                *ready.lock().expect("not poisoned") = asked.await.into_iter().flatten().collect();
                tokio::time::sleep(ASKED_EVERY).await;
            }
        })
    };
    let mut clients = JoinSet::new();
    for number in 0..8 {
        clients.spawn(client(number * 100_000, Arc::clone(&ready), Arc::clone(&stop)));
    }
    for replica in &mut replicas {
        replica.signal(Signal::TERM);
        assert!(replica.wait_exit(LONG_TIMEOUT).await.success());
        assert_eq!(lines_with(replica, "shutdown_timeout has passed"), 0, "{}", replica.logs());
        replica.restart().await;
        replica.wait_ready(LONG_TIMEOUT).await;
        let address = replica.events;
        eventually("it is sent requests again", TEN, async || ready.lock().expect("not poisoned").contains(&address))
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    let seen = clients.join_all().await;
    balancer.abort();

    let wrong: Vec<&String> = seen.iter().flat_map(|seen| &seen.wrong).collect();
    assert!(wrong.is_empty(), "{} requests: {wrong:#?}", wrong.len());
    let (answered, kept_alive) = seen.iter().fold((0, 0), |sum, seen| (sum.0 + seen.answered, sum.1 + seen.kept_alive));
    assert!(answered > 200 && kept_alive > answered / 2, "{answered} answered, {kept_alive} on kept connections");
    assert_eq!(postgres.psql("SELECT count(*), sum(deliveries) FROM events"), format!("{answered}|{answered}"));
    let messages = stream_holds(&nats.jetstream().await, answered as usize, LONG_TIMEOUT).await;
    assert_eq!(first_copies_in_log_order(&messages).len(), answered as usize);
    let (status, findings) = audit(&replicas[0], None).await;
    assert_eq!(status, 0, "{findings:#}");
}
