//! Which rows are old enough to delete, and what prevents it.
//!
//! A row is deleted when it both happened and was received before the retention limit, and every cursor has read it.
//! The time comes from the database, but is not trusted blindly: rows deleted because of a wrong clock are lost for
//! every replica. The clock is trusted while it continues from where maintenance last saw it, or while the age of an
//! event, whose time is from the platform, confirms it; and never while the newest event is itself beyond the
//! retention. Whatever prevents deleting, it resumes without intervention once the cause is gone.

use std::time::Duration;

use async_trait::async_trait;

use super::{LogError, Notes};
use convoke_core::time::Millis;

/// Maximum advance of the clock between two checks, and maximum age of an event that confirms the clock.
const MAX_APART_TIME: Duration = Duration::from_secs(2 * 3600);

/// Events can be stamped up to this far ahead of the clock. One that is further ahead says nothing about the time.
pub(super) const MAX_AHEAD_TIME: Duration = Duration::from_secs(24 * 3600);

/// The note ([`super::Notes::note`]) with the time at which the clock was last trusted.
pub(super) const SEEN_NOTE: &str = "retention";

/// Queries of the maintenance that are the same for both databases.
#[async_trait]
pub(super) trait RetentionQueries: Notes {
    /// The facts for judging the clock and the cursors.
    async fn known_of_retention(&self, now: Millis) -> Result<Known, LogError>;

    /// Deletes at most `limit` quarantine entries. Returns how many.
    async fn expire_quarantine(&self, before: Millis, limit: i64) -> Result<u64, LogError>;
}

/// Why nothing beyond the retention is deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionHeld {
    /// The newest event is too old.
    #[error(
        "nothing is deleted: even the newest event, of {newest}, is beyond the retention at {now}, the database's \
         time. Either no event arrived for that long, or the database's clock is wrong. Deletion resumes with the \
         next event of the day"
    )]
    Quiet {
        /// When it happened or was received.
        newest: Millis,
        /// The time of the database's clock.
        now: Millis,
    },
    /// The clock jumped.
    #[error(
        "nothing is deleted: the database's clock jumped to {now}, and no event is that recent. Check that clock. \
         Deletion resumes with the next event of the day"
    )]
    Clock {
        /// The time of the database's clock.
        now: Millis,
    },
    /// A cursor has not read rows beyond the retention.
    #[error(
        "the cursor {cursor} has not read past {position}, and unread events are not deleted: enable the feature \
         that it belongs to; if that is off for good, run DELETE FROM cursors WHERE name = '{cursor}'"
    )]
    Cursor {
        /// Its name.
        cursor: String,
        /// Its position.
        position: i64,
    },
}

/// Facts about the log, for judging the clock and the cursors.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// When the newest event of the platform happened, without events that are ahead of the clock.
    pub happened: Option<Millis>,
    /// When the newest row was received.
    pub received: Option<Millis>,
    /// When the clock was last trusted.
    pub seen: Option<Millis>,
    /// The slowest cursor and its position.
    pub slowest: Option<(String, i64)>,
    /// When the oldest row was received that the slowest cursor has not read.
    pub unread: Option<Millis>,
}

impl Known {
    /// Why the clock is not trusted.
    pub fn clock(&self, now: Millis, retention: Duration) -> Option<RetentionHeld> {
        let newest = self.happened.min(self.received).or(self.received)?;
        if newest < now.minus(retention) {
            return Some(RetentionHeld::Quiet { newest, now });
        }
        let goes_on = self.seen.is_some_and(|seen| now <= seen.plus(MAX_APART_TIME));
        let confirmed = self.happened.is_some_and(|happened| now <= happened.plus(MAX_APART_TIME));
        (!goes_on && !confirmed).then_some(RetentionHeld::Clock { now })
    }

    /// Keeps the `retentions` for which something may be deleted now.
    pub fn allows<const N: usize>(&self, now: Millis, retentions: [Option<Duration>; N]) -> [Option<Duration>; N] {
        retentions.map(|retention| retention.filter(|retention| self.clock(now, *retention).is_none()))
    }

    /// What prevents deleting.
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
        // A week without events, checked every hour.
        assert_eq!(held(known(Some(then), Some(then.plus(7 * DAY))), then.plus(7 * DAY + HOUR)), None);
        // Set forward by three hours or twenty days, with and without an earlier check.
        for jump in [3 * HOUR, 20 * DAY] {
            let now = then.plus(jump);
            assert_eq!(held(known(Some(then), Some(then)), now), Some(RetentionHeld::Clock { now }));
            assert_eq!(held(known(Some(then), None), now), Some(RetentionHeld::Clock { now }));
        }
        let now = then.plus(90 * DAY);
        assert_eq!(held(known(Some(then), Some(then)), now), Some(RetentionHeld::Quiet { newest: then, now }));
        // A row received with the wrong clock does not confirm it.
        let jumped = Known { received: Some(now), ..known(Some(then), Some(then)) };
        assert_eq!(held(jumped, now), Some(RetentionHeld::Quiet { newest: then, now }));
        // Set back to the right time.
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
