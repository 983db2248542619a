//! `convoke replay` beside the relay.

use super::*;

on_both_versions! {
    a_replay_of_everything_does_not_hold_up_the_relay
    a_replayed_range_is_recognised_within_the_window_and_copied_on_demand
}

async fn a_replay_of_everything_does_not_hold_up_the_relay(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let mut load = Load::steady(convoke.events, 7);
    load.proceeds(100).await;
    for _ in 0..4 {
        let replay = convoke.run(&["replay", "--since", "1970-01-01", "--again"]).await;
        assert_eq!(replay.code(), 0, "{replay:?}");
        load.proceeds(30).await;
    }
    load.stop().await;
    let js = nats.jetstream().await;
    nothing_is_lost(&convoke, &js, &load.ledger).await;
    let (_, findings) = audit(&convoke, None).await;
    assert_eq!(findings["stream"]["doubled"], json!([]), "{findings:#}");
    assert!(findings["stream"]["replayed"].as_u64() > Some(100), "{findings:#}");
}

async fn a_replayed_range_is_recognised_within_the_window_and_copied_on_demand(version: NatsVersion) {
    let (nats, convoke) = rig(version).await;
    let js = nats.jetstream().await;
    let mut samples = deliver(&convoke, 0..10).await;
    for (number, event, meeting) in [(10, "meeting.end", "987446316"), (11, "meeting.join", "555")] {
        samples.push(Sample::of(event, number, meeting, "Wang Wu"));
        assert_eq!(samples[number as usize].deliver(convoke.events).await, 200);
    }
    stream_holds(&js, 12, TEN).await;
    // The first is of 2026-09-21T14:13:20Z, each a second later than the one before.
    let (since, until) = ("2026-09-21T14:13:22Z", "2026-09-21T14:13:25Z");
    let mut held = 12;
    for (range, expected) in [
        (vec!["--since", since, "--until", until], vec![2, 3, 4]),
        (vec!["--event", "meeting.end"], vec![10]),
        (vec!["--meeting", "555"], vec![11]),
        (vec!["--meeting", "uuid-555", "--event", "meeting.join"], vec![11]),
        (vec!["--event", "meeting.start"], vec![]),
    ] {
        let known = convoke.run(&[&["replay"], range.as_slice()].concat()).await;
        assert_eq!(known.code(), 0, "{known:?}");
        let (nothing, how) = match expected.len() {
            0 => ("nothing published: no published event of the log matches", ""),
            1 => ("nothing published: the stream already has this event.", "--again"),
            _ => ("nothing published: the stream already has these 3 events.", "--again"),
        };
        assert!(known.stdout.contains(nothing) && known.stdout.contains(how), "{range:?}: {}", known.stdout);
        assert_eq!(read_stream(&js, STREAM).await.len(), held);

        let again = convoke.run(&[&["replay", "--again"], range.as_slice()].concat()).await;
        let said = match expected.len() {
            0 => nothing.to_owned(),
            count => format!("published {count} event"),
        };
        assert!(again.code() == 0 && again.stdout.contains(&said), "{range:?}: {again:?}");
        let messages = stream_holds(&js, held + expected.len(), TEN).await;
        for (message, number) in messages[held..].iter().zip(&expected) {
            let original = &messages[*number];
            assert_eq!((&message.subject, &message.body), (&original.subject, &original.body));
            let suffix = message.msg_id().strip_prefix(original.msg_id()).expect("the same id");
            assert!(suffix.strip_prefix(".r").is_some_and(|ms| ms.parse::<u64>().is_ok()), "{suffix}");
            assert_eq!(message.header("Convoke-Replay"), Some("true"));
        }
        held = messages.len();
    }
    let (status, findings) = audit(&convoke, None).await;
    let stream = &findings["stream"];
    assert_eq!((status, &stream["replayed"], &stream["doubled"]), (0, &json!(6), &json!([])), "{findings:#}");
    let nothing = convoke.run(&["replay"]).await;
    assert!(nothing.code() == 2 && nothing.stderr.contains("--missing"), "{nothing:?}");
}
