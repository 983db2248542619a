//! `/api/v1/stream`: every event of the log in its order, from where the client stopped reading.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::recent::{After, Wanted, tell_all};
use super::watchers::{Watcher, What};
use super::{KEEP_ALIVE, RETRY, Streams};
use crate::http::access::{Grant, Right};
use crate::http::api::ask::{Asked, Number, Text};
use crate::http::api::refused::{Refusals, Refused};
use convoke_core::id::Seq;
use convoke_log::{EventFilter, LogError, Scope};

/// Rows that somebody who is behind reads at a time: what is not taken from us yet is held, for each who reads.
const PAGE: u32 = 32;

/// How long that may take.
const WITHIN: Duration = Duration::from_secs(3);

/// Places of the log that somebody who is behind looks through at a time: as many as take a moment, from how many on, and how many
/// at the most. So whoever looks for what is rare gets on, and says how far it is.
const SPAN: i64 = 16_384;
const LONGEST_SPAN: i64 = 1 << 20;
const MOMENT: Duration = Duration::from_millis(200);

/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Of this type, as sent.
    #[param(inline)]
    event: Option<Text<100>>,
    /// Of the meeting with this number or UUID.
    #[param(inline)]
    meeting: Option<Text<300>>,
    /// Of this subscriber.
    #[param(inline)]
    subscriber: Option<Text<100>>,
    /// As the header `Last-Event-ID`, for clients that cannot set one; the header counts more.
    #[param(inline)]
    last_event_id: Option<Number<0, 9_223_372_036_854_775_807>>,
}

/// Every event of the log as it comes, in the log's order, as server-sent events.
///
/// `id` is `seq`, `event` is `event`, and `data` is an event as in `/api/v1/events`, in one line. With `Last-Event-ID` it goes on
/// after that one without a gap, however long ago that was; without, from now on. Every 15 seconds without anything else a
/// comment is sent, and the place that was reached. 64 streams may be open at once.
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    operation_id = "stream_events",
    tag = "now",
    params(
        Which,
        ("Last-Event-ID" = Option<i64>, Header, minimum = 0, description = "`id` of the last event that was read.")
    ),
    responses((status = 200, description = "The stream.", content_type = "text/event-stream", body = String), Refusals)
)]
pub(crate) async fn stream(
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
    asked: Asked<Which>,
) -> Result<Response, Refused> {
    let last = match headers.get("last-event-id") {
        Some(value) => {
            let last = value.to_str().ok().and_then(|text| text.parse::<i64>().ok()).filter(|last| *last >= 0);
            Some(last.ok_or_else(|| Refused::bad("Last-Event-ID: allowed is the id of an event of this stream"))?)
        }
        None => asked.of.last_event_id.map(|number| number.0),
    };
    let head = streams.api.ask(streams.api.log.head()).await?;
    let watcher = streams.watchers.admit(What::Events).ok_or(Refused::Crowded)?;
    let plain = |text: Text<300>| text.0.replace('\0', "\u{fffd}");
    let short = |text: Text<100>| text.0.replace('\0', "\u{fffd}");
    let wanted = Wanted {
        event: asked.of.event.map(short),
        subscriber: asked.of.subscriber.map(short),
        meeting: asked.of.meeting.map(plain),
    };
    let filter = EventFilter {
        scope: Scope { subscriber: wanted.subscriber.clone(), meeting: wanted.meeting.clone(), ..Scope::default() },
        event: wanted.event.clone(),
        source: None,
    };
    // Of a log that was put back to an earlier state, what was read before says nothing.
    let position = last.map_or(head, Seq).min(head);
    let end = streams.recent.end();
    let reader = Reader {
        streams,
        right,
        wanted,
        filter,
        position,
        told: position,
        span: SPAN,
        end,
        _watcher: watcher,
        greeted: false,
        said: Instant::now(),
    };
    Ok(super::answer(grant, reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((piece, reader))
    }))
}

/// Somebody who reads the stream.
struct Reader {
    streams: Arc<Streams>,
    right: Right,
    wanted: Wanted,
    filter: EventFilter,
    /// Everything up to here was said.
    position: Seq,
    /// The last place that was said without an event.
    told: Seq,
    /// How many places are looked through at a time.
    span: i64,
    end: watch::Receiver<Seq>,
    _watcher: Watcher,
    greeted: bool,
    /// When something was said last.
    said: Instant,
}

impl Reader {
    /// What is to be said next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let stop = self.streams.stop.clone();
        let said = tokio::select! {
            () = stop.cancelled() => None,
            said = self.say() => Some(said),
        };
        self.said = Instant::now();
        said
    }

    async fn say(&mut self) -> Bytes {
        if !std::mem::replace(&mut self.greeted, true) {
            // Whoever is cut off before the first event then knows where to go on.
            return self.place(RETRY);
        }
        let quiet = self.said + KEEP_ALIVE;
        loop {
            let pause = match self.read().await {
                Ok(Some(piece)) if !piece.is_empty() => return piece,
                // Whoever is cut off while it looks for what is rare need not begin anew.
                Ok(Some(_)) if self.position.0 - self.told.0 >= SPAN => return self.place(":\n"),
                Ok(Some(_)) => Duration::ZERO,
                Ok(None) => KEEP_ALIVE,
                Err(error) => {
                    tracing::debug!(%error, "a stream waits for the database");
                    AGAIN
                }
            };
            if Instant::now() >= quiet {
                return self.place(":\n");
            }
            if pause == KEEP_ALIVE {
                tokio::select! {
                    _ = self.end.changed() => {}
                    () = tokio::time::sleep_until(quiet) => {}
                }
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// The place that was reached, without an event.
    fn place(&mut self, before: &str) -> Bytes {
        self.told = self.position;
        Bytes::from(format!("{before}id: {}\n\n", self.position))
    }

    /// What stands after the position, as far as it is wanted; `None` at the end of the log.
    async fn read(&mut self) -> Result<Option<Bytes>, LogError> {
        self.end.mark_unchanged();
        let api = &self.streams.api;
        match self.streams.recent.after(self.position, &self.wanted, &api.mask, self.right) {
            After::Rows(piece, to) => {
                self.position = to;
                Ok(Some(piece))
            }
            After::End => Ok(None),
            After::Unknown => {
                let head = api.log.head().await?;
                if self.position >= head {
                    return Ok(None);
                }
                let to = Seq(head.0.min(self.position.0.saturating_add(self.span)));
                // Those who are behind take turns: others ask the database, too.
                let _turn = self.streams.behind.acquire().await;
                let begun = Instant::now();
                let found = match api.log.events_between(&self.filter, self.position, to, PAGE, WITHIN).await {
                    Err(LogError::TooSlow(_)) if self.span > 1 => {
                        self.span = (self.span / 16).max(1);
                        return Ok(Some(Bytes::new()));
                    }
                    found => found?,
                };
                let took = begun.elapsed();
                if took > 2 * MOMENT {
                    self.span = (self.span / 2).max(1);
                } else if took < MOMENT {
                    self.span = (self.span * 2).min(LONGEST_SPAN);
                }
                self.position = found.next.unwrap_or(to);
                Ok(Some(tell_all(&found.rows, &api.mask, self.right)))
            }
        }
    }
}
