//! Appending in PostgreSQL.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, PgTransaction};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::{APPEND_SESSION, BEGIN_APPEND, PostgresLog, bounded, partitions, sequence, session, sound};
use crate::log::{Inserted, all_kept, events, outcomes};
use crate::query::Connection;
use crate::statements::{insert_quarantined, note_handshake};
use crate::{Append, Committed, LogError};
use convoke_core::event::{Content, Event};
use convoke_core::id::Seq;

/// Maximum number of bytes of a text in an index.
pub(crate) const MAX_INDEXED_BYTES: usize = 2_000;

impl PostgresLog {
    /// Implements [`Log::append`](crate::Log::append).
    pub async fn append(&self, batch: &[Append]) -> Result<Committed, LogError> {
        let (mut place, mut connection) = self.check_out().await?;
        let mut result = bounded(self.append_on(&mut connection, batch)).await;
        if let Err(LogError::NoPlace(_)) = result {
            result = match bounded(partitions::fill(&mut connection, self.span())).await {
                Ok(_) => bounded(self.append_on(&mut connection, batch)).await,
                Err(error) => Err(LogError::NoPlace(error.into())),
            };
        }
        let sound = match &result {
            Err(error) if error.may_pass() => false,
            // The rollback is sent with the next statement. Do it now, because until then the server is idle in a transaction.
            Err(_) => sound(&mut connection).await,
            Ok(_) => true,
        };
        if sound {
            *place = Some(connection);
        }
        result
    }

    /// Takes the writing connection, and opens it if needed. It is out of its slot while in use: if the caller's future
    /// is dropped or fails, the connection is dropped with it, and the server rolls back.
    async fn check_out(&self) -> Result<(MutexGuard<'_, Option<PgConnection>>, PgConnection), LogError> {
        let mut place = self.writer.lock().await;
        let connection = match place.take() {
            Some(connection) => connection,
            None => {
                let mut connection = bounded(session::connect(&self.hosts)).await?;
                bounded(async { sqlx::raw_sql(APPEND_SESSION).execute(&mut connection).await }).await?;
                // Only now is it certain that this is the complete log: a restored database has its rows, but
                // its sequences may be behind.
                let newest = bounded(sequence::mend(&mut connection)).await?;
                self.newest.store(newest, Ordering::Relaxed);
                connection
            }
        };
        Ok((place, connection))
    }

    async fn append_on(&self, connection: &mut PgConnection, batch: &[Append]) -> Result<Committed, sqlx::Error> {
        let mut tx = connection.begin_with(BEGIN_APPEND).await?;
        let (Inserted { duplicates, first }, newest) = self.insert_events(&mut tx, &events(batch)).await?;
        let rows = &mut Connection::Postgres(&mut tx);
        for append in batch {
            match append.verified.content() {
                // Repeated deliveries were counted by the insert.
                Content::Event(_) => {}
                Content::Unreadable(unreadable) => insert_quarantined(rows, unreadable, append.deliveries).await?,
                Content::Handshake(handshake) => note_handshake(rows, handshake, append.deliveries).await?,
            }
        }
        tx.commit().await?;
        self.newest.fetch_max(newest, Ordering::Relaxed);
        Ok(Committed { outcomes: outcomes(batch, &duplicates), first })
    }

    /// The outcome for the events, and the highest position of a new one.
    async fn insert_events(
        &self,
        tx: &mut PgTransaction<'_>,
        events: &[(&Append, &Event)],
    ) -> Result<(Inserted, i64), sqlx::Error> {
        if events.is_empty() {
            return Ok((Inserted::default(), 0));
        }
        fn column<'a, T>(events: &'a [(&Append, &Event)], of: impl Fn(&'a Event) -> T) -> Vec<T> {
            events.iter().map(|(_, event)| of(event)).collect()
        }
        let stored: Vec<(Uuid, i64)> = sqlx::query_as(
            "INSERT INTO events (event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid,
                 meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number,
                 join_time, left_time, source, deliveries, last_delivered_at, request_id, traceparent, event_info)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                 $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                 $15::text[], $16::timestamptz[], $17::timestamptz[], $18::text[], $19::int[], $20::timestamptz[],
                 $21::text[], $22::text[], $23::text[])
             ON CONFLICT (event_id) DO NOTHING
             RETURNING event_id, seq",
        )
        .bind(column(events, |event| event.event_id.uuid()))
        .bind(column(events, |event| &*event.subscriber_id))
        .bind(column(events, |event| &*event.event))
        .bind(column(events, |event| event.occurred_at))
        .bind(column(events, |event| event.received_at))
        .bind(column(events, |event| {
            event.meeting.id.as_deref().map(|id| &id[..id.floor_char_boundary(MAX_INDEXED_BYTES)])
        }))
        .bind(column(events, |event| event.meeting.uuid.as_deref()))
        .bind(column(events, |event| event.meeting.cycle_sub_id.as_deref()))
        .bind(column(events, |event| event.attendee.user_uuid.as_deref()))
        .bind(column(events, |event| event.attendee.user_agent.as_deref()))
        .bind(column(events, |event| event.attendee.account.as_deref()))
        .bind(column(events, |event| event.attendee.participant_id.as_deref()))
        .bind(column(events, |event| event.attendee.display_name.as_deref()))
        .bind(column(events, |event| event.attendee.role.as_deref()))
        .bind(column(events, |event| event.attendee.call_number.as_deref()))
        .bind(column(events, |event| event.attendee.join_time))
        .bind(column(events, |event| event.attendee.left_time))
        .bind(column(events, |event| event.source.as_str()))
        .bind(events.iter().map(|(append, _)| deliveries(append.deliveries)).collect::<Vec<_>>())
        .bind(events.iter().map(|(append, _)| append.last_delivered_at).collect::<Vec<_>>())
        .bind(column(events, |event| event.request_id.as_deref()))
        .bind(column(events, |event| event.traceparent.as_deref()))
        .bind(column(events, |event| &*event.event_info))
        .fetch_all(&mut **tx)
        .await?;
        // A cursor that has passed these positions would never read the rows.
        let (lowest, newest) = (stored.iter().map(|row| row.1).min(), stored.iter().map(|row| row.1).max());
        let known = self.newest.load(Ordering::Relaxed);
        if lowest.is_some_and(|lowest| lowest <= known) {
            return Err(sqlx::Error::Protocol(format!(
                "the sequence events_seq returned {} after {known}: it was reset",
                lowest.unwrap_or_default()
            )));
        }
        let newest = newest.unwrap_or_default();
        if stored.len() == events.len() {
            let first = stored[0].1;
            let follow = (first..)
                .zip(&stored)
                .zip(events)
                .all(|((expected, (id, seq)), (_, event))| *seq == expected && *id == event.event_id.uuid());
            return Ok((Inserted { duplicates: HashSet::new(), first: follow.then_some(Seq(first)) }, newest));
        }
        let stored: HashSet<Uuid> = stored.into_iter().map(|(id, _)| id).collect();
        let known: Vec<_> = events.iter().filter(|(_, event)| !stored.contains(&event.event_id.uuid())).collect();
        let noted = sqlx::query(
            "UPDATE events
                SET deliveries = events.deliveries + again.deliveries,
                    last_delivered_at = greatest(events.last_delivered_at, again.last_delivered_at)
               FROM unnest($1::uuid[], $2::int[], $3::timestamptz[]) AS again (event_id, deliveries, last_delivered_at)
              WHERE events.event_id = again.event_id",
        )
        .bind(known.iter().map(|(_, event)| event.event_id.uuid()).collect::<Vec<_>>())
        .bind(known.iter().map(|(append, _)| deliveries(append.deliveries)).collect::<Vec<_>>())
        .bind(known.iter().map(|(append, _)| append.last_delivered_at).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
        all_kept(known.len(), noted.rows_affected())?;
        let duplicates = known.iter().map(|(_, event)| event.event_id).collect();
        Ok((Inserted { duplicates, first: None }, newest))
    }
}

/// The column is an `int`, which no count reaches.
fn deliveries(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
