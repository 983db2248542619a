//! Properties that hold for any input.

use proptest::prelude::*;
use serde_json::Value;

use super::json_text::{spread, value, white_space};
use super::*;

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

/// A value whose strings need no escapes, so that all serialisers write it in the same way.
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
        prop_assert_eq!(raw_json::compact(&sent).0, compact);
    }

    #[test]
    fn each_form_of_any_payload_verifies_and_means_the_same(payload in value()) {
        let info = event_info(payload).concat();
        for &form in Form::VARIANTS {
            let text = form.of(&info, &info);
            let checked = check(body_signed_over(&info, &text)).expect("a form that is tried");
            // Of equal forms, the first is reported.
            let first = Form::VARIANTS.iter().copied().find(|other| other.of(&info, &info) == text);
            prop_assert_eq!(Some(checked.form), first);
            prop_assert_eq!(&form.of(&text, &text), &text, "a form of a form is itself");
            let escaped_of_any = Form::Escaped.of(&text, &text);
            prop_assert_eq!(escaped_of_any, Form::Escaped.of(&info, &info));
            let ascii = [Form::Escaped, Form::EscapedUpper, Form::SlashesEscaped].contains(&form);
            prop_assert!(!ascii || text.is_ascii());
            let Content::Event(event) = checked.verified.content() else { panic!("{info} is an event") };
            let same = EventId::of(APP_ID, event.occurred_at, text.as_bytes());
            prop_assert_eq!(same, event.event_id, "an event that is escaped otherwise is the same");
        }
    }

    /// Every byte is significant, with these exceptions: white space between tokens that stays white space, the case of
    /// the digits of the signature, and another spelling of the same escape. So whatever still verifies after a change
    /// has the same members with the same values, and the same `eventInfo` except for escapes.
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
            let (info, _) = raw_json::compact(envelope.event_info);
            let forms = Form::VARIANTS.iter().map(|form| form.of(envelope.event_info, &info).into_owned()).collect::<Vec<_>>();
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
        prop_assert_eq!(raw_json::compact(&pretty), (Cow::Borrowed(&*compact), Shape { depth }));
        prop_assert!(matches!(raw_json::compact(&compact).0, Cow::Borrowed(_)), "what is compact is not copied");
        // The strings decode to the same values as in serde_json.
        let escaped = Form::Escaped.of(&compact, &compact);
        prop_assert_eq!(serde_json::from_str::<Value>(&escaped).expect("well-formed"), value);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_verify(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(check(bytes.clone()).is_err());
        let _ = describe(&bytes, Millis::MAX);
    }

    #[test]
    fn arbitrary_event_info_of_json_characters_never_panics(text in "[{}\\[\\]:,\"\\\\u0dD8a \t1eE.+-]{0,60}") {
        let sent = format!("{{{text}}}");
        let _ = check(body(&sent));
        let _ = describe(body(&sent).as_bytes(), Millis::MAX);
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
