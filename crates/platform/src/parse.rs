//! Reads the platform's responses without ever failing: a missing, null or empty value, or one of an unexpected type,
//! becomes `None`; unknown members are ignored. Some names have two spellings in the platform's manual, and both are read.

use serde_json::Value;
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::model::{
    AttendeeRecord, Conference, DayCounts, DirectoryUser, Identity, Invitee, Occurrence, Participant, Present,
    RecordFile, Segment, SegmentFile, Status, Subscription, Today, Viewers,
};
use convoke_core::time::Millis;

/// The times in lists: UTC, without a time zone (manual, 4.2.1 on `startTime`).
const LIST_TIME: &[BorrowedFormatItem<'_>] =
    format_description!(version = 2, "[year]-[month]-[day] [hour]:[minute][optional [:[second]]]");

/// A member of `object` under any of its names.
fn member<'a>(object: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().filter_map(|name| object.get(name)).find(|value| !value.is_null())
}

/// A string, or a number as its digits.
pub(super) fn text(object: &Value, names: &[&str]) -> Option<String> {
    match member(object, names)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An integer, or a string that contains one.
pub(super) fn integer(object: &Value, names: &[&str]) -> Option<i64> {
    match member(object, names)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A boolean, or a number or string that stands for one.
fn boolean(object: &Value, names: &[&str]) -> Option<bool> {
    match member(object, names)? {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => number.as_i64().map(|number| number != 0),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Milliseconds; the platform's 0 means "unknown".
fn millis(object: &Value, names: &[&str]) -> Option<Millis> {
    integer(object, names).and_then(Millis::new).filter(|at| *at != Millis::EPOCH)
}

/// A time in a list.
fn list_time(object: &Value, name: &str) -> Option<Millis> {
    let text = member(object, &[name])?.as_str()?;
    let at = PrimitiveDateTime::parse(text.trim(), LIST_TIME).ok()?.assume_utc();
    Some(Millis::from_date_time(at)).filter(|at| *at != Millis::EPOCH)
}

pub(super) fn array<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The identity in the answer to an authentication.
pub(super) fn identity(answer: &Value) -> Identity {
    let user = answer.get("user").unwrap_or(&Value::Null);
    Identity {
        corp_id: text(user, &["companyId"]),
        sp_id: text(user, &["spId", "spld"]),
        user_type: integer(user, &["userType"]),
        admin_type: integer(user, &["adminType"]),
        corp_type: integer(user, &["corpType"]),
    }
}

/// `None` if the response contains no subscription.
pub(super) fn subscription(answer: &Value) -> Option<Subscription> {
    Some(Subscription {
        id: text(answer, &["id"])?,
        subscriber_id: text(answer, &["subscriberId"]),
        url: text(answer, &["url"]),
        status: match integer(answer, &["status"]) {
            Some(0) => Status::Enabled,
            Some(1) => Status::Disabled,
            Some(2) => Status::Locked,
            other => Status::Other(other.unwrap_or(-1)),
        },
    })
}

pub(super) fn conference(item: &Value) -> Conference {
    Conference {
        conference_id: text(item, &["conferenceID"]),
        vmr_conference_id: text(item, &["vmrConferenceID"]),
        conf_uuid: text(item, &["confUUID", "confUuid"]),
        occurrences: array(item, "subConfs").iter().filter_map(occurrence).collect(),
        subject: text(item, &["subject"]),
        start: list_time(item, "startTime"),
        end: list_time(item, "endTime"),
        state: text(item, &["conferenceState"]),
        scheduler_name: text(item, &["scheduserName", "schedulerName"]),
        scheduler_uuid: text(item, &["userUUID"]),
        conference_type: text(item, &["confType"]),
        webinar: boolean(item, &["webinar"]),
        has_record_file: boolean(item, &["isHasRecordFile"]),
        invitees: Vec::new(),
    }
}

pub(super) fn invitee(item: &Value) -> Invitee {
    Invitee {
        user_uuid: text(item, &["userUUID"]),
        account: text(item, &["accountId"]),
        number: text(item, &["participantID"]),
        name: text(item, &["name"]),
        department: text(item, &["deptName"]),
        attendee_type: text(item, &["attendeeType"]),
    }
}

fn occurrence(item: &Value) -> Option<Occurrence> {
    Some(Occurrence {
        id: text(item, &["cycleSubConfID"])?,
        start: list_time(item, "startTime"),
        end: list_time(item, "endTime"),
    })
}

pub(super) fn attendee(item: &Value) -> AttendeeRecord {
    AttendeeRecord {
        display_name: text(item, &["displayName"]),
        call_number: text(item, &["callNumber"]),
        device_type: text(item, &["deviceType"]),
        media_type: text(item, &["mediaType"]),
        department: text(item, &["deptName"]),
        joined_at: millis(item, &["joinTime"]),
        left_at: millis(item, &["leftTime"]),
    }
}

pub(super) fn directory_user(item: &Value) -> DirectoryUser {
    DirectoryUser {
        id: text(item, &["id"]),
        account: text(item, &["account"]),
        status: integer(item, &["statusCode"]),
        department: text(item, &["deptName"]),
        title: text(item, &["title"]),
    }
}

pub(super) fn present(item: &Value) -> Present {
    Present {
        participant_id: text(item, &["participant_id"]),
        display_name: text(item, &["name"]),
        call_number: text(item, &["call_number"]),
        host: integer(item, &["role"]).map(|role| role == 1),
        account: text(item, &["account"]),
        user_uuid: text(item, &["user_id"]),
    }
}

pub(super) fn participant(item: &Value) -> Participant {
    Participant {
        participant_id: text(item, &["participantID"]),
        user_uuid: text(item, &["userUUID"]),
        display_name: text(item, &["displayName"]),
        department: text(item, &["deptName"]),
        terminal_type: text(item, &["terminalType"]),
        role: text(item, &["role"]),
        joined_at: millis(item, &["joinTime"]),
        left_at: millis(item, &["leftTime"]),
        left_reason: integer(item, &["leftReason"]),
    }
}

pub(super) fn day_counts(item: &Value) -> DayCounts {
    DayCounts {
        day: text(item, &["time"]),
        meetings: integer(item, &["confCount"]),
        seconds: integer(item, &["confDuration"]),
        attendances: integer(item, &["attendeeCount"]),
    }
}

pub(super) fn today(answer: &Value) -> Today {
    Today { meetings: integer(answer, &["confCount"]), running: integer(answer, &["usedAccountsCount"]) }
}

pub(super) fn record_file(item: &Value) -> RecordFile {
    RecordFile {
        conf_uuid: text(item, &["confUUID", "confUuid"]),
        conf_id: text(item, &["confID"]),
        urls: array(item, "url").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        length_s: integer(item, &["rcdTime"]),
        size_mb: integer(item, &["rcdSize"]),
        decoded: boolean(item, &["isDecodeFinish"]).unwrap_or(false),
        decode_end: millis(item, &["decodeEndTime"]),
        available: boolean(item, &["available"]),
        viewers: match integer(item, &["recordAuthType"]) {
            Some(0) => Some(Viewers::Link),
            Some(1) => Some(Viewers::Enterprise),
            Some(2) => Some(Viewers::Participants),
            _ => None,
        },
    }
}

pub(super) fn segment(item: &Value) -> Segment {
    Segment {
        manual_order: integer(item, &["manualOrder"]),
        segment_order: integer(item, &["segmentOrder"]),
        size: integer(item, &["segmentSize"]),
        files: array(item, "fileList").iter().filter(|file| file.is_object()).map(segment_file).collect(),
    }
}

fn segment_file(item: &Value) -> SegmentFile {
    SegmentFile {
        record_type: text(item, &["recordType"]),
        begin: millis(item, &["beginTime"]),
        end: millis(item, &["endTime"]),
        length_s: integer(item, &["duration"]),
        size: integer(item, &["fileSize"]),
    }
}
