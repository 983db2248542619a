//! What operators and their machines ask: alive, ready, metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::Closing;
use super::helpers::{Helper, Helpers};
use super::last_hour::LastHour;
use crate::intake::Intake;
use crate::metrics::Metrics;
use convoke_core::event::Subscriber;
use convoke_core::time::Millis;

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
    /// Whether the subscription at the platform is watched.
    pub subscription_watched: bool,
    /// What was refused.
    pub last_hour: LastHour,
    /// How the helpers are.
    pub helpers: Arc<Helpers>,
    subscribers: RwLock<Arc<[Known]>>,
    known: RwLock<Looked>,
}

/// Somebody who may send events.
#[derive(Clone, Debug)]
pub struct Known {
    /// The `appID`.
    pub id: Arc<str>,
    /// A name for people.
    pub name: Option<String>,
}

/// What the database told when it was last looked at.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Whether it answered.
    pub reachable: bool,
    /// Bytes free where it lies, if it is embedded.
    pub disk_free: Option<u64>,
    /// The cursors.
    pub cursors: Vec<CursorHealth>,
    /// When the newest event of the log arrived.
    pub newest: Option<Millis>,
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
    /// Why no event can be stored, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_accepting_reason: Option<String>,
    database: String,
    bus: BusReport,
    cursors: Vec<CursorHealth>,
    tasks: BTreeMap<&'static str, Helper>,
}

#[derive(Serialize)]
struct BusReport {
    enabled: bool,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
}

impl Health {
    /// Of a process that has not looked at anything yet.
    #[must_use]
    pub fn new(
        intake: Intake,
        closing: Closing,
        metrics: Arc<Metrics>,
        database: String,
        bus: Option<String>,
        subscription_watched: bool,
    ) -> Self {
        Self {
            helpers: Arc::new(Helpers::new(Arc::clone(&metrics))),
            intake,
            closing,
            metrics,
            database,
            bus,
            subscription_watched,
            last_hour: LastHour::default(),
            subscribers: RwLock::new(Arc::new([])),
            known: RwLock::default(),
        }
    }

    /// Those who may send events from now on.
    pub fn set_subscribers(&self, subscribers: &[Subscriber]) {
        let known = |one: &Subscriber| Known { id: Arc::clone(&one.app_id), name: one.name.clone() };
        *self.subscribers.write().unwrap_or_else(PoisonError::into_inner) = subscribers.iter().map(known).collect();
    }

    /// Those who may send events.
    #[must_use]
    pub fn subscribers(&self) -> Arc<[Known]> {
        Arc::clone(&self.subscribers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the database told last.
    #[must_use]
    pub fn known(&self) -> Looked {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the database told.
    pub fn look(&self, change: impl FnOnce(&mut Looked)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

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
            not_accepting_reason: self.intake.refusing_because(),
            database: self.database.clone(),
            bus: BusReport {
                enabled: self.bus.is_some(),
                connected: self.metrics.bus_connected.get() == 1,
                stream: self.bus.clone(),
            },
            cursors: self.known().cursors,
            tasks: self.helpers.all(),
        }
    }
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

/// Whether the query asks for the report.
pub(super) fn is_verbose(query: Option<&str>) -> bool {
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

fn text(status: StatusCode, text: &'static str) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}
