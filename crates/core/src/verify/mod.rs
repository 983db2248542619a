//! Bytes and keys in, [`Verified`] or a reason out. Pure: no I/O, no clock, no state except the keys.
//!
//! The signature of a push is inside the JSON that it signs, and covers one member of it as text. Therefore `eventInfo`
//! is cut out of the raw bytes (`envelope`), never taken from a re-serialised object, and checked in a bounded number
//! of forms (`form`) against every key of its subscriber. Only then is its content read (`payload`).

mod envelope;
mod family;
mod form;
mod payload;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;
use strum::VariantArray as _;
use subtle::{Choice, ConstantTimeEq};

pub use envelope::Malformed;
use envelope::{Envelope, Names};
pub use family::{Fit, in_another_encoding, search, words};
pub use form::Form;
pub use payload::{ATTENDEE_INFO, Admit, IMPLAUSIBLE, Times, columns};

use crate::raw_json::{self, Shape};

use crate::event::{Content, Delivery, Event, HANDSHAKE, Handshake, PROBE, Source, Subscriber, Unreadable, Verified};
use crate::id::EventId;
use crate::sign::FORGED_PROBE;
use crate::time::Millis;

/// Maximum nesting depth of `eventInfo`, itself the first level. A deeper one is kept, but not read.
pub const MAX_DEPTH: usize = 512;

/// Maximum length of `eventInfo` in a forged probe. A longer one is not checked, so that a long forgery
/// does not cost a second HMAC.
const MAX_PROBE_BYTES: usize = 256;

/// Why a body was refused. The sender learns only the status; the log file and a metric record the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is not an envelope.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The `appID` of the body is not configured.
    #[error("the appID is not a configured subscriber")]
    UnknownSubscriber,
    /// No key of the subscriber produces this signature, in any of the forms of `eventInfo` that are tried.
    #[error("the signature matches no key of the subscriber")]
    Signature,
}

/// A body with a valid signature, and how it was checked.
#[derive(Debug)]
pub struct Checked {
    /// The signed content.
    pub verified: Verified,
    /// The form of `eventInfo` that was signed.
    pub form: Form,
    /// The index of the matching key, from 0 in the order of the settings.
    pub key: usize,
}

/// The subscribers and their keys, prepared for checking signatures. Keys are held only as the two SHA-256 states that
/// HMAC derives from them, and are never printed.
pub struct Keyring {
    subscribers: HashMap<Arc<str>, Vec<Hmac<Sha256>>>,
    /// As many as the largest number of keys of a subscriber. They make up the difference for subscribers with fewer keys,
    /// and stand in for the keys of an unknown subscriber, so that timing reveals neither. Their matches are ignored.
    decoys: Vec<Hmac<Sha256>>,
}

impl Keyring {
    /// Prepares the keys of `subscribers`. An HMAC key can have any length.
    #[must_use]
    pub fn new(subscribers: &[Subscriber]) -> Self {
        let mac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        Self {
            subscribers: subscribers
                .iter()
                .map(|s| {
                    (s.app_id.clone(), s.keys.iter().map(|key| mac(key.expose_secret().as_bytes())).collect::<Vec<_>>())
                })
                .collect(),
            decoys: vec![mac(b"no subscriber"); subscribers.iter().map(|s| s.keys.len()).max().unwrap_or(1)],
        }
    }

    /// The `appID`s of all subscribers.
    pub fn subscriber_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.subscribers.keys()
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.subscribers.keys()).finish()
    }
}

/// An envelope with a matching signature. The content of `eventInfo` has not been read yet.
#[derive(Debug)]
pub struct Authenticated<'a> {
    subscriber_id: Arc<str>,
    nonce: Cow<'a, str>,
    event_info: Cow<'a, str>,
    shape: Shape,
    form: Form,
    key: usize,
}

/// Checks the signature of `body` against the keys of its subscriber.
///
/// Every key is tried for each form, in constant time. At most [`Form::VARIANTS`] forms are tried, so a forgery costs
/// at most a small constant factor more than a genuine delivery.
///
/// # Errors
/// The reason for the refusal. Nothing of the body may then be stored, published or reflected.
pub fn authenticate<'a>(body: &'a [u8], keyring: &Keyring) -> Result<Authenticated<'a>, Refusal> {
    let envelope = Envelope::parse(body)?;
    let known = envelope.app_id.as_deref().and_then(|id| keyring.subscribers.get_key_value(id));
    let macs = known.map_or(&[][..], |(_, macs)| macs);
    let decoys = &keyring.decoys[macs.len()..];
    let (event_info, shape) = raw_json::compact(envelope.event_info);

    let mut matched = None;
    if let (Some(app_id), Some(nonce), Some(signature)) =
        (envelope.app_id.as_deref(), envelope.nonce.as_deref(), envelope.signature.as_ref())
    {
        let prefix = [app_id.as_bytes(), envelope.timestamp.as_bytes(), nonce.as_bytes()];
        // Remember digests of the texts already tried, not the texts: they can be long, and escaping makes them longer.
        let mut tried: Vec<u64> = Vec::new();
        for form in Form::VARIANTS.iter().copied() {
            let text = form.of(envelope.event_info, &event_info);
            if form != Form::Raw {
                let digest = fingerprint(text.as_bytes());
                if tried.contains(&digest) {
                    continue;
                }
                tried.push(digest);
            }
            matched = matching_key(macs, prefix, text.as_bytes(), signature).map(|key| (form, key));
            std::hint::black_box(matching_key(decoys, prefix, text.as_bytes(), signature));
            if matched.is_some() {
                break;
            }
            if form == Form::Raw {
                tried.push(fingerprint(text.as_bytes()));
            }
        }
    }
    match (known, matched) {
        (Some((subscriber_id, _)), Some((form, key))) => Ok(Authenticated {
            subscriber_id: subscriber_id.clone(),
            nonce: envelope.nonce.unwrap_or_default(),
            event_info,
            shape,
            form,
            key,
        }),
        (None, _) => Err(Refusal::UnknownSubscriber),
        (Some(_), None) => Err(Refusal::Signature),
    }
}

fn fingerprint(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The index of the key that produces `signature`. All keys are tried, even after a match, for constant time.
fn matching_key(macs: &[Hmac<Sha256>], prefix: [&[u8]; 3], text: &[u8], signature: &[u8; 32]) -> Option<usize> {
    let mut found = None;
    for (index, mac) in macs.iter().enumerate() {
        let mut mac = mac.clone();
        for part in prefix {
            mac.update(part);
        }
        mac.update(text);
        let equal: Choice = mac.finalize().into_bytes().as_slice().ct_eq(signature);
        if bool::from(equal) {
            found = Some(index);
        }
    }
    found
}

/// Whether `body`, whose signature matched no key, is a probe that Convoke signed wrongly on purpose
/// ([`crate::sign::forged_probe_key`]). Only a holder of a subscriber's key can make one. The check takes as long
/// for an unknown subscriber.
#[must_use]
pub fn is_forged_probe(body: &[u8], keyring: &Keyring) -> bool {
    let Ok(envelope) = Envelope::parse(body) else { return false };
    let (Some(app_id), Some(nonce), Some(signature)) = (&envelope.app_id, &envelope.nonce, &envelope.signature) else {
        return false;
    };
    if !nonce.starts_with(PROBE) || envelope.event_info.len() > MAX_PROBE_BYTES {
        return false;
    }
    let macs = keyring.subscribers.get(&**app_id).map_or(&[][..], Vec::as_slice);
    let derived = |mac: &Hmac<Sha256>| {
        let key = mac.clone().chain_update(FORGED_PROBE).chain_update(nonce.as_bytes()).finalize().into_bytes();
        Hmac::<Sha256>::new_from_slice(hex::encode(key).as_bytes()).expect("HMAC takes a key of any length")
    };
    let keys: Vec<_> = macs.iter().chain(&keyring.decoys[macs.len()..]).map(derived).collect();
    let (event_info, _) = raw_json::compact(envelope.event_info);
    let prefix = [app_id.as_bytes(), envelope.timestamp.as_bytes(), nonce.as_bytes()];
    matching_key(&keys, prefix, event_info.as_bytes(), signature).is_some_and(|key| key < macs.len())
}

/// Checks the signature of `body` and reads the signed content.
///
/// # Errors
/// As [`authenticate`]. A signed body is never refused: one that cannot be read becomes [`Content::Unreadable`].
pub fn verify(body: &Bytes, keyring: &Keyring, delivery: &Delivery) -> Result<Checked, Refusal> {
    let authenticated = authenticate(body, keyring)?;
    let Authenticated { subscriber_id, nonce, event_info, shape, form, key } = &authenticated;
    let vouched = Vouched { subscriber_id, nonce, event_info, shape: *shape, source: Source::Push, body };
    let verified = vouched.read(delivery, Times::at(delivery.received_at));
    Ok(Checked { verified, form: *form, key: *key })
}

/// Reads a quarantined body again with the current code, as of `now`. Its signature was checked before it was
/// quarantined; the key may have been rotated out since. `admit` says how to read a time that is not plausible. A body
/// without an envelope was made or fetched by Convoke itself, as in [`pulled`].
///
/// # Errors
/// Why it still cannot be read as an event.
pub fn reread(unreadable: &Unreadable, now: Millis, admit: Option<Admit>) -> Result<Verified, String> {
    let Unreadable { subscriber_id, received_at, body, .. } = unreadable;
    let delivery = Delivery { received_at: *received_at, request_id: None, traceparent: None };
    let times = Times { received_at: *received_at, now, admit };
    let verified = match (Envelope::parse(body), payload::bare(body)) {
        (Ok(envelope), _) => {
            let (event_info, shape) = raw_json::compact(envelope.event_info);
            let nonce = envelope.nonce.unwrap_or_default();
            let vouched =
                Vouched { subscriber_id, nonce: &nonce, event_info: &event_info, shape, source: Source::Push, body };
            vouched.read(&delivery, times)
        }
        (Err(_), Some((text, source))) => {
            let (event_info, shape) = raw_json::compact(text);
            Vouched { subscriber_id, nonce: "", event_info: &event_info, shape, source, body }.read(&delivery, times)
        }
        (Err(malformed), None) => return Err(malformed.to_string()),
    };
    match verified.content() {
        Content::Unreadable(still) => Err(still.reason.clone()),
        _ => Ok(verified),
    }
}

/// Reads an `eventInfo` made from an authenticated response of the platform's API, with the same checks and columns as a pushed
/// one. `event_info` has no insignificant white space. If it cannot be read as an event, the result is [`Content::Unreadable`].
pub fn pulled(subscriber_id: &Arc<str>, event_info: &str, source: Source, received_at: Millis) -> Verified {
    let (_, shape) = raw_json::compact(event_info);
    let body = Bytes::copy_from_slice(event_info.as_bytes());
    let delivery = Delivery { received_at, request_id: None, traceparent: None };
    Vouched { subscriber_id, nonce: "", event_info, shape, source, body: &body }.read(&delivery, Times::at(received_at))
}

/// A genuine `eventInfo` whose content has not been read yet.
struct Vouched<'a> {
    subscriber_id: &'a Arc<str>,
    nonce: &'a str,
    event_info: &'a str,
    shape: Shape,
    source: Source,
    /// The body that contains it.
    body: &'a Bytes,
}

impl Vouched<'_> {
    /// Reads it as a handshake or an event, or else makes a quarantine entry of it.
    fn read(self, delivery: &Delivery, times: Times) -> Verified {
        let Self { subscriber_id, nonce, event_info, shape, source, body } = self;
        let unreadable = |reason| {
            Content::Unreadable(Unreadable {
                subscriber_id: subscriber_id.clone(),
                received_at: delivery.received_at,
                reason,
                body: body.clone(),
            })
        };
        Verified::vouch(match read_info(event_info, shape, times) {
            Ok(payload::EventInfo::Handshake) if source != Source::Push => {
                unreadable("a handshake is no event".to_owned())
            }
            Ok(payload::EventInfo::Handshake) => Content::Handshake(Handshake {
                subscriber_id: subscriber_id.clone(),
                nonce: nonce.to_owned(),
                received_at: delivery.received_at,
            }),
            Ok(payload::EventInfo::Event { event, occurred_at, meeting, attendee }) => Content::Event(Event {
                event_id: EventId::of(subscriber_id, occurred_at, event_info.as_bytes()),
                subscriber_id: subscriber_id.clone(),
                event,
                occurred_at,
                received_at: delivery.received_at,
                meeting,
                attendee,
                source,
                request_id: delivery.request_id.clone(),
                traceparent: delivery.traceparent.clone(),
                event_info: Arc::from(event_info),
            }),
            Err(reason) => unreadable(reason),
        })
    }
}

fn read_info(event_info: &str, shape: Shape, times: Times) -> Result<payload::EventInfo, String> {
    if shape.depth > MAX_DEPTH {
        return Err(format!("eventInfo is nested {} levels deep; the limit is {MAX_DEPTH}", shape.depth));
    }
    payload::EventInfo::read(event_info, times)
}

/// The subscriber named in a body, if it is configured. Nothing is verified.
#[must_use]
pub fn addressee<'k>(body: &[u8], keyring: &'k Keyring) -> Option<&'k Arc<str>> {
    let app_id = Envelope::parse(body).ok()?.app_id?;
    keyring.subscribers.get_key_value(&*app_id).map(|(subscriber_id, _)| subscriber_id)
}

/// The contents of the envelope of a body received at `received_at`, to find the reason for a refusal (`convoke verify`).
///
/// # Errors
/// Why the body is not an envelope.
pub fn describe(body: &[u8], received_at: Millis) -> Result<Description, Malformed> {
    let envelope = Envelope::parse(body)?;
    let (event_info, shape) = raw_json::compact(envelope.event_info);
    Ok(Description {
        app_id: envelope.app_id.map(Cow::into_owned),
        app_id_name: match envelope.names {
            Names::AppID => "appID",
            Names::AppId => "appId",
        },
        timestamp: envelope.timestamp.into_owned(),
        nonce: envelope.nonce.map(Cow::into_owned),
        signature_is_hex: envelope.signature.is_some(),
        had_white_space: event_info.len() != envelope.event_info.len(),
        event: match read_info(&event_info, shape, Times::at(received_at)) {
            Ok(payload::EventInfo::Handshake) => Ok(HANDSHAKE.to_owned()),
            Ok(payload::EventInfo::Event { event, .. }) => Ok(event.to_string()),
            Err(reason) => Err(reason),
        },
        event_info: event_info.into_owned(),
    })
}

/// The parts of an envelope, unverified.
#[derive(Debug)]
pub struct Description {
    /// `appID`; `None` if it has a lone surrogate.
    pub app_id: Option<String>,
    /// How the body spells `appID`.
    pub app_id_name: &'static str,
    /// The 13 digits of the envelope's timestamp.
    pub timestamp: String,
    /// The characters of the nonce; `None` if it has a lone surrogate.
    pub nonce: Option<String>,
    /// Whether the signature is 64 hexadecimal digits.
    pub signature_is_hex: bool,
    /// Whether `eventInfo` came with insignificant white space.
    pub had_white_space: bool,
    /// The event type, or why the body cannot be read as an event.
    pub event: Result<String, String>,
    /// `eventInfo` without insignificant white space.
    pub event_info: String,
}

#[cfg(test)]
pub(crate) mod tests;
