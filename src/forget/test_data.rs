//! Deletes all test data: what `convoke forget --test-data` does.
//!
//! The steps, in this order; each of them can be repeated:
//!
//! 1. **The log's rows are erased**, like those of a person: whoever reads one from then on has nothing to publish.
//! 2. **The cursors pass them**, and the relay's lease is taken once: no relay has one in memory any more.
//! 3. **The stream's messages** are counted and deleted.
//! 4. **The tables and work lists**, under the lease of the projection, and **the quarantine**.
//! 5. **The log's rows are deleted.** They are kept until now so that no message counts as one of an unknown event, and so that
//!    an interrupted deletion finds what is left to do.

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

/// The entry in the record of erasures, in place of a person's hash.
const ERASURE: &str = "test data";

/// Number of digits of a meeting's UUID.
const UUID_DIGITS: usize = 32;

/// Maximum number of runs that are deleted in one transaction: while it lasts, an embedded database cannot store events.
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
    /// `owner` is the name of this process among the replicas.
    #[must_use]
    pub fn new(log: Arc<dyn TestData>, bus: Option<Arc<Bus>>, owner: String) -> Self {
        Self { log, bus, owner }
    }

    /// Counts the test data, without changing anything.
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

    /// Deletes the test data that was stored when it began.
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
        projection::Projector::new(self.log.clone(), self.owner.clone()).forget_identities().await?;
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

    /// Passes the rows up to `head` to `work`, one part of the log at a time.
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

    /// Works in transactions of limited size. Storing events waits for each, so half of the time is left to it.
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

    /// Deletes the runs under the lease of the projection, in turns with its owner, which drops what it has in memory.
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

    /// The quarantine entries that contain a UUID of a test meeting anywhere.
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
