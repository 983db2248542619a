//! The months of the `events` table: made ahead of time, dropped when they are beyond the retention.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Row};
use time::{Date, Month, OffsetDateTime};
use uuid::Uuid;

use super::{BEGIN_APPEND, session::connect};
use crate::event::{EventId, Millis};

/// How often to look.
pub const EVERY: Duration = Duration::from_secs(3600);

/// How soon to try again when somebody's transaction was in the way.
pub const AGAIN: Duration = Duration::from_secs(60);

/// How long the lock on the whole table may be waited for. Everybody who comes later waits behind.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// The comment on a month that is to be dropped: what was detached and not dropped, because the process ended in between,
/// is known by it. Months that people detach have none, and are theirs.
const EXPIRED: &str = "Convoke: beyond the retention, to be dropped";

/// Taken by the one process that drops months.
const EXPIRE_LOCK: i64 = 4_865_178_306;

/// Months that exist ahead of the present one. Events lie in the future only if a clock is wrong.
const AHEAD: u32 = 3;

/// The first moment of a month, and the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MonthStart {
    year: i32,
    month: Month,
}

impl MonthStart {
    fn of(at: Millis) -> Self {
        let date = at.date_time().date();
        Self { year: date.year(), month: date.month() }
    }

    fn next(self) -> Self {
        let year = if self.month == Month::December { self.year + 1 } else { self.year };
        Self { year, month: self.month.next() }
    }

    fn previous(self) -> Self {
        let year = if self.month == Month::January { self.year - 1 } else { self.year };
        Self { year, month: self.month.previous() }
    }

    /// The smallest id of the month.
    fn bound(self) -> Uuid {
        let first = Date::from_calendar_date(self.year, self.month, 1).unwrap_or(Date::MIN);
        EventId::lower_bound(Millis::from_date_time(OffsetDateTime::new_utc(first, time::Time::MIDNIGHT))).uuid()
    }

    fn table(self) -> String {
        format!("events_{:04}_{:02}", self.year, u8::from(self.month))
    }
}

/// Makes the months up to [`AHEAD`] from now; on a new database also the one before, for late deliveries.
///
/// The last partition, which reaches to the end of time, is replaced by months and a new last one, in one short transaction
/// that holds the log's lock; the rows in it, if any, move to where they now belong.
pub async fn extend(options: &PgConnectOptions, now: Millis) -> Result<(), sqlx::Error> {
    let mut connection = connect(options).await?;
    let wanted = (0..AHEAD).fold(MonthStart::of(now), |month, _| month.next());
    if last_bound(&mut connection).await?.is_some_and(|last| last > wanted.bound()) {
        return connection.close().await;
    }
    let mut tx = connection.begin_with(BEGIN_APPEND).await?;
    // Another replica may have done it while we waited for the lock.
    let last = last_bound(&mut tx).await?.ok_or(sqlx::Error::RowNotFound)?;
    if last <= wanted.bound() {
        let new_database = last.as_u128() < EventId::lower_bound(Millis::EPOCH).uuid().as_u128() + (1 << 80);
        let mut statements = vec![
            LOCK_TIMEOUT.to_owned(),
            "ALTER TABLE events DETACH PARTITION events_future".to_owned(),
            "ALTER TABLE events_future RENAME TO events_to_sort".to_owned(),
        ];
        let mut month = if new_database { MonthStart::of(now).previous() } else { month_of(last) };
        if new_database {
            statements.push("ALTER TABLE events DETACH PARTITION events_past".to_owned());
            statements.push(format!(
                "ALTER TABLE events ATTACH PARTITION events_past FOR VALUES FROM (MINVALUE) TO ('{}')",
                month.bound()
            ));
        }
        while month <= wanted {
            statements.push(format!(
                "CREATE TABLE {} PARTITION OF events FOR VALUES FROM ('{}') TO ('{}')",
                month.table(),
                month.bound(),
                month.next().bound()
            ));
            month = month.next();
        }
        statements.push(format!(
            "CREATE TABLE events_future PARTITION OF events FOR VALUES FROM ('{}') TO (MAXVALUE)",
            month.bound()
        ));
        statements.push("INSERT INTO events SELECT * FROM events_to_sort".to_owned());
        statements.push("DROP TABLE events_to_sort".to_owned());
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        tracing::info!(until = %month.table(), "made partitions of the events table");
    } else {
        tx.rollback().await?;
    }
    connection.close().await
}

/// Drops the months that end at or before `before` and that every cursor has read to the end. Of the first partition,
/// which has no beginning and stays, the rows are deleted.
pub async fn expire(options: &PgConnectOptions, before: Millis) -> Result<(), sqlx::Error> {
    let mut connection = connect(options).await?;
    // Held until the connection is closed.
    let ours: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(EXPIRE_LOCK).fetch_one(&mut connection).await?;
    if !ours {
        return connection.close().await;
    }
    let bound = EventId::lower_bound(before).uuid();
    // There can be one that is half detached, and none other can be detached before it.
    let mut partitions = partitions(&mut connection).await?;
    partitions.sort_by_key(|partition| !partition.half_detached);
    for Partition { name, upper, half_detached } in partitions {
        if half_detached {
            execute(&mut connection, format!("ALTER TABLE events DETACH PARTITION {name} FINALIZE")).await?;
            continue;
        }
        if name == PAST || upper.is_none_or(|upper| upper > bound) {
            continue;
        }
        let unread: bool = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT coalesce((SELECT max(seq) FROM {name}) > (SELECT min(position) FROM cursors), false)"
        )))
        .fetch_one(&mut connection)
        .await?;
        if unread {
            tracing::warn!(partition = name, "beyond the retention, but a cursor has not read it: kept");
            continue;
        }
        execute(&mut connection, format!("COMMENT ON TABLE {name} IS '{EXPIRED}'")).await?;
        // Concurrently: an analyst's open query holds up this statement, and nobody behind it.
        execute(&mut connection, format!("ALTER TABLE events DETACH PARTITION {name} CONCURRENTLY")).await?;
    }
    let detached: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
          WHERE relkind = 'r' AND NOT relispartition AND obj_description(oid, 'pg_class') = $1
            AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)",
    )
    .bind(EXPIRED)
    .fetch_all(&mut connection)
    .await?;
    for name in detached {
        execute(&mut connection, format!("DROP TABLE {name}")).await?;
        tracing::info!(partition = name, "dropped a month beyond the retention");
    }
    let piece = format!(
        "DELETE FROM {PAST} WHERE event_id IN (
             SELECT event_id FROM {PAST}
              WHERE event_id < $1 AND seq <= coalesce((SELECT min(position) FROM cursors), 9223372036854775807)
              ORDER BY event_id LIMIT 1000)"
    );
    while sqlx::query(AssertSqlSafe(&*piece)).bind(bound).execute(&mut connection).await?.rows_affected() > 0 {}
    connection.close().await
}

async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

/// Whether a lock could not be had in time.
pub fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
}

/// The lower bound of the last partition; `None` while another replica, which holds the log's lock, is replacing it.
async fn last_bound(connection: &mut PgConnection) -> Result<Option<Uuid>, sqlx::Error> {
    let text: Option<Option<String>> = sqlx::query_scalar(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = to_regclass('events_future')",
    )
    .fetch_optional(connection)
    .await?;
    Ok(text.flatten().and_then(|text| bounds(&text).0))
}

/// The first partition, which has no beginning.
const PAST: &str = "events_past";

struct Partition {
    name: String,
    upper: Option<Uuid>,
    /// Its detaching was cut short, by an analyst's open transaction or by the end of a process.
    half_detached: bool,
}

async fn partitions(connection: &mut PgConnection) -> Result<Vec<Partition>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid), i.inhdetachpending
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = 'events'::regclass ORDER BY 1",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .iter()
        .map(|row| Partition { name: row.get(0), upper: bounds(row.get(1)).1, half_detached: row.get(2) })
        .collect())
}

/// The two ends of `FOR VALUES FROM ('…') TO ('…')`; `None` for MINVALUE and MAXVALUE.
fn bounds(text: &str) -> (Option<Uuid>, Option<Uuid>) {
    let (from, to) = text.split_once(" TO ").unwrap_or((text, ""));
    let uuid = |part: &str| part.split('\'').nth(1).and_then(|id| Uuid::try_parse(id).ok());
    (uuid(from), uuid(to))
}

/// The month whose first id `bound` is.
fn month_of(bound: Uuid) -> MonthStart {
    let ms = i64::try_from(bound.as_u128() >> 80).unwrap_or(0);
    MonthStart::of(Millis::new(ms).unwrap_or(Millis::MAX))
}
