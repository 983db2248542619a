//! What the relay works on: its lease, a page of rows, and what became of the window that was made of it.

use std::time::Instant;

use super::WINDOW_ROWS;
use convoke_bus::{Ack, PublishError};
use convoke_core::event::{Record, Row};
use convoke_core::id::Seq;
use convoke_log::recent::RecentRow;
use convoke_log::{Leased, LogError, Moved};

/// The lease, while we believe to hold it.
#[derive(Debug)]
pub(super) struct RelayLease {
    /// Where the cursor stands in the database.
    pub position: Seq,
    /// Up to where the stream has acknowledged everything; `position` follows.
    pub published: Seq,
    /// The number of the message in the stream that holds the row at `published`, if we have seen it acknowledged. What the
    /// stream holds behind it are copies of the rows that follow: of an owner who could not move the position any more.
    pub at: Option<u64>,
    /// When the turn began.
    pub since: Instant,
    pub renewed: Instant,
    /// Whether somebody else asks for the lease.
    pub wanted: bool,
    /// When `position` was moved last.
    pub settled: Instant,
    /// The page after `published`, read ahead.
    pub ahead: Option<Vec<Record>>,
}

impl RelayLease {
    pub fn new(leased: Leased, renewed: Instant) -> Self {
        let Leased { position, wanted } = leased;
        Self { position, published: position, at: None, since: renewed, renewed, wanted, settled: renewed, ahead: None }
    }

    /// Where the position is to be moved, if it is behind.
    pub fn unsettled(&self) -> Option<Seq> {
        (self.published > self.position).then_some(self.published)
    }
}

/// Rows to publish, in order.
pub(super) enum Rows {
    /// Read from the log.
    Read(Vec<Record>),
    /// Just appended by this process.
    Recent(Vec<RecentRow>),
}

impl Rows {
    /// Whether there may be more where it came from.
    pub fn is_full(&self) -> bool {
        let rows = match self {
            Self::Read(records) => records.len(),
            Self::Recent(rows) => rows.len(),
        };
        rows >= WINDOW_ROWS as usize
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let (read, recent) = match self {
            Self::Read(records) => (records.as_slice(), [].as_slice()),
            Self::Recent(rows) => ([].as_slice(), rows.as_slice()),
        };
        let recent = recent.iter().filter_map(|row| Some(row.event()?.row(row.seq)));
        read.iter().map(Record::row).chain(recent)
    }
}

/// What became of a window, and of what was done meanwhile.
pub(super) struct Sent {
    /// Of each message.
    pub results: Vec<Result<Ack, PublishError>>,
    /// The page after it, read ahead.
    pub ahead: Option<Vec<Record>>,
    /// Whether the position could be moved to there.
    pub moved: Option<(Seq, Result<Moved, LogError>)>,
}

impl Sent {
    /// How many messages were acknowledged without a gap.
    pub fn acked(&self) -> usize {
        self.results.iter().take_while(|result| result.is_ok()).count()
    }

    /// Why the first one after them was not.
    pub fn failure(&self) -> Option<PublishError> {
        self.results.get(self.acked()).and_then(|result| result.err())
    }
}
