//! Finds a person's rows and erases them, in short transactions.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use sqlx::FromRow;
use uuid::Uuid;

use super::Backend;
use super::log::advance;
use super::rows::PERSON;
use crate::erasure::{FORGOTTEN, internal_members, internal_names};
use crate::query::Begin;
use crate::query::{Connection, Dialect};
use crate::{
    Changes, Erasure, Erasures, Handles, Host, InvitationRow, Lease, LogError, Moved, PersonRow, PersonSearch,
    PersonStay, RunKey, StayKey, Suppression,
};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

const ERASURE: &str = "id, begun_at, finished_at, events, stays, quarantined, hosts, invitations, people, messages";

/// Condition for the erasure $1 and earlier ones of the same person.
const SAME: &str = "erasure IN (SELECT id FROM erasures WHERE person = (SELECT person FROM erasures WHERE id = $1))";

/// Adds to the counts of an erasure.
pub(super) async fn count(
    connection: &mut Connection<'_>,
    erasure: i64,
    what: &str,
    by: u64,
) -> Result<(), sqlx::Error> {
    let count = connection.query(format!("UPDATE erasures SET {what} = {what} + $1 WHERE id = $2"));
    let by = i64::try_from(by).unwrap_or(i64::MAX);
    connection.execute(count.bind(by).bind(erasure)).await.map(drop)
}

/// Adds hashes of a person forgotten at `at`.
async fn remember(connection: &mut Connection<'_>, hashes: &[String], at: Millis) -> Result<(), sqlx::Error> {
    let (each, greatest) = (connection.dialect().each("$2"), connection.dialect().greatest());
    // Sorted, so that two concurrent statements lock rows in the same order and do not deadlock.
    let hashes: BTreeSet<&str> = hashes.iter().map(String::as_str).collect();
    let remember = connection.query(format!(
        "INSERT INTO forgotten AS f (hash, at) SELECT value ->> 0, $1 FROM {each} WHERE true
         ON CONFLICT (hash) DO UPDATE SET at = {greatest}(f.at, excluded.at)"
    ));
    connection.execute(remember.bind(at).bind_json(hashes.into_iter().map(|hash| vec![hash]))).await.map(drop)
}

/// The key of a stay as a list.
fn listed(key: &StayKey) -> Vec<String> {
    vec![key.run.subscriber_id.to_string(), key.run.meeting_uuid.to_string(), key.stay_id.to_string()]
}

/// Whether a column contains an element of a list.
fn contains(dialect: Dialect, column: &str, list: &str) -> String {
    match dialect {
        Dialect::Postgres => {
            format!("EXISTS (SELECT 1 FROM unnest({list}) AS m (member) WHERE strpos({column}, member) > 0)")
        }
        Dialect::Sqlite => format!("EXISTS (SELECT 1 FROM json_each({list}) WHERE instr({column}, value) > 0)"),
    }
}

/// Converts an element of a JSON list to an id.
fn as_id(dialect: Dialect, element: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("CAST({element} AS uuid)"),
        Dialect::Sqlite => element.to_owned(),
    }
}

/// A stay, and whether it belongs to the person.
#[derive(FromRow)]
struct MaybeTheirs {
    #[sqlx(flatten)]
    stay: PersonStay,
    theirs: bool,
}

#[async_trait]
impl Suppression for Backend {
    async fn forgotten_key(&self) -> Result<Option<String>, LogError> {
        self.optional::<(String,)>(self.query("SELECT key FROM forgotten_key"))
            .await
            .map(|found| found.map(|(key,)| key))
    }

    async fn forgotten(&self, hashes: &[String]) -> Result<HashMap<String, Millis>, LogError> {
        let sql = format!("SELECT hash, at FROM forgotten WHERE hash {}", self.dialect().among("$1"));
        let found: Vec<(String, Millis)> = self.all(self.query(sql).bind_list(hashes)).await?;
        Ok(found.into_iter().collect())
    }
}

#[async_trait]
impl PersonSearch for Backend {
    async fn person_rows(
        &self,
        handles: &Handles,
        runs: &[RunKey],
        after: Seq,
        up_to: Seq,
    ) -> Result<Vec<PersonRow>, LogError> {
        let dialect = self.dialect();
        let [users, accounts, numbers, names] = ["$3", "$4", "$5", "$7"].map(|list| dialect.among(list));
        let rows = self.query(format!(
            "SELECT {PERSON}
               FROM events
              WHERE seq > $1 AND seq <= $2 AND forgotten_at IS NULL
                AND (user_uuid {users} OR account {accounts} OR call_number {numbers}
                     OR display_name {names} AND $8 IN (meeting_id, meeting_uuid)
                     OR coalesce(participant_id, call_number, display_name, user_uuid, account) IS NOT NULL
                        AND (subscriber_id, meeting_uuid) IN (SELECT value ->> 0, value ->> 1 FROM {} AS runs))
              ORDER BY seq",
            dialect.each("$6")
        ));
        let rows = rows
            .bind(after)
            .bind(up_to)
            .bind_list(&handles.users)
            .bind_list(&handles.accounts)
            .bind_list(&handles.call_numbers)
            .bind_json(runs.iter().map(|run| vec![&*run.subscriber_id, &*run.meeting_uuid]))
            .bind_list(&handles.names)
            .bind(handles.meeting.as_deref());
        self.all_in_time(rows).await
    }

    async fn live_rows(&self, texts: &[String], after: Seq, up_to: Seq) -> Result<Vec<PersonRow>, LogError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let within = contains(self.dialect(), "event_info", "$3");
        let rows = self.query(format!(
            "SELECT {PERSON} FROM events
              WHERE source = 'live' AND seq > $1 AND seq <= $2 AND forgotten_at IS NULL AND {within} ORDER BY seq"
        ));
        let quoted: Vec<String> = texts.iter().map(|text| serde_json::json!(text).to_string()).collect();
        self.all_in_time(rows.bind(after).bind(up_to).bind_list(&quoted)).await
    }

    async fn person_stays(
        &self,
        handles: &Handles,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<PersonStay>, Option<Uuid>), LogError> {
        let dialect = self.dialect();
        let [users, accounts, numbers, stays, names] = ["$3", "$4", "$5", "$7", "$8"].map(|list| dialect.among(list));
        let within = |list: &str| contains(dialect, "internal", list);
        let (members, named) = (within("$6"), within("$10"));
        // The last row of the page is always returned, as the position to continue from.
        let rows = self.query(format!(
            "WITH page AS (SELECT * FROM attendance WHERE stay_id > $1 ORDER BY stay_id LIMIT $2),
                  told AS (SELECT page.*,
                                  coalesce(user_uuid {users}, false) OR coalesce(account {accounts}, false)
                                  OR coalesce(call_number {numbers}, false) OR {members} OR stay_id {stays}
                                  OR coalesce($9 IN (meeting_id, meeting_uuid), false)
                                     AND (coalesce(display_name {names}, false) OR {named}) AS theirs FROM page)
             SELECT subscriber_id, meeting_uuid, stay_id, meeting_id, display_name, call_number, user_uuid, account,
                    participant_id, theirs
               FROM told WHERE theirs OR stay_id = (SELECT stay_id FROM page ORDER BY stay_id DESC LIMIT 1)
              ORDER BY stay_id"
        ));
        let rows = rows
            .bind(EventId::from_uuid(after.unwrap_or(Uuid::nil())))
            .bind(i64::from(limit))
            .bind_list(&handles.users)
            .bind_list(&handles.accounts)
            .bind_list(&handles.call_numbers)
            .bind_list(&internal_members(handles))
            .bind_list(&handles.stays)
            .bind_list(&handles.names)
            .bind(handles.meeting.as_deref())
            .bind_list(&internal_names(handles));
        let rows: Vec<MaybeTheirs> = self.all_in_time(rows).await?;
        let last = rows.last().map(|row| row.stay.key.stay_id);
        Ok((rows.into_iter().filter(|row| row.theirs).map(|row| row.stay).collect(), last))
    }

    async fn hosts(&self, after: Option<&RunKey>, limit: u32) -> Result<Vec<Host>, LogError> {
        let hosts = "SELECT subscriber_id, meeting_uuid, host, host_user_uuid, subject FROM enrichments
                      WHERE (subscriber_id, meeting_uuid) > ($1, $2) AND coalesce(host, host_user_uuid) IS NOT NULL
                      ORDER BY subscriber_id, meeting_uuid LIMIT $3";
        let (subscriber, uuid) = after.map_or(("", ""), |run| (&*run.subscriber_id, &*run.meeting_uuid));
        self.all(self.query(hosts).bind(subscriber).bind(uuid).bind(i64::from(limit))).await
    }

    async fn invitations(&self, after: Option<&InvitationRow>, limit: u32) -> Result<Vec<InvitationRow>, LogError> {
        let sql =
            "SELECT subscriber_id, meeting_uuid, invitee, user_uuid, account, call_number, display_name, department,
                          attendee_type
                     FROM invitations WHERE (subscriber_id, meeting_uuid, invitee) > ($1, $2, $3)
                    ORDER BY subscriber_id, meeting_uuid, invitee LIMIT $4";
        let (subscriber, uuid, invitee) =
            after.map_or(("", "", ""), |row| (&*row.run.subscriber_id, &*row.run.meeting_uuid, row.invitee.as_str()));
        self.all(self.query(sql).bind(subscriber).bind(uuid).bind(invitee).bind(i64::from(limit))).await
    }

    async fn known_people(&self, users: &[String]) -> Result<i64, LogError> {
        let sql = format!("SELECT count(*) FROM people WHERE user_uuid {}", self.dialect().among("$1"));
        self.one::<(i64,)>(self.query(sql).bind_list(users)).await.map(|(people,)| people)
    }
}

#[async_trait]
impl Erasures for Backend {
    async fn make_forgotten_key(&self, fresh: &str) -> Result<String, LogError> {
        let insert = self.query("INSERT INTO forgotten_key (id, key) VALUES (1, $1) ON CONFLICT DO NOTHING");
        self.write(insert.bind(fresh)).await?;
        self.forgotten_key().await?.ok_or_else(|| LogError::unavailable("the key of the hashes is gone"))
    }

    async fn remember_forgotten(&self, hashes: &[String], at: Millis) -> Result<(), LogError> {
        self.write_with(async |connection| remember(connection, hashes, at).await).await
    }

    async fn begin_erasure(&self, person: &str, named_by: &str) -> Result<Erasure, LogError> {
        let unfinished = self.query(format!(
            "SELECT {ERASURE} FROM erasures WHERE person = $1 AND finished_at IS NULL ORDER BY id DESC LIMIT 1"
        ));
        let begin = self.query(format!(
            "INSERT INTO erasures (person, named_by, begun_at) VALUES ($1, $2, {}) RETURNING {ERASURE}",
            self.dialect().now_millis()
        ));
        self.transaction(Begin::LockErasures, async |connection| {
            match connection.optional(unfinished.bind(person)).await? {
                Some(unfinished) => Ok(unfinished),
                None => {
                    let begun = connection.optional(begin.bind(person).bind(named_by)).await?;
                    begun.ok_or(sqlx::Error::RowNotFound)
                }
            }
        })
        .await
    }

    async fn erasure(&self, id: i64) -> Result<Erasure, LogError> {
        self.one(self.query(format!("SELECT {ERASURE} FROM erasures WHERE id = $1")).bind(id)).await
    }

    async fn finish_erasure(&self, id: i64) -> Result<(), LogError> {
        let forget = self.query("DELETE FROM erased_stays WHERE erasure = $1").bind(id);
        let now = self.dialect().now_millis();
        let finish = self.query(format!("UPDATE erasures SET finished_at = {now} WHERE id = $1")).bind(id);
        self.transaction(Begin::Erase, async |connection| {
            connection.execute(forget).await?;
            connection.execute(finish).await.map(drop)
        })
        .await
    }

    async fn note_stays(
        &self,
        erasure: &Erasure,
        stays: &[(StayKey, Option<String>)],
        hashes: &[String],
    ) -> Result<(), LogError> {
        let noted = stays.iter().map(|(key, meeting_id)| {
            serde_json::json!([key.run.subscriber_id, key.run.meeting_uuid, key.stay_id.to_string(), meeting_id])
        });
        let dialect = self.dialect();
        let note = self.query(format!(
            "INSERT INTO erased_stays (erasure, subscriber_id, meeting_uuid, stay_id, meeting_id)
             SELECT $1, value ->> 0, value ->> 1, {}, value ->> 3 FROM {} WHERE true ON CONFLICT DO NOTHING",
            as_id(dialect, "value ->> 2"),
            dialect.each("$2")
        ));
        let note = note.bind(erasure.id).bind_json(noted);
        self.transaction(Begin::Write, async |connection| {
            remember(connection, hashes, erasure.begun_at).await?;
            connection.execute(note).await.map(drop)
        })
        .await
    }

    async fn noted_stays(&self, erasure: i64) -> Result<Vec<StayKey>, LogError> {
        let noted = "SELECT subscriber_id, meeting_uuid, stay_id FROM erased_stays WHERE erasure = $1";
        self.all(self.query(noted).bind(erasure)).await
    }

    async fn erase_rows(&self, erasure: &Erasure, rows: &[PersonRow]) -> Result<(), LogError> {
        let ids: Vec<EventId> = rows.iter().map(|row| row.event_id).collect();
        let among = self.dialect().among("$1");
        let note = self.query(format!(
            "INSERT INTO erased_events (erasure, event_id, meeting_id)
             SELECT $2, event_id, meeting_id FROM events WHERE event_id {among} AND forgotten_at IS NULL
             ON CONFLICT DO NOTHING"
        ));
        let erase = self.query(format!(
            "UPDATE events
                SET user_uuid = NULL, user_agent = NULL, account = NULL, participant_id = NULL, display_name = NULL,
                    role = NULL, call_number = NULL, request_id = NULL, traceparent = NULL, event_info = NULL,
                    forgotten_at = $2
              WHERE event_id {among} AND forgotten_at IS NULL"
        ));
        let (note, erase) = (note.bind_list(&ids).bind(erasure.id), erase.bind_list(&ids).bind(erasure.begun_at));
        self.transaction(Begin::EraseLog, async |connection| {
            connection.execute(note).await?;
            let erased = connection.execute(erase).await?;
            count(connection, erasure.id, "events", erased).await
        })
        .await
    }

    async fn erase_stays(
        &self,
        lease: Lease<'_>,
        at: Seq,
        erasure: i64,
        removed: &[StayKey],
        changes: &Changes,
    ) -> Result<Moved, LogError> {
        let dialect = self.dialect();
        let remove = self.query(format!(
            "DELETE FROM attendance WHERE (stay_id, subscriber_id, meeting_uuid) IN
                    (SELECT {}, value ->> 0, value ->> 1 FROM {} AS gone)",
            as_id(dialect, "value ->> 2"),
            dialect.each("$1")
        ));
        let remove = remove.bind_json(removed.iter().map(listed));
        self.transaction(Begin::Erase, async |connection| {
            let moved = advance(connection, lease, Some(at)).await?;
            if moved != Moved::LeaseLost {
                let gone = connection.execute(remove).await?;
                super::projection::write(connection, changes).await?;
                count(connection, erasure, "stays", gone).await?;
            }
            Ok(moved)
        })
        .await
    }

    async fn erase_quarantined(&self, erasure: i64, id: i64) -> Result<(), LogError> {
        let erase = self.query("UPDATE quarantine SET body = $3, reason = $1 WHERE id = $2 AND reason <> $1");
        let erase = erase.bind(FORGOTTEN).bind(id).bind(&[][..]);
        self.transaction(Begin::Erase, async |connection| {
            let erased = connection.execute(erase).await?;
            count(connection, erasure, "quarantined", erased).await
        })
        .await
    }

    async fn erase_host(&self, erasure: i64, run: &RunKey, subject: bool) -> Result<(), LogError> {
        self.transaction(Begin::Erase, async |connection| {
            let mut changed = 0;
            for table in ["meetings", "enrichments"] {
                let erase = connection.query(format!(
                    "UPDATE {table} SET host = NULL, host_user_uuid = NULL, virtual_room = NULL,
                            subject = CASE WHEN $1 THEN NULL ELSE subject END
                      WHERE subscriber_id = $2 AND meeting_uuid = $3 AND coalesce(host, host_user_uuid) IS NOT NULL"
                ));
                let erase = erase.bind(subject).bind(&*run.subscriber_id).bind(&*run.meeting_uuid);
                changed = connection.execute(erase).await?;
            }
            count(connection, erasure, "hosts", changed).await
        })
        .await
    }

    async fn erase_live(&self, texts: &[String]) -> Result<(), LogError> {
        let among = self.dialect().among("$1");
        let calls = self.query(format!("DELETE FROM call_results WHERE call_number {among}")).bind_list(texts);
        let present = self.query(format!(
            "DELETE FROM live_presence
              WHERE participant_id {among} OR user_uuid {among} OR account {among} OR call_number {among}"
        ));
        let present = present.bind_list(texts);
        self.transaction(Begin::Erase, async |connection| {
            connection.execute(calls).await?;
            connection.execute(present).await.map(drop)
        })
        .await
    }

    async fn erase_invitations(&self, erasure: i64, invitations: &[InvitationRow]) -> Result<(), LogError> {
        let erase = self.query(format!(
            "DELETE FROM invitations WHERE (subscriber_id, meeting_uuid, invitee) IN
                    (SELECT value ->> 0, value ->> 1, value ->> 2 FROM {} AS gone)",
            self.dialect().each("$1")
        ));
        let keys =
            invitations.iter().map(|row| [&*row.run.subscriber_id, &*row.run.meeting_uuid, &*row.invitee].to_vec());
        let erase = erase.bind_json(keys);
        self.transaction(Begin::Erase, async |connection| {
            let erased = connection.execute(erase).await?;
            count(connection, erasure, "invitations", erased).await
        })
        .await
    }

    async fn erase_people(&self, erasure: i64, users: &[String]) -> Result<(), LogError> {
        let erase = format!("DELETE FROM people WHERE user_uuid {}", self.dialect().among("$1"));
        let erase = self.query(erase).bind_list(users);
        self.transaction(Begin::Erase, async |connection| {
            let erased = connection.execute(erase).await?;
            count(connection, erasure, "people", erased).await
        })
        .await
    }

    async fn erased_events(&self, erasure: i64) -> Result<Vec<EventId>, LogError> {
        let ids = self.query(format!("SELECT DISTINCT event_id FROM erased_events WHERE {SAME}"));
        Ok(self.all::<(EventId,)>(ids.bind(erasure)).await?.into_iter().map(|(id,)| id).collect())
    }

    async fn erased_meetings(&self, erasure: i64) -> Result<Vec<Option<String>>, LogError> {
        let ids = self.query(format!(
            "SELECT meeting_id FROM erased_events WHERE {SAME} UNION SELECT meeting_id FROM erased_stays WHERE {SAME}"
        ));
        Ok(self.all::<(Option<String>,)>(ids.bind(erasure)).await?.into_iter().map(|(id,)| id).collect())
    }

    async fn count_messages(&self, erasure: i64, messages: u64) -> Result<(), LogError> {
        self.write_with(async |connection| count(connection, erasure, "messages", messages).await).await
    }

    async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError> {
        match self {
            Self::Postgres(log) => log.scrub(vacuum).await,
            Self::Sqlite(log) => log.scrub(vacuum).await,
        }
    }
}
