//! Traces: a delivery is followed from the platform's request over the commit to the message that a consumer reads.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::Postgres,
    rig::*,
    wait::eventually,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a collector of traces was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// A collector, and its URL.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let taken = collector.clone();
        let take = move |body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).expect("a request of OTLP");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            taken.0.lock().expect("a lock").extend(scopes.flat_map(|scope| scope.spans));
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    /// The spans of this name, when there are some in this trace.
    async fn of(&self, name: &str, trace: &str) -> Vec<Span> {
        eventually(&format!("{name} is traced"), LONG_TIMEOUT, async || {
            let all = self.0.lock().expect("a lock").clone();
            let found: Vec<_> =
                all.iter().filter(|span| span.name == name && hex::encode(&span.trace_id) == trace).cloned().collect();
            if found.is_empty() { Err(format!("{all:#?}")) } else { Ok(found) }
        })
        .await
    }
}

fn text(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|it| it.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

fn ids(span: &Span) -> (String, String) {
    (hex::encode(&span.span_id), hex::encode(&span.parent_span_id))
}

async fn followed(database: &str) {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let (collector, url) = Collector::start().await;
    let convoke = convoke(database, &nats.url()).setting("OTLP_ENDPOINT", &url).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let caller = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(Sample::number(1).deliver_with(convoke.events, &[("traceparent", &caller)]).await, 200);
    assert_eq!(Sample::number(2).deliver(convoke.events).await, 200);
    let js = nats.jetstream().await;
    let messages = stream_holds(&js, 2, LONG_TIMEOUT).await;

    // The platform's context is the parent of the request and of the publish, and goes on to the consumer as it came.
    assert_eq!(messages[0].header("traceparent"), Some(&*caller));
    let request = &collector.of("request", TRACE).await[0];
    assert_eq!((&*ids(request).1, request.kind()), (CALLER, SpanKind::Server));
    assert_eq!(text(request, "http.route").as_deref(), Some("/openapi/meetingevent"));
    assert_eq!(text(request, "http.request.method").as_deref(), Some("POST"));
    assert_eq!(text(request, "http.response.status_code").as_deref(), Some("200"));
    assert!(text(request, "request_id").is_some_and(|id| id.len() == 32));
    assert_eq!(ids(&collector.of("store", TRACE).await[0]).1, ids(request).0);
    let publish = &collector.of("publish", TRACE).await[0];
    assert_eq!((&*ids(publish).1, publish.kind()), (CALLER, SpanKind::Producer));
    assert_eq!(text(publish, "messaging.message.id").as_deref(), Some(messages[0].msg_id()));

    // One without a context begins a trace.
    let given = messages[1].header("traceparent").expect("the request's own context").to_owned();
    let [version, trace, parent, flags] = given.split('-').collect::<Vec<_>>().try_into().expect("a traceparent");
    assert_eq!((version, flags), ("00", "01"));
    let request = &collector.of("request", trace).await[0];
    assert_eq!(ids(request), (parent.to_owned(), String::new()));
    assert_eq!(ids(&collector.of("publish", trace).await[0]).1, parent);

    // Cursors that did something, and requests to the API.
    let api = http::get(&format!("http://{}/api/v1/events", convoke.admin)).await;
    assert_eq!(api.status, 200);
    eventually("the rest is traced", LONG_TIMEOUT, async || {
        let all = collector.0.lock().expect("a lock").clone();
        let of_api = |span: &Span| text(span, "http.route").as_deref() == Some("/api/v1/events");
        let of_cursor = |span: &Span| span.name == "tick" && text(span, "cursor").as_deref() == Some("bus");
        if all.iter().any(of_api) && all.iter().any(of_cursor) { Ok(()) } else { Err(format!("{all:#?}")) }
    })
    .await;
    let all = collector.0.lock().expect("a lock").clone();
    assert!(all.iter().all(|span| text(span, "idle").is_none()), "what did nothing is not traced");
    assert_eq!(http::metric(convoke.admin, "convoke_trace_spans_dropped_total").await, 0.0);
}

#[tokio::test]
async fn a_delivery_is_followed_from_the_platform_to_the_consumer_sqlite() {
    followed(SQLITE).await;
}

#[tokio::test]
async fn a_delivery_is_followed_from_the_platform_to_the_consumer_postgres() {
    followed(&Postgres::start().await.url()).await;
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let mut convoke = convoke(SQLITE, "none").setting("OTLP_ENDPOINT", "http://127.0.0.1:9").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    assert_eq!(deliver(&convoke, 0..50).await.len(), 50);
    metric_over(&convoke, "convoke_trace_spans_dropped_total", 50.0, LONG_TIMEOUT).await;
    convoke.signal(rustix::process::Signal::TERM);
    assert!(convoke.wait_exit(LONG_TIMEOUT).await.success());
    assert_eq!(lines_with(&convoke, "cannot send traces"), 1);
}
