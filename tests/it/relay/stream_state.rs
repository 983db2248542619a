//! The stream: made, left alone, lost in part or whole.

use super::*;

on_both_versions! {
    the_stream_is_made_as_the_settings_say
    an_existing_stream_that_differs_is_left_alone_and_the_differences_are_named
    a_deleted_stream_is_made_again_and_replay_puts_the_rest_back
    a_stream_that_lost_its_newest_messages_is_noticed_and_replay_puts_them_back
}

async fn the_stream_is_made_as_the_settings_say(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url())
        .setting("NATS_STREAM", "OTHER")
        .setting("NATS_SUBJECT_PREFIX", "a.b")
        .setting("NATS_MAX_AGE", "3d")
        .setting("NATS_MAX_BYTES", "64 MiB")
        .setting("NATS_DUPLICATE_WINDOW", "7m")
        .start()
        .await;
    convoke.wait_ready(TEN).await;
    let js = nats.jetstream().await;
    let made = eventually("the stream is made", TEN, async || js.get_stream("OTHER").await).await;
    let config = &made.cached_info().config;
    assert_eq!(config.subjects, ["a.b.>"]);
    assert_eq!((config.max_age, config.max_bytes), (Duration::from_secs(3 * 86_400), 64 << 20));
    assert_eq!((config.duplicate_window, config.num_replicas), (Duration::from_secs(7 * 60), 1));
    assert_eq!((config.storage, config.retention), (stream::StorageType::File, stream::RetentionPolicy::Limits));
    assert_eq!((config.discard, config.deny_delete, config.deny_purge), (stream::DiscardPolicy::Old, false, false));
    let sample = Sample::number(1);
    assert_eq!(sample.deliver(convoke.events).await, 200);
    let messages =
        eventually("it is published", TEN, async || Some(read_stream(&js, "OTHER").await).filter(|m| !m.is_empty()))
            .await;
    assert_eq!(messages[0].subject, format!("a.b.{APP_ID}.meeting.join.987446316"));
    assert_eq!(lines_with(&convoke, "differs from the settings"), 0);
}

async fn an_existing_stream_that_differs_is_left_alone_and_the_differences_are_named(version: NatsVersion) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let js = nats.jetstream().await;
    let config = hand_made(|config| {
        config.max_age = Duration::from_secs(3_600);
        config.discard = stream::DiscardPolicy::New;
        config.storage = stream::StorageType::Memory;
        config.max_messages_per_subject = 1_000;
    });
    let before = js.create_stream(config).await.expect("a stream made by hand").cached_info().config.clone();
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..3).await;
    stream_holds(&js, 3, TEN).await;
    let warning = eventually("the differences are named", TEN, async || {
        convoke.logs().lines().find(|line| line.contains("differs from the settings")).map(ToOwned::to_owned)
    })
    .await;
    for name in ["max_age", "discard", "storage", "max_messages_per_subject"] {
        assert!(warning.contains(name), "{name} is not named: {warning}");
    }
    assert!(!warning.contains("duplicate_window"), "named without need: {warning}");
    deliver(&convoke, 3..6).await;
    stream_holds(&js, 6, TEN).await;
    assert_eq!(js.get_stream(STREAM).await.expect("still there").cached_info().config, before);
    assert_eq!(lines_with(&convoke, "differs from the settings"), 1);
}

async fn a_deleted_stream_is_made_again_and_replay_puts_the_rest_back(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let js = nats.jetstream().await;
    let before = deliver(&convoke, 0..30).await;
    stream_holds(&js, 30, TEN).await;
    js.delete_stream(STREAM).await.expect("deleted");
    // Nothing is published meanwhile: it is missed all the same.
    eventually("the stream is made again", TEN, async || js.get_stream(STREAM).await).await;
    eventually("the warning names the way back", TEN, async || {
        lines_with(&convoke, "was deleted and created again") == 1
    })
    .await;
    let after = deliver(&convoke, 30..60).await;
    let messages = stream_holds(&js, 30, TEN).await;
    assert_eq!(ids(&messages), sample_ids(&after));

    let (status, findings) = audit(&convoke, None).await;
    assert_eq!((status, findings["stream"]["missing"].as_array().map(Vec::len)), (1, Some(30)), "{findings:#}");
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    assert!(replay.stdout.contains("published 30 events"), "{}", replay.stdout);
    let messages = stream_holds(&js, 60, TEN).await;
    assert_eq!(ids(&messages[30..]), sample_ids(&before));
    assert!(messages[30..].iter().all(|message| message.header("Convoke-Replay") == Some("true")));
    let (status, findings) = audit(&convoke, None).await;
    assert_eq!((status, &findings["stream"]["doubled"]), (0, &json!([])), "{findings:#}");

    // Under load, it is made again at once.
    let mut load = Load::steady(convoke.events, 3);
    load.proceeds(200).await;
    js.delete_stream(STREAM).await.expect("deleted");
    load.proceeds(100).await;
    load.stop().await;
    eventually("the stream is made again", TEN, async || js.get_stream(STREAM).await).await;
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let (status, findings) = audit(&convoke, Some(&load.ledger)).await;
    assert_eq!(status, 0, "{findings:#}");
}

async fn a_stream_that_lost_its_newest_messages_is_noticed_and_replay_puts_them_back(version: NatsVersion) {
    let (mut nats, convoke) = rig(version).await;
    deliver(&convoke, 0..10).await;
    stream_holds(&nats.jetstream().await, 10, TEN).await;
    nats.stop().await;
    let copy = nats.copy_store();
    nats.restart().await;
    let lost = deliver(&convoke, 10..15).await;
    stream_holds(&nats.jetstream().await, 15, TEN).await;
    nats.kill().await;
    nats.restore_store(&copy);
    nats.restart().await;
    eventually("the warning names the way back", TEN, async || {
        lines_with(&convoke, "the stream lost its newest messages:") == 1
    })
    .await;
    let after = deliver(&convoke, 15..20).await;
    let js = nats.jetstream().await;
    let messages = stream_holds(&js, 15, TEN).await;
    assert_eq!(ids(&messages[10..]), sample_ids(&after));
    let replay = convoke.run(&["replay", "--missing"]).await;
    assert!(replay.code() == 0 && replay.stdout.contains("published 5 events"), "{replay:?}");
    assert_eq!(ids(&stream_holds(&js, 20, TEN).await[15..]), sample_ids(&lost));
    assert_eq!(audit(&convoke, None).await.0, 0);
}
