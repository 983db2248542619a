//! How a signed body is read: as an event with its columns and id, or as a quarantine entry.

use super::signatures::JOIN;
use super::*;
use crate::event::{Attendee, Meeting};

fn text(text: &str) -> Option<Arc<str>> {
    Some(Arc::from(text))
}

fn millis(ms: i64) -> Option<Millis> {
    Some(Millis::new(ms).expect("a time"))
}

fn with_payload(payload: &str) -> Event {
    event(&format!(r#"{{"event":"meeting.join","timestamp":1735700465789,"payload":{payload}}}"#))
}

fn meeting(members: &str) -> Meeting {
    with_payload(&format!(r#"{{"meetingInfo":{{{members}}}}}"#)).meeting
}

fn attendee(members: &str) -> Attendee {
    with_payload(&format!(r#"{{"attendeeInfo":{{{members}}}}}"#)).attendee
}

#[test]
fn an_event_is_read_into_its_columns() {
    let read = event(JOIN);
    assert_eq!(&*read.subscriber_id, APP_ID);
    assert_eq!(&*read.event, "meeting.join");
    assert_eq!(Some(read.occurred_at), millis(1_735_700_465_789));
    assert_eq!(read.received_at.get(), RECEIVED_AT);
    assert_eq!(read.request_id, text("a-request"));
    assert_eq!(read.source, Source::Push);
    assert_eq!(
        read.meeting,
        Meeting { id: text("960000017"), uuid: text("11112222333344445555666677778888"), cycle_sub_id: None }
    );
    assert_eq!(
        read.attendee,
        Attendee {
            user_uuid: text("aaaabbbbccccddddeeeeffff00001111"),
            user_agent: text("WeLink-desktop"),
            account: text("demo.user"),
            participant_id: text("99998888777766665555444433332222"),
            display_name: text("王小明"),
            role: text("CHAIR"),
            call_number: text("+8657100000000001"),
            join_time: millis(1_735_700_465_001),
            left_time: None,
        }
    );
    assert_eq!(&*read.event_info, JOIN);
    assert_eq!(meeting(r#""meetingCycleSubID":"c""#).cycle_sub_id, text("c"));
}

#[test]
fn unknown_event_types_and_missing_payloads_are_events() {
    for name in ["meeting.new", "x", " ", "会议", "a.b.c", "MEETING.VERIFY", "meeting.verify "] {
        assert_eq!(&*event(&format!(r#"{{"timestamp":1735700465789,"event":"{name}"}}"#)).event, name);
    }
    for payload in ["null", "[]", "\"\"", "0", "true", "{}", r#"{"meetingInfo":null,"attendeeInfo":[]}"#] {
        let read = with_payload(payload);
        assert_eq!((read.meeting, read.attendee), (Meeting::default(), Attendee::default()), "{payload}");
    }
    assert_eq!(event(r#"{"event":"x","timestamp":1735700465789}"#).meeting, Meeting::default());
    // Characters that a database cannot store become U+FFFD in the event type; a name with escapes is the same name.
    assert_eq!(&*event(r#"{"\u0065vent":"a\u0000b\ud800","timestamp":1735700465789}"#).event, "a\u{fffd}b\u{fffd}");
}

#[test]
fn a_handshake_needs_neither_time_nor_payload() {
    for info in [
        r#"{"event":"meeting.verify"}"#,
        r#"{"event":"meeting\u002everify","timestamp":"soon"}"#,
        r#"{"timestamp":1735700465789,"timestamp":2,"event":"meeting.verify","payload":{}}"#,
    ] {
        assert!(matches!(content(info), Content::Handshake(_)), "{info}");
    }
}

#[test]
fn text_columns_take_strings_and_integers_and_nothing_else() {
    for (value, expected) in [
        (r#""987446316""#, text("987446316")),
        (r#""""#, None),
        (r#"" ""#, text(" ")),
        (r#""a\u0000b""#, text("a\u{fffd}b")),
        (r#""\u0000""#, text("\u{fffd}")),
        (r#""\ud83d\ude00\ud83dx\ude00""#, text("😀\u{fffd}x\u{fffd}")),
        (r#""\"\\\/\b\f\n\r\t\u738b""#, text("\"\\/\u{8}\u{c}\n\r\t王")),
        ("987446316", text("987446316")),
        ("-5", text("-5")),
        ("123456789012345678901234567890", text("123456789012345678901234567890")),
        ("1.0", None),
        ("1e5", None),
        ("true", None),
        ("null", None),
        ("[\"a\"]", None),
        ("{\"a\":1}", None),
    ] {
        assert_eq!(meeting(&format!("\"meetingID\":{value}")).id, expected, "{value}");
        assert_eq!(attendee(&format!("\"displayName\":{value}")).display_name, expected, "{value}");
    }
}

#[test]
fn time_columns_take_what_the_number_of_digits_says_and_what_is_no_plausible_time_is_null() {
    let (day, first) = (86_400_000, 1_420_070_400_000);
    let latest = RECEIVED_AT + day;
    for (value, expected) in [
        ("1735700465001", millis(1_735_700_465_001)),
        ("\"1735700465001\"", millis(1_735_700_465_001)),
        ("\"\\u0031735700465001\"", millis(1_735_700_465_001)),
        // Ten digits are seconds.
        ("1735700465", millis(1_735_700_465_000)),
        ("\"1735700465\"", millis(1_735_700_465_000)),
        // Valid are times from 2015 to one day after the receipt.
        (&first.to_string(), millis(first)),
        (&(first - 1).to_string(), None),
        ("1420070399", None),
        (&latest.to_string(), millis(latest)),
        (&(latest + 1).to_string(), None),
        ("1735786867", None),
        // Any other number of digits is ambiguous.
        ("\"0001735700465001\"", None),
        ("173570046500", None),
        ("17357004650", None),
        ("17357004650010", None),
        ("1735700465001000", None),
        ("1", None),
        ("253402300799999", None),
        ("9999999999999", None),
        ("99999999999999999999999999", None),
        ("0", None),
        ("-0", None),
        ("\"0\"", None),
        ("\"\"", None),
        ("-1", None),
        ("-1735700465", None),
        ("-173570046500", None),
        ("\"+735700465001\"", None),
        ("\" 735700465001\"", None),
        ("\"١\"", None),
        ("\"\\ud800\"", None),
        ("1.5", None),
        ("1735700465001.0", None),
        ("1e12", None),
        ("null", None),
        ("true", None),
        ("[1]", None),
        ("{}", None),
    ] {
        let read = attendee(&format!("\"joinTime\":{value},\"leftTime\":{value}"));
        assert_eq!((read.join_time, read.left_time), (expected, expected), "{value}");
    }
}

#[test]
fn the_misprint_of_attendee_info_is_read_as_what_it_means() {
    let read = with_payload(r#"{"attendeelInfo":{"displayName":"王"}}"#);
    assert_eq!(read.attendee.display_name, text("王"));
    let both = r#"{"attendeelInfo":{"displayName":"x"},"attendeeInfo":{"displayName":"王"}}"#;
    assert_eq!(with_payload(both).attendee.display_name, text("王"));
}

#[test]
fn of_a_doubled_member_below_event_info_the_last_counts() {
    assert_eq!(meeting(r#""meetingID":"1","meetingID":"2""#).id, text("2"));
    assert_eq!(meeting(r#""meetingID":"1","meetingI\u0044":null"#).id, None);
    let twice = r#"{"meetingInfo":{"meetingID":"1"},"meetingInfo":{"meetingUUID":"2"}}"#;
    assert_eq!(with_payload(twice).meeting, Meeting { uuid: text("2"), ..Meeting::default() });
    let read =
        event(r#"{"event":"x","timestamp":1735700465789,"payload":{"meetingInfo":{"meetingID":"1"}},"payload":null}"#);
    assert_eq!(read.meeting, Meeting::default());
}

#[test]
fn an_event_without_a_type_goes_to_the_quarantine() {
    assert_eq!(reason("{}"), "event is missing");
    assert_eq!(reason(r#"{"timestamp":1735700465789}"#), "event is missing");
    assert_eq!(reason(r#"{"event":"","timestamp":1735700465789}"#), "event is empty");
    for value in ["null", "1", "true", "[]", "{}"] {
        assert_eq!(reason(&format!(r#"{{"event":{value},"timestamp":1735700465789}}"#)), "event is not a string");
    }
    for second in [r#""event":"a""#, r#""\u0065vent":"meeting.verify""#, r#""event":null"#] {
        assert_eq!(reason(&format!(r#"{{"event":"a","timestamp":1735700465789,{second}}}"#)), "event appears twice");
        assert_eq!(
            reason(&format!(r#"{{{second},"timestamp":1735700465789,"event":"meeting.verify"}}"#)),
            "event appears twice"
        );
    }
}

#[test]
fn an_event_without_a_time_goes_to_the_quarantine() {
    let not = "eventInfo.timestamp is not an integer";
    assert_eq!(reason(r#"{"event":"a"}"#), "eventInfo.timestamp is missing");
    for value in ["null", "\"\"", "\"soon\"", "1735700465789.0", "1735700465789.5", "1e12", "true", "[1]", "{}"] {
        assert_eq!(reason(&format!(r#"{{"event":"a","timestamp":{value}}}"#)), not, "{value}");
    }
    assert_eq!(reason(r#"{"event":"a","timestamp":1,"timestamp":1}"#), "eventInfo.timestamp appears twice");
}

#[test]
fn an_event_with_a_time_that_cannot_be_right_goes_to_the_quarantine() {
    let info = |value: &str| format!(r#"{{"event":"a","timestamp":{value}}}"#);
    for value in [
        "0",
        "-1",
        "1420070399999",
        "1420070399",
        "1735786866001",
        "173570046578",
        "17357004657890",
        "1735700465789000",
        "253402300799999",
        "253402300800000",
        "9223372036854775808",
        "99999999999999999999999999999999999999",
        "\"0\"",
    ] {
        assert_eq!(reason(&info(value)), "implausible time", "{value}");
    }
    for (value, expected) in [
        ("1420070400000", 1_420_070_400_000),
        ("1735786866000", 1_735_786_866_000),
        ("\"1735700465789\"", 1_735_700_465_789),
        ("1735700465", 1_735_700_465_000),
        ("\"1735700465\"", 1_735_700_465_000),
    ] {
        assert_eq!(event(&info(value)).occurred_at.get(), expected, "{value}");
    }
}

#[test]
fn somebody_who_knows_the_unit_has_an_implausible_time_admitted() {
    let unreadable = |info: &str| Unreadable {
        subscriber_id: APP_ID.into(),
        received_at: Millis::new(RECEIVED_AT).expect("a time"),
        reason: IMPLAUSIBLE.to_owned(),
        body: body(info).into(),
    };
    let now = Millis::new(RECEIVED_AT + 1).expect("a time");
    let read = |info: &str, admit: Option<Admit>| {
        reread(&unreadable(info), now, admit).map(|verified| match verified.content() {
            Content::Event(event) => event.clone(),
            other => panic!("{info} is {other:?}"),
        })
    };
    let time = |value: &str| format!(r#"{{"event":"a","timestamp":{value}}}"#);
    let micros =
        r#"{"event":"a","timestamp":1735700465789000,"payload":{"attendeeInfo":{"joinTime":1735700465001999}}}"#;
    let event = read(micros, Some(Admit::Microseconds)).expect("an event");
    assert_eq!(
        (Some(event.occurred_at), event.attendee.join_time),
        (millis(1_735_700_465_789), millis(1_735_700_465_001))
    );
    assert_eq!(
        event.event_id,
        EventId::of(APP_ID, event.occurred_at, micros.as_bytes()),
        "the same whenever it is admitted"
    );
    let event = read(&time("\"001735700465\""), Some(Admit::Seconds)).expect("an event");
    assert_eq!(Some(event.occurred_at), millis(1_735_700_465_000));
    for value in ["0", "1735700465789000", "\"soon\"", "null"] {
        let event = read(&time(value), Some(Admit::Received)).expect("an event");
        assert_eq!(event.occurred_at.get(), RECEIVED_AT, "{value}");
        assert!(event.event_info.contains(value), "verbatim");
    }
    assert_eq!(read(micros, None), Err(IMPLAUSIBLE.to_owned()));
    assert_eq!(read(micros, Some(Admit::Seconds)), Err(IMPLAUSIBLE.to_owned()));
    assert_eq!(read(&time("0"), Some(Admit::Microseconds)), Err(IMPLAUSIBLE.to_owned()));
    // A plausible time is read as it is, whatever `admit` says.
    let event = read(&time("1735700465789"), Some(Admit::Microseconds)).expect("an event");
    assert_eq!(Some(event.occurred_at), millis(1_735_700_465_789));
    // Received while the clock was years behind: now that the clock is right, its time counts.
    let behind = Unreadable { received_at: Millis::new(5).expect("a time"), ..unreadable(&time("1735700465789")) };
    assert!(reread(&behind, now, None).is_ok());
}

#[test]
fn a_body_without_an_envelope_is_what_was_made_or_fetched_here() {
    let now = Millis::new(RECEIVED_AT).expect("a time");
    let bare = |info: &str| {
        let body = Bytes::copy_from_slice(info.as_bytes());
        let unreadable = Unreadable { subscriber_id: APP_ID.into(), received_at: now, reason: "full".to_owned(), body };
        reread(&unreadable, now, None)
    };
    let ready = r#"{"event":"record.ready","timestamp":1735700465789,"payload":{}}"#;
    for (info, source) in [(JOIN, Source::Backfill), (ready, Source::Platform)] {
        let verified = bare(info).expect("an event");
        let Content::Event(read) = verified.content() else { panic!("it is an event") };
        assert_eq!((read.source, &*read.event_info), (source, info));
        assert_eq!(verified, pulled(&APP_ID.into(), info, source, now));
    }
    assert_eq!(bare(r#"{"event":"meeting.end","timestamp":1}"#).err().as_deref(), Some(IMPLAUSIBLE));
    assert_eq!(bare(r#"{"event":"meeting.verify"}"#).err().as_deref(), Some("a handshake is no event"));
    assert_eq!(bare("{}").err().as_deref(), Some("appID is missing"));
}

/// An `eventInfo` with `levels` levels of arrays or objects, itself the first.
fn nested(levels: usize, open: &str, inner: &str, close: &str) -> String {
    let (open, close) = (open.repeat(levels - 1), close.repeat(levels - 1));
    format!(r#"{{"event":"a","timestamp":1735700465789,"payload":{open}{inner}{close}}}"#)
}

#[test]
fn nesting_is_read_to_512_levels_and_kept_in_the_quarantine_beyond() {
    for (open, inner, close) in [("[", "", "]"), ("{\"a\":", "0", "}"), ("[", "\"[[\\\"[[\"", "]")] {
        let deepest = nested(512, open, inner, close);
        assert_eq!(&*event(&deepest).event_info, deepest);
        for levels in [513, 100_000] {
            let reason = reason(&nested(levels, open, inner, close));
            assert_eq!(reason, format!("eventInfo is nested {levels} levels deep; the limit is 512"));
        }
    }
    // Width does not count as depth.
    let wide = format!(r#"{{"event":"a","timestamp":1735700465789,"payload":[{}[]]}}"#, "[],{},".repeat(10_000));
    assert_eq!(&*event(&wide).event_info, wide);
}

/// `appID`, eventInfo, id. Computed with Python's `hashlib` and `uuid`, from the text of the specification alone.
const IDS: [[&str; 3]; 6] = [
    [
        "123456789",
        r#"{"event":"meeting.started","timestamp":1629813991351,"payload":{"meetingInfo":{"meetingID":"987446316"}}}"#,
        "017b787b-e7b7-8037-8987-ab4c0b92da9f",
    ],
    [APP_ID, JOIN, "01941fcf-487d-8a83-a003-b753d3d523bf"],
    [APP_ID, END, "01942005-37c8-8986-9131-0d68ca89b325"],
    ["other", END, "01942005-37c8-8809-b816-e56351c65875"],
    [APP_ID, r#"{"event":"x","timestamp":0}"#, "00000000-0000-83d1-b60d-87b587224574"],
    [APP_ID, r#"{"event":"x","timestamp":253402300799999}"#, "e677d21f-dbff-8cc3-9eb2-563f71c6a888"],
];
const END: &str = r#"{"event":"meeting.end","timestamp":1735704000456,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888","meetingCycleSubID":"0f0e0d0c0b0a09080706050403020100"}}}"#;

#[test]
fn the_id_is_the_time_and_the_digest_of_subscriber_and_content() {
    for [app_id, info, id] in &IDS[4..] {
        let value: serde_json::Value = serde_json::from_str(info).expect("JSON");
        let at = value["timestamp"].as_i64().and_then(Millis::new).expect("a time");
        assert_eq!(EventId::of(app_id, at, info.as_bytes()).to_string(), *id);
    }
    for [app_id, info, id] in &IDS[..4] {
        let keyring = Keyring::new(&[subscriber(app_id, &[KEY])]);
        let signature = sign(KEY, &format!("{app_id}{TIMESTAMP}{NONCE}{info}"));
        let body = format!(
            r#"{{"appID":"{app_id}","timestamp":{TIMESTAMP},"nonce":"{NONCE}","signature":"{signature}","eventInfo":{info}}}"#
        );
        let checked = verify(&body.into(), &keyring, &delivery()).expect("it is signed");
        let Content::Event(event) = checked.verified.content() else { panic!("{info} is an event") };
        assert_eq!(event.event_id.to_string(), *id);
        assert_eq!(event.event_id.uuid().get_version_num(), 8);
        assert_eq!(event.event_id.uuid().get_variant(), uuid::Variant::RFC4122);
        assert!(EventId::lower_bound(event.occurred_at) <= event.event_id);
        let next = Millis::new(event.occurred_at.get() + 1);
        assert!(next.is_none_or(|next| event.event_id < EventId::lower_bound(next)));
    }
}

#[test]
fn a_resigned_retry_and_one_with_white_space_have_the_same_id() {
    let first = event(JOIN);
    let signature = sign(KEY, &format!("{APP_ID}1735700495790other nonce{JOIN}"));
    let spread = JOIN.replace(":{", " :\r\n\t{").replace(",\"", " , \"");
    let retry = format!(
        r#"{{"eventInfo":{spread},"signature":"{signature}","nonce":"other nonce","timestamp":"1735700495790","appId":"{APP_ID}"}}"#
    );
    let checked = check(retry).expect("it is signed");
    let Content::Event(again) = checked.verified.content() else { panic!("it is an event") };
    assert_eq!(*again, first);
    // Escaping does not change the id. The text is kept as sent.
    let escaped = JOIN.replace("王小明", r"\u738b\u5c0F\u660e").replace("WeLink", r"\u0057eLink");
    assert_eq!((event(&escaped).event_id, &*event(&escaped).event_info), (first.event_id, &*escaped));
    let quoted = |text: &str| JOIN.replace("王小明", text);
    assert_eq!(event(&quoted(r#"\u0022/\u000a\ud83d\ude00"#)).event_id, event(&quoted(r#"\"\/\n😀"#)).event_id);
    // Another order of members, or another character, is another event.
    let other = JOIN.replace(r#""role":"CHAIR""#, r#""role":"CHAIr""#);
    assert_ne!(event(&other).event_id, first.event_id);
}

#[test]
fn a_body_of_the_quarantine_is_read_again_without_its_key() {
    let unreadable = |info: &str| Unreadable {
        subscriber_id: APP_ID.into(),
        received_at: Millis::new(7).expect("a time"),
        reason: "an older Convoke could not".to_owned(),
        body: body(info).into(),
    };
    let now = Millis::new(RECEIVED_AT).expect("a time");
    let verified = reread(&unreadable(JOIN), now, None).expect("an event");
    let Content::Event(read) = verified.content() else { panic!("it is an event") };
    assert_eq!(read.event_id, event(JOIN).event_id);
    assert_eq!(read.received_at.get(), 7);
    assert_eq!(reread(&unreadable("{}"), now, None), Err("event is missing".to_owned()));
    assert!(reread(&Unreadable { body: Bytes::from_static(b"["), ..unreadable("{}") }, now, None).is_err());
}
