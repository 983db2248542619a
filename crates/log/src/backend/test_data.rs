//! Deleting test data.

use async_trait::async_trait;

use super::erasure::count;
use super::log::advance;
use super::projection::succeed;
use super::rows::PERSON;
use super::{Backend, Begin};
use crate::{Lease, LogError, Moved, PersonRow, RunKey, TestData, TestDataCounts};
use convoke_core::event::TEST_MEETINGS;
use convoke_core::id::{EventId, Seq};

/// The tables besides the log that have rows of runs.
const TABLES: [&str; 6] = ["attendance", "recordings", "fetches", "enrichments", "invitations", "meetings"];

/// A condition for test data; $1 is [`TEST_MEETINGS`].
fn is_test() -> String {
    format!("substr(meeting_uuid, 1, {}) = $1", TEST_MEETINGS.len())
}

#[async_trait]
impl TestData for Backend {
    async fn test_rows(&self, after: Seq, up_to: Seq) -> Result<Vec<PersonRow>, LogError> {
        let rows = self
            .query(format!("SELECT {PERSON} FROM events WHERE {} AND seq > $2 AND seq <= $3 ORDER BY seq", is_test()));
        self.all_in_time(rows.bind(TEST_MEETINGS).bind(after).bind(up_to)).await
    }

    async fn test_runs(&self) -> Result<Vec<RunKey>, LogError> {
        let runs = TABLES.map(|table| format!("SELECT subscriber_id, meeting_uuid FROM {table} WHERE {}", is_test()));
        self.all_in_time(self.query(runs.join(" UNION ")).bind(TEST_MEETINGS)).await
    }

    async fn test_meetings(&self) -> Result<Vec<Option<String>>, LogError> {
        let numbers = ["attendance", "recordings", "fetches", "meetings"]
            .map(|table| format!("SELECT meeting_id FROM {table} WHERE {}", is_test()));
        let numbers = self.query(numbers.join(" UNION ")).bind(TEST_MEETINGS);
        Ok(self.all_in_time::<(Option<String>,)>(numbers).await?.into_iter().map(|(number,)| number).collect())
    }

    async fn test_table_counts(&self) -> Result<TestDataCounts, LogError> {
        let number = |table: &str| format!("(SELECT count(*) FROM {table} WHERE {})", is_test());
        let [stays, recordings, fetches, enrichments, invitations, meetings] = TABLES.map(number);
        let none = "CAST(0 AS bigint)";
        let counts = self.query(format!(
            "SELECT {none} AS events, {meetings} AS meetings, {stays} AS stays, {recordings} AS recordings,
                    {fetches} + {enrichments} + {invitations} AS work_items, {none} AS quarantined, {none} AS messages"
        ));
        self.one(counts.bind(TEST_MEETINGS)).await
    }

    async fn delete_runs(
        &self,
        lease: Lease<'_>,
        at: Seq,
        erasure: i64,
        runs: &[RunKey],
    ) -> Result<Option<TestDataCounts>, LogError> {
        let each = self.dialect().each("$1");
        let gone = format!("(subscriber_id, meeting_uuid) IN (SELECT value ->> 0, value ->> 1 FROM {each} AS gone)");
        let of_runs = |what: &str| {
            let query = self.query(what.replace("$RUNS", &gone));
            query.bind_json(runs.iter().map(|run| vec![&*run.subscriber_id, &*run.meeting_uuid]))
        };
        self.transaction(Begin::Erase, async |connection| {
            if advance(connection, lease, Some(at)).await? == Moved::LeaseLost {
                return Ok(None);
            }
            let numbers: Vec<(Option<String>,)> =
                connection.fetch(of_runs("SELECT DISTINCT meeting_id FROM meetings WHERE $RUNS")).await?;
            let kept = "DELETE FROM kept_attendance WHERE kept_id IN (SELECT kept_id FROM meetings WHERE $RUNS)";
            connection.execute(of_runs(kept)).await?;
            let mut deleted = [0; TABLES.len()];
            for (table, deleted) in TABLES.iter().zip(&mut deleted) {
                let delete = of_runs(&format!("DELETE FROM {table} WHERE $RUNS"));
                *deleted = i64::try_from(connection.execute(delete).await?).unwrap_or(i64::MAX);
            }
            for table in ["call_results", "live_presence", "live_meetings"] {
                connection.execute(of_runs(&format!("DELETE FROM {table} WHERE $RUNS"))).await?;
            }
            // Of other runs with the same numbers.
            succeed(connection, &numbers.into_iter().filter_map(|(number,)| number).collect::<Vec<_>>()).await?;
            let [stays, recordings, fetches, enrichments, invitations, meetings] = deleted;
            count(connection, erasure, "stays", stays.unsigned_abs()).await?;
            let work_items = fetches + enrichments + invitations;
            Ok(Some(TestDataCounts { meetings, stays, recordings, work_items, ..TestDataCounts::default() }))
        })
        .await
    }

    async fn delete_quarantined(&self, erasure: i64, ids: &[i64]) -> Result<u64, LogError> {
        let each = self.dialect().each("$1");
        let delete = self.query(format!(
            "DELETE FROM quarantine WHERE id IN (SELECT CAST(value ->> 0 AS bigint) FROM {each} AS gone)"
        ));
        let delete = delete.bind_json(ids.iter().map(|id| vec![*id]));
        self.transaction(Begin::Erase, async |connection| {
            let deleted = connection.execute(delete).await?;
            count(connection, erasure, "quarantined", deleted).await?;
            Ok(deleted)
        })
        .await
    }

    async fn delete_rows(&self, erasure: i64, rows: &[PersonRow]) -> Result<u64, LogError> {
        let ids: Vec<EventId> = rows.iter().map(|row| row.event_id).collect();
        let among = self.dialect().among("$1");
        let forget = self.query(format!("DELETE FROM erased_events WHERE event_id {among} AND erasure = $2"));
        let forget = forget.bind_list(&ids).bind(erasure);
        let [aside, delete] = ["set_aside", "events"]
            .map(|table| self.query(format!("DELETE FROM {table} WHERE event_id {among}")).bind_list(&ids));
        self.transaction(Begin::EraseLog, async |connection| {
            connection.execute(forget).await?;
            connection.execute(aside).await?;
            connection.execute(delete).await
        })
        .await
    }
}
