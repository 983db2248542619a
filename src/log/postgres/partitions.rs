//! The partitions of the `events` table: made ahead of time, dropped when they are beyond the retention.
//!
//! Months while there is a retention, because they are dropped whole; years while there is none, because whoever asks for
//! something without naming a time asks every partition, and pays for each.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use time::{Date, Month, OffsetDateTime};
use uuid::Uuid;

use super::{BEGIN_APPEND, hosts::Hosts, session::connect};
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

/// This many months from now, this one included, have their place. Events lie in the future only if a clock is wrong.
const AHEAD: u32 = 4;

/// Rows deleted at a time.
const PIECE: u32 = 1_000;

/// Pieces deleted before others have their turn.
const PIECES: u32 = 50;

/// How long a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

/// A calendar month or year, by its first month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period {
    year: i32,
    month: Month,
    span: Span,
}

impl Period {
    fn of(at: Millis, span: Span) -> Self {
        let date = at.date_time().date();
        let month = if span == Span::Year { Month::January } else { date.month() };
        Self { year: date.year(), month, span }
    }

    /// The one that begins at `bound`: a month, if no year begins there.
    fn from(bound: Uuid, span: Span) -> Self {
        let month = Self::of(time_of(bound), Span::Month);
        if month.month == Month::January { Self { span, ..month } } else { month }
    }

    /// The one that begins where this one ends; of a year's months, the last is followed by what is wanted.
    fn next(self, span: Span) -> Self {
        let next = match self.span {
            Span::Year => Self { year: self.year + 1, ..self },
            Span::Month if self.month == Month::December => Self { year: self.year + 1, month: Month::January, ..self },
            Span::Month => Self { month: self.month.next(), ..self },
        };
        if next.month == Month::January { Self { span, ..next } } else { next }
    }

    /// Its smallest id.
    fn bound(self) -> Uuid {
        let first = Date::from_calendar_date(self.year, self.month, 1).unwrap_or(Date::MIN);
        EventId::lower_bound(Millis::from_date_time(OffsetDateTime::new_utc(first, time::Time::MIDNIGHT))).uuid()
    }

    fn table(self) -> String {
        match self.span {
            Span::Month => format!("events_{:04}_{:02}", self.year, u8::from(self.month)),
            Span::Year => format!("events_{:04}", self.year),
        }
    }
}

/// The time that leads an id.
fn time_of(id: Uuid) -> Millis {
    i64::try_from(id.as_u128() >> 80).ok().and_then(Millis::new).unwrap_or(Millis::MAX)
}

/// Makes partitions for the next [`AHEAD`] months; on a new database also for the one before, for late deliveries.
///
/// The last partition, which reaches to the end of time, is replaced by new ones and a new last one, in one short
/// transaction that holds the log's lock; the rows in it, if any, move to where they now belong.
pub async fn extend(hosts: &Hosts, now: Millis, span: Span) -> Result<(), sqlx::Error> {
    let mut connection = connect(hosts).await?;
    let this = Period::of(now, Span::Month);
    let wanted = (1..AHEAD).fold(this, |month, _| month.next(Span::Month)).next(Span::Month).bound();
    if last_bound(&mut connection).await?.is_some_and(|last| last >= wanted) {
        return connection.close().await;
    }
    let mut tx = connection.begin_with(BEGIN_APPEND).await?;
    // Another replica may have done it while we waited for the lock.
    let last = last_bound(&mut tx).await?.ok_or(sqlx::Error::RowNotFound)?;
    if last < wanted {
        let new_database = last.as_u128() < EventId::lower_bound(Millis::EPOCH).uuid().as_u128() + (1 << 80);
        let mut statements = vec![
            LOCK_TIMEOUT.to_owned(),
            "ALTER TABLE events DETACH PARTITION events_future".to_owned(),
            "ALTER TABLE events_future RENAME TO events_to_sort".to_owned(),
        ];
        let mut period = if new_database {
            let before = time_of(this.bound()).minus(Duration::from_millis(1));
            Period::of(before, span)
        } else {
            Period::from(last, span)
        };
        if new_database {
            statements.push(format!("ALTER TABLE events DETACH PARTITION {PAST}"));
            statements.push(format!(
                "ALTER TABLE events ATTACH PARTITION {PAST} FOR VALUES FROM (MINVALUE) TO ('{}')",
                period.bound()
            ));
        }
        while period.bound() < wanted {
            let next = period.next(span);
            statements.push(format!(
                "CREATE TABLE {} PARTITION OF events FOR VALUES FROM ('{}') TO ('{}')",
                period.table(),
                period.bound(),
                next.bound()
            ));
            period = next;
        }
        statements.push(format!(
            "CREATE TABLE events_future PARTITION OF events FOR VALUES FROM ('{}') TO (MAXVALUE)",
            period.bound()
        ));
        statements.push("INSERT INTO events SELECT * FROM events_to_sort".to_owned());
        statements.push("DROP TABLE events_to_sort".to_owned());
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        tracing::info!(before = %time_of(period.bound()), "made partitions of the events table");
    } else {
        tx.rollback().await?;
    }
    connection.close().await
}

/// Drops the partitions that end at or before `before` and that every cursor has read to the end. Of the first one, which
/// has no beginning and stays, and of a year, which would stay for too long, rows are deleted. Returns whether there is more
/// to delete.
pub async fn expire(hosts: &Hosts, before: Millis) -> Result<bool, sqlx::Error> {
    let mut connection = connect(hosts).await?;
    // Held until the connection is closed.
    let ours: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(EXPIRE_LOCK).fetch_one(&mut connection).await?;
    if !ours {
        connection.close().await?;
        return Ok(false);
    }
    let bound = EventId::lower_bound(before).uuid();
    // There can be one that is half detached, and none other can be detached before it.
    let mut partitions = partitions(&mut connection).await?;
    partitions.sort_by_key(|partition| !partition.half_detached);
    let mut shrinking = Vec::new();
    for Partition { name, lower, upper, half_detached } in partitions {
        if half_detached {
            execute(&mut connection, format!("ALTER TABLE events DETACH PARTITION {name} FINALIZE")).await?;
            continue;
        }
        if name == PAST || upper.is_none_or(|upper| upper > bound) {
            let begun = lower.is_none_or(|lower| lower < bound);
            let long = lower
                .is_none_or(|lower| upper > Some(Period::of(time_of(lower), Span::Month).next(Span::Month).bound()));
            if begun && long && name != FUTURE {
                shrinking.push(name);
            }
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
        tracing::info!(partition = name, "dropped a partition beyond the retention");
    }
    let mut more = false;
    for name in shrinking {
        let piece = format!(
            "DELETE FROM {name} WHERE event_id IN (
                 SELECT event_id FROM {name}
                  WHERE event_id < $1 AND seq <= coalesce((SELECT min(position) FROM cursors), 9223372036854775807)
                  ORDER BY event_id LIMIT {PIECE})"
        );
        let mut pieces = 0;
        while pieces < PIECES
            && sqlx::query(AssertSqlSafe(&*piece)).bind(bound).execute(&mut connection).await?.rows_affected() > 0
        {
            pieces += 1;
        }
        more |= pieces == PIECES;
    }
    connection.close().await?;
    Ok(more)
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

/// The first partition, which has no beginning, and the last one, which has no end.
const PAST: &str = "events_past";
const FUTURE: &str = "events_future";

struct Partition {
    name: String,
    lower: Option<Uuid>,
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
        .filter_map(|row| {
            // It is null for one that another replica has taken away since the query began.
            let (lower, upper) = bounds(row.get::<Option<&str>, _>(1)?);
            Some(Partition { name: row.get(0), lower, upper, half_detached: row.get(2) })
        })
        .collect())
}

/// The two ends of `FOR VALUES FROM ('…') TO ('…')`; `None` for MINVALUE and MAXVALUE.
fn bounds(text: &str) -> (Option<Uuid>, Option<Uuid>) {
    let (from, to) = text.split_once(" TO ").unwrap_or((text, ""));
    let uuid = |part: &str| part.split('\'').nth(1).and_then(|id| Uuid::try_parse(id).ok());
    (uuid(from), uuid(to))
}
