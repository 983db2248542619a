//! The simulated platform's REST API, spoken to over plain HTTP: what the platform's manual says of each call.

mod auth;
mod faults;
mod history;
mod recordings;
mod session;
mod simulate;
mod subscription;

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use base64::Engine as _;
use convoke_core::time::Clock;
use convoke_simulator::platform::{Platform, PlatformOptions};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::http::Answer;

/// The made-up App ID and key of the signature vectors.
pub const APP_ID: &str = "0123456789abcdef0123456789abcdef";
pub const APP_KEY: &str = "DemoAppKeyDemoAppKeyDemoAppKey01";
pub const CORP: &str = "660012345";
pub const USER: &str = "alice@example-corp";
const NONCE: &str = "demoNonce0demoNonce1demoNonce2demoNonce3";

pub fn options() -> PlatformOptions {
    PlatformOptions { limit: 10_000, ..PlatformOptions::new(APP_ID, APP_KEY.into()) }
}

pub async fn started(options: PlatformOptions) -> Platform {
    Platform::start(options).await.expect("a free port")
}

/// With a clock that the test sets, at `now` first.
pub async fn started_at(now: i64, change: impl FnOnce(&mut PlatformOptions)) -> (Platform, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(now));
    let mut options = PlatformOptions { clock: Clock::Set(Arc::clone(&clock)), ..options() };
    change(&mut options);
    (started(options).await, clock)
}

/// Any request; panics if there is no answer.
pub async fn ask(platform: &Platform, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
    try_ask(platform, method, path, headers, body).await.expect("an answer")
}

pub async fn try_ask(
    platform: &Platform,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: String,
) -> reqwest::Result<Answer> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(40)).build().expect("a client");
    let mut request = client.request(method, format!("{}{path}", platform.url())).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.bytes().await? })
}

/// `HMAC-SHA256(data, appKey)` in lower-case hex.
pub fn signature(key: &str, data: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key");
    mac.update(data.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// An authentication: what is signed, and the body.
pub struct Login {
    pub key: String,
    pub signed: String,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
}

impl Login {
    /// A right one: `parts` stand between App ID and expiry in the signed text, `body` is added to the usual members.
    pub fn new(parts: &str, body: &Value) -> Self {
        let expires = 4_000_000_000_i64;
        let mut whole = json!({ "appId": APP_ID, "clientType": 72, "expireTime": expires, "nonce": NONCE });
        for (name, value) in body.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        let headers = vec![
            ("X-Token-Type", "LongTicket".to_owned()),
            ("Content-Type", "application/json; charset=UTF-8".to_owned()),
        ];
        Self { key: APP_KEY.to_owned(), signed: format!("{APP_ID}:{parts}:{expires}:{NONCE}"), body: whole, headers }
    }

    /// As the enterprise's default administrator.
    pub fn administrator() -> Self {
        Self::new("", &json!({}))
    }

    pub fn authorization(&self) -> String {
        let access = base64::engine::general_purpose::STANDARD.encode(APP_ID);
        format!("HMAC-SHA256 signature={},access={access}", signature(&self.key, &self.signed))
    }

    pub async fn send(&self, platform: &Platform) -> Answer {
        self.send_with(platform, &self.authorization()).await
    }

    pub async fn send_with(&self, platform: &Platform, authorization: &str) -> Answer {
        let mut headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("Authorization", authorization));
        ask(platform, Method::POST, "/v2/usg/acs/auth/appauth", &headers, self.body.to_string()).await
    }

    pub async fn token(&self, platform: &Platform) -> String {
        let answer = self.send(platform).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["accessToken"].as_str().expect("a token").to_owned()
    }
}

/// Somebody with a token.
pub struct Client<'a> {
    pub platform: &'a Platform,
    pub token: String,
}

impl<'a> Client<'a> {
    pub async fn new(platform: &'a Platform) -> Client<'a> {
        Client { platform, token: Login::administrator().token(platform).await }
    }

    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("X-Access-Token", self.token.as_str()), ("Content-Type", "application/json")];
        ask(self.platform, method, path, &headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &Value::Null).await
    }
}

/// The form of every error: a status, `error_code` and `error_msg`.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.json()["error_code"].as_str()), (status, Some(code)), "{}", answer.text());
    assert!(answer.json()["error_msg"].as_str().is_some_and(|text| !text.is_empty()), "{}", answer.text());
    assert!(answer.header("X-Request-Id").is_some_and(|id| id.len() == 32), "an id for the support");
}
