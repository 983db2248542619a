//! What a backfill found and did, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::plan::{Gap, Unfillable};
use super::synthesis::FilledEvent;
use crate::metrics::Label as _;
use convoke_core::time::Millis;

/// Counts, every kind of them, also the zeros.
pub type Counts<K> = BTreeMap<K, u64>;

fn zeros<K: strum::VariantArray + Copy + Ord>() -> Counts<K> {
    K::VARIANTS.iter().map(|kind| (*kind, 0)).collect()
}

/// A list of which the platform gave less than it said that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incomplete {
    /// Which list.
    pub list: List,
    /// The run, of a list of participants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meeting_uuid: Option<String>,
    /// What it covers began at this time or later …
    #[serde(serialize_with = "text")]
    pub since: Millis,
    /// … and at this time or before.
    #[serde(serialize_with = "text")]
    pub until: Millis,
    /// How many there are, as the platform says.
    pub announced: u64,
    /// How many it gave.
    pub given: u64,
    /// How it ended, for people.
    pub problem: String,
}

/// A list of the platform's, as in reports and in the label `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum List {
    /// The runs.
    History,
    /// The stays of one.
    Participants,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}: {}", self.since, self.until, self.problem)?;
        self.meeting_uuid.iter().try_for_each(|uuid| write!(f, " (meeting {uuid})"))
    }
}

/// What was found and done.
#[derive(Clone, Debug, Serialize)]
pub struct BackfillReport {
    /// Whose events.
    pub subscriber_id: Arc<str>,
    /// Runs that began at this time or later …
    #[serde(serialize_with = "text")]
    pub since: Millis,
    /// … and at this time or before.
    #[serde(serialize_with = "text")]
    pub until: Millis,
    /// Where an earlier backfill of the same range had come to.
    #[serde(serialize_with = "optional_text")]
    pub resumed_at: Option<Millis>,
    /// Nothing was written.
    pub dry_run: bool,
    /// Runs in the platform's history that were looked at.
    pub runs: u64,
    /// Of which nothing was missing.
    pub complete: u64,
    /// Stays in the platform's history that were looked at.
    pub stays: u64,
    /// Of which so many are of people who were forgotten since: nothing is made of them.
    pub forgotten: u64,
    /// What was missing.
    #[serde(serialize_with = "by_gap")]
    pub gaps: Counts<Gap>,
    /// Events that were made, or would have been.
    #[serde(serialize_with = "by_event")]
    pub filled: Counts<FilledEvent>,
    /// Events that turned out to be in the log already: an earlier backfill had made them.
    pub already_there: u64,
    /// What could not be filled.
    #[serde(serialize_with = "by_reason")]
    pub not_fillable: Counts<Unfillable>,
    /// Lists that are not whole, at most [`BackfillReport::MAX_NAMED`]; how many there are in all says `incomplete_lists`.
    pub incomplete: Vec<Incomplete>,
    /// How many lists are not whole.
    pub incomplete_lists: u64,
    /// The same for each list.
    #[serde(skip)]
    pub incomplete_by_list: Counts<List>,
    /// The start of the first run that was too young.
    #[serde(skip)]
    pub young: Option<Millis>,
}

impl BackfillReport {
    /// More lists that are not whole are counted and not named.
    pub const MAX_NAMED: usize = 20;

    /// Nothing yet.
    #[must_use]
    pub fn new(subscriber_id: Arc<str>, since: Millis, until: Millis, dry_run: bool) -> Self {
        Self {
            subscriber_id,
            since,
            until,
            resumed_at: None,
            dry_run,
            runs: 0,
            complete: 0,
            stays: 0,
            forgotten: 0,
            gaps: zeros(),
            filled: zeros(),
            already_there: 0,
            not_fillable: zeros(),
            incomplete: Vec::new(),
            incomplete_lists: 0,
            incomplete_by_list: zeros(),
            young: None,
        }
    }

    /// The platform gave less of a list than it said that there is.
    pub fn missed(&mut self, list: Incomplete) {
        self.incomplete_lists += 1;
        *self.incomplete_by_list.entry(list.list).or_default() += 1;
        if self.incomplete.len() < Self::MAX_NAMED {
            self.incomplete.push(list);
        }
    }

    /// Events made.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.filled.values().sum()
    }
}

fn text<S: Serializer>(at: &Millis, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn optional_text<S: Serializer>(at: &Option<Millis>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => to.collect_str(at),
        None => to.serialize_none(),
    }
}

fn by_gap<S: Serializer>(counts: &Counts<Gap>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().map(|(gap, count)| (gap.as_str(), count)))
}

fn by_event<S: Serializer>(counts: &Counts<FilledEvent>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().map(|(kind, count)| (kind.as_str(), count)))
}

fn by_reason<S: Serializer>(counts: &Counts<Unfillable>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().map(|(reason, count)| (reason.as_str(), count)))
}

impl fmt::Display for BackfillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: Vec<(&str, u64)>| {
            let some: Vec<String> = counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("{count} {name}"))
                .collect();
            if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
        };
        if let Some(place) = self.resumed_at {
            writeln!(f, "went on at {place}, where the last backfill of this range had come to")?;
        }
        writeln!(
            f,
            "looked at    {} runs and {} stays of subscriber {}, from {} to {}",
            self.runs, self.stays, self.subscriber_id, self.since, self.until
        )?;
        writeln!(f, "complete     {} runs", self.complete)?;
        writeln!(f, "missing      {}", list(self.gaps.iter().map(|(gap, count)| (gap.as_str(), *count)).collect()))?;
        let filled = list(self.filled.iter().map(|(kind, count)| (kind.as_str(), *count)).collect());
        write!(f, "{} {filled}", if self.dry_run { "would fill  " } else { "filled      " })?;
        if self.already_there > 0 {
            write!(f, "\nalready there {} events, from an earlier backfill", self.already_there)?;
        }
        if self.forgotten > 0 {
            write!(f, "\nleft out     {} stays of people who were forgotten", self.forgotten)?;
        }
        for (reason, count) in self.not_fillable.iter().filter(|(_, count)| **count > 0) {
            write!(f, "\nnot filled   {count} {}", reason.sentence())?;
        }
        for list in &self.incomplete {
            write!(f, "\nINCOMPLETE   {list}")?;
        }
        let named = self.incomplete.len() as u64;
        if self.incomplete_lists > named {
            write!(f, "\nINCOMPLETE   and {} more lists", self.incomplete_lists - named)?;
        }
        Ok(())
    }
}
