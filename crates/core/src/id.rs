//! How events are identified: by content ([`EventId`]) and by position in the log ([`Seq`]).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::raw_json::Style;
use crate::time::Millis;

/// Identifies an event by its content (a UUID of version 8, RFC 9562): the first delivery and every re-signed delivery
/// of the same event have the same id. It starts with the time of the event, so ids sort in time order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// The id of the event described by `event_info` (well-formed JSON without insignificant white space, in UTF-8): 48
    /// bits of `occurred_at` in milliseconds, then the first 80 bits of SHA-256 over `subscriber_id`, a zero byte and
    /// `event_info` with all string escapes decoded. The version (8) and the variant of RFC 9562 overwrite their bits.
    /// Escapes are decoded so that a sender that escapes differently in a retry produces the same id.
    #[must_use]
    pub fn of(subscriber_id: &str, occurred_at: Millis, event_info: &[u8]) -> Self {
        match std::str::from_utf8(event_info) {
            Ok(text) if event_info.contains(&b'\\') => {
                Self::led(subscriber_id, occurred_at, Style::PLAIN.of(text).as_bytes())
            }
            _ => Self::led(subscriber_id, occurred_at, event_info),
        }
    }

    /// An id made the same way from any `content`, starting with the time `at`.
    #[must_use]
    pub fn led(subscriber_id: &str, at: Millis, content: &[u8]) -> Self {
        let digest =
            Sha256::new().chain_update(subscriber_id.as_bytes()).chain_update([0]).chain_update(content).finalize();
        let mut id = [0_u8; 16];
        id[..6].copy_from_slice(&at.get().to_be_bytes()[2..]);
        id[6..].copy_from_slice(&digest[..10]);
        Self(uuid::Builder::from_custom_bytes(id).into_uuid())
    }

    /// The smallest possible id of an event at `at` or later.
    #[must_use]
    pub fn lower_bound(at: Millis) -> Self {
        let mut id = [0_u8; 16];
        id[..6].copy_from_slice(&at.get().to_be_bytes()[2..]);
        Self(Uuid::from_bytes(id))
    }

    /// When the event happened, read from the first 48 bits of the id.
    #[must_use]
    pub fn occurred_at(self) -> Millis {
        let mut ms = [0_u8; 8];
        ms[2..].copy_from_slice(&self.0.as_bytes()[..6]);
        Millis::new(i64::from_be_bytes(ms)).unwrap_or(Millis::MAX)
    }

    /// The id as a UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The text that `Display` writes, shared.
    #[must_use]
    pub fn text(self) -> Arc<str> {
        Arc::from(&*self.0.as_hyphenated().encode_lower(&mut [0; 36]))
    }

    /// Takes `uuid` as an id without a check: for ids read back from the log, a ledger or the stream.
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

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Uuid::deserialize(from).map(Self)
    }
}

impl From<EventId> for Uuid {
    fn from(id: EventId) -> Self {
        id.uuid()
    }
}

/// Lower case, with hyphens.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A position in the log. Increasing, never reused; gaps are normal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
pub struct Seq(pub i64);

impl Seq {
    /// The position before the first row.
    pub const START: Self = Self(0);
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
