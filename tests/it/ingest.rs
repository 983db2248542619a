//! Every row of the contract's table of answers, asked of the real service.

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

#[tokio::test]
async fn the_handshake_of_the_manual_is_answered_as_printed() {
    let service = Service::start().await;
    let mut connection = RawConnection::open(service.convoke.events).await;
    let request = format!("{PRINTED_HEAD}Content-Length: {}\r\n\r\n{PRINTED_BODY}", PRINTED_BODY.len());
    // Twice on one connection: it stays open, as the request asks.
    for _ in 0..2 {
        connection.send(request.as_bytes()).await;
        let answer = connection.answer().await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        for line in ["content-type: application/json;charset=UTF-8", "x-request-id: 539e8b710378987ffc5eb844b5e5c290"] {
            assert_eq!(head.lines().filter(|have| *have == line).count(), 1, "{line} in {head}");
        }
        assert_eq!(body, r#"{"event":"meeting.verify","nonce":"85262798"}"#);
    }
    assert_eq!(service.count("events"), 0);
    assert_eq!(service.metric(r#"convoke_deliveries_total{event="meeting.verify",outcome="verified"}"#).await, 2.0);
}

#[tokio::test]
async fn a_handshake_needs_neither_database_nor_bus() {
    let (no_database, no_bus) = (Port::lease(), Port::lease());
    let convoke = settings()
        .setting("DATABASE_URL", format!("postgres://postgres@{}/postgres", no_database.address()))
        .setting("NATS_URL", format!("nats://{}", no_bus.address()))
        .start()
        .await;
    let post = async |body: Vec<u8>| http::post(convoke.events, PATH, body, &[]).await;
    let answer = post(PRINTED_BODY.into()).await;
    assert_eq!((answer.status, answer.json()["nonce"].as_str()), (200, Some("85262798")));
    assert_eq!(answer.header("content-type"), Some("application/json;charset=UTF-8"));

    // A nonce that is a bare integer is signed by its digits, and comes back as a string.
    let bare = PRINTED_BODY.replace("\"85262798\"", "85262798");
    assert_eq!(post(bare.into()).await.json(), json!({"event": "meeting.verify", "nonce": "85262798"}));

    let refused = post(signed(&event("meeting.join", "1"))).await;
    assert_problem(&refused, 503);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    for address in [convoke.events, convoke.admin] {
        assert_eq!(http::get(&format!("http://{address}/readyz")).await.status, 503);
        assert_eq!(http::get(&format!("http://{address}/livez")).await.status, 200);
    }
}

#[tokio::test]
async fn an_event_is_stored_once_however_often_it_comes_on_sqlite() {
    stored_once(&Service::start().await).await;
}

#[tokio::test]
async fn an_event_is_stored_once_however_often_it_comes_on_postgresql() {
    stored_once(&Service::on(Database::postgres().await).await).await;
}

async fn stored_once(service: &Service) {
    let info = event("meeting.started", "960000017");
    let body = signed(&info);
    let first = http::post(service.convoke.events, PATH, body.clone(), &[("X-Request-ID", "first-1")]).await;
    assert_eq!((first.status, first.text().as_str(), first.header("content-type")), (200, "", None));
    assert_eq!(service.count("events"), 1);
    // The same bytes; a new timestamp, nonce and signature; and other white space, which does not count.
    let spaced = signed(&info).strip_suffix(b"}").map(|body| [body, b" \n}\t"].concat()).expect("an object");
    for again in [body, signed(&info), spaced] {
        let answer = http::post(service.convoke.events, PATH, again, &[("X-Request-ID", "again-1")]).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    }
    eventually("all deliveries are counted", WAIT_TIMEOUT, async || {
        service.sql("SELECT deliveries FROM events") == "4"
    })
    .await;
    assert_eq!(
        service.sql("SELECT count(*), min(request_id), min(event_info) FROM events"),
        format!("1|first-1|{info}")
    );
    assert_eq!(service.metric(r#"convoke_deliveries_total{outcome="stored"}"#).await, 1.0);
    assert_eq!(service.metric(r#"convoke_deliveries_total{outcome="duplicate"}"#).await, 3.0);
}

#[tokio::test]
async fn every_type_of_event_is_stored_and_unknown_ones_too_on_sqlite() {
    every_type(&Service::start().await).await;
}

#[tokio::test]
async fn every_type_of_event_is_stored_and_unknown_ones_too_on_postgresql() {
    every_type(&Service::on(Database::postgres().await).await).await;
}

async fn every_type(service: &Service) {
    let unknown = ["meeting.paused", "x", "a.b.c", "会议.加入", " ", "meeting.verify "];
    let all: Vec<_> = convoke_core::event::KNOWN_EVENTS.iter().chain(&unknown).collect();
    for kind in &all {
        service.acknowledged(&event(kind, "1")).await;
    }
    // An event needs a type and a time, nothing else; oddly typed members are no reason to refuse it.
    let odd = [
        r#"{"event":"odd","timestamp":1420070400000}"#,
        r#"{"event":"odd","timestamp":"1735700465","payload":null}"#,
        r#"{"payload":[1,2.50],"timestamp":1735700465,"event":"odd"}"#,
        r#"{"event":"odd","timestamp":1735700465002,"payload":{"meetingInfo":7,"attendeeInfo":{"displayName":{"a":"b"},"joinTime":"x"}}}"#,
        r#"{"event":"odd","timestamp":1735700465003,"more":{"event":"no","timestamp":"no"},"payload":{"new":"\u0000\ud800"}}"#,
    ];
    for info in odd {
        service.acknowledged(info).await;
    }
    assert_eq!(service.count("events"), all.len() as u64 + odd.len() as u64);
    assert_eq!(service.count("quarantine"), 0);
    let stored = service.sql("SELECT event_info FROM events WHERE event = 'odd' ORDER BY seq");
    assert_eq!(stored.lines().collect::<Vec<_>>(), odd);
    assert_eq!(service.metric(r#"convoke_deliveries_total{event="other",outcome="stored"}"#).await, 11.0);
    assert_eq!(service.metric(r#"convoke_deliveries_total{event="meeting.left",outcome="stored"}"#).await, 1.0);
}

#[tokio::test]
async fn the_columns_hold_what_the_event_says_on_sqlite() {
    columns(&Service::start().await).await;
}

#[tokio::test]
async fn the_columns_hold_what_the_event_says_on_postgresql() {
    columns(&Service::on(Database::postgres().await).await).await;
}

async fn columns(service: &Service) {
    let time = |column: &str| match service.database {
        Database::Sqlite => column.to_owned(),
        Database::Postgres(_) => format!(r#"to_char({column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#),
    };
    let meeting = r#""meetingInfo":{"meetingID":"960000017","meetingUUID":"u1","meetingCycleSubID":"c1"}"#;
    let attendee = concat!(
        r#""attendeeInfo":{"userUUID":"uu","userAgent":"WeLink-desktop","account":"demo.user","participantID":"p","#,
        r#""displayName":"王小明","joinTime":1735700465001,"leftTime":0,"role":"CHAIR","callNumber":"+86571"}"#
    );
    service
        .acknowledged(&format!(
            r#"{{"event":"meeting.join","timestamp":1735700465789,"payload":{{{meeting},{attendee}}}}}"#
        ))
        .await;
    service
        .acknowledged(concat!(
            r#"{"event":"meeting.left","timestamp":1735700465790,"payload":{"meetingInfo":{"meetingID":42,"#,
            r#""meetingUUID":"","meetingCycleSubID":1.5},"attendeeInfo":{"userUUID":null,"userAgent":true,"account":"","#,
            r#""participantID":-7,"displayName":"a\u0000b\ud800","joinTime":"1735700465001","leftTime":253402300800000,"#,
            r#""role":["x"],"callNumber":"\u002b1"}}}"#
        ))
        .await;
    let query = format!(
        "SELECT subscriber_id, event, {}, meeting_id, meeting_uuid, meeting_cycle_sub_id, user_uuid, user_agent, account, \
         participant_id, display_name, role, call_number, {}, {}, source, deliveries, forgotten_at FROM events ORDER BY seq",
        time("occurred_at"),
        time("join_time"),
        time("left_time")
    );
    assert_eq!(
        service.sql(&query).lines().collect::<Vec<_>>(),
        [
            "1988692299|meeting.join|2025-01-01T03:01:05.789Z|960000017|u1|c1|uu|WeLink-desktop|demo.user|p|王小明|CHAIR|\
             +86571|2025-01-01T03:01:05.001Z||push|1|",
            "1988692299|meeting.left|2025-01-01T03:01:05.790Z|42||||||-7|a\u{fffd}b\u{fffd}||+1|2025-01-01T03:01:05.001Z||\
             push|1|",
        ]
    );
    let (received, last) = (time("received_at"), time("last_delivered_at"));
    let times = service.sql(&format!("SELECT {received}, {last}, event_id FROM events ORDER BY seq LIMIT 1"));
    let times: Vec<_> = times.split('|').collect();
    assert!(times[0].len() == 24 && times[0] == times[1], "{times:?}");
    assert_eq!(
        (times[2].len(), &times[2][..13], &times[2][14..15]),
        (36, "01941fcf-487d", "8"),
        "time, then version 8"
    );
}

#[tokio::test]
async fn what_is_signed_but_no_event_is_kept_whole_once_on_sqlite() {
    quarantined(&Service::start().await).await;
}

#[tokio::test]
async fn what_is_signed_but_no_event_is_kept_whole_once_on_postgresql() {
    quarantined(&Service::on(Database::postgres().await).await).await;
}

async fn quarantined(service: &Service) {
    let deep = |levels: usize| {
        // eventInfo is the first level, `deep` the others.
        let inner = levels - 1;
        format!(r#"{{"event":"deep","timestamp":1735700465789,"deep":{}1{}}}"#, "[".repeat(inner), "]".repeat(inner))
    };
    let cases = [
        (r#"{"timestamp":1}"#.to_owned(), "event is missing"),
        (r#"{"event":"","timestamp":1}"#.to_owned(), "event is empty"),
        (r#"{"event":7,"timestamp":1}"#.to_owned(), "event is not a string"),
        (r#"{"event":null,"timestamp":1}"#.to_owned(), "event is not a string"),
        (r#"{"event":"a","event":"a","timestamp":1}"#.to_owned(), "event is doubled"),
        (r#"{"event":"a"}"#.to_owned(), "timestamp is missing"),
        (r#"{"event":"a","timestamp":1,"timestamp":1}"#.to_owned(), "timestamp is doubled"),
        (r#"{"event":"a","timestamp":"soon"}"#.to_owned(), "timestamp is not an integer"),
        (r#"{"event":"a","timestamp":1.0}"#.to_owned(), "timestamp is not an integer"),
        (r#"{"event":"a","timestamp":1e3}"#.to_owned(), "timestamp is not an integer"),
        (r#"{"event":"a","timestamp":-1}"#.to_owned(), "implausible time"),
        (r#"{"event":"a","timestamp":0}"#.to_owned(), "implausible time"),
        (r#"{"event":"a","timestamp":1420070399999}"#.to_owned(), "implausible time"),
        (event_at(now() + 90_000_000, "meeting.join", "1"), "implausible time"),
        (r#"{"event":"a","timestamp":1735700465789000}"#.to_owned(), "implausible time"),
        (r#"{"event":"a","timestamp":253402300799999}"#.to_owned(), "implausible time"),
        (r#"{"event":"a","timestamp":99999999999999999999999}"#.to_owned(), "implausible time"),
        (r#"{"event":"a","timestamp":null}"#.to_owned(), "timestamp is not an integer"),
        ("{}".to_owned(), "event is missing"),
        (deep(513), "nested 513 levels deep"),
        (deep(100_000), "nested 100000 levels deep"),
    ];
    for (id, (info, reason)) in (1..).zip(&cases) {
        let body = signed(info);
        for _ in 0..2 {
            let answer = service.post(body.clone()).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{reason}");
        }
        let (hex, row) = match service.database {
            Database::Sqlite => ("lower(hex(body))", "lower(hex(digest))"),
            Database::Postgres(_) => ("encode(body, 'hex')", "encode(digest, 'hex')"),
        };
        let row = service.sql(&format!(
            "SELECT {row}, subscriber_id, deliveries, {hex}, reason FROM quarantine ORDER BY id LIMIT 1 OFFSET {}",
            id - 1
        ));
        let columns: Vec<_> = row.split('|').collect();
        let digest = {
            use sha2::Digest;
            hex::encode(sha2::Sha256::digest(&body))
        };
        assert_eq!(columns[..4], [&digest, APP_ID, "2", &hex::encode(&body)]);
        assert!(columns[4].contains(reason), "{} for {reason}", columns[4]);
    }
    assert_eq!(service.count("quarantine"), cases.len() as u64);
    assert_eq!(service.count("events"), 0);
    let all = 2.0 * cases.len() as f64;
    assert_eq!(service.metric(r#"convoke_deliveries_total{outcome="quarantined"}"#).await, all);

    // As deep as may be is an event.
    service.acknowledged(&deep(512)).await;
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn an_event_older_than_the_retention_is_stored_like_any_other_on_sqlite() {
    no_event_is_dropped_for_its_age(Database::Sqlite).await;
}

#[tokio::test]
async fn an_event_older_than_the_retention_is_stored_like_any_other_on_postgresql() {
    no_event_is_dropped_for_its_age(Database::postgres().await).await;
}

async fn no_event_is_dropped_for_its_age(database: Database) {
    let retention = settings().setting("RETENTION", "48h");
    let builder = match &database {
        Database::Sqlite => retention,
        Database::Postgres(postgres) => retention.setting("DATABASE_URL", postgres.url()),
    };
    let service = Service::with(builder, database).await;
    let old = event_at(now() - 49 * 3_600_000, "meeting.join", "1");
    service.acknowledged(&old).await;
    // In seconds, in a string, and by a clock that is ahead: all of it is kept.
    service.acknowledged(&format!(r#"{{"event":"meeting.started","timestamp":{}}}"#, now() / 1_000)).await;
    service.acknowledged(&format!(r#"{{"event":"meeting.end","timestamp":"{}"}}"#, now())).await;
    service.acknowledged(&event_at(now() + 23 * 3_600_000, "meeting.left", "2")).await;
    assert_eq!(service.metric(r#"convoke_deliveries_total{outcome="stored"}"#).await, 4.0);
    assert_eq!(service.metric(r#"convoke_deliveries_total{event="meeting.join",outcome="stored"}"#).await, 1.0);
    assert_eq!(service.count("quarantine"), 0);
    for body in
        [r#"{"event":"meeting.started","timestamp":0}"#, r#"{"event":"meeting.started","timestamp":1735700465789000}"#]
    {
        service.acknowledged(body).await;
    }
    assert_eq!(service.sql("SELECT DISTINCT reason FROM quarantine"), "implausible time");
    assert_eq!(service.count("quarantine"), 2);
}

#[tokio::test]
async fn what_serialisers_escape_otherwise_than_they_sign_is_taken_and_stored_once_on_sqlite() {
    escaped_otherwise(&Service::start().await).await;
}

#[tokio::test]
async fn what_serialisers_escape_otherwise_than_they_sign_is_taken_and_stored_once_on_postgresql() {
    escaped_otherwise(&Service::on(Database::postgres().await).await).await;
}

async fn escaped_otherwise(service: &Service) {
    let at = now();
    let info = |name: &str| {
        format!(
            r#"{{"event":"meeting.join","timestamp":{at},"payload":{{"attendeelInfo":{{"displayName":"{name}"}}}}}}"#
        )
    };
    // How it is sent, and how it is signed: one event, whatever a serialiser makes of it.
    let (plain, escaped) = ("王/R&D", r"\u738B\/R\u0026D");
    for (sent, signed, form) in [
        (plain, plain, "raw"),
        (escaped, plain, "unescaped"),
        (plain, r"\u738b/R&D", "escaped"),
        (plain, r"\u738B/R&D", "escaped_upper"),
        (plain, r"王/R\u0026D", "html"),
        (plain, r"王\/R&D", "slashes"),
        (plain, r"\u738b\/R&D", "slashes_escaped"),
    ] {
        let body = envelope(&info(sent), &info(signed));
        let answer = service.post(body.clone()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{sent} as {signed}");
        let counted = format!(r#"convoke_signature_form_total{{form="{form}"}}"#);
        assert_eq!(service.metric(&counted).await, 1.0, "{sent} as {signed}");
    }
    let spaced = info(plain).replace(':', ": ");
    // With a byte order mark before it, as some libraries write one.
    let marked = format!("\u{feff}{}", envelope(&spaced, &spaced));
    assert_eq!(service.post(marked).await.status, 200);
    assert_eq!(service.metric(r#"convoke_signature_form_total{form="spaced"}"#).await, 1.0);
    let row = format!("8|王/R&D|{}", info(plain));
    eventually("all deliveries are counted", WAIT_TIMEOUT, async || {
        service.sql("SELECT deliveries, display_name, event_info FROM events") == row
    })
    .await;
}

/// A body with `sent` for its `eventInfo`, whose signature covers `signed`.
fn envelope(sent: &str, signed: &str) -> String {
    let timestamp = now();
    let signature = sign::sign(APP_ID, timestamp, "12345678", signed.as_bytes(), KEY.as_bytes());
    format!(
        r#"{{"appID":"{APP_ID}","timestamp":{timestamp},"nonce":"12345678","signature":"{signature}","eventInfo":{sent}}}"#
    )
}

#[tokio::test]
async fn an_encoded_body_is_refused_by_its_header_and_asked_for_as_it_is() {
    let service = Service::start().await;
    let post = async |encoding: &str| {
        let body = signed(&event("meeting.join", "1"));
        http::post(service.convoke.events, PATH, body, &[("Content-Encoding", encoding)]).await
    };
    for encoding in ["gzip", "deflate", "br", "identity, gzip", "aws-chunked"] {
        let refused = post(encoding).await;
        assert_problem(&refused, 415);
        assert_eq!(refused.header("accept-encoding"), Some("identity"), "{encoding}");
    }
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="encoding"}"#).await, 5.0);
    for encoding in ["identity", "Identity", ""] {
        assert_eq!(post(encoding).await.status, 200, "{encoding}");
    }
    assert!(service.convoke.logs().contains("Content-Encoding"), "{}", service.convoke.logs());
}

#[tokio::test]
async fn a_line_on_a_wrong_signature_says_whose_it_was_and_whether_the_key_is_right() {
    let proxied = settings().setting("TRUSTED_PROXIES", "127.0.0.0/8").setting("LOG_FORMAT", "json");
    let service = Service::with(proxied, Database::Sqlite).await;
    let lines = || -> Vec<Value> {
        let logs = service.convoke.logs();
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "refused a delivery").collect()
    };
    let refused = async |n: usize| {
        let body = signed_by(APP_ID, "another key", &event("meeting.join", "1"));
        let answer = http::post(service.convoke.events, PATH, body, &[("X-Forwarded-For", "203.0.113.9")]).await;
        assert_eq!(answer.status, 401);
        eventually("its line is there", WAIT_TIMEOUT, async || lines().len() == n).await;
        lines()[n - 1].clone()
    };
    let first = refused(1).await;
    assert_eq!(
        (&first["reason"], &first["subscriber"], &first["peer"]),
        (&json!("signature"), &json!(APP_ID), &json!("203.0.113.9"))
    );
    let detail = |line: &Value| line["detail"].as_str().expect("text").to_owned();
    assert!(detail(&first).contains("is it the password"), "{first}");
    // A probe of our own is signed with our own key, and says nothing.
    let nonce = format!("{}1", convoke_core::event::PROBE);
    let probe = sign::envelope(APP_ID, now(), &nonce, br#"{"event":"meeting.verify","timestamp":1}"#, KEY.as_bytes());
    assert_eq!(service.post(probe).await.status, 200);
    assert!(detail(&refused(2).await).contains("is it the password"));
    service.acknowledged(&event("meeting.join", "2")).await;
    let third = refused(3).await;
    assert!(detail(&third).contains("the key is right") && detail(&third).contains("convoke verify"), "{third}");
}

/// A signed body whose members, each as JSON text, a test may change. The signature covers what it says.
fn envelope_with(change: impl Fn(&mut Vec<(String, String)>)) -> String {
    let (timestamp, info) = (now(), event("meeting.join", "5"));
    let signature = sign::sign(APP_ID, timestamp, "12345678", info.as_bytes(), KEY.as_bytes());
    let mut members = vec![
        ("appID".to_owned(), json!(APP_ID).to_string()),
        ("timestamp".to_owned(), timestamp.to_string()),
        ("nonce".to_owned(), json!("12345678").to_string()),
        ("signature".to_owned(), json!(signature).to_string()),
        ("eventInfo".to_owned(), info),
    ];
    change(&mut members);
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn with(name: &'static str, value: &str) -> String {
    envelope_with(|members| members.iter_mut().filter(|(have, _)| have == name).for_each(|m| m.1 = value.to_owned()))
}

#[tokio::test]
async fn a_body_that_is_no_envelope_is_refused() {
    let service = Service::start().await;
    let good = envelope_with(|_| {});
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("only white space", b" \n".to_vec()),
        ("not JSON", b"appID=1988692299&nonce=1".to_vec()),
        ("cut", good.as_bytes()[..good.len() - 1].to_vec()),
        ("with something after it", [good.as_bytes(), b"{}"].concat()),
        ("a list", format!("[{good}]").into()),
        ("a string", json!(good).to_string().into()),
        ("null", b"null".to_vec()),
        ("a number", b"1".to_vec()),
        ("not UTF-8", [&good.as_bytes()[..good.len() - 1], b",\"x\":\"\xff\"}"].concat()),
        ("in UTF-16", good.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("very deep, not an object", b"[".repeat(200_000)),
        ("very deep, cut", [&good.as_bytes()[..good.len() - 1], b",\"x\":", &b"{\"a\":".repeat(40_000)[..]].concat()),
        ("signature null", with("signature", "null").into()),
        ("signature a number", with("signature", "1").into()),
        ("appID a number", with("appID", APP_ID).into()),
        ("appID a list", with("appID", &format!("[\"{APP_ID}\"]")).into()),
        ("timestamp of 12 digits", with("timestamp", "173570046578").into()),
        ("timestamp of 14 digits", with("timestamp", "17357004657890").into()),
        ("timestamp with a fraction", with("timestamp", "1735700465789.0").into()),
        ("timestamp negative", with("timestamp", "-173570046578").into()),
        ("timestamp null", with("timestamp", "null").into()),
        ("timestamp with a space", with("timestamp", "\"173570046578 \"").into()),
        ("timestamp in other digits", with("timestamp", "\"１７３57\"").into()),
        ("nonce null", with("nonce", "null").into()),
        ("nonce true", with("nonce", "true").into()),
        ("nonce with a fraction", with("nonce", "1.5").into()),
        ("nonce an object", with("nonce", "{}").into()),
        ("eventInfo a string", with("eventInfo", &json!(event("meeting.join", "5")).to_string()).into()),
        ("eventInfo a list", with("eventInfo", "[]").into()),
        ("eventInfo null", with("eventInfo", "null").into()),
        ("eventInfo with a stray comma", with("eventInfo", r#"{"event":"a","timestamp":1,}"#).into()),
        ("eventInfo with a bad escape", with("eventInfo", r#"{"event":"\x","timestamp":1}"#).into()),
    ];
    for name in ["appID", "timestamp", "nonce", "signature", "eventInfo"] {
        cases.push(("a member missing", envelope_with(|all| all.retain(|(have, _)| have != name)).into()));
        let doubled = envelope_with(|all| {
            let again = all.iter().find(|(have, _)| have == name).cloned().expect("it is there");
            all.push(again);
        });
        cases.push(("a member doubled", doubled.into()));
    }
    cases.push((
        "appID and appId",
        envelope_with(|all| all.push(("appId".to_owned(), json!(APP_ID).to_string()))).into(),
    ));
    for (what, body) in &cases {
        let answer = service.post(body.clone()).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_problem(&answer, 400);
    }
    let rejected = service.metric("convoke_rejections_total").await;
    assert_eq!(rejected, cases.len() as f64);
    assert_eq!((service.count("events"), service.count("quarantine")), (0, 0));

    // What differs only in what the contract allows is taken: another content type, spelling, case, quoting, order.
    let timestamp = now();
    let info = event("meeting.join", "6");
    let hmac = sign::sign(APP_ID, timestamp, "-7", info.as_bytes(), KEY.as_bytes()).to_uppercase();
    let body = format!(
        r#"{{"extra":[{{"appID":1}}],"eventInfo":{info},"signature":"{hmac}","nonce":-7,"timestamp":"{timestamp}","\u0061ppId":"{APP_ID}"}}"#
    );
    let answer = http::post(service.convoke.events, PATH, body, &[("Content-Type", "text/plain")]).await;
    assert_eq!((answer.status, service.count("events")), (200, 1), "{}", answer.text());
}

#[tokio::test]
async fn an_unknown_subscriber_and_a_forged_signature_get_the_same_answer() {
    let service = Service::start().await;
    let info = event("meeting.join", "7");
    let right = signed(&info);
    let unknown = signed_by("1988692298", KEY, &info);
    let forged = signed_by(APP_ID, "123457", &info);
    let text = String::from_utf8(right).expect("JSON");
    let cut = text.replace("\"signature\":\"", "\"signature\":\"0");
    let no_hex = with("signature", &format!("\"{}\"", "g".repeat(64)));
    let empty = with("signature", "\"\"");
    let other = text.replace("\"meetingID\":\"7\"", "\"meetingID\":\"8\"");
    assert_ne!(other, text);
    let surrogate = with("appID", r#""\ud800""#);
    let mut answers = Vec::new();
    for body in [unknown, forged, cut.into(), no_hex.into(), empty.into(), other.into(), surrogate.into()] {
        let mut connection = RawConnection::open(service.convoke.events).await;
        let head =
            format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nX-Request-ID: same\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send(&[head.as_bytes(), &body].concat()).await;
        let answer = connection.answer().await;
        let without_date: Vec<_> =
            answer.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
        answers.push(without_date);
    }
    assert!(answers[0][0].starts_with("HTTP/1.1 401 "), "{:?}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="unknown_subscriber"}"#).await, 2.0);
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="signature"}"#).await, 5.0);
    assert_eq!(service.count("events"), 0);
}

#[tokio::test]
async fn digits_cannot_be_moved_between_the_signed_parts() {
    let service = Service::start().await;
    let info = event("meeting.join", "9");
    let timestamp = now().to_string();
    let nonce = "12345678";
    let hmac = {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).expect("any length");
        mac.update(format!("{APP_ID}{timestamp}{nonce}{info}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    };
    let body = |app_id: &str, timestamp: &str, nonce: &str| {
        format!(
            r#"{{"appID":"{app_id}","timestamp":"{timestamp}","nonce":"{nonce}","signature":"{hmac}","eventInfo":{info}}}"#
        )
    };
    let all = format!("{APP_ID}{timestamp}{nonce}");
    for (id, digits, expected) in
        [(9, 13, 401), (11, 13, 401), (9, 14, 400), (10, 12, 400), (10, 14, 400), (10, 13, 200)]
    {
        let answer = service.post(body(&all[..id], &all[id..id + digits], &all[id + digits..])).await;
        assert_eq!(answer.status, expected, "appID of {id} and timestamp of {digits} digits");
    }
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn every_key_of_a_subscriber_counts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "first\r\nsecond \nthe third, 王\n").expect("a file");
    let builder = settings().setting("APP_KEY_FILE", &keys);
    let builder = builder.setting("APP_KEY", KEY);
    let refused = builder.run().await;
    assert_eq!(refused.code(), 2, "two ways to give the key: {}", refused.stderr);
    let toml = folder.path().join("convoke.toml");
    let list = format!(
        "[[subscriber]]\napp_id = \"{APP_ID}\"\nkeys = [\"{KEY}\"]\nkey_files = [\"{}\"]\n\
         [[subscriber]]\napp_id = \"another\"\nkeys = [\"other\"]\nname = \"Acme\"\n",
        keys.display()
    );
    std::fs::write(&toml, list).expect("a file");
    let builder = crate::support::process::Convoke::builder().setting("NATS_URL", "none").setting("CONFIG", &toml);
    let service = Service::with(builder, Database::Sqlite).await;
    for (n, key) in [KEY, "first", "second ", "the third, 王"].iter().enumerate() {
        let answer = service.post(signed_by(APP_ID, key, &event("meeting.join", &n.to_string()))).await;
        assert_eq!(answer.status, 200, "{key}");
    }
    for (id, key) in [(APP_ID, "second"), (APP_ID, "other"), ("another", KEY)] {
        assert_eq!(service.post(signed_by(id, key, &event("meeting.join", "x"))).await.status, 401, "{id} {key}");
    }
    assert_eq!(service.post(signed_by("another", "other", &event("meeting.join", "x"))).await.status, 200);
    assert_eq!(
        service.sql("SELECT subscriber_id, count(*) FROM events GROUP BY 1 ORDER BY 1"),
        "1988692299|4\nanother|1"
    );
}

#[tokio::test]
async fn a_source_that_is_not_allowed_is_refused() {
    let builder = settings().setting("ALLOW_FROM", "192.0.2.0/24").setting("TRUSTED_PROXIES", "127.0.0.0/8");
    let service = Service::with(builder, Database::Sqlite).await;
    let from = async |forwarded: Option<&str>| {
        let header: Vec<_> = forwarded.map(|value| ("X-Forwarded-For", value)).into_iter().collect();
        http::post(service.convoke.events, PATH, signed(&event("meeting.join", "1")), &header).await
    };
    for forwarded in [None, Some("198.51.100.1"), Some("192.0.2.1, 198.51.100.1"), Some("unknown")] {
        assert_problem(&from(forwarded).await, 403);
    }
    assert_eq!(from(Some("198.51.100.1, 192.0.2.1")).await.status, 200);
    // Probes are for everyone.
    assert_eq!(http::get(&format!("http://{}/readyz", service.convoke.events)).await.status, 200);
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="forbidden"}"#).await, 4.0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_while_it_is_still_sent() {
    let service = Service::start().await;
    const SIZE: usize = 3 << 20;
    let piece = vec![b' '; 64 << 10];
    // 3 MiB in pieces, each as soon as the one before was taken, with and without a length.
    for head in [format!("Content-Length: {SIZE}"), "Transfer-Encoding: chunked".to_owned()] {
        let chunked = head.contains("chunked");
        let mut connection = RawConnection::open(service.convoke.events).await;
        connection.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n").as_bytes()).await;
        for _ in 0..SIZE / piece.len() {
            if chunked {
                connection.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
            }
            connection.send(&piece).await;
            if chunked {
                connection.send(b"\r\n").await;
            }
        }
        if chunked {
            connection.send(b"0\r\n\r\n").await;
        }
        let answer = connection.answer().await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{head}: {answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    }
    // A sender that goes on for longer than it is listened to still finds the answer.
    let mut connection = RawConnection::open(service.convoke.events).await;
    connection.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) && connection.try_send(&piece[..4096]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = connection.answer().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    // One that asks first is answered at once, without a go-ahead.
    let mut connection = RawConnection::open(service.convoke.events).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {SIZE}\r\n\r\n");
    connection.send(head.as_bytes()).await;
    let answer = String::from_utf8(connection.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="too_large"}"#).await, 4.0);
}

#[tokio::test]
async fn a_body_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let service = Service::with(settings().setting("MAX_BODY", "2000"), Database::Sqlite).await;
    let body = |length: usize| {
        let mut body = signed(&event("meeting.join", "1"));
        body.resize(length, b' ');
        body
    };
    assert_eq!(service.post(body(2000)).await.status, 200);
    assert_problem(&service.post(body(2001)).await, 413);

    // A sender that waits for the go-ahead gets it.
    let mut connection = RawConnection::open(service.convoke.events).await;
    let asks = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n");
    connection.send(asks.as_bytes()).await;
    assert!(connection.answer().await.starts_with("HTTP/1.1 100 "));
    connection.send(&body(2000)).await;
    assert!(connection.answer().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_database_that_went_away_is_answered_in_time_and_the_queue_is_bounded() {
    let postgres = Postgres::start().await;
    let proxy = Proxy::start(postgres.address());
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let builder = settings().setting("DATABASE_URL", url).setting("MAX_BODY", "64 MiB");
    let service = Service::with(builder, Database::Postgres(Box::new(postgres))).await;
    service.acknowledged(&event("meeting.join", "1")).await;

    let refused = async |what: &str| {
        let begun = Instant::now();
        let answer = service.post(signed(&event("meeting.join", "2"))).await;
        assert_problem(&answer, 503);
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        assert!(begun.elapsed() < stretched(Duration::from_millis(3_300)), "{what}: {:?}", begun.elapsed());
    };
    proxy.stall();
    refused("stalled").await;
    let handshake = service.post(PRINTED_BODY).await;
    assert_eq!(handshake.status, 200);

    // More bytes than the queue holds: what does not fit is refused at once. White space is quickly read.
    let large = || {
        let mut body = signed(&event("meeting.join", "2"));
        body.resize(26 << 20, b' ');
        service.post(body)
    };
    let (one, two) = tokio::join!(large(), large());
    assert_problem(&one, 503);
    assert_problem(&two, 503);
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="queue_full"}"#).await, 1.0);

    proxy.cut();
    refused("cut").await;
    eventually("it says that it is not ready", WAIT_TIMEOUT, async || {
        http::get(&format!("http://{}/readyz", service.convoke.events)).await.status == 503
    })
    .await;
    assert!(service.metric("convoke_not_accepting_seconds").await > 0.0);
    proxy.heal();
    service.convoke.wait_ready(WAIT_TIMEOUT).await;
    service.acknowledged(&event("meeting.join", "3")).await;
    assert_eq!(service.metric("convoke_not_accepting_seconds").await, 0.0);
    for reason in ["slow", "unavailable"] {
        assert!(service.metric(&format!(r#"convoke_rejections_total{{reason="{reason}"}}"#)).await > 0.0, "{reason}");
    }
}

#[tokio::test]
async fn a_body_larger_than_the_queue_is_stored_all_the_same() {
    let service = Service::with(settings().setting("MAX_BODY", "64 MiB"), Database::Sqlite).await;
    let mut body = signed(&event("meeting.join", "1"));
    body.resize(50 << 20, b' ');
    assert_eq!(service.post(body).await.status, 200);
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn another_method_or_path_is_told_so() {
    let service = Service::start().await;
    let methods = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"];
    for method in methods {
        let answer = once(&service, &format!("{method} {PATH} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: POST\r\n"), "{answer}");
    }
    let counted = service.metric(r#"convoke_rejections_total{reason="method"}"#).await;
    assert_eq!(counted, methods.len() as f64);
    let head = format!("HEAD {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let head = http::raw(service.convoke.events, head.as_bytes()).await;
    assert!(head.starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&head));
    for path in ["/", "/openapi", "/openapi//meetingevent", "/Openapi/meetingevent", "/metrics", "*"] {
        let method = if path == "*" { "OPTIONS" } else { "POST" };
        let answer = once(&service, &format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let connect = once(&service, "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 404 ") || connect.starts_with("HTTP/1.1 405 "), "{connect}");
    for path in ["/livez", "/readyz"] {
        let answer = once(&service, &format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    }
    // A query does not change the path.
    let answer = http::post(service.convoke.events, &format!("{PATH}?a=b"), signed(&event("x", "1")), &[]).await;
    assert_eq!(answer.status, 200);
}

async fn once(service: &Service, request: &str) -> String {
    let mut connection = RawConnection::open(service.convoke.events).await;
    connection.send(request.as_bytes()).await;
    connection.answer().await
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_refused_and_leaves_nothing() {
    let service = Service::start().await;
    let body = signed(&event("meeting.join", "1"));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());

    // The sender ends its side too early, and listens.
    let mut half = RawConnection::open(service.convoke.events).await;
    half.send(&[head.as_bytes(), &body[..body.len() - 1]].concat()).await;
    half.finish_sending().await;
    let answer = String::from_utf8(half.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");

    // It vanishes.
    let mut gone = RawConnection::open(service.convoke.events).await;
    gone.send(&[head.as_bytes(), &body[..100]].concat()).await;
    gone.reset();
    eventually("both are counted", WAIT_TIMEOUT, async || {
        service.metric(r#"convoke_rejections_total{reason="body_cut"}"#).await == 2.0
    })
    .await;

    // One that ends its side after a whole request is answered.
    let mut whole = RawConnection::open(service.convoke.events).await;
    whole.send(&[head.as_bytes(), &body].concat()).await;
    whole.finish_sending().await;
    let answer = String::from_utf8(whole.read_to_end().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_refused() {
    let service = Service::start().await;
    let body = signed(&event("meeting.join", "1"));
    let mut slow = RawConnection::open(service.convoke.events).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    slow.send(&[head.as_bytes(), &body[..10]].concat()).await;
    let begun = Instant::now();
    let answer = slow.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(9) && took < stretched(Duration::from_secs(14)), "{took:?}");
    assert_eq!(service.metric(r#"convoke_rejections_total{reason="body_timeout"}"#).await, 1.0);
}

#[tokio::test]
async fn every_answer_has_the_requests_id_or_one_of_its_own() {
    let service = Service::with(settings().setting("MAX_BODY", "2000"), Database::Sqlite).await;
    let (events, admin) = (service.convoke.events, service.convoke.admin);
    let good = ["a", "A.b_c-9", "539e8b710378987ffc5eb844b5e5c290", &"x".repeat(64)];
    let bad = ["", "a b", "a/b", "ü", "x\"y", &"x".repeat(65)];
    let mut n = 0;
    for (id, kept) in good.iter().map(|id| (*id, true)).chain(bad.iter().map(|id| (*id, false))) {
        n += 1;
        let headers = [("X-Request-ID", id)];
        let info = event("meeting.join", &n.to_string());
        let answers = [
            (http::post(events, PATH, signed(&info), &headers).await, 200),
            (http::post(events, PATH, PRINTED_BODY, &headers).await, 200),
            (http::post(events, PATH, "{}", &headers).await, 400),
            (http::post(events, PATH, signed_by(APP_ID, "no", &info), &headers).await, 401),
            (http::post(events, PATH, vec![b' '; 2001], &headers).await, 413),
            (http::post(events, "/elsewhere", "", &headers).await, 404),
            (http::post(events, "/livez", "", &headers).await, 405),
            (http::post(admin, "/elsewhere", "", &headers).await, 404),
            (http::post(admin, "/metrics", "", &headers).await, 405),
        ];
        for (answer, status) in &answers {
            assert_eq!(answer.status, *status);
            let have: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
            let [have] = have[..] else { panic!("{status}: {have:?}") };
            let have = have.to_str().expect("text");
            if kept {
                assert_eq!(have, id, "{status}");
            } else {
                let made = have.len() == 32 && have.bytes().all(|b| b.is_ascii_hexdigit());
                assert!(made, "{status} for {id:?}: {have}");
            }
        }
        let stored = service.sql(&format!("SELECT request_id FROM events WHERE meeting_id = '{n}'"));
        assert_eq!(stored, answers[0].0.header("x-request-id").expect("an id"));
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = http::get(&format!("http://{admin}{path}")).await;
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 32), "{path}");
    }
}

#[tokio::test]
async fn http2_is_spoken_without_upgrade() {
    let service = Service::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let url = format!("http://{}{PATH}", service.convoke.events);
    let post = |body: Vec<u8>| client.post(&url).header("X-Request-ID", "two").body(body).send();
    let many = (0..40).map(|n| post(signed(&event("meeting.join", &n.to_string()))));
    for answer in futures_util::future::join_all(many).await {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    }
    assert_eq!(service.count("events"), 40);
    let handshake = post(PRINTED_BODY.into()).await.expect("an answer");
    assert_eq!(handshake.headers()["content-type"], "application/json;charset=UTF-8");
    assert_eq!(handshake.headers()["x-request-id"], "two");
    assert_eq!(handshake.text().await.expect("a body"), r#"{"event":"meeting.verify","nonce":"85262798"}"#);
    assert_eq!(post(vec![b' '; 3 << 20]).await.expect("an answer").status(), 413);
    assert_eq!(post(b"{}".to_vec()).await.expect("an answer").status(), 400);
    assert_eq!(client.get(&url).send().await.expect("an answer").status(), 405);
    let ready = client.get(format!("http://{}/readyz?verbose", service.convoke.admin)).send().await;
    assert_eq!(ready.expect("an answer").status(), 200, "the admin listener too");
}

#[tokio::test]
async fn one_connection_serves_many_requests_also_when_they_are_sent_ahead() {
    let service = Service::start().await;
    let request = |n: usize, body: &[u8]| {
        let head =
            format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nX-Request-ID: r{n}\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let mut connection = RawConnection::open(service.convoke.events).await;
    // One after the other; what is refused in between does not end the connection.
    for n in 0..60 {
        let refused = n % 3 == 2;
        let body = if refused { b"{}".to_vec() } else { signed(&event("meeting.join", &n.to_string())) };
        connection.send(&request(n, &body)).await;
        let answer = connection.answer().await;
        assert!(answer.starts_with(if refused { "HTTP/1.1 400 " } else { "HTTP/1.1 200 " }), "{n}: {answer}");
    }
    // All at once; the answers come in order.
    let ahead: Vec<u8> = (100..140).flat_map(|n| request(n, &signed(&event("meeting.left", &n.to_string())))).collect();
    connection.send(&ahead).await;
    for n in 100..140 {
        let answer = connection.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("x-request-id: r{n}\r\n")), "{answer}");
    }
    assert_eq!(service.count("events"), 80);
}

#[tokio::test]
async fn probes_are_on_both_listeners_and_tell_no_details() {
    let service = Service::start().await;
    for address in [service.convoke.events, service.convoke.admin] {
        for path in ["/livez", "/readyz"] {
            let answer = http::get(&format!("http://{address}{path}")).await;
            assert_eq!((answer.status, answer.body.len() < 16), (200, true), "{path}: {}", answer.text());
        }
    }
    let verbose = |address| async move { http::get(&format!("http://{address}/readyz?verbose")).await };
    assert_eq!(verbose(service.convoke.events).await.text(), "ready\n", "details are for the admin listener");
    let report = verbose(service.convoke.admin).await.json();
    assert_eq!((&report["ready"], &report["bus"]["enabled"]), (&json!(true), &json!(false)));
    assert!(report["cursors"].is_array() && report["database"].is_string(), "{report}");
    assert_eq!(http::get(&format!("http://{}/metrics", service.convoke.events)).await.status, 404);
}

#[tokio::test]
async fn nothing_of_a_forged_body_is_stored_logged_or_sent_back() {
    const MARKER: &str = "MaRkEr7Q9";
    let service = Service::start().await;
    service.acknowledged(&event("meeting.join", "1")).await;
    let tables =
        ["events", "quarantine", "handshakes", "set_aside", "cursors", "heartbeat", "probe", "task_notes", "probes"];
    let counts = || tables.map(|table| service.count(table));
    eventually("the tables' cursor has its row", WAIT_TIMEOUT, async || service.count("cursors") == 1).await;
    let before = counts();
    let info =
        format!(r#"{{"event":"{MARKER}","timestamp":1,"payload":{{"attendeeInfo":{{"displayName":"{MARKER}"}}}}}}"#);
    let handshake = format!(r#"{{"event":"meeting.verify","timestamp":1,"x":"{MARKER}"}}"#);
    let bodies = [
        signed_by(APP_ID, "forged", &info),
        signed_by(MARKER, "forged", &info),
        signed_by(APP_ID, "forged", &handshake),
        signed_by(APP_ID, "forged", &format!(r#"{{"{MARKER}":1}}"#)),
        format!(r#"{{"{MARKER}":"{MARKER}"}}"#).into(),
        with("nonce", &format!(r#"{{"{MARKER}":1}}"#)).into(),
        with("timestamp", &format!("\"{MARKER}\"")).into(),
        MARKER.into(),
        [MARKER.as_bytes(), b"\xff"].concat(),
    ];
    for body in bodies {
        let answer = service.post(body).await;
        assert!(matches!(answer.status, 400 | 401), "{}", answer.status);
        assert_problem(&answer, answer.status);
        let all = format!("{:?}{}", answer.headers, answer.text());
        assert!(!all.contains(MARKER), "{all}");
    }
    let path = http::post(service.convoke.events, "/elsewhere", MARKER, &[("X-Request-ID", "!MaRkEr7Q9")]).await;
    assert!(path.status == 404 && !format!("{:?}{}", path.headers, path.text()).contains(MARKER));
    assert_eq!(counts(), before);
    for entry in std::fs::read_dir(service.convoke.folder()).expect("its folder").flatten() {
        let bytes = std::fs::read(entry.path()).expect("a file of the service");
        let found = bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
        assert!(!found, "{} holds the marker", entry.path().display());
    }
    let metrics = http::get(&format!("http://{}/metrics", service.convoke.admin)).await.text();
    assert!(!metrics.contains(MARKER));
}

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
