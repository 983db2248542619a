//! What a backfill found and did, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::plan::{Gap, Unfillable};
use super::synthesis::Kind;
use crate::event::Millis;

/// Counts, every kind of them, also the zeros.
pub type Counts<K> = BTreeMap<K, u64>;

/// What was found and done.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
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
    pub filled: Counts<Kind>,
    /// Events that turned out to be in the log already: an earlier backfill had made them.
    pub already_there: u64,
    /// What could not be filled.
    #[serde(serialize_with = "by_reason")]
    pub not_fillable: Counts<Unfillable>,
    /// The start of the first run that was too young.
    #[serde(skip)]
    pub young: Option<Millis>,
}

impl Report {
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
            gaps: Gap::ALL.map(|gap| (gap, 0)).into(),
            filled: Kind::ALL.map(|kind| (kind, 0)).into(),
            already_there: 0,
            not_fillable: Unfillable::ALL.map(|reason| (reason, 0)).into(),
            young: None,
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

fn by_event<S: Serializer>(counts: &Counts<Kind>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().map(|(kind, count)| (kind.as_str(), count)))
}

fn by_reason<S: Serializer>(counts: &Counts<Unfillable>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().map(|(reason, count)| (reason.as_str(), count)))
}

impl fmt::Display for Report {
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
        Ok(())
    }
}
