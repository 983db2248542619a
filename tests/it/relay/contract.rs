//! What is published, in which order and form.

use super::*;

on_both_versions! {
    every_event_of_the_log_is_in_the_stream_once_and_in_order_as_the_contract_says
    a_relay_that_was_off_begins_at_the_beginning_of_the_log
    what_the_stream_has_already_is_passed_in_a_few_windows
    masked_fields_stay_out_of_the_stream
}

async fn every_event_of_the_log_is_in_the_stream_once_and_in_order_as_the_contract_says(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = Sample::number(1);
    assert_eq!(traced.deliver_with(convoke.events, &[("traceparent", traceparent)]).await, 200);
    let odd = Sample::of("odd", 2, "", "王 \\u0000");
    assert_eq!(odd.deliver(convoke.events).await, 200);
    let simulation = Simulation { meetings: 30, ..Load::simulation(convoke.events, 1) };
    let report = Load::start(simulation).finish().await;

    let js = nats.jetstream().await;
    let count = report.acknowledged as usize + 2;
    let messages = stream_holds(&js, count, LONG_TIMEOUT).await;
    let columns = "event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, source, \
                   traceparent, event_info, seq";
    let rows = sqlite(convoke.folder(), &format!("SELECT {columns} FROM events ORDER BY seq")).await;
    assert_eq!((messages.len(), rows.len()), (count, count));
    for (message, row) in messages.iter().zip(&rows) {
        let column = |index: usize| row[index].as_deref();
        let text = |index: usize| column(index).expect("not null");
        assert_eq!(message.header("Nats-Msg-Id"), column(0));
        assert_eq!(message.header("Content-Type"), Some("application/cloudevents+json"));
        assert_eq!(message.header("traceparent"), column(8));
        assert_eq!(message.header("Convoke-Replay"), None);
        let (kind, what) = text(2).split_once('.').unwrap_or((text(2), "-"));
        let meeting = column(5).unwrap_or("-");
        assert_eq!(message.subject, format!("meetings.{APP_ID}.{kind}.{what}.{meeting}"));
        let info: Value = serde_json::from_str(text(9)).expect("an eventInfo");
        let mut expected = json!({
            "specversion": "1.0", "id": text(0), "source": format!("/huawei-cloud-meeting/{APP_ID}"),
            "type": format!("com.huaweicloud.{}", text(2)), "time": text(3), "datacontenttype": "application/json",
            "sequence": format!("{:019}", message.sequence()), "recordedtime": text(4), "origin": text(7),
            "data": info["payload"],
        });
        for (name, index) in [("meetingid", 5), ("subject", 6)] {
            if let Some(value) = column(index) {
                expected[name] = json!(value);
            }
        }
        assert_eq!(message.json(), expected);
        let payload = text(9).split_once("\"payload\":").expect("a payload").1;
        assert!(message.body.ends_with(&format!("\"data\":{payload}")), "not verbatim: {}", message.body);
    }
    assert_eq!(first_copies_in_log_order(&messages).len(), count);
    assert_eq!((messages[0].header("traceparent"), messages[1].header("traceparent")), (Some(traceparent), None));
    assert_eq!(http::metric(convoke.admin, r#"convoke_published_total{outcome="new"}"#).await, count as f64);
    metric_over(&convoke, "convoke_bus_connected", 0.0, TEN).await;
}

async fn a_relay_that_was_off_begins_at_the_beginning_of_the_log(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = format!("sqlite://{}", folder.path().join("convoke.db").display());
    let mut off = convoke(&database, "none").start().await;
    off.wait_ready(TEN).await;
    let samples = deliver(&off, 0..10).await;
    let nothing = off.run(&["audit"]).await;
    assert!(nothing.code() == 2 && nothing.stderr.contains("nothing compared"), "{nothing:?}");
    off.signal(Signal::TERM);
    assert!(off.wait_exit(TEN).await.success());
    let on = convoke(&database, &nats.url()).start().await;
    on.wait_ready(TEN).await;
    let messages = stream_holds(&nats.jetstream().await, 10, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

async fn what_the_stream_has_already_is_passed_in_a_few_windows(version: NatsVersion) {
    let (nats, mut convoke) = rig(version).await;
    let published = 200;
    let mut samples = deliver(&convoke, 0..published).await;
    let js = nats.jetstream().await;
    stream_holds(&js, samples.len(), LONG_TIMEOUT).await;
    convoke.kill().await;
    // As an owner leaves it that reached the bus to its end, and the database no more.
    sqlite(convoke.folder(), "UPDATE cursors SET position = 0 WHERE name = 'bus'").await;
    let client = async_nats::connect(nats.url()).await.expect("a connection");
    // All that is sent to the server, whether the stream takes it or not.
    let mut sent = client.subscribe("meetings.>").await.expect("a subscription");
    client.flush().await.expect("the server knows of it");
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    samples.extend(deliver(&convoke, published..published + 3).await);
    let messages = stream_holds(&js, samples.len(), LONG_TIMEOUT).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
    client.flush().await.expect("all that was sent came before the answer");
    let mut count = 0;
    while tokio::task::unconstrained(sent.next()).now_or_never().is_some() {
        count += 1;
    }
    let few = samples.len()..=3 * samples.len();
    assert!(few.contains(&count), "{count} messages were sent, not {few:?}");
}

async fn masked_fields_stay_out_of_the_stream(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url()).setting("PRIVACY_MASK", "displayName,callNumber").start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..3).await;
    // Written otherwise, doubled, deeper, of other types, and in events in which nobody expects it.
    let odd = [
        (
            r#"{"attendeeInfo":{"displayN\u0061me":"Zhang San","callNumber":7,"x":1.50}}"#,
            json!({"attendeeInfo": {"x": 1.5}}),
        ),
        (
            r#"{"attendeeInfo":{"a":1},"b":[{"attendeeInfo":{"displayName":["Zhang San"]}}]}"#,
            json!({"attendeeInfo": {"a": 1}, "b": [{"attendeeInfo": {}}]}),
        ),
        (
            r#"{"recordInfo":{"displayName":"kept"},"attendeeInfo":"Zhang San"}"#,
            json!({"recordInfo": {"displayName": "kept"}}),
        ),
        (
            r#"{"attendeeInfo":{"more":{"displayName":"Zhang San","displayName":null,"role":"CHAIR"}}}"#,
            json!({"attendeeInfo": {"more": {"role": "CHAIR"}}}),
        ),
        (r#""Zhang San""#, json!(null)),
    ];
    for (n, (payload, _)) in (0..).zip(&odd) {
        let at = 1_790_000_100_000_i64 + n;
        let info = format!(r#"{{"event":"record.finish","timestamp":{at},"payload":{payload}}}"#);
        assert_eq!(Sample { info, id: String::new() }.deliver(convoke.events).await, 200);
    }
    let all = 3 + odd.len();
    let js = nats.jetstream().await;
    stream_holds(&js, all, TEN).await;
    let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let messages = stream_holds(&js, 2 * all, TEN).await;
    for (place, message) in messages.iter().enumerate() {
        assert!(!message.body.contains("Zhang San"), "{}", message.body);
        let data = match (place % all).checked_sub(3) {
            Some(odd_one) => odd[odd_one].1.clone(),
            None => {
                json!({"meetingInfo": {"meetingID": "987446316", "meetingUUID": "uuid-987446316"}, "attendeeInfo": {"role": "CHAIR"}})
            }
        };
        assert_eq!(message.json()["data"], data, "{}", message.body);
    }
    let kept = sqlite(convoke.folder(), "SELECT DISTINCT display_name FROM events WHERE event = 'meeting.join'").await;
    assert_eq!(kept, [[Some("Zhang San".to_owned())]]);
}
