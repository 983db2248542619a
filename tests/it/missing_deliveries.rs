//! What keeps the platform's deliveries from arriving at all is counted, said with what to do, and shown.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    support::service::{APP_ID, Database, PATH, Service, WAIT_TIMEOUT, event, now, settings, signed},
    support::tls,
    support::{
        http::{self, RawConnection},
        port::Port,
        wait::eventually,
    },
};

async fn refusals(service: &Service, reason: &str) -> u64 {
    let refusals = http::get(&format!("http://{}/api/v1/refusals", service.convoke.admin)).await.json();
    refusals["by_reason"][reason].as_u64().unwrap_or_default()
}

/// Waits until the failure was counted so often, and for the line that says what to do.
async fn is_told(service: &Service, reason: &str, times: f64, todo: &str) {
    let series = format!(r#"convoke_connection_failures_total{{reason="{reason}"}}"#);
    eventually(&format!("{reason} is counted"), WAIT_TIMEOUT, async || match service.metric(&series).await {
        count if count == times => Ok(()),
        count => Err(count),
    })
    .await;
    assert_eq!(refusals(service, reason).await as f64, times, "{reason}");
    let logs = service.convoke.logs();
    let line = logs.lines().find(|line| line.contains(&format!(r#""reason":"{reason}""#)));
    let line = line.unwrap_or_else(|| panic!("no line of {reason} in {logs}"));
    assert!(line.contains(todo) && line.contains(r#""peer":"127.0.0.1:"#) && line.contains("WARN"), "{line}");
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_path_is_taken_as_the_path() {
    for (path, other) in [(PATH, "/openapi/meetingevent/"), ("/hook/", "/hook"), ("/", "/?x=1")] {
        let service = Service::with(settings().setting("PATH_EVENTS", path), Database::Sqlite).await;
        for (n, path) in [path, other, &format!("{path}?tenant=1"), &format!("{other}?")].into_iter().enumerate() {
            let body = signed(&event("meeting.join", &n.to_string()));
            assert_eq!(http::post(service.convoke.events, path, body, &[]).await.status, 200, "{path}");
        }
        assert_eq!(service.count("events"), 4, "{path}");
        assert_eq!(service.metric("convoke_rejections_total").await, 0.0);
        assert_eq!(http::get(&format!("http://{}{}", service.convoke.events, path)).await.status, 405, "{path}");
    }
}

#[tokio::test]
async fn a_delivery_to_another_path_is_counted_and_said_with_the_path_that_is_right() {
    let service = Service::with(settings().setting("TRUSTED_PROXIES", "127.0.0.0/8"), Database::Sqlite).await;
    let events = service.convoke.events;
    let long = format!("/{}", "x".repeat(3_000));
    for path in ["//openapi/meetingevent", "/room/openapi/meetingevent", "/openapi/meetingevent//", &long] {
        let answer = http::post(
            events,
            path,
            signed(&event("meeting.join", "1")),
            &[("X-Request-ID", "r-1"), ("X-Forwarded-For", "203.0.113.9")],
        )
        .await;
        assert_eq!((answer.status, answer.header("x-request-id")), (404, Some("r-1")), "{path}");
        assert!(!answer.text().contains("openapi"), "nothing is given away: {}", answer.text());
    }
    // A scanner is counted, and is not worth a line; a probe is neither.
    for path in ["/", "/wp-login.php", "/livez", "/readyz"] {
        http::get(&format!("http://{events}{path}")).await;
    }
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="path"}"#).await, 6.0);
    assert_eq!(refusals(&service, "path").await, 6);
    let logs = service.convoke.logs();
    let lines: Vec<_> = logs.lines().filter(|line| line.contains(r#""reason":"path""#)).collect();
    assert_eq!(lines.len(), 4, "{logs}");
    assert!(
        lines[0].contains(r#""path":"//openapi/meetingevent""#) && lines[0].contains(r#""peer":"203.0.113.9""#),
        "{}",
        lines[0]
    );
    assert!(lines.iter().all(|line| line.contains("events are taken at /openapi/meetingevent;") && line.len() < 800));
    assert_eq!(service.count("events"), 0);
    let check = service.convoke.run(&["check"]).await;
    let line = check.stdout.lines().find(|line| line.contains("refused")).unwrap_or_else(|| panic!("{check:?}"));
    assert!(line.starts_with("warn") && line.contains("another path than /openapi/meetingevent (6)"), "{line}");
}

async fn answered(address: SocketAddr, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&http::raw(address, bytes).await).into_owned()
}

#[tokio::test]
async fn what_is_no_http_on_the_plain_port_is_distinguished_and_said() {
    let service = Service::start().await;
    let events = service.convoke.events;
    for reason in ["tls", "not_http", "tls_on_plain_port", "plain_on_tls_port", "proxy_protocol", "head_too_large"] {
        let series = format!(r#"convoke_connection_failures_total{{reason="{reason}"}}"#);
        assert_eq!(service.metric(&series).await, 0.0, "{reason} is there from the start");
    }
    // A scanner of ports, and somebody who hangs up within a head.
    drop(RawConnection::open(events).await);
    RawConnection::open(events).await.reset();
    let mut broken = RawConnection::open(events).await;
    broken.send(b"POST /openapi").await;
    drop(broken);

    let request = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    answered(events, format!("PROXY TCP4 192.0.2.7 192.0.2.8 56324 443\r\n{request}").as_bytes()).await;
    is_told(&service, "proxy_protocol", 1.0, "switch it off in the load balancer").await;
    answered(events, &[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[0; 12], request.as_bytes()].concat()).await;
    is_told(&service, "proxy_protocol", 2.0, "switch it off in the load balancer").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cert = folder.path().join("cert.pem");
    tls::certificate(&cert, &folder.path().join("key.pem"));
    assert!(tls::connect(events, &cert, b"http/1.1").await.is_err());
    is_told(&service, "tls_on_plain_port", 1.0, "set listen.tls_cert and listen.tls_key").await;
    answered(events, b"SSH-2.0-OpenSSH_9.6\r\n").await;
    is_told(&service, "not_http", 1.0, "the client did not send HTTP").await;
    let large = format!("GET /livez HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n", "x".repeat(17 << 10));
    assert!(answered(events, large.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    is_told(&service, "head_too_large", 1.0, "16 KiB and 64 headers").await;
    assert_eq!(service.metric("convoke_connection_failures_total").await, 5.0, "and nothing else is a failure");
    let check = service.convoke.run(&["check"]).await.stdout;
    for sentence in ["no request (2): the PROXY protocol", "no request (1): the client sent TLS"] {
        assert!(check.lines().any(|line| line.starts_with("warn") && line.contains(sentence)), "{check}");
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_said_with_the_reason() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["ours", "other"] {
        tls::certificate(&at(&format!("{name}.cert")), &at(&format!("{name}.key")));
    }
    let builder = settings().setting("TLS_CERT", at("ours.cert")).setting("TLS_KEY", at("ours.key"));
    let service = Service::with(builder, Database::Sqlite).await;
    let events = service.convoke.events;
    // Somebody looks whether the port is open.
    drop(RawConnection::open(events).await);

    let body = signed(&event("meeting.join", "1"));
    let plain = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = answered(events, &[plain.as_bytes(), &body].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("https:// in front of it.\n"), "{answer}");
    is_told(&service, "plain_on_tls_port", 1.0, "post to https://").await;
    // It comes in pieces.
    let mut pieces = RawConnection::open(events).await;
    for piece in [b"PRO".as_slice(), b"XY TCP4 ", b"192.0.2.7 192.0.2.8 56324 443\r\n"] {
        pieces.send(piece).await;
        tokio::task::yield_now().await;
    }
    pieces.read_to_end().await;
    is_told(&service, "proxy_protocol", 1.0, "switch it off in the load balancer").await;

    assert!(tls::connect(events, &at("other.cert"), b"http/1.1").await.is_err());
    is_told(&service, "tls", 1.0, "does not trust our certificate").await;
    // A client that hangs up without a word of why.
    let mut silent = TcpStream::connect(events).await.expect("a connection");
    silent.write_all(&[0x16, 3, 1, 2, 0]).await.expect("half of a hello");
    silent.shutdown().await.expect("an end");
    silent.read_to_end(&mut Vec::new()).await.expect("closed");
    is_told(&service, "tls", 2.0, "append the intermediate certificates to listen.tls_cert").await;
    let mut inner = tls::connect(events, &at("ours.cert"), b"http/1.1").await.expect("TLS");
    inner.write_all(b"\x00\x01\x02\r\n\r\n").await.expect("sent");
    inner.read_to_end(&mut Vec::new()).await.expect("closed");
    is_told(&service, "not_http", 1.0, "the client did not send HTTP").await;
    assert_eq!(service.metric("convoke_connection_failures_total").await, 5.0);
}

#[tokio::test]
async fn large_cookies_of_other_applications_do_not_keep_anybody_from_the_page() {
    let service = Service::start().await;
    let ask = async |headers: &str| {
        let mut connection = RawConnection::open(service.convoke.admin).await;
        connection.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).await;
        connection.answer().await
    };
    assert!(ask(&"X-Many: y\r\n".repeat(200)).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(&format!("Cookie: a={}\r\n", "x".repeat(31 << 10))).await.starts_with("HTTP/1.1 200 "));
    for size in [33, 100] {
        let answer = ask(&format!("Cookie: a={}\r\n", "x".repeat(size << 10))).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{size} KiB: {answer}");
        assert!(
            answer.contains("application/problem+json") && answer.contains("cookies of all applications"),
            "{answer}"
        );
    }
    assert_eq!(service.metric("convoke_connection_failures_total").await, 0.0, "that is of the events listener");
}

const LAST: [&str; 2] = ["convoke_last_event_timestamp_seconds", "convoke_last_handshake_timestamp_seconds"];

async fn last(service: &Service, subscriber: &str) -> [f64; 2] {
    let [event, handshake] = LAST.map(|name| format!(r#"{name}{{subscriber="{subscriber}"}}"#));
    [service.metric(&event).await, service.metric(&handshake).await]
}

async fn when_the_last_event_came_survives_a_restart_and_is_of_what_was_stored(database: Database) {
    let url = match &database {
        Database::Sqlite => "sqlite://convoke.db".to_owned(),
        Database::Postgres(postgres) => postgres.url(),
    };
    let settings = settings().setting("DATABASE_URL", url);
    let mut service = Service::with(settings, database).await;
    assert_eq!(last(&service, APP_ID).await, [0.0; 2]);
    service.acknowledged(&event("meeting.join", "1")).await;
    assert_eq!(service.post(signed(r#"{"event":"meeting.verify","timestamp":1}"#)).await.status, 200);
    let before = last(&service, APP_ID).await;
    let clock = now() as f64 / 1e3;
    assert!(before.iter().all(|at| (clock - 60.0..clock + 1.0).contains(at)), "{before:?}");
    // What is no event, or is not stored, changes nothing.
    service.acknowledged(r#"{"event":"","timestamp":1}"#).await;
    assert_eq!(service.post(signed("[]")).await.status, 400);
    assert_eq!(last(&service, APP_ID).await, before);
    eventually("the handshake is noted", WAIT_TIMEOUT, async || service.count("handshakes") == 1).await;

    service.convoke.kill().await;
    service.convoke.restart().await;
    service.convoke.wait_ready(WAIT_TIMEOUT).await;
    let after = last(&service, APP_ID).await;
    assert!(after.iter().zip(before).all(|(after, before)| (after - before).abs() < 0.01), "{after:?} {before:?}");
    let health = http::get(&format!("http://{}/api/v1/health", service.convoke.admin)).await.json();
    let mine = &health["subscribers"][0];
    assert!(mine["last_event_at"].is_string() && mine["last_handshake_at"].is_string(), "{health}");
}

#[tokio::test]
async fn when_the_last_event_came_survives_a_restart_on_sqlite() {
    when_the_last_event_came_survives_a_restart_and_is_of_what_was_stored(Database::Sqlite).await;
}

#[tokio::test]
async fn when_the_last_event_came_survives_a_restart_on_postgresql() {
    when_the_last_event_came_survives_a_restart_and_is_of_what_was_stored(Database::postgres().await).await;
}

#[tokio::test]
async fn an_event_that_was_answered_503_did_not_come() {
    let gone = Port::lease();
    let url = format!("postgres://postgres@{}/postgres", gone.address());
    let convoke = settings().setting("DATABASE_URL", url).start().await;
    let service = Service { convoke, database: Database::Sqlite };
    assert_eq!(service.post(signed(&event("meeting.join", "1"))).await.status, 503);
    assert_eq!(last(&service, APP_ID).await, [0.0; 2]);
}

#[tokio::test]
async fn the_end_of_the_certificate_is_a_metric_and_is_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    tls::certificate(&cert, &key);
    let service = Service::with(settings().setting("TLS_CERT", &cert).setting("TLS_KEY", &key), Database::Sqlite).await;
    // It is made for two days.
    let ends = eventually("it is known", WAIT_TIMEOUT, async || {
        match service.metric("convoke_tls_expiry_timestamp_seconds").await {
            0.0 => None,
            ends => Some(ends),
        }
    })
    .await;
    let left = ends - now() as f64 / 1e3;
    assert!((2.0 * 86_400.0 - 600.0..=2.0 * 86_400.0).contains(&left), "{left} s");
    let health = http::get(&format!("http://{}/api/v1/health", service.convoke.admin)).await.json();
    assert!(health["certificate_expires_at"].is_string(), "{health}");
    let plain = Service::start().await;
    assert_eq!(plain.metric("convoke_tls_expiry_timestamp_seconds").await, 0.0);
    let health = http::get(&format!("http://{}/api/v1/health", plain.convoke.admin)).await.json();
    assert!(health["certificate_expires_at"].is_null(), "{health}");
}
