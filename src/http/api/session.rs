//! Who is asking.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::ask::{Asked, Nothing};
use super::refused::Refusals;
use super::streams::Streams;
use crate::http::access::Right;

/// What whoever is asking may see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// `full`, or `masked`: personal data is hidden.
    right: RightWord,
    /// Whether a token is asked for at all; if not, everything is masked.
    token_required: bool,
    /// The version of Convoke.
    version: &'static str,
}

super::ask::words! {
    /// How much somebody may see.
    RightWord: "full" => Full, "masked" => Masked,
}

/// What whoever is asking may see.
#[utoipa::path(
    get,
    path = "/api/v1/session",
    tag = "self",
    responses((status = 200, description = "The right.", body = Session), Refusals)
)]
pub(super) async fn session(
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    _: Asked<Nothing>,
) -> Json<Session> {
    let right = match right {
        Right::Full => RightWord::Full,
        Right::Masked => RightWord::Masked,
    };
    Json(Session { right, token_required: streams.api.token_required, version: env!("CARGO_PKG_VERSION") })
}
