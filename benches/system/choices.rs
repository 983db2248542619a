//! The measurements behind Convoke's constants: batch sizes, writers, linger, the key, the relay's window.
//!
//! This is a copy of the loop of `intake` with its choices as parameters, over the same back ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use convoke_bus::{self as bus, Behind, Bus, Message};
use convoke_core::event::{Delivery, Subscriber, Verified};
use convoke_core::sign;
use convoke_core::time::Clock;
use convoke_core::verify::{self, Keyring};
use convoke_log::{self as log, Append, Store};
use secrecy::SecretString;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::run::{self, Bench};
use crate::servers::{APP_ID, KEY, disk};
use crate::statistics::median;

/// Senders that wait for the response before they send again, like 256 connections.
pub const SENDERS: usize = 256;

/// The parameters.
#[derive(Clone, Copy, Debug)]
struct Choice {
    cap: usize,
    writers: usize,
    linger: Duration,
    /// Whether the key starts with the time of the event, or is random.
    time_led: bool,
}

const CHOSEN: Choice = Choice { cap: 256, writers: 1, linger: Duration::ZERO, time_led: true };

pub async fn run(bench: &mut Bench) {
    println!("\n| choice | back end | events/s |\n|---|---|--:|");
    let mut choices: Vec<(String, Choice)> = Vec::new();
    for cap in [64, 128, 256, 512] {
        choices.push((format!("at most {cap} in a commit"), Choice { cap, ..CHOSEN }));
    }
    for writers in [2, 4] {
        choices.push((format!("{writers} writers"), Choice { writers, ..CHOSEN }));
    }
    choices.push(("1 ms of linger".to_owned(), Choice { linger: Duration::from_millis(1), ..CHOSEN }));
    choices.push(("a random key".to_owned(), Choice { time_led: false, ..CHOSEN }));
    for sqlite in [true, false] {
        for (name, choice) in &choices {
            let mut rates = Vec::new();
            for _ in 0..bench.options.rounds {
                let folder = tempfile::tempdir_in(disk()).expect("a temporary folder");
                let url = if sqlite {
                    format!("sqlite://{}", folder.path().join("choice.db").display())
                } else {
                    bench.new_database().await
                };
                rates.push(rate(&url, *choice, bench.options.seconds).await);
            }
            let back_end = if sqlite { "SQLite" } else { "PostgreSQL" };
            println!("| {name} | {back_end} | {:.0} |", median(&mut rates));
        }
    }
    for window in [64, 256, 512, 1024, 2048] {
        let mut rates = Vec::new();
        for _ in 0..bench.options.rounds {
            rates.push(window_rate(window, bench.options.seconds).await);
        }
        println!("| windows of {window} messages | JetStream | {:.0} |", median(&mut rates));
    }
}

type Job = (Append, oneshot::Sender<()>);

/// Events per second with this choice.
async fn rate(url: &str, choice: Choice, seconds: f64) -> f64 {
    let options = log::Options { url: url.to_owned(), ..log::Options::default() };
    let mut logs: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..choice.writers {
        let log = log::open(&options).expect("a sound URL");
        log.migrate(true).await.expect("a new database");
        log.maintain(Clock::System.now()).await.expect("a new database");
        logs.push(log);
    }
    let (queue, jobs) = mpsc::channel::<Job>(SENDERS);
    let jobs = Arc::new(Mutex::new(jobs));
    let mut tasks = JoinSet::new();
    for log in logs {
        tasks.spawn(write(log, Arc::clone(&jobs), choice));
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (queue, keyring) = (queue.clone(), keyring());
        senders.spawn(async move {
            let mut sent = 0_u64;
            while Instant::now() < until {
                let verified = Arc::new(event(&keyring, sender, sent, choice.time_led));
                let append = Append { verified, deliveries: 1, last_delivered_at: Clock::System.now() };
                let (answer, answered) = oneshot::channel();
                queue.send((append, answer)).await.expect("a writer");
                answered.await.expect("an answer");
                sent += 1;
            }
            sent
        });
    }
    drop(queue);
    let mut sent = 0;
    while let Some(count) = senders.join_next().await {
        sent += count.expect("no sender fails");
    }
    let elapsed = started.elapsed();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no writer fails");
    }
    run::count(sent) / elapsed.as_secs_f64()
}

async fn write(log: Arc<dyn Store>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>, choice: Choice) {
    let mut gathered = Vec::with_capacity(choice.cap);
    loop {
        let mut receiver = jobs.lock().await;
        if receiver.recv_many(&mut gathered, choice.cap).await == 0 {
            break;
        }
        if !choice.linger.is_zero() && gathered.len() < choice.cap {
            tokio::time::sleep(choice.linger).await;
            while gathered.len() < choice.cap
                && let Ok(job) = receiver.try_recv()
            {
                gathered.push(job);
            }
        }
        drop(receiver);
        let (batch, answers): (Vec<Append>, Vec<_>) = gathered.drain(..).unzip();
        log.append(&batch).await.expect("a healthy database");
        for answer in answers {
            answer.send(()).expect("a sender that waits");
        }
    }
    log.close().await;
}

pub fn keyring() -> Keyring {
    let subscriber = Subscriber { app_id: APP_ID.into(), keys: vec![SecretString::from(KEY)], name: None };
    Keyring::new(&[subscriber])
}

/// Makes an event. Its id starts with its time, so random times make random ids.
pub fn event(keyring: &Keyring, sender: usize, number: u64, time_led: bool) -> Verified {
    let received_at = Clock::System.now();
    let at = if time_led { received_at.get() } else { i64::from(rand::random::<u32>()) * 50_000 };
    let info = format!(
        r#"{{"event":"meeting.join","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"{:09}","meetingUUID":"{sender:032x}"}},"attendeeInfo":{{"userUUID":"{number:032x}","userAgent":"WeLink-desktop","account":"somebody.{sender}","participantID":"{number:032x}","displayName":"王小明 {sender}","joinTime":{at},"leftTime":0,"role":"GUEST","callNumber":"+86571{number:011}"}}}}}}"#,
        987_000_000 + sender
    );
    let body =
        Bytes::from(sign::envelope(APP_ID, at.max(1_000_000_000_000), "10203040", info.as_bytes(), KEY.as_bytes()));
    let delivery = Delivery { received_at, request_id: Some(format!("{number:032x}").into()), traceparent: None };
    verify::verify(&body, keyring, &delivery).expect("our own signature").verified
}

/// Messages per second that the bus accepts in windows of this size, each awaited as a whole.
async fn window_rate(window: usize, seconds: f64) -> f64 {
    let nats = crate::servers::nats().await;
    let options = bus::Options::new(nats.url(), "MEETINGS", "meetings");
    let bus = Bus::connect(options).await.expect("sound options");
    bus.wait_connected(Duration::from_secs(5)).await.expect("a connection");
    let mut last = bus.ensure_stream().await.expect("a stream").last_sequence;
    let payload = Bytes::from(vec![b'x'; 880]);
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < seconds {
        let messages: Vec<Message> = (0..window as u64)
            .map(|n| Message {
                subject: "meetings.1988692299.meeting.join.987446316".to_owned(),
                id: format!("0178a0b1-c2d3-8e4f-8a5b-{:012x}", last + n),
                traceparent: None,
                replay: false,
                payload: payload.clone(),
            })
            .collect();
        let behind = Behind { last_sequence: last, copies: 0 };
        let results = bus.publish(&messages, Some(behind)).await;
        assert!(results.iter().all(Result::is_ok), "a message was not taken");
        last += window as u64;
    }
    let elapsed = started.elapsed();
    let there = run::messages(&jetstream::new(nats.client().await)).await;
    assert_eq!(there, last, "everything is in the stream");
    run::count(last) / elapsed.as_secs_f64()
}
