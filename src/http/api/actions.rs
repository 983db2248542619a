//! What operators do: each first as a preview, which changes nothing, and then once for each id that its client makes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};

use super::Shared;
use super::error::{ApiError, Missing, Problem, Refusals};
use super::params::{AskedTime, At, NoParams, Params, Text};
use crate::actions::{ActionError, ActionQueue, ActionRecord, ActionState, MAX_ENTRIES, Preview, ReplayWork, Work};
use crate::http::auth::Identity;
use convoke_core::verify::Admit;
use convoke_core::zone::TimeZone;

/// Paths that are there for `POST` alone.
pub(crate) const ONLY_POST: [&str; 3] = ["/api/v1/quarantine/retry", "/api/v1/quarantine/discard", "/api/v1/replay"];

/// So long a body may be, in bytes: a hundred numbers, and a filter. And within this time it arrives.
const MAX_BODY_BYTES: usize = 16 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Entries of the quarantine to be read again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBody {
    /// Made by the client, a UUID for example: 8 to 64 letters, digits, hyphens and underscores. The same id twice does the action
    /// once. Needed with `confirm`.
    #[schema(value_type = Option<String>, min_length = 8, max_length = 64)]
    action_id: Option<String>,
    /// `true` does it. Otherwise nothing changes, and the answer says what would happen.
    #[serde(default)]
    confirm: bool,
    /// The numbers of entries, 100 at the most.
    #[serde(default)]
    #[schema(max_items = 100)]
    ids: Vec<i64>,
    /// All entries, in place of `ids`.
    #[serde(default)]
    all: bool,
    /// How times are read that are implausible as they stand.
    unit: Option<Admit>,
}

/// Entries of the quarantine to be deleted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiscardBody {
    /// As in a retry.
    #[schema(value_type = Option<String>, min_length = 8, max_length = 64)]
    action_id: Option<String>,
    /// `true` does it. Otherwise nothing changes, and the answer says what would happen.
    #[serde(default)]
    confirm: bool,
    /// The numbers of entries, 100 at the most.
    #[schema(min_items = 1, max_items = 100)]
    ids: Vec<i64>,
}

/// A part of the log to be published again: what is missing, or a range.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayBody {
    /// As in a retry.
    #[schema(value_type = Option<String>, min_length = 8, max_length = 64)]
    action_id: Option<String>,
    /// `true` does it. Otherwise nothing changes, and the answer says what would happen.
    #[serde(default)]
    confirm: bool,
    /// Exactly what the stream misses; nothing else then.
    #[serde(default)]
    missing: bool,
    /// What happened at this time or later.
    #[schema(inline)]
    since: Option<AskedTime>,
    /// What happened before this time.
    #[schema(inline)]
    until: Option<AskedTime>,
    /// Events of this type.
    #[schema(inline)]
    event: Option<Text<100>>,
    /// Events of the meeting with this number or UUID.
    #[schema(inline)]
    meeting: Option<Text<300>>,
    /// Also what the stream got within its duplicate window.
    #[serde(default)]
    again: bool,
}

/// What an action would do. Nothing has changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Previewed {
    /// Always `preview`.
    #[schema(example = "preview")]
    state: &'static str,
    /// What was asked for.
    work: Work,
    #[serde(flatten)]
    preview: Preview,
}

/// What an action would do, or how it stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Acted {
    /// Without `confirm`.
    Preview(Previewed),
    /// With it.
    Action(ActionRecord),
}

/// What an action may be answered.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub(crate) enum ActionAnswers {
    /// What would happen; or, with `confirm`, what has.
    #[response(status = 200)]
    Ended(Acted),
    /// It goes on: `actions/{action_id}` says how it stands.
    #[response(status = 202)]
    GoesOn(Acted),
    /// The id is that of another action, or another action of this kind goes on.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// The body is not JSON, or does not say so.
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Problem),
}

/// Actions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionList {
    /// The newest 50.
    items: Vec<ActionRecord>,
}

impl From<ActionError> for ApiError {
    fn from(error: ActionError) -> Self {
        match error {
            ActionError::Impossible(why) => Self::bad(why),
            ActionError::Reused | ActionError::Busy => Self::Conflict(error.to_string()),
            ActionError::Stopping => Self::Stopping,
            ActionError::TooSlow => Self::TooSlow,
            ActionError::Log(error) => error.into(),
            ActionError::Unavailable(cause) => {
                tracing::warn!(error = format!("{cause:#}"), "an action could not be looked at");
                Self::Unavailable
            }
        }
    }
}

/// The body of an action; what it is about; what it is under which id, if it is confirmed.
trait ActionBody: DeserializeOwned {
    fn order(self, zone: &TimeZone) -> (Option<String>, bool, Result<Work, ApiError>);
}

fn entries(ids: Vec<i64>) -> Result<Vec<i64>, ApiError> {
    if ids.is_empty() || ids.len() > MAX_ENTRIES {
        return Err(ApiError::bad(format!("ids: allowed are 1 to {MAX_ENTRIES} numbers of entries")));
    }
    Ok(ids)
}

impl ActionBody for RetryBody {
    fn order(self, _: &TimeZone) -> (Option<String>, bool, Result<Work, ApiError>) {
        let work = match (self.all, self.ids.is_empty()) {
            (true, false) => Err(ApiError::bad("all: allowed without ids")),
            (true, true) => Ok(Work::Retry { ids: Vec::new(), unit: self.unit }),
            (false, _) => entries(self.ids).map(|ids| Work::Retry { ids, unit: self.unit }),
        };
        (self.action_id, self.confirm, work)
    }
}

impl ActionBody for DiscardBody {
    fn order(self, _: &TimeZone) -> (Option<String>, bool, Result<Work, ApiError>) {
        (self.action_id, self.confirm, entries(self.ids).map(|ids| Work::Discard { ids }))
    }
}

impl ActionBody for ReplayBody {
    fn order(self, zone: &TimeZone) -> (Option<String>, bool, Result<Work, ApiError>) {
        let Self { action_id, confirm, missing, since, until, event, meeting, again } = self;
        let ranged = since.is_some() || until.is_some() || event.is_some() || meeting.is_some();
        let work = match (missing, ranged) {
            (true, true) => Err(ApiError::bad("missing: allowed without since, until, event and meeting")),
            (false, false) => Err(ApiError::bad(
                "say what to replay: missing, or a range by since, until, event, meeting; since 1970-01-01 is the whole log",
            )),
            _ => {
                let at = |time: Option<AskedTime>| time.map(|time| time.in_zone(zone));
                let (since, until) = (at(since), at(until));
                let (event, meeting) = (event.map(|text| text.0), meeting.map(|text| text.0));
                Ok(Work::Replay(ReplayWork { missing, since, until, event, meeting, again }))
            }
        };
        (action_id, confirm, work)
    }
}

/// The body, which says that it is JSON: a form of another site cannot.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let json = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    });
    if !json {
        return Err(ApiError::NotJson);
    }
    let read = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES);
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(bytes)) => bytes,
        _ => return Err(ApiError::bad(format!("allowed is a body of {MAX_BODY_BYTES} bytes, sent within 10 s"))),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        // What was sent stands before what is allowed.
        let text = error.to_string();
        let said = match (text.split_once(", expected "), text.split_once("missing field ")) {
            (Some((_, expected)), _) => format!("expected {expected}"),
            (None, Some((_, missing))) => format!("there is no {missing}"),
            (None, None) if error.is_data() => text,
            (None, None) => "allowed is a JSON object".to_owned(),
        };
        ApiError::bad(format!("the body: {said}"))
    })
}

fn id(text: Option<String>) -> Result<String, ApiError> {
    let fits = |text: &String| {
        (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.filter(fits).ok_or_else(|| {
        ApiError::bad("action_id: needed with confirm, 8 to 64 letters, digits, hyphens and underscores; the same id twice does it once")
    })
}

async fn act<T: ActionBody>(
    Shared { actions, api, .. }: &Shared,
    identity: &Identity,
    request: Request,
) -> Result<Response, ApiError> {
    let Some(who) = identity.name.as_deref().filter(|_| identity.operate) else {
        tracing::warn!(
            who = identity.name.as_deref(),
            path = request.uri().path(),
            "an action was refused: no right to operate"
        );
        return Err(ApiError::NoOperator);
    };
    let (action_id, confirm, work) = body::<T>(request).await?.order(&api.zone);
    let work = work?;
    if !confirm {
        let preview = actions.preview(&work).await?;
        return Ok(Json(Acted::Preview(Previewed { state: "preview", work, preview })).into_response());
    }
    let record = actions.begin(&id(action_id)?, who, work).await?;
    let status = if record.state == ActionState::Running { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(Acted::Action(record))).into_response())
}

/// Reads entries of the quarantine again; those of which an event can be made now go into the log.
#[utoipa::path(
    post,
    path = "/api/v1/quarantine/retry",
    operation_id = "retry_quarantined",
    tag = "actions",
    request_body = RetryBody,
    responses(ActionAnswers, Refusals)
)]
pub(super) async fn retry(
    State(shared): State<Shared>,
    Extension(identity): Extension<Identity>,
    _: Params<NoParams>,
    request: Request,
) -> Result<Response, ApiError> {
    act::<RetryBody>(&shared, &identity, request).await
}

/// Deletes entries of the quarantine for good.
#[utoipa::path(
    post,
    path = "/api/v1/quarantine/discard",
    operation_id = "discard_quarantined",
    tag = "actions",
    request_body = DiscardBody,
    responses(ActionAnswers, Refusals)
)]
pub(super) async fn discard(
    State(shared): State<Shared>,
    Extension(identity): Extension<Identity>,
    _: Params<NoParams>,
    request: Request,
) -> Result<Response, ApiError> {
    act::<DiscardBody>(&shared, &identity, request).await
}

/// Publishes a part of the log again: what the stream misses, a range, or one meeting.
#[utoipa::path(
    post,
    path = "/api/v1/replay",
    operation_id = "replay",
    tag = "actions",
    request_body = ReplayBody,
    responses(ActionAnswers, Refusals)
)]
pub(super) async fn replay(
    State(shared): State<Shared>,
    Extension(identity): Extension<Identity>,
    _: Params<NoParams>,
    request: Request,
) -> Result<Response, ApiError> {
    act::<ReplayBody>(&shared, &identity, request).await
}

/// The newest actions, of all replicas.
#[utoipa::path(
    get,
    path = "/api/v1/actions",
    operation_id = "list_actions",
    tag = "actions",
    responses((status = 200, description = "The newest 50.", body = ActionList), Refusals)
)]
pub(super) async fn list(
    State(actions): State<Arc<ActionQueue>>,
    _: Params<NoParams>,
) -> Result<Json<ActionList>, ApiError> {
    Ok(Json(ActionList { items: actions.recent().await? }))
}

/// How one action stands.
#[utoipa::path(
    get,
    path = "/api/v1/actions/{action_id}",
    operation_id = "get_action",
    tag = "actions",
    params(("action_id" = String, Path, description = "As its client made it.")),
    responses((status = 200, description = "The action.", body = ActionRecord), Missing, Refusals)
)]
pub(super) async fn one(
    State(actions): State<Arc<ActionQueue>>,
    At(action_id): At<String>,
    _: Params<NoParams>,
) -> Result<Json<ActionRecord>, ApiError> {
    actions.find(&action_id).await?.map(Json).ok_or(ApiError::NotFound)
}
