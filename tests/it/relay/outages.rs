//! A bus that is away, stalls, or refuses.

use super::*;

on_both_versions! {
    a_bus_that_is_absent_at_the_start_gets_everything_when_it_appears
    a_bus_that_is_killed_again_and_again_misses_nothing_and_keeps_the_order
    wrong_credentials_are_tried_again_until_they_are_right
    a_forbidden_subject_is_tried_again_quietly_until_it_is_allowed
    a_bus_that_stalls_gets_everything_in_order_when_it_answers_again
    a_stop_while_the_bus_stalls_is_orderly
}

async fn a_bus_that_is_absent_at_the_start_gets_everything_when_it_appears(version: NatsVersion) {
    let mut nats = NatsServer::start(version, NatsOptions::default()).await;
    nats.kill().await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..20).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="disconnected"}"#, 0.0, TEN).await;
    let lag = metric_over(&convoke, r#"convoke_cursor_lag_events{cursor="bus"}"#, 19.0, TEN).await;
    assert_eq!((lag, http::metric(convoke.admin, "convoke_bus_connected").await), (20.0, 0.0));
    assert!(lines_with(&convoke, "WARN") <= 3, "too many words about one outage:\n{}", convoke.logs());
    nats.restart().await;
    let messages = stream_holds(&nats.jetstream().await, 20, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
    eventually("the lag is gone", TEN, async || {
        http::metric(convoke.admin, r#"convoke_cursor_lag_events{cursor="bus"}"#).await == 0.0
    })
    .await;
}

async fn a_bus_that_is_killed_again_and_again_misses_nothing_and_keeps_the_order(version: NatsVersion) {
    let (mut nats, convoke) = rig(version).await;
    let mut load = Load::steady(convoke.events, 2);
    for _ in 0..3 {
        load.proceeds(150).await;
        nats.kill().await;
        // The service goes on without it.
        load.proceeds(100).await;
        nats.restart().await;
    }
    load.proceeds(100).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

async fn wrong_credentials_are_tried_again_until_they_are_right(version: NatsVersion) {
    let right = Some(("convoke".to_owned(), "right".to_owned()));
    let wrong = Some(("convoke".to_owned(), "another".to_owned()));
    let mut nats = NatsServer::start(version, NatsOptions { user: wrong, ..NatsOptions::default() }).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "right\n").expect("written");
    let convoke = convoke(SQLITE, &nats.url())
        .setting("NATS_USER", "convoke")
        .setting("NATS_PASSWORD_FILE", &password)
        .start()
        .await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..5).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="permission"}"#, 2.0, TEN).await;
    eventually("the log says why", TEN, async || lines_with(&convoke, "authorization violation") > 0).await;
    let warnings = lines_with(&convoke, "\"WARN\"");
    assert!(warnings <= 4, "{warnings} warnings:\n{}", convoke.logs());
    assert!(!convoke.logs().contains("right"), "a password in the log");
    nats.options.user = right;
    nats.restart().await;
    let messages = stream_holds(&nats.jetstream().await, 5, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

async fn a_forbidden_subject_is_tried_again_quietly_until_it_is_allowed(version: NatsVersion) {
    let permissions = |deny: &str| {
        format!(
            "authorization {{ users: [\n\
             {{ user: convoke, password: p, permissions: {{ publish: {{ allow: \">\"{deny} }} }} }},\n\
             {{ user: auditor, password: p }} ] }}\n"
        )
    };
    let config = permissions(", deny: \"meetings.>\"");
    let mut nats = NatsServer::start(version, NatsOptions { config, ..NatsOptions::default() }).await;
    let password = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(password.path(), "p").expect("written");
    let convoke = convoke(SQLITE, &nats.url())
        .setting("NATS_USER", "convoke")
        .setting("NATS_PASSWORD_FILE", password.path())
        .start()
        .await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..60).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="permission"}"#, 0.0, TEN).await;
    let warnings = lines_with(&convoke, "\"WARN\"");
    assert!((1..=4).contains(&warnings), "{warnings} warnings:\n{}", convoke.logs());
    nats.options.config = permissions("");
    nats.restart().await;
    let auditor = async_nats::ConnectOptions::with_user_and_password("auditor".to_owned(), "p".to_owned());
    let client = auditor.connect(nats.url()).await.expect("a connection");
    let messages = stream_holds(&async_nats::jetstream::new(client), 60, LONG_TIMEOUT).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

async fn a_bus_that_stalls_gets_everything_in_order_when_it_answers_again(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let proxy = Proxy::start(nats.address());
    let convoke = convoke(SQLITE, &format!("nats://{}", proxy.address())).start().await;
    convoke.wait_ready(TEN).await;
    let mut load = Load::steady(convoke.events, 6);
    load.proceeds(100).await;
    proxy.stall();
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="timeout"}"#, 0.0, TEN).await;
    proxy.heal();
    load.proceeds(100).await;
    proxy.cut();
    load.proceeds(50).await;
    proxy.heal();
    load.proceeds(50).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
}

async fn a_stop_while_the_bus_stalls_is_orderly(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let proxy = Proxy::start(nats.address());
    let mut convoke = convoke(SQLITE, &format!("nats://{}", proxy.address())).start().await;
    convoke.wait_ready(TEN).await;
    let mut samples = deliver(&convoke, 0..5).await;
    let js = nats.jetstream().await;
    stream_holds(&js, 5, TEN).await;
    proxy.stall();
    samples.extend(deliver(&convoke, 5..10).await);
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(TEN).await.success());
    assert_eq!(lines_with(&convoke, "shutdown_timeout has passed"), 0, "it ended only because its time was over");

    // Cut off from the bus altogether, it uses no processor time to speak of, and ends as well.
    proxy.cut();
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="disconnected"}"#, 3.0, TEN).await;
    let (begun, used, errors) = (Instant::now(), cpu_time(convoke.id()), "convoke_publish_errors_total");
    let before = http::metric(convoke.admin, errors).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = cpu_time(convoke.id()) - used;
    assert!(used < Duration::from_millis(600), "{used:?} of processor time in 2 s of waiting");
    let tries = http::metric(convoke.admin, errors).await - before;
    let time = begun.elapsed();
    assert!(tries <= 5.0 * time.as_secs_f64(), "{tries} tries in {time:?}");
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(TEN).await.success());
    proxy.heal();
    convoke.restart().await;
    let messages = stream_holds(&js, 10, TEN).await;
    let known: HashSet<&str> = sample_ids(&samples).into_iter().collect();
    assert_eq!(first_copies_in_log_order(&messages).len(), known.len());
}
