//! The events of the log.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::ask::{Asked, At, Common, Nothing, Text};
use super::page::{List, Of};
use super::refused::{Missing, Refusals, Refused};
use super::streams::Streams;
use crate::http::access::Right;
use convoke_core::event::Source;
use convoke_core::id::EventId;
use convoke_log::{EventFilter, ListedEvent, Order};

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Of this type, as sent.
    #[param(inline, example = "meeting.join")]
    event: Option<Text<100>>,
    /// That came in this way.
    #[param(inline)]
    source: Option<Source>,
    /// Which end comes first; the newest unless told otherwise.
    #[param(inline)]
    order: Option<Order>,
}

/// Events, in the order in which they happened.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    operation_id = "list_events",
    tag = "log",
    params(Common, Which),
    responses((status = 200, description = "A page of events.", body = List<ListedEvent>), Refusals)
)]
pub(super) async fn list(
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    asked: Asked<Common, Which>,
) -> Result<Json<List<ListedEvent>>, Refused> {
    let (api, list) = (&streams.api, Of { list: "events", fingerprint: &asked.fingerprint });
    let page = list.page(&asked.of.limit, &asked.of.cursor, asked.and.order.unwrap_or_default())?;
    let filter = EventFilter {
        scope: asked.of.scope(api.now(), right)?,
        event: asked.and.event.map(|text| text.0),
        source: asked.and.source,
    };
    let found = api.ask(api.log.list_events(&filter, &page)).await?;
    Ok(Json(list.list(found, |row| api.mask.event(row, right))))
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
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    At(event_id): At<Uuid>,
    _: Asked<Nothing>,
) -> Result<Json<ListedEvent>, Refused> {
    let api = &streams.api;
    let found = api.ask(api.log.get_event(EventId::from_uuid(event_id))).await?;
    Ok(Json(api.mask.event(found.ok_or(Refused::NotFound)?, right)))
}
