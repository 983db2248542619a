//! What the platform may send, what a forger may send, and how both are handled.

pub(crate) mod json_text;
mod malformed;
mod properties;
mod reading;
mod signatures;

use super::*;
use crate::time::Millis;

/// The key of the platform's samples.
const SAMPLE_KEY: &str = "123456";
/// The key of our own vectors.
const KEY: &str = "demo-Subscriber-Key-2025";
const APP_ID: &str = "7700001234";
const TIMESTAMP: &str = "1735700465790";
const NONCE: &str = "50607080";
const RECEIVED_AT: i64 = 1_735_700_466_000;

fn subscriber(app_id: &str, keys: &[&str]) -> Subscriber {
    Subscriber { app_id: app_id.into(), keys: keys.iter().map(|key| (*key).into()).collect(), name: None }
}

fn keyring() -> Keyring {
    Keyring::new(&[subscriber(APP_ID, &[KEY])])
}

fn delivery() -> Delivery {
    Delivery {
        received_at: Millis::new(RECEIVED_AT).expect("a time"),
        request_id: Some("a-request".into()),
        traceparent: None,
    }
}

/// The signature of a message, in lower-case hexadecimal.
fn sign(key: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length");
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// A body as the platform sends it: its `eventInfo` is `sent`, and its signature covers `signed`.
fn body_signed_over(sent: &str, signed: &str) -> String {
    let signature = sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{signed}"));
    format!(
        r#"{{"appID":"{APP_ID}","timestamp":{TIMESTAMP},"nonce":"{NONCE}","signature":"{signature}","eventInfo":{sent}}}"#
    )
}

/// A body as the platform sends it.
fn body(event_info: &str) -> String {
    body_signed_over(event_info, event_info)
}

fn check(body: impl Into<Vec<u8>>) -> Result<Checked, Refusal> {
    verify(&Bytes::from(body.into()), &keyring(), &delivery())
}

/// The content of a signed body with this `eventInfo`.
fn content(event_info: &str) -> Content {
    let checked = check(body(event_info)).expect("it is signed");
    checked.verified.content().clone()
}

/// The event in a signed body with this `eventInfo`.
fn event(event_info: &str) -> Event {
    match content(event_info) {
        Content::Event(event) => event,
        other => panic!("{event_info} is {other:?}"),
    }
}

/// Why a signed body with this `eventInfo` is quarantined.
fn reason(event_info: &str) -> String {
    match content(event_info) {
        Content::Unreadable(unreadable) => {
            assert_eq!(unreadable.body, body(event_info), "the whole body is kept");
            assert_eq!(&*unreadable.subscriber_id, APP_ID);
            unreadable.reason
        }
        other => panic!("{event_info} is {other:?}"),
    }
}
