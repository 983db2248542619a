//! Signed bodies, and what the one door into the log makes of them.

use std::sync::Arc;

use bytes::Bytes;
use convoke_core::event::{Delivery, Subscriber, Verified};
use convoke_core::id::EventId;
use convoke_core::time::Millis;
use convoke_core::verify::{Keyring, verify};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub const APP_ID: &str = "7700001234";
pub const KEY: &str = "demo-Subscriber-Key-2025";
/// 2026-06-15T12:00:00Z, when tests that choose the time take place.
pub const NOW: i64 = 1_781_524_800_000;

/// A body as the platform sends it, signed by [`KEY`].
pub fn signed(event_info: &str) -> Bytes {
    signed_with("50607080", event_info)
}

pub fn signed_with(nonce: &str, event_info: &str) -> Bytes {
    let timestamp = "1781524800000";
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("a key of any length");
    for part in [APP_ID, timestamp, nonce, event_info] {
        mac.update(part.as_bytes());
    }
    let signature = hex::encode(mac.finalize().into_bytes());
    Bytes::from(format!(
        r#"{{"appID":"{APP_ID}","timestamp":{timestamp},"nonce":"{nonce}","signature":"{signature}","eventInfo":{event_info}}}"#
    ))
}

/// What [`convoke_core::verify`] makes of a signed body that arrived at `received_at`.
pub fn verified_at(event_info: &str, received_at: Millis) -> Arc<Verified> {
    verified(&signed(event_info), received_at)
}

pub fn verified(body: &Bytes, received_at: Millis) -> Arc<Verified> {
    let keyring = Keyring::new(&[Subscriber { app_id: APP_ID.into(), keys: vec![KEY.into()], name: None }]);
    let delivery = Delivery { received_at, request_id: Some("a-request".into()), traceparent: None };
    Arc::new(verify(body, &keyring, &delivery).expect("it is signed").verified)
}

/// The `eventInfo` of a small event that differs only by its number from others of its time.
pub fn numbered(n: usize, occurred_at: i64) -> String {
    format!(
        r#"{{"event":"meeting.join","timestamp":{occurred_at},"payload":{{"meetingInfo":{{"meetingID":"960000017"}},"attendeeInfo":{{"account":"a{n}"}}}}}}"#
    )
}

/// The id of the event that this `eventInfo` is.
pub fn id_of(event_info: &str) -> EventId {
    // Whenever it arrived: an event that lies ahead of its receipt is none.
    match verified_at(event_info, Millis::MAX).content() {
        convoke_core::event::Content::Event(event) => event.event_id,
        other => panic!("{event_info} is {other:?}"),
    }
}

pub fn millis(ms: i64) -> Millis {
    Millis::new(ms).expect("a time in range")
}
