//! The partitions of the `events` table: made ahead of time, dropped when they are beyond the retention.
//!
//! Months while there is a retention, because they are dropped whole; years while there is none, because whoever asks for
//! something without naming a time asks every partition, and pays for each.
//!
//! Together they take every id that there can be. What is dropped leaves a hole, which [`PAST`] is stretched over; any other
//! (a month that somebody detached, say) is filled, at the next look or when an event has no place ([`fill`]).

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use time::{Date, Month, OffsetDateTime};
use uuid::Uuid;

use super::{BEGIN_APPEND, hosts::Hosts, session::connect};
use convoke_core::id::EventId;
use convoke_core::time::Millis;

/// How often to look.
pub const EXTEND_INTERVAL: Duration = Duration::from_secs(3600);

/// How soon to try again when somebody's transaction was in the way.
pub const RETRY_DELAY: Duration = Duration::from_secs(60);

/// How long the lock on the whole table may be waited for. Everybody who comes later waits behind.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// The comment on a month that is to be dropped: what was detached and not dropped, because the process ended in between,
/// is known by it. Months that people detach have none, and are theirs.
const EXPIRED: &str = "Convoke: beyond the retention, to be dropped";

/// Taken by the one process that drops months.
const EXPIRE_LOCK: i64 = 4_865_178_306;

/// This many months from now, this one included, have their place. Events lie in the future only if a clock is wrong.
const MONTHS_AHEAD: u32 = 4;

/// Rows deleted at a time.
const MAX_DELETED_ROWS: u32 = 1_000;

/// Pieces deleted before others have their turn.
const MAX_DELETIONS: u32 = 50;

/// A hole of so many months is filled with months; a longer one, with one partition.
const MAX_FILLED_MONTHS: usize = 36;

/// Of so many rows that came last into a partition it is looked at when they were received.
const LAST_RECEIVED_ROWS: u32 = 10_000;

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

/// Fills what is missing, and makes partitions for the next [`MONTHS_AHEAD`] months; on a new database also for the one before, for
/// late deliveries.
///
/// The last partition, which reaches to the end of time, is replaced by new ones and a new last one, in one short
/// transaction that holds the log's lock; the rows in it, if any, move to where they now belong.
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

/// Makes a partition for every id that has none; how many were made. Nobody who reads is in the way of it, nor held up: a
/// table is made beside the others and then attached.
pub async fn fill(connection: &mut PgConnection, span: Span) -> Result<usize, sqlx::Error> {
    let mut tx = connection.begin_with(BEGIN_APPEND).await?;
    let mut made = 0;
    // Under the log's lock: another replica may have done it while we waited.
    for gap in gaps(&partitions(&mut tx).await?) {
        for (wanted, from, to) in pieces(gap, span) {
            let name = free_name(&mut tx, &wanted).await?;
            let (from, to) = (literal(from, "MINVALUE"), literal(to, "MAXVALUE"));
            execute(&mut tx, format!("CREATE TABLE {name} (LIKE events INCLUDING ALL EXCLUDING INDEXES)")).await?;
            execute(&mut tx, format!("ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"))
                .await?;
            tracing::info!(partition = name, "made a partition of the events table that was missing");
            made += 1;
        }
    }
    tx.commit().await?;
    Ok(made)
}

/// Lets the first partition reach to where the next one begins, in place of months that were dropped: else there would be one
/// more for each of them.
async fn stretch_past(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let hole = async |connection: &mut PgConnection| {
        let partitions = partitions(connection).await?;
        let end = partitions.iter().find(|partition| partition.name == PAST).and_then(|past| past.upper);
        let hole = gaps(&partitions).into_iter().find(|gap| end.is_some() && gap.0 == end);
        Ok::<_, sqlx::Error>(hole.and_then(|(_, to)| to))
    };
    let small = "SELECT pg_total_relation_size('events_past') < 64 << 20";
    // Its rows are read through while everybody waits. Of many, there is another partition in the hole.
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

/// Drops the partitions that end at or before `before`, in which nothing was received since, and that every cursor has read to
/// the end. Of the first one, which has no beginning and stays, and of a year, which would stay for too long, rows are deleted.
/// Returns whether there is more to delete.
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
        // What was received last has the highest places, but for what the clocks of replicas are apart.
        let wanted: bool = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT coalesce((SELECT max(seq) FROM {name}) > (SELECT min(position) FROM cursors), false)
                 OR coalesce((SELECT max(received_at) FROM (
                        SELECT received_at FROM {name} ORDER BY seq DESC LIMIT {LAST_RECEIVED_ROWS}) AS last) >= $1, false)"
        )))
        .bind(before.date_time())
        .fetch_one(&mut connection)
        .await?;
        if wanted {
            tracing::debug!(partition = name, "beyond the retention, but unread, or received lately: kept");
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
    stretch_past(&mut connection).await?;
    let mut more = false;
    for name in shrinking {
        // Goes on after what it deleted last: before it lies what stays, and that may be much.
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

/// The stretches of ids that no partition takes, in order; `None` for MINVALUE and MAXVALUE.
fn gaps(partitions: &[Partition]) -> Vec<Range> {
    let mut taken: Vec<Range> = partitions.iter().map(|partition| (partition.lower, partition.upper)).collect();
    taken.sort_unstable();
    let mut gaps = Vec::new();
    // Where what comes next should begin; `None`: the end is reached.
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

/// The ids of a stretch: from the first, which is in it, to the second, which is not.
type Range = (Option<Uuid>, Option<Uuid>);

/// The partitions that fill a hole, with the names that they should have.
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

/// `wanted`, or, if there is a table of that name (a month that somebody detached), a like one.
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
        // What begins or ends within a month.
        let within = (gap.0.map(|id| Uuid::from_u128(id.as_u128() + 1)), id(2026, 12));
        assert_eq!(pieces(within, Span::Month), [("events_2026_11".to_owned(), within.0, within.1)]);
    }
}
