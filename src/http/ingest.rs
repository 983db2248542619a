//! `POST {listen.path}`: from a request to an answer.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::body::{self, Announced, BODY_TIME, Bodies, NoBody};
use super::connections::Connection;
use super::problem::problem;
use super::{RequestId, Sources};
use crate::event::{Clock, Content, Delivery, HANDSHAKE, Subscriber};
use crate::intake::{Intake, NotStored};
use crate::log::Appended;
use crate::metrics::{Metrics, Outcome, Rejection};
use crate::telemetry::Throttle;
use crate::verify::{self, Keyring};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An answer must be out within 3 s of the body; what is not stored by now is refused.
const ANSWER_TIME: Duration = Duration::from_millis(2_800);

/// Seconds after which a sender that was answered `503` may come again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// What a delivery passes through.
pub struct Ingest {
    subscribers: RwLock<Arc<Keyring>>,
    intake: Intake,
    metrics: Arc<Metrics>,
    clock: Clock,
    sources: Sources,
    bodies: Bodies,
    retention: Option<Duration>,
    throttle: Throttle,
}

/// How deliveries are taken.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Who may post.
    pub sources: Sources,
    /// Bytes of a body.
    pub max_body: usize,
    /// Older events are not kept.
    pub retention: Option<Duration>,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ingest")
    }
}

impl Ingest {
    /// Takes deliveries of `subscribers` into `intake`.
    #[must_use]
    pub fn new(
        subscribers: &[Subscriber],
        intake: Intake,
        metrics: Arc<Metrics>,
        clock: Clock,
        limits: Limits,
    ) -> Self {
        let ingest = Self {
            subscribers: RwLock::new(Arc::new(Keyring::new(&[]))),
            intake,
            metrics,
            clock,
            sources: limits.sources,
            bodies: Bodies::new(limits.max_body),
            retention: limits.retention,
            throttle: Throttle::default(),
        };
        ingest.set_subscribers(subscribers);
        ingest
    }

    /// Serves these subscribers from now on. Deliveries under way are not disturbed.
    pub fn set_subscribers(&self, subscribers: &[Subscriber]) {
        for subscriber in subscribers {
            // All of its series exist from now on.
            let _ = self.metrics.subscriber(&subscriber.app_id);
        }
        *self.subscribers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Keyring::new(subscribers));
    }

    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.subscribers.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn take(&self, request: Request, request_id: &RequestId) -> Result<Response, Refused> {
        let (head, mut body) = request.into_parts();
        let announced = Announced::of(&head.headers);
        let connection = head.extensions.get::<Arc<Connection>>().cloned();
        let refused = if connection.as_ref().is_some_and(|it| !self.sources.allow(it.peer().ip(), &head.headers)) {
            Some(Refused::new(Rejection::Forbidden, "the source is not in listen.allow_from"))
        } else if head.method != Method::POST {
            Some(Refused::new(Rejection::Method, "not a POST"))
        } else {
            None
        };
        let traceparent = head.headers.get(&TRACEPARENT).and_then(traceparent);
        // Headers are not held while the body is waited for.
        drop(head);
        if let Some(refused) = refused {
            body::drain(announced, &mut body).await;
            return Err(refused);
        }
        let body = self.bodies.read(announced, &mut body).await?;
        let received_at = self.clock.now();
        let delivery = Delivery { received_at, request_id: Some(request_id.shared()), traceparent };
        let checked = verify::verify(&body, &self.keyring(), &delivery)
            .map_err(|refusal| Refused::new(Rejection::from(&refusal), refusal.to_string()))?;
        self.metrics.forms(checked.form).inc();
        let _storing = connection.as_ref().map(|connection| connection.proven());

        let verified = checked.verified;
        let series = self.metrics.subscriber(verified.subscriber_id());
        let event = match verified.content() {
            Content::Handshake(handshake) => {
                let answer = handshake_answer(&handshake.nonce);
                if handshake.is_probe() {
                    tracing::info!(subscriber = %handshake.subscriber_id, "answered a probe of our own");
                    self.intake.note(verified, received_at);
                    return Ok(answer);
                }
                series.handshake(received_at);
                series.deliveries(HANDSHAKE, Outcome::Verified).inc();
                tracing::info!(subscriber = %handshake.subscriber_id, "answered a handshake");
                self.intake.note(verified, received_at);
                return Ok(answer);
            }
            Content::Event(event) => {
                if self.retention.is_some_and(|retention| received_at.since(event.occurred_at) > retention) {
                    series.deliveries(&event.event, Outcome::Expired).inc();
                    return Ok(empty());
                }
                Some(Arc::clone(&event.event))
            }
            Content::Unreadable(unreadable) => {
                self.throttle.run("quarantined", |suppressed| {
                    tracing::warn!(subscriber = %unreadable.subscriber_id, reason = unreadable.reason,
                        request_id = request_id.as_str(), suppressed, "signed, but not an event: kept in the quarantine");
                });
                None
            }
        };
        let stored = tokio::time::timeout(ANSWER_TIME, self.intake.store(verified, body, received_at)).await;
        let outcome = match stored {
            Ok(Ok(Appended::Stored)) => {
                series.event_stored(received_at);
                Outcome::Stored
            }
            Ok(Ok(Appended::Duplicate)) => Outcome::Duplicate,
            Ok(Ok(Appended::Quarantined | Appended::Noted)) => Outcome::Quarantined,
            Ok(Err(NotStored::QueueFull)) => return Err(Refused::new(Rejection::QueueFull, "the queue is full")),
            Ok(Err(NotStored::Unavailable)) => {
                return Err(Refused::new(Rejection::Unavailable, "the database is unavailable"));
            }
            Err(_) => return Err(Refused::new(Rejection::Slow, "not stored in time")),
        };
        series.deliveries(event.as_deref().unwrap_or("other"), outcome).inc();
        Ok(empty())
    }

    fn refuse(&self, refused: &Refused, request_id: &RequestId) -> Response {
        let reason = refused.reason;
        self.metrics.rejections(reason).inc();
        self.throttle.run(reason.as_str(), |suppressed| {
            tracing::warn!(reason = reason.as_str(), detail = %refused.detail, request_id = request_id.as_str(), suppressed,
                "refused a delivery");
        });
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
        };
        let mut response = problem(status);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            }
            _ => {}
        }
        response
    }
}

/// The handler.
pub async fn deliver(
    State(ingest): State<Arc<Ingest>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let response = match ingest.take(request, &request_id).await {
        Ok(response) => response,
        Err(refused) => ingest.refuse(&refused, &request_id),
    };
    ingest.metrics.delivery_duration.observe(started.elapsed().as_secs_f64());
    response
}

/// Why a request was not answered `200`.
struct Refused {
    reason: Rejection,
    detail: std::borrow::Cow<'static, str>,
}

impl Refused {
    fn new(reason: Rejection, detail: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<NoBody> for Refused {
    fn from(why: NoBody) -> Self {
        match why {
            NoBody::TooLarge => Self::new(Rejection::TooLarge, "the body is over listen.max_body"),
            NoBody::TooSlow => Self::new(Rejection::BodyTimeout, format!("the body took more than {BODY_TIME:?}")),
            NoBody::Crowded => Self::new(Rejection::Crowded, "the slowest of too many bodies that are still arriving"),
            NoBody::Cut(error) => Self::new(Rejection::BodyCut, error),
        }
    }
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
