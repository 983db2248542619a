//! A span for each request to a path that has a route, for whoever traces.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use super::RequestId;
use crate::telemetry::traces;

/// Runs the request within its span.
pub async fn request(State(listener): State<&'static str>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let request_id = request.extensions().get::<RequestId>().map_or("", RequestId::as_str);
    let span = traces::request(listener, route, request_id, &request);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}
