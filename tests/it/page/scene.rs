//! What happened before somebody looks: a few runs of meetings, one of them live, and what was no event.

use serde_json::{Value, json};

use crate::{
    support::service::{APP_ID, Database, Service, WAIT_TIMEOUT, now, settings, signed, signed_by},
    support::{browser::Browser, wait::eventually},
};

pub const LIVE: &str = "0307e0400f0a11eca58a9fcb8e69dde8";
pub const OVER: &str = "0307e0400f0a11eca58a9fcb8e69dde9";
pub const NUMBER: &str = "987446316";
pub const TOKEN: &str = "a-token-for-the-tests-of-the-page";
pub const VIEWER: &str = "a-viewer-token-for-the-tests";

const MINUTE: i64 = 60_000;

/// The address of a view.
pub fn page(service: &Service, hash: &str) -> String {
    format!("http://{}/{hash}", service.convoke.admin)
}

/// The address of one run's story.
pub fn story(uuid: &str) -> String {
    format!("#/meeting/{APP_ID}/{uuid}")
}

/// A delivery that nobody signed who knows the key.
pub fn forged() -> Vec<u8> {
    signed_by(APP_ID, "not the key", r#"{"event":"meeting.join","timestamp":1,"payload":{}}"#)
}

/// An event of a run, `ago` minutes ago.
fn happened(event: &str, uuid: &str, ago: i64, attendee: &Value) -> String {
    let meeting = json!({ "meetingID": NUMBER, "meetingUUID": uuid });
    let mut payload = json!({ "meetingInfo": meeting });
    if attendee.is_object() {
        payload["attendeeInfo"] = attendee.clone();
    }
    json!({ "event": event, "timestamp": now() - ago * MINUTE, "payload": payload }).to_string()
}

/// Somebody who came `from` minutes ago.
fn attendee(name: &str, account: &str, device: &str, from: i64) -> Value {
    json!({
        "userUUID": format!("user-{account}"), "userAgent": device, "account": account,
        "participantID": format!("{account}-{device}"), "displayName": name, "role": "GENERAL",
        "callNumber": format!("+8657100{}", account.len()), "joinTime": now() - from * MINUTE, "leftTime": 0,
    })
}

/// Joins, and leaves `to` minutes ago unless that is zero.
async fn attends(service: &Service, uuid: &str, name: &str, account: &str, device: &str, from: i64, to: i64) {
    let mut who = attendee(name, account, device, from);
    service.acknowledged(&happened("meeting.join", uuid, from, &who)).await;
    if to > 0 {
        who["leftTime"] = json!(now() - to * MINUTE);
        service.acknowledged(&happened("meeting.left", uuid, to, &who)).await;
    }
}

/// Somebody called `name` joins the live run now, with it in every field that takes text.
pub async fn joins_as(service: &Service, name: &str) {
    let who = json!({
        "userUUID": name, "userAgent": name, "account": name, "participantID": name, "displayName": name, "role": name,
        "callNumber": name, "joinTime": now(), "leftTime": 0,
    });
    service.acknowledged(&happened("meeting.join", LIVE, 0, &who)).await;
}

/// A service in which everybody who reaches it sees everything that is not personal.
pub async fn busy() -> Service {
    fill(Service::start().await).await
}

/// The same, with days and times of a zone.
pub async fn in_zone(zone: &str) -> Service {
    fill(Service::with(settings().setting("TIME_ZONE", zone), Database::Sqlite).await).await
}

/// One that asks for a token.
pub async fn guarded() -> Service {
    let settings = settings().setting("ADMIN_TOKEN", TOKEN).setting("ADMIN_VIEWER_TOKEN", VIEWER);
    Service::with(settings, Database::Sqlite).await
}

/// What happened today.
pub async fn fill(service: Service) -> Service {
    for (event, ago) in [("meeting.create", 90), ("meeting.modify", 80), ("meeting.started", 60)] {
        service.acknowledged(&happened(event, LIVE, ago, &Value::Null)).await;
    }
    attends(&service, LIVE, "王小明", "wangxiaoming", "Windows", 60, 0).await;
    attends(&service, LIVE, "王小明", "wangxiaoming", "Android", 40, 25).await;
    attends(&service, LIVE, "Sofia Lindqvist", "sofia", "Mac", 55, 10).await;
    attends(&service, LIVE, "Omar Haddad", "omar", "iOS", 30, 0).await;
    service.acknowledged(&happened("record.finish", LIVE, 20, &Value::Null)).await;
    service.acknowledged(&happened("meeting.started", OVER, 300, &Value::Null)).await;
    attends(&service, OVER, "Mei Tan", "mei", "Windows", 299, 250).await;
    attends(&service, OVER, "李 娜", "lina", "Windows", 290, 0).await;
    for event in ["meeting.end", "meeting.conclude"] {
        service.acknowledged(&happened(event, OVER, 240, &Value::Null)).await;
    }
    service.acknowledged(r#"{"timestamp":1,"payload":{"note":"<b>no event</b>"}}"#).await;
    assert_eq!(service.post(forged()).await.status, 401);
    assert_eq!(service.post(signed("[]")).await.status, 400);
    eventually("the tables have it all", WAIT_TIMEOUT, async || {
        let stays = service.sql("SELECT count(*) FROM attendance WHERE left_at IS NOT NULL");
        if stays == "4" { Ok(()) } else { Err(stays) }
    })
    .await;
    service
}

/// Signs in through the form.
pub async fn sign_in(browser: &Browser, service: &Service, token: &str) {
    browser.goto(&page(service, "")).await;
    browser.sees("label[for='token']", "").await;
    // The browser's own line about the 401 that the form comes with.
    browser.complaints().await;
    browser.types("input[name='token']", token).await;
    browser.click("button[type='submit']").await;
}
