//! The log in PostgreSQL 15 or later, shared by any number of replicas.
//!
//! `seq` comes from a sequence, and sequences do not give the order of commits. So a transaction that appends takes an
//! advisory lock before its first number is drawn and holds it until its commit is visible; batches are large, so this
//! costs little, and one writer is the fastest anyway. The session's time-outs and TCP keepalives bound how long a
//! replica that vanished in the middle can hold the lock. Readers take no lock at all: somebody else's long transaction
//! does not stall a cursor.
//!
//! All of that is the session's, so a connection must be a session of its own: a pooler that hands the session on after
//! each transaction is found out at the start, and refused.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgListener, PgPoolOptions, PgRow};
use sqlx::query::{Query, QueryAs};
use sqlx::{AssertSqlSafe, Connection, FromRow, PgPool, PgTransaction, Row};
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard, watch};
use uuid::Uuid;

use super::{Append, Committed, LogError, Maintenance, Options, Queries, Store, retention};
use crate::log::{Inserted, all_kept};
use convoke_core::event::{Content, Event, Record, Unreadable};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

mod enrichments;
mod erasure;
#[path = "../shared/erasure.rs"]
mod erasures;
#[path = "../shared/handshakes.rs"]
mod handshakes;
mod hosts;
mod log;
mod maintenance;
#[path = "../shared/operations.rs"]
mod operations;
mod partitions;
mod projection;
#[path = "../shared/queries.rs"]
mod queries;
#[path = "../shared/rows.rs"]
mod rows;
mod sequence;
mod session;
mod sessions;
#[path = "../shared/snapshots.rs"]
mod snapshots;
mod trouble;
pub mod url;
#[path = "../shared/work_lists.rs"]
mod work_lists;

use hosts::Hosts;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/postgres");

/// Begins a transaction that appends: one round trip for the transaction and the lock on the log's order. The planner is
/// told to use the indexes, whatever it believes of a table that was empty a minute ago, and to plan once: planning takes time
/// for every month that there is, and no month calls for another plan. The other replicas hear of it with the commit.
const BEGIN_APPEND: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan; \
     SELECT pg_advisory_xact_lock(4865178305); NOTIFY convoke_log";

/// Finds out whether a transaction could append, which a replica that vanished may keep all others from.
const BEGIN_PROBE: &str = "BEGIN; SELECT pg_advisory_xact_lock(4865178305)";

/// Begins a transaction that reads along the log: through the index of each month, merged, by a plan that is made once. Left
/// to itself the planner takes the limit, which it does not know, for a tenth of the log, and plans each page anew.
const BEGIN_READ: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; \
     SET LOCAL enable_bitmapscan = off; SET LOCAL plan_cache_mode = force_generic_plan";

// What the code that both back ends share has to know of this one.
type Backend = PostgresLog;
type Db = sqlx::Postgres;
type DbConnection = PgConnection;
type DbRow = PgRow;
type Arguments = PgArguments;

const BEGIN: &str = "BEGIN";

/// Of one person there is one erasure that is not finished.
const BEGIN_ERASURE: &str = "BEGIN; LOCK TABLE erasures IN SHARE ROW EXCLUSIVE MODE";

const NOW: &str = "now()";
const NOW_MILLIS: &str = "date_trunc('milliseconds', clock_timestamp())";
const YESTERDAY: &str = "now() - interval '1 day'";

const GREATEST: &str = "greatest";

/// Among the [`array()`] $1.
const MEMBER: &str = "= ANY($1)";

fn array<T>(values: &[T]) -> &[T] {
    values
}

fn uuid(row: &PgRow, index: usize) -> Result<Uuid, sqlx::Error> {
    row.try_get(index)
}

/// How long the writer waits for the database before it gives the connection up. Less than the time in which a delivery
/// must be answered.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// The same for migrations, which may have much to do, and for the upkeep of partitions.
const MIGRATION: Duration = Duration::from_secs(600);
const UPKEEP: Duration = Duration::from_secs(60);

/// Entries of the quarantine that are deleted at a time.
const QUARANTINE_ROWS: i64 = 1_000;

/// How long closing may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection that was used so short a time ago is not tested before it is used again …
const FRESH: Duration = Duration::from_millis(500);

/// … and one that is tested must answer within this time. One that is given back is tested as well: what was given up
/// waiting for may still be at work for nobody, and is not to take up one of the pool's places.
const TEST: Duration = Duration::from_millis(250);

/// How long a connection for what people ask is kept while nobody asks.
const IDLE: Duration = Duration::from_secs(60);

/// Bytes of a text that an index takes.
pub(crate) const LONGEST_INDEXED: usize = 2_000;

/// How often a listening connection that hears nothing is tested, and how soon another is opened in place of a lost one.
const QUIET: Duration = Duration::from_secs(5);
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// The channel on which a commit is announced to the other replicas.
const CHANNEL: &str = "convoke_log";

pub struct PostgresLog {
    hosts: Arc<Hosts>,
    retention: Option<Duration>,
    quarantine_retention: Option<Duration>,
    writer: Mutex<Option<PgConnection>>,
    pool: PgPool,
    /// For what people ask: a pool of its own, so that the cursors never wait for it.
    pub(crate) people: PgPool,
    /// A pool of its own for the listener's connection: waiting for a notification is cut short again and again, and such
    /// a connection must never come into the hands of a query.
    listeners: PgPool,
    /// Changes whenever another replica may have appended something.
    heard: watch::Sender<()>,
    maintained: Mutex<Option<Millis>>,
    /// No row that is committed from now on may have this place in the log, or one before it.
    newest: AtomicI64,
}

impl PostgresLog {
    /// The database that the URL names.
    ///
    /// # Errors
    /// [`LogError::Url`].
    pub fn new(options: &Options) -> Result<Self, LogError> {
        let hosts = Arc::new(Hosts::new(&options.url)?);
        let pool = || {
            let hosts = Arc::downgrade(&hosts);
            PgPoolOptions::new()
                .acquire_timeout(Duration::from_secs(2))
                // Tested here instead, and for a short time: of connections that a server which vanished has left behind, all are
                // found out within one wait for a connection. What was used a moment ago needs no test.
                .test_before_acquire(false)
                .before_acquire(|connection, pooled| {
                    Box::pin(async move { Ok(pooled.idle_for < FRESH || sound(connection).await) })
                })
                // A connection that was given up waiting for is tested before it goes back, and that test must not wait for
                // ever either: else a server that vanished without a word would keep all of the pool's places. And a session
                // that may only read is found out at its first use, and never comes into the pool again.
                .after_release(|connection, _| Box::pin(async move { Ok(sound(connection).await) }))
                .after_connect(move |connection, _| {
                    let hosts = hosts.upgrade();
                    Box::pin(async move {
                        session::prepare(connection).await?;
                        match hosts {
                            Some(hosts) => hosts.admit(connection).await,
                            None => Ok(()),
                        }
                    })
                })
        };
        let first = || hosts.in_use().clone();
        let people = pool().max_connections(3).idle_timeout(IDLE).connect_lazy_with(first());
        let listeners = pool().max_connections(1).connect_lazy_with(first());
        let pool = pool().max_connections(6).connect_lazy_with(first());
        hosts.lead(vec![pool.clone(), people.clone(), listeners.clone()]);
        Ok(Self {
            hosts,
            retention: options.retention,
            quarantine_retention: options.quarantine_retention,
            writer: Mutex::new(None),
            pool,
            people,
            listeners,
            heard: watch::Sender::new(()),
            maintained: Mutex::new(None),
            newest: AtomicI64::new(0),
        })
    }

    /// Listens on one connection until it is lost.
    async fn hear(&self) -> Result<(), sqlx::Error> {
        self.hosts.look().await;
        let mut listener = PgListener::connect_with(&self.listeners).await?;
        listener.listen(CHANNEL).await?;
        // While nobody listened, anything may have happened.
        self.heard.send_modify(|()| {});
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(_))) => self.heard.send_modify(|()| {}),
                Ok(lost) => return lost.map(drop),
                Err(_) => match tokio::time::timeout(PATIENCE, hosts::writable(&mut listener)).await {
                    Ok(Ok(true)) => {}
                    Ok(answer) => return answer.map(drop),
                    Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
                },
            }
        }
    }

    /// Takes the writing connection, opened if need be. It is out of its place while it is in use: if the caller's future is
    /// dropped half-way, or fails, the connection goes with it, and the server rolls back what it did.
    async fn check_out(&self) -> Result<(MutexGuard<'_, Option<PgConnection>>, PgConnection), LogError> {
        let mut place = self.writer.lock().await;
        let connection = match place.take() {
            Some(connection) => connection,
            None => {
                let mut connection = bounded(session::connect(&self.hosts)).await?;
                // Not before it is known that this is the log, whole: a database that was restored has its rows, and not
                // always where its sequences were.
                let newest = bounded(sequence::mend(&mut connection)).await?;
                self.newest.store(newest, Ordering::Relaxed);
                connection
            }
        };
        Ok((place, connection))
    }

    fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Where to write, other than by appending.
    async fn session(&self) -> Result<PoolConnection<Db>, LogError> {
        bounded(self.pool.acquire()).await
    }

    /// Runs one writing statement in a transaction of its own; the number of rows it touched.
    async fn write(&self, statement: Query<'_, Db, Arguments>) -> Result<u64, LogError> {
        bounded(statement.execute(&self.pool)).await.map(|done| done.rows_affected())
    }

    /// All rows of a query that goes along the log.
    async fn along<T>(&self, query: QueryAs<'_, Db, T, Arguments>) -> Result<Vec<T>, LogError>
    where
        T: for<'r> FromRow<'r, DbRow> + Send + Unpin,
    {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_READ).await?;
            let rows = query.fetch_all(&mut *tx).await?;
            tx.commit().await?;
            Ok(rows)
        })
        .await
    }

    /// How long the partitions are.
    fn span(&self) -> partitions::Span {
        if self.retention.is_some() { partitions::Span::Month } else { partitions::Span::Year }
    }

    /// What is known to judge the clock and the cursors by.
    async fn known_of_retention(&self, now: Millis) -> Result<retention::Known, LogError> {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_READ).await?;
            let row = sqlx::query(
                "SELECT (SELECT occurred_at FROM events WHERE event_id < $1 AND source <> 'platform'
                          ORDER BY event_id DESC LIMIT 1),
                        (SELECT received_at FROM events ORDER BY seq DESC LIMIT 1),
                        (SELECT note FROM task_notes WHERE name = $2)",
            )
            .bind(EventId::lower_bound(now.plus(retention::AHEAD)).uuid())
            .bind(retention::SEEN)
            .fetch_one(&mut *tx)
            .await?;
            let slowest: Option<(String, i64)> =
                sqlx::query_as("SELECT name, position FROM cursors ORDER BY position LIMIT 1")
                    .fetch_optional(&mut *tx)
                    .await?;
            let unread = sqlx::query_scalar("SELECT received_at FROM events WHERE seq > $1 ORDER BY seq LIMIT 1")
                .bind(slowest.as_ref().map(|slowest| slowest.1))
                .fetch_optional(&mut *tx)
                .await?;
            tx.commit().await?;
            let at =
                |index: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<_>, _>(index)?.map(Millis::from_date_time));
            let seen: Option<&str> = row.try_get(2)?;
            Ok(retention::Known {
                happened: at(0)?,
                received: at(1)?,
                seen: seen.and_then(Millis::parse),
                slowest,
                unread: unread.map(Millis::from_date_time),
            })
        })
        .await
    }

    /// Deletes entries of the quarantine; whether there may be more.
    async fn expire_quarantine(&self, before: Millis) -> Result<bool, LogError> {
        let delete = sqlx::query(
            "DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine WHERE received_at < $1 LIMIT $2)",
        );
        let done =
            bounded(delete.bind(before.date_time()).bind(QUARANTINE_ROWS).execute(&self.pool)).await?.rows_affected();
        Ok(done == QUARANTINE_ROWS.unsigned_abs())
    }

    async fn append_on(&self, connection: &mut PgConnection, batch: &[Append]) -> Result<Committed, sqlx::Error> {
        let mut tx = connection.begin_with(BEGIN_APPEND).await?;
        let (Inserted { duplicates, first }, newest) = self.insert_events(&mut tx, &crate::log::events(batch)).await?;
        for append in batch {
            match append.verified.content() {
                // Further deliveries were noted with the insert.
                Content::Event(_) => {}
                Content::Unreadable(unreadable) => insert_quarantined(&mut tx, unreadable, append.deliveries).await?,
                Content::Handshake(handshake) => {
                    handshakes::note_handshake(&mut tx, handshake, append.deliveries).await?;
                }
            }
        }
        tx.commit().await?;
        self.newest.fetch_max(newest, Ordering::Relaxed);
        Ok(Committed { outcomes: crate::log::outcomes(batch, &duplicates), first })
    }

    /// What became of the events, and the highest place that one of them has.
    async fn insert_events(
        &self,
        tx: &mut PgTransaction<'_>,
        events: &[(&Append, &Event)],
    ) -> Result<(Inserted, i64), sqlx::Error> {
        if events.is_empty() {
            return Ok((Inserted::default(), 0));
        }
        fn column<'a, T>(events: &'a [(&Append, &Event)], of: impl Fn(&'a Event) -> T) -> Vec<T> {
            events.iter().map(|(_, event)| of(event)).collect()
        }
        let stored: Vec<(Uuid, i64)> = sqlx::query_as(
            "INSERT INTO events (event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid,
                 meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number,
                 join_time, left_time, source, deliveries, last_delivered_at, request_id, traceparent, event_info)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                 $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                 $15::text[], $16::timestamptz[], $17::timestamptz[], $18::text[], $19::int[], $20::timestamptz[],
                 $21::text[], $22::text[], $23::text[])
             ON CONFLICT (event_id) DO NOTHING
             RETURNING event_id, seq",
        )
        .bind(column(events, |event| event.event_id.uuid()))
        .bind(column(events, |event| &*event.subscriber_id))
        .bind(column(events, |event| &*event.event))
        .bind(column(events, |event| event.occurred_at.date_time()))
        .bind(column(events, |event| event.received_at.date_time()))
        .bind(column(events, |event| {
            event.meeting.id.as_deref().map(|id| &id[..id.floor_char_boundary(LONGEST_INDEXED)])
        }))
        .bind(column(events, |event| event.meeting.uuid.as_deref()))
        .bind(column(events, |event| event.meeting.cycle_sub_id.as_deref()))
        .bind(column(events, |event| event.attendee.user_uuid.as_deref()))
        .bind(column(events, |event| event.attendee.user_agent.as_deref()))
        .bind(column(events, |event| event.attendee.account.as_deref()))
        .bind(column(events, |event| event.attendee.participant_id.as_deref()))
        .bind(column(events, |event| event.attendee.display_name.as_deref()))
        .bind(column(events, |event| event.attendee.role.as_deref()))
        .bind(column(events, |event| event.attendee.call_number.as_deref()))
        .bind(column(events, |event| event.attendee.join_time.map(Millis::date_time)))
        .bind(column(events, |event| event.attendee.left_time.map(Millis::date_time)))
        .bind(column(events, |event| event.source.as_str()))
        .bind(events.iter().map(|(append, _)| deliveries(append.deliveries)).collect::<Vec<_>>())
        .bind(events.iter().map(|(append, _)| append.last_delivered_at.date_time()).collect::<Vec<_>>())
        .bind(column(events, |event| event.request_id.as_deref()))
        .bind(column(events, |event| event.traceparent.as_deref()))
        .bind(column(events, |event| &*event.event_info))
        .fetch_all(&mut **tx)
        .await?;
        // Where cursors have been, nobody would ever look again.
        let (lowest, newest) = (stored.iter().map(|row| row.1).min(), stored.iter().map(|row| row.1).max());
        let known = self.newest.load(Ordering::Relaxed);
        if lowest.is_some_and(|lowest| lowest <= known) {
            return Err(sqlx::Error::Protocol(format!(
                "the sequence events_seq gave the number {} after {known}: it was set back",
                lowest.unwrap_or_default()
            )));
        }
        let newest = newest.unwrap_or_default();
        if stored.len() == events.len() {
            let first = stored[0].1;
            let follow = (first..)
                .zip(&stored)
                .zip(events)
                .all(|((expected, (id, seq)), (_, event))| *seq == expected && *id == event.event_id.uuid());
            return Ok((Inserted { duplicates: HashSet::new(), first: follow.then_some(Seq(first)) }, newest));
        }
        let stored: HashSet<Uuid> = stored.into_iter().map(|(id, _)| id).collect();
        let known: Vec<_> = events.iter().filter(|(_, event)| !stored.contains(&event.event_id.uuid())).collect();
        let noted = sqlx::query(
            "UPDATE events
                SET deliveries = events.deliveries + again.deliveries,
                    last_delivered_at = greatest(events.last_delivered_at, again.last_delivered_at)
               FROM unnest($1::uuid[], $2::int[], $3::timestamptz[]) AS again (event_id, deliveries, last_delivered_at)
              WHERE events.event_id = again.event_id",
        )
        .bind(known.iter().map(|(_, event)| event.event_id.uuid()).collect::<Vec<_>>())
        .bind(known.iter().map(|(append, _)| deliveries(append.deliveries)).collect::<Vec<_>>())
        .bind(known.iter().map(|(append, _)| append.last_delivered_at.date_time()).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
        all_kept(known.len(), noted.rows_affected())?;
        let duplicates = known.iter().map(|(_, event)| event.event_id).collect();
        Ok((Inserted { duplicates, first: None }, newest))
    }
}

/// The column is an `int`: a count cannot come near its end.
fn deliveries(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Gives up on a database that does not answer.
async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>> + Send) -> Result<T, LogError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(LogError::unavailable(format!("no answer within {PATIENCE:?}"))),
    }
}

/// Whether a connection answers in time, and may write.
async fn sound(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(TEST, hosts::writable(connection)).await, Ok(Ok(true)))
}

/// Moves a cursor forward, or back to the beginning, if `owner` holds its lease: whether somebody else asks for it.
async fn advance(
    connection: &mut PgConnection,
    cursor: &str,
    owner: &str,
    to: Option<Seq>,
    ttl: Duration,
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE cursors SET position = coalesce($3, 0), updated_at = clock_timestamp(),
                lease_until = clock_timestamp() + make_interval(secs => $4)
          WHERE name = $1 AND lease_owner = $2 AND lease_until > clock_timestamp() AND ($3 IS NULL OR position <= $3)
         RETURNING coalesce(wanted_by <> $2 AND wanted_until > clock_timestamp(), false)",
    )
    .bind(cursor)
    .bind(owner)
    .bind(to.map(|to| to.0))
    .bind(ttl.as_secs_f64())
    .fetch_optional(connection)
    .await
}

async fn insert_quarantined(
    connection: &mut PgConnection,
    unreadable: &Unreadable,
    deliveries: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO quarantine AS q (digest, subscriber_id, received_at, deliveries, reason, body)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (digest) DO UPDATE SET deliveries = q.deliveries + excluded.deliveries",
    )
    .bind(unreadable.digest().as_slice())
    .bind(&*unreadable.subscriber_id)
    .bind(unreadable.received_at.date_time())
    .bind(i64::from(deliveries))
    .bind(&unreadable.reason)
    .bind(&unreadable.body[..])
    .execute(connection)
    .await
    .and_then(|done| all_kept(1, done.rows_affected()))
}

/// The settings hold a password: only what [`Maintenance::describe`] says.
impl std::fmt::Debug for PostgresLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Why upkeep did not come to its end.
enum Upkeep {
    /// Somebody's transaction is in the way.
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

/// SQLSTATE classes of values that the server will never take: 22 data exception, 23 integrity constraint violation,
/// 54 program limit exceeded. Everything else is the database's health, and so are a row that belongs into a partition that is
/// missing (23514 that names no constraint) and a sequence that has come to its end (2200H).
pub(crate) fn failed(error: sqlx::Error) -> LogError {
    let database = error.as_database_error();
    let code = database.and_then(|error| error.code()).unwrap_or_default().into_owned();
    let constraint = database.is_some_and(|error| error.constraint().is_some());
    match (&error, &*code, code.get(..2).unwrap_or_default()) {
        (sqlx::Error::Encode(_), ..) => LogError::Rejected(error.into()),
        (_, "23514", _) if !constraint => LogError::NoPlace(error.into()),
        (_, "2200H", _) => LogError::unavailable(error),
        (_, _, "22" | "23" | "54") => LogError::Rejected(error.into()),
        _ => trouble::explain(error),
    }
}

impl Queries for PostgresLog {}

impl Store for PostgresLog {}
