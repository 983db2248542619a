//! Meetings, running, to come and over, and who was there (manual, sections 4.2.9 to 4.2.23).

use serde_json::{Value, json};
use time::macros::format_description;

use super::archive::{Archive, Run, State, Stay};
use super::live::host_password;
use super::options::PlatformOptions;
use super::refusal::Refusal;
use super::request::{Language, Paging, Query};
use super::tokens::Caller;
use crate::people::mix;
use convoke_core::time::Millis;

/// The page object: `offset`, `limit`, `count` (of all) and `data`.
pub(super) fn page(paging: Paging, count: usize, data: impl Iterator<Item = Value>) -> Value {
    json!({ "data": data.collect::<Vec<_>>(), "offset": paging.offset, "limit": paging.limit, "count": count })
}

/// `YYYY-MM-DD HH:MM`, which is UTC (stated for the create call, and the samples agree).
pub(super) fn minute(at: Millis) -> String {
    at.date_time().format(format_description!("[year]-[month]-[day] [hour]:[minute]")).unwrap_or_default()
}

/// The enterprise of a run.
pub(super) fn enterprise<'a>(options: &'a PlatformOptions, run: &'a Run) -> Option<&'a str> {
    run.corp_id.as_deref().or_else(|| options.corp_ids.first().map(String::as_str))
}

/// An administrator sees the whole enterprise, an ordinary user here nothing: the meetings of this world are other people's. So does
/// the service provider's administrator: the manual promises meetings to an enterprise's administrators alone.
pub(super) fn sees(options: &PlatformOptions, caller: &Caller, run: &Run) -> bool {
    caller.administrator && caller.corp_id.as_deref() == enterprise(options, run)
}

/// Whether the caller sees more than his own meetings: `queryAll` is for administrators. Without it an administrator sees only
/// his own, which are none here.
pub(super) fn sees_all(caller: &Caller, query: &Query) -> Result<bool, Refusal> {
    match (query.flag("queryAll")?, caller.administrator) {
        (true, false) => Err(Refusal::NOT_PERMITTED),
        (all, _) => Ok(all),
    }
}

fn matches(run: &Run, key: Option<&str>) -> bool {
    key.is_none_or(|key| {
        run.subject.contains(key) || run.scheduler_name.contains(key) || run.conference_id.contains(key)
    })
}

/// `startDate` and `endDate`: required, in milliseconds. Whether the ends belong to it is not documented: they do.
pub(super) fn window(query: &Query) -> Result<(Millis, Millis), Refusal> {
    let end = |name| {
        query.required(name)?;
        query.number(name)?.and_then(Millis::new).ok_or(Refusal::BAD_PARAMETER)
    };
    let (since, until) = (end("startDate")?, end("endDate")?);
    if until < since { Err(Refusal::BAD_PARAMETER) } else { Ok((since, until)) }
}

/// Whether the list begins with the newest. What holds without `sortType` is not documented for history and recordings.
pub(super) fn newest_first(query: &Query, or: bool) -> Result<bool, Refusal> {
    match query.get("sortType") {
        None => Ok(or),
        Some("ASC_StartTIME") => Ok(false),
        Some("DSC_StartTIME") => Ok(true),
        Some(_) => Err(Refusal::BAD_PARAMETER),
    }
}

/// The page of `runs`, and how many there are.
pub(super) fn cut<'a>(
    runs: impl DoubleEndedIterator<Item = &'a Run>,
    newest_first: bool,
    paging: Paging,
) -> (usize, Vec<&'a Run>) {
    let mut all: Vec<_> = runs.collect();
    if newest_first {
        all.reverse();
    }
    (all.len(), all.into_iter().skip(paging.offset).take(paging.limit).collect())
}

/// 4.2.9 (`states`: not over) and 4.2.12 (running).
pub(super) fn current(
    (options, archive): (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    paging: Paging,
    only_running: bool,
) -> Result<Value, Refusal> {
    let (all, key) = (sees_all(caller, query)?, query.search()?);
    let newest_first = if only_running { false } else { newest_first(query, false)? };
    let wanted = |run: &&Run| {
        let state = run.state == State::Running || (!only_running && run.state == State::Scheduled);
        state && all && sees(options, caller, run) && matches(run, key)
    };
    let (count, runs) = cut(archive.runs().filter(wanted), newest_first, paging);
    let data = runs.into_iter().map(|run| {
        let mut data = conference(run, archive);
        if only_running {
            // Returned by this call only (table 4-8).
            data["onlineAttendeeAmount"] = json!(run.stays.iter().filter(|stay| stay.left.is_none()).count());
        }
        data
    });
    Ok(page(paging, count, data))
}

/// 4.2.18: the runs that are over, not older than the retention.
pub(super) fn history(
    (options, archive): (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    (paging, now): (Paging, Millis),
) -> Result<Value, Refusal> {
    let (since, until) = window(query)?;
    let (all, key) = (sees_all(caller, query)?, query.search()?);
    let since = since.max(now.minus(options.retention));
    let (recorded_first, newest_first) = match query.get("sortType") {
        Some(by @ ("ASC_RecordTYPE" | "DSC_RecordTYPE")) => (true, by == "DSC_RecordTYPE"),
        _ => (false, newest_first(query, true)?),
    };
    let wanted = |run: &&Run| run.state == State::Over && all && sees(options, caller, run) && matches(run, key);
    let runs = archive.within(since, until).filter(wanted);
    let (count, runs) = if recorded_first {
        let mut runs: Vec<_> = runs.collect();
        // With a recording first, then by start.
        runs.sort_by_key(|run| run.recordings.is_empty());
        cut(runs.into_iter(), newest_first, paging)
    } else {
        cut(runs, newest_first, paging)
    };
    // "No meeting in the chosen time" is an error (chapter 22).
    if count == 0 {
        return Err(Refusal::NO_MEETING_THEN);
    }
    Ok(page(paging, count, runs.into_iter().map(|run| conference(run, archive))))
}

/// 4.2.10 and 4.2.13: by the number, and so at most one run that is not over.
pub(super) fn current_detail(
    (options, archive): (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    paging: Paging,
    only_running: bool,
) -> Result<Value, Refusal> {
    let id = query.required("conferenceID")?;
    let run = by_number(archive, id)?;
    if only_running && run.state == State::Scheduled {
        return Err(Refusal::NOT_STARTED);
    }
    if !sees(options, caller, run) {
        return Err(Refusal::NOT_YOUR_MEETING);
    }
    let mut detail = detail(run, archive, paging);
    if options.tells_password
        && let Some(entries) = detail["conferenceData"]["passwordEntry"].as_array_mut()
    {
        entries.push(json!({ "conferenceRole": "chair", "password": host_password(id) }));
    }
    Ok(detail)
}

/// 4.2.19
pub(super) fn past_detail(
    shared: (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    paging: Paging,
    now: Millis,
) -> Result<Value, Refusal> {
    Ok(detail(past(shared, caller, query, now)?, shared.1, paging))
}

/// 4.2.21: one row for each stay, without any id.
pub(super) fn attendees(
    shared: (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    (paging, now): (Paging, Millis),
    language: Language,
) -> Result<Value, Refusal> {
    let run = past(shared, caller, query, now)?;
    let key = query.search()?;
    let matches =
        |stay: &&Stay| key.is_none_or(|key| stay.display_name.contains(key) || stay.call_number.contains(key));
    let stays: Vec<_> = run.stays.iter().filter(matches).collect();
    let record = |stay: &&Stay| {
        let off = skew(shared.0, stay);
        json!({
            "displayName": *stay.display_name, "callNumber": *stay.call_number, "deviceType": device(stay.device_type, language),
            "joinTime": stay.joined.get() + off,
            "leftTime": stay.left.or(run.ended).map_or(0, |left| left.get() + off),
            "mediaType": if language == Language::English { "Video" } else { "视频" }, "deptName": "Example Corp",
        })
    };
    let data = stays.iter().skip(paging.offset).take(paging.limit).map(record);
    Ok(page(paging, stays.len(), data))
}

/// 4.2.29: who is in a running meeting now, by its number, without times. Its permission is not documented: here it is that of
/// the lists. What it answers for a meeting that is not running is not documented either.
pub(super) fn present(
    (options, archive): (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    paging: Paging,
) -> Result<Value, Refusal> {
    let run = by_number(archive, query.required("conf_id")?)?;
    if run.state != State::Running {
        return Err(Refusal::NOT_STARTED);
    }
    if !sees(options, caller, run) {
        return Err(Refusal::NOT_YOUR_MEETING);
    }
    let key = query.get("search_key");
    let inside = |stay: &&Stay| {
        let found = key.is_none_or(|key| stay.display_name.contains(key) || stay.call_number.contains(key));
        stay.left.is_none() && found
    };
    let stays: Vec<_> = run.stays.iter().filter(inside).collect();
    let record = |stay: &&Stay| {
        json!({
            "participant_id": *stay.participant_id, "name": *stay.display_name, "call_number": *stay.call_number,
            "role": i32::from(stay.host), "third_account": null, "account": stay.account.as_deref(),
            "user_id": stay.user_uuid.as_deref(),
        })
    };
    Ok(page(paging, stays.len(), stays.iter().skip(paging.offset).take(paging.limit).map(record)))
}

/// 4.2.23, for the service provider's administrator.
pub(super) fn enterprise_of(
    (options, archive): (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
) -> Result<Value, Refusal> {
    let id = query.required("conferenceID")?;
    if !(caller.is_provider() && caller.administrator) {
        return Err(Refusal::NOT_PERMITTED);
    }
    let run = archive.runs().rev().find(|run| run.conference_id == id).ok_or(Refusal::NO_SUCH_MEETING)?;
    Ok(json!({ "orgID": enterprise(options, run) }))
}

/// The run with this UUID that is over and not older than the retention.
pub(super) fn past<'a>(
    (options, archive): (&PlatformOptions, &'a Archive),
    caller: &Caller,
    query: &Query,
    now: Millis,
) -> Result<&'a Run, Refusal> {
    let run = archive.get(query.required("confUUID")?).ok_or(Refusal::NO_SUCH_MEETING)?;
    if run.state != State::Over || run.begins() < now.minus(options.retention) {
        return Err(Refusal::NO_SUCH_MEETING);
    }
    if !sees(options, caller, run) {
        return Err(Refusal::NOT_YOUR_MEETING);
    }
    Ok(run)
}

/// What is running under a number, else what is to come next under it.
fn by_number<'a>(archive: &'a Archive, id: &str) -> Result<&'a Run, Refusal> {
    let mut found = None;
    let mut over = false;
    for run in archive.runs().filter(|run| run.conference_id == id) {
        match run.state {
            State::Running => return Ok(run),
            State::Scheduled => found = found.or(Some(run)),
            State::Over => over = true,
        }
    }
    found.ok_or(if over { Refusal::ALREADY_OVER } else { Refusal::NO_SUCH_MEETING })
}

/// A device type as the platform words it. Of the Chinese words the samples have the first.
fn device(english: &str, language: Language) -> &str {
    match (language, english) {
        (Language::Chinese, "Soft terminal") => "软终端",
        (Language::Chinese, "Hard terminal") => "硬终端",
        _ => english,
    }
}

/// By how much the times of participant records differ from those of the events: in the samples it is some milliseconds.
fn skew(options: &PlatformOptions, stay: &Stay) -> i64 {
    let most = u64::try_from(options.skew.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    i64::try_from(mix(stay.joined.get().unsigned_abs()) % most).unwrap_or(0)
}

/// `conferenceData` and the page of those who were invited when it was scheduled, first its host.
fn detail(run: &Run, archive: &Archive, paging: Paging) -> Value {
    let host = json!({
        "participantID": "+991110000001", "name": run.scheduler_name, "role": 1, "state": "MEETING",
        "attendeeType": "normal", "accountId": "host@example-corp", "deptName": "Example Corp",
        "userUUID": run.scheduler_uuid,
    });
    let invited = run.invited.iter().map(|invited| {
        json!({
            "participantID": invited.number, "name": invited.name, "role": 0, "state": "MEETING",
            "attendeeType": if invited.number.is_some() { "normal" } else { "outside" }, "accountId": invited.account,
            "deptName": "Example Corp", "userUUID": invited.user_uuid,
        })
    });
    let data = std::iter::once(host).chain(invited).skip(paging.offset).take(paging.limit);
    let mut conference = conference(run, archive);
    conference["role"] = json!("chair");
    json!({ "conferenceData": conference, "data": page(paging, 1 + run.invited.len(), data) })
}

/// Table 4-8, the members that the samples show. Times are whole minutes: of what happened if it is over, else of the schedule, of
/// a recurring meeting that of its first occurrence, whichever this is.
fn conference(run: &Run, archive: &Archive) -> Value {
    let occurrences = occurrences(run, archive);
    let (start, end) = match run.state {
        State::Over => (run.started.unwrap_or(run.scheduled.0), run.ended.unwrap_or(run.scheduled.1)),
        State::Scheduled | State::Running => occurrences.first().map_or(run.scheduled, |(_, scheduled)| *scheduled),
    };
    let state = match run.state {
        State::Scheduled => "Schedule",
        State::Running => "Created",
        State::Over => "Destroyed",
    };
    let recurring = run.cycle_sub_conf_id.is_some();
    let mut conference = json!({
        "conferenceID": run.conference_id, "mediaTypes": "Voice,Video,Data", "subject": run.subject, "size": 1,
        "timeZoneID": "56", "startTime": minute(start), "endTime": minute(end), "conferenceState": state,
        "accessNumber": "+991117", "language": "zh-CN",
        "passwordEntry": [{ "conferenceRole": "general", "password": "*****" }],
        "userUUID": run.scheduler_uuid, "scheduserName": run.scheduler_name, "multiStreamFlag": 1,
        "conferenceType": if recurring { 2 } else { 0 }, "confType": if recurring { "CYCLE" } else { "FUTURE" },
        "isAutoMute": 1, "isAutoRecord": 0,
        "guestJoinUri": format!("https://c.meeting.huaweicloud.com/#/j/{}/{:048}", run.conference_id, 0),
        "recordType": 2, "recordAuxStream": 0, "recordAuthType": 0,
        "confConfigInfo": {
            "prolongLength": 15, "isGuestFreePwd": false, "isSendNotify": true, "isSendSms": true, "isAutoMute": true,
            "isSendCalendar": true, "callInRestriction": 0, "allowGuestStartConf": true,
            "isHardTerminalAutoMute": true, "enableWaitingRoom": true,
        },
        "vmrFlag": 0, "scheduleVmr": false,
        "partAttendeeInfo": [{ "phone": "+991110000001", "name": run.scheduler_name, "type": "normal" }],
        "terminlCount": 0, "normalCount": 1, "deptName": "Example Corp",
    });
    // At creation only immediate meetings have one (table 4-8); history says whether there are recordings.
    if run.state != State::Scheduled {
        conference["confUUID"] = json!(run.conf_uuid);
    }
    if run.state == State::Over {
        conference["isHasRecordFile"] = json!(!run.recordings.is_empty());
    }
    if let Some((first, _)) = occurrences.first() {
        conference["cycleSubConfID"] = json!(first);
        series(&mut conference, run, &occurrences);
    }
    conference
}

/// Of a recurring meeting, what is known of its occurrences, the first first.
fn occurrences<'a>(run: &'a Run, archive: &'a Archive) -> Vec<(&'a str, (Millis, Millis))> {
    if run.cycle_sub_conf_id.is_none() {
        return Vec::new();
    }
    let of_series = archive.runs().filter(|other| other.conference_id == run.conference_id);
    let occurrence = |run: &'a Run| Some((run.cycle_sub_conf_id.as_deref()?, run.scheduled));
    let mut occurrences: Vec<_> = of_series.chain([run]).filter_map(occurrence).collect();
    occurrences.sort_by_key(|(id, scheduled)| (scheduled.0, *id));
    occurrences.dedup_by_key(|(id, _)| *id);
    occurrences
}

/// What a recurring meeting has besides: how it recurs, and its occurrences.
fn series(conference: &mut Value, run: &Run, occurrences: &[(&str, (Millis, Millis))]) {
    let day = |at: Millis| minute(at)[..10].to_owned();
    let ends = occurrences.iter().map(|(_, (_, end))| *end).max().unwrap_or(run.scheduled.1);
    let starts = occurrences.iter().map(|(_, (start, _))| *start).min().unwrap_or(run.scheduled.0);
    conference["cycleParams"] = json!({
        "startDate": day(starts), "endDate": day(ends), "cycle": "Week", "interval": 1, "point": [1], "preRemindDays": 1,
    });
    let occurrence = |(cycle, (start, end)): &(&str, (Millis, Millis))| {
        json!({
            "cycleSubConfID": cycle, "conferenceID": run.conference_id, "mediaType": "Voice,Video,Data",
            "startTime": minute(*start), "endTime": minute(*end), "isAutoRecord": 0, "recordAuthType": 0,
            "confConfigInfo": {
                "callInRestriction": 0, "allowGuestStartConf": true, "enableWaitingRoom": true,
                "showAudienceCountInfo": null,
            },
        })
    };
    conference["subConfs"] = occurrences.iter().map(occurrence).collect();
}
