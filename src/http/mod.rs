//! The listeners: every route, every limit on a connection, and the graceful end.
//!
//! | listener | route | what |
//! |---|---|---|
//! | events | `POST {listen.path}` | [`ingest`] |
//! | both | `GET /livez`, `GET /readyz` | [`ops`] |
//! | admin | `GET /`, `GET /assets/…` | [`web`], the page, behind [`access`] |
//! | admin | `GET /metrics`, `GET /readyz?verbose` | [`ops`], behind [`access`]: a token, or on loopback only |
//! | admin | `POST /session`, `POST /session/end` | [`access::login`] |
//! | admin | `GET /api/v1/…` | [`api`], behind [`access`] |

pub mod access;
pub mod api;
mod body;
pub mod connections;
mod headers;
pub mod ingest;
pub mod last_hour;
pub mod ops;
mod problem;
mod request_id;
mod source;
pub mod tls;
pub mod web;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use axum::routing::{any, get};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use connections::{Connection, Connections};
use request_id::RequestId;
pub use source::Sources;

/// The whole head of a request must arrive within this time; a connection may be idle for as long, whatever it does
/// instead of a request: say nothing, send half of a head or pings, or not read its answers.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// At the end, the head of a request that has begun gets at least this long, and at most twice that.
const LAST_HEAD: Duration = Duration::from_millis(500);

/// A TLS handshake must be over within this time.
const TLS_TIME: Duration = Duration::from_secs(10);

/// The head of a request, in bytes, in either version, and its headers in HTTP/1.
const HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// Requests under way at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// How much of its bodies an HTTP/2 connection may send ahead of what is read: of one, and of all.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

/// An HTTP/2 connection is ended when so many requests were cancelled before they were looked at, or so many were reset for
/// errors of its own.
const MAX_CANCELLED: usize = 20;
const MAX_ERRORS: usize = 256;

/// Connections that the kernel completes and we have not accepted yet.
pub const BACKLOG: u32 = 4096;

/// Whether an end is near. Looked at with every request, which is why it is no token: those take a lock.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<AtomicBool>);

impl Closing {
    /// From now on it is.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The three steps of an end.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// An end is near: not ready any more, and answers close their connections.
    pub closing: Closing,
    /// Nothing new is accepted; what is under way is finished.
    pub stop: CancellationToken,
    /// What is under way is cut.
    pub force: CancellationToken,
}

/// The routes of the events listener.
pub fn events_router(path: &str, ingest: Arc<ingest::Ingest>, health: Arc<ops::Health>) -> Router {
    Router::new()
        .route(path, any(ingest::deliver).with_state(ingest))
        .merge(ops::probes(health))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
}

/// The routes of the admin listener.
pub fn admin_router(
    health: &Arc<ops::Health>,
    access: Arc<access::Access>,
    streams: Arc<api::streams::Streams>,
) -> Router {
    Router::new()
        .route("/metrics", get(ops::metrics).with_state(Arc::clone(health)))
        .route("/readyz", get(ops::readyz_verbose).with_state(Arc::clone(health)))
        .merge(web::router())
        .merge(api::router(streams))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .merge(access::login::router(Arc::clone(&access)))
        .layer(axum::middleware::from_fn_with_state(access, access::guard))
        .route("/livez", get(ops::livez))
        .layer(axum::middleware::from_fn(headers::protect))
}

/// Serves `router` on `listener` until `shutdown.stop`, then finishes what is under way; cuts it at `shutdown.force`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<tls::Certificates>,
    router: Router,
    shutdown: Shutdown,
    connections: Arc<Connections>,
) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that ended before we took it, or no descriptors left: the latter needs a pause.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let admitted = tokio::select! {
            admitted = connections.admit(peer) => admitted,
            () = shutdown.stop.cancelled() => break,
        };
        let (router, tls, shutdown) = (router.clone(), tls.clone(), shutdown.clone());
        tasks.spawn(async move {
            let (this, force) = (&admitted.connection, shutdown.force.clone());
            tokio::select! {
                () = connection(stream, this, tls, router, shutdown) => {}
                () = this.evicted() => {}
                () = force.cancelled() => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: TcpStream,
    this: &Arc<Connection>,
    tls: Option<tls::Certificates>,
    router: Router,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set_nodelay");
    }
    match tls {
        None => requests(stream, this, router, shutdown).await,
        Some(certificates) => {
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(TLS_TIME, certificates.acceptor().accept(stream)) => accepted,
                () = shutdown.stop.cancelled() => return,
            };
            match accepted {
                Ok(Ok(stream)) => requests(stream, this, router, shutdown).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            }
        }
    }
}

/// Returns when no request was under way at two looks in a row: hyper waits for the rest of a head that has begun, for as
/// long as a head may take, and nobody who sends no request may hold up the end for that long.
async fn silent(connection: &Connection) {
    let mut looks = 0;
    while looks < 2 {
        tokio::time::sleep(LAST_HEAD).await;
        looks = if connection.is_idle() { looks + 1 } else { 0 };
    }
}

/// Returns when no request was under way for [`IDLE_TIME`]. Hyper knows no such limit in HTTP/2, before it knows the
/// version, or while it cannot write.
async fn idle(connection: &Connection) {
    loop {
        let left = IDLE_TIME.saturating_sub(connection.idle_for());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

async fn requests<S>(stream: S, this: &Arc<Connection>, router: Router, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = shutdown.closing.clone();
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let under_way = this.request();
        let request_id = RequestId::of(request.headers());
        request.extensions_mut().insert(Arc::clone(this));
        request.extensions_mut().insert(request_id.clone());
        let request: Request = request.map(axum::body::Body::new);
        let http1 = request.version() <= axum::http::Version::HTTP_11;
        let (router, closing) = (router.clone(), closing.clone());
        async move {
            let _under_way = under_way;
            let mut response: Response = request_id.on(router.oneshot(request).await?);
            if http1 && closing.is_set() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Half-closed: who ends its side after a request, or within one, still listens for the answer.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEAD_BYTES)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(MAX_CANCELLED)
        .max_local_error_reset_streams(MAX_ERRORS);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        result = served.as_mut() => Some(result),
        () = async {
            shutdown.stop.cancelled().await;
            // It was accepted, so its request, which may be on its way, is answered; hyper would give it up unread.
            if this.is_fresh() {
                tokio::time::sleep(LAST_HEAD).await;
            }
        } => None,
        () = idle(this) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            // HTTP/2 says goodbye; a request that crosses that is still answered.
            served.as_mut().graceful_shutdown();
            tokio::select! {
                result = served.as_mut() => result,
                () = silent(this) => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        // The other end went away or spoke no HTTP. What became of a delivery is counted where it was read.
        tracing::debug!(peer = %this.peer(), error, "connection ended");
    }
}
