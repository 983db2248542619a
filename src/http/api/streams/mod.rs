//! Server-sent events: every event of the log (`events`), and what the page shows (`live`).
//!
//! What both need of the database is asked once for all who watch, and only while somebody does. Nothing is kept for anybody
//! who reads slowly: of the log they read on by themselves, of what the page shows they miss what is over.

pub(super) mod events;
pub(super) mod live;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::error::ApiError;
use crate::http::auth::Grant;
use convoke_core::id::Seq;
use convoke_log::recent::RecentRows;
use live::Live;

/// Half of the connections that the listener takes.
const MAX_STREAMS: usize = 64;

/// So many of those who are behind ask the database at a time: it has few connections for people.
const MAX_CATCHING_UP: usize = 1;

/// When nothing was sent for so long, something is: proxies and browsers give up on what is silent. A stream that has nothing
/// to send says before where it is.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Browsers come again after this.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// How often the log's head is looked at, for what other processes append.
const HEAD_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// After new rows, others gather for so long: under load each then costs less.
const GATHER_TIME: Duration = Duration::from_millis(50);

/// The pause after a failure.
const DATABASE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The streams, and what all who watch share.
#[derive(Debug)]
pub struct Streams {
    pub(super) api: Arc<Api>,
    recent: Arc<RecentRows>,
    places: Arc<Semaphore>,
    /// Somebody began to watch.
    came: Notify,
    /// How far the log goes, for who watches it.
    head: watch::Sender<Seq>,
    /// What the page shows, for who watches that.
    live: watch::Sender<Option<Arc<Live>>>,
    catching_up: Semaphore,
    stop: CancellationToken,
}

impl Streams {
    /// Streams of what `api` reads, until `stop`.
    #[must_use]
    pub fn new(api: Api, recent: Arc<RecentRows>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            api: Arc::new(api),
            recent,
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            came: Notify::new(),
            head: watch::Sender::new(Seq::START),
            live: watch::Sender::new(None),
            catching_up: Semaphore::new(MAX_CATCHING_UP),
            stop,
        })
    }

    /// Asks the database for all who watch, until `stop`; for the page's numbers once it is `migrated`.
    pub async fn run(self: Arc<Self>, migrated: CancellationToken) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.follow() => {}
            () = self.show(&migrated) => {}
        }
    }

    /// A place for one more stream.
    fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| ApiError::Crowded)
    }

    /// Whoever watches this from now on is seen by [`Streams::watched`].
    fn watch<T>(&self, what: &watch::Sender<T>) -> watch::Receiver<T> {
        let receiver = what.subscribe();
        self.came.notify_waiters();
        receiver
    }

    /// Waits until somebody watches this.
    async fn watched<T>(&self, what: &watch::Sender<T>) {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if !what.is_closed() {
                return;
            }
            came.await;
        }
    }

    /// Looks how far the log goes, while somebody watches it.
    async fn follow(&self) {
        loop {
            self.watched(&self.head).await;
            // Armed before the log is asked, so that no commit falls between asking and waiting.
            let appended = self.recent.appended();
            tokio::pin!(appended);
            appended.as_mut().enable();
            let pause = match self.api.log.head().await {
                Ok(head) if self.note_head(head) => GATHER_TIME,
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    tracing::debug!(%error, "the streams wait for the database");
                    DATABASE_RETRY_DELAY
                }
            };
            if pause.is_zero() {
                tokio::select! {
                    () = appended => {}
                    () = tokio::time::sleep(HEAD_POLL_INTERVAL) => {}
                }
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Tells who watches the log how far it goes; whether that is news.
    fn note_head(&self, head: Seq) -> bool {
        self.head.send_if_modified(|known| std::mem::replace(known, head) != head)
    }

    /// The answer that sends `events` while the place is held: until they end, the process does, or whoever listens has no right
    /// any more.
    fn answer(
        &self,
        place: OwnedSemaphorePermit,
        grant: Grant,
        events: impl Stream<Item = Event> + Send + 'static,
    ) -> Response {
        let stop = self.stop.clone();
        let over = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = grant.over() => {}
            }
        };
        let events = events.take_until(over).map(move |event| {
            let _held = &place;
            Ok::<_, Infallible>(event)
        });
        // Some proxies keep back what they have not much of.
        let headers = [(CACHE_CONTROL, "no-store"), (HeaderName::from_static("x-accel-buffering"), "no")];
        (headers, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL))).into_response()
    }
}
