//! The exact `eventInfo` of an event that was never pushed: compact, its members in the order of the manual's tables 6-34 to
//! 6-37, times in milliseconds, and `null` for unknown values.

use serde::Serialize;

use super::matching::PastStay;
use crate::metrics::Label as _;
use convoke_core::time::Millis;
use convoke_log::StaySnapshot;
use convoke_platform::Present;

/// The event types that the history describes, in the order in which they occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::VariantArray)]
pub enum FilledEvent {
    /// `meeting.started`.
    #[strum(serialize = "meeting.started")]
    Started,
    /// `meeting.join`.
    #[strum(serialize = "meeting.join")]
    Join,
    /// `meeting.left`.
    #[strum(serialize = "meeting.left")]
    Left,
    /// `record.finish`.
    #[strum(serialize = "record.finish")]
    Record,
    /// `meeting.end`.
    #[strum(serialize = "meeting.end")]
    End,
}

/// The run that an event belongs to.
#[derive(Clone, Copy, Debug)]
pub struct FilledRun<'a> {
    /// `meetingID`.
    pub meeting_id: Option<&'a str>,
    /// `meetingUUID`.
    pub meeting_uuid: &'a str,
    /// `meetingCycleSubID`.
    pub cycle_sub_id: Option<&'a str>,
}

/// A start, an end, or a finished recording. These name the occurrence if it is known, like the platform's own events.
#[must_use]
pub fn of_meeting(kind: FilledEvent, at: Millis, run: &FilledRun<'_>) -> String {
    write(kind, at, run, run.cycle_sub_id, None)
}

/// A join that is only known from the history.
#[must_use]
pub fn join(joined_at: Millis, run: &FilledRun<'_>, stay: &PastStay) -> String {
    write(FilledEvent::Join, joined_at, run, None, Some(&unknown(joined_at, 0, stay)))
}

/// The leave that belongs to a join made by [`join`].
#[must_use]
pub fn left(joined_at: Millis, left_at: Millis, run: &FilledRun<'_>, stay: &PastStay) -> String {
    write(FilledEvent::Left, left_at, run, None, Some(&unknown(joined_at, left_at.get(), stay)))
}

/// The leave that belongs to a join in the log: it has the IDs of that join and its join time, so that both belong to one stay.
#[must_use]
pub fn left_of(
    known: &StaySnapshot,
    (joined_at, left_at): (Millis, Millis),
    run: &FilledRun<'_>,
    stay: &PastStay,
) -> String {
    let attendee = AttendeeInfo {
        user_uuid: known.user_uuid.as_deref(),
        user_agent: known.user_agent.as_deref(),
        account: known.account.as_deref(),
        participant_id: known.participant_id.as_deref(),
        display_name: known.display_name.as_deref(),
        join_time: Some(joined_at.get()),
        left_time: left_at.get(),
        role: known.role.as_deref(),
        call_number: known.call_number.as_deref(),
        ..details(stay, left_at.get())
    };
    write(FilledEvent::Left, left_at, run, None, Some(&attendee))
}

/// The join of somebody who is in a meeting now, since a time that is not told. It happened at the time of the list at the latest.
#[must_use]
pub fn seen(at: Millis, run: &FilledRun<'_>, person: &Present) -> String {
    let attendee = AttendeeInfo {
        user_uuid: person.user_uuid.as_deref(),
        account: person.account.as_deref(),
        participant_id: person.participant_id.as_deref(),
        display_name: person.display_name.as_deref(),
        role: person.host.map(|host| if host { "CHAIR" } else { "GENERAL" }),
        call_number: person.call_number.as_deref(),
        ..AttendeeInfo::default()
    };
    write(FilledEvent::Join, at, run, None, Some(&attendee))
}

fn unknown(joined_at: Millis, left_time: i64, stay: &PastStay) -> AttendeeInfo<'_> {
    AttendeeInfo {
        user_uuid: stay.user_uuid.as_deref(),
        user_agent: stay.terminal_type.as_deref(),
        participant_id: stay.participant_id.as_deref(),
        display_name: stay.display_name.as_deref(),
        join_time: Some(joined_at.get()),
        left_time,
        role: stay.role.as_deref().map(role),
        call_number: stay.call_number.as_deref(),
        ..details(stay, left_time)
    }
}

/// What an event that is pushed has not.
fn details(stay: &PastStay, left_time: i64) -> AttendeeInfo<'_> {
    let why = |reason: i64| match reason {
        0 => Some("left"),
        1 => Some("network"),
        _ => None,
    };
    AttendeeInfo {
        device_type: stay.device_type.as_deref(),
        media_type: stay.media_type.as_deref(),
        dept_name: stay.department.as_deref(),
        // It is 0 for who is in.
        leave_reason: stay.left_reason.filter(|_| left_time > 0).and_then(why),
        filled_from: stay.told_by,
        ..AttendeeInfo::default()
    }
}

/// The dashboard's roles in the words of the events.
fn role(told: &str) -> &str {
    match told {
        "host" => "CHAIR",
        "guest" => "GENERAL",
        "audience" => "AUDIENCE",
        told => told,
    }
}

#[derive(Serialize)]
struct EventInfo<'a> {
    event: &'static str,
    timestamp: i64,
    payload: Payload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    meeting_info: MeetingInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attendee_info: Option<&'a AttendeeInfo<'a>>,
}

#[derive(Serialize)]
struct MeetingInfo<'a> {
    #[serde(rename = "meetingID")]
    id: Option<&'a str>,
    #[serde(rename = "meetingUUID")]
    uuid: &'a str,
    #[serde(rename = "meetingCycleSubID", skip_serializing_if = "Option::is_none")]
    cycle_sub_id: Option<&'a str>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttendeeInfo<'a> {
    #[serde(rename = "userUUID")]
    user_uuid: Option<&'a str>,
    user_agent: Option<&'a str>,
    account: Option<&'a str>,
    #[serde(rename = "participantID")]
    participant_id: Option<&'a str>,
    display_name: Option<&'a str>,
    /// Absent where it is not known: consumers know it as a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    join_time: Option<i64>,
    left_time: i64,
    role: Option<&'a str>,
    call_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dept_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leave_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filled_from: Option<&'static str>,
}

fn write(
    kind: FilledEvent,
    at: Millis,
    run: &FilledRun<'_>,
    cycle_sub_id: Option<&str>,
    attendee_info: Option<&AttendeeInfo<'_>>,
) -> String {
    let meeting_info = MeetingInfo { id: run.meeting_id, uuid: run.meeting_uuid, cycle_sub_id };
    let info =
        EventInfo { event: kind.as_str(), timestamp: at.get(), payload: Payload { meeting_info, attendee_info } };
    serde_json::to_string(&info).expect("texts and numbers have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: FilledRun<'_> = FilledRun {
        meeting_id: Some("960000017"),
        meeting_uuid: "11112222333344445555666677778888",
        cycle_sub_id: Some("0f0e0d0c0b0a09080706050403020100"),
    };

    fn at(ms: i64) -> Millis {
        Millis::new(ms).expect("a time in range")
    }

    fn guest() -> PastStay {
        PastStay {
            display_name: Some("Guest \"One\" 王".to_owned()),
            call_number: Some("+991110000001".to_owned()),
            ..PastStay::default()
        }
    }

    #[test]
    fn a_start_and_an_end_name_the_occurrence_if_it_is_known() {
        assert_eq!(
            of_meeting(FilledEvent::Started, at(1_735_700_465_003), &RUN),
            r#"{"event":"meeting.started","timestamp":1735700465003,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888","meetingCycleSubID":"0f0e0d0c0b0a09080706050403020100"}}}"#
        );
        assert_eq!(
            of_meeting(
                FilledEvent::End,
                at(1_735_703_899_872),
                &FilledRun { cycle_sub_id: None, meeting_id: None, ..RUN }
            ),
            r#"{"event":"meeting.end","timestamp":1735703899872,"payload":{"meetingInfo":{"meetingID":null,"meetingUUID":"11112222333344445555666677778888"}}}"#
        );
    }

    #[test]
    fn a_stay_that_only_history_knows_has_null_for_what_history_does_not_give() {
        assert_eq!(
            join(at(1_735_700_465_003), &RUN, &guest()),
            r#"{"event":"meeting.join","timestamp":1735700465003,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":null,"userAgent":null,"account":null,"participantID":null,"displayName":"Guest \"One\" 王","joinTime":1735700465003,"leftTime":0,"role":null,"callNumber":"+991110000001"}}}"#
        );
        assert_eq!(
            left(at(1_735_700_465_003), at(1_735_703_899_872), &RUN, &guest()),
            r#"{"event":"meeting.left","timestamp":1735703899872,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":null,"userAgent":null,"account":null,"participantID":null,"displayName":"Guest \"One\" 王","joinTime":1735700465003,"leftTime":1735703899872,"role":null,"callNumber":"+991110000001"}}}"#
        );
    }

    #[test]
    fn a_leave_to_a_join_of_the_log_has_the_ids_and_the_time_of_that() {
        let known = StaySnapshot {
            participant_id: Some("99998888777766665555444433332222".to_owned()),
            user_uuid: Some("aaaabbbbccccddddeeeeffff00001111".to_owned()),
            account: Some("demo.user".to_owned()),
            display_name: Some("Demo User".to_owned()),
            user_agent: Some("WeLink-desktop".to_owned()),
            role: Some("CHAIR".to_owned()),
            ..StaySnapshot::default()
        };
        assert_eq!(
            left_of(&known, (at(1_735_700_465_001), at(1_735_703_899_872)), &RUN, &PastStay::default()),
            r#"{"event":"meeting.left","timestamp":1735703899872,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":"aaaabbbbccccddddeeeeffff00001111","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"Demo User","joinTime":1735700465001,"leftTime":1735703899872,"role":"CHAIR","callNumber":null}}}"#
        );
    }
}
