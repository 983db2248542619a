//! Sends spans to a collector by OTLP over HTTP, if `telemetry.otlp_endpoint` is set.
//!
//! Ending a span never blocks: it goes through a bounded queue to a thread that sends batches. Spans that do not fit, and those
//! that the collector does not accept, are counted. The SDK's own batch processor drops spans without telling how many.

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, Value};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span as SdkSpan, SpanData, SpanExporter as _, SpanProcessor};
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use convoke_core::throttle::Throttle;

/// The path of traces below an OTLP endpoint.
const PATH: &str = "/v1/traces";

/// Maximum number of spans in the queue.
const MAX_QUEUED_SPANS: usize = 8192;

/// Maximum number of spans in a batch, and how long they are gathered for one.
const MAX_BATCH_SPANS: usize = 512;
const BATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Time limit of the collector for accepting a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of a collector's response: there is no reason for a longer one.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// How long shutdown waits for the last spans.
const LAST_SPANS_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an unreachable collector is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(600);

/// The field that marks a span in which nothing happened: such a span is not sent.
const IDLE: &str = "idle";

static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Spans that did not reach the collector: it is down or too slow.";
    IntCounter::new("convoke_trace_spans_dropped_total", help).unwrap_or_else(|error| unreachable!("{error}"))
});

static QUEUE: OnceLock<mpsc::Sender<Item>> = OnceLock::new();

enum Item {
    Span(Box<SpanData>),
    /// All spans before this one have been sent or dropped.
    End(SyncSender<()>),
}

/// The number of spans that the collector did not get.
#[must_use]
pub fn dropped() -> IntCounter {
    DROPPED.clone()
}

/// Accepts a span without blocking.
#[derive(Debug)]
struct Queue(mpsc::Sender<Item>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut SdkSpan, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let idle = span.attributes.iter().any(|it| it.key.as_str() == IDLE && it.value == Value::Bool(true));
        if !idle && self.0.try_send(Item::Span(Box::new(span))).is_err() {
            DROPPED.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The HTTP client for the collector, with the same HTTP and TLS libraries as everywhere else.
#[derive(Clone, Debug)]
struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    fn new() -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let (head, body) = self.0.request(request.map(Full::from)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(EXPORT_TIMEOUT, exchange).await?
    }
}

/// Sends the spans of this crate and of its sibling crates to the collector at `endpoint`, from a separate thread.
///
/// # Errors
/// If the thread cannot be started, or TLS cannot be set up.
pub(super) fn layer<S>(endpoint: &str) -> anyhow::Result<impl Layer<S> + use<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let resource = Resource::builder()
        .with_service_name("convoke")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Http::new()?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    exporter.set_resource(&resource);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (queue, items) = mpsc::channel(MAX_QUEUED_SPANS);
    std::thread::Builder::new().name("traces".to_owned()).spawn(move || runtime.block_on(send(items, exporter)))?;
    let queue = QUEUE.get_or_init(|| queue).clone();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_span_processor(Queue(queue)).build();
    let ours = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("convoke"))
        .with_max_level_hint(LevelFilter::DEBUG);
    Ok(tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("convoke"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(ours))
}

/// Sends what gathers within [`BATCH_INTERVAL`].
async fn send(mut items: mpsc::Receiver<Item>, exporter: SpanExporter) {
    let throttle = Throttle::new(1, LOG_INTERVAL);
    let mut gathered = Vec::with_capacity(MAX_BATCH_SPANS);
    while items.recv_many(&mut gathered, MAX_BATCH_SPANS).await > 0 {
        let (mut spans, mut ends) = (Vec::new(), Vec::new());
        for item in gathered.drain(..) {
            match item {
                Item::Span(span) => spans.push(*span),
                Item::End(done) => ends.push(done),
            }
        }
        let count = spans.len();
        if count > 0
            && let Err(error) = exporter.export(spans).await
        {
            DROPPED.inc_by(count as u64);
            throttle.run("collector", |suppressed| {
                tracing::warn!(%error, suppressed, "cannot send traces to telemetry.otlp_endpoint; they are dropped");
            });
        }
        for done in ends {
            let _ = done.try_send(());
        }
        if count < MAX_BATCH_SPANS {
            tokio::time::sleep(BATCH_INTERVAL).await;
        }
    }
}

/// Waits until the spans are sent, for a limited time.
pub(super) fn finish() {
    let Some(queue) = QUEUE.get() else { return };
    let (done, sent) = sync_channel(1);
    if queue.try_send(Item::End(done)).is_ok() {
        let _ = sent.recv_timeout(LAST_SPANS_TIMEOUT);
    }
}

/// The span of a request to `route`; its parent is named by the header `traceparent`.
pub fn request(listener: &'static str, route: &str, request_id: &str, request: &axum::extract::Request) -> Span {
    let span = tracing::debug_span!(
        "request",
        otel.kind = "server",
        listener,
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        request_id
    );
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    with_parent(span, parent)
}

/// The span in which a message is published; its parent is the message's trace context. `None`: the message has none, or spans
/// are not collected.
#[must_use]
pub fn publish(subject: &str, id: &str, traceparent: Option<&str>) -> Option<Span> {
    let parent = traceparent?;
    let span = tracing::debug_span!(
        "publish",
        otel.kind = "producer",
        messaging.system = "nats",
        messaging.destination.name = subject,
        messaging.message.id = id
    );
    (!span.is_disabled()).then(|| with_parent(span, Some(parent)))
}

fn with_parent(span: Span, traceparent: Option<&str>) -> Span {
    if let (false, Some(traceparent)) = (span.is_disabled(), traceparent) {
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        // Without a collector there is no layer that could accept it.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    }
    span
}

/// The context of the current span in the format of the header `traceparent`; `None` if nothing is traced.
#[must_use]
pub fn current() -> Option<Arc<str>> {
    QUEUE.get()?;
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove("traceparent").map(Into::into)
}
