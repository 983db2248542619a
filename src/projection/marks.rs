//! What the events of a run tell of it, without its stays and recordings.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ready::LatestReady;
use convoke_core::event::Source;
use convoke_core::time::Millis;
use convoke_log::{ProjectedEvent, Status};

/// So many ends, and so many edits, are remembered of a run: the newest ones. That bounds its row.
pub(super) const MAX_REMEMBERED: usize = 1_000;

/// An end in the platform's lists, whose times are whole minutes, and one that an event told are the same within this time.
const SAME_END_MS: i64 = 2 * 60_000;

/// What the events of a run tell, without its stays and recordings: the column `internal`. Every member is a least or a
/// greatest one, or a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Marks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meeting_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycle_sub_id: Option<Arc<str>>,
    pub first_event: Option<i64>,
    pub last_event: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub modified: BTreeSet<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_start: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_start: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_end: Option<i64>,
    /// When it was found to be running, and when it ended, by the platform's lists: only where no event told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_start: Option<i64>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub seen_ends: BTreeSet<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concluded: Option<i64>,
    /// Whenever everybody was gone: ends and conclusions.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub closings: BTreeSet<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<LatestReady>,
    /// Whether there are results of calls: then they are read back, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub calls: bool,
}

fn least(mark: &mut Option<i64>, at: i64) {
    *mark = Some(mark.map_or(at, |before| before.min(at)));
}

pub(super) fn greatest<T: Ord>(mark: &mut Option<T>, value: T) {
    if mark.as_ref().is_none_or(|before| *before < value) {
        *mark = Some(value);
    }
}

fn remember<T: Ord>(set: &mut BTreeSet<T>, value: T) -> bool {
    let new = set.insert(value);
    if set.len() > MAX_REMEMBERED {
        set.pop_first();
    }
    new
}

impl Marks {
    /// Adds what an event says of the run; whether it ended at a time not known before.
    pub fn add(&mut self, fact: &ProjectedEvent) -> bool {
        let at = fact.event_id.occurred_at().get();
        least(&mut self.first_event, at);
        greatest(&mut self.last_event, at);
        for (mark, value) in
            [(&mut self.meeting_id, &fact.meeting.id), (&mut self.cycle_sub_id, &fact.meeting.cycle_sub_id)]
        {
            if let Some(value) = value {
                greatest(mark, Arc::clone(value));
            }
        }
        match &*fact.event {
            "meeting.create" => least(&mut self.created, at),
            "meeting.modify" => drop(remember(&mut self.modified, fact.event_id.uuid())),
            "meeting.cancel" => greatest(&mut self.cancelled, at),
            "meeting.started" if fact.source == Source::Platform => least(&mut self.seen_start, at),
            "meeting.end" if fact.source == Source::Platform => return remember(&mut self.seen_ends, at),
            "meeting.started" => {
                least(&mut self.first_start, at);
                greatest(&mut self.last_start, at);
            }
            "meeting.end" => {
                greatest(&mut self.last_end, at);
                return remember(&mut self.closings, at);
            }
            "meeting.conclude" => {
                greatest(&mut self.concluded, at);
                return remember(&mut self.closings, at);
            }
            _ => {}
        }
        false
    }

    /// See the module's rules. `held`: whether anybody was there, or anything was recorded.
    pub fn status(&self, held: bool) -> Status {
        match self.last_end() {
            _ if self.concluded.is_some() => Status::Concluded,
            Some(end) if self.last_start() > Some(end) => Status::Live,
            Some(_) => Status::Ended,
            None if held || self.last_start().is_some() => Status::Live,
            None if self.cancelled.is_some() => Status::Cancelled,
            None => Status::Scheduled,
        }
    }

    /// When the run ended first for who came at `joined`. Who came after its last end found it over, if it does not go on.
    pub fn closing(&self, joined: Option<Millis>, live: bool) -> Option<Millis> {
        let from = joined.map_or(0, Millis::get);
        let told = self.closings.range(from..).next().copied();
        let seen = self.seen_ends.range(from..).copied().find(|end| !self.is_told(*end));
        let end = told.into_iter().chain(seen).min().and_then(Millis::new);
        end.or_else(|| joined.filter(|_| !live))
    }

    /// Whether an event told the end that the platform's lists have at `end`.
    fn is_told(&self, end: i64) -> bool {
        self.closings.range(end.saturating_sub(SAME_END_MS)..=end.saturating_add(SAME_END_MS)).next().is_some()
    }

    pub fn first_start(&self) -> Option<i64> {
        self.first_start.or(self.seen_start)
    }

    pub fn last_start(&self) -> Option<i64> {
        self.last_start.or(self.seen_start)
    }

    pub fn last_end(&self) -> Option<i64> {
        let told = |end: &i64| self.last_end.is_some_and(|told| told.abs_diff(*end) <= SAME_END_MS.unsigned_abs());
        let seen = self.seen_ends.iter().rev().find(|end| !told(end)).copied();
        self.last_end.into_iter().chain(seen).max()
    }
}
