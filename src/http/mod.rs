//! The listeners: all routes, and who may access them.
//!
//! | listener | route | what |
//! |---|---|---|
//! | events | `POST {listen.path}` | [`ingest`] |
//! | both | `GET /livez`, `GET /readyz` | [`health`] |
//! | admin | `GET /`, `GET /assets/…` | [`page`], behind [`auth`] |
//! | admin | `GET /metrics`, `GET /readyz?verbose` | [`health`], behind [`auth`]: a token, or on loopback only |
//! | admin | `POST /session`, `POST /session/end` | [`auth::login`] |
//! | admin | `GET /api/v1/…`, `POST` for actions | [`api`], behind [`auth`] |
//!
//! Below the routes is the [`server`], with all limits on connections, heads and bodies.

pub mod api;
pub mod auth;
mod headers;
pub mod health;
pub mod ingest;
pub mod page;
mod problem;
pub mod refusals;
pub mod server;
pub mod summary;
mod trace;
mod unknown_path;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::handler::Handler as _;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};

use crate::actions::ActionQueue;
use crate::metrics::Registry;
use problem::problem;
use server::{ClientSources, drain_request};
use unknown_path::UnknownPath;

/// The routes of the events listener: the path of the events, with and without a trailing slash.
pub fn events_router(
    path: &str,
    ingest: Arc<ingest::Ingest>,
    health: Arc<health::Health>,
    sources: ClientSources,
) -> Router {
    let base = path.strip_suffix('/').unwrap_or(path);
    let unknown = Arc::new(UnknownPath::new(path, sources, Arc::clone(&health.refusals)));
    let events = [base, &format!("{base}/")]
        .into_iter()
        .filter(|path| !path.is_empty())
        .fold(Router::new(), |router, path| router.route(path, any(ingest::deliver)))
        .with_state(ingest);
    trace::traced(events, "events")
        .merge(health::probes(health))
        .fallback_service(unknown_path::not_found.with_state(unknown))
        .method_not_allowed_fallback(method_not_allowed)
}

/// The routes of the admin listener.
pub fn admin_router(
    health: &Arc<health::Health>,
    registry: Registry,
    access: Arc<auth::Access>,
    streams: Arc<api::streams::Streams>,
    actions: Arc<ActionQueue>,
) -> Router {
    Router::new()
        .route("/metrics", get(health::metrics).with_state(registry))
        .route("/readyz", get(health::readyz_verbose).with_state(Arc::clone(health)))
        .merge(page::router())
        .merge(trace::traced(api::router(streams, actions), "admin"))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .merge(auth::login::router(Arc::clone(&access)))
        .layer(axum::middleware::from_fn_with_state(access, auth::guard))
        .route("/livez", get(health::livez))
        .layer(axum::middleware::from_fn(headers::protect))
}

/// `404`, for every path without a route.
pub async fn not_found(request: Request) -> Response {
    drain_request(request).await;
    problem(StatusCode::NOT_FOUND)
}

/// `405`, for paths that are read-only or only accept `POST`.
pub async fn method_not_allowed(request: Request) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let only_post = matched.is_some_and(|path| api::ONLY_POST.contains(&path.as_str()));
    drain_request(request).await;
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED);
    let allowed = if only_post { "POST" } else { "GET, HEAD" };
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
