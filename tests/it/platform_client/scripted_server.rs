//! A server that answers what the test scripts, keeps what it was asked, and may break off.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use convoke_core::time::Clock;
use convoke_platform::{Client, Options};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const APP_ID: &str = "0123456789abcdef0123456789abcdef";
pub const APP_KEY: &str = "DemoAppKeyDemoAppKeyDemoAppKey01";
pub const AUTHENTICATION: &str = "/v2/usg/acs/auth/appauth";
pub const HISTORY: &str = "/v1/mmc/management/conferences/history";
pub const LINK_CONFIG: &str = "/v1/mmc/management/webhook/link-config";
pub const CHANGE_STATUS: &str = "/v1/mmc/management/webhook/change-status";

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: Value,
    /// How many of this method and path came before.
    pub nth: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a readable header"))
    }

    pub fn offset(&self) -> usize {
        self.query["offset"].parse().expect("a number")
    }
}

/// An answer.
pub enum Reply {
    Json(u16, Value),
    /// Status, headers, body.
    Text(u16, Vec<(&'static str, String)>, String),
    /// Without end, until the client goes away.
    Endless,
    /// The connection is closed instead.
    Gone,
    After(Duration, Box<Reply>),
}

impl Reply {
    pub fn refusal(status: u16, code: &str, message: &str) -> Self {
        Self::Json(status, json!({ "error_code": code, "error_msg": message }))
    }
}

/// The good answer to an authentication, with the token `token-{nth}`.
pub fn signed_in(asked: &Asked) -> Reply {
    assert_eq!((&asked.method, asked.path.as_str()), (&Method::POST, AUTHENTICATION));
    Reply::Json(
        200,
        json!({
            "accessToken": format!("token-{}", asked.nth), "validPeriod": 64_800,
            "createTime": 1_735_700_400_123_i64, "expireTime": 1_735_765_200,
            "user": { "companyId": "660012345", "spId": "sp1", "userType": 2, "adminType": 0, "corpType": 0 },
        }),
    )
}

#[derive(Default)]
struct Seen {
    asked: Vec<Asked>,
    under_way: BTreeMap<String, usize>,
    most_at_once: BTreeMap<String, usize>,
}

/// The server.
pub struct Scripted {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// Authentications succeed; everything else is `answer`'s.
    pub async fn signed_in(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |asked| if asked.path == AUTHENTICATION { signed_in(asked) } else { answer(asked) }).await
    }

    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, answer) = (Arc::new(Mutex::new(Seen::default())), Arc::new(answer));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                let service = service_fn(move |request| respond(request, Arc::clone(&seen), Arc::clone(&answer)));
                connections.spawn(async move {
                    // An error is what `Reply::Gone` wants.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, seen, task }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panicked meanwhile")
    }

    /// What came for `path`, in order.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.seen().asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// How many requests for `path` were under way together at most.
    pub fn most_at_once(&self, path: &str) -> usize {
        self.seen().most_at_once.get(path).copied().unwrap_or(0)
    }

    /// Settings of a single enterprise.
    pub fn options(&self) -> Options {
        Options::new(format!("http://{}", self.address), APP_ID, APP_KEY.into())
    }

    pub fn client(&self) -> Client {
        Client::new(self.options(), Clock::System).expect("a client")
    }
}

struct Broken;
impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}
impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}
impl std::error::Error for Broken {}

type Body = BoxBody<Bytes, Infallible>;

async fn respond(
    request: Request<Incoming>,
    seen: Arc<Mutex<Seen>>,
    answer: Arc<impl Fn(&Asked) -> Reply>,
) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let path = head.uri.path().to_owned();
    let asked = {
        let mut seen = seen.lock().expect("no test panicked meanwhile");
        let nth = seen.asked.iter().filter(|asked| asked.path == path && asked.method == head.method).count();
        let asked = Asked {
            nth,
            query: head.uri.query().map(query).unwrap_or_default(),
            method: head.method,
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            path: path.clone(),
        };
        seen.asked.push(asked.clone());
        let under_way = seen.under_way.entry(path.clone()).or_default();
        *under_way += 1;
        let under_way = *under_way;
        let most = seen.most_at_once.entry(path.clone()).or_default();
        *most = under_way.max(*most);
        asked
    };
    let mut reply = answer(&asked);
    while let Reply::After(pause, then) = reply {
        tokio::time::sleep(pause).await;
        reply = *then;
    }
    *seen.lock().expect("no test panicked meanwhile").under_way.entry(path).or_default() -= 1;
    let whole = |text: String| Full::from(text).boxed();
    match reply {
        Reply::Json(status, value) => {
            Ok(response(status, &[("content-type", "application/json".to_owned())], whole(value.to_string())))
        }
        Reply::Text(status, headers, text) => Ok(response(status, &headers, whole(text))),
        Reply::Endless => {
            let blank = Bytes::from(vec![b' '; 64 << 10]);
            let frames = futures_util::stream::repeat_with(move || Ok(Frame::data(blank.clone())));
            Ok(response(200, &[], BodyExt::boxed(StreamBody::new(frames))))
        }
        Reply::Gone => Err(Broken),
        Reply::After(..) => unreachable!("taken apart above"),
    }
}

fn response(status: u16, headers: &[(&'static str, String)], body: Body) -> Response<Body> {
    let mut response = Response::builder().status(status).header("x-request-id", "request-1");
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).expect("a response")
}

fn query(text: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().expect("UTF-8").into_owned();
    text.split('&').map(|pair| pair.split_once('=').expect("a value")).map(|(a, b)| (decoded(a), decoded(b))).collect()
}
