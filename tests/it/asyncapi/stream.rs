//! What a running Convoke publishes, of every origin, against the document.

use std::{collections::BTreeMap, time::Duration};

use convoke::recordings;
use convoke_core::event::KNOWN_EVENTS;
use convoke_core::time::{Clock, Millis};
use convoke_simulator::{
    Simulation,
    platform::{Platform, PlatformOptions, Run, State},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::document::Document;
use crate::{
    simulated_platform::{APP_ID as API_APP, APP_KEY as API_KEY},
    support::service::signed_by,
    support::{
        http,
        nats::{NatsOptions, NatsServer, NatsVersion},
        rig::{self, APP_ID, KEY, LONG_TIMEOUT, Message, PATH, SQLITE, read_stream, stream_holds},
        wait::eventually,
    },
};

const HOUR: i64 = 3_600_000;

/// The bodies of the manual's section 6.2, by their members: with the ids of an occurrence, without, with an attendee; and the one
/// that its signature was made of.
const MANUAL: [&str; 5] = [
    r#"{"event":"meeting.started","timestamp":1629813991351,"payload":{"meetingInfo":{"meetingID":"987446316"}}}"#,
    r#"{"event":"meeting.end","timestamp":1735704000456,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888","meetingCycleSubID":"0f0e0d0c0b0a09080706050403020100"}}}"#,
    r#"{"event":"meeting.create","timestamp":1735700000456,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"}}}"#,
    r#"{"event":"meeting.join","timestamp":1735700465789,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":"aaaabbbbccccddddeeeeffff00001111","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"王小明","joinTime":1735700465001,"leftTime":0,"role":"CHAIR","callNumber":"+8657100000000001"}}}"#,
    r#"{"event":"meeting.left","timestamp":1735703900321,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":"aaaabbbbccccddddeeeeffff00001111","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"Demo User","joinTime":1735700465001,"leftTime":1735703899870,"role":"CHAIR","callNumber":"+8657100000000001"}}}"#,
];

/// Signed, and in no schema but that of any event.
const ODD: [&str; 6] = [
    r#"{"event":"meeting.join","timestamp":1735700465790,"payload":{"meetingInfo":{"meetingID":"987446316"},"attendeeInfo":"王"}}"#,
    r#"{"event":"meeting.left","timestamp":1735700465791,"payload":{"meetingInfo":{"meetingID":"987446316"},"attendeeInfo":{"joinTime":"1735700465001"}}}"#,
    r#"{"event":"meeting.create","timestamp":1735700465792,"payload":[1,null,{"a":1e-3}]}"#,
    r#"{"event":"meeting.end","timestamp":1735700465793}"#,
    r#"{"event":"plain","timestamp":1735700465794,"payload":"text"}"#,
    r#"{"event":"white board.shared.now","timestamp":1735700465795,"payload":{"meetingInfo":{"meetingID":"9 8"}}}"#,
];

const LIVE_MEETING: &str = "960000099";
const LIVE_RUN: &str = "99992222333344445555666677778888";

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_published_is_as_the_document_says() {
    let begin = Clock::System.now().get() - 72 * HOUR;
    let options = PlatformOptions {
        limit: 1_000_000,
        skew: Duration::ZERO,
        decode_for: Duration::ZERO,
        ..PlatformOptions::new(API_APP, API_KEY.into())
    };
    let platform = Platform::start(options).await.expect("a free port");
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key_file = folder.path().join("api.key");
    std::fs::write(&key_file, API_KEY).expect("a file");
    let convoke = rig::convoke(SQLITE, &nats.url())
        .setting("PLATFORM_URL", platform.url())
        .setting("PLATFORM_APP_ID", API_APP)
        .setting("PLATFORM_APP_KEY_FILE", &key_file)
        .setting("RECORDINGS_ENABLED", "true")
        .setting("LIVE_ENABLED", "true")
        .setting("LIVE_MEETINGS", LIVE_MEETING)
        .start()
        .await;
    convoke.wait_ready(LONG_TIMEOUT).await;

    // A morning three days ago, of which one event in four is lost, and comes back from the platform's history.
    let morning = Simulation {
        meetings: 60,
        attendees: 4,
        seed: 11,
        base: Millis::new(begin),
        chronicle: Some(platform.chronicle()),
        drop: 0.25,
        handshake: false,
        ..Simulation::new(format!("http://{}{PATH}", convoke.events), APP_ID, SecretString::from(KEY))
    };
    let report = morning.run(CancellationToken::new()).await.expect("a run");
    assert!(report.dropped > 0 && report.given_up == 0, "{report}");
    let since = Millis::new(begin - HOUR).expect("a time in range").to_string();
    let filled = convoke.run(&["backfill", "--since", &since, "--json"]).await;
    assert_eq!(filled.code(), 0, "{}", filled.stderr);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for info in MANUAL.into_iter().chain(ODD) {
        let body = signed_by(APP_ID, KEY, info);
        let answer = http::post(convoke.events, PATH, body, &[("traceparent", traceparent)]).await;
        assert_eq!(answer.status, 200, "{info}");
    }
    // A meeting that goes on, whose connection is lost once.
    let now = Clock::System.now();
    platform.edit(|archive| {
        let mut run = Run::over(LIVE_RUN, LIVE_MEETING, now, now);
        (run.state, run.ended) = (State::Running, None);
        archive.put(run);
    });
    let started = format!(
        r#"{{"event":"meeting.started","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"{LIVE_MEETING}","meetingUUID":"{LIVE_RUN}"}}}}}}"#,
        now.get()
    );
    assert_eq!(http::post(convoke.events, PATH, signed_by(APP_ID, KEY, &started), &[]).await.status, 200);
    eventually("the meeting is attended", LONG_TIMEOUT, async || {
        platform.in_meeting(LIVE_MEETING, |room| {
            let there = room.listeners() == 1;
            if there {
                room.join("99998888777766665555444433332222", &[("NAME", "王"), ("TEL", "+991")]);
                room.wait("c", &[("NAME", "Guest")]);
                room.call_result("+992", "11076005");
                room.cut();
            }
            there
        })
    })
    .await;
    eventually("the API shows who is in it, and who waits", LONG_TIMEOUT, async || {
        let shown = http::get(&format!("http://{}/api/v1/meetings/{APP_ID}/{LIVE_RUN}/now", convoke.admin)).await;
        let shown: Value = serde_json::from_slice(shown.body.as_ref()).unwrap_or_default();
        let places: Vec<&str> =
            shown["present"].as_array().into_iter().flatten().filter_map(|it| it["place"].as_str()).collect();
        if shown["state"] == "attending" && places == ["waiting", "in"] { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let jetstream = nats.jetstream().await;
    let of = |messages: &[Message], event: &str| {
        let name = json!(format!("com.huaweicloud.{event}"));
        messages.iter().filter(|message| message.json()["type"] == name).count()
    };
    let messages = eventually("all of it is published, recordings too", LONG_TIMEOUT, async || {
        let rows = rig::sqlite(convoke.folder(), "SELECT CAST(count(*) AS TEXT) FROM events").await;
        let messages = read_stream(&jetstream, rig::STREAM).await;
        let published = rows[0][0].as_deref() == Some(&messages.len().to_string());
        let (ready, odd) = (of(&messages, recordings::EVENT), of(&messages, "plain"));
        // The full lists that come after the gap.
        let live = of(&messages, "live.gap") > 0 && of(&messages, "live.waiting_room") > 2;
        if published && ready > 0 && odd > 0 && live {
            Ok(messages)
        } else {
            Err(format!("{} {rows:?}", messages.len()))
        }
    })
    .await;
    let replay = convoke.run(&["replay", "--event", "record.ready", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let messages = stream_holds(&jetstream, messages.len() + 1, LONG_TIMEOUT).await;

    let document = Document::load();
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut traced, mut replayed, mut odd) = (0, 0, 0);
    for message in &messages {
        let (payload, headers) = (message.json(), headers(message));
        document.is_valid("#/components/schemas/Headers", &headers);
        document.is_valid("#/components/schemas/CloudEvent", &payload);
        let name = payload["type"].as_str().and_then(|name| name.strip_prefix("com.huaweicloud.")).expect("a type");
        if is_odd(&payload) {
            odd += 1;
            let fits = document.messages.get(name).is_some_and(|it| document.fits(&it.payload_reference(), &payload));
            assert!(!fits, "{payload:#}");
        } else {
            let described = document.messages.get(name).unwrap_or_else(|| panic!("{name} is not described"));
            document.is_valid(&described.payload_reference(), &payload);
        }
        for header in headers.as_object().expect("headers").keys() {
            let known = document.at("/components/schemas/Headers/properties").get(header);
            assert!(known.is_some(), "the document does not know the header {header}");
        }
        for attribute in payload.as_object().expect("an object").keys() {
            let known = document.at("/components/schemas/CloudEvent/properties").get(attribute);
            assert!(known.is_some(), "the document does not know the attribute {attribute}");
        }
        traced += usize::from(headers.get("traceparent").is_some());
        replayed += usize::from(headers.get("Convoke-Replay").is_some());
        is_addressed(&document, message, name, &payload);
        let origin = payload["origin"].as_str().expect("an origin").to_owned();
        *seen.entry((name.to_owned(), origin)).or_default() += 1;
    }
    // Nothing of this holds because nothing was there.
    for event in KNOWN_EVENTS {
        assert!(seen.contains_key(&(event.to_owned(), "push".to_owned())), "{event} was not pushed: {seen:?}");
    }
    for event in ["meeting.join", "meeting.left"] {
        assert!(seen.contains_key(&(event.to_owned(), "backfill".to_owned())), "{event} was not lost: {seen:?}");
    }
    assert!(seen.contains_key(&(recordings::EVENT.to_owned(), "platform".to_owned())), "{seen:?}");
    for kind in ["meeting", "status", "participants", "call_result", "waiting_room", "gap"] {
        assert!(seen.contains_key(&(format!("live.{kind}"), "live".to_owned())), "{kind} was not told: {seen:?}");
    }
    assert_eq!((traced, odd), (MANUAL.len() + ODD.len(), ODD.len()));
    assert!(replayed > 0);
}

fn headers(message: &Message) -> Value {
    let all = message.headers.iter().map(|(name, values)| (name.to_string(), json!(values[0].as_str())));
    Value::Object(all.collect())
}

/// Whether this is one of [`ODD`].
fn is_odd(payload: &Value) -> bool {
    let odd = |info: &str| serde_json::from_str::<Value>(info).expect("JSON");
    ODD.iter().any(|info| {
        let info = odd(info);
        let name = format!("com.huaweicloud.{}", info["event"].as_str().expect("text"));
        payload["type"] == json!(name) && payload.get("data") == info.get("payload")
    })
}

/// Its subject is an address of the channel of all events, with the tokens that the document's words give.
fn is_addressed(document: &Document, message: &Message, event: &str, payload: &Value) {
    let token = |text: &str| {
        let text: String = text
            .bytes()
            .take(64)
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte),
                _ => '_',
            })
            .collect();
        if text.is_empty() { "-".to_owned() } else { text }
    };
    let (group, action) = event.split_once('.').unwrap_or((event, ""));
    let meeting = payload["meetingid"].as_str().unwrap_or("");
    let values = [("subscriber", APP_ID), ("group", group), ("action", action), ("meeting", meeting)];
    let address = document.at("/channels/events/address").as_str().expect("an address").to_owned();
    let subject =
        values.iter().fold(address, |address, (name, value)| address.replace(&format!("{{{name}}}"), &token(value)));
    assert_eq!(message.subject, subject);
}
