//! What is answered 200, and what is stored of it.

use super::*;

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
        (r#"{"event":"a","event":"a","timestamp":1}"#.to_owned(), "event appears twice"),
        (r#"{"event":"a"}"#.to_owned(), "timestamp is missing"),
        (r#"{"event":"a","timestamp":1,"timestamp":1}"#.to_owned(), "timestamp appears twice"),
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
