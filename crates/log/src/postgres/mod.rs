//! The log in PostgreSQL 15 or later, shared by any number of replicas.
//!
//! `seq` comes from a sequence, and sequences are not in commit order. So an appending transaction takes an advisory
//! lock before it draws its first number, and holds it until its commit is visible. Batches are large, so this costs
//! little, and a single writer is the fastest anyway. The timeouts and TCP keepalives of the session limit how long a
//! replica that disappeared during a transaction can hold the lock. Readers take no lock at all: a long transaction of
//! another client does not stall a cursor.
//!
//! All of this belongs to the session, so a connection must have its own session: a pooler that hands the session on
//! after each transaction is detected at start, and refused.

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

/// Begins a transaction that appends: one round trip for the transaction and the lock on the log's order. The lock comes before any
/// of the table, as it does where partitions are made; so it cannot be part of the `INSERT`. The commit notifies the other replicas.
const BEGIN_APPEND: &str = "BEGIN; SELECT pg_advisory_xact_lock(4865178305); NOTIFY convoke_log";

/// Settings of the session that appends: they make the planner use the indexes, even for a table that was just empty, and plan
/// once: planning takes time for every month, and no month needs a different plan.
const APPEND_SESSION: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET plan_cache_mode = force_generic_plan";

/// Begins a transaction with the append lock: to erase rows of the log, and to check whether appends are possible, because a
/// replica that disappeared may still hold the lock.
const BEGIN_LOCKED: &str = "BEGIN; SELECT pg_advisory_xact_lock(4865178305)";

/// Begins a transaction that reads in log order: merges the indexes of all months, with a plan made once. By default
/// the planner assumes that the limit, which it does not know, is a tenth of the log, and plans each page again.
const BEGIN_READ: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; \
     SET LOCAL enable_bitmapscan = off; SET LOCAL plan_cache_mode = force_generic_plan";

/// Begins a transaction that joins by nested loops over the index of the keys, even for a table that was just empty.
const BEGIN_KEYS: &str = "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
     SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan";

/// How long the writer waits for a response before it drops the connection. Less than the time limit for
/// the response to a delivery.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A connection used within this time is not tested before it is used again.
const FRESH_TIME: Duration = Duration::from_millis(500);

/// Timeout of the test of a connection. A returned connection is tested as well: the server may still be working on an
/// abandoned query, and such a connection must not take a place in the pool.
const TEST_TIMEOUT: Duration = Duration::from_millis(250);

/// How long an idle connection for users' queries is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct PostgresLog {
    hosts: Arc<Hosts>,
    pub retention: Option<Duration>,
    quarantine_retention: Option<Duration>,
    writer: Mutex<Option<PgConnection>>,
    pub pool: PgPool,
    /// For users' queries: a separate pool, so that the cursors never wait for them.
    pub people: PgPool,
    /// A separate pool for the listening connection: its wait for a notification is cancelled again and again, and a
    /// query must never get such a connection.
    listeners: PgPool,
    /// Changes when another replica may have appended something.
    heard: watch::Sender<()>,
    maintained: Mutex<Option<Millis>>,
    /// The highest known position. Rows committed from now on must have higher ones.
    newest: AtomicI64,
}

impl PostgresLog {
    /// Opens the database at the URL.
    ///
    /// # Errors
    /// [`LogError::Url`].
    pub fn new(options: &Options) -> Result<Self, LogError> {
        let hosts = Arc::new(Hosts::new(&options.url)?);
        let pool = || {
            let hosts = Arc::downgrade(&hosts);
            PgPoolOptions::new()
                .acquire_timeout(Duration::from_secs(2))
                // Tested in `before_acquire` instead, with a short timeout: one wait for a connection is enough to detect
                // all those left over from a server that disappeared. A connection used a moment ago needs no test.
                .test_before_acquire(false)
                .before_acquire(|connection, pooled| {
                    Box::pin(async move { Ok(pooled.idle_for < FRESH_TIME || sound(connection).await) })
                })
                // A connection whose query was abandoned is tested before it goes back, with a timeout: otherwise a
                // server that disappeared silently would occupy the whole pool. The test also removes a session that
                // turned read-only, after its first use.
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

    /// Runs `work` on one connection.
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

    /// Runs `work` in one transaction.
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

    /// Notes the position of what other replicas appended.
    pub fn appended_up_to(&self, head: Seq) {
        self.newest.fetch_max(head.0, Ordering::Relaxed);
    }

    pub fn appended_elsewhere(&self) -> watch::Receiver<()> {
        self.heard.subscribe()
    }
}

/// Fails if the database does not respond in time.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LogError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(LogError::unavailable(format!("no answer within {ANSWER_TIMEOUT:?}"))),
    }
}

/// Whether a connection responds in time and can write.
async fn sound(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(TEST_TIMEOUT, hosts::writable(connection)).await, Ok(Ok(true)))
}

/// `Rejected` for the SQLSTATE classes of values that the server will never accept: 22 data exception, 23 integrity
/// constraint violation, 54 program limit exceeded. Everything else counts as an unavailable database, including an
/// exhausted sequence (2200H). A row without a partition (23514 without a constraint name) is `NoPlace`.
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
