//! Stays and recordings.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::error::{ApiError, Refusals};
use super::paging::List;
use super::params::{ListParams, PageParams, ScopeParams};
use crate::http::auth::Right;
use convoke_log::{ClosedBy, ListedRecording, ListedStay, Order, RecordingFilter, StayFilter};

/// Which stays.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StayParams {
    /// That ended so.
    #[param(inline)]
    pub closed_by: Option<ClosedBy>,
}

/// Stays in meetings, the newest first: by when they began.
#[utoipa::path(
    get,
    path = "/api/v1/attendance",
    operation_id = "list_attendance",
    tag = "tables",
    params(ScopeParams, PageParams, StayParams),
    responses((status = 200, description = "A page of stays.", body = List<ListedStay>), Refusals)
)]
pub(super) async fn stays(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: ListParams<ScopeParams, StayParams>,
) -> Result<Json<List<ListedStay>>, ApiError> {
    let api = &*api;
    let mut page = params.page("attendance", Order::Newest)?;
    page.after = page.after.map(|id| api.mask.named_stay(id, right));
    let (scope, closed_by) = (params.common.scope(api, right)?, params.own.closed_by);
    let mut found = api.ask(api.log.list_stays(&StayFilter { scope, closed_by, run: None }, &page)).await?;
    found.next = found.next.map(|id| api.mask.stay_id(id, right));
    Ok(params.list("attendance", found, |row| api.mask.stay(row, right)))
}

/// Finished recordings, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/recordings",
    operation_id = "list_recordings",
    tag = "tables",
    params(ScopeParams, PageParams),
    responses((status = 200, description = "A page of recordings.", body = List<ListedRecording>), Refusals)
)]
pub(super) async fn recordings(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: ListParams<ScopeParams>,
) -> Result<Json<List<ListedRecording>>, ApiError> {
    let api = &*api;
    let page = params.page("recordings", Order::Newest)?;
    let filter = RecordingFilter { scope: params.common.scope(api, right)?, run: None };
    let found = api.ask(api.log.list_recordings(&filter, &page)).await?;
    Ok(params.list("recordings", found, |row| api.mask.recording(row, right)))
}
