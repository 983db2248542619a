//! The meetings whose own push is attended.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;

use super::Backend;
use super::bulk::BulkStatement;
use crate::query::{Begin, Plan, Query};
use crate::retention::RetentionQueries as _;
use crate::{
    LiveMeeting, LiveMeetings, LiveReading, LiveStanding, LiveState, LogError, LogReader as _, PresentNow, RunKey,
};
use convoke_core::time::Millis;

/// People who are shown.
const MAX_PRESENT: u32 = 500;

/// Rows of the log that are deleted at once.
const MAX_EXPIRED_ROWS: i64 = 500;

pub(super) const PRESENT: &str = "participant_id, place, display_name, user_uuid, account, call_number, host, muted, hand_raised, \
                                  sharing, speaking, since";

static PRESENCE: LazyLock<BulkStatement> =
    LazyLock::new(|| BulkStatement::upsert("live_presence", &format!("subscriber_id, meeting_uuid, {PRESENT}"), 3, 3));

/// Runs that go on under the number of a row, the newest first.
const RUNNING: &str = "FROM meetings m WHERE m.meeting_id = l.meeting_id AND m.status = 'live' AND NOT m.over
                       ORDER BY coalesce(m.started_at, m.first_event_at) DESC, m.meeting_uuid LIMIT 1";

#[async_trait]
impl LiveReading for Backend {
    async fn live_now(
        &self,
        run: &RunKey,
        within: Duration,
    ) -> Result<(Option<LiveStanding>, Vec<PresentNow>), LogError> {
        let of_run = |sql: String| self.query(sql).bind(&*run.subscriber_id).bind(&*run.meeting_uuid);
        let standing = of_run(
            "SELECT meeting_id, state, reason FROM live_meetings WHERE subscriber_id = $1 AND meeting_uuid = $2"
                .to_owned(),
        );
        let present = of_run(format!(
            "SELECT {PRESENT} FROM live_presence WHERE subscriber_id = $1 AND meeting_uuid = $2
              ORDER BY place DESC, since, participant_id LIMIT {MAX_PRESENT}"
        ));
        self.read_within(within, Plan::Free, async |connection| {
            Ok((connection.optional(standing).await?, connection.fetch(present).await?))
        })
        .await
    }
}

#[async_trait]
impl LiveMeetings for Backend {
    async fn want_live(&self, numbers: Option<&[String]>) -> Result<u64, LogError> {
        let now = self.dialect().now();
        let among = numbers.map_or("IS NOT NULL".to_owned(), |_| self.dialect().among("$1"));
        let want = self.query(format!(
            "INSERT INTO live_meetings (meeting_id, state, asked, wanted_at)
             SELECT DISTINCT meeting_id, 'waiting', false, {now} FROM meetings
              WHERE status = 'live' AND NOT over AND meeting_id {among}
                AND NOT EXISTS (SELECT 1 FROM live_meetings l WHERE l.meeting_id = meetings.meeting_id)
             ON CONFLICT (meeting_id) DO NOTHING"
        ));
        self.write(match numbers {
            Some(numbers) => want.bind_list(numbers),
            None => want,
        })
        .await
    }

    async fn attach_live(&self, meeting_id: &str, password: Option<&str>) -> Result<(), LogError> {
        let now = self.dialect().now();
        let attach = self.query(format!(
            "INSERT INTO live_meetings AS l (meeting_id, password, state, asked, wanted_at)
             VALUES ($1, $2, 'waiting', true, {now})
             ON CONFLICT (meeting_id) DO UPDATE
                SET password = coalesce(excluded.password, l.password), asked = true, reason = NULL, wanted_at = excluded.wanted_at,
                    state = CASE l.state WHEN 'attending' THEN l.state ELSE excluded.state END"
        ));
        self.write(attach.bind(meeting_id).bind(password)).await.map(drop)
    }

    async fn lease_live(&self, owner: &str, ttl: Duration, places: u32) -> Result<Vec<LiveMeeting>, LogError> {
        let (now, end) = (self.dialect().now(), self.dialect().in_seconds("$2"));
        let far = self.dialect().in_seconds("2 * $2");
        let know = self.query(format!(
            "UPDATE live_meetings AS l
                SET subscriber_id = (SELECT m.subscriber_id {RUNNING}), meeting_uuid = (SELECT m.meeting_uuid {RUNNING})
              WHERE meeting_uuid IS NULL AND EXISTS (SELECT 1 {RUNNING})"
        ));
        // Whoever attends keeps its place.
        let lease = self.query(format!(
            "UPDATE live_meetings SET lease_owner = $1, lease_until = {end}
              WHERE meeting_id IN (SELECT meeting_id FROM live_meetings
                                    WHERE state IN ('waiting', 'attending') AND meeting_uuid IS NOT NULL
                                    ORDER BY state, wanted_at, meeting_id LIMIT $3)
                AND (lease_owner IS NULL OR lease_owner = $1 OR lease_until NOT BETWEEN {now} AND {far})"
        ));
        let leased = self.query(
            "SELECT l.meeting_id, l.subscriber_id, l.meeting_uuid, l.password, l.asked, l.heard_at,
                    EXISTS (SELECT 1 FROM meetings m
                             WHERE m.subscriber_id = l.subscriber_id AND m.meeting_uuid = l.meeting_uuid
                               AND m.status = 'live' AND NOT m.over) AS goes_on
               FROM live_meetings l WHERE lease_owner = $1 AND state IN ('waiting', 'attending')",
        );
        let lease = lease.bind(owner).bind(ttl.as_secs_f64()).bind(i64::from(places));
        let any = self.query("SELECT count(*) FROM live_meetings");
        if self.one::<(i64,)>(any).await?.0 == 0 {
            return Ok(Vec::new());
        }
        self.transaction(Begin::Write, async |connection| {
            connection.execute(know).await?;
            connection.execute(lease).await?;
            connection.fetch(leased.bind(owner)).await
        })
        .await
    }

    async fn settle_live(
        &self,
        meeting_id: &str,
        owner: &str,
        state: LiveState,
        reason: Option<&str>,
    ) -> Result<bool, LogError> {
        let settle = self.query(
            "UPDATE live_meetings SET state = $3, reason = $4
              WHERE meeting_id = $1 AND lease_owner = $2 AND (state <> $3 OR coalesce(reason, '') <> coalesce($4, ''))",
        );
        let settle = settle.bind(meeting_id).bind(owner).bind(state.as_str()).bind(reason);
        self.write(settle).await.map(|rows| rows > 0)
    }

    async fn live_standings(&self) -> Result<Vec<LiveStanding>, LogError> {
        self.all(self.query("SELECT meeting_id, state, reason FROM live_meetings ORDER BY meeting_id")).await
    }

    async fn release_live(&self, meeting_id: &str, owner: &str) -> Result<(), LogError> {
        let release = "UPDATE live_meetings SET lease_owner = NULL, lease_until = NULL
                        WHERE meeting_id = $1 AND lease_owner = $2";
        self.write(self.query(release).bind(meeting_id).bind(owner)).await.map(drop)
    }

    async fn end_live(&self, owner: &str) -> Result<u64, LogError> {
        let (now, yesterday) = (self.dialect().now(), self.dialect().in_seconds("-86400"));
        let over = self.query(format!(
            "DELETE FROM live_meetings WHERE (lease_owner IS NULL OR lease_owner = $1 OR lease_until < {now}) AND CASE
                WHEN meeting_uuid IS NULL THEN wanted_at < {yesterday}
                ELSE NOT EXISTS (SELECT 1 FROM meetings m
                                  WHERE m.subscriber_id = live_meetings.subscriber_id
                                    AND m.meeting_uuid = live_meetings.meeting_uuid AND m.status = 'live' AND NOT m.over) END"
        ));
        let gone = self.query(
            "DELETE FROM live_presence WHERE NOT EXISTS (
                SELECT 1 FROM live_meetings l
                 WHERE l.subscriber_id = live_presence.subscriber_id AND l.meeting_uuid = live_presence.meeting_uuid)",
        );
        self.transaction(Begin::Write, async |connection| {
            let over = connection.execute(over.bind(owner)).await?;
            connection.execute(gone).await?;
            Ok(over)
        })
        .await
    }

    async fn keep_present(
        &self,
        run: &RunKey,
        heard_at: Millis,
        present: &[PresentNow],
        gone: Option<&[String]>,
    ) -> Result<(), LogError> {
        let heard = self.query("UPDATE live_meetings SET heard_at = $3 WHERE subscriber_id = $1 AND meeting_uuid = $2");
        let heard = heard.bind(&*run.subscriber_id).bind(&*run.meeting_uuid).bind(heard_at);
        let among = gone.map_or("IS NOT NULL".to_owned(), |_| self.dialect().among("$3"));
        let leave = self.query(format!(
            "DELETE FROM live_presence WHERE subscriber_id = $1 AND meeting_uuid = $2 AND participant_id {among}"
        ));
        let leave = leave.bind(&*run.subscriber_id).bind(&*run.meeting_uuid);
        let leave = match gone {
            Some(gone) => leave.bind_list(gone),
            None => leave,
        };
        self.transaction(Begin::Write, async |connection| {
            // Whose row was deleted is over, and nobody is in it.
            if connection.execute(heard).await? > 0 {
                if gone.is_none_or(|gone| !gone.is_empty()) {
                    connection.execute(leave).await?;
                }
                PRESENCE.run(connection, present, |query, row| add_present(query, run, row)).await?;
            }
            Ok(())
        })
        .await
    }

    async fn expire_live(&self, keep: Duration) -> Result<u64, LogError> {
        let now = self.now().await?;
        if self.known_of_retention(now).await?.allows(now, [Some(keep)]) == [None] {
            return Ok(0);
        }
        let before = now.minus(keep);
        let expire = self.query(
            "DELETE FROM events WHERE source = 'live' AND seq IN (
                SELECT seq FROM events
                 WHERE source = 'live' AND received_at < $1 AND occurred_at < $1
                   AND seq <= coalesce((SELECT min(position) FROM cursors), 9223372036854775807)
                 ORDER BY seq LIMIT $2)",
        );
        self.transaction(Begin::EraseLog, async |connection| {
            connection.execute(expire.bind(before).bind(MAX_EXPIRED_ROWS)).await
        })
        .await
    }
}

fn add_present(query: &mut Query, run: &RunKey, row: &PresentNow) {
    query
        .add(run.subscriber_id.clone())
        .add(run.meeting_uuid.clone())
        .add(&*row.participant_id)
        .add(row.place.as_str())
        .add(row.display_name.as_deref())
        .add(row.user_uuid.as_deref())
        .add(row.account.as_deref())
        .add(row.call_number.as_deref())
        .add(row.host)
        .add(row.muted)
        .add(row.hand_raised)
        .add(row.sharing)
        .add(row.speaking)
        .add(row.since);
}
