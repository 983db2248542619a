//! Pages of lists. A cursor is a place in one list, asked for in one way, and of no use for another.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use uuid::Uuid;

use super::DEADLINE;
use super::ask::{Cursor, Limit};
use super::refused::Refused;
use convoke_core::id::EventId;
use convoke_core::time::Millis;
use convoke_log::{Listing, MeetingKey, Order, Page};

/// How a cursor begins: one that another version made is none.
const VERSION: u8 = 1;

/// So many rows, unless more or fewer are asked for.
const ROWS: u32 = 100;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor to go on with; null at the end of the list. A page of large events ends after 2 MiB of them, before its limit.
    pub next: Option<String>,
}

/// A place in a list, as a cursor holds it.
pub(crate) trait Key: Sized {
    /// What is written into the cursor.
    type Written: Serialize + DeserializeOwned;

    fn write(&self) -> Self::Written;
    fn read(written: Self::Written) -> Option<Self>;
}

impl Key for EventId {
    type Written = Uuid;

    fn write(&self) -> Uuid {
        self.uuid()
    }

    fn read(written: Uuid) -> Option<Self> {
        Some(Self::from_uuid(written))
    }
}

impl Key for Uuid {
    type Written = Self;

    fn write(&self) -> Self {
        *self
    }

    fn read(written: Self) -> Option<Self> {
        Some(written)
    }
}

impl Key for i64 {
    type Written = Self;

    fn write(&self) -> Self {
        *self
    }

    fn read(written: Self) -> Option<Self> {
        Some(written)
    }
}

impl Key for MeetingKey {
    type Written = (i64, String, String);

    fn write(&self) -> Self::Written {
        (self.at.get(), self.meeting_uuid.clone(), self.subscriber_id.clone())
    }

    fn read((at, meeting_uuid, subscriber_id): Self::Written) -> Option<Self> {
        Some(Self { at: Millis::new(at)?, meeting_uuid, subscriber_id })
    }
}

/// Which list, asked for how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of<'a> {
    /// Its name.
    pub list: &'static str,
    /// The same for the same question.
    pub fingerprint: &'a str,
}

impl Of<'_> {
    /// The page that is asked for.
    pub fn page<K: Key>(
        self,
        limit: &Option<Limit>,
        cursor: &Option<Cursor>,
        order: Order,
    ) -> Result<Page<K>, Refused> {
        let after = cursor.as_ref().map(|cursor| self.read(&cursor.0)).transpose()?;
        let limit = limit.as_ref().map_or(ROWS, |limit| u32::try_from(limit.0).unwrap_or(ROWS));
        Ok(Page { order, after, limit, within: DEADLINE })
    }

    fn read<K: Key>(self, cursor: &str) -> Result<K, Refused> {
        let allowed = "allowed is a cursor that came as next from the same list, asked for with the same parameters";
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
        let read = bytes.and_then(|bytes| serde_json::from_slice::<(u8, String, String, K::Written)>(&bytes).ok());
        match read {
            Some((VERSION, list, fingerprint, key)) if list == self.list && fingerprint == self.fingerprint => {
                K::read(key).ok_or_else(|| Refused::bad(allowed))
            }
            _ => Err(Refused::bad(allowed)),
        }
    }

    /// The answer.
    pub fn list<T, K: Key, I>(self, listing: Listing<T, K>, item: impl FnMut(T) -> I) -> List<I> {
        let next = listing.next.map(|key| {
            let written = serde_json::json!((VERSION, self.list, self.fingerprint, key.write())).to_string();
            BASE64_URL_SAFE_NO_PAD.encode(written)
        });
        List { items: listing.rows.into_iter().map(item).collect(), next }
    }
}
