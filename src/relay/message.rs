//! Converts a row of the log into a message: subject, headers, and the CloudEvent.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::IgnoredAny;

use convoke_bus::Message;
use convoke_core::event::Row;
use convoke_core::{raw_json, redact};

/// The unreserved characters of RFC 3986 are not escaped.
const URI_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Maximum length of one token of a subject, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// Converts rows into messages.
#[derive(Clone, Debug)]
pub struct Encoder {
    prefix: String,
    /// Members of `attendeeInfo` that are kept out of the stream.
    mask: Vec<String>,
}

impl Encoder {
    /// For subjects that begin with `prefix`; the members of `attendeeInfo` in `mask` are left out.
    #[must_use]
    pub fn new(prefix: impl Into<String>, mask: Vec<String>) -> Self {
        Self { prefix: prefix.into(), mask: redact::with_live_names(mask) }
    }

    /// The message of a row; `None` if the row was erased.
    #[must_use]
    pub fn encode(&self, row: Row<'_>, replay: bool) -> Option<Message> {
        let event_info = row.event_info?;
        Some(Message {
            subject: subject(&self.prefix, row.subscriber_id, row.event, row.meeting_id),
            id: row.event_id.to_string(),
            traceparent: row.traceparent.map(str::to_owned),
            replay,
            payload: Bytes::from(self.cloud_event(row, event_info)),
        })
    }

    /// The row as a CloudEvent 1.0 in structured JSON. Null members are left out; `data` is the payload, verbatim.
    fn cloud_event(&self, row: Row<'_>, event_info: &str) -> Vec<u8> {
        // Rows hold checked JSON. Should somebody have changed one behind our back, the message is JSON all the same.
        let sound = |payload: &&str| row.checked || serde_json::from_str::<IgnoredAny>(payload).is_ok();
        let payload = raw_json::member(event_info, "payload").filter(sound).map(|payload| {
            if self.mask.is_empty() { Cow::Borrowed(payload) } else { Cow::Owned(redact::mask(payload, &self.mask)) }
        });
        let mut out = Vec::with_capacity(512 + payload.as_deref().map_or(0, str::len));
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            r#"{{"specversion":"1.0","id":"{}","source":"/huawei-cloud-meeting/{}""#,
            row.event_id,
            utf8_percent_encode(row.subscriber_id, URI_UNRESERVED),
        );
        member(&mut out, "type", Some(&format_args!("com.huaweicloud.{}", row.event)));
        member(&mut out, "subject", row.meeting_uuid.as_ref());
        let _ = write!(
            out,
            r#","time":"{}","datacontenttype":"application/json","sequence":"{:019}","recordedtime":"{}""#,
            row.occurred_at, row.seq.0, row.received_at
        );
        member(&mut out, "meetingid", row.meeting_id.as_ref());
        member(&mut out, "origin", Some(&row.source));
        if let Some(payload) = payload {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(payload.as_bytes());
        }
        out.push(b'}');
        out
    }
}

/// Adds a member that is not the first one, unless it is null.
fn member(out: &mut Vec<u8>, name: &str, value: Option<&impl serde::Serialize>) {
    if let Some(value) = value {
        let _ = write!(out, r#","{name}":"#);
        // Neither writing to a Vec nor a text can fail.
        let _ = serde_json::to_writer(out, value);
    }
}

/// `{prefix}.{subscriber}.{event}.{meeting}`; the event always takes two tokens.
#[must_use]
pub fn subject(prefix: &str, subscriber: &str, event: &str, meeting: Option<&str>) -> String {
    let (kind, what) = event.split_once('.').unwrap_or((event, ""));
    let mut subject = String::with_capacity(prefix.len() + 48);
    subject.push_str(prefix);
    for part in [subscriber, kind, what, meeting.unwrap_or_default()] {
        subject.push('.');
        token(&mut subject, part);
    }
    subject
}

/// The subject filter for all messages of a meeting, of any event type and subscriber.
#[must_use]
pub fn meeting_subjects(prefix: &str, meeting: Option<&str>) -> String {
    let mut subject = format!("{prefix}.*.*.*.");
    token(&mut subject, meeting.unwrap_or_default());
    subject
}

fn token(to: &mut String, part: &str) {
    if part.is_empty() {
        to.push('-');
    }
    to.extend(part.bytes().take(MAX_TOKEN_BYTES).map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte),
        _ => '_',
    }));
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use convoke_core::event::Record;
    use convoke_core::id::{EventId, Seq};
    use convoke_core::time::Millis;

    fn record(event: &str, event_info: Option<&str>) -> Record {
        Record {
            seq: Seq(42),
            event_id: EventId::from_uuid(Uuid::from_u128(0x017a_0000_0000_8000_8000_0000_0000_0001)),
            subscriber_id: "1988692299".to_owned(),
            event: event.to_owned(),
            occurred_at: Millis::new(1_629_813_991_351).unwrap(),
            received_at: Millis::new(1_629_813_992_000).unwrap(),
            meeting_id: Some("987446316".to_owned()),
            meeting_uuid: None,
            source: "push".to_owned(),
            traceparent: None,
            event_info: event_info.map(str::to_owned),
        }
    }

    fn encoded(record: &Record, mask: &[&str]) -> String {
        let encoder = Encoder::new("meetings", mask.iter().map(|&field| field.to_owned()).collect());
        String::from_utf8(encoder.encode(record.row(), false).unwrap().payload.to_vec()).unwrap()
    }

    #[test]
    fn subjects_follow_the_rule_token_by_token() {
        let of = |event, meeting| subject("meetings", "1988692299", event, meeting);
        assert_eq!(of("meeting.join", Some("987446316")), "meetings.1988692299.meeting.join.987446316");
        assert_eq!(of("plain", None), "meetings.1988692299.plain.-.-");
        assert_eq!(of("a.b.c", Some("1 2*3>")), "meetings.1988692299.a.b_c.1_2_3_");
        assert_eq!(of(".x", Some("é")), "meetings.1988692299.-.x.__");
        assert_eq!(of("x.y", Some(&"9".repeat(70))), format!("meetings.1988692299.x.y.{}", "9".repeat(64)));
    }

    #[test]
    fn a_row_becomes_a_cloud_event_with_its_payload_verbatim() {
        let record = record(
            "meeting.started",
            Some(r#"{"event":"meeting.started","timestamp":1629813991351,"payload":{"b":1.0,"a":"\u0000"}}"#),
        );
        assert_eq!(
            encoded(&record, &[]),
            concat!(
                r#"{"specversion":"1.0","id":"017a0000-0000-8000-8000-000000000001","#,
                r#""source":"/huawei-cloud-meeting/1988692299","type":"com.huaweicloud.meeting.started","#,
                r#""time":"2021-08-24T14:06:31.351Z","datacontenttype":"application/json","#,
                r#""sequence":"0000000000000000042","recordedtime":"2021-08-24T14:06:32.000Z","#,
                r#""meetingid":"987446316","origin":"push","data":{"b":1.0,"a":"\u0000"}}"#
            )
        );
    }

    #[test]
    fn what_is_absent_is_left_out_and_hostile_names_stay_text() {
        let mut record = record("odd \"type\"", Some(r#"{"event":"odd","timestamp":1}"#));
        record.meeting_id = None;
        record.subscriber_id = "a/b ü".to_owned();
        let event: serde_json::Value = serde_json::from_str(&encoded(&record, &[])).unwrap();
        assert_eq!(event["type"], "com.huaweicloud.odd \"type\"");
        assert_eq!(event["source"], "/huawei-cloud-meeting/a%2Fb%20%C3%BC");
        assert!(event.get("data").is_none() && event.get("meetingid").is_none() && event.get("subject").is_none());
    }

    #[test]
    fn a_forgotten_row_makes_no_message() {
        assert!(Encoder::new("meetings", Vec::new()).encode(record("meeting.join", None).row(), false).is_none());
    }

    #[test]
    fn masked_members_are_cut_out_and_the_rest_stays_as_it_is() {
        let info = r#"{"event":"meeting.join","timestamp":1,"payload":{"meetingInfo":{"meetingID":"1"},"attendeeInfo":{"displayName":"王","role":"CHAIR","joinTime":1.50}}}"#;
        let data = r#""data":{"meetingInfo":{"meetingID":"1"},"attendeeInfo":{"role":"CHAIR","joinTime":1.50}}}"#;
        assert!(encoded(&record("meeting.join", Some(info)), &["displayName"]).ends_with(data));
        // What a running meeting tells has other names for the same.
        let live = r#"{"event":"live.participants","timestamp":1,"payload":{"meetingInfo":{"meetingID":"1"},"liveInfo":{"data":[{"pid":"a","pinfoMap":{"NAME":"王","TEL":"+99","MUTE":"1"}}]}}}"#;
        let data =
            r#""data":{"meetingInfo":{"meetingID":"1"},"liveInfo":{"data":[{"pid":"a","pinfoMap":{"MUTE":"1"}}]}}}"#;
        assert!(encoded(&record("live.participants", Some(live)), &["displayName", "callNumber"]).ends_with(data));
        let odd = r#"{"event":"meeting.join","timestamp":1,"payload":{"attendeeInfo":"王"}}"#;
        assert!(encoded(&record("meeting.join", Some(odd)), &["displayName"]).ends_with(r#""data":{}}"#));
    }
}
