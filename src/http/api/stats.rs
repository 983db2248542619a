//! How much there was, over time.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::QUERY_TIMEOUT;
use super::error::{ApiError, Refusals};
use super::params::{AskedTime, Number, Params, Time};
use convoke_core::time::Millis;
use convoke_core::zone::{Day, TimeZone};

/// So many points at the most.
const MAX_POINTS: u64 = 1_500;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

convoke_core::words! {
    /// How far apart the points are.
    pub(crate) enum Step as "Step" { Minute = "minute", TenMinutes = "10m", Hour = "hour", Day = "day" }
}

impl Step {
    const fn seconds(self) -> u64 {
        match self {
            Self::Minute => MINUTE,
            Self::TenMinutes => 10 * MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
        }
    }
}

/// Which time.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RangeParams {
    /// From the step that holds this time on: RFC 3339, or a date, which is its first moment. Without an offset it is a time of
    /// the setting `reports.time_zone`.
    #[param(inline)]
    since: Option<AskedTime>,
    /// Until the step before this time; now unless told otherwise.
    #[param(inline)]
    until: Option<AskedTime>,
    /// How far apart the points are. At most 1,500 of them.
    #[param(inline)]
    step: Option<Step>,
}

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DayParams {
    /// From the day that holds this time on; the last 31 days unless told otherwise.
    #[param(inline)]
    since: Option<AskedTime>,
    /// Until the day before this time; now unless told otherwise. At most 1,500 days.
    #[param(inline)]
    until: Option<AskedTime>,
    /// How far the days are ahead of UTC, in minutes: 480 for China. Days of the setting `reports.time_zone` unless told
    /// otherwise.
    #[param(inline)]
    utc_offset_minutes: Option<Number<-1080, 1080>>,
}

/// Events over time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    /// How far apart the points are.
    step: Step,
    /// One for each step, also for those without events.
    points: Vec<EventsAt>,
}

/// The events of a step.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct EventsAt {
    /// When the step begins.
    pub at: Time,
    /// How many events of the log happened in it.
    pub events: i64,
}

/// People over time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Participants {
    /// How far apart the points are.
    step: Step,
    /// One for each step.
    points: Vec<ParticipantsAt>,
}

/// The people of a step.
#[derive(Debug, Serialize, ToSchema)]
struct ParticipantsAt {
    /// When the step begins.
    at: Time,
    /// How many distinct people were in meetings in it. Of whom no leaving was told, until the last event of their run.
    participants: i64,
}

/// Meetings, day by day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Meetings {
    /// One for each day, also for those without meetings.
    points: Vec<MeetingsOn>,
}

/// The meetings of a day.
#[derive(Debug, Serialize, ToSchema)]
struct MeetingsOn {
    /// The day.
    #[schema(format = Date)]
    day: String,
    /// Runs that began on it: scheduled ones that nobody has entered do not count.
    meetings: i64,
    /// How many distinct people were in meetings on this day, whenever these began.
    participants: i64,
    /// The distinct people of each of the runs that began on it, together: somebody in two of them counts twice.
    attendances: i64,
    /// Their stays.
    stays: i64,
}

/// Where steps begin, and where the last one ends: at round times of the zone's clocks.
fn bounds(since: Millis, until: Millis, step: Step, zone: &TimeZone) -> Result<Vec<Millis>, ApiError> {
    if step == Step::Day {
        let days = days(since, until, zone)?;
        let last = days.last().map(|day| day.ends_at);
        return Ok(days.into_iter().map(|day| day.begins_at).chain(last).collect());
    }
    let shift = i64::from(zone.offset(since)) * 1_000;
    let step = i64::try_from(step.seconds()).unwrap_or(i64::MAX) * 1_000;
    let first = (since.get() + shift).div_euclid(step) * step - shift;
    let count = (until.get() - first).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    if count > MAX_POINTS {
        return Err(too_many());
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    // A step may begin before there was time.
    Ok((0..=i64::try_from(count).unwrap_or(0))
        .map(|n| Millis::new((first + n * step).max(0)).unwrap_or(Millis::MAX))
        .collect())
}

/// The days from that of `since` until before `until`.
fn days(since: Millis, until: Millis, zone: &TimeZone) -> Result<Vec<Day>, ApiError> {
    let limit = usize::try_from(MAX_POINTS).unwrap_or(usize::MAX);
    let days = zone.days(since, until, limit + 1);
    if days.len() > limit { Err(too_many()) } else { Ok(days) }
}

fn too_many() -> ApiError {
    ApiError::bad(format!("allowed are {MAX_POINTS} points at the most: a shorter range or a longer step"))
}

impl RangeParams {
    /// The step, and where the steps begin; without a word, the last `seconds` by `step`.
    fn steps(&self, api: &Api, step: Step, seconds: u64) -> Result<(Step, Vec<Millis>), ApiError> {
        let step = self.step.unwrap_or(step);
        let until = self.until.map_or_else(|| api.now(), |time| time.in_zone(&api.zone));
        let since = self.since.map_or(until.minus(Duration::from_secs(seconds)), |time| time.in_zone(&api.zone));
        Ok((step, bounds(since, until, step, &api.zone)?))
    }
}

/// How many events happened in each step; of the last 60 minutes, minute by minute, unless told otherwise.
#[utoipa::path(
    get,
    path = "/api/v1/stats/events",
    operation_id = "count_events",
    tag = "statistics",
    params(RangeParams),
    responses((status = 200, description = "Events over time.", body = Events), Refusals)
)]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Params(params): Params<RangeParams>,
) -> Result<Json<Events>, ApiError> {
    let api = &*api;
    let (step, bounds) = params.steps(api, Step::Minute, 60 * MINUTE)?;
    let counts = api.ask(api.log.count_events(&bounds, QUERY_TIMEOUT)).await?;
    let points = bounds.into_iter().zip(counts).map(|(at, events)| EventsAt { at: Time(at), events });
    Ok(Json(Events { step, points: points.collect() }))
}

/// How many people were in meetings in each step; of the last 24 hours, by 10 minutes, unless told otherwise.
#[utoipa::path(
    get,
    path = "/api/v1/stats/participants",
    operation_id = "count_participants",
    tag = "statistics",
    params(RangeParams),
    responses((status = 200, description = "People over time.", body = Participants), Refusals)
)]
pub(super) async fn participants(
    State(api): State<Arc<Api>>,
    Params(params): Params<RangeParams>,
) -> Result<Json<Participants>, ApiError> {
    let api = &*api;
    let (step, bounds) = params.steps(api, Step::TenMinutes, DAY)?;
    let mut counts = Vec::new();
    for (since, length, steps) in even(&bounds) {
        counts.extend(api.ask(api.log.count_participants(since, length, steps, QUERY_TIMEOUT)).await?);
    }
    let points = bounds.into_iter().zip(counts).map(|(at, participants)| ParticipantsAt { at: Time(at), participants });
    Ok(Json(Participants { step, points: points.collect() }))
}

/// How many meetings were held on each day, and how many people came; of the last 31 days unless told otherwise.
#[utoipa::path(
    get,
    path = "/api/v1/stats/meetings",
    operation_id = "count_meetings",
    tag = "statistics",
    params(DayParams),
    responses((status = 200, description = "Meetings, day by day.", body = Meetings), Refusals)
)]
pub(super) async fn meetings(
    State(api): State<Arc<Api>>,
    Params(params): Params<DayParams>,
) -> Result<Json<Meetings>, ApiError> {
    let api = &*api;
    let zone = params
        .utc_offset_minutes
        .map_or_else(|| api.zone.clone(), |minutes| TimeZone::ahead(i32::try_from(minutes.0).unwrap_or(0)));
    let until = params.until.map_or_else(|| api.now(), |time| time.in_zone(&zone));
    let since = params.since.map_or(until.minus(Duration::from_secs(30 * DAY)), |time| time.in_zone(&zone));
    let days = days(since, until, &zone)?;
    let bounds: Vec<Millis> = days.iter().map(|day| day.begins_at).chain(days.last().map(|day| day.ends_at)).collect();
    let held = api.ask(api.log.count_meetings(&bounds, QUERY_TIMEOUT)).await?;
    let points = days.iter().zip(held).map(|(day, held)| MeetingsOn {
        day: day.to_string(),
        meetings: held.meetings,
        participants: held.participants,
        attendances: held.attendances,
        stays: held.stays,
    });
    Ok(Json(Meetings { points: points.collect() }))
}

/// Bounds as stretches of steps of one length, each with where it begins and how many steps it has: a day may have an hour more or
/// less.
fn even(bounds: &[Millis]) -> Vec<(Millis, Duration, usize)> {
    let mut stretches: Vec<(Millis, Duration, usize)> = Vec::new();
    for pair in bounds.windows(2) {
        let length = pair[1].since(pair[0]);
        match stretches.last_mut() {
            Some((_, same, steps)) if *same == length => *steps += 1,
            _ => stretches.push((pair[0], length, 1)),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;
    use convoke_core::zone::WrittenTime;

    fn at(text: &str) -> Millis {
        text.parse::<WrittenTime>().expect(text).in_zone(&TimeZone::default())
    }

    fn steps(since: &str, until: &str, step: Step, zone: &TimeZone) -> Vec<String> {
        bounds(at(since), at(until), step, zone).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn steps_begin_where_clocks_show_round_times() {
        let utc = &TimeZone::default();
        let minutes = steps("2026-03-01T08:30:12Z", "2026-03-01T08:32:00Z", Step::Minute, utc);
        assert_eq!(minutes, ["2026-03-01T08:30:00.000Z", "2026-03-01T08:31:00.000Z", "2026-03-01T08:32:00.000Z"]);
        let days = steps("2026-03-01T00:00:00Z", "2026-03-01T17:00:00Z", Step::Day, &TimeZone::ahead(480));
        assert_eq!(days, ["2026-02-28T16:00:00.000Z", "2026-03-01T16:00:00.000Z", "2026-03-02T16:00:00.000Z"]);
        let hours = steps("2026-03-01T00:00:00Z", "2026-03-01T00:30:00Z", Step::Hour, &TimeZone::ahead(330));
        assert_eq!(hours, ["2026-02-28T23:30:00.000Z", "2026-03-01T00:30:00.000Z"]);
        assert_eq!(steps("2026-03-01", "2026-03-01", Step::Day, utc), [""; 0]);
        assert_eq!(steps("2026-03-02", "2026-03-01", Step::Day, utc), [""; 0]);
        let first = steps("1970-01-01", "1970-01-01T01:00:00Z", Step::Day, &TimeZone::ahead(60));
        assert_eq!(first[0], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_day_with_an_hour_less_or_more_is_a_step_all_the_same() {
        let berlin = TimeZone::named("Europe/Berlin").expect("it is there");
        let bounds = bounds(at("2026-03-27T12:00Z"), at("2026-03-31T12:00Z"), Step::Day, &berlin).unwrap();
        let hours = even(&bounds)
            .into_iter()
            .map(|(since, length, steps)| (since.to_string(), length.as_secs() / 3_600, steps));
        let stretch = |since: &str, hours, steps| (since.to_owned(), hours, steps);
        assert_eq!(
            hours.collect::<Vec<_>>(),
            [
                stretch("2026-03-26T23:00:00.000Z", 24, 2),
                stretch("2026-03-28T23:00:00.000Z", 23, 1),
                stretch("2026-03-29T22:00:00.000Z", 24, 2)
            ]
        );
    }

    #[test]
    fn too_many_points_are_refused() {
        let utc = &TimeZone::default();
        let count = |until| bounds(at("2026-03-01"), at(until), Step::Minute, utc).map(|bounds| bounds.len());
        assert_eq!(count("2026-03-02T01:00:00Z").unwrap(), 1_501);
        assert!(count("2026-03-02T01:00:01Z").is_err());
        assert!(bounds(Millis::EPOCH, Millis::MAX, Step::Day, utc).is_err());
    }
}
