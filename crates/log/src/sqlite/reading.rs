//! Lists for people in SQLite: short reads on connections of their own, which are broken off when their time is over.
//!
//! While a read goes on the WAL cannot start over: so none may go on for long. A `+` before a column keeps the planner from
//! using its index, where another one is far better.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use uuid::Uuid;

use super::projection::{recording, when, word};
use super::{SqliteLog, event_id, failed, time};
use crate::reading::{
    BYTES, EVENT, EventFilter, ListedEvent, ListedMeeting, ListedQuarantined, ListedStay, Listing, MEETING, Meant,
    MeantRun, MeetingFilter, MeetingKey, ONE, Order, Page, QuarantineFilter, RECORDING, RUNS_WITH_UUID, Reading,
    RecordingFilter, STAY, Scope, StayFilter, stays_about, text,
};
use crate::{ClosedBy, LogError, RecordingRow, RunKey, Status};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

type Query = QueryBuilder<Sqlite>;

/// Steps of SQLite's machine between two looks at the clock: some hundred microseconds.
const STEPS: i32 = 10_000;

const STAYED: [&str; 5] = ["person", "user_uuid", "account", "call_number", "participant_id"];

impl SqliteLog {
    /// Reads for so long at the most.
    pub(super) async fn read_within<T>(
        &self,
        within: Duration,
        read: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let work = async {
            let mut connection = self.people.acquire().await?;
            let begun = Instant::now();
            // Stays in place if nobody waits any more, and ends what is still at work for nobody.
            connection.lock_handle().await?.set_progress_handler(STEPS, move || begun.elapsed() < within);
            read(&mut connection).await
        };
        work.await.map_err(|error| {
            const INTERRUPT: &str = "9";
            match error.as_database_error().and_then(|error| error.code()) {
                Some(code) if code == INTERRUPT => LogError::TooSlow(within),
                _ => failed(error),
            }
        })
    }
}

#[async_trait]
impl Reading for SqliteLog {
    async fn list_events(
        &self,
        filter: &EventFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedEvent, EventId>, LogError> {
        let rows = self
            .read_within(page.within, async |connection| {
                let meant = meant(connection, &filter.scope).await?;
                let mut query = Query::new(format!("SELECT {EVENT} FROM events WHERE true"));
                let id = if let Some(meant) = &meant { push_meant_event(&mut query, meant) } else { "event_id" };
                push_event(&mut query, filter, id);
                push_after(&mut query, id, page, ToString::to_string);
                push_order(&mut query, &[id], page);
                some_events(query, connection).await
            })
            .await?;
        Ok(Listing::of_events(rows, page.limit, |row| row.event_id))
    }

    async fn events_between(
        &self,
        filter: &EventFilter,
        after: Seq,
        up_to: Seq,
        limit: u32,
        within: Duration,
    ) -> Result<Listing<ListedEvent, Seq>, LogError> {
        let mut query = Query::new(format!("SELECT {EVENT} FROM events WHERE seq > "));
        query.push_bind(after.0).push(" AND seq <= ").push_bind(up_to.0);
        push_event(&mut query, filter, "+event_id");
        if let Some(meeting) = &filter.scope.meeting {
            query.push(" AND (+meeting_id = ").push_bind(text(meeting));
            query.push(" OR meeting_uuid = ").push_bind(text(meeting)).push(")");
        }
        query.push(" ORDER BY seq LIMIT ").push_bind(i64::from(limit) + 1);
        let rows = self.read_within(within, async |connection| some_events(query, connection).await).await?;
        Ok(Listing::of_events(rows, limit, |row| row.seq))
    }

    async fn get_event(&self, id: EventId) -> Result<Option<ListedEvent>, LogError> {
        let mut query = Query::new(format!("SELECT {EVENT} FROM events WHERE event_id = "));
        query.push_bind(id.to_string());
        let row = self.read_within(ONE, async |connection| query.build().fetch_optional(connection).await).await?;
        row.as_ref().map(event).transpose().map_err(failed)
    }

    async fn list_meetings(
        &self,
        filter: &MeetingFilter,
        page: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError> {
        let (scope, at) = (&filter.scope, "coalesce(started_at, first_event_at)");
        let rows = self
            .read_within(page.within, async |connection| {
                let meant = meant(connection, scope).await?;
                let mut query = Query::new(format!("SELECT {MEETING} FROM meetings WHERE true"));
                push_subscriber(&mut query, scope);
                push_times(&mut query, at, scope.since.map(written), scope.until.map(written));
                if let Some(status) = filter.status {
                    query.push(" AND status = ").push_bind(status.as_str());
                }
                match &meant {
                    Some(Meant::Number(number)) => _ = query.push(" AND meeting_id = ").push_bind(number.clone()),
                    Some(Meant::Runs(uuid, runs)) => push_runs(&mut query, uuid, runs),
                    None => {}
                }
                push_person_stayed(&mut query, scope);
                if let Some(after) = &page.after {
                    // The time once more by itself: where the index is to begin.
                    query.push(format!(" AND {at} {}= ", beyond(page.order))).push_bind(after.at.to_string());
                    query.push(format!(" AND ({at}, meeting_uuid, subscriber_id) {} (", beyond(page.order)));
                    query.push_bind(after.at.to_string()).push(", ").push_bind(after.meeting_uuid.as_str());
                    query.push(", ").push_bind(after.subscriber_id.as_str()).push(")");
                }
                push_order(&mut query, &[at, "meeting_uuid", "subscriber_id"], page);
                query.build().fetch_all(connection).await
            })
            .await?;
        Ok(Listing::of(each(&rows, meeting)?, page.limit, ListedMeeting::key))
    }

    async fn get_meeting(&self, run: &RunKey) -> Result<Option<ListedMeeting>, LogError> {
        let mut query = Query::new(format!("SELECT {MEETING} FROM meetings WHERE true"));
        push_run(&mut query, Some(run));
        let row = self.read_within(ONE, async |connection| query.build().fetch_optional(connection).await).await?;
        row.as_ref().map(meeting).transpose().map_err(failed)
    }

    async fn list_stays(&self, filter: &StayFilter, page: &Page<Uuid>) -> Result<Listing<ListedStay, Uuid>, LogError> {
        let scope = &filter.scope;
        // The stays of one meeting are found by their run, and sorted; all others along their order.
        let id = if scope.meeting.is_some() || filter.run.is_some() { "+stay_id" } else { "stay_id" };
        let rows = self
            .read_within(page.within, async |connection| {
                let meant = meant(connection, scope).await?;
                let mut query = Query::new(format!("SELECT {STAY} FROM attendance WHERE true"));
                push_subscriber(&mut query, scope);
                push_ids(&mut query, id, scope);
                push_run(&mut query, filter.run.as_ref());
                if let Some(closed_by) = filter.closed_by {
                    query.push(" AND closed_by = ").push_bind(closed_by.as_str());
                }
                match &meant {
                    Some(Meant::Number(number)) => {
                        query.push(
                            " AND (subscriber_id, meeting_uuid) IN (SELECT subscriber_id, meeting_uuid FROM meetings",
                        );
                        query.push(" WHERE meeting_id = ").push_bind(number.clone()).push(")");
                    }
                    Some(Meant::Runs(uuid, runs)) => push_runs(&mut query, uuid, runs),
                    None => {}
                }
                push_person(&mut query, scope, &STAYED);
                push_after(&mut query, id, page, ToString::to_string);
                push_order(&mut query, &[id], page);
                query.build().fetch_all(connection).await
            })
            .await?;
        Ok(Listing::of(each(&rows, stay)?, page.limit, |row| row.stay_id))
    }

    async fn list_recordings(
        &self,
        filter: &RecordingFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<RecordingRow, EventId>, LogError> {
        let scope = &filter.scope;
        let rows = self
            .read_within(page.within, async |connection| {
                let meant = meant(connection, scope).await?;
                let mut query = Query::new(format!("SELECT {RECORDING} FROM recordings WHERE true"));
                push_subscriber(&mut query, scope);
                push_ids(&mut query, "event_id", scope);
                push_run(&mut query, filter.run.as_ref());
                match &meant {
                    Some(Meant::Number(number)) => _ = query.push(" AND meeting_id = ").push_bind(number.clone()),
                    Some(Meant::Runs(uuid, runs)) => push_runs(&mut query, uuid, runs),
                    None => {}
                }
                push_person_stayed(&mut query, scope);
                push_after(&mut query, "event_id", page, ToString::to_string);
                push_order(&mut query, &["event_id"], page);
                query.build().fetch_all(connection).await
            })
            .await?;
        Ok(Listing::of(each(&rows, recording)?, page.limit, |row| row.event_id))
    }

    async fn list_quarantine(
        &self,
        filter: &QuarantineFilter,
        page: &Page<i64>,
    ) -> Result<Listing<ListedQuarantined, i64>, LogError> {
        let mut query = Query::new(
            "SELECT id, subscriber_id, received_at, deliveries, reason, length(body) FROM quarantine WHERE true",
        );
        push_times(&mut query, "received_at", filter.since.map(written), filter.until.map(written));
        if let Some(subscriber) = &filter.subscriber {
            query.push(" AND subscriber_id = ").push_bind(text(subscriber));
        }
        push_after(&mut query, "id", page, |id| *id);
        push_order(&mut query, &["id"], page);
        let rows = self.read_within(page.within, async |connection| query.build().fetch_all(connection).await).await?;
        Ok(Listing::of(each(&rows, quarantined)?, page.limit, |row| row.id))
    }
}

/// What the meeting that is asked for is.
async fn meant(connection: &mut SqliteConnection, scope: &Scope) -> Result<Option<Meant>, sqlx::Error> {
    let Some(meeting) = &scope.meeting else { return Ok(None) };
    let meeting = text(meeting);
    let rows = sqlx::query(RUNS_WITH_UUID).bind(&*meeting).fetch_all(connection).await?;
    let run = |row: &SqliteRow| {
        Ok(MeantRun {
            subscriber_id: row.try_get(0)?,
            meeting_id: row.try_get(1)?,
            first_event_at: always(row, 2)?,
            last_event_at: always(row, 3)?,
        })
    };
    let runs = rows.iter().map(run).collect::<Result<_, sqlx::Error>>()?;
    Ok(Some(Meant::of(meeting.into_owned(), runs)))
}

fn written(at: Millis) -> String {
    at.to_string()
}

fn beyond(order: Order) -> &'static str {
    match order {
        Order::Newest => "<",
        Order::Oldest => ">",
    }
}

fn push_after<K, T>(query: &mut Query, column: &str, page: &Page<K>, bind: impl Fn(&K) -> T)
where
    for<'q> T: sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite>,
{
    if let Some(after) = &page.after {
        query.push(format!(" AND {column} {} ", beyond(page.order))).push_bind(bind(after));
    }
}

/// One more than the page has room for: whether there is a next one.
fn push_order<K>(query: &mut Query, columns: &[&str], page: &Page<K>) {
    let direction = match page.order {
        Order::Newest => " DESC",
        Order::Oldest => "",
    };
    let columns: Vec<String> = columns.iter().map(|column| format!("{column}{direction}")).collect();
    query.push(format!(" ORDER BY {} LIMIT ", columns.join(", "))).push_bind(i64::from(page.limit) + 1);
}

fn push_subscriber(query: &mut Query, scope: &Scope) {
    if let Some(subscriber) = &scope.subscriber {
        query.push(" AND subscriber_id = ").push_bind(text(subscriber));
    }
}

/// From one to the other, in a column of times or of ids.
fn push_times(query: &mut Query, column: &str, since: Option<String>, until: Option<String>) {
    if let Some(since) = since {
        query.push(format!(" AND {column} >= ")).push_bind(since);
    }
    if let Some(until) = until {
        query.push(format!(" AND {column} < ")).push_bind(until);
    }
}

/// The times, as a range of ids.
fn push_ids(query: &mut Query, column: &str, scope: &Scope) {
    let id = |at: Option<Millis>| at.map(|at| EventId::lower_bound(at).to_string());
    push_times(query, column, id(scope.since), id(scope.until));
}

fn push_person(query: &mut Query, scope: &Scope, columns: &[&str]) {
    let Some(person) = &scope.person else { return };
    query.push(" AND ").push_bind(text(person)).push(format!(" IN (display_name, {})", columns.join(", ")));
}

fn push_event(query: &mut Query, filter: &EventFilter, id: &str) {
    push_subscriber(query, &filter.scope);
    push_ids(query, id, &filter.scope);
    if let Some(event) = &filter.event {
        query.push(" AND event = ").push_bind(text(event));
    }
    if let Some(source) = filter.source {
        query.push(" AND source = ").push_bind(source.as_str());
    }
    push_person(query, &filter.scope, &["user_uuid", "account", "call_number", "participant_id"]);
}

/// The ids are to be called so in the rest of the query.
fn push_meant_event(query: &mut Query, meant: &Meant) -> &'static str {
    match meant {
        Meant::Number(number) => _ = query.push(" AND meeting_id = ").push_bind(number.clone()),
        Meant::Runs(uuid, runs) => {
            query.push(" AND meeting_uuid = ").push_bind(uuid.clone());
            let Some(numbers) = MeantRun::numbers(runs) else {
                let (first, end) = MeantRun::span(runs);
                push_times(query, "event_id", Some(first.to_string()), Some(end.to_string()));
                return "event_id";
            };
            let numbers = serde_json::Value::from(numbers).to_string();
            query.push(" AND meeting_id IN (SELECT value FROM json_each(").push_bind(numbers).push("))");
        }
    }
    "+event_id"
}

fn push_run(query: &mut Query, run: Option<&RunKey>) {
    if let Some(run) = run {
        query.push(" AND subscriber_id = ").push_bind(text(&run.subscriber_id));
        query.push(" AND meeting_uuid = ").push_bind(text(&run.meeting_uuid));
    }
}

fn push_runs(query: &mut Query, uuid: &str, runs: &[MeantRun]) {
    let subscribers = serde_json::Value::from_iter(runs.iter().map(|run| &*run.subscriber_id)).to_string();
    query.push(" AND subscriber_id IN (SELECT value FROM json_each(").push_bind(subscribers);
    query.push(")) AND meeting_uuid = ").push_bind(uuid.to_owned());
}

/// Runs in which the person who is asked for stayed.
fn push_person_stayed(query: &mut Query, scope: &Scope) {
    if scope.person.is_none() {
        return;
    }
    query.push(" AND (subscriber_id, meeting_uuid) IN (SELECT subscriber_id, meeting_uuid FROM attendance WHERE true");
    push_subscriber(query, scope);
    let (since, until) = stays_about(scope);
    push_times(query, "stay_id", since.map(|id| id.to_string()), until.map(|id| id.to_string()));
    push_person(query, scope, &STAYED);
    query.push(")");
}

pub(super) fn each<T>(
    rows: &[SqliteRow],
    read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, LogError> {
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// The events that a query finds, no more of them than hold [`BYTES`].
async fn some_events(mut query: Query, connection: &mut SqliteConnection) -> Result<Vec<ListedEvent>, sqlx::Error> {
    let mut found = query.build().fetch(connection);
    let (mut rows, mut held) = (Vec::new(), 0);
    while held < BYTES
        && let Some(row) = found.try_next().await?
    {
        let row = event(&row)?;
        held += row.event_info.as_deref().map_or(0, |info| i64::try_from(info.len()).unwrap_or(i64::MAX));
        rows.push(row);
    }
    Ok(rows)
}

fn always(row: &SqliteRow, index: usize) -> Result<Millis, sqlx::Error> {
    time(row.try_get(index)?)
}

pub(super) fn event(row: &SqliteRow) -> Result<ListedEvent, sqlx::Error> {
    Ok(ListedEvent {
        seq: Seq(row.try_get(0)?),
        event_id: event_id(row, 1)?,
        subscriber_id: row.try_get(2)?,
        event: row.try_get(3)?,
        occurred_at: always(row, 4)?,
        received_at: always(row, 5)?,
        meeting_id: row.try_get(6)?,
        meeting_uuid: row.try_get(7)?,
        meeting_cycle_sub_id: row.try_get(8)?,
        user_uuid: row.try_get(9)?,
        user_agent: row.try_get(10)?,
        account: row.try_get(11)?,
        participant_id: row.try_get(12)?,
        display_name: row.try_get(13)?,
        role: row.try_get(14)?,
        call_number: row.try_get(15)?,
        join_time: when(row, 16)?,
        left_time: when(row, 17)?,
        source: row.try_get(18)?,
        deliveries: row.try_get(19)?,
        last_delivered_at: always(row, 20)?,
        request_id: row.try_get(21)?,
        event_info: row.try_get(22)?,
        forgotten_at: when(row, 23)?,
    })
}

pub(super) fn meeting(row: &SqliteRow) -> Result<ListedMeeting, sqlx::Error> {
    Ok(ListedMeeting {
        subscriber_id: row.try_get(0)?,
        meeting_uuid: row.try_get(1)?,
        meeting_id: row.try_get(2)?,
        meeting_cycle_sub_id: row.try_get(3)?,
        status: word(row, 4, Status::parse)?,
        created_at: when(row, 5)?,
        modified_at: when(row, 6)?,
        modifications: row.try_get(7)?,
        cancelled_at: when(row, 8)?,
        started_at: when(row, 9)?,
        ended_at: when(row, 10)?,
        concluded_at: when(row, 11)?,
        stays: row.try_get(12)?,
        participants: row.try_get(13)?,
        peak_participants: row.try_get(14)?,
        recordings: row.try_get(15)?,
        first_event_at: always(row, 16)?,
        last_event_at: always(row, 17)?,
        subject: row.try_get(18)?,
        scheduled_start_at: when(row, 19)?,
        scheduled_end_at: when(row, 20)?,
        host: row.try_get(21)?,
        corp_id: row.try_get(22)?,
    })
}

fn stay(row: &SqliteRow) -> Result<ListedStay, sqlx::Error> {
    Ok(ListedStay {
        stay_id: word(row, 0, |text| Uuid::try_parse(text).ok())?,
        subscriber_id: row.try_get(1)?,
        meeting_uuid: row.try_get(2)?,
        meeting_id: row.try_get(3)?,
        participant_id: row.try_get(4)?,
        person: row.try_get(5)?,
        user_uuid: row.try_get(6)?,
        account: row.try_get(7)?,
        display_name: row.try_get(8)?,
        call_number: row.try_get(9)?,
        user_agent: row.try_get(10)?,
        role: row.try_get(11)?,
        joined_at: when(row, 12)?,
        left_at: when(row, 13)?,
        duration_s: row.try_get(14)?,
        closed_by: word(row, 15, ClosedBy::parse)?,
    })
}

fn quarantined(row: &SqliteRow) -> Result<ListedQuarantined, sqlx::Error> {
    Ok(ListedQuarantined {
        id: row.try_get(0)?,
        subscriber_id: row.try_get(1)?,
        received_at: always(row, 2)?,
        deliveries: row.try_get(3)?,
        reason: row.try_get(4)?,
        bytes: row.try_get(5)?,
    })
}
