//! What throughput does not show: a burst, the latency from receipt to stream, the start-up time, and the idle memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer;
use convoke_core::sign;
use convoke_core::time::{Clock, Millis};
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::machine;
use crate::run::{self, Bench, Case, messages};
use crate::servers::{APP_ID, KEY, PATH};

/// Everyone leaves an all-hands meeting.
const BURST: usize = 2_000;
/// Connections of the burst, opened before it begins.
const BURST_CONNECTIONS: usize = 512;

/// Events per second while the latency to the stream is measured.
const STREAM_RATE: f64 = 1_000.0;

/// How long the database is filled before the start-up is measured.
const BEFORE_START: Duration = Duration::from_secs(3);

/// Milliseconds from the first byte sent: until the last response, and until the last event is in the stream.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Burst {
    pub acknowledged_ms: f64,
    pub in_stream_ms: f64,
}

pub async fn burst(bench: &mut Bench, case: Case) -> Burst {
    let mut setup = bench.start(case).await;
    let bus = jetstream::new(setup.nats.as_ref().expect("a case with a bus").client().await);
    let before =
        run::load(&setup.server.url(), 64, None, Duration::from_millis(500), Duration::from_secs(86_400)).await;
    run::drained(&bus, before.acknowledged).await;
    let requests = (0..BURST).map(leaving).collect();
    let started = send_all(setup.server.events(), requests, BURST_CONNECTIONS).await;
    let acknowledged_ms = started.elapsed().as_secs_f64() * 1e3;
    run::drained(&bus, before.acknowledged + BURST as u64).await;
    let in_stream_ms = started.elapsed().as_secs_f64() * 1e3;
    setup.server.stop().await;
    Burst { acknowledged_ms, in_stream_ms }
}

/// Sends all requests over `over` connections, which are opened first. A connection sends the next request after a response
/// with status 200. Returns the start time.
pub async fn send_all(to: SocketAddr, requests: Vec<Vec<u8>>, over: usize) -> Instant {
    let mut connections = Vec::new();
    for _ in 0..over {
        let stream = TcpStream::connect(to).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        connections.push(stream);
    }
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut stream in connections {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        tasks.spawn(async move {
            let mut answer = [0; 1024];
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                stream.write_all(request).await.expect("a request is taken");
                let read = stream.read(&mut answer).await.expect("an answer");
                assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "not acknowledged");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no connection fails");
    }
    started
}

/// The request for the `n`th person leaving.
pub fn leaving(n: usize) -> Vec<u8> {
    let now = Clock::System.now().get();
    let info = format!(
        r#"{{"event":"meeting.left","timestamp":{now},"payload":{{"meetingInfo":{{"meetingID":"987446316","meetingUUID":"0f0e0d0c0b0a09080706050403020100"}},"attendeeInfo":{{"userUUID":"{n:032x}","userAgent":"WeLink-desktop","account":"all.hands.{n}","participantID":"{n:032x}","displayName":"王小明 {n}","joinTime":{now},"leftTime":{now},"role":"GUEST","callNumber":"+86571{n:011}"}}}}}}"#
    );
    request(&info)
}

/// A request that delivers this `eventInfo`, signed now.
pub fn request(info: &str) -> Vec<u8> {
    let now = Clock::System.now().get();
    let body = sign::envelope(APP_ID, now, "10203040", info.as_bytes(), KEY.as_bytes());
    let mut request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

/// Milliseconds from a complete body to the message at a consumer of the stream: queue, commit, relay, stream and
/// delivery to the consumer. So it is more than the time from commit to stream.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stream {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

pub async fn stream(bench: &mut Bench, case: Case) -> Stream {
    #[derive(Deserialize)]
    struct Received {
        recordedtime: String,
    }
    let mut setup = bench.start(case).await;
    let client = setup.nats.as_ref().expect("a case with a bus").client().await;
    let bus = jetstream::new(client);
    let seconds = Duration::from_secs_f64(bench.options.seconds);
    let warmed =
        run::load(&setup.server.url(), 64, Some(STREAM_RATE), Duration::from_secs(1), Duration::from_secs(86_400))
            .await;
    run::drained(&bus, warmed.acknowledged).await;
    let stream = bus.get_stream("MEETINGS").await.expect("the stream");
    let config = consumer::push::OrderedConfig {
        deliver_policy: consumer::DeliverPolicy::New,
        deliver_subject: "_INBOX.bench".to_owned(),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let mut received = consumer.messages().await.expect("a consumer");
    let (done, mut finished) = tokio::sync::oneshot::channel::<()>();
    let listening = tokio::spawn(async move {
        let mut histogram = Histogram::<u64>::new(3).expect("sound bounds");
        loop {
            let message = tokio::select! {
                message = received.next() => message.expect("an endless stream").expect("a message"),
                _ = &mut finished => return histogram,
            };
            let now = Clock::System.now();
            let event: Received = serde_json::from_slice(&message.payload).expect("a CloudEvent");
            let recorded = Millis::parse(&event.recordedtime).expect("a time");
            histogram.saturating_record(u64::try_from(now.since(recorded).as_millis()).unwrap_or(u64::MAX));
        }
    });
    let report = run::load(&setup.server.url(), 64, Some(STREAM_RATE), seconds, Duration::ZERO).await;
    run::drained(&bus, warmed.acknowledged + report.acknowledged).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    done.send(()).expect("the listener");
    let histogram = listening.await.expect("the listener");
    assert!(histogram.len() >= report.acknowledged, "{} of {} were seen", histogram.len(), report.acknowledged);
    setup.server.stop().await;
    let at = |quantile| run::count(histogram.value_at_quantile(quantile));
    Stream { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999) }
}

/// A start on a database that is not empty, and the memory before the first event.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Start {
    pub ready_ms: f64,
    pub idle_mb: f64,
}

pub async fn start(bench: &mut Bench, case: Case) -> Start {
    let mut setup = bench.start(case).await;
    let bus = jetstream::new(setup.nats.as_ref().expect("a case with a bus").client().await);
    let report = run::load(&setup.server.url(), 64, None, BEFORE_START, Duration::ZERO).await;
    run::drained(&bus, report.acknowledged).await;
    let mut ready = Vec::new();
    for _ in 0..5 {
        setup.server.stop().await;
        ready.push(setup.server.start().await.as_secs_f64() * 1e3);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(messages(&bus).await, report.acknowledged, "nothing is published twice");
    let (idle_mb, _) = machine::memory(setup.server.id());
    setup.server.stop().await;
    Start { ready_ms: crate::statistics::median(&mut ready), idle_mb }
}
