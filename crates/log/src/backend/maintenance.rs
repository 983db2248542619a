//! Maintenance, and information about a database.

use std::time::Duration;

use async_trait::async_trait;

use super::Backend;
use crate::disk::Disk;
use crate::maintenance::COUNT_QUARANTINED;
use crate::query::Begin;
use crate::retention::{self, Known, RetentionQueries};
use crate::{Counts, DaysKept, LogError, Maintenance, RetentionHeld, Schema};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;
use convoke_core::zone::TimeZone;

#[async_trait]
impl Maintenance for Backend {
    fn describe(&self) -> String {
        match self {
            Self::Postgres(log) => log.describe(),
            Self::Sqlite(log) => log.describe(),
        }
    }

    async fn migrate(&self, apply: bool) -> Result<Schema, LogError> {
        match self {
            Self::Postgres(log) => log.migrate(apply).await,
            Self::Sqlite(log) => log.migrate(apply).await,
        }
    }

    async fn maintain(&self, now: Millis) -> Result<(), LogError> {
        match self {
            Self::Postgres(log) => log.maintain(self, now).await,
            Self::Sqlite(log) => log.maintain(self, now).await,
        }
    }

    async fn keep_days(&self, zone: &TimeZone, now: Millis, replace: bool) -> Result<DaysKept, LogError> {
        self.write_days(zone, now, replace).await
    }

    async fn days_zone(&self) -> Result<Option<String>, LogError> {
        let found: Option<(String,)> =
            self.optional(self.query("SELECT time_zone FROM days ORDER BY day LIMIT 1")).await?;
        Ok(found.map(|(zone,)| zone))
    }

    async fn retention_held(&self, now: Millis) -> Result<Option<RetentionHeld>, LogError> {
        let retention = match self {
            Self::Postgres(log) => log.retention,
            Self::Sqlite(log) => log.retention,
        };
        let Some(retention) = retention else { return Ok(None) };
        Ok(self.known_of_retention(now).await?.held(now, retention))
    }

    fn maintenance_interval(&self) -> Duration {
        match self {
            Self::Postgres(_) => Duration::from_secs(5),
            Self::Sqlite(_) => Duration::from_millis(100),
        }
    }

    async fn listen(&self) {
        match self {
            Self::Postgres(log) => log.listen().await,
            Self::Sqlite(_) => std::future::pending().await,
        }
    }

    async fn weaknesses(&self) -> Result<Vec<String>, LogError> {
        match self {
            Self::Postgres(log) => log.weaknesses().await,
            Self::Sqlite(log) => Ok(log.weaknesses()),
        }
    }

    fn disk(&self) -> Option<Disk> {
        match self {
            Self::Postgres(_) => None,
            Self::Sqlite(log) => log.disk(),
        }
    }

    async fn counts(&self) -> Result<Counts, LogError> {
        let [quarantined, set_aside, handshakes] = [
            COUNT_QUARANTINED,
            "SELECT cursor, count(*) FROM set_aside GROUP BY cursor",
            "SELECT subscriber_id, at FROM handshakes",
        ]
        .map(|sql| self.query(sql));
        self.read(async |connection| {
            let quarantined: Vec<(i64,)> = connection.fetch(quarantined).await?;
            let set_aside: Vec<(String, i64)> = connection.fetch(set_aside).await?;
            let handshakes: Vec<(String, Millis)> = connection.fetch(handshakes).await?;
            Ok(Counts {
                quarantined: quarantined.first().map_or(0, |(count,)| *count),
                set_aside: set_aside.into_iter().collect(),
                handshakes: handshakes.into_iter().collect(),
            })
        })
        .await
    }

    async fn close(&self) {
        match self {
            Self::Postgres(log) => log.close().await,
            Self::Sqlite(log) => log.close().await,
        }
    }
}

#[async_trait]
impl RetentionQueries for Backend {
    async fn known_of_retention(&self, now: Millis) -> Result<Known, LogError> {
        let times = self.query(
            "SELECT (SELECT occurred_at FROM events WHERE event_id < $1 AND source <> 'platform'
                      ORDER BY event_id DESC LIMIT 1),
                    (SELECT received_at FROM events ORDER BY seq DESC LIMIT 1),
                    (SELECT note FROM task_notes WHERE name = $2)",
        );
        let times = times.bind(EventId::lower_bound(now.plus(retention::MAX_AHEAD_TIME))).bind(retention::SEEN_NOTE);
        let slowest = self.query("SELECT name, position FROM cursors ORDER BY position LIMIT 1");
        let unread = self.query("SELECT received_at FROM events WHERE seq > $1 ORDER BY seq LIMIT 1");
        self.transaction(Begin::ReadLog, async |connection| {
            let times: Option<(Option<Millis>, Option<Millis>, Option<String>)> = connection.optional(times).await?;
            let (happened, received, seen) = times.unwrap_or_default();
            let slowest: Option<(String, i64)> = connection.optional(slowest).await?;
            let position = slowest.as_ref().map(|(_, position)| Seq(*position));
            let unread: Option<(Millis,)> = connection.optional(unread.bind(position)).await?;
            let seen = seen.as_deref().and_then(Millis::parse);
            Ok(Known { happened, received, seen, slowest, unread: unread.map(|(at,)| at) })
        })
        .await
    }

    async fn expire_quarantine(&self, before: Millis, limit: i64) -> Result<u64, LogError> {
        let delete = "DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine WHERE received_at < $1 LIMIT $2)";
        self.write(self.query(delete).bind(before).bind(limit)).await
    }
}
