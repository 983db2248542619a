//! Who watches: places. Who does not read any more loses its connection by the listener's own rule, and its place with it.

use std::sync::Arc;

use tokio::sync::watch;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The log.
    Events,
    /// What the page shows.
    Live,
}

/// How many watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub events: usize,
    pub live: usize,
}

impl Counts {
    fn of(&mut self, what: What) -> &mut usize {
        match what {
            What::Events => &mut self.events,
            What::Live => &mut self.live,
        }
    }
}

/// All who watch.
#[derive(Debug)]
pub(super) struct Watchers {
    most: usize,
    counts: watch::Sender<Counts>,
}

impl Watchers {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, counts: watch::Sender::default() })
    }

    /// A place; `None` if all are taken.
    pub fn admit(self: &Arc<Self>, what: What) -> Option<Watcher> {
        let admitted = self.counts.send_if_modified(|counts| {
            let room = counts.events + counts.live < self.most;
            *counts.of(what) += usize::from(room);
            room
        });
        admitted.then(|| Watcher { what, all: Arc::clone(self) })
    }

    /// How many watch, as it changes.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }
}

/// A place, until dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    what: What,
    all: Arc<Watchers>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.all.counts.send_modify(|counts| *counts.of(self.what) -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_counted_and_given_back() {
        let watchers = Watchers::new(2);
        let one = watchers.admit(What::Events).unwrap();
        let _other = watchers.admit(What::Live).unwrap();
        assert!(watchers.admit(What::Live).is_none());
        assert_eq!(*watchers.counts().borrow(), Counts { events: 1, live: 1 });
        drop(one);
        assert_eq!(*watchers.counts().borrow(), Counts { events: 0, live: 1 });
        assert!(watchers.admit(What::Live).is_some());
    }
}
