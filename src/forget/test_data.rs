//! Test data deleted, whole: what `convoke forget --test-data` does.
//!
//! The parts, in this order, each of which can be done again:
//!
//! 1. **The log's rows are erased**, as those of a person are: whoever reads one from now on has nothing to publish.
//! 2. **The cursors come past them**, and the relay's lease is taken once: nobody has one in memory any more.
//! 3. **The stream's messages** are counted and deleted.
//! 4. **The tables and work lists**, by the lease of the projection, and **the quarantine**.
//! 5. **The log's rows are deleted.** They stood until now, so that nobody took a message for one of an unknown event, and so that an
//!    erasure that was broken off finds what to look for.

use std::collections::HashSet;
use std::sync::Arc;

use super::{ForgetError, PAGE_BODIES, Part, RETRY_DELAY, SPAN_SEQS, TRANSACTION_ROWS, count, retrying, stream};
use crate::cursor::Handover;
use crate::cursor::lease::LEASE_TIME;
use crate::{projection, recordings};
use convoke_bus::Bus;
use convoke_core::event::TEST_MEETINGS;
use convoke_core::id::Seq;
use convoke_core::raw_json;
use convoke_core::time::instant;
use convoke_log::{Erasure, Lease, LogError, PersonRow, TestData, TestDataCounts};

/// In the place of the hash of a person.
const ERASURE: &str = "test data";

/// The digits of a meeting's UUID.
const UUID_DIGITS: usize = 32;

/// Runs that are deleted in one transaction: while it lasts, an embedded database cannot store events.
const TRANSACTION_RUNS: usize = 8;

/// Deletes test data.
#[derive(Debug)]
pub struct ForgetTestData {
    log: Arc<dyn TestData>,
    /// `None`: there is no stream.
    bus: Option<Arc<Bus>>,
    owner: String,
}

impl ForgetTestData {
    /// `owner` names this process among the replicas.
    #[must_use]
    pub fn new(log: Arc<dyn TestData>, bus: Option<Arc<Bus>>, owner: String) -> Self {
        Self { log, bus, owner }
    }

    /// Counts what there is, and changes nothing.
    ///
    /// # Errors
    /// [`ForgetError`].
    pub async fn survey(&self, mut progress: impl FnMut(Part)) -> Result<TestDataCounts, ForgetError> {
        let log = &*self.log;
        let mut found = retrying(async || log.test_table_counts().await).await?;
        let mut meetings: HashSet<Option<String>> = log.test_meetings().await?.into_iter().collect();
        let head = log.head().await?;
        self.rows(head, async |rows, at| {
            found.events += count(rows.len());
            meetings.extend(rows.iter().map(|row| row.meeting.id.as_deref().map(str::to_owned)));
            progress(Part::Finding(at, head));
            Ok(())
        })
        .await?;
        progress(Part::Quarantine);
        found.quarantined = count(self.quarantined().await?.len());
        if let Some(bus) = &self.bus {
            progress(Part::Stream);
            found.messages = count(stream::find_test_data(bus, meetings).await?.len());
        }
        Ok(found)
    }

    /// Deletes what was stored when it began.
    ///
    /// # Errors
    /// [`ForgetError`].
    pub async fn delete(&self, mut progress: impl FnMut(Part)) -> Result<TestDataCounts, ForgetError> {
        let log = &*self.log;
        let erasure = retrying(async || log.begin_erasure(ERASURE, "test_data").await).await?;
        let head = log.head().await?;
        self.rows(head, async |rows, at| {
            self.in_pieces(rows, async |piece| log.erase_rows(&erasure, piece).await).await?;
            progress(Part::Log(at, head));
            Ok(())
        })
        .await?;
        progress(Part::Stream);
        stream::wait_for_relay(log, &self.owner, head).await?;
        for cursor in [projection::CURSOR, recordings::CURSOR] {
            stream::wait_for_cursor(log, cursor, head).await?;
        }
        let mut messages = Vec::new();
        if let Some(bus) = &self.bus {
            let meetings =
                log.erased_meetings(erasure.id).await?.into_iter().chain(log.test_meetings().await?).collect();
            messages = stream::find_test_data(bus, meetings).await?;
            stream::delete(log, bus, erasure.id, &messages).await?;
        }
        progress(Part::Tables);
        let mut deleted = self.delete_runs(&erasure).await?;
        deleted.messages = count(messages.len());
        progress(Part::Quarantine);
        for ids in self.quarantined().await?.chunks(TRANSACTION_ROWS) {
            deleted.quarantined += signed(retrying(async || log.delete_quarantined(erasure.id, ids).await).await?);
        }
        self.rows(head, async |rows, at| {
            self.in_pieces(rows, async |piece| {
                deleted.events += signed(log.delete_rows(erasure.id, piece).await?);
                Ok(())
            })
            .await?;
            progress(Part::Log(at, head));
            Ok(())
        })
        .await?;
        retrying(async || log.finish_erasure(erasure.id).await).await?;
        Ok(deleted)
    }

    /// Goes through the rows up to `head`, those of a stretch of the log at a time.
    async fn rows(
        &self,
        head: Seq,
        mut work: impl AsyncFnMut(&[PersonRow], Seq) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut at = Seq::START;
        while at < head {
            let to = Seq(head.0.min(at.0 + SPAN_SEQS));
            let rows = retrying(async || self.log.test_rows(at, to).await).await?;
            work(&rows, to).await?;
            at = to;
        }
        Ok(())
    }

    /// Each piece is a transaction, for which events wait; half of the time is theirs.
    async fn in_pieces(
        &self,
        rows: &[PersonRow],
        mut work: impl AsyncFnMut(&[PersonRow]) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        for piece in rows.chunks(TRANSACTION_ROWS) {
            let begun = instant();
            retrying(async || work(piece).await).await?;
            tokio::time::sleep(begun.elapsed().min(RETRY_DELAY)).await;
        }
        Ok(())
    }

    /// By the lease of the projection, in turns with who runs it; its owner drops what it had in memory.
    async fn delete_runs(&self, erasure: &Erasure) -> Result<TestDataCounts, ForgetError> {
        let (log, mut deleted) = (&*self.log, TestDataCounts::default());
        let runs = retrying(async || log.test_runs().await).await?;
        let mut turn = Handover::new(log, projection::CURSOR, &self.owner);
        for piece in runs.chunks(TRANSACTION_RUNS) {
            loop {
                let at = turn.take().await?;
                let lease = Lease { cursor: projection::CURSOR, owner: &self.owner, ttl: LEASE_TIME };
                if let Some(of_piece) = retrying(async || log.delete_runs(lease, at, erasure.id, piece).await).await? {
                    deleted.meetings += of_piece.meetings;
                    deleted.stays += of_piece.stays;
                    deleted.recordings += of_piece.recordings;
                    deleted.work_items += of_piece.work_items;
                    break;
                }
            }
        }
        turn.end().await?;
        Ok(deleted)
    }

    /// The entries of the quarantine in which such a UUID stands, wherever.
    async fn quarantined(&self) -> Result<Vec<i64>, LogError> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = retrying(async || self.log.list_quarantined(after, PAGE_BODIES).await).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.id;
            let is_test = |body: &[u8]| {
                let body = String::from_utf8_lossy(body);
                raw_json::scalars(&body).any(|text| text.starts_with(TEST_MEETINGS) && text.len() == UUID_DIGITS)
            };
            found.extend(page.iter().filter(|entry| is_test(&entry.body)).map(|entry| entry.id));
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
