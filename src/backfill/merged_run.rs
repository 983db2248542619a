//! What is known about a run, from all of its subscribers. An enterprise has one subscription, but its subscriber ID may have
//! been replaced, even while a run went on; two enterprises never have runs with the same UUID.

use std::collections::HashMap;
use std::sync::Arc;

use convoke_log::RunSnapshot;

/// A run of the analyst tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergedRun {
    /// The events of all of its subscribers, merged.
    pub run: RunSnapshot,
    /// Its subscribers; the one with the newest event is last.
    pub subscribers: Vec<Arc<str>>,
}

impl MergedRun {
    /// The subscriber to which the missing events of this run belong.
    pub fn last_subscriber(&self) -> &Arc<str> {
        self.subscribers.last().expect("a known run has a subscriber")
    }
}

/// The runs by UUID. `runs` are in the order of [`convoke_log::Snapshots::known_runs`].
pub fn by_uuid(runs: Vec<RunSnapshot>) -> HashMap<String, MergedRun> {
    let mut all: HashMap<String, MergedRun> = HashMap::new();
    for later in runs {
        let known = all.entry(later.meeting_uuid.clone()).or_default();
        known.subscribers.push(Arc::from(&*later.subscriber_id));
        let run = std::mem::take(&mut known.run);
        known.run = RunSnapshot {
            meeting_id: later.meeting_id.or(run.meeting_id),
            meeting_cycle_sub_id: later.meeting_cycle_sub_id.or(run.meeting_cycle_sub_id),
            started_at: run.started_at.into_iter().chain(later.started_at).min(),
            // A run that goes on has not ended, whatever was known before.
            ended_at: later.ended_at.into_iter().chain(run.ended_at.filter(|_| later.live_at.is_none())).max(),
            live_at: run.live_at.max(later.live_at),
            recordings: run.recordings + later.recordings,
            subscriber_id: later.subscriber_id,
            meeting_uuid: later.meeting_uuid,
        };
    }
    all
}
