//! Deletes what is beyond the retention in SQLite.

use std::time::Duration;

use uuid::Uuid;

use super::SqliteLog;
use crate::LogError;
use crate::query::{Connection, Dialect, Query};
use crate::retention::{self, RetentionQueries};
use convoke_core::id::EventId;
use convoke_core::time::{Millis, instant};

/// Rows deleted per statement.
const MAX_EXPIRED_ROWS: i64 = 500;

/// Pause after a search that found nothing: this long, or this multiple of the duration of the search.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
const REST_FACTOR: u32 = 60;

impl SqliteLog {
    /// Deletes some of the rows that are beyond the retention and that every cursor has read.
    pub async fn expire(&self, common: &dyn RetentionQueries, now: Millis) -> Result<(), LogError> {
        if self.retention.is_none() && self.quarantine_retention.is_none() {
            return Ok(());
        }
        let mut looking = self.expiry.lock().await;
        if looking.rests.is_some_and(|(at, rest)| now >= at && now.since(at) < rest) {
            return Ok(());
        }
        let begun = instant();
        let mut deleted = 0;
        let known = common.known_of_retention(now).await?;
        let [events, quarantine] = known.allows(now, [self.retention, self.quarantine_retention]);
        if looking.after.is_none() && (events.is_some() || quarantine.is_some()) {
            common.keep_note(retention::SEEN_NOTE, &now.to_string()).await?;
        }
        if let Some(retention) = events {
            let before = now.minus(retention);
            // Searched without the writer, and from the last deleted row on: many old rows may have to stay because
            // they are unread or were received recently.
            let expired = Query::new(
                Dialect::Sqlite,
                "SELECT seq, event_id FROM events
                  WHERE event_id > $1 AND event_id < $2 AND received_at < $3
                    AND seq <= coalesce((SELECT min(position) FROM cursors), 9223372036854775807)
                  ORDER BY event_id LIMIT $4",
            );
            let expired = expired
                .bind(looking.after.unwrap_or(EventId::from_uuid(Uuid::nil())))
                .bind(EventId::lower_bound(before))
                .bind(before)
                .bind(MAX_EXPIRED_ROWS);
            let expired: Vec<(i64, EventId)> = self.read(async |connection| connection.fetch(expired).await).await?;
            looking.after = expired.last().map(|(_, event_id)| *event_id);
            if looking.after.is_some() {
                let delete = "DELETE FROM events WHERE seq IN (SELECT value FROM json_each($1))";
                let delete = Query::new(Dialect::Sqlite, delete).bind_json(expired.iter().map(|(seq, _)| *seq));
                deleted += self.write(async |connection| Connection::Sqlite(connection).execute(delete).await).await?;
            }
        }
        if let Some(retention) = quarantine {
            deleted += common.expire_quarantine(now.minus(retention), MAX_EXPIRED_ROWS).await?;
        }
        if deleted == 0 {
            looking.rests = Some((now, RETENTION_INTERVAL.max(begun.elapsed() * REST_FACTOR)));
        }
        Ok(())
    }
}

/// The progress of the search for rows beyond the retention.
#[derive(Default)]
pub struct Expiry {
    /// The id of the last deleted row, if there may be more after it.
    after: Option<EventId>,
    /// When there was last nothing to delete, and for how long to rest.
    rests: Option<(Millis, Duration)>,
}
