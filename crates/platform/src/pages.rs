//! Lists that the platform returns in pages, and that can change in between.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::call::{Call, UNEXPECTED_ADVICE};
use super::error::{Class, PlatformError};
use super::model::{AttendeeRecord, Conference, DayCounts, Invitee, Participant, Present, RecordFile, Segment};
use super::walk::{Key, Page, Step, Walk};
use super::{Core, parse};

/// Maximum page size of the platform (manual, `limit` of the lists).
const MAX_PAGE_ITEMS: u64 = 500;
/// Delay before an unexpected page is requested again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The advice for an incomplete list.
const INCOMPLETE_ADVICE: &str = "Try again later. If it persists, the platform truncates long lists, or counts \
                                 `offset` in pages instead of records: report both numbers to its support.";

/// An item of a list.
pub trait Item: Sized {
    /// Reads an item.
    fn read(value: &Value) -> Self;
    /// What identifies the item in every response; `None`: only its whole content.
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

impl Item for Invitee {
    fn read(value: &Value) -> Self {
        parse::invitee(value)
    }

    fn name(&self) -> Option<String> {
        None
    }
}

impl Item for Present {
    fn read(value: &Value) -> Self {
        parse::present(value)
    }

    fn name(&self) -> Option<String> {
        self.participant_id.clone()
    }
}

impl Item for Participant {
    fn read(value: &Value) -> Self {
        parse::participant(value)
    }

    fn name(&self) -> Option<String> {
        None
    }
}

impl Item for DayCounts {
    fn read(value: &Value) -> Self {
        parse::day_counts(value)
    }

    fn name(&self) -> Option<String> {
        None
    }
}

impl Item for RecordFile {
    fn read(value: &Value) -> Self {
        parse::record_file(value)
    }

    /// Without the URLs, whose tokens may differ between responses.
    fn name(&self) -> Option<String> {
        let uuid = self.conf_uuid.as_deref()?;
        Some(format!("{uuid} {:?} {:?} {:?}", self.length_s, self.size_mb, self.decode_end))
    }
}

impl Item for Segment {
    fn read(value: &Value) -> Self {
        parse::segment(value)
    }

    fn name(&self) -> Option<String> {
        Some(format!("{:?} {:?}", self.manual_order, self.segment_order))
    }
}

/// Reads the total and the records of a page from a response.
pub(super) type ReadPage = fn(&Value) -> (Option<i64>, Option<&[Value]>);

/// A page as most lists have it: `count` and `data`.
pub(super) fn page_of(answer: &Value) -> (Option<i64>, Option<&[Value]>) {
    (parse::integer(answer, &["count"]), answer.get("data").and_then(Value::as_array).map(Vec::as_slice))
}

/// How the pages of a list are requested and read.
pub(super) struct List {
    /// A description for messages, such as `asking for the history`.
    pub doing: &'static str,
    /// Maximum page size of the platform.
    pub limit: u64,
    /// Number of records that are requested again with the next page, to detect that the list has shifted.
    pub overlap: u64,
    /// The call for the page at an offset, with a number of records.
    pub call: Box<dyn Fn(u64, u64) -> Call + Send + Sync>,
    pub read: ReadPage,
}

/// The items of a paged list, one page after the other, each item once.
///
/// The list can change between two pages: see `walk` for what is guaranteed then.
pub struct Pages<T> {
    core: Arc<Core>,
    list: List,
    walk: Walk,
    /// Whether the error at the end was returned.
    reported: bool,
    items: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("doing", &self.list.doing).field("at", &self.walk.ask()).finish_non_exhaustive()
    }
}

impl<T: Item> Pages<T> {
    pub(super) fn new(core: &Arc<Core>, list: List) -> Self {
        let walk = Walk::new(list.limit, list.overlap);
        Self { core: Arc::clone(core), list, walk, reported: false, items: PhantomData }
    }

    /// The usual kind of list: requested by query, and returned as `count` and `data`.
    pub(super) fn by_query(
        core: &Arc<Core>,
        doing: &'static str,
        path: &'static str,
        query: Vec<(&'static str, String)>,
    ) -> Self {
        Self::within(core, doing, path, query, (MAX_PAGE_ITEMS, page_of))
    }

    /// A list that is requested by query, at most `limit` records at a time, and that `read` finds in the response.
    pub(super) fn within(
        core: &Arc<Core>,
        doing: &'static str,
        path: &'static str,
        query: Vec<(&'static str, String)>,
        (limit, read): (u64, ReadPage),
    ) -> Self {
        let call = move |offset: u64, limit: u64| {
            let paging = [("offset", offset.to_string()), ("limit", limit.to_string())];
            Call::get(doing, path, query.iter().cloned().chain(paging).collect())
        };
        Self::new(core, List { doing, limit, overlap: 1, call: Box::new(call), read })
    }

    /// The next items, at least one; `None` at the end. Can be called again after an error, and then continues.
    ///
    /// # Errors
    /// [`PlatformError`]; [`Class::Incomplete`] if the list has fewer items than its total states.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, PlatformError> {
        while let Some(offset) = self.walk.ask() {
            let (page, mut items) = self.fetch(offset).await?;
            match self.walk.take(&page) {
                Step::Take(places) => {
                    let taken: Vec<T> = places.into_iter().filter_map(|place| items[place].take()).collect();
                    if !taken.is_empty() {
                        return Ok(Some(taken));
                    }
                }
                Step::Again => tokio::time::sleep(RETRY_DELAY).await,
                Step::Repeats => return Err(self.incomplete("it returned the same page repeatedly")),
                Step::Restless => return Err(self.incomplete("the list changes faster than it can be read")),
            }
        }
        if self.walk.is_short() && !self.reported {
            self.reported = true;
            return Err(self.incomplete("it returned nothing after that"));
        }
        Ok(None)
    }

    /// The items to the end of the list.
    ///
    /// # Errors
    /// As of [`Pages::next`].
    pub async fn rest(&mut self) -> Result<Vec<T>, PlatformError> {
        let mut items = Vec::new();
        while let Some(more) = self.next().await? {
            items.extend(more);
        }
        Ok(items)
    }

    /// Number of items returned by the platform so far.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.walk.given()
    }

    /// Total number of items according to the platform, after the first page.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.walk.total()
    }

    /// Fetches a page. A list that does not exist is empty.
    async fn fetch(&self, offset: u64) -> Result<(Page, Vec<Option<T>>), PlatformError> {
        let call = (self.list.call)(offset, self.list.limit);
        let answer = match self.core.call(&call).await {
            Err(error) if error.class == Class::Gone => {
                return Ok((Page { count: Some(0), keys: Vec::new() }, Vec::new()));
            }
            answer => answer?,
        };
        let (count, items) = (self.list.read)(&answer);
        let count = count.and_then(|count| u64::try_from(count).ok());
        let Some(items) = items.or_else(|| (count == Some(0)).then_some(&[])) else {
            return Err(self.odd(Class::Transient, "the answer contains no list", UNEXPECTED_ADVICE));
        };
        let (keys, items) = items.iter().map(keyed).unzip();
        Ok((Page { count, keys }, items))
    }

    /// The error for a list with fewer items than its total; `how` says how that was noticed.
    fn incomplete(&self, how: &str) -> PlatformError {
        let (given, total) = (self.walk.given(), self.walk.total().unwrap_or_default());
        let problem = format!("the platform announced {total} and returned {given}: {how}");
        self.odd(Class::Incomplete, problem, INCOMPLETE_ADVICE)
    }

    fn odd(&self, class: Class, problem: impl Into<String>, advice: &'static str) -> PlatformError {
        PlatformError { status: Some(200), ..PlatformError::new(class, self.list.doing, problem, advice) }
    }
}

/// A record, if it is an object, and what identifies it: its name, or its whole content.
fn keyed<T: Item>(value: &Value) -> (Key, Option<T>) {
    let item = value.is_object().then(|| T::read(value));
    let name = item.as_ref().and_then(T::name).unwrap_or_else(|| value.to_string());
    let digest: [u8; 32] = Sha256::digest(name).into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    (Key::from_be_bytes(key), item)
}
