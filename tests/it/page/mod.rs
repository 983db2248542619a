//! The page, in a real browser: it shows what is, it says when it does not know, and everyone who looks at it, with whatever they
//! have, can use it. Pictures of all views are kept in `target/screenshots`.

mod accessibility;
mod actions;
mod proxy;
mod scene;
mod stories;

use serde_json::json;

use crate::{
    support::service::{Database, Service, WAIT_TIMEOUT, event},
    support::{browser::Browser, wait::eventually},
};
use scene::page;

/// Opens the page and waits for its first word.
async fn open(browser: &Browser, service: &Service) {
    browser.goto(&page(service, "#/")).await;
    browser.sees("#verdict[data-level='ok']", "All is well").await;
}

async fn the_page_shows_an_event_that_arrives_while_it_is_open(database: Database) {
    let service = Service::on(database).await;
    let browser = Browser::start().await;
    open(&browser, &service).await;
    browser.sees("#live-meetings", "No meeting is on").await;
    browser.sees("#feed", "No event has arrived yet").await;
    browser.sees("#verdict", "No event has arrived yet.").await;
    browser.sees("#chart-events", "Nothing in this time.").await;

    service.acknowledged(&event("meeting.started", "987446316")).await;
    let feed = browser.sees("#feed", "987446316").await;
    assert!(feed.contains("Started") && feed.contains("meeting.started"), "{feed}");
    browser.sees("#live-meetings", "987446316").await;
    assert_eq!(browser.count("#feed li").await, 1);
    eventually("the hint is gone", WAIT_TIMEOUT, async || {
        let verdict = browser.text("#verdict").await;
        if verdict.contains("No event has arrived") { Err(verdict) } else { Ok(()) }
    })
    .await;
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.quit().await;
}

#[tokio::test]
async fn the_page_shows_an_event_that_arrives_while_it_is_open_on_sqlite() {
    the_page_shows_an_event_that_arrives_while_it_is_open(Database::Sqlite).await;
}

#[tokio::test]
async fn the_page_shows_an_event_that_arrives_while_it_is_open_on_postgres() {
    the_page_shows_an_event_that_arrives_while_it_is_open(Database::postgres().await).await;
}

#[tokio::test]
async fn the_page_says_since_when_it_hears_nothing_and_goes_on_after_a_restart() {
    let mut service = Service::start().await;
    let browser = Browser::start().await;
    open(&browser, &service).await;
    browser.js("window.neverLoadedAgain = true", json!([])).await;

    service.convoke.kill().await;
    browser.sees("#banner", "No word from Convoke since").await;
    browser.sees("#verdict[data-level='unknown']", "It is not known how Convoke is").await;
    browser.sees("#verdict", "Last word:").await;
    assert_eq!(browser.count("#state[data-old]").await, 1, "what is old is marked");
    let title = browser.js("return document.title", json!([])).await;
    assert!(title.as_str().is_some_and(|title| title.starts_with('?')), "{title}");

    service.convoke.restart().await;
    service.convoke.wait_ready(WAIT_TIMEOUT).await;
    browser.sees("#verdict[data-level='ok']", "All is well").await;
    assert_eq!((browser.text("#banner").await.as_str(), browser.count("#state[data-old]").await), ("", 0));
    service.acknowledged(&event("meeting.started", "987446317")).await;
    browser.sees("#feed", "987446317").await;
    assert_eq!(browser.js("return window.neverLoadedAgain", json!([])).await, json!(true), "it went on");
    browser.quit().await;
}

#[tokio::test]
async fn the_page_says_what_is_wrong_and_what_to_do() {
    let service = Service::start().await;
    let browser = Browser::start().await;
    open(&browser, &service).await;
    // A forgery is refused, and said in a sentence; it does not make the page cry.
    assert_eq!(service.post(scene::forged()).await.status, 401);
    browser.sees("#refused", "No key matches its signature").await;
    browser.sees("#verdict[data-level='ok']", "wrong signature was refused").await;
    // What is signed and no event is for people to look at.
    service.acknowledged(r#"{"timestamp":1,"payload":{}}"#).await;
    browser.sees("#verdict[data-level='warn']", "One body is in the quarantine.").await;
    // A screen reader says it once.
    browser.sees("#announcer", "One body is in the quarantine.").await;
    eventually("the title says so too", WAIT_TIMEOUT, async || {
        let title = browser.js("return document.title", json!([])).await;
        if title.as_str().is_some_and(|title| title.starts_with('!')) { Ok(()) } else { Err(title) }
    })
    .await;
    browser.quit().await;
}

#[tokio::test]
async fn an_empty_cache_costs_less_than_200_kib_and_nothing_comes_from_elsewhere() {
    let service = scene::busy().await;
    let browser = Browser::start().await;
    browser.cdp("Network.setCacheDisabled", json!({ "cacheDisabled": true })).await;
    browser.goto(&page(&service, "")).await;
    browser.sees("#feed", scene::NUMBER).await;
    browser.sees("#chart-meetings .readout", "meeting").await;
    let entries = browser
        .js(
            "return performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
               .map((entry) => [entry.name, entry.transferSize])",
            json!([]),
        )
        .await;
    let entries: Vec<(String, u64)> = serde_json::from_value(entries).expect("names and sizes");
    assert!(entries.len() > 25, "the entries are there: {entries:?}");
    let own = page(&service, "");
    for (name, _) in &entries {
        assert!(name.starts_with(&own), "{name} is elsewhere");
    }
    let bytes: u64 = entries.iter().map(|(_, bytes)| bytes).sum();
    assert!((50_000..200 << 10).contains(&bytes), "{bytes} bytes: {entries:#?}");
    println!("{bytes} bytes in {} requests", entries.len());
    browser.quit().await;
}
