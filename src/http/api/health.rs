//! How it is: what the process knows without asking the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::error::Refusals;
use super::params::{NoParams, Params, Time};
use crate::http::health::{CURSORS, CursorHealth};
use crate::intake::PLATFORM_RETRY_TIME;
use crate::subscription::SubscriptionStatus;
use convoke_core::time::Millis;

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// When this was said.
    time: Time,
    /// The version of Convoke.
    version: &'static str,
    /// Whether an event that comes now could be stored.
    ready: bool,
    /// Whether events are accepted.
    accepting: bool,
    /// Whether this process is about to end.
    stopping: bool,
    /// For how long nobody has accepted events; 0 while they are accepted.
    not_accepting_seconds: f64,
    /// Whether that is the least that it can be.
    not_accepting_is_lower_bound: bool,
    /// When the platform begins to drop events, if nobody accepts them until then; null while they are accepted.
    seconds_until_drop: Option<f64>,
    /// The database.
    database: Database,
    /// Bytes free where an embedded database lies; null for others.
    disk_free_bytes: Option<u64>,
    /// When the certificate of the events listener runs out; null without TLS.
    certificate_expires_at: Option<Time>,
    /// The bus.
    bus: Bus,
    /// The readers of the log.
    cursors: Vec<CursorHealth>,
    /// When the newest event of the log arrived; null if there is none, or none was seen yet.
    last_event_at: Option<Time>,
    /// Those who may send events.
    subscribers: Vec<Subscriber>,
    /// The subscription at the platform.
    subscription: Subscription,
    /// Whether what the platform counts is here.
    completeness: Completeness,
    /// How many signed bodies are kept of which no event could be made.
    quarantined: i64,
    /// How many events each cursor has passed by.
    set_aside: BTreeMap<&'static str, i64>,
}

/// The database of the log.
#[derive(Debug, Serialize, ToSchema)]
struct Database {
    /// What and where.
    name: String,
    /// Whether it answered when it was last asked, a second ago or so.
    reachable: bool,
}

/// The bus.
#[derive(Debug, Serialize, ToSchema)]
struct Bus {
    /// Whether there is to be one.
    enabled: bool,
    /// Whether there is a connection to it.
    connected: bool,
    /// The stream.
    stream: Option<String>,
}

/// Somebody who may send events.
#[derive(Debug, Serialize, ToSchema)]
struct Subscriber {
    /// The appID.
    subscriber_id: String,
    /// The name in the settings.
    name: Option<String>,
    /// When the newest event of it that the platform pushed, and that is in the log, arrived.
    last_event_at: Option<Time>,
    /// When a handshake of the platform was last answered.
    last_handshake_at: Option<Time>,
}

/// The subscription at the platform.
#[derive(Debug, Serialize, ToSchema)]
struct Subscription {
    /// Whether it is watched.
    watched: bool,
    /// How it stands, as last seen by the replica that watches it; null if that is another one, or nobody has looked yet.
    status: Option<SubscriptionStatus>,
}

/// The last comparison of the platform's own counts with what was received, by any replica.
#[derive(Debug, Serialize, ToSchema)]
struct Completeness {
    /// Whether they are compared.
    watched: bool,
    /// When they were last; null if they never were.
    compared_at: Option<Time>,
    /// How many days were compared.
    days: usize,
    /// For how many of them the platform counts more.
    differing: usize,
    /// How many meetings are missing on those.
    missing_meetings: u64,
    /// Since when the platform counts meetings while no event arrives; null if that is not so.
    silent_since: Option<Time>,
}

/// Deliveries that this process has refused in the last hour, and connections to the events listener that brought none.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RefusalCounts {
    /// Since when it was counted.
    since: Time,
    /// How many minutes that are.
    #[schema(maximum = 60)]
    minutes: u64,
    /// How many there were.
    total: u64,
    /// How many for each reason for which there were any.
    by_reason: BTreeMap<&'static str, u64>,
}

impl Api {
    /// How it is now.
    pub(super) fn how_it_is(&self) -> Health {
        let (health, known) = (&self.health, self.health.known());
        let refusing = health.intake.refusing_for();
        let accepting = health.intake.accepting();
        let subscribers = health.subscribers();
        Health {
            time: Time(self.now()),
            version: env!("CARGO_PKG_VERSION"),
            ready: health.ready(),
            accepting,
            stopping: health.closing.is_set(),
            not_accepting_seconds: refusing.as_secs_f64(),
            not_accepting_is_lower_bound: health.intake.refusing_at_least(),
            seconds_until_drop: (!accepting).then(|| PLATFORM_RETRY_TIME.saturating_sub(refusing).as_secs_f64()),
            database: Database { name: health.database.clone(), reachable: known.reachable },
            disk_free_bytes: known.disk_free,
            certificate_expires_at: health.certificates.as_ref().map(|shown| Time(shown.expires())),
            bus: Bus { enabled: health.bus.is_some(), connected: health.connected(), stream: health.stream() },
            cursors: known.cursors,
            last_event_at: known.newest.map(Time),
            subscribers: subscribers
                .iter()
                .map(|subscriber| {
                    let seen = health.last_seen.of(&subscriber.id);
                    Subscriber {
                        subscriber_id: subscriber.id.to_string(),
                        name: subscriber.name.clone(),
                        last_event_at: seen.event.get().map(Time),
                        last_handshake_at: seen.handshake.get().map(Time),
                    }
                })
                .collect(),
            subscription: Subscription {
                watched: health.subscription.is_some(),
                status: health.subscription.as_ref().and_then(|known| *known.borrow()),
            },
            completeness: {
                let (last, silent) = (known.completeness.comparison.as_ref(), known.completeness.silent_since);
                Completeness {
                    watched: health.compares,
                    compared_at: last.map(|it| Time(it.compared_at)),
                    days: last.map_or(0, |it| it.compared),
                    differing: last.map_or(0, |it| it.differing),
                    missing_meetings: last.map_or(0, |it| it.missing_meetings),
                    silent_since: silent.and_then(Millis::new).map(Time),
                }
            },
            quarantined: known.quarantined,
            set_aside: CURSORS
                .into_iter()
                .map(|cursor| (cursor, known.set_aside.get(cursor).copied().unwrap_or(0)))
                .collect(),
        }
    }

    /// What was refused in the last hour.
    pub(super) fn refusals(&self) -> RefusalCounts {
        let hour = self.health.refusals.last_hour(self.now());
        let by_reason: BTreeMap<_, _> = hour.counts.into_iter().filter(|(_, count)| *count > 0).collect();
        RefusalCounts { since: Time(hour.since), minutes: hour.minutes, total: by_reason.values().sum(), by_reason }
    }
}

/// How the service is.
#[utoipa::path(
    get,
    path = "/api/v1/health",
    operation_id = "health",
    tag = "now",
    responses((status = 200, description = "How it is.", body = Health), Refusals)
)]
pub(super) async fn health(State(api): State<Arc<Api>>, _: Params<NoParams>) -> Json<Health> {
    Json(api.how_it_is())
}

/// What this process has refused in the last hour: requests to the events listener that were not answered 200, and connections
/// that brought none.
#[utoipa::path(
    get,
    path = "/api/v1/refusals",
    operation_id = "refusals",
    tag = "now",
    responses((status = 200, description = "How many, by reason.", body = RefusalCounts), Refusals)
)]
pub(super) async fn refusals(State(api): State<Arc<Api>>, _: Params<NoParams>) -> Json<RefusalCounts> {
    Json(api.refusals())
}
