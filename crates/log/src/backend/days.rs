//! The table `days`: what a day is, for the views.

use super::Backend;
use crate::query::{Begin, Connection, Dialect};
use crate::{DaysKept, LogError};
use convoke_core::time::Millis;
use convoke_core::zone::{Day, TimeZone};

/// 2015-01-01T00:00:00Z: nothing is older.
const FIRST: Millis = match Millis::new(1_420_070_400_000) {
    Some(at) => at,
    None => Millis::EPOCH,
};

/// So many years are complete beyond the present one. Fewer would be enough: it is looked at every hour.
const YEARS_AHEAD: i16 = 2;

/// A day as it is stored, and whose it is.
type Stored = (String, Millis, Millis, String);

fn days(zone: &TimeZone, now: Millis) -> Vec<Day> {
    let last_year = zone.day(now).year().saturating_add(YEARS_AHEAD);
    let mut days = zone.days(FIRST, Millis::MAX, usize::from(last_year.unsigned_abs()).saturating_sub(2014) * 366 + 2);
    days.retain(|day| day.year() <= last_year);
    days
}

impl Backend {
    pub(super) async fn write_days(&self, zone: &TimeZone, now: Millis, replace: bool) -> Result<DaysKept, LogError> {
        let days = days(zone, now);
        let wanted = days.iter().map(|day| (day.to_string(), day.begins_at, day.ends_at, zone.name().to_owned()));
        let wanted: Vec<Stored> = wanted.collect();
        let as_before = |stored: &[Stored]| {
            let theirs = stored.first().map(|day| &*day.3).filter(|theirs| *theirs != zone.name());
            match theirs {
                Some(theirs) if !replace => Some(DaysKept::OfAnother(theirs.to_owned())),
                _ => (stored == wanted).then_some(DaysKept::AsBefore),
            }
        };
        let stored = "SELECT CAST(day AS text), begins_at, ends_at, time_zone FROM days ORDER BY days.day";
        let read = async |connection: &mut Connection<'_>| connection.fetch::<Stored>(connection.query(stored)).await;
        // Nearly always there is nothing to do.
        if let Some(kept) = as_before(&self.transaction(Begin::ReadKeys, read).await?) {
            return Ok(kept);
        }
        let insert = match self.dialect() {
            Dialect::Postgres => {
                "INSERT INTO days SELECT CAST(value ->> 0 AS date), CAST(value ->> 1 AS timestamptz),
                        CAST(value ->> 2 AS timestamptz), $2 FROM jsonb_array_elements(CAST($1 AS jsonb)) AS d (value)"
            }
            Dialect::Sqlite => "INSERT INTO days SELECT value ->> 0, value ->> 1, value ->> 2, $2 FROM json_each($1)",
        };
        let rows = wanted.iter().map(|(day, begins, ends, _)| vec![day.clone(), begins.to_string(), ends.to_string()]);
        let insert = self.query(insert).bind_json(rows).bind(zone.name());
        self.transaction(Begin::Write, async |connection| {
            if connection.dialect() == Dialect::Postgres {
                // Another replica may be doing the same.
                connection.execute(connection.query("LOCK TABLE days IN SHARE ROW EXCLUSIVE MODE")).await?;
            }
            if let Some(kept) = as_before(&read(connection).await?) {
                return Ok(kept);
            }
            connection.execute(connection.query("DELETE FROM days")).await?;
            connection.execute(insert).await?;
            Ok(DaysKept::Written)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_days_for_all_that_happened_and_until_well_ahead() {
        let now = Millis::parse("2026-12-31T20:00:00.000Z").expect("a time");
        let named = |name: &str| {
            let days = days(&TimeZone::named(name).expect(name), now);
            assert!(days.windows(2).all(|pair| pair[0].ends_at == pair[1].begins_at), "{name}");
            (days[0].to_string(), days[days.len() - 1].to_string())
        };
        assert_eq!(named("UTC"), ("2015-01-01".to_owned(), "2028-12-31".to_owned()));
        assert_eq!(named("Asia/Shanghai"), ("2015-01-01".to_owned(), "2029-12-31".to_owned()));
        assert_eq!(named("America/New_York"), ("2014-12-31".to_owned(), "2028-12-31".to_owned()));
    }
}
