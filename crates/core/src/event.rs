//! Subscribers, deliveries, events and rows.
//!
//! Everything that passes from one module to another is defined here, so that `verify`, `log` and
//! `bus` know this module and nothing of each other. [`Verified`] is the one door into the log: it can
//! be made only by [`crate::verify`], which has seen a matching signature.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::id::{EventId, Seq};
use crate::time::Millis;

/// The event type of the platform's handshake, which is answered and never stored.
pub const HANDSHAKE: &str = "meeting.verify";

/// What the meeting UUID of test data begins with: of what `convoke send` and the simulated platform make. That of a real
/// meeting is random; one in 2^64 begins so.
pub const TEST_MEETINGS: &str = "7e57da7a7e57da7a";

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

crate::words! {
    /// How an event came into the log: as in the column `source` and the CloudEvents attribute `origin`.
    pub enum Source as "Source" {
        /// Pushed by the platform.
        Push = "push",
        /// Made from the platform's history, for an event that was never pushed.
        Backfill = "backfill",
        /// Fetched from the platform's API.
        Platform = "platform",
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
