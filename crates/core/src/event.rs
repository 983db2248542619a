//! Subscribers, deliveries, events and rows.
//!
//! Everything that passes between modules is defined here, so that `verify`, `log` and `bus` depend on this module and
//! not on each other. [`Verified`] is the only way into the log, and only [`crate::verify`] can make one, after it has
//! found a matching signature.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::id::{EventId, Seq};
use crate::time::Millis;

/// The event type of the platform's handshake. A handshake gets a response and is never stored.
pub const HANDSHAKE: &str = "meeting.verify";

/// The prefix of the meeting UUIDs of test data: those made by `convoke send` and by the simulated platform. The UUID
/// of a real meeting is random; one in 2^64 has this prefix.
pub const TEST_MEETINGS: &str = "7e57da7a7e57da7a";

/// The event types listed in the platform's manual (section 6.2.3, table 6-34), without the handshake. The list has
/// grown before: any other type is stored and published too, and counted as `other`.
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

/// What the types of the events begin with that a running meeting tells ([`Source::Live`]).
pub const LIVE: &str = "live.";

/// One entry of the platform's push configuration: an `appID` (the subscriber ID) and its live keys (the platform calls
/// them passwords). There are several keys during a rotation.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The platform's `appID`.
    pub app_id: Arc<str>,
    /// The live keys, any of which may sign. Never empty.
    pub keys: Vec<SecretString>,
    /// A readable name, for logs.
    pub name: Option<String>,
}

crate::words! {
    /// How an event came into the log: the column `source` and the CloudEvents attribute `origin`.
    pub enum Source as "Source" {
        /// Pushed by the platform.
        Push = "push",
        /// Made from the platform's history, for an event that was never pushed.
        Backfill = "backfill",
        /// Fetched from the platform's API.
        Platform = "platform",
        /// Told by the platform's push for one running meeting.
        Live = "live",
    }
}

/// The metadata of a delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When the body had arrived completely.
    pub received_at: Millis,
    /// `X-Request-ID`, from the sender or generated here.
    pub request_id: Option<Arc<str>>,
    /// W3C trace context, if a proxy added it.
    pub traceparent: Option<Arc<str>>,
}

/// An event as the log stores it. Texts are shared, not copied, on their way into the database.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Computed from the content alone.
    pub event_id: EventId,
    /// The envelope's `appID`.
    pub subscriber_id: Arc<str>,
    /// `eventInfo.event`, as sent.
    pub event: Arc<str>,
    /// `eventInfo.timestamp`.
    pub occurred_at: Millis,
    /// When the first delivery arrived.
    pub received_at: Millis,
    /// The columns taken from `payload.meetingInfo`.
    pub meeting: Meeting,
    /// The columns taken from `payload.attendeeInfo`.
    pub attendee: Attendee,
    /// How the event came into the log.
    pub source: Source,
    /// The request id of the first delivery.
    pub request_id: Option<Arc<str>>,
    /// The trace context of the first delivery.
    pub traceparent: Option<Arc<str>>,
    /// `eventInfo`, verbatim, without insignificant white space.
    pub event_info: Arc<str>,
}

/// The typed columns taken from `payload.meetingInfo` (table 6-36 of the manual).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meeting {
    /// `meetingID`: later meetings can reuse it.
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

/// A signed body that cannot be read as an event. The whole body is kept for inspection.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The envelope's `appID`.
    pub subscriber_id: Arc<str>,
    /// When it first arrived.
    pub received_at: Millis,
    /// Why it cannot be read as an event.
    pub reason: String,
    /// The whole request body.
    pub body: Bytes,
}

impl Unreadable {
    /// SHA-256 of the body. Bodies with the same digest share one quarantine entry.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.body).into()
    }
}

/// A signed handshake. The response repeats its nonce.
#[derive(Clone, Debug, PartialEq)]
pub struct Handshake {
    /// The envelope's `appID`.
    pub subscriber_id: Arc<str>,
    /// The `nonce` of the envelope, sent back in the response.
    pub nonce: String,
    /// When it arrived.
    pub received_at: Millis,
}

/// Prefix of the nonce of a probe. The platform's nonces are digits. The prefix starts with a letter because timestamp
/// and nonce are signed without a separator: no digit of the timestamp can be read as part of the nonce.
pub const PROBE: &str = "convoke-probe-";

impl Handshake {
    /// Whether it is a probe: a handshake that Convoke sends to itself, and that says nothing about the platform.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.nonce.starts_with(PROBE)
    }
}

/// The content of a delivery with a matching signature.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events, and none is kept in bulk")]
pub enum Content {
    /// The platform checks that this receiver holds the key.
    Handshake(Handshake),
    /// An event.
    Event(Event),
    /// Signed, but not readable as an event.
    Unreadable(Unreadable),
}

/// The content of a delivery whose signature matched a key of its subscriber. The log accepts nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified(Content);

impl Verified {
    /// Marks `content` as signed. Only [`crate::verify`] calls it.
    pub(crate) const fn vouch(content: Content) -> Self {
        Self(content)
    }

    /// The signed content.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.0
    }

    /// The subscriber whose key signed the content.
    #[must_use]
    pub fn subscriber_id(&self) -> &Arc<str> {
        match &self.0 {
            Content::Handshake(handshake) => &handshake.subscriber_id,
            Content::Event(event) => &event.subscriber_id,
            Content::Unreadable(unreadable) => &unreadable.subscriber_id,
        }
    }
}

/// The published part of a log row, wherever the row came from.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its position in the log.
    pub seq: Seq,
    /// The event's id.
    pub event_id: EventId,
    /// The `appID` of the subscriber.
    pub subscriber_id: &'a str,
    /// The event type, as sent.
    pub event: &'a str,
    /// When it happened.
    pub occurred_at: Millis,
    /// When its first delivery arrived.
    pub received_at: Millis,
    /// The meeting's number (`meetingID`).
    pub meeting_id: Option<&'a str>,
    /// The run of the meeting (`meetingUUID`).
    pub meeting_uuid: Option<&'a str>,
    /// `push`, `backfill`, `platform` or `live`.
    pub source: &'a str,
    /// W3C trace context of the first delivery.
    pub traceparent: Option<&'a str>,
    /// `eventInfo`, verbatim; `None` after the person in it was erased.
    pub event_info: Option<&'a str>,
    /// Whether this process has read `event_info` as JSON itself.
    pub checked: bool,
}

impl Event {
    /// The nullable text columns, in the order of the table.
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

    /// The row of this event at `seq`.
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
            checked: true,
        }
    }
}

/// A log row, as read back from the database.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its position in the log.
    pub seq: Seq,
    /// The event's id.
    pub event_id: EventId,
    /// The `appID` of the subscriber.
    pub subscriber_id: String,
    /// The event type, as sent.
    pub event: String,
    /// When it happened.
    pub occurred_at: Millis,
    /// When its first delivery arrived.
    pub received_at: Millis,
    /// The meeting's number (`meetingID`).
    pub meeting_id: Option<String>,
    /// The run of the meeting (`meetingUUID`).
    pub meeting_uuid: Option<String>,
    /// `push`, `backfill`, `platform` or `live`.
    pub source: String,
    /// W3C trace context of the first delivery.
    pub traceparent: Option<String>,
    /// `eventInfo`, verbatim; `None` after the person in it was erased.
    pub event_info: Option<String>,
}

impl Record {
    /// The published part of the row.
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
            checked: false,
        }
    }
}
