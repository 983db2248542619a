//! Appending in SQLite.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, Row as _};

use super::SqliteLog;
use crate::log::{Inserted, all_kept, events, outcomes};
use crate::query::Connection;
use crate::statements::{insert_quarantined, note_handshake};
use crate::{Append, Appended, Committed, LogError};
use convoke_core::event::{Content, Event};
use convoke_core::id::{EventId, Seq};

const COLUMNS: &str = "event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, \
     meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number, join_time, \
     left_time, source, deliveries, last_delivered_at, request_id, traceparent, event_info";
const PLACEHOLDERS: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const COLUMN_COUNT: usize = 23;

/// Row counts of the insert statements: few different statements, each prepared once and cached. Unused rows stay
/// unbound, which is NULL, and are skipped.
const ROWS: [usize; 14] = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

/// One statement for each of [`ROWS`]. After an error the connection is closed, so that nothing needs to be kept for going back to
/// the beginning of the statement alone: without `OR ROLLBACK`, SQLite copies each page before the first change.
pub type Inserts = [Arc<str>; ROWS.len()];

pub fn inserts() -> Inserts {
    ROWS.map(|rows| {
        let values = vec![PLACEHOLDERS; rows].join(", ");
        Arc::from(format!(
            "BEGIN IMMEDIATE;
             SELECT coalesce(max(seq), 0) FROM events;
             INSERT OR ROLLBACK INTO events ({COLUMNS}) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL
                 ON CONFLICT (event_id) DO NOTHING;
             SELECT changes(), last_insert_rowid();
             COMMIT"
        ))
    })
}

impl SqliteLog {
    /// Implements [`Log::append`](crate::Log::append).
    pub async fn append(&self, batch: &[Append]) -> Result<Committed, LogError> {
        self.write(async |connection| {
            let Inserted { duplicates, first } = self.insert_events(connection, &events(batch)).await?;
            let outcomes = outcomes(batch, &duplicates);
            if outcomes.iter().any(|outcome| *outcome != Appended::Stored) {
                Self::note(connection, batch, &outcomes).await?;
            }
            Ok(Committed { outcomes, first })
        })
        .await
    }

    /// Commits the new ones among `events`, in transactions of as many rows as a statement can hold.
    async fn insert_events(
        &self,
        connection: &mut SqliteConnection,
        events: &[(&Append, &Event)],
    ) -> Result<Inserted, sqlx::Error> {
        let mut all = Inserted::default();
        for chunk in events.chunks(ROWS[ROWS.len() - 1]) {
            let shape = ROWS.iter().position(|rows| *rows >= chunk.len()).unwrap_or(ROWS.len() - 1);
            let mut arguments = SqliteArguments::default();
            sqlx::Arguments::reserve(&mut arguments, chunk.len() * COLUMN_COUNT, 0);
            for (append, event) in chunk {
                bind(&mut arguments, append, event).map_err(sqlx::Error::Encode)?;
            }
            let sql = AssertSqlSafe(Arc::clone(&self.inserts[shape]));
            let rows = sqlx::query_with(sql, arguments).fetch_all(&mut *connection).await?;
            let [newest, done] = &rows[..] else {
                return Err(sqlx::Error::Protocol("an INSERT answered otherwise than it should".to_owned()));
            };
            let (inserted, last): (i64, i64) = (done.try_get(0)?, done.try_get(1)?);
            let count = i64::try_from(chunk.len()).unwrap_or(i64::MAX);
            if inserted == count {
                // There is one writer and no row was skipped, so the numbers are consecutive. The first one is reported
                // only if the batch was a single chunk.
                all.first = (chunk.len() == events.len()).then_some(Seq(last - count + 1));
            } else {
                let known = Self::known(connection, chunk, newest.try_get(0)?).await?;
                all_kept(chunk.len(), u64::try_from(inserted).unwrap_or(0) + known.len() as u64)?;
                all.duplicates.extend(known);
            }
        }
        Ok(all)
    }

    /// The events that were in the log already: their positions are not above its earlier end.
    async fn known(
        connection: &mut SqliteConnection,
        events: &[(&Append, &Event)],
        newest: i64,
    ) -> Result<Vec<EventId>, sqlx::Error> {
        let ids = serde_json::Value::from_iter(events.iter().map(|(_, event)| event.event_id.to_string())).to_string();
        let rows =
            sqlx::query("SELECT event_id FROM events WHERE event_id IN (SELECT value FROM json_each(?)) AND seq <= ?")
                .bind(ids)
                .bind(newest)
                .fetch_all(connection)
                .await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Records in one transaction what is not new: repeated deliveries, bodies for the quarantine, handshakes.
    async fn note(
        connection: &mut SqliteConnection,
        batch: &[Append],
        outcomes: &[Appended],
    ) -> Result<(), sqlx::Error> {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        let rows = &mut Connection::Sqlite(&mut tx);
        for (append, outcome) in batch.iter().zip(outcomes) {
            match append.verified.content() {
                Content::Event(event) if *outcome == Appended::Duplicate => {
                    let again = rows.query(
                        "UPDATE events SET deliveries = deliveries + $1, last_delivered_at = max(last_delivered_at, $2)
                          WHERE event_id = $3",
                    );
                    let again = again.bind(i64::from(append.deliveries)).bind(append.last_delivered_at);
                    all_kept(1, rows.execute(again.bind(event.event_id)).await?)?;
                }
                Content::Event(_) => {}
                Content::Unreadable(unreadable) => insert_quarantined(rows, unreadable, append.deliveries).await?,
                Content::Handshake(handshake) => note_handshake(rows, handshake, append.deliveries).await?,
            }
        }
        tx.commit().await
    }
}

fn bind(to: &mut SqliteArguments, append: &Append, event: &Event) -> Result<(), sqlx::error::BoxDynError> {
    let received_at = event.received_at.text();
    let last_delivered_at = if append.last_delivered_at == event.received_at {
        Arc::clone(&received_at)
    } else {
        append.last_delivered_at.text()
    };
    to.add(event.event_id)?;
    to.add(Arc::clone(&event.subscriber_id))?;
    to.add(Arc::clone(&event.event))?;
    to.add(event.occurred_at)?;
    to.add(received_at)?;
    for column in event.optional_texts() {
        to.add(column.clone())?;
    }
    to.add(event.attendee.join_time)?;
    to.add(event.attendee.left_time)?;
    to.add(event.source.as_str())?;
    to.add(append.deliveries)?;
    to.add(last_delivered_at)?;
    to.add(event.request_id.clone())?;
    to.add(event.traceparent.clone())?;
    to.add(Arc::clone(&event.event_info))
}
