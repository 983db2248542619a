//! The requests of one connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Answer, Connection};
use super::failures::{Begun, First};
use super::request_id::RequestId;
use super::{Closing, ListenerOptions, Respond, Shutdown};
use crate::http::problem::explained;
use crate::http::refusals::ConnectionFailure;

/// Time limit for the first request of a connection, whatever the client does instead: nothing, half a head, or pings.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// During shutdown, a request head that has begun gets at least this long, and at most twice as long.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Maximum number of header bytes that HTTP/2 reads; the list may be compressed. It is larger than the limit of a head, so that
/// too large a head gets an explanation and is counted: above this maximum h2 answers `431` by itself and reports it nowhere. No
/// proxy forwards more.
const MAX_HEADER_LIST_BYTES: usize = 64 << 10;

/// Flow-control windows of HTTP/2: how much a client may send ahead of what is read, per body and per connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// An HTTP/2 connection is closed after this many requests that the client cancelled before they were accepted, or this many that
/// were reset because of the client's errors.
const MAX_CANCELLED_STREAMS: usize = 20;
const MAX_RESET_STREAMS: usize = 256;

/// Serves the requests on `stream` until the connection ends, is idle for too long, or the service shuts down.
pub(super) async fn serve<S>(
    stream: S,
    this: &Arc<Connection>,
    options: &Arc<ListenerOptions>,
    routes: impl Respond,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(this, options, &routes, &shutdown.closing, request));
    let first = First::default();
    let stream = Begun { inner: stream, first: first.clone() };
    let builder = builder(options);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        result = served.as_mut() => Some(result),
        () = async {
            shutdown.stop.cancelled().await;
            // The connection was accepted, so its first request, which may be on its way, is answered; hyper would close it
            // unread.
            if this.is_fresh() {
                tokio::time::sleep(LAST_HEAD_TIMEOUT).await;
            }
        } => None,
        () = idle(this, options.idle) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            // HTTP/2 sends GOAWAY; a request that crosses it is still answered.
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
    // Half-close: a client that closes its side after a request, or within one, still waits for the response.
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

fn answer<R: Respond>(
    this: &Arc<Connection>,
    options: &ListenerOptions,
    routes: &R,
    closing: &Closing,
    mut request: hyper::Request<Incoming>,
) -> impl Future<Output = Result<hyper::Response<Answer>, Infallible>> + Send + use<R> {
    let under_way = this.request();
    let request_id = RequestId::of(request.headers());
    request.extensions_mut().insert(Arc::clone(this));
    request.extensions_mut().insert(request_id.clone());
    let request: Request = request.map(axum::body::Body::new);
    let http1 = request.version() <= Version::HTTP_11;
    let (routes, closing, connection) = (routes.clone(), closing.clone(), Arc::clone(this));
    let head = head_bytes(&request);
    // A head that is too large is freed right here: with HTTP/2 there may be many before the first of them is answered.
    let request = if head > options.head { Err(too_large(options, &request, head)) } else { Ok(request) };
    async move {
        let _under_way = under_way;
        let response = match request {
            Err(too_large) => too_large,
            Ok(request) => routes.respond(request).await,
        };
        let mut response: Response = request_id.on(response);
        if http1 && closing.is_set() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| Answer::new(body, &connection)))
    }
}

/// Returns when two checks in a row found no request under way and no response that is still being read. hyper waits for the rest
/// of a head for as long as a head may take; a client without a request must not delay the shutdown for that long.
async fn silent(connection: &Connection) {
    let mut looks = 0;
    while looks < 2 {
        tokio::time::sleep(LAST_HEAD_TIMEOUT).await;
        looks = if connection.is_silent(LAST_HEAD_TIMEOUT) { looks + 1 } else { 0 };
    }
}

/// Returns when the connection has been idle for `after`. hyper has no such limit in HTTP/2, before it knows the version, or
/// while it cannot write.
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

/// The size of a request head that counts for the limit. Each header of HTTP/2 counts 32 bytes extra (RFC 9113, section 6.5.2),
/// because compressed it may arrive as a single byte.
fn head_bytes<B>(request: &hyper::Request<B>) -> usize {
    let each = if request.version() >= Version::HTTP_2 { 32 } else { 4 };
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + each);
    lines.sum::<usize>() + request.uri().path_and_query().map_or(0, |path| path.as_str().len())
}

/// `431` with an explanation: browsers send the cookies of every other application on the same host.
fn too_large(options: &ListenerOptions, request: &Request, head: usize) -> Response {
    if let Some(client) = options.sources.client(request.extensions(), request.headers()) {
        options.failures.report(ConnectionFailure::HeadTooLarge, client, &format!("{head} bytes, answered 431"));
    }
    let most = options.head >> 10;
    let detail = format!(
        "The head of the request has {head} bytes; the limit is {most} KiB. A browser sends the cookies of all \
         applications on this host: delete them, or open this page under another host name."
    );
    explained(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &detail)
}
