//! A tracing span for each request to a path that has a route.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use tracing::level_filters::LevelFilter;

use super::server::RequestId;
use crate::telemetry::traces;

/// Adds a layer that runs each request in its span. Without anyone to receive spans there is no layer: it would cost every
/// delivery a copy of its handler.
pub fn traced(router: Router, listener: &'static str) -> Router {
    if receives_spans() { router.layer(axum::middleware::from_fn_with_state(listener, request)) } else { router }
}

/// Whether there is anyone to receive spans.
pub fn receives_spans() -> bool {
    // Checks the level instead of `span_enabled!`: with per-layer filters, a negative result of the latter also disables the next
    // log line.
    LevelFilter::current() >= LevelFilter::DEBUG
}

async fn request(State(listener): State<&'static str>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let request_id = request.extensions().get::<RequestId>().map_or("", RequestId::as_str);
    let span = traces::request(listener, route, request_id, &request);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}
