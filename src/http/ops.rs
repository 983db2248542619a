//! What operators and their machines ask: alive, ready, metrics.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{RawQuery, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Closing;
use super::problem::problem;
use crate::intake::Intake;
use crate::metrics::Metrics;

/// What the process knows about itself.
#[derive(Debug)]
pub struct Health {
    /// Whether events can be stored.
    pub intake: Intake,
    /// Whether an end is near.
    pub closing: Closing,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The database, for people.
    pub database: String,
    /// The bus, for people; `None`: the relay is off.
    pub bus: Option<String>,
    /// The cursors, as last looked at.
    pub cursors: RwLock<Vec<CursorHealth>>,
}

/// Where a cursor stood when it was last looked at.
#[derive(Clone, Debug, Serialize)]
pub struct CursorHealth {
    /// `bus`, …
    pub name: String,
    /// Everything up to here is done.
    pub position: i64,
    /// Rows not read yet.
    pub lag_events: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Which process moves it.
    pub owner: Option<String>,
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    accepting: bool,
    stopping: bool,
    not_accepting_seconds: f64,
    /// Whether that is the least: the database has not told yet how long nobody accepted events before the start.
    not_accepting_is_lower_bound: bool,
    database: String,
    bus: BusReport,
    cursors: Vec<CursorHealth>,
}

#[derive(Serialize)]
struct BusReport {
    enabled: bool,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
}

impl Health {
    /// Whether an event that comes now could be stored.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.intake.accepting() && !self.closing.is_set()
    }

    fn report(&self) -> Report {
        Report {
            ready: self.ready(),
            accepting: self.intake.accepting(),
            stopping: self.closing.is_set(),
            not_accepting_seconds: self.intake.refusing_for().as_secs_f64(),
            not_accepting_is_lower_bound: self.intake.refusing_at_least(),
            database: self.database.clone(),
            bus: BusReport {
                enabled: self.bus.is_some(),
                connected: self.metrics.bus_connected.get() == 1,
                stream: self.bus.clone(),
            },
            cursors: self.cursors.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// Who may see the admin listener: who knows the token; without one, requests that name a loopback host. Only the token's
/// digest is kept: it is no secret to lose, and comparing two digests tells nothing, not even the token's length.
#[derive(Debug)]
pub struct Access {
    token: Option<[u8; 32]>,
}

impl Access {
    /// With this token, or without.
    #[must_use]
    pub fn new(token: Option<&SecretString>) -> Self {
        Self { token: token.map(|token| Sha256::digest(token.expose_secret()).into()) }
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), StatusCode> {
        match &self.token {
            Some(token) => {
                let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
                let sent = match sent.split_at_checked(7) {
                    Some((scheme, sent)) if scheme.eq_ignore_ascii_case(b"bearer ") => sent.trim_ascii(),
                    _ => return Err(StatusCode::UNAUTHORIZED),
                };
                let equal = Sha256::digest(sent).as_slice().ct_eq(token);
                if bool::from(equal) { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
            }
            None => {
                // HTTP/2 names the host in the URI; where both do, both must be ours.
                let header = headers.get_all(HOST).into_iter().map(|host| host.to_str().unwrap_or_default());
                let mut hosts = uri.authority().map(Authority::as_str).into_iter().chain(header).peekable();
                let named = hosts.peek().is_some();
                if named && hosts.all(is_loopback) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
            }
        }
    }
}

/// Whether `Host` names this machine: a page elsewhere that was made to resolve to it (DNS rebinding) does not.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `/livez` and bare `/readyz`.
pub fn probes(health: Arc<Health>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz).with_state(health))
}

/// The process runs.
pub async fn livez() -> Response {
    text(StatusCode::OK, "alive\n")
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    if health.ready() { text(StatusCode::OK, "ready\n") } else { text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

/// `/readyz` of the admin listener; with `?verbose` a report in JSON.
pub async fn readyz_verbose(health: State<Arc<Health>>, RawQuery(query): RawQuery) -> Response {
    if !is_verbose(query.as_deref()) {
        return readyz(health).await;
    }
    let report = health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

fn is_verbose(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

/// `/metrics`, in Prometheus' text format.
pub async fn metrics(State(health): State<Arc<Health>>) -> Response {
    health.metrics.not_accepting.set(health.intake.refusing_for().as_secs_f64());
    let mut response = health.metrics.render().into_response();
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

/// Lets through what [`Access`] allows, and bare `/readyz`.
pub async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let open = access.token.is_some() && request.uri().path() == "/readyz" && !is_verbose(request.uri().query());
    match access.check(request.uri(), request.headers()) {
        Err(status) if !open => {
            let mut response = problem(status);
            if status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
        _ => next.run(request).await,
    }
}

fn text(status: StatusCode, text: &'static str) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}
