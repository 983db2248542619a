//! Migrates a database's schema.

use super::{LogError, Schema, Unmigrated};

/// SQLSTATE of a missing privilege.
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Applies or checks migrations, for both back ends. `explain` converts errors of the driver.
pub(crate) async fn run_migrations<C>(
    migrator: &sqlx::migrate::Migrator,
    connection: &mut C,
    apply: bool,
    database: String,
    explain: impl Fn(sqlx::Error) -> LogError,
) -> Result<Schema, LogError>
where
    C: sqlx::migrate::Migrate,
{
    use sqlx::migrate::MigrateError;
    let table = "_sqlx_migrations";
    let ours = || migrator.iter().filter(|migration| !migration.migration_type.is_down_migration());
    let newest = ours().map(|migration| migration.version).max().unwrap_or(0);
    let before = match connection.list_applied_migrations(table).await {
        Ok(applied) => applied,
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) if is_missing_table(&error) => {
            Vec::new()
        }
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => return Err(explain(error)),
        Err(error) => return Err(LogError::unavailable(error)),
    };
    if let Some(unknown) = before.iter().find(|applied| ours().all(|known| known.version != applied.version)) {
        return Err(LogError::Schema(format!(
            "the database's schema has version {}, made by a newer Convoke; this one knows versions up to {newest}",
            unknown.version
        )));
    }
    let changed = before
        .iter()
        .find(|applied| ours().any(|known| known.version == applied.version && known.checksum != applied.checksum));
    if let Some(changed) = changed {
        return Err(LogError::Schema(format!("migration {} of the database is not Convoke's", changed.version)));
    }
    let pending = ours().count() - before.len();
    if pending > 0 && !apply {
        let tables = if before.is_empty() { Unmigrated::Empty } else { Unmigrated::Pending(pending) };
        return Err(LogError::Unmigrated { database, tables });
    }
    if pending > 0 {
        migrator.run_direct(None, connection, false).await.map_err(|error| match error {
            MigrateError::VersionMismatch(_) | MigrateError::VersionMissing(_) | MigrateError::Dirty(_) => {
                LogError::Schema(format!("the database's schema is not Convoke's: {error}"))
            }
            // For example, a table of that name exists already: the database belongs to another application.
            MigrateError::ExecuteMigration(ref cause, _) if is_schema_conflict(cause) => {
                LogError::Schema(format!("cannot apply Convoke's schema to the database: {error}"))
            }
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => explain(cause),
            error => LogError::unavailable(error),
        })?;
    }
    Ok(Schema { version: newest, applied: pending })
}

/// PostgreSQL's class 42 (syntax error or access rule violation), SQLite's plain SQLITE_ERROR.
fn is_schema_conflict(error: &sqlx::Error) -> bool {
    let conflicts = |code: &str| code == "1" || code.starts_with("42") && code != INSUFFICIENT_PRIVILEGE;
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| conflicts(&code))
}

/// PostgreSQL's undefined_table, SQLite's plain SQLITE_ERROR.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42P01" || code == "1")
}

/// The error for a database with another application's tables in the way.
pub(crate) fn somebody_elses(database: &str, table: &str) -> LogError {
    LogError::Schema(format!(
        "{database} has a table `{table}` that is not Convoke's: give Convoke a database of its own, and name it in database.url"
    ))
}
