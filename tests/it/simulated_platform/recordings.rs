//! 4.2.14 to 4.2.16 and 5.2.43: recordings in both systems.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use convoke_core::time::Clock;
use convoke_simulator::platform::{Platform, PlatformOptions, Recorded, Run};
use reqwest::Method;
use serde_json::json;

use super::{Client, assert_refused, history::at, options, started};

/// 2025-01-01T03:00:00Z
const FIRST_MS: i64 = 1_735_700_400_000;
const RECORDED: &str = "0000000000000000000000000000000a";
const SILENT: &str = "0000000000000000000000000000000b";

/// Two meetings, one of them recorded twice, for four hours and for five minutes; the latter is being transcoded until the
/// clock says ten minutes more.
async fn platform(options: PlatformOptions) -> (Platform, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(FIRST_MS + 9 * 3_600_000));
    let clock = Clock::Set(Arc::clone(&now));
    let platform = started(PlatformOptions { clock, ..options }).await;
    let recorded = |finished: i64, length_s: i64, decoded_from: i64| Recorded {
        finished: at(finished),
        length_s,
        decode_end: at(finished + 600_000),
        decoded_from: at(decoded_from),
    };
    platform.edit(|archive| {
        let mut run = Run::over(RECORDED, "960000001", at(FIRST_MS), at(FIRST_MS + 6 * 3_600_000));
        run.recordings.push(recorded(FIRST_MS + 5 * 3_600_000, 4 * 3_600, FIRST_MS));
        run.recordings.push(recorded(FIRST_MS + 6 * 3_600_000, 300, FIRST_MS + 9 * 3_600_000 + 600_000));
        archive.put(run);
        archive.put(Run::over(SILENT, "960000002", at(FIRST_MS + 1), at(FIRST_MS + 2)));
    });
    (platform, now)
}

#[tokio::test]
async fn a_recording_is_available_before_it_is_decoded_and_decoded_after_a_while() {
    let (platform, now) = platform(options()).await;
    let client = Client::new(&platform).await;
    let one = format!("/v1/mmc/management/conferences/record/files?confUUID={RECORDED}");
    let answer = client.get(&one).await.json();
    assert_eq!((&answer["isDecodeFinish"], &answer["available"]), (&json!(false), &json!(true)));
    assert_eq!((&answer["rcdTime"], &answer["rcdSize"]), (&json!(4 * 3_600 + 300), &json!(352)), "seconds, megabytes");
    assert_eq!(
        (&answer["startTime"], &answer["decodeEndTime"]),
        (&json!("2025-01-01 03:00"), &json!(FIRST_MS + 6 * 3_600_000 + 600_000))
    );
    assert!(answer["url"][1].as_str().is_some_and(|url| url.contains("&token=")), "addresses carry a token: {answer}");
    let list =
        format!("/v1/mmc/management/record/files?startDate={FIRST_MS}&endDate={}&queryAll=true", FIRST_MS + 60_000);
    let page = client.get(&list).await.json();
    assert_eq!((&page["count"], &page["data"][0]["confUUID"]), (&json!(1), &json!(RECORDED)));
    now.fetch_add(600_000, Ordering::Relaxed);
    assert_eq!(client.get(&one).await.json()["isDecodeFinish"], true);
    assert_eq!(client.get(&list).await.json()["data"][0]["isDecodeFinish"], true);
}

#[tokio::test]
async fn a_recording_that_does_not_exist_is_a_500_and_a_window_without_one_a_400() {
    let (platform, _) = platform(options()).await;
    let client = Client::new(&platform).await;
    for uuid in [SILENT, "none"] {
        let answer = client.get(&format!("/v1/mmc/management/conferences/record/files?confUUID={uuid}")).await;
        assert_refused(&answer, 500, "MMC.111071118");
    }
    let list = "/v1/mmc/management/record/files?startDate=0&endDate=1&queryAll=true";
    assert_refused(&client.get(list).await, 400, "MMC.111071069");
}

#[tokio::test]
async fn download_links_have_a_token_each_that_is_never_the_same_and_need_a_white_list() {
    let (open, _) = platform(options()).await;
    let path = format!("/v1/mmc/management/record/downloadurls?confUUID={RECORDED}");
    let client = Client::new(&open).await;
    let (one, two) = (client.get(&path).await.json(), client.get(&path).await.json());
    assert_eq!(
        (&one["recordUrls"][0]["confUuid"], one["recordUrls"][0]["urls"].as_array().map(Vec::len)),
        (&json!(RECORDED), Some(4))
    );
    let token = |answer: &serde_json::Value| answer["recordUrls"][0]["urls"][0]["token"].clone();
    assert!(token(&one) != token(&two) && token(&one).as_str().map(str::len) == Some(64));
    let (closed, _) = platform(PlatformOptions { downloads: false, ..options() }).await;
    assert_refused(&Client::new(&closed).await.get(&path).await, 500, "MMC.111071117");
}

#[tokio::test]
async fn in_the_newer_system_recordings_are_slices_and_the_older_calls_know_of_none() {
    let (platform, now) = platform(PlatformOptions { newer_recordings: true, ..options() }).await;
    let client = Client::new(&platform).await;
    let ask = async |body: serde_json::Value| client.call(Method::POST, "/v1/mmc/rlm/record/info", &body).await;
    let answer = ask(json!({ "confUUID": RECORDED, "segmentLimit": 0 })).await.json();
    assert_eq!(
        (&answer["code"], &answer["message"]),
        (&json!("0"), &json!("Success")),
        "an envelope of its own, with a text"
    );
    let data = &answer["data"];
    let orders: Vec<_> = data["segmentList"]
        .as_array()
        .expect("slices")
        .iter()
        .map(|slice| {
            (slice["manualOrder"].as_i64(), slice["segmentOrder"].as_i64(), slice["fileList"][0]["duration"].as_i64())
        })
        .collect();
    assert_eq!(orders, [(Some(1), Some(1), Some(3 * 3_600)), (Some(1), Some(2), Some(3_600))], "slices of three hours");
    assert!(data["segmentList"][0]["segmentSize"].is_string());
    assert_eq!((&data["segmentLimit"], &data["segmentCount"]), (&json!(20), &json!(2)));
    assert_eq!(data["beginTime"], "2025-01-01 12:00:00", "local time, eight hours ahead of UTC");
    now.fetch_add(600_000, Ordering::Relaxed);
    let rest = ask(json!({ "confUUID": RECORDED, "segmentOffset": 2, "segmentLimit": 5 })).await.json();
    assert_eq!(rest["data"]["segmentList"][0]["manualOrder"], 2);
    assert_eq!(rest["data"]["segmentCount"], 3);
    let none = ask(json!({ "confUUID": SILENT })).await.json();
    assert_eq!((&none["code"], &none["data"]["segmentCount"]), (&json!("0"), &json!(0)));
    assert_refused(&ask(json!({})).await, 400, "MMC.111071061");
    let older = client.get(&format!("/v1/mmc/management/conferences/record/files?confUUID={RECORDED}")).await;
    assert_refused(&older, 500, "MMC.111071118");
}

#[tokio::test]
async fn a_recording_of_the_simulated_world_is_decoded_some_time_after_the_platform_heard_of_it() {
    let (platform, now) = platform(PlatformOptions { decode_for: Duration::from_secs(60), ..options() }).await;
    super::simulate::play(&platform, None).await;
    let (uuid, recording) = platform.edit(|archive| {
        let run = archive.runs().filter(|run| run.conf_uuid != RECORDED).find(|run| !run.recordings.is_empty());
        run.map(|run| (run.conf_uuid.clone(), run.recordings[0].clone())).expect("a recorded meeting")
    });
    assert_eq!(recording.decode_end, at(recording.finished.get() + 60_000));
    let client = Client::new(&platform).await;
    let one = format!("/v1/mmc/management/conferences/record/files?confUUID={uuid}");
    assert_eq!(client.get(&one).await.json()["isDecodeFinish"], false);
    now.fetch_add(60_000, Ordering::Relaxed);
    assert_eq!(client.get(&one).await.json()["isDecodeFinish"], true);
}
