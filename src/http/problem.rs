//! Errors for the sender: RFC 9457, a fixed text per status, nothing that helps a forger.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::body::{self, Announced};

/// A problem with this status. The body says what the status says.
pub fn problem(status: StatusCode) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = format!(r#"{{"type":"about:blank","title":"{title}","status":{}}}"#, status.as_u16());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// A problem with this status, and what to do about it.
pub fn explained(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body =
        serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = problem(status);
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// `404`, for every path that is not one of ours.
pub async fn not_found(request: Request) -> Response {
    drain(request).await;
    problem(StatusCode::NOT_FOUND)
}

/// `405`, for the paths of ours that are only read.
pub async fn method_not_allowed(request: Request) -> Response {
    debug_assert!(request.method() != Method::GET, "only paths that take GET come here");
    drain(request).await;
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Reads what nobody wants, so that the answer reaches its sender.
pub(super) async fn drain(request: Request) {
    let announced = Announced::of(request.headers());
    body::drain(announced, &mut request.into_body()).await;
}
