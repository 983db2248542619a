//! The result of a comparison, for people and for programs. The last one is kept as a note.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::counted;
use convoke_core::time::Millis;

convoke_core::words! {
    /// Whether everything of a day is here.
    pub enum DayState as "DayState" {
        /// The platform has no more than we.
        Complete = "complete",
        /// The platform has more.
        Differs = "differs",
        /// Events of it may still be pushed.
        Young = "young",
        /// The platform tells nothing of it.
        Unknown = "unknown",
    }
}

convoke_core::words! {
    /// Where the platform's counts are from.
    pub enum CountsSource as "CountsSource" {
        /// Its statistics (7.2.2.1).
        Statistics = "statistics",
        /// Its history (4.2.18), which has meetings only.
        History = "history",
    }
}

/// What was on a day; `None`: it is not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayFigures {
    /// Meetings that began, each time that one was held.
    pub meetings: Option<u64>,
    /// Attendances that began.
    pub attendances: Option<u64>,
    /// Length of those meetings together, in seconds.
    pub seconds: Option<u64>,
}

/// One day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedDay {
    /// `YYYY-MM-DD`, of [`CompletenessReport::zone`].
    pub day: String,
    /// Its first moment …
    #[serde(with = "text")]
    pub begins_at: Millis,
    /// … and that of the next.
    #[serde(with = "text")]
    pub ends_at: Millis,
    /// What the platform counts.
    pub platform: DayFigures,
    /// What the tables have.
    pub here: DayFigures,
    /// Whether it is complete.
    pub state: DayState,
    /// How many of its meetings history has and the tables have not: what backfill would add. Only of a day that differs.
    /// Attendances that are missing in meetings that are here are not counted; backfill adds them, too.
    pub would_fill: Option<u64>,
    /// The same of each enterprise of a service provider, where there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub would_fill_of: BTreeMap<String, u64>,
}

impl ComparedDay {
    /// How many meetings are missing here.
    #[must_use]
    pub fn missing_meetings(&self) -> u64 {
        self.platform.meetings.unwrap_or(0).saturating_sub(self.here.meetings.unwrap_or(0))
    }
}

/// What was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletenessReport {
    /// When.
    #[serde(with = "text")]
    pub compared_at: Millis,
    /// Where the platform's counts are from.
    pub source: CountsSource,
    /// Why they are not from its statistics.
    pub refused: Option<String>,
    /// Of which zone the days are.
    pub zone: String,
    /// How many days were compared: not too young, and counted by the platform.
    pub compared: usize,
    /// How many of them differ.
    pub differing: usize,
    /// How many meetings are missing on those.
    pub missing_meetings: u64,
    /// The days.
    pub days: Vec<ComparedDay>,
    /// Which of a service provider's enterprises were refused, and why: the platform's counts are without theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<String>,
}

impl CompletenessReport {
    /// Of these days.
    #[must_use]
    pub fn new(
        compared_at: Millis,
        (source, refused): (CountsSource, Option<String>),
        zone: String,
        days: Vec<ComparedDay>,
    ) -> Self {
        let differing = days.iter().filter(|day| day.state == DayState::Differs);
        Self {
            compared_at,
            source,
            refused,
            zone,
            compared: days.iter().filter(|day| matches!(day.state, DayState::Complete | DayState::Differs)).count(),
            differing: differing.clone().count(),
            missing_meetings: differing.map(ComparedDay::missing_meetings).sum(),
            days,
            not_compared: Vec::new(),
        }
    }
}

impl fmt::Display for CompletenessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let hours =
            |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{}", seconds / 3_600));
        writeln!(f, "{:10}  {:^17}  {:^17}  {:^17}", "", "meetings", "attendances", "hours")?;
        writeln!(
            f,
            "{:10}  {:>8} {:>8}  {:>8} {:>8}  {:>8} {:>8}",
            "day", "platform", "here", "platform", "here", "platform", "here"
        )?;
        for day in &self.days {
            let (theirs, ours) = (&day.platform, &day.here);
            write!(
                f,
                "{:10}  {:>8} {:>8}  {:>8} {:>8}  {:>8} {:>8}  ",
                day.day,
                count(theirs.meetings),
                count(ours.meetings),
                count(theirs.attendances),
                count(ours.attendances),
                hours(theirs.seconds),
                hours(ours.seconds)
            )?;
            match day.state {
                DayState::Complete => writeln!(f, "complete")?,
                DayState::Young => writeln!(f, "too young: events may still be pushed")?,
                DayState::Unknown => writeln!(f, "the platform tells nothing of it")?,
                DayState::Differs => {
                    let would = match day.would_fill.unwrap_or(0) {
                        0 => "attendances are missing in meetings that are here".to_owned(),
                        would => format!("history has {} that are not here", counted(would, "meeting", "meetings")),
                    };
                    let of = |(corp_id, meetings): (&String, &u64)| format!("{meetings} of {corp_id}");
                    let of: Vec<String> = day.would_fill_of.iter().map(of).collect();
                    let of = if of.is_empty() { String::new() } else { format!(" ({})", of.join(", ")) };
                    let (from, to) = (day.begins_at, day.ends_at);
                    writeln!(f, "DIFFERS: {would}{of}: convoke backfill --since {from} --until {to}")?;
                }
            }
        }
        let from = match self.source {
            CountsSource::Statistics => "the platform's statistics (7.2.2.1)",
            CountsSource::History => "the platform's history (4.2.18), which counts meetings only",
        };
        write!(f, "by {from}, in days of {}", self.zone)?;
        if let Some(refused) = &self.refused {
            write!(f, "; its statistics: {refused}")?;
        }
        self.not_compared.iter().try_for_each(|refused| write!(f, "\nNOT COMPARED: {refused}"))
    }
}

/// Times as texts.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use convoke_core::time::Millis;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(at: &Millis, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
        let text = String::deserialize(from)?;
        Millis::parse(&text).ok_or_else(|| serde::de::Error::custom("no time"))
    }
}
