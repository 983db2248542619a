//! Lists for people in PostgreSQL: short read-only transactions, on connections of their own, with a time-out of the server.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use super::projection::{always, recording, when, word};
use super::{LONGEST_INDEXED, PostgresLog, failed};
use crate::reading::{
    BYTES, EVENT, EventFilter, ListedEvent, ListedMeeting, ListedQuarantined, ListedStay, Listing, MEETING, Meant,
    MeantRun, MeetingFilter, MeetingKey, ONE, Order, Page, QuarantineFilter, RECORDING, RUNS_WITH_UUID, Reading,
    RecordingFilter, STAY, Scope, StayFilter, stays_about, text,
};
use crate::{ClosedBy, LogError, RecordingRow, RunKey, Status};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

type Query = QueryBuilder<Postgres>;

/// How much longer than the server a client waits: for a server that vanished.
const GRACE: Duration = Duration::from_millis(500);

/// The order of a list is that of an index; what is not found by its key is found along that, from the page's beginning on.
pub(super) const ALONG: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off";

/// The rows of a meeting are found by their index, and sorted.
const BY_MEETING: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off";

impl PostgresLog {
    /// Reads in one transaction, whose queries are planned as `plan` says and may take so long each.
    pub(super) async fn read_within<T>(
        &self,
        within: Duration,
        plan: &str,
        read: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}; {plan}", within.as_millis().max(1));
        let work = async {
            let mut tx = self.people.begin_with(AssertSqlSafe(begin)).await?;
            let read = read(&mut tx).await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(read)
        };
        match tokio::time::timeout(within + GRACE, work).await {
            Ok(Ok(read)) => Ok(read),
            // query_canceled.
            Ok(Err(error))
                if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57014")) =>
            {
                Err(LogError::TooSlow(within))
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(LogError::TooSlow(within)),
        }
    }
}

#[async_trait]
impl Reading for PostgresLog {
    async fn list_events(
        &self,
        filter: &EventFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedEvent, EventId>, LogError> {
        let rows = if filter.scope.meeting.is_some() {
            self.read_within(page.within, BY_MEETING, async |connection| {
                let Some(meant) = meant(connection, &filter.scope).await? else { return Ok(Vec::new()) };
                // First the ids alone, whatever the planner believes of the limit: the rows of a meeting may be many and long.
                let mut query = Query::new("WITH of AS MATERIALIZED (SELECT event_id FROM events WHERE true");
                push_event(&mut query, filter);
                push_meant_event(&mut query, &meant);
                push_after(&mut query, "event_id", page, |id| id.uuid());
                query.push(") SELECT event_id FROM of");
                push_order(&mut query, &["event_id"], page);
                let ids: Vec<Uuid> = query.build_query_scalar().fetch_all(&mut *connection).await?;
                let mut query = Query::new(format!("{PAGE_OF_EVENTS} WHERE event_id = ANY("));
                query.push_bind(ids).push(")");
                push_order(&mut query, &["event_id"], page);
                push_bytes(&mut query, "event_id", page.order);
                query.build().fetch_all(connection).await
            })
            .await?
        } else {
            self.read_within(page.within, ALONG, async |connection| {
                let mut query = Query::new(format!("{PAGE_OF_EVENTS} WHERE true"));
                push_event(&mut query, filter);
                push_after(&mut query, "event_id", page, |id| id.uuid());
                push_order(&mut query, &["event_id"], page);
                push_bytes(&mut query, "event_id", page.order);
                query.build().fetch_all(connection).await
            })
            .await?
        };
        Ok(Listing::of_events(each(&rows, event)?, page.limit, |row| row.event_id))
    }

    async fn events_between(
        &self,
        filter: &EventFilter,
        after: Seq,
        up_to: Seq,
        limit: u32,
        within: Duration,
    ) -> Result<Listing<ListedEvent, Seq>, LogError> {
        let mut query = Query::new(format!("{PAGE_OF_EVENTS} WHERE seq > "));
        query.push_bind(after.0).push(" AND seq <= ").push_bind(up_to.0);
        push_event(&mut query, filter);
        if let Some(meeting) = &filter.scope.meeting {
            query.push(" AND (meeting_id = ").push_bind(number(meeting));
            query.push(" OR meeting_uuid = ").push_bind(text(meeting)).push(")");
        }
        query.push(" ORDER BY seq LIMIT ").push_bind(i64::from(limit) + 1);
        push_bytes(&mut query, "seq", Order::Oldest);
        let rows =
            self.read_within(within, ALONG, async |connection| query.build().fetch_all(connection).await).await?;
        Ok(Listing::of_events(each(&rows, event)?, limit, |row| row.seq))
    }

    async fn get_event(&self, id: EventId) -> Result<Option<ListedEvent>, LogError> {
        let mut query = Query::new(format!("SELECT {EVENT} FROM events WHERE event_id = "));
        query.push_bind(id.uuid());
        let row =
            self.read_within(ONE, ALONG, async |connection| query.build().fetch_optional(connection).await).await?;
        row.as_ref().map(event).transpose().map_err(failed)
    }

    async fn list_meetings(
        &self,
        filter: &MeetingFilter,
        page: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError> {
        let (scope, at) = (&filter.scope, "coalesce(started_at, first_event_at)");
        let key = [at, "meeting_uuid", "subscriber_id"];
        let rows = self
            .read_within(page.within, "SET LOCAL enable_seqscan = off", async |connection| {
                let meant = meant(connection, scope).await?;
                let mut query = Query::new("WITH found AS ");
                // One meeting's runs are found by its number, and sorted; all others along their order.
                query.push(if meant.is_some() { "MATERIALIZED" } else { "NOT MATERIALIZED" });
                query.push(format!(" (SELECT {MEETING} FROM meetings WHERE true"));
                push_subscriber(&mut query, scope);
                push_times(&mut query, at, scope.since.map(Millis::date_time), scope.until.map(Millis::date_time));
                if let Some(status) = filter.status {
                    query.push(" AND status = ").push_bind(status.as_str());
                }
                match &meant {
                    Some(Meant::Number(number)) => _ = query.push(" AND meeting_id = ").push_bind(self::number(number)),
                    Some(Meant::Runs(uuid, runs)) => push_runs(&mut query, uuid, runs),
                    None => {}
                }
                push_person_stayed(&mut query, scope);
                if let Some(after) = &page.after {
                    // The time once more by itself: where the index is to begin.
                    query.push(format!(" AND {at} {}= ", beyond(page.order))).push_bind(after.at.date_time());
                    query.push(format!(" AND ({}) {} (", key.join(", "), beyond(page.order)));
                    query.push_bind(after.at.date_time()).push(", ").push_bind(text(&after.meeting_uuid));
                    query.push(", ").push_bind(text(&after.subscriber_id)).push(")");
                }
                query.push(") SELECT * FROM found");
                push_order(&mut query, &key, page);
                query.build().fetch_all(connection).await
            })
            .await?;
        Ok(Listing::of(each(&rows, meeting)?, page.limit, ListedMeeting::key))
    }

    async fn get_meeting(&self, run: &RunKey) -> Result<Option<ListedMeeting>, LogError> {
        let mut query = Query::new(format!("SELECT {MEETING} FROM meetings WHERE subscriber_id = "));
        query.push_bind(text(&run.subscriber_id)).push(" AND meeting_uuid = ").push_bind(text(&run.meeting_uuid));
        let row =
            self.read_within(ONE, ALONG, async |connection| query.build().fetch_optional(connection).await).await?;
        row.as_ref().map(meeting).transpose().map_err(failed)
    }

    async fn list_stays(&self, filter: &StayFilter, page: &Page<Uuid>) -> Result<Listing<ListedStay, Uuid>, LogError> {
        let scope = &filter.scope;
        let few = scope.meeting.is_some() || filter.run.is_some();
        let rows = self
            .read_within(page.within, if few { BY_MEETING } else { ALONG }, async |connection| {
                let meant = meant(connection, scope).await?;
                let mut query = Query::new("WITH found AS ");
                query.push(if few { "MATERIALIZED" } else { "NOT MATERIALIZED" });
                query.push(format!(" (SELECT {STAY} FROM attendance WHERE true"));
                push_subscriber(&mut query, scope);
                push_ids(&mut query, "stay_id", scope);
                push_run(&mut query, filter.run.as_ref());
                if let Some(closed_by) = filter.closed_by {
                    query.push(" AND closed_by = ").push_bind(closed_by.as_str());
                }
                push_meant_run(&mut query, meant.as_ref());
                push_person(&mut query, scope, &["person", "user_uuid", "account", "call_number", "participant_id"]);
                push_after(&mut query, "stay_id", page, |id| *id);
                query.push(") SELECT * FROM found");
                push_order(&mut query, &["stay_id"], page);
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
            .read_within(page.within, "SET LOCAL enable_seqscan = off", async |connection| {
                let meant = meant(connection, scope).await?;
                let mut query = Query::new(format!("SELECT {RECORDING} FROM recordings WHERE true"));
                push_subscriber(&mut query, scope);
                push_ids(&mut query, "event_id", scope);
                push_run(&mut query, filter.run.as_ref());
                match &meant {
                    Some(Meant::Number(number)) => _ = query.push(" AND meeting_id = ").push_bind(self::number(number)),
                    Some(Meant::Runs(uuid, runs)) => push_runs(&mut query, uuid, runs),
                    None => {}
                }
                push_person_stayed(&mut query, scope);
                push_after(&mut query, "event_id", page, |id| id.uuid());
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
            "SELECT id, subscriber_id, received_at, deliveries, reason, length(body)::bigint FROM quarantine WHERE true",
        );
        push_times(&mut query, "received_at", filter.since.map(Millis::date_time), filter.until.map(Millis::date_time));
        if let Some(subscriber) = &filter.subscriber {
            query.push(" AND subscriber_id = ").push_bind(text(subscriber));
        }
        push_after(&mut query, "id", page, |id| *id);
        push_order(&mut query, &["id"], page);
        let rows =
            self.read_within(page.within, ALONG, async |connection| query.build().fetch_all(connection).await).await?;
        Ok(Listing::of(each(&rows, quarantined)?, page.limit, |row| row.id))
    }
}

/// How a query for a page of events begins, which [`push_bytes`] ends.
const PAGE_OF_EVENTS: &str = "WITH page AS (SELECT * FROM events";

/// No more rows of the page than hold [`BYTES`]. Of a long text that is left out the server reads no more than its length.
fn push_bytes(query: &mut Query, key: &str, order: Order) {
    let direction = direction(order);
    query.push(format!(
        "), sized AS (SELECT *, coalesce(sum(octet_length(event_info)) OVER (ORDER BY {key}{direction}
                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS held FROM page)
         SELECT {EVENT} FROM sized WHERE held < {BYTES} ORDER BY {key}{direction}"
    ));
}

/// What the meeting that is asked for is.
async fn meant(connection: &mut PgConnection, scope: &Scope) -> Result<Option<Meant>, sqlx::Error> {
    let Some(meeting) = &scope.meeting else { return Ok(None) };
    let meeting = text(meeting);
    let rows = sqlx::query(RUNS_WITH_UUID).bind(&*meeting).fetch_all(connection).await?;
    let run = |row: &PgRow| {
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

/// A meeting's number as its column has it.
fn number(meeting: &str) -> String {
    let mut number = text(meeting).into_owned();
    number.truncate(number.floor_char_boundary(LONGEST_INDEXED));
    number
}

fn beyond(order: Order) -> &'static str {
    match order {
        Order::Newest => "<",
        Order::Oldest => ">",
    }
}

fn direction(order: Order) -> &'static str {
    match order {
        Order::Newest => " DESC",
        Order::Oldest => "",
    }
}

fn push_after<K, T>(query: &mut Query, column: &str, page: &Page<K>, bind: impl Fn(&K) -> T)
where
    for<'q> T: sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
{
    if let Some(after) = &page.after {
        query.push(format!(" AND {column} {} ", beyond(page.order))).push_bind(bind(after));
    }
}

/// One more than the page has room for: whether there is a next one.
fn push_order<K>(query: &mut Query, columns: &[&str], page: &Page<K>) {
    let direction = direction(page.order);
    let columns: Vec<String> = columns.iter().map(|column| format!("{column}{direction}")).collect();
    query.push(format!(" ORDER BY {} LIMIT ", columns.join(", "))).push_bind(i64::from(page.limit) + 1);
}

fn push_subscriber(query: &mut Query, scope: &Scope) {
    if let Some(subscriber) = &scope.subscriber {
        query.push(" AND subscriber_id = ").push_bind(text(subscriber));
    }
}

/// From one to the other, in a column of times or of ids.
fn push_times<T>(query: &mut Query, column: &str, since: Option<T>, until: Option<T>)
where
    for<'q> T: sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
{
    if let Some(since) = since {
        query.push(format!(" AND {column} >= ")).push_bind(since);
    }
    if let Some(until) = until {
        query.push(format!(" AND {column} < ")).push_bind(until);
    }
}

/// The times, as a range of ids.
fn push_ids(query: &mut Query, column: &str, scope: &Scope) {
    let id = |at: Option<Millis>| at.map(|at| EventId::lower_bound(at).uuid());
    push_times(query, column, id(scope.since), id(scope.until));
}

fn push_person(query: &mut Query, scope: &Scope, columns: &[&str]) {
    let Some(person) = &scope.person else { return };
    query.push(" AND ").push_bind(text(person)).push(format!(" IN (display_name, {})", columns.join(", ")));
}

fn push_event(query: &mut Query, filter: &EventFilter) {
    push_subscriber(query, &filter.scope);
    push_ids(query, "event_id", &filter.scope);
    if let Some(event) = &filter.event {
        query.push(" AND event = ").push_bind(text(event));
    }
    if let Some(source) = filter.source {
        query.push(" AND source = ").push_bind(source.as_str());
    }
    push_person(query, &filter.scope, &["user_uuid", "account", "call_number", "participant_id"]);
}

fn push_meant_event(query: &mut Query, meant: &Meant) {
    match meant {
        Meant::Number(number) => _ = query.push(" AND meeting_id = ").push_bind(self::number(number)),
        Meant::Runs(uuid, runs) => {
            query.push(" AND meeting_uuid = ").push_bind(uuid.clone());
            match MeantRun::numbers(runs) {
                Some(numbers) => {
                    let numbers: Vec<String> = numbers.iter().map(|number| self::number(number)).collect();
                    query.push(" AND meeting_id = ANY(").push_bind(numbers).push(")");
                }
                None => {
                    let (first, end) = MeantRun::span(runs);
                    push_times(query, "event_id", Some(first.uuid()), Some(end.uuid()));
                }
            }
        }
    }
}

fn push_run(query: &mut Query, run: Option<&RunKey>) {
    if let Some(run) = run {
        query.push(" AND subscriber_id = ").push_bind(text(&run.subscriber_id));
        query.push(" AND meeting_uuid = ").push_bind(text(&run.meeting_uuid));
    }
}

fn push_runs(query: &mut Query, uuid: &str, runs: &[MeantRun]) {
    let subscribers: Vec<&str> = runs.iter().map(|run| &*run.subscriber_id).collect();
    query
        .push(" AND subscriber_id = ANY(")
        .push_bind(subscribers)
        .push(") AND meeting_uuid = ")
        .push_bind(uuid.to_owned());
}

fn push_meant_run(query: &mut Query, meant: Option<&Meant>) {
    match meant {
        Some(Meant::Number(number)) => {
            query.push(
                " AND (subscriber_id, meeting_uuid) IN (SELECT subscriber_id, meeting_uuid FROM meetings WHERE meeting_id = ",
            );
            query.push_bind(self::number(number)).push(")");
        }
        Some(Meant::Runs(uuid, runs)) => push_runs(query, uuid, runs),
        None => {}
    }
}

/// Runs in which the person who is asked for stayed.
fn push_person_stayed(query: &mut Query, scope: &Scope) {
    if scope.person.is_none() {
        return;
    }
    query.push(" AND (subscriber_id, meeting_uuid) IN (SELECT subscriber_id, meeting_uuid FROM attendance WHERE true");
    push_subscriber(query, scope);
    let (since, until) = stays_about(scope);
    push_times(query, "stay_id", since.map(EventId::uuid), until.map(EventId::uuid));
    push_person(query, scope, &["person", "user_uuid", "account", "call_number", "participant_id"]);
    query.push(")");
}

pub(super) fn each<T>(rows: &[PgRow], read: impl Fn(&PgRow) -> Result<T, sqlx::Error>) -> Result<Vec<T>, LogError> {
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

pub(super) fn event(row: &PgRow) -> Result<ListedEvent, sqlx::Error> {
    Ok(ListedEvent {
        seq: Seq(row.try_get(0)?),
        event_id: EventId::from_uuid(row.try_get(1)?),
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
        deliveries: row.try_get::<i32, _>(19)?.into(),
        last_delivered_at: always(row, 20)?,
        request_id: row.try_get(21)?,
        event_info: row.try_get(22)?,
        forgotten_at: when(row, 23)?,
    })
}

pub(super) fn meeting(row: &PgRow) -> Result<ListedMeeting, sqlx::Error> {
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

fn stay(row: &PgRow) -> Result<ListedStay, sqlx::Error> {
    Ok(ListedStay {
        stay_id: row.try_get(0)?,
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

fn quarantined(row: &PgRow) -> Result<ListedQuarantined, sqlx::Error> {
    Ok(ListedQuarantined {
        id: row.try_get(0)?,
        subscriber_id: row.try_get(1)?,
        received_at: always(row, 2)?,
        deliveries: row.try_get(3)?,
        reason: row.try_get(4)?,
        bytes: row.try_get(5)?,
    })
}
