//! A log in either database. Statements that both databases share are here; what differs is in
//! [`crate::postgres`] and [`crate::sqlite`].

use std::borrow::Cow;
use std::time::Duration;

use crate::postgres::{self, PostgresLog};
use crate::sqlite::{self, SqliteLog};
use crate::{LogError, Queries, Store};

use crate::query::{Begin, Connection, Dialect, FromAnyRow, Plan, Query};

mod actions;
mod bulk;
mod days;
mod erasure;
mod handshakes;
mod live;
mod log;
mod maintenance;
mod operations;
mod projection;
mod rows;
mod sessions;
mod snapshots;
mod test_data;
mod work_lists;

pub(crate) use rows::RECORDING;

/// A log in one of the databases.
pub(crate) enum Backend {
    Postgres(PostgresLog),
    Sqlite(Box<SqliteLog>),
}

impl Backend {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    pub(crate) fn query(&self, sql: impl Into<Cow<'static, str>>) -> Query {
        Query::new(self.dialect(), sql)
    }

    /// Reads on one connection, with a timeout for PostgreSQL.
    async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        match self {
            Self::Postgres(log) => log.with_connection(read).await,
            Self::Sqlite(log) => log.read(read).await,
        }
    }

    /// Fetches all rows.
    pub(crate) async fn all<T: FromAnyRow>(&self, query: Query) -> Result<Vec<T>, LogError> {
        self.read(async |connection| connection.fetch(query).await).await
    }

    /// Fetches all rows for an operator's command, without a timeout: it may read any part of the log.
    async fn all_in_time<T: FromAnyRow>(&self, query: Query) -> Result<Vec<T>, LogError> {
        match self {
            Self::Postgres(log) => {
                let rows = async { Connection::Postgres(&mut *log.pool.acquire().await?).fetch(query).await };
                rows.await.map_err(postgres::failed)
            }
            Self::Sqlite(_) => self.all(query).await,
        }
    }

    /// Fetches the only row, or none.
    async fn optional<T: FromAnyRow>(&self, query: Query) -> Result<Option<T>, LogError> {
        self.read(async |connection| connection.optional(query).await).await
    }

    /// Fetches the only row.
    async fn one<T: FromAnyRow>(&self, query: Query) -> Result<T, LogError> {
        self.optional(query).await?.ok_or_else(|| LogError::unavailable(sqlx::Error::RowNotFound))
    }

    /// Fetches all rows of a query in log order.
    async fn along<T: FromAnyRow>(&self, query: Query) -> Result<Vec<T>, LogError> {
        self.transaction(Begin::ReadLog, async |connection| connection.fetch(query).await).await
    }

    /// Writes on one connection, each statement in its own transaction.
    async fn write_with<T>(
        &self,
        write: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        match self {
            Self::Postgres(_) => self.read(write).await,
            Self::Sqlite(log) => log.write(async |connection| write(&mut Connection::Sqlite(connection)).await).await,
        }
    }

    /// Runs one writing statement. Returns the number of rows that it changed.
    pub(crate) async fn write(&self, query: Query) -> Result<u64, LogError> {
        self.write_with(async |connection| connection.execute(query).await).await
    }

    /// Runs `work` in one transaction.
    async fn transaction<T>(
        &self,
        begin: Begin,
        work: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        match self {
            Self::Postgres(log) => log.transaction(begin, work).await,
            Self::Sqlite(log) => log.transaction(begin, work).await,
        }
    }

    /// Reads for users, on connections that nothing else uses. Each query times out after `within`.
    pub(crate) async fn read_within<T>(
        &self,
        within: Duration,
        plan: Plan,
        read: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        match self {
            Self::Postgres(log) => postgres::read_within(&log.people, within, plan, read).await,
            Self::Sqlite(log) => sqlite::read_within(&log.people, within, read).await,
        }
    }

    pub(crate) async fn fetch_within<T: FromAnyRow>(
        &self,
        within: Duration,
        plan: Plan,
        query: Query,
    ) -> Result<Vec<T>, LogError> {
        self.read_within(within, plan, async |connection| connection.fetch(query).await).await
    }
}

impl std::fmt::Debug for Backend {
    /// Shows only what [`Maintenance::describe`](crate::Maintenance::describe) returns, because the
    /// settings contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::Maintenance::describe(self))
    }
}

impl Queries for Backend {}

impl Store for Backend {}
