//! The outer object of a push (table 6-33 of the manual): finds the members in the raw bytes without interpreting them.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::raw_json;

/// Why a body is not an envelope. The response is `400`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The body is not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// The body is not one JSON value.
    #[error("the body is not JSON")]
    NotJson,
    /// The body is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A member is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A member occurs twice (`appID` and `appId` count as one).
    #[error("{0} appears twice")]
    Doubled(&'static str),
    /// A member has the wrong type.
    #[error("{0} is not {1}")]
    Wrong(&'static str, &'static str),
}

/// The spelling of the member `appID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// `appID`, as in all examples of the manual.
    AppID,
    /// `appId`, as in the table of the manual.
    AppId,
}

/// The members of an envelope, each of the right type.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// `None` if it has a lone surrogate, which no configured subscriber has.
    pub app_id: Option<Cow<'a, str>>,
    pub names: Names,
    /// 13 digits.
    pub timestamp: Cow<'a, str>,
    /// Its characters, for a string as for an integer. `None` if it has a lone surrogate, for which no
    /// signature can be computed.
    pub nonce: Option<Cow<'a, str>>,
    /// `None` unless it is 64 hexadecimal digits, of either case.
    pub signature: Option<[u8; 32]>,
    /// The object, as sent.
    pub event_info: &'a str,
}

impl<'a> Envelope<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(body).map_err(|_| Malformed::NotUtf8)?;
        // RFC 8259, section 8.1: a parser may ignore a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let members: Members<'a> = serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Malformed::NotAnObject,
            _ => Malformed::NotJson,
        })?;
        if let Some(name) = members.doubled {
            return Err(Malformed::Doubled(name));
        }
        let present = |value: Option<&'a RawValue>, name| value.map(RawValue::get).ok_or(Malformed::Missing(name));
        let app_id = present(members.app_id, "appID")?;
        let timestamp = present(members.timestamp, "timestamp")?;
        let nonce = present(members.nonce, "nonce")?;
        let signature = present(members.signature, "signature")?;
        let event_info = present(members.event_info, "eventInfo")?;

        for (name, token) in [("appID", app_id), ("signature", signature)] {
            if !token.starts_with('"') {
                return Err(Malformed::Wrong(name, "a string"));
            }
        }
        if !event_info.starts_with('{') {
            return Err(Malformed::Wrong("eventInfo", "an object"));
        }
        let timestamp = raw_json::exact_text(timestamp).unwrap_or(Cow::Borrowed(timestamp));
        if timestamp.len() != 13 || !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed::Wrong("timestamp", "13 digits"));
        }
        let nonce = if nonce.starts_with('"') {
            raw_json::exact_text(nonce)
        } else if is_integer(nonce) {
            Some(Cow::Borrowed(nonce))
        } else {
            return Err(Malformed::Wrong("nonce", "a string or an integer"));
        };
        Ok(Self {
            app_id: raw_json::exact_text(app_id),
            names: if members.lower_case_d { Names::AppId } else { Names::AppID },
            timestamp,
            nonce,
            signature: raw_json::exact_text(signature).and_then(|text| {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text.as_bytes(), &mut bytes).ok().map(|()| bytes)
            }),
            event_info,
        })
    }
}

/// Whether a JSON number is a plain integer, without fraction and exponent.
pub fn is_integer(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The text of a member's name. `None` if it has a lone surrogate: then it is no known name, but not an error either. Names are
/// read as raw text because `serde_json` checks strings that it decodes to bytes less strictly than those that it skips.
pub fn name(token: &RawValue) -> Option<Cow<'_, str>> {
    raw_json::exact_text(token.get())
}

#[derive(Default)]
struct Members<'a> {
    app_id: Option<&'a RawValue>,
    lower_case_d: bool,
    timestamp: Option<&'a RawValue>,
    nonce: Option<&'a RawValue>,
    signature: Option<&'a RawValue>,
    event_info: Option<&'a RawValue>,
    doubled: Option<&'static str>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some(token) = map.next_key::<&'de RawValue>()? {
                    let (slot, canonical) = match name(token).as_deref().unwrap_or_default() {
                        "appID" => (&mut members.app_id, "appID"),
                        "appId" => {
                            members.lower_case_d = true;
                            (&mut members.app_id, "appID")
                        }
                        "timestamp" => (&mut members.timestamp, "timestamp"),
                        "nonce" => (&mut members.nonce, "nonce"),
                        "signature" => (&mut members.signature, "signature"),
                        "eventInfo" => (&mut members.event_info, "eventInfo"),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if slot.replace(map.next_value()?).is_some() {
                        members.doubled = Some(canonical);
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}
