//! The log itself in PostgreSQL.

use super::*;
use crate::{CursorState, Heartbeat, Lag, Leased, Log, LogReader, Moved};

#[async_trait]
impl LogReader for PostgresLog {
    async fn read(&self, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_READ).await?;
            let sql = format!("SELECT {} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2", rows::RECORD);
            let rows = sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            rows.iter().map(rows::record).collect()
        })
        .await
    }

    async fn find(&self, id: EventId) -> Result<Option<Seq>, LogError> {
        bounded(
            sqlx::query_scalar("SELECT seq FROM events WHERE event_id = $1").bind(id.uuid()).fetch_optional(&self.pool),
        )
        .await
        .map(|seq| seq.map(Seq))
    }

    async fn head(&self) -> Result<Seq, LogError> {
        let head: i64 =
            bounded(sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM events").fetch_one(&self.pool)).await?;
        // What other replicas append is seen here.
        self.newest.fetch_max(head, Ordering::Relaxed);
        Ok(Seq(head))
    }

    async fn now(&self) -> Result<Millis, LogError> {
        bounded(sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&self.pool)).await.map(Millis::from_date_time)
    }

    async fn cursors(&self) -> Result<Vec<CursorState>, LogError> {
        let rows = bounded(
            sqlx::query(
                "SELECT name, position, CASE WHEN lease_until > clock_timestamp() THEN lease_owner END
                   FROM cursors ORDER BY name",
            )
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows
            .iter()
            .map(|row| CursorState { name: row.get(0), position: Seq(row.get(1)), owner: row.get(2) })
            .collect())
    }

    async fn lag(&self, cursor: &str) -> Result<Lag, LogError> {
        let row = bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_READ).await?;
            let position: i64 =
                sqlx::query_scalar("SELECT coalesce((SELECT position FROM cursors WHERE name = $1), 0)")
                    .bind(cursor)
                    .fetch_one(&mut *tx)
                    .await?;
            let row = sqlx::query(
                "SELECT (SELECT count(*) FROM (SELECT 1 FROM events WHERE seq > $1 ORDER BY seq LIMIT $2) AS unread),
                        (SELECT max(seq) FROM events) - $1,
                        (SELECT received_at FROM events WHERE seq > $1 ORDER BY seq LIMIT 1)",
            )
            .bind(position)
            .bind(Lag::EXACT)
            .fetch_one(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(row)
        })
        .await?;
        let (counted, distance): (i64, Option<i64>) = (row.get(0), row.get(1));
        let events = if counted < Lag::EXACT { counted } else { counted.max(distance.unwrap_or(0)) };
        Ok(Lag {
            events: events.unsigned_abs(),
            oldest: row.get::<Option<OffsetDateTime>, _>(2).map(Millis::from_date_time),
        })
    }

    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError> {
        let row =
            bounded(sqlx::query("SELECT at, clock_timestamp() FROM heartbeat").fetch_optional(&self.pool)).await?;
        Ok(row.map(|row| {
            let at = Millis::from_date_time(row.get(0));
            Heartbeat { at, age: Millis::from_date_time(row.get(1)).since(at), elsewhere: false }
        }))
    }

    fn appended_elsewhere(&self) -> watch::Receiver<()> {
        self.heard.subscribe()
    }
}

#[async_trait]
impl Log for PostgresLog {
    async fn append(&self, batch: &[Append]) -> Result<Committed, LogError> {
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
            // The rollback is sent with the next statement: at once, for until then the server waits in a transaction.
            Err(_) => sound(&mut connection).await,
            Ok(_) => true,
        };
        if sound {
            *place = Some(connection);
        }
        result
    }

    async fn quarantine(&self, unreadable: &Unreadable, deliveries: u32) -> Result<(), LogError> {
        bounded(async {
            let mut connection = self.pool.acquire().await?;
            insert_quarantined(&mut connection, unreadable, deliveries).await
        })
        .await
    }

    async fn probe(&self) -> Result<(), LogError> {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_PROBE).await?;
            sqlx::query("INSERT INTO probe (id, at) VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET at = excluded.at")
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        })
        .await
    }

    async fn beat(&self) -> Result<(), LogError> {
        bounded(
            sqlx::query(
                "INSERT INTO heartbeat (id, at) VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
            )
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }

    async fn lease(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<Option<Leased>, LogError> {
        let lease = sqlx::query_as(
            "INSERT INTO cursors AS c (name, position, lease_owner, lease_until, updated_at)
             VALUES ($1, 0, $2, clock_timestamp() + make_interval(secs => $3), clock_timestamp())
             ON CONFLICT (name) DO UPDATE SET lease_owner = excluded.lease_owner, lease_until = excluded.lease_until
              WHERE c.lease_owner IS NULL OR c.lease_owner = excluded.lease_owner
                 OR c.lease_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + make_interval(secs => 2 * $3)
             RETURNING position, coalesce(wanted_by <> $2 AND wanted_until > clock_timestamp(), false)",
        );
        bounded(lease.bind(cursor).bind(owner).bind(ttl.as_secs_f64()).fetch_optional(&self.pool))
            .await
            .map(|found| found.map(|(position, wanted)| Leased { position: Seq(position), wanted }))
    }

    async fn advance(&self, cursor: &str, owner: &str, to: Seq, ttl: Duration) -> Result<Moved, LogError> {
        bounded(async { advance(&mut *self.pool.acquire().await?, cursor, owner, Some(to), ttl).await })
            .await
            .map(|moved| moved.map_or(Moved::LeaseLost, |wanted| Moved::Yes { wanted }))
    }

    async fn claim(&self, cursor: &str, owner: &str, ttl: Duration) -> Result<(), LogError> {
        let claim = sqlx::query(
            "UPDATE cursors SET wanted_by = $2, wanted_until = clock_timestamp() + make_interval(secs => $3)
              WHERE name = $1 AND (wanted_by IS NULL OR wanted_by = $2 OR wanted_until <= clock_timestamp())",
        );
        bounded(claim.bind(cursor).bind(owner).bind(ttl.as_secs_f64()).execute(&self.pool)).await.map(drop)
    }

    async fn release(&self, cursor: &str, owner: &str) -> Result<(), LogError> {
        let release = sqlx::query(
            "UPDATE cursors SET lease_owner = CASE WHEN wanted_by <> $2 AND wanted_until > clock_timestamp() THEN wanted_by END,
                    lease_until = wanted_until, wanted_by = NULL, wanted_until = NULL
              WHERE name = $1 AND lease_owner = $2",
        );
        bounded(release.bind(cursor).bind(owner).execute(&self.pool)).await.map(drop)
    }

    async fn set_aside(&self, cursor: &str, seq: Seq, id: EventId, reason: &str) -> Result<(), LogError> {
        let insert = sqlx::query(
            "INSERT INTO set_aside (cursor, seq, event_id, reason, at) VALUES ($1, $2, $3, $4, now())
             ON CONFLICT DO NOTHING",
        );
        bounded(insert.bind(cursor).bind(seq.0).bind(id.uuid()).bind(reason).execute(&self.pool)).await.map(drop)
    }
}
