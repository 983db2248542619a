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
mod elsewhere;
pub mod failures;
mod headers;
pub mod helpers;
pub mod ingest;
pub mod last_seen;
pub mod ops;
mod problem;
pub mod refusals;
mod request_id;
mod source;
pub mod tls;
mod trace;
pub mod web;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler as _;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
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
use elsewhere::Elsewhere;
use failures::{Begun, Failures, First};
use refusals::ConnectionFailure;
use request_id::RequestId;
pub use source::ClientSources;

use crate::metrics::Registry;

/// A connection may do without a first request for so long, whatever it does instead: say nothing, send half of a head or
/// pings.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// At the end, the head of a request that has begun gets at least this long, and at most twice that.
const LAST_HEAD: Duration = Duration::from_millis(500);

/// Requests under way at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Bytes of headers that HTTP/2 reads, of a list that may be compressed, so that whoever sends more than a head may have is
/// answered in words, and counted: h2 answers `431` by itself above that, without a word to anybody. Nothing in front of a
/// service passes on more.
const HEADER_LIST: usize = 64 << 10;

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

/// What a listener takes.
#[derive(Debug)]
pub struct Terms {
    /// For so long a connection may be silent after a request, or not read its answers.
    pub idle: Duration,
    /// Bytes that the head of a request may have, with words for those that have more, and its headers in HTTP/1.
    pub head: usize,
    /// How many headers it may have in HTTP/1.
    pub headers: usize,
    /// An HTTP/1 connection is read so far ahead, for a head that is larger than it may be.
    pub read: usize,
    /// What is shown to whoever connects; plain HTTP without.
    pub tls: Option<tls::Certificates>,
    /// Where connections that bring no request are told.
    pub failures: Failures,
    /// Tell whose a request is.
    pub sources: ClientSources,
}

impl Terms {
    /// Those of the events listener: machines post here, many at once, and a head takes memory.
    #[must_use]
    pub const fn events(
        idle: Duration,
        tls: Option<tls::Certificates>,
        failures: Failures,
        sources: ClientSources,
    ) -> Self {
        Self { idle, head: 16 << 10, headers: 64, read: 16 << 10, tls, failures, sources }
    }

    /// Those of the admin listener: browsers come here, with the cookies of all that runs on the same host.
    #[must_use]
    pub const fn admin(idle: Duration, failures: Failures, sources: ClientSources) -> Self {
        Self { idle, head: 32 << 10, headers: 256, read: 128 << 10, tls: None, failures, sources }
    }
}

/// The routes of the events listener: the path of the events, with a slash at its end and without.
pub fn events_router(
    path: &str,
    ingest: Arc<ingest::Ingest>,
    health: Arc<ops::Health>,
    sources: ClientSources,
) -> Router {
    let base = path.strip_suffix('/').unwrap_or(path);
    let elsewhere = Arc::new(Elsewhere::new(path, sources, Arc::clone(&health.refusals)));
    let events = [base, &format!("{base}/")]
        .into_iter()
        .filter(|path| !path.is_empty())
        .fold(Router::new(), |router, path| router.route(path, any(ingest::deliver)))
        .with_state(ingest);
    trace::traced(events, "events")
        .merge(ops::probes(health))
        .fallback_service(elsewhere::not_found.with_state(elsewhere))
        .method_not_allowed_fallback(problem::method_not_allowed)
}

/// The routes of the admin listener.
pub fn admin_router(
    health: &Arc<ops::Health>,
    registry: Registry,
    access: Arc<access::Access>,
    streams: Arc<api::streams::Streams>,
) -> Router {
    Router::new()
        .route("/metrics", get(ops::metrics).with_state(registry))
        .route("/readyz", get(ops::readyz_verbose).with_state(Arc::clone(health)))
        .merge(web::router())
        .merge(trace::traced(api::router(streams), "admin"))
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
    terms: Terms,
    router: Router,
    shutdown: Shutdown,
    connections: Arc<Connections>,
) {
    let tasks = TaskTracker::new();
    let terms = Arc::new(terms);
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
        let (router, terms, shutdown) = (router.clone(), Arc::clone(&terms), shutdown.clone());
        tasks.spawn(async move {
            let (this, force) = (&admitted.connection, shutdown.force.clone());
            tokio::select! {
                () = connection(stream, this, &terms, router, shutdown) => {}
                () = this.evicted() => {}
                () = force.cancelled() => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(stream: TcpStream, this: &Arc<Connection>, terms: &Arc<Terms>, router: Router, shutdown: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set_nodelay");
    }
    match &terms.tls {
        None => requests(stream, this, terms, router, shutdown).await,
        Some(certificates) => {
            let shaken = tokio::select! {
                shaken = terms.failures.handshake(certificates.acceptor(), stream, this.peer()) => shaken,
                () = shutdown.stop.cancelled() => return,
            };
            if let Some(stream) = shaken {
                requests(stream, this, terms, router, shutdown).await;
            }
        }
    }
}

/// Returns when nothing was under way at two looks in a row, nor an answer that somebody takes: hyper waits for the rest of a head that has begun, for as
/// long as a head may take, and nobody who sends no request may hold up the end for that long.
async fn silent(connection: &Connection) {
    let mut looks = 0;
    while looks < 2 {
        tokio::time::sleep(LAST_HEAD).await;
        looks = if connection.is_silent(LAST_HEAD) { looks + 1 } else { 0 };
    }
}

/// Returns when the connection was idle for as long as `after` allows. Hyper knows no such limit in HTTP/2, before it knows
/// the version, or while it cannot write.
async fn idle(connection: &Connection, after: Duration) {
    loop {
        let most = if connection.is_fresh() { after.min(FIRST_REQUEST) } else { after };
        let left = connection.patience(most);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// Bytes of a request's head, as far as they count; each header of HTTP/2 counts 32 besides (RFC 9113, section 6.5.2), for
/// there it may come as a single byte.
fn head_bytes<B>(request: &hyper::Request<B>) -> usize {
    let each = if request.version() >= axum::http::Version::HTTP_2 { 32 } else { 4 };
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + each);
    lines.sum::<usize>() + request.uri().path_and_query().map_or(0, |path| path.as_str().len())
}

async fn requests<S>(stream: S, this: &Arc<Connection>, terms: &Arc<Terms>, router: Router, shutdown: Shutdown)
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
        let (router, closing, connection) = (router.clone(), closing.clone(), Arc::clone(this));
        let head = head_bytes(&request);
        // What is too large is gone here and now: of HTTP/2 there may be many before the first of them is answered.
        let request = if head > terms.head { Err(too_large(terms, &request, head)) } else { Ok(request) };
        async move {
            let _under_way = under_way;
            let response = match request {
                Err(too_large) => too_large,
                Ok(request) => router.oneshot(request).await?,
            };
            let mut response: Response = request_id.on(response);
            if http1 && closing.is_set() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response.map(|body| connections::Answer::new(body, &connection)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Half-closed: who ends its side after a request, or within one, still listens for the answer.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.idle.max(FIRST_REQUEST))
        .max_headers(terms.headers)
        .max_buf_size(terms.read)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(terms.read.max(HEADER_LIST)).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(MAX_CANCELLED)
        .max_local_error_reset_streams(MAX_ERRORS);
    let first = First::default();
    let stream = Begun { inner: stream, first: first.clone() };
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
        () = idle(this, terms.idle) => None,
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
        terms.failures.ended(this.peer(), &first, &*error);
    }
}

/// `431`, in words: browsers send the cookies of whatever else runs on the same host.
fn too_large(terms: &Terms, request: &Request, head: usize) -> Response {
    if let Some(client) = terms.sources.client(request.extensions(), request.headers()) {
        terms.failures.tell(ConnectionFailure::HeadTooLarge, client, &format!("{head} bytes, answered 431"));
    }
    let most = terms.head >> 10;
    let detail = format!(
        "The head of the request has {head} bytes, and at most {most} KiB are taken. A browser sends the cookies of all \
         applications on this host: delete those, or open this one under another host name."
    );
    problem::explained(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &detail)
}
