//! The newest rows of the log, as the shared reader has read them: whoever is at the log's end takes them from here.
//!
//! They are bounded in number, size and age: whoever is further behind reads the log. The age is short, and looked at whenever
//! rows are taken: what another process erases from the log is told by the log alone within a second.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::watch;

use crate::http::access::Right;
use crate::http::api::mask::Mask;
use convoke_core::id::Seq;
use convoke_log::ListedEvent;

/// Rows kept.
const ROWS: usize = 2_048;

/// Bytes of `eventInfo` kept.
const BYTES: usize = 4 << 20;

/// Nothing is told that was read longer ago: the person in it may have been forgotten meanwhile.
const AGE: Duration = Duration::from_secs(1);

/// So much is said at once.
const PIECE: usize = 64 << 10;

/// Which events somebody wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub event: Option<String>,
    pub subscriber: Option<String>,
    /// A number or UUID.
    pub meeting: Option<String>,
}

impl Wanted {
    fn takes(&self, row: &ListedEvent) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let meeting = self.meeting.as_deref();
        is(&self.event, &row.event)
            && is(&self.subscriber, &row.subscriber_id)
            && (meeting.is_none() || meeting == row.meeting_id.as_deref() || meeting == row.meeting_uuid.as_deref())
    }
}

/// A row, and how it is told.
#[derive(Debug)]
struct Row {
    row: ListedEvent,
    read: Instant,
    full: OnceLock<Bytes>,
    masked: OnceLock<Bytes>,
}

impl Row {
    fn told(&self, mask: &Mask, right: Right) -> &Bytes {
        let told = match right {
            Right::Full => &self.full,
            Right::Masked => &self.masked,
        };
        told.get_or_init(|| tell(&self.row, mask, right))
    }

    fn size(&self) -> usize {
        self.row.event_info.as_deref().map_or(0, str::len)
    }
}

/// A row as a server-sent event.
fn tell(row: &ListedEvent, mask: &Mask, right: Right) -> Bytes {
    let item = serde_json::to_string(&mask.event(row.clone(), right)).expect("an item of our own");
    Bytes::from(format!("id: {}\nevent: event\ndata: {item}\n\n", row.seq))
}

/// Rows that were read by whoever is behind, as server-sent events.
pub(super) fn tell_all(rows: &[ListedEvent], mask: &Mask, right: Right) -> Bytes {
    let mut piece = BytesMut::new();
    rows.iter().for_each(|row| piece.put(tell(row, mask, right)));
    piece.freeze()
}

/// What there is after a place in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// These, up to this place. Empty, if nobody wants what stands there.
    Rows(Bytes, Seq),
    /// Nothing yet.
    End,
    /// More than is kept here: read the log.
    Unknown,
}

#[derive(Debug, Default)]
struct Kept {
    /// All rows after this one are here; `None`: nobody reads.
    start: Option<Seq>,
    rows: VecDeque<Arc<Row>>,
    bytes: usize,
}

impl Kept {
    /// Drops what is too old or too much.
    fn shrink(&mut self) {
        while let Some(oldest) = self.rows.front()
            && (self.rows.len() > ROWS || self.bytes > BYTES || oldest.read.elapsed() > AGE)
        {
            let (seq, size) = (oldest.row.seq, oldest.size());
            self.start = Some(seq);
            self.bytes -= size;
            self.rows.pop_front();
        }
    }
}

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
    /// How far the log was read.
    end: watch::Sender<Seq>,
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins after this place.
    pub fn begin(&self, at: Seq) {
        *self.kept() = Kept { start: Some(at), ..Kept::default() };
        self.end.send_replace(at);
    }

    /// Forgets everything: nobody reads any more.
    pub fn clear(&self) {
        *self.kept() = Kept::default();
    }

    /// Drops what is too old to be told.
    pub fn shrink(&self) {
        self.kept().shrink();
    }

    /// Adds rows in the order of the log, which are all that there are up to `end`. They were asked for at `read`.
    pub fn push(&self, rows: Vec<ListedEvent>, end: Seq, read: Instant) {
        let mut kept = self.kept();
        for row in rows {
            let row = Row { row, read, full: OnceLock::new(), masked: OnceLock::new() };
            kept.bytes += row.size();
            kept.rows.push_back(Arc::new(row));
        }
        kept.shrink();
        drop(kept);
        self.end.send_if_modified(|at| std::mem::replace(at, end) != end);
    }

    /// Tells of every [`Recent::push`].
    pub fn end(&self) -> watch::Receiver<Seq> {
        self.end.subscribe()
    }

    /// What there is after `position`.
    pub fn after(&self, position: Seq, wanted: &Wanted, mask: &Mask, right: Right) -> After {
        let (rows, end) = {
            let mut kept = self.kept();
            kept.shrink();
            let end = *self.end.borrow();
            match kept.start {
                Some(start) if position >= start => {}
                _ => return After::Unknown,
            }
            if position >= end {
                return After::End;
            }
            let first = kept.rows.partition_point(|row| row.row.seq <= position);
            let rows: Vec<Arc<Row>> = kept.rows.range(first..).cloned().collect();
            (rows, end)
        };
        // Told without the lock: it is said first to one and then to others at the same time.
        let mut piece = BytesMut::new();
        for row in rows.iter().filter(|row| wanted.takes(&row.row)) {
            piece.put(row.told(mask, right).clone());
            if piece.len() >= PIECE {
                return After::Rows(piece.freeze(), row.row.seq);
            }
        }
        After::Rows(piece.freeze(), end)
    }
}
