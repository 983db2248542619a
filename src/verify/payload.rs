//! What is inside `eventInfo` (tables 6-34 to 6-37 of the manual), read so that nothing in it can be refused: an event
//! needs a type and a time, everything else becomes the nearest honest value of its column, or null.

use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{is_integer, name};
use super::json;
use crate::event::{Attendee, HANDSHAKE, Meeting, Millis};

/// What `eventInfo` says.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum EventInfo {
    /// `meeting.verify`.
    Handshake,
    /// Anything else.
    Event { event: Arc<str>, occurred_at: Millis, meeting: Meeting, attendee: Attendee },
}

impl EventInfo {
    /// Reads `event_info`, a well-formed object without insignificant white space.
    ///
    /// # Errors
    /// Why no event can be made of it, for the quarantine.
    pub fn read(event_info: &str) -> Result<Self, String> {
        let members = object::<3>(event_info, ["event", "timestamp", "payload"])
            .map_err(|error| format!("eventInfo cannot be read: {error}"))?;
        let [event, timestamp, payload] = members.values;
        let event = match event.map(RawValue::get) {
            _ if members.doubled[0] => return Err("event is doubled".to_owned()),
            None => return Err("event is missing".to_owned()),
            Some(token) => json::storable_text(token).ok_or("event is not a string")?,
        };
        if event.is_empty() {
            return Err("event is empty".to_owned());
        }
        if event == HANDSHAKE {
            return Ok(Self::Handshake);
        }
        let occurred_at = match timestamp.map(RawValue::get) {
            _ if members.doubled[1] => return Err("eventInfo.timestamp is doubled".to_owned()),
            None => return Err("eventInfo.timestamp is missing".to_owned()),
            Some(token) => integer(token).ok_or("eventInfo.timestamp is not an integer in 0…253402300799999")?,
        };
        let (meeting, attendee) = columns(payload);
        Ok(Self::Event { event: Arc::from(event.as_ref()), occurred_at, meeting, attendee })
    }
}

/// What the typed columns have of a payload.
pub fn columns(payload: Option<&RawValue>) -> (Meeting, Attendee) {
    let [meeting_info, attendee_info] = optional::<2>(payload, ["meetingInfo", "attendeeInfo"]);
    let [id, uuid, cycle_sub_id] =
        optional::<3>(meeting_info, ["meetingID", "meetingUUID", "meetingCycleSubID"]).map(text);
    let attendee = optional::<9>(
        attendee_info,
        [
            "userUUID",
            "userAgent",
            "account",
            "participantID",
            "displayName",
            "role",
            "callNumber",
            "joinTime",
            "leftTime",
        ],
    );
    let [user_uuid, user_agent, account, participant_id, display_name, role, call_number, join, left] = attendee;
    let attendee = Attendee {
        user_uuid: text(user_uuid),
        user_agent: text(user_agent),
        account: text(account),
        participant_id: text(participant_id),
        display_name: text(display_name),
        role: text(role),
        call_number: text(call_number),
        join_time: millis(join),
        left_time: millis(left),
    };
    (Meeting { id, uuid, cycle_sub_id }, attendee)
}

/// A text column: a string as it is (U+FFFD for what no database holds), an integer as its digits, else null; empty is
/// null.
fn text(value: Option<&RawValue>) -> Option<Arc<str>> {
    let token = value?.get();
    if is_integer(token) {
        return Some(Arc::from(token));
    }
    json::storable_text(token).filter(|text| !text.is_empty()).map(|text| Arc::from(text.as_ref()))
}

/// A time column: milliseconds as an integer or as a string of digits; 0 and everything else is null.
fn millis(value: Option<&RawValue>) -> Option<Millis> {
    let token = value?.get();
    let at = match json::exact_text(token) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => integer(&digits),
        Some(_) => None,
        None => integer(token),
    };
    at.filter(|at| *at != Millis::EPOCH)
}

fn integer(digits: &str) -> Option<Millis> {
    if !is_integer(digits) {
        return None;
    }
    digits.parse().ok().and_then(Millis::new)
}

/// The members called `names` of `value`, none of them if it is not an object. Of a doubled member the last counts, as
/// with most parsers.
fn optional<'a, const N: usize>(value: Option<&'a RawValue>, names: [&str; N]) -> [Option<&'a RawValue>; N] {
    value
        .map(RawValue::get)
        .filter(|token| token.starts_with('{'))
        .and_then(|token| object(token, names).ok())
        .map_or([None; N], |members| members.values)
}

struct Members<'a, const N: usize> {
    values: [Option<&'a RawValue>; N],
    doubled: [bool; N],
}

/// Finds the members called `names` of the object `token`, in one pass and without recursion.
fn object<'a, const N: usize>(token: &'a str, names: [&str; N]) -> Result<Members<'a, N>, serde_json::Error> {
    struct MembersVisitor<'n, const N: usize>([&'n str; N]);
    impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
        type Value = Members<'de, N>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Members { values: [None; N], doubled: [false; N] };
            while let Some(token) = map.next_key::<&'de RawValue>()? {
                let value: &'de RawValue = map.next_value()?;
                let name = name(token);
                if let Some(n) = self.0.iter().position(|wanted| Some(*wanted) == name.as_deref()) {
                    members.doubled[n] |= members.values[n].replace(value).is_some();
                }
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(token);
    deserializer.deserialize_map(MembersVisitor(names))
}

/// `payload` as it stands in `event_info`; the last one, if it is doubled.
pub fn payload(event_info: &str) -> Option<&str> {
    let members = object::<1>(event_info, ["payload"]).ok()?;
    members.values[0].map(RawValue::get)
}
