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
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};

use crate::actions::ActionQueue;
use crate::metrics::Registry;
use problem::problem;
use server::{ClientSources, Respond, drain_request};
use unknown_path::UnknownPath;

/// The routes of the events listener. Deliveries go to their handler directly, as they are nearly all that comes here; all else, and
/// deliveries with a span, goes through the router.
#[derive(Clone, Debug)]
pub struct EventsRoutes {
    router: Router,
    direct: Option<Arc<Direct>>,
}

#[derive(Debug)]
struct Direct {
    /// The path of the events, without a trailing slash.
    base: Box<str>,
    ingest: Arc<ingest::Ingest>,
}

impl EventsRoutes {
    /// The path of the events, with and without a trailing slash, and the probes.
    pub fn new(path: &str, ingest: Arc<ingest::Ingest>, health: Arc<health::Health>, sources: ClientSources) -> Self {
        let base = path.strip_suffix('/').unwrap_or(path);
        let unknown = Arc::new(UnknownPath::new(path, sources, Arc::clone(&health.refusals)));
        let events = [base, &format!("{base}/")]
            .into_iter()
            .filter(|path| !path.is_empty())
            .fold(Router::new(), |router, path| router.route(path, any(ingest::deliver)))
            .with_state(Arc::clone(&ingest));
        let router = trace::traced(events, "events")
            .merge(health::probes(health))
            .fallback_service(unknown_path::not_found.with_state(unknown))
            .method_not_allowed_fallback(method_not_allowed);
        let direct = (!trace::receives_spans()).then(|| Arc::new(Direct { base: base.into(), ingest }));
        Self { router, direct }
    }
}

impl Direct {
    fn takes(&self, request: &Request) -> bool {
        let path = request.uri().path();
        request.method() == Method::POST && path.strip_suffix('/').unwrap_or(path) == &*self.base
    }
}

impl Respond for EventsRoutes {
    async fn respond(self, request: Request) -> Response {
        match self.direct.filter(|direct| direct.takes(&request)) {
            Some(direct) => direct.ingest.respond(request).await,
            None => self.router.respond(request).await,
        }
    }
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
