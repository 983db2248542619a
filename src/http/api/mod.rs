//! `/api/v1`: the log, its tables and the state of the service, to read, for people's programs and for the page; and what
//! operators do (`actions`).
//!
//! Handlers are one file a group; their parameters are in `params`, pages of lists in `paging`, what is hidden of the rows that they answer in `mask`,
//! and the document that describes all of it is made of the same types (`document`). The streams are in [`streams`].

mod actions;
mod attendance;
mod document;
mod download;
mod error;
mod events;
mod health;
mod mask;
mod meetings;
mod paging;
mod params;
mod quarantine;
mod search;
mod session;
mod stats;
pub mod streams;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRef, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use http_body_util::BodyExt as _;
use tokio::sync::{Mutex, Semaphore};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::health::Health;
use crate::actions::ActionQueue;
pub(super) use actions::ONLY_POST;
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, Millis};
use convoke_core::zone::TimeZone;
use convoke_log::{LogError, Queries};
use error::ApiError;
use mask::Mask;
use streams::Streams;

/// How long finding an answer may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that is large, and how many such may be on their way at once.
const LARGE_ANSWER_BYTES: u64 = 256 << 10;
const MAX_LARGE_ANSWERS: usize = 16;

/// Files of lists that are on their way at once: each reads the log all the time.
const MAX_DOWNLOADS: usize = 4;

/// What the handlers need.
pub struct Api {
    log: Arc<dyn Queries>,
    health: Arc<Health>,
    mask: Mask,
    downloads: Arc<Semaphore>,
    /// Held by the one that is being made.
    workbook: Mutex<()>,
    clock: Clock,
    zone: TimeZone,
    throttle: Throttle,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Api {
    /// Reads `log`, and answers what `health` knows. Days are those of `zone`.
    #[must_use]
    pub fn new(log: Arc<dyn Queries>, health: Arc<Health>, clock: Clock, zone: TimeZone) -> Self {
        let downloads = Arc::new(Semaphore::new(MAX_DOWNLOADS));
        Self {
            log,
            health,
            mask: Mask::default(),
            downloads,
            workbook: Mutex::new(()),
            clock,
            zone,
            throttle: Throttle::default(),
        }
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }

    /// What the log answers in time.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, LogError>>) -> Result<T, ApiError> {
        let Ok(answer) = tokio::time::timeout(QUERY_TIMEOUT + Duration::from_secs(1), question).await else {
            return Err(ApiError::TooSlow);
        };
        answer.map_err(|error| {
            if error.may_pass() {
                self.throttle.run("unanswered", |suppressed| {
                    tracing::warn!(%error, suppressed, "could not answer a request to the API");
                });
            }
            error.into()
        })
    }
}

/// What the handlers share: most of them only what they read.
#[derive(Clone)]
struct Shared {
    actions: Arc<ActionQueue>,
    api: Arc<Api>,
    streams: Arc<Streams>,
}

impl FromRef<Shared> for Arc<Api> {
    fn from_ref(shared: &Shared) -> Self {
        Self::clone(&shared.api)
    }
}

impl FromRef<Shared> for Arc<ActionQueue> {
    fn from_ref(shared: &Shared) -> Self {
        Self::clone(&shared.actions)
    }
}

impl FromRef<Shared> for Arc<Streams> {
    fn from_ref(shared: &Shared) -> Self {
        Self::clone(&shared.streams)
    }
}

/// The routes, each of which is in the document and the other way round.
pub fn router(streams: Arc<Streams>, actions: Arc<ActionQueue>) -> Router {
    let shared = Shared { actions, api: Arc::clone(&streams.api), streams };
    let (router, document) = OpenApiRouter::with_openapi(document::head())
        .routes(routes!(session::session))
        .routes(routes!(events::list))
        .routes(routes!(events::one))
        .routes(routes!(meetings::list))
        .routes(routes!(meetings::one))
        .routes(routes!(meetings::present))
        .routes(routes!(attendance::stays))
        .routes(routes!(attendance::recordings))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::one))
        .routes(routes!(actions::retry))
        .routes(routes!(actions::discard))
        .routes(routes!(actions::replay))
        .routes(routes!(actions::list))
        .routes(routes!(actions::one))
        .routes(routes!(download::events))
        .routes(routes!(download::meetings))
        .routes(routes!(download::attendance))
        .routes(routes!(download::recordings))
        .routes(routes!(search::search))
        .routes(routes!(health::health))
        .routes(routes!(health::refusals))
        .routes(routes!(stats::events))
        .routes(routes!(stats::participants))
        .routes(routes!(stats::meetings))
        .routes(routes!(streams::events::stream))
        .routes(routes!(streams::live::live))
        .routes(routes!(document::openapi))
        .with_state(shared)
        .split_for_parts();
    let document = serde_json::to_string(&document).expect("a document of our own types");
    let room = Arc::new(Semaphore::new(MAX_LARGE_ANSWERS));
    router.layer(Extension(document::Document(document.into()))).layer(middleware::from_fn_with_state(room, bounded))
}

/// Bounds how many large answers are held for whoever takes them slowly, or not at all.
async fn bounded(State(room): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.body().size_hint().upper().is_none_or(|length| length <= LARGE_ANSWER_BYTES) {
        return response;
    }
    match room.try_acquire_owned() {
        Ok(place) => response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _held = &place;
                frame
            }))
        }),
        Err(_) => ApiError::Full.into_response(),
    }
}
