//! The log itself.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::Backend;
use super::rows::{RECORD, RecordRow};
use crate::query::Begin;
use crate::query::Connection;
use crate::statements::insert_quarantined;
use crate::{Append, Committed, CursorState, Heartbeat, Lag, Lease, Leased, Log, LogError, LogReader, Moved};
use convoke_core::event::{Record, Unreadable};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

#[async_trait]
impl LogReader for Backend {
    async fn read(&self, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        let read = self.query(format!("SELECT {RECORD} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2"));
        let rows = self.along(read.bind(after).bind(i64::from(limit))).await?;
        Ok(rows.into_iter().map(|RecordRow(record)| record).collect())
    }

    async fn head(&self) -> Result<Seq, LogError> {
        let (head,) = self.one::<(Seq,)>(self.query("SELECT coalesce(max(seq), 0) FROM events")).await?;
        if let Self::Postgres(log) = self {
            log.appended_up_to(head);
        }
        Ok(head)
    }

    async fn now(&self) -> Result<Millis, LogError> {
        self.one::<(Millis,)>(self.query(format!("SELECT {}", self.dialect().now()))).await.map(|(now,)| now)
    }

    async fn cursors(&self) -> Result<Vec<CursorState>, LogError> {
        let now = self.dialect().now();
        self.all(self.query(format!(
            "SELECT name, position, CASE WHEN lease_until > {now} THEN lease_owner END AS owner FROM cursors ORDER BY name"
        )))
        .await
    }

    async fn lag(&self, cursor: &str) -> Result<Lag, LogError> {
        let position = self.query("SELECT coalesce((SELECT position FROM cursors WHERE name = $1), 0)").bind(cursor);
        let unread = self.query(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM events WHERE seq > $1 ORDER BY seq LIMIT $2) AS unread),
                    (SELECT max(seq) FROM events) - $1,
                    (SELECT received_at FROM events WHERE seq > $1 ORDER BY seq LIMIT 1)",
        );
        let found: Option<(i64, Option<i64>, Option<Millis>)> = self
            .transaction(Begin::ReadLog, async |connection| {
                let position: Option<(i64,)> = connection.optional(position).await?;
                let position = position.map_or(0, |(position,)| position);
                connection.optional(unread.bind(position).bind(Lag::EXACT)).await
            })
            .await?;
        let (counted, distance, oldest) = found.unwrap_or_default();
        let events = if counted < Lag::EXACT { counted } else { counted.max(distance.unwrap_or(0)) };
        Ok(Lag { events: events.unsigned_abs(), oldest })
    }

    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError> {
        let now = self.dialect().now();
        // Only a file can have been copied.
        let file = if let Self::Sqlite(_) = self { "file" } else { "CAST(NULL AS bigint)" };
        let heartbeat = self.query(format!("SELECT at, {now}, {file} FROM heartbeat"));
        let heartbeat: Option<(Millis, Millis, Option<i64>)> = self.optional(heartbeat).await?;
        Ok(heartbeat.map(|(at, now, file)| {
            let elsewhere = matches!(self, Self::Sqlite(log) if log.is_copy(file));
            Heartbeat { at, age: now.since(at), elsewhere }
        }))
    }

    fn appended_elsewhere(&self) -> watch::Receiver<()> {
        match self {
            Self::Postgres(log) => log.appended_elsewhere(),
            Self::Sqlite(_) => watch::channel(()).1,
        }
    }
}

#[async_trait]
impl Log for Backend {
    async fn append(&self, batch: &[Append]) -> Result<Committed, LogError> {
        match self {
            Self::Postgres(log) => log.append(batch).await,
            Self::Sqlite(log) => log.append(batch).await,
        }
    }

    async fn quarantine(&self, unreadable: &Unreadable, deliveries: u32) -> Result<(), LogError> {
        self.transaction(Begin::Write, async |connection| insert_quarantined(connection, unreadable, deliveries).await)
            .await
    }

    async fn probe(&self) -> Result<(), LogError> {
        let probe = self.query(format!(
            "INSERT INTO probe (id, at) VALUES (1, {}) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
            self.dialect().now()
        ));
        self.transaction(Begin::LockLog, async |connection| connection.execute(probe).await.map(drop)).await
    }

    async fn record_heartbeat(&self) -> Result<(), LogError> {
        let now = self.dialect().now();
        let heartbeat = match self {
            Self::Postgres(_) => self.query(format!(
                "INSERT INTO heartbeat (id, at) VALUES (1, {now}) ON CONFLICT (id) DO UPDATE SET at = excluded.at"
            )),
            Self::Sqlite(log) => self
                .query(format!(
                    "INSERT INTO heartbeat (id, at, file) VALUES (1, {now}, $1)
                     ON CONFLICT (id) DO UPDATE SET at = excluded.at, file = excluded.file"
                ))
                .bind(log.mark()),
        };
        self.write(heartbeat).await.map(drop)
    }

    async fn lease(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<Option<Leased>, LogError> {
        let (now, end) = (self.dialect().now(), self.dialect().in_seconds("$3"));
        let far = self.dialect().in_seconds("2 * $3");
        let lease = self.query(format!(
            "INSERT INTO cursors AS c (name, position, lease_owner, lease_until, updated_at)
             VALUES ($1, 0, $2, {end}, {now})
             ON CONFLICT (name) DO UPDATE SET lease_owner = excluded.lease_owner, lease_until = excluded.lease_until
              WHERE c.lease_owner IS NULL OR c.lease_owner = excluded.lease_owner
                 OR c.lease_until NOT BETWEEN {now} AND {far}
             RETURNING position, coalesce(wanted_by <> $2 AND wanted_until > {now}, false) AS wanted"
        ));
        let lease = lease.bind(cursor).bind(owner).bind(ttl.as_secs_f64());
        self.write_with(async |connection| connection.optional(lease).await).await
    }

    async fn advance(&self, cursor: &str, owner: &str, to: Seq, ttl: Duration) -> Result<Moved, LogError> {
        let lease = Lease { cursor, owner, ttl };
        self.write_with(async |connection| advance(connection, lease, Some(to)).await).await
    }

    async fn claim(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<(), LogError> {
        let (now, end) = (self.dialect().now(), self.dialect().in_seconds("$3"));
        let claim = self.query(format!(
            "UPDATE cursors SET wanted_by = $2, wanted_until = {end}
              WHERE name = $1 AND (wanted_by IS NULL OR wanted_by = $2 OR wanted_until <= {now})"
        ));
        self.write(claim.bind(cursor).bind(owner).bind(ttl.as_secs_f64())).await.map(drop)
    }

    async fn release(&self, cursor: &str, owner: &str) -> Result<(), LogError> {
        let now = self.dialect().now();
        let release = self.query(format!(
            "UPDATE cursors SET lease_owner = CASE WHEN wanted_by <> $2 AND wanted_until > {now} THEN wanted_by END,
                    lease_until = wanted_until, wanted_by = NULL, wanted_until = NULL
              WHERE name = $1 AND lease_owner = $2"
        ));
        self.write(release.bind(cursor).bind(owner)).await.map(drop)
    }

    async fn set_aside(&self, cursor: &str, seq: Seq, id: EventId, reason: &str) -> Result<(), LogError> {
        let insert = self.query(format!(
            "INSERT INTO set_aside (cursor, seq, event_id, reason, at) VALUES ($1, $2, $3, $4, {})
             ON CONFLICT DO NOTHING",
            self.dialect().now()
        ));
        self.write(insert.bind(cursor).bind(seq).bind(id).bind(reason)).await.map(drop)
    }
}

/// Moves a cursor forward, or back to the start, if the owner still holds the lease.
pub(super) async fn advance(
    connection: &mut Connection<'_>,
    lease: Lease<'_>,
    to: Option<Seq>,
) -> Result<Moved, sqlx::Error> {
    let (now, end) = (connection.dialect().now(), connection.dialect().in_seconds("$4"));
    let advance = connection.query(format!(
        "UPDATE cursors SET position = coalesce($3, 0), updated_at = {now}, lease_until = {end}
          WHERE name = $1 AND lease_owner = $2 AND lease_until > {now} AND ($3 IS NULL OR position <= $3)
         RETURNING coalesce(wanted_by <> $2 AND wanted_until > {now}, false)"
    ));
    let advance = advance.bind(lease.cursor).bind(lease.owner).bind(to).bind(lease.ttl.as_secs_f64());
    let moved: Option<(bool,)> = connection.optional(advance).await?;
    Ok(moved.map_or(Moved::LeaseLost, |(wanted,)| Moved::Yes { wanted }))
}
