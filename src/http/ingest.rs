//! `POST {listen.path}`: from the request to the response.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use prometheus::{Histogram, IntCounter, IntCounterVec, Opts};
use strum::VariantArray as _;
use tracing::Instrument as _;

use super::health::{Health, SubscriberSeen};
use super::problem::problem;
use super::refusals::Rejection;
use super::server::{self, Announced, BODY_TIMEOUT, Bodies, ClientSources, Connection, NoBody, RequestId};
use super::summary::Outcome;
use crate::intake::{Intake, NotStored};
use crate::metrics::{Counters, LATENCY_SECONDS, Label as _, Registry, histogram};
use crate::telemetry::traces;
use convoke_core::event::{Content, Delivery, HANDSHAKE, KNOWN_EVENTS, Subscriber, Verified};
use convoke_core::id::EventId;
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, Millis, instant};
use convoke_core::verify::{self, Form, Keyring, Refusal};
use convoke_log::Appended;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A response must be sent within 3 s after the body; a delivery that is not stored by this time is refused.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_800);

/// How long a verified delivery proves that the key is right.
const RIGHT_KEY_TIME: Duration = Duration::from_secs(3_600);

const RIGHT_KEY: &str = "the signature matches no key of the subscriber. The key itself is right (it verified \
                         another delivery in the last hour): the body is forged, or escaped in an unknown way; run \
                         `convoke verify` on it";

const WRONG_KEY: &str = "the signature matches no key of the subscriber, and no key verified a delivery in the last \
                         hour or since they were loaded: is the key the password in the platform's push \
                         configuration?";

/// Seconds after which a client that was answered `503` may retry.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The event types that have their own time series; the last label stands for all others.
const EVENT_LABELS: [&str; KNOWN_EVENTS.len() + 2] = {
    let mut labels = [OTHER; KNOWN_EVENTS.len() + 2];
    labels[0] = HANDSHAKE;
    let mut known = 0;
    while known < KNOWN_EVENTS.len() {
        labels[known + 1] = KNOWN_EVENTS[known];
        known += 1;
    }
    labels
};

const OTHER: &str = "other";

/// The handler of deliveries, with everything that it needs.
pub struct Ingest {
    subscribers: RwLock<Arc<Subscribers>>,
    intake: Intake,
    health: Arc<Health>,
    deliveries: IntCounterVec,
    duration: Histogram,
    forms: Counters<Form>,
    clock: Clock,
    sources: ClientSources,
    bodies: Bodies,
    throttle: Throttle,
}

/// The subscribers as they were last loaded.
struct Subscribers {
    keyring: Keyring,
    by_id: HashMap<Arc<str>, Sender>,
}

/// A subscriber that may send events.
struct Sender {
    /// When a key last verified a delivery from the platform, by the steady clock in milliseconds; 0: never.
    verified: AtomicU64,
    seen: Arc<SubscriberSeen>,
    /// Its time series, in the order of [`EVENT_LABELS`].
    deliveries: Vec<Vec<IntCounter>>,
}

impl Sender {
    /// Notes that a key verified a delivery at `now`.
    fn note(&self, now: Duration) {
        self.verified.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// Whether a key verified a delivery recently, as of `now`.
    fn verified_lately(&self, now: Duration) -> bool {
        let last = self.verified.load(Ordering::Relaxed);
        last > 0 && now.saturating_sub(Duration::from_millis(last)) < RIGHT_KEY_TIME
    }

    fn count(&self, event: &str, outcome: Outcome) {
        let event = EVENT_LABELS.iter().position(|label| *label == event).unwrap_or(EVENT_LABELS.len() - 1);
        self.deliveries[event][outcome as usize].inc();
    }
}

/// Limits on deliveries.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The sources that may post.
    pub sources: ClientSources,
    /// Maximum size of a body in bytes.
    pub max_body: usize,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ingest")
    }
}

impl Ingest {
    /// Puts the deliveries of `subscribers` into `intake`.
    #[must_use]
    pub fn new(
        subscribers: &[Subscriber],
        intake: Intake,
        clock: Clock,
        limits: Limits,
        health: Arc<Health>,
        registry: &Registry,
    ) -> Self {
        let deliveries = Opts::new("convoke_deliveries_total", "Signed deliveries, answered 200.");
        let (duration, help) = ("convoke_delivery_duration_seconds", "From a request's head to its answer.");
        let (forms, forms_help) =
            ("convoke_signature_form_total", "Signatures that matched, by the form of eventInfo.");
        let none = Subscribers { keyring: Keyring::new(&[]), by_id: HashMap::new() };
        let ingest = Self {
            subscribers: RwLock::new(Arc::new(none)),
            intake,
            health,
            deliveries: registry.register(IntCounterVec::new(deliveries, &["subscriber", "event", "outcome"])),
            duration: registry.register(histogram(duration, help, &LATENCY_SECONDS)),
            forms: registry.counters(forms, forms_help, "form"),
            clock,
            sources: limits.sources,
            bodies: Bodies::new(limits.max_body),
            throttle: Throttle::default(),
        };
        ingest.set_subscribers(subscribers);
        ingest
    }

    /// Replaces the subscribers. Deliveries under way are not affected.
    pub fn set_subscribers(&self, subscribers: &[Subscriber]) {
        let by_id = subscribers.iter().map(|one| (Arc::clone(&one.app_id), self.sender(&one.app_id))).collect();
        let new = Arc::new(Subscribers { keyring: Keyring::new(subscribers), by_id });
        *self.subscribers.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Creates all of its time series.
    fn sender(&self, subscriber_id: &Arc<str>) -> Sender {
        let series = |event: &str, outcome: &Outcome| {
            self.deliveries.with_label_values(&[subscriber_id, event, outcome.as_str()])
        };
        let outcomes = |event: &&str| Outcome::VARIANTS.iter().map(|outcome| series(event, outcome)).collect();
        Sender {
            verified: AtomicU64::new(0),
            seen: self.health.last_seen.of(subscriber_id),
            deliveries: EVENT_LABELS.iter().map(outcomes).collect(),
        }
    }

    fn subscribers(&self) -> Arc<Subscribers> {
        Arc::clone(&self.subscribers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The handler.
    pub async fn respond(&self, request: Request) -> Response {
        let peer = self.sources.client(request.extensions(), request.headers());
        let request_id = request.extensions().get::<RequestId>().cloned();
        let request_id = request_id.unwrap_or_else(|| RequestId::of(request.headers()));
        let arrival = Arrival { started: instant(), peer, request_id };
        let response = match self.take(request, &arrival).await {
            Ok(response) => response,
            Err(refused) => self.refuse(&refused, &arrival),
        };
        self.duration.observe(arrival.started.elapsed().as_secs_f64());
        response
    }

    async fn take(&self, request: Request, arrival: &Arrival) -> Result<Response, IngestError> {
        let (head, mut body) = request.into_parts();
        let announced = Announced::of(&head.headers);
        let connection = head.extensions.get::<Arc<Connection>>().cloned();
        let refused = if connection.as_ref().is_some_and(|it| !self.sources.allow(it.peer().ip(), &head.headers)) {
            Some(IngestError::new(Rejection::Forbidden, "the source is not in listen.allow_from"))
        } else if head.method != Method::POST {
            Some(IngestError::new(Rejection::Method, "not a POST"))
        } else if is_encoded(&head.headers) {
            let detail = "the body has a Content-Encoding, perhaps from a proxy that compresses: pass the body on \
                          unchanged";
            Some(IngestError::new(Rejection::Encoding, detail))
        } else {
            None
        };
        // A delivery without a trace starts a new one here.
        let traceparent = head.headers.get(&TRACEPARENT).and_then(traceparent).or_else(traces::current);
        // Frees the headers before waiting for the body.
        drop(head);
        if let Some(refused) = refused {
            server::drain(announced, &mut body).await;
            return Err(refused);
        }
        let body = self.bodies.read(announced, &mut body).await?;
        self.take_body(body, arrival, traceparent, connection.as_deref()).await
    }

    async fn take_body(
        &self,
        body: Bytes,
        arrival: &Arrival,
        traceparent: Option<Arc<str>>,
        connection: Option<&Connection>,
    ) -> Result<Response, IngestError> {
        let received_at = self.clock.now();
        let delivery = Delivery { received_at, request_id: Some(arrival.request_id.shared()), traceparent };
        let subscribers = self.subscribers();
        let checked = match verify::verify(&body, &subscribers.keyring, &delivery) {
            Ok(checked) => checked,
            Err(Refusal::Signature | Refusal::UnknownSubscriber)
                if verify::is_forged_probe(&body, &subscribers.keyring) =>
            {
                self.throttle.run("forged probe", |suppressed| {
                    tracing::info!(
                        peer = arrival.peer(),
                        suppressed,
                        "self-test: a wrongly signed probe was refused, as it should be"
                    );
                });
                return Ok(problem(StatusCode::UNAUTHORIZED));
            }
            Err(refusal) => return Err(self.unverified(&refusal, &body, &subscribers)),
        };
        self.forms.of(checked.form).inc();
        let _storing = connection.map(Connection::proven);

        let verified = checked.verified;
        let subscriber_id = Arc::clone(verified.subscriber_id());
        // Always found: a key of this subscriber has verified the delivery.
        let sender = subscribers.by_id.get(&subscriber_id);
        if let Some(sender) = sender
            && !matches!(verified.content(), Content::Handshake(handshake) if handshake.is_probe())
        {
            sender.note(self.clock.steady());
        }
        let event = match verified.content() {
            Content::Handshake(handshake) => {
                let answer = handshake_answer(&handshake.nonce);
                if handshake.is_probe() {
                    tracing::info!(subscriber = %handshake.subscriber_id, "self-test: answered a probe");
                } else {
                    if let Some(sender) = sender {
                        sender.seen.handshake.raise(received_at);
                    }
                    self.count((HANDSHAKE, None), Outcome::Verified, (&subscriber_id, sender), arrival);
                    tracing::info!(subscriber = %handshake.subscriber_id, peer = arrival.peer(), "answered a handshake");
                }
                self.intake.note(verified, received_at);
                return Ok(answer);
            }
            Content::Event(event) => Some((Arc::clone(&event.event), event.event_id)),
            Content::Unreadable(unreadable) => {
                self.throttle.run("quarantined", |suppressed| {
                    tracing::warn!(subscriber = %unreadable.subscriber_id, reason = unreadable.reason,
                        peer = arrival.peer(), request_id = arrival.request_id.as_str(), suppressed, "a signed body is no event: moved to the quarantine");
                });
                None
            }
        };
        let stored = self.store(verified, body, received_at).await;
        let outcome = stored.map_err(|error| error.sent_to(Arc::clone(&subscriber_id)))?;
        if let Some(sender) = sender
            && outcome == Outcome::Stored
        {
            sender.seen.event.raise(received_at);
        }
        let (event, event_id) = event.as_ref().map_or((OTHER, None), |(event, id)| (event, Some(*id)));
        self.count((event, event_id), outcome, (&subscriber_id, sender), arrival);
        Ok(empty())
    }

    /// Counts a delivery that is answered `200`, and logs it at debug level.
    fn count(
        &self,
        (event, event_id): (&str, Option<EventId>),
        outcome: Outcome,
        (subscriber, sender): (&str, Option<&Sender>),
        arrival: &Arrival,
    ) {
        if let Some(sender) = sender {
            sender.count(event, outcome);
        }
        self.health.deliveries.answered(outcome);
        tracing::debug!(
            event,
            event_id = event_id.map(tracing::field::display),
            subscriber,
            outcome = outcome.as_str(),
            request_id = arrival.request_id.as_str(),
            peer = arrival.peer(),
            milliseconds = arrival.milliseconds(),
            "answered a delivery"
        );
    }

    async fn store(&self, verified: Verified, body: Bytes, received_at: Millis) -> Result<Outcome, IngestError> {
        let store = self.intake.store(verified, body, received_at).instrument(tracing::debug_span!("store"));
        match tokio::time::timeout(ANSWER_TIMEOUT, store).await {
            Ok(Ok(Appended::Stored)) => Ok(Outcome::Stored),
            Ok(Ok(Appended::Duplicate)) => Ok(Outcome::Duplicate),
            Ok(Ok(Appended::Quarantined | Appended::Noted)) => Ok(Outcome::Quarantined),
            Ok(Err(NotStored::QueueFull)) => Err(IngestError::new(Rejection::QueueFull, "the queue is full")),
            Ok(Err(NotStored::Unavailable)) => {
                Err(IngestError::new(Rejection::Unavailable, "the database is unavailable"))
            }
            Err(_) => Err(IngestError::new(Rejection::Slow, "not stored in time")),
        }
    }

    /// Why a body was not verified; for a wrong signature, also whether the key or the body is wrong.
    fn unverified(&self, refusal: &Refusal, body: &[u8], subscribers: &Subscribers) -> IngestError {
        let reason = Rejection::from(refusal);
        if *refusal != Refusal::Signature {
            return IngestError::new(reason, refusal.to_string());
        }
        let Some(subscriber_id) = verify::addressee(body, &subscribers.keyring) else {
            return IngestError::new(reason, refusal.to_string());
        };
        let refused =
            if subscribers.by_id.get(subscriber_id).is_some_and(|sender| sender.verified_lately(self.clock.steady())) {
                IngestError { kind: "right key", ..IngestError::new(reason, RIGHT_KEY) }
            } else {
                IngestError::new(reason, WRONG_KEY)
            };
        refused.sent_to(Arc::clone(subscriber_id))
    }

    fn refuse(&self, refused: &IngestError, arrival: &Arrival) -> Response {
        let IngestError { reason, kind, detail, subscriber_id } = refused;
        let (reason, request_id) = (*reason, arrival.request_id.as_str());
        self.health.refusals.rejected(reason);
        self.throttle.run(kind, |suppressed| {
            tracing::warn!(reason = reason.as_str(), %detail, peer = arrival.peer(),
                subscriber = subscriber_id.as_deref(), request_id, suppressed, "refused a delivery");
        });
        tracing::debug!(
            subscriber = subscriber_id.as_deref(),
            outcome = "refused",
            reason = reason.as_str(),
            request_id,
            peer = arrival.peer(),
            milliseconds = arrival.milliseconds(),
            "answered a delivery"
        );
        let status = match reason {
            Rejection::Malformed | Rejection::NotUtf8 | Rejection::NotJson | Rejection::BodyCut => {
                StatusCode::BAD_REQUEST
            }
            Rejection::UnknownSubscriber | Rejection::Signature => StatusCode::UNAUTHORIZED,
            Rejection::Forbidden => StatusCode::FORBIDDEN,
            Rejection::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::Unavailable | Rejection::Slow | Rejection::QueueFull | Rejection::Crowded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Rejection::Method => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::Path => StatusCode::NOT_FOUND,
            Rejection::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        };
        let mut response = problem(status);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            _ => {}
        }
        response
    }
}

/// The handler, as a route.
pub async fn deliver(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    ingest.respond(request).await
}

/// When a request arrived, and its source.
struct Arrival {
    started: Instant,
    /// `None` without a connection, as in tests of handlers.
    peer: Option<IpAddr>,
    request_id: RequestId,
}

impl Arrival {
    fn peer(&self) -> Option<tracing::field::DisplayValue<IpAddr>> {
        self.peer.map(tracing::field::display)
    }

    /// Milliseconds since the request arrived, to a tenth.
    fn milliseconds(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 1e4).round() / 10.0
    }
}

/// Why a request was not answered `200`.
struct IngestError {
    reason: Rejection,
    /// Log lines of the same kind share one rate limit.
    kind: &'static str,
    detail: Cow<'static, str>,
    subscriber_id: Option<Arc<str>>,
}

impl IngestError {
    fn new(reason: Rejection, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, kind: reason.as_str(), detail: detail.into(), subscriber_id: None }
    }

    /// Sets the subscriber that the delivery is for.
    fn sent_to(self, subscriber_id: Arc<str>) -> Self {
        Self { subscriber_id: Some(subscriber_id), ..self }
    }
}

impl From<NoBody> for IngestError {
    fn from(why: NoBody) -> Self {
        match why {
            NoBody::TooLarge => Self::new(Rejection::TooLarge, "the body is over listen.max_body"),
            NoBody::TooSlow => Self::new(Rejection::BodyTimeout, format!("the body took more than {BODY_TIMEOUT:?}")),
            NoBody::Crowded => Self::new(
                Rejection::Crowded,
                "too many bodies are arriving, and this one is the \
                                                              slowest",
            ),
            NoBody::Cut(error) => Self::new(Rejection::BodyCut, error),
        }
    }
}

/// Whether the body has a content encoding other than `identity`.
fn is_encoded(headers: &HeaderMap) -> bool {
    let names = |value: &HeaderValue| match value.to_str() {
        Ok(names) => {
            names.split(',').map(str::trim).any(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
        }
        Err(_) => true,
    };
    headers.get_all(CONTENT_ENCODING).iter().any(names)
}

fn empty() -> Response {
    Response::new(Body::empty())
}

fn handshake_answer(nonce: &str) -> Response {
    let body = serde_json::json!({ "event": HANDSHAKE, "nonce": nonce }).to_string();
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    response
}

/// A well-formed `traceparent` (W3C Trace Context, version 00).
fn traceparent(value: &HeaderValue) -> Option<Arc<str>> {
    let text = value.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    match parts[..] {
        ["00", trace, span, flags]
            if hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !zero(trace) && !zero(span) =>
        {
            Some(Arc::from(text))
        }
        _ => None,
    }
}
