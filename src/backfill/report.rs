//! The result of a backfill, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::plan::{Gap, Unfillable};
use super::synthesis::FilledEvent;
use crate::metrics::Label as _;
use convoke_core::time::Millis;
use convoke_core::zone::TimeZone;

/// Counts of every kind, including zeros.
pub type Counts<K> = BTreeMap<K, u64>;

fn zeros<K: strum::VariantArray + Copy + Ord>() -> Counts<K> {
    K::VARIANTS.iter().map(|kind| (*kind, 0)).collect()
}

/// A list of which the platform gave less than it announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incomplete {
    /// The kind of list.
    pub list: List,
    /// The run, if it is a list of participants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meeting_uuid: Option<String>,
    /// Entries that began at or after this time.
    #[serde(serialize_with = "text")]
    pub since: Millis,
    /// Entries that began at or before this time.
    #[serde(serialize_with = "text")]
    pub until: Millis,
    /// How many entries the platform announced.
    pub announced: u64,
    /// How many it gave.
    pub given: u64,
    /// How the list ended, as text.
    pub problem: String,
}

/// A list of the platform's API, as in reports and in the label `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum List {
    /// The list of runs.
    History,
    /// The list of stays of one run.
    Participants,
}

impl Incomplete {
    /// As text, with times as the clocks of this zone show them.
    pub fn shown<'a>(&'a self, zone: &'a TimeZone) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            write!(f, "from {} to {}: {}", zone.local(self.since), zone.local(self.until), self.problem)?;
            self.meeting_uuid.iter().try_for_each(|uuid| write!(f, " (meeting {uuid})"))
        })
    }
}

/// What was found and done.
#[derive(Clone, Debug, Serialize)]
pub struct BackfillReport {
    /// The subscriber of the events.
    pub subscriber_id: Arc<str>,
    /// Only runs that began at or after this time.
    #[serde(serialize_with = "text")]
    pub since: Millis,
    /// Only runs that began at or before this time.
    #[serde(serialize_with = "text")]
    pub until: Millis,
    /// The point from which this backfill continued an earlier one for the same range.
    #[serde(serialize_with = "optional_text")]
    pub resumed_at: Option<Millis>,
    /// Nothing was written.
    pub dry_run: bool,
    /// Number of runs in the platform's history that were checked.
    pub runs: u64,
    /// Number of those runs in which nothing was missing.
    pub complete: u64,
    /// Number of stays in the platform's history that were checked.
    pub stays: u64,
    /// Number of those stays whose person was erased since: no events are made of them.
    pub forgotten: u64,
    /// Number of stays of which the dashboard told participant, user, role, client and why they left.
    pub identified: u64,
    /// Why the dashboard told nothing more, if it refused.
    pub identities_refused: Option<String>,
    /// The gaps that were found.
    #[serde(serialize_with = "by_gap")]
    pub gaps: Counts<Gap>,
    /// The events that were made, or would have been in a dry run.
    #[serde(serialize_with = "by_event")]
    pub filled: Counts<FilledEvent>,
    /// Number of events that were in the log already, because an earlier backfill had made them.
    pub already_there: u64,
    /// Gaps that could not be filled.
    #[serde(serialize_with = "by_reason")]
    pub not_fillable: Counts<Unfillable>,
    /// Incomplete lists, at most [`BackfillReport::MAX_NAMED`]; `incomplete_lists` is their total number.
    pub incomplete: Vec<Incomplete>,
    /// Number of incomplete lists.
    pub incomplete_lists: u64,
    /// Number of incomplete lists of each kind.
    #[serde(skip)]
    pub incomplete_by_list: Counts<List>,
    /// The start of the first run that was too young.
    #[serde(skip)]
    pub young: Option<Millis>,
}

impl BackfillReport {
    /// Maximum number of incomplete lists that are named; further ones are only counted.
    pub const MAX_NAMED: usize = 20;

    /// An empty report.
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
            identified: 0,
            identities_refused: None,
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

    /// Adds an incomplete list.
    pub fn missed(&mut self, list: Incomplete) {
        self.incomplete_lists += 1;
        *self.incomplete_by_list.entry(list.list).or_default() += 1;
        if self.incomplete.len() < Self::MAX_NAMED {
            self.incomplete.push(list);
        }
    }

    /// The report as text, with times as the clocks of this zone show them.
    pub fn shown<'a>(&'a self, zone: &'a TimeZone) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| self.write(f, zone))
    }

    /// Number of events that were made.
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

impl BackfillReport {
    fn write(&self, f: &mut fmt::Formatter<'_>, zone: &TimeZone) -> fmt::Result {
        let list = |counts: Vec<(&str, u64)>| {
            let some: Vec<String> = counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("{count} {name}"))
                .collect();
            if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
        };
        if let Some(place) = self.resumed_at {
            let place = zone.local(place);
            writeln!(f, "continued at {place}, where the last backfill of this range stopped")?;
        }
        writeln!(
            f,
            "examined     {} runs and {} stays of subscriber {}, from {} to {}",
            self.runs,
            self.stays,
            self.subscriber_id,
            zone.local(self.since),
            zone.local(self.until)
        )?;
        writeln!(f, "complete     {} runs", self.complete)?;
        writeln!(f, "missing      {}", list(self.gaps.iter().map(|(gap, count)| (gap.as_str(), *count)).collect()))?;
        let filled = list(self.filled.iter().map(|(kind, count)| (kind.as_str(), *count)).collect());
        write!(f, "{} {filled}", if self.dry_run { "would fill  " } else { "filled      " })?;
        if self.already_there > 0 {
            write!(f, "\nalready there {} events, from an earlier backfill", self.already_there)?;
        }
        if self.identified > 0 {
            write!(f, "\nidentified   {} stays, by the platform's dashboard", self.identified)?;
        }
        if let Some(refused) = &self.identities_refused {
            write!(f, "\nidentities   none from the platform's dashboard: {refused}")?;
        }
        if self.forgotten > 0 {
            write!(f, "\nleft out     {} stays of people who were forgotten", self.forgotten)?;
        }
        for (reason, count) in self.not_fillable.iter().filter(|(_, count)| **count > 0) {
            write!(f, "\nnot filled   {count} {}", reason.sentence())?;
        }
        for list in &self.incomplete {
            write!(f, "\nINCOMPLETE   {}", list.shown(zone))?;
        }
        let named = self.incomplete.len() as u64;
        if self.incomplete_lists > named {
            write!(f, "\nINCOMPLETE   and {} more lists", self.incomplete_lists - named)?;
        }
        Ok(())
    }
}
