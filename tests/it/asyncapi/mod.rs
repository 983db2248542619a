//! `deploy/asyncapi.yaml`: by the official parser, and against what a running Convoke publishes.

mod document;
mod stream;

use std::{collections::BTreeSet, process::Command};

use convoke::live::LiveKind;
use convoke::recordings;
use convoke_core::event::KNOWN_EVENTS;
use serde_json::{Value, json};
use strum::VariantArray as _;

use crate::{
    packages::{deploy, read},
    support::tools,
};
use document::Document;

/// What the official parser says of a document.
fn parsed(document: &std::path::Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/asyncapi/validate.cjs");
    let mut node = Command::new(tools::node());
    node.arg(script).arg(document).env("NODE_PATH", tools::node_modules("asyncapi"));
    serde_json::from_str(&tools::output_of(&mut node)).expect("JSON")
}

fn codes(said: &Value) -> Vec<&str> {
    said["found"].as_array().expect("a list").iter().map(|it| it["code"].as_str().expect("a code")).collect()
}

#[test]
fn the_official_parser_finds_nothing_wrong_and_reads_all_of_it() {
    let said = parsed(&deploy("asyncapi.yaml"));
    // 3.0.0 is what most tools read; that there is a newer version is all that it has to say.
    assert_eq!(codes(&said), ["asyncapi-latest-version"], "{said:#}");
    let read = &said["read"];
    assert_eq!(read["channels"], json!(["attendance", "events", "live", "recordings"]));
    assert_eq!(read["operations"], json!(["receiveAttendance", "receiveEvents", "receiveLive", "receiveRecordings"]));
    assert_eq!(
        read["messages"].as_array().map(Vec::len),
        Some(KNOWN_EVENTS.len() + LiveKind::VARIANTS.len() + 2),
        "{read}"
    );
}

#[test]
fn the_official_parser_would_find_what_is_wrong() {
    let text = read("asyncapi.yaml");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (right, wrong, code) in [
        ("action: receive", "action: listen", "asyncapi-document-resolved"),
        ("schemas/AttendeeInfo'", "schemas/Attendee'", "invalid-ref"),
        ("{group}.{action}.{meeting}", "{group}.{action}", "asyncapi3-channel-parameters"),
    ] {
        assert!(text.contains(right), "{right} is not in the document");
        let file = folder.path().join("asyncapi.yaml");
        std::fs::write(&file, text.replacen(right, wrong, 1)).expect("a file");
        let said = parsed(&file);
        assert!(codes(&said).contains(&code), "{wrong}: {said:#}");
        assert!(said["read"].is_null() || code == "asyncapi3-channel-parameters", "{wrong}: {said:#}");
    }
}

#[test]
fn every_type_of_event_has_a_message_with_its_schema_and_every_example_is_valid() {
    let document = Document::load();
    let live = LiveKind::VARIANTS.iter().map(|kind| format!("live.{}", <&str>::from(*kind)));
    let types: BTreeSet<String> =
        KNOWN_EVENTS.into_iter().chain([recordings::EVENT, "other"]).map(str::to_owned).chain(live).collect();
    assert_eq!(document.messages.keys().cloned().collect::<BTreeSet<_>>(), types);
    let mut examples = 0;
    for (event, message) in &document.messages {
        // The channel of all events has it, under the same key.
        let reference = format!("#/components/messages/{}", message.key);
        assert_eq!(document.at(&format!("/channels/events/messages/{}/$ref", message.key)), &json!(reference));
        if event != "other" {
            let constant = document.at(&format!("{}/allOf/1/properties/type/const", message.payload));
            assert_eq!(constant, &json!(format!("com.huaweicloud.{event}")));
        }
        for example in message.examples.as_array().into_iter().flatten() {
            examples += 1;
            document.is_valid("#/components/schemas/Headers", &example["headers"]);
            document.is_valid("#/components/schemas/CloudEvent", &example["payload"]);
            document.is_valid(&message.payload_reference(), &example["payload"]);
            let (id, sent) = (&example["payload"]["id"], &example["headers"]["Nats-Msg-Id"]);
            assert!(sent.as_str().expect("text").starts_with(id.as_str().expect("text")), "{event}");
        }
    }
    assert!(examples >= 7, "{examples}");
}

/// A message, changed at one place.
fn with(message: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = message.clone();
    let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
    let parent = changed.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    if value == json!("absent") {
        parent.remove(member)
    } else {
        parent.insert(member.to_owned(), value)
    };
    changed
}

#[test]
fn what_is_odd_in_the_payload_fits_no_type_but_is_an_event_and_what_is_wrong_outside_of_it_is_none() {
    let document = Document::load();
    let join = &document.messages["meeting.join"];
    let (good, schema) = (&join.examples[0]["payload"], join.payload_reference());
    document.is_valid(&schema, good);
    for (pointer, value) in [
        ("/data", json!("absent")),
        ("/data", json!([])),
        ("/data/meetingInfo", json!("absent")),
        ("/data/meetingInfo/meetingUUID", json!(7)),
        ("/data/attendeeInfo", json!("absent")),
        ("/data/attendeeInfo", json!("王")),
        ("/data/attendeelInfo", json!("王")),
        ("/data/attendeeInfo/displayName", json!({ "first": "王" })),
        ("/data/attendeeInfo/joinTime", json!("1735700465001")),
        ("/data/attendeeInfo/joinTime", json!(1.5)),
        ("/data/attendeeInfo/leftTime", json!(-1)),
        ("/type", json!("com.huaweicloud.meeting.left")),
    ] {
        let odd = with(good, pointer, value);
        assert!(!document.fits(&schema, &odd), "{odd:#}");
        document.is_valid("#/components/schemas/CloudEvent", &odd);
    }
    for (pointer, value) in [
        ("/data/attendeeInfo/displayName", json!("absent")),
        ("/data/attendeeInfo/displayName", Value::Null),
        ("/data/attendeeInfo", json!({})),
        ("/data/added", json!("later")),
        ("/added", json!("later")),
        ("/subject", json!("absent")),
        ("/meetingid", json!("absent")),
    ] {
        document.is_valid(&schema, &with(good, pointer, value));
    }
    // As one edition of the platform's manual spells it.
    let misprinted = with(good, "/data/attendeelInfo", good["data"]["attendeeInfo"].clone());
    document.is_valid(&schema, &with(&misprinted, "/data/attendeeInfo", json!("absent")));
    for (pointer, value) in [
        ("/specversion", json!("0.3")),
        ("/id", json!("01941fad-4d95-4c11-8d0c-27c3b1d45e6f")),
        ("/id", json!("absent")),
        ("/source", json!("/elsewhere/1")),
        ("/type", json!("meeting.join")),
        ("/subject", Value::Null),
        ("/time", json!("2025-01-01T03:01:05Z")),
        ("/time", json!("2025-13-01T03:01:05.789Z")),
        ("/datacontenttype", json!("text/plain")),
        ("/sequence", json!("42")),
        ("/sequence", json!(42)),
        ("/recordedtime", json!("absent")),
        ("/meetingid", json!("")),
        ("/origin", json!("rumour")),
    ] {
        let wrong = with(good, pointer, value);
        assert!(!document.fits("#/components/schemas/CloudEvent", &wrong), "{wrong:#}");
        assert!(!document.fits(&schema, &wrong), "{wrong:#}");
    }
    let headers = &join.examples[0]["headers"];
    for (name, value) in [
        ("/Nats-Msg-Id", json!("absent")),
        ("/Nats-Msg-Id", json!("1")),
        ("/Content-Type", json!("application/json")),
        ("/traceparent", json!("00-zz")),
        ("/Convoke-Replay", json!("yes")),
    ] {
        assert!(!document.fits("#/components/schemas/Headers", &with(headers, name, value)), "{name}");
    }
}
