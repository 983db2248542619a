//! What one stranger can take: head, time, answers; and what those who mean well still get.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::support::http::{self, RawConnection};
use crate::support::http2::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, frame};
use crate::support::service::{Database, PATH, Service, event, settings, signed};
use crate::support::wait::eventually;

/// A connection may do without a first request for so long; a busy machine closes it later.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn whoever_sends_no_whole_request_is_let_go_after_half_a_minute_and_who_did_is_not() {
    let service = Service::start().await;
    let events = service.convoke.events;
    let begun = Instant::now();

    let silent = RawConnection::open(events).await;
    let mut preface = RawConnection::open(events).await;
    preface.send(b"PRI * HTTP/2.0\r\n").await;
    let mut kept = RawConnection::open(events).await;
    kept.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
    kept.answer().await;
    // A head of HTTP/2 that is to be continued.
    let mut endless = http2::open(events).await;
    endless.send(&frame(HEADERS, END_STREAM, 1, &http2::post(PATH))).await;
    // Answers that nobody reads.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket option");
    let mut unread = socket.connect(events).await.expect("a connection");
    let asking = async {
        let requests = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
        while unread.write_all(&requests).await.is_ok() {}
    };
    // These two never stop, and never get anywhere.
    let mut trickle = RawConnection::open(events).await;
    let mut pings = http2::open(events).await;
    let busy = async {
        trickle.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n").as_bytes()).await;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let gone = trickle.try_send(b"X: y\r\n").await.is_err();
            if pings.try_send(&frame(PING, 0, 0, b"12345678")).await.is_err() && gone {
                return;
            }
        }
    };
    let gone = async {
        let open = async || service.metric("convoke_connections").await;
        eventually("all seven are there", Duration::from_secs(10), async || open().await == 7.0).await;
        tokio::time::sleep((IDLE_TIMEOUT - Duration::from_secs(5)).saturating_sub(begun.elapsed())).await;
        assert_eq!(open().await, 7.0, "nobody is cut off early");
        // Who has asked before may be silent for longer: a proxy keeps its connections for a minute.
        eventually("those without a request are gone", Duration::from_secs(30), async || match open().await {
            2.0 => Ok(()),
            left => Err(left),
        })
        .await;
        kept.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(kept.answer().await.starts_with("HTTP/1.1 200 "));
    };
    tokio::select! {
        () = async { tokio::join!(busy, gone); } => {}
        () = asking => panic!("answers that are not read were sent for ever"),
    }
    drop((silent, preface, endless));
    service.acknowledged(&event("meeting.join", "1")).await;
}

#[tokio::test]
async fn a_connection_that_is_silent_for_longer_than_the_setting_is_closed_in_both_versions() {
    let service = Service::with(settings().setting("IDLE_TIMEOUT", "1s"), Database::Sqlite).await;
    let mut http1 = RawConnection::open(service.convoke.events).await;
    http1.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
    http1.answer().await;
    let mut http2 = http2::open(service.convoke.events).await;
    http2.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &http2::post(PATH))).await;
    let (http1, http2) = tokio::join!(http1.read_to_end(), http2.read_to_end());
    assert_eq!(http1, b"", "closed without a word");
    assert!(http2::frames(&http2).iter().any(|frame| frame.kind == GOAWAY), "a goodbye");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let service = Service::start().await;
    let ask = async |headers: &str| {
        let mut connection = RawConnection::open(service.convoke.events).await;
        connection.send(format!("GET /livez HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes()).await;
        connection.answer().await
    };
    let many = |count: usize| "X: y\r\n".repeat(count);
    assert!(ask(&many(63)).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(&many(64)).await.starts_with("HTTP/1.1 431 "), "65 headers");
    assert!(ask(&format!("X: {}\r\n", "y".repeat(15 << 10))).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(&format!("X: {}\r\n", "y".repeat(17 << 10))).await.starts_with("HTTP/1.1 431 "), "17 KiB");
}

#[tokio::test]
async fn an_answer_reaches_whoever_is_still_sending_a_large_body() {
    let builder = settings().setting("ALLOW_FROM", "192.0.2.0/24").setting("TRUSTED_PROXIES", "127.0.0.0/8");
    let service = Service::with(builder, Database::Sqlite).await;
    const SIZE: usize = 3 << 20;
    let body = vec![b' '; SIZE];
    let allowed = "X-Forwarded-For: 192.0.2.1\r\n";
    for (method, path, more, status) in [
        ("POST", PATH, "", 403),
        ("PUT", PATH, allowed, 405),
        ("POST", "/elsewhere", "", 404),
        ("POST", "/livez", "", 405),
        ("POST", PATH, allowed, 413),
    ] {
        let mut connection = RawConnection::open(service.convoke.events).await;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{more}Content-Length: {SIZE}\r\n\r\n");
        connection.send(head.as_bytes()).await;
        connection.send(&body).await;
        let answer = connection.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        // And a client that asks before sending is answered at once.
        let mut connection = RawConnection::open(service.convoke.events).await;
        let asks = head.replace("Content-Length", "Expect: 100-continue\r\nContent-Length");
        connection.send(asks.as_bytes()).await;
        let answer = connection.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn only_a_trusted_proxys_word_on_the_source_counts() {
    let builder = settings().setting("ALLOW_FROM", "192.0.2.0/24,2001:db8::/32,::ffff:198.18.0.0/112");
    let service =
        Service::with(builder.setting("TRUSTED_PROXIES", "::ffff:127.0.0.0/104,10.0.0.0/8"), Database::Sqlite);
    let service = service.await;
    for (headers, status) in [
        (&[("X-Forwarded-For", "192.0.2.7")][..], 200),
        (&[("X-Forwarded-For", "192.0.2.7:4711")], 200),
        (&[("X-Forwarded-For", "::ffff:192.0.2.7")], 200),
        (&[("X-Forwarded-For", "[2001:db8::7]:443, 10.1.2.3")], 200),
        (&[("X-Forwarded-For", "198.18.5.5")], 200),
        (&[("X-Forwarded-For", "garbage, 192.0.2.7")], 200),
        (&[("X-Forwarded-For", "192.0.2.7, 198.51.100.1")], 403),
        (&[("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-For", "198.51.100.1")], 403),
        (&[("X-Forwarded-For", "192.0.2.7, garbage")], 403),
        (&[("X-Forwarded-For", "")], 403),
        // RFC 7239 is not read: a proxy that passes it on unchanged would let everybody in.
        (&[("Forwarded", "for=192.0.2.7")], 403),
        (&[("X-Real-IP", "192.0.2.7")], 403),
    ] {
        let body = signed(&event("meeting.join", "1"));
        let answer = http::post(service.convoke.events, PATH, body, headers).await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
}
