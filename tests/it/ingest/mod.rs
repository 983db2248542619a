//! Every row of the contract's table of answers, asked of the real service.

mod accepted;
mod limits;
mod protocol;
mod refused;

use std::time::{Duration, Instant};

use convoke_core::sign;
use serde_json::{Value, json};

use crate::{
    support::service::{
        APP_ID, Database, KEY, PATH, Service, WAIT_TIMEOUT, event, event_at, now, settings, signed, signed_by,
    },
    support::{
        http::{self, Answer, RawConnection},
        port::Port,
        postgres::Postgres,
        proxy::Proxy,
        wait::{eventually, stretched},
    },
};

/// The request as the manual prints it (section 6.2.3.1), line for line.
const PRINTED_HEAD: &str = "POST /openapi/meetingevent HTTP/1.1\r\n\
    Date: Tue, 17 Dec 2019 09:32:47 GMT\r\n\
    Content-Type: application/json;charset=UTF-8\r\n\
    Connection: keep-alive\r\n\
    Pragma: No-cache\r\n\
    Cache-Control: no-cache\r\n\
    X-Request-ID: 539e8b710378987ffc5eb844b5e5c290\r\n";
const PRINTED_BODY: &str = r#"{
  "appID": "1988692299",
  "timestamp": 1629183619116,
  "nonce": "85262798",
  "signature": "262ccb5f8854f824c41ea5854ba1798bfa850706fbc85b2be9fd7535ed6b8ff3",
  "eventInfo": {
    "event": "meeting.verify",
    "timestamp": 1629183619116
  }
}"#;

/// RFC 9457, with a fixed text, and nothing else.
fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{status}");
    let problem = answer.json();
    let Value::Object(members) = &problem else { panic!("no object: {problem}") };
    let names: std::collections::BTreeSet<_> = members.keys().map(String::as_str).collect();
    assert_eq!(names, ["status", "title", "type"].into());
    assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!("about:blank")));
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
}

/// A body with `sent` for its `eventInfo`, whose signature covers `signed`.
fn envelope(sent: &str, signed: &str) -> String {
    let timestamp = now();
    let signature = sign::sign(APP_ID, timestamp, "12345678", signed.as_bytes(), KEY.as_bytes());
    format!(
        r#"{{"appID":"{APP_ID}","timestamp":{timestamp},"nonce":"12345678","signature":"{signature}","eventInfo":{sent}}}"#
    )
}

async fn once(service: &Service, request: &str) -> String {
    let mut connection = RawConnection::open(service.convoke.events).await;
    connection.send(request.as_bytes()).await;
    connection.answer().await
}
