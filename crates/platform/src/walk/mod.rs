//! How to walk through a list that is given in pages by offset, has no snapshot, and may change meanwhile. Pure.
//!
//! Pages of lists that may change overlap by one record. As long as each begins with the one that the page before ended with, and the total stays, the
//! list has not moved, and all of it is seen in `max(1, ⌈(n − 1) / 499⌉)` calls. Else:
//!
//! - **Something was put in front of where we are** (the page holds records that are known, in another place): go on; what
//!   is known is left out. In the end, if the total says that there is more than was seen, the list is walked once more.
//! - **Something was taken away in front of where we are** (the page holds nothing that is known, or nothing at all): records
//!   have moved past us. The page is put aside, and earlier ones are asked for until one holds something known; from there it
//!   goes forward again.
//! - **The page before comes again**, or an empty one although the total says otherwise: it is asked for again, three times.
//!   Without a total a repeated page is the end: lists are known that give their last page for every offset beyond it (manual,
//!   7.1.2.1).
//!
//! With a total, a list of which less was given is never taken for whole: however it ends, that is a failure. (The platform
//! does not agree with itself on whether `offset` counts records or pages; where it counted pages, or long lists were cut off,
//! this is what would be seen.)
//!
//! It ends on any list: steps back and walks through all of it are counted. What is put in while the last of them passes
//! may be missed, and what is taken away may still be given.

use std::collections::HashSet;

/// Distinguishes records.
pub(super) type Key = u128;

/// Times that an odd page is asked for.
const MAX_ODD_PAGES: u32 = 3;
/// Walks through a list that does not stay as it is.
const MAX_WALKS: u32 = 3;
/// Times that records moved past us, before the list is called too restless.
const MAX_GAPS: u32 = 10;

/// A page, as far as walking goes.
pub(super) struct Page {
    /// What the platform says that there are in all.
    pub count: Option<u64>,
    /// Of its records, in their order.
    pub keys: Vec<Key>,
}

/// What to make of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Records to take, by their place in the page. May be none.
    Take(Vec<usize>),
    /// Ask again, after a pause.
    Again,
    /// The platform gives the same page for different offsets.
    Repeats,
    /// The list does not keep still.
    Restless,
}

/// A walk through a list.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Records that are asked for at once …
    limit: u64,
    /// … and those of a page that the next one is to begin with.
    overlap: u64,
    /// The offset to ask for.
    at: u64,
    done: bool,
    /// The last record of the page before, which the next page should begin with.
    anchor: Option<Key>,
    /// The page before, and where it was.
    previous: (u64, Vec<Key>),
    seen: HashSet<Key>,
    /// Records that are like another in their page.
    twins: u64,
    count: Option<u64>,
    /// The list was seen to change in this walk.
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

    /// How many records were taken until now, with those that are like another.
    pub(super) fn given(&self) -> u64 {
        self.seen.len() as u64 + self.twins
    }

    /// At the end: whether the platform says that there is more than it gave.
    pub(super) fn is_short(&self) -> bool {
        self.done && self.count.is_some_and(|count| self.given() < count)
    }

    /// The newest total.
    pub(super) const fn total(&self) -> Option<u64> {
        self.count
    }

    /// The page at the offset that [`Walk::ask`] said.
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
        // A page of one record cannot overlap and go forward.
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
        // Whoever goes on all the same has three more tries.
        self.odd = 0;
        Step::Repeats
    }

    /// Records have moved to the front past us: look for the place in front of `from` where we know our way.
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

    /// The end of the list, or of one walk through it.
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
