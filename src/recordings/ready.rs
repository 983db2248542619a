//! What the platform says about the recordings of a run, in either of its systems, and the bytes of `record.ready`.

use serde::{Deserialize, Serialize};

use convoke_core::time::Millis;
use convoke_log::RecordingWorkItem;
use convoke_platform::{RecordFile, Segment};

/// The event's type.
pub const EVENT: &str = "record.ready";

/// The platform's answer about a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Neither system has a recording.
    Nothing,
    /// There is one, which is not decoded yet, or not complete.
    Unfinished,
    /// All that there is is decoded.
    Ready(Ready),
}

/// Decoded recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// When they came to an end, as far as the platform says.
    pub at: Option<Millis>,
    /// How many starts of recording they come from, where the platform counts them.
    pub starts: Option<u32>,
    /// What is published of them.
    pub info: Info,
}

/// `recordInfo`: of all recordings of the run. Null is what the platform does not tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// In seconds.
    pub length_seconds: Option<i64>,
    /// In megabytes (of 1,000,000 bytes, where the platform gives bytes).
    #[serde(rename = "sizeMB")]
    pub size_mb: Option<serde_json::Number>,
    /// How many.
    pub files: Option<u64>,
    /// Where to watch, for who is allowed to; without what would let anybody in.
    pub view_url: Option<String>,
}

/// `eventInfo`, with its members in the order in which they are written.
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
    /// As the older system says it (section 4.2.15).
    #[must_use]
    pub fn of_file(file: &RecordFile) -> Self {
        if !file.decoded {
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
            },
        })
    }

    /// As the newer system says it (section 5.2.43), which describes no state: a segment is complete when each of its files has an
    /// end. Its addresses are good for an hour and for everybody who has them, so none is kept.
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
        // The files of a segment show the same time in several ways.
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
            },
        })
    }
}

/// To three decimals.
fn megabytes(bytes: i64) -> Option<serde_json::Number> {
    #[expect(clippy::cast_precision_loss, reason = "kilobytes of a recording fit")]
    serde_json::Number::from_f64((bytes as f64 / 1e3).round() / 1e3)
}

/// The one parameter that is no secret: which recording it is (sample of 4.2.14). Who may watch it is what the others say.
const RECORDING_PARAMETER: &str = "recordId";

/// The address without what lets anybody in: no user, no fragment, and of the parameters only [`RECORDING_PARAMETER`].
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
    /// The `eventInfo` of a `record.ready`, compact. It happened when decoding ended, as far as that is known and over by `now`,
    /// and not before the recording finished.
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

    /// Whether an earlier `record.ready` said the same.
    #[must_use]
    pub fn is_in(&self, event_info: &str) -> bool {
        serde_json::from_str::<EventInfo>(event_info).is_ok_and(|known| known.payload.record_info == self.info)
    }
}
