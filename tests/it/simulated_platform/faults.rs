//! What goes wrong on purpose, and the gateway's limits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use convoke_core::time::Clock;
use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Refusal};
use reqwest::Method;

use super::{Client, assert_refused, history, history::uuids, options, started, try_ask};

const ALL: &str = "/v1/mmc/management/conferences/history?startDate=0&endDate=4000000000000&queryAll=true&limit=2&sortType=ASC_StartTIME";

async fn world() -> Platform {
    history::with_runs(6, 1, options()).await
}

#[tokio::test]
async fn each_call_has_a_limit_of_its_own_that_its_headers_say() {
    let now = Arc::new(AtomicI64::new(1_735_700_400_000));
    let clock = Clock::Set(Arc::clone(&now));
    let platform = started(PlatformOptions { limit: 3, clock, ..options() }).await;
    let client = Client::new(&platform).await;
    for remain in [2, 1, 0] {
        let answer = client.get(ALL).await;
        assert_eq!(answer.header("X-APIG-Ratelimit-Api"), Some(&*format!("remain:{remain},limit:3,time:1 minute")));
        assert_eq!(answer.header("X-APIG-Ratelimit-Api-Allenv"), Some("remain:199,limit:200,time:1 second"));
        assert_eq!(answer.status, 400);
    }
    assert_refused(&client.get(ALL).await, 429, "APIG.0308");
    let other = client.get("/v1/mmc/management/webhook/link-config?corpId=660012345").await;
    assert_eq!(other.status, 200, "another call has its own");
    now.fetch_add(59_999, Ordering::Relaxed);
    let answer = client.get(ALL).await;
    assert_refused(&answer, 429, "APIG.0308");
    assert_eq!(answer.header("X-APIG-Ratelimit-Api"), Some("remain:0,limit:3,time:1 minute"));
    now.fetch_add(1, Ordering::Relaxed);
    assert_refused(&client.get(ALL).await, 400, "MMC.111071069");
    assert_eq!((platform.count(Call::History), platform.calls().len()), (6, 3));
}

#[tokio::test]
async fn a_compressed_minute_is_reported_in_seconds() {
    let platform = started(PlatformOptions { minute: Duration::from_secs(2), ..options() }).await;
    let answer = Client::new(&platform).await.get(ALL).await;
    assert_eq!(answer.header("X-APIG-Ratelimit-Api"), Some("remain:9999,limit:10000,time:2 second"));
}

#[tokio::test]
async fn error_answers_come_as_often_as_planned_and_then_no_more() {
    let platform = world().await;
    let client = Client::new(&platform).await;
    platform.inject_after(Call::History, 1, Fault::Refuse(Refusal::UPGRADING), 2);
    platform.inject(Call::History, Fault::Refuse(Refusal::BUSY), 1);
    platform.inject(Call::History, Fault::TooMany, 1);
    platform.inject(Call::History, Fault::Refuse(Refusal::SESSION_TIMED_OUT), 1);
    platform.inject(Call::History, Fault::Refuse(Refusal::TOKEN_INVALID), 1);
    assert_eq!(client.get(ALL).await.status, 200);
    for _ in 0..2 {
        assert_refused(&client.get(ALL).await, 503, "USG.000000008");
    }
    assert_refused(&client.get(ALL).await, 500, "USG.000000001");
    let throttled = client.get(ALL).await;
    assert_refused(&throttled, 429, "APIG.0308");
    assert!(throttled.header("X-APIG-Ratelimit-Api").is_some_and(|value| value.starts_with("remain:0,")));
    assert_refused(&client.get(ALL).await, 400, "MMC.118000001");
    assert_refused(&client.get(ALL).await, 401, "MMC.118000000");
    assert_eq!(client.get(ALL).await.status, 200);
}

#[tokio::test]
async fn a_login_page_and_any_other_text_may_come_instead_of_an_answer() {
    let platform = world().await;
    let client = Client::new(&platform).await;
    platform.inject(Call::History, Fault::Html(200), 1);
    platform.inject(Call::History, Fault::Body("{\"data\":[".to_owned()), 1);
    let page = client.get(ALL).await;
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=UTF-8")));
    assert!(page.text().starts_with("<!DOCTYPE html>"));
    assert_eq!(client.get(ALL).await.text(), "{\"data\":[");
}

#[tokio::test]
async fn connections_are_closed_before_and_in_the_middle_of_an_answer() {
    let platform = world().await;
    let client = Client::new(&platform).await;
    for fault in [Fault::Drop, Fault::DropHalf] {
        platform.inject(Call::History, fault.clone(), 1);
        let headers = [("X-Access-Token", client.token.as_str())];
        let failed = try_ask(&platform, Method::GET, ALL, &headers, String::new()).await;
        assert!(failed.is_err(), "{fault:?}");
        assert_eq!(client.get(ALL).await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_may_be_late() {
    let platform = world().await;
    let client = Client::new(&platform).await;
    platform.inject(Call::History, Fault::Slow(Duration::from_millis(300)), 1);
    let before = Instant::now();
    assert_eq!(client.get(ALL).await.status, 200);
    assert!(before.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_page_may_repeat_the_one_before_it() {
    let platform = world().await;
    let client = Client::new(&platform).await;
    let first = client.get(ALL).await.json();
    platform.inject(Call::History, Fault::RepeatPage, 1);
    let again = client.get(&format!("{ALL}&offset=2")).await.json();
    let second = client.get(&format!("{ALL}&offset=2")).await.json();
    assert_eq!(uuids(&first), uuids(&again));
    assert_ne!(uuids(&first), uuids(&second));
}

#[tokio::test]
async fn a_list_may_change_between_pages() {
    let platform = world().await;
    let client = Client::new(&platform).await;
    let first = client.get(ALL).await.json();
    let gone = uuids(&first)[0].to_owned();
    platform.inject(Call::History, Fault::edit(move |archive| drop(archive.remove(&gone))), 1);
    let second = client.get(&format!("{ALL}&offset=2")).await.json();
    assert_eq!((first["count"].as_i64(), second["count"].as_i64()), (Some(6), Some(5)));
    let all = client.get(&ALL.replace("limit=2", "limit=500")).await.json();
    assert_eq!(uuids(&all)[1..3][1..], uuids(&second)[..1], "one was skipped");
}

#[tokio::test]
async fn tokens_may_end_in_the_middle_of_a_list() {
    let platform = world().await;
    let client = Client::new(&platform).await;
    assert_eq!(client.get(ALL).await.status, 200);
    platform.inject(Call::History, Fault::ExpireTokens, 1);
    assert_refused(&client.get(ALL).await, 400, "MMC.118000001");
    assert_refused(&client.get(ALL).await, 400, "MMC.118000001");
    let client = Client::new(&platform).await;
    platform.inject(Call::History, Fault::ForgetTokens, 1);
    assert_refused(&client.get(ALL).await, 401, "MMC.118000000");
    let client = Client::new(&platform).await;
    platform.expire_tokens();
    assert_refused(&client.get(ALL).await, 400, "MMC.118000001");
    platform.forget_tokens();
    assert_refused(&client.get(ALL).await, 401, "MMC.118000000");
}

#[tokio::test]
async fn a_platform_that_was_stopped_answers_nobody() {
    let platform = world().await;
    let (url, client) = (platform.url(), Client::new(&platform).await);
    drop(client);
    platform.stop().await;
    assert!(crate::support::http::try_get(&url).await.is_err());
}
