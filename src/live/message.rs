//! One message of a running meeting becomes an event: the exact `eventInfo`, with the message verbatim in it. Pure.

use serde_json::Value;

use convoke_core::event::LIVE;
use convoke_core::redact::{self, LIVE_INFO};
use convoke_core::time::Millis;
use convoke_core::{raw_json, words};

/// Members that are never kept: whoever has them can enter the meeting, or control it.
const SECRETS: [&str; 8] =
    ["pwds", "pws", "pwd", "confToken", "tmpWsToken", "guestJoinUri", "localAuthInfo", "encryptionAuthCode"];

words! {
    /// What may be asked of a meeting: the setting `live.messages`.
    #[derive(PartialOrd, Ord)]
    pub enum LiveTopic as "LiveTopic" {
        /// The meeting itself: subject, state, lock, recording.
        Status = "status",
        /// Who is in it, and how.
        Participants = "participants",
        /// Who is invited, and what came of calling them.
        Invitations = "invitations",
        /// Who waits to be let in.
        WaitingRoom = "waiting_room",
        /// Why somebody left.
        Leaving = "leaving",
        /// Who is the loudest.
        Speakers = "speakers",
        /// Delay, loss and bandwidth of each.
        Quality = "quality",
        /// What is said.
        Captions = "captions",
    }
}

impl LiveTopic {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Status,
        Self::Participants,
        Self::Invitations,
        Self::WaitingRoom,
        Self::Leaving,
        Self::Speakers,
        Self::Quality,
        Self::Captions,
    ];

    /// What the platform calls it (manual, 6.1.3.2).
    #[must_use]
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Status => &["ConfBasicInfoNotify", "ConfDynamicInfoNotify"],
            Self::Participants => &["ParticipantsNotify"],
            Self::Invitations => &["AttendeesNotify", "InviteResultNotify"],
            Self::WaitingRoom => &["WaitingListNotify"],
            Self::Leaving => &["InviteResultNotify"],
            Self::Speakers => &["SpeakerChangeNotify"],
            Self::Quality => &["NetConditionNotify"],
            Self::Captions => &["RealTimeSubtitleNotify"],
        }
    }
}

/// The type of an event, after `live.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LiveKind {
    /// Subject, host, what may be done in it.
    Meeting,
    /// State, lock, recording.
    Status,
    /// Who is in it.
    Participants,
    /// Who is invited.
    Invited,
    /// What came of a call, or why somebody left.
    CallResult,
    /// Who waits.
    WaitingRoom,
    /// Who is the loudest.
    Speakers,
    /// Delay, loss and bandwidth.
    Quality,
    /// What is said.
    Captions,
    /// A kind that is not known here.
    Other,
    /// For a while nothing could be heard.
    Gap,
}

impl LiveKind {
    fn of(action: &str) -> Self {
        match action {
            "ConfBasicInfoNotify" => Self::Meeting,
            "ConfDynamicInfoNotify" => Self::Status,
            "ParticipantsNotify" => Self::Participants,
            "AttendeesNotify" => Self::Invited,
            "InviteResultNotify" => Self::CallResult,
            "WaitingListNotify" => Self::WaitingRoom,
            "SpeakerChangeNotify" => Self::Speakers,
            "NetConditionNotify" | "NetworkQualityNotify" => Self::Quality,
            "RealTimeSubtitleNotify" => Self::Captions,
            _ => Self::Other,
        }
    }
}

/// The run that a message is about.
#[derive(Clone, Copy, Debug)]
pub struct LiveRun<'a> {
    /// `meetingID`.
    pub meeting_id: &'a str,
    /// `meetingUUID`.
    pub meeting_uuid: &'a str,
}

/// What a text is.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(LiveEvent),
    /// The answer to something that was asked.
    Answer,
    /// No message.
    Noise,
}

/// An event, and the message that it was made of.
#[derive(Debug)]
pub struct LiveEvent {
    /// Its type.
    pub kind: LiveKind,
    /// When it happened.
    pub at: Millis,
    /// Its `eventInfo`.
    pub event_info: String,
    /// The message.
    pub message: Value,
}

impl AsRef<str> for LiveEvent {
    fn as_ref(&self) -> &str {
        &self.event_info
    }
}

/// Reads a text that came at `received_at`. What is repeated, after a connection was lost, becomes the same event: its number is
/// in the text.
#[must_use]
pub fn heard(text: &str, run: LiveRun<'_>, received_at: Millis) -> Heard {
    let Ok(message @ Value::Object(_)) = serde_json::from_str::<Value>(text) else { return Heard::Noise };
    let Some(action) = message["action"].as_str() else { return Heard::Noise };
    if matches!(action, "HeartBeat" | "Subscribe" | "ConfControl") {
        return Heard::Answer;
    }
    let kind = LiveKind::of(action);
    let at = millis(&message["createTime"]).or_else(|| millis(&message["version"])).unwrap_or(received_at);
    let (compact, _) = raw_json::compact(text.trim());
    let event_info = write(kind, at, run, &redact::without(&compact, &SECRETS));
    Heard::Event(LiveEvent { kind, at, event_info, message })
}

/// That nothing was heard of a meeting between these times.
#[must_use]
pub fn gap(run: LiveRun<'_>, from: Millis, until: Millis) -> LiveEvent {
    let message = serde_json::json!({ "from": from.get(), "until": until.get() });
    let event_info = write(LiveKind::Gap, until, run, &message.to_string());
    LiveEvent { kind: LiveKind::Gap, at: until, event_info, message }
}

fn write(kind: LiveKind, at: Millis, run: LiveRun<'_>, message: &str) -> String {
    let LiveRun { meeting_id, meeting_uuid } = run;
    let (meeting_id, meeting_uuid) = (Value::from(meeting_id), Value::from(meeting_uuid));
    format!(
        r#"{{"event":"{LIVE}{}","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":{meeting_id},"meetingUUID":{meeting_uuid}}},"{LIVE_INFO}":{message}}}}}"#,
        <&str>::from(kind),
        at = at.get(),
    )
}

/// Milliseconds, as a number or as text.
pub(super) fn millis(value: &Value) -> Option<Millis> {
    let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())?;
    // 13 digits: a number of a message has fewer.
    Millis::new(number).filter(|_| number >= 1_000_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: LiveRun<'_> = LiveRun { meeting_id: "960000017", meeting_uuid: "11112222333344445555666677778888" };

    fn event(text: &str) -> LiveEvent {
        match heard(text, RUN, Millis::new(1_735_700_466_999).unwrap()) {
            Heard::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_is_kept_as_it_came_but_for_its_white_space_and_what_opens_the_meeting() {
        let made = event(
            r#" {"action" : "ConfBasicInfoNotify","pws":[{"role":"chair","pwd":"1357"}],"title":"王 \u0041","guestJoinUri":"https://x/#1",
                 "media":2.0,"msgID":"0123","confToken":"t","createTime":"1735700466001"}"#,
        );
        assert_eq!(
            made.event_info,
            r#"{"event":"live.meeting","timestamp":1735700466001,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"liveInfo":{"action":"ConfBasicInfoNotify","title":"王 \u0041","media":2.0,"msgID":"0123","createTime":"1735700466001"}}}"#
        );
    }

    #[test]
    fn answers_are_no_events_and_what_is_no_message_is_none() {
        let at = Millis::new(1_735_700_466_999).unwrap();
        assert!(matches!(heard(r#"{"action":"HeartBeat","sequence":"1"}"#, RUN, at), Heard::Answer));
        for noise in ["", "[]", "null", "{\"action\":1}", "{", "\u{0}", &"[".repeat(10_000)] {
            assert!(matches!(heard(noise, RUN, at), Heard::Noise), "{noise}");
        }
        // A version is a number of its own in increments, and a time elsewhere.
        assert_eq!(event(r#"{"action":"New","version":39}"#).at, at);
        assert_eq!(event(r#"{"action":"New","version":1735700466000}"#).at.get(), 1_735_700_466_000);
        assert_eq!(event(r#"{"action":"New"}"#).kind, LiveKind::Other);
    }
}
