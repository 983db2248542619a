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

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgPool, PgTransaction, Row};
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard, watch};
use uuid::Uuid;

use super::{
    Append, Committed, Counts, CursorState, Filter, Heartbeat, Inserted, Lag, Leased, Log, LogError, Moved, Options,
    Quarantined, RetentionHeld, Schema, SetAside, Unmigrated, retention,
};
use crate::disk::Disk;
use convoke_core::event::{Content, Event, Record, Unreadable};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

mod erasure;
mod fetches;
mod gaps;
mod hosts;
mod partitions;
mod probes;
mod reading;
mod sequence;
mod session;
mod sign_outs;
mod stats;
mod tables;
mod trouble;
pub mod url;

use hosts::Hosts;
pub use trouble::INSUFFICIENT_PRIVILEGE;

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

const RECORD: &str = "seq, event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, source, \
     traceparent, event_info";

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
const LONGEST_INDEXED: usize = 2_000;

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
    people: PgPool,
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
        let (Inserted { duplicates, first }, newest) = self.insert_events(&mut tx, &super::events(batch)).await?;
        for append in batch {
            match append.verified.content() {
                // Further deliveries were noted with the insert.
                Content::Event(_) => {}
                Content::Unreadable(unreadable) => insert_quarantined(&mut tx, unreadable, append.deliveries).await?,
                Content::Handshake(handshake) => probes::note_handshake(&mut tx, handshake, append.deliveries).await?,
            }
        }
        tx.commit().await?;
        self.newest.fetch_max(newest, Ordering::Relaxed);
        Ok(Committed { outcomes: super::outcomes(batch, &duplicates), first })
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
        super::all_kept(known.len(), noted.rows_affected())?;
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
    database: impl sqlx::PgExecutor<'_>,
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
    .fetch_optional(database)
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
    .and_then(|done| super::all_kept(1, done.rows_affected()))
}

/// The settings hold a password: only what [`Log::describe`] says.
impl std::fmt::Debug for PostgresLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

#[async_trait]
impl Log for PostgresLog {
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
            let found = super::run_migrations(&MIGRATIONS, &mut connection, false, place.clone(), explain).await;
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
            super::run_migrations(&MIGRATIONS, &mut connection, true, place.clone(), explain).await
        };
        let schema = tokio::time::timeout(MIGRATION, work)
            .await
            .map_err(|_| LogError::unavailable(format!("no answer within {MIGRATION:?}")))??;
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "closing the connection that migrated");
        }
        Ok(schema)
    }

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

    async fn heartbeat(&self) -> Result<Option<Heartbeat>, LogError> {
        let row =
            bounded(sqlx::query("SELECT at, clock_timestamp() FROM heartbeat").fetch_optional(&self.pool)).await?;
        Ok(row.map(|row| {
            let at = Millis::from_date_time(row.get(0));
            Heartbeat { at, age: Millis::from_date_time(row.get(1)).since(at), elsewhere: false }
        }))
    }

    async fn note(&self, name: &str) -> Result<Option<String>, LogError> {
        bounded(sqlx::query_scalar("SELECT note FROM task_notes WHERE name = $1").bind(name).fetch_optional(&self.pool))
            .await
    }

    async fn keep_note(&self, name: &str, note: &str) -> Result<(), LogError> {
        let keep = sqlx::query(
            "INSERT INTO task_notes (name, note, at) VALUES ($1, $2, now())
             ON CONFLICT (name) DO UPDATE SET note = excluded.note, at = excluded.at",
        );
        bounded(keep.bind(name).bind(note).execute(&self.pool)).await.map(drop)
    }

    async fn read(&self, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        bounded(async {
            let mut tx = self.pool.begin_with(BEGIN_READ).await?;
            let sql = format!("SELECT {RECORD} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");
            let rows = sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            rows.iter().map(record).collect()
        })
        .await
    }

    async fn select(&self, filter: &Filter, after: Seq, limit: u32) -> Result<Vec<Record>, LogError> {
        let sql = format!(
            "SELECT {RECORD} FROM events
              WHERE seq > $1 AND ($2::bigint IS NULL OR seq <= $2)
                AND ($3::timestamptz IS NULL OR occurred_at >= $3) AND ($4::timestamptz IS NULL OR occurred_at < $4)
                AND ($5::text IS NULL OR event = $5) AND ($6::text IS NULL OR meeting_id = $6 OR meeting_uuid = $6)
              ORDER BY seq LIMIT $7"
        );
        // A person's command, over any stretch of the log: it may take its time.
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(after.0)
            .bind(filter.up_to.map(|seq| seq.0))
            .bind(filter.since.map(Millis::date_time))
            .bind(filter.until.map(Millis::date_time))
            .bind(&filter.event)
            .bind(&filter.meeting)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(record).collect::<Result<_, _>>().map_err(failed)
    }

    async fn count(&self, ids: &[EventId]) -> Result<HashMap<EventId, u64>, LogError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows = sqlx::query("SELECT event_id, count(*) FROM events WHERE event_id = ANY ($1) GROUP BY event_id")
            .bind(ids)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(rows.iter().map(|row| (EventId::from_uuid(row.get(0)), row.get::<i64, _>(1).unsigned_abs())).collect())
    }

    async fn find(&self, id: EventId) -> Result<Option<Seq>, LogError> {
        bounded(
            sqlx::query_scalar("SELECT seq FROM events WHERE event_id = $1").bind(id.uuid()).fetch_optional(&self.pool),
        )
        .await
        .map(|seq| seq.map(Seq))
    }

    async fn places(&self, ids: &[EventId]) -> Result<HashMap<EventId, Seq>, LogError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let places = sqlx::query("SELECT event_id, seq FROM events WHERE event_id = ANY ($1)").bind(ids);
        let rows = bounded(places.fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(|row| (EventId::from_uuid(row.get(0)), Seq(row.get(1)))).collect())
    }

    async fn head(&self) -> Result<Seq, LogError> {
        let head: i64 =
            bounded(sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM events").fetch_one(&self.pool)).await?;
        // What other replicas append is seen here.
        self.newest.fetch_max(head, Ordering::Relaxed);
        Ok(Seq(head))
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
        bounded(advance(&self.pool, cursor, owner, Some(to), ttl))
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

    async fn set_aside(&self, cursor: &str, seq: Seq, id: EventId, reason: &str) -> Result<(), LogError> {
        let insert = sqlx::query(
            "INSERT INTO set_aside (cursor, seq, event_id, reason, at) VALUES ($1, $2, $3, $4, now())
             ON CONFLICT DO NOTHING",
        );
        bounded(insert.bind(cursor).bind(seq.0).bind(id.uuid()).bind(reason).execute(&self.pool)).await.map(drop)
    }

    async fn take_up(&self, cursor: &str, seq: Seq) -> Result<(), LogError> {
        let delete = sqlx::query("DELETE FROM set_aside WHERE cursor = $1 AND seq = $2");
        bounded(delete.bind(cursor).bind(seq.0).execute(&self.pool)).await.map(drop)
    }

    async fn list_set_aside(&self, cursor: &str, after: Seq, limit: u32) -> Result<Vec<SetAside>, LogError> {
        let list = sqlx::query(
            "SELECT seq, event_id, reason FROM set_aside WHERE cursor = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        );
        let rows = bounded(list.bind(cursor).bind(after.0).bind(i64::from(limit)).fetch_all(&self.pool)).await?;
        Ok(rows
            .iter()
            .map(|row| SetAside { seq: Seq(row.get(0)), event_id: EventId::from_uuid(row.get(1)), reason: row.get(2) })
            .collect())
    }

    async fn list_quarantined(&self, after: i64, limit: u32) -> Result<Vec<Quarantined>, LogError> {
        let list = sqlx::query(
            "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine
              WHERE id > $1 ORDER BY id LIMIT $2",
        );
        let rows = bounded(list.bind(after).bind(i64::from(limit)).fetch_all(&self.pool)).await?;
        Ok(rows.iter().map(quarantined).collect())
    }

    async fn get_quarantined(&self, id: i64) -> Result<Option<Quarantined>, LogError> {
        let get = sqlx::query(
            "SELECT id, subscriber_id, received_at, deliveries, reason, body FROM quarantine WHERE id = $1",
        );
        let row = bounded(get.bind(id).fetch_optional(&self.pool)).await?;
        Ok(row.as_ref().map(quarantined))
    }

    async fn discard_quarantined(&self, id: i64) -> Result<bool, LogError> {
        let done = bounded(sqlx::query("DELETE FROM quarantine WHERE id = $1").bind(id).execute(&self.pool)).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn counts(&self) -> Result<Counts, LogError> {
        bounded(async {
            let mut counts = Counts {
                quarantined: sqlx::query_scalar(super::COUNT_QUARANTINED).fetch_one(&self.pool).await?,
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

    async fn retention_held(&self, now: Millis) -> Result<Option<RetentionHeld>, LogError> {
        let Some(retention) = self.retention else { return Ok(None) };
        Ok(self.known_of_retention(now).await?.held(now, retention))
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

    fn maintenance_interval(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn appended_elsewhere(&self) -> watch::Receiver<()> {
        self.heard.subscribe()
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

    fn disk(&self) -> Option<Disk> {
        None
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

fn record(row: &PgRow) -> Result<Record, sqlx::Error> {
    Ok(Record {
        seq: Seq(row.try_get(0)?),
        event_id: EventId::from_uuid(row.try_get(1)?),
        subscriber_id: row.try_get(2)?,
        event: row.try_get(3)?,
        occurred_at: Millis::from_date_time(row.try_get(4)?),
        received_at: Millis::from_date_time(row.try_get(5)?),
        meeting_id: row.try_get(6)?,
        meeting_uuid: row.try_get(7)?,
        source: row.try_get(8)?,
        traceparent: row.try_get(9)?,
        event_info: row.try_get(10)?,
    })
}

fn quarantined(row: &PgRow) -> Quarantined {
    Quarantined {
        id: row.get(0),
        subscriber_id: row.get(1),
        received_at: Millis::from_date_time(row.get(2)),
        deliveries: row.get(3),
        reason: row.get(4),
        body: Bytes::from(row.get::<Vec<u8>, _>(5)),
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
fn failed(error: sqlx::Error) -> LogError {
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
