//! Who may see what on the admin listener, and its metrics.

use super::*;

#[tokio::test]
async fn with_a_token_only_the_probes_are_open() {
    let builder = settings().setting("ADMIN_TOKEN", "t0ken-of-the-tests").setting("ADMIN_LISTEN", "0.0.0.0:0");
    let mut convoke = builder.start().await;
    convoke.admin.set_ip([127, 0, 0, 1].into());
    convoke.wait_ready(WAIT_TIMEOUT).await;
    for open in ["/livez", "/readyz"] {
        let (status, _) = asked(&convoke, &format!("GET {open} HTTP/1.1\r\nHost: evil.example\r\n\r\n")).await;
        assert_eq!(status, 200, "{open}");
    }
    for closed in ["/metrics", "/readyz?verbose", "/readyz?verbose=1", "/readyz?a&verbose", "/", "/elsewhere"] {
        let (status, answer) = asked(&convoke, &format!("GET {closed} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(status, 401, "{closed}");
        let lower = answer.to_ascii_lowercase();
        assert!(lower.contains("www-authenticate: bearer") && lower.contains("application/problem+json"), "{answer}");
        for wrong in ["Bearer t0ken-of-the-test", "Basic t0ken-of-the-tests", "t0ken-of-the-tests", "Bearer", ""] {
            assert_eq!(authorised(&convoke, closed, wrong).await.0, 401, "{closed} {wrong}");
        }
    }
    assert_eq!(authorised(&convoke, "/metrics", "Bearer t0ken-of-the-testsn").await.0, 401);
    for scheme in ["Bearer", "bearer"] {
        assert_eq!(authorised(&convoke, "/metrics", &format!("{scheme} t0ken-of-the-tests")).await.0, 200);
    }
    assert_eq!(authorised(&convoke, "/readyz?verbose", "Bearer t0ken-of-the-tests").await.0, 200);
    assert_eq!(authorised(&convoke, "/elsewhere", "Bearer t0ken-of-the-tests").await.0, 404);
}

#[tokio::test]
async fn without_a_token_only_requests_that_name_this_machine_are_answered() {
    let service = Service::start().await;
    let port = service.convoke.admin.port();
    let ask = async |host: &str| asked(&service.convoke, &format!("GET /metrics HTTP/1.1\r\n{host}\r\n\r\n")).await.0;
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "[::1]"] {
        assert_eq!(ask(&format!("Host: {host}:{port}")).await, 200, "{host}");
        assert_eq!(ask(&format!("Host: {host}")).await, 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "0.0.0.0",
        "[::2]",
        "",
        "@localhost",
    ] {
        assert_eq!(ask(&format!("Host: {host}:{port}")).await, 403, "{host}");
    }
    assert_eq!(ask("X-No-Host: 1").await, 403);
    assert_eq!(ask("Host: localhost\r\nHost: evil.example").await, 403);
    let absolute = "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(asked(&service.convoke, absolute).await.0, 403);
}

/// Name, type and labels of every metric, as the contract lists them.
const METRICS: &[(&str, &str, &[&str])] = &[
    ("convoke_deliveries_total", "counter", &["subscriber", "event", "outcome"]),
    ("convoke_rejections_total", "counter", &["reason"]),
    ("convoke_delivery_duration_seconds", "histogram", &[]),
    ("convoke_signature_form_total", "counter", &["form"]),
    ("convoke_commit_batch_size", "histogram", &[]),
    ("convoke_commit_duration_seconds", "histogram", &[]),
    ("convoke_store_queue", "gauge", &[]),
    ("convoke_cursor_lag_events", "gauge", &["cursor"]),
    ("convoke_cursor_lag_seconds", "gauge", &["cursor"]),
    ("convoke_published_total", "counter", &["outcome"]),
    ("convoke_publish_errors_total", "counter", &["reason"]),
    ("convoke_set_aside", "gauge", &["cursor"]),
    ("convoke_quarantined", "gauge", &[]),
    ("convoke_bus_connected", "gauge", &[]),
    ("convoke_last_event_timestamp_seconds", "gauge", &["subscriber"]),
    ("convoke_last_handshake_timestamp_seconds", "gauge", &["subscriber"]),
    ("convoke_not_accepting_seconds", "gauge", &[]),
    ("convoke_disk_free_bytes", "gauge", &[]),
    ("convoke_retention_blocked", "gauge", &[]),
    ("convoke_stream_missing_events", "gauge", &[]),
    ("convoke_stream_unknown_events", "gauge", &[]),
    ("convoke_stream_checked_timestamp_seconds", "gauge", &[]),
    ("convoke_stream_setbacks_total", "counter", &["kind"]),
    ("convoke_backfill_events_total", "counter", &["event"]),
    ("convoke_backfill_not_fillable_total", "counter", &["reason"]),
    ("convoke_backfill_incomplete_total", "counter", &["list"]),
    ("convoke_backfill_failures_total", "counter", &[]),
    ("convoke_backfill_completed_timestamp_seconds", "gauge", &[]),
    ("convoke_running_events_total", "counter", &["event"]),
    ("convoke_running_inconclusive_total", "counter", &["reason"]),
    ("convoke_running_meetings", "gauge", &[]),
    ("convoke_running_read_timestamp_seconds", "gauge", &[]),
    ("convoke_live_connections_total", "counter", &["outcome"]),
    ("convoke_live_discarded_total", "counter", &["reason"]),
    ("convoke_live_meetings", "gauge", &[]),
    ("convoke_live_messages_total", "counter", &["type"]),
    ("convoke_live_unattended_total", "counter", &["reason"]),
    ("convoke_completeness_compared_timestamp_seconds", "gauge", &[]),
    ("convoke_completeness_differing", "gauge", &[]),
    ("convoke_completeness_missing_meetings", "gauge", &[]),
    ("convoke_completeness_silent", "gauge", &[]),
    ("convoke_fetches", "gauge", &["task", "state"]),
    ("convoke_fetch_failures_total", "counter", &["task", "class"]),
    ("convoke_subscription_status", "gauge", &["status"]),
    ("convoke_reload_ok", "gauge", &[]),
    ("convoke_task_restarts_total", "counter", &["task"]),
    ("convoke_log_lines_dropped_total", "counter", &[]),
    ("convoke_connections", "gauge", &[]),
    ("convoke_connections_evicted_total", "counter", &[]),
    ("convoke_connection_failures_total", "counter", &["reason"]),
    ("convoke_tls_expiry_timestamp_seconds", "gauge", &[]),
    ("convoke_build_info", "gauge", &["version"]),
];

#[tokio::test]
async fn every_metric_is_there_from_the_start() {
    let service = Service::start().await;
    let text = http::get(&format!("http://{}/metrics", service.convoke.admin)).await.text();
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let expected: BTreeMap<&str, &str> = METRICS.iter().map(|(name, kind, _)| (*name, *kind)).collect();
    assert_eq!(types, expected);
    for (name, kind, labels) in METRICS {
        let series = if *kind == "histogram" { format!("{name}_count") } else { (*name).to_owned() };
        let mine: Vec<_> = text
            .lines()
            .filter(|line| line.strip_prefix(&series).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .collect();
        assert!(!mine.is_empty(), "{name} has no series");
        for line in mine {
            let have: Vec<_> = line
                .split_once('{')
                .map(|(_, rest)| rest.split('}').next().unwrap_or_default())
                .map(|inner| inner.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect())
                .unwrap_or_default();
            let (mut have, mut labels): (Vec<&str>, Vec<&str>) = (have, labels.to_vec());
            have.sort_unstable();
            labels.sort_unstable();
            assert_eq!(have, labels, "{line}");
            let values = line.split('"').skip(1).step_by(2);
            assert!(
                values.clone().all(|value| !value.contains([' ', '-'])),
                "values of labels are words_like_this: {line}"
            );
            let zero = line.ends_with(" 0");
            let other = matches!(*name, "convoke_disk_free_bytes" | "convoke_reload_ok" | "convoke_build_info");
            assert!(zero || other, "{line} at the start");
        }
    }
    let series = |series: &str| http::metric_in(&text, series);
    for outcome in ["stored", "duplicate", "verified", "quarantined"] {
        for kind in convoke_core::event::KNOWN_EVENTS.iter().chain(&["meeting.verify", "other"]) {
            let one =
                format!(r#"convoke_deliveries_total{{subscriber="{APP_ID}",event="{kind}",outcome="{outcome}"}}"#);
            assert_eq!(series(&one), Some(0.0), "{one}");
        }
    }
    for outcome in ["new", "duplicate"] {
        assert_eq!(series(&format!(r#"convoke_published_total{{outcome="{outcome}"}}"#)), Some(0.0));
    }
    for name in ["convoke_cursor_lag_events", "convoke_cursor_lag_seconds", "convoke_set_aside"] {
        assert_eq!(series(&format!(r#"{name}{{cursor="bus"}}"#)), Some(0.0), "{name}");
    }
    assert_eq!((series("convoke_reload_ok"), series("convoke_build_info")), (Some(1.0), Some(1.0)));
    assert!(series("convoke_disk_free_bytes").is_some_and(|bytes| bytes > 0.0));

    let page = service.convoke.folder().join("metrics.txt");
    std::fs::write(&page, &text).expect("a file");
    let mut promtool = std::process::Command::new(tools::promtool());
    promtool.args(["check", "metrics"]).stdin(std::fs::File::open(&page).expect("a file"));
    assert_eq!(tools::output_of(&mut promtool), "");
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let service = Service::with(settings().setting("NATS_URL", nats.url()), Database::Sqlite).await;
    let begun = now();
    for n in 0..3 {
        service.acknowledged(&event("meeting.join", &n.to_string())).await;
    }
    let again = event("meeting.left", "1");
    for _ in 0..3 {
        service.acknowledged(&again).await;
    }
    service.acknowledged(r#"{"event":"","timestamp":1}"#).await;
    let handshake = service.post(signed(r#"{"event":"meeting.verify","timestamp":1}"#)).await;
    assert_eq!(handshake.status, 200);
    // A sender that escapes what it signs and not what it sends, or the other way round: it is one event.
    let (plain, escaped) = ("王", "\\u738b");
    for (sent, what) in [(plain, escaped), (escaped, plain)] {
        let info = |name: &str| format!(r#"{{"event":"form","timestamp":{},"payload":{{"x":"{name}"}}}}"#, begun);
        let hmac = convoke_core::sign::sign(APP_ID, begun, "1", info(what).as_bytes(), KEY.as_bytes());
        let body = format!(
            r#"{{"appID":"{APP_ID}","timestamp":{begun},"nonce":"1","signature":"{hmac}","eventInfo":{}}}"#,
            info(sent)
        );
        assert_eq!(service.post(body).await.status, 200, "{sent} signed as {what}");
    }
    eventually("all of it is published", WAIT_TIMEOUT, async || {
        service.metric(r#"convoke_published_total{outcome="new"}"#).await == 5.0
    })
    .await;
    eventually("the gauges were looked at", WAIT_TIMEOUT, async || service.metric("convoke_quarantined").await == 1.0)
        .await;
    let text = http::get(&format!("http://{}/metrics", service.convoke.admin)).await.text();
    let series = |series: &str| http::metric_in(&text, series).unwrap_or_else(|| panic!("no {series}"));
    for (kind, outcome, count) in [
        ("meeting.join", "stored", 3.0),
        ("meeting.left", "stored", 1.0),
        ("meeting.left", "duplicate", 2.0),
        ("other", "quarantined", 1.0),
        ("other", "stored", 1.0),
        ("other", "duplicate", 1.0),
        ("meeting.verify", "verified", 1.0),
    ] {
        let labels = format!(r#"subscriber="{APP_ID}",event="{kind}",outcome="{outcome}""#);
        assert_eq!(series(&format!("convoke_deliveries_total{{{labels}}}")), count, "{labels}");
    }
    for (form, count) in [("raw", 8.0), ("escaped", 1.0), ("unescaped", 1.0)] {
        assert_eq!(series(&format!(r#"convoke_signature_form_total{{form="{form}"}}"#)), count, "{form}");
    }
    assert_eq!(series("convoke_delivery_duration_seconds_count"), 10.0);
    assert_eq!(series("convoke_commit_batch_size_sum"), 10.0, "every delivery, the handshake's note too");
    assert_eq!(series("convoke_commit_duration_seconds_count"), series("convoke_commit_batch_size_count"));
    assert_eq!((series("convoke_store_queue"), series("convoke_bus_connected")), (0.0, 1.0));
    assert_eq!(series(r#"convoke_cursor_lag_events{cursor="bus"}"#), 0.0);
    for name in ["convoke_last_event_timestamp_seconds", "convoke_last_handshake_timestamp_seconds"] {
        let at = series(&format!(r#"{name}{{subscriber="{APP_ID}"}}"#));
        let (from, to) = (begun as f64 / 1e3 - 1.0, now() as f64 / 1e3 + 1.0);
        assert!((from..to).contains(&at), "{name}: {at}");
    }
    assert_eq!(series("convoke_rejections_total"), 0.0);
    assert_eq!(series("convoke_not_accepting_seconds"), 0.0);
}
