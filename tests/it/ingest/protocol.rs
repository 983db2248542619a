//! Methods, paths, headers and versions of HTTP.

use super::*;

#[tokio::test]
async fn another_method_or_path_is_reported_so() {
    let service = Service::start().await;
    let methods = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"];
    for method in methods {
        let answer = once(&service, &format!("{method} {PATH} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: POST\r\n"), "{answer}");
    }
    let counted = service.metric(r#"convoke_rejections_total{reason="method"}"#).await;
    assert_eq!(counted, methods.len() as f64);
    let head = format!("HEAD {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let head = http::raw(service.convoke.events, head.as_bytes()).await;
    assert!(head.starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&head));
    for path in ["/", "/openapi", "/openapi//meetingevent", "/Openapi/meetingevent", "/metrics", "*"] {
        let method = if path == "*" { "OPTIONS" } else { "POST" };
        let answer = once(&service, &format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let connect = once(&service, "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 404 ") || connect.starts_with("HTTP/1.1 405 "), "{connect}");
    for path in ["/livez", "/readyz"] {
        let answer = once(&service, &format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    }
    // A query does not change the path.
    let answer = http::post(service.convoke.events, &format!("{PATH}?a=b"), signed(&event("x", "1")), &[]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn every_answer_has_the_requests_id_or_one_of_its_own() {
    let service = Service::with(settings().setting("MAX_BODY", "2000"), Database::Sqlite).await;
    let (events, admin) = (service.convoke.events, service.convoke.admin);
    let good = ["a", "A.b_c-9", "539e8b710378987ffc5eb844b5e5c290", &"x".repeat(64)];
    let bad = ["", "a b", "a/b", "ü", "x\"y", &"x".repeat(65)];
    let mut n = 0;
    for (id, kept) in good.iter().map(|id| (*id, true)).chain(bad.iter().map(|id| (*id, false))) {
        n += 1;
        let headers = [("X-Request-ID", id)];
        let info = event("meeting.join", &n.to_string());
        let answers = [
            (http::post(events, PATH, signed(&info), &headers).await, 200),
            (http::post(events, PATH, PRINTED_BODY, &headers).await, 200),
            (http::post(events, PATH, "{}", &headers).await, 400),
            (http::post(events, PATH, signed_by(APP_ID, "no", &info), &headers).await, 401),
            (http::post(events, PATH, vec![b' '; 2001], &headers).await, 413),
            (http::post(events, "/elsewhere", "", &headers).await, 404),
            (http::post(events, "/livez", "", &headers).await, 405),
            (http::post(admin, "/elsewhere", "", &headers).await, 404),
            (http::post(admin, "/metrics", "", &headers).await, 405),
        ];
        for (answer, status) in &answers {
            assert_eq!(answer.status, *status);
            let have: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
            let [have] = have[..] else { panic!("{status}: {have:?}") };
            let have = have.to_str().expect("text");
            if kept {
                assert_eq!(have, id, "{status}");
            } else {
                let made = have.len() == 32 && have.bytes().all(|b| b.is_ascii_hexdigit());
                assert!(made, "{status} for {id:?}: {have}");
            }
        }
        let stored = service.sql(&format!("SELECT request_id FROM events WHERE meeting_id = '{n}'"));
        assert_eq!(stored, answers[0].0.header("x-request-id").expect("an id"));
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = http::get(&format!("http://{admin}{path}")).await;
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 32), "{path}");
    }
}

#[tokio::test]
async fn http2_is_spoken_without_upgrade() {
    let service = Service::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let url = format!("http://{}{PATH}", service.convoke.events);
    let post = |body: Vec<u8>| client.post(&url).header("X-Request-ID", "two").body(body).send();
    let many = (0..40).map(|n| post(signed(&event("meeting.join", &n.to_string()))));
    for answer in futures_util::future::join_all(many).await {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    }
    assert_eq!(service.count("events"), 40);
    let handshake = post(PRINTED_BODY.into()).await.expect("an answer");
    assert_eq!(handshake.headers()["content-type"], "application/json;charset=UTF-8");
    assert_eq!(handshake.headers()["x-request-id"], "two");
    assert_eq!(handshake.text().await.expect("a body"), r#"{"event":"meeting.verify","nonce":"85262798"}"#);
    assert_eq!(post(vec![b' '; 3 << 20]).await.expect("an answer").status(), 413);
    assert_eq!(post(b"{}".to_vec()).await.expect("an answer").status(), 400);
    assert_eq!(client.get(&url).send().await.expect("an answer").status(), 405);
    let ready = client.get(format!("http://{}/readyz?verbose", service.convoke.admin)).send().await;
    assert_eq!(ready.expect("an answer").status(), 200, "the admin listener too");
}

#[tokio::test]
async fn one_connection_serves_many_requests_also_when_they_are_sent_ahead() {
    let service = Service::start().await;
    let request = |n: usize, body: &[u8]| {
        let head =
            format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nX-Request-ID: r{n}\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let mut connection = RawConnection::open(service.convoke.events).await;
    // One after the other; what is refused in between does not end the connection.
    for n in 0..60 {
        let refused = n % 3 == 2;
        let body = if refused { b"{}".to_vec() } else { signed(&event("meeting.join", &n.to_string())) };
        connection.send(&request(n, &body)).await;
        let answer = connection.answer().await;
        assert!(answer.starts_with(if refused { "HTTP/1.1 400 " } else { "HTTP/1.1 200 " }), "{n}: {answer}");
    }
    // All at once; the answers come in order.
    let ahead: Vec<u8> = (100..140).flat_map(|n| request(n, &signed(&event("meeting.left", &n.to_string())))).collect();
    connection.send(&ahead).await;
    for n in 100..140 {
        let answer = connection.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("x-request-id: r{n}\r\n")), "{answer}");
    }
    assert_eq!(service.count("events"), 80);
}

#[tokio::test]
async fn probes_are_on_both_listeners_and_show_no_details() {
    let service = Service::start().await;
    for address in [service.convoke.events, service.convoke.admin] {
        for path in ["/livez", "/readyz"] {
            let answer = http::get(&format!("http://{address}{path}")).await;
            assert_eq!((answer.status, answer.body.len() < 16), (200, true), "{path}: {}", answer.text());
        }
    }
    let verbose = |address| async move { http::get(&format!("http://{address}/readyz?verbose")).await };
    assert_eq!(verbose(service.convoke.events).await.text(), "ready\n", "details are for the admin listener");
    let report = verbose(service.convoke.admin).await.json();
    assert_eq!((&report["ready"], &report["bus"]["enabled"]), (&json!(true), &json!(false)));
    assert!(report["cursors"].is_array() && report["database"].is_string(), "{report}");
    assert_eq!(http::get(&format!("http://{}/metrics", service.convoke.events)).await.status, 404);
}
