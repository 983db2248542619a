//! The newest rows of the log, as this process appended them: what a cursor at the log's end need not read back.
//!
//! The log stays the record: whatever is not here is read from it. A row is taken from here only if its number follows
//! the reader's position without a gap, for then no row, of whichever process, can lie between the two.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use convoke_core::event::{Content, Verified};
use convoke_core::id::Seq;

/// Rows kept for a reader that rests for milliseconds; older ones are dropped, and read from the log by who wants them.
const ROWS: usize = 2048;

/// Bytes of `eventInfo` kept.
const BYTES: usize = 8 << 20;

/// A row, and what it was made of.
pub type Fresh = (Seq, Arc<Verified>);

/// The rows. Filled by the writer after a commit, emptied by the one cursor that follows closely: each has its own.
#[derive(Debug)]
pub struct Tail {
    room: usize,
    rows: Mutex<Rows>,
}

impl Default for Tail {
    fn default() -> Self {
        Self::with_room(ROWS)
    }
}

#[derive(Debug, Default)]
struct Rows {
    rows: VecDeque<Fresh>,
    bytes: usize,
}

impl Rows {
    fn pop(&mut self) -> Option<Fresh> {
        let row = self.rows.pop_front()?;
        self.bytes -= size(&row.1);
        Some(row)
    }
}

impl Tail {
    /// One that keeps so many rows.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        Self { room, rows: Mutex::default() }
    }

    /// Adds rows that are committed, in the order of the log.
    pub fn push(&self, committed: impl Iterator<Item = Fresh>) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for row in committed {
            rows.bytes += size(&row.1);
            rows.rows.push_back(row);
        }
        while rows.rows.len() > self.room || rows.bytes > BYTES {
            rows.pop();
        }
    }

    /// Drops all rows. To be called by a reader that was not the only one for a while: the log may have forgotten what stands
    /// here.
    pub fn clear(&self) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        *rows = Rows::default();
    }

    /// Takes the rows that follow `position` without a gap, `limit` at the most. None of them: read the log.
    pub fn take(&self, position: Seq, limit: usize) -> Vec<Fresh> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        let mut next = position.0 + 1;
        while let Some((seq, _)) = rows.rows.front() {
            if seq.0 > next || taken.len() == limit {
                break;
            }
            let wanted = seq.0 == next;
            // What the reader has passed already is of no use to anybody.
            let row = rows.pop();
            if wanted {
                taken.extend(row);
                next += 1;
            }
        }
        taken
    }
}

fn size(verified: &Verified) -> usize {
    match verified.content() {
        Content::Event(event) => event.event_info.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use convoke_core::event::Source;
    use convoke_core::time::Millis;
    use convoke_core::verify::pulled;

    fn rows(seqs: &[i64]) -> impl Iterator<Item = Fresh> {
        let verified = Arc::new(pulled(&Arc::from("1"), "{}", Source::Platform, Millis::EPOCH));
        seqs.iter().map(move |seq| (Seq(*seq), Arc::clone(&verified)))
    }

    fn taken(tail: &Tail, position: i64, limit: usize) -> Vec<i64> {
        tail.take(Seq(position), limit).into_iter().map(|(seq, _)| seq.0).collect()
    }

    #[test]
    fn rows_that_follow_the_position_are_taken_once() {
        let tail = Tail::default();
        tail.push(rows(&[5, 6, 7]));
        assert_eq!(taken(&tail, 4, 2), [5, 6]);
        assert_eq!(taken(&tail, 6, 10), [7]);
        assert_eq!(taken(&tail, 7, 10), [0; 0]);
    }

    #[test]
    fn a_gap_ends_the_run_and_is_left_to_the_log() {
        let tail = Tail::default();
        tail.push(rows(&[5, 6, 9]));
        assert_eq!(taken(&tail, 3, 10), [0; 0], "somebody else's row 4 may be in the log");
        assert_eq!(taken(&tail, 4, 10), [5, 6]);
        assert_eq!(taken(&tail, 6, 10), [0; 0]);
        assert_eq!(taken(&tail, 8, 10), [9], "once the log was read that far");
    }

    #[test]
    fn what_was_passed_is_dropped_and_a_reader_that_goes_back_reads_the_log() {
        let tail = Tail::default();
        tail.push(rows(&[5, 6, 7]));
        assert_eq!(taken(&tail, 6, 10), [7]);
        assert_eq!(taken(&tail, 4, 10), [0; 0]);
    }

    #[test]
    fn what_was_cleared_is_read_from_the_log() {
        let tail = Tail::default();
        tail.push(rows(&[5, 6]));
        tail.clear();
        assert_eq!(taken(&tail, 4, 10), [0; 0]);
        tail.push(rows(&[7]));
        assert_eq!(taken(&tail, 6, 10), [7]);
    }

    #[test]
    fn the_oldest_rows_are_dropped_when_nobody_takes_them() {
        let tail = Tail::default();
        let all: Vec<i64> = (1..=3000).collect();
        tail.push(rows(&all));
        assert_eq!(taken(&tail, 3000 - 2048, 1).len(), 1);
        assert_eq!(taken(&tail, 1, 1).len(), 0);
    }
}
