//! What operators do by way of the API: a preview changes nothing, an id does it once, and nobody else does it.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{ALL, Scene, VIEW, ask, deliver, event, items, request};
use crate::{
    log_contract::fixture::Backend,
    support::{
        http::Answer,
        nats::{NatsOptions, NatsServer, NatsVersion},
        process::Convoke,
        rig::{self, APP_ID, LONG_TIMEOUT, STREAM, lines_with, read_stream, stream_holds},
        sign::signed,
        wait::eventually,
    },
};

const RETRY: &str = "/api/v1/quarantine/retry";
const DISCARD: &str = "/api/v1/quarantine/discard";
const REPLAY: &str = "/api/v1/replay";

async fn post(convoke: &Convoke, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let body: &'static str = body.to_string().leak();
    request(convoke, Method::POST, path, headers, body).await
}

/// Of who may act, answered with 200.
async fn act(convoke: &Convoke, path: &str, body: Value) -> Value {
    let token = format!("Bearer {ALL}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let answer = post(convoke, path, &headers, &body).await;
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
    answer.json()
}

async fn quarantined(scene: &Scene) -> Vec<i64> {
    let list = scene.all("/api/v1/quarantine").await;
    items(&list).iter().rev().map(|entry| entry["id"].as_i64().expect("a number")).collect()
}

pub async fn the_quarantine_is_retried_and_discarded_once_for_each_id(backend: Backend) {
    let scene = Scene::start(backend).await;
    let convoke = &scene.convoke;
    // In microseconds, where the platform sends milliseconds; and what is no event at all.
    scene.deliver(&event("meeting.started", 1_790_000_000_000_000, "960000017", "run-a", "")).await;
    scene.deliver(r#"{"event":"","timestamp":1}"#).await;
    let ids = quarantined(&scene).await;
    let preview = act(convoke, RETRY, json!({ "all": true })).await;
    assert_eq!(
        (&preview["state"], &preview["count"], &preview["would_change"]),
        (&json!("preview"), &json!(2), &json!(0))
    );
    let preview = act(convoke, RETRY, json!({ "ids": ids, "unit": "microseconds" })).await;
    assert_eq!(preview["would_change"], 1, "{preview}");
    assert_eq!(preview["entries"][0], json!({ "id": ids[0], "result": "event" }));
    assert_eq!(quarantined(&scene).await, ids, "a preview changes nothing");

    let retry = json!({ "action_id": "retry-0001", "confirm": true, "ids": ids, "unit": "microseconds" });
    let done = act(convoke, RETRY, retry.clone()).await;
    assert_eq!(
        (&done["state"], &done["who"], &done["done"]),
        (&json!("done"), &json!("admin.token"), &json!(2)),
        "{done}"
    );
    assert_eq!(done["counts"], json!({ "stored": 1, "stays": 1 }));
    assert_eq!(quarantined(&scene).await, ids[1..]);
    assert_eq!(items(&scene.all("/api/v1/events").await).len(), 1);
    assert_eq!(act(convoke, RETRY, retry).await, done, "the same id does it once");
    let other = json!({ "action_id": "retry-0001", "confirm": true, "ids": [ids[1]] });
    let headers = [("authorization", format!("Bearer {ALL}")), ("content-type", "application/json".to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(post(convoke, RETRY, &headers, &other).await.status, 409, "and nothing else");

    let discard = json!({ "ids": [ids[1], 999_999] });
    assert_eq!(act(convoke, DISCARD, discard).await["would_change"], 1);
    assert_eq!(quarantined(&scene).await, ids[1..]);
    let discard = json!({ "action_id": "discard-0001", "confirm": true, "ids": [ids[1], 999_999] });
    let done = act(convoke, DISCARD, discard.clone()).await;
    assert_eq!(done["counts"], json!({ "deleted": 1, "absent": 1 }));
    assert_eq!(quarantined(&scene).await, [0_i64; 0]);
    assert_eq!(act(convoke, DISCARD, discard).await, done);

    // Whoever looks sees what was done, and the log says it.
    let list = ask(convoke, "/api/v1/actions", VIEW).await.json();
    let ids: Vec<&str> = items(&list).iter().filter_map(|action| action["action_id"].as_str()).collect();
    assert_eq!(ids, ["discard-0001", "retry-0001"]);
    assert_eq!(ask(convoke, "/api/v1/actions/discard-0001", VIEW).await.json(), done);
    assert_eq!(ask(convoke, "/api/v1/actions/discard-0002", VIEW).await.status, 404);
    eventually("the log says who did what", LONG_TIMEOUT, async || {
        let ended = lines_with(convoke, "an operator's action ended");
        if ended == 2 && convoke.logs().contains("quarantine discard") { Ok(()) } else { Err(convoke.logs()) }
    })
    .await;
    let headers = [("authorization", format!("Bearer {ALL}"))];
    let bare =
        post(convoke, REPLAY, &headers.each_ref().map(|(name, value)| (*name, value.as_str())), &json!({})).await;
    assert_eq!(bare.status, 415, "only JSON");
    let headers = [headers[0].clone(), ("content-type", "application/json".to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    for (path, body, said) in [
        (REPLAY, json!({ "missing": true }), "nats.url is none"),
        (REPLAY, json!({}), "say what to replay"),
        (REPLAY, json!({ "missing": true, "since": "2026-01-01" }), "without since"),
        (REPLAY, json!({ "since": "SECRET" }), "RFC 3339"),
        (RETRY, json!({ "SECRET": 1 }), "one of"),
        (RETRY, json!({ "ids": ["SECRET"] }), "expected i64"),
        (RETRY, json!({ "all": true, "unit": "SECRET" }), "seconds microseconds"),
        (RETRY, json!({ "ids": vec![1; 101] }), "1 to 100"),
        (DISCARD, json!({ "confirm": true, "ids": [1] }), "action_id"),
        (DISCARD, json!({ "confirm": true, "ids": [1], "action_id": "short" }), "action_id"),
        (DISCARD, json!({}), "ids"),
    ] {
        let answer = post(convoke, path, &headers, &body).await;
        assert!(answer.status == 400 && answer.text().contains(said), "{body}: {}", answer.text());
        assert!(!answer.text().contains("SECRET"), "{}", answer.text());
    }
}

pub async fn what_the_stream_misses_and_a_range_are_replayed_once_for_each_id(backend: Backend) {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let convoke = rig::convoke(&backend.url, &nats.url()).setting("ADMIN_TOKEN", ALL).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    for (n, meeting) in [(1, "960000017"), (2, "960000017"), (3, "960000018")] {
        deliver(&convoke, &event("meeting.modify", 1_790_000_000_000 + n, meeting, "run", "")).await;
    }
    let jetstream = nats.jetstream().await;
    stream_holds(&jetstream, 3, LONG_TIMEOUT).await;
    let held = async || read_stream(&jetstream, STREAM).await.len();

    let one = json!({ "meeting": "960000017", "again": true });
    // The relay notes how far it is a little later.
    eventually("both are counted", LONG_TIMEOUT, async || {
        let preview = act(&convoke, REPLAY, one.clone()).await;
        if preview["count"] == 2 && preview["at_least"] == false { Ok(()) } else { Err(preview) }
    })
    .await;
    assert_eq!(held().await, 3, "a preview changes nothing");
    let one = json!({ "action_id": "replay-0001", "confirm": true, "meeting": "960000017", "again": true });
    let done = act(&convoke, REPLAY, one.clone()).await;
    assert_eq!(
        (&done["state"], &done["total"], &done["counts"]["new"]),
        (&json!("done"), &json!(2), &json!(2)),
        "{done}"
    );
    assert_eq!((act(&convoke, REPLAY, one).await, held().await), (done, 5), "the same id does it once");

    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    stream.delete_message(3).await.expect("deleted");
    let missing = act(&convoke, REPLAY, json!({ "missing": true })).await;
    assert_eq!((&missing["count"], held().await), (&json!(1), 4), "{missing}");
    let missing = json!({ "action_id": "replay-0002", "confirm": true, "missing": true });
    let done = act(&convoke, REPLAY, missing).await;
    assert_eq!((&done["counts"]["new"], &done["message"]), (&json!(1), &Value::Null), "{done}");
    assert_eq!(held().await, 5);
    // The relay goes on.
    deliver(&convoke, &event("meeting.modify", 1_790_000_000_004, "960000019", "run", "")).await;
    stream_holds(&jetstream, 6, LONG_TIMEOUT).await;
}

/// Bodies that are events if their times are read in microseconds, of before this service.
async fn quarantine(backend: &Backend, entries: u32) {
    let blob = |text: &str| match &backend.postgres {
        Some(_) => format!("convert_to(({text})::text, 'UTF8')"),
        None => format!("CAST(({text}) AS BLOB)"),
    };
    let body = signed(&event("meeting.modify", 1_790_000_000_000_000, "960000017", "run-a", ""));
    let body = String::from_utf8(body.to_vec())
        .expect("JSON")
        .replace("1790000000000000", "' || (1790000000000000 + i * 1000) || '");
    let (digest, body) = (blob("i"), blob(&format!("'{body}'")));
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {entries})
         INSERT INTO quarantine (digest, subscriber_id, received_at, deliveries, reason, body)
         SELECT {digest}, '{APP_ID}', '2026-11-01T00:00:00.000Z', 1, 'implausible time', {body} FROM n"
    );
    backend.execute(&sql).await;
}

async fn count(backend: &Backend, table: &str) -> u64 {
    backend.value(&format!("SELECT count(*) FROM {table}")).await.parse().expect("a number")
}

/// What became of an action, which may take its time.
async fn ended(convoke: &Convoke, id: &str) -> Value {
    let path = format!("/api/v1/actions/{id}");
    eventually("it has ended", LONG_TIMEOUT, async || {
        let action = ask(convoke, &path, VIEW).await.json();
        if ["running", ""].contains(&action["state"].as_str().unwrap_or_default()) { Err(action) } else { Ok(()) }
    })
    .await;
    ask(convoke, &path, VIEW).await.json()
}

pub async fn an_action_that_a_stop_interrupts_says_so_and_another_does_the_rest(backend: Backend) {
    const ENTRIES: u32 = 1_500;
    let mut scene = Scene::start(backend).await;
    quarantine(&scene.backend, ENTRIES).await;
    let total = u64::from(ENTRIES);
    let token = format!("Bearer {ALL}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let retry = |id: &str| json!({ "action_id": id, "confirm": true, "all": true, "unit": "microseconds" });
    let first = retry("retry-interrupted");
    let begun = eventually("it has begun", LONG_TIMEOUT, async || {
        let left = count(&scene.backend, "quarantine").await;
        if left < total { Ok(()) } else { Err(left) }
    });
    // Whoever asks goes before the answer.
    tokio::select! {
        answer = post(&scene.convoke, RETRY, &headers, &first) => panic!("{}", answer.text()),
        () = begun => {}
    }
    scene.convoke.signal(Signal::TERM);
    assert!(scene.convoke.wait_exit(LONG_TIMEOUT).await.success());
    let left = count(&scene.backend, "quarantine").await;
    assert!((1..total).contains(&left), "{left}");

    scene.convoke.restart().await;
    scene.convoke.wait_ready(LONG_TIMEOUT).await;
    let stopped = ask(&scene.convoke, "/api/v1/actions/retry-interrupted", VIEW).await.json();
    assert_eq!((&stopped["state"], &stopped["done"]), (&json!("stopped"), &json!(total - left)), "{stopped}");
    assert_eq!(stopped["counts"], json!({ "stored": total - left }));
    assert!(stopped["ended_at"].is_string(), "{stopped}");
    assert_eq!(act(&scene.convoke, RETRY, first).await, stopped, "its id does nothing more");
    assert_eq!(count(&scene.backend, "quarantine").await, left);

    let answer = post(&scene.convoke, RETRY, &headers, &retry("retry-the-rest")).await;
    assert!([200, 202].contains(&answer.status), "{}", answer.text());
    let rest = ended(&scene.convoke, "retry-the-rest").await;
    assert_eq!((&rest["state"], &rest["counts"]), (&json!("done"), &json!({ "stored": left })), "{rest}");
    assert_eq!((count(&scene.backend, "quarantine").await, count(&scene.backend, "events").await), (0, total));
}

pub async fn the_same_id_at_once_at_two_replicas_is_done_once(backend: Backend) {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let builder =
        || rig::convoke(&backend.url, &nats.url()).setting("ADMIN_TOKEN", ALL).setting("ADMIN_VIEWER_TOKEN", VIEW);
    let (one, other) = (builder().start().await, builder().start().await);
    one.wait_ready(LONG_TIMEOUT).await;
    other.wait_ready(LONG_TIMEOUT).await;
    for n in 1..=3 {
        deliver(&one, &event("meeting.modify", 1_790_000_000_000 + n, "960000017", "run", "")).await;
    }
    let jetstream = nats.jetstream().await;
    stream_holds(&jetstream, 3, LONG_TIMEOUT).await;
    let range = json!({ "meeting": "960000017", "again": true });
    eventually("all are counted", LONG_TIMEOUT, async || {
        let preview = act(&other, REPLAY, range.clone()).await;
        if preview["count"] == 3 { Ok(()) } else { Err(preview) }
    })
    .await;
    let token = format!("Bearer {ALL}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let replay = json!({ "action_id": "replay-at-once", "confirm": true, "meeting": "960000017", "again": true });
    let asked = async |convoke| post(convoke, REPLAY, &headers, &replay).await;
    let (a, b, c, d) = tokio::join!(asked(&one), asked(&other), asked(&one), asked(&other));
    for answer in [a, b, c, d] {
        assert!([200, 202].contains(&answer.status), "{}", answer.text());
        assert_eq!(answer.json()["action_id"], "replay-at-once");
    }
    let done = ended(&one, "replay-at-once").await;
    assert_eq!((&done["state"], &done["counts"]["new"]), (&json!("done"), &json!(3)), "{done}");
    assert_eq!(ended(&other, "replay-at-once").await, done);
    assert_eq!(act(&other, REPLAY, replay).await, done, "whichever is asked");
    assert_eq!(read_stream(&jetstream, STREAM).await.len(), 6, "each was published once more");
    assert_eq!(items(&ask(&other, "/api/v1/actions", VIEW).await.json()).len(), 1);
    // The relay goes on.
    deliver(&other, &event("meeting.modify", 1_790_000_000_009, "960000019", "run", "")).await;
    stream_holds(&jetstream, 7, LONG_TIMEOUT).await;
}

#[tokio::test]
async fn nobody_acts_without_the_right_and_no_page_of_another_site_does() {
    let scene = Scene::start(Backend::sqlite()).await;
    let convoke = &scene.convoke;
    scene.deliver(r#"{"event":"","timestamp":1}"#).await;
    let id = quarantined(&scene).await[0];
    let body = json!({ "action_id": "discard-0001", "confirm": true, "ids": [id] });
    let json_type = ("content-type", "application/json");
    let (all, view) = (format!("Bearer {ALL}"), format!("Bearer {VIEW}"));
    for path in [RETRY, DISCARD, REPLAY] {
        let refused = post(convoke, path, &[("authorization", &view), json_type], &body).await;
        assert!(refused.status == 403 && refused.text().contains("operate"), "{}", refused.text());
        assert_eq!(post(convoke, path, &[json_type], &body).await.status, 401);
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = request(convoke, method, path, &[("authorization", &all)], "").await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
        }
    }
    let (cookie, _) = super::access::log_in(convoke, "token=all-of-it-and-no-less", &[]).await;
    for foreign in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        let forged = post(convoke, DISCARD, &[foreign, json_type, ("cookie", &cookie)], &body).await;
        assert_eq!(forged.status, 403, "{foreign:?}");
    }
    // What a form of another site could send, were it let through.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let form = post(convoke, DISCARD, &[("content-type", kind), ("cookie", &cookie)], &body).await;
        assert_eq!(form.status, 415, "{kind}");
    }
    assert_eq!(quarantined(&scene).await, [id], "nothing was done");
    assert_eq!(scene.all("/api/v1/actions").await["items"], json!([]));
    let ours = [("sec-fetch-site", "same-origin"), json_type, ("cookie", cookie.as_str())];
    assert_eq!(post(convoke, DISCARD, &ours, &body).await.status, 200);
    assert_eq!(quarantined(&scene).await, [0_i64; 0]);

    // Without any token there is nobody to act.
    let backend = Backend::sqlite();
    let open = rig::convoke(&backend.url, "none").start().await;
    open.wait_ready(LONG_TIMEOUT).await;
    assert_eq!(post(&open, DISCARD, &[json_type], &body).await.status, 403);
}
