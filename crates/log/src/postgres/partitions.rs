//! The partitions of the `events` table: created ahead of time, dropped when they are beyond the retention.
//!
//! They are months with a retention, because they are dropped as a whole; years without one, because a query without a
//! time range visits every partition and pays for each.
//!
//! Together they cover every possible id. A dropped partition leaves a gap, and [`PAST`] is extended over it. Any other gap
//! (for example a month that an operator detached) is filled at the next check, or when an event has no partition ([`fill`]).

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use time::{Date, Month, OffsetDateTime};
use uuid::Uuid;

use super::{BEGIN_APPEND, hosts::Hosts, session::connect};
use convoke_core::id::EventId;
use convoke_core::time::Millis;

/// Interval between checks.
pub const EXTEND_INTERVAL: Duration = Duration::from_secs(3600);

/// Retry delay when another transaction held the lock.
pub const RETRY_DELAY: Duration = Duration::from_secs(60);

/// Timeout for the lock on the whole table. Later transactions queue behind this one while it waits.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// The comment on a month that is about to be dropped. It identifies a partition that was detached but not dropped
/// because the process ended in between. Partitions detached by an operator do not have it, and are left alone.
const EXPIRED: &str = "Convoke: beyond the retention, to be dropped";

/// The advisory lock of the one process that drops months.
const EXPIRE_LOCK: i64 = 4_865_178_306;

/// Number of months with a partition, starting with the current one. Events are in the future only if a clock is wrong.
const MONTHS_AHEAD: u32 = 4;

/// Rows deleted per statement.
const MAX_DELETED_ROWS: u32 = 1_000;

/// Maximum number of statements per run, so that other maintenance gets its turn.
const MAX_DELETIONS: u32 = 50;

/// A gap of up to this many months is filled with months; a longer one with a single partition.
const MAX_FILLED_MONTHS: usize = 36;

/// Number of rows, from the end of a partition, whose time of receipt is checked before it is dropped.
const LAST_RECEIVED_ROWS: u32 = 10_000;

/// The length of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

/// A calendar month or year, given by its first month.
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

    /// The period that begins at `bound`: a month, if no year begins there.
    fn from(bound: Uuid, span: Span) -> Self {
        let month = Self::of(time_of(bound), Span::Month);
        if month.month == Month::January { Self { span, ..month } } else { month }
    }

    /// The period after this one. After December, or a year, it has the given span.
    fn next(self, span: Span) -> Self {
        let next = match self.span {
            Span::Year => Self { year: self.year + 1, ..self },
            Span::Month if self.month == Month::December => Self { year: self.year + 1, month: Month::January, ..self },
            Span::Month => Self { month: self.month.next(), ..self },
        };
        if next.month == Month::January { Self { span, ..next } } else { next }
    }

    /// The smallest id in it.
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

/// The time at the start of an id.
fn time_of(id: Uuid) -> Millis {
    i64::try_from(id.as_u128() >> 80).ok().and_then(Millis::new).unwrap_or(Millis::MAX)
}

/// Fills gaps and creates partitions for [`MONTHS_AHEAD`] months; in a new database also for the month
/// before, for late deliveries.
///
/// The last partition, which has no upper bound, is replaced by new ones and a new last one, in one short transaction
/// that holds the log's lock. Its rows, if any, move to their partitions.
pub async fn extend(hosts: &Hosts, now: Millis, span: Span) -> Result<(), sqlx::Error> {
    let mut connection = connect(hosts).await?;
    let holes = gaps(&partitions(&mut connection).await?);
    if !holes.is_empty() {
        stretch_past(&mut connection).await?;
        fill(&mut connection, span).await?;
    }
    let this = Period::of(now, Span::Month);
    let wanted = (1..MONTHS_AHEAD).fold(this, |month, _| month.next(Span::Month)).next(Span::Month).bound();
    if last_bound(&mut connection).await?.is_some_and(|last| last >= wanted) {
        return connection.close().await;
    }
    let mut tx = connection.begin_with(BEGIN_APPEND).await?;
    // Another replica may have done it while this one waited for the lock.
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
        tracing::info!(before = %time_of(period.bound()), "created partitions of the events table");
    } else {
        tx.rollback().await?;
    }
    connection.close().await
}

/// Creates a partition for every id that has none. Returns how many were created. It does not block readers, and they
/// do not block it: a table is created separately and then attached.
pub async fn fill(connection: &mut PgConnection, span: Span) -> Result<usize, sqlx::Error> {
    let mut tx = connection.begin_with(BEGIN_APPEND).await?;
    let mut made = 0;
    // Checked under the log's lock: another replica may have done it while this one waited.
    for gap in gaps(&partitions(&mut tx).await?) {
        for (wanted, from, to) in pieces(gap, span) {
            let name = free_name(&mut tx, &wanted).await?;
            let (from, to) = (literal(from, "MINVALUE"), literal(to, "MAXVALUE"));
            execute(&mut tx, format!("CREATE TABLE {name} (LIKE events INCLUDING ALL EXCLUDING INDEXES)")).await?;
            execute(&mut tx, format!("ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"))
                .await?;
            tracing::info!(partition = name, "created a missing partition of the events table");
            made += 1;
        }
    }
    tx.commit().await?;
    Ok(made)
}

/// Extends the first partition to the start of the next one, over months that were dropped: otherwise each of them
/// would need another partition.
async fn stretch_past(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let hole = async |connection: &mut PgConnection| {
        let partitions = partitions(connection).await?;
        let end = partitions.iter().find(|partition| partition.name == PAST).and_then(|past| past.upper);
        let hole = gaps(&partitions).into_iter().find(|gap| end.is_some() && gap.0 == end);
        Ok::<_, sqlx::Error>(hole.and_then(|(_, to)| to))
    };
    let small = "SELECT pg_total_relation_size('events_past') < 64 << 20";
    // Attaching reads all its rows while everything waits. If there are many, the gap gets another partition instead.
    if hole(connection).await?.is_none() || !sqlx::query_scalar::<_, bool>(small).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    let mut tx = connection.begin_with(BEGIN_APPEND).await?;
    let Some(to) = hole(&mut tx).await? else { return tx.rollback().await };
    execute(&mut tx, LOCK_TIMEOUT.to_owned()).await?;
    execute(&mut tx, format!("ALTER TABLE events DETACH PARTITION {PAST}")).await?;
    execute(&mut tx, format!("ALTER TABLE events ATTACH PARTITION {PAST} FOR VALUES FROM (MINVALUE) TO ('{to}')"))
        .await?;
    tx.commit().await
}

/// Drops the partitions that end at or before `before`, if nothing in them was received since and every cursor has read
/// them to the end. From the first partition, which has no lower bound and stays, and from years, which would stay too
/// long, rows are deleted. Returns whether there is more to delete.
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
    // A partition may be half detached. No other can be detached before it is.
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
        // The rows received last have the highest positions, apart from differences between the replicas' clocks.
        let wanted: bool = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT coalesce((SELECT max(seq) FROM {name}) > (SELECT min(position) FROM cursors), false)
                 OR coalesce((SELECT max(received_at) FROM (
                        SELECT received_at FROM {name} ORDER BY seq DESC LIMIT {LAST_RECEIVED_ROWS}) AS last) >= $1, false)"
        )))
        .bind(before.date_time())
        .fetch_one(&mut connection)
        .await?;
        if wanted {
            tracing::debug!(
                partition = name,
                "kept a partition beyond the retention: some rows are unread or were \
                                               received recently"
            );
            continue;
        }
        execute(&mut connection, format!("COMMENT ON TABLE {name} IS '{EXPIRED}'")).await?;
        // CONCURRENTLY: an analyst's open query then delays only this statement, and nothing queues behind it.
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
    stretch_past(&mut connection).await?;
    let mut more = false;
    for name in shrinking {
        // Continues after the last deleted row: the rows that stay come before it, and there may be many.
        let piece = format!(
            "WITH gone AS (
                 DELETE FROM {name} WHERE event_id IN (
                     SELECT event_id FROM {name}
                      WHERE event_id > $1 AND event_id < $2 AND received_at < $3
                        AND seq <= coalesce((SELECT min(position) FROM cursors), 9223372036854775807)
                      ORDER BY event_id LIMIT {MAX_DELETED_ROWS})
                 RETURNING event_id)
             SELECT event_id FROM gone ORDER BY event_id DESC LIMIT 1"
        );
        let (mut pieces, mut after) = (0, Uuid::nil());
        while pieces < MAX_DELETIONS
            && let Some(last) = sqlx::query_scalar::<_, Uuid>(AssertSqlSafe(&*piece))
                .bind(after)
                .bind(bound)
                .bind(before.date_time())
                .fetch_optional(&mut connection)
                .await?
        {
            (pieces, after) = (pieces + 1, last);
        }
        more |= pieces == MAX_DELETIONS;
    }
    connection.close().await?;
    Ok(more)
}

async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

/// Whether a lock timed out.
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

/// The first partition, without a lower bound, and the last one, without an upper bound.
const PAST: &str = "events_past";
const FUTURE: &str = "events_future";

struct Partition {
    name: String,
    lower: Option<Uuid>,
    upper: Option<Uuid>,
    /// Its detaching was interrupted, by an analyst's open transaction or by the end of a process.
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
            // The bounds are null for one that another replica has removed since the query began.
            let (lower, upper) = bounds(row.get::<Option<&str>, _>(1)?);
            Some(Partition { name: row.get(0), lower, upper, half_detached: row.get(2) })
        })
        .collect())
}

/// The bounds in `FOR VALUES FROM ('…') TO ('…')`; `None` for MINVALUE and MAXVALUE.
fn bounds(text: &str) -> (Option<Uuid>, Option<Uuid>) {
    let (from, to) = text.split_once(" TO ").unwrap_or((text, ""));
    let uuid = |part: &str| part.split('\'').nth(1).and_then(|id| Uuid::try_parse(id).ok());
    (uuid(from), uuid(to))
}

/// The id ranges without a partition, in order; `None` for MINVALUE and MAXVALUE.
fn gaps(partitions: &[Partition]) -> Vec<Range> {
    let mut taken: Vec<Range> = partitions.iter().map(|partition| (partition.lower, partition.upper)).collect();
    taken.sort_unstable();
    let mut gaps = Vec::new();
    // Where the next partition should begin; `None` once the end is reached.
    let mut next = Some(None);
    for (lower, upper) in taken {
        if let Some(next) = next
            && lower > next
        {
            gaps.push((next, lower));
        }
        next = upper.map(Some);
    }
    gaps.extend(next.map(|next| (next, None)));
    gaps
}

/// A range of ids: includes the first, excludes the second.
type Range = (Option<Uuid>, Option<Uuid>);

/// The partitions that fill a gap, with their preferred names.
fn pieces((from, to): Range, span: Span) -> Vec<(String, Option<Uuid>, Option<Uuid>)> {
    let (Some(begins), Some(ends)) = (from, to) else {
        let name = if from.is_none() { PAST } else { FUTURE };
        return vec![(name.to_owned(), from, to)];
    };
    let first = Period::of(time_of(begins), Span::Month);
    let months: Vec<_> = std::iter::successors(Some(first), |month| Some(month.next(Span::Month)))
        .take_while(|month| month.bound() < ends)
        .take(MAX_FILLED_MONTHS + 1)
        .collect();
    if span == Span::Year || months.len() > MAX_FILLED_MONTHS {
        return vec![(first.table(), from, to)];
    }
    let piece = |month: &Period| {
        (month.table(), Some(month.bound().max(begins)), Some(month.next(Span::Month).bound().min(ends)))
    };
    months.iter().map(piece).collect()
}

/// `wanted`, or a similar name if a table of that name exists (for example a month that an operator detached).
async fn free_name(connection: &mut PgConnection, wanted: &str) -> Result<String, sqlx::Error> {
    let names = "SELECT name FROM (SELECT $1 AS name, 1 AS n UNION ALL SELECT $1 || '_' || n, n FROM generate_series(2, 1000) AS n)
                     AS names WHERE to_regclass(name) IS NULL ORDER BY n LIMIT 1";
    sqlx::query_scalar(names).bind(wanted).fetch_one(connection).await
}

fn literal(bound: Option<Uuid>, end: &str) -> String {
    bound.map_or_else(|| end.to_owned(), |id| format!("'{id}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(year: i32, month: u8) -> Option<Uuid> {
        let month = Month::try_from(month).expect("a month");
        Some(Period { year, month, span: Span::Month }.bound())
    }

    fn of(ranges: &[Range]) -> Vec<Range> {
        let partition = |(lower, upper): &Range| Partition {
            name: String::new(),
            lower: *lower,
            upper: *upper,
            half_detached: false,
        };
        gaps(&ranges.iter().map(partition).collect::<Vec<_>>())
    }

    #[test]
    fn whatever_no_partition_takes_is_a_gap() {
        let (may, june, august) = (id(2026, 5), id(2026, 6), id(2026, 8));
        assert_eq!(of(&[(None, may), (may, june), (june, None)]), []);
        assert_eq!(of(&[(august, None), (None, may), (may, june)]), [(june, august)]);
        assert_eq!(of(&[(may, june)]), [(None, may), (june, None)]);
        assert_eq!(of(&[]), [(None, None)]);
    }

    #[test]
    fn a_gap_is_filled_with_months_or_if_it_is_long_with_one_partition() {
        let names = |gap, span| pieces(gap, span).into_iter().map(|(name, _, _)| name).collect::<Vec<_>>();
        let gap = (id(2026, 11), id(2027, 2));
        assert_eq!(names(gap, Span::Month), ["events_2026_11", "events_2026_12", "events_2027_01"]);
        assert_eq!(pieces(gap, Span::Year), [("events_2026_11".to_owned(), gap.0, gap.1)]);
        assert_eq!(names((id(1970, 1), id(2026, 1)), Span::Month), ["events_1970_01"]);
        assert_eq!(pieces((None, gap.0), Span::Month), [("events_past".to_owned(), None, gap.0)]);
        assert_eq!(pieces((gap.0, None), Span::Month), [("events_future".to_owned(), gap.0, None)]);
        // A gap that begins or ends within a month.
        let within = (gap.0.map(|id| Uuid::from_u128(id.as_u128() + 1)), id(2026, 12));
        assert_eq!(pieces(within, Span::Month), [("events_2026_11".to_owned(), within.0, within.1)]);
    }
}
