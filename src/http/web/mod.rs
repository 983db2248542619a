//! The page: `GET /` and `GET /assets/…`, files that are compiled in. Nothing is built, and nothing comes from elsewhere.
//!
//! What it shows it asks of the [API](super::api), like any other client; it has no way of its own to the log. Who may see it, and
//! what the answers forbid a browser, is decided around this router.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::problem::problem;

/// A file of the page, by its path below `/assets/`.
type Embedded = (&'static str, &'static [u8]);

macro_rules! embed {
    ($($path:literal),* $(,)?) => { &[$(($path, include_bytes!(concat!("assets/", $path)))),*] };
}

/// All that is served below `/assets/`. A test compares it with the folder.
const FILES: &[Embedded] = embed![
    "early.js",
    "icon.svg",
    "js/api.js",
    "js/chart.js",
    "js/dom.js",
    "js/filters.js",
    "js/format.js",
    "js/i18n.js",
    "js/lang/en.js",
    "js/lang/zh.js",
    "js/list.js",
    "js/live.js",
    "js/main.js",
    "js/overview/behind.js",
    "js/overview/happened.js",
    "js/overview/happening.js",
    "js/overview/sections.js",
    "js/overview/tiles.js",
    "js/overview/verdict.js",
    "js/parts.js",
    "js/router.js",
    "js/shell.js",
    "js/timeline.js",
    "js/verdict.js",
    "js/views/event.js",
    "js/views/events.js",
    "js/views/meeting.js",
    "js/views/meetings.js",
    "js/views/overview.js",
    "js/views/quarantine.js",
    "js/views/search.js",
    "page.css",
    "parts.css",
    "vendor/uplot/LICENSE",
    "vendor/uplot/uPlot.iife.min.js",
    "vendor/uplot/uPlot.min.css",
];

/// The document that loads the rest.
const SHELL: &str = include_str!("assets/index.html");

/// A file as it is answered.
struct Asset {
    content: Bytes,
    content_type: HeaderValue,
    etag: HeaderValue,
}

static ASSETS: LazyLock<HashMap<&'static str, Asset>> =
    LazyLock::new(|| FILES.iter().map(|&(path, content)| (path, Asset::new(path, content))).collect());

impl Asset {
    fn new(path: &str, content: &'static [u8]) -> Self {
        let digest = hex::encode(&Sha256::digest(content)[..16]);
        Self {
            content: Bytes::from_static(content),
            content_type: HeaderValue::from_static(content_type(path)),
            etag: HeaderValue::from_str(&format!("\"{digest}\"")).expect("hexadecimal in quotes"),
        }
    }
}

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
    let Some(asset) = ASSETS.get(path.as_str()) else {
        return problem(StatusCode::NOT_FOUND);
    };
    let known = is_known(&headers, &asset.etag);
    let mut response = Response::new(if known { Body::empty() } else { Body::from(asset.content.clone()) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, asset.content_type.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, asset.etag.clone());
    response
}

/// Whether `If-None-Match` names this version. A proxy that compresses may have made the tag weak.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == etag.as_bytes())
}
