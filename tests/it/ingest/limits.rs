//! Limits: size, time, the queue.

use super::*;

#[tokio::test]
async fn a_body_over_the_limit_is_refused_while_it_is_still_sent() {
    let service = Service::start().await;
    const SIZE: usize = 3 << 20;
    let piece = vec![b' '; 64 << 10];
    // 3 MiB in pieces, each as soon as the one before was taken, with and without a length.
    for head in [format!("Content-Length: {SIZE}"), "Transfer-Encoding: chunked".to_owned()] {
        let chunked = head.contains("chunked");
        let mut connection = RawConnection::open(service.convoke.events).await;
        connection.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n").as_bytes()).await;
        for _ in 0..SIZE / piece.len() {
            if chunked {
                connection.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
            }
            connection.send(&piece).await;
            if chunked {
                connection.send(b"\r\n").await;
            }
        }
        if chunked {
            connection.send(b"0\r\n\r\n").await;
        }
        let answer = connection.answer().await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{head}: {answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    }
    // A sender that goes on for longer than it is listened to still finds the answer.
    let mut connection = RawConnection::open(service.convoke.events).await;
    connection.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) && connection.try_send(&piece[..4096]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = connection.answer().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    // One that asks first is answered at once, without a go-ahead.
    let mut connection = RawConnection::open(service.convoke.events).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {SIZE}\r\n\r\n");
    connection.send(head.as_bytes()).await;
    let answer = String::from_utf8(connection.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="too_large"}"#).await, 4.0);
}

#[tokio::test]
async fn a_body_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let service = Service::with(settings().setting("MAX_BODY", "2000"), Database::Sqlite).await;
    let body = |length: usize| {
        let mut body = signed(&event("meeting.join", "1"));
        body.resize(length, b' ');
        body
    };
    assert_eq!(service.post(body(2000)).await.status, 200);
    assert_problem(&service.post(body(2001)).await, 413);

    // A sender that waits for the go-ahead gets it.
    let mut connection = RawConnection::open(service.convoke.events).await;
    let asks = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n");
    connection.send(asks.as_bytes()).await;
    assert!(connection.answer().await.starts_with("HTTP/1.1 100 "));
    connection.send(&body(2000)).await;
    assert!(connection.answer().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_database_that_went_away_is_answered_in_time_and_the_queue_is_bounded() {
    let postgres = Postgres::start().await;
    let proxy = Proxy::start(postgres.address());
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let builder = settings().setting("DATABASE_URL", url).setting("MAX_BODY", "64 MiB");
    let service = Service::with(builder, Database::Postgres(Box::new(postgres))).await;
    service.acknowledged(&event("meeting.join", "1")).await;

    let refused = async |what: &str| {
        let begun = Instant::now();
        let answer = service.post(signed(&event("meeting.join", "2"))).await;
        assert_problem(&answer, 503);
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        assert!(begun.elapsed() < stretched(Duration::from_millis(3_300)), "{what}: {:?}", begun.elapsed());
    };
    proxy.stall();
    refused("stalled").await;
    let handshake = service.post(PRINTED_BODY).await;
    assert_eq!(handshake.status, 200);

    // More bytes than the queue holds: what does not fit is refused at once. White space is quickly read.
    let large = || {
        let mut body = signed(&event("meeting.join", "2"));
        body.resize(26 << 20, b' ');
        service.post(body)
    };
    let (one, two) = tokio::join!(large(), large());
    assert_problem(&one, 503);
    assert_problem(&two, 503);
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="queue_full"}"#).await, 1.0);

    proxy.cut();
    refused("cut").await;
    eventually("it says that it is not ready", WAIT_TIMEOUT, async || {
        http::get(&format!("http://{}/readyz", service.convoke.events)).await.status == 503
    })
    .await;
    assert!(service.metric("convoke_not_accepting_seconds").await > 0.0);
    proxy.heal();
    service.convoke.wait_ready(WAIT_TIMEOUT).await;
    service.acknowledged(&event("meeting.join", "3")).await;
    assert_eq!(service.metric("convoke_not_accepting_seconds").await, 0.0);
    for reason in ["slow", "unavailable"] {
        assert!(service.metric(&format!(r#"convoke_rejections_total{{reason="{reason}"}}"#)).await > 0.0, "{reason}");
    }
}

#[tokio::test]
async fn a_body_larger_than_the_queue_is_stored_all_the_same() {
    let service = Service::with(settings().setting("MAX_BODY", "64 MiB"), Database::Sqlite).await;
    let mut body = signed(&event("meeting.join", "1"));
    body.resize(50 << 20, b' ');
    assert_eq!(service.post(body).await.status, 200);
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_refused_and_leaves_nothing() {
    let service = Service::start().await;
    let body = signed(&event("meeting.join", "1"));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());

    // The sender ends its side too early, and listens.
    let mut half = RawConnection::open(service.convoke.events).await;
    half.send(&[head.as_bytes(), &body[..body.len() - 1]].concat()).await;
    half.finish_sending().await;
    let answer = String::from_utf8(half.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");

    // It vanishes.
    let mut gone = RawConnection::open(service.convoke.events).await;
    gone.send(&[head.as_bytes(), &body[..100]].concat()).await;
    gone.reset();
    eventually("both are counted", WAIT_TIMEOUT, async || {
        service.metric(r#"convoke_rejections_total{reason="body_cut"}"#).await == 2.0
    })
    .await;

    // One that ends its side after a whole request is answered.
    let mut whole = RawConnection::open(service.convoke.events).await;
    whole.send(&[head.as_bytes(), &body].concat()).await;
    whole.finish_sending().await;
    let answer = String::from_utf8(whole.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_refused() {
    let service = Service::start().await;
    let body = signed(&event("meeting.join", "1"));
    let mut slow = RawConnection::open(service.convoke.events).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    slow.send(&[head.as_bytes(), &body[..10]].concat()).await;
    let begun = Instant::now();
    let answer = slow.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(9) && took < stretched(Duration::from_secs(14)), "{took:?}");
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="body_timeout"}"#).await, 1.0);
}
