//! Days, counts, and what they differ in. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use convoke_core::time::Millis;
use convoke_core::zone::{Day, TimeZone};
use convoke_log::QuarterCounts;
use convoke_platform::DayCounts;

use super::report::{ComparedDay, DayFigures, DayState};

const MINUTE_MS: i64 = 60_000;
/// Length of the pieces in which the tables are counted.
const QUARTER_MS: i64 = 15 * MINUTE_MS;

/// So many more at the platform are no difference; or this share, if that is more. Meetings that nobody entered, and what began
/// in the last moments of a day, count differently here and there.
const MIN_DIFFERENCE: u64 = 2;
const MIN_SHARE_PERCENT: u64 = 2;

/// The zones of which the platform's days may be: China's, since the manual's samples cut days at 16:00 UTC, or UTC, as the other
/// times of its lists.
#[must_use]
pub fn zones() -> [(&'static str, TimeZone); 2] {
    [("UTC+08:00", TimeZone::ahead(8 * 60)), ("UTC", TimeZone::default())]
}

/// The days from that of `since` to that of `until`, both included; at most [`super::MAX_DAYS`].
#[must_use]
pub fn days(zone: &TimeZone, since: Millis, until: Millis) -> Vec<Day> {
    zone.days(since, until.plus(Duration::from_millis(1)), super::MAX_DAYS)
}

fn figures(counts: &DayCounts) -> DayFigures {
    let count = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    DayFigures {
        meetings: count(counts.meetings),
        attendances: count(counts.attendances),
        seconds: count(counts.seconds),
    }
}

fn ours(day: &Day, quarters: &Quarters<'_>) -> [u64; 3] {
    let range = day.begins_at.get().div_euclid(QUARTER_MS)..day.ends_at.get().div_euclid(QUARTER_MS);
    let mut sum = [0_u64; 3];
    for counts in range.filter_map(|quarter| quarters.get(&quarter)).flatten() {
        sum[0] += counts.meetings;
        sum[1] += counts.attendances;
        sum[2] += counts.seconds;
    }
    sum
}

/// One day. `settled` is the time before which everything has been pushed that will be.
#[must_use]
pub fn day(bounds: &Day, platform: Option<DayFigures>, quarters: &[QuarterCounts], settled: Millis) -> ComparedDay {
    judged(bounds, platform, &by_quarter(quarters), settled)
}

/// Counts by quarter: one for each subscriber.
type Quarters<'a> = HashMap<i64, Vec<&'a QuarterCounts>>;

fn by_quarter(quarters: &[QuarterCounts]) -> Quarters<'_> {
    let mut by_quarter = Quarters::new();
    quarters.iter().for_each(|counts| by_quarter.entry(counts.quarter).or_default().push(counts));
    by_quarter
}

fn judged(bounds: &Day, platform: Option<DayFigures>, quarters: &Quarters<'_>, settled: Millis) -> ComparedDay {
    let [meetings, attendances, seconds] = ours(bounds, quarters);
    let state = match platform {
        _ if bounds.ends_at > settled => DayState::Young,
        None if meetings == 0 => DayState::Complete,
        None => DayState::Unknown,
        Some(theirs) if lacks(theirs.meetings, meetings) || lacks(theirs.attendances, attendances) => DayState::Differs,
        Some(_) => DayState::Complete,
    };
    ComparedDay {
        day: bounds.to_string(),
        begins_at: bounds.begins_at,
        ends_at: bounds.ends_at,
        platform: platform.unwrap_or_default(),
        here: DayFigures { meetings: Some(meetings), attendances: Some(attendances), seconds: Some(seconds) },
        state,
        would_fill: None,
        would_fill_of: BTreeMap::new(),
    }
}

/// Whether the platform has more, beyond what does not matter. More here is another day's bound, or counted differently.
fn lacks(platform: Option<u64>, here: u64) -> bool {
    platform
        .is_some_and(|platform| platform.saturating_sub(here) > MIN_DIFFERENCE.max(platform * MIN_SHARE_PERCENT / 100))
}

/// The days in the zone in which they differ less.
#[must_use]
pub fn nearest(
    found: &[DayCounts],
    quarters: &[QuarterCounts],
    candidates: &[Vec<Day>; 2],
    settled: Millis,
) -> (&'static str, Vec<ComparedDay>) {
    let told: HashMap<&str, DayFigures> =
        found.iter().filter_map(|counts| Some((counts.day.as_deref()?, figures(counts)))).collect();
    let quarters = by_quarter(quarters);
    let days = |bounds: &Vec<Day>| -> Vec<ComparedDay> {
        bounds.iter().map(|day| judged(day, told.get(&*day.to_string()).copied(), &quarters, settled)).collect()
    };
    let apart = |days: &[ComparedDay]| -> u64 {
        let apart = |one: Option<u64>, other: Option<u64>| one.zip(other).map_or(0, |(one, other)| one.abs_diff(other));
        let of_day = |day: &ComparedDay| {
            apart(day.platform.meetings, day.here.meetings) + apart(day.platform.attendances, day.here.attendances)
        };
        days.iter().filter(|day| day.state != DayState::Young).map(of_day).sum()
    };
    let ([china, utc], [(eight_ahead, _), (zero, _)]) = (candidates.each_ref().map(days), zones());
    if apart(&utc) < apart(&china) { (zero, utc) } else { (eight_ahead, china) }
}

/// A reading of the platform's count of today's meetings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TodayReading {
    /// Of which enterprise, of a service provider's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corp_id: Option<String>,
    /// When it was read, in milliseconds.
    pub at: i64,
    /// The count.
    pub meetings: i64,
}

/// Before the first and after the second of two readings so much time has to pass without any event.
const SILENCE_MS: i64 = 30 * MINUTE_MS;

/// Since when the platform counts meetings and nothing arrives: the first of two readings between which its count grew, if no event
/// arrived from half an hour before it until half an hour after the second. A count that fell is another day's.
#[must_use]
pub fn silent_since(readings: &[TodayReading], last_event: Option<Millis>, now: Millis) -> Option<Millis> {
    let heard = last_event.map_or(i64::MIN, Millis::get);
    let mut by_enterprise: BTreeMap<&Option<String>, Vec<&TodayReading>> = BTreeMap::new();
    readings.iter().for_each(|reading| by_enterprise.entry(&reading.corp_id).or_default().push(reading));
    let pairs = by_enterprise.values().flat_map(|readings| readings.windows(2));
    let grew = pairs.filter(|pair| pair[1].meetings > pair[0].meetings);
    let silent = |pair: &&[&TodayReading]| heard < pair[0].at - SILENCE_MS && pair[1].at + SILENCE_MS <= now.get();
    grew.filter(|pair| silent(pair)).map(|pair| pair[0].at).min().and_then(Millis::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_789_948_800_000; // midnight, UTC

    fn at(hour: i64) -> Millis {
        Millis::new(START + hour * 3_600_000).expect("a time")
    }

    fn quarter(hour: i64, meetings: u64, attendances: u64) -> QuarterCounts {
        QuarterCounts { quarter: at(hour).get() / QUARTER_MS, meetings, attendances, seconds: meetings * 600 }
    }

    fn told(day: &str, meetings: i64, attendances: i64) -> DayCounts {
        let (day, seconds) = (Some(day.to_owned()), Some(meetings * 600));
        DayCounts { day, meetings: Some(meetings), attendances: Some(attendances), seconds }
    }

    fn compared(found: &[DayCounts], ours: &[QuarterCounts]) -> (&'static str, Vec<DayState>) {
        let candidates = zones().map(|(_, zone)| days(&zone, at(0), at(47)));
        let (zone, compared) = nearest(found, ours, &candidates, at(1_000));
        (zone, compared.iter().map(|day| day.state).collect())
    }

    #[test]
    fn the_days_are_those_of_the_zone_that_fits_better() {
        // At 01:00, 20:00 and 30:00 UTC; in China the second is on the next day.
        let ours = [quarter(1, 5, 50), quarter(20, 7, 70), quarter(30, 9, 90)];
        let names = |zone: &TimeZone| days(zone, at(0), at(47)).iter().map(ToString::to_string).collect::<Vec<_>>();
        let [(_, eight_ahead), (_, zero)] = zones();
        let (utc, china) = (names(&zero), names(&eight_ahead));
        assert_eq!((utc.len(), china.len()), (2, 3));
        let found = [told(&utc[0], 12, 120), told(&utc[1], 9, 90)];
        assert_eq!(compared(&found, &ours), ("UTC", vec![DayState::Complete; 2]));
        let found = [told(&china[0], 5, 50), told(&china[1], 16, 160)];
        assert_eq!(compared(&found, &ours), ("UTC+08:00", vec![DayState::Complete; 3]));
    }

    #[test]
    fn more_at_the_platform_differs_and_more_here_or_two_does_not() {
        let day = TimeZone::default().day(at(0));
        let state = |meetings: u64, attendances: u64, settled: i64| {
            let theirs = DayFigures { meetings: Some(meetings), attendances: Some(attendances), seconds: None };
            super::day(&day, Some(theirs), &[quarter(3, 100, 1_000)], at(settled)).state
        };
        assert_eq!(state(100, 1_000, 48), DayState::Complete);
        assert_eq!(state(102, 1_020, 48), DayState::Complete, "two, or two per cent");
        assert_eq!(state(103, 1_000, 48), DayState::Differs);
        assert_eq!(state(100, 1_022, 48), DayState::Differs);
        assert_eq!(state(50, 400, 48), DayState::Complete, "counted differently");
        assert_eq!(state(200, 2_000, 23), DayState::Young);
        let untold = |hour| super::day(&day, None, &[quarter(hour, 1, 1)], at(48)).state;
        assert_eq!((untold(3), untold(30)), (DayState::Unknown, DayState::Complete));
    }

    #[test]
    fn meetings_that_the_platform_counts_while_nothing_arrives_are_told_within_the_hour() {
        let minute = |minute: i64| Millis::new(START + minute * 60_000).expect("a time");
        let readings = [(0, 3), (15, 3), (30, 4), (45, 6)].map(|(at, meetings)| TodayReading {
            corp_id: None,
            at: minute(at).get(),
            meetings,
        });
        let silent = |heard: i64, now: i64| silent_since(&readings, Some(minute(heard)), minute(now));
        assert_eq!(silent(-60, 59), None, "its events may still come");
        assert_eq!(silent(-60, 60), Some(minute(15)));
        assert_eq!(silent(5, 90), None, "something was heard shortly before");
        assert_eq!(silent(-10, 90), Some(minute(30)), "and nothing since");
        assert_eq!(silent(50, 90), None);
        assert_eq!(silent_since(&readings, None, minute(60)), Some(minute(15)), "nothing ever arrived");
        let fell =
            [(0, 30), (15, 0)].map(|(at, meetings)| TodayReading { corp_id: None, at: minute(at).get(), meetings });
        assert_eq!(silent_since(&fell, None, minute(300)), None, "another day");
    }
}
