//! `X-Request-ID`: the client's if it is harmless, otherwise a new one; on every response of both listeners.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use convoke_core::sign::hex_into;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Identifies a request, from the client to the log line and the table.
#[derive(Clone, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// `X-Request-ID` if it is harmless, otherwise a new ID in the platform's format: 32 hexadecimal digits.
    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(&X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        });
        Self(sent.map_or_else(new, Arc::from))
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID as a shared string, for the table.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Adds the header to the response.
    pub fn on(&self, mut response: Response) -> Response {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        response
    }
}

fn new() -> Arc<str> {
    let mut digits = [0; 32];
    hex_into(&rand::random::<[u8; 16]>(), &mut digits);
    Arc::from(String::from_utf8_lossy(&digits))
}
