//! Counts over time, live runs and the newest events.
//!
//! Counts of events are counts of id ranges: ids start with the time, so an index alone answers them. For these counts
//! a stay or a run lasts at most a day: if it has not ended by then, its end event is assumed to be missing.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::FromRow;

use super::backend::Backend;
use super::query::{Connection, Dialect, ListItem, Plan, Query};
use super::reading::rows::{EVENT, MEETING};
use super::{ListedEvent, ListedMeeting, LogError, LogReader};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// The longest stay, and the longest run of a meeting, that counts as live.
pub const MAX_COUNTED_DURATION: Duration = Duration::from_secs(86_400);

/// Condition for a run that took place: a scheduled one that nobody joined did not.
const WAS_HELD: &str = "(started_at IS NOT NULL OR stays > 0)";

/// The number of runs that took place, with attendance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct MeetingCounts {
    /// Number of runs.
    pub meetings: i64,
    /// Sum of the distinct people of each run.
    pub participants: i64,
    /// Number of stays.
    pub stays: i64,
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

    /// The number of stays that overlap each of `steps` steps after `since`. Both `since` and `step` are whole seconds.
    async fn count_stays(
        &self,
        since: Millis,
        step: Duration,
        steps: usize,
        within: Duration,
    ) -> Result<Vec<i64>, LogError>;

    /// The runs that took place between each of these times and the next.
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

    /// The live runs that began at `since` or later, newest first.
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

    async fn count_stays(
        &self,
        since: Millis,
        step: Duration,
        steps: usize,
        within: Duration,
    ) -> Result<Vec<i64>, LogError> {
        let length = step * u32::try_from(steps).unwrap_or(u32::MAX);
        let seconds = |length: Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        // A stay longer than a day is assumed to have lost its leave event.
        let (joined, ended) = match self.dialect() {
            Dialect::Postgres => (
                "floor(extract(epoch FROM joined_at))::bigint",
                "floor(extract(epoch FROM least(left_at, joined_at + make_interval(secs => $2))))::bigint",
            ),
            Dialect::Sqlite => {
                ("unixepoch(joined_at)", "min(coalesce(unixepoch(left_at), 1 << 60), unixepoch(joined_at) + $2)")
            }
        };
        let sql = format!(
            "WITH stays AS MATERIALIZED (
                 SELECT {joined} - $1 AS joined, {ended} - $1 AS ended
                   FROM attendance WHERE stay_id >= $3 AND stay_id < $4 AND joined_at IS NOT NULL)
             SELECT CAST({BEFORE} AS bigint), CAST(0 AS bigint), count(*) FROM stays WHERE joined < 0 AND ended >= 0
             UNION ALL SELECT {JOINED}, joined / $5, count(*) FROM stays WHERE joined >= 0 GROUP BY 2
             UNION ALL SELECT {LEFT}, ended / $5, count(*) FROM stays WHERE ended >= 0 GROUP BY 2"
        );
        let query = self
            .query(sql)
            .bind(since.get() / 1000)
            .bind(seconds(MAX_COUNTED_DURATION))
            .bind(EventId::lower_bound(since.minus(MAX_COUNTED_DURATION)))
            .bind(EventId::lower_bound(since.plus(length)))
            .bind(seconds(step));
        Ok(overlapping(&self.fetch_within(within, Plan::Free, query).await?, steps))
    }

    async fn count_meetings(&self, bounds: &[Millis], within: Duration) -> Result<Vec<MeetingCounts>, LogError> {
        let counts = "count(m.meeting_uuid) AS meetings,
                      CAST(coalesce(sum(m.participants), 0) AS bigint) AS participants,
                      CAST(coalesce(sum(m.stays), 0) AS bigint) AS stays";
        let at = "coalesce(m.started_at, m.first_event_at)";
        let sql = match self.dialect() {
            Dialect::Postgres => format!(
                "SELECT held.* FROM unnest($1, $2) WITH ORDINALITY AS b (low, high, n)
                  CROSS JOIN LATERAL (SELECT {counts} FROM meetings m WHERE {at} >= low AND {at} < high AND {WAS_HELD}) AS held
                  ORDER BY n"
            ),
            Dialect::Sqlite => format!(
                "SELECT {counts} FROM json_each($1) AS b
                   LEFT JOIN meetings m ON {at} >= b.value ->> 0 AND {at} < b.value ->> 1 AND {WAS_HELD}
                  GROUP BY b.key ORDER BY b.key"
            ),
        };
        self.fetch_within(within, Plan::Ranges, ranges(self.query(sql), bounds)).await
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
        const LIVE: &str = "status = 'live' AND NOT over AND coalesce(started_at, first_event_at) >= $1";
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

/// The kinds of change in the rows of the query.
const BEFORE: i64 = 0;
const JOINED: i64 = 1;
const LEFT: i64 = 2;

/// The number of stays that overlap each step, from those before the first step and those begun and ended in each step.
fn overlapping(changes: &[(i64, i64, i64)], steps: usize) -> Vec<i64> {
    let (mut joined, mut left, mut present) = (vec![0; steps], vec![0; steps], 0);
    for (what, step, count) in changes {
        let step = usize::try_from(*step).ok().filter(|step| *step < steps);
        match (*what, step) {
            (BEFORE, _) => present += count,
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
        let changes = [(BEFORE, 0, 2), (JOINED, 1, 3), (LEFT, 1, 4), (LEFT, 3, 1), (JOINED, 9, 7), (LEFT, -1, 7)];
        assert_eq!(overlapping(&changes, 4), [2, 5, 1, 1]);
        assert_eq!(overlapping(&[], 2), [0, 0]);
    }
}
