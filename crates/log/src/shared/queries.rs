//! How the code that both back ends share asks its database.

use sqlx::FromRow;
use sqlx::query::{Query, QueryAs};

use super::{Arguments, Backend, Db, DbRow, bounded};
use crate::LogError;

impl Backend {
    /// All rows.
    pub(super) async fn all<T>(&self, query: QueryAs<'_, Db, T, Arguments>) -> Result<Vec<T>, LogError>
    where
        T: for<'r> FromRow<'r, DbRow> + Send + Unpin,
    {
        bounded(query.fetch_all(self.pool())).await
    }

    /// The one row that there is, or none.
    pub(super) async fn optional<T>(&self, query: QueryAs<'_, Db, T, Arguments>) -> Result<Option<T>, LogError>
    where
        T: for<'r> FromRow<'r, DbRow> + Send + Unpin,
    {
        bounded(query.fetch_optional(self.pool())).await
    }

    /// The one row.
    pub(super) async fn one<T>(&self, query: QueryAs<'_, Db, T, Arguments>) -> Result<T, LogError>
    where
        T: for<'r> FromRow<'r, DbRow> + Send + Unpin,
    {
        bounded(query.fetch_one(self.pool())).await
    }

    /// Whether one row was written.
    pub(super) async fn wrote_one(&self, statement: Query<'_, Db, Arguments>) -> Result<bool, LogError> {
        self.write(statement).await.map(|rows| rows == 1)
    }
}
