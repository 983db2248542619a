//! Statements that write a batch of events into Convoke's table with the least work that keeps them: what the floor and the
//! batched peer do.

use convoke_core::event::Event;
use convoke_core::time::Millis;
use convoke_log as log;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};

const COLUMNS: &str = "event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid,
     meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number, join_time,
     left_time, source, deliveries, last_delivered_at, event_info";

/// Makes the tables of a new database: the same as Convoke's, with the same columns and indexes.
pub async fn migrate(url: &str) {
    let log = log::open(&log::Options { url: url.to_owned(), ..log::Options::default() }).expect("a sound URL");
    log.migrate(true).await.expect("a new database");
    log.maintain(convoke_core::time::Clock::System.now()).await.expect("a new database");
    log.close().await;
}

/// One statement, which commits by itself, with an array for each column. A copy changes nothing.
pub async fn insert_postgres(connection: &mut PgConnection, events: &[&Event]) -> Result<(), sqlx::Error> {
    fn column<'a, T>(events: &[&'a Event], of: impl Fn(&'a Event) -> T) -> Vec<T> {
        events.iter().map(|event| of(event)).collect()
    }
    let sql = format!(
        "INSERT INTO events ({COLUMNS})
         SELECT a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, 'push', 1, e, r
           FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
                $16::timestamptz[], $17::timestamptz[], $18::text[])
             AS t (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r)
         ON CONFLICT (event_id) DO NOTHING"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(column(events, |event| event.event_id.uuid()))
        .bind(column(events, |event| &*event.subscriber_id))
        .bind(column(events, |event| &*event.event))
        .bind(column(events, |event| event.occurred_at.date_time()))
        .bind(column(events, |event| event.received_at.date_time()))
        .bind(column(events, |event| event.meeting.id.as_deref()))
        .bind(column(events, |event| event.meeting.uuid.as_deref()))
        .bind(column(events, |event| event.meeting.cycle_sub_id.as_deref()))
        .bind(column(events, |event| event.attendee.user_uuid.as_deref()))
        .bind(column(events, |event| event.attendee.user_agent.as_deref()))
        .bind(column(events, |event| event.attendee.account.as_deref()))
        .bind(column(events, |event| event.attendee.participant_id.as_deref()))
        .bind(column(events, |event| event.attendee.display_name.as_deref()))
        .bind(column(events, |event| event.attendee.role.as_deref()))
        .bind(column(events, |event| event.attendee.call_number.as_deref()))
        .bind(column(events, |event| event.attendee.join_time.map(Millis::date_time)))
        .bind(column(events, |event| event.attendee.left_time.map(Millis::date_time)))
        .bind(column(events, |event| &*event.event_info))
        .execute(connection)
        .await
        .map(drop)
}

/// One transaction of a prepared statement for each event.
pub async fn insert_sqlite(connection: &mut SqliteConnection, events: &[&Event]) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO events ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, 'push', 1, ?5, ?18)
         ON CONFLICT (event_id) DO NOTHING"
    );
    let mut transaction = connection.begin().await?;
    for event in events {
        sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(event.event_id.to_string())
            .bind(&*event.subscriber_id)
            .bind(&*event.event)
            .bind(event.occurred_at.to_string())
            .bind(event.received_at.to_string())
            .bind(event.meeting.id.as_deref())
            .bind(event.meeting.uuid.as_deref())
            .bind(event.meeting.cycle_sub_id.as_deref())
            .bind(event.attendee.user_uuid.as_deref())
            .bind(event.attendee.user_agent.as_deref())
            .bind(event.attendee.account.as_deref())
            .bind(event.attendee.participant_id.as_deref())
            .bind(event.attendee.display_name.as_deref())
            .bind(event.attendee.role.as_deref())
            .bind(event.attendee.call_number.as_deref())
            .bind(event.attendee.join_time.map(|time| time.to_string()))
            .bind(event.attendee.left_time.map(|time| time.to_string()))
            .bind(&*event.event_info)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
