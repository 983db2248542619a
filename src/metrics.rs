//! Every metric that Convoke has: names, labels, and all series at zero from the start.
//!
//! Label values are bounded: subscribers are the configured ones, unknown event types count as `other`. Hot paths hold
//! the series themselves and look nothing up.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::backfill::List;
use crate::backfill::plan::Unfillable;
use crate::backfill::synthesis::Kind;
use convoke_bus::PublishError;
use convoke_core::event::{HANDSHAKE, KNOWN_EVENTS};
use convoke_core::time::Millis;
use convoke_core::verify::{Form, Malformed, Refusal};
use convoke_log::WorkCounts;
use convoke_platform::Class;

/// What became of a delivery that was answered `200`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// New in the log.
    Stored,
    /// In the log already.
    Duplicate,
    /// A handshake.
    Verified,
    /// Kept in the quarantine.
    Quarantined,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Stored, Self::Duplicate, Self::Verified, Self::Quarantined];

    /// As in the label `outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Verified => "verified",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Why a request to the events path was not answered `200`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Not an envelope.
    Malformed,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    NotJson,
    /// Not a configured `appID`.
    UnknownSubscriber,
    /// No key matches.
    Signature,
    /// The source is not in `listen.allow_from`.
    Forbidden,
    /// The body is over `listen.max_body`.
    TooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The connection ended within the body.
    BodyCut,
    /// The database is away, full or read-only.
    Unavailable,
    /// The database did not answer in time.
    Slow,
    /// More is waiting to be stored than the queue holds.
    QueueFull,
    /// Too many bodies were arriving, and this one was the slowest.
    Crowded,
    /// Not a `POST`.
    Method,
    /// Not to `listen.path`.
    Path,
    /// The body has a `Content-Encoding`.
    Encoding,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Malformed,
        Self::NotUtf8,
        Self::NotJson,
        Self::UnknownSubscriber,
        Self::Signature,
        Self::Forbidden,
        Self::TooLarge,
        Self::BodyTimeout,
        Self::BodyCut,
        Self::Unavailable,
        Self::Slow,
        Self::QueueFull,
        Self::Crowded,
        Self::Method,
        Self::Path,
        Self::Encoding,
    ];

    /// As in the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::UnknownSubscriber => "unknown_subscriber",
            Self::Signature => "signature",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyCut => "body_cut",
            Self::Unavailable => "unavailable",
            Self::Slow => "slow",
            Self::QueueFull => "queue_full",
            Self::Crowded => "crowded",
            Self::Method => "method",
            Self::Path => "path",
            Self::Encoding => "encoding",
        }
    }
}

impl From<&Refusal> for Rejection {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::UnknownSubscriber => Self::UnknownSubscriber,
            Refusal::Signature => Self::Signature,
            Refusal::Malformed(Malformed::NotUtf8) => Self::NotUtf8,
            Refusal::Malformed(Malformed::NotJson | Malformed::NotAnObject) => Self::NotJson,
            Refusal::Malformed(_) => Self::Malformed,
        }
    }
}

/// Why a connection to the events listener brought no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionFailure {
    /// The handshake failed.
    Tls,
    /// It spoke something else.
    NotHttp,
    /// It spoke TLS, where plain HTTP is spoken.
    TlsOnPlainPort,
    /// It spoke plain HTTP, where TLS is spoken.
    PlainOnTlsPort,
    /// It began with a line of the PROXY protocol.
    ProxyProtocol,
    /// The head of a request was too large.
    HeadTooLarge,
}

impl ConnectionFailure {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Tls, Self::NotHttp, Self::TlsOnPlainPort, Self::PlainOnTlsPort, Self::ProxyProtocol, Self::HeadTooLarge];

    /// As in the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::NotHttp => "not_http",
            Self::TlsOnPlainPort => "tls_on_plain_port",
            Self::PlainOnTlsPort => "plain_on_tls_port",
            Self::ProxyProtocol => "proxy_protocol",
            Self::HeadTooLarge => "head_too_large",
        }
    }

    /// What to do about it, for people.
    #[must_use]
    pub const fn todo(self) -> &'static str {
        match self {
            Self::Tls => {
                "a TLS handshake failed; listen.tls_cert has to hold the certificate and, after it, those that vouch for it"
            }
            Self::NotHttp => {
                "what came was no HTTP; unless somebody tries ports, see what is configured to connect here"
            }
            Self::TlsOnPlainPort => {
                "TLS came to a port without it; set listen.tls_cert and listen.tls_key, or post to http://"
            }
            Self::PlainOnTlsPort => "plain HTTP came to the port with TLS; post to https://",
            Self::ProxyProtocol => "the PROXY protocol is not understood; switch it off in the load balancer",
            Self::HeadTooLarge => {
                "the head of a request is too large (events: 16 KiB and 64 headers, admin: 32 KiB and 256); see what the proxy in \
                 front adds to it"
            }
        }
    }
}

/// How a stream lost messages that neither age nor size explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setback {
    /// It is another stream of the same name.
    Recreated,
    /// Its newest messages are gone.
    Backwards,
    /// Its oldest messages are gone.
    Purged,
    /// Messages in its middle are gone.
    Deleted,
}

impl Setback {
    const ALL: [Self; 4] = [Self::Recreated, Self::Backwards, Self::Purged, Self::Deleted];

    /// As in the label `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recreated => "recreated",
            Self::Backwards => "backwards",
            Self::Purged => "purged",
            Self::Deleted => "deleted",
        }
    }
}

/// How the subscription at the platform stands, to whoever wants its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Events are pushed, to where they should be.
    Enabled,
    /// It could not be read.
    Unknown,
    /// Events are pushed, but somewhere else.
    Elsewhere,
    /// It is switched off.
    Disabled,
    /// It was locked, because enabling failed too often.
    Locked,
    /// There is none.
    Missing,
}

impl Standing {
    const ALL: [Self; 6] = [Self::Enabled, Self::Unknown, Self::Elsewhere, Self::Disabled, Self::Locked, Self::Missing];

    /// As in the label `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Unknown => "unknown",
            Self::Elsewhere => "elsewhere",
            Self::Disabled => "disabled",
            Self::Locked => "locked",
            Self::Missing => "missing",
        }
    }
}

/// The event types that have a series of their own; the last stands for all others.
const EVENT_LABELS: usize = KNOWN_EVENTS.len() + 2;
const OTHER: usize = EVENT_LABELS - 1;

fn event_label(index: usize) -> &'static str {
    match index {
        0 => HANDSHAKE,
        OTHER => "other",
        n => KNOWN_EVENTS[n - 1],
    }
}

/// The series of one subscriber.
#[derive(Debug)]
pub struct SubscriberMetrics {
    deliveries: Vec<[IntCounter; Outcome::ALL.len()]>,
    last_event: Gauge,
    last_handshake: Gauge,
}

/// Shows a time in seconds since the epoch, unless a later one is shown.
fn raise(gauge: &Gauge, at: Millis) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch fit")]
    let seconds = at.get() as f64 / 1e3;
    if seconds > gauge.get() {
        gauge.set(seconds);
    }
}

fn shown(gauge: &Gauge) -> Option<Millis> {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds since the epoch fit")]
    let at = (gauge.get() * 1e3).round() as i64;
    Millis::new(at).filter(|at| *at > Millis::EPOCH)
}

impl SubscriberMetrics {
    /// The series of deliveries of `event` with this outcome.
    #[must_use]
    pub fn deliveries(&self, event: &str, outcome: Outcome) -> &IntCounter {
        let index = (0..OTHER).find(|index| event_label(*index) == event).unwrap_or(OTHER);
        &self.deliveries[index][outcome as usize]
    }

    /// An event that arrived then is in the log.
    pub fn event_stored(&self, at: Millis) {
        raise(&self.last_event, at);
    }

    /// When the newest event that the platform pushed, and that is in the log, arrived.
    #[must_use]
    pub fn last_event(&self) -> Option<Millis> {
        shown(&self.last_event)
    }

    /// A handshake was answered then.
    pub fn handshake(&self, at: Millis) {
        raise(&self.last_handshake, at);
    }

    /// When a handshake was last answered.
    #[must_use]
    pub fn last_handshake(&self) -> Option<Millis> {
        shown(&self.last_handshake)
    }
}

/// All metrics of one process. Made once, by the composition root.
pub struct Metrics {
    registry: Registry,
    deliveries: IntCounterVec,
    last_event: GaugeVec,
    last_handshake: GaugeVec,
    subscribers: RwLock<HashMap<Arc<str>, Arc<SubscriberMetrics>>>,
    rejections: Vec<IntCounter>,
    connection_failures: Vec<IntCounter>,
    forms: Vec<IntCounter>,
    publish_errors: Vec<IntCounter>,
    set_aside: IntGaugeVec,
    lag_events: IntGaugeVec,
    lag_seconds: GaugeVec,
    /// Seconds from a request's head to its answer.
    pub delivery_duration: Histogram,
    /// Deliveries in one commit.
    pub batch_size: Histogram,
    /// Seconds that one commit took.
    pub commit_duration: Histogram,
    /// Deliveries that wait to be stored.
    pub store_queue: IntGauge,
    /// Messages that the stream took as new.
    pub published_new: IntCounter,
    /// Messages that the stream knew already.
    pub published_duplicate: IntCounter,
    /// Entries in the quarantine.
    pub quarantined: IntGauge,
    /// 1 while there is a connection to the bus.
    pub bus_connected: IntGauge,
    /// How long events have been refused, in seconds; 0 while they are accepted.
    pub not_accepting: Gauge,
    /// Bytes free where an embedded database lies.
    pub disk_free: IntGauge,
    /// 1 while a clock or a cursor holds retention back.
    pub retention_blocked: IntGauge,
    /// Events of the log that the stream should hold and does not.
    pub stream_missing: IntGauge,
    /// Messages of the stream whose event the log does not know.
    pub stream_unknown: IntGauge,
    /// When log and stream were last compared, in seconds since the epoch.
    pub stream_checked: Gauge,
    stream_setbacks: Vec<IntCounter>,
    backfill_events: Vec<IntCounter>,
    backfill_not_fillable: Vec<IntCounter>,
    /// Backfills that were broken off.
    pub backfill_failed: IntCounter,
    backfill_incomplete: Vec<IntCounter>,
    /// When the last backfill came to its end, in seconds since the epoch.
    pub backfill_completed: Gauge,
    fetches: IntGaugeVec,
    fetch_failures: Vec<Vec<IntCounter>>,
    standings: Vec<IntGauge>,
    /// How often each helper of [`TASKS`] was started again after it had failed.
    pub task_restarts: IntCounterVec,
    /// 0 after a reload of the settings failed.
    pub reload_ok: IntGauge,
    /// When the certificate of the events listener runs out, in seconds since the epoch; 0 without TLS.
    pub tls_expiry: IntGauge,
    /// Connections to the events listener.
    pub connections: IntGauge,
    /// Connections that had to make room for others.
    pub connections_evicted: IntCounter,
}

/// The cursors that exist in this version.
pub const CURSORS: [&str; 3] = ["bus", "meetings", "recordings"];

/// The helpers: the tasks that are started again after they have failed.
pub const TASKS: [&str; 11] = [
    "analyst_tables",
    "backfill",
    "database_upkeep",
    "enrichment",
    "file_watch",
    "gauges",
    "recordings",
    "relay",
    "stream_watch",
    "streams",
    "subscription_watch",
];

/// The tasks that ask the platform for more about what it pushed.
const FETCHERS: [&str; 2] = [crate::recordings::CURSOR, crate::enrich::TASK];

/// What is to be done about a failed call, as in the label `class`.
const CLASSES: [(Class, &str); 7] = [
    (Class::Token, "token"),
    (Class::Configuration, "configuration"),
    (Class::Locked, "locked"),
    (Class::Gone, "gone"),
    (Class::Transient, "transient"),
    (Class::Bug, "bug"),
    (Class::Incomplete, "incomplete"),
];

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        let r = Registry::new();
        let rejections = counters(
            &r,
            "convoke_rejections_total",
            "Requests to the events listener, its probes apart, that were not answered 200.",
            "reason",
        );
        let failures = counters(
            &r,
            "convoke_connection_failures_total",
            "Connections to the events listener that brought no request that could be read.",
            "reason",
        );
        let forms =
            counters(&r, "convoke_signature_form_total", "Signatures that matched, by the form of eventInfo.", "form");
        let publish_errors =
            counters(&r, "convoke_publish_errors_total", "Publishes that the bus did not take.", "reason");
        let published = counters(&r, "convoke_published_total", "Messages that the stream acknowledged.", "outcome");
        let setbacks = counters(
            &r,
            "convoke_stream_setbacks_total",
            "Times that the stream was seen to have lost messages.",
            "kind",
        );
        let incomplete = counters(
            &r,
            "convoke_backfill_incomplete_total",
            "Lists of which the platform gave less than it announced.",
            "list",
        );
        let backfilled = counters(
            &r,
            "convoke_backfill_events_total",
            "Events that were made from the platform's history, because nobody had pushed them.",
            "event",
        );
        let not_fillable = counters(
            &r,
            "convoke_backfill_not_fillable_total",
            "What the platform's history says too little of to make an event.",
            "reason",
        );
        let standings = register(
            &r,
            IntGaugeVec::new(
                Opts::new(
                    "convoke_subscription_status",
                    "1 for how the subscription at the platform stands; all 0 where it is not watched, or by another replica.",
                ),
                &["status"],
            ),
        );
        let set_aside = register(
            &r,
            IntGaugeVec::new(
                Opts::new("convoke_set_aside", "Rows that a cursor passed by, because its target never takes them."),
                &["cursor"],
            ),
        );
        let lag_events = register(
            &r,
            IntGaugeVec::new(
                Opts::new("convoke_cursor_lag_events", "Rows that a cursor has not read yet."),
                &["cursor"],
            ),
        );
        let lag_seconds = register(
            &r,
            GaugeVec::new(
                Opts::new("convoke_cursor_lag_seconds", "Age of the oldest row that a cursor has not read yet."),
                &["cursor"],
            ),
        );
        for cursor in CURSORS {
            set_aside.with_label_values(&[cursor]);
            lag_events.with_label_values(&[cursor]);
            lag_seconds.with_label_values(&[cursor]);
        }
        let fetches = register(
            &r,
            IntGaugeVec::new(
                Opts::new(
                    "convoke_fetches",
                    "What is asked of the platform's API: still (waiting), or in vain until it made no sense any more (given_up). 10000 \
                     is that or more.",
                ),
                &["task", "state"],
            ),
        );
        for task in FETCHERS {
            for state in ["waiting", "given_up"] {
                fetches.with_label_values(&[task, state]);
            }
        }
        let fetch_failures = register(
            &r,
            IntCounterVec::new(
                Opts::new(
                    "convoke_fetch_failures_total",
                    "Calls of the platform's API that failed, by what is to be done.",
                ),
                &["task", "class"],
            ),
        );
        let info = register(
            &r,
            IntGaugeVec::new(Opts::new("convoke_build_info", "The version that runs; always 1."), &["version"]),
        );
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let gauge = |name: &str, help: &str| register(&r, IntGauge::new(name, help));
        let reload_ok = gauge("convoke_reload_ok", "1 unless the last reload of the settings failed.");
        reload_ok.set(1);
        // Logging is the process's, and so is this count.
        let _ = register(&r, Ok(crate::telemetry::dropped()));
        let task_restarts = register(
            &r,
            IntCounterVec::new(
                Opts::new(
                    "convoke_task_restarts_total",
                    "Failures of helpers, after each of which it is started again.",
                ),
                &["task"],
            ),
        );
        for task in TASKS {
            let _ = task_restarts.with_label_values(&[task]);
        }
        let latency = vec![0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        Self {
            deliveries: register(
                &r,
                IntCounterVec::new(
                    Opts::new("convoke_deliveries_total", "Signed deliveries, answered 200."),
                    &["subscriber", "event", "outcome"],
                ),
            ),
            last_event: register(
                &r,
                GaugeVec::new(
                    Opts::new(
                        "convoke_last_event_timestamp_seconds",
                        "When the newest event that the platform pushed, and that is in the log, arrived, at whichever process; \
                         0: there is none.",
                    ),
                    &["subscriber"],
                ),
            ),
            last_handshake: register(
                &r,
                GaugeVec::new(
                    Opts::new(
                        "convoke_last_handshake_timestamp_seconds",
                        "When a handshake of the platform was last answered, by whichever process; 0: never.",
                    ),
                    &["subscriber"],
                ),
            ),
            subscribers: RwLock::default(),
            rejections: Rejection::ALL.iter().map(|reason| rejections.with_label_values(&[reason.as_str()])).collect(),
            connection_failures: ConnectionFailure::ALL
                .iter()
                .map(|reason| failures.with_label_values(&[reason.as_str()]))
                .collect(),
            forms: Form::ALL.iter().map(|form| forms.with_label_values(&[form.as_str()])).collect(),
            publish_errors: PublishError::ALL
                .iter()
                .map(|reason| publish_errors.with_label_values(&[reason.as_str()]))
                .collect(),
            set_aside,
            lag_events,
            lag_seconds,
            delivery_duration: histogram(
                &r,
                "convoke_delivery_duration_seconds",
                "From a request's head to its answer.",
                latency.clone(),
            ),
            batch_size: histogram(
                &r,
                "convoke_commit_batch_size",
                "Deliveries in one commit.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
            ),
            commit_duration: histogram(&r, "convoke_commit_duration_seconds", "How long one commit took.", latency),
            store_queue: gauge("convoke_store_queue", "Deliveries that wait to be stored."),
            published_new: published.with_label_values(&["new"]),
            published_duplicate: published.with_label_values(&["duplicate"]),
            quarantined: gauge("convoke_quarantined", "Entries in the quarantine."),
            bus_connected: gauge("convoke_bus_connected", "1 while there is a connection to the bus."),
            not_accepting: register(
                &r,
                Gauge::new(
                    "convoke_not_accepting_seconds",
                    "How long events have been refused, by this process and before its start by all. At the start, until the \
                     database is back, at least so long. The platform drops an event 24 h after its first try.",
                ),
            ),
            stream_missing: gauge(
                "convoke_stream_missing_events",
                "Events of the log that the stream should hold and does not, when they were last compared.",
            ),
            stream_unknown: gauge(
                "convoke_stream_unknown_events",
                "Messages of the stream whose event the log does not know, when they were last compared.",
            ),
            stream_checked: register(
                &r,
                Gauge::new(
                    "convoke_stream_checked_timestamp_seconds",
                    "When log and stream were last compared to the end; 0: never, or another replica does it.",
                ),
            ),
            stream_setbacks: Setback::ALL.iter().map(|kind| setbacks.with_label_values(&[kind.as_str()])).collect(),
            backfill_events: Kind::ALL.iter().map(|kind| backfilled.with_label_values(&[kind.as_str()])).collect(),
            backfill_not_fillable: Unfillable::ALL
                .iter()
                .map(|reason| not_fillable.with_label_values(&[reason.as_str()]))
                .collect(),
            backfill_incomplete: List::ALL.iter().map(|list| incomplete.with_label_values(&[list.as_str()])).collect(),
            backfill_failed: register(
                &r,
                IntCounter::new(
                    "convoke_backfill_failures_total",
                    "Times that looking for gaps in the platform's history was broken off.",
                ),
            ),
            backfill_completed: register(
                &r,
                Gauge::new(
                    "convoke_backfill_completed_timestamp_seconds",
                    "When gaps were last looked for to the end; 0: never, or another replica does it.",
                ),
            ),
            standings: Standing::ALL.iter().map(|one| standings.with_label_values(&[one.as_str()])).collect(),
            retention_blocked: gauge(
                "convoke_retention_blocked",
                "1 while nothing, or not all, is deleted that is beyond database.retention: the database's clock cannot be right, no event came for that long, or a cursor has not read it. convoke check says which.",
            ),
            disk_free: gauge("convoke_disk_free_bytes", "Bytes free where the embedded database lies."),
            fetches,
            fetch_failures: FETCHERS
                .iter()
                .map(|task| CLASSES.iter().map(|(_, class)| fetch_failures.with_label_values(&[task, class])).collect())
                .collect(),
            task_restarts,
            reload_ok,
            tls_expiry: gauge(
                "convoke_tls_expiry_timestamp_seconds",
                "When the certificate that is served runs out; 0 without TLS.",
            ),
            connections: gauge("convoke_connections", "Open connections to the events listener."),
            connections_evicted: register(
                &r,
                IntCounter::new(
                    "convoke_connections_evicted_total",
                    "Connections to the events listener that were closed to make room for others.",
                ),
            ),
            registry: r,
        }
    }

    /// The series of a subscriber, made when it is asked for first. Only for configured subscribers.
    #[must_use]
    pub fn subscriber(&self, id: &Arc<str>) -> Arc<SubscriberMetrics> {
        if let Some(found) = self.subscribers.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Arc::clone(found);
        }
        let deliveries = (0..EVENT_LABELS)
            .map(|event| {
                Outcome::ALL
                    .map(|outcome| self.deliveries.with_label_values(&[&**id, event_label(event), outcome.as_str()]))
            })
            .collect();
        let made = Arc::new(SubscriberMetrics {
            deliveries,
            last_event: self.last_event.with_label_values(&[&**id]),
            last_handshake: self.last_handshake.with_label_values(&[&**id]),
        });
        let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(subscribers.entry(Arc::clone(id)).or_insert(made))
    }

    /// A handshake that this or another process answered, if the subscriber is one of ours.
    pub fn note_handshake(&self, subscriber: &str, at: Millis) {
        if let Some(known) = self.subscribers.read().unwrap_or_else(PoisonError::into_inner).get(subscriber) {
            known.handshake(at);
        }
    }

    /// An event that this or another process stored, if the subscriber is one of ours.
    pub fn note_event(&self, subscriber: &str, at: Millis) {
        if let Some(known) = self.subscribers.read().unwrap_or_else(PoisonError::into_inner).get(subscriber) {
            known.event_stored(at);
        }
    }

    /// The series of rejections for this reason.
    #[must_use]
    pub fn rejections(&self, reason: Rejection) -> &IntCounter {
        &self.rejections[reason as usize]
    }

    /// The series of connections that came to nothing for this reason.
    #[must_use]
    pub fn connection_failures(&self, reason: ConnectionFailure) -> &IntCounter {
        &self.connection_failures[reason as usize]
    }

    /// The series of signatures that matched in this form.
    #[must_use]
    pub fn forms(&self, form: Form) -> &IntCounter {
        &self.forms[form as usize]
    }

    /// The series of publishes that failed for this reason.
    #[must_use]
    pub fn publish_errors(&self, reason: PublishError) -> &IntCounter {
        &self.publish_errors[reason as usize]
    }

    /// The series of times that the stream lost messages in this way.
    #[must_use]
    pub fn stream_setbacks(&self, kind: Setback) -> &IntCounter {
        &self.stream_setbacks[kind as usize]
    }

    /// The series of events of this type that were made from the platform's history.
    #[must_use]
    pub fn backfill_events(&self, kind: Kind) -> &IntCounter {
        &self.backfill_events[kind as usize]
    }

    /// The series of such lists that were not whole.
    #[must_use]
    pub fn backfill_incomplete(&self, list: List) -> &IntCounter {
        &self.backfill_incomplete[list as usize]
    }

    /// The series of what could not be made, for this reason.
    #[must_use]
    pub fn backfill_not_fillable(&self, reason: Unfillable) -> &IntCounter {
        &self.backfill_not_fillable[reason as usize]
    }

    /// How much a task has to ask of the platform, and how much it has given up.
    pub fn set_fetches(&self, task: &str, counts: WorkCounts) {
        self.fetches.with_label_values(&[task, "waiting"]).set(counts.waiting);
        self.fetches.with_label_values(&[task, "given_up"]).set(counts.given_up);
    }

    /// The series of a task's calls of the platform's API that failed in this way.
    #[must_use]
    pub fn fetch_failures(&self, task: &str, class: Class) -> &IntCounter {
        let task = FETCHERS.iter().position(|known| *known == task).unwrap_or_default();
        let class = CLASSES.iter().position(|(known, _)| *known == class).unwrap_or_default();
        &self.fetch_failures[task][class]
    }

    /// When the certificate runs out, as shown.
    #[must_use]
    pub fn tls_expires(&self) -> Option<Millis> {
        Millis::new(self.tls_expiry.get().checked_mul(1000)?).filter(|at| *at > Millis::EPOCH)
    }

    /// Shows how the subscription stands; `None`: this process does not know.
    pub fn set_standing(&self, standing: Option<Standing>) {
        for (one, series) in Standing::ALL.iter().zip(&self.standings) {
            series.set(i64::from(standing == Some(*one)));
        }
    }

    /// How the subscription stands, as shown.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let mut shown = Standing::ALL.into_iter().zip(&self.standings);
        shown.find(|(_, series)| series.get() == 1).map(|(standing, _)| standing)
    }

    /// Rows that a cursor set aside.
    #[must_use]
    pub fn set_aside(&self, cursor: &str) -> IntGauge {
        self.set_aside.with_label_values(&[cursor])
    }

    /// Rows and seconds that a cursor is behind.
    pub fn set_lag(&self, cursor: &str, events: u64, seconds: f64) {
        self.lag_events.with_label_values(&[cursor]).set(i64::try_from(events).unwrap_or(i64::MAX));
        self.lag_seconds.with_label_values(&[cursor]).set(seconds);
    }

    /// All of it in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "could not render the metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Registers a metric whose name and labels are written above and so are known to be sound and used once.
fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("the metric's name and labels are sound");
    registry.register(Box::new(metric.clone())).expect("the metric's name is used once");
    metric
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
}
