//! Who is asking.

use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::params::{NoParams, Params};
use crate::http::auth::{Grant, Right};

/// What whoever is asking may see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// `full`, or `masked`: personal data is hidden.
    right: Right,
    /// Whether a token is asked for at all; if not, everything is masked.
    token_required: bool,
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
    Extension(right): Extension<Right>,
    Extension(grant): Extension<Grant>,
    _: Params<NoParams>,
) -> Json<Session> {
    Json(Session { right, token_required: grant.was_asked_for(), version: env!("CARGO_PKG_VERSION") })
}
