//! One field for everything: a meeting's number or UUID, or a person.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::QUERY_TIMEOUT;
use super::error::{ApiError, Refusals};
use super::params::{Params, Text, last_days};
use crate::http::auth::Right;
use convoke_log::{ListedMeeting, ListedStay, MeetingFilter, Order, Page, Scope, StayFilter};

/// So many of each are found at the most.
const MAX_FOUND: u32 = 20;

/// What is searched for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchParams {
    /// A meeting's number or UUID, or a person: exactly their user UUID, account, call number, participant or display name. People
    /// are not looked for if they are masked.
    #[param(inline)]
    q: Text<200>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    /// Runs of that meeting, or in which that person was in the last 31 days; the newest 20.
    meetings: Vec<ListedMeeting>,
    /// Stays of that person in the last 31 days; the newest 20.
    stays: Vec<ListedStay>,
}

/// Searches for a meeting or a person.
#[utoipa::path(
    get,
    path = "/api/v1/search",
    operation_id = "search",
    tag = "tables",
    params(SearchParams),
    responses((status = 200, description = "What was found.", body = Found), Refusals)
)]
pub(super) async fn search(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    Params(params): Params<SearchParams>,
) -> Result<Json<Found>, ApiError> {
    let api = &*api;
    let q = params.q.0.trim().to_owned();
    let person = last_days(q.clone(), api.now());
    let meetings = |scope| async {
        let page = Page { order: Order::Newest, after: None, limit: MAX_FOUND, within: QUERY_TIMEOUT };
        api.log.list_meetings(&MeetingFilter { scope, status: None }, &page).await
    };
    let named = api.ask(meetings(Scope { meeting: Some(q), ..Scope::default() })).await?;
    if right == Right::Masked {
        let meetings = named.rows.into_iter().map(|row| api.mask.meeting(row, right)).collect();
        return Ok(Json(Found { meetings, stays: Vec::new() }));
    }
    let attended = api.ask(meetings(person.clone())).await?;
    let page = Page { order: Order::Newest, after: None, limit: MAX_FOUND, within: QUERY_TIMEOUT };
    let stays = api.ask(api.log.list_stays(&StayFilter { scope: person, ..StayFilter::default() }, &page)).await?;
    let mut seen = HashSet::new();
    let found = named.rows.into_iter().chain(attended.rows);
    let found = found.filter(|row| seen.insert((row.subscriber_id.clone(), row.meeting_uuid.clone())));
    Ok(Json(Found {
        meetings: found.take(MAX_FOUND as usize).map(|row| api.mask.meeting(row, right)).collect(),
        stays: stays.rows.into_iter().map(|row| api.mask.stay(row, right)).collect(),
    }))
}
