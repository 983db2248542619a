//! What an operator touches: settings, secrets, the admin listener, metrics, reload, TLS, start, stop, logs.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use convoke_simulator::Simulation;
use rustix::process::Signal;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    support::service::{APP_ID, Database, KEY, PATH, Service, WAIT_TIMEOUT, event, now, settings, signed, signed_by},
    support::{
        http::{self, RawConnection},
        nats::{NatsOptions, NatsServer, NatsVersion},
        port::Port,
        postgres::Postgres,
        process::{Convoke, Finished, run_convoke},
        proxy::Proxy,
        tools,
        wait::{eventually, stretched},
    },
};

const SUBSCRIBER: [(&str, &str); 2] = [("CONVOKE_APP_ID", APP_ID), ("CONVOKE_APP_KEY", KEY)];

fn assert_refused(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), 2, "{finished:?}");
    let text = &finished.stderr;
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert_eq!(finished.stdout, "");
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_is_refused_with_its_name_its_place_and_the_remedy() {
    let cases: [(&str, &str, &[&str]); 16] = [
        ("LISTEN", "everywhere", &["`listen.events`", "CONVOKE_LISTEN", "127.0.0.1:8080"]),
        ("ADMIN_LISTEN", "0.0.0.0:0", &["`listen.admin`", "CONVOKE_ADMIN_LISTEN", "admin.token_file"]),
        ("PATH_EVENTS", "events", &["`listen.path`", "/openapi/meetingevent"]),
        ("MAX_BODY", "big", &["`listen.max_body`", "256 KiB"]),
        ("ALLOW_FROM", "10.0.0.0/33", &["`listen.allow_from`", "10.0.0.0/8"]),
        ("TRUSTED_PROXIES", "proxy", &["`listen.trusted_proxies`"]),
        ("SHUTDOWN_DELAY", "2", &["`listen.shutdown_delay`", "25s"]),
        ("TLS_CERT", "cert.pem", &["`listen.tls_cert`", "listen.tls_key"]),
        ("DATABASE_URL", "mysql://h/d", &["`database.url`", "sqlite://", "postgres://"]),
        ("RETENTION", "47h", &["`database.retention`", "2days"]),
        ("MIGRATE", "yes", &["`database.migrate`", "true or false"]),
        ("NATS_URL", "http://h", &["`nats.url`", "nats://HOST:4222", "none"]),
        ("NATS_REPLICAS", "6", &["`nats.replicas`"]),
        ("PRIVACY_MASK", "displayNam", &["`privacy.mask`", "displayName"]),
        ("LOG_FORMAT", "xml", &["`log.format`", "text", "json"]),
        ("LISTENN", "127.0.0.1:1", &["CONVOKE_LISTENN", "CONVOKE_LISTEN?"]),
    ];
    for (name, value, words) in cases {
        let variable = format!("CONVOKE_{name}");
        let finished = run_convoke(&["serve"], &[SUBSCRIBER[0], SUBSCRIBER[1], (&variable, value)]).await;
        assert_refused(&finished, words);
        let empty = run_convoke(&["serve"], &[SUBSCRIBER[0], SUBSCRIBER[1], (&variable, "")]).await;
        assert_refused(&empty, &[if name == "LISTENN" { "CONVOKE_LISTENN" } else { "empty" }]);
    }
    assert_refused(&run_convoke(&["serve"], &[]).await, &["`subscriber`", "CONVOKE_APP_ID", "[[subscriber]]"]);
    assert_refused(&run_convoke(&["serve"], &SUBSCRIBER[..1]).await, &["CONVOKE_APP_KEY_FILE"]);
    assert_refused(&run_convoke(&["serve"], &SUBSCRIBER[1..]).await, &["CONVOKE_APP_ID"]);
    let no_file = [SUBSCRIBER[0], ("CONVOKE_APP_KEY_FILE", "/nowhere/key")];
    assert_refused(&run_convoke(&["serve"], &no_file).await, &["key_files", "/nowhere/key", "CONVOKE_APP_ID"]);
    let flag = run_convoke(&["serve", "--listen", "x"], &SUBSCRIBER).await;
    assert_refused(&flag, &["`listen.events`", "--listen"]);
    assert_refused(
        &run_convoke(&["serve"], &[SUBSCRIBER[0], SUBSCRIBER[1], ("RUST_LOG", "a=b=c")]).await,
        &["RUST_LOG"],
    );
    for wrong in [&["sevre"][..], &["serve", "--listne", "x"], &[]] {
        assert_eq!(run_convoke(wrong, &SUBSCRIBER).await.code(), 2, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_settings_file_that_cannot_be_used_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("c.toml");
    let subscriber = "[[subscriber]]\napp_id = \"1\"\nkeys = [\"k\"]\n";
    let cases: [(&str, &[&str]); 7] = [
        ("[listen]\nevent = \"127.0.0.1:1\"\n", &["`listen.event`", "line 2", "events"]),
        ("[lisen]\nevents = \"127.0.0.1:1\"\n", &["`lisen", "line 1"]),
        ("[nats]\nurl = \"${CONVOKE_NOT_SET}\"\n", &["`nats.url`", "line 2", "CONVOKE_NOT_SET", "set this variable"]),
        ("[database]\nmigrate = \"yes\"\n", &["`database.migrate`", "line 2", "true or false"]),
        ("[listen\n", &["not TOML", "line 1"]),
        ("[[subscriber]]\napp_id = \"2\"\nkeys = [\"\"]\n", &["subscriber.keys", "line 3", "empty"]),
        ("[[subscriber]]\napp_id = \"2\"\npassword = \"s3cr3t\"\n", &["subscriber.password", "line 3"]),
    ];
    for (text, words) in cases {
        let text = if text.starts_with("[[") { text.to_owned() } else { format!("{text}{subscriber}") };
        std::fs::write(&path, text).expect("a file");
        let finished = run_convoke(&["serve", "--config", path.to_str().expect("a plain path")], &[]).await;
        assert_refused(&finished, words);
        assert!(finished.stderr.contains("c.toml") && !finished.stderr.contains("s3cr3t"), "{}", finished.stderr);
    }
    assert_refused(&run_convoke(&["serve", "--config", "/nowhere.toml"], &[]).await, &["--config", "/nowhere.toml"]);
}

#[tokio::test]
async fn a_flag_counts_more_than_a_variable_than_the_file_than_the_shared_variable_than_the_default() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let file = folder.path().join("c.toml");
    std::fs::write(&file, format!("[database]\nurl = \"{}\"\n", url("file"))).expect("a file");
    let (flag, variable, shared) = (url("flag"), url("variable"), url("shared"));
    let file = file.to_str().expect("a plain path");
    let flag_args = ["migrate", "--database-url", &flag];
    let variables = [("CONVOKE_CONFIG", file), ("DATABASE_URL", &shared), ("CONVOKE_DATABASE_URL", &variable)];
    for (arguments, variables, expected) in [
        (&flag_args[..], &variables[..], "/flag:"),
        (&["migrate"], &variables, "/variable:"),
        (&["migrate"], &variables[..2], "/file:"),
        (&["migrate"], &variables[1..2], "/shared:"),
        (&["migrate"], &[], "convoke.db:"),
    ] {
        let finished = run_convoke(arguments, variables).await;
        assert_eq!(finished.code(), 0, "{finished:?}");
        assert!(finished.stdout.contains(expected), "{expected}: {}", finished.stdout);
    }
}

#[tokio::test]
async fn no_secret_shows_at_any_level_of_the_log_in_help_or_in_errors() {
    const SECRETS: [&str; 4] = ["kEy-7f3a9c", "tOkEn-5d21e8-5d21e8", "pAsSwOrD-93bb", "nAtSpW-2c66"];
    let [key, token, password, nats_password] = SECRETS;
    let postgres = Postgres::start().await;
    let user = Some(("convoke".to_owned(), nats_password.to_owned()));
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions { user, ..NatsOptions::default() }).await;
    let address = postgres.address();
    let builder = || {
        Convoke::builder()
            .setting("APP_ID", APP_ID)
            .setting("APP_KEY", key)
            .setting("ADMIN_TOKEN", token)
            .setting("DATABASE_URL", format!("postgres://postgres:{password}@{address}/postgres"))
            .setting("NATS_URL", format!("nats://convoke:{nats_password}@{}", nats.address()))
            .setting("SHUTDOWN_DELAY", "0s")
            .env("RUST_LOG", "trace")
    };
    let mut convoke = builder().start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    for (sign_with, status) in [(key, 200), ("other", 401)] {
        let body = signed_by(APP_ID, sign_with, &event("meeting.join", "1"));
        assert_eq!(http::post(convoke.events, PATH, body, &[]).await.status, status);
    }
    let handshake = signed_by(APP_ID, key, r#"{"event":"meeting.verify","timestamp":1}"#);
    assert_eq!(http::post(convoke.events, PATH, handshake, &[]).await.status, 200);
    let metrics = authorised(&convoke, "/metrics", &format!("Bearer {token}")).await;
    let verbose = authorised(&convoke, "/readyz?verbose", &format!("Bearer {token}")).await;
    assert_eq!((metrics.0, verbose.0), (200, 200));
    convoke.signal(Signal::HUP);
    eventually("it has read its keys again", WAIT_TIMEOUT, async || convoke.logs().contains("reloaded")).await;
    let beside = [&["check"][..], &["verify", "/dev/null"], &["audit", "--wait", "0s"], &["quarantine", "list"]];
    let mut said = metrics.1 + verbose.1.as_str();
    for arguments in beside {
        let finished = convoke.run(arguments).await;
        said += &(finished.stdout + finished.stderr.as_str());
    }
    for command in ["serve", "demo", "simulate", "audit", "verify", "replay", "quarantine", "check", "migrate"] {
        let finished = convoke.run(&[command, "--help"]).await;
        assert_eq!(finished.code(), 0);
        said += &(finished.stdout + finished.stderr.as_str());
    }
    for (name, value) in [("LISTEN", "x"), ("MAX_BODY", "x"), ("APP_KEYS", key), ("RETENTION", "1h")] {
        let finished = builder().setting(name, value).arg("serve").run().await;
        assert_eq!(finished.code(), 2);
        said += &(finished.stdout + finished.stderr.as_str());
    }
    for (name, value) in [
        ("DATABASE_URL", format!("postgers://u:{password}@h/d")),
        ("NATS_URL", format!("http://u:{nats_password}@h")),
        ("ADMIN_TOKEN", format!("{token} x")),
        ("APP_KEY", format!("{key}\n")),
    ] {
        let finished = builder().setting(name, value).arg("serve").run().await;
        assert_eq!(finished.code(), 2, "{name}: {}", finished.stderr);
        said += &(finished.stdout + finished.stderr.as_str());
    }
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(WAIT_TIMEOUT).await.success());
    said += &(convoke.logs() + convoke.stdout().as_str());
    assert!(said.contains("\"level\":\"TRACE\""), "the log was not at its most talkative");
    for secret in SECRETS {
        let found = said.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{secret} in: {}", found.unwrap_or_default());
    }
}

#[tokio::test]
async fn credentials_in_the_url_of_the_bus_are_used() {
    let user = Some(("con/voke".to_owned(), "p@ss, w:rd".to_owned()));
    let by_password = NatsServer::start(NatsVersion::Newest, NatsOptions { user, ..NatsOptions::default() }).await;
    let token = Some("t0ken".to_owned());
    let by_token = NatsServer::start(NatsVersion::Oldest, NatsOptions { token, ..NatsOptions::default() }).await;
    for (login, server) in [("con%2Fvoke:p%40ss%2C%20w%3Ard", &by_password), ("t0ken", &by_token)] {
        let url = format!("nats://{login}@{}", server.address());
        let service = Service::with(settings().setting("NATS_URL", url), Database::Sqlite).await;
        service.acknowledged(&event("meeting.join", "1")).await;
        eventually("it is published", WAIT_TIMEOUT, async || {
            service.metric(r#"convoke_published_total{outcome="new"}"#).await == 1.0
        })
        .await;
        assert_eq!(service.convoke.run(&["audit"]).await.code(), 0);
    }
}

/// Status and body of a page of the admin listener, asked for with this `Authorization`.
async fn authorised(convoke: &Convoke, path: &str, authorization: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin.example\r\nAuthorization: {authorization}\r\n\r\n");
    asked(convoke, &request).await
}

async fn asked(convoke: &Convoke, request: &str) -> (u16, String) {
    let mut connection = RawConnection::open(convoke.admin).await;
    connection.send(request.as_bytes()).await;
    let answer = connection.answer().await;
    (answer[9..12].parse().expect("a status"), answer)
}

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

fn write_keys(path: &Path, keys: &[&str]) {
    std::fs::write(path, keys.join("\n")).expect("a key file");
}

#[tokio::test]
async fn new_keys_are_taken_without_a_restart_and_bad_ones_leave_the_old() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("keys");
    write_keys(&file, &["old"]);
    let builder = Convoke::builder().setting("NATS_URL", "none").setting("APP_ID", APP_ID);
    let mut service = Service::with(builder.setting("APP_KEY_FILE", &file), Database::Sqlite).await;
    let events = service.convoke.events;
    // One connection that lives through it all.
    let mut connection = RawConnection::open(events).await;
    let mut status = async |key: &str| {
        let body = signed_by(APP_ID, key, &event("meeting.join", "1"));
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send(&[head.as_bytes(), &body].concat()).await;
        connection.answer().await[9..12].to_owned()
    };
    assert_eq!((status("old").await.as_str(), status("new").await.as_str()), ("200", "401"));

    write_keys(&file, &["old", "new"]);
    service.convoke.signal(Signal::HUP);
    eventually("the new key counts", WAIT_TIMEOUT, async || status("new").await == "200").await;
    assert_eq!(status("old").await, "200");
    assert_eq!(service.metric("convoke_reload_ok").await, 1.0);

    write_keys(&file, &["old", "", "new"]);
    service.convoke.signal(Signal::HUP);
    eventually("the failure shows", WAIT_TIMEOUT, async || service.metric("convoke_reload_ok").await == 0.0).await;
    assert_eq!((status("old").await.as_str(), status("new").await.as_str()), ("200", "200"));
    assert_eq!(service.convoke.logs().matches("could not reload").count(), 1);

    write_keys(&file, &["new"]);
    service.convoke.signal(Signal::HUP);
    eventually("the old key is gone", WAIT_TIMEOUT, async || status("old").await == "401").await;
    assert_eq!(service.metric("convoke_reload_ok").await, 1.0);
}

/// The lines of a log in JSON, all of which must be that.
fn lines(log: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(parse).collect()
}

pub mod tls {
    //! A certificate authority by `openssl`, and a client that trusts it.

    use std::{path::Path, process::Command, sync::Arc};

    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpStream;
    use tokio_rustls::{
        TlsConnector,
        client::TlsStream,
        rustls::{
            ClientConfig, RootCertStore,
            crypto::ring,
            pki_types::{CertificateDer, ServerName, pem::PemObject},
        },
    };

    use crate::support::tools::output_of;

    /// Writes a self-signed certificate for 127.0.0.1 and its key.
    pub fn certificate(cert: &Path, key: &Path) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=convoke-test", "-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.arg("-out").arg(cert).arg("-keyout").arg(key);
        output_of(&mut openssl);
    }

    /// Connects, offering one protocol; only the certificate in `trusted` will do.
    pub async fn connect(
        address: std::net::SocketAddr,
        trusted: &Path,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted).expect("PEM")).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(address.ip().to_string()).expect("an address");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        Ok(stream)
    }

    /// Posts over HTTP/2 and returns status and body.
    pub async fn post_http2(stream: TlsStream<TcpStream>, path: &str, body: Vec<u8>) -> (u16, String) {
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        let driver = tokio::spawn(connection);
        let uri = format!("https://127.0.0.1{path}");
        let request = hyper::Request::post(uri).body(Full::new(bytes::Bytes::from(body))).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        drop(sender);
        let _ = driver.await;
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

#[tokio::test]
async fn https_is_served_in_both_versions_and_its_certificate_is_replaced_while_it_runs() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    for name in ["one", "two"] {
        tls::certificate(&at(&format!("{name}.cert")), &at(&format!("{name}.key")));
    }
    let put = |name: &str| {
        std::fs::copy(at(&format!("{name}.cert")), &cert).expect("a copy");
        std::fs::copy(at(&format!("{name}.key")), &key).expect("a copy");
    };
    put("one");
    let builder = settings().setting("TLS_CERT", &cert).setting("TLS_KEY", &key);
    let mut service = Service::with(builder, Database::Sqlite).await;
    let events = service.convoke.events;

    let mut old = tls::connect(events, &at("one.cert"), b"http/1.1").await.expect("HTTPS");
    let mut post = async |meeting: &str| {
        let body = signed(&event("meeting.join", meeting));
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        old.write_all(&[head.as_bytes(), &body].concat()).await.expect("an open connection");
        let mut answer = vec![0; 4096];
        let read = old.read(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer[..read.min(12)]).into_owned()
    };
    assert_eq!(post("1").await, "HTTP/1.1 200");
    let h2 = tls::connect(events, &at("one.cert"), b"h2").await.expect("HTTPS");
    assert_eq!(tls::post_http2(h2, PATH, signed(&event("meeting.join", "2"))).await, (200, String::new()));
    // Plain HTTP is answered that it is wrong here.
    assert_eq!(http::post(events, PATH, signed(&event("meeting.join", "3")), &[]).await.status, 400);

    // A key of another certificate: the old pair stays.
    std::fs::copy(at("two.key"), &key).expect("a copy");
    service.convoke.signal(Signal::HUP);
    eventually("the failure shows", WAIT_TIMEOUT, async || service.metric("convoke_reload_ok").await == 0.0).await;
    tls::connect(events, &at("one.cert"), b"h2").await.expect("the old certificate");

    put("two");
    service.convoke.signal(Signal::HUP);
    eventually("the new certificate is shown", WAIT_TIMEOUT, async || {
        tls::connect(events, &at("two.cert"), b"h2").await
    })
    .await;
    assert_eq!(service.metric("convoke_reload_ok").await, 1.0);
    tls::connect(events, &at("one.cert"), b"h2").await.expect_err("the old certificate is gone");
    assert_eq!(post("4").await, "HTTP/1.1 200", "the connection under the old certificate goes on");
    assert_eq!(service.count("events"), 3);

    // Who never says hello does not hold up the end.
    let silent = RawConnection::open(events).await;
    tls::connect(events, &at("two.cert"), b"h2").await.expect("accepted after the silent one");
    service.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert!(begun.elapsed() < stretched(Duration::from_secs(3)), "{:?}", begun.elapsed());
    drop(silent);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_wrong_setting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    tls::certificate(&at("one.cert"), &at("one.key"));
    tls::certificate(&at("two.cert"), &at("two.key"));
    std::fs::write(at("rubbish"), "rubbish").expect("a file");
    for (cert, key, named) in [
        ("one.cert", "nowhere", "`listen.tls_key`"),
        ("nowhere", "one.key", "`listen.tls_cert`"),
        ("rubbish", "one.key", "`listen.tls_cert`"),
        ("one.cert", "rubbish", "`listen.tls_key`"),
        ("one.cert", "two.key", "`listen.tls_key`"),
    ] {
        let builder = settings().setting("LISTEN", "127.0.0.1:0").setting("ADMIN_LISTEN", "127.0.0.1:0");
        let finished = builder.setting("TLS_CERT", at(cert)).setting("TLS_KEY", at(key)).arg("serve").run().await;
        assert_refused(&finished, &[named, "CONVOKE_TLS_"]);
    }
}

#[tokio::test]
async fn a_stop_is_announced_before_it_begins() {
    let mut service = Service::with(settings().setting("SHUTDOWN_DELAY", "5s"), Database::Sqlite).await;
    let (events, admin) = (service.convoke.events, service.convoke.admin);
    let mut kept = RawConnection::open(events).await;
    service.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    eventually("it is not ready any more", WAIT_TIMEOUT, async || {
        http::get(&format!("http://{events}/readyz")).await.status == 503
    })
    .await;
    assert_eq!(http::get(&format!("http://{admin}/readyz")).await.status, 503);
    assert_eq!(http::get(&format!("http://{admin}/livez")).await.status, 200);
    // Events are still taken, on new and on kept connections, and each answer asks for another connection.
    service.acknowledged(&event("meeting.join", "1")).await;
    let body = signed(&event("meeting.join", "2"));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    kept.send(&[head.as_bytes(), &body].concat()).await;
    let answer = String::from_utf8(kept.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(service.convoke.exited().is_none(), "all of this was before it began: {:?}", begun.elapsed());
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(service.count("events"), 2);
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_end() {
    let postgres = Postgres::start().await;
    let proxy = Proxy::start(postgres.address());
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let mut service =
        Service::with(settings().setting("DATABASE_URL", url), Database::Postgres(Box::new(postgres))).await;
    // One waits for the database, one is still being sent.
    let body = signed(&event("meeting.join", "1"));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut half = RawConnection::open(service.convoke.events).await;
    half.send(&[head.as_bytes(), &body[..20]].concat()).await;
    proxy.stall();
    let stored = http::post(service.convoke.events, PATH, signed(&event("meeting.join", "2")), &[]);
    let story = async {
        eventually("it is in the writer's hands", WAIT_TIMEOUT, async || {
            service.metric("convoke_signature_form_total").await == 1.0
        })
        .await;
        service.convoke.signal(Signal::TERM);
        eventually("it takes no connections", WAIT_TIMEOUT, async || {
            tokio::net::TcpStream::connect(service.convoke.events).await.is_err()
        })
        .await;
        proxy.heal();
        half.send(&body[20..]).await;
        half.answer().await
    };
    let (stored, half) = tokio::join!(stored, story);
    assert_eq!(stored.status, 200);
    assert!(half.starts_with("HTTP/1.1 200 "), "{half}");
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert_eq!(service.count("events"), 2);
}

#[tokio::test]
async fn an_end_is_not_held_up_by_who_sends_nothing() {
    let mut service = Service::with(settings().setting("SHUTDOWN_TIMEOUT", "20s"), Database::Sqlite).await;
    let events = service.convoke.events;
    let silent = RawConnection::open(events).await;
    let mut begun_head = RawConnection::open(events).await;
    begun_head.send(b"POST /openapi/meeting").await;
    let mut idle = RawConnection::open(events).await;
    idle.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
    idle.answer().await;
    let mut http2 = RawConnection::open(events).await;
    http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut idle_head = RawConnection::open(events).await;
    idle_head.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
    idle_head.answer().await;
    idle_head.send(b"GET /live").await;
    eventually("all are accepted", WAIT_TIMEOUT, async || {
        http::get(&format!("http://{events}/livez")).await.status == 200
    })
    .await;
    service.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert!(begun.elapsed() < stretched(Duration::from_secs(3)), "{:?}", begun.elapsed());
    drop((silent, begun_head, idle, http2, idle_head));
}

#[tokio::test]
async fn an_end_that_takes_too_long_is_cut_short_by_its_timeout_or_by_a_second_signal() {
    let half_a_request = async |convoke: &Convoke| {
        let mut connection = RawConnection::open(convoke.events).await;
        connection.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{{").as_bytes()).await;
        eventually("it is being read", WAIT_TIMEOUT, async || {
            http::get(&format!("http://{}/livez", convoke.events)).await.status == 200
        })
        .await;
        connection
    };
    let mut bounded = Service::with(settings().setting("SHUTDOWN_TIMEOUT", "1s"), Database::Sqlite).await;
    let _under_way = half_a_request(&bounded.convoke).await;
    bounded.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(bounded.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(800) && took < stretched(Duration::from_secs(4)), "{took:?}");

    let mut forced = Service::start().await;
    let _under_way = half_a_request(&forced.convoke).await;
    forced.convoke.signal(Signal::INT);
    eventually("it stops", WAIT_TIMEOUT, async || forced.convoke.logs().contains("stopping")).await;
    forced.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(forced.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(1));
    assert!(begun.elapsed() < stretched(Duration::from_secs(3)), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn stops_and_starts_under_load_lose_nothing() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let builder = settings().setting("NATS_URL", nats.url()).setting("SHUTDOWN_DELAY", "300ms");
    let mut service = Service::with(builder, Database::Sqlite).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = folder.path().join("ledger");
    let simulation = Simulation {
        rate: Some(300.0),
        duration: Some(Duration::from_secs(4)),
        resign_retries: true,
        duplicates: 0.05,
        time_scale: 60.0,
        ledger: Some(ledger.clone()),
        ..Simulation::new(format!("http://{}{PATH}", service.convoke.events), APP_ID, KEY.into())
    };
    let stops = async {
        for n in 1..=2 {
            eventually("some events are in", WAIT_TIMEOUT, async || service.count("events") > n * 200).await;
            service.convoke.signal(Signal::TERM);
            assert_eq!(service.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(0));
            service.convoke.restart().await;
        }
    };
    let (report, ()) = tokio::join!(simulation.run(CancellationToken::new()), stops);
    let report = report.expect("a report");
    assert_eq!((report.given_up, report.unsettled, report.acknowledged), (0, 0, report.sent), "{report}");
    // Between a stop and a start there is nobody; nothing else went wrong.
    let kinds: Vec<_> = report.failures.keys().map(String::as_str).collect();
    assert!(kinds.iter().all(|kind| matches!(*kind, "connect" | "broken" | "status_503")), "{report}");
    let audit = service.convoke.run(&["audit", "--ledger", ledger.to_str().expect("a plain path")]).await;
    assert_eq!((audit.code(), audit.stdout.lines().last()), (0, Some("clean")), "{}", audit.stdout);
}

#[tokio::test]
async fn a_stop_under_load_cuts_no_answer_in_the_middle() {
    #[derive(Default)]
    struct Seen {
        whole: u64,
        nothing: u64,
        cut: Vec<String>,
    }
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut service = Service::with(settings().setting("SHUTDOWN_DELAY", "300ms"), Database::Sqlite).await;
    let events = service.convoke.events;
    let client = move |client: usize| async move {
        let mut seen = Seen::default();
        for n in 0.. {
            let Ok(mut stream) = tokio::net::TcpStream::connect(events).await else { break };
            // On one connection until it is closed.
            for m in 0.. {
                let body = signed(&event("meeting.join", &format!("{client}-{n}-{m}")));
                let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
                let mut answer = Vec::new();
                let sent = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                while !answer.ends_with(b"\r\n\r\n") {
                    match stream.read_buf(&mut answer).await {
                        Ok(1..) => {}
                        _ => break,
                    }
                }
                let text = String::from_utf8_lossy(&answer).into_owned();
                if text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n") {
                    seen.whole += 1;
                } else if text.is_empty() {
                    seen.nothing += 1;
                } else {
                    seen.cut.push(text.clone());
                }
                if sent.is_err() || text.is_empty() || text.contains("connection: close") {
                    break;
                }
            }
        }
        seen
    };
    let clients: Vec<_> = (0..8).map(|n| tokio::spawn(client(n))).collect();
    eventually("the load is on", WAIT_TIMEOUT, async || service.count("events") > 50).await;
    service.convoke.signal(Signal::TERM);
    assert_eq!(service.convoke.wait_exit(WAIT_TIMEOUT).await.code(), Some(0));
    let mut whole = 0;
    for client in clients {
        let seen = client.await.expect("a client");
        whole += seen.whole;
        assert!(seen.cut.is_empty(), "{:?}", seen.cut);
        // At most the one that was on its way to a connection nobody accepted any more.
        assert!(seen.nothing <= 1, "{}", seen.nothing);
    }
    assert!(whole > 50);
    let deliveries: u64 = service.sql("SELECT sum(deliveries) FROM events").parse().expect("a number");
    assert!(deliveries >= whole, "{whole} acknowledged, {deliveries} kept");
}

#[tokio::test]
async fn the_service_starts_before_its_database_and_becomes_ready_with_it() {
    let postgres = Postgres::start().await;
    let proxy = Proxy::start(postgres.address());
    proxy.cut();
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let convoke = settings().setting("DATABASE_URL", url).start().await;
    let post = async |body: Vec<u8>| http::post(convoke.events, PATH, body, &[]).await;
    assert_eq!(post(signed(r#"{"event":"meeting.verify","timestamp":1}"#)).await.status, 200);
    let refused = post(signed(&event("meeting.join", "1"))).await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    assert_eq!(http::get(&format!("http://{}/readyz", convoke.events)).await.status, 503);
    assert!(http::metric(convoke.admin, "convoke_not_accepting_seconds").await > 0.0);
    proxy.heal();
    convoke.wait_ready(WAIT_TIMEOUT).await;
    assert_eq!(post(signed(&event("meeting.join", "1"))).await.status, 200);
    let complaints: Vec<_> = lines(&convoke.logs()).into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(complaints.len(), 1, "said once: {complaints:?}");
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_ends_the_service() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("c.db");
    let url = format!("sqlite://{}", file.display());
    let serve = || {
        let builder = settings().setting("DATABASE_URL", &url).arg("serve");
        builder.setting("LISTEN", "127.0.0.1:0").setting("ADMIN_LISTEN", "127.0.0.1:0").run()
    };
    let run_sql = |sql: &str| tools::output_of(std::process::Command::new("sqlite3").arg(&file).arg(sql));
    run_sql("CREATE TABLE events (somebody TEXT)");
    let foreign = serve().await;
    assert_eq!(foreign.code(), 1, "{}", foreign.stderr);
    assert!(foreign.stderr.contains("a table `events` that is not Convoke's"), "{}", foreign.stderr);

    std::fs::remove_file(&file).expect("a file");
    assert_eq!(settings().setting("DATABASE_URL", &url).arg("migrate").run().await.code(), 0);
    run_sql("INSERT INTO _sqlx_migrations VALUES (99990101000000, 'x', '2026-01-01', 1, x'00', 1)");
    let newer = serve().await;
    assert_eq!(newer.code(), 1, "{}", newer.stderr);
    assert!(newer.stderr.contains("newer"), "{}", newer.stderr);
}

#[tokio::test]
async fn without_leave_to_migrate_the_service_waits_until_somebody_did() {
    for database in [Database::Sqlite, Database::postgres().await] {
        let builder = match &database {
            Database::Sqlite => settings(),
            Database::Postgres(postgres) => settings().setting("DATABASE_URL", postgres.url()),
        };
        let convoke = builder.setting("MIGRATE", "false").start().await;
        eventually("it says what it waits for", WAIT_TIMEOUT, async || convoke.logs().contains("convoke migrate"))
            .await;
        let answer = http::post(convoke.events, PATH, signed(&event("meeting.join", "1")), &[]).await;
        assert_eq!(answer.status, 503);
        let migrated = convoke.run(&["migrate"]).await;
        assert_eq!(migrated.code(), 0, "{}", migrated.stderr);
        convoke.wait_ready(WAIT_TIMEOUT).await;
        let service = Service { convoke, database };
        service.acknowledged(&event("meeting.join", "1")).await;
        assert_eq!(service.count("events"), 1);
    }
}

#[tokio::test]
async fn it_is_ready_at_once_on_a_database_that_exists() {
    let mut service = Service::start().await;
    service.acknowledged(&event("meeting.join", "1")).await;
    service.convoke.kill().await;
    let begun = Instant::now();
    service.convoke.restart().await;
    service.convoke.wait_ready(WAIT_TIMEOUT).await;
    assert!(begun.elapsed() < stretched(Duration::from_secs(2)), "{:?}", begun.elapsed());
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn the_log_is_one_line_a_failure_and_holds_nobodys_name() {
    let service = Service::start().await;
    let personal = ["Wáng Xiǎomíng", "login.of.wang", "+8657100000000001"];
    let info = |timestamp: &str| {
        format!(
            r#"{{"event":"meeting.join","timestamp":{timestamp},"payload":{{"attendeeInfo":{{"displayName":"{}","account":"{}","callNumber":"{}"}}}}}}"#,
            personal[0], personal[1], personal[2]
        )
    };
    let answers = [
        (signed(&info("1735700465789")), 200),
        (signed(&info("1735700465789")), 200),
        (signed(&info("null")), 200),
        (signed_by(APP_ID, "forged", &info("1")), 401),
        (signed(&info("1")).split_last().expect("a body").1.to_vec(), 400),
        (signed(&info("}")), 400),
    ];
    let before = service.convoke.logs().lines().count();
    for (body, status) in answers {
        assert_eq!(service.post(body).await.status, status);
    }
    eventually("each failure is logged", WAIT_TIMEOUT, async || service.convoke.logs().lines().count() >= before + 4)
        .await;
    let log = service.convoke.logs();
    let said: Vec<_> = lines(&log).split_off(before);
    assert_eq!(said.len(), 4, "one for each failure: {said:#?}");
    for line in &said {
        assert_eq!(line["level"], "WARN");
        assert!(
            line["reason"].is_string() && line["request_id"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
    for name in personal {
        assert!(!log.contains(name), "{name}");
    }
    // The other form, for people.
    let taken = Port::lease();
    let held = std::net::TcpListener::bind(taken.address()).expect("our port");
    let builder = settings().setting("LOG_FORMAT", "text").setting("LISTEN", taken.address().to_string()).arg("serve");
    let finished = builder.run().await;
    drop(held);
    assert_eq!(finished.code(), 1, "{}", finished.stderr);
    let first = finished.stderr.lines().next().unwrap_or_default();
    assert!(first.contains(" INFO ") && first.contains("convoke starts") && !first.contains('{'), "{first}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("convoke: listen.events: cannot listen on"), "{last}");
    assert!(!finished.stderr.contains('\u{1b}'), "no colours into a file");
}
