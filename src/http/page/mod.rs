//! The page: `GET /` and `GET /assets/…`, files that are compiled in. Nothing is built, and nothing comes from elsewhere.
//!
//! What it shows it asks of the [API](super::api), like any other client; it has no way of its own to the log. Who may see it, and
//! what the answers forbid a browser, is decided around this router.

#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;

use super::problem::problem;

/// All that is served below `/assets/`.
#[derive(rust_embed::Embed)]
#[folder = "src/http/page/assets"]
struct Assets;

/// The document that loads the rest.
const SHELL: &str = include_str!("index.html");

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// The routes of the page.
pub fn router() -> Router {
    Router::new().route("/", get(shell)).route("/assets/{*path}", get(asset))
}

async fn shell() -> Response {
    let mut response = Response::new(Body::from(SHELL));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Asked for every time, and sent only if it is another than the browser has: after an update all of the page is new at once.
async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = Assets::get(&path) else { return problem(StatusCode::NOT_FOUND) };
    let etag = format!("\"{}\"", hex::encode(&asset.metadata.sha256_hash()[..16]));
    let known = is_known(&headers, &etag);
    let mut response = Response::new(if known { Body::empty() } else { Body::from(asset.data) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, HeaderValue::from_str(&etag).expect("hexadecimal in quotes"));
    response
}

/// Whether `If-None-Match` names this version. A proxy that compresses may have made the tag weak.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}
