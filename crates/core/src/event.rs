//! The words of the trade: subscribers, deliveries, events and their ids. No I/O.
//!
//! Everything that passes from one module to another is defined here, so that `verify`, `log` and
//! `bus` know this module and nothing of each other. [`Verified`] is the one door into the log: it can
//! be made only by [`crate::verify`], which has seen a matching signature.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::raw_json::Style;

/// The event type of the platform's handshake, which is answered and never stored.
pub const HANDSHAKE: &str = "meeting.verify";

/// The event types that the platform's manual names (section 6.2.3, table 6-34), without the handshake.
/// The list has grown before: any other type is stored and published too, and counted as `other`.
pub const KNOWN_EVENTS: [&str; 9] = [
    "meeting.started",
    "meeting.end",
    "meeting.conclude",
    "record.finish",
    "meeting.create",
    "meeting.modify",
    "meeting.cancel",
    "meeting.join",
    "meeting.left",
];

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, never negative, at most
/// 9999-12-31T23:59:59.999Z. The platform's own unit, and the resolution of every stored time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(i64);

impl Millis {
    /// 9999-12-31T23:59:59.999Z, the last time with a four-digit year.
    pub const MAX: Self = Self(253_402_300_799_999);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The time `ms` milliseconds after the epoch, or `None` outside of `0..=`[`Millis::MAX`].
    #[must_use]
    pub const fn new(ms: i64) -> Option<Self> {
        if ms >= 0 && ms <= Self::MAX.0 { Some(Self(ms)) } else { None }
    }

    /// Reads what [`Millis`]'s `Display` writes, and nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let fixed = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
        if bytes.len() != 24 || fixed.iter().any(|(at, byte)| bytes[*at] != *byte) {
            return None;
        }
        let number = |from: usize, to: usize| {
            bytes[from..to]
                .iter()
                .try_fold(0_u16, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u16::from(byte - b'0')))
        };
        let small = |from: usize| number(from, from + 2).and_then(|n| u8::try_from(n).ok());
        let month = time::Month::try_from(small(5)?).ok()?;
        let date = time::Date::from_calendar_date(i32::from(number(0, 4)?), month, small(8)?).ok()?;
        let time = time::Time::from_hms_milli(small(11)?, small(14)?, small(17)?, number(20, 23)?).ok()?;
        Some(Self::from_date_time(OffsetDateTime::new_utc(date, time)))
    }

    /// Reads a time as people write it: RFC 3339, or a date, which is its first moment in UTC. Times outside of the range are
    /// moved to its ends.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let full = match text.len() {
            10 => format!("{text}T00:00:00Z"),
            _ => text.to_owned(),
        };
        OffsetDateTime::parse(&full, &time::format_description::well_known::Rfc3339)
            .map(Self::from_date_time)
            .map_err(|error| format!("{error}; write for example 2026-03-01 or 2026-03-01T08:30:00Z"))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// This time less `age`, not before the epoch.
    #[must_use]
    pub fn minus(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)).max(0))
    }

    /// This time and `more`, not after [`Millis::MAX`].
    #[must_use]
    pub fn plus(self, more: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(more.as_millis()).unwrap_or(i64::MAX)).min(Self::MAX.0))
    }

    /// The same instant as a date of the `time` crate.
    #[must_use]
    pub fn date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The instant of `at`, cut to whole milliseconds; times outside of the range are moved to its ends.
    #[must_use]
    pub fn from_date_time(at: OffsetDateTime) -> Self {
        let ms = at.unix_timestamp_nanos() / 1_000_000;
        Self(i64::try_from(ms).unwrap_or(0).clamp(0, Self::MAX.0))
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`: RFC 3339 in UTC, always with three decimals, so that text order is time order.
impl fmt::Display for Millis {
    /// Without the formatting of numbers: several of these are written for every event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.date_time();
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, milli) = at.to_hms_milli();
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let numbers = [
            (0..4, u32::try_from(year).unwrap_or(0)),
            (5..7, u32::from(u8::from(month))),
            (8..10, u32::from(day)),
            (11..13, u32::from(hour)),
            (14..16, u32::from(minute)),
            (17..19, u32::from(second)),
            (20..23, u32::from(milli)),
        ];
        for (place, mut number) in numbers {
            for digit in text[place].iter_mut().rev() {
                *digit += u8::try_from(number % 10).unwrap_or(0);
                number /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Where the time comes from. Passed in, so that tests choose it.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// Whatever the test last stored, in milliseconds.
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Millis {
        match self {
            #[expect(clippy::disallowed_methods, reason = "the one place where the system's clock is read")]
            Self::System => Millis::from_date_time(OffsetDateTime::now_utc()),
            Self::Set(ms) => Millis(ms.load(Ordering::Relaxed)),
        }
    }

    /// A time for measuring how long something takes, which nobody sets back or forward: it says nothing about the day.
    #[must_use]
    pub fn steady(&self) -> Duration {
        static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        match self {
            Self::System => START.elapsed(),
            Self::Set(ms) => Duration::from_millis(ms.load(Ordering::Relaxed).unsigned_abs()),
        }
    }
}

/// One entry of the platform's push configuration: an `appID` (its subscriber ID) and the keys (its password) that
/// are live; several while one is being rotated.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The platform's `appID`.
    pub app_id: Arc<str>,
    /// The live keys, any of which may sign. Never empty.
    pub keys: Vec<SecretString>,
    /// A name for people, in logs.
    pub name: Option<String>,
}

/// Identifies an event by its content (a UUID of version 8, RFC 9562): the first and any re-signed delivery of one
/// event have the same id. Led by the event's own time, so that ids are in time order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// The id of the event that `event_info` (well-formed JSON without insignificant white space, in UTF-8) describes: 48
    /// bits of `occurred_at` in milliseconds, then the first 80 bits of SHA-256 over `subscriber_id`, a zero byte and
    /// `event_info` with the escapes of its strings undone, with the version (8) and the variant of RFC 9562 written over
    /// them. So it does not matter how a sender escapes, the first time or when it comes again.
    #[must_use]
    pub fn of(subscriber_id: &str, occurred_at: Millis, event_info: &[u8]) -> Self {
        match std::str::from_utf8(event_info) {
            Ok(text) if event_info.contains(&b'\\') => {
                Self::led(subscriber_id, occurred_at, Style::PLAIN.of(text).as_bytes())
            }
            _ => Self::led(subscriber_id, occurred_at, event_info),
        }
    }

    /// An id in the same way of any content, led by `at`.
    #[must_use]
    pub fn led(subscriber_id: &str, at: Millis, content: &[u8]) -> Self {
        let digest =
            Sha256::new().chain_update(subscriber_id.as_bytes()).chain_update([0]).chain_update(content).finalize();
        let mut id = [0_u8; 16];
        id[..6].copy_from_slice(&at.0.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&digest[..10]);
        Self(uuid::Builder::from_custom_bytes(id).into_uuid())
    }

    /// The smallest id of any event at `at` or later.
    #[must_use]
    pub fn lower_bound(at: Millis) -> Self {
        let mut id = [0_u8; 16];
        id[..6].copy_from_slice(&at.0.to_be_bytes()[2..]);
        Self(Uuid::from_bytes(id))
    }

    /// When the event happened: what leads the id.
    #[must_use]
    pub fn occurred_at(self) -> Millis {
        let mut ms = [0_u8; 8];
        ms[2..].copy_from_slice(&self.0.as_bytes()[..6]);
        Millis(i64::from_be_bytes(ms).min(Millis::MAX.0))
    }

    /// As a UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The id that `uuid` is, unchecked: for ids that were read back from the log, a ledger or the stream.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Lower-case with hyphens.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A place in the log's order. Increasing, never reused; gaps are normal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
pub struct Seq(pub i64);

impl Seq {
    /// Before the first row.
    pub const START: Self = Self(0);
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an event came into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Pushed by the platform.
    Push,
    /// Made from the platform's history, for an event that was never pushed.
    Backfill,
    /// Fetched from the platform's API.
    Platform,
}

impl Source {
    /// As in the column `source` and the CloudEvents attribute `origin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Backfill => "backfill",
            Self::Platform => "platform",
        }
    }
}

/// What is known of a delivery beside its body.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When the body was complete.
    pub received_at: Millis,
    /// `X-Request-ID`, the sender's or our own.
    pub request_id: Option<Arc<str>>,
    /// W3C trace context, if a proxy added one.
    pub traceparent: Option<Arc<str>>,
}

/// An event as the log keeps it. Texts are shared, not copied, on their way into the database.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// From the content alone.
    pub event_id: EventId,
    /// The envelope's `appID`.
    pub subscriber_id: Arc<str>,
    /// `eventInfo.event`, as sent.
    pub event: Arc<str>,
    /// `eventInfo.timestamp`.
    pub occurred_at: Millis,
    /// When the first delivery arrived.
    pub received_at: Millis,
    /// What `payload.meetingInfo` says.
    pub meeting: Meeting,
    /// What `payload.attendeeInfo` says.
    pub attendee: Attendee,
    /// How it came here.
    pub source: Source,
    /// Of the first delivery.
    pub request_id: Option<Arc<str>>,
    /// Of the first delivery.
    pub traceparent: Option<Arc<str>>,
    /// `eventInfo`, verbatim, without insignificant white space.
    pub event_info: Arc<str>,
}

/// The typed columns taken from `payload.meetingInfo` (table 6-36 of the manual).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meeting {
    /// `meetingID`: reused by later meetings.
    pub id: Option<Arc<str>>,
    /// `meetingUUID`: one run of a meeting.
    pub uuid: Option<Arc<str>>,
    /// `meetingCycleSubID`: the occurrence of a recurring meeting.
    pub cycle_sub_id: Option<Arc<str>>,
}

/// The typed columns taken from `payload.attendeeInfo` (table 6-37 of the manual).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attendee {
    /// `userUUID`.
    pub user_uuid: Option<Arc<str>>,
    /// `userAgent`: the kind of client.
    pub user_agent: Option<Arc<str>>,
    /// `account`: the login name.
    pub account: Option<Arc<str>>,
    /// `participantID`.
    pub participant_id: Option<Arc<str>>,
    /// `displayName`.
    pub display_name: Option<Arc<str>>,
    /// `role`.
    pub role: Option<Arc<str>>,
    /// `callNumber`.
    pub call_number: Option<Arc<str>>,
    /// `joinTime`.
    pub join_time: Option<Millis>,
    /// `leftTime`; the platform's 0 ("has not left") is `None`.
    pub left_time: Option<Millis>,
}

/// A signed body of which no event can be made. Kept whole, for people to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The envelope's `appID`.
    pub subscriber_id: Arc<str>,
    /// When it arrived first.
    pub received_at: Millis,
    /// Why no event can be made of it.
    pub reason: String,
    /// The whole request body.
    pub body: Bytes,
}

impl Unreadable {
    /// SHA-256 of the body: two copies of it are one entry of the quarantine.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.body).into()
    }
}

/// A signed handshake, to be answered with its nonce.
#[derive(Clone, Debug, PartialEq)]
pub struct Handshake {
    /// The envelope's `appID`.
    pub subscriber_id: Arc<str>,
    /// The envelope's `nonce`, to be sent back.
    pub nonce: String,
    /// When it arrived.
    pub received_at: Millis,
}

/// The nonce of a probe begins so. The platform's are digits; and as this begins with a letter, no digit of the timestamp
/// before it, with which it is signed in one run, can be taken for a part of it.
pub const PROBE: &str = "convoke-probe-";

impl Handshake {
    /// Whether it is a probe: a handshake of Convoke with itself, which says nothing about the platform.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.nonce.starts_with(PROBE)
    }
}

/// What a delivery with a matching signature holds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events, and none is kept in bulk")]
pub enum Content {
    /// The platform asks whether we are who we should be.
    Handshake(Handshake),
    /// An event.
    Event(Event),
    /// Signed, but no event.
    Unreadable(Unreadable),
}

/// The content of a delivery whose signature matched a key of its subscriber. The log accepts nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified(Content);

impl Verified {
    /// Vouches that `content` was signed. Called by [`crate::verify`] alone.
    pub(crate) const fn vouch(content: Content) -> Self {
        Self(content)
    }

    /// What was signed.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.0
    }

    /// The subscriber whose key signed it.
    #[must_use]
    pub fn subscriber_id(&self) -> &Arc<str> {
        match &self.0 {
            Content::Handshake(handshake) => &handshake.subscriber_id,
            Content::Event(event) => &event.subscriber_id,
            Content::Unreadable(unreadable) => &unreadable.subscriber_id,
        }
    }
}

/// A row of the log, wherever it came from: what of it is published.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: &'a str,
    /// The event type, as sent.
    pub event: &'a str,
    /// When it happened.
    pub occurred_at: Millis,
    /// When it arrived first.
    pub received_at: Millis,
    /// The meeting's number.
    pub meeting_id: Option<&'a str>,
    /// The meeting's run.
    pub meeting_uuid: Option<&'a str>,
    /// `push`, `backfill` or `platform`.
    pub source: &'a str,
    /// W3C trace context of the first delivery.
    pub traceparent: Option<&'a str>,
    /// `eventInfo`, verbatim; `None` once the person in it was forgotten.
    pub event_info: Option<&'a str>,
}

impl Event {
    /// The texts that may be missing, in the order of the table's columns.
    #[must_use]
    pub fn optional_texts(&self) -> [&Option<Arc<str>>; 10] {
        let Self { meeting, attendee, .. } = self;
        [
            &meeting.id,
            &meeting.uuid,
            &meeting.cycle_sub_id,
            &attendee.user_uuid,
            &attendee.user_agent,
            &attendee.account,
            &attendee.participant_id,
            &attendee.display_name,
            &attendee.role,
            &attendee.call_number,
        ]
    }

    /// The row that it became.
    #[must_use]
    pub fn row(&self, seq: Seq) -> Row<'_> {
        Row {
            seq,
            event_id: self.event_id,
            subscriber_id: &self.subscriber_id,
            event: &self.event,
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            meeting_id: self.meeting.id.as_deref(),
            meeting_uuid: self.meeting.uuid.as_deref(),
            source: self.source.as_str(),
            traceparent: self.traceparent.as_deref(),
            event_info: Some(&self.event_info),
        }
    }
}

impl Record {
    /// What of it is published.
    #[must_use]
    pub fn row(&self) -> Row<'_> {
        Row {
            seq: self.seq,
            event_id: self.event_id,
            subscriber_id: &self.subscriber_id,
            event: &self.event,
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            meeting_id: self.meeting_id.as_deref(),
            meeting_uuid: self.meeting_uuid.as_deref(),
            source: &self.source,
            traceparent: self.traceparent.as_deref(),
            event_info: self.event_info.as_deref(),
        }
    }
}

/// A row of the log, as it is read back.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: String,
    /// The event type, as sent.
    pub event: String,
    /// When it happened.
    pub occurred_at: Millis,
    /// When it arrived first.
    pub received_at: Millis,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The meeting's run.
    pub meeting_uuid: Option<String>,
    /// `push`, `backfill` or `platform`.
    pub source: String,
    /// W3C trace context of the first delivery.
    pub traceparent: Option<String>,
    /// `eventInfo`, verbatim; `None` once the person in it was forgotten.
    pub event_info: Option<String>,
}
