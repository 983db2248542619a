//! Statements for either database, and the connections on which people's are run.
//!
//! SQLite takes PostgreSQL's `$1` too: what differs beside that is named here, or where it is used.

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, FromRow, Postgres, Sqlite, Transaction};
use uuid::Uuid;

use convoke_core::id::EventId;
use convoke_core::time::Millis;

/// Which database a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

/// How PostgreSQL is to find the rows. SQLite is told in the statement: a `+` before a column keeps its planner from using the
/// column's index, where another one is far better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// As it likes.
    Free,
    /// In whatever index.
    Indexed,
    /// The order of a list is that of an index; what is not found by its key is found along that, from the page's beginning on.
    Along,
    /// The rows of a meeting by their index, and sorted.
    ByMeeting,
    /// Ranges are counted in their index, however many of them there are.
    Ranges,
}

/// A parameter. SQLite has lists as JSON.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Integer(i64),
    Text(String),
    Time(Millis),
    Id(Uuid),
    Attributes(Vec<String>),
    Times(Vec<Millis>),
    Ids(Vec<Uuid>),
}

impl Value {
    fn add_to_postgres(self, arguments: &mut PgArguments) -> Result<(), sqlx::error::BoxDynError> {
        match self {
            Self::Integer(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value),
            Self::Time(value) => arguments.add(value),
            Self::Id(value) => arguments.add(value),
            Self::Attributes(values) => arguments.add(values),
            Self::Times(values) => arguments.add(values),
            Self::Ids(values) => arguments.add(values),
        }
    }

    fn add_to_sqlite(self, arguments: &mut SqliteArguments) -> Result<(), sqlx::error::BoxDynError> {
        match self {
            Self::Integer(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value),
            Self::Time(value) => arguments.add(value),
            Self::Id(value) => arguments.add(value.hyphenated()),
            Self::Attributes(values) => arguments.add(serde_json::to_string(&values)?),
            Self::Times(values) => arguments.add(serde_json::to_string(&values)?),
            Self::Ids(values) => arguments.add(serde_json::to_string(&values)?),
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Value {
    /// As the typed columns have it, so that what cannot be in them is looked for as what they have in its place.
    fn from(value: &str) -> Self {
        Self::Text(value.replace('\0', "\u{fffd}"))
    }
}

impl From<Millis> for Value {
    fn from(value: Millis) -> Self {
        Self::Time(value)
    }
}

impl From<EventId> for Value {
    fn from(value: EventId) -> Self {
        Self::Id(value.uuid())
    }
}

impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Id(value)
    }
}

/// A statement and its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub dialect: Dialect,
    sql: String,
    values: Vec<Value>,
}

impl Query {
    pub fn new(dialect: Dialect, sql: impl Into<String>) -> Self {
        Self { dialect, sql: sql.into(), values: Vec::new() }
    }

    pub fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Pushes a parameter.
    pub fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.sql.push_str(&format!("${}", self.values.len()));
        self
    }

    /// Adds what the statement names by its number already.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    fn arguments<A: Default>(
        &mut self,
        add: impl Fn(Value, &mut A) -> Result<(), sqlx::error::BoxDynError>,
    ) -> Result<A, sqlx::Error> {
        let mut arguments = A::default();
        self.values.drain(..).try_for_each(|value| add(value, &mut arguments)).map_err(sqlx::Error::Encode)?;
        Ok(arguments)
    }
}

/// What both databases' rows can be read as.
pub(crate) trait FromAnyRow:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static
{
}

impl<T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static> FromAnyRow for T {}

/// A connection that people's queries alone use.
#[derive(Debug)]
pub(crate) enum Connection {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

impl Connection {
    /// The rows, as they come.
    pub fn stream<T: FromAnyRow>(
        &mut self,
        mut query: Query,
    ) -> Result<BoxStream<'_, Result<T, sqlx::Error>>, sqlx::Error> {
        Ok(match self {
            Self::Postgres(connection) => {
                let arguments: PgArguments = query.arguments(Value::add_to_postgres)?;
                sqlx::query_as_with(AssertSqlSafe(query.sql), arguments).fetch(&mut **connection)
            }
            Self::Sqlite(connection) => {
                let arguments: SqliteArguments = query.arguments(Value::add_to_sqlite)?;
                sqlx::query_as_with(AssertSqlSafe(query.sql), arguments).fetch(&mut **connection)
            }
        })
    }

    pub async fn fetch<T: FromAnyRow>(&mut self, query: Query) -> Result<Vec<T>, sqlx::Error> {
        self.stream(query)?.try_collect().await
    }
}
