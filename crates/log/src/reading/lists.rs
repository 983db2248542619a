//! The lists, for both databases.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::FromRow;
use uuid::Uuid;

use super::rows::{EVENT, MEETING, QUARANTINED, STAY};
use super::{
    EventFilter, ListedEvent, ListedMeeting, ListedQuarantined, ListedRecording, ListedStay, Listing,
    MAX_LISTING_BYTES, MAX_STAY_DISTANCE, MeetingFilter, MeetingKey, Order, Page, QuarantineFilter, Reading,
    RecordingFilter, Scope, StayFilter,
};
use crate::backend::{Backend, RECORDING};
use crate::query::{Connection, Dialect, FromAnyRow, Param, Plan, Query, sought};
use crate::{LogError, RunKey, postgres};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Timeout of the query for one row by its key.
const ROW_TIMEOUT: Duration = Duration::from_secs(5);

/// The sort key of the list of runs.
const MEETING_KEY: [&str; 3] = [STARTED, "meeting_uuid", "subscriber_id"];
const STARTED: &str = "coalesce(started_at, first_event_at)";

/// Runs with a UUID, of any subscriber. The key starts with the subscriber, so the query looks the UUID up under each of them.
const RUNS_WITH_UUID: &str = "WITH RECURSIVE known (id) AS (
         SELECT min(subscriber_id) FROM meetings
         UNION ALL
         SELECT (SELECT min(subscriber_id) FROM meetings WHERE subscriber_id > known.id) FROM known WHERE id IS NOT NULL)
     SELECT m.subscriber_id, m.meeting_id, m.first_event_at, m.last_event_at
       FROM known JOIN meetings m ON m.subscriber_id = known.id AND m.meeting_uuid = $1";

#[async_trait]
impl Reading for Backend {
    async fn list_events(
        &self,
        filter: &EventFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedEvent, EventId>, LogError> {
        let plan = if filter.scope.meeting.is_some() { Plan::ByMeeting } else { Plan::Along };
        let read = async |connection: &mut Connection<'_>| {
            let meeting = find_meeting(connection, self.dialect(), &filter.scope).await?;
            let mut query = page_of_events(self.dialect());
            let id = match &meeting {
                Some(_) if self.dialect() == Dialect::Postgres => {
                    // Fetch only the ids first, whatever the planner makes of the limit: the rows of a
                    // meeting can be many and long.
                    let mut ids = Query::new(
                        Dialect::Postgres,
                        "WITH of AS MATERIALIZED (SELECT event_id FROM events WHERE true",
                    );
                    push_events(&mut ids, filter, meeting.as_ref(), page);
                    ids.push(") SELECT event_id FROM of");
                    push_order(&mut ids, &["event_id"], page);
                    let ids: Vec<(EventId,)> = connection.fetch(ids).await?;
                    let ids: Vec<EventId> = ids.into_iter().map(|(id,)| id).collect();
                    query.push(" AND event_id = ANY(").push_list(&ids).push(")");
                    "event_id".to_owned()
                }
                meeting => push_events(&mut query, filter, meeting.as_ref(), page),
            };
            push_order(&mut query, &[&id], page);
            push_bytes(&mut query, "event_id", page.order);
            some_events(connection, query).await
        };
        let rows = self.read_within(page.within, plan, read).await?;
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
        let mut query = page_of_events(self.dialect());
        query.push(" AND seq > ").push_bind(after).push(" AND seq <= ").push_bind(up_to);
        let id = unindexed(&query, "event_id");
        push_event(&mut query, filter, &id);
        if let Some(meeting) = &filter.scope.meeting {
            let (id, number) = (unindexed(&query, "meeting_id"), number(query.dialect, meeting));
            query.push(&format!(" AND ({id} = ")).push_text(&number);
            query.push(" OR meeting_uuid = ").push_text(meeting).push(")");
        }
        query.push(" ORDER BY seq LIMIT ").push_bind(i64::from(limit) + 1);
        push_bytes(&mut query, "seq", Order::Oldest);
        let read = async |connection: &mut Connection<'_>| some_events(connection, query).await;
        let rows = self.read_within(within, Plan::Along, read).await?;
        Ok(Listing::of_events(rows, limit, |row| row.seq))
    }

    async fn get_event(&self, id: EventId) -> Result<Option<ListedEvent>, LogError> {
        let sql = format!("SELECT {EVENT} FROM events WHERE event_id = $1");
        one(self, self.query(sql).bind(id)).await
    }

    async fn list_meetings(
        &self,
        filter: &MeetingFilter,
        page: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError> {
        let scope = &filter.scope;
        let read = async |connection: &mut Connection<'_>| {
            let meeting = find_meeting(connection, self.dialect(), scope).await?;
            let mut query = rows_of(self.dialect(), "meetings", MEETING, meeting.is_some());
            push_subscriber(&mut query, scope);
            push_range(&mut query, STARTED, scope.since, scope.until);
            if let Some(status) = filter.status {
                query.push(" AND status = ").push_text(status.as_str());
            }
            push_meeting(&mut query, meeting.as_ref());
            push_person_stayed(&mut query, scope);
            if let Some(after) = &page.after {
                let beyond = beyond(page.order);
                // The time again as a separate condition, which tells the index where to start.
                query.push(&format!(" AND {STARTED} {beyond}= ")).push_bind(after.at);
                query.push(&format!(" AND ({}) {beyond} (", MEETING_KEY.join(", "))).push_bind(after.at);
                query.push(", ").push_text(&after.meeting_uuid).push(", ").push_text(&after.subscriber_id).push(")");
            }
            push_end_of_rows(&mut query);
            push_order(&mut query, &MEETING_KEY, page);
            connection.fetch(query).await
        };
        let rows = self.read_within(page.within, Plan::Indexed, read).await?;
        Ok(Listing::of(rows, page.limit, ListedMeeting::key))
    }

    async fn get_meeting(&self, run: &RunKey) -> Result<Option<ListedMeeting>, LogError> {
        let mut query = self.query(format!("SELECT {MEETING} FROM meetings WHERE true"));
        push_run(&mut query, Some(run));
        one(self, query).await
    }

    async fn list_stays(&self, filter: &StayFilter, page: &Page<Uuid>) -> Result<Listing<ListedStay, Uuid>, LogError> {
        let scope = &filter.scope;
        // The stays of one meeting are found by their run and then sorted; all others are read in their order.
        let few = scope.meeting.is_some() || filter.run.is_some();
        let read = async |connection: &mut Connection<'_>| {
            let meeting = find_meeting(connection, self.dialect(), scope).await?;
            let mut query = rows_of(self.dialect(), "attendance", STAY, few);
            let id = if few { unindexed(&query, "stay_id") } else { "stay_id".to_owned() };
            push_subscriber(&mut query, scope);
            push_ids(&mut query, &id, scope);
            push_run(&mut query, filter.run.as_ref());
            if let Some(closed_by) = filter.closed_by {
                query.push(" AND closed_by = ").push_text(closed_by.as_str());
            }
            if let Some(Meeting::Number(number)) = &meeting {
                query.push(" AND (subscriber_id, meeting_uuid) IN (SELECT subscriber_id, meeting_uuid FROM meetings");
                query.push(" WHERE meeting_id = ").push_text(number).push(")");
            } else {
                push_meeting(&mut query, meeting.as_ref());
            }
            push_person(&mut query, scope, STAYED);
            push_after(&mut query, &id, page.order, page.after.map(EventId::from_uuid));
            push_end_of_rows(&mut query);
            push_order(&mut query, &[&id], page);
            connection.fetch(query).await
        };
        let plan = if few { Plan::ByMeeting } else { Plan::Along };
        let rows = self.read_within(page.within, plan, read).await?;
        Ok(Listing::of(rows, page.limit, |row: &ListedStay| row.stay_id))
    }

    async fn list_recordings(
        &self,
        filter: &RecordingFilter,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedRecording, EventId>, LogError> {
        let scope = &filter.scope;
        let read = async |connection: &mut Connection<'_>| {
            let meeting = find_meeting(connection, self.dialect(), scope).await?;
            let sql = format!("SELECT {RECORDING} FROM recordings WHERE true");
            let mut query = self.query(sql);
            push_subscriber(&mut query, scope);
            push_ids(&mut query, "event_id", scope);
            push_run(&mut query, filter.run.as_ref());
            push_meeting(&mut query, meeting.as_ref());
            push_person_stayed(&mut query, scope);
            push_after(&mut query, "event_id", page.order, page.after);
            push_order(&mut query, &["event_id"], page);
            connection.fetch(query).await
        };
        let rows = self.read_within(page.within, Plan::Indexed, read).await?;
        Ok(Listing::of(rows, page.limit, |row: &ListedRecording| row.event_id))
    }

    async fn list_quarantine(
        &self,
        filter: &QuarantineFilter,
        page: &Page<i64>,
    ) -> Result<Listing<ListedQuarantined, i64>, LogError> {
        let sql = format!("SELECT {QUARANTINED} FROM quarantine WHERE true");
        let mut query = self.query(sql);
        push_range(&mut query, "received_at", filter.since, filter.until);
        if let Some(subscriber) = &filter.subscriber {
            query.push(" AND subscriber_id = ").push_text(subscriber);
        }
        push_after(&mut query, "id", page.order, page.after);
        push_order(&mut query, &["id"], page);
        let rows = self.fetch_within(page.within, Plan::Along, query).await?;
        Ok(Listing::of(rows, page.limit, |row: &ListedQuarantined| row.id))
    }
}

async fn one<T: FromAnyRow>(log: &Backend, query: Query) -> Result<Option<T>, LogError> {
    Ok(log.fetch_within(ROW_TIMEOUT, Plan::Along, query).await?.pop())
}

/// What [`Scope::meeting`] refers to.
enum Meeting {
    /// A number.
    Number(String),
    /// A UUID, and the runs that have it.
    Runs(String, Vec<NamedRun>),
}

#[derive(FromRow)]
struct NamedRun {
    subscriber_id: String,
    meeting_id: Option<String>,
    first_event_at: Millis,
    last_event_at: Millis,
}

async fn find_meeting(
    connection: &mut Connection<'_>,
    dialect: Dialect,
    scope: &Scope,
) -> Result<Option<Meeting>, sqlx::Error> {
    let Some(meeting) = &scope.meeting else { return Ok(None) };
    let runs: Vec<NamedRun> = connection.fetch(Query::new(dialect, RUNS_WITH_UUID).bind(sought(meeting))).await?;
    Ok(Some(match runs.is_empty() {
        true => Meeting::Number(number(dialect, meeting)),
        false => Meeting::Runs(meeting.clone(), runs),
    }))
}

/// A meeting's number as its column stores it.
fn number(dialect: Dialect, meeting: &str) -> String {
    let mut number = sought(meeting);
    if dialect == Dialect::Postgres {
        number.truncate(number.floor_char_boundary(postgres::MAX_INDEXED_BYTES));
    }
    number
}

/// A column whose index SQLite must not use.
fn unindexed(query: &Query, column: &str) -> String {
    match query.dialect {
        Dialect::Postgres => column.to_owned(),
        Dialect::Sqlite => format!("+{column}"),
    }
}

/// The start of a query for a page of events. [`push_bytes`] adds its end.
fn page_of_events(dialect: Dialect) -> Query {
    match dialect {
        Dialect::Postgres => Query::new(dialect, "WITH page AS (SELECT * FROM events WHERE true"),
        Dialect::Sqlite => Query::new(dialect, format!("SELECT {EVENT} FROM events WHERE true")),
    }
}

/// Limits the rows of the page to [`MAX_LISTING_BYTES`]. PostgreSQL reads only the length of a long text that it leaves
/// out; for SQLite, [`some_events`] stops fetching rows.
fn push_bytes(query: &mut Query, key: &str, order: Order) {
    let direction = direction(order);
    if query.dialect == Dialect::Postgres {
        query.push(&format!(
            "), sized AS (SELECT *, coalesce(sum(octet_length(event_info)) OVER (ORDER BY {key}{direction}
                                      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS held FROM page)
             SELECT {EVENT} FROM sized WHERE held < {MAX_LISTING_BYTES} ORDER BY {key}{direction}"
        ));
    }
}

/// The events that a query finds, limited to [`MAX_LISTING_BYTES`].
async fn some_events(connection: &mut Connection<'_>, query: Query) -> Result<Vec<ListedEvent>, sqlx::Error> {
    let mut found = connection.stream::<ListedEvent>(query)?;
    let (mut rows, mut held) = (Vec::new(), 0);
    while held < MAX_LISTING_BYTES
        && let Some(row) = found.try_next().await?
    {
        held += row.event_info.as_deref().map_or(0, |info| i64::try_from(info.len()).unwrap_or(i64::MAX));
        rows.push(row);
    }
    Ok(rows)
}

/// Rows of a table. If `few`, PostgreSQL finds them first and then sorts them; otherwise it reads them in their order.
fn rows_of(dialect: Dialect, table: &str, columns: &str, few: bool) -> Query {
    let rows = format!("SELECT {columns} FROM {table} WHERE true");
    match dialect {
        Dialect::Postgres => {
            Query::new(dialect, format!("WITH found AS {}MATERIALIZED ({rows}", if few { "" } else { "NOT " }))
        }
        Dialect::Sqlite => Query::new(dialect, rows),
    }
}

fn push_end_of_rows(query: &mut Query) {
    if query.dialect == Dialect::Postgres {
        query.push(") SELECT * FROM found");
    }
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

fn push_after<'t>(query: &mut Query, column: &str, order: Order, after: Option<impl Param<'t>>) {
    if let Some(after) = after {
        query.push(&format!(" AND {column} {} ", beyond(order))).push_bind(after);
    }
}

/// Orders and limits the rows. The limit is one more than the page, to see whether there is a next page.
fn push_order<K>(query: &mut Query, columns: &[&str], page: &Page<K>) {
    let direction = direction(page.order);
    let columns: Vec<String> = columns.iter().map(|column| format!("{column}{direction}")).collect();
    query.push(&format!(" ORDER BY {} LIMIT ", columns.join(", "))).push_bind(i64::from(page.limit) + 1);
}

fn push_subscriber(query: &mut Query, scope: &Scope) {
    if let Some(subscriber) = &scope.subscriber {
        query.push(" AND subscriber_id = ").push_text(subscriber);
    }
}

/// Restricts a column of times or ids to a range.
fn push_range<'t, T: Param<'t>>(query: &mut Query, column: &str, since: Option<T>, until: Option<T>) {
    if let Some(since) = since {
        query.push(&format!(" AND {column} >= ")).push_bind(since);
    }
    if let Some(until) = until {
        query.push(&format!(" AND {column} < ")).push_bind(until);
    }
}

/// Restricts the ids to the time range of the scope.
fn push_ids(query: &mut Query, column: &str, scope: &Scope) {
    push_range(query, column, scope.since.map(EventId::lower_bound), scope.until.map(EventId::lower_bound));
}

fn push_person(query: &mut Query, scope: &Scope, columns: &str) {
    let Some(person) = &scope.person else { return };
    query.push(" AND ").push_text(person).push(&format!(" IN ({columns})"));
}

fn push_event(query: &mut Query, filter: &EventFilter, id: &str) {
    push_subscriber(query, &filter.scope);
    push_ids(query, id, &filter.scope);
    if let Some(event) = &filter.event {
        query.push(" AND event = ").push_text(event);
    }
    if let Some(source) = filter.source {
        query.push(" AND source = ").push_text(source.as_str());
    }
    push_person(query, &filter.scope, "display_name, user_uuid, account, call_number, participant_id");
}

/// Adds all conditions for events, and the page. Returns how the rest of the query has to name the id column.
fn push_events(query: &mut Query, filter: &EventFilter, meeting: Option<&Meeting>, page: &Page<EventId>) -> String {
    let mut id = "event_id".to_owned();
    match meeting {
        Some(Meeting::Runs(uuid, runs)) => {
            query.push(" AND meeting_uuid = ").push_text(uuid);
            match runs.iter().map(|run| run.meeting_id.as_deref()).collect::<Option<Vec<_>>>() {
                Some(numbers) => {
                    let numbers: Vec<String> = numbers.into_iter().map(|of| number(query.dialect, of)).collect();
                    push_one_of(query, "meeting_id", &numbers);
                    id = unindexed(query, "event_id");
                }
                // The time range in which these runs had events.
                None => {
                    let first = runs.iter().map(|run| run.first_event_at).min().map(EventId::lower_bound);
                    let end = |last: Millis| EventId::lower_bound(last.plus(Duration::from_millis(1)));
                    push_range(query, "event_id", first, runs.iter().map(|run| run.last_event_at).max().map(end));
                }
            }
        }
        Some(number) => {
            push_meeting(query, Some(number));
            id = unindexed(query, "event_id");
        }
        None => {}
    }
    push_event(query, filter, &id);
    push_after(query, &id, page.order, page.after);
    id
}

fn push_run(query: &mut Query, run: Option<&RunKey>) {
    if let Some(run) = run {
        query.push(" AND subscriber_id = ").push_text(&run.subscriber_id);
        query.push(" AND meeting_uuid = ").push_text(&run.meeting_uuid);
    }
}

fn push_one_of(query: &mut Query, column: &str, values: &[String]) {
    let (before, after) = match query.dialect {
        Dialect::Postgres => ("= ANY(", ")"),
        Dialect::Sqlite => ("IN (SELECT value FROM json_each(", "))"),
    };
    query.push(&format!(" AND {column} {before}")).push_list(values).push(after);
}

/// Restricts the rows to a meeting, in a table that has the number of a run besides its key.
fn push_meeting(query: &mut Query, meeting: Option<&Meeting>) {
    match meeting {
        Some(Meeting::Number(number)) => _ = query.push(" AND meeting_id = ").push_text(number),
        Some(Meeting::Runs(uuid, runs)) => {
            let subscribers: Vec<String> = runs.iter().map(|run| run.subscriber_id.clone()).collect();
            push_one_of(query, "subscriber_id", &subscribers);
            query.push(" AND meeting_uuid = ").push_text(uuid);
        }
        None => {}
    }
}

/// The columns that identify the person of a stay.
const STAYED: &str = "display_name, person, user_uuid, account, call_number, participant_id";

/// Restricts the runs to those in which the requested person stayed.
fn push_person_stayed(query: &mut Query, scope: &Scope) {
    if scope.person.is_none() {
        return;
    }
    query.push(" AND (subscriber_id, meeting_uuid) IN (SELECT subscriber_id, meeting_uuid FROM attendance WHERE true");
    push_subscriber(query, scope);
    let near = Scope {
        since: scope.since.map(|since| since.minus(MAX_STAY_DISTANCE)),
        until: scope.until.map(|until| until.plus(MAX_STAY_DISTANCE)),
        ..Scope::default()
    };
    push_ids(query, "stay_id", &near);
    push_person(query, scope, STAYED);
    query.push(")");
}
