//! The connections for people's queries, of either database.

use std::time::Duration;

use sqlx::{PgPool, SqlitePool};

use crate::postgres::PostgresLog;
use crate::sqlite::SqliteLog;
use crate::{LogError, LogReader};

use super::query::{Connection, Dialect, FromAnyRow, Plan, Query};
use super::{postgres, sqlite};

/// The connections for people's queries.
#[derive(Clone, Copy, Debug)]
pub enum QueryPool<'a> {
    /// In PostgreSQL.
    Postgres(&'a PgPool),
    /// In SQLite.
    Sqlite(&'a SqlitePool),
}

impl QueryPool<'_> {
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Reads on one connection; each query may take so long.
    pub(crate) async fn read_within<T>(
        self,
        within: Duration,
        plan: Plan,
        read: impl AsyncFnOnce(&mut Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        match self {
            Self::Postgres(pool) => postgres::read_within(pool, within, plan, read).await,
            Self::Sqlite(pool) => sqlite::read_within(pool, within, read).await,
        }
    }

    pub(crate) async fn fetch<T: FromAnyRow>(
        self,
        within: Duration,
        plan: Plan,
        query: Query,
    ) -> Result<Vec<T>, LogError> {
        self.read_within(within, plan, async |connection| connection.fetch(query).await).await
    }
}

/// A back end that answers people.
pub trait HasQueryPool: LogReader {
    /// Its connections for that.
    fn query_pool(&self) -> QueryPool<'_>;
}

impl HasQueryPool for PostgresLog {
    fn query_pool(&self) -> QueryPool<'_> {
        QueryPool::Postgres(&self.people)
    }
}

impl HasQueryPool for SqliteLog {
    fn query_pool(&self) -> QueryPool<'_> {
        QueryPool::Sqlite(&self.people)
    }
}
