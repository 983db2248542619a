//! One HTTPS request and its answer. Knows nothing of what they mean, follows no redirect, and tries nothing again that may
//! have reached the platform.

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

/// A page of 500 meetings is less than 1 MiB.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Gateways close idle connections after about a minute; ours go before.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections to the platform. Certificates are always checked, against the system's roots.
#[derive(Clone)]
pub struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What came back.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The certificate cannot be trusted.
    #[error("the certificate is refused: {0}")]
    Certificate(String),
    /// No connection, or one that broke.
    #[error("{0}")]
    Connection(String),
    /// The answer was not complete in time.
    #[error("nothing within {0:?}")]
    Slow(Duration),
    /// The answer is longer than any that the platform has reason to give.
    #[error("the answer is too long")]
    TooLong,
}

impl Transport {
    /// For a base that begins with `https://`, or with `http://` (which the settings allow to loopback only).
    pub fn new(base: &str) -> Result<Self, String> {
        let https = base.starts_with("https://");
        let mut roots = RootCertStore::empty();
        if https {
            // Single roots that cannot be read are the system's business; having none at all is ours.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(
                    "this machine has no certificates of authorities that could vouch for the platform".to_owned()
                );
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

    /// The whole answer, within `timeout`.
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

/// The failure with all of its causes, each once.
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
    // An `io::Error` hides what it was made of from `source`, and shows that one's source instead.
    let mut error = error;
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(reason) => Some(format!("{reason}")),
        _ => None,
    }
}
