//! The platform's data, as far as it is used. Every field can be missing or null; an empty string counts as missing.

use std::time::Duration;

use convoke_core::time::Millis;

/// Maximum difference between the start of a run and the scheduled start of its occurrence.
const MAX_START_DIFFERENCE: Duration = Duration::from_secs(15 * 60);

/// Our account as the platform sees it (table 3-10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `companyId`: the enterprise.
    pub corp_id: Option<String>,
    /// `spId`: the service provider of the enterprise.
    pub sp_id: Option<String>,
    /// `userType`.
    pub user_type: Option<i64>,
    /// `adminType`: 0 default administrator, 1 administrator, 2 none.
    pub admin_type: Option<i64>,
    /// `corpType`: 0 flagship, 5 free, 6 Flexus in the manual and standard in the SDK.
    pub corp_type: Option<i64>,
}

impl Identity {
    /// Whether it is an administrator, who sees all meetings of the enterprise and may configure the push.
    #[must_use]
    pub const fn is_administrator(&self) -> bool {
        matches!(self.admin_type, Some(0 | 1))
    }

    /// Why the platform will refuse this account the push, as far as it is told.
    #[must_use]
    pub fn objections(&self) -> Vec<&'static str> {
        let mut objections = Vec::new();
        if self.admin_type == Some(2) {
            objections.push(NO_ADMINISTRATOR);
        }
        if self.corp_type.is_some_and(|edition| edition != 0) {
            objections.push("the enterprise is not on the flagship edition, which the event push is for");
        }
        objections
    }
}

/// What an account without an administrator's rights means.
pub const NO_ADMINISTRATOR: &str = "the account is no administrator, and sees its own meetings only: leave platform.user_id out, or \
                                    correct it. A mistyped one is no error to the platform, which creates an ordinary account \
                                    of that name";

/// The state of a subscription (table 6-45).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0
    Enabled,
    /// 1
    Disabled,
    /// 2
    Locked,
    /// Anything else.
    Other(i64),
}

/// A subscription (table 6-45).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The id of the record.
    pub id: String,
    /// The `appID` of the pushes.
    pub subscriber_id: Option<String>,
    /// The URL that receives the pushes.
    pub url: Option<String>,
    /// Its state.
    pub status: Status,
}

/// A subscription to set. Its enterprise or service provider is that of the client.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// The `appID` of the pushes.
    pub subscriber_id: String,
    /// The key that signs the pushes.
    pub subscriber_key: secrecy::SecretString,
    /// The URL that will receive the pushes.
    pub url: String,
}

/// A meeting, or a run of one (table 4-8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conference {
    /// `conferenceID`: the meeting's number.
    pub conference_id: Option<String>,
    /// `vmrConferenceID`: the number of a cloud or personal meeting room, which users see.
    pub vmr_conference_id: Option<String>,
    /// `confUUID`: the run.
    pub conf_uuid: Option<String>,
    /// `subConfs`: the occurrences of a recurring meeting. (`cycleSubConfID` of the meeting itself is not read: in the
    /// manual and most of the SDKs it is that of the first occurrence, whichever occurrence this is.)
    pub occurrences: Vec<Occurrence>,
    /// `subject`.
    pub subject: Option<String>,
    /// `startTime`, in whole minutes.
    pub start: Option<Millis>,
    /// `endTime`, in whole minutes.
    pub end: Option<Millis>,
    /// `conferenceState`: `Schedule`, `Creating`, `Created`, `Destroyed`.
    pub state: Option<String>,
    /// `scheduserName`: the name of the scheduler.
    pub scheduler_name: Option<String>,
    /// `userUUID` of the scheduler.
    pub scheduler_uuid: Option<String>,
    /// `confType`: `FUTURE`, `IMMEDIATELY` or `CYCLE`.
    pub conference_type: Option<String>,
    /// `webinar`.
    pub webinar: Option<bool>,
    /// `isHasRecordFile`.
    pub has_record_file: Option<bool>,
    /// Who was invited; lists do not tell it, [`super::Client::conference`] and [`super::Client::past_conference`] do.
    pub invitees: Vec<Invitee>,
}

/// Somebody who was invited to a meeting (table 4-54), by themselves or as a room's terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invitee {
    /// `userUUID`.
    pub user_uuid: Option<String>,
    /// `accountId`: the account; with App ID authentication the third-party user ID.
    pub account: Option<String>,
    /// `participantID`: here it is a number, to which an event's `callNumber` corresponds.
    pub number: Option<String>,
    /// `name`.
    pub name: Option<String>,
    /// `deptName`.
    pub department: Option<String>,
    /// `attendeeType`: `normal`, `terminal`, `outside` or `mobile`.
    pub attendee_type: Option<String>,
}

/// An occurrence of a recurring meeting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occurrence {
    /// `cycleSubConfID`.
    pub id: String,
    /// `startTime`: the scheduled start, in whole minutes.
    pub start: Option<Millis>,
    /// `endTime`: the scheduled end, in whole minutes.
    pub end: Option<Millis>,
}

impl Conference {
    /// The occurrence whose scheduled start is nearest to the start of this run, if the run is over.
    #[must_use]
    pub fn occurrence_held(&self) -> Option<&Occurrence> {
        self.occurrence_at(self.start?)
    }

    /// The occurrence whose scheduled start is nearest to this time: people come early, and occurrences are days apart.
    #[must_use]
    pub fn occurrence_at(&self, began: Millis) -> Option<&Occurrence> {
        let apart = |occurrence: &&Occurrence| {
            let start = occurrence.start?;
            Some(began.since(start).max(start.since(began))).filter(|apart| *apart <= MAX_START_DIFFERENCE)
        };
        self.occurrences.iter().filter(|occurrence| apart(occurrence).is_some()).min_by_key(apart)
    }
}

/// Somebody who is in a meeting now (4.2.29). It is not told since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// `participant_id`, as in events.
    pub participant_id: Option<String>,
    /// `name`.
    pub display_name: Option<String>,
    /// `call_number`.
    pub call_number: Option<String>,
    /// `role`: 1 host, 0 others.
    pub host: Option<bool>,
    /// `account`.
    pub account: Option<String>,
    /// `user_id`: the user's UUID.
    pub user_uuid: Option<String>,
}

/// A stay as the dashboard has it (7.1.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participant {
    /// `participantID`.
    pub participant_id: Option<String>,
    /// `userUUID`.
    pub user_uuid: Option<String>,
    /// `displayName`.
    pub display_name: Option<String>,
    /// `deptName`: the department.
    pub department: Option<String>,
    /// `terminalType`: `PC`, `MOBILE`, `WEB`, `ROOM`, the model of a hardware terminal …
    pub terminal_type: Option<String>,
    /// `role`: `host`, `guest`, `audience`.
    pub role: Option<String>,
    /// `joinTime`.
    pub joined_at: Option<Millis>,
    /// `leftTime`.
    pub left_at: Option<Millis>,
    /// `leftReason`: 0 left, 1 lost the network.
    pub left_reason: Option<i64>,
}

/// What the platform counts on a day (7.2.2.1). Meetings in rooms count too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayCounts {
    /// `time`: `YYYY-MM-DD`, of a zone that is not documented.
    pub day: Option<String>,
    /// `confCount`.
    pub meetings: Option<i64>,
    /// `confDuration`, in seconds.
    pub seconds: Option<i64>,
    /// `attendeeCount`: how often somebody attended.
    pub attendances: Option<i64>,
}

/// What the platform has counted today (4.2.25).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Today {
    /// `confCount`: meetings of the day.
    pub meetings: Option<i64>,
    /// `usedAccountsCount`: meetings that use concurrency now.
    pub running: Option<i64>,
}

/// A stay (table 4-64). It has no participant id and no user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttendeeRecord {
    /// `displayName`.
    pub display_name: Option<String>,
    /// `callNumber`.
    pub call_number: Option<String>,
    /// `deviceType`, localised.
    pub device_type: Option<String>,
    /// `mediaType`, localised.
    pub media_type: Option<String>,
    /// `deptName`: the department.
    pub department: Option<String>,
    /// `joinTime`.
    pub joined_at: Option<Millis>,
    /// `leftTime`.
    pub left_at: Option<Millis>,
}

/// A user in the enterprise's directory (11.2.4), as far as it is used: the answer also has phone numbers and mail addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryUser {
    /// `id`: the user UUID. Missing in the manual's sample.
    pub id: Option<String>,
    /// `account`.
    pub account: Option<String>,
    /// `statusCode`: 0 found, 1 found and unchanged (nothing but the ID is told), 2 does not exist, 3 not permitted.
    pub status: Option<i64>,
    /// `deptName`.
    pub department: Option<String>,
    /// `title`.
    pub title: Option<String>,
}

/// A recording (table 4-37).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFile {
    /// `confUUID`: the run.
    pub conf_uuid: Option<String>,
    /// `confID`: the meeting's number.
    pub conf_id: Option<String>,
    /// `url`: where to watch. The URLs contain tokens, so they are secret.
    pub urls: Vec<String>,
    /// `rcdTime`, in seconds.
    pub length_s: Option<i64>,
    /// `rcdSize`, in MB.
    pub size_mb: Option<i64>,
    /// `isDecodeFinish`.
    pub decoded: bool,
    /// `decodeEndTime`: when transcoding was expected to end.
    pub decode_end: Option<Millis>,
    /// `available`: whether it can be watched.
    pub available: Option<bool>,
    /// `recordAuthType`: who may watch it.
    pub viewers: Option<Viewers>,
}

/// Who may watch a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Viewers {
    /// Everybody who has the link.
    Link,
    /// The users of the enterprise.
    Enterprise,
    /// Who took part in the meeting.
    Participants,
}

/// A part of a recording in the newer system (5.2.43).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// `manualOrder`: from 1, one per manual start of the recording.
    pub manual_order: Option<i64>,
    /// `segmentOrder`: from 1 within `manualOrder`.
    pub segment_order: Option<i64>,
    /// `segmentSize`, in bytes.
    pub size: Option<i64>,
    /// The files of the segment.
    pub files: Vec<SegmentFile>,
}

/// One file of a [`Segment`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentFile {
    /// `recordType`: `AUDIO`, `SPEAKER_VIDEO`, `SHARE_VIDEO`, `SPEAKER_SHARE_VIDEO`.
    pub record_type: Option<String>,
    /// `beginTime`.
    pub begin: Option<Millis>,
    /// `endTime`.
    pub end: Option<Millis>,
    /// `duration`, in seconds.
    pub length_s: Option<i64>,
    /// `fileSize`, in bytes.
    pub size: Option<i64>,
}
