//! The platform's words, as far as they are used. Every field may be missing or null; empty strings are read as missing.

use std::time::Duration;

use convoke_core::time::Millis;

/// A run of a recurring meeting and the occurrence that it is begin no further apart.
const MAX_START_DIFFERENCE: Duration = Duration::from_secs(15 * 60);

/// Who we are to the platform (table 3-10).
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
    /// Of the record.
    pub id: String,
    /// The `appID` of the pushes.
    pub subscriber_id: Option<String>,
    /// Where they go.
    pub url: Option<String>,
    /// Its state.
    pub status: Status,
}

/// A subscription to be set. Its enterprise or service provider is the client's.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// The `appID` of the pushes.
    pub subscriber_id: String,
    /// The key that signs them.
    pub subscriber_key: secrecy::SecretString,
    /// Where they are to go.
    pub url: String,
}

/// A meeting, or a run of one (table 4-8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conference {
    /// `conferenceID`: the meeting's number.
    pub conference_id: Option<String>,
    /// `vmrConferenceID`: the number of a cloud meeting room or a personal one, which people see.
    pub vmr_conference_id: Option<String>,
    /// `confUUID`: the run.
    pub conf_uuid: Option<String>,
    /// `subConfs`: the occurrences of a recurring meeting. (Its `cycleSubConfID` is not read: in the manual and most of the SDKs
    /// it is the first occurrence's, whichever this is.)
    pub occurrences: Vec<Occurrence>,
    /// `subject`.
    pub subject: Option<String>,
    /// `startTime`, in whole minutes.
    pub start: Option<Millis>,
    /// `endTime`, in whole minutes.
    pub end: Option<Millis>,
    /// `conferenceState`: `Schedule`, `Creating`, `Created`, `Destroyed`.
    pub state: Option<String>,
    /// `scheduserName`: who scheduled it.
    pub scheduler_name: Option<String>,
    /// `userUUID` of who scheduled it.
    pub scheduler_uuid: Option<String>,
    /// `isHasRecordFile`.
    pub has_record_file: Option<bool>,
}

/// An occurrence of a recurring meeting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occurrence {
    /// `cycleSubConfID`.
    pub id: String,
    /// `startTime`: when it is to begin, in whole minutes.
    pub start: Option<Millis>,
    /// `endTime`: when it is to end, in whole minutes.
    pub end: Option<Millis>,
}

impl Conference {
    /// The one of its occurrences that was to begin when it did: people come early, and occurrences are days apart.
    #[must_use]
    pub fn occurrence_held(&self) -> Option<&Occurrence> {
        let began = self.start?;
        let apart = |occurrence: &&Occurrence| {
            let start = occurrence.start?;
            Some(began.since(start).max(start.since(began))).filter(|apart| *apart <= MAX_START_DIFFERENCE)
        };
        self.occurrences.iter().filter(|occurrence| apart(occurrence).is_some()).min_by_key(apart)
    }
}

/// A stay (table 4-64): no participant id, no user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttendeeRecord {
    /// `displayName`.
    pub display_name: Option<String>,
    /// `callNumber`.
    pub call_number: Option<String>,
    /// `deviceType`, localised.
    pub device_type: Option<String>,
    /// `joinTime`.
    pub joined_at: Option<Millis>,
    /// `leftTime`.
    pub left_at: Option<Millis>,
}

/// A recording (table 4-37).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFile {
    /// `confUUID`: the run.
    pub conf_uuid: Option<String>,
    /// `confID`: the meeting's number.
    pub conf_id: Option<String>,
    /// `url`: where to watch, with tokens in them: secret.
    pub urls: Vec<String>,
    /// `rcdTime`, in seconds.
    pub length_s: Option<i64>,
    /// `rcdSize`, in MB.
    pub size_mb: Option<i64>,
    /// `isDecodeFinish`.
    pub decoded: bool,
    /// `decodeEndTime`.
    pub decode_end: Option<Millis>,
    /// `available`: it may be watched.
    pub available: Option<bool>,
}

/// A slice of a recording in the newer system (5.2.43).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// `manualOrder`: one per manual start of recording, from 1.
    pub manual_order: Option<i64>,
    /// `segmentOrder`, from 1 within it.
    pub segment_order: Option<i64>,
    /// `segmentSize`, in bytes.
    pub size: Option<i64>,
    /// Its files.
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
