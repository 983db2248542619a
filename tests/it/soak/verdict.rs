//! What is in the ledger, the log and the stream in the end: by Convoke's own audit, and by plain clients.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::parts::Parts;
use crate::support::{
    postgres::psql,
    rig::{STREAM, TEN, audit, read_stream, sqlite},
    wait::eventually,
};

/// The relay has so long to publish what is left when the load has ended.
const CATCH_UP: Duration = Duration::from_secs(30);

/// What was found; all of it is as it should be.
#[derive(Debug)]
pub struct Verdict {
    /// Deliveries of events, as the log counted them …
    pub deliveries: u64,
    /// … and events.
    pub stored: u64,
    /// Events in the ledger.
    pub acknowledged: u64,
    pub messages: u64,
    /// Requests that the simulators reported.
    pub requests: u64,
    /// How long the relay took to publish what was left.
    pub caught_up: Duration,
}

/// Panics with what is wrong.
pub async fn judge(parts: &Parts) -> Verdict {
    let stored = number(parts, "SELECT count(*) FROM events").await;
    let jetstream = parts.nats.jetstream().await;
    let started = Instant::now();
    eventually("the relay has caught up", CATCH_UP, async || {
        let stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        let behind =
            number(parts, "SELECT count(*) FROM events WHERE seq > (SELECT position FROM cursors WHERE name = 'bus')")
                .await;
        let there = stream.cached_info().state.messages;
        if behind == 0 && there >= stored { Ok(()) } else { Err(format!("{behind} to go, {there} of {stored} there")) }
    })
    .await;
    let caught_up = started.elapsed();

    let ledger = parts.simulator.ledger();
    let (status, findings) = audit(&parts.services[0], Some(&ledger)).await;
    assert_eq!(status, 0, "{findings:#}");
    assert_eq!(findings["clean"], true, "{findings:#}");

    // And again, with nothing of Convoke's own.
    let log = column(parts, "SELECT event_id FROM events ORDER BY seq").await;
    let distinct: HashSet<&str> = log.iter().map(String::as_str).collect();
    assert_eq!(distinct.len(), log.len(), "events are in the log twice");
    let ledger = std::fs::read_to_string(ledger).expect("a ledger");
    let acknowledged: HashSet<String> = ledger.lines().filter_map(event_id).collect();
    let missing: Vec<&String> = acknowledged.iter().filter(|id| !distinct.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "acknowledged, and not in the log: {missing:?}");
    assert!(!acknowledged.is_empty(), "nothing was acknowledged at all");
    let messages = read_stream(&jetstream, STREAM).await;
    let mut seen = HashSet::new();
    let first: Vec<&str> = messages.iter().map(|message| message.event_id()).filter(|id| seen.insert(*id)).collect();
    if let Some(at) =
        (0..log.len().max(first.len())).find(|&at| log.get(at).map(String::as_str) != first.get(at).copied())
    {
        let near =
            |ids: &[&str]| ids.iter().skip(at.saturating_sub(2)).take(6).map(|id| id.to_string()).collect::<Vec<_>>();
        let log: Vec<&str> = log.iter().map(String::as_str).collect();
        panic!("log and stream differ from place {at} on: {:#?} and {:#?}", near(&log), near(&first));
    }
    for aside in ["quarantine", "set_aside"] {
        assert_eq!(number(parts, &format!("SELECT count(*) FROM {aside}")).await, 0, "there is something in {aside}");
    }
    let requests = parts.simulator.reports.iter().filter_map(|report| report["deliveries"].as_u64()).sum();
    Verdict {
        deliveries: number(parts, "SELECT sum(deliveries) FROM events").await,
        stored: log.len() as u64,
        acknowledged: acknowledged.len() as u64,
        messages: messages.len() as u64,
        requests,
        caught_up,
    }
}

/// `None` for the end of a line that a killed simulator left torn.
fn event_id(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(line["event_id"].as_str().expect("an id").to_owned())
}

/// The first column of what the database says, read as an analyst would.
async fn column(parts: &Parts, sql: &str) -> Vec<String> {
    match &parts.postgres {
        Some(postgres) => psql(&postgres.url(), sql).lines().map(str::to_owned).collect(),
        None => {
            let rows = sqlite(parts.services[0].folder(), sql).await;
            rows.into_iter().map(|row| row[0].clone().expect("no null")).collect()
        }
    }
}

async fn number(parts: &Parts, sql: &str) -> u64 {
    let rows = tokio::time::timeout(TEN, column(parts, sql)).await.expect("an answer");
    rows[0].parse().unwrap_or_else(|_| panic!("{sql}: no number: {rows:?}"))
}
