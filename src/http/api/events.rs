//! The events of the log.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Api;
use super::error::{ApiError, Missing, Refusals};
use super::paging::List;
use super::params::{At, ListParams, NoParams, PageParams, Params, ScopeParams, Text};
use crate::http::auth::Right;
use convoke_core::event::Source;
use convoke_core::id::EventId;
use convoke_log::{EventFilter, ListedEvent, Order};

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// Of this type, as sent.
    #[param(inline, example = "meeting.join")]
    pub event: Option<Text<100>>,
    /// That came in this way.
    #[param(inline)]
    pub source: Option<Source>,
    /// Which end comes first; the newest unless told otherwise.
    #[param(inline)]
    pub order: Option<Order>,
}

/// Events, in the order in which they happened.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    operation_id = "list_events",
    tag = "log",
    params(ScopeParams, PageParams, EventParams),
    responses((status = 200, description = "A page of events.", body = List<ListedEvent>), Refusals)
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: ListParams<ScopeParams, EventParams>,
) -> Result<Json<List<ListedEvent>>, ApiError> {
    let api = &*api;
    let page = params.page("events", params.own.order.unwrap_or_default())?;
    let filter = EventFilter {
        scope: params.common.scope(api, right)?,
        event: params.own.event.as_ref().map(|text| text.0.clone()),
        source: params.own.source,
    };
    let found = api.ask(api.log.list_events(&filter, &page)).await?;
    Ok(params.list("events", found, |row| api.mask.event(row, right)))
}

/// One event.
#[utoipa::path(
    get,
    path = "/api/v1/events/{event_id}",
    operation_id = "get_event",
    tag = "log",
    params(("event_id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, description = "The event.", body = ListedEvent), Missing, Refusals)
)]
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    At(event_id): At<Uuid>,
    _: Params<NoParams>,
) -> Result<Json<ListedEvent>, ApiError> {
    let api = &*api;
    let found = api.ask(api.log.get_event(EventId::from_uuid(event_id))).await?;
    Ok(Json(api.mask.event(found.ok_or(ApiError::NotFound)?, right)))
}
