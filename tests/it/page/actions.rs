//! What operators do on the page.

use serde_json::json;

use super::scene::{self, page};
use crate::{
    support::nats::{NatsOptions, NatsServer, NatsVersion},
    support::rig::{STREAM, read_stream, stream_holds},
    support::service::{Database, Service, WAIT_TIMEOUT, event, settings},
    support::{browser::Browser, wait::eventually},
};

async fn entries(service: &Service) -> String {
    service.sql("SELECT count(*) FROM quarantine")
}

#[tokio::test]
async fn an_entry_of_the_quarantine_is_discarded_when_that_is_confirmed_and_not_before() {
    let service = scene::fill(scene::guarded().await).await;
    let browser = Browser::start().await;
    scene::sign_in(&browser, &service, scene::TOKEN).await;
    browser.sees("nav", "Actions").await;
    browser.goto(&page(&service, "#/quarantine")).await;
    browser.sees(".list", "Look at").await;
    browser.click("#entries-discard").await;
    browser.sees("#entries-place", "Choose entries first").await;
    browser.click(".list [type='checkbox']").await;
    browser.click("#entries-retry").await;
    browser.sees("#entries-words", "Nothing would change").await;
    browser.click("#entries-discard").await;
    browser.sees("#entries-words", "1 entry would be deleted for good").await;
    assert_eq!(browser.js("return document.activeElement.id", json!([])).await, json!("entries-confirm"));
    browser.click("#entries-place .act-buttons button:last-child").await;
    assert_eq!((browser.text("#entries-place").await.as_str(), entries(&service).await.as_str()), ("", "1"));
    browser.click("#entries-discard").await;
    browser.sees("#entries-words", "would be deleted").await;
    browser.click("#entries-confirm").await;
    browser.sees("#entries-done", "Discard: done. 1 deleted.").await;
    assert_eq!(entries(&service).await, "0");
    browser.click(".fresh button").await;
    browser.sees("main", "The quarantine is empty").await;
    browser.click("nav a[href='#/actions']").await;
    let list = browser.sees("#actions-list", "admin.token").await;
    assert!(list.contains("Quarantine, discarded") && list.contains("1 deleted"), "{list}");
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.quit().await;
}

#[tokio::test]
async fn one_meeting_is_replayed_from_the_page() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let builder = settings().setting("NATS_URL", nats.url()).setting("ADMIN_TOKEN", scene::TOKEN);
    let service = Service::with(builder, Database::Sqlite).await;
    for meeting in ["987446316", "987446317"] {
        service.acknowledged(&event("meeting.started", meeting)).await;
    }
    let jetstream = nats.jetstream().await;
    stream_holds(&jetstream, 2, WAIT_TIMEOUT).await;
    eventually("the relay has noted it", WAIT_TIMEOUT, async || {
        let noted = service.sql("SELECT max(position) FROM cursors WHERE name = 'bus'");
        if noted == "2" { Ok(()) } else { Err(noted) }
    })
    .await;
    let browser = Browser::speaking("zh-CN").await;
    scene::sign_in(&browser, &service, scene::TOKEN).await;
    browser.sees("nav", "操作").await;
    browser.goto(&page(&service, "#/actions")).await;
    browser.sees("#replay", "重放").await;
    browser.click("#replays-replay").await;
    browser.sees("#replays-place", "请指定事件").await;
    browser.types("#replay-meeting", "987446316").await;
    browser.click("#replay-again").await;
    browser.click("#replays-replay").await;
    browser.sees("#replays-words", "将向流再次发送 1 个事件").await;
    browser.screenshot("replay-confirm-zh").await;
    browser.click("#replays-confirm").await;
    browser.sees("#replays-done", "已发布 1 个").await;
    assert_eq!(read_stream(&jetstream, STREAM).await.len(), 3);
    browser.sees("#actions-list", "987446316").await;
    jetstream.get_stream(STREAM).await.expect("the stream").delete_message(2).await.expect("deleted");
    browser.click("#replays-missing").await;
    browser.sees("#replays-words", "流中缺失 1 个事件").await;
    browser.click("#replays-confirm").await;
    browser.sees("#replays-done", "完成").await;
    eventually("it is there again", WAIT_TIMEOUT, async || {
        let held = read_stream(&jetstream, STREAM).await.len();
        if held == 3 { Ok(()) } else { Err(held) }
    })
    .await;
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.quit().await;
}

#[tokio::test]
async fn who_may_only_look_is_shown_no_button_that_acts() {
    let service = scene::fill(scene::guarded().await).await;
    let browser = Browser::start().await;
    scene::sign_in(&browser, &service, scene::VIEWER).await;
    browser.sees("nav", "Actions").await;
    browser.goto(&page(&service, "#/quarantine")).await;
    browser.sees(".list", "Look at").await;
    assert_eq!(browser.count("main .act-bar, main [type='checkbox']").await, 0);
    browser.goto(&page(&service, "#/actions")).await;
    browser.sees("main", "may look, and not act").await;
    assert_eq!(browser.count("main .act-bar").await, 0);
    browser.quit().await;
}
