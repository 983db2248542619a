//! A stream or a server that is full, and messages that are too large.

use super::*;

on_both_versions! {
    a_full_stream_is_tried_again_and_filled_when_there_is_room
    a_full_server_is_tried_again_and_filled_when_there_is_room
    a_message_over_the_servers_limit_is_set_aside_and_the_relay_goes_on
    a_message_over_the_streams_limit_is_set_aside_and_the_relay_goes_on
}

async fn a_full_stream_is_tried_again_and_filled_when_there_is_room(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let js = nats.jetstream().await;
    let small = |bytes| {
        hand_made(|config| {
            config.discard = stream::DiscardPolicy::New;
            config.max_bytes = bytes;
        })
    };
    js.create_stream(small(8 << 10)).await.expect("a small stream");
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..40).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="full"}"#, 1.0, TEN).await;
    let held = read_stream(&js, STREAM).await;
    assert!(!held.is_empty() && held.len() < 40, "{} of 40 in a full stream", held.len());
    assert_eq!(ids(&held), sample_ids(&samples[..held.len()]));

    // Room is made by hand: what was there is gone, what comes follows it without a gap.
    js.get_stream(STREAM).await.expect("still there").purge().await.expect("purged");
    let first = samples[held.len()].id.as_str();
    let more = eventually("the purged stream is filled again", TEN, async || {
        let more = read_stream(&js, STREAM).await;
        if more.is_empty() { None } else { Some(more) }
    })
    .await;
    assert_eq!(more[0].event_id(), first);
    js.update_stream(small(1 << 20)).await.expect("a larger stream");
    let rest = stream_holds(&js, 40 - held.len(), TEN).await;
    assert_eq!(ids(&rest), sample_ids(&samples[held.len()..]));
    let warnings = lines_with(&convoke, "\"WARN\"");
    assert!(warnings <= 6, "{warnings} warnings about a full stream:\n{}", convoke.logs());
}

async fn a_full_server_is_tried_again_and_filled_when_there_is_room(version: NatsVersion) {
    let options = NatsOptions { max_file_store: Some(24 << 10), ..NatsOptions::default() };
    let mut nats = NatsServer::start(version, options).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let samples = deliver(&convoke, 0..100).await;
    metric_over(&convoke, r#"convoke_publish_errors_total{reason="full"}"#, 1.0, TEN).await;
    nats.options.max_file_store = Some(64 << 20);
    nats.restart().await;
    let messages = stream_holds(&nats.jetstream().await, 100, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&samples));
}

/// Delivers small events around large ones, and expects the large ones set aside.
async fn large_ones_are_set_aside(convoke: &Convoke, nats: &NatsServer) {
    let js = nats.jetstream().await;
    let name = "X".repeat(9_000);
    let mut small = Vec::new();
    for number in 0..40 {
        let large = number % 4 == 2;
        let sample = Sample::of("meeting.join", number, "1", if large { &name } else { "Li" });
        assert_eq!(sample.deliver(convoke.events).await, 200);
        small.extend((!large).then_some(sample));
    }
    let messages = stream_holds(&js, 30, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&small));
    metric_over(convoke, r#"convoke_set_aside{cursor="bus"}"#, 9.0, TEN).await;
    let rows = sqlite(convoke.folder(), "SELECT cursor, event_id FROM set_aside").await;
    assert!(rows.len() == 10 && rows.iter().all(|row| row[0].as_deref() == Some("bus")), "{rows:?}");
    assert_eq!(lines_with(convoke, "too large for NATS"), 10);
    let (status, findings) = audit(convoke, None).await;
    assert_eq!((status, &findings["stream"]["set_aside"]), (0, &json!(10)), "{findings:#}");
    // Asked for by hand, they are still too large, and that does not keep the others back.
    let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    assert!(
        replay.stdout.contains("published 30 event") && replay.stdout.contains("10 not published: too large"),
        "{replay:?}"
    );
}

async fn a_message_over_the_servers_limit_is_set_aside_and_the_relay_goes_on(version: NatsVersion) {
    let options = NatsOptions { max_payload: Some(6_000), ..NatsOptions::default() };
    let nats = NatsServer::start(version, options).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    large_ones_are_set_aside(&convoke, &nats).await;
}

async fn a_message_over_the_streams_limit_is_set_aside_and_the_relay_goes_on(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let config = hand_made(|config| config.max_message_size = 6_000);
    nats.jetstream().await.create_stream(config).await.expect("a stream with a limit");
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    large_ones_are_set_aside(&convoke, &nats).await;
    // Once the limit is lifted they are published, and are set aside no more.
    let js = nats.jetstream().await;
    let mut config = js.get_stream(STREAM).await.expect("the stream").cached_info().config.clone();
    config.max_message_size = -1;
    js.update_stream(config).await.expect("updated");
    let replay = convoke.run(&["replay", "--set-aside"]).await;
    assert!(replay.code() == 0 && replay.stdout.contains("published 10 event"), "{replay:?}");
    assert_eq!(sqlite(convoke.folder(), "SELECT * FROM set_aside").await.len(), 0);
    let (status, findings) = audit(&convoke, None).await;
    assert_eq!((status, &findings["stream"]["expected"]), (0, &json!(40)), "{findings:#}");
}
