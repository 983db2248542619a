//! Upkeep in PostgreSQL.

use super::*;
use crate::disk::Disk;
use crate::maintenance::COUNT_QUARANTINED;
use crate::migrations::run_migrations;
use crate::{Counts, Maintenance, Notes, RetentionHeld, Schema, Unmigrated};

#[async_trait]
impl Maintenance for PostgresLog {
    fn describe(&self) -> String {
        self.hosts.describe()
    }

    async fn migrate(&self, apply: bool) -> Result<Schema, LogError> {
        let mut connection =
            session::open(&self.hosts).await.map_err(|error| trouble::explain_at(&self.hosts, error))?;
        let encoding: String =
            bounded(sqlx::query_scalar("SELECT current_setting('server_encoding')").fetch_one(&mut connection)).await?;
        if encoding != "UTF8" {
            return Err(LogError::Schema(format!(
                "the database's encoding is {encoding}, in which not every name has a place: make another one for Convoke (CREATE \
                 DATABASE … ENCODING 'UTF8' TEMPLATE template0), and name it in database.url"
            )));
        }
        // A replica may be waiting for another one's migration, which may take long; but a database that fell silent in the
        // middle must not keep the service from ever starting.
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
        let schema = tokio::time::timeout(MIGRATION, work)
            .await
            .map_err(|_| LogError::unavailable(format!("no answer within {MIGRATION:?}")))??;
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "closing the connection that migrated");
        }
        Ok(schema)
    }

    async fn maintain(&self, now: Millis) -> Result<(), LogError> {
        let mut maintained = self.maintained.lock().await;
        if maintained.is_some_and(|last| now.since(last) < partitions::EVERY && now >= last) {
            return Ok(());
        }
        let work = async {
            partitions::extend(&self.hosts, now, self.span()).await.map_err(failed_upkeep)?;
            let mut more = false;
            let known = self.known_of_retention(now).await?;
            let [events, quarantine] = known.allows(now, [self.retention, self.quarantine_retention]);
            if events.is_some() || quarantine.is_some() {
                self.keep_note(retention::SEEN, &now.to_string()).await?;
            }
            if let Some(retention) = events {
                more |= partitions::expire(&self.hosts, now.minus(retention)).await.map_err(failed_upkeep)?;
            }
            if let Some(retention) = quarantine {
                more |= self.expire_quarantine(now.minus(retention)).await?;
            }
            Ok(more)
        };
        let Ok(done) = tokio::time::timeout(UPKEEP, work).await else {
            return Err(LogError::unavailable(format!("no answer within {UPKEEP:?}")));
        };
        match done {
            Ok(true) => Ok(()),
            Ok(false) => {
                *maintained = Some(now);
                Ok(())
            }
            Err(Upkeep::InTheWay(error)) => {
                // Somebody's transaction is in the way, a backup say. There is no hurry, and asking for the lock holds
                // everybody else up for a moment.
                *maintained = Some(now.minus(partitions::EVERY - partitions::AGAIN));
                Err(error)
            }
            Err(Upkeep::Failed(error)) => Err(error),
        }
    }

    async fn retention_held(&self, now: Millis) -> Result<Option<RetentionHeld>, LogError> {
        let Some(retention) = self.retention else { return Ok(None) };
        Ok(self.known_of_retention(now).await?.held(now, retention))
    }

    fn maintenance_interval(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn listen(&self) {
        loop {
            // Listening is a help, not a need: whatever fails here, the cursors look by themselves now and then.
            if let Err(error) = self.hear().await {
                tracing::debug!(%error, "does not hear of what other replicas append");
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    async fn weaknesses(&self) -> Result<Vec<String>, LogError> {
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

    fn disk(&self) -> Option<Disk> {
        None
    }

    async fn counts(&self) -> Result<Counts, LogError> {
        bounded(async {
            let mut counts = Counts {
                quarantined: sqlx::query_scalar(COUNT_QUARANTINED).fetch_one(&self.pool).await?,
                ..Counts::default()
            };
            for row in
                sqlx::query("SELECT cursor, count(*) FROM set_aside GROUP BY cursor").fetch_all(&self.pool).await?
            {
                counts.set_aside.insert(row.get(0), row.get(1));
            }
            for row in sqlx::query("SELECT subscriber_id, at FROM handshakes").fetch_all(&self.pool).await? {
                counts.handshakes.insert(row.get(0), Millis::from_date_time(row.get(1)));
            }
            Ok(counts)
        })
        .await
    }

    async fn close(&self) {
        let politely = async {
            if let Some(connection) = self.writer.lock().await.take()
                && let Err(error) = connection.close().await
            {
                tracing::debug!(%error, "closing the writing connection");
            }
            tokio::join!(self.pool.close(), self.people.close(), self.listeners.close());
        };
        // A database that fell silent takes no leave; the server ends what it hears no more of.
        if tokio::time::timeout(GOODBYE, politely).await.is_err() {
            tracing::debug!("the database did not answer when its connections were closed");
        }
    }
}
