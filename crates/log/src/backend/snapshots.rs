//! Snapshots of runs.

use async_trait::async_trait;
use convoke_core::id::EventId;
use convoke_core::time::Millis;

use super::Backend;
use crate::query::Dialect;
use crate::{LiveRun, LogError, QuarterCounts, RunSnapshot, Snapshots, StaySnapshot};

#[async_trait]
impl Snapshots for Backend {
    async fn known_runs(&self, uuids: &[String]) -> Result<Vec<RunSnapshot>, LogError> {
        let among = self.dialect().among("$1");
        let sql = format!(
            "SELECT subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, started_at, ended_at,
                    CASE WHEN status = 'live' AND NOT over THEN last_event_at END AS live_at, recordings
               FROM meetings WHERE meeting_uuid {among} ORDER BY last_event_at, subscriber_id"
        );
        self.all(self.query(sql).bind_list(uuids)).await
    }

    async fn live_runs(&self, limit: u32) -> Result<Vec<LiveRun>, LogError> {
        let live = "SELECT subscriber_id, meeting_uuid, last_event_at FROM meetings
                     WHERE status = 'live' AND NOT over ORDER BY last_event_at DESC, meeting_uuid LIMIT $1";
        self.all(self.query(live).bind(i64::from(limit))).await
    }

    async fn counts_by_quarter(
        &self,
        subscriber_id: &str,
        since: Millis,
        until: Millis,
    ) -> Result<Vec<QuarterCounts>, LogError> {
        let (quarter, seconds) = match self.dialect() {
            Dialect::Postgres => (
                "floor(extract(epoch FROM at) / 900)::bigint",
                "floor(extract(epoch FROM ended_at - started_at))::bigint",
            ),
            Dialect::Sqlite => (
                "CAST(strftime('%s', at) AS integer) / 900",
                "CAST(round((julianday(ended_at) - julianday(started_at)) * 86400) AS integer)",
            ),
        };
        // Stays are in the order of joining, by which their ids are led.
        let sql = format!(
            "SELECT {quarter} AS quarter, CAST(sum(meetings) AS bigint) AS meetings,
                    CAST(sum(attendances) AS bigint) AS attendances, CAST(sum(seconds) AS bigint) AS seconds
               FROM (SELECT started_at AS at, 1 AS meetings, 0 AS attendances,
                            CASE WHEN ended_at > started_at THEN {seconds} ELSE 0 END AS seconds
                       FROM meetings
                      WHERE subscriber_id = $1 AND started_at IS NOT NULL
                        AND coalesce(started_at, first_event_at) >= $2 AND coalesce(started_at, first_event_at) < $3
                      UNION ALL
                     SELECT joined_at, 0, 1, 0 FROM attendance
                      WHERE subscriber_id = $1 AND stay_id >= $4 AND stay_id < $5 AND joined_at IS NOT NULL) AS began
              GROUP BY 1"
        );
        let query = self.query(sql).bind(subscriber_id).bind(since).bind(until);
        self.all_in_time(query.bind(EventId::lower_bound(since)).bind(EventId::lower_bound(until))).await
    }

    async fn last_pushed_at(&self) -> Result<Option<Millis>, LogError> {
        let newest = "SELECT received_at FROM events WHERE source = 'push' ORDER BY seq DESC LIMIT 1";
        let newest: Vec<(Millis,)> = self.all(self.query(newest)).await?;
        Ok(newest.first().map(|(at,)| *at))
    }

    async fn known_stays(&self, meeting_uuid: &str) -> Result<Vec<StaySnapshot>, LogError> {
        let stays = "SELECT participant_id, user_uuid, account, display_name, call_number, user_agent, role, joined_at,
                            left_at, closed_by = 'left' AS closed_by_left
                       FROM attendance WHERE meeting_uuid = $1
                      ORDER BY joined_at NULLS FIRST, closed_by = 'left' DESC, subscriber_id, stay_id";
        self.all(self.query(stays).bind(meeting_uuid)).await
    }
}
