//! Health for operators and their monitoring: liveness, readiness, metrics.

mod helpers;
mod last_seen;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use tokio::sync::watch;
use utoipa::ToSchema;

use super::refusals::Refusals;
use super::server::{Certificates, Closing};
use super::summary::DeliverySummary;
use crate::completeness::task::LastFound as Completeness;
use crate::intake::Intake;
use crate::metrics::Registry;
use crate::subscription::SubscriptionStatus;
use crate::{enrichment, projection, recordings, relay};
use convoke_bus::Bus;
use convoke_core::event::Subscriber;
use convoke_core::time::Millis;
use convoke_log::WorkCounts;
pub use helpers::{Helper, Helpers};
pub use last_seen::{LastSeen, Latest, NamedSubscriber, SubscriberSeen};

/// All cursors of this version.
pub const CURSORS: [&str; 3] = [relay::CURSOR, projection::CURSOR, recordings::CURSOR];

/// What the process knows about its own state.
#[derive(Debug)]
pub struct Health {
    /// Tells whether events can be stored.
    pub intake: Intake,
    /// Whether a shutdown is near.
    pub closing: Closing,
    /// A description of the database, as text.
    pub database: String,
    /// `None`: the relay is off.
    pub bus: Option<Arc<Bus>>,
    /// The certificate of the events listener; `None`: plain HTTP.
    pub certificates: Option<Certificates>,
    /// The state of the subscription at the platform, as far as this process knows; `None`: it is not watched.
    pub subscription: Option<watch::Receiver<Option<SubscriptionStatus>>>,
    /// Whether the platform's counts are compared with the tables.
    pub compares: bool,
    /// Counts of what was refused.
    pub refusals: Arc<Refusals>,
    /// Counts of the outcomes of deliveries.
    pub deliveries: DeliverySummary,
    /// When each subscriber was last seen.
    pub last_seen: Arc<LastSeen>,
    /// The state of the helpers.
    pub helpers: Arc<Helpers>,
    /// The configured subscribers.
    pub(crate) subscribers: RwLock<Arc<[NamedSubscriber]>>,
    /// The values that were last read from the database.
    pub(crate) known: RwLock<KnownState>,
}

/// Values read from the database.
#[derive(Clone, Debug, Default)]
pub struct KnownState {
    /// Whether the database answered.
    pub reachable: bool,
    /// Free disk space for the database in bytes, if it is embedded.
    pub disk_free: Option<u64>,
    /// The state of the cursors.
    pub cursors: Vec<CursorHealth>,
    /// When the newest event of the log arrived.
    pub newest: Option<Millis>,
    /// Whether a clock or a cursor holds retention back.
    pub retention_blocked: bool,
    /// Number of entries in the quarantine.
    pub quarantined: i64,
    /// Number of rows that each cursor set aside.
    pub set_aside: BTreeMap<&'static str, i64>,
    /// What the last comparison with the platform's counts found, by any replica.
    pub completeness: Completeness,
    /// Counts of the work lists for the platform's API.
    pub work: BTreeMap<&'static str, WorkCounts>,
}

/// A reader of the log.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Cursor)]
pub struct CursorHealth {
    /// `bus`, `meetings` or `recordings`.
    pub name: String,
    /// Everything up to this place in the log is done.
    pub position: i64,
    /// Rows that it has not read.
    pub lag_events: u64,
    /// Age of the oldest of them, in seconds.
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
    /// Whether that is only a lower bound: how long no process accepted events before the start has not been read yet.
    not_accepting_is_lower_bound: bool,
    /// Why events cannot be stored, as text.
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

/// A count as the value of a gauge.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
const fn shown(count: u64) -> f64 {
    count as f64
}

impl Health {
    /// Registers gauges that are computed at each scrape.
    pub fn register(self: &Arc<Self>, registry: &Registry) {
        let show = |name: &str, help: &str, labels: &[(&str, &str)], value: Box<dyn Fn(&Self) -> f64 + Send + Sync>| {
            let health = Arc::clone(self);
            registry.show(name, help, labels, move || value(&health));
        };
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let quarantined = |health: &Self| health.known().quarantined as f64;
        show("convoke_quarantined", "Entries in the quarantine.", &[], Box::new(quarantined));
        let connected = |health: &Self| f64::from(health.connected());
        show("convoke_bus_connected", "1 while there is a connection to NATS.", &[], Box::new(connected));
        show(
            "convoke_retention_blocked",
            "1 while events beyond database.retention are not deleted: the database's clock is wrong, no event \
             arrived for that long, or a cursor has not read them. Run convoke check.",
            &[],
            Box::new(|health| f64::from(health.known().retention_blocked)),
        );
        show(
            "convoke_disk_free_bytes",
            "Free bytes on the disk of the embedded database.",
            &[],
            Box::new(|health| shown(health.known().disk_free.unwrap_or(0))),
        );
        show(
            "convoke_tls_expiry_timestamp_seconds",
            "Expiry of the TLS certificate; 0 without TLS.",
            &[],
            Box::new(|health| health.certificates.as_ref().map_or(0.0, |shown| shown.expires().seconds())),
        );
        for cursor in CURSORS {
            let labels = [("cursor", cursor)];
            let lag = move |health: &Self| health.known().cursors.into_iter().find(|known| known.name == cursor);
            show(
                "convoke_cursor_lag_events",
                "Rows that a cursor has not read yet.",
                &labels,
                Box::new(move |health| lag(health).map_or(0.0, |cursor| shown(cursor.lag_events))),
            );
            show(
                "convoke_cursor_lag_seconds",
                "Age of the oldest row that a cursor has not read yet.",
                &labels,
                Box::new(move |health| lag(health).map_or(0.0, |cursor| cursor.lag_seconds)),
            );
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            let set_aside = move |health: &Self| health.known().set_aside.get(cursor).copied().unwrap_or(0) as f64;
            let help = "Rows that a cursor set aside because its target cannot accept them.";
            show("convoke_set_aside", help, &labels, Box::new(set_aside));
        }
        for task in [recordings::CURSOR, enrichment::TASK] {
            for (state, count) in [
                ("waiting", (|counts| counts.waiting) as fn(&WorkCounts) -> i64),
                ("given_up", |counts: &WorkCounts| counts.given_up),
            ] {
                #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
                let counted = move |health: &Self| health.known().work.get(task).map_or(0, count) as f64;
                let help = "Requests to the platform's API by state: waiting, or given_up after too many attempts. \
                            10000 means 10000 or more.";
                show("convoke_fetches", help, &[("task", task), ("state", state)], Box::new(counted));
            }
        }
    }

    /// Whether there is a connection to the bus.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.bus.as_ref().is_some_and(|bus| bus.connected())
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> Option<String> {
        self.bus.as_ref().map(|bus| bus.stream().to_owned())
    }

    /// Replaces the subscribers.
    pub fn set_subscribers(&self, subscribers: &[Subscriber]) {
        let known = |one: &Subscriber| NamedSubscriber { id: Arc::clone(&one.app_id), name: one.name.clone() };
        *self.subscribers.write().unwrap_or_else(PoisonError::into_inner) = subscribers.iter().map(known).collect();
    }

    /// The configured subscribers.
    #[must_use]
    pub fn subscribers(&self) -> Arc<[NamedSubscriber]> {
        Arc::clone(&self.subscribers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The values that were last read from the database.
    #[must_use]
    pub fn known(&self) -> KnownState {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the values read from the database.
    pub fn update(&self, change: impl FnOnce(&mut KnownState)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether an event that arrives now could be stored.
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
            bus: BusReport { enabled: self.bus.is_some(), connected: self.connected(), stream: self.stream() },
            cursors: self.known().cursors,
            tasks: self.helpers.all(),
        }
    }
}

/// `/livez` and bare `/readyz`.
pub fn probes(health: Arc<Health>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz).with_state(health))
}

/// `/livez`: the process runs.
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
pub(crate) fn is_verbose(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

/// `/metrics`, in the Prometheus text format.
pub async fn metrics(State(registry): State<Registry>) -> Response {
    let mut response = registry.render().into_response();
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

fn text(status: StatusCode, text: &'static str) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}
