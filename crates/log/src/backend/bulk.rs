//! Statements that write many rows.

use crate::query::{Connection, Dialect, Query};

/// Row counts of the statements: few different statements, each prepared once and cached.
const SHAPES: [usize; 4] = [128, 32, 8, 1];

/// A statement for many rows: one for each of [`SHAPES`], for either database.
pub(super) struct BulkStatement {
    postgres: [String; SHAPES.len()],
    sqlite: [String; SHAPES.len()],
    columns: usize,
}

impl BulkStatement {
    /// `sql` makes a statement of its rows, as they follow `VALUES`; each has so many columns.
    pub fn new(columns: usize, sql: impl Fn(&str) -> String) -> Self {
        let statement = |rows: usize, place: &dyn Fn(usize) -> String| {
            let row = |row: usize| {
                let places: Vec<String> = (1..=columns).map(|n| place(row * columns + n)).collect();
                format!("({})", places.join(", "))
            };
            sql(&(0..rows).map(row).collect::<Vec<_>>().join(", "))
        };
        Self {
            postgres: SHAPES.map(|rows| statement(rows, &|place| format!("${place}"))),
            // Named parameters would be looked up one by one.
            sqlite: SHAPES.map(|rows| statement(rows, &|_| "?".to_owned())),
            columns,
        }
    }

    /// For rows that are never updated, in a table without triggers, whose own `ON CONFLICT` would be overruled. After an error the
    /// connection is closed, so that nothing needs to be kept for going back to the beginning of the statement alone: else SQLite
    /// copies each page before its first change.
    pub fn or_rollback(mut self) -> Self {
        for sql in &mut self.sqlite {
            *sql = sql.replacen("INSERT INTO", "INSERT OR ROLLBACK INTO", 1);
        }
        self
    }

    /// Writes rows, replacing those with the same key. The first `keys` columns are the key. The first `fixed` columns, which include
    /// the key, are never updated.
    pub fn upsert(table: &str, columns: &str, fixed: usize, keys: usize) -> Self {
        let names: Vec<&str> = columns.split(", ").collect();
        let set = names[fixed..].iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
        let change = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        let key = names[..keys].join(", ");
        Self::new(names.len(), |rows| {
            format!("INSERT INTO {table} ({columns}) VALUES {rows} ON CONFLICT ({key}) DO {change}")
        })
    }

    /// Writes `rows`. `bind` adds the columns of a row in their order.
    pub async fn run<T>(
        &'static self,
        connection: &mut Connection<'_>,
        mut rows: &[T],
        bind: impl Fn(&mut Query, &T),
    ) -> Result<(), sqlx::Error> {
        let statements = match connection.dialect() {
            Dialect::Postgres => &self.postgres,
            Dialect::Sqlite => &self.sqlite,
        };
        for (sql, shape) in statements.iter().zip(SHAPES) {
            while let Some((chunk, rest)) = rows.split_at_checked(shape) {
                let mut query = connection.query(&**sql);
                query.reserve(shape * self.columns);
                chunk.iter().for_each(|row| bind(&mut query, row));
                connection.execute(query).await?;
                rows = rest;
            }
        }
        Ok(())
    }
}
