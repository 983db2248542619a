//! The content of `eventInfo` (tables 6-34 to 6-37 of the manual). An event needs a type and a time; everything else
//! becomes the nearest faithful value of its column, or null, so that nothing in it causes a refusal.

use std::sync::Arc;
use std::time::Duration;

use super::envelope::is_integer;
use crate::event::{Attendee, HANDSHAKE, KNOWN_EVENTS, LIVE, Meeting, Source};
use crate::raw_json;
use crate::time::Millis;

/// The member that describes the participant, and its misprint in one edition of the manual.
pub const ATTENDEE_INFO: [&str; 2] = ["attendeeInfo", "attendeelInfo"];

/// The quarantine reason for an event whose time cannot be right.
pub const IMPLAUSIBLE: &str = "implausible time";

/// 2015-01-01T00:00:00Z: the platform has no older events.
const MIN_TIME: Millis = Millis::new(1_420_070_400_000).unwrap();

/// Maximum time by which an event may be after its receipt. Beyond that, a clock is wrong.
const MAX_AHEAD: Duration = Duration::from_secs(86_400);

crate::words! {
    /// How to read times that are not plausible, when the sender's format is known (`convoke quarantine retry --as`).
    pub enum Admit as "TimeUnit" {
        /// Its times are in seconds.
        Seconds = "seconds",
        /// Its times are in microseconds.
        Microseconds = "microseconds",
        /// Its time is useless: take the time of receipt.
        Received = "received",
    }
}

/// How times are read, and which are plausible.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When the event was received.
    pub received_at: Millis,
    /// The current time. It differs from `received_at` when a body is read again, perhaps after a wrong clock was set right.
    pub now: Millis,
    /// How to read a time that is not plausible.
    pub admit: Option<Admit>,
}

impl Times {
    /// For an event received just now.
    pub const fn at(received_at: Millis) -> Self {
        Self { received_at, now: received_at, admit: None }
    }

    /// Reads the digits in `token`, bare or quoted: 13 digits are milliseconds, 10 are seconds. `None` if it is not an
    /// integer, `Some(None)` if it is not a plausible time.
    fn read(self, token: &str) -> Option<Option<Millis>> {
        let quoted = raw_json::exact_text(token);
        let digits = quoted.as_deref().unwrap_or(token);
        if !is_integer(digits) {
            return None;
        }
        let plausible = |value: Option<i64>| value.and_then(Millis::new).filter(|at| self.is_plausible(*at));
        let number = digits.parse::<i64>().ok();
        let by_digits = match digits.len() {
            13 => plausible(number),
            10 => plausible(number.and_then(|seconds| seconds.checked_mul(1_000))),
            _ => None,
        };
        Some(by_digits.or_else(|| match self.admit? {
            Admit::Seconds => plausible(number.and_then(|seconds| seconds.checked_mul(1_000))),
            Admit::Microseconds => plausible(number.map(|micros| micros / 1_000)),
            Admit::Received => None,
        }))
    }

    fn is_plausible(self, at: Millis) -> bool {
        at >= MIN_TIME && at <= self.received_at.max(self.now).plus(MAX_AHEAD)
    }

    /// The time of an event.
    fn of_event(self, token: Option<&str>) -> Result<Millis, String> {
        let read = match token {
            None => Err("eventInfo.timestamp is missing"),
            Some(token) => match self.read(token) {
                None => Err("eventInfo.timestamp is not an integer"),
                Some(None) => Err(IMPLAUSIBLE),
                Some(Some(at)) => Ok(at),
            },
        };
        match read {
            Err(_) if self.admit == Some(Admit::Received) => Ok(self.received_at),
            read => read.map_err(str::to_owned),
        }
    }

    /// The value of a time column: null if it is not a plausible time, such as the platform's 0.
    fn of_column(self, token: Option<&str>) -> Option<Millis> {
        self.read(token?).flatten()
    }
}

/// The content of `eventInfo`.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum EventInfo {
    /// `meeting.verify`.
    Handshake,
    /// Any other type.
    Event { event: Arc<str>, occurred_at: Millis, meeting: Meeting, attendee: Attendee },
}

impl EventInfo {
    /// Reads `event_info`, a well-formed object without insignificant white space.
    ///
    /// # Errors
    /// Why it cannot be read as an event, for the quarantine.
    pub fn read(event_info: &str, times: Times) -> Result<Self, String> {
        let members =
            raw_json::members(event_info, ["event", "timestamp", "payload"]).ok_or("eventInfo is not an object")?;
        let [event, timestamp, payload] = members.values;
        let event = match event {
            _ if members.doubled[0] => return Err("event appears twice".to_owned()),
            None => return Err("event is missing".to_owned()),
            Some(token) => raw_json::storable_text(token).ok_or("event is not a string")?,
        };
        if event.is_empty() {
            return Err("event is empty".to_owned());
        }
        if event == HANDSHAKE {
            return Ok(Self::Handshake);
        }
        if members.doubled[1] {
            return Err("eventInfo.timestamp appears twice".to_owned());
        }
        let occurred_at = times.of_event(timestamp)?;
        let (meeting, attendee) = columns(payload, times);
        Ok(Self::Event { event: Arc::from(event.as_ref()), occurred_at, meeting, attendee })
    }
}

/// The values of the typed columns in a payload.
pub fn columns(payload: Option<&str>, times: Times) -> (Meeting, Attendee) {
    let [meeting_info, attendee_info, misprinted] =
        optional::<3>(payload, ["meetingInfo", ATTENDEE_INFO[0], ATTENDEE_INFO[1]]);
    let [id, uuid, cycle_sub_id] =
        optional::<3>(meeting_info, ["meetingID", "meetingUUID", "meetingCycleSubID"]).map(text);
    let attendee = optional::<9>(
        attendee_info.or(misprinted),
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
        join_time: times.of_column(join),
        left_time: times.of_column(left),
    };
    (Meeting { id, uuid, cycle_sub_id }, attendee)
}

/// The value of a text column: a string as it is (with U+FFFD for what a database cannot hold), an integer as its
/// digits, anything else null. An empty string is null.
fn text(token: Option<&str>) -> Option<Arc<str>> {
    let token = token?;
    if is_integer(token) {
        return Some(Arc::from(token));
    }
    raw_json::storable_text(token).filter(|text| !text.is_empty()).map(|text| Arc::from(text.as_ref()))
}

/// The members with the given `names` in `value`; all `None` if it is not an object. Of a duplicate member the last
/// value counts, as in most parsers.
fn optional<'a, const N: usize>(value: Option<&'a str>, names: [&str; N]) -> [Option<&'a str>; N] {
    value.and_then(|token| raw_json::members(token, names)).map_or([None; N], |members| members.values)
}

/// A body that is an `eventInfo` without an envelope, and its source: an event type that the platform pushes was made
/// from the history, one of a running meeting was told there, any other was fetched from the API.
pub fn bare(body: &[u8]) -> Option<(&str, Source)> {
    let text = std::str::from_utf8(body).ok()?.trim();
    // It may be anything.
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let event = raw_json::exact_text(raw_json::member(text, "event")?)?;
    let source = match &*event {
        event if KNOWN_EVENTS.contains(&event) => Source::Backfill,
        event if event.starts_with(LIVE) => Source::Live,
        _ => Source::Platform,
    };
    Some((text, source))
}
