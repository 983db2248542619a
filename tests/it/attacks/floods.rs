//! Floods: what is signed is stored meanwhile.

use std::time::Duration;

use tokio::time::timeout;

use super::{memory, target, with_files};
use crate::support::attack::{Attack, Kind, many_files};
use crate::support::http::{self, RawConnection};
use crate::support::service::{APP_ID, Database, PATH, Service, WAIT_TIMEOUT, event, signed, signed_by};
use crate::support::wait::eventually;

/// Files that the service may open: room for 256 connections.
const MAX_FILES: usize = 512;
const MAX_CONNECTIONS: usize = 256;
/// Attackers: more than there is room for; and of those who do much, as many as keep the processors busy.
const MANY: usize = 300;
const FEW: usize = 24;

/// The platform gives up on an answer after some seconds; a machine that also runs the attack is slow.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);

fn request(body: &[u8]) -> Vec<u8> {
    [format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[tokio::test]
async fn signed_events_are_stored_through_every_kind_of_flood_under_load() {
    many_files();
    let service = Service::with(with_files(MAX_FILES), Database::Sqlite).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.convoke.id())).expect("a process");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("the line");
    assert_eq!(files.split_whitespace().nth(3), Some("512"), "the soft limit is raised to the hard one: {files}");

    // As the platform does it: one connection that stays, and is quiet for a while now and then.
    let mut kept = RawConnection::open(service.convoke.events).await;
    kept.send(&request(&signed(&event("meeting.join", "0")))).await;
    kept.answer().await;
    let mut stored = 1;
    for kind in Kind::ALL {
        let many = if kind.is_of_many() { MANY } else { FEW };
        let attack = Attack::start(kind, target(&service.convoke), many);
        eventually("the attack goes on", WAIT_TIMEOUT, async || attack.blows() > many as u64).await;
        for number in 0..4 {
            kept.send(&request(&signed(&event("meeting.join", "1")))).await;
            let answer = kept.answer().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{kind:?}: on the connection that stays: {answer}");
            // A connection may be among those that make room; the platform tries again then.
            let body = signed(&event("meeting.join", "2"));
            let what = format!("{kind:?}: event {number} is acknowledged");
            eventually(&what, ADMIN_TIMEOUT, async || {
                match http::try_post(service.convoke.events, PATH, body.clone(), &[]).await {
                    Ok(answer) => {
                        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
                        Ok(())
                    }
                    Err(error) => Err(format!("{error:?}")),
                }
            })
            .await;
            stored += 2;
        }
        // Operators see what happens.
        let open =
            timeout(ADMIN_TIMEOUT, service.metric("convoke_connections")).await.expect("the admin listener answers");
        assert!(open <= (MAX_CONNECTIONS + 1) as f64, "{kind:?}: {open} connections");
        drop(attack);
    }
    assert_eq!(service.count("events"), stored);
    assert!(service.metric("convoke_connections_evicted_total").await > 0.0);
    kept.send(&request(&signed(&event("meeting.join", "3")))).await;
    assert!(kept.answer().await.starts_with("HTTP/1.1 200 "), "nobody's flood has closed it");
}

#[tokio::test]
async fn slow_bodies_hold_no_more_memory_than_all_of_them_may_under_load() {
    many_files();
    let service = Service::start().await;
    let before = memory(service.convoke.id(), "VmRSS");
    // 120 MB of them, and each would wait for its rest.
    let attack = Attack::start(Kind::SlowBodies, target(&service.convoke), 600);
    // They are large, and read a few at a time: the others hold nothing but their connections.
    let slow = r#"convoke_rejections_total{reason="body_timeout"}"#;
    eventually("those whose turn it was have to go", WAIT_TIMEOUT, async || service.metric(slow).await > 100.0).await;
    service.acknowledged(&event("meeting.join", "1")).await;
    let most = memory(service.convoke.id(), "VmHWM");
    assert!(most - before < 90_000, "from {before} to {most} kB");
    drop(attack);
    eventually("all are gone", WAIT_TIMEOUT, async || service.metric("convoke_connections").await == 0.0).await;
}

#[tokio::test]
async fn forgeries_are_counted_each_and_logged_now_and_then_under_load() {
    let service = Service::start().await;
    let attack = Attack::start(Kind::Forgeries, target(&service.convoke), 16);
    let forged = r#"convoke_rejections_total{reason="signature"}"#;
    eventually("there are many", WAIT_TIMEOUT, async || service.metric(forged).await > 2_000.0).await;
    drop(attack);
    let seen = service.metric(forged).await;
    let log = service.convoke.logs();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused a delivery")).collect();
    // Five in ten seconds, and it took less than twenty.
    assert!((1..=10).contains(&lines.len()), "{} lines for {seen} forgeries", lines.len());
    assert!(!log.contains("王小明"), "nothing of what is forged is logged");

    // The next line says how many were not.
    let suppressed = eventually("a line says how many were left out", WAIT_TIMEOUT, async || {
        http::post(service.convoke.events, PATH, signed_by(APP_ID, "a wrong key", &event("meeting.join", "1")), &[])
            .await;
        let log = service.convoke.logs();
        let line = log.lines().rfind(|line| line.contains("refused a delivery"))?.to_owned();
        serde_json::from_str::<serde_json::Value>(&line).ok()?["suppressed"].as_u64().filter(|count| *count > 0)
    })
    .await;
    assert!(suppressed > 1_900, "{suppressed}");
}
