//! Who is asking.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::error::Refusals;
use super::params::{NoParams, Params};
use crate::http::auth::{Grant, Identity, Right};

/// What whoever is asking may see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// `full`, or `masked`: personal data is hidden.
    right: Right,
    /// The name of the token that was sent, or that opened the session; null without one.
    #[schema(value_type = Option<String>)]
    name: Option<Arc<str>>,
    /// What it gives a right to: `view`, `see_people`, `operate`.
    rights: Vec<&'static str>,
    /// Whether a token is asked for at all; if not, everything is masked.
    token_required: bool,
    /// The setting `reports.time_zone`: what a day is, and the zone in which the page shows times.
    time_zone: String,
    /// The version of Convoke.
    version: &'static str,
}

/// What whoever is asking may see.
#[utoipa::path(
    get,
    path = "/api/v1/session",
    tag = "self",
    responses((status = 200, description = "The right.", body = Session), Refusals)
)]
pub(super) async fn session(
    State(api): State<Arc<Api>>,
    Extension(identity): Extension<Identity>,
    Extension(grant): Extension<Grant>,
    _: Params<NoParams>,
) -> Json<Session> {
    let Identity { name, right, operate } = identity;
    let see_people = (right == Right::Full).then_some("see_people");
    let rights = ["view"].into_iter().chain(see_people).chain(operate.then_some("operate")).collect();
    let (token_required, time_zone) = (grant.was_asked_for(), api.zone.name().to_owned());
    Json(Session { right, name, rights, token_required, time_zone, version: env!("CARGO_PKG_VERSION") })
}
