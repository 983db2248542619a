//! 6.3.2.1 to 6.3.2.4: the subscription, and the handshake that enabling it demands.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use convoke_core::sign;
use convoke_core::time::Clock;
use convoke_simulator::platform::{Call, PlatformOptions};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{CORP, Client, Login, USER, assert_refused, options, started};
use crate::support::http::Answer;

const CONFIG: &str = "/v1/mmc/management/webhook/link-config";
const SUBSCRIBER: &str = "7700001234";
const KEY: &str = "demo-Subscriber-Key-2025";

fn wanted(url: &str) -> Value {
    json!({ "corpId": CORP, "subscriberId": SUBSCRIBER, "subscriberKey": KEY, "url": url })
}

impl Client<'_> {
    async fn set(&self, url: &str) -> Answer {
        self.call(Method::POST, CONFIG, &wanted(url)).await
    }

    async fn show(&self) -> Value {
        let answer = self.get(&format!("{CONFIG}?corpId={CORP}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// What the query says of the state: 0 enabled, 1 disabled, 2 locked.
    async fn status(&self) -> i64 {
        self.show().await["status"].as_i64().expect("a status")
    }

    async fn change(&self, status: i64) -> Answer {
        let id = self.show().await["id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/mmc/management/webhook/change-status?id={id}&status={status}");
        self.call(Method::PUT, &path, &Value::Null).await
    }
}

/// A receiver that answers handshakes with what `answer` makes of the nonce, and keeps their bodies.
struct Receiver {
    url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
    _server: tokio::task::JoinSet<()>,
}

impl Receiver {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/openapi/meetingevent", listener.local_addr().expect("an address"));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let mut server = tokio::task::JoinSet::new();
        let seen = Arc::clone(&bodies);
        server.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let body = loop {
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        break None;
                    }
                    let text = String::from_utf8_lossy(&bytes);
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
                    if let Some(body) = body.and_then(|body| serde_json::from_str::<Value>(body).ok()) {
                        break Some(body);
                    }
                };
                let Some(body) = body else { continue };
                let response = answer(body["nonce"].as_str().unwrap_or_default());
                seen.lock().expect("nobody panics").push(body);
                // The platform may have gone away: that is its business.
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        Self { url, bodies, _server: server }
    }

    /// One that does it right.
    async fn good() -> Self {
        Self::start(|nonce| echo(200, nonce)).await
    }
}

fn echo(status: u16, nonce: &str) -> String {
    let body = json!({ "event": "meeting.verify", "nonce": nonce }).to_string();
    format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_subscription_is_set_read_back_without_its_key_enabled_by_a_handshake_disabled_and_deleted() {
    let platform = started(options()).await;
    let client = Client::new(&platform).await;
    assert_eq!(client.show().await, json!({}), "what comes without a record is not documented");
    let receiver = Receiver::good().await;
    let set = client.set(&receiver.url).await;
    assert_eq!((set.status, set.text().as_str()), (200, ""), "no response parameters");
    let shown = client.show().await;
    let members: std::collections::BTreeSet<_> =
        shown.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(Vec::from_iter(members), ["id", "status", "subscriberId", "url"], "neither the key nor whose it is");
    assert_eq!(
        (&shown["subscriberId"], &shown["url"], &shown["status"]),
        (&json!(SUBSCRIBER), &json!(receiver.url), &json!(1))
    );

    let enabled = client.change(0).await;
    // The samples show a length of 39, which this has.
    assert_eq!((enabled.status, enabled.body.len()), (200, 39), "{}", enabled.text());
    assert_eq!(client.status().await, 0);
    {
        let bodies = receiver.bodies.lock().expect("nobody panics");
        let [body] = &bodies[..] else { panic!("one handshake: {bodies:?}") };
        assert_eq!((&body["appID"], &body["eventInfo"]["event"]), (&json!(SUBSCRIBER), &json!("meeting.verify")));
        let (at, nonce) = (body["timestamp"].as_i64().expect("a time"), body["nonce"].as_str().expect("a nonce"));
        let info = format!(r#"{{"event":"meeting.verify","timestamp":{at}}}"#);
        assert_eq!(body["signature"], sign::sign(SUBSCRIBER, at, nonce, info.as_bytes(), KEY.as_bytes()));
    }
    let subscribed = platform.enabled().await;
    assert_eq!((subscribed.url.as_str(), subscribed.subscriber_key.expose_secret()), (receiver.url.as_str(), KEY));

    assert_eq!(client.change(1).await.status, 200);
    assert_eq!(client.status().await, 1);
    let id = client.show().await["id"].as_str().expect("an id").to_owned();
    assert_eq!(client.call(Method::DELETE, &format!("{CONFIG}?id={id}"), &Value::Null).await.status, 200);
    assert_eq!(client.show().await, json!({}));
    assert!(platform.subscription().is_none());
    let gone = client.call(Method::DELETE, &format!("{CONFIG}?id={id}"), &Value::Null).await;
    assert_refused(&gone, 400, "MMC.111071061");
}

#[tokio::test]
async fn setting_it_again_keeps_the_id_and_disables_it() {
    let platform = started(options()).await;
    let client = Client::new(&platform).await;
    let receiver = Receiver::good().await;
    client.set(&receiver.url).await;
    let first = client.show().await["id"].clone();
    assert_eq!(client.change(0).await.status, 200);
    client.set("https://hooks.example.com/openapi/meetingevent").await;
    let shown = client.show().await;
    assert_eq!((&shown["id"], &shown["status"]), (&first, &json!(1)));
}

#[tokio::test]
async fn what_is_wrong_with_a_subscription_is_refused() {
    let platform = started(options()).await;
    let client = Client::new(&platform).await;
    let url = "https://hooks.example.com/openapi/meetingevent";
    for missing in ["subscriberId", "subscriberKey", "url", "corpId"] {
        let mut body = wanted(url);
        body.as_object_mut().expect("an object").remove(missing);
        assert_refused(&client.call(Method::POST, CONFIG, &body).await, 400, "MMC.111071061");
    }
    for plain in ["http://hooks.example.com/x", "http://192.0.2.1/x", "ftp://hooks.example.com/x", "hooks.example.com"]
    {
        assert_refused(&client.set(plain).await, 400, "MMC.111071061");
    }
    let mut other = wanted(url);
    other["corpId"] = json!("1");
    assert_refused(&client.call(Method::POST, CONFIG, &other).await, 403, "MMC.111070002");
    assert_refused(&client.get(&format!("{CONFIG}?corpId=1")).await, 403, "MMC.111070002");
    let headers = [("X-Access-Token", client.token.as_str())];
    let broken = super::ask(&platform, Method::POST, CONFIG, &headers, "{".into()).await;
    assert_refused(&broken, 400, "MMC.111071062");
    let user =
        Client { platform: &platform, token: Login::new(USER, &json!({ "userId": USER })).token(&platform).await };
    assert_refused(&user.set(url).await, 403, "MMC.111070002");
    assert!(platform.subscription().is_none());
}

#[tokio::test]
async fn a_service_provider_has_a_subscription_of_its_own() {
    let platform = started(PlatformOptions { sp_id: Some("sp-1".to_owned()), ..options() }).await;
    let provider = Client { platform: &platform, token: Login::new(":", &json!({})).token(&platform).await };
    let enterprise = Login::new(&format!("{CORP}:"), &json!({ "corpId": CORP })).token(&platform).await;
    let enterprise = Client { platform: &platform, token: enterprise };
    let body = json!({ "spId": "sp-1", "subscriberId": "1", "subscriberKey": "k", "url": "https://h/p" });
    assert_refused(&enterprise.call(Method::POST, CONFIG, &body).await, 403, "MMC.111070002");
    assert_eq!(provider.call(Method::POST, CONFIG, &body).await.status, 200);
    assert_eq!(enterprise.set("https://h/q").await.status, 200);
    assert_eq!(provider.get(&format!("{CONFIG}?spId=sp-1")).await.json()["url"], "https://h/p");
    assert_eq!(enterprise.show().await["url"], "https://h/q");
}

#[tokio::test]
async fn a_url_that_does_not_echo_the_nonce_with_200_is_not_enabled() {
    let platform =
        started(PlatformOptions { lock_after: 100, handshake_timeout: Duration::from_millis(300), ..options() }).await;
    let client = Client::new(&platform).await;
    let answers: [fn(&str) -> String; 4] = [
        |nonce| echo(202, nonce),
        |_| echo(200, "12345678"),
        |_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        |_| String::new(),
    ];
    for answer in answers {
        let receiver = Receiver::start(answer).await;
        client.set(&receiver.url).await;
        assert_refused(&client.change(0).await, 400, "MMC.111071121");
        assert_eq!(client.status().await, 1);
    }
    client.set(&format!("http://{}/x", crate::support::port::Port::lease().address())).await;
    assert_refused(&client.change(0).await, 400, "MMC.111071121");
}

#[tokio::test]
async fn too_many_failures_lock_the_subscription_for_an_hour() {
    let now = Arc::new(AtomicI64::new(1_735_700_400_000));
    let clock = Clock::Set(Arc::clone(&now));
    let platform = started(PlatformOptions { lock_after: 3, clock, ..options() }).await;
    let client = Client::new(&platform).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&tries);
    // Right from the fourth on.
    let receiver =
        Receiver::start(move |nonce| echo(if seen.fetch_add(1, Ordering::Relaxed) < 3 { 500 } else { 200 }, nonce))
            .await;
    client.set(&receiver.url).await;
    for _ in 0..3 {
        assert_refused(&client.change(0).await, 400, "MMC.111071121");
    }
    assert_eq!(client.status().await, 2, "locked");
    assert_refused(&client.change(0).await, 423, "MMC.111071120");
    assert_refused(&client.change(1).await, 423, "MMC.111071120");
    assert_eq!(tries.load(Ordering::Relaxed), 3, "while it is locked, nobody is asked");
    // Neither setting nor deleting it lifts the lock.
    client.set(&receiver.url).await;
    assert_eq!(client.status().await, 2);
    let id = client.show().await["id"].as_str().expect("an id").to_owned();
    client.call(Method::DELETE, &format!("{CONFIG}?id={id}"), &Value::Null).await;
    client.set(&receiver.url).await;
    now.fetch_add(3_599_999, Ordering::Relaxed);
    assert_refused(&client.change(0).await, 423, "MMC.111071120");
    now.fetch_add(1, Ordering::Relaxed);
    assert_eq!(client.status().await, 1, "after an hour it is disabled");
    assert_eq!(client.change(0).await.status, 200);
    assert_eq!((client.status().await, platform.count(Call::ChangeStatus)), (0, 7));
}

#[tokio::test]
async fn a_success_forgets_earlier_failures() {
    let platform = started(PlatformOptions { lock_after: 2, ..options() }).await;
    let client = Client::new(&platform).await;
    let (good, bad) = (Receiver::good().await, Receiver::start(|nonce| echo(503, nonce)).await);
    for _ in 0..2 {
        client.set(&bad.url).await;
        assert_refused(&client.change(0).await, 400, "MMC.111071121");
        client.set(&good.url).await;
        assert_eq!(client.change(0).await.status, 200);
    }
}

#[tokio::test]
async fn a_client_may_lock_it_and_an_unknown_status_is_refused() {
    let platform = started(options()).await;
    let client = Client::new(&platform).await;
    client.set("https://hooks.example.com/x").await;
    assert_refused(&client.change(3).await, 400, "MMC.111071061");
    assert_eq!(client.change(2).await.status, 200);
    assert_eq!(client.status().await, 2);
}
