//! Each single call: what is sent, and what is made of its answers.

use convoke_core::time::{Clock, Millis};
use convoke_platform::{Class, Client, NewSubscription, Options, Segment, Status};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::scripted_server::{AUTHENTICATION, CHANGE_STATUS, LINK_CONFIG, Reply, Scripted};

const SEGMENTS: &str = "/v1/mmc/rlm/record/info";

fn new_subscription() -> NewSubscription {
    NewSubscription {
        subscriber_id: "7700001234".to_owned(),
        subscriber_key: SecretString::from("demo-Subscriber-Key-2025"),
        url: "https://hooks.example.com/openapi/meetingevent".to_owned(),
    }
}

#[tokio::test]
async fn a_subscription_is_read_and_an_answer_without_one_is_none() {
    let id = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
    for (answer, status) in [
        (json!({ "id": id, "subscriberId": "7700001234", "url": "https://h/p", "status": 0 }), Some(Status::Enabled)),
        (json!({ "returnCode": 0, "returnDesc": "Success", "id": id, "status": "1" }), Some(Status::Disabled)),
        (json!({ "id": id, "status": 2, "more": [] }), Some(Status::Locked)),
        (json!({ "id": id, "status": 7 }), Some(Status::Other(7))),
        (json!({ "id": id }), Some(Status::Other(-1))),
        (json!({}), None),
        (json!({ "id": null, "status": 1 }), None),
        (json!({ "returnCode": 111_070_005, "returnDesc": "CONF_DATA_NOT_FOUND" }), None),
    ] {
        let text = answer.to_string();
        let platform = Scripted::signed_in(move |_| Reply::Json(200, answer.clone())).await;
        let found = platform.client().subscription().await.expect("an answer");
        assert_eq!(found.as_ref().map(|found| found.status), status, "{text}");
        assert!(found.is_none_or(|found| found.id == id), "{text}");
    }
    let platform = Scripted::signed_in(|_| Reply::Text(200, Vec::new(), String::new())).await;
    assert_eq!(platform.client().subscription().await.expect("an answer"), None);
}

#[tokio::test]
async fn a_subscription_is_the_enterprises_or_the_service_providers_never_both() {
    let some = |text: &str| Some(text.to_owned());
    for (corp_id, sp_id, query, body) in [
        (None, None, "corpId=660012345", "corpId"),
        (some("770"), None, "corpId=770", "corpId"),
        (some("770"), some("sp9"), "corpId=770", "corpId"),
        (None, some("sp9"), "spId=sp9", "spId"),
    ] {
        let platform = Scripted::signed_in(|_| Reply::Text(200, Vec::new(), String::new())).await;
        let options = Options { corp_id, sp_id, ..platform.options() };
        let client = Client::new(options, Clock::System).expect("a client");
        client.subscription().await.expect("an answer");
        client.set_subscription(&new_subscription()).await.expect("set");
        let asked = platform.asked(LINK_CONFIG);
        let sent: Vec<String> = asked[0].query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!((asked[0].method.as_str(), sent.join("&").as_str()), ("GET", query));
        assert_eq!(asked[1].method.as_str(), "POST");
        let mut expected = json!({
            "subscriberId": "7700001234", "subscriberKey": "demo-Subscriber-Key-2025",
            "url": "https://hooks.example.com/openapi/meetingevent",
        });
        expected[body] = query.split_once('=').expect("a value").1.into();
        assert_eq!(asked[1].body, expected);
    }
}

#[tokio::test]
async fn an_enterprise_that_the_platform_does_not_name_has_to_be_set() {
    let platform =
        Scripted::start(|_| Reply::Json(200, json!({ "accessToken": "t", "user": { "companyId": "" } }))).await;
    let error = platform.client().subscription().await.expect_err("whose?");
    assert_eq!(error.class, Class::Configuration);
    assert!(error.advice.contains("platform.corp_id"), "{error:?}");
    assert_eq!(platform.asked(LINK_CONFIG).len(), 0);
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1);
}

#[tokio::test]
async fn status_and_deletion_go_by_the_record_and_their_envelopes_are_read() {
    let platform = Scripted::signed_in(|asked| match asked.path.as_str() {
        CHANGE_STATUS if asked.query["status"] == "0" => Reply::Json(200, json!({ "returnCode": 111_071_120 })),
        _ => Reply::Json(200, json!({ "returnCode": 0, "returnDesc": "Success" })),
    })
    .await;
    let client = platform.client();
    client.change_status("a/b", Status::Disabled).await.expect("disabled");
    let error = client.change_status("a/b", Status::Enabled).await.expect_err("a code that is no success");
    assert_eq!((error.class, error.code.as_deref()), (Class::Locked, Some("MMC.111071120")));
    client.delete_subscription("a/b").await.expect("deleted");
    let asked = platform.asked(CHANGE_STATUS);
    assert_eq!(
        (asked[0].method.as_str(), asked[0].query["id"].as_str(), asked[0].query["status"].as_str()),
        ("PUT", "a/b", "1")
    );
    assert_eq!(platform.asked(LINK_CONFIG)[0].query["id"], "a/b");
    // What has no body has a length and a type all the same, as from the platform's own SDK.
    for asked in [&asked[0], &platform.asked(LINK_CONFIG)[0]] {
        assert_eq!(
            (asked.header("content-length"), asked.header("content-type")),
            (Some("0"), Some("application/json")),
            "{}",
            asked.method
        );
    }
}

#[tokio::test]
async fn disabling_is_tried_again_like_any_other_call() {
    let platform = Scripted::signed_in(|asked| match asked.nth {
        0 => Reply::Gone,
        1 => Reply::refusal(503, "USG.000000008", ""),
        _ => Reply::Text(200, vec![], String::new()),
    })
    .await;
    platform.client().change_status("a", Status::Disabled).await.expect("done");
    assert_eq!(platform.asked(CHANGE_STATUS).len(), 3);
}

#[tokio::test]
async fn a_refusal_is_read_in_every_envelope_of_the_platform_and_its_sdks() {
    for body in [
        json!({ "error_code": "MMC.111071120", "error_msg": "LOCKED" }),
        json!({ "errorCode": "MMC.111071120", "errorMsg": "LOCKED" }),
        json!({ "code": "MMC.111071120", "message": "LOCKED" }),
        json!({ "code": "MMC.111071120", "msg": "LOCKED" }),
        json!({ "returnCode": 111_071_120, "returnDesc": "LOCKED" }),
        json!({ "error": { "errorCode": "MMC.111071120", "errorMsg": "LOCKED" } }),
        json!({ "request_id": "1", "encoded": null, "error": { "code": 11_071_120, "message": "LOCKED" } }),
    ] {
        let sent = body.clone();
        let platform = Scripted::signed_in(move |_| Reply::Json(400, sent.clone())).await;
        let error = platform.client().subscription().await.expect_err("a refusal");
        assert_eq!((error.class, error.code.as_deref()), (Class::Locked, Some("MMC.111071120")), "{body}");
        assert!(error.problem.contains("LOCKED"), "{body}: {error}");
    }
    // The flow control of the platform's servers, which comes with any status: later it is answered.
    let platform = Scripted::signed_in(|asked| match asked.nth {
        0 => Reply::Json(400, json!({ "errorCode": 100_000_429, "errorMsg": "flow control" })),
        _ => Reply::Json(200, json!({})),
    })
    .await;
    assert_eq!(platform.client().subscription().await.expect("an answer"), None);
    assert_eq!(platform.asked(LINK_CONFIG).len(), 2);
}

#[tokio::test]
async fn what_the_platform_does_not_know_is_none() {
    for (status, code) in
        [(400, "MMC.111070005"), (500, "MMC.111071118"), (400, "MBI.104000009"), (400, "MMC.111072006")]
    {
        let platform = Scripted::signed_in(move |_| Reply::refusal(status, code, "")).await;
        let client = platform.client();
        assert_eq!(client.recording("u").await.expect("no error"), None, "{code}");
        assert_eq!(client.conference("n").await.expect("no error"), None);
        assert_eq!(client.past_conference("u").await.expect("no error"), None);
        assert_eq!(client.enterprise_of("n").await.expect("no error"), None);
        assert_eq!(client.segments("u").await.expect("no error"), []);
        client.delete_subscription("i").await.expect("no error");
        // Two of these come as a 500, and are not a fault that could pass.
        assert_eq!(platform.asked(SEGMENTS).len(), 1);
    }
    let platform = Scripted::signed_in(|_| Reply::Json(200, json!({}))).await;
    let client = platform.client();
    assert_eq!(client.recording("u").await.expect("no error"), None);
    assert_eq!(client.conference("n").await.expect("no error"), None);
    assert_eq!(client.enterprise_of("n").await.expect("no error"), None);
}

#[tokio::test]
async fn a_meeting_is_read_from_its_detail_in_utc() {
    let platform = Scripted::signed_in(|_| {
        Reply::Json(
            200,
            json!({ "conferenceData": {
                "conferenceID": "960000017", "vmrConferenceID": "989", "confUUID": "run-1", "cycleSubConfID": "sub-0",
                "subConfs": [
                    { "cycleSubConfID": "sub-0", "startTime": "2024-12-31 03:00", "endTime": "2024-12-31 04:00" },
                    { "cycleSubConfID": "sub-1", "startTime": "2025-01-01 03:00" }, { "startTime": "2025-01-02 03:00" },
                ],
                "subject": "Weekly \u{5468}\u{4f1a}", "startTime": "2025-01-01 03:01", "endTime": "2025-01-01 04:00:30",
                "conferenceState": "Destroyed", "scheduserName": "Demo User", "userUUID": "aaaa", "isHasRecordFile": true,
                "passwordEntry": [{ "password": "1" }],
            }, "data": { "count": 0, "data": [] } }),
        )
    })
    .await;
    let client = platform.client();
    let past = client.past_conference("run-1").await.expect("an answer").expect("a meeting");
    assert_eq!(past.start, Millis::new(1_735_700_460_000));
    assert_eq!(past.end, Millis::new(1_735_704_030_000));
    assert_eq!(past.subject.as_deref(), Some("Weekly 周会"));
    assert_eq!((past.conference_id.as_deref(), past.vmr_conference_id.as_deref()), (Some("960000017"), Some("989")));
    assert_eq!((past.conf_uuid.as_deref(), past.occurrences.len()), (Some("run-1"), 2));
    assert_eq!(past.occurrence_held().map(|held| &*held.id), Some("sub-1"), "the one that began then, not the first");
    assert_eq!((past.scheduler_name.as_deref(), past.scheduler_uuid.as_deref()), (Some("Demo User"), Some("aaaa")));
    assert_eq!((past.state.as_deref(), past.has_record_file), (Some("Destroyed"), Some(true)));
    assert_eq!(client.conference("960000017").await.expect("an answer"), Some(past));
    assert_eq!(platform.asked("/v1/mmc/management/conferences/history/confDetail")[0].query["confUUID"], "run-1");
    assert_eq!(platform.asked("/v1/mmc/management/conferences/confDetail")[0].query["conferenceID"], "960000017");
}

#[tokio::test]
async fn segments_are_read_in_both_forms_and_to_their_end() {
    let file = json!({
        "recordType": "SPEAKER_VIDEO", "beginTime": 1_735_700_500_000_i64, "endTime": 1_735_700_800_000_i64, "duration": 300,
        "fileSize": 4_870_000, "playUrl": "https://192.0.2.30/play?onceToken=demo",
    });
    for (nested, counted) in [(true, true), (false, true), (true, false)] {
        let file = file.clone();
        let platform = Scripted::signed_in(move |asked| {
            let offset = asked.body["segmentOffset"].as_u64().expect("a number");
            let segments: Vec<Value> = (offset..(offset + 20).min(45))
                .map(|n| json!({ "manualOrder": n / 10 + 1, "segmentOrder": n % 10 + 1, "segmentSize": "7300000", "fileList": [file] }))
                .collect();
            let mut page = json!({ "segmentList": segments });
            if counted {
                page["segmentCount"] = 45.into();
            }
            if nested {
                return Reply::Json(200, json!({ "code": "0", "message": "Success", "data": page }));
            }
            page["code"] = 0.into();
            Reply::Json(200, page)
        })
        .await;
        let segments = platform.client().segments("run-1").await.expect("segments");
        assert_eq!(segments.len(), 45);
        let Segment { manual_order, segment_order, size, files } = &segments[11];
        assert_eq!((*manual_order, *segment_order, *size), (Some(2), Some(2), Some(7_300_000)));
        assert_eq!((files[0].length_s, files[0].size), (Some(300), Some(4_870_000)));
        assert_eq!(files[0].begin, Millis::new(1_735_700_500_000));
        let asked = platform.asked(SEGMENTS);
        assert_eq!(asked.len(), if counted { 3 } else { 4 });
        assert_eq!(asked[1].body, json!({ "confUUID": "run-1", "segmentOffset": 20, "segmentLimit": 20 }));
    }
    let platform = Scripted::signed_in(|_| Reply::Json(200, json!({ "code": "7", "message": "odd" }))).await;
    let error = platform.client().segments("run-1").await.expect_err("a code that is no success");
    assert_eq!((error.class, error.code.as_deref()), (Class::Bug, Some("7")));
}

#[tokio::test]
async fn the_enterprise_of_a_meeting_is_reported() {
    let platform = Scripted::signed_in(|_| Reply::Json(200, json!({ "orgID": "660012345" }))).await;
    let client = platform.client();
    assert_eq!(client.enterprise_of("960000017").await.expect("an answer").as_deref(), Some("660012345"));
    assert_eq!(platform.asked("/v1/mmc/management/conferences/confOrg")[0].query["conferenceID"], "960000017");
}
