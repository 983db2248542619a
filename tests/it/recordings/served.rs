//! Recordings and enrichment as `convoke serve` has them: on the stream, in the tables, in the log.

use std::{path::PathBuf, time::Duration};

use convoke_simulator::platform::{Call, Platform, Recorded, Run, State};

use crate::{
    simulated_platform,
    support::service::{Database, Service, WAIT_TIMEOUT, event_at, now, settings},
    support::{
        http,
        nats::{NatsOptions, NatsServer, NatsVersion},
        process::ConvokeBuilder,
        rig::stream_holds,
        sign::millis,
        wait::eventually,
    },
};

const MEETING: &str = "960000017";

/// The usual settings with the platform's credentials.
fn with_platform(builder: ConvokeBuilder, platform: &Platform, folder: &tempfile::TempDir) -> ConvokeBuilder {
    let key: PathBuf = folder.path().join("platform.key");
    std::fs::write(&key, simulated_platform::APP_KEY).expect("a file");
    builder
        .setting("PLATFORM_URL", platform.url())
        .setting("PLATFORM_APP_ID", simulated_platform::APP_ID)
        .setting("PLATFORM_APP_KEY_FILE", key)
}

/// A meeting that goes on, whose first recording is decoded.
async fn story(database: Database) {
    let (nats, platform, folder) = (
        NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await,
        simulated_platform::started(simulated_platform::options()).await,
        tempfile::tempdir().expect("a temporary folder"),
    );
    let uuid = format!("{MEETING:0>32}");
    let (started, finished) = (now() - 600_000, now() - 120_000);
    let recorded = Recorded {
        finished: millis(finished),
        length_s: 300,
        decode_end: millis(finished + 7),
        decoded_from: millis(finished + 7),
    };
    let run = Run::over(&uuid, MEETING, millis(started), millis(started + 3_600_000));
    let run = Run { state: State::Running, ended: None, recordings: vec![recorded], ..run };
    platform.edit(|archive| archive.put(run));

    let builder = with_platform(settings().setting("NATS_URL", nats.url()), &platform, &folder)
        .setting("RECORDINGS_ENABLED", "true")
        .setting("ENRICH_ENABLED", "true")
        .setting("LOG_FORMAT", "json")
        .env("RUST_LOG", "debug");
    let builder = match &database {
        Database::Sqlite => builder,
        Database::Postgres(postgres) => builder.setting("DATABASE_URL", postgres.url()),
    };
    let service = Service::with(builder, database).await;
    service.acknowledged(&event_at(started, "meeting.started", MEETING)).await;
    service.acknowledged(&event_at(finished, "record.finish", MEETING)).await;

    let js = nats.jetstream().await;
    let messages = stream_holds(&js, 3, WAIT_TIMEOUT).await;
    let ready = messages.iter().find(|message| message.subject.contains(".record.ready.")).expect("it is published");
    assert_eq!(ready.subject, format!("meetings.1988692299.record.ready.{MEETING}"));
    let json = ready.json();
    assert_eq!(
        (json["type"].as_str(), json["origin"].as_str()),
        (Some("com.huaweicloud.record.ready"), Some("platform"))
    );
    assert_eq!(json["time"], millis(finished + 7).to_string());
    assert_eq!(json["subject"], *uuid);
    let view_url = format!("https://192.0.2.30/rse/play.html?recordId={uuid}-0");
    let expected = serde_json::json!({
        "meetingInfo": { "meetingID": MEETING, "meetingUUID": uuid },
        "recordInfo": { "lengthSeconds": 300, "sizeMB": 7, "files": 1, "viewUrl": view_url, "viewers": "participants" },
    });
    assert_eq!(json["data"], expected);

    let columns = "length_s || ' ' || size_mb || ' ' || files || ' ' || view_url || ' ' || viewers";
    let row = eventually("the tables have it", WAIT_TIMEOUT, async || {
        let row = service.sql(&format!("SELECT {columns} FROM recordings WHERE ready_at IS NOT NULL"));
        if row.is_empty() { None } else { Some(row) }
    })
    .await;
    assert_eq!(row.replace("7.0", "7"), format!("300 7 1 {view_url} participants"));
    let enriched = "SELECT subject || '|' || host || '|' || corp_id FROM meetings WHERE subject IS NOT NULL";
    eventually("the meeting is enriched", WAIT_TIMEOUT, async || {
        let row = service.sql(enriched);
        if row == format!("Meeting {MEETING}|Demo User|{}", simulated_platform::CORP) { Ok(()) } else { Err(row) }
    })
    .await;

    let report = http::get(&format!("http://{}/readyz?verbose", service.convoke.admin)).await.json();
    let names: Vec<_> =
        report["cursors"].as_array().expect("cursors").iter().map(|cursor| cursor["name"].clone()).collect();
    assert_eq!(names, ["bus", "meetings", "recordings"]);
    eventually("nothing waits", WAIT_TIMEOUT, async || {
        let mut sum = service.metric(r#"convoke_cursor_lag_events{cursor="recordings"}"#).await;
        for task in ["recordings", "enrichment"] {
            sum += service.metric(&format!(r#"convoke_fetches{{task="{task}",state="waiting"}}"#)).await;
        }
        sum == 0.0
    })
    .await;
    let audit = service.convoke.run(&["audit", "--json"]).await;
    assert_eq!(audit.code(), 0, "{audit:?}");
    let replay = service.convoke.run(&["replay", "--event", "record.ready", "--again"]).await;
    assert_eq!(replay.code(), 0, "{replay:?}");
    let again = stream_holds(&js, 4, WAIT_TIMEOUT).await.pop().expect("a message");
    assert_eq!((again.event_id(), &again.body), (ready.event_id(), &ready.body));

    let everything = match &service.database {
        Database::Sqlite => ["", "-wal"].iter().fold(Vec::new(), |mut all, end| {
            all.extend(std::fs::read(service.convoke.folder().join(format!("convoke.db{end}"))).unwrap_or_default());
            all
        }),
        Database::Postgres(_) => {
            let rows = "SELECT f::text FROM fetches f UNION ALL SELECT e::text FROM events e UNION ALL SELECT r::text FROM \
                 recordings r UNION ALL SELECT t::text FROM task_notes t UNION ALL SELECT q::text FROM quarantine q";
            service.sql(rows).into_bytes()
        }
    };
    let published: String = again.body.clone() + ready.body.as_str();
    let key = simulated_platform::APP_KEY;
    for (place, bytes) in [
        ("the database", everything),
        ("the stream", published.into_bytes()),
        ("the log", service.convoke.logs().into_bytes()),
    ] {
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("record.ready") || place == "the log", "{place} was looked at");
        for secret in ["token=", "onceToken", key] {
            assert!(!text.contains(secret), "{secret} is in {place}");
        }
    }

    // A stop is orderly, and a start does nothing twice.
    let mut service = service;
    service.convoke.signal(rustix::process::Signal::TERM);
    let status = service.convoke.wait_exit(WAIT_TIMEOUT).await;
    assert!(status.success(), "{status}");
    let asked = platform.count(Call::Recording);
    service.convoke.restart().await;
    service.convoke.wait_ready(WAIT_TIMEOUT).await;
    let later = event_at(now(), "meeting.join", MEETING);
    service.acknowledged(&later).await;
    stream_holds(&js, 5, WAIT_TIMEOUT).await;
    eventually("the cursor has read it", WAIT_TIMEOUT, async || {
        service.metric(r#"convoke_cursor_lag_events{cursor="recordings"}"#).await == 0.0
    })
    .await;
    assert_eq!((platform.count(Call::Recording), service.count("events")), (asked, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_announced_kept_audited_and_replayed_without_a_token_on_sqlite() {
    story(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_announced_kept_audited_and_replayed_without_a_token_on_postgres() {
    story(Database::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_is_away_holds_up_nothing_and_is_warned_of_once() {
    let platform = simulated_platform::started(simulated_platform::options()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let builder = with_platform(settings().setting("NATS_URL", nats.url()), &platform, &folder)
        .setting("RECORDINGS_ENABLED", "true")
        .setting("ENRICH_ENABLED", "true");
    platform.stop().await;
    let mut service = Service::with(builder, Database::Sqlite).await;
    service.acknowledged(&event_at(now() - 120_000, "record.finish", MEETING)).await;
    eventually("it is given up for now", Duration::from_secs(60), async || {
        service.metric(r#"convoke_fetch_failures_total{task="recordings",class="transient"}"#).await >= 1.0
    })
    .await;
    for number in 0..20 {
        service.acknowledged(&event_at(now() + number, "meeting.join", MEETING)).await;
    }
    stream_holds(&nats.jetstream().await, 21, WAIT_TIMEOUT).await;
    let warnings = service.convoke.logs().matches("the platform's API fails").count();
    assert!((1..=2).contains(&warnings), "one for each task: {}", service.convoke.logs());
    service.convoke.signal(rustix::process::Signal::TERM);
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
}

#[tokio::test]
async fn without_the_settings_there_is_no_such_cursor() {
    let platform = simulated_platform::started(simulated_platform::options()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let service = Service::with(with_platform(settings(), &platform, &folder), Database::Sqlite).await;
    service.acknowledged(&event_at(now() - 120_000, "record.finish", MEETING)).await;
    eventually("the tables have it", WAIT_TIMEOUT, async || service.count("recordings") == 1).await;
    assert_eq!(service.sql("SELECT name FROM cursors ORDER BY name"), "meetings");
    assert_eq!(service.metric(r#"convoke_cursor_lag_events{cursor="recordings"}"#).await, 0.0);
    assert_eq!(platform.calls().len(), 0, "nothing was asked");
}
