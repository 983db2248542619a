//! The whole story: subscribe, pushes with losses, down for longer than the platform tries, backfill; and the analyst tables are
//! those of a Convoke that missed nothing, but for what history cannot give.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use convoke_core::time::{Clock, Millis};
use convoke_platform::{Client, NewSubscription, Options, Status};
use convoke_simulator::{
    Simulation,
    platform::{Chronicle, Platform, PlatformOptions},
};
use secrecy::SecretString;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{
    nats::{NatsOptions, NatsServer, NatsVersion},
    process::Convoke,
    rig::{self, APP_ID, KEY, LONG_TIMEOUT, PATH, SQLITE, read_stream},
    wait::eventually,
};

const API_APP: &str = "0123456789abcdef0123456789abcdef";
const API_KEY: &str = "DemoAppKeyDemoAppKeyDemoAppKey01";
const HOUR: i64 = 3_600_000;

/// An end, or a start, of which only the stays tell is so near: the last to leave leaves some seconds before it.
const ABOUT: Duration = Duration::from_secs(30);

/// The same morning for everybody who takes part with the same arguments, three days ago.
fn morning(convoke: &Convoke, base: i64, chronicle: Option<&Chronicle>) -> Simulation {
    Simulation {
        meetings: 30,
        attendees: 6,
        seed: 5,
        base: Millis::new(base),
        chronicle: chronicle.cloned(),
        handshake: false,
        ..Simulation::new(format!("http://{}{PATH}", convoke.events), APP_ID, SecretString::from(KEY))
    }
}

async fn enabled(platform: &Platform, convoke: &Convoke) {
    let options = Options::new(platform.url(), API_APP, API_KEY.into());
    let client = Client::new(options, Clock::System).expect("a client");
    let new = NewSubscription {
        subscriber_id: APP_ID.to_owned(),
        subscriber_key: KEY.into(),
        url: format!("http://{}{PATH}", convoke.events),
    };
    client.set_subscription(&new).await.expect("it is set");
    let id = client.subscription().await.expect("an answer").expect("a subscription").id;
    client.change_status(&id, Status::Enabled).await.expect("the handshake is answered");
}

/// A table by the columns that tell its rows apart.
async fn table(convoke: &Convoke, name: &str, keys: &str, columns: &str) -> BTreeMap<String, Vec<Option<String>>> {
    let sql = format!("SELECT {keys}, {columns} FROM {name}");
    let rows = rig::sqlite(convoke.folder(), &sql).await;
    let keyed: Vec<_> = rows.into_iter().map(|mut row| (row.remove(0).expect("a key"), row)).collect();
    let count = keyed.len();
    let table: BTreeMap<_, _> = keyed.into_iter().collect();
    assert_eq!(table.len(), count, "two rows of {name} with one key");
    table
}

fn about(one: Option<&String>, other: Option<&String>) -> bool {
    let time = |text: Option<&String>| text.and_then(|text| Millis::parse(text));
    match (time(one), time(other)) {
        (Some(one), Some(other)) => one.since(other).max(other.since(one)) <= ABOUT,
        (one, other) => one == other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_losses_and_a_long_outage_a_backfill_makes_the_tables_those_of_who_missed_nothing() {
    let first = Clock::System.now().get() - 72 * HOUR;
    let second = first + 12 * HOUR;
    let stop = CancellationToken::new;

    // Who misses nothing.
    let whole = rig::convoke(SQLITE, "none").start().await;
    whole.wait_ready(LONG_TIMEOUT).await;
    for base in [first, second] {
        let report = morning(&whole, base, None).run(stop()).await.expect("a run");
        assert_eq!(report.given_up, 0);
    }

    // Who subscribes, loses one event in five of the first morning, and is down for all of the second.
    let platform = Platform::start(PlatformOptions {
        limit: 1_000_000,
        skew: Duration::ZERO,
        ..PlatformOptions::new(API_APP, API_KEY.into())
    })
    .await
    .expect("a free port");
    let chronicle = platform.chronicle();
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key_file = folder.path().join("api.key");
    std::fs::write(&key_file, API_KEY).expect("a file");
    let mut lossy = rig::convoke(SQLITE, &nats.url())
        .setting("PLATFORM_URL", platform.url())
        .setting("PLATFORM_APP_ID", API_APP)
        .setting("PLATFORM_APP_KEY_FILE", &key_file)
        .start()
        .await;
    lossy.wait_ready(LONG_TIMEOUT).await;
    enabled(&platform, &lossy).await;
    let lost = Simulation { drop: 0.2, ..morning(&lossy, first, Some(&chronicle)) };
    let report = lost.run(stop()).await.expect("a run");
    assert!(report.dropped > 0 && report.acknowledged > report.dropped, "{report}");
    lossy.kill().await;
    // The platform's 24 hours are ten milliseconds.
    let outage = Simulation { time_scale: 8_640_000.0, ..morning(&lossy, second, Some(&chronicle)) };
    let report = outage.run(stop()).await.expect("a run");
    assert_eq!(report.acknowledged, 0, "{report}");
    assert!(report.given_up > 0, "{report}");
    lossy.restart().await;
    lossy.wait_ready(LONG_TIMEOUT).await;

    let since = Millis::new(first - HOUR).expect("a time in range").to_string();
    let finished = lossy.run(&["backfill", "--since", &since, "--json"]).await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let report: Value = serde_json::from_str(&finished.stdout).expect("a report");
    let unfillable = report["not_fillable"].as_object().expect("counts");
    assert!(unfillable.values().all(|count| *count == 0), "{report:#}");
    let filled: u64 = report["filled"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();

    // Consumers can recognise them; nothing is missing in the stream.
    let (status, findings) = rig::audit(&lossy, None).await;
    assert_eq!((status, &findings["clean"]), (0, &Value::Bool(true)), "{findings:#}");
    let messages = read_stream(&nats.jetstream().await, rig::STREAM).await;
    let made = messages.iter().filter(|message| message.json()["origin"] == "backfill").count();
    assert_eq!(made as u64, filled);

    tables_are_current(&[&whole, &lossy]).await;
    compare(&whole, &lossy).await;
}

async fn tables_are_current(convokes: &[&Convoke]) {
    eventually("the tables are current", LONG_TIMEOUT, async || {
        for convoke in convokes {
            // Not the metric, which is as old as a second.
            let sql =
                "SELECT CAST(max(seq) - (SELECT position FROM cursors WHERE name = 'meetings') AS TEXT) FROM events";
            let lag = rig::sqlite(convoke.folder(), sql).await[0][0].clone();
            if lag.as_deref() != Some("0") {
                return Err(format!("{lag:?}"));
            }
        }
        Ok(())
    })
    .await;
}

async fn compare(whole: &Convoke, lossy: &Convoke) {
    // Meetings: those that were held. History knows nothing of who scheduled, edited, cancelled or closed them when, and does
    // not count recordings; people are counted by ids that it does not give.
    let columns = "subscriber_id, meeting_id, meeting_cycle_sub_id, CAST(stays AS TEXT), CAST(recordings > 0 AS TEXT), \
                   started_at, ended_at";
    let expected = table(whole, "meetings WHERE started_at IS NOT NULL", "meeting_uuid", columns).await;
    let found = table(lossy, "meetings WHERE started_at IS NOT NULL", "meeting_uuid", columns).await;
    assert!(expected.len() > 45, "{}", expected.len());
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (uuid, expected) in &expected {
        let found = &found[uuid];
        assert_eq!(found[..5], expected[..5], "{uuid}");
        for time in [5, 6] {
            assert!(about(found[time].as_ref(), expected[time].as_ref()), "{uuid}: {found:?} and {expected:?}");
        }
    }

    // Stays: each once, to the millisecond, with the ids that the platform had pushed, and no others.
    let keys =
        "meeting_uuid || ' ' || joined_at || ' ' || coalesce(call_number, '-') || ' ' || coalesce(display_name, '-')";
    let known = "meeting_id, left_at, CAST(duration_s AS TEXT)";
    let ids = "participant_id, user_uuid, account, user_agent, role";
    let columns = format!("{known}, {ids}");
    let expected = table(whole, "attendance", keys, &columns).await;
    let found = table(lossy, "attendance", keys, &columns).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut filled = 0;
    for (stay, expected) in &expected {
        let found = &found[stay];
        assert_eq!(found[..3], expected[..3], "{stay}");
        if matches!(found[6].as_deref(), Some("PC" | "WEB" | "ROOM" | "OTHER")) {
            // From the dashboard, which knows the user also where the event told the account or the number alone.
            assert_eq!([&found[3], &found[7]], [&expected[3], &expected[7]], "{stay}");
            assert!(expected[4].is_none() || found[4] == expected[4], "{stay}: {found:?}");
            assert_eq!(found[5], None, "{stay}: invented");
            filled += 1;
        } else {
            assert_eq!(found[3..], expected[3..], "{stay}");
        }
    }
    let sql = "SELECT CAST(count(*) AS TEXT) FROM events WHERE event = 'meeting.join' AND source = 'backfill'";
    let made = rig::sqlite(lossy.folder(), sql).await;
    assert_eq!(made, [[Some(filled.to_string())]], "only those of whom nothing was pushed");

    // Recordings: one for each run of which none was pushed, at its end.
    let recordings = async |convoke: &Convoke| {
        let rows = rig::sqlite(convoke.folder(), "SELECT meeting_uuid, finished_at FROM recordings").await;
        let mut by_run: HashMap<String, Vec<String>> = HashMap::new();
        for row in rows {
            let [Some(uuid), Some(at)] = &row[..] else { panic!("{row:?}") };
            by_run.entry(uuid.clone()).or_default().push(at.clone());
        }
        by_run
    };
    let (expected, found) = (recordings(whole).await, recordings(lossy).await);
    let meetings = table(lossy, "meetings", "meeting_uuid", "ended_at").await;
    assert_eq!(found.len(), expected.len());
    for (uuid, found) in &found {
        let pushed = found.iter().all(|at| expected[uuid].contains(at));
        assert!(pushed || found.iter().eq(meetings[uuid][0].iter()), "{uuid}: {found:?}");
    }
}

/// How many of the stays that were held are in the tables to the millisecond, and how many there are.
async fn right(whole: &Convoke, lossy: &Convoke) -> (usize, usize) {
    let keys =
        "meeting_uuid || ' ' || joined_at || ' ' || coalesce(call_number, '-') || ' ' || coalesce(display_name, '-')";
    let [expected, found] = [
        table(whole, "attendance", keys, "left_at, closed_by").await,
        table(lossy, "attendance", keys, "left_at, closed_by").await,
    ];
    (
        expected.iter().filter(|(stay, left)| found.get(*stay).is_some_and(|found| found[0] == left[0])).count(),
        expected.len(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_event_lost_in_a_hundred_a_backfill_brings_everything_back() {
    let base = Clock::System.now().get() - 72 * HOUR;
    let platform =
        Platform::start(PlatformOptions { limit: 1_000_000, ..PlatformOptions::new(API_APP, API_KEY.into()) });
    let platform = platform.await.expect("a free port");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key_file = folder.path().join("api.key");
    std::fs::write(&key_file, API_KEY).expect("a file");
    let whole = rig::convoke(SQLITE, "none").start().await;
    let lossy = rig::convoke(SQLITE, "none")
        .setting("PLATFORM_URL", platform.url())
        .setting("PLATFORM_APP_ID", API_APP)
        .setting("PLATFORM_APP_KEY_FILE", &key_file)
        .start()
        .await;
    for (convoke, chronicle, drop) in [(&whole, None, 0.0), (&lossy, Some(platform.chronicle()), 0.01)] {
        convoke.wait_ready(LONG_TIMEOUT).await;
        let run = Simulation { meetings: 100, drop, ..morning(convoke, base, chronicle.as_ref()) };
        assert_eq!(run.run(CancellationToken::new()).await.expect("a run").given_up, 0);
    }
    tables_are_current(&[&whole, &lossy]).await;
    let (before, stays) = right(&whole, &lossy).await;
    let since = Millis::new(base - HOUR).expect("a time in range").to_string();
    let finished = lossy.run(&["backfill", "--since", &since]).await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    tables_are_current(&[&whole, &lossy]).await;
    let (after, _) = right(&whole, &lossy).await;
    println!("1 % of the events lost: {before} of {stays} stays are right before a backfill, {after} after it");
    assert!(before < stays && before * 100 > stays * 95, "{before} of {stays}");
    assert_eq!(after, stays, "{}", finished.stdout);
}
