//! What holds for whatever is sent.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// A JSON string token of any characters, each written as itself or as an escape, halves of pairs included.
fn string_token() -> impl Strategy<Value = String> {
    let escape = |unit: u16, upper: bool| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
    let unit = prop_oneof![
        6 => any::<char>().prop_map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        }),
        2 => (any::<char>(), any::<bool>())
            .prop_map(move |(c, upper)| c.encode_utf16(&mut [0; 2]).iter().map(|unit| escape(*unit, upper)).collect()),
        1 => (0xd800_u16..0xe000, any::<bool>()).prop_map(move |(unit, upper)| escape(unit, upper)),
        1 => prop::sample::select(vec![r"\/", "/", r"\b", r"\f", r"\n", r"\r", r"\t", "{", "}", "[", ":", ",", " "])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(unit, 0..12).prop_map(|units| format!("\"{}\"", units.concat()))
}

/// JSON as a list of tokens, so that white space can be put between them.
fn value() -> impl Strategy<Value = Vec<String>> {
    let number = prop::sample::select(vec!["0", "-0", "1e400", "-1.50E-3", "12345678901234567890123", "1735700465001"]);
    let leaf = prop_oneof![
        string_token().prop_map(|token| vec![token]),
        number.prop_map(|number| vec![number.to_owned()]),
        any::<i64>().prop_map(|n| vec![n.to_string()]),
        prop::sample::select(vec!["null", "true", "false"]).prop_map(|word| vec![word.to_owned()]),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let separated = |parts: Vec<Vec<String>>, open: &str, close: &str| {
            let parts = parts.join(&",".to_owned());
            [vec![open.to_owned()], parts, vec![close.to_owned()]].concat()
        };
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(move |values| separated(values, "[", "]")),
            object(inner, 6).prop_map(move |members| separated(members, "{", "}")),
        ]
    })
}

/// The members of an object, some of them with names that mean something to us.
fn object(value: impl Strategy<Value = Vec<String>>, most: usize) -> impl Strategy<Value = Vec<Vec<String>>> {
    let known = ["meetingInfo", "attendeeInfo", "meetingID", "displayName", "joinTime", "event", "timestamp"];
    let name = prop_oneof![string_token(), prop::sample::select(known.to_vec()).prop_map(|name| format!("\"{name}\""))];
    let member = (name, value).prop_map(|(name, value)| [vec![name, ":".to_owned()], value].concat());
    prop::collection::vec(member, 0..most)
}

fn white_space() -> impl Strategy<Value = String> {
    prop::string::string_regex("[ \t\r\n]{0,3}").expect("a regular expression")
}

/// The tokens of an `eventInfo` with this payload.
fn event_info(payload: Vec<String>) -> Vec<String> {
    let head = [
        "{",
        "\"event\"",
        ":",
        "\"meeting.join\"",
        ",",
        "\"timestamp\"",
        ":",
        "1735700465789",
        ",",
        "\"payload\"",
        ":",
    ];
    [head.map(str::to_owned).to_vec(), payload, vec!["}".to_owned()]].concat()
}

fn spread(tokens: &[String], spaces: &[String]) -> String {
    let mut spaces = spaces.iter().cycle();
    let mut out = String::new();
    for token in tokens {
        out.push_str(token);
        out.push_str(spaces.next().map_or("", String::as_str));
    }
    out
}

/// A value without escapes in its strings, which there is one way to write.
fn plain_value() -> impl Strategy<Value = Value> {
    let text = "[^\"\\\\\\x00-\\x1f]{0,8}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text, inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_payload_signed_as_sent_is_kept_byte_for_byte(payload in value()) {
        let info = event_info(payload).concat();
        let checked = check(body(&info)).expect("it is signed");
        prop_assert_eq!(checked.form, Form::Raw);
        let Content::Event(event) = checked.verified.content() else { panic!("{info} is an event") };
        prop_assert_eq!(&*event.event_info, &info);
        let texts = [&event.meeting.id, &event.attendee.display_name];
        prop_assert!(texts.into_iter().flatten().all(|text| !text.is_empty() && !text.contains('\0')));
    }

    #[test]
    fn white_space_between_tokens_changes_nothing(
        payload in value(),
        spaces in prop::collection::vec(white_space(), 1..20),
    ) {
        let tokens = event_info(payload);
        let compact = tokens.concat();
        let sent = spread(&tokens, &spaces);
        let first = check(body(&compact)).expect("it is signed");
        let again = check(body_signed_over(&sent, &compact)).expect("white space is not signed");
        prop_assert_eq!(again.form, Form::Raw);
        prop_assert_eq!(again.verified, first.verified);
        prop_assert_eq!(json::compact(&sent).0, compact);
    }

    #[test]
    fn each_form_of_any_payload_verifies_and_means_the_same(payload in value()) {
        let info = event_info(payload).concat();
        for form in Form::ALL {
            let text = form.of(&info);
            let checked = check(body_signed_over(&info, &text)).expect("a form that is tried");
            // The first of equal forms is the one that is counted.
            let first = Form::ALL.into_iter().find(|other| other.of(&info) == text);
            prop_assert_eq!(Some(checked.form), first);
            prop_assert_eq!(&form.of(&text), &text, "a form of a form is itself");
            let escaped_of_any = Form::Escaped.of(&text);
            prop_assert_eq!(escaped_of_any, Form::Escaped.of(&info));
            prop_assert!(form != Form::Escaped || text.is_ascii());
        }
    }

    /// A byte is significant unless it is white space between tokens, and stays so; the case of the signature's digits,
    /// and of the digits and letters of an escape that means the same, is not. So: whatever still verifies has the same
    /// members with the same values, and the same `eventInfo` but for its escapes.
    #[test]
    fn a_changed_byte_verifies_only_if_it_meant_nothing(
        payload in value(),
        spaces in prop::collection::vec(white_space(), 1..20),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let tokens = event_info(payload);
        let original = body_signed_over(&spread(&tokens, &spaces), &tokens.concat());
        let mut changed = original.clone().into_bytes();
        changed[place.index(original.len())] = byte;
        let verifies = check(changed.clone()).is_ok();
        let meaning = |body: &[u8]| {
            let envelope = Envelope::parse(body).ok()?;
            let (info, _) = json::compact(envelope.event_info);
            let forms = Form::ALL.map(|form| form.of(&info).into_owned());
            let parts = (envelope.app_id?.into_owned(), envelope.timestamp.into_owned(), envelope.nonce?.into_owned());
            Some((parts, envelope.signature?, forms))
        };
        let (parts, signature, forms) = meaning(original.as_bytes()).expect("the original is sound");
        let same = meaning(&changed).is_some_and(|(p, s, f)| p == parts && s == signature && f.contains(&forms[0]));
        prop_assert_eq!(verifies, same, "{}", String::from_utf8_lossy(&changed));
    }

    #[test]
    fn a_body_cut_short_or_with_a_byte_too_many_is_refused(
        payload in value(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>().prop_filter("significant", |byte| !b" \t\r\n".contains(byte)),
    ) {
        let original = body(&event_info(payload).concat()).into_bytes();
        let cut = &original[..place.index(original.len())];
        prop_assert!(matches!(check(cut), Err(Refusal::Malformed(_))));
        let more = [&original[..], &[byte]].concat();
        prop_assert!(matches!(check(more), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn compact_agrees_with_serde_json(value in plain_value()) {
        let compact = value.to_string();
        let pretty = serde_json::to_string_pretty(&value).expect("a value");
        let depth = depth(&value);
        prop_assert_eq!(json::compact(&pretty), (Cow::Borrowed(&*compact), Shape { depth }));
        prop_assert!(matches!(json::compact(&compact).0, Cow::Borrowed(_)), "what is compact is not copied");
        // And its strings are what serde_json makes of them.
        let escaped = Form::Escaped.of(&compact);
        prop_assert_eq!(serde_json::from_str::<Value>(&escaped).expect("well-formed"), value);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_verify(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(check(bytes.clone()).is_err());
        let _ = describe(&bytes);
    }

    #[test]
    fn arbitrary_event_info_of_json_characters_never_panics(text in "[{}\\[\\]:,\"\\\\u0dD8a \t1eE.+-]{0,60}") {
        let sent = format!("{{{text}}}");
        let _ = check(body(&sent));
        let _ = describe(body(&sent).as_bytes());
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
