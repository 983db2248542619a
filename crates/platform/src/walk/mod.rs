//! How to read a list that is paged by offset, has no snapshot, and can change between pages. Pure.
//!
//! Pages of lists that can change overlap by one record. As long as each page begins with the last record of the page before,
//! and the total is unchanged, the list has not shifted, and `max(1, ⌈(n − 1) / 499⌉)` calls read all of it. Otherwise:
//!
//! - **Records were inserted before the current position** (the page contains known records at another place): continue,
//!   and skip the known ones. If at the end the total is higher than the number of records seen, the list is read again.
//! - **Records were removed before the current position** (the page contains no known record, or none at all): unread
//!   records have moved to earlier offsets. The page is discarded, and earlier ones are requested until one contains a
//!   known record; from there, reading continues forward.
//! - **The previous page is returned again**, or an empty one below the total: it is requested again, three times.
//!   Without a total, a repeated page is the end: some lists return their last page for every offset beyond it (manual,
//!   7.1.2.1).
//!
//! A list that has a total is never considered complete if fewer records were returned: however it ends, that is an
//! error. (The platform's documents contradict each other on whether `offset` counts records or pages; if it counted
//! pages, or if long lists were cut off, this is how it would show.)
//!
//! Reading ends for any list: steps back and repeated readings are limited. Records inserted during the last reading
//! may be missed, and removed ones may still be returned.

use std::collections::HashSet;

/// Identifies a record.
pub(super) type Key = u128;

/// Number of requests for an unexpected page.
const MAX_ODD_PAGES: u32 = 3;
/// Maximum number of readings of a list that keeps changing.
const MAX_WALKS: u32 = 3;
/// Number of times that records moved to earlier offsets, before the list is considered to change too fast.
const MAX_GAPS: u32 = 10;

/// A page, as far as it matters for reading.
pub(super) struct Page {
    /// The total according to the platform.
    pub count: Option<u64>,
    /// The keys of its records, in their order.
    pub keys: Vec<Key>,
}

/// How to proceed with a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Take the records at these places in the page. Can be empty.
    Take(Vec<usize>),
    /// Request it again, after a pause.
    Again,
    /// The platform returns the same page for different offsets.
    Repeats,
    /// The list changes too fast.
    Restless,
}

/// The state of reading a list.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Page size.
    limit: u64,
    /// Number of records of a page with which the next page should begin.
    overlap: u64,
    /// The next offset.
    at: u64,
    done: bool,
    /// The last record of the previous page, with which the next page should begin.
    anchor: Option<Key>,
    /// The previous page and its offset.
    previous: (u64, Vec<Key>),
    seen: HashSet<Key>,
    /// Records that are equal to another one in their page.
    twins: u64,
    count: Option<u64>,
    /// Whether the list was seen to change during this reading.
    moved: bool,
    walks: u32,
    gaps: u32,
    odd: u32,
}

impl Walk {
    pub(super) fn new(limit: u64, overlap: u64) -> Self {
        Self { limit, overlap, ..Self::default() }
    }

    /// The offset of the next page; `None` at the end.
    pub(super) fn ask(&self) -> Option<u64> {
        (!self.done).then_some(self.at)
    }

    /// Number of records taken so far, including those equal to another one.
    pub(super) fn given(&self) -> u64 {
        self.seen.len() as u64 + self.twins
    }

    /// Whether, at the end, the platform states a higher total than it returned.
    pub(super) fn is_short(&self) -> bool {
        self.done && self.count.is_some_and(|count| self.given() < count)
    }

    /// The newest total.
    pub(super) const fn total(&self) -> Option<u64> {
        self.count
    }

    /// Handles the page at the offset returned by [`Walk::ask`].
    pub(super) fn take(&mut self, page: &Page) -> Step {
        let changed = self.count.is_some() && page.count.is_some() && self.count != page.count;
        self.moved |= changed;
        self.count = page.count.or(self.count);
        let Some(last) = page.keys.last() else { return self.nothing() };
        if self.previous.0 != self.at && self.previous.1 == page.keys {
            return self.repeated();
        }
        let known = page.keys.iter().any(|key| self.seen.contains(key));
        let follows = self.anchor.is_none_or(|anchor| page.keys[0] == anchor);
        self.moved |= !follows;
        if !follows && !known && self.at > 0 {
            return self.step_back(self.at);
        }
        self.odd = 0;
        let before = self.seen.len();
        let mut taken = Vec::new();
        for (place, key) in page.keys.iter().enumerate() {
            if self.seen.insert(*key) {
                taken.push(place);
            } else if page.keys[..place].contains(key) && taken.iter().any(|taken| page.keys[*taken] == *key) {
                self.twins += 1;
            }
        }
        let length = page.keys.len() as u64;
        let offset = self.at + length;
        // With an overlap, a page of one record would not advance.
        let overlap = self.overlap.min(length - 1);
        self.anchor = (overlap > 0).then_some(*last);
        self.previous = (self.at, page.keys.clone());
        self.at = offset - overlap;
        let end = match self.count {
            Some(count) => offset >= count,
            None => self.seen.len() == before,
        };
        if end {
            self.end();
        }
        Step::Take(taken)
    }

    fn nothing(&mut self) -> Step {
        match self.count {
            Some(count) if self.at < count => {
                self.odd += 1;
                if self.odd < MAX_ODD_PAGES {
                    return Step::Again;
                }
                self.done = true;
            }
            Some(count) if self.at > 0 => return self.step_back(count),
            _ => self.done = true,
        }
        Step::Take(Vec::new())
    }

    fn repeated(&mut self) -> Step {
        if self.count.is_none() {
            self.done = true;
            return Step::Take(Vec::new());
        }
        self.odd += 1;
        if self.odd < MAX_ODD_PAGES {
            return Step::Again;
        }
        // If the caller continues nevertheless, there are three more attempts.
        self.odd = 0;
        Step::Repeats
    }

    /// Records have moved to earlier offsets: looks for a known record before `from`.
    fn step_back(&mut self, from: u64) -> Step {
        self.gaps += 1;
        if self.gaps > MAX_GAPS {
            self.gaps = 0;
            return Step::Restless;
        }
        self.moved = true;
        self.at = from.min(self.at).saturating_sub(self.limit - self.overlap);
        Step::Take(Vec::new())
    }

    /// The end of the list, or of one reading of it.
    fn end(&mut self) {
        let missing = self.count.is_some_and(|count| self.given() < count);
        self.walks += 1;
        if self.moved && missing && self.walks < MAX_WALKS {
            self.at = 0;
            self.anchor = None;
            self.previous = (0, Vec::new());
            self.moved = false;
        } else {
            self.done = true;
        }
    }
}

#[cfg(test)]
mod tests;
