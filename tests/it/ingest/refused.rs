//! What is refused, with which answer.

use super::*;

#[tokio::test]
async fn an_encoded_body_is_refused_by_its_header_and_asked_for_as_it_is() {
    let service = Service::start().await;
    let post = async |encoding: &str| {
        let body = signed(&event("meeting.join", "1"));
        http::post(service.convoke.events, PATH, body, &[("Content-Encoding", encoding)]).await
    };
    for encoding in ["gzip", "deflate", "br", "identity, gzip", "aws-chunked"] {
        let refused = post(encoding).await;
        assert_problem(&refused, 415);
        assert_eq!(refused.header("accept-encoding"), Some("identity"), "{encoding}");
    }
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="encoding"}"#).await, 5.0);
    for encoding in ["identity", "Identity", ""] {
        assert_eq!(post(encoding).await.status, 200, "{encoding}");
    }
    assert!(service.convoke.logs().contains("Content-Encoding"), "{}", service.convoke.logs());
}

#[tokio::test]
async fn a_line_on_a_wrong_signature_says_whose_it_was_and_whether_the_key_is_right() {
    let proxied = settings().setting("TRUSTED_PROXIES", "127.0.0.0/8").setting("LOG_FORMAT", "json");
    let service = Service::with(proxied, Database::Sqlite).await;
    let lines = || -> Vec<Value> {
        let logs = service.convoke.logs();
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "refused a delivery").collect()
    };
    let refused = async |n: usize| {
        let body = signed_by(APP_ID, "another key", &event("meeting.join", "1"));
        let answer = http::post(service.convoke.events, PATH, body, &[("X-Forwarded-For", "203.0.113.9")]).await;
        assert_eq!(answer.status, 401);
        eventually("its line is there", WAIT_TIMEOUT, async || lines().len() == n).await;
        lines()[n - 1].clone()
    };
    let first = refused(1).await;
    assert_eq!(
        (&first["reason"], &first["subscriber"], &first["peer"]),
        (&json!("signature"), &json!(APP_ID), &json!("203.0.113.9"))
    );
    let detail = |line: &Value| line["detail"].as_str().expect("text").to_owned();
    assert!(detail(&first).contains("is the key the password"), "{first}");
    // A probe of our own is signed with our own key, and says nothing.
    let nonce = format!("{}1", convoke_core::event::PROBE);
    let probe = sign::envelope(APP_ID, now(), &nonce, br#"{"event":"meeting.verify","timestamp":1}"#, KEY.as_bytes());
    assert_eq!(service.post(probe).await.status, 200);
    assert!(detail(&refused(2).await).contains("is the key the password"));
    service.acknowledged(&event("meeting.join", "2")).await;
    let third = refused(3).await;
    assert!(detail(&third).contains("The key itself is right") && detail(&third).contains("convoke verify"), "{third}");
}

/// A signed body whose members, each as JSON text, a test may change. The signature covers what it says.
fn envelope_with(change: impl Fn(&mut Vec<(String, String)>)) -> String {
    let (timestamp, info) = (now(), event("meeting.join", "5"));
    let signature = sign::sign(APP_ID, timestamp, "12345678", info.as_bytes(), KEY.as_bytes());
    let mut members = vec![
        ("appID".to_owned(), json!(APP_ID).to_string()),
        ("timestamp".to_owned(), timestamp.to_string()),
        ("nonce".to_owned(), json!("12345678").to_string()),
        ("signature".to_owned(), json!(signature).to_string()),
        ("eventInfo".to_owned(), info),
    ];
    change(&mut members);
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn with(name: &'static str, value: &str) -> String {
    envelope_with(|members| members.iter_mut().filter(|(have, _)| have == name).for_each(|m| m.1 = value.to_owned()))
}

#[tokio::test]
async fn a_body_that_is_no_envelope_is_refused() {
    let service = Service::start().await;
    let good = envelope_with(|_| {});
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("only white space", b" \n".to_vec()),
        ("not JSON", b"appID=1988692299&nonce=1".to_vec()),
        ("cut", good.as_bytes()[..good.len() - 1].to_vec()),
        ("with something after it", [good.as_bytes(), b"{}"].concat()),
        ("a list", format!("[{good}]").into()),
        ("a string", json!(good).to_string().into()),
        ("null", b"null".to_vec()),
        ("a number", b"1".to_vec()),
        ("not UTF-8", [&good.as_bytes()[..good.len() - 1], b",\"x\":\"\xff\"}"].concat()),
        ("in UTF-16", good.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("very deep, not an object", b"[".repeat(200_000)),
        ("very deep, cut", [&good.as_bytes()[..good.len() - 1], b",\"x\":", &b"{\"a\":".repeat(40_000)[..]].concat()),
        ("signature null", with("signature", "null").into()),
        ("signature a number", with("signature", "1").into()),
        ("appID a number", with("appID", APP_ID).into()),
        ("appID a list", with("appID", &format!("[\"{APP_ID}\"]")).into()),
        ("timestamp of 12 digits", with("timestamp", "173570046578").into()),
        ("timestamp of 14 digits", with("timestamp", "17357004657890").into()),
        ("timestamp with a fraction", with("timestamp", "1735700465789.0").into()),
        ("timestamp negative", with("timestamp", "-173570046578").into()),
        ("timestamp null", with("timestamp", "null").into()),
        ("timestamp with a space", with("timestamp", "\"173570046578 \"").into()),
        ("timestamp in other digits", with("timestamp", "\"１７３57\"").into()),
        ("nonce null", with("nonce", "null").into()),
        ("nonce true", with("nonce", "true").into()),
        ("nonce with a fraction", with("nonce", "1.5").into()),
        ("nonce an object", with("nonce", "{}").into()),
        ("eventInfo a string", with("eventInfo", &json!(event("meeting.join", "5")).to_string()).into()),
        ("eventInfo a list", with("eventInfo", "[]").into()),
        ("eventInfo null", with("eventInfo", "null").into()),
        ("eventInfo with a stray comma", with("eventInfo", r#"{"event":"a","timestamp":1,}"#).into()),
        ("eventInfo with a bad escape", with("eventInfo", r#"{"event":"\x","timestamp":1}"#).into()),
    ];
    for name in ["appID", "timestamp", "nonce", "signature", "eventInfo"] {
        cases.push(("a member missing", envelope_with(|all| all.retain(|(have, _)| have != name)).into()));
        let doubled = envelope_with(|all| {
            let again = all.iter().find(|(have, _)| have == name).cloned().expect("it is there");
            all.push(again);
        });
        cases.push(("a member doubled", doubled.into()));
    }
    cases.push((
        "appID and appId",
        envelope_with(|all| all.push(("appId".to_owned(), json!(APP_ID).to_string()))).into(),
    ));
    for (what, body) in &cases {
        let answer = service.post(body.clone()).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_problem(&answer, 400);
    }
    let rejected = service.metric("convoke_rejections_total").await;
    assert_eq!(rejected, cases.len() as f64);
    assert_eq!((service.count("events"), service.count("quarantine")), (0, 0));

    // What differs only in what the contract allows is taken: another content type, spelling, case, quoting, order.
    let timestamp = now();
    let info = event("meeting.join", "6");
    let hmac = sign::sign(APP_ID, timestamp, "-7", info.as_bytes(), KEY.as_bytes()).to_uppercase();
    let body = format!(
        r#"{{"extra":[{{"appID":1}}],"eventInfo":{info},"signature":"{hmac}","nonce":-7,"timestamp":"{timestamp}","\u0061ppId":"{APP_ID}"}}"#
    );
    let answer = http::post(service.convoke.events, PATH, body, &[("Content-Type", "text/plain")]).await;
    assert_eq!((answer.status, service.count("events")), (200, 1), "{}", answer.text());
}

#[tokio::test]
async fn an_unknown_subscriber_and_a_forged_signature_get_the_same_answer() {
    let service = Service::start().await;
    let info = event("meeting.join", "7");
    let right = signed(&info);
    let unknown = signed_by("1988692298", KEY, &info);
    let forged = signed_by(APP_ID, "123457", &info);
    let text = String::from_utf8(right).expect("JSON");
    let cut = text.replace("\"signature\":\"", "\"signature\":\"0");
    let no_hex = with("signature", &format!("\"{}\"", "g".repeat(64)));
    let empty = with("signature", "\"\"");
    let other = text.replace("\"meetingID\":\"7\"", "\"meetingID\":\"8\"");
    assert_ne!(other, text);
    let surrogate = with("appID", r#""\ud800""#);
    let mut answers = Vec::new();
    for body in [unknown, forged, cut.into(), no_hex.into(), empty.into(), other.into(), surrogate.into()] {
        let mut connection = RawConnection::open(service.convoke.events).await;
        let head =
            format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nX-Request-ID: same\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send(&[head.as_bytes(), &body].concat()).await;
        let answer = connection.answer().await;
        let without_date: Vec<_> =
            answer.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
        answers.push(without_date);
    }
    assert!(answers[0][0].starts_with("HTTP/1.1 401 "), "{:?}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="unknown_subscriber"}"#).await, 2.0);
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="signature"}"#).await, 5.0);
    assert_eq!(service.count("events"), 0);
}

#[tokio::test]
async fn digits_cannot_be_moved_between_the_signed_parts() {
    let service = Service::start().await;
    let info = event("meeting.join", "9");
    let timestamp = now().to_string();
    let nonce = "12345678";
    let hmac = {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).expect("any length");
        mac.update(format!("{APP_ID}{timestamp}{nonce}{info}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    };
    let body = |app_id: &str, timestamp: &str, nonce: &str| {
        format!(
            r#"{{"appID":"{app_id}","timestamp":"{timestamp}","nonce":"{nonce}","signature":"{hmac}","eventInfo":{info}}}"#
        )
    };
    let all = format!("{APP_ID}{timestamp}{nonce}");
    for (id, digits, expected) in
        [(9, 13, 401), (11, 13, 401), (9, 14, 400), (10, 12, 400), (10, 14, 400), (10, 13, 200)]
    {
        let answer = service.post(body(&all[..id], &all[id..id + digits], &all[id + digits..])).await;
        assert_eq!(answer.status, expected, "appID of {id} and timestamp of {digits} digits");
    }
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn every_key_of_a_subscriber_counts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "first\r\nsecond \nthe third, 王\n").expect("a file");
    let builder = settings().setting("APP_KEY_FILE", &keys);
    let builder = builder.setting("APP_KEY", KEY);
    let refused = builder.run().await;
    assert_eq!(refused.code(), 2, "two ways to give the key: {}", refused.stderr);
    let toml = folder.path().join("convoke.toml");
    let list = format!(
        "[[subscriber]]\napp_id = \"{APP_ID}\"\nkeys = [\"{KEY}\"]\nkey_files = [\"{}\"]\n\
         [[subscriber]]\napp_id = \"another\"\nkeys = [\"other\"]\nname = \"Acme\"\n",
        keys.display()
    );
    std::fs::write(&toml, list).expect("a file");
    let builder = crate::support::process::Convoke::builder().setting("NATS_URL", "none").setting("CONFIG", &toml);
    let service = Service::with(builder, Database::Sqlite).await;
    for (n, key) in [KEY, "first", "second ", "the third, 王"].iter().enumerate() {
        let answer = service.post(signed_by(APP_ID, key, &event("meeting.join", &n.to_string()))).await;
        assert_eq!(answer.status, 200, "{key}");
    }
    for (id, key) in [(APP_ID, "second"), (APP_ID, "other"), ("another", KEY)] {
        assert_eq!(service.post(signed_by(id, key, &event("meeting.join", "x"))).await.status, 401, "{id} {key}");
    }
    assert_eq!(service.post(signed_by("another", "other", &event("meeting.join", "x"))).await.status, 200);
    assert_eq!(
        service.sql("SELECT subscriber_id, count(*) FROM events GROUP BY 1 ORDER BY 1"),
        "1988692299|4\nanother|1"
    );
}

#[tokio::test]
async fn a_source_that_is_not_allowed_is_refused() {
    let builder = settings().setting("ALLOW_FROM", "192.0.2.0/24").setting("TRUSTED_PROXIES", "127.0.0.0/8");
    let service = Service::with(builder, Database::Sqlite).await;
    let from = async |forwarded: Option<&str>| {
        let header: Vec<_> = forwarded.map(|value| ("X-Forwarded-For", value)).into_iter().collect();
        http::post(service.convoke.events, PATH, signed(&event("meeting.join", "1")), &header).await
    };
    for forwarded in [None, Some("198.51.100.1"), Some("192.0.2.1, 198.51.100.1"), Some("unknown")] {
        assert_problem(&from(forwarded).await, 403);
    }
    assert_eq!(from(Some("198.51.100.1, 192.0.2.1")).await.status, 200);
    // Probes are for everyone.
    assert_eq!(http::get(&format!("http://{}/readyz", service.convoke.events)).await.status, 200);
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="forbidden"}"#).await, 4.0);
}

#[tokio::test]
async fn nothing_of_a_forged_body_is_stored_logged_or_sent_back() {
    const MARKER: &str = "MaRkEr7Q9";
    let service = Service::start().await;
    service.acknowledged(&event("meeting.join", "1")).await;
    let tables =
        ["events", "quarantine", "handshakes", "set_aside", "cursors", "heartbeat", "probe", "task_notes", "probes"];
    let counts = || tables.map(|table| service.count(table));
    eventually("the tables' cursor has its row", WAIT_TIMEOUT, async || service.count("cursors") == 1).await;
    let before = counts();
    let info =
        format!(r#"{{"event":"{MARKER}","timestamp":1,"payload":{{"attendeeInfo":{{"displayName":"{MARKER}"}}}}}}"#);
    let handshake = format!(r#"{{"event":"meeting.verify","timestamp":1,"x":"{MARKER}"}}"#);
    let bodies = [
        signed_by(APP_ID, "forged", &info),
        signed_by(MARKER, "forged", &info),
        signed_by(APP_ID, "forged", &handshake),
        signed_by(APP_ID, "forged", &format!(r#"{{"{MARKER}":1}}"#)),
        format!(r#"{{"{MARKER}":"{MARKER}"}}"#).into(),
        with("nonce", &format!(r#"{{"{MARKER}":1}}"#)).into(),
        with("timestamp", &format!("\"{MARKER}\"")).into(),
        MARKER.into(),
        [MARKER.as_bytes(), b"\xff"].concat(),
    ];
    for body in bodies {
        let answer = service.post(body).await;
        assert!(matches!(answer.status, 400 | 401), "{}", answer.status);
        assert_problem(&answer, answer.status);
        let all = format!("{:?}{}", answer.headers, answer.text());
        assert!(!all.contains(MARKER), "{all}");
    }
    let path = http::post(service.convoke.events, "/elsewhere", MARKER, &[("X-Request-ID", "!MaRkEr7Q9")]).await;
    assert!(path.status == 404 && !format!("{:?}{}", path.headers, path.text()).contains(MARKER));
    assert_eq!(counts(), before);
    for entry in std::fs::read_dir(service.convoke.folder()).expect("its folder").flatten() {
        let bytes = std::fs::read(entry.path()).expect("a file of the service");
        let found = bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
        assert!(!found, "{} holds the marker", entry.path().display());
    }
    let metrics = http::get(&format!("http://{}/metrics", service.convoke.admin)).await.text();
    assert!(!metrics.contains(MARKER));
}
