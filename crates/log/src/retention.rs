//! What may be deleted for its age, and what holds that back.
//!
//! A row goes when it both happened and was received before the retention's bound, and every cursor has read it. Time is the
//! database's, and is not taken at its word: what a clock that was set wrong deletes is gone for good, for every replica. It is
//! believed while it goes on from where the upkeep saw it last, or while an event, whose time is the platform's, is about as
//! young; and never while the newest event is itself beyond the retention. Whatever holds it back, deleting goes on by itself
//! once that is over.

use std::time::Duration;

use async_trait::async_trait;

use super::{LogError, Notes};
use convoke_core::time::Millis;

/// So far the clock may go on without anybody looking, and so old an event may be that vouches for it.
const MAX_APART_TIME: Duration = Duration::from_secs(2 * 3600);

/// Events may be stamped so far ahead: a younger one says nothing about the time.
pub(super) const MAX_AHEAD_TIME: Duration = Duration::from_secs(24 * 3600);

/// The note ([`super::Notes::note`]) with the time at which the clock was believed last.
pub(super) const SEEN_NOTE: &str = "retention";

/// What the upkeep of either database asks in the same words.
#[async_trait]
pub(super) trait RetentionQueries: Notes {
    /// What is known to judge the clock and the cursors by.
    async fn known_of_retention(&self, now: Millis) -> Result<Known, LogError>;

    /// Deletes entries of the quarantine, so many at the most; how many.
    async fn expire_quarantine(&self, before: Millis, limit: i64) -> Result<u64, LogError>;
}

/// Why nothing is deleted that is beyond the retention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionHeld {
    /// The newest event is too old.
    #[error(
        "nothing is deleted while the newest event, of {newest}, is itself beyond the retention at {now}, the database's time: \
         either no event came for that long, or that clock is wrong. It goes on by itself with the next event of the day"
    )]
    Quiet {
        /// When it happened, or was received.
        newest: Millis,
        /// The database's clock.
        now: Millis,
    },
    /// The clock is not where it should be.
    #[error(
        "nothing is deleted, as the database's clock went to {now} while nobody looked, and no event is as young: is it right? It \
         goes on by itself with the next event of the day"
    )]
    Clock {
        /// The database's clock.
        now: Millis,
    },
    /// A cursor has not read what is beyond the retention.
    #[error(
        "the cursor {cursor} has read nothing after {position}, and what it has not read is not deleted: switch on what it belongs \
         to; or, if that is off for good, DELETE FROM cursors WHERE name = '{cursor}'"
    )]
    Cursor {
        /// Its name.
        cursor: String,
        /// Where it stands.
        position: i64,
    },
}

/// What is known of the log, to judge by.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// When the newest event of the platform happened, of those that are not ahead of the clock.
    pub happened: Option<Millis>,
    /// When the newest row was received.
    pub received: Option<Millis>,
    /// When the clock was believed last.
    pub seen: Option<Millis>,
    /// The slowest cursor, and where it stands.
    pub slowest: Option<(String, i64)>,
    /// When the oldest row was received that it has not read.
    pub unread: Option<Millis>,
}

impl Known {
    /// What makes the clock incredible.
    pub fn clock(&self, now: Millis, retention: Duration) -> Option<RetentionHeld> {
        let newest = self.happened.min(self.received).or(self.received)?;
        if newest < now.minus(retention) {
            return Some(RetentionHeld::Quiet { newest, now });
        }
        let goes_on = self.seen.is_some_and(|seen| now <= seen.plus(MAX_APART_TIME));
        let confirmed = self.happened.is_some_and(|happened| now <= happened.plus(MAX_APART_TIME));
        (!goes_on && !confirmed).then_some(RetentionHeld::Clock { now })
    }

    /// Those of `retentions` by which something may be deleted now.
    pub fn allows<const N: usize>(&self, now: Millis, retentions: [Option<Duration>; N]) -> [Option<Duration>; N] {
        retentions.map(|retention| retention.filter(|retention| self.clock(now, *retention).is_none()))
    }

    /// What holds retention back.
    pub fn held(&self, now: Millis, retention: Duration) -> Option<RetentionHeld> {
        self.clock(now, retention).or_else(|| {
            let (cursor, position) = self.slowest.clone()?;
            let unread = self.unread.is_some_and(|received| received < now.minus(retention));
            unread.then_some(RetentionHeld::Cursor { cursor, position })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const RETENTION: Duration = Duration::from_secs(30 * 86_400);

    fn then() -> Millis {
        Millis::new(1_781_524_800_000).expect("a time")
    }

    fn known(newest: Option<Millis>, seen: Option<Millis>) -> Known {
        Known { happened: newest, received: newest, seen, ..Known::default() }
    }

    #[test]
    fn a_clock_is_believed_that_goes_on_or_that_an_event_vouches_for() {
        let then = then();
        let held = |known: Known, now: Millis| known.held(now, RETENTION);
        assert_eq!(held(known(None, None), then), None, "an empty log has nothing to lose");
        assert_eq!(held(known(Some(then), None), then.plus(HOUR)), None);
        // A quiet week, looked at every hour.
        assert_eq!(held(known(Some(then), Some(then.plus(7 * DAY))), then.plus(7 * DAY + HOUR)), None);
        // Set forward by three hours, twenty days, ninety days; and not looked at before.
        for jump in [3 * HOUR, 20 * DAY] {
            let now = then.plus(jump);
            assert_eq!(held(known(Some(then), Some(then)), now), Some(RetentionHeld::Clock { now }));
            assert_eq!(held(known(Some(then), None), now), Some(RetentionHeld::Clock { now }));
        }
        let now = then.plus(90 * DAY);
        assert_eq!(held(known(Some(then), Some(then)), now), Some(RetentionHeld::Quiet { newest: then, now }));
        // What is received by the wrong clock vouches for nothing.
        let jumped = Known { received: Some(now), ..known(Some(then), Some(then)) };
        assert_eq!(held(jumped, now), Some(RetentionHeld::Quiet { newest: then, now }));
        // Set back, and right again.
        assert_eq!(held(known(Some(then), Some(now)), then), None);
    }

    #[test]
    fn a_log_of_which_the_newest_event_is_beyond_the_retention_keeps_everything() {
        let now = then().plus(31 * DAY);
        let quiet = known(Some(then()), Some(now));
        assert_eq!(quiet.held(now, RETENTION), Some(RetentionHeld::Quiet { newest: then(), now }));
        assert_eq!(known(Some(now), Some(then())).held(now, RETENTION), None, "until one comes");
    }

    #[test]
    fn a_cursor_that_has_not_read_what_is_beyond_the_retention_holds_it() {
        let now = then().plus(31 * DAY);
        let slowest = Some(("bus".to_owned(), 7));
        let known = |unread| Known { slowest: slowest.clone(), unread, ..known(Some(now), Some(now)) };
        assert_eq!(known(None).held(now, RETENTION), None);
        assert_eq!(known(Some(now.minus(DAY))).held(now, RETENTION), None);
        let held = known(Some(then())).held(now, RETENTION).expect("it is held");
        assert_eq!(held, RetentionHeld::Cursor { cursor: "bus".to_owned(), position: 7 });
        assert!(held.to_string().contains("cursor bus"), "{held}");
    }
}
