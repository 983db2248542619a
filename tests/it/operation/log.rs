//! What the log says of deliveries.

use super::*;

#[tokio::test]
async fn each_delivery_is_a_line_at_debug_and_the_hour_that_ends_with_the_service_a_line_at_info() {
    let mut service = Service::with(settings().env("RUST_LOG", "info,convoke=debug"), Database::Sqlite).await;
    let joined = event("meeting.join", "1");
    let ids = [("X-Request-ID", "the-first")];
    assert_eq!(http::post(service.convoke.events, PATH, signed(&joined), &ids).await.status, 200);
    service.acknowledged(&joined).await;
    service.acknowledged(&event("meeting.left", "1")).await;
    for _ in 0..2 {
        assert_eq!(service.post(signed_by(APP_ID, "wrong", &joined)).await.status, 401);
    }
    assert_eq!(http::post(service.convoke.events, "/elsewhere", "", &[]).await.status, 404);
    service.convoke.signal(Signal::TERM);
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());

    let logs = service.convoke.logs();
    let lines: Vec<Value> = logs.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let said = |words: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(words))).collect()
    };
    let deliveries = said("answered a delivery");
    let outcomes: Vec<_> = deliveries.iter().filter_map(|line| line["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["stored", "duplicate", "stored", "refused", "refused"], "{logs}");
    let first = deliveries[0];
    assert_eq!((&first["level"], &first["event"]), (&json!("DEBUG"), &json!("meeting.join")), "{first}");
    assert_eq!(
        (&first["subscriber"], &first["request_id"], &first["peer"]),
        (&json!(APP_ID), &json!("the-first"), &json!("127.0.0.1")),
        "{first}"
    );
    assert_eq!(first["event_id"], service.sql("SELECT event_id FROM events WHERE event = 'meeting.join'"), "{first}");
    assert!(first["milliseconds"].as_f64().is_some_and(|took| took > 0.0), "{first}");
    assert_eq!(deliveries[3]["reason"], "signature");
    assert!(said("refused a delivery").iter().all(|line| line["peer"] == "127.0.0.1"), "{logs}");

    let [summary] = said("deliveries in the last ")[..] else { panic!("one summary in {logs}") };
    assert_eq!(summary["level"], "INFO");
    assert_eq!(
        (&summary["stored"], &summary["repeated"], &summary["refused"], &summary["reasons"]),
        (&json!(2), &json!(1), &json!(3), &json!("signature 2, path 1")),
        "{summary}"
    );
    assert!(summary.get("quarantined").is_none(), "{summary}");
}

#[tokio::test]
async fn a_stop_says_how_long_it_takes_and_nothing_of_deliveries_if_there_were_none() {
    let mut service = Service::with(settings().setting("SHUTDOWN_DELAY", "20ms"), Database::Sqlite).await;
    service.convoke.signal(Signal::TERM);
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    let logs = service.convoke.logs();
    assert!(logs.contains("no new connections after 20ms; a second Ctrl-C or SIGTERM stops at once"), "{logs}");
    assert!(!logs.contains("deliveries in the last"), "{logs}");
}
