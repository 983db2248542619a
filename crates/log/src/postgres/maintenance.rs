//! Maintenance in PostgreSQL.

use std::time::Duration;

use sqlx::Connection as _;

use super::{PostgresLog, bounded, failed, partitions, sequence, session, trouble};
use crate::migrations::run_migrations;
use crate::retention::{self, RetentionQueries};
use crate::{LogError, Schema, Unmigrated};
use convoke_core::time::Millis;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/postgres");

/// Timeouts of migrations, which may have much to do, and of partition maintenance.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);
const UPKEEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout of closing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Quarantine entries deleted per statement.
const MAX_EXPIRED_ROWS: i64 = 1_000;

impl PostgresLog {
    pub fn describe(&self) -> String {
        self.hosts.describe()
    }

    pub async fn migrate(&self, apply: bool) -> Result<Schema, LogError> {
        let mut connection =
            session::open(&self.hosts).await.map_err(|error| trouble::explain_at(&self.hosts, error))?;
        let encoding: String =
            bounded(sqlx::query_scalar("SELECT current_setting('server_encoding')").fetch_one(&mut connection)).await?;
        if encoding != "UTF8" {
            return Err(LogError::Schema(format!(
                "the database's encoding is {encoding}, which cannot store every name: create a UTF-8 database for \
                 Convoke (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0), and name it in database.url"
            )));
        }
        // A replica may have to wait for another one's long migration. But a database that stops responding in between
        // must not keep the service from starting.
        bounded(sqlx::query("SET lock_timeout = 0").execute(&mut connection)).await?;
        let explain = |error| trouble::explain_at(&self.hosts, trouble::explain(error));
        let place = self.hosts.describe();
        let work = async {
            let found = run_migrations(&MIGRATIONS, &mut connection, false, place.clone(), explain).await;
            match found {
                Err(LogError::Unmigrated { tables: Unmigrated::Empty, .. }) => {
                    trouble::ask_for_room(&mut connection, &place).await?;
                }
                Err(LogError::Unmigrated { .. }) => {}
                found => return found,
            }
            if !apply {
                return found;
            }
            run_migrations(&MIGRATIONS, &mut connection, true, place.clone(), explain).await
        };
        let schema = tokio::time::timeout(MIGRATION_TIMEOUT, work)
            .await
            .map_err(|_| LogError::unavailable(format!("no answer within {MIGRATION_TIMEOUT:?}")))??;
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "closing the connection that migrated");
        }
        Ok(schema)
    }

    pub async fn maintain(&self, common: &dyn RetentionQueries, now: Millis) -> Result<(), LogError> {
        let mut maintained = self.maintained.lock().await;
        if maintained.is_some_and(|last| now.since(last) < partitions::EXTEND_INTERVAL && now >= last) {
            return Ok(());
        }
        let work = async {
            partitions::extend(&self.hosts, now, self.span()).await.map_err(failed_upkeep)?;
            let mut more = false;
            let known = common.known_of_retention(now).await?;
            let [events, quarantine] = known.allows(now, [self.retention, self.quarantine_retention]);
            if events.is_some() || quarantine.is_some() {
                common.keep_note(retention::SEEN_NOTE, &now.to_string()).await?;
            }
            if let Some(retention) = events {
                more |= partitions::expire(&self.hosts, now.minus(retention)).await.map_err(failed_upkeep)?;
            }
            if let Some(retention) = quarantine {
                let deleted = common.expire_quarantine(now.minus(retention), MAX_EXPIRED_ROWS).await?;
                more |= deleted == MAX_EXPIRED_ROWS.unsigned_abs();
            }
            Ok(more)
        };
        let Ok(done) = tokio::time::timeout(UPKEEP_TIMEOUT, work).await else {
            return Err(LogError::unavailable(format!("no answer within {UPKEEP_TIMEOUT:?}")));
        };
        match done {
            Ok(true) => Ok(()),
            Ok(false) => {
                *maintained = Some(now);
                Ok(())
            }
            Err(Upkeep::InTheWay(error)) => {
                // Another transaction holds the lock, for example a backup. This is not urgent, and waiting for the
                // lock blocks all other transactions for a moment.
                *maintained = Some(now.minus(partitions::EXTEND_INTERVAL - partitions::RETRY_DELAY));
                Err(error)
            }
            Err(Upkeep::Failed(error)) => Err(error),
        }
    }

    pub async fn weaknesses(&self) -> Result<Vec<String>, LogError> {
        bounded(async {
            let mut connection = self.pool.acquire().await?;
            let off: Vec<String> = sqlx::query_scalar(
                "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name",
            )
            .fetch_all(&mut *connection)
            .await?;
            let unlogged: Vec<String> = sqlx::query_scalar(
                "SELECT relname::text FROM pg_class
                  WHERE oid IN (SELECT relid FROM pg_partition_tree('events') UNION ALL
                                VALUES ('quarantine'::regclass), ('cursors'::regclass))
                    AND relkind = 'r' AND relpersistence <> 'p' ORDER BY relname",
            )
            .fetch_all(&mut *connection)
            .await?;
            let setting = |name: &String| {
                format!("the server has {name} = off, so a power cut may destroy the database: set {name} = on")
            };
            let table = |name: &String| {
                format!("the table {name} is unlogged, so a crash of the server empties it: ALTER TABLE {name} SET LOGGED")
            };
            let mut weaknesses: Vec<String> = off.iter().map(setting).chain(unlogged.iter().map(table)).collect();
            weaknesses.extend(sequence::weakness(&mut connection).await?);
            Ok(weaknesses)
        })
        .await
    }

    pub async fn close(&self) {
        let politely = async {
            if let Some(connection) = self.writer.lock().await.take()
                && let Err(error) = connection.close().await
            {
                tracing::debug!(%error, "closing the writing connection");
            }
            tokio::join!(self.pool.close(), self.people.close(), self.listeners.close());
        };
        // A database that does not respond cannot close its connections; the server ends them later.
        if tokio::time::timeout(CLOSE_TIMEOUT, politely).await.is_err() {
            tracing::debug!("the database did not answer when its connections were closed");
        }
    }

    /// The length of the partitions.
    pub fn span(&self) -> partitions::Span {
        if self.retention.is_some() { partitions::Span::Month } else { partitions::Span::Year }
    }
}

/// Why maintenance did not finish.
enum Upkeep {
    /// Another transaction holds a lock.
    InTheWay(LogError),
    Failed(LogError),
}

impl From<LogError> for Upkeep {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

fn failed_upkeep(error: sqlx::Error) -> Upkeep {
    if partitions::is_lock_timeout(&error) { Upkeep::InTheWay(failed(error)) } else { Upkeep::Failed(failed(error)) }
}
