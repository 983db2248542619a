//! One request after the other: the gateway, the token, the call.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SERVER,
    UPGRADE,
};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{
    self,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::gateway::{Allowance, Fault, unit};
use super::memory::{Memory, Shared};
use super::refusal::Refusal;
use super::request::{Call, Language, MAX_LIMIT, Paging, Query};
use super::tokens::{Caller, authenticate};
use super::{directory, lists, live, records, sockets, statistics};
use crate::Post;
use crate::sender::http_date;

/// Requests are small.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
const JSON: &str = "application/json;charset=UTF-8";

type Body = BoxBody<Bytes, io::Error>;

/// Accepts until it is dropped, and its connections with it.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                    connections.spawn(async move {
                        match tls {
                            None => connection(stream, &shared).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => connection(stream, &shared).await,
                                Err(error) => tracing::debug!(%error, "a TLS handshake with the simulated platform"),
                            },
                        }
                    });
                }
                // Out of descriptors, most likely: some will come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: &Shared) {
    // What becomes a WebSocket is served after it has been answered.
    let (upgrade, mut upgraded) = mpsc::unbounded_channel();
    let service = service_fn(|request: Request<Incoming>| {
        let upgrade = upgrade.clone();
        async move {
            match request.uri().path() {
                live::PATH => Ok(open_socket(request, shared, &upgrade)),
                _ => answer(request, shared).await,
            }
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the simulated platform");
    }
    if let Ok((upgraded, number)) = upgraded.try_recv()
        && let Ok(upgraded) = upgraded.await
    {
        sockets::serve(shared, upgraded, number).await;
    }
}

type Upgrades = mpsc::UnboundedSender<(OnUpgrade, Option<String>)>;

/// 6.1.3.1.
fn open_socket(mut request: Request<Incoming>, shared: &Shared, upgrade: &Upgrades) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return respond(shared, &Answer::refusal(&Refusal::BAD_REQUEST), None, false);
    };
    let accept = derive_accept_key(key.as_bytes());
    let query = Query::of(request.uri().query().unwrap_or_default());
    let number = live::admit(&mut shared.state().live, &query, shared.now());
    let _ = upgrade.send((hyper::upgrade::on(&mut request), number));
    let mut response = Response::new(Full::default().map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// For a certificate and its key, in PEM files.
pub(super) fn acceptor((cert, key): &(PathBuf, PathBuf)) -> io::Result<TlsAcceptor> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(io::Error::other)?.collect();
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(certificates.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Why a connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

/// What goes back.
struct Answer {
    status: u16,
    content_type: &'static str,
    body: Bytes,
    request_id: String,
}

impl Answer {
    fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let request_id = format!("{:032x}", rand::random::<u128>());
        Self { status, content_type, body: body.into(), request_id }
    }

    fn json(status: u16, value: &Value) -> Self {
        Self::new(status, JSON, value.to_string())
    }

    /// An error, whose body has the request's id, too: the manufacturer's Java client cannot do without.
    fn error(status: u16, mut body: Value) -> Self {
        let mut answer = Self::new(status, JSON, Bytes::new());
        body["request_id"] = Value::from(&*answer.request_id);
        answer.body = Bytes::from(body.to_string());
        answer
    }

    fn refusal(refusal: &Refusal) -> Self {
        Self::error(refusal.status, refusal.body())
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>, Closed> {
    let (head, body) = request.into_parts();
    let Some(call) = Call::of(&head.method, head.uri.path()) else {
        return Ok(respond(shared, &Answer::refusal(&Refusal::NO_SUCH_API), None, false));
    };
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await.map_err(|_| Closed)?.to_bytes();
    let fault = {
        let mut state = shared.state();
        state.gateway.count(call);
        state.gateway.fault(call)
    };
    let mut repeat = false;
    let mut early = None;
    let mut half = false;
    match fault {
        None => {}
        Some(Fault::Drop) => return Err(Closed),
        Some(Fault::DropHalf) => half = true,
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        Some(Fault::RepeatPage) => repeat = true,
        Some(Fault::Refuse(refusal)) => early = Some(Answer::refusal(&refusal)),
        Some(Fault::Html(status)) => {
            let body =
                Bytes::from_static(b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>\n</body></html>\n");
            early = Some(Answer::new(status, "text/html; charset=UTF-8", body));
        }
        Some(Fault::Body(text)) => early = Some(Answer::new(200, JSON, text)),
        Some(Fault::TooMany) => {
            let allowance = Allowance { remain: 0, exceeded: true };
            return Ok(respond(shared, &throttled(shared), Some(allowance), false));
        }
        Some(Fault::ExpireTokens) => {
            let now = shared.now();
            shared.state().tokens.expire(now);
        }
        Some(Fault::ForgetTokens) => shared.state().tokens.forget(),
        Some(Fault::Edit(change)) => change(&mut shared.state().archive),
    }
    let allowance = shared.state().gateway.allow(call, &shared.options, shared.options.clock.steady());
    let answer = match early {
        Some(early) => early,
        None if allowance.exceeded => throttled(shared),
        None => {
            let query = Query::of(head.uri.query().unwrap_or_default());
            match perform(shared, call, (&head.headers, &query, &body), repeat).await {
                Ok(Some(value)) => Answer::json(200, &value),
                Ok(None) => Answer::new(200, JSON, Bytes::new()),
                Err(refusal) => Answer::refusal(&refusal),
            }
        }
    };
    Ok(respond(shared, &answer, Some(allowance), half))
}

/// The gateway's answer to too many calls. The manual has none; it is documented for other services behind the same gateway.
fn throttled(shared: &Shared) -> Answer {
    let (limit, unit) = (shared.options.limit, unit(shared.options.minute));
    let message =
        format!("The throttling threshold has been reached: policy ip over ratelimit,limit:{limit},time:{unit}");
    Answer::error(429, serde_json::json!({ "error_code": "APIG.0308", "error_msg": message }))
}

/// The headers that the samples show.
fn respond(shared: &Shared, answer: &Answer, allowance: Option<Allowance>, half: bool) -> Response<Body> {
    let body = if half {
        // As long as it says it is, but half of it never comes.
        let first = answer.body.slice(..answer.body.len() / 2);
        let broken = Err(io::Error::from(io::ErrorKind::ConnectionReset));
        StreamBody::new(stream::iter([Ok(Frame::data(first)), broken])).boxed()
    } else {
        Full::new(answer.body.clone()).map_err(|never: Infallible| match never {}).boxed()
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let mut set = |name: hyper::header::HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set(DATE, http_date(shared.now()));
    set(CONTENT_TYPE, answer.content_type.to_owned());
    set(CONTENT_LENGTH, answer.body.len().to_string());
    set(SERVER, "api-gateway".to_owned());
    set(hyper::header::HeaderName::from_static("x-request-id"), answer.request_id.clone());
    if let Some(Allowance { remain, .. }) = allowance {
        let (limit, unit) = (shared.options.limit, unit(shared.options.minute));
        let name = hyper::header::HeaderName::from_static("x-apig-ratelimit-api");
        set(name, format!("remain:{remain},limit:{limit},time:{unit}"));
        let name = hyper::header::HeaderName::from_static("x-apig-ratelimit-api-allenv");
        set(name, "remain:199,limit:200,time:1 second".to_owned());
    }
    response
}

/// The call itself; `None` is an answer without a body.
async fn perform(
    shared: &Shared,
    call: Call,
    (headers, query, body): (&HeaderMap, &Query, &[u8]),
    repeat: bool,
) -> Result<Option<Value>, Refusal> {
    let (options, now) = (&shared.options, shared.now());
    if call == Call::Authenticate {
        let caller = authenticate(options, headers, body, now)?;
        return Ok(Some(shared.state().tokens.issue(options, &caller, now)));
    }
    match call {
        Call::Refresh => return shared.state().tokens.refresh(options, headers, now).map(Some),
        Call::Validate => return shared.state().tokens.validate(options, body, now).map(Some),
        Call::LogOut => return shared.state().tokens.log_out(headers, now).map(|()| None),
        // These have the meeting's own credentials.
        Call::ControlToken => {
            let url = &shared.socket_url;
            let Memory { archive, live, .. } = &mut *shared.state();
            return live::control_token(options, url, (archive, live), (headers, query), now).map(Some);
        }
        Call::SocketToken => {
            let Memory { archive, live, .. } = &mut *shared.state();
            return live::socket_token((archive, live), (headers, query), now).map(Some);
        }
        _ => {}
    }
    let caller = shared.state().tokens.caller(headers, now)?;
    if call == Call::ChangeStatus {
        return change_status(shared, &caller, query).await;
    }
    let mut state = shared.state();
    let Memory { archive, subscriptions, .. } = &mut *state;
    let known = (options, &*archive);
    let paging = || -> Result<Paging, Refusal> {
        let paging = query.paging(MAX_LIMIT)?;
        let offset = if repeat { paging.offset.saturating_sub(paging.limit) } else { paging.offset };
        Ok(Paging { offset, ..paging })
    };
    let value = match call {
        Call::Authenticate
        | Call::Refresh
        | Call::Validate
        | Call::LogOut
        | Call::ChangeStatus
        | Call::ControlToken
        | Call::SocketToken => {
            return Err(Refusal::BAD_REQUEST);
        }
        Call::SetSubscription => return subscriptions.set(options, &caller, body, now).map(|()| None),
        Call::ShowSubscription => subscriptions.show(options, &caller, query, now),
        Call::DeleteSubscription => subscriptions.delete(options, &caller, query),
        Call::NotOver => lists::current(known, &caller, query, paging()?, false),
        Call::Running => lists::current(known, &caller, query, paging()?, true),
        Call::NotOverDetail => lists::current_detail(known, &caller, query, paging()?, false),
        Call::RunningDetail => lists::current_detail(known, &caller, query, paging()?, true),
        Call::History => lists::history(known, &caller, query, (paging()?, now)),
        Call::HistoryDetail => lists::past_detail(known, &caller, query, paging()?, now),
        Call::Attendees => lists::attendees(known, &caller, query, (paging()?, now), Language::of(headers)),
        Call::Enterprise => lists::enterprise_of(known, &caller, query),
        Call::Today => statistics::today(known, &caller, now),
        Call::Present => lists::present(known, &caller, query, paging()?),
        Call::Participants => statistics::participants(known, &caller, query, now),
        Call::Statistics => statistics::of_days(known, &caller, query, now),
        Call::Recordings => records::list(known, &caller, query, (paging()?, now)),
        Call::Recording => records::one(known, &caller, query, now),
        Call::Downloads => records::downloads(known, &caller, query, paging()?),
        Call::Segments => records::segments(known, &caller, body, now),
        Call::Users => directory::users(archive, &caller, query, body),
    };
    value.map(Some)
}

/// 6.3.2.4. Enabling sends `meeting.verify` to the URL and waits for its nonce (section 6.2.3.1).
async fn change_status(shared: &Shared, caller: &Caller, query: &Query) -> Result<Option<Value>, Refusal> {
    let options = &shared.options;
    let wanted = shared.state().subscriptions.change(options, caller, query, shared.now())?;
    let Some((owner, record)) = wanted else { return Ok(Some(super::subscriptions::done())) };
    let offer = Post {
        url: &record.url,
        ca_file: options.ca_file.as_deref(),
        app_id: &record.subscriber_id,
        key: &record.subscriber_key,
        clock: &options.clock,
        timeout: options.handshake_timeout,
    };
    let answered = match offer.handshake().await {
        Ok(_) => true,
        Err(error) => {
            tracing::info!(%error, "a handshake failed");
            false
        }
    };
    let result = shared.state().subscriptions.shaken(options, &owner, &record, answered, shared.now());
    shared.enabled.send_replace(());
    result.map(Some)
}
