//! What `privacy.mask` removes from the stream, and what the search of a quarantined body finds.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::raw_json::scalars;
use crate::verify::tests::json_text::value;

fn masked(payload: &str, hidden: &[&str]) -> String {
    mask(payload, &hidden.iter().map(|&field| field.to_owned()).collect::<Vec<_>>())
}

#[test]
fn named_members_are_cut_out_and_everything_else_stays_to_the_byte() {
    let payload = r#"{"meetingInfo":{"displayName":"the meeting's","meetingID":"1"},"attendeeInfo":{"displayName":"王","role":"CHAIR","joinTime":1.50,"callNumber":null},"x":[1e400,"\ud800"]}"#;
    assert_eq!(
        masked(payload, &["displayName", "callNumber"]),
        r#"{"meetingInfo":{"displayName":"the meeting's","meetingID":"1"},"attendeeInfo":{"role":"CHAIR","joinTime":1.50},"x":[1e400,"\ud800"]}"#
    );
    assert_eq!(masked(payload, &[]), payload);
    assert_eq!(masked(r#"{"attendeeInfo":{"account":"a"}}"#, &["account"]), r#"{"attendeeInfo":{}}"#);
    assert_eq!(masked("{}", &["account"]), "{}");
}

#[test]
fn a_member_that_is_doubled_escaped_nested_or_of_another_type_is_cut_out_too() {
    for (payload, rest) in [
        (r#"{"attendeeInfo":{"account":1,"account":["a"],"account":{"account":"b"}}}"#, r#"{"attendeeInfo":{}}"#),
        (
            r#"{"attendeeInfo":{"account":"a"},"attendeeInfo":{"account":"b","role":1}}"#,
            r#"{"attendeeInfo":{},"attendeeInfo":{"role":1}}"#,
        ),
        (r#"{"attendeeInfo":{"\u0061ccount":"a"}}"#, r#"{"attendeeInfo":{}}"#),
        (r#"{"attendee\u0049nfo":{"account":"a","b":2}}"#, r#"{"attendee\u0049nfo":{"b":2}}"#),
        (r#"{"attendeelInfo":{"account":"a","b":2}}"#, r#"{"attendeelInfo":{"b":2}}"#),
        (r#"{"attendeeInfo":{"more":[{"account":"a","b":2}]}}"#, r#"{"attendeeInfo":{"more":[{"b":2}]}}"#),
        (r#"{"list":[{"attendeeInfo":{"account":"a","b":2}},3]}"#, r#"{"list":[{"attendeeInfo":{"b":2}},3]}"#),
    ] {
        assert_eq!(masked(payload, &["account"]), rest, "{payload}");
    }
}

#[test]
fn what_nobody_can_look_into_is_left_out_whole() {
    for (payload, rest) in [
        (r#"{"attendeeInfo":"王","b":1}"#, r#"{"b":1}"#),
        (r#"{"b":1,"attendeeInfo":[{"account":"a"}]}"#, r#"{"b":1}"#),
        (r#"{"attendeeInfo":7}"#, "{}"),
        (r#"{"attendeelInfo":"王","b":1}"#, r#"{"b":1}"#),
        (r#""text""#, "null"),
        (r#"[{"attendeeInfo":{"account":"a"}}]"#, "null"),
    ] {
        assert_eq!(masked(payload, &["account"]), rest, "{payload}");
    }
}

/// Whether a hidden name is inside an `attendeeInfo`, or an `attendeeInfo` is not an object.
fn shows(value: &Value, hidden: &[&str], attendee: bool) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let is_attendee = name == "attendeeInfo" || name == "attendeelInfo";
            attendee && hidden.contains(&&**name)
                || is_attendee && !value.is_object()
                || shows(value, hidden, attendee || is_attendee)
        }),
        Value::Array(values) => values.iter().any(|value| shows(value, hidden, attendee)),
        _ => false,
    }
}

/// A value in which the relevant names are frequent.
fn named_value() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["attendeeInfo", "account", "displayName", "role", "x"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\{}\\[\\],:]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5).prop_map(|members| Value::Object(
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_hidden_is_left_wherever_it_stands(value in named_value()) {
        let left: Value = serde_json::from_str(&masked(&value.to_string(), &["account", "displayName"])).expect("still JSON");
        prop_assert!(!shows(&left, &["account", "displayName"], false), "{left}");
    }

    #[test]
    fn any_object_without_an_attendee_stays_as_it_is(tokens in value()) {
        let payload = format!("{{\"a\":{}}}", tokens.concat());
        prop_assume!(!payload.contains("attendeeInfo") && !payload.contains("attendeelInfo"));
        prop_assert_eq!(masked(&payload, &["account"]), payload);
    }

    #[test]
    fn every_string_and_number_of_a_text_is_found(value in named_value()) {
        fn gather(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::String(text) => found.push(text.clone()),
                Value::Number(number) => found.push(number.to_string()),
                Value::Array(values) => values.iter().for_each(|value| gather(value, found)),
                Value::Object(members) => members.iter().for_each(|(name, value)| {
                    found.push(name.clone());
                    gather(value, found);
                }),
                _ => {}
            }
        }
        let mut expected = Vec::new();
        gather(&value, &mut expected);
        let text = value.to_string();
        prop_assert_eq!(scalars(&text).collect::<Vec<_>>(), expected);
    }
}
