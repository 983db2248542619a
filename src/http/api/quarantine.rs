//! Signed bodies of which no event could be made, and why.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, Missing, Refusals};
use super::paging::List;
use super::params::{AskedTime, At, ListParams, NoParams, PageParams, Params, Text};
use crate::http::auth::Right;
use convoke_core::event::{Content, Unreadable};
use convoke_core::verify;
use convoke_log::{ListedQuarantined, Order, QuarantineFilter};

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct QuarantineParams {
    /// That arrived at this time or later: RFC 3339, or a date, which is its first moment. Without an offset it is a time of
    /// the setting `reports.time_zone`.
    #[param(inline)]
    since: Option<AskedTime>,
    /// That arrived before this time.
    #[param(inline)]
    until: Option<AskedTime>,
    /// Of this subscriber.
    #[param(inline)]
    subscriber: Option<Text<100>>,
}

/// An entry of the quarantine with its body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entry {
    #[serde(flatten)]
    entry: ListedQuarantined,
    /// The whole body, with U+FFFD for what is not UTF-8. Null if masked.
    body: Option<String>,
    /// What today's Convoke makes of it, in a sentence.
    reading: String,
}

/// The quarantine, the newest entries first.
#[utoipa::path(
    get,
    path = "/api/v1/quarantine",
    operation_id = "list_quarantine",
    tag = "log",
    params(QuarantineParams, PageParams),
    responses((status = 200, description = "A page of entries.", body = List<ListedQuarantined>), Refusals)
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: ListParams<QuarantineParams>,
) -> Result<Json<List<ListedQuarantined>>, ApiError> {
    let api = &*api;
    let page = params.page("quarantine", Order::Newest)?;
    let filter = QuarantineFilter {
        since: params.common.since.map(|time| time.in_zone(&api.zone)),
        until: params.common.until.map(|time| time.in_zone(&api.zone)),
        subscriber: params.common.subscriber.as_ref().map(|text| text.0.clone()),
    };
    let found = api.ask(api.log.list_quarantine(&filter, &page)).await?;
    Ok(params.list("quarantine", found, |row| api.mask.quarantined(row, right)))
}

/// One entry of the quarantine, with its body.
#[utoipa::path(
    get,
    path = "/api/v1/quarantine/{id}",
    operation_id = "get_quarantined",
    tag = "log",
    params(("id" = i64, Path, description = "Its number.")),
    responses((status = 200, description = "The entry.", body = Entry), Missing, Refusals)
)]
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    At(id): At<i64>,
    _: Params<NoParams>,
) -> Result<Json<Entry>, ApiError> {
    let api = &*api;
    let found = api.ask(api.log.get_quarantined(id)).await?.ok_or(ApiError::NotFound)?;
    let bytes = i64::try_from(found.body.len()).unwrap_or(i64::MAX);
    let unreadable = Unreadable {
        subscriber_id: found.subscriber_id.as_str().into(),
        received_at: found.received_at,
        reason: found.reason.clone(),
        body: found.body,
    };
    let reading = match verify::reread(&unreadable, api.now(), None) {
        Err(reason) => format!("Still no event: {reason}."),
        Ok(verified) => match verified.content() {
            Content::Event(event) => format!(
                "An event that happened at {}: `convoke quarantine retry {id}` puts it into the log.",
                event.occurred_at
            ),
            _ => "Not an event.".to_owned(),
        },
    };
    let entry = ListedQuarantined {
        id,
        subscriber_id: found.subscriber_id,
        received_at: found.received_at,
        deliveries: found.deliveries,
        reason: found.reason,
        bytes,
        masked: false,
    };
    let body = (right == Right::Full).then(|| String::from_utf8_lossy(&unreadable.body).into_owned());
    Ok(Json(Entry { entry: api.mask.quarantined(entry, right), body, reading }))
}
