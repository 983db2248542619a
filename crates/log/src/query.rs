//! Statements for both databases, and the connections that run them.
//!
//! SQLite accepts PostgreSQL's `$1` too. Other differences are methods of [`Dialect`], or are marked where they are used.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgConnection, PgHasArrayType, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, FromRow, Postgres, SqlSafeStr as _, SqlStr, Sqlite, Type};
use uuid::Uuid;

use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// The purpose of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Writes to tables other than the log.
    Write,
    /// Locks the log against appends, as an append does.
    LockLog,
    /// Erases personal data.
    Erase,
    /// Erases rows of the log. It appends nothing, but takes the log's lock so that it never waits for a row
    /// while an append waits for it.
    EraseLog,
    /// Begins an erasure. The lock ensures one unfinished erasure per person.
    LockErasures,
    /// Reads rows in log order.
    ReadLog,
    /// Reads rows of the tables by key.
    ReadKeys,
}

/// The database that a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// An expression for the current time of the database's clock.
    pub fn now(self) -> &'static str {
        match self {
            Self::Postgres => "clock_timestamp()",
            Self::Sqlite => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        }
    }

    /// The same, cut to the precision of [`Millis`].
    pub fn now_millis(self) -> &'static str {
        match self {
            Self::Postgres => "date_trunc('milliseconds', clock_timestamp())",
            Self::Sqlite => self.now(),
        }
    }

    /// An expression for the time `seconds` from now.
    pub fn in_seconds(self, seconds: &str) -> String {
        match self {
            Self::Postgres => format!("clock_timestamp() + make_interval(secs => {seconds})"),
            Self::Sqlite => format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', format('%+.3f seconds', {seconds}))"),
        }
    }

    /// The function that returns the greater of two values.
    pub fn greatest(self) -> &'static str {
        match self {
            Self::Postgres => "greatest",
            Self::Sqlite => "max",
        }
    }

    /// A condition: the value is in a list ([`Query::bind_list`]).
    pub fn among(self, list: &str) -> String {
        match self {
            Self::Postgres => format!("= ANY({list})"),
            Self::Sqlite => format!("IN (SELECT value FROM json_each({list}))"),
        }
    }

    /// The elements of a JSON list ([`Query::bind_json`]), as a table with a column `value`.
    pub fn each(self, json: &str) -> String {
        match self {
            Self::Postgres => format!("jsonb_array_elements(CAST({json} AS jsonb))"),
            Self::Sqlite => format!("json_each({json})"),
        }
    }
}

/// Hints for PostgreSQL's planner. SQLite gets its hint in the statement: a `+` before a column keeps its planner from
/// using the column's index where another index is far better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// No hint.
    Free,
    /// Use an index, whichever it is.
    Indexed,
    /// The list is in the order of an index. Rows not found by key are found by scanning that index from the start of the page.
    Along,
    /// Find the rows of a meeting by their index, then sort.
    ByMeeting,
    /// Count ranges in their index, however many there are.
    Ranges,
}

/// A value that both databases accept. A bare [`Uuid`] is not one: SQLite stores ids as text, as written by [`EventId`].
pub(crate) trait Param<'t>: Encode<'t, Postgres> + Type<Postgres> + Encode<'t, Sqlite> + Type<Sqlite> {}

impl Param<'_> for i64 {}
impl Param<'_> for f64 {}
impl Param<'_> for bool {}
impl<'t> Param<'t> for &'t str {}
impl<'t> Param<'t> for &'t [u8] {}
impl Param<'_> for String {}
impl Param<'_> for Arc<str> {}
impl Param<'_> for Millis {}
impl Param<'_> for EventId {}
impl Param<'_> for Seq {}
impl<'t, T: Param<'t> + 't> Param<'t> for Option<T> {}

/// An element type for lists.
pub(crate) trait ListItem: ToString + PgHasArrayType + for<'t> Encode<'t, Postgres> + Type<Postgres> {}

impl ListItem for String {}
impl ListItem for Uuid {}
impl ListItem for EventId {}
impl ListItem for Millis {}

/// For how much room is made for a value, with its length.
const AVERAGE_VALUE_BYTES: usize = 24;

#[derive(Debug)]
enum Arguments {
    Postgres(PgArguments),
    Sqlite(SqliteArguments),
}

/// A statement and its parameters.
#[derive(Debug)]
pub(crate) struct Query {
    pub dialect: Dialect,
    /// Statements that are made once are not copied for each use: those for many rows are long.
    sql: Cow<'static, str>,
    arguments: Arguments,
    /// The error of the first parameter that could not be encoded.
    error: Option<BoxDynError>,
}

impl Query {
    pub fn new(dialect: Dialect, sql: impl Into<Cow<'static, str>>) -> Self {
        let arguments = match dialect {
            Dialect::Postgres => Arguments::Postgres(PgArguments::default()),
            Dialect::Sqlite => Arguments::Sqlite(SqliteArguments::default()),
        };
        Self { dialect, sql: sql.into(), arguments, error: None }
    }

    pub fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.to_mut().push_str(sql);
        self
    }

    /// Makes room for so many values.
    pub fn reserve(&mut self, values: usize) {
        match &mut self.arguments {
            Arguments::Postgres(arguments) => arguments.reserve(values, values * AVERAGE_VALUE_BYTES),
            Arguments::Sqlite(arguments) => arguments.reserve(values, values * AVERAGE_VALUE_BYTES),
        }
    }

    /// Adds a value for a placeholder that is already in the statement.
    pub fn bind<'t>(mut self, value: impl Param<'t>) -> Self {
        self.add(value);
        self
    }

    pub fn add<'t>(&mut self, value: impl Param<'t>) -> &mut Self {
        let added = match &mut self.arguments {
            Arguments::Postgres(arguments) => arguments.add(value),
            Arguments::Sqlite(arguments) => arguments.add(value),
        };
        self.note(added)
    }

    /// Adds a text, which SQLite's driver would copy twice.
    pub fn add_text(&mut self, text: Option<&str>) -> &mut Self {
        match &self.arguments {
            Arguments::Postgres(_) => self.add(text),
            Arguments::Sqlite(_) => self.add(text.map(Arc::<str>::from)),
        }
    }

    /// Adds a list: an array for PostgreSQL, JSON for SQLite.
    pub fn bind_list<T: ListItem>(mut self, values: &[T]) -> Self {
        self.add_list(values);
        self
    }

    fn add_list<T: ListItem>(&mut self, values: &[T]) {
        let added = match &mut self.arguments {
            Arguments::Postgres(arguments) => arguments.add(values),
            Arguments::Sqlite(arguments) => arguments.add(json(values.iter().map(ToString::to_string))),
        };
        self.note(added);
    }

    /// Keeps the first error.
    fn note(&mut self, added: Result<(), BoxDynError>) -> &mut Self {
        if let Err(error) = added {
            self.error.get_or_insert(error);
        }
        self
    }

    /// Adds a list as JSON, on both databases.
    pub fn bind_json<T: Into<serde_json::Value>>(self, values: impl IntoIterator<Item = T>) -> Self {
        self.bind(json(values))
    }

    /// Appends a placeholder and its value.
    pub fn push_bind<'t>(&mut self, value: impl Param<'t>) -> &mut Self {
        self.add(value).push_number()
    }

    /// Appends a search text, converted as the typed columns store it, so that characters that they cannot
    /// hold match their replacement.
    pub fn push_text(&mut self, text: &str) -> &mut Self {
        self.push_bind(sought(text))
    }

    /// Appends a placeholder and its list.
    pub fn push_list<T: ListItem>(&mut self, values: &[T]) -> &mut Self {
        self.add_list(values);
        self.push_number()
    }

    fn push_number(&mut self) -> &mut Self {
        let number = match &self.arguments {
            Arguments::Postgres(arguments) => arguments.len(),
            Arguments::Sqlite(arguments) => arguments.len(),
        };
        self.sql.to_mut().push_str(&format!("${number}"));
        self
    }
}

/// A search text, converted as the typed columns store it.
pub(crate) fn sought(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn json<T: Into<serde_json::Value>>(values: impl IntoIterator<Item = T>) -> String {
    serde_json::Value::from_iter(values).to_string()
}

/// A type that can be read from rows of both databases.
pub(crate) trait FromAnyRow:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static
{
}

impl<T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static> FromAnyRow for T {}

/// A connection, inside a transaction or not.
#[derive(Debug)]
pub(crate) enum Connection<'c> {
    Postgres(&'c mut PgConnection),
    Sqlite(&'c mut SqliteConnection),
}

impl Connection<'_> {
    pub fn query(&self, sql: impl Into<Cow<'static, str>>) -> Query {
        Query::new(self.dialect(), sql)
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Streams the rows as they arrive.
    pub fn stream<T: FromAnyRow>(
        &mut self,
        query: Query,
    ) -> Result<BoxStream<'_, Result<T, sqlx::Error>>, sqlx::Error> {
        if let Some(error) = query.error {
            return Err(sqlx::Error::Encode(error));
        }
        match (self, query.arguments) {
            (Self::Postgres(connection), Arguments::Postgres(arguments)) => {
                Ok(sqlx::query_as_with(safe(query.sql), arguments).fetch(&mut **connection))
            }
            (Self::Sqlite(connection), Arguments::Sqlite(arguments)) => {
                Ok(sqlx::query_as_with(safe(query.sql), arguments).fetch(&mut **connection))
            }
            _ => Err(other_database()),
        }
    }

    /// Fetches all rows.
    pub async fn fetch<T: FromAnyRow>(&mut self, query: Query) -> Result<Vec<T>, sqlx::Error> {
        self.stream(query)?.try_collect().await
    }

    /// Fetches the only row, or none.
    pub async fn optional<T: FromAnyRow>(&mut self, query: Query) -> Result<Option<T>, sqlx::Error> {
        // Reads to the end, so that a statement that also writes has completed.
        Ok(self.fetch(query).await?.pop())
    }

    /// Executes the statement. Returns the number of rows written.
    pub async fn execute(&mut self, query: Query) -> Result<u64, sqlx::Error> {
        if let Some(error) = query.error {
            return Err(sqlx::Error::Encode(error));
        }
        let sql = safe(query.sql);
        match (self, query.arguments) {
            (Self::Postgres(connection), Arguments::Postgres(arguments)) => {
                Ok(sqlx::query_with(sql, arguments).execute(&mut **connection).await?.rows_affected())
            }
            (Self::Sqlite(connection), Arguments::Sqlite(arguments)) => {
                Ok(sqlx::query_with(sql, arguments).execute(&mut **connection).await?.rows_affected())
            }
            _ => Err(other_database()),
        }
    }
}

/// The statement's text has no values in it: those are bound.
fn safe(sql: Cow<'static, str>) -> SqlStr {
    match sql {
        Cow::Borrowed(sql) => sql.into_sql_str(),
        Cow::Owned(sql) => AssertSqlSafe(sql).into_sql_str(),
    }
}

fn other_database() -> sqlx::Error {
    sqlx::Error::Protocol("a statement for another database".to_owned())
}
