//! Is everything here? Compares the platform's own counts of a day (7.2.2.1: meetings, attendances, length; where that is refused,
//! 4.2.18: meetings) with the tables, and looks in history for the meetings that a day lacks, which is what backfill would find.
//!
//! The zone of the platform's days is not documented: of the two that are likely the one is taken that fits better. A day of which
//! events may still be pushed never counts as incomplete. The counts of a service provider's enterprises are added up, since one
//! subscriber may receive them all; what backfill would find is told of each.

pub mod compare;
mod report;
pub mod task;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backfill::{ComparisonError, Enterprises, PUSH_PERIOD, SeenEnterprise, merged_runs, seen_enterprises};
use convoke_core::time::{Clock, Millis};
use convoke_core::zone::TimeZone;
use convoke_log::{LogError, QuarterCounts, Snapshots};
use convoke_platform::{Class, Client, DayCounts, PlatformError};
pub use report::{ComparedDay, CompletenessReport, CountsSource, DayFigures, DayState};

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// Most days of one call (7.2.2.1).
const MAX_CALL_DAYS: usize = 31;

/// Most days that are compared.
pub const MAX_DAYS: usize = 184;

/// What a comparison needs.
#[derive(Clone, Debug)]
pub struct Completeness {
    /// The log whose tables are compared. They must have caught up with it.
    pub log: Arc<dyn Snapshots>,
    /// The platform.
    pub client: Client,
    /// The clock.
    pub clock: Clock,
    /// The configured subscribers.
    pub subscribers: Arc<[Arc<str>]>,
    /// The zone of the reports: that of the days where the platform's own are not used.
    pub zone: TimeZone,
}

impl Completeness {
    /// Compares the days from that of `since` to that of `until`; at most [`MAX_DAYS`].
    ///
    /// # Errors
    /// [`ComparisonError`]: nothing was compared.
    pub async fn compare(&self, since: Millis, until: Millis) -> Result<CompletenessReport, ComparisonError> {
        let Enterprises { seen: enterprises, refused: not_compared } =
            seen_enterprises(&self.subscribers, &self.client).await?;
        let now = self.clock.now();
        let (found, refused) = match self.statistics(&enterprises, since, until).await {
            Ok(found) if !found.is_empty() => (Some(found), None),
            Ok(_) => (None, Some("the platform's statistics have no day".to_owned())),
            // The edition has no dashboard, or the account no right to it: the history tells as much of meetings.
            Err(error) if matches!(error.class, Class::Configuration | Class::Token | Class::Bug) => {
                (None, Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        let (source, zone, days) = match found {
            Some(found) => {
                let candidates = compare::zones().map(|(_, zone)| compare::days(&zone, since, until));
                let from = candidates.iter().filter_map(|days| days.first()).map(|day| day.begins_at).min();
                let to = candidates.iter().filter_map(|days| days.last()).map(|day| day.ends_at).max();
                let (from, to) = from.zip(to).unwrap_or((since, until));
                let ours = self.ours(&enterprises, from, to).await?;
                let (zone, days) = compare::nearest(&found, &ours, &candidates, now.minus(PUSH_PERIOD));
                (CountsSource::Statistics, zone.to_owned(), days)
            }
            None => {
                let bounds = compare::days(&self.zone, since, until);
                let (from, to) =
                    (bounds.first().map_or(since, |day| day.begins_at), bounds.last().map_or(until, |day| day.ends_at));
                let ours = self.ours(&enterprises, from, to).await?;
                let mut days = Vec::with_capacity(bounds.len());
                for day in bounds {
                    let last = day.ends_at.minus(std::time::Duration::from_millis(1)).min(now);
                    let mut meetings = None;
                    for of in &enterprises {
                        let more = of.client.history_count(day.begins_at, last).await?;
                        meetings = sum(meetings, more);
                    }
                    let theirs =
                        meetings.map(|meetings| DayFigures { meetings: Some(meetings), ..DayFigures::default() });
                    days.push(compare::day(&day, theirs, &ours, now.minus(PUSH_PERIOD)));
                }
                (CountsSource::History, self.zone.name().to_owned(), days)
            }
        };
        let mut comparison = CompletenessReport::new(now, (source, refused), zone, days);
        for day in comparison.days.iter_mut().filter(|day| day.state == DayState::Differs) {
            let mut all = 0;
            for of in &enterprises {
                let missing = self.missing(&of.client, day.begins_at, day.ends_at).await?;
                all += missing;
                let corp_id = self.client.name_of(&of.client).filter(|_| missing > 0);
                day.would_fill_of.extend(corp_id.map(|corp_id| (corp_id, missing)));
            }
            day.would_fill = Some(all);
        }
        comparison.not_compared = not_compared.iter().map(ToString::to_string).collect();
        Ok(comparison)
    }

    /// The platform's counts by day; none where it has no statistics.
    async fn statistics(
        &self,
        enterprises: &[SeenEnterprise],
        since: Millis,
        until: Millis,
    ) -> Result<Vec<DayCounts>, PlatformError> {
        // Of which zone they are is found out by what they say.
        let days: BTreeSet<String> = compare::zones()
            .iter()
            .flat_map(|(_, zone)| compare::days(zone, since, until))
            .map(|day| day.to_string())
            .collect();
        let days: Vec<String> = days.into_iter().collect();
        let mut found: Vec<DayCounts> = Vec::new();
        for of in enterprises {
            for chunk in days.chunks(MAX_CALL_DAYS) {
                let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
                for counts in of.client.day_counts(first, last).rest().await? {
                    match found.iter_mut().find(|known| known.day == counts.day) {
                        Some(known) => {
                            known.meetings = sum(known.meetings, counts.meetings);
                            known.attendances = sum(known.attendances, counts.attendances);
                            known.seconds = sum(known.seconds, counts.seconds);
                        }
                        None => found.push(counts),
                    }
                }
            }
        }
        Ok(found)
    }

    /// The counts of the tables, of all subscribers to which the enterprises' events belong.
    async fn ours(
        &self,
        enterprises: &[SeenEnterprise],
        from: Millis,
        to: Millis,
    ) -> Result<Vec<QuarterCounts>, LogError> {
        let subscribers: BTreeSet<&str> = enterprises.iter().map(|of| &*of.subscriber_id).collect();
        let mut ours = Vec::new();
        for subscriber_id in subscribers {
            ours.extend(self.log.counts_by_quarter(subscriber_id, from, to).await?);
        }
        Ok(ours)
    }

    /// How many runs of these hours history has and the tables have not.
    async fn missing(&self, client: &Client, from: Millis, to: Millis) -> Result<u64, ComparisonError> {
        let mut pages = client.history(from, to);
        let mut missing = 0;
        loop {
            let page = match pages.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(missing),
                // What there is of it was counted.
                Err(error) if error.class == Class::Incomplete => return Ok(missing),
                Err(error) => return Err(error.into()),
            };
            let uuids: Vec<String> = page.into_iter().filter_map(|conference| conference.conf_uuid).collect();
            let known = merged_runs(self.log.known_runs(&uuids).await?);
            missing +=
                uuids.iter().filter(|uuid| known.get(*uuid).is_none_or(|known| known.run.started_at.is_none())).count()
                    as u64;
        }
    }
}

fn sum<T: std::ops::Add<Output = T>>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

/// The first day of a range of so many days that ends with the day before `now`'s.
#[must_use]
pub fn days_before(now: Millis, days: u32) -> (Millis, Millis) {
    (now.minus(DAY * days), now.minus(DAY))
}
