//! Stays and recordings.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::ask::{Asked, Common};
use super::page::{List, Of};
use super::refused::{Refusals, Refused};
use super::streams::Streams;
use crate::http::access::Right;
use convoke_log::{ClosedBy, ListedRecording, ListedStay, Order, RecordingFilter, StayFilter};

/// Which stays.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// That ended so.
    #[param(inline)]
    closed_by: Option<ClosedBy>,
}

/// Stays in meetings, the newest first: by when they began.
#[utoipa::path(
    get,
    path = "/api/v1/attendance",
    operation_id = "list_attendance",
    tag = "tables",
    params(Common, Which),
    responses((status = 200, description = "A page of stays.", body = List<ListedStay>), Refusals)
)]
pub(super) async fn stays(
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    asked: Asked<Common, Which>,
) -> Result<Json<List<ListedStay>>, Refused> {
    let (api, list) = (&streams.api, Of { list: "attendance", fingerprint: &asked.fingerprint });
    let mut page = list.page(&asked.of.limit, &asked.of.cursor, Order::Newest)?;
    page.after = page.after.map(|id| api.mask.named_stay(id, right));
    let (scope, closed_by) = (asked.of.scope(api.now(), right)?, asked.and.closed_by);
    let mut found = api.ask(api.log.list_stays(&StayFilter { scope, closed_by, run: None }, &page)).await?;
    found.next = found.next.map(|id| api.mask.stay_id(id, right));
    Ok(Json(list.list(found, |row| api.mask.stay(row, right))))
}

/// Finished recordings, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/recordings",
    operation_id = "list_recordings",
    tag = "tables",
    params(Common),
    responses((status = 200, description = "A page of recordings.", body = List<ListedRecording>), Refusals)
)]
pub(super) async fn recordings(
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    asked: Asked<Common>,
) -> Result<Json<List<ListedRecording>>, Refused> {
    let (api, list) = (&streams.api, Of { list: "recordings", fingerprint: &asked.fingerprint });
    let page = list.page(&asked.of.limit, &asked.of.cursor, Order::Newest)?;
    let filter = RecordingFilter { scope: asked.of.scope(api.now(), right)?, run: None };
    let found = api.ask(api.log.list_recordings(&filter, &page)).await?;
    Ok(Json(list.list(found, |row| api.mask.recording(row, right))))
}
