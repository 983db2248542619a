//! The platform's information about the recordings of a run, from either of its recording systems, and the bytes of
//! `record.ready`.

use serde::{Deserialize, Serialize};

use convoke_core::time::Millis;
use convoke_log::RecordingWorkItem;
use convoke_platform::{RecordFile, Segment};

/// The event type.
pub const EVENT: &str = "record.ready";

/// The platform's answer for a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Neither system has a recording.
    Nothing,
    /// There is a recording that is not decoded yet, not complete, or may not be watched.
    Unfinished,
    /// All recordings are decoded.
    Ready(Ready),
}

/// Decoded recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// When decoding was expected to end, or the files ended, if the platform tells.
    pub at: Option<Millis>,
    /// How many times recording was started, if the platform counts that.
    pub starts: Option<u32>,
    /// What is published about them.
    pub info: Info,
}

/// `recordInfo`, for all recordings of the run together. A value that the platform does not give is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Length in seconds.
    pub length_seconds: Option<i64>,
    /// Size in megabytes (of 1,000,000 bytes, where the platform gives bytes).
    #[serde(rename = "sizeMB")]
    pub size_mb: Option<serde_json::Number>,
    /// Number of files.
    pub files: Option<u64>,
    /// URL for viewers who are authorised, without any parameter that would give access to others.
    pub view_url: Option<String>,
    /// Who may watch: `link`, `enterprise` or `participants`.
    #[serde(default)]
    pub viewers: Option<String>,
}

/// `eventInfo`; its members are written in this order.
#[derive(Serialize, Deserialize)]
struct EventInfo {
    event: String,
    timestamp: i64,
    payload: Payload,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    meeting_info: MeetingInfo,
    record_info: Info,
}

#[derive(Serialize, Deserialize)]
struct MeetingInfo {
    #[serde(rename = "meetingID")]
    id: Option<String>,
    #[serde(rename = "meetingUUID")]
    uuid: String,
}

impl Found {
    /// From the older system's response (section 4.2.15).
    #[must_use]
    pub fn of_file(file: &RecordFile) -> Self {
        if !file.decoded || file.available == Some(false) {
            return Self::Unfinished;
        }
        Self::Ready(Ready {
            at: file.decode_end,
            starts: None,
            info: Info {
                length_seconds: file.length_s,
                size_mb: file.size_mb.map(Into::into),
                files: Some(file.urls.len() as u64).filter(|count| *count > 0),
                view_url: file.urls.iter().find_map(|url| without_token(url)),
                viewers: file.viewers.map(|viewers| viewers.to_string()),
            },
        })
    }

    /// From the newer system's response (section 5.2.43). It has no state: a segment counts as complete when each of its files
    /// has an end. Its URLs are valid for an hour and give access to whoever has them, so none is kept.
    #[must_use]
    pub fn of_segments(segments: &[Segment]) -> Self {
        if segments.is_empty() {
            return Self::Nothing;
        }
        let files = || segments.iter().flat_map(|segment| &segment.files);
        let complete =
            segments.iter().all(|segment| !segment.files.is_empty()) && files().all(|file| file.end.is_some());
        if !complete {
            return Self::Unfinished;
        }
        // The files of a segment show the same time span in different ways.
        let length = |segment: &Segment| segment.files.iter().filter_map(|file| file.length_s).max();
        let size = |segment: &Segment| {
            segment.size.or_else(|| segment.files.iter().map(|file| file.size).sum::<Option<i64>>())
        };
        Self::Ready(Ready {
            at: files().filter_map(|file| file.end).max(),
            starts: segments
                .iter()
                .filter_map(|segment| segment.manual_order)
                .max()
                .and_then(|n| u32::try_from(n).ok()),
            info: Info {
                length_seconds: segments.iter().map(length).sum(),
                size_mb: segments.iter().map(size).sum::<Option<i64>>().and_then(megabytes),
                files: Some(files().count() as u64),
                view_url: None,
                viewers: None,
            },
        })
    }
}

/// Rounded to three decimals.
fn megabytes(bytes: i64) -> Option<serde_json::Number> {
    #[expect(clippy::cast_precision_loss, reason = "kilobytes of a recording fit")]
    serde_json::Number::from_f64((bytes as f64 / 1e3).round() / 1e3)
}

/// The one parameter that is not secret: the ID of the recording (sample of 4.2.14). The others grant access.
const RECORDING_PARAMETER: &str = "recordId";

/// The URL without anything that grants access: no user, no fragment, and only the parameter [`RECORDING_PARAMETER`].
fn without_token(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "https" | "http") || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let rest = rest.split('#').next()?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = place.split(';').next()?;
    let (authority, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    let host = authority.rsplit('@').next().filter(|host| !host.is_empty())?;
    let plain =
        |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let recording =
        query.split('&').filter_map(|part| part.split_once('=')).find(|(name, _)| *name == RECORDING_PARAMETER);
    let id =
        recording.map(|(_, id)| id).filter(plain).map_or(String::new(), |id| format!("?{RECORDING_PARAMETER}={id}"));
    Some(format!("{scheme}://{host}{path}{id}"))
}

impl Ready {
    /// The `eventInfo` of a `record.ready`, compact. Its time is the expected end of decoding, if that is known and not after `now`, but
    /// not before the recording finished.
    #[must_use]
    pub fn event_info(&self, fetch: &RecordingWorkItem, now: Millis) -> String {
        let at = self.at.filter(|at| *at <= now).unwrap_or(fetch.finished_at).max(fetch.finished_at);
        let meeting_info = MeetingInfo { id: fetch.meeting_id.clone(), uuid: fetch.meeting_uuid.clone() };
        let info = EventInfo {
            event: EVENT.to_owned(),
            timestamp: at.get(),
            payload: Payload { meeting_info, record_info: self.info.clone() },
        };
        serde_json::to_string(&info).expect("texts and numbers can be written")
    }

    /// Whether an earlier `record.ready` contained the same.
    #[must_use]
    pub fn is_in(&self, event_info: &str) -> bool {
        serde_json::from_str::<EventInfo>(event_info).is_ok_and(|known| known.payload.record_info == self.info)
    }
}
