//! Statistics in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row};

use super::reading::{each, event, meeting};
use super::{SqliteLog, failed};
use crate::reading::{EVENT, MEETING};
use crate::stats::{Arrived, BEFORE, GoingOn, HELD, Held, JOINED, LEFT, LONGEST, Statistics, overlapping};
use crate::{ListedEvent, LogError};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Each of these and the next, as JSON.
fn pairs(bounds: &[Millis], written: impl Fn(Millis) -> String) -> String {
    let pairs = bounds.windows(2).map(|pair| vec![written(pair[0]), written(pair[1])]);
    serde_json::Value::from_iter(pairs).to_string()
}

fn id(at: Millis) -> String {
    EventId::lower_bound(at).to_string()
}

#[async_trait]
impl Statistics for SqliteLog {
    async fn count_events(&self, bounds: &[Millis], within: Duration) -> Result<Vec<i64>, LogError> {
        let query = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM events WHERE event_id >= value ->> 0 AND event_id < value ->> 1)
               FROM json_each(?) ORDER BY key",
        );
        let query = query.bind(pairs(bounds, id));
        self.read_within(within, async |connection| query.fetch_all(connection).await).await
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
        // Who has not left in a day was not seen leaving.
        let query = sqlx::query_as(AssertSqlSafe(format!(
            "WITH stays AS MATERIALIZED (
                 SELECT unixepoch(joined_at) - ?1 AS joined,
                        min(coalesce(unixepoch(left_at), 1 << 60), unixepoch(joined_at) + ?2) - ?1 AS ended
                   FROM attendance WHERE stay_id >= ?3 AND stay_id < ?4 AND joined_at IS NOT NULL)
             SELECT {BEFORE}, 0, count(*) FROM stays WHERE joined < 0 AND ended >= 0
             UNION ALL SELECT {JOINED}, joined / ?5, count(*) FROM stays WHERE joined >= 0 GROUP BY 2
             UNION ALL SELECT {LEFT}, ended / ?5, count(*) FROM stays WHERE ended >= 0 GROUP BY 2"
        )));
        let query = query
            .bind(since.get() / 1000)
            .bind(seconds(LONGEST))
            .bind(id(since.minus(LONGEST)))
            .bind(id(since.plus(length)))
            .bind(seconds(step));
        let changes = self.read_within(within, async |connection| query.fetch_all(connection).await).await?;
        Ok(overlapping(&changes, steps))
    }

    async fn count_meetings(&self, bounds: &[Millis], within: Duration) -> Result<Vec<Held>, LogError> {
        let query = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT count(m.meeting_uuid), coalesce(sum(m.participants), 0), coalesce(sum(m.stays), 0)
               FROM json_each(?) AS b
               LEFT JOIN meetings m ON coalesce(m.started_at, m.first_event_at) >= b.value ->> 0
                AND coalesce(m.started_at, m.first_event_at) < b.value ->> 1 AND {HELD}
              GROUP BY b.key ORDER BY b.key"
        )));
        let query = query.bind(pairs(bounds, |at| at.to_string()));
        let rows: Vec<(i64, i64, i64)> =
            self.read_within(within, async |connection| query.fetch_all(connection).await).await?;
        let held = |(meetings, participants, stays)| Held { meetings, participants, stays };
        Ok(rows.into_iter().map(held).collect())
    }

    async fn count_arrived(
        &self,
        after: Seq,
        since: Millis,
        until: Millis,
        within: Duration,
    ) -> Result<Arrived, LogError> {
        let query = sqlx::query_as(
            "SELECT count(*), coalesce(sum(event_id >= ? AND event_id < ?), 0), max(seq) FROM events WHERE seq > ?",
        );
        let query = query.bind(id(since)).bind(id(until)).bind(after.0);
        let (events, in_time, newest): (i64, i64, Option<i64>) =
            self.read_within(within, async |connection| query.fetch_one(connection).await).await?;
        Ok(Arrived { events, in_time, newest: newest.map(Seq) })
    }

    async fn newest_events(&self, limit: u32, within: Duration) -> Result<Vec<ListedEvent>, LogError> {
        let columns = EVENT.replace("event_info", "CAST(NULL AS text)");
        let query = sqlx::query(AssertSqlSafe(format!("SELECT {columns} FROM events ORDER BY seq DESC LIMIT ?")));
        let query = query.bind(limit);
        let rows = self.read_within(within, async |connection| query.fetch_all(connection).await).await?;
        each(&rows, event)
    }

    async fn going_on(&self, since: Millis, limit: u32, within: Duration) -> Result<GoingOn, LogError> {
        const LIVE: &str = "status = 'live' AND coalesce(started_at, first_event_at) >= ?1";
        let since = since.to_string();
        let (total, rows) = self
            .read_within(within, async |connection| {
                let sql = format!("SELECT count(*) FROM meetings WHERE {LIVE}");
                let total =
                    sqlx::query_scalar(AssertSqlSafe(sql)).bind(since.clone()).fetch_one(&mut *connection).await?;
                // The people of the newest alone.
                let sql = format!(
                    "SELECT m.*, (SELECT count(DISTINCT coalesce(person, display_name, stay_id)) FROM attendance AS a
                                   WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid
                                     AND closed_by = 'open')
                       FROM (SELECT {MEETING} FROM meetings WHERE {LIVE}
                              ORDER BY coalesce(started_at, first_event_at) DESC, meeting_uuid DESC LIMIT ?2) AS m"
                );
                let rows = sqlx::query(AssertSqlSafe(sql)).bind(since).bind(limit).fetch_all(connection).await?;
                Ok((total, rows))
            })
            .await?;
        let runs = rows.iter().map(|row| Ok((meeting(row)?, row.try_get(23)?))).collect::<Result<_, sqlx::Error>>();
        Ok(GoingOn { total, runs: runs.map_err(failed)? })
    }
}
