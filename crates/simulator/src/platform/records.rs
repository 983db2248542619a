//! Recordings, in the older system (manual, sections 4.2.14 to 4.2.16) and the newer one (5.2.43).

use serde_json::{Value, json};
use time::macros::format_description;

use super::archive::{Archive, Recorded, Run};
use super::lists::{cut, minute, newest_first, page, sees, sees_all, window};
use super::options::PlatformOptions;
use super::refusal::Refusal;
use super::request::{Paging, Query};
use super::tokens::Caller;
use convoke_core::time::Millis;

/// The newer system cuts a recording into slices of so many seconds (section 5.2.43).
const SLICE_S: i64 = 3 * 3_600;
/// The one-time links of the newer system, and the watching links of the older, carry such a token.
fn token() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

/// 4.2.14: the runs in the window that have recordings. They are kept until they are deleted.
pub(super) fn list(
    (options, archive): (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    (paging, now): (Paging, Millis),
) -> Result<Value, Refusal> {
    let (since, until) = window(query)?;
    let (all, newest_first) = (sees_all(caller, query)?, newest_first(query, true)?);
    let key = query.search()?;
    let wanted = |run: &&Run| {
        let found = key.is_none_or(|key| run.subject.contains(key) || run.conference_id.contains(key));
        all && found && !options.newer_recordings && !run.recordings.is_empty() && sees(options, caller, run)
    };
    let (count, runs) = cut(archive.within(since, until).filter(wanted), newest_first, paging);
    if count == 0 {
        return Err(Refusal::NO_MEETING_THEN);
    }
    Ok(page(paging, count, runs.into_iter().map(|run| file(run, now))))
}

/// 4.2.15
pub(super) fn one(
    shared: (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    now: Millis,
) -> Result<Value, Refusal> {
    Ok(file(recorded(shared, caller, query.required("confUUID")?, false)?, now))
}

/// 4.2.16, for enterprises on the white list. A token is good for one download within an hour; `confUuid` is spelled so here.
pub(super) fn downloads(
    shared: (&PlatformOptions, &Archive),
    caller: &Caller,
    query: &Query,
    paging: Paging,
) -> Result<Value, Refusal> {
    if !caller.administrator {
        return Err(Refusal::NOT_PERMITTED);
    }
    if !shared.0.downloads {
        return Err(Refusal::NOT_WHITE_LISTED);
    }
    let run = recorded(shared, caller, query.required("confUUID")?, false)?;
    let urls = |recording: usize| {
        ["Hd", "Sd"].map(|kind| {
            let url = format!("https://192.0.2.30/download/{}/video{kind}/{recording}_0.mp4", run.conf_uuid);
            json!({ "token": token(), "fileType": kind, "url": url })
        })
    };
    let urls: Vec<Value> = (0..run.recordings.len()).flat_map(urls).skip(paging.offset).take(paging.limit).collect();
    Ok(json!({ "recordUrls": [{ "confUuid": run.conf_uuid, "urls": urls }] }))
}

/// 5.2.43: the slices that are transcoded. Its answers have an envelope of their own.
pub(super) fn segments(
    shared: (&PlatformOptions, &Archive),
    caller: &Caller,
    body: &[u8],
    now: Millis,
) -> Result<Value, Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::BAD_JSON)?;
    let conf_uuid = body["confUUID"].as_str().filter(|text| !text.is_empty()).ok_or(Refusal::BAD_PARAMETER)?;
    let number = |name: &str| match &body[name] {
        Value::Null => Ok(0),
        value => value.as_u64().and_then(|it| usize::try_from(it).ok()).ok_or(Refusal::BAD_PARAMETER),
    };
    // The sample sends a limit of 0 and gets 20 back.
    let (offset, limit) =
        (number("segmentOffset")?, Some(number("segmentLimit")?).filter(|limit| *limit > 0).unwrap_or(20));
    let run = recorded(shared, caller, conf_uuid, true).ok();
    let all: Vec<Value> = run.map_or_else(Vec::new, |run| slices(run, now));
    let begins = run.and_then(|run| run.recordings.first()).map(begins);
    let list: Vec<&Value> = all.iter().skip(offset).take(limit).collect();
    Ok(json!({ "code": "0", "message": "Success", "data": {
        "segmentList": list, "subject": run.map(|run| &*run.subject), "beginTime": begins.map(in_china),
        "segmentOffset": offset, "segmentLimit": limit, "segmentCount": all.len(),
    }}))
}

fn slices(run: &Run, now: Millis) -> Vec<Value> {
    let mut all = Vec::new();
    for (manual, recording) in (1_i64..).zip(&run.recordings).filter(|(_, recording)| recording.decoded_from <= now) {
        let mut from = begins(recording).get();
        for slice in 1_i64.. {
            let until = recording.finished.get().min(from + SLICE_S * 1_000);
            let length_s = (until - from) / 1_000;
            let size = length_s * 24_000;
            let link = |kind: &str| format!("https://192.0.2.30/{kind}?onceToken={}", token());
            let file = |kind: &str| {
                json!({
                    "recordType": kind, "beginTime": from, "endTime": until, "duration": length_s, "fileSize": size / 2,
                    "playUrl": link("play"), "downloadUrl": link("download"),
                })
            };
            all.push(json!({
                // A text, unlike all other sizes.
                "manualOrder": manual, "segmentOrder": slice, "segmentSize": size.to_string(),
                "fileList": [file("SPEAKER_VIDEO"), file("SHARE_VIDEO")],
            }));
            from = until;
            if from >= recording.finished.get() {
                break;
            }
        }
    }
    all
}

fn begins(recording: &Recorded) -> Millis {
    recording.finished.minus(std::time::Duration::from_secs(recording.length_s.unsigned_abs()))
}

/// `YYYY-MM-DD HH:MM:SS`, in the sample at UTC+8.
fn in_china(at: Millis) -> String {
    let local = at.date_time().to_offset(time::macros::offset!(+8));
    local.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]")).unwrap_or_default()
}

/// The run, if it was recorded in this system. Otherwise the recording "does not exist", which comes with a 500.
fn recorded<'a>(
    (options, archive): (&PlatformOptions, &'a Archive),
    caller: &Caller,
    conf_uuid: &str,
    newer: bool,
) -> Result<&'a Run, Refusal> {
    let run = archive.get(conf_uuid).ok_or(Refusal::NO_RECORDING)?;
    if !sees(options, caller, run) {
        return Err(Refusal::NOT_YOUR_MEETING);
    }
    if newer != options.newer_recordings || run.recordings.is_empty() {
        return Err(Refusal::NO_RECORDING);
    }
    Ok(run)
}

/// `RecordFileInfo` (section 4.2.14). In the samples it is `available` before `isDecodeFinish`.
fn file(run: &Run, now: Millis) -> Value {
    let length_s: i64 = run.recordings.iter().map(|recording| recording.length_s).sum();
    let urls: Vec<_> = (0..run.recordings.len())
        .map(|number| format!("https://192.0.2.30/rse/play.html?recordId={}-{number}&token={}", run.conf_uuid, token()))
        .collect();
    json!({
        "confUUID": run.conf_uuid, "confID": run.conference_id, "url": urls,
        // Seconds, and megabytes.
        "rcdTime": length_s, "rcdSize": length_s * 24_000 / 1_000_000,
        "subject": run.subject, "scheduserName": run.scheduler_name, "startTime": minute(run.begins()),
        "isDecodeFinish": run.recordings.iter().all(|recording| recording.decoded_from <= now),
        "decodeEndTime": run.recordings.iter().map(|recording| recording.decode_end.get()).max(),
        "available": true, "recordAuthType": 2,
    })
}
