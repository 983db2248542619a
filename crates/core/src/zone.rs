//! Time zones: which day a time is on, how it is shown, and what a time means that is written without an offset.
//!
//! The IANA database is in the program, so that a day is the same on every machine, also in a container that has none.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{self, TimeZoneDatabase};

use crate::time::Millis;

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZone(tz::TimeZone);

/// UTC.
impl Default for TimeZone {
    fn default() -> Self {
        Self(tz::TimeZone::UTC)
    }
}

impl TimeZone {
    /// The time zone with this name, in whatever case.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, UnknownTimeZone> {
        DATABASE.get(name).map(Self).map_err(|_| UnknownTimeZone)
    }

    /// The one whose clocks are always so many minutes ahead of UTC.
    #[must_use]
    pub fn ahead(minutes: i32) -> Self {
        Self(tz::Offset::from_seconds(minutes.saturating_mul(60)).unwrap_or(tz::Offset::UTC).to_time_zone())
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = String> {
        DATABASE.available().map(|name| name.to_string())
    }

    /// Its name, for example `Asia/Shanghai`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// How far its clocks are ahead of UTC at `at`, in seconds.
    #[must_use]
    pub fn offset(&self, at: Millis) -> i32 {
        self.0.to_offset(timestamp(at)).seconds()
    }

    /// The time as its clocks show it, with their offset: RFC 3339 with three decimals.
    #[must_use]
    pub fn local(&self, at: Millis) -> LocalTime<'_> {
        LocalTime { zone: self, at }
    }

    /// The day that `at` is on.
    #[must_use]
    pub fn day(&self, at: Millis) -> Day {
        self.day_of(self.0.to_datetime(timestamp(at)).date())
    }

    /// The days from the one that `since` is on until before `until`, at most `limit`.
    #[must_use]
    pub fn days(&self, since: Millis, until: Millis, limit: usize) -> Vec<Day> {
        let mut days = Vec::new();
        let mut date = self.0.to_datetime(timestamp(since)).date();
        while days.len() < limit {
            let day = self.day_of(date);
            if day.begins_at >= until {
                break;
            }
            // Where clocks skipped a whole day, it never was.
            if day.begins_at < day.ends_at {
                days.push(day);
            }
            match date.tomorrow() {
                Ok(next) => date = next,
                Err(_) => break,
            }
        }
        days
    }

    fn day_of(&self, date: Date) -> Day {
        let next = date.tomorrow().unwrap_or(date);
        Day { date, begins_at: self.read_local(date.into()), ends_at: self.read_local(next.into()) }
    }

    /// The moment at which clocks show `local`. If they skip it, that many minutes after they did; if they show it twice, the
    /// first time (the rule of RFC 5545). So a day begins with its first moment, even if it has no midnight.
    fn read_local(&self, local: DateTime) -> Millis {
        self.0.to_ambiguous_timestamp(local).compatible().map_or(Millis::MAX, millis)
    }
}

/// There is no such time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the name of a time zone")]
pub struct UnknownTimeZone;

/// A day of a time zone, of 23 to 25 hours. It shows as `2026-03-01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    date: Date,
    /// Its first moment.
    pub begins_at: Millis,
    /// The first moment of the next one.
    pub ends_at: Millis,
}

impl Day {
    /// The year.
    #[must_use]
    pub fn year(&self) -> i16 {
        self.date.year()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.date.fmt(f)
    }
}

/// A time as clocks show it, with their offset; in UTC the same as [`Millis`].
#[derive(Clone, Copy, Debug)]
pub struct LocalTime<'a> {
    zone: &'a TimeZone,
    at: Millis,
}

impl fmt::Display for LocalTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.zone.name() == "UTC" {
            return self.at.fmt(f);
        }
        let at = timestamp(self.at);
        write!(f, "{:.3}", at.display_with_offset(self.zone.0.to_offset(at)))
    }
}

/// A time as a person wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenTime {
    /// With an offset: a moment.
    Moment(Millis),
    /// Without one: what clocks show, wherever they are. A date is its first moment.
    Local(DateTime),
}

impl WrittenTime {
    /// The moment, if it was meant in this zone.
    #[must_use]
    pub fn in_zone(self, zone: &TimeZone) -> Millis {
        match self {
            Self::Moment(at) => at,
            Self::Local(local) => zone.read_local(local),
        }
    }
}

impl FromStr for WrittenTime {
    type Err = String;

    /// Reads RFC 3339, with or without its seconds and its offset, or a date. Times out of range become the nearest limit.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let refused = |problem: String| format!("{problem}; write for example 2026-03-01, or 2026-03-01 08:30");
        // A name in brackets would be passed over, and so would an offset behind a date.
        if text.contains('[') {
            return Err(refused("a time has an offset as in +08:00, not the name of a time zone".to_owned()));
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::Moment(millis(at)));
        }
        match text.parse::<DateTime>() {
            Ok(local) if !text.get(10..).is_some_and(|tail| tail.contains(['+', '-', 'Z', 'z'])) => {
                Ok(Self::Local(local))
            }
            Ok(_) => Err(refused("the offset is wrong".to_owned())),
            Err(error) => Err(refused(error.to_string())),
        }
    }
}

fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(at.get()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Times out of range become the nearest limit.
fn millis(at: Timestamp) -> Millis {
    Millis::new(at.as_millisecond().max(0)).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::named(name).expect(name)
    }

    fn at(text: &str) -> Millis {
        Millis::parse(text).expect(text)
    }

    #[test]
    fn a_time_without_an_offset_is_that_of_the_zone() {
        let shanghai = zone("asia/shanghai");
        assert_eq!(shanghai.name(), "Asia/Shanghai");
        let read = |text: &str| text.parse::<WrittenTime>().map(|time| time.in_zone(&shanghai).to_string());
        for text in [
            "2026-11-27 08:00",
            "2026-11-27T08:00",
            " 2026-11-27T08:00:00 ",
            "2026-11-27 08:00:00.000",
            "2026-11-27T00:00:00Z",
            "2026-11-27 00:00Z",
            "2026-11-27T01:00:00+01:00",
        ] {
            assert_eq!(read(text).as_deref(), Ok("2026-11-27T00:00:00.000Z"), "{text}");
        }
        assert_eq!(read("2026-11-27").as_deref(), Ok("2026-11-26T16:00:00.000Z"));
        assert_eq!(read("1900-01-01").as_deref(), Ok("1970-01-01T00:00:00.000Z"));
        for text in ["soon", "2026-02-30", "2026-11-27 25:00", "2026-11-27+08:00", "2026-11-27T08:00[Asia/Tokyo]", ""] {
            let refused = read(text).expect_err(text);
            assert!(refused.contains("write for example 2026-03-01, or 2026-03-01 08:30"), "{refused}");
        }
    }

    #[test]
    fn what_clocks_skip_is_after_the_gap_and_what_they_show_twice_is_the_first() {
        let berlin = zone("Europe/Berlin");
        let read = |text: &str| text.parse::<WrittenTime>().expect(text).in_zone(&berlin).to_string();
        assert_eq!(read("2026-03-29 02:30"), "2026-03-29T01:30:00.000Z");
        assert_eq!(read("2026-03-29 03:30"), "2026-03-29T01:30:00.000Z");
        assert_eq!(read("2026-10-25 02:30"), "2026-10-25T00:30:00.000Z");
        assert_eq!(read("2026-10-25T02:30+01:00"), "2026-10-25T01:30:00.000Z");
    }

    #[test]
    fn days_have_23_to_25_hours_and_begin_with_their_first_moment() {
        let hours = |zone: &TimeZone, at: Millis| {
            let day = zone.day(at);
            (day.to_string(), day.begins_at.to_string(), day.ends_at.since(day.begins_at).as_secs() / 3_600)
        };
        let berlin = zone("Europe/Berlin");
        let day = |date: &str, begins: &str, hours| (date.to_owned(), begins.to_owned(), hours);
        let noon = |date: &str| at(&format!("{date}T12:00:00.000Z"));
        assert_eq!(hours(&berlin, noon("2026-03-29")), day("2026-03-29", "2026-03-28T23:00:00.000Z", 23));
        assert_eq!(hours(&berlin, noon("2026-10-25")), day("2026-10-25", "2026-10-24T22:00:00.000Z", 25));
        // Without a midnight, and with two.
        let (cairo, havana) = (zone("Africa/Cairo"), zone("America/Havana"));
        assert_eq!(hours(&cairo, noon("2026-04-24")), day("2026-04-24", "2026-04-23T22:00:00.000Z", 23));
        assert_eq!(hours(&havana, noon("2024-11-03")), day("2024-11-03", "2024-11-03T04:00:00.000Z", 25));
        let year = berlin.days(at("2025-12-31T23:00:00.000Z"), at("2026-12-31T23:00:00.000Z"), 1_000);
        assert_eq!((year.len(), year[0].to_string()), (365, "2026-01-01".to_owned()));
        assert!(year.windows(2).all(|pair| pair[0].ends_at == pair[1].begins_at));
        assert_eq!(berlin.days(Millis::EPOCH, Millis::MAX, 3).len(), 3);
    }

    #[test]
    fn a_local_time_shows_its_offset_and_utc_is_written_as_ever() {
        let at = at("2026-11-27T00:30:00.250Z");
        assert_eq!(zone("Asia/Shanghai").local(at).to_string(), "2026-11-27T08:30:00.250+08:00");
        assert_eq!(zone("America/St_Johns").local(at).to_string(), "2026-11-26T21:00:00.250-03:30");
        assert_eq!(zone("Europe/London").local(at).to_string(), "2026-11-27T00:30:00.250+00:00");
        assert_eq!(TimeZone::default().local(at).to_string(), at.to_string());
        assert!(TimeZone::named("Asia/Atlantis").is_err() && TimeZone::names().count() > 400);
    }
}
