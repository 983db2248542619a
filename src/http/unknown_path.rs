//! Requests to the events listener for an unknown path: most often the platform, with a slightly wrong URL.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;

use super::problem::problem;
use super::refusals::{Refusals, Rejection};
use super::server::{ClientSources, drain_request};
use crate::metrics::Label as _;
use convoke_core::throttle::Throttle;

/// Maximum number of characters of a path that are logged.
const MAX_LOGGED_CHARS: usize = 200;

/// Counts and logs requests to unknown paths.
#[derive(Debug)]
pub struct UnknownPath {
    path: String,
    sources: ClientSources,
    refusals: Arc<Refusals>,
    throttle: Throttle,
}

impl UnknownPath {
    /// `path` is where events are accepted; `sources` determines the source of a request.
    #[must_use]
    pub fn new(path: &str, sources: ClientSources, refusals: Arc<Refusals>) -> Self {
        Self { path: path.to_owned(), sources, refusals, throttle: Throttle::default() }
    }
}

/// `404`. A `GET` or `HEAD`, as scanners send it, is only counted; other requests may be the platform's, and are logged.
pub async fn not_found(State(unknown): State<Arc<UnknownPath>>, request: Request) -> Response {
    unknown.refusals.rejected(Rejection::Path);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        unknown.throttle.run("path", |suppressed| {
            let peer = unknown.sources.client(request.extensions(), request.headers());
            let path: String = request.uri().path().chars().take(MAX_LOGGED_CHARS).flat_map(char::escape_default).collect();
            let (reason, taken) = (Rejection::Path.as_str(), &unknown.path);
            let (peer, method) = (peer.map(tracing::field::display), request.method());
            tracing::warn!(peer, reason, path, %method, suppressed,
                "refused a request to another path: events are taken at {taken}; correct the URL on the platform, or listen.path");
        });
    }
    drain_request(request).await;
    problem(StatusCode::NOT_FOUND)
}
