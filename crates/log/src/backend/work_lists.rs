//! The work lists.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::Backend;
use super::log::advance;
use crate::query::{Begin, Connection};
use crate::work_lists::{MAX_AHEAD_TIME, MAX_UUID_BYTES, Settled, WORK_COUNTS};
use crate::{
    DuePerson, EnrichmentOutcome, EnrichmentWorkItem, FinishedRecording, Invitation, KnownPerson, Lease, LogError,
    Moved, RecordingOutcome, RecordingWorkItem, WorkCounts, WorkLists,
};
use convoke_core::id::Seq;
use convoke_core::time::Millis;

#[async_trait]
impl WorkLists for Backend {
    async fn finished_recordings(&self, after: Seq, up_to: Seq) -> Result<Vec<FinishedRecording>, LogError> {
        let finishes =
            "SELECT seq, subscriber_id, meeting_uuid, meeting_id, occurred_at AS finished_at, occurred_at AS due_at
                          FROM events
                         WHERE seq > $1 AND seq <= $2 AND event = 'record.finish' AND octet_length(meeting_uuid) <= $3
                         ORDER BY seq";
        self.along(self.query(finishes).bind(after).bind(up_to).bind(MAX_UUID_BYTES)).await
    }

    async fn queue(
        &self,
        cursor: &str,
        owner: &str,
        to: Seq,
        ttl: Duration,
        finishes: &[FinishedRecording],
    ) -> Result<Moved, LogError> {
        let greatest = self.dialect().greatest();
        let queue = format!(
            "INSERT INTO fetches AS f (subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, last_seq, state,
                                       tries, due_at)
             VALUES ($1, $2, $3, 1, $4, $5, 'waiting', 0, $6)
             ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
                SET meeting_id = coalesce(excluded.meeting_id, f.meeting_id), finishes = f.finishes + 1,
                    finished_at = {greatest}(f.finished_at, excluded.finished_at), last_seq = excluded.last_seq,
                    state = CASE f.state WHEN 'ready' THEN f.state ELSE 'waiting' END,
                    due_at = CASE f.state WHEN 'ready' THEN f.due_at ELSE excluded.due_at END, tries = 0,
                    given_up_at = NULL, reason = NULL
              WHERE excluded.last_seq > f.last_seq"
        );
        self.transaction(Begin::Write, async |connection| {
            let moved = advance(connection, Lease { cursor, owner, ttl }, Some(to)).await?;
            if moved != Moved::LeaseLost {
                for finish in finishes {
                    let queue = self.query(queue.clone()).bind(&*finish.subscriber_id).bind(&*finish.meeting_uuid);
                    let queue = queue.bind(finish.meeting_id.as_deref()).bind(finish.finished_at);
                    connection.execute(queue.bind(finish.seq).bind(finish.due_at)).await?;
                }
            }
            Ok(moved)
        })
        .await
    }

    async fn due_recordings(&self, now: Millis, limit: u32) -> Result<Vec<RecordingWorkItem>, LogError> {
        let due =
            "SELECT subscriber_id, meeting_uuid, meeting_id, finishes, finished_at, tries, state = 'ready' AS ready,
                          event_info
                     FROM fetches WHERE due_at <= $1 OR due_at > $3 OR given_up_at > $3
                    ORDER BY state = 'ready' DESC, finished_at DESC LIMIT $2";
        self.all(self.query(due).bind(now).bind(i64::from(limit)).bind(now.plus(MAX_AHEAD_TIME))).await
    }

    async fn settle_recording(&self, fetch: &RecordingWorkItem, fetched: &RecordingOutcome) -> Result<bool, LogError> {
        // $1 to $3 identify the fetch and the version of it that was read.
        let (set, text, at) = match fetched {
            RecordingOutcome::Ready { event_info, due_at } => (
                "state = 'ready', event_info = $4, due_at = $5, given_up_at = NULL, reason = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(event_info),
                due_at,
            ),
            RecordingOutcome::Later { due_at, reason } => (
                "tries = tries + 1, state = 'waiting', reason = $4, due_at = $5, given_up_at = NULL
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(reason),
                due_at,
            ),
            RecordingOutcome::GivenUp { at, reason } => (
                "tries = tries + 1, state = 'given_up', reason = $4, due_at = NULL, given_up_at = $5
                  WHERE state IN ('waiting', 'given_up') AND finishes = $3",
                Some(reason),
                at,
            ),
            RecordingOutcome::Published { due_at } => (
                "state = CASE finishes WHEN $3 THEN 'published' ELSE 'waiting' END,
                 due_at = CASE finishes WHEN $3 THEN NULL ELSE $5 END
                  WHERE state = 'ready' AND event_info = $4",
                fetch.event_info.as_ref(),
                due_at,
            ),
        };
        let sql = format!("UPDATE fetches SET {set} AND subscriber_id = $1 AND meeting_uuid = $2");
        let settle = self
            .query(sql)
            .bind(&*fetch.subscriber_id)
            .bind(&*fetch.meeting_uuid)
            .bind(i64::from(fetch.finishes))
            .bind(text.map(String::as_str))
            .bind(*at);
        self.write(settle).await.map(|rows| rows == 1)
    }

    async fn queue_enrichments(&self, now: Millis) -> Result<u64, LogError> {
        // Select before writing: this scans all runs, usually finds nothing, and nothing waits for it.
        let select = self.query(
            "SELECT m.subscriber_id, m.meeting_uuid, m.status, m.modifications FROM meetings m
               LEFT JOIN enrichments e ON e.subscriber_id = m.subscriber_id AND e.meeting_uuid = m.meeting_uuid
              WHERE m.status <> 'cancelled' AND octet_length(m.meeting_uuid) <= $1
                AND (e.subscriber_id IS NULL OR e.modifications < m.modifications
                     OR e.state = 'given_up' AND e.status <> m.status)
              LIMIT 1000",
        );
        let runs: Vec<(String, String, String, i64)> = self.all_in_time(select.bind(MAX_UUID_BYTES)).await?;
        if runs.is_empty() {
            return Ok(0);
        }
        let runs = runs.into_iter().map(|(subscriber, uuid, status, modifications)| {
            serde_json::json!([subscriber, uuid, status, modifications])
        });
        // Entries that another process has added in the meantime stay as they are.
        let queue = self.query(format!(
            "INSERT INTO enrichments AS e (subscriber_id, meeting_uuid, status, modifications, state, tries, due_at)
             SELECT value ->> 0, value ->> 1, value ->> 2, CAST(value ->> 3 AS bigint), 'waiting', 0, $1 FROM {}
              WHERE true
             ON CONFLICT (subscriber_id, meeting_uuid) DO UPDATE
                SET status = excluded.status, modifications = excluded.modifications, state = 'waiting', tries = 0,
                    due_at = excluded.due_at, given_up_at = NULL
              WHERE e.modifications < excluded.modifications OR e.state = 'given_up' AND e.status <> excluded.status",
            self.dialect().each("$2")
        ));
        self.write(queue.bind(now).bind_json(runs)).await
    }

    async fn queue_people(&self, now: Millis) -> Result<u64, LogError> {
        // Select before writing: this usually finds nothing. Most users are told together with an account or a number.
        let select = self.query(
            "SELECT user_uuid FROM (
                 SELECT person AS user_uuid FROM identities WHERE kind IN ('account', 'number')
                 UNION
                 SELECT user_uuid FROM attendance
                  WHERE user_uuid IS NOT NULL AND account IS NULL AND call_number IS NULL
                    AND octet_length(user_uuid) <= $1) AS u
              WHERE NOT EXISTS (SELECT 1 FROM people p WHERE p.user_uuid = u.user_uuid) LIMIT 1000",
        );
        let users: Vec<(String,)> = self.all_in_time(select.bind(MAX_UUID_BYTES)).await?;
        if users.is_empty() {
            return Ok(0);
        }
        let queue = self.query(format!(
            "INSERT INTO people (user_uuid, due_at) SELECT value ->> 0, $1 FROM {} WHERE true ON CONFLICT DO NOTHING",
            self.dialect().each("$2")
        ));
        self.write(queue.bind(now).bind_json(users.into_iter().map(|(user,)| [user].to_vec()))).await
    }

    async fn due_people(&self, now: Millis, refresh: Duration, limit: u32) -> Result<Vec<DuePerson>, LogError> {
        let due = "SELECT p.user_uuid, min(i.handle) AS account
                     FROM (SELECT user_uuid FROM people WHERE due_at <= $1 OR due_at > $2 ORDER BY due_at LIMIT $3) AS p
                     LEFT JOIN (SELECT person, handle FROM identities WHERE kind = 'account') AS i
                       ON i.person = p.user_uuid
                    GROUP BY p.user_uuid";
        let latest = now.plus(refresh).plus(MAX_AHEAD_TIME);
        self.all(self.query(due).bind(now).bind(latest).bind(i64::from(limit))).await
    }

    async fn settle_people(&self, people: &[KnownPerson], now: Millis, due_at: Millis) -> Result<(), LogError> {
        let settle = self.query(format!(
            "UPDATE people SET due_at = $2, told_at = CASE WHEN k.value ->> 1 = '1' THEN $1 END,
                    department = CASE WHEN k.value ->> 2 = '1' THEN department ELSE k.value ->> 3 END,
                    title = CASE WHEN k.value ->> 2 = '1' THEN title ELSE k.value ->> 4 END
               FROM {} AS k WHERE user_uuid = k.value ->> 0",
            self.dialect().each("$3")
        ));
        let flag = |set: bool| if set { "1" } else { "0" };
        let rows = people
            .iter()
            .map(|it| serde_json::json!([it.user_uuid, flag(it.told), flag(it.unchanged), it.department, it.title]));
        self.write(settle.bind(now).bind(due_at).bind_json(rows)).await.map(drop)
    }

    async fn due_enrichments(&self, now: Millis, limit: u32) -> Result<Vec<EnrichmentWorkItem>, LogError> {
        let due =
            "SELECT m.subscriber_id, m.meeting_uuid, m.meeting_id, m.meeting_cycle_sub_id, m.status, m.first_event_at,
                    m.last_event_at, e.tries
               FROM enrichments e JOIN meetings m ON m.subscriber_id = e.subscriber_id AND m.meeting_uuid = e.meeting_uuid
              WHERE e.due_at <= $1 OR e.due_at > $3 OR e.given_up_at > $3 ORDER BY m.last_event_at DESC LIMIT $2";
        self.all(self.query(due).bind(now).bind(i64::from(limit)).bind(now.plus(MAX_AHEAD_TIME))).await
    }

    async fn settle_enrichment(&self, run: &EnrichmentWorkItem, enriched: &EnrichmentOutcome) -> Result<(), LogError> {
        let Settled { state, due_at, given_up_at, reason, details } = enriched.settled();
        let update = self.query(
            "UPDATE enrichments
                SET state = $3, due_at = $4, reason = $5, tries = tries + 1, subject = coalesce($6, subject),
                    scheduled_start_at = coalesce($7, scheduled_start_at),
                    scheduled_end_at = coalesce($8, scheduled_end_at), host = coalesce($9, host),
                    corp_id = coalesce($10, corp_id), given_up_at = $11, host_user_uuid = coalesce($12, host_user_uuid),
                    conference_type = coalesce($13, conference_type), webinar = coalesce($14, webinar),
                    virtual_room = coalesce($15, virtual_room)
              WHERE subscriber_id = $1 AND meeting_uuid = $2",
        );
        let update = update
            .bind(&*run.subscriber_id)
            .bind(&*run.meeting_uuid)
            .bind(state)
            .bind(due_at)
            .bind(reason)
            .bind(details.subject.as_deref())
            .bind(details.scheduled_start_at)
            .bind(details.scheduled_end_at)
            .bind(details.host.as_deref())
            .bind(details.corp_id.as_deref())
            .bind(given_up_at)
            .bind(details.host_user_uuid.as_deref())
            .bind(details.conference_type.as_deref())
            .bind(details.webinar)
            .bind(details.virtual_room.as_deref());
        let copy = self.query(
            "UPDATE meetings SET (subject, scheduled_start_at, scheduled_end_at, host, corp_id, host_user_uuid,
                                  conference_type, webinar, virtual_room) =
                    (SELECT subject, scheduled_start_at, scheduled_end_at, host, corp_id, host_user_uuid,
                            conference_type, webinar, virtual_room
                       FROM enrichments WHERE subscriber_id = $1 AND meeting_uuid = $2)
              WHERE subscriber_id = $1 AND meeting_uuid = $2",
        );
        let copy = copy.bind(&*run.subscriber_id).bind(&*run.meeting_uuid);
        let known = matches!(enriched, EnrichmentOutcome::Known(_));
        self.transaction(Begin::Write, async |connection| {
            connection.execute(update).await?;
            connection.execute(copy).await?;
            if known { invite(connection, run, &details.invitations).await } else { Ok(()) }
        })
        .await
    }

    async fn work_counts(&self) -> Result<(WorkCounts, WorkCounts), LogError> {
        let counts: (i64, i64, i64, i64) = self.one(self.query(WORK_COUNTS)).await?;
        Ok((WorkCounts { waiting: counts.0, given_up: counts.1 }, WorkCounts { waiting: counts.2, given_up: counts.3 }))
    }
}

/// Stores who was invited. A meeting that is still to come has no other invitees; later the platform does not tell all of them.
async fn invite(
    connection: &mut Connection<'_>,
    run: &EnrichmentWorkItem,
    invitations: &[Invitation],
) -> Result<(), sqlx::Error> {
    if run.status == "scheduled" {
        let clear = connection.query("DELETE FROM invitations WHERE subscriber_id = $1 AND meeting_uuid = $2");
        connection.execute(clear.bind(&*run.subscriber_id).bind(&*run.meeting_uuid)).await?;
    }
    if invitations.is_empty() {
        return Ok(());
    }
    // Each once: one statement cannot change a row twice.
    let invitations: BTreeMap<&str, &Invitation> =
        invitations.iter().filter_map(|it| Some((it.invitee()?, it))).collect();
    let rows = invitations.into_iter().map(|(invitee, it)| {
        let Invitation { user_uuid, account, call_number, display_name, department, attendee_type } = it;
        serde_json::json!([invitee, user_uuid, account, call_number, display_name, department, attendee_type])
    });
    let insert = connection.query(format!(
        "INSERT INTO invitations (subscriber_id, meeting_uuid, invitee, user_uuid, account, call_number, display_name,
                                  department, attendee_type)
         SELECT $1, $2, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 FROM {}
          WHERE true
         ON CONFLICT (subscriber_id, meeting_uuid, invitee) DO UPDATE
            SET user_uuid = excluded.user_uuid, account = excluded.account, call_number = excluded.call_number,
                display_name = excluded.display_name, department = excluded.department,
                attendee_type = excluded.attendee_type",
        connection.dialect().each("$3")
    ));
    let insert = insert.bind(&*run.subscriber_id).bind(&*run.meeting_uuid).bind_json(rows);
    connection.execute(insert).await.map(drop)
}
