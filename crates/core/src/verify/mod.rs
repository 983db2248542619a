//! Bytes and keys in, [`Verified`] or a reason out. Pure: no I/O, no clock, no state but the keys.
//!
//! The signature of the platform's push hides inside the JSON that it signs, and covers one member of it as text. So
//! `eventInfo` is cut out of the raw bytes (`envelope`), never taken from a re-serialised object, and checked in a
//! few bounded forms (`form`) against every key of its subscriber. Only then is it read (`payload`).

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

/// `eventInfo` may nest this deep, itself being the first level; deeper ones are kept, but not read.
pub const MAX_DEPTH: usize = 512;

/// A probe of Convoke with itself has a short `eventInfo`: nobody gets a long one looked at once more.
const MAX_PROBE_BYTES: usize = 256;

/// Why a body was refused. The sender learns only the status; the log and a metric get the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not an envelope at all.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its `appID` is not one of ours.
    #[error("the appID is not a configured subscriber")]
    UnknownSubscriber,
    /// No key of its subscriber makes its signature, in any form of `eventInfo` that we try.
    #[error("the signature matches no key of the subscriber")]
    Signature,
}

/// A body that passed, and how.
#[derive(Debug)]
pub struct Checked {
    /// What was signed.
    pub verified: Verified,
    /// The form of `eventInfo` that the signature covers.
    pub form: Form,
    /// Which of the subscriber's keys matched, counted from 0 in the order of the settings.
    pub key: usize,
}

/// The subscribers and their keys, ready to check signatures. Keys are held only as the two SHA-256 states that HMAC
/// derives from them, and never print.
pub struct Keyring {
    subscribers: HashMap<Arc<str>, Vec<Hmac<Sha256>>>,
    /// As many as the most keys of a subscriber. They fill up what others have fewer, and stand in for the keys of a
    /// subscriber that does not exist, so that the time gives neither away. What they match counts for nothing.
    decoys: Vec<Hmac<Sha256>>,
}

impl Keyring {
    /// The keys of `subscribers`. An HMAC key may have any length.
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

    /// The ids of all subscribers.
    pub fn subscriber_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.subscribers.keys()
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.subscribers.keys()).finish()
    }
}

/// An envelope whose signature matches, before anything inside `eventInfo` was looked at.
#[derive(Debug)]
pub struct Authenticated<'a> {
    subscriber_id: Arc<str>,
    nonce: Cow<'a, str>,
    event_info: Cow<'a, str>,
    shape: Shape,
    form: Form,
    key: usize,
}

/// Checks the signature of `body` with the keys of its subscriber.
///
/// Every key is tried for each form, in constant time; at most [`Form::VARIANTS`] forms are tried, so that a forgery costs no
/// more than a small constant times a genuine delivery.
///
/// # Errors
/// The reason to refuse it; nothing of the body may then be stored, published or reflected.
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
        // What was tried is known again by its digest: a text may be long, and its forms several times as long.
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

/// The index of the key that makes `signature`. All keys are tried, also after one matched.
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

/// Whether `body`, which no key verified, is a probe of Convoke with itself that was signed wrongly on purpose
/// ([`crate::sign::forged_probe_key`]): only who has a key of the subscriber can make one. Takes as long for a subscriber that
/// does not exist.
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

/// Checks the signature of `body` and reads what it signs.
///
/// # Errors
/// As [`authenticate`]. A signed body is never refused: what cannot be read comes back as [`Content::Unreadable`].
pub fn verify(body: &Bytes, keyring: &Keyring, delivery: &Delivery) -> Result<Checked, Refusal> {
    let authenticated = authenticate(body, keyring)?;
    let Authenticated { subscriber_id, nonce, event_info, shape, form, key } = &authenticated;
    let vouched = Vouched { subscriber_id, nonce, event_info, shape: *shape, source: Source::Push, body };
    let verified = vouched.read(delivery, Times::at(delivery.received_at));
    Ok(Checked { verified, form: *form, key: *key })
}

/// Reads a body of the quarantine again with today's code, as of `now`. Its signature was checked before it was put there; the
/// key that made it may have been rotated away since. With `admit`, a time that is not plausible is taken for what that says.
/// What has no envelope was made or fetched by Convoke itself, as in [`pulled`].
///
/// # Errors
/// The reason why still no event can be made of it.
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

/// Reads an `eventInfo` that was made from an authenticated answer of the platform's API: the same door, and the
/// same columns, as for what is pushed. `event_info` has no insignificant white space. What is no event of it is
/// [`Content::Unreadable`].
pub fn pulled(subscriber_id: &Arc<str>, event_info: &str, source: Source, received_at: Millis) -> Verified {
    let (_, shape) = raw_json::compact(event_info);
    let body = Bytes::copy_from_slice(event_info.as_bytes());
    let delivery = Delivery { received_at, request_id: None, traceparent: None };
    Vouched { subscriber_id, nonce: "", event_info, shape, source, body: &body }.read(&delivery, Times::at(received_at))
}

/// An `eventInfo` that is genuine, before anything inside it was looked at.
struct Vouched<'a> {
    subscriber_id: &'a Arc<str>,
    nonce: &'a str,
    event_info: &'a str,
    shape: Shape,
    source: Source,
    /// What it stood in.
    body: &'a Bytes,
}

impl Vouched<'_> {
    /// Makes the most of it: a handshake, an event, or a piece for the quarantine.
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
        return Err(format!("eventInfo is nested {} levels deep, over {MAX_DEPTH}", shape.depth));
    }
    payload::EventInfo::read(event_info, times)
}

/// The subscriber that a body names, if it is one of ours; nothing of it is verified.
#[must_use]
pub fn addressee<'k>(body: &[u8], keyring: &'k Keyring) -> Option<&'k Arc<str>> {
    let app_id = Envelope::parse(body).ok()?.app_id?;
    keyring.subscribers.get_key_value(&*app_id).map(|(subscriber_id, _)| subscriber_id)
}

/// What stands in the envelope of a body that was received at `received_at`, for people who look for the reason of a refusal
/// (`convoke verify`).
///
/// # Errors
/// The reason why it is no envelope.
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
    /// `appID`, unless it cannot be text.
    pub app_id: Option<String>,
    /// The spelling that the body uses.
    pub app_id_name: &'static str,
    /// The 13 digits.
    pub timestamp: String,
    /// The nonce's characters, unless it cannot be text.
    pub nonce: Option<String>,
    /// Whether the signature is 64 hexadecimal digits.
    pub signature_is_hex: bool,
    /// Whether `eventInfo` came with insignificant white space.
    pub had_white_space: bool,
    /// The event type, or why no event can be made of it.
    pub event: Result<String, String>,
    /// `eventInfo` without insignificant white space.
    pub event_info: String,
}

#[cfg(test)]
pub(crate) mod tests;
