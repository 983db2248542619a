//! The envelope and its signature.

use std::collections::BTreeMap;

use bytes::Bytes;
use convoke_core::event::{Content, Delivery, HANDSHAKE, Subscriber};
use convoke_core::sign;
use convoke_core::time::Millis;
use convoke_core::verify::{Checked, Description, Form, Keyring, Refusal, describe, reread, verify};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::value::RawValue;
use sha2::Sha256;

const APP_ID: &str = "7700001234";
const KEY: &str = "demo-Subscriber-Key-2025";

/// The subscribers of the corpus, two of whom are the manual's.
fn keyring() -> Keyring {
    let subscriber =
        |app_id: &str, key: &str| Subscriber { app_id: app_id.into(), keys: vec![key.to_owned().into()], name: None };
    Keyring::new(&[subscriber(APP_ID, KEY), subscriber("1988692299", "123456"), subscriber("123456789", "123456")])
}

fn delivery() -> Delivery {
    Delivery { received_at: Millis::new(1_781_524_800_000).expect("a time"), request_id: None, traceparent: None }
}

/// Takes the bytes for a body, and, where they are an object, for the `eventInfo` of one that is signed.
pub fn run(data: &[u8]) {
    as_body(data);
    let text = std::str::from_utf8(data).ok();
    if let Some(info) = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
        && info.get().starts_with('{')
    {
        as_event_info(info.get());
    }
}

fn as_body(data: &[u8]) {
    let outcome = verify(&Bytes::copy_from_slice(data), &keyring(), &delivery());
    let described = describe(data, delivery().received_at);
    match outcome {
        Err(Refusal::Malformed(malformed)) => assert_eq!(described.err(), Some(malformed)),
        Err(_) => assert!(described.is_ok(), "an envelope that cannot be described"),
        Ok(checked) => {
            let description = described.expect("what passed is an envelope");
            agree(&checked, &description);
            if checked.form == Form::Raw {
                assert!(is_signed(data, &description), "passed without a signature");
            }
        }
    }
}

/// Whether the signature in the body is what the manual asks for, worked out again.
fn is_signed(body: &[u8], described: &Description) -> bool {
    let key = if described.app_id.as_deref() == Some(APP_ID) { KEY } else { "123456" };
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length");
    for part in [described.app_id.as_deref(), Some(&described.timestamp), described.nonce.as_deref()] {
        mac.update(part.expect("what passed has all parts").as_bytes());
    }
    mac.update(described.event_info.as_bytes());
    let wanted = hex::encode(mac.finalize().into_bytes());
    // A name or a text that is no Unicode makes the body unreadable to this parser, not to Convoke's.
    let members: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_slice(body);
    let Ok(members) = members else { return true };
    let signature: String = serde_json::from_str(members["signature"].get()).expect("text");
    signature.to_ascii_lowercase() == wanted
}

fn as_event_info(sent: &str) {
    let compact = compact(sent);
    let body = |key: &[u8]| {
        let (timestamp, nonce) = (1_781_524_800_000, "50607080");
        let signature = sign::sign(APP_ID, timestamp, nonce, compact.as_bytes(), key);
        Bytes::from(format!(
            r#"{{"appID":"{APP_ID}","timestamp":{timestamp},"nonce":"{nonce}","signature":"{signature}","eventInfo":{sent}}}"#
        ))
    };
    let genuine = body(KEY.as_bytes());
    let checked = verify(&genuine, &keyring(), &delivery()).expect("what is signed is always accepted");
    assert_eq!(checked.form, Form::Raw);
    let description = describe(&genuine, delivery().received_at).expect("what passed is an envelope");
    assert_eq!(description.event_info, compact);
    agree(&checked, &description);
    if let Content::Unreadable(unreadable) = checked.verified.content() {
        assert_eq!(unreadable.body, genuine, "the quarantine keeps the whole body");
        assert_eq!(reread(unreadable, delivery().received_at, None).err().as_ref(), Some(&unreadable.reason));
    }
    let forged = verify(&body(b"guessed"), &keyring(), &delivery());
    assert_eq!(forged.err(), Some(Refusal::Signature));
}

/// What was made of a body is what is shown of it.
fn agree(checked: &Checked, described: &Description) {
    match checked.verified.content() {
        Content::Handshake(handshake) => {
            assert_eq!(described.event.as_deref(), Ok(HANDSHAKE));
            assert_eq!(described.nonce.as_deref(), Some(&*handshake.nonce));
        }
        Content::Event(event) => {
            assert_eq!(described.event.as_deref(), Ok(&*event.event));
            assert_eq!(described.event_info, *event.event_info);
        }
        Content::Unreadable(unreadable) => assert_eq!(described.event.as_ref().err(), Some(&unreadable.reason)),
    }
}

/// Well-formed JSON without the white space between its tokens.
fn compact(text: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let significant = |c: &char| {
        let keep = inside || !matches!(c, ' ' | '\t' | '\r' | '\n');
        if *c == '"' && !escaped {
            inside = !inside;
        }
        escaped = inside && *c == '\\' && !escaped;
        keep
    };
    text.chars().filter(significant).collect()
}
