//! The newest log rows, as this process appended them: a reader at the end of the log need not read them from the database.
//!
//! The log remains the record: rows that are not here are read from it. Rows are taken from here only if they follow
//! the reader's position without a gap, because then no row of any process can lie in between.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::{Append, ListedEvent};
use crate::log::events;
use convoke_core::event::{Content, Event};
use convoke_core::id::Seq;
use convoke_core::time::instant;

/// Enough for readers that pause for milliseconds, or at most a second.
const MAX_ROWS: usize = 4096;

/// Maximum number of `eventInfo` bytes.
const MAX_BYTES: usize = 8 << 20;

/// A row and its source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecentRow {
    /// Its position in the log.
    pub seq: Seq,
    /// What was appended.
    pub append: Append,
    /// The time of the commit, within some milliseconds.
    pub committed: Instant,
}

impl RecentRow {
    /// The event. Always present, because only events are pushed here.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match self.append.verified.content() {
            Content::Event(event) => Some(event),
            _ => None,
        }
    }

    /// The row as the log lists it, unless it has changed since.
    #[must_use]
    pub fn listed(&self) -> Option<ListedEvent> {
        let event = self.event()?;
        let (meeting, attendee) = (&event.meeting, &event.attendee);
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        Some(ListedEvent {
            seq: self.seq,
            event_id: event.event_id,
            subscriber_id: event.subscriber_id.to_string(),
            event: event.event.to_string(),
            occurred_at: event.occurred_at,
            received_at: event.received_at,
            meeting_id: text(&meeting.id),
            meeting_uuid: text(&meeting.uuid),
            meeting_cycle_sub_id: text(&meeting.cycle_sub_id),
            user_uuid: text(&attendee.user_uuid),
            user_agent: text(&attendee.user_agent),
            account: text(&attendee.account),
            participant_id: text(&attendee.participant_id),
            display_name: text(&attendee.display_name),
            role: text(&attendee.role),
            call_number: text(&attendee.call_number),
            join_time: attendee.join_time,
            left_time: attendee.left_time,
            source: event.source.as_str().to_owned(),
            deliveries: self.append.deliveries.into(),
            last_delivered_at: self.append.last_delivered_at,
            request_id: text(&event.request_id),
            event_info: Some(event.event_info.to_string()),
            forgotten_at: None,
            masked: false,
        })
    }

    fn size(&self) -> usize {
        self.event().map_or(0, |event| event.event_info.len())
    }
}

/// The rows. The writer adds them after a commit; any number of readers read them, each at its own position.
#[derive(Debug)]
pub struct RecentRows {
    max_rows: usize,
    rows: Mutex<Rows>,
    appended: Notify,
}

#[derive(Debug, Default)]
struct Rows {
    rows: VecDeque<RecentRow>,
    bytes: usize,
}

impl Default for RecentRows {
    fn default() -> Self {
        Self::with_max_rows(MAX_ROWS)
    }
}

impl RecentRows {
    /// A buffer with a capacity of `max_rows`.
    #[must_use]
    pub fn with_max_rows(max_rows: usize) -> Self {
        Self { max_rows, rows: Mutex::default(), appended: Notify::new() }
    }

    /// Adds the events of a committed batch, whose positions start at `first`. Batches must come in log order.
    pub fn push(&self, first: Seq, batch: &[Append]) {
        let committed = instant();
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (seq, (append, _)) in (first.0..).map(Seq).zip(events(batch)) {
            let row = RecentRow { seq, append: append.clone(), committed };
            rows.bytes += row.size();
            rows.rows.push_back(row);
        }
        while rows.rows.len() > self.max_rows || rows.bytes > MAX_BYTES {
            let Some(oldest) = rows.rows.pop_front() else { break };
            rows.bytes -= oldest.size();
        }
    }

    /// The rows that follow `position` without a gap, at most `limit`. If there are none, read the log.
    pub fn after(&self, position: Seq, limit: usize) -> Vec<RecentRow> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = rows.rows.partition_point(|row| row.seq <= position);
        let follow = rows.rows.range(begin..).zip(position.0 + 1..).take(limit);
        follow.take_while(|(row, next)| row.seq.0 == *next).map(|(row, _)| row.clone()).collect()
    }

    /// Drops all rows, so that readers go to the log: it may have erased what is here.
    pub fn clear(&self) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Rows::default();
    }

    /// Wakes the tasks that wait for [`RecentRows::appended`].
    pub fn wake(&self) {
        self.appended.notify_waiters();
    }

    /// Waits until this process has appended something, even if it is not in this buffer. Enable it before reading the log.
    pub fn appended(&self) -> Notified<'_> {
        self.appended.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use convoke_core::event::Source;
    use convoke_core::time::Millis;
    use convoke_core::verify::pulled;

    const NOW: Millis = Millis::new(1_790_000_000_000).unwrap();

    /// Pushes events at these positions.
    fn push(recent: &RecentRows, places: std::ops::RangeInclusive<i64>, event_info: &str) {
        let verified = Arc::new(pulled(&Arc::from("1"), event_info, Source::Platform, NOW));
        let append = Append { verified, deliveries: 1, last_delivered_at: NOW };
        let batch: Vec<Append> = places.clone().map(|_| append.clone()).collect();
        recent.push(Seq(*places.start()), &batch);
    }

    const EVENT: &str = r#"{"event":"meeting.end","timestamp":1790000000000}"#;

    fn after(recent: &RecentRows, position: i64, limit: usize) -> Vec<i64> {
        recent.after(Seq(position), limit).iter().map(|row| row.seq.0).collect()
    }

    #[test]
    fn every_reader_finds_the_rows_that_follow_its_position() {
        let recent = RecentRows::default();
        push(&recent, 5..=7, EVENT);
        for _ in 0..2 {
            assert_eq!(after(&recent, 4, 2), [5, 6]);
            assert_eq!(after(&recent, 6, 10), [7]);
            assert_eq!(after(&recent, 7, 10), [0; 0]);
        }
    }

    #[test]
    fn a_gap_ends_the_run_and_is_left_to_the_log() {
        let recent = RecentRows::default();
        push(&recent, 5..=6, EVENT);
        push(&recent, 9..=9, EVENT);
        assert_eq!(after(&recent, 3, 10), [0; 0], "somebody else's row 4 may be in the log");
        assert_eq!(after(&recent, 4, 10), [5, 6]);
        assert_eq!(after(&recent, 6, 10), [0; 0]);
        assert_eq!(after(&recent, 8, 10), [9], "once the log was read that far");
    }

    #[test]
    fn what_was_cleared_is_read_from_the_log() {
        let recent = RecentRows::default();
        push(&recent, 5..=6, EVENT);
        recent.clear();
        assert_eq!(after(&recent, 4, 10), [0; 0]);
        push(&recent, 7..=7, EVENT);
        assert_eq!(after(&recent, 6, 10), [7]);
    }

    #[test]
    fn the_oldest_rows_make_room_by_number_and_by_size() {
        let recent = RecentRows::default();
        push(&recent, 1..=5000, EVENT);
        assert_eq!(after(&recent, 5000 - 4096, 1), [5000 - 4096 + 1]);
        assert_eq!(after(&recent, 5000 - 4097, 1), [0; 0]);
        let large = format!(r#"{{"event":"a","timestamp":1790000000000,"payload":"{}"}}"#, "x".repeat(1 << 20));
        push(&recent, 5001..=5020, &large);
        assert_eq!(after(&recent, 5013, 10), [5014, 5015, 5016, 5017, 5018, 5019, 5020]);
        assert_eq!(after(&recent, 5012, 10), [0; 0]);
    }
}
