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

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnection, PgPoolOptions};
use tokio::sync::{Mutex, watch};

use crate::query::Begin;
use crate::query::Connection;
use crate::{LogError, Options};
use convoke_core::id::Seq;
use convoke_core::time::Millis;
use hosts::Hosts;

mod append;
mod erasure;
mod hosts;
mod listen;
mod maintenance;
mod partitions;
mod queries;
mod sequence;
mod session;
mod trouble;
pub mod url;

pub(crate) use append::MAX_INDEXED_BYTES;
pub(crate) use queries::read_within;

/// Begins a transaction that appends: one round trip for the transaction and the lock on the log's order. The planner is
/// told to use the indexes, whatever it believes of a table that was empty a minute ago, and to plan once: planning takes time
/// for every month that there is, and no month calls for another plan. The other replicas hear of it with the commit.
const BEGIN_APPEND: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan; \
     SELECT pg_advisory_xact_lock(4865178305); NOTIFY convoke_log";

/// Finds out whether a transaction could append, which a replica that vanished may keep all others from.
const BEGIN_LOCKED: &str = "BEGIN; SELECT pg_advisory_xact_lock(4865178305)";

/// Begins a transaction that reads along the log: through the index of each month, merged, by a plan that is made once. Left
/// to itself the planner takes the limit, which it does not know, for a tenth of the log, and plans each page anew.
const BEGIN_READ: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; \
     SET LOCAL enable_bitmapscan = off; SET LOCAL plan_cache_mode = force_generic_plan";

/// A join by nested loops over the keys' index, whatever the planner believes of a table that was empty a minute ago.
const BEGIN_KEYS: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan";

/// How long the writer waits for the database before it gives the connection up. Less than the time in which a delivery
/// must be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A connection that was used so short a time ago is not tested before it is used again …
const FRESH_TIME: Duration = Duration::from_millis(500);

/// … and one that is tested must answer within this time. One that is given back is tested as well: what was given up
/// waiting for may still be at work for nobody, and is not to take up one of the pool's places.
const TEST_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a connection for what people ask is kept while nobody asks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct PostgresLog {
    hosts: Arc<Hosts>,
    pub retention: Option<Duration>,
    quarantine_retention: Option<Duration>,
    writer: Mutex<Option<PgConnection>>,
    pub pool: PgPool,
    /// For what people ask: a pool of its own, so that the cursors never wait for it.
    pub people: PgPool,
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
                    Box::pin(async move { Ok(pooled.idle_for < FRESH_TIME || sound(connection).await) })
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
        let people = pool().max_connections(3).idle_timeout(IDLE_TIMEOUT).connect_lazy_with(first());
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

    /// Works on one connection.
    pub async fn with_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        bounded(async {
            let mut connection = self.pool.acquire().await?;
            work(&mut Connection::Postgres(&mut connection)).await
        })
        .await
    }

    /// Does all of it in one transaction.
    pub async fn transaction<T>(
        &self,
        begin: Begin,
        work: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let begin = match begin {
            Begin::Write | Begin::Erase => "BEGIN",
            Begin::LockLog | Begin::EraseLog => BEGIN_LOCKED,
            Begin::LockErasures => "BEGIN; LOCK TABLE erasures IN SHARE ROW EXCLUSIVE MODE",
            Begin::ReadLog => BEGIN_READ,
            Begin::ReadKeys => BEGIN_KEYS,
        };
        bounded(async {
            let mut tx = self.pool.begin_with(begin).await?;
            let done = work(&mut Connection::Postgres(&mut tx)).await?;
            tx.commit().await?;
            Ok(done)
        })
        .await
    }

    /// Notes what other replicas appended.
    pub fn appended_up_to(&self, head: Seq) {
        self.newest.fetch_max(head.0, Ordering::Relaxed);
    }

    pub fn appended_elsewhere(&self) -> watch::Receiver<()> {
        self.heard.subscribe()
    }
}

/// Gives up on a database that does not answer.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LogError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(LogError::unavailable(format!("no answer within {ANSWER_TIMEOUT:?}"))),
    }
}

/// Whether a connection answers in time, and may write.
async fn sound(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(TEST_TIMEOUT, hosts::writable(connection)).await, Ok(Ok(true)))
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
