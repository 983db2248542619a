//! The relay's working state: its lease, a page of rows, and the result of the window that was published from it.

use std::time::Instant;

use super::WINDOW_ROWS;
use convoke_bus::{Ack, PublishError};
use convoke_core::event::{Record, Row};
use convoke_core::id::Seq;
use convoke_log::recent::RecentRow;
use convoke_log::{Leased, LogError, Moved};

/// The lease, as long as this process believes that it holds it.
#[derive(Debug)]
pub(super) struct RelayLease {
    /// The cursor's position in the database.
    pub position: Seq,
    /// The last row up to which the stream has acknowledged everything; `position` follows it.
    pub published: Seq,
    /// The sequence number in the stream of the row at `published`, if its acknowledgement was seen. Messages after it are copies
    /// of the rows that follow, published by an owner that could no longer advance the position.
    pub at: Option<u64>,
    /// When the turn began.
    pub since: Instant,
    pub renewed: Instant,
    /// Whether another process claims the lease.
    pub wanted: bool,
    /// When `position` was last advanced.
    pub settled: Instant,
    /// The page after `published`, read ahead.
    pub ahead: Option<Vec<Record>>,
}

impl RelayLease {
    pub fn new(leased: Leased, renewed: Instant) -> Self {
        let Leased { position, wanted } = leased;
        Self { position, published: position, at: None, since: renewed, renewed, wanted, settled: renewed, ahead: None }
    }

    /// The position to advance to, if `position` is behind.
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
    /// Whether there may be more rows after this page.
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

/// The result of a window, and of the work done while it was sent.
pub(super) struct Sent {
    /// The result for each message.
    pub results: Vec<Result<Ack, PublishError>>,
    /// The page after it, read ahead.
    pub ahead: Option<Vec<Record>>,
    /// The position that was to be set, and whether that worked.
    pub moved: Option<(Seq, Result<Moved, LogError>)>,
}

impl Sent {
    /// The number of messages that were acknowledged without a gap.
    pub fn acked(&self) -> usize {
        self.results.iter().take_while(|result| result.is_ok()).count()
    }

    /// Why the first message after those was not acknowledged.
    pub fn failure(&self) -> Option<PublishError> {
        self.results.get(self.acked()).and_then(|result| result.err())
    }
}
