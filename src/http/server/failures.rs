//! Connections that bring no request: classified by their first bytes, counted, and logged with advice.
//!
//! They keep *Enable* from working on the platform, and show up nowhere else. A connection that sends no byte, like those of
//! probes and port scanners, is not a failure.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, AlertDescription};
use tokio_rustls::server::TlsStream;

use crate::http::refusals::{ConnectionFailure, Refusals};
use crate::metrics::Label as _;
use convoke_core::throttle::Throttle;

/// Number of first bytes by which a connection is classified: the length of the signature of PROXY protocol version 2.
const FIRST_BYTES: usize = 12;

/// How the two versions of the PROXY protocol begin, and TLS (a record that contains a handshake message).
const PROXY_STARTS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
const TLS_START: [u8; 2] = [0x16, 0x03];

/// Time limit for a complete TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that does not speak TLS may take for its first bytes, and for reading its response.
const NOT_TLS_TIMEOUT: Duration = Duration::from_millis(500);

/// The response to plain HTTP on the TLS port.
const HTTPS_EXPECTED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 55\r\n\
    Connection: close\r\n\r\nThis port speaks HTTPS: write https:// in front of it.\n";

const UNTRUSTED: &str = "it does not trust our certificate: append the intermediate certificates to listen.tls_cert, \
                         up to a CA that the client knows";

/// Reports the failures of one listener.
#[derive(Debug)]
pub struct Failures {
    listener: &'static str,
    counted: Option<Arc<Refusals>>,
    throttle: Throttle,
}

impl Failures {
    /// For the listener with this name.
    #[must_use]
    pub fn new(listener: &'static str, counted: Option<Arc<Refusals>>) -> Self {
        // Throttled, because a scanner comes again and again with nothing new.
        Self { listener, counted, throttle: Throttle::new(3, Duration::from_secs(60)) }
    }

    /// Counts and logs one failure. `peer` is the client if a request could be read that names it, otherwise the connection's
    /// peer.
    pub(super) fn report(&self, why: ConnectionFailure, peer: impl Display, detail: &str) {
        if let Some(counted) = &self.counted {
            counted.failed(why);
        }
        self.throttle.run(why.as_str(), |suppressed| {
            let (reason, listener) = (why.as_str(), self.listener);
            tracing::warn!(listener, %peer, reason, detail, suppressed, "a connection sent no request: {}", why.todo());
        });
    }

    /// Classifies the error that ended a connection which began with `first`.
    pub(super) fn ended(&self, peer: SocketAddr, first: &First, error: &(dyn Error + Send + Sync + 'static)) {
        match error.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_parse_too_large() => {
                self.report(ConnectionFailure::HeadTooLarge, peer, "answered 431");
            }
            Some(error) if error.is_parse() => self.report(first.kind(), peer, &error.to_string()),
            // The peer closed the connection. The outcome of a delivery is counted where the delivery is read.
            _ => tracing::debug!(%peer, error, "connection ended"),
        }
    }

    /// Does the TLS handshake. `None`: it failed, and the failure was reported if it matters.
    pub(super) async fn handshake(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let mut bytes = [0; 1];
        let Ok(Ok(1..)) = timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut bytes)).await else {
            tracing::debug!(%peer, "the client sent no handshake");
            return None;
        };
        if bytes[0] != TLS_START[0] {
            self.report(not_tls(stream).await, peer, "no TLS");
            return None;
        }
        match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => self.report(ConnectionFailure::Tls, peer, &handshake_words(&error)),
            Err(_) => self.report(ConnectionFailure::Tls, peer, "the handshake took more than 10 s"),
        }
        None
    }
}

/// Finds out which protocol a client without TLS speaks; plain HTTP gets a response.
async fn not_tls(mut stream: TcpStream) -> ConnectionFailure {
    let (mut bytes, mut length) = ([0; 1024], 0);
    let begin = async {
        while length < FIRST_BYTES
            && let Ok(more @ 1..) = stream.read(&mut bytes[length..]).await
        {
            length += more;
        }
    };
    if timeout(NOT_TLS_TIMEOUT, begin).await.is_err() {
        tracing::debug!(length, "no more came");
    }
    let why = kind(&bytes[..length], true);
    if why == ConnectionFailure::PlainOnTlsPort {
        let answer = async {
            stream.write_all(HTTPS_EXPECTED).await?;
            stream.shutdown().await?;
            // Unread data would make the kernel send a reset, and the client would lose the response.
            while stream.read(&mut bytes).await? > 0 {}
            io::Result::Ok(())
        };
        if let Ok(Err(error)) = timeout(NOT_TLS_TIMEOUT, answer).await {
            tracing::debug!(%error, "could not answer a client that spoke no TLS");
        }
    }
    why
}

/// Why a handshake failed, with advice.
fn handshake_words(error: &io::Error) -> String {
    use AlertDescription as Alert;
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                format!("the client closed the connection during the handshake. The usual reason: {UNTRUSTED}")
            }
            _ => error.to_string(),
        };
    };
    match tls {
        rustls::Error::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::DecryptError),
        ) => format!("the client said {alert:?}: {UNTRUSTED}"),
        rustls::Error::AlertReceived(alert @ (Alert::CertificateExpired | Alert::CertificateRevoked)) => {
            format!("the client said {alert:?}: replace the certificate in listen.tls_cert, or set the client's clock")
        }
        rustls::Error::PeerIncompatible(why) => {
            format!("no common version or cipher ({why:?}): the client must support TLS 1.2 or 1.3")
        }
        other => other.to_string(),
    }
}

/// Classifies a connection that began with these bytes and brought no request.
fn kind(first: &[u8], tls_port: bool) -> ConnectionFailure {
    let word = first.split(|byte| *byte == b' ').next().unwrap_or_default();
    if PROXY_STARTS.iter().any(|mark| first.starts_with(mark)) {
        ConnectionFailure::ProxyProtocol
    } else if tls_port && !word.is_empty() && word.iter().all(u8::is_ascii_uppercase) {
        ConnectionFailure::PlainOnTlsPort
    } else if !tls_port && first.starts_with(&TLS_START) {
        ConnectionFailure::TlsOnPlainPort
    } else {
        ConnectionFailure::NotHttp
    }
}

/// The first bytes of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct First(Arc<OnceLock<([u8; FIRST_BYTES], usize)>>);

impl First {
    fn note(&self, bytes: &[u8]) {
        self.0.get_or_init(|| {
            let mut first = [0; FIRST_BYTES];
            let length = bytes.len().min(FIRST_BYTES);
            first[..length].copy_from_slice(&bytes[..length]);
            (first, length)
        });
    }

    fn kind(&self) -> ConnectionFailure {
        let (first, length) = self.0.get().copied().unwrap_or_default();
        kind(&first[..length], false)
    }
}

/// A connection that records its first bytes.
#[derive(Debug)]
pub(super) struct Begun<S> {
    pub inner: S,
    pub first: First,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            self.first.note(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }
}
