//! Taking somebody out of the tables: by the code that makes them, of what they hold, so that it does not matter whether the
//! log still has the events.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::people::People;
use super::{CURSOR, Projector, RebuildError, Run};
use crate::cursor::lease::LEASE_TIME;
use convoke_core::id::Seq;
use convoke_core::time::instant;
use convoke_log::{Changes, Erasures, Lease, Moved, RunKey, StayKey};

/// Runs that are read at a time.
const PAGE_RUNS: u32 = 16;

/// Rows of stays that are rewritten in one transaction: while it lasts, an embedded database cannot store events.
const TRANSACTION_STAYS: usize = 200;

/// The tables stand still for no longer, and then have so much time to follow the log.
const HOLD_TIMEOUT: Duration = Duration::from_millis(500);
const FOLLOW_TIME: Duration = Duration::from_millis(1_200);

impl Projector {
    /// Takes away whose these stays were; their times stay. Asks who moves the cursor for its lease, again and again if there is
    /// much to do: its next owner starts with nothing in memory. `progress` hears how many stays are done.
    ///
    /// Doing it again changes nothing, so it can be broken off anywhere.
    ///
    /// # Errors
    /// [`RebuildError`].
    pub async fn forget(
        &self,
        eraser: &dyn Erasures,
        erasure: i64,
        stays: &[StayKey],
        mut progress: impl FnMut(usize),
    ) -> Result<(), RebuildError> {
        let mut by_run: BTreeMap<&RunKey, HashSet<Uuid>> = BTreeMap::new();
        for stay in stays {
            by_run.entry(&stay.run).or_default().insert(stay.stay_id);
        }
        let runs: Vec<(&RunKey, HashSet<Uuid>)> = by_run.into_iter().collect();
        let mut held: Option<(Seq, Instant)> = None;
        let mut done = 0;
        for chunk in runs.chunks(PAGE_RUNS as usize) {
            while !self.forget_some(eraser, erasure, chunk, &mut held).await? {}
            done += chunk.iter().map(|(_, ids)| ids.len()).sum::<usize>();
            progress(done);
            if held.is_some_and(|(_, since)| since.elapsed() > HOLD_TIMEOUT) {
                held = None;
                self.log.release(CURSOR, &self.owner).await?;
                tokio::time::sleep(FOLLOW_TIME).await;
            }
        }
        // Also if there was nothing to do: what the holder has in memory is dropped.
        if held.is_none() {
            self.take_over().await?;
        }
        self.log.release(CURSOR, &self.owner).await?;
        self.forget_identities().await
    }

    /// Takes away what no stay shows any more of who is one person; who seemed to be somebody by it is not then. What is counted
    /// takes a while, in which the tables go on.
    ///
    /// # Errors
    /// [`RebuildError`].
    pub async fn forget_identities(&self) -> Result<(), RebuildError> {
        let orphaned = self.log.orphaned_identities().await?;
        if !orphaned.is_empty() {
            // What the holder has in memory is dropped.
            let at = self.take_over().await?;
            self.log.delete_identities(&orphaned).await?;
            while self.settle_some(at).await? {}
            self.log.release(CURSOR, &self.owner).await?;
        }
        Ok(())
    }

    /// Finds out again who was in some runs, of which less is known now; whether there are more. Who takes the lease goes on with it.
    async fn settle_some(&self, at: Seq) -> Result<bool, RebuildError> {
        let runs = self.log.unsettled_runs(PAGE_RUNS).await?;
        let mut changes = Changes::default();
        for stored in self.log.load_runs(&runs).await? {
            let mut run = Run::of(stored).ok_or(RebuildError::Unreadable)?;
            let (mut people, mut stays) = (People::default(), Vec::new());
            self.look_up(&mut people, run.handles()).await?;
            run.unsettle();
            run.settle(&people, &mut changes, &mut stays);
            changes.stays.extend(stays.into_iter().filter_map(|id| run.stay_row(id)));
        }
        changes.settled = runs;
        let more = !changes.settled.is_empty();
        let lease = Lease { cursor: CURSOR, owner: &self.owner, ttl: LEASE_TIME };
        Ok(more && self.log.project(lease, at, &changes).await? != Moved::LeaseLost)
    }

    /// Rewrites some runs; false if the lease was lost on the way.
    async fn forget_some(
        &self,
        eraser: &dyn Erasures,
        erasure: i64,
        runs: &[(&RunKey, HashSet<Uuid>)],
        held: &mut Option<(Seq, Instant)>,
    ) -> Result<bool, RebuildError> {
        let (at, _) = match *held {
            Some(held) => held,
            None => *held.insert((self.take_over().await?, instant())),
        };
        let keys: Vec<RunKey> = runs.iter().map(|(key, _)| (*key).clone()).collect();
        let lease = Lease { cursor: CURSOR, owner: &self.owner, ttl: LEASE_TIME };
        for stored in self.log.load_runs(&keys).await? {
            let key = stored.meeting.run.clone();
            let Some((_, ids)) = runs.iter().find(|(wanted, _)| **wanted == key) else { continue };
            let mut run = Run::of(stored).ok_or(RebuildError::Unreadable)?;
            let ids: Vec<Uuid> = ids.iter().copied().collect();
            let mut people = People::default();
            self.look_up(&mut people, run.handles()).await?;
            // Each piece leaves the run's rows as they are to be.
            for ids in ids.chunks(TRANSACTION_STAYS) {
                let removed = run.forget(&ids.iter().copied().collect());
                if removed.is_empty() {
                    continue;
                }
                let removed: Vec<StayKey> =
                    removed.into_iter().map(|stay_id| StayKey { run: key.clone(), stay_id }).collect();
                let (mut changes, mut stays) = (Changes::default(), Vec::new());
                run.settle(&people, &mut changes, &mut stays);
                changes.stays.extend(stays.into_iter().filter_map(|id| run.stay_row(id)));
                if eraser.erase_stays(lease, at, erasure, &removed, &changes).await? == Moved::LeaseLost {
                    *held = None;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
