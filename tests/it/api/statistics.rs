//! Counts over time, and how the service says that it is.

use serde_json::{Value, json};

use super::{ALL, KEY, PATH, Scene, event, who};
use crate::{
    log_contract::fixture::Backend,
    support::service::now,
    support::{http, rig::LONG_TIMEOUT, wait::eventually},
};

const MINUTE: i64 = 60_000;

fn time(ms: i64) -> String {
    convoke_core::time::Millis::new(ms).expect("a time").to_string()
}

fn sums(answer: &Value, name: &str) -> i64 {
    let points = answer["points"].as_array().expect("points");
    points.iter().map(|point| point[name].as_i64().expect("a number")).sum()
}

pub async fn statistics_count_what_happened(backend: Backend) {
    let scene = Scene::start(backend).await;
    // 2026-03-01T20:00Z: the second of March in China.
    let base = 1_772_395_200_000;
    for (uuid, name, joined, left) in [
        ("a", "Ann", base, base + 25 * MINUTE),
        ("a", "Bob", base + 12 * MINUTE, base + 14 * MINUTE),
        ("b", "Ann", base + 30 * MINUTE, 0),
    ] {
        if left > 0 {
            scene.deliver(&event("meeting.left", left, "1", uuid, &who(name, joined, left))).await;
        } else {
            scene.deliver(&event("meeting.join", joined, "1", uuid, &who(name, joined, left))).await;
        }
    }
    // Planned, and never held.
    scene.deliver(&event("meeting.create", base, "2", "c", "")).await;
    scene.tables(3, 3).await;
    let range = format!("since={}&until={}", time(base), time(base + 60 * MINUTE));

    let by_minute = scene.all(&format!("/api/v1/stats/events?{range}")).await;
    assert_eq!((&by_minute["step"], by_minute["points"].as_array().map(Vec::len)), (&json!("minute"), Some(60)));
    assert_eq!(by_minute["points"][14], json!({"at": time(base + 14 * MINUTE), "events": 1}));
    assert_eq!(sums(&by_minute, "events"), 4);
    let by_day = scene.all(&format!("/api/v1/stats/events?step=day&{range}")).await;
    assert_eq!(by_day["points"], json!([{"at": "2026-03-01T00:00:00.000Z", "events": 4}]));

    let people = scene.all(&format!("/api/v1/stats/participants?{range}")).await;
    let counts: Vec<_> =
        people["points"].as_array().expect("points").iter().map(|it| it["participants"].as_i64()).collect();
    assert_eq!(counts, [1, 2, 1, 1, 0, 0].map(Some), "{people}");
    let later = format!("since={}&until={}&step=hour", time(base + 24 * 60 * MINUTE), time(base + 26 * 60 * MINUTE));
    let people = scene.all(&format!("/api/v1/stats/participants?{later}")).await;
    assert_eq!(
        sums(&people, "participants"),
        0,
        "who was not seen leaving was there until the last that was heard: {people}"
    );

    let days = "since=2026-03-01T18:00:00Z&until=2026-03-02T18:00:00Z";
    let utc = scene.all(&format!("/api/v1/stats/meetings?{days}")).await;
    assert_eq!(
        utc["points"],
        json!([
            {"day": "2026-03-01", "meetings": 2, "participants": 2, "attendances": 3, "stays": 3},
            {"day": "2026-03-02", "meetings": 0, "participants": 0, "attendances": 0, "stays": 0},
        ])
    );
    let china = scene.all(&format!("/api/v1/stats/meetings?{days}&utc_offset_minutes=480")).await;
    assert_eq!(
        china["points"][0],
        json!({"day": "2026-03-02", "meetings": 2, "participants": 2, "attendances": 3, "stays": 3})
    );
    let month = scene.all("/api/v1/stats/meetings").await;
    assert_eq!(month["points"].as_array().map(Vec::len), Some(31), "{month}");
    let hour = scene.all("/api/v1/stats/events").await;
    assert!((60..=61).contains(&hour["points"].as_array().expect("points").len()), "{hour}");
}

pub async fn health_says_what_the_service_knows(backend: Backend) {
    let scene = Scene::start(backend).await;
    let before = now();
    scene.deliver(&event("meeting.join", before, "1", "a", &who("Ann", before, 0))).await;
    scene.deliver(r#"{"event":"","timestamp":1}"#).await;
    let forged = convoke_core::sign::envelope("7700001234", 1_790_000_000_000, "12345678", b"{}", b"another key");
    assert_eq!(http::post(scene.convoke.events, PATH, forged, &[]).await.status, 401);
    assert_eq!(http::post(scene.convoke.events, PATH, "no JSON", &[]).await.status, 400);
    let health = eventually("it has looked", LONG_TIMEOUT, async || {
        let health = scene.all("/api/v1/health").await;
        let looked =
            health["quarantined"] == 1 && health["last_event_at"].is_string() && health["cursors"][0]["position"] != 0;
        if looked { Ok(health) } else { Err(health.to_string()) }
    })
    .await;
    for (name, value) in [
        ("ready", json!(true)),
        ("accepting", json!(true)),
        ("stopping", json!(false)),
        ("seconds_until_drop", json!(null)),
        ("bus", json!({"enabled": false, "connected": false, "stream": null})),
        ("subscription", json!({"watched": false, "status": null})),
        ("set_aside", json!({"bus": 0, "meetings": 0, "recordings": 0})),
    ] {
        assert_eq!(health[name], value, "{name}: {health}");
    }
    assert_eq!(health["database"]["reachable"], true);
    assert_eq!(health["disk_free_bytes"].is_u64(), scene.backend.postgres.is_none(), "{health}");
    assert_eq!(health["subscribers"][0]["subscriber_id"], "7700001234");
    assert!(!health.to_string().contains(KEY) && !health.to_string().contains(ALL), "no secret in {health}");
    let refusals = scene.all("/api/v1/refusals").await;
    assert_eq!((&refusals["total"], &refusals["by_reason"]), (&json!(2), &json!({"not_json": 1, "signature": 1})));
    assert!(refusals["minutes"].as_u64().is_some_and(|minutes| minutes <= 60), "{refusals}");
}
