//! Whole runs against a small receiver in the same process, which keeps what it was sent.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Error, Report, Simulation};
use convoke_core::id::EventId;
use convoke_core::sign;
use convoke_core::time::Millis;

/// A run that takes longer than this hangs.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
const APP_ID: &str = "7700001234";
const KEY: &str = "demo-Subscriber-Key-2025";

/// One delivery as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    body: Vec<u8>,
    info: String,
    answered: u16,
}

impl Seen {
    fn event_id(&self) -> String {
        let value: serde_json::Value = serde_json::from_str(&self.info).expect("JSON");
        let at = value["timestamp"].as_i64().and_then(Millis::new).expect("a timestamp");
        EventId::of(APP_ID, at, self.info.as_bytes()).to_string()
    }
}

type Seens = Arc<Mutex<Vec<Seen>>>;

/// Answers each delivery with the status that `answer` gives for (how often this event was seen before, how many deliveries
/// there were); 0 closes the connection instead.
async fn receive(listener: TcpListener, seen: Seens, answer: fn(usize, usize) -> u16) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&seen), answer));
    }
}

async fn serve(mut stream: TcpStream, seen: Seens, answer: fn(usize, usize) -> u16) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let length: usize = head.split("Content-Length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let rest = bytes.split_off(end + length);
        let body = std::mem::replace(&mut bytes, rest).split_off(end);
        let value: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let text = String::from_utf8(body.clone()).ok()?;
        let info = text.split_once("\"eventInfo\":")?.1.strip_suffix('}')?.to_owned();
        let (timestamp, nonce) = (value["timestamp"].as_i64()?, value["nonce"].as_str()?);
        assert_eq!(value["signature"], sign::sign(APP_ID, timestamp, nonce, info.as_bytes(), KEY.as_bytes()));
        let response = if info.contains("meeting.verify") {
            let echo = format!(r#"{{"event":"meeting.verify","nonce":"{nonce}"}}"#);
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{echo}", echo.len())
        } else {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let before = seen.iter().filter(|other| other.info == info).count();
            let answered = answer(before, seen.len());
            seen.push(Seen { head, body, info, answered });
            if answered == 0 {
                return None;
            }
            format!("HTTP/1.1 {answered} x\r\nContent-Length: 0\r\n\r\n")
        };
        stream.write_all(response.as_bytes()).await.ok()?;
    }
}

/// A run of five small meetings as `change` makes it, against a receiver that gives `answer`s.
async fn run(answer: fn(usize, usize) -> u16, change: impl FnOnce(&mut Simulation)) -> (Report, Vec<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/openapi/meetingevent", listener.local_addr().expect("an address"));
    let mut simulation = Simulation::new(url, APP_ID, SecretString::from(KEY));
    (simulation.meetings, simulation.attendees, simulation.connections) = (5, 4, 3);
    simulation.time_scale = 10_000.0;
    simulation.base = Millis::new(1_735_700_000_000);
    change(&mut simulation);
    let seen = Seens::default();
    let report = tokio::select! {
        report = tokio::time::timeout(WAIT_TIMEOUT, simulation.run(CancellationToken::new())) => report,
        () = receive(listener, Arc::clone(&seen), answer) => unreachable!("the receiver serves for ever"),
    };
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (report.expect("in time").expect("a report"), seen)
}

fn always(_: usize, _: usize) -> u16 {
    200
}

fn ids(seen: &[Seen]) -> HashSet<String> {
    seen.iter().map(Seen::event_id).collect()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).expect("the file");
    text.lines().map(|line| serde_json::from_str(line).expect("whole lines of JSON")).collect()
}

#[tokio::test]
async fn every_event_is_delivered_once_with_the_platforms_headers() {
    let (report, seen) = run(always, |_| {}).await;
    assert_eq!(report.events, report.sent);
    assert_eq!(report.sent, report.acknowledged);
    assert_eq!((report.retried, report.given_up, report.unsettled), (0, 0, 0));
    assert_eq!(ids(&seen).len(), seen.len());
    assert_eq!(u64::try_from(seen.len()).ok(), Some(report.deliveries));
    for part in [
        "POST /openapi/meetingevent HTTP/1.1\r\n",
        "\r\nContent-Type: application/json;charset=UTF-8\r\n",
        "\r\nConnection: keep-alive\r\n",
        "\r\nPragma: No-cache\r\nCache-Control: no-cache\r\nDate: ",
        " GMT\r\nX-Request-ID: ",
    ] {
        assert!(seen[0].head.contains(part), "{}", seen[0].head);
    }
}

#[tokio::test]
async fn the_same_seed_sends_the_same_bodies() {
    let bodies = |seen: Vec<Seen>| seen.into_iter().map(|seen| seen.body).collect::<HashSet<_>>();
    let (one, two) = (run(always, |_| {}).await.1, run(always, |_| {}).await.1);
    assert_eq!(bodies(one), bodies(two));
}

#[tokio::test]
async fn refused_events_are_retried_with_the_same_bytes_until_accepted() {
    let (report, seen) = run(|before, _| if before < 2 { 503 } else { 200 }, |_| {}).await;
    assert_eq!(report.acknowledged, report.sent);
    assert_eq!(report.retried, 2 * report.sent);
    assert_eq!(report.failures, [("status_503".to_owned(), 2 * report.sent)].into());
    let bodies: HashSet<_> = seen.iter().map(|seen| &seen.body).collect();
    assert_eq!(bodies.len(), ids(&seen).len());
}

#[tokio::test]
async fn resigned_retries_are_new_envelopes_around_the_same_event() {
    let (report, seen) =
        run(|before, _| if before < 2 { 202 } else { 200 }, |simulation| simulation.resign_retries = true).await;
    assert_eq!(report.acknowledged, report.sent);
    let bodies: HashSet<_> = seen.iter().map(|seen| &seen.body).collect();
    assert_eq!(bodies.len(), seen.len());
    assert_eq!(u64::try_from(ids(&seen).len()).ok(), Some(report.sent));
}

#[tokio::test]
async fn broken_connections_are_failures_and_are_made_anew() {
    let (report, _) = run(|_, deliveries| if deliveries % 5 == 4 { 0 } else { 200 }, |_| {}).await;
    assert_eq!(report.acknowledged, report.sent);
    assert!(report.failures["broken"] > 0 && report.retried >= report.failures["broken"]);
}

#[tokio::test]
async fn events_are_given_up_after_a_day_of_retries() {
    let (report, seen) = run(
        |_, _| 500,
        |simulation| {
            (simulation.meetings, simulation.attendees) = (1, 1);
            simulation.time_scale = 1_000_000.0;
        },
    )
    .await;
    assert_eq!((report.acknowledged, report.given_up), (0, report.sent));
    // Late timers cost tries, early ones cannot be: the day ends when it ends.
    let most = seen.iter().fold(HashMap::<&str, u32>::new(), |mut counts, seen| {
        *counts.entry(&seen.info).or_default() += 1;
        counts
    });
    assert!(most.values().all(|tries| (4..=51).contains(tries)), "{most:?}");
}

#[tokio::test]
async fn the_ledger_has_one_line_for_every_acknowledged_event_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().join("ledger");
    let (report, seen) = run(
        |_, deliveries| if deliveries % 3 == 0 { 503 } else { 200 },
        |simulation| {
            simulation.ledger = Some(ledger.clone());
            simulation.duplicates = 0.5;
        },
    )
    .await;
    let lines = lines(&ledger);
    let noted: HashSet<_> = lines.iter().filter_map(|line| line["event_id"].as_str().map(str::to_owned)).collect();
    assert_eq!(noted.len(), lines.len());
    let accepted: Vec<_> = seen.into_iter().filter(|seen| seen.answered == 200).collect();
    assert_eq!(noted, ids(&accepted));
    assert_eq!(u64::try_from(lines.len()).ok(), Some(report.acknowledged));
    assert!(lines.iter().all(|line| line["subscriber_id"] == APP_ID && line["event"].is_string()));
    assert!(lines.iter().all(|line| line["acknowledged_at"].as_str().is_some_and(|at| at.len() == 24)));
}

#[tokio::test]
async fn duplicates_are_delivered_again_and_counted() {
    let (report, seen) = run(always, |simulation| simulation.duplicates = 1.0).await;
    assert_eq!(report.duplicates, report.sent);
    assert_eq!(report.acknowledged, report.sent);
    assert_eq!(u64::try_from(seen.len()).ok(), Some(2 * report.sent));
    assert_eq!(u64::try_from(ids(&seen).len()).ok(), Some(report.sent));
}

#[tokio::test]
async fn dropped_events_are_never_sent_but_stand_in_the_truth() {
    let folder = tempfile::tempdir().expect("a folder");
    let truth = folder.path().join("truth");
    let (report, seen) = run(always, |simulation| {
        (simulation.drop, simulation.meetings) = (0.3, 20);
        simulation.truth = Some(truth.clone());
    })
    .await;
    assert_eq!(report.sent + report.dropped, report.events);
    let lines = lines(&truth);
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    // Beside those that were held or cancelled, bookings with a UUID of their own.
    assert_eq!(of("meeting").iter().filter(|line| line["status"] != "scheduled").count(), 20);
    let dropped: HashSet<_> =
        of("dropped").iter().map(|line| line["event_id"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(u64::try_from(dropped.len()).ok(), Some(report.dropped));
    assert!(dropped.is_disjoint(&ids(&seen)));
    let recordings = of("meeting").iter().filter_map(|line| line["recordings"].as_u64()).sum::<u64>();
    assert_eq!(u64::try_from(of("recording").len()).ok(), Some(recordings));
    let stays = of("meeting").iter().filter_map(|line| line["stays"].as_u64()).sum::<u64>();
    assert_eq!(u64::try_from(of("stay").len()).ok(), Some(stays));
    let joins = |seen: &Seen| seen.info.contains("meeting.join");
    assert!(seen.iter().filter(|seen| joins(seen)).count() < of("stay").len());
}

#[tokio::test]
async fn shuffled_events_all_arrive() {
    let (report, seen) = run(always, |simulation| simulation.shuffle = true).await;
    let (_, ordered) = run(always, |_| {}).await;
    assert_eq!(report.acknowledged, report.events);
    assert_eq!(ids(&seen), ids(&ordered));
}

#[tokio::test]
async fn at_a_rate_a_run_takes_as_long_as_it_must() {
    let (report, _) = run(always, |simulation| {
        (simulation.rate, simulation.duration) = (Some(1_000.0), Some(Duration::from_millis(300)));
    })
    .await;
    assert!(report.elapsed_s >= 0.29, "{report}");
    assert!(report.sent <= 301 && report.sent + report.behind >= 300, "{report}");
    assert_eq!(report.acknowledged, report.sent);
}

#[tokio::test]
async fn a_cancelled_run_still_reports() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let simulation = Simulation::new(url, APP_ID, SecretString::from(KEY));
    let (stop, seen) = (CancellationToken::new(), Seens::default());
    let refused = async {
        while seen.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = tokio::time::timeout(WAIT_TIMEOUT, simulation.run(stop.clone())) => report,
        () = receive(listener, Arc::clone(&seen), |_, _| 503) => unreachable!("the receiver serves for ever"),
        () = refused => unreachable!("pending"),
    };
    let report = report.expect("in time").expect("a report");
    assert!(report.unsettled > 0 && report.unsettled == report.sent, "{report}");
}

#[tokio::test]
async fn a_receiver_that_is_not_there_fails_the_handshake_and_every_delivery() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    drop(listener);
    let mut simulation = Simulation::new(url, APP_ID, SecretString::from(KEY));
    let error = simulation.run(CancellationToken::new()).await.expect_err("no receiver");
    assert!(error.to_string().contains("cannot connect"), "{error}");
    (simulation.handshake, simulation.meetings, simulation.attendees) = (false, 1, 1);
    simulation.time_scale = 1_000_000.0;
    let run = tokio::time::timeout(WAIT_TIMEOUT, simulation.run(CancellationToken::new()));
    let report = run.await.expect("in time").expect("a report");
    assert_eq!((report.given_up, report.acknowledged), (report.sent, 0), "{report}");
    assert_eq!(report.failures, [("connect".to_owned(), report.deliveries)].into());
}

#[tokio::test]
async fn a_receiver_that_does_not_echo_the_nonce_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let simulation = Simulation::new(url, APP_ID, SecretString::from(KEY));
    let deaf = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"}}") {
            stream.read_buf(&mut bytes).await.expect("a request");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.expect("an open connection");
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        report = simulation.run(CancellationToken::new()) => report.expect_err("no echo"),
        () = deaf => unreachable!("pending"),
    };
    assert!(matches!(&error, Error::Handshake { reason } if reason.contains("{}")), "{error}");
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_by_name() {
    let mut simulation = Simulation::new("http://127.0.0.1:1/", APP_ID, SecretString::from(KEY));
    simulation.drop = 1.5;
    let error = simulation.run(CancellationToken::new()).await.expect_err("no such fraction");
    assert_eq!(error.to_string(), "--drop must be a fraction between 0 and 1");
    let simulation = Simulation::new("ftp://127.0.0.1/", APP_ID, SecretString::from(KEY));
    assert!(matches!(simulation.run(CancellationToken::new()).await, Err(Error::Url { .. })));
}
