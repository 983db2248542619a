//! Statistics in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::reading::{ALONG, each, event, meeting};
use super::{PostgresLog, failed};
use crate::reading::{EVENT, MEETING};
use crate::stats::{Arrived, BEFORE, GoingOn, HELD, Held, JOINED, LEFT, LONGEST, Statistics, overlapping};
use crate::{ListedEvent, LogError};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Ranges are counted in their index, however many of them there are.
const RANGES: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off";

/// Each of these, and the next of each.
fn ranges<T>(bounds: &[Millis], written: impl Fn(Millis) -> T) -> (Vec<T>, Vec<T>) {
    bounds.windows(2).map(|pair| (written(pair[0]), written(pair[1]))).unzip()
}

fn id(at: Millis) -> Uuid {
    EventId::lower_bound(at).uuid()
}

#[async_trait]
impl Statistics for PostgresLog {
    async fn count_events(&self, bounds: &[Millis], within: Duration) -> Result<Vec<i64>, LogError> {
        let (low, high) = ranges(bounds, id);
        let query = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM events WHERE event_id >= low AND event_id < high)
               FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS b (low, high, n) ORDER BY n",
        );
        let query = query.bind(low).bind(high);
        self.read_within(within, RANGES, async |connection| query.fetch_all(connection).await).await
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
                 SELECT floor(extract(epoch FROM joined_at))::bigint - $1 AS joined,
                        floor(extract(epoch FROM least(left_at, joined_at + make_interval(secs => $2))))::bigint - $1 AS ended
                   FROM attendance WHERE stay_id >= $3 AND stay_id < $4 AND joined_at IS NOT NULL)
             SELECT {BEFORE}::bigint, 0::bigint, count(*) FROM stays WHERE joined < 0 AND ended >= 0
             UNION ALL SELECT {JOINED}, joined / $5, count(*) FROM stays WHERE joined >= 0 GROUP BY 2
             UNION ALL SELECT {LEFT}, ended / $5, count(*) FROM stays WHERE ended >= 0 GROUP BY 2"
        )));
        let query = query
            .bind(since.get() / 1000)
            .bind(LONGEST.as_secs_f64())
            .bind(id(since.minus(LONGEST)))
            .bind(id(since.plus(length)))
            .bind(seconds(step));
        let changes = self.read_within(within, "", async |connection| query.fetch_all(connection).await).await?;
        Ok(overlapping(&changes, steps))
    }

    async fn count_meetings(&self, bounds: &[Millis], within: Duration) -> Result<Vec<Held>, LogError> {
        let (low, high) = ranges(bounds, Millis::date_time);
        let query = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT held.* FROM unnest($1::timestamptz[], $2::timestamptz[]) WITH ORDINALITY AS b (low, high, n)
              CROSS JOIN LATERAL (
                  SELECT count(*), coalesce(sum(participants), 0)::bigint, coalesce(sum(stays), 0)::bigint FROM meetings
                   WHERE coalesce(started_at, first_event_at) >= low AND coalesce(started_at, first_event_at) < high
                     AND {HELD}) AS held
              ORDER BY n"
        )));
        let query = query.bind::<Vec<OffsetDateTime>>(low).bind::<Vec<OffsetDateTime>>(high);
        let rows: Vec<(i64, i64, i64)> =
            self.read_within(within, RANGES, async |connection| query.fetch_all(connection).await).await?;
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
            "SELECT count(*), count(*) FILTER (WHERE event_id >= $1 AND event_id < $2), max(seq)
               FROM events WHERE seq > $3",
        );
        let query = query.bind(id(since)).bind(id(until)).bind(after.0);
        let (events, in_time, newest): (i64, i64, Option<i64>) =
            self.read_within(within, RANGES, async |connection| query.fetch_one(connection).await).await?;
        Ok(Arrived { events, in_time, newest: newest.map(Seq) })
    }

    async fn newest_events(&self, limit: u32, within: Duration) -> Result<Vec<ListedEvent>, LogError> {
        let columns = EVENT.replace("event_info", "CAST(NULL AS text)");
        let query = sqlx::query(AssertSqlSafe(format!("SELECT {columns} FROM events ORDER BY seq DESC LIMIT $1")));
        let query = query.bind(i64::from(limit));
        let rows = self.read_within(within, ALONG, async |connection| query.fetch_all(connection).await).await?;
        each(&rows, event)
    }

    async fn going_on(&self, since: Millis, limit: u32, within: Duration) -> Result<GoingOn, LogError> {
        const LIVE: &str = "status = 'live' AND coalesce(started_at, first_event_at) >= $1";
        let (total, rows) = self
            .read_within(within, "SET LOCAL enable_seqscan = off", async |connection| {
                let sql = format!("SELECT count(*) FROM meetings WHERE {LIVE}");
                let total =
                    sqlx::query_scalar(AssertSqlSafe(sql)).bind(since.date_time()).fetch_one(&mut *connection).await?;
                // The people of the newest alone.
                let sql = format!(
                    "SELECT m.*, (SELECT count(DISTINCT coalesce(person, display_name, stay_id::text)) FROM attendance AS a
                                   WHERE a.subscriber_id = m.subscriber_id AND a.meeting_uuid = m.meeting_uuid
                                     AND closed_by = 'open')
                       FROM (SELECT {MEETING} FROM meetings WHERE {LIVE}
                              ORDER BY coalesce(started_at, first_event_at) DESC, meeting_uuid DESC LIMIT $2) AS m"
                );
                let rows = sqlx::query(AssertSqlSafe(sql))
                    .bind(since.date_time())
                    .bind(i64::from(limit))
                    .fetch_all(connection)
                    .await?;
                Ok((total, rows))
            })
            .await?;
        let runs = rows.iter().map(|row| Ok((meeting(row)?, row.try_get(23)?))).collect::<Result<_, sqlx::Error>>();
        Ok(GoingOn { total, runs: runs.map_err(failed)? })
    }
}
