//! Explains errors of PostgreSQL to the operator, and separates temporary errors from those that an operator must fix.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::bounded;
use super::hosts::Hosts;
use crate::LogError;
use crate::migrations::{INSUFFICIENT_PRIVILEGE, somebody_elses};

/// Describes an error without its location in the server's source, and with the fix if an operator is needed.
pub fn explain(error: sqlx::Error) -> LogError {
    if let sqlx::Error::Tls(error) = &error {
        return LogError::Unusable(format!(
            "no TLS connection: {error}. Check sslmode and sslrootcert in database.url"
        ));
    }
    if let sqlx::Error::Io(error) = &error
        && error.to_string().contains("failed to lookup address")
    {
        return LogError::unavailable(format!(
            "no such host: {error}. Check the host in database.url; special characters of the password must be \
             percent-encoded (`@` as %40, `:` as %3A, `/` as %2F, `%` as %25)"
        ));
    }
    let Some(database) = error.as_database_error() else { return LogError::unavailable(error) };
    let (message, code) = (database.message().to_owned(), database.code().unwrap_or_default().into_owned());
    let remedy = match &*code {
        "28P01" => "Write the right password into database.url, or into the file that PGPASSFILE names",
        "28000" => "Create the role (CREATE ROLE … LOGIN PASSWORD …), or allow it in pg_hba.conf",
        "3D000" => "Create the database (CREATE DATABASE … OWNER …), or correct its name in database.url",
        "3F000" => "Its search_path names no schema: ALTER ROLE … RESET search_path",
        INSUFFICIENT_PRIVILEGE => {
            "The role in database.url must own the database and its tables: ALTER DATABASE … OWNER TO …, ALTER TABLE \
             … OWNER TO …"
        }
        _ => return LogError::unavailable(format!("{message} (SQLSTATE {code})")),
    };
    LogError::Unusable(format!("{message}. {remedy}"))
}

/// The same, with the location of the database.
pub fn explain_at(hosts: &Hosts, error: LogError) -> LogError {
    match error {
        LogError::Unusable(problem) => LogError::Unusable(format!("cannot use {}: {problem}", hosts.describe())),
        error => error,
    }
}

/// Checks, before the tables are created, whether something would prevent it.
///
/// # Errors
/// What prevents it, and who can fix it.
pub async fn ask_for_room(connection: &mut PgConnection, place: &str) -> Result<(), LogError> {
    // If the migrations table exists, another replica is creating the tables right now: it is created before all others.
    let found = sqlx::query(
        "SELECT current_schema()::text, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
                quote_ident(current_user), quote_ident(current_database()),
                (SELECT min(tablename)::text FROM pg_tables
                  WHERE schemaname = current_schema() AND tablename IN ('events', 'cursors', 'quarantine', 'meetings', 'attendance')
                    AND NOT EXISTS (SELECT 1 FROM pg_tables
                                     WHERE schemaname = current_schema() AND tablename = '_sqlx_migrations'))",
    );
    let row = bounded(found.fetch_one(connection)).await?;
    let (schema, may_create): (Option<String>, bool) = (row.get(0), row.get(1));
    let (role, database): (String, String) = (row.get(2), row.get(3));
    let Some(schema) = schema else {
        return Err(LogError::Unusable(format!(
            "cannot create tables in {place}: the search_path of {role} names no existing schema. Ask an \
             administrator: ALTER ROLE {role} RESET search_path;"
        )));
    };
    if !may_create {
        return Err(LogError::Unusable(format!(
            "cannot create tables in {place}: permission denied for schema {schema}. From PostgreSQL 15 on only the \
             database's owner may. Ask an administrator: ALTER DATABASE {database} OWNER TO {role};"
        )));
    }
    match row.get::<Option<String>, _>(4) {
        Some(table) => Err(somebody_elses(place, &table)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_host_comes_with_a_word_on_passwords_that_are_not_encoded() {
        let lookup = std::io::Error::other("failed to lookup address information: Name or service not known");
        let error = explain(sqlx::Error::Io(lookup)).to_string();
        assert!(error.contains("no such host") && error.contains("%40"), "{error}");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(!explain(sqlx::Error::Io(refused)).to_string().contains("password"));
    }
}
