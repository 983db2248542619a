//! Recordings: that one was finished, and that the platform has made it ready.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use convoke_core::time::Millis;
use convoke_log::{ProjectedEvent, Ready, RecordingRow};

/// The row that a finished recording makes.
pub fn finished(fact: &ProjectedEvent) -> RecordingRow {
    RecordingRow {
        event_id: fact.event_id,
        subscriber_id: fact.subscriber_id.clone(),
        meeting_uuid: fact.meeting.uuid.clone(),
        meeting_id: fact.meeting.id.clone(),
        finished_at: fact.event_id.occurred_at(),
        ready: None,
    }
}

/// What a `record.ready` says; the newest one counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatestReady {
    /// Of the event, which is led by its time.
    event_id: Uuid,
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length_s: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size_mb: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    view_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    viewers: Option<String>,
}

impl Eq for LatestReady {}

impl Ord for LatestReady {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.event_id.cmp(&other.event_id)
    }
}

impl PartialOrd for LatestReady {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl LatestReady {
    /// Reads it; `None` if nothing can be made of it, or if it was forgotten.
    pub fn read(fact: &ProjectedEvent) -> Option<Self> {
        let info: serde_json::Value = serde_json::from_str(fact.event_info.as_deref()?).ok()?;
        let recording = info.get("payload")?.get("recordInfo")?;
        let text = |value: &serde_json::Value| value.as_str().map(|text| text.replace('\0', "\u{fffd}"));
        Some(Self {
            event_id: fact.event_id.uuid(),
            at: fact.event_id.occurred_at().get(),
            length_s: recording["lengthSeconds"].as_i64(),
            size_mb: recording["sizeMB"].as_f64(),
            files: recording["files"].as_i64(),
            view_url: text(&recording["viewUrl"]),
            viewers: text(&recording["viewers"]),
        })
    }

    /// What it says of a recording: nothing, if that was finished later.
    pub fn of(&self, recording: &RecordingRow) -> Option<Ready> {
        let at = Millis::new(self.at)?;
        (recording.finished_at <= at).then(|| Ready {
            at,
            length_s: self.length_s,
            size_mb: self.size_mb,
            files: self.files,
            view_url: self.view_url.clone(),
            viewers: self.viewers.clone(),
        })
    }
}
