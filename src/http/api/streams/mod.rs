//! What is told as it happens, as server-sent events: every event of the log (`events`), and what the page shows (`live`).
//!
//! One task reads for all who watch, and only while somebody does. Whoever watches holds a place; there are `MOST`. Nothing
//! is kept for anybody who reads slowly: of the log they read on by themselves, of what the page shows they miss what is over.

pub(super) mod events;
mod follow;
pub(super) mod live;
mod recent;
mod watchers;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::http::access::Grant;
use live::Live;
use recent::Recent;
use watchers::Watchers;

/// So many streams at the most: half of the connections that the listener takes.
const MOST: usize = 64;

/// So many of those who are behind ask the database at a time: it has few connections for people.
const BEHIND: usize = 1;

/// When nothing was said for so long, something is: proxies and browsers give up on what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Browsers come again so soon, in milliseconds.
const RETRY: &str = "retry: 2000\n";

/// The streams, and what their shared reader needs.
#[derive(Debug)]
pub struct Streams {
    pub(super) api: Api,
    watchers: Arc<Watchers>,
    recent: Recent,
    live: watch::Sender<Option<Arc<Live>>>,
    /// Turns of those who read the log by themselves.
    behind: Semaphore,
    /// Woken when this process has appended something.
    appended: Arc<Notify>,
    stop: CancellationToken,
}

impl Streams {
    /// Streams of what `api` reads, until `stop`.
    #[must_use]
    pub fn new(api: Api, appended: Arc<Notify>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            api,
            watchers: Watchers::new(MOST),
            recent: Recent::default(),
            live: watch::Sender::new(None),
            behind: Semaphore::new(BEHIND),
            appended,
            stop,
        })
    }

    /// Reads for all who watch, while somebody does, once the database is migrated; until `stop`.
    pub async fn run(self: Arc<Self>, migrated: CancellationToken) {
        let work = async {
            tokio::join!(
                async {
                    migrated.cancelled().await;
                    self.follow().await;
                },
                self.show(&migrated)
            );
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = work => {}
        }
    }
}

/// The answer whose body is what `next` says, piece by piece, until it says nothing, or whoever listens has no right any more.
fn answer<S: Send + 'static, F>(grant: Grant, state: S, next: impl Fn(S) -> F + Send + 'static) -> Response
where
    F: Future<Output = Option<(Bytes, S)>> + Send + 'static,
{
    let pieces = futures_util::stream::unfold(state, move |state| {
        let next = next(state);
        async move { next.await.map(|(piece, state)| (Ok::<_, Infallible>(piece), state)) }
    });
    let mut response = Response::new(Body::from_stream(pieces.take_until(grant.over())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some proxies keep back what they have not much of.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
