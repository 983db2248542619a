//! What the platform counts: the enterprise's resources (manual, section 4.2.25) and the dashboard (7.1.2.3, 7.2.2.1).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::macros::format_description;
use time::{Date, Duration};

use super::archive::{Archive, Run, State, Stay};
use super::lists::sees;
use super::options::PlatformOptions;
use super::refusal::Refusal;
use super::request::{Paging, Query};
use super::tokens::Caller;
use convoke_core::time::Millis;

/// Section 7.1.1: the quality dashboard reaches back so many days.
const QUALITY_DAYS: i64 = 45;
/// Most days of one call by day (7.2.2.1).
const MAX_DAYS: i64 = 31;

type Known<'a> = (&'a PlatformOptions, &'a Archive);

/// What a day saw. A run counts on the day on which it began, which is not documented.
#[derive(Default)]
struct Day {
    meetings: i64,
    seconds: i64,
    attendances: i64,
    concurrent: i64,
}

/// 4.2.25. The unit of `confLength` is not documented: here it is minutes.
pub(super) fn today((options, archive): Known<'_>, caller: &Caller, now: Millis) -> Result<Value, Refusal> {
    if !caller.administrator || caller.is_provider() {
        return Err(Refusal::NOT_PERMITTED);
    }
    let days = days((options, archive), caller);
    let day = days.get(&day_of(options, now));
    let running = archive.runs().filter(|run| run.state == State::Running && sees(options, caller, run)).count();
    Ok(json!({
        "usedRecStorage": 0.0, "usedAccountsCount": running, "usedLiveCount": 0,
        "confCount": day.map_or(0, |day| day.meetings), "confLength": day.map_or(0, |day| day.seconds / 60),
        "activeAttendeeCount": day.map_or(0, |day| day.attendances),
        "totalAttendeeCount": day.map_or(0, |day| day.attendances),
    }))
}

/// 7.2.2.1: one row for each day on which something was. Whether days without a meeting have one is not documented. All values
/// are texts.
pub(super) fn of_days(known: Known<'_>, caller: &Caller, query: &Query, now: Millis) -> Result<Value, Refusal> {
    dashboard(known.0, caller)?;
    if query.get("timeUnit").ok_or(Refusal::PARAMETER_MISSING)? != "D" {
        return Err(Refusal::BAD_TIME_UNIT);
    }
    if query.get("category").ok_or(Refusal::PARAMETER_MISSING)? != "conference_info" {
        return Err(Refusal::BAD_CATEGORY);
    }
    let date = |name: &str| {
        let text = query.get(name).ok_or(Refusal::PARAMETER_MISSING)?;
        Date::parse(text, format_description!("[year]-[month]-[day]")).map_err(|_| Refusal::BAD_TIME)
    };
    let (since, until) = (date("startTime")?, date("endTime")?);
    if until < since || (until - since).whole_days() > MAX_DAYS {
        return Err(Refusal::BAD_TIME);
    }
    let until = until.min(day_of(known.0, now));
    let row = |(date, day): (&Date, &Day)| {
        json!({
            "time": date.to_string(), "confCount": day.meetings.to_string(), "confDuration": day.seconds.to_string(),
            "attendeeCount": day.attendances.to_string(), "confConcurrentUsedCount": day.concurrent.to_string(),
        })
    };
    let days = days(known, caller);
    let rows: Vec<Value> = days.iter().filter(|(date, _)| (since..=until).contains(*date)).map(row).collect();
    Ok(last_again(query.paging(500)?, &rows))
}

/// 7.1.2.3: one row for each stay, with its ids.
pub(super) fn participants(
    (options, archive): Known<'_>,
    caller: &Caller,
    query: &Query,
    now: Millis,
) -> Result<Value, Refusal> {
    dashboard(options, caller)?;
    let paging = query.paging(500)?;
    if !options.quality {
        return Ok(last_again(paging, &[]));
    }
    let uuid = query.get("confUUID").ok_or(Refusal::PARAMETER_MISSING)?;
    let (state, absent) = match query.get("confType").ok_or(Refusal::PARAMETER_MISSING)? {
        "online" => (State::Running, Refusal::NOT_ONLINE),
        "history" => (State::Over, Refusal::NOT_IN_HISTORY),
        _ => return Err(Refusal::BAD_MEETING_TYPE),
    };
    let oldest = now.get() - QUALITY_DAYS * 86_400_000;
    let found = archive.get(uuid).filter(|run| run.state == state && run.begins().get() >= oldest);
    let run = found.filter(|run| sees(options, caller, run)).ok_or(absent)?;
    let row = |stay: &Stay| {
        json!({
            "confUUID": run.conf_uuid, "conferenceID": run.conference_id, "participantID": *stay.participant_id,
            "userUUID": stay.user_uuid.as_deref(), "displayName": *stay.display_name, "deptName": "Example Corp",
            "terminalType": terminal(stay.device_type), "role": if stay.host { "host" } else { "guest" },
            "ipAddress": "192.0.2.44", "country": "China", "province": "Sichuan", "city": "Chengdu",
            "appVersion": "60.15.5", "joinTime": stay.joined.get(),
            "leftTime": stay.left.or(run.ended.filter(|_| state == State::Over)).map_or(0, Millis::get),
            "systemInfo": "Windows 10", "networkType": "wifi", "alarm": "NO", "leftReason": 0, "existQos": true,
        })
    };
    Ok(last_again(paging, &run.stays.iter().map(row).collect::<Vec<_>>()))
}

/// Administrators of the flagship edition.
fn dashboard(options: &PlatformOptions, caller: &Caller) -> Result<(), Refusal> {
    match () {
        () if !options.flagship => Err(Refusal::NOT_FLAGSHIP),
        () if !caller.administrator || caller.is_provider() => Err(Refusal::NOT_ADMINISTRATOR),
        () => Ok(()),
    }
}

/// A page of chapter 7: at or beyond the total the last one comes again.
fn last_again(paging: Paging, rows: &[Value]) -> Value {
    let count = rows.len();
    let offset =
        if paging.offset < count { paging.offset } else { count.saturating_sub(1) / paging.limit * paging.limit };
    let data: Vec<&Value> = rows.iter().skip(offset).take(paging.limit).collect();
    json!({ "count": count, "limit": paging.limit, "offset": paging.offset, "data": data })
}

fn day_of(options: &PlatformOptions, at: Millis) -> Date {
    (at.date_time() + Duration::minutes(options.day_offset_min)).date()
}

fn days((options, archive): Known<'_>, caller: &Caller) -> BTreeMap<Date, Day> {
    let mut days: BTreeMap<Date, Day> = BTreeMap::new();
    for run in archive.runs().filter(|run| run.started.is_some() && sees(options, caller, run)) {
        let day = days.entry(day_of(options, run.begins())).or_default();
        day.meetings += 1;
        day.concurrent = 1;
        day.seconds += seconds(run);
        for stay in &run.stays {
            days.entry(day_of(options, stay.joined)).or_default().attendances += 1;
        }
    }
    days
}

fn seconds(run: &Run) -> i64 {
    run.started.zip(run.ended).map_or(0, |(started, ended)| (ended.get() - started.get()).max(0) / 1_000)
}

/// The kinds of terminals of the dashboard.
fn terminal(device_type: &str) -> &'static str {
    match device_type {
        "Web" => "WEB",
        "Hard terminal" => "ROOM",
        "Telephone" => "OTHER",
        _ => "PC",
    }
}
