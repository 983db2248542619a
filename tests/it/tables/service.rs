//! The tables beside everything else that the service does.

use serde_json::json;

use super::{
    as_json::Seen,
    projection::{UUID, event, who},
};
use crate::{
    log_contract::fixture::Backend,
    support::{
        http,
        process::Convoke,
        rig::{APP_ID, KEY, LONG_TIMEOUT, PATH, convoke},
        sign,
        wait::eventually,
    },
};

async fn deliver(convoke: &Convoke, info: &str) {
    let body = convoke_core::sign::envelope(APP_ID, sign::NOW, "12345678", info.as_bytes(), KEY.as_bytes());
    assert_eq!(http::post(convoke.events, PATH, body, &[]).await.status, 200);
}

async fn stays(backend: &Backend, count: usize) -> Seen {
    eventually(&format!("{count} stays"), LONG_TIMEOUT, async || {
        let there = backend.value("SELECT count(*) FROM attendance").await;
        if there == count.to_string() { Ok(()) } else { Err(there) }
    })
    .await;
    Seen::of(backend).await
}

pub async fn events_are_taken_while_the_tables_cannot_be_written(backend: Backend) {
    let convoke = convoke(&backend.url, "none").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    deliver(&convoke, &event("meeting.join", 20, &who("p1", 10, 0))).await;
    stays(&backend, 1).await;
    backend.execute("ALTER TABLE attendance RENAME TO hidden").await;
    for n in 2..=5 {
        deliver(&convoke, &event("meeting.join", n * 20, &who(&format!("p{n}"), n * 10, 0))).await;
    }
    eventually("it is said", LONG_TIMEOUT, async || convoke.logs().contains("cannot process the log")).await;
    assert_eq!(http::get(&format!("http://{}/readyz", convoke.events)).await.status, 200);
    eventually("the lag is shown", LONG_TIMEOUT, async || {
        http::metric(convoke.admin, r#"convoke_cursor_lag_events{cursor="meetings"}"#).await == 4.0
    })
    .await;
    backend.execute("ALTER TABLE hidden RENAME TO attendance").await;
    assert_eq!(stays(&backend, 5).await.meetings[0]["stays"], 5);
    let set_aside = http::metric(convoke.admin, r#"convoke_set_aside{cursor="meetings"}"#).await;
    assert_eq!(set_aside, 0.0, "it was no event's fault");
}

pub async fn a_rebuild_beside_the_service_repairs_the_tables(backend: Backend) {
    let convoke = convoke(&backend.url, "none").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    deliver(&convoke, &event("meeting.started", 0, "")).await;
    deliver(&convoke, &event("meeting.join", 20, &who("p1", 10, 0))).await;
    let expected = stays(&backend, 1).await;
    backend.execute("UPDATE attendance SET display_name = 'somebody else'").await;
    backend.execute("UPDATE meetings SET status = 'concluded'").await;
    let rebuilt = convoke.run(&["rebuild", "--yes"]).await;
    assert_eq!(rebuilt.code(), 0, "{}", rebuilt.stderr);
    assert!(rebuilt.stdout.contains("1 meeting, 1 stay and 0 recordings"), "{}", rebuilt.stdout);
    assert_eq!(Seen::of(&backend).await, expected);
    // The service goes on.
    deliver(&convoke, &event("meeting.join", 40, &who("p2", 30, 0))).await;
    stays(&backend, 2).await;

    // What the log does not have any more is not thrown away by accident.
    backend.execute(&format!("DELETE FROM events WHERE meeting_uuid = '{UUID}' AND event = 'meeting.started'")).await;
    let refused = convoke.run(&["rebuild", "--yes"]).await;
    assert!(refused.code() == 1 && refused.stderr.contains("--drop-expired"), "{}", refused.stderr);
    let rebuilt = convoke.run(&["rebuild", "--drop-expired", "--yes"]).await;
    assert_eq!(rebuilt.code(), 0, "{}", rebuilt.stderr);
    let seen = Seen::of(&backend).await;
    assert_eq!((&seen.meetings[0]["started_at"], seen.attendance.len()), (&json!(null), 2));
}

pub async fn the_report_shows_where_the_cursor_is_without_a_bus(backend: Backend) {
    let convoke = convoke(&backend.url, "none").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    deliver(&convoke, &event("meeting.join", 20, &who("p1", 10, 0))).await;
    stays(&backend, 1).await;
    let head: i64 = backend.value("SELECT max(seq) FROM events").await.parse().expect("a number");
    eventually("the cursor is in the report", LONG_TIMEOUT, async || {
        let report = http::get(&format!("http://{}/readyz?verbose", convoke.admin)).await.json();
        let cursor = &report["cursors"][0];
        let there = cursor["name"] == "meetings" && cursor["position"] == head && cursor["lag_events"] == 0;
        if there && cursor["owner"].is_string() { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
}
