//! Compares the sequences with the rows: a dump restored without sequences, or a copy made by logical replication, has
//! all rows but counts from the start again. A row at a position that the cursors have passed would never be read.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

/// The end of the log: no new row may be at or before this position.
const NEWEST: &str = "SELECT greatest(0, (SELECT max(seq) FROM events), (SELECT max(position) FROM cursors),
    (SELECT max(seq) FROM set_aside), (SELECT max(last_seq) FROM fetches))";

/// The last number drawn from each sequence, and the highest one in use.
const STATE: &str = "SELECT (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM events_seq),
    (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM quarantine_id_seq),
    coalesce((SELECT max(id) FROM quarantine), 0)";

/// Moves sequences that are behind their rows forward, under the log's lock. Returns the end of the log.
pub async fn mend(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let mut tx = connection.begin_with("BEGIN; SELECT pg_advisory_xact_lock(4865178305)").await?;
    let newest: i64 = sqlx::query_scalar(NEWEST).fetch_one(&mut *tx).await?;
    let row = sqlx::query(STATE).fetch_one(&mut *tx).await?;
    for (sequence, given, used) in [("events_seq", row.get(0), newest), ("quarantine_id_seq", row.get(1), row.get(2))] {
        let given: i64 = given;
        if given < used {
            sqlx::query("SELECT setval($1::regclass, $2)").bind(sequence).bind(used).execute(&mut *tx).await?;
            tracing::warn!(
                sequence,
                was = given,
                is = used,
                "a sequence was behind its rows, as after a restore: it was advanced"
            );
        }
    }
    tx.commit().await?;
    Ok(newest)
}

/// Reports what [`mend`] would have to fix.
pub async fn weakness(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let newest: i64 = sqlx::query_scalar(NEWEST).fetch_one(&mut *connection).await?;
    let given: i64 = sqlx::query(STATE).fetch_one(connection).await?.get(0);
    Ok((given < newest).then(|| {
        format!(
            "the sequence events_seq is at {given}, but the log is at {newest}: `convoke serve` advances it at its \
             start; or run SELECT setval('events_seq', {newest})"
        )
    }))
}
