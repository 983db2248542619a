//! `/api/v1/stream`: every event of the log in its order, from where the client stopped reading.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::{DATABASE_RETRY_DELAY, RETRY_DELAY, Streams};
use crate::http::api::error::{ApiError, Refusals};
use crate::http::api::mask::Mask;
use crate::http::api::params::{Number, Params, Text};
use crate::http::auth::{Grant, Right};
use convoke_core::id::Seq;
use convoke_log::recent::RecentRow;
use convoke_log::{EventFilter, ListedEvent, LogError, Scope};

/// Rows taken at a time: each reader holds them until its client takes them.
const MAX_ROWS: u32 = 32;

/// When nothing was sent for so long, the place that was reached is.
const PLACE_INTERVAL: Duration = Duration::from_secs(15);

/// Of the rows in memory, none that is older is sent: the log may have forgotten the person in it meanwhile.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How long reading the log may take.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Places of the log that somebody who is behind looks through at a time: as many as take a moment, from how many on, and how many
/// at the most. So whoever looks for what is rare gets on, and says how far it is.
const FIRST_SPAN: i64 = 16_384;
const MAX_SPAN: i64 = 1 << 20;
const READ_TIME: Duration = Duration::from_millis(200);

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
    Params(params): Params<Which>,
) -> Result<Response, ApiError> {
    let last = match headers.get("last-event-id") {
        Some(value) => {
            let last = value.to_str().ok().and_then(|text| text.parse::<i64>().ok()).filter(|last| *last >= 0);
            Some(last.ok_or_else(|| ApiError::bad("Last-Event-ID: allowed is the id of an event of this stream"))?)
        }
        None => params.last_event_id.map(|number| number.0),
    };
    let head = streams.api.ask(streams.api.log.head()).await?;
    let place = streams.place()?;
    let plain = |text: Text<300>| text.0.replace('\0', "\u{fffd}");
    let short = |text: Text<100>| text.0.replace('\0', "\u{fffd}");
    let scope =
        Scope { subscriber: params.subscriber.map(short), meeting: params.meeting.map(plain), ..Scope::default() };
    let filter = EventFilter { scope, event: params.event.map(short), source: None };
    // Of a log that was put back to an earlier state, what was read before says nothing.
    let position = last.map_or(head, Seq).min(head);
    let heads = streams.watch(&streams.head);
    streams.note_head(head);
    let reader =
        Reader { streams: Arc::clone(&streams), filter, position, sent: position, span: FIRST_SPAN, head: heads };
    // Whoever is cut off before the first event then knows where to go on.
    let greeting = at(position).retry(RETRY_DELAY);
    let steps = stream::unfold(reader, |mut reader| async move { Some((stream::iter(reader.next().await), reader)) });
    let of = Arc::clone(&streams);
    let events = steps.flatten().filter_map(move |step| ready(step.render(&of.api.mask, right)));
    Ok(streams.answer(place, grant, stream::iter([greeting]).chain(events)))
}

/// An event that says how far the stream is.
fn at(position: Seq) -> Event {
    Event::default().id(position.to_string())
}

/// What is sent: rendered when the client takes it.
enum Step {
    /// The place that was reached, without an event.
    Place(Seq),
    /// A row that this process has just appended.
    Recent(RecentRow),
    /// A row that was read from the log.
    Read(Box<ListedEvent>),
}

impl Step {
    fn render(self, mask: &Mask, right: Right) -> Option<Event> {
        let row = match self {
            Self::Place(position) => return Some(at(position).comment("")),
            Self::Recent(row) => row.listed()?,
            Self::Read(row) => *row,
        };
        Some(at(row.seq).event("event").json_data(mask.event(row, right)).expect("an item of our own"))
    }
}

/// Somebody who reads the stream.
struct Reader {
    streams: Arc<Streams>,
    filter: EventFilter,
    /// Everything up to here was sent.
    position: Seq,
    /// The last place that was sent without an event.
    sent: Seq,
    /// How many places are looked through at a time.
    span: i64,
    head: watch::Receiver<Seq>,
}

impl Reader {
    /// What is to be sent next.
    async fn next(&mut self) -> Vec<Step> {
        let quiet = Instant::now() + PLACE_INTERVAL;
        loop {
            let pause = match self.read().await {
                Ok(Some(steps)) if !steps.is_empty() => return steps,
                // Whoever is cut off while it looks for what is rare need not begin anew.
                Ok(Some(_)) if self.position.0 - self.sent.0 >= FIRST_SPAN => return self.place(),
                Ok(Some(_)) => Duration::ZERO,
                Ok(None) => PLACE_INTERVAL,
                Err(error) => {
                    tracing::debug!(%error, "a stream waits for the database");
                    DATABASE_RETRY_DELAY
                }
            };
            if Instant::now() >= quiet {
                return self.place();
            }
            tokio::select! {
                _ = self.head.changed(), if pause == PLACE_INTERVAL => {}
                () = tokio::time::sleep_until(quiet.min(Instant::now() + pause)) => {}
            }
        }
    }

    fn place(&mut self) -> Vec<Step> {
        self.sent = self.position;
        vec![Step::Place(self.position)]
    }

    /// What stands after the position, as far as it is wanted; `None` at the end of the log.
    async fn read(&mut self) -> Result<Option<Vec<Step>>, LogError> {
        let head = *self.head.borrow_and_update();
        let recent = self.streams.recent.after(self.position, MAX_ROWS as usize);
        if let (Some(first), Some(last)) = (recent.first(), recent.last())
            && first.committed.elapsed() < MAX_AGE
        {
            self.position = last.seq;
            return Ok(Some(recent.into_iter().filter(|row| self.takes(row)).map(Step::Recent).collect()));
        }
        if self.position >= head {
            return Ok(None);
        }
        let to = Seq(head.0.min(self.position.0.saturating_add(self.span)));
        // Those who are behind take turns: others ask the database, too.
        let _turn = self.streams.catching_up.acquire().await;
        let begun = Instant::now();
        let log = &self.streams.api.log;
        let found = match log.events_between(&self.filter, self.position, to, MAX_ROWS, READ_TIMEOUT).await {
            Err(LogError::TooSlow(_)) if self.span > 1 => {
                self.span = (self.span / 16).max(1);
                return Ok(Some(Vec::new()));
            }
            found => found?,
        };
        let took = begun.elapsed();
        if took > 2 * READ_TIME {
            self.span = (self.span / 2).max(1);
        } else if took < READ_TIME {
            self.span = (self.span * 2).min(MAX_SPAN);
        }
        self.position = found.next.unwrap_or(to);
        Ok(Some(found.rows.into_iter().map(|row| Step::Read(Box::new(row))).collect()))
    }

    /// Whether the filter lets a row through, as it would in the log.
    fn takes(&self, row: &RecentRow) -> bool {
        let Some(event) = row.event() else { return false };
        let Scope { subscriber, meeting, .. } = &self.filter.scope;
        let is = |wanted: &Option<String>, value: Option<&str>| wanted.is_none() || wanted.as_deref() == value;
        is(&self.filter.event, Some(&event.event))
            && is(subscriber, Some(&event.subscriber_id))
            && (is(meeting, event.meeting.id.as_deref()) || is(meeting, event.meeting.uuid.as_deref()))
    }
}
