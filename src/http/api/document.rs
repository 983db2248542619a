//! The OpenAPI document: made of the handlers' own types.

use std::sync::Arc;

use axum::Extension;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::actions::Acted;
use super::error::{Problem, Refusals};
use super::params::{NoParams, Params};

/// The document, once the routes are known.
#[derive(Clone)]
pub(crate) struct Document(pub Arc<str>);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Convoke",
        description = "What Convoke has received, what it made of it, and how it is; and what operators do. Times are RFC 3339 in UTC \
            with milliseconds. Lists are read page by page: `next` of one answer is `cursor` of the next question. Without \
            the right to see personal data it is masked, and `masked` says so. Errors are problem+json (RFC 9457).",
        license(name = "", identifier = ""),
    ),
    tags(
        (name = "log", description = "What was received."),
        (name = "tables", description = "What was made of it."),
        (name = "now", description = "How it is, and what happens."),
        (name = "actions", description = "What operators do: without `confirm` a preview, with it once for each `action_id`."),
        (name = "statistics", description = "How much there was."),
        (name = "self", description = "About this interface."),
    ),
    components(schemas(Acted, Problem)),
    security(("token" = []), ("session" = []))
)]
struct Head;

/// What is not about one route.
pub(super) fn head() -> utoipa::openapi::OpenApi {
    let mut document = Head::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document.info.license = None;
    document.info.contact = None;
    let components = document.components.get_or_insert_default();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of the settings. Without the right `see_people` personal data is masked, without `operate` nothing is done."));
    components.add_security_scheme("token", SecurityScheme::Http(token.build()));
    let session = ApiKeyValue::with_description("convoke_session", "What `POST /session` gives a browser for a token.");
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
    document
}

/// This document.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "self",
    responses((status = 200, description = "The OpenAPI document.", body = Object), Refusals)
)]
pub(super) async fn openapi(_: Params<NoParams>, Extension(document): Extension<Document>) -> Response {
    ([(CONTENT_TYPE, "application/json")], document.0.to_string()).into_response()
}
