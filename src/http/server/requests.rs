//! The requests of one connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

use super::connection::{Answer, Connection};
use super::failures::{Begun, First};
use super::request_id::RequestId;
use super::{Closing, ListenerOptions, Shutdown};
use crate::http::problem::explained;
use crate::http::refusals::ConnectionFailure;

/// How long a connection may be without a first request, whatever it does instead: nothing, half of a head, pings.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// At the end, the head of a request that has begun gets at least this long, and at most twice that.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// Requests under way at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Bytes of headers that HTTP/2 reads, of a list that may be compressed, so that more than a head may have is answered with an
/// explanation, and counted: above that h2 answers `431` by itself, and nobody learns of it. No proxy passes on more.
const MAX_HEADER_LIST_BYTES: usize = 64 << 10;

/// How much an HTTP/2 connection may send ahead of what is read: of one body, and of all.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// An HTTP/2 connection is ended when so many requests were cancelled before they were looked at, or so many were reset for
/// errors of its own.
const MAX_CANCELLED_STREAMS: usize = 20;
const MAX_RESET_STREAMS: usize = 256;

/// Answers what comes over `stream` until it ends, is idle for too long, or everything ends.
pub(super) async fn serve<S>(
    stream: S,
    this: &Arc<Connection>,
    options: &Arc<ListenerOptions>,
    router: Router,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(this, options, &router, &shutdown.closing, request));
    let first = First::default();
    let stream = Begun { inner: stream, first: first.clone() };
    let builder = builder(options);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        result = served.as_mut() => Some(result),
        () = async {
            shutdown.stop.cancelled().await;
            // It was accepted, so its request, which may be on its way, is answered; hyper would give it up unread.
            if this.is_fresh() {
                tokio::time::sleep(LAST_HEAD_TIMEOUT).await;
            }
        } => None,
        () = idle(this, options.idle) => None,
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
        options.failures.ended(this.peer(), &first, &*error);
    }
}

fn builder(options: &ListenerOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Half-closed: who ends its side after a request, or within one, still listens for the answer.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.idle.max(FIRST_REQUEST_TIMEOUT))
        .max_headers(options.headers)
        .max_buf_size(options.read)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(options.read.max(MAX_HEADER_LIST_BYTES)).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(MAX_CANCELLED_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS);
    builder
}

fn answer(
    this: &Arc<Connection>,
    options: &ListenerOptions,
    router: &Router,
    closing: &Closing,
    mut request: hyper::Request<Incoming>,
) -> impl Future<Output = Result<hyper::Response<Answer>, Infallible>> + Send + use<> {
    let under_way = this.request();
    let request_id = RequestId::of(request.headers());
    request.extensions_mut().insert(Arc::clone(this));
    request.extensions_mut().insert(request_id.clone());
    let request: Request = request.map(axum::body::Body::new);
    let http1 = request.version() <= Version::HTTP_11;
    let (router, closing, connection) = (router.clone(), closing.clone(), Arc::clone(this));
    let head = head_bytes(&request);
    // What is too large is gone here and now: of HTTP/2 there may be many before the first of them is answered.
    let request = if head > options.head { Err(too_large(options, &request, head)) } else { Ok(request) };
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
        Ok(response.map(|body| Answer::new(body, &connection)))
    }
}

/// Returns when nothing was under way twice in a row, nor an answer that is still being read: hyper waits for the rest of a head
/// that has begun for as long as a head may take, and a client without a request must not hold up the end for that long.
async fn silent(connection: &Connection) {
    let mut looks = 0;
    while looks < 2 {
        tokio::time::sleep(LAST_HEAD_TIMEOUT).await;
        looks = if connection.is_silent(LAST_HEAD_TIMEOUT) { looks + 1 } else { 0 };
    }
}

/// Returns when the connection was idle for as long as `after` allows. Hyper knows no such limit in HTTP/2, before it knows
/// the version, or while it cannot write.
async fn idle(connection: &Connection, after: Duration) {
    loop {
        let most = if connection.is_fresh() { after.min(FIRST_REQUEST_TIMEOUT) } else { after };
        let left = connection.idle_left(most);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// Bytes of a request's head, as far as they count; each header of HTTP/2 counts 32 besides (RFC 9113, section 6.5.2), for
/// there it may come as a single byte.
fn head_bytes<B>(request: &hyper::Request<B>) -> usize {
    let each = if request.version() >= Version::HTTP_2 { 32 } else { 4 };
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + each);
    lines.sum::<usize>() + request.uri().path_and_query().map_or(0, |path| path.as_str().len())
}

/// `431`, in words: browsers send the cookies of whatever else runs on the same host.
fn too_large(options: &ListenerOptions, request: &Request, head: usize) -> Response {
    if let Some(client) = options.sources.client(request.extensions(), request.headers()) {
        options.failures.report(ConnectionFailure::HeadTooLarge, client, &format!("{head} bytes, answered 431"));
    }
    let most = options.head >> 10;
    let detail = format!(
        "The head of the request has {head} bytes, and at most {most} KiB are taken. A browser sends the cookies of all \
         applications on this host: delete those, or open this one under another host name."
    );
    explained(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &detail)
}
