//! Connections, each with its own session, set up as the log needs it.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::bounded;
use super::hosts::Hosts;
use crate::LogError;

/// Session settings, whatever the defaults of the database and the role: durable, each statement sees all earlier
/// commits, and the locks of a process that disappeared are limited in time. They are set after connecting because a
/// pooler refuses start-up options or silently drops them. JIT is off: PostgreSQL considers a page of a large table
/// expensive, but reads it in a tenth of the time that compiling takes.
const SESSION: &str = "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'; \
     SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '2s'; SET jit = off; \
     SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 2; \
     SET tcp_user_timeout = '8s'";

const POOLED: &str = "database.url points to a connection pooler in transaction mode, but Convoke's timeouts, \
                      prepared statements and notifications need a whole session: write PostgreSQL's own address \
                      into database.url, or switch the pooler to session mode (pgbouncer: pool_mode = session)";

/// Opens a session.
pub async fn connect(hosts: &Hosts) -> Result<PgConnection, sqlx::Error> {
    let (mut connection, _) = hosts.reach().await?;
    prepare(&mut connection).await?;
    Ok(connection)
}

pub async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(SESSION).execute(connection).await.map(drop)
}

/// Opens a session and checks that it is a real one: it has one server process, which no other client uses meanwhile. A
/// pooler that hands sessions on gives out the process that became free last, or the next in turn: then two clients get
/// the same process, or one of them gets another process the second time.
pub async fn open(hosts: &Hosts) -> Result<PgConnection, LogError> {
    async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
        sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)
    }
    // Set nothing before it is clear that the session is not shared.
    let (mut connection, pooled) = bounded(async {
        let (mut connection, options) = hosts.reach().await?;
        let mut other = PgConnection::connect_with(options).await?;
        let first = (process(&mut connection).await?, process(&mut other).await?);
        let again = (process(&mut other).await?, process(&mut connection).await?);
        other.close().await?;
        Ok((connection, first != (again.1, again.0) || first.0 == first.1))
    })
    .await?;
    if pooled {
        return Err(LogError::unavailable(POOLED));
    }
    bounded(prepare(&mut connection)).await?;
    Ok(connection)
}
