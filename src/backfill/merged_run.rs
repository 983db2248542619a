//! What is known of a run, from all of its subscribers. There is one subscription for an enterprise, but its subscriber id may have been
//! replaced, also while a run went on; a UUID is never that of another enterprise's run.

use std::collections::HashMap;
use std::sync::Arc;

use convoke_log::RunSnapshot;

/// A run of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergedRun {
    /// The events of all of its subscribers, together.
    pub run: RunSnapshot,
    /// Those subscribers; the one of the newest event is the last.
    pub subscribers: Vec<Arc<str>>,
}

impl MergedRun {
    /// Whose events those are that it still lacks.
    pub fn last_subscriber(&self) -> &Arc<str> {
        self.subscribers.last().expect("a known run has a subscriber")
    }
}

/// The runs by their UUIDs. `runs` are as [`convoke_log::Snapshots::known_runs`] gives them.
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
            // One that goes on has not ended, whatever was known before.
            ended_at: later.ended_at.into_iter().chain(run.ended_at.filter(|_| later.live_at.is_none())).max(),
            live_at: run.live_at.max(later.live_at),
            recordings: run.recordings + later.recordings,
            subscriber_id: later.subscriber_id,
            meeting_uuid: later.meeting_uuid,
        };
    }
    all
}
