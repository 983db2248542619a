//! 4.2.9 to 4.2.23: lists, pages, windows, details, participant records.

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use convoke_core::time::{Clock, Millis};
use convoke_simulator::platform::{Platform, PlatformOptions, Run, State};
use reqwest::Method;
use serde_json::{Value, json};

use super::{CORP, Client, Login, USER, ask, assert_refused, options, started};

const BASE: &str = "/v1/mmc/management/conferences";
/// 2025-01-01T03:00:00Z
const FIRST_MS: i64 = 1_735_700_400_000;

pub fn at(ms: i64) -> Millis {
    Millis::new(ms).expect("a time")
}

/// A platform at noon of the day on which so many runs were held, one a minute from three in the morning on.
pub async fn with_runs(runs: usize, stays: usize, options: PlatformOptions) -> Platform {
    let clock = Clock::Set(Arc::new(AtomicI64::new(FIRST_MS + 9 * 3_600_000)));
    let platform = started(PlatformOptions { clock, ..options }).await;
    platform.edit(|archive| {
        for run in Run::made_up(at(FIRST_MS), Duration::from_secs(60), runs, stays) {
            archive.put(run);
        }
    });
    platform
}

fn history(since: i64, until: i64, more: &str) -> String {
    format!("{BASE}/history?startDate={since}&endDate={until}&queryAll=true{more}")
}

pub fn uuids(page: &Value) -> Vec<&str> {
    let data = page["data"].as_array().expect("a page");
    data.iter().map(|item| item["confUUID"].as_str().expect("a UUID")).collect()
}

#[tokio::test]
async fn history_comes_in_pages_of_records_sorted_by_start_with_the_total() {
    let platform = with_runs(1_203, 1, options()).await;
    let client = Client::new(&platform).await;
    let until = FIRST_MS + 2_000 * 60_000;
    let mut all = Vec::new();
    for offset in [0, 500, 1_000] {
        let page = client
            .get(&history(FIRST_MS, until, &format!("&limit=500&offset={offset}&sortType=ASC_StartTIME")))
            .await
            .json();
        assert_eq!((&page["offset"], &page["limit"], &page["count"]), (&json!(offset), &json!(500), &json!(1_203)));
        all.extend(page["data"].as_array().expect("a page").clone());
    }
    assert_eq!(all.len(), 1_203);
    let starts: Vec<_> = all.iter().map(|item| item["startTime"].as_str().expect("a text")).collect();
    assert!(starts.is_sorted() && starts[0] == "2025-01-01 03:00", "{:?}", &starts[..2]);
    assert_eq!((&all[0]["endTime"], &all[0]["conferenceState"]), (&json!("2025-01-01 03:30"), &json!("Destroyed")));
    let beyond = client.get(&history(FIRST_MS, until, "&limit=500&offset=1203")).await.json();
    assert_eq!((beyond["data"].as_array().map(Vec::len), &beyond["count"]), (Some(0), &json!(1_203)));
    let usual = client.get(&history(FIRST_MS, until, "")).await.json();
    assert_eq!((usual["data"].as_array().map(Vec::len), &usual["limit"]), (Some(20), &json!(20)));
    assert_eq!(uuids(&usual)[0], all[1_202]["confUUID"], "without a sort type, the newest first");
}

#[tokio::test]
async fn a_list_is_refused_without_its_window_and_with_parameters_that_are_none() {
    let platform = with_runs(3, 1, options()).await;
    let client = Client::new(&platform).await;
    for path in ["?queryAll=true", "?startDate=0&queryAll=true", "?endDate=1&queryAll=true", "?startDate=2&endDate=1"] {
        assert_refused(&client.get(&format!("{BASE}/history{path}")).await, 400, "MMC.111071061");
        assert_refused(&client.get(&format!("/v1/mmc/management/record/files{path}")).await, 400, "MMC.111071061");
    }
    for more in ["&limit=0", "&sortType=UP", &format!("&searchKey={}", "x".repeat(129))] {
        assert_refused(&client.get(&history(FIRST_MS, FIRST_MS, more)).await, 400, "MMC.111071061");
    }
    assert_refused(&client.get(&history(FIRST_MS, FIRST_MS, "&limit=many")).await, 400, "MMC.111070001");
    // As older manuals and its own clients say: more than 500 is 500, and less than 0 is 0.
    let page = client.get(&history(FIRST_MS, FIRST_MS, "&limit=501&offset=-1")).await.json();
    assert_eq!([&page["limit"], &page["offset"], &page["count"]], [&json!(500), &json!(0), &json!(1)]);
    assert_refused(&client.get(&format!("{BASE}/nothing")).await, 404, "APIG.0101");
}

#[tokio::test]
async fn a_window_without_a_meeting_is_an_error_and_both_its_ends_belong_to_it() {
    let platform = with_runs(3, 1, options()).await;
    let client = Client::new(&platform).await;
    assert_refused(&client.get(&history(FIRST_MS - 10, FIRST_MS - 1, "")).await, 400, "MMC.111071069");
    let page = client.get(&history(FIRST_MS, FIRST_MS + 60_000, "")).await.json();
    assert_eq!(page["count"], 2);
}

#[tokio::test]
async fn what_is_older_than_six_months_is_not_there() {
    let platform = with_runs(1, 1, options()).await;
    let old = FIRST_MS + 9 * 3_600_000 - 183 * 86_400_000;
    let (gone, kept) = ("0000000000000000000000000000000a", "0000000000000000000000000000000b");
    platform.edit(|archive| {
        archive.put(Run::over(gone, "960000001", at(old - 1), at(old)));
        archive.put(Run::over(kept, "960000002", at(old), at(old + 1)));
    });
    let client = Client::new(&platform).await;
    let page = client.get(&history(0, FIRST_MS - 1, "")).await.json();
    assert_eq!(uuids(&page), [kept]);
    assert_refused(&client.get(&history(0, old - 1, "")).await, 400, "MMC.111071069");
    let record = |uuid: &str| format!("{BASE}/history/confAttendeeRecord?confUUID={uuid}");
    assert_refused(&client.get(&record(gone)).await, 400, "MMC.111070005");
    assert_eq!(client.get(&record(kept)).await.status, 200);
}

#[tokio::test]
async fn an_administrator_sees_the_enterprise_if_he_asks_for_all_of_it_and_nobody_elses() {
    let corps = vec![CORP.to_owned(), "660054321".to_owned()];
    let settings =
        PlatformOptions { sp_id: Some("sp-1".into()), corp_ids: corps, administrators: vec![USER.into()], ..options() };
    let platform = with_runs(2, 1, settings).await;
    let foreign = "0000000000000000000000000000000a";
    platform.edit(|archive| {
        let run = Run::over(foreign, "960000001", at(FIRST_MS + 1), at(FIRST_MS + 2));
        archive.put(Run { corp_id: Some("660054321".into()), ..run });
    });
    let as_caller = async |parts: &str, body: Value| Client {
        platform: &platform,
        token: Login::new(parts, &body).token(&platform).await,
    };
    let ours = as_caller(&format!("{CORP}:"), json!({ "corpId": CORP })).await;
    let provider = as_caller(":", json!({})).await;
    let administrator = as_caller(&format!("{CORP}:{USER}"), json!({ "corpId": CORP, "userId": USER })).await;
    let somebody = as_caller(&format!("{CORP}:bob"), json!({ "corpId": CORP, "userId": "bob" })).await;
    let all = history(FIRST_MS, FIRST_MS + 60_000, "");
    assert_eq!(ours.get(&all).await.json()["count"], 2);
    assert_eq!(administrator.get(&all).await.json()["count"], 2);
    assert_refused(&provider.get(&all).await, 400, "MMC.111071069");
    assert_refused(&somebody.get(&all).await, 403, "MMC.111070002");
    assert_refused(&ours.get(&all.replace("&queryAll=true", "")).await, 400, "MMC.111071069");
    let record = format!("{BASE}/history/confAttendeeRecord?confUUID={foreign}");
    assert_refused(&ours.get(&record).await, 403, "MMC.111070010");
    assert_refused(&somebody.get(&record).await, 403, "MMC.111070010");
    let org = format!("{BASE}/confOrg?conferenceID=960000001");
    assert_eq!(provider.get(&org).await.json(), json!({ "orgID": "660054321" }));
    assert_refused(&ours.get(&org).await, 403, "MMC.111070002");
    assert_refused(&provider.get(&format!("{BASE}/confOrg?conferenceID=1")).await, 400, "MMC.111070005");
}

#[tokio::test]
async fn participant_records_have_a_row_for_each_stay_and_no_ids() {
    let platform = with_runs(1, 25, options()).await;
    let client = Client::new(&platform).await;
    let uuid = platform.edit(|archive| archive.runs().next().expect("a run").conf_uuid.clone());
    let record = format!("{BASE}/history/confAttendeeRecord?confUUID={uuid}");
    let page = client.get(&record).await.json();
    assert_eq!((page["data"].as_array().map(Vec::len), &page["count"]), (Some(20), &json!(25)));
    let members: std::collections::BTreeSet<_> =
        page["data"][0].as_object().expect("a record").keys().map(String::as_str).collect();
    assert_eq!(
        Vec::from_iter(members),
        ["callNumber", "deptName", "deviceType", "displayName", "joinTime", "leftTime", "mediaType"],
        "neither a participant id nor a user",
    );
    assert_eq!(page["data"][0]["joinTime"], FIRST_MS + 1_000);
    let words = |page: &Value| [&page["data"][0]["deviceType"], &page["data"][0]["mediaType"]].map(Value::to_string);
    assert_eq!(words(&page), [r#""软终端""#, r#""视频""#], "Chinese, unless it is asked for otherwise");
    let headers = [("X-Access-Token", &*client.token), ("Accept-Language", "en-US")];
    let english = ask(&platform, Method::GET, &record, &headers, String::new()).await.json();
    assert_eq!(words(&english), [r#""Soft terminal""#, r#""Video""#]);
    let rest = client.get(&format!("{record}&offset=20&limit=500")).await.json();
    assert_eq!(rest["data"].as_array().map(Vec::len), Some(5));
    let searched = client.get(&format!("{record}&searchKey=%2B991110000007")).await.json();
    assert_eq!((&searched["count"], &searched["data"][0]["displayName"]), (&json!(1), &json!("Guest 7")));
    assert_refused(&client.get(&record.replace(&uuid, "")).await, 400, "MMC.111071061");
    assert_refused(&client.get(&record.replace(&uuid, "none")).await, 400, "MMC.111070005");
}

#[tokio::test]
async fn times_of_participant_records_may_differ_by_some_milliseconds_always_the_same() {
    let platform = with_runs(1, 50, PlatformOptions { skew: Duration::from_millis(8), ..options() }).await;
    let client = Client::new(&platform).await;
    let uuid = platform.edit(|archive| archive.runs().next().expect("a run").conf_uuid.clone());
    let record = format!("{BASE}/history/confAttendeeRecord?confUUID={uuid}&limit=500");
    let (one, two) = (client.get(&record).await.json(), client.get(&record).await.json());
    assert_eq!(one, two);
    let late: Vec<i64> = (0_i64..)
        .zip(one["data"].as_array().expect("a page"))
        .map(|(person, row)| row["joinTime"].as_i64().expect("a time") - (FIRST_MS + 1_000 + person * 37))
        .collect();
    assert!(late.iter().all(|late| (0..=8).contains(late)) && late.iter().any(|late| *late > 0), "{late:?}");
}

#[tokio::test]
async fn meetings_to_come_and_running_ones_have_lists_and_details_of_their_own() {
    let platform = with_runs(2, 3, options()).await;
    let client = Client::new(&platform).await;
    let ids = platform.edit(|archive| {
        let uuids: Vec<String> = archive.runs().map(|run| run.conf_uuid.clone()).collect();
        archive.edit(&uuids[0], |run| run.state = State::Scheduled);
        archive.edit(&uuids[1], |run| {
            (run.state, run.ended) = (State::Running, None);
            for stay in run.stays.iter_mut().skip(1) {
                stay.left = None;
            }
        });
        archive.put(Run::over("0000000000000000000000000000000a", "960000001", at(FIRST_MS), at(FIRST_MS + 1)));
        archive.runs().map(|run| run.conference_id.clone()).collect::<Vec<_>>()
    });
    let all = client.get(&format!("{BASE}?queryAll=true&sortType=ASC_StartTIME")).await.json();
    let states: Vec<_> = all["data"].as_array().expect("a page").iter().map(|item| &item["conferenceState"]).collect();
    assert_eq!(states, ["Schedule", "Created"]);
    assert!(all["data"][0]["confUUID"].is_null(), "scheduling gives no UUID of the run");
    let running = client.get(&format!("{BASE}/online?queryAll=true")).await.json();
    assert_eq!((&running["count"], &running["data"][0]["onlineAttendeeAmount"]), (&json!(1), &json!(2)));

    let running_id = running["data"][0]["conferenceID"].as_str().expect("an id");
    let scheduled_id = all["data"][0]["conferenceID"].as_str().expect("an id");
    assert!(ids.iter().any(|id| id == running_id));
    for (path, id) in [("", running_id), ("", scheduled_id), ("/online", running_id)] {
        let detail = client.get(&format!("{BASE}{path}/confDetail?conferenceID={id}")).await.json();
        assert_eq!((&detail["conferenceData"]["conferenceID"], &detail["data"]["count"]), (&json!(id), &json!(1)));
    }
    let not_begun = client.get(&format!("{BASE}/online/confDetail?conferenceID={scheduled_id}")).await;
    assert_refused(&not_begun, 400, "MMC.111072005");
    let over = format!("{BASE}/confDetail?conferenceID=960000001");
    assert_refused(&client.get(&over).await, 400, "MMC.111071072");
    assert_refused(&client.get(&format!("{BASE}/confDetail?conferenceID=1")).await, 400, "MMC.111070005");
    let past = format!("{BASE}/history/confDetail?confUUID=0000000000000000000000000000000a");
    let past = client.get(&past).await.json();
    assert_eq!(past["conferenceData"]["isHasRecordFile"], false);
}
