//! The encoder of CloudEvents.

use std::collections::BTreeMap;

use convoke::relay::Encoder;
use convoke_core::event::Row;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;
use serde_json::value::RawValue;

/// Lines: subscriber, event type, meeting, run of the meeting; the rest is `eventInfo`.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(5, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (subscriber, event, meeting, run, event_info) = (line(), line(), line(), line(), line());
    let row = Row {
        seq: Seq(i64::try_from(data.len()).expect("not so long")),
        event_id: EventId::of(subscriber, Millis::EPOCH, event_info.as_bytes()),
        subscriber_id: subscriber,
        event,
        occurred_at: Millis::EPOCH,
        received_at: Millis::EPOCH,
        meeting_id: Some(meeting).filter(|text| !text.is_empty()),
        meeting_uuid: Some(run).filter(|text| !text.is_empty()),
        source: "push",
        traceparent: None,
        event_info: Some(event_info),
        checked: false,
    };
    whole(row, event_info);
    masked(row);
}

type Members<'a> = BTreeMap<String, &'a RawValue>;

fn whole(row: Row<'_>, event_info: &str) {
    let message = Encoder::new("meetings", Vec::new()).encode(row, false).expect("not forgotten");
    let event: Members<'_> = serde_json::from_slice(&message.payload).expect("a JSON object with names that are text");
    let text = |name: &str| {
        event.get(name).map(|value| serde_json::from_str::<String>(value.get()).expect("an attribute is text"))
    };
    for (name, wanted) in [("meetingid", row.meeting_id), ("subject", row.meeting_uuid)] {
        assert_eq!(text(name).as_deref(), wanted);
    }
    assert_eq!(text("type"), Some(format!("com.huaweicloud.{}", row.event)));
    assert_eq!(text("id").as_ref(), Some(&message.id));
    assert!(text("source").is_some_and(|source| source.is_ascii() && !source.contains([' ', '"', '\\'])));
    if let Ok(info) = serde_json::from_str::<Members<'_>>(event_info) {
        let data = |members: &Members<'_>, name| members.get(name).map(|value| value.get().to_owned());
        assert_eq!(data(&event, "data"), data(&info, "payload"), "the payload, verbatim");
    }

    let tokens: Vec<&str> = message.subject.split('.').collect();
    assert_eq!((tokens.len(), tokens[0]), (5, "meetings"));
    for token in tokens {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!((1..=64).contains(&token.len()) && token.bytes().all(plain), "{token:?} in {}", message.subject);
    }
}

fn masked(row: Row<'_>) {
    let encoder = Encoder::new("meetings", vec!["displayName".to_owned()]);
    let message = encoder.encode(row, false).expect("not forgotten");
    let event: Members<'_> = serde_json::from_slice(&message.payload).expect("a JSON object with names that are text");
    let inner = |value: &&RawValue| serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(value.get()).ok();
    let attendee = event.get("data").and_then(inner).and_then(|data| inner(&&**data.get("attendeeInfo")?));
    assert!(attendee.is_none_or(|attendee| !attendee.contains_key("displayName")), "a masked member in the stream");
}
