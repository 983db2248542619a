//! What others do with the stream and the tables, with their own programs.

use std::process::Command;

use serde_json::Value;

use crate::{
    support::service::{APP_ID, Database, Service, WAIT_TIMEOUT, event, event_at, settings},
    support::{
        nats::{NatsOptions, NatsServer, NatsVersion},
        tools,
        wait::eventually,
    },
};

#[tokio::test]
async fn a_python_client_reads_the_stream_and_the_cloudevents_sdk_its_messages() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let service = Service::with(settings().setting("NATS_URL", nats.url()), Database::Sqlite).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let join = concat!(
        r#"{"event":"meeting.join","timestamp":1629813991351,"payload":{"meetingInfo":{"meetingID":"987446316","#,
        r#""meetingUUID":"8b5b0"},"attendeeInfo":{"displayName":"王小明 \"W\"","joinTime":1.50}}}"#
    );
    let answer = crate::support::http::post(
        service.convoke.events,
        crate::support::service::PATH,
        crate::support::service::signed(join),
        &[("traceparent", traceparent)],
    )
    .await;
    assert_eq!(answer.status, 200);
    for info in [
        &event("record.finish", "987446316"),
        r#"{"event":"odd","timestamp":1735700465005}"#,
        r#"{"event":"a.b c.d","timestamp":1735700465006,"payload":{}}"#,
    ] {
        service.acknowledged(info).await;
    }
    eventually("all of it is published", WAIT_TIMEOUT, async || {
        service.metric(r#"convoke_published_total{outcome="new"}"#).await == 4.0
    })
    .await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/interop_read_stream.py");
    let read = |filter: &str| -> Vec<Value> {
        let output = tools::output_of(Command::new(tools::python()).args([script, &nats.url(), "MEETINGS", filter]));
        output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let all = read("meetings.>");
    let subjects: Vec<_> = all.iter().map(|message| message["subject"].as_str().expect("text")).collect();
    assert_eq!(
        subjects,
        [
            "meetings.1988692299.meeting.join.987446316",
            "meetings.1988692299.record.finish.987446316",
            "meetings.1988692299.odd.-.-",
            "meetings.1988692299.a.b_c_d.-",
        ]
    );
    let rows = service.sql("SELECT event_id, seq, received_at FROM events ORDER BY seq");
    for (message, row) in all.iter().zip(rows.lines()) {
        let row: Vec<_> = row.split('|').collect();
        let (headers, event) = (&message["headers"], &message["event"]);
        assert_eq!((&headers["Nats-Msg-Id"], &event["id"]), (&Value::from(row[0]), &Value::from(row[0])));
        assert_eq!(headers["Content-Type"], "application/cloudevents+json");
        assert!(headers.get("Convoke-Replay").is_none());
        assert_eq!(event["sequence"], format!("{:0>19}", row[1]));
        assert_eq!((&event["recordedtime"], &event["origin"]), (&Value::from(row[2]), &Value::from("push")));
        assert_eq!(
            (&event["specversion"], &event["source"]),
            (&"1.0".into(), &"/huawei-cloud-meeting/1988692299".into())
        );
        assert_eq!(event["datacontenttype"], "application/json");
    }
    let (first, odd) = (&all[0], &all[2]);
    assert_eq!(first["headers"]["traceparent"], traceparent);
    assert!(odd["headers"].get("traceparent").is_none());
    assert_eq!(first["event"]["type"], "com.huaweicloud.meeting.join");
    assert_eq!((&first["event"]["subject"], &first["event"]["meetingid"]), (&"8b5b0".into(), &"987446316".into()));
    assert_eq!(first["event"]["time"], "2021-08-24T14:06:31.351Z");
    assert_eq!(first["data"]["attendeeInfo"]["displayName"], "王小明 \"W\"");
    assert!(first["body"].as_str().expect("text").ends_with(&format!(",\"data\":{}}}", payload(join))), "verbatim");
    for absent in ["subject", "meetingid", "data"] {
        assert!(odd["event"].get(absent).is_none(), "{absent} in {odd}");
    }
    assert_eq!(read("meetings.*.meeting.*.987446316").len(), 1);
    assert_eq!(read("meetings.*.record.finish.>").len(), 1);

    // Published again on purpose, past the duplicate window.
    let replay = service.convoke.run(&["replay", "--meeting", "987446316", "--event", "meeting.join", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let joins = read("meetings.*.meeting.join.>");
    assert_eq!((joins.len(), &joins[1]["headers"]["Convoke-Replay"]), (2, &Value::from("true")));
    let id = |n: usize| joins[n]["headers"]["Nats-Msg-Id"].as_str().expect("an id").to_owned();
    assert!(id(1).starts_with(&format!("{}.r", id(0))), "{}", id(1));
    assert_eq!((&joins[0]["event"]["id"], &joins[0]["body"]), (&joins[1]["event"]["id"], &joins[1]["body"]));
}

fn payload(event_info: &str) -> &str {
    let at = event_info.find("\"payload\":").expect("a payload") + "\"payload\":".len();
    &event_info[at..event_info.len() - 1]
}

#[tokio::test]
async fn the_sqlite3_program_answers_the_usual_questions() {
    questions(&Service::start().await).await;
}

#[tokio::test]
async fn the_psql_program_answers_the_usual_questions() {
    questions(&Service::on(Database::postgres().await).await).await;
}

async fn questions(service: &Service) {
    let at = 1_735_700_000_000;
    let person = |at: i64, kind: &str, name: &str| {
        format!(
            r#"{{"event":"meeting.{kind}","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"42"}},"attendeeInfo":{{"userUUID":"{name}","displayName":"{name}","joinTime":{at}}}}}}}"#
        )
    };
    let events = [
        event_at(at, "meeting.started", "42"),
        person(at + 1_000, "join", "Wang"),
        person(at + 2_000, "join", "Li"),
        event_at(at + 2_500, "meeting.started", "43"),
        person(at + 3_000, "left", "Wang"),
        event_at(at + 4_000, "meeting.end", "42"),
    ];
    for info in &events {
        service.acknowledged(info).await;
    }
    let asked = |query: &str| service.sql(query).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        asked("SELECT event, count(*) FROM events GROUP BY event ORDER BY event"),
        ["meeting.end|1", "meeting.join|2", "meeting.left|1", "meeting.started|2"]
    );
    assert_eq!(
        asked("SELECT event FROM events WHERE meeting_id = '42' ORDER BY seq"),
        ["meeting.started", "meeting.join", "meeting.join", "meeting.left", "meeting.end"]
    );
    assert_eq!(
        asked(
            "SELECT display_name, user_uuid FROM events
              WHERE meeting_id = '42' AND event = 'meeting.join' ORDER BY join_time"
        ),
        ["Wang|Wang", "Li|Li"]
    );
    assert_eq!(
        asked("SELECT event FROM events WHERE occurred_at >= '2025-01-01T02:53:22.500Z' ORDER BY occurred_at, seq"),
        ["meeting.started", "meeting.left", "meeting.end"]
    );
    assert_eq!(asked("SELECT DISTINCT subscriber_id, source, deliveries FROM events"), [format!("{APP_ID}|push|1")]);
    let json = match service.database {
        Database::Sqlite => "event_info ->> '$.payload.attendeeInfo.displayName'",
        Database::Postgres(_) => "event_info::json #>> '{payload,attendeeInfo,displayName}'",
    };
    assert_eq!(asked(&format!("SELECT {json} FROM events WHERE event = 'meeting.left'")), ["Wang"]);
}
