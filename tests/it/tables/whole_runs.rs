//! Whole runs of the simulated platform, through the service: the tables are what happened.
//!
//! It is no kind platform: meetings are entered again under another UUID, scheduled under one of their own, never concluded;
//! people come after the end, and are not seen leaving; rooms stay open for days.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use convoke_core::{
    time::{Clock, Millis},
    zone::TimeZone,
};
use convoke_simulator::Simulation;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    as_json::Seen,
    views::{covered, near},
};
use crate::{
    log_contract::fixture::Backend,
    support::{http, rig::*, wait::eventually},
};

/// The members of `row` that the truth has.
fn like(row: &Value, truth: &Value) -> Value {
    let members = truth.as_object().expect("an object").keys().filter(|name| *name != "kind");
    members.map(|name| (name.clone(), row.get(name).unwrap_or_else(|| panic!("no {name} in {row}")).clone())).collect()
}

/// What the tables say, in the words of the truth.
fn compared(rows: &[Value], truth: &[Value]) -> Vec<String> {
    let Some(first) = truth.first() else { return Vec::new() };
    let mut found: Vec<String> = rows.iter().map(|row| like(row, first).to_string()).collect();
    found.sort();
    found
}

fn of_kind(truth: &str, kind: &str) -> Vec<Value> {
    let lines = truth.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of the truth"));
    lines.filter(|line| line["kind"] == kind).collect()
}

/// Where days are eight hours ahead.
const ZONE: &str = "Asia/Shanghai";

/// The views' days are those on which it happened: who was where, and for how long.
fn by_day(seen: &Seen, stays: &[Value]) {
    let zone = TimeZone::named(ZONE).expect("it is there");
    let at = |time: &Value| time.as_str().and_then(Millis::parse);
    let heard = |run: &Value| {
        seen.meetings.iter().find(|row| row["meeting_uuid"] == *run).and_then(|row| at(&row["last_event_at"]))
    };
    let mut spent: BTreeMap<[String; 3], Vec<(i64, i64)>> = BTreeMap::new();
    for stay in stays {
        let from = at(&stay["joined_at"]).expect("a time");
        // Of whom no end was told: until the last that was heard of the run.
        let until = at(&stay["left_at"]).or_else(|| heard(&stay["meeting_uuid"])).expect("a time").max(from);
        for day in zone.days(from, until.max(from.plus(Duration::from_millis(1))), 100) {
            let text = |name: &str| stay[name].as_str().expect(name).to_owned();
            let key = [day.to_string(), text("meeting_uuid"), text("person")];
            spent.entry(key).or_default().push((from.max(day.begins_at).get(), until.min(day.ends_at).get()));
        }
    }
    let rows = &seen.views["person_days"];
    assert_eq!(rows.len(), spent.len());
    for row in rows {
        let key = ["day", "meeting_uuid", "person"].map(|name| row[name].as_str().expect(name).to_owned());
        near(&row["minutes"], covered(spent[&key].clone()));
    }
    for row in &seen.views["daily_usage"] {
        let on = spent.keys().filter(|key| row["day"] == *key[0]);
        assert_eq!(row["participants"], on.map(|key| &key[2]).collect::<BTreeSet<_>>().len(), "{row}");
    }
}

pub async fn the_tables_of_a_shuffled_run_are_what_happened(backend: Backend) {
    let convoke = convoke(&backend.url, "none").setting("TIME_ZONE", ZONE).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let truth = backend.folder.path().join("truth.ndjson");
    let simulation = Simulation {
        meetings: 60,
        truth: Some(truth.clone()),
        base: Some(Clock::System.now().minus(Duration::from_secs(20 * 86_400))),
        long_rooms: true,
        ..Load::simulation(convoke.events, 5)
    };
    let report = simulation.run(CancellationToken::new()).await.expect("a run");
    assert_eq!((report.given_up, report.unsettled), (0, 0), "{report}");
    eventually("the tables have everything", LONG_TIMEOUT, async || {
        let position = backend.value("SELECT position FROM cursors WHERE name = 'meetings'").await;
        let head = backend.value("SELECT max(seq) FROM events").await;
        if position == head { Ok(()) } else { Err(format!("{position} of {head}")) }
    })
    .await;
    let truth = std::fs::read_to_string(truth).expect("the truth");
    let seen = Seen::of(&backend).await;
    for (kind, rows) in [("meeting", &seen.meetings), ("stay", &seen.attendance), ("recording", &seen.recordings)] {
        let happened = of_kind(&truth, kind);
        assert!(happened.len() > 10, "too little happened: {} of {kind}", happened.len());
        let found = compared(rows, &happened);
        let mut happened: Vec<String> = happened.iter().map(|line| like(line, line).to_string()).collect();
        happened.sort();
        for (found, happened) in found.iter().zip(&happened) {
            assert_eq!(found, happened);
        }
        assert_eq!(found.len(), happened.len());
    }
    let stays = of_kind(&truth, "stay");
    let at = |stay: &Value, name: &str| stay[name].as_str().and_then(Millis::parse);
    let long = |stay: &&Value| match (at(stay, "joined_at"), at(stay, "left_at")) {
        (Some(from), Some(until)) => until.since(from) > Duration::from_secs(86_400),
        _ => false,
    };
    assert!(stays.iter().filter(long).count() > 2, "nobody stayed for more than a day");
    by_day(&seen, &stays);
    eventually("the lag is shown", LONG_TIMEOUT, async || {
        http::metric(convoke.admin, r#"convoke_cursor_lag_events{cursor="meetings"}"#).await == 0.0
    })
    .await;
}
