//! `/api/v1/live`: what the page shows, once a second, the same for all who watch.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event as SentEvent;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{RETRY_DELAY, Streams};
use crate::http::api::error::{ApiError, Refusals};
use crate::http::api::health::{Health, RefusalCounts};
use crate::http::api::mask::open;
use crate::http::api::params::{NoParams, Params, Time};
use crate::http::api::stats::EventsAt;
use crate::http::auth::{Grant, Right};
use convoke_core::id::Seq;
use convoke_core::time::Millis;
use convoke_log::{GoingOn, ListedEvent, LogError, MAX_SILENCE};

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was seen of people is shown for so long while the database does not answer: they may have been forgotten.
const MAX_STALE_TIME: Duration = Duration::from_secs(5);

/// How long each of its questions may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Meetings, and events, in a message.
const MAX_MEETINGS: u32 = 50;
const MAX_NEWEST: u32 = 30;

const MINUTE: i64 = 60_000;

/// What the page shows.
#[derive(Debug, Serialize, ToSchema)]
struct Message<'a> {
    /// How it is.
    health: &'a Health,
    /// How fast events come.
    rate: Rate,
    /// The meetings that go on.
    live: LiveMeetings,
    /// The newest events of the log, at most 30, the newest first, without `event_info`.
    newest: Vec<ListedEvent>,
    /// What was refused in the last hour.
    refusals: &'a RefusalCounts,
    /// The events of this minute.
    minute: EventsAt,
}

/// How fast events come.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
struct Rate {
    /// How many came into the log in the second before.
    events_last_second: i64,
}

/// The meetings that go on and of which something was heard in the last 24 hours, however long ago they began.
#[derive(Debug, Serialize, ToSchema)]
struct LiveMeetings {
    /// How many.
    total: i64,
    /// The newest 50 of them.
    meetings: Vec<LiveMeeting>,
}

/// A meeting that goes on.
#[derive(Debug, Serialize, ToSchema)]
struct LiveMeeting {
    /// The push configuration (appID) that told of it.
    subscriber_id: String,
    /// The run.
    meeting_uuid: String,
    /// The meeting's number.
    meeting_id: Option<String>,
    /// What it is about, if enriched. Null if masked.
    subject: Option<String>,
    /// When it started.
    started_at: Option<Time>,
    /// How many distinct people are in it.
    participants_now: i64,
    /// How many distinct people have been in it.
    participants: i64,
    /// The most at one moment.
    peak_participants: i64,
}

/// What is shown, to whomever.
#[derive(Debug)]
pub(super) struct Live {
    health: Health,
    refusals: RefusalCounts,
    seen: Seen,
}

/// What was read in the database.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// How far the log was counted.
    head: Option<Seq>,
    rate: Rate,
    live: GoingOn,
    newest: Vec<ListedEvent>,
    minute: Option<(Millis, i64)>,
}

impl Live {
    fn render(&self, streams: &Streams, right: Right) -> SentEvent {
        let (at, events) = self.seen.minute.unwrap_or((minute_of(streams.api.now()), 0));
        let meeting = |(row, participants_now): &(convoke_log::ListedMeeting, i64)| LiveMeeting {
            subscriber_id: row.subscriber_id.clone(),
            meeting_uuid: row.meeting_uuid.clone(),
            meeting_id: row.meeting_id.clone(),
            subject: open(row.subject.clone(), right),
            started_at: row.started_at.map(Time),
            participants_now: *participants_now,
            participants: row.participants,
            peak_participants: row.peak_participants,
        };
        let event = |row: &ListedEvent| streams.api.mask.event(row.clone(), right);
        let message = Message {
            health: &self.health,
            rate: self.seen.rate,
            live: LiveMeetings {
                total: self.seen.live.total,
                meetings: self.seen.live.runs.iter().map(meeting).collect(),
            },
            newest: self.seen.newest.iter().map(event).collect(),
            refusals: &self.refusals,
            minute: EventsAt { at: Time(at), events },
        };
        SentEvent::default().event("live").json_data(message).expect("a message of our own")
    }
}

fn minute_of(at: Millis) -> Millis {
    Millis::new(at.get() / MINUTE * MINUTE).unwrap_or(at)
}

impl Streams {
    /// Says once a second how it is and what goes on, whenever somebody watches.
    pub(super) async fn show(&self, migrated: &CancellationToken) {
        loop {
            self.watched(&self.live).await;
            let (mut seen, mut read) = (Seen::default(), Instant::now());
            while !self.live.is_closed() {
                let begun = Instant::now();
                if migrated.is_cancelled() {
                    match self.see(&mut seen).await {
                        Ok(()) => read = begun,
                        Err(error) => tracing::debug!(%error, "the page shows what was seen before"),
                    }
                }
                if read.elapsed() > MAX_STALE_TIME {
                    seen.newest.clear();
                    seen.live.runs.clear();
                }
                let (health, refusals) = (self.api.how_it_is(), self.api.refusals());
                self.live.send_replace(Some(Arc::new(Live { health, refusals, seen: seen.clone() })));
                tokio::time::sleep_until(begun + INTERVAL).await;
            }
            // Whoever comes next is not shown what is over.
            self.live.send_replace(None);
        }
    }

    async fn see(&self, seen: &mut Seen) -> Result<(), LogError> {
        let (log, now) = (&self.api.log, self.api.now());
        let minute = minute_of(now);
        let until = minute.plus(Duration::from_millis(MINUTE.unsigned_abs()));
        match seen.head {
            // What came since, and how much of it happened in this minute: only a new minute is counted as a whole.
            Some(head) => {
                let arrived = log.count_arrived(head, minute, until, QUERY_TIMEOUT).await?;
                seen.rate = Rate { events_last_second: arrived.events };
                seen.head = arrived.newest.or(seen.head);
                seen.minute = match seen.minute {
                    Some((at, events)) if at == minute => Some((at, events + arrived.in_time)),
                    _ => Some((minute, log.count_events(&[minute, until], QUERY_TIMEOUT).await?.iter().sum())),
                };
            }
            None => {
                seen.head = Some(log.head().await?);
                seen.minute = Some((minute, log.count_events(&[minute, until], QUERY_TIMEOUT).await?.iter().sum()));
            }
        }
        seen.newest = log.newest_events(MAX_NEWEST, QUERY_TIMEOUT).await?;
        seen.live = log.going_on(now.minus(MAX_SILENCE), MAX_MEETINGS, QUERY_TIMEOUT).await?;
        Ok(())
    }
}

/// What the page shows, once a second, as server-sent events.
///
/// `event` is `live`, and `data` is a whole message, so that coming again needs no memory. The first is sent at once. 64 streams
/// may be open at once.
#[utoipa::path(
    get,
    path = "/api/v1/live",
    operation_id = "stream_live",
    tag = "now",
    responses((status = 200, description = "The stream.", content_type = "text/event-stream", body = Message<'static>), Refusals)
)]
pub(crate) async fn live(
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    Extension(grant): Extension<Grant>,
    _: Params<NoParams>,
) -> Result<Response, ApiError> {
    let place = streams.place()?;
    let mut messages = streams.watch(&streams.live);
    // The one that is there already is new to whoever comes.
    messages.mark_changed();
    let messages = stream::unfold(messages, |mut messages| async move {
        messages.changed().await.ok()?;
        let message = messages.borrow_and_update().clone();
        Some((stream::iter(message), messages))
    });
    let of = Arc::clone(&streams);
    let messages = messages.flatten().map(move |live| live.render(&of, right));
    let greeting = stream::iter([SentEvent::default().retry(RETRY_DELAY)]);
    Ok(streams.answer(place, grant, greeting.chain(messages)))
}
