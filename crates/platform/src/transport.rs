//! A single HTTPS request and its response. Does not interpret them, follows no redirect, and never repeats a request
//! that may have reached the platform.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_rustls::rustls::{self, RootCertStore, crypto::ring};

/// Maximum size of a response. For comparison, a page of 500 meetings is less than 1 MiB.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Gateways close idle connections after about a minute; ours are closed before that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections to the platform. Certificates are always verified against the system's root certificates.
#[derive(Clone)]
pub struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A response.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its complete body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The certificate is not trusted.
    #[error("the certificate is refused: {0}")]
    Certificate(String),
    /// The connection failed or was lost.
    #[error("{0}")]
    Connection(String),
    /// The response was not complete in time.
    #[error("no data within {0:?}")]
    Slow(Duration),
    /// The response is longer than any that the platform should send.
    #[error("the answer is too long")]
    TooLong,
}

impl Transport {
    /// For a base URL with `https://`, or with `http://` (which the settings allow only for loopback).
    pub fn new(base: &str) -> Result<Self, String> {
        let https = base.starts_with("https://");
        let mut roots = RootCertStore::empty();
        if https {
            // Single unreadable root certificates are ignored; having none at all is an error.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("this machine has no CA certificates to verify the platform's certificate".to_owned());
            }
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = if https { builder.https_only() } else { builder.https_or_http() }.enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { client })
    }

    /// Sends the request and returns the complete response, within `timeout`.
    pub async fn exchange(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Result<Answer, Fault> {
        let whole = async {
            let answer = self.client.request(request).await.map_err(|error| fault(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| fault(error.as_ref()))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(Fault::Slow(timeout)))
    }
}

/// The error with all its causes, without repetition.
fn fault(error: &(dyn StdError + 'static)) -> Fault {
    let mut causes: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<LengthLimitError>() {
            return Fault::TooLong;
        }
        if let Some(text) = certificate(cause) {
            return Fault::Certificate(text);
        }
        let text = cause.to_string();
        if !causes.iter().any(|known| known.contains(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    Fault::Connection(causes.join(": "))
}

fn certificate(error: &(dyn StdError + 'static)) -> Option<String> {
    // `source` of an `io::Error` skips the inner error and returns that one's source.
    let mut error = error;
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(reason) => Some(format!("{reason}")),
        _ => None,
    }
}
