//! The CPU cost of a single delivery, without any I/O: mainly verification, as ratios.
//!
//! A forged delivery must cost at most a small constant factor more than a genuine one, whatever its body and however
//! many keys its subscriber has: the last table shows it.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use convoke::relay::Encoder;
use convoke_core::event::{Content, Delivery, Record, Subscriber};
use convoke_core::id::{EventId, Seq};
use convoke_core::sign;
use convoke_core::time::{Clock, Millis, instant};
use convoke_core::verify::{self, Keyring};
use secrecy::SecretString;

const APP_ID: &str = "1988692299";
const KEY: &str = "benchmark-Key-1";

/// Maximum ratio of the cost of a mismatch to that of a match: there are eight forms of `eventInfo`, each is made and
/// checked once, and three of them are up to three times as long as the original (a letter of two bytes becomes six).
const MAX_RATIO: f64 = 25.0;

/// The fastest of this many runs counts, because every disturbance makes a run slower.
const RUNS: usize = 40;
const RUN: Duration = Duration::from_millis(10);

/// The cost in nanoseconds.
fn cost(mut work: impl FnMut()) -> f64 {
    let once = instant();
    work();
    let each = once.elapsed().max(Duration::from_nanos(50));
    let repeat = u32::try_from((RUN.as_nanos() / each.as_nanos()).clamp(1, 1_000_000)).unwrap_or(1);
    let runs = (0..RUNS).map(|_| {
        let started = instant();
        for _ in 0..repeat {
            work();
        }
        started.elapsed().as_secs_f64() * 1e9 / f64::from(repeat)
    });
    runs.fold(f64::INFINITY, f64::min)
}

fn info(name: &str) -> String {
    format!(
        r#"{{"event":"meeting.join","timestamp":1735700465789,"payload":{{"meetingInfo":{{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888","meetingCycleSubID":"0f0e0d0c0b0a09080706050403020100"}},"attendeeInfo":{{"userUUID":"aaaabbbbccccddddeeeeffff00001111","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"{name}","joinTime":1735700465001,"leftTime":0,"role":"CHAIR","callNumber":"+8657100000000001"}}}}}}"#
    )
}

fn body(info: &str, key: &str) -> Bytes {
    Bytes::from(sign::envelope(APP_ID, 1_735_700_465_790, "50607080", info.as_bytes(), key.as_bytes()))
}

fn keyring(keys: usize) -> Keyring {
    let keys = (1..=keys).map(|n| SecretString::from(format!("benchmark-Key-{n}"))).collect();
    Keyring::new(&[Subscriber { app_id: APP_ID.into(), keys, name: None }])
}

fn main() {
    let one = keyring(1);
    let (ascii, chinese) = (info("Wang Xiaoming"), info("王小明 / 会议室"));
    let received_at = Millis::new(1_735_700_466_000).expect("a time");
    let delivery = Delivery { received_at, request_id: Some("0".repeat(32).into()), traceparent: None };

    println!("| one delivery of {} bytes, without I/O | ns |\n|---|--:|", body(&chinese, KEY).len());
    let line = |what: &str, nanoseconds: f64| println!("| {what} | {nanoseconds:.0} |");
    let genuine = body(&chinese, KEY);
    line("envelope, white space, signature", cost(|| drop(black_box(verify::authenticate(black_box(&genuine), &one)))));
    line(
        "all of verification, typed columns and id included",
        cost(|| {
            drop(black_box(verify::verify(black_box(&genuine), &one, &delivery)));
        }),
    );
    line("the envelope read for people", cost(|| drop(black_box(verify::describe(black_box(&genuine), received_at)))));
    line(
        "the id",
        cost(|| {
            black_box(EventId::of(APP_ID, received_at, black_box(chinese.as_bytes())));
        }),
    );
    line("a time as text", cost(|| drop(black_box(black_box(received_at).to_string()))));
    line(
        "the clock",
        cost(|| {
            black_box(Clock::System.now());
        }),
    );
    let record = record(&genuine, &one, &delivery);
    let encoder = Encoder::new("meetings", Vec::new());
    line("the row as a CloudEvent", cost(|| drop(black_box(encoder.encode(black_box(record.row()), false)))));
    let masked = Encoder::new("meetings", vec!["displayName".to_owned()]);
    line("the same with a masked member", cost(|| drop(black_box(masked.encode(black_box(record.row()), false)))));

    println!(
        "\n| a forged delivery, to a genuine one | keys | genuine ns | forged ns | ratio (must be ≤ {MAX_RATIO}) | | \
         unknown appID, to forged |"
    );
    println!("|---|--:|--:|--:|--:|---|--:|");
    // Nearly all forms differ, and some are two or three times as long.
    let (escapes, worst) = (info(&r"\/王".repeat(100)), info(&format!(r"\/{}", "é".repeat(20_000))));
    let kinds =
        [("ASCII", &ascii), ("Chinese", &chinese), ("Chinese, escapes", &escapes), ("40 kB of accents", &worst)];
    for (what, info) in kinds {
        for keys in [1, 3] {
            let keyring = keyring(keys);
            let (genuine, forged) = (body(info, KEY), body(info, "not the key"));
            assert!(
                verify::authenticate(&genuine, &keyring).is_ok() && verify::authenticate(&forged, &keyring).is_err()
            );
            let genuine = cost(|| drop(black_box(verify::authenticate(black_box(&genuine), &keyring))));
            let bytes = forged;
            let forged = cost(|| drop(black_box(verify::authenticate(black_box(&bytes), &keyring))));
            let unknown = Bytes::from(String::from_utf8_lossy(&bytes).replace(APP_ID, &"0".repeat(APP_ID.len())));
            assert!(matches!(verify::authenticate(&unknown, &keyring), Err(verify::Refusal::UnknownSubscriber)));
            let unknown = cost(|| drop(black_box(verify::authenticate(black_box(&unknown), &keyring)))) / forged;
            let ratio = forged / genuine;
            let mark = if ratio <= MAX_RATIO { "PASS" } else { "MISS" };
            println!("| {what} | {keys} | {genuine:.0} | {forged:.0} | {ratio:.2} | {mark} | {unknown:.2} |");
        }
    }
}

/// The row that the log stores for a delivery.
fn record(body: &Bytes, keyring: &Keyring, delivery: &Delivery) -> Record {
    let checked = verify::verify(body, keyring, delivery).expect("our own signature");
    let Content::Event(event) = checked.verified.content() else { panic!("an event") };
    Record {
        seq: Seq(42),
        event_id: event.event_id,
        subscriber_id: event.subscriber_id.to_string(),
        event: event.event.to_string(),
        occurred_at: event.occurred_at,
        received_at: event.received_at,
        meeting_id: event.meeting.id.as_deref().map(str::to_owned),
        meeting_uuid: event.meeting.uuid.as_deref().map(str::to_owned),
        source: event.source.as_str().to_owned(),
        traceparent: None,
        event_info: Some(event.event_info.to_string()),
    }
}
