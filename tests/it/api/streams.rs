//! Server-sent events: resuming, replicas, the page's second, slow readers, the end.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::{ALL, Scene, VIEW, access::log_in, builder, deliver, event, request, who};
use crate::{
    log_contract::fixture::Backend,
    support::service::now,
    support::{
        http::RawConnection,
        process::Convoke,
        rig::{LONG_TIMEOUT, TEN},
        wait::eventually,
    },
};

/// One server-sent event.
#[derive(Debug, Clone, Default)]
pub struct ServerSentEvent {
    id: Option<i64>,
    event: String,
    data: String,
}

impl ServerSentEvent {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A client as browsers have one.
pub struct Source {
    answer: reqwest::Response,
    ahead: String,
    /// What it would send as `Last-Event-ID`.
    last: Option<i64>,
}

impl Source {
    async fn open(convoke: &Convoke, path: &str, token: &str, last: Option<i64>) -> Self {
        Self::open_by(convoke, path, ("authorization", &format!("Bearer {token}")), last).await
    }

    pub async fn open_by(convoke: &Convoke, path: &str, by: (&str, &str), last: Option<i64>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.get(format!("http://{}{path}", convoke.admin)).header(by.0, by.1);
        let request = match last {
            Some(last) => request.header("last-event-id", last.to_string()),
            None => request,
        };
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, ahead: String::new(), last }
    }

    /// The next block; `None` at the end of the stream.
    pub async fn block(&mut self) -> Option<ServerSentEvent> {
        loop {
            if let Some((block, rest)) = self.ahead.split_once("\n\n") {
                let mut event = ServerSentEvent::default();
                for (name, value) in block.lines().filter_map(|line| line.split_once(": ")) {
                    match name {
                        "id" => event.id = Some(value.parse().expect("a number")),
                        "event" => event.event = value.to_owned(),
                        "data" => event.data = value.to_owned(),
                        _ => {}
                    }
                }
                self.ahead = rest.to_owned();
                self.last = event.id.or(self.last);
                return Some(event);
            }
            let piece = tokio::time::timeout(LONG_TIMEOUT, self.answer.chunk()).await.expect("something in time");
            match piece {
                Ok(Some(piece)) => self.ahead.push_str(std::str::from_utf8(&piece).expect("UTF-8")),
                // Also a connection that was cut is an end.
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next event that has data.
    pub async fn event(&mut self) -> Option<ServerSentEvent> {
        loop {
            match self.block().await {
                Some(event) if event.data.is_empty() => {}
                event => return event,
            }
        }
    }

    async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.event().await.expect("not the end").json());
        }
        all
    }
}

fn joined(number: i64) -> String {
    let at = 1_790_000_000_000 + number * 1000;
    event("meeting.join", at, "960000017", "run-a", &who("Ann", at, 0))
}

/// The numbers of the events that were made by [`joined`].
fn numbers(events: &[Value]) -> Vec<i64> {
    let number = |event: &Value| {
        let at = convoke_core::time::Millis::parse(event["occurred_at"].as_str().expect("a time")).expect("a time");
        (at.get() - 1_790_000_000_000) / 1000
    };
    events.iter().map(number).collect()
}

pub async fn a_stream_ends_with_the_session_that_it_was_opened_in(backend: Backend) {
    let (one, other) = (builder(&backend).start().await, builder(&backend).start().await);
    one.wait_ready(LONG_TIMEOUT).await;
    other.wait_ready(LONG_TIMEOUT).await;
    let (first, _) = log_in(&one, "token=all-of-it-and-no-less", &[]).await;
    let (second, _) = log_in(&one, "token=all-of-it-and-no-less", &[]).await;
    let mut ending = Vec::new();
    for replica in [&one, &other] {
        for path in ["/api/v1/stream", "/api/v1/live"] {
            ending.push(Source::open_by(replica, path, ("cookie", &first), None).await);
        }
    }
    let mut staying = Source::open_by(&other, "/api/v1/stream", ("cookie", &second), None).await;
    assert_eq!(request(&one, Method::POST, "/session/end", &[("cookie", &first)], "").await.status, 303);
    let signed_out = Instant::now();
    for stream in &mut ending {
        while stream.block().await.is_some() {
            assert!(signed_out.elapsed() < LONG_TIMEOUT, "it goes on");
        }
    }
    deliver(&other, &joined(1)).await;
    assert_eq!(numbers(&staying.events(1).await), [1], "another session's goes on");
}

pub async fn a_stream_goes_on_after_a_restart_without_a_gap(backend: Backend) {
    let mut scene = Scene::start(backend).await;
    scene.deliver(&joined(0)).await;
    let mut source = Source::open(&scene.convoke, "/api/v1/stream", ALL, None).await;
    let here = source.block().await.expect("a greeting");
    assert!(here.id.is_some() && here.data.is_empty(), "{here:?}");
    // Cut off before the first event: it is known all the same where to go on.
    drop(source.answer);
    scene.deliver(&joined(1)).await;
    let mut source = Source::open(&scene.convoke, "/api/v1/stream", ALL, here.id).await;
    let mut other = Source::open(&scene.convoke, "/api/v1/stream?event=meeting.end&last_event_id=0", VIEW, None).await;
    for number in 2..10 {
        scene.deliver(&joined(number)).await;
    }
    let seen = source.events(9).await;
    assert_eq!(numbers(&seen), (1..10).collect::<Vec<_>>());
    assert_eq!(seen[0], scene.all(&format!("/api/v1/events/{}", seen[0]["event_id"].as_str().expect("an id"))).await);

    scene.convoke.kill().await;
    scene.convoke.restart().await;
    scene.convoke.wait_ready(LONG_TIMEOUT).await;
    assert!(source.event().await.is_none(), "the connection went with the process");
    for number in 10..130 {
        scene.deliver(&joined(number)).await;
    }
    // More than is read at once, and then what comes while it is read.
    let mut source = Source::open(&scene.convoke, "/api/v1/stream", ALL, source.last).await;
    scene.deliver(&joined(130)).await;
    assert_eq!(numbers(&source.events(121).await), (10..131).collect::<Vec<_>>());

    let end = event("meeting.end", 1_790_001_000_000, "960000017", "run-a", "");
    scene.deliver(&end).await;
    assert!(other.event().await.is_none(), "that one was cut, too");
    let filters = "event=meeting.end&meeting=run-a&subscriber=7700001234&last_event_id=0";
    let mut filtered = Source::open(&scene.convoke, &format!("/api/v1/stream?{filters}"), VIEW, None).await;
    let only = filtered.events(1).await;
    assert_eq!((&only[0]["event"], &only[0]["masked"]), (&"meeting.end".into(), &true.into()));

    scene.convoke.signal(Signal::TERM);
    while source.event().await.is_some() {}
    assert!(scene.convoke.wait_exit(TEN).await.success(), "streams do not hold up the end");
}

pub async fn a_forgotten_person_is_reported_to_nobody_who_comes_back_to_a_stream(backend: Backend) {
    let scene = Scene::start(backend).await;
    let other = builder(&scene.backend).start().await;
    other.wait_ready(LONG_TIMEOUT).await;
    // Each keeps what it read for those who watch.
    let mut one = Source::open(&scene.convoke, "/api/v1/stream", ALL, None).await;
    let mut two = Source::open(&other, "/api/v1/stream", ALL, None).await;
    scene.deliver(&joined(0)).await;
    for source in [&mut one, &mut two] {
        assert_eq!(source.events(1).await[0]["display_name"], "Ann Li");
    }
    scene.tables(1, 1).await;
    let forgot = scene.convoke.run(&["forget", "--account", "Ann.li", "--yes"]).await;
    assert_eq!(forgot.code(), 0, "{forgot:?}");
    // This is the promise: a second later her data is sent to nobody, though nothing new came.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for convoke in [&scene.convoke, &other] {
        let mut late = Source::open(convoke, "/api/v1/stream", ALL, Some(0)).await;
        let event = late.events(1).await.remove(0);
        assert!(
            event["display_name"].is_null() && event["account"].is_null() && event["event_info"].is_null(),
            "{event}"
        );
        assert!(event["forgotten_at"].is_string(), "{event}");
    }
}

pub async fn what_the_page_shows_comes_once_a_second(backend: Backend) {
    let mut scene = Scene::start(backend).await;
    let mut source = Source::open(&scene.convoke, "/api/v1/live", VIEW, None).await;
    let first = source.event().await.expect("one at once");
    assert_eq!((first.event.as_str(), first.json()["live"]["total"].clone()), ("live", 0.into()));
    let at = now() - 1_000;
    // A room that has been open for three days, and goes on.
    let began = at - 3 * 86_400_000;
    scene.deliver(&event("meeting.started", began, "960000017", "run-a", "")).await;
    scene.deliver(&event("meeting.join", at + 1, "960000017", "run-a", &who("Ann", at + 1, 0))).await;
    let mut messages = vec![first.json()];
    let shown = loop {
        let message = source.event().await.expect("once a second").json();
        messages.push(message.clone());
        if message["live"]["total"] == 1 && message["live"]["meetings"][0]["participants_now"] == 1 {
            break message;
        }
        assert!(messages.len() < 60, "{message}");
    };
    assert_eq!(shown["newest"][0]["display_name"], "A…");
    assert_eq!((&shown["newest"][0]["event_info"], &shown["newest"][0]["masked"]), (&Value::Null, &true.into()));
    let came: i64 = messages.iter().filter_map(|message| message["rate"]["events_last_second"].as_i64()).sum();
    // A message that is not read in its second is not read at all.
    assert!(came <= 2, "an event counts once: {messages:?}");
    assert_eq!(shown["health"]["ready"], true);
    assert!(shown["minute"]["events"].as_i64().is_some_and(|events| events <= 2), "{}", shown["minute"]);
    // Nobody waits for a client that does not read when it ends.
    scene.convoke.signal(Signal::TERM);
    while source.event().await.is_some() {}
    assert!(scene.convoke.wait_exit(TEN).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_stores_is_streamed_too_and_each_goes_on_where_the_other_stopped() {
    let backend = Backend::postgres().await;
    let mut one = builder(&backend).start().await;
    let other = builder(&backend).start().await;
    one.wait_ready(LONG_TIMEOUT).await;
    other.wait_ready(LONG_TIMEOUT).await;
    let mut source = Source::open(&one, "/api/v1/stream", ALL, None).await;
    source.block().await.expect("a greeting");
    for number in 0..40 {
        deliver(if number % 2 == 0 { &one } else { &other }, &joined(number)).await;
    }
    assert_eq!(numbers(&source.events(40).await), (0..40).collect::<Vec<_>>());
    one.kill().await;
    while source.event().await.is_some() {}
    for number in 40..50 {
        deliver(&other, &joined(number)).await;
    }
    let mut source = Source::open(&other, "/api/v1/stream", ALL, source.last).await;
    assert_eq!(numbers(&source.events(10).await), (40..50).collect::<Vec<_>>());
}

/// Kilobytes of memory that a process holds.
fn resident(convoke: &Convoke) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", convoke.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_costs_no_memory_and_holds_up_nobody() {
    let mut scene = Scene::start(Backend::sqlite()).await;
    let mut slow = Vec::new();
    for path in ["stream", "stream", "live", "stream?last_event_id=0"] {
        let mut connection = RawConnection::open(scene.convoke.admin).await;
        let head = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\n\r\n");
        connection.send(head.as_bytes()).await;
        connection.read_some().await;
        slow.push(connection);
    }
    let mut quick = Source::open(&scene.convoke, "/api/v1/stream", ALL, None).await;
    quick.block().await.expect("a greeting");
    // What all four together would hold if it was kept for them is a hundred megabytes.
    let padding = "x".repeat(60_000);
    let large = |number: i64| {
        let at = 1_790_000_000_000 + number * 1000;
        format!(
            r#"{{"event":"meeting.modify","timestamp":{at},"payload":{{"meetingInfo":{{"meetingUUID":"a"}},"x":"{padding}"}}}}"#
        )
    };
    scene.deliver(&large(0)).await;
    quick.events(1).await;
    let before = resident(&scene.convoke);
    let convoke = &scene.convoke;
    let delivered = futures_util::stream::iter(1..500).map(|number| {
        let info = large(number);
        async move { deliver(convoke, &info).await }
    });
    let (seen, ()) = tokio::join!(quick.events(499), delivered.buffer_unordered(4).for_each(async |()| {}));
    assert_eq!(seen.len(), 499);
    let grown = resident(&scene.convoke).saturating_sub(before);
    assert!(grown < 60 << 10, "{grown} KiB more than before");
    scene.convoke.signal(Signal::TERM);
    assert!(scene.convoke.wait_exit(TEN).await.success(), "who does not read does not hold up the end");
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_streams_and_a_place_that_was_left_is_free() {
    let scene = Scene::start(Backend::sqlite()).await;
    let mut open = Vec::new();
    for number in 0..64 {
        open.push(
            Source::open(&scene.convoke, if number % 2 == 0 { "/api/v1/stream" } else { "/api/v1/live" }, ALL, None)
                .await,
        );
    }
    let refused = scene.ask("/api/v1/stream", ALL).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{}", refused.text());
    assert_eq!(scene.ask("/api/v1/health", ALL).await.status, 200, "everything else is answered");
    open.pop();
    eventually("the place is free", LONG_TIMEOUT, async || {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(40)).build().expect("a client");
        let request = client.get(format!("http://{}/api/v1/live", scene.convoke.admin)).bearer_auth(ALL);
        request.send().await.expect("an answer").status() == 200
    })
    .await;
}
