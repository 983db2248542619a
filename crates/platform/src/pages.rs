//! Lists that the platform gives in pages, while they change under it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::call::Call;
use super::error::{Class, VendorError};
use super::model::{AttendeeRecord, Conference, RecordFile};
use super::walk::{Key, Page, Step, Walk};
use super::{Core, parse};

/// The most that the platform gives at once (manual, `limit` of the lists).
pub(super) const LIMIT: u64 = 500;
/// Before an odd page is asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// What to do about a list that is not whole.
pub(super) const INCOMPLETE: &str = "Try again later. If it stays, the platform cuts long lists off, or takes `offset` for \
    the number of a page rather than of a record: tell its support, with both numbers.";

/// What a list is made of.
pub trait Item: Sized {
    /// Reads one.
    fn read(value: &Value) -> Self;
    /// What tells it from the others, whenever it is asked for; `None`: nothing but all of it.
    fn name(&self) -> Option<String>;
}

impl Item for Conference {
    fn read(value: &Value) -> Self {
        parse::conference(value)
    }

    fn name(&self) -> Option<String> {
        self.conf_uuid.clone()
    }
}

impl Item for AttendeeRecord {
    fn read(value: &Value) -> Self {
        parse::attendee(value)
    }

    fn name(&self) -> Option<String> {
        None
    }
}

impl Item for RecordFile {
    fn read(value: &Value) -> Self {
        parse::record_file(value)
    }

    /// Without the addresses: their tokens may differ from answer to answer.
    fn name(&self) -> Option<String> {
        let uuid = self.conf_uuid.as_deref()?;
        Some(format!("{uuid} {:?} {:?} {:?}", self.length_s, self.size_mb, self.decode_end))
    }
}

/// The items of a list that the platform gives in pages, one page after the other, each item once.
///
/// The list may change between two pages: see `walk` for what is promised then.
pub struct Pages<T> {
    core: Arc<Core>,
    doing: &'static str,
    path: &'static str,
    query: Vec<(&'static str, String)>,
    walk: Walk,
    /// It was said how it ended.
    told: bool,
    items: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("doing", &self.doing).field("at", &self.walk.ask()).finish_non_exhaustive()
    }
}

impl<T: Item> Pages<T> {
    pub(super) fn new(
        core: &Arc<Core>,
        doing: &'static str,
        path: &'static str,
        query: Vec<(&'static str, String)>,
    ) -> Self {
        Self { core: Arc::clone(core), doing, path, query, walk: Walk::default(), told: false, items: PhantomData }
    }

    /// The next items, at least one; `None` at the end. May be called again after an error, and goes on where it was.
    ///
    /// # Errors
    /// [`VendorError`]; [`Class::Incomplete`] if the list does not hold what its total says.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, VendorError> {
        while let Some(offset) = self.walk.ask() {
            let (count, items) = self.fetch(offset).await?;
            let items: Vec<(Key, Option<T>)> = items.iter().map(keyed).collect();
            let page = Page { count, keys: items.iter().map(|(key, _)| *key).collect() };
            match self.walk.take(&page) {
                Step::Take(places) => {
                    let mut items: Vec<Option<T>> = items.into_iter().map(|(_, item)| item).collect();
                    let taken: Vec<T> = places.into_iter().filter_map(|place| items[place].take()).collect();
                    if !taken.is_empty() {
                        return Ok(Some(taken));
                    }
                }
                Step::Again => tokio::time::sleep(PAUSE).await,
                Step::Repeats => return Err(self.incomplete("it gives the same page again and again")),
                Step::Restless => return Err(self.incomplete("the list changes faster than it can be read")),
            }
        }
        if self.walk.is_short() && !self.told {
            self.told = true;
            return Err(self.incomplete("past that it gives nothing"));
        }
        Ok(None)
    }

    /// How many items the platform has given.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.walk.given()
    }

    /// How many items the platform said that there are, once a page has come.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.walk.total()
    }

    /// The total and the items of a page. What does not exist is an empty list.
    async fn fetch(&self, offset: u64) -> Result<(Option<u64>, Vec<Value>), VendorError> {
        let paging = [("offset", offset.to_string()), ("limit", LIMIT.to_string())];
        let call = Call::get(self.doing, self.path, self.query.iter().cloned().chain(paging).collect());
        let mut answer = match self.core.call(&call).await {
            Err(error) if error.class == Class::Gone => return Ok((Some(0), Vec::new())),
            answer => answer?,
        };
        let count = parse::integer(&answer, &["count"]).and_then(|count| u64::try_from(count).ok());
        match answer.get_mut("data").map(Value::take) {
            Some(Value::Array(items)) => Ok((count, items)),
            _ if count == Some(0) => Ok((count, Vec::new())),
            _ => Err(self.odd(
                Class::Transient,
                "the answer holds no list".to_owned(),
                "Something else than the platform answered, or the platform has changed: see platform.url.",
            )),
        }
    }

    /// Less came than the platform says that there is, and how that was seen.
    fn incomplete(&self, how: &str) -> VendorError {
        let (given, total) = (self.walk.given(), self.walk.total().unwrap_or_default());
        self.odd(
            Class::Incomplete,
            format!("the platform says that there are {total} and gave {given}: {how}"),
            INCOMPLETE,
        )
    }

    fn odd(&self, class: Class, problem: String, advice: &'static str) -> VendorError {
        VendorError {
            doing: self.doing,
            problem,
            class,
            status: Some(200),
            code: None,
            request_id: None,
            advice,
            wait: None,
        }
    }
}

/// A record, if it is one, and what tells it from others: its name, or all of it.
fn keyed<T: Item>(value: &Value) -> (Key, Option<T>) {
    let item = value.is_object().then(|| T::read(value));
    let name = item.as_ref().and_then(T::name).unwrap_or_else(|| value.to_string());
    let digest: [u8; 32] = Sha256::digest(name).into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    (Key::from_be_bytes(key), item)
}
