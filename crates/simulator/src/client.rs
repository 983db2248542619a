//! One keep-alive HTTP/1.1 connection to the receiver.
//!
//! Written by hand: a request is one write and an empty answer one read, without a task, a header map or an allocation
//! per request. The generator shares its cores with what it measures, so every microsecond here is missing there.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use hyper::http::Uri;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, InvalidMessage, RootCertStore, crypto::ring};

use super::Error;
use super::response::{self, Progress, Response};

/// What a connection runs over: TCP, or TLS over it.
trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// Where deliveries go.
pub(super) struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// For the `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads an `http://` or `https://` URL. Certificates are checked against `ca_file` (PEM) if given, else against the
    /// system's roots.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let bad = |reason: &str| Error::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| bad(&error.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad(
                "it must not contain a user name: the platform signs its deliveries and has no other credentials",
            ));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if tls {
            let name = ServerName::try_from(host.clone()).map_err(|error| bad(&error.to_string()))?;
            Some((connector(ca_file)?, name))
        } else {
            None
        };
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { host, port, tls, authority: authority.to_string(), path: path.to_owned() })
    }

    async fn connect(&self) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        })
    }
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca_file {
        let unusable = |error: String| Error::Roots { reason: format!("{}: {error}", file.display()) };
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    } else {
        // Single roots that cannot be read are the system's business; having none at all is ours.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(Error::Roots { reason: "there are none".to_owned() });
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Roots { reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Why a delivery got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// There is no connection to be had.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// It speaks no TLS, and was spoken to so.
    #[error("the receiver speaks plain HTTP: write http://, or set listen.tls_cert there")]
    PlainHttp,
    /// The connection broke before the answer was complete.
    #[error("the connection broke before the answer was complete")]
    Broken,
    /// What came back is not HTTP.
    #[error("the answer is not HTTP")]
    Malformed,
}

impl Fault {
    /// Why there is no connection.
    fn of(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        match tls {
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::PlainHttp,
            _ => Self::Connect(error),
        }
    }
}

/// See the module. Dropping a call to [`Client::exchange`] in the middle (at a timeout) closes the connection.
pub(super) struct Client {
    target: Arc<Target>,
    stream: Option<Box<dyn Transport>>,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects on first use.
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, stream: None, buffer: vec![0; 4096] }
    }

    /// Sends `request` and waits for its answer. Not tried again here: that is the platform's rule to play.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Response, Fault> {
        // A receiver may close an idle connection at any time, and what comes unasked for is no answer either.
        let kept = self.stream.take().and_then(|mut stream| {
            let silent = stream.read(&mut [0]).now_or_never().is_none();
            silent.then_some(stream)
        });
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.target.connect().await.map_err(Fault::of)?,
        };
        // A receiver may answer and close before it has read everything (413): the answer counts, not the broken pipe.
        let written = stream.write_all(request).await.and(stream.flush().await);
        let mut filled = 0;
        loop {
            let read = stream.read(&mut self.buffer[filled..]).await.map_err(|_| Fault::Broken)?;
            if read == 0 && filled == 0 {
                return Err(Fault::Broken);
            }
            filled += read;
            match response::read(&self.buffer[..filled], read == 0) {
                Progress::Partial => {}
                Progress::Malformed => return Err(if read == 0 { Fault::Broken } else { Fault::Malformed }),
                Progress::Whole(response) => {
                    if response.keep_alive && written.is_ok() {
                        self.stream = Some(stream);
                    }
                    return Ok(response);
                }
            }
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
        }
    }
}
