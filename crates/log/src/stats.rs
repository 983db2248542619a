//! Counts over time, live runs and the newest events.
//!
//! Counts of events are counts of id ranges: ids start with the time, so an index alone answers them. People are counted as the
//! views count them: see `presence` and `presence_days`.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::FromRow;

use super::backend::Backend;
use super::query::{Connection, Dialect, ListItem, Plan, Query};
use super::reading::rows::{EVENT, MEETING};
use super::{ListedEvent, ListedMeeting, LogError, LogReader};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// A live run of which nothing was heard for longer is not shown as going on: its end may be lost.
pub const MAX_SILENCE: Duration = Duration::from_secs(86_400);

/// Longer stays are found apart, by the index `attendance_long`.
const MAX_SHORT_STAY: Duration = Duration::from_secs(86_400);

/// Ids of stays of which the joining was told begin here.
const FIRST_TOLD: &str = "00000000-0001-0000-0000-000000000000";

/// Condition for a run that took place: a scheduled one that nobody joined did not.
const WAS_HELD: &str = "(started_at IS NOT NULL OR stays > 0)";

/// The meetings of a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct MeetingCounts {
    /// Number of runs that began in it, and took place.
    pub meetings: i64,
    /// Sum of the distinct people of each of these runs.
    pub attendances: i64,
    /// Number of their stays.
    pub stays: i64,
    /// Number of distinct people who were in meetings in it.
    pub participants: i64,
}

/// What was appended to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Arrived {
    /// Number of events.
    pub events: i64,
    /// Number of events that happened in the requested time range.
    pub in_time: i64,
    /// The position of the newest; `None` if there are none.
    pub newest: Option<Seq>,
}

/// Live runs.
#[derive(Clone, Debug, Default)]
pub struct GoingOn {
    /// Number of live runs.
    pub total: i64,
    /// The newest of them, each with the number of distinct people in it now.
    pub runs: Vec<(ListedMeeting, i64)>,
}

/// Statistics for users. Read-only, and every query is cancelled after `within`.
#[async_trait]
pub trait Statistics: LogReader {
    /// The number of events between each of these times and the next.
    ///
    /// # Errors
    /// [`LogError::TooSlow`], as for all methods below.
    async fn count_events(&self, bounds: &[Millis], within: Duration) -> Result<Vec<i64>, LogError>;

    /// The number of distinct people who are in meetings in each of `steps` steps after `since`. Both `since` and `step` are whole
    /// seconds.
    async fn count_participants(
        &self,
        since: Millis,
        step: Duration,
        steps: usize,
        within: Duration,
    ) -> Result<Vec<i64>, LogError>;

    /// The meetings between each of these times and the next.
    async fn count_meetings(&self, bounds: &[Millis], within: Duration) -> Result<Vec<MeetingCounts>, LogError>;

    /// What was appended after `after`, and how many of those events happened from `since` until `until`.
    async fn count_arrived(
        &self,
        after: Seq,
        since: Millis,
        until: Millis,
        within: Duration,
    ) -> Result<Arrived, LogError>;

    /// The newest events of the log, newest first, without their `event_info`.
    async fn newest_events(&self, limit: u32, within: Duration) -> Result<Vec<ListedEvent>, LogError>;

    /// The live runs of which something happened at `since` or later, those first that began last.
    async fn going_on(&self, since: Millis, limit: u32, within: Duration) -> Result<GoingOn, LogError>;
}

#[derive(FromRow)]
struct LiveRun {
    #[sqlx(flatten)]
    meeting: ListedMeeting,
    participants_now: i64,
}

/// Binds the ranges between consecutive bounds: as two lists for PostgreSQL, as one list of pairs for SQLite.
fn ranges<T: Copy + ListItem>(query: Query, bounds: &[T]) -> Query {
    let pairs = bounds.windows(2).map(|pair| (pair[0], pair[1]));
    match query.dialect {
        Dialect::Postgres => {
            let (low, high): (Vec<T>, Vec<T>) = pairs.unzip();
            query.bind_list(&low).bind_list(&high)
        }
        Dialect::Sqlite => query.bind_json(pairs.map(|(low, high)| vec![low.to_string(), high.to_string()])),
    }
}

#[async_trait]
impl Statistics for Backend {
    async fn count_events(&self, bounds: &[Millis], within: Duration) -> Result<Vec<i64>, LogError> {
        let sql = match self.dialect() {
            Dialect::Postgres => {
                "SELECT (SELECT count(*) FROM events WHERE event_id >= low AND event_id < high)
                   FROM unnest($1, $2) WITH ORDINALITY AS b (low, high, n) ORDER BY n"
            }
            Dialect::Sqlite => {
                "SELECT (SELECT count(*) FROM events WHERE event_id >= value ->> 0 AND event_id < value ->> 1)
                   FROM json_each($1) ORDER BY key"
            }
        };
        let bounds: Vec<EventId> = bounds.iter().copied().map(EventId::lower_bound).collect();
        let query = ranges(self.query(sql), &bounds);
        let counts: Vec<(i64,)> = self.fetch_within(within, Plan::Ranges, query).await?;
        Ok(counts.into_iter().map(|(count,)| count).collect())
    }

    async fn count_participants(
        &self,
        since: Millis,
        step: Duration,
        steps: usize,
        within: Duration,
    ) -> Result<Vec<i64>, LogError> {
        let length = step * u32::try_from(steps).unwrap_or(u32::MAX);
        let seconds = |length: Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        let (from, until, greatest, least) = match self.dialect() {
            Dialect::Postgres => (
                "floor(extract(epoch FROM present_from))::bigint",
                "ceil(extract(epoch FROM present_until))::bigint - 1",
                "greatest",
                "least",
            ),
            Dialect::Sqlite => {
                ("unixepoch(present_from)", "unixepoch(present_until) - (present_until LIKE '%.000Z')", "max", "min")
            }
        };
        // Stays in steps; of one person each step once.
        let sql = format!(
            "WITH stays AS (
                 SELECT subscriber_id, {WHO} AS who, {from} - $1 AS joined, {until} - $1 AS ended FROM presence
                  WHERE stay_id >= $2 AND stay_id < $3
                  UNION ALL
                 SELECT subscriber_id, {WHO}, {from} - $1, {until} - $1 FROM presence
                  WHERE (duration_s > 86400 OR left_at IS NULL) AND stay_id >= '{FIRST_TOLD}' AND stay_id < $2),
             steps AS (
                 SELECT subscriber_id, who, {greatest}(joined, 0) / $4 AS first,
                        {least}({greatest}(ended, joined), $5 - 1) / $4 AS last
                   FROM stays WHERE {greatest}(ended, joined) >= 0 AND joined < $5),
             alone AS (
                 SELECT {greatest}(first, coalesce(1 + max(last) OVER (
                            PARTITION BY who, subscriber_id ORDER BY first ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                        ), 0)) AS first, last FROM steps)
             SELECT CAST({JOINED} AS bigint), first, count(*) FROM alone WHERE first <= last GROUP BY 2
             UNION ALL SELECT CAST({LEFT} AS bigint), last, count(*) FROM alone WHERE first <= last GROUP BY 2"
        );
        let query = self
            .query(sql)
            .bind(since.get() / 1000)
            .bind(EventId::lower_bound(since.minus(MAX_SHORT_STAY)))
            .bind(EventId::lower_bound(since.plus(length)))
            .bind(seconds(step))
            .bind(seconds(length));
        Ok(overlapping(&self.fetch_within(within, Plan::Free, query).await?, steps))
    }

    async fn count_meetings(&self, bounds: &[Millis], within: Duration) -> Result<Vec<MeetingCounts>, LogError> {
        let (held, people) = (
            "count(m.meeting_uuid) AS meetings, CAST(coalesce(sum(m.participants), 0) AS bigint) AS attendances,
             CAST(coalesce(sum(m.stays), 0) AS bigint) AS stays",
            "SELECT count(DISTINCT person) FROM (
                 SELECT person FROM presence WHERE stay_id >= first_id AND stay_id < end_id AND duration_s <= 86400
                    AND (present_until > low OR present_from >= low)
                  UNION ALL
                 SELECT person FROM presence WHERE (duration_s > 86400 OR left_at IS NULL) AND stay_id < end_id
                    AND stay_id >= told AND (present_until > low OR present_from >= low)
                  UNION ALL
                 SELECT person FROM presence WHERE stay_id < told AND present_from < high
                    AND (present_until > low OR present_from >= low)) AS there",
        );
        let at = "coalesce(m.started_at, m.first_event_at)";
        let sql = match self.dialect() {
            Dialect::Postgres => format!(
                "SELECT held.*, ({people}) AS participants
                   FROM (SELECT CAST(value ->> 0 AS timestamptz) AS low, CAST(value ->> 1 AS timestamptz) AS high,
                                CAST(value ->> 2 AS uuid) AS first_id, CAST(value ->> 3 AS uuid) AS end_id,
                                CAST('{FIRST_TOLD}' AS uuid) AS told, n
                           FROM jsonb_array_elements(CAST($1 AS jsonb)) WITH ORDINALITY AS b (value, n)) AS b
                  CROSS JOIN LATERAL (SELECT {held} FROM meetings m WHERE {at} >= low AND {at} < high AND {WAS_HELD}) AS held
                  ORDER BY n"
            ),
            Dialect::Sqlite => {
                let people = people
                    .replace("first_id", "b.value ->> 2")
                    .replace("end_id", "b.value ->> 3")
                    .replace("told", &format!("'{FIRST_TOLD}'"))
                    .replace("low", "b.value ->> 0")
                    .replace("high", "b.value ->> 1");
                format!(
                    "SELECT {held}, ({people}) AS participants FROM json_each($1) AS b
                       LEFT JOIN meetings m ON {at} >= b.value ->> 0 AND {at} < b.value ->> 1 AND {WAS_HELD}
                      GROUP BY b.key ORDER BY b.key"
                )
            }
        };
        let stretches = bounds.windows(2).map(|pair| {
            let first = EventId::lower_bound(pair[0].minus(MAX_SHORT_STAY)).to_string();
            let first = if first.as_str() < FIRST_TOLD { FIRST_TOLD.to_owned() } else { first };
            vec![pair[0].to_string(), pair[1].to_string(), first, EventId::lower_bound(pair[1]).to_string()]
        });
        self.fetch_within(within, Plan::Ranges, self.query(sql).bind_json(stretches)).await
    }

    async fn count_arrived(
        &self,
        after: Seq,
        since: Millis,
        until: Millis,
        within: Duration,
    ) -> Result<Arrived, LogError> {
        let sql = "SELECT count(*) AS events, count(*) FILTER (WHERE event_id >= $1 AND event_id < $2) AS in_time,
                          max(seq) AS newest
                     FROM events WHERE seq > $3";
        let query = self.query(sql).bind(EventId::lower_bound(since)).bind(EventId::lower_bound(until)).bind(after);
        Ok(self.fetch_within(within, Plan::Ranges, query).await?.pop().unwrap_or_default())
    }

    async fn newest_events(&self, limit: u32, within: Duration) -> Result<Vec<ListedEvent>, LogError> {
        let columns = EVENT.replace("event_info", "CAST(NULL AS text) AS event_info");
        let sql = format!("SELECT {columns} FROM events ORDER BY seq DESC LIMIT $1");
        let query = self.query(sql).bind(i64::from(limit));
        self.fetch_within(within, Plan::Along, query).await
    }

    async fn going_on(&self, since: Millis, limit: u32, within: Duration) -> Result<GoingOn, LogError> {
        const LIVE: &str = "status = 'live' AND NOT over AND last_event_at >= $1";
        let total = self.query(format!("SELECT count(*) FROM meetings WHERE {LIVE}")).bind(since);
        // Only the returned runs are counted for people.
        let sql = format!(
            "SELECT m.*, (SELECT count(DISTINCT coalesce(person, display_name, CAST(stay_id AS text)))
                            FROM attendance AS a
                           WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid
                             AND closed_by = 'open') AS participants_now
               FROM (SELECT {MEETING} FROM meetings WHERE {LIVE}
                      ORDER BY coalesce(started_at, first_event_at) DESC, meeting_uuid DESC LIMIT $2) AS m"
        );
        let newest = self.query(sql).bind(since).bind(i64::from(limit));
        let read = async |connection: &mut Connection<'_>| {
            let total: Vec<(i64,)> = connection.fetch(total).await?;
            Ok((total, connection.fetch::<LiveRun>(newest).await?))
        };
        let (total, runs) = self.read_within(within, Plan::Indexed, read).await?;
        let total = total.first().map_or(0, |(count,)| *count);
        Ok(GoingOn { total, runs: runs.into_iter().map(|run| (run.meeting, run.participants_now)).collect() })
    }
}

/// Who is there, as the views tell people apart: of whom a name alone is known, in two runs are two.
const WHO: &str = "CASE WHEN person_by = 'name' THEN person || ' ' || meeting_uuid ELSE person END";

/// The kinds of change in the rows of the query.
const JOINED: i64 = 1;
const LEFT: i64 = 2;

/// How many are there in each step, from those who come and those who are there for the last time in each.
fn overlapping(changes: &[(i64, i64, i64)], steps: usize) -> Vec<i64> {
    let (mut joined, mut left, mut present) = (vec![0; steps], vec![0; steps], 0);
    for (what, step, count) in changes {
        let step = usize::try_from(*step).ok().filter(|step| *step < steps);
        match (*what, step) {
            (JOINED, Some(step)) => joined[step] += count,
            (LEFT, Some(step)) => left[step] += count,
            _ => {}
        }
    }
    let overlapping = joined.into_iter().zip(left).map(|(joined, left)| {
        let during = present + joined;
        present = during - left;
        during
    });
    overlapping.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_within_a_step_was_there_in_it_and_not_in_the_next() {
        let changes = [(JOINED, 0, 2), (JOINED, 1, 3), (LEFT, 1, 4), (LEFT, 3, 1), (JOINED, 9, 7), (LEFT, -1, 7)];
        assert_eq!(overlapping(&changes, 4), [2, 5, 1, 1]);
        assert_eq!(overlapping(&[], 2), [0, 0]);
    }
}
