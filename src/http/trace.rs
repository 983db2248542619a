//! A span for each request to a path that has a route, for whoever traces.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use tracing::level_filters::LevelFilter;

use super::server::RequestId;
use crate::telemetry::traces;

/// The routes, each request within its span. Where nobody wants spans there is no layer either: it would cost each delivery a
/// copy of its handler.
pub fn traced(router: Router, listener: &'static str) -> Router {
    // The level is asked, not `span_enabled!`: with a filter for each layer, what that disables disables the next line of the log, too.
    if LevelFilter::current() >= LevelFilter::DEBUG {
        router.layer(axum::middleware::from_fn_with_state(listener, request))
    } else {
        router
    }
}

async fn request(State(listener): State<&'static str>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let request_id = request.extensions().get::<RequestId>().map_or("", RequestId::as_str);
    let span = traces::request(listener, route, request_id, &request);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}
