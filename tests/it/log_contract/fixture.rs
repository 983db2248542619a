//! A database of either kind, private to one test.

use std::{sync::Arc, time::Duration};

use convoke_log::{Append, Appended, LogError, Options, Store, open};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;

use crate::support::{
    postgres::{self, Postgres},
    sign::{NOW, millis, verified_at},
};

/// A database, and how to look into it behind the log's back.
pub struct Backend {
    pub url: String,
    pub folder: TempDir,
    pub postgres: Option<Postgres>,
}

impl Backend {
    pub fn sqlite() -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-it-").tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("log.db").display());
        Self { url, folder, postgres: None }
    }

    pub async fn postgres() -> Self {
        let postgres = Postgres::start().await;
        Self { url: postgres.url(), postgres: Some(postgres), ..Self::sqlite() }
    }

    /// Another handle, as another process has one.
    pub fn open(&self) -> Arc<dyn Store> {
        self.open_with(None)
    }

    pub fn open_with(&self, retention: Option<Duration>) -> Arc<dyn Store> {
        open(&Options { url: self.url.clone(), retention, ..Options::default() }).expect("a URL of a database")
    }

    /// A handle on the migrated database.
    pub async fn log(&self) -> Arc<dyn Store> {
        let log = self.open();
        log.migrate(true).await.expect("it can be migrated");
        log
    }

    pub async fn execute(&self, sql: &str) {
        if self.postgres.is_some() {
            postgres::psql(&self.url, sql);
        } else {
            let mut connection = self.sqlite_connection().await;
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect(sql);
            connection.close().await.expect("it closes");
        }
    }

    /// The one value that a query gives, as text.
    pub async fn value(&self, sql: &str) -> String {
        if self.postgres.is_some() {
            return postgres::psql(&self.url, sql);
        }
        let mut connection = self.sqlite_connection().await;
        let sql = format!("SELECT coalesce(CAST(({sql}) AS TEXT), '')");
        let value = sqlx::query_scalar(AssertSqlSafe(&*sql)).fetch_one(&mut connection).await.expect(&sql);
        connection.close().await.expect("it closes");
        value
    }

    async fn sqlite_connection(&self) -> SqliteConnection {
        let url = format!("{}?mode=rwc", self.url);
        SqliteConnection::connect(&url).await.expect("the file can be opened")
    }
}

/// One delivery, at [`NOW`].
pub fn delivered(event_info: &str) -> Append {
    delivered_at(event_info, NOW)
}

/// As if it had arrived at `at`, or when it happened, if that is later: an event of the future is none.
pub fn delivered_at(event_info: &str, at: i64) -> Append {
    let info: Option<serde_json::Value> = serde_json::from_str(event_info).ok();
    let happened = info.and_then(|info| info["timestamp"].as_i64()).unwrap_or(at);
    let verified = verified_at(event_info, millis(at.max(happened)));
    Append { verified, deliveries: 1, last_delivered_at: millis(at) }
}

pub async fn append(log: &Arc<dyn Store>, infos: &[impl AsRef<str>]) -> Vec<Appended> {
    let batch: Vec<_> = infos.iter().map(|info| delivered(info.as_ref())).collect();
    log.append(&batch).await.expect("it is appended").outcomes
}

/// As if they had arrived at `at`.
pub async fn append_at(log: &Arc<dyn Store>, infos: &[impl AsRef<str>], at: i64) -> Vec<Appended> {
    let batch: Vec<_> = infos.iter().map(|info| delivered_at(info.as_ref(), at)).collect();
    log.append(&batch).await.expect("it is appended").outcomes
}

/// All `eventInfo` texts, in the log's order.
pub async fn everything(log: &Arc<dyn Store>) -> Vec<String> {
    let rows = log.read(convoke_core::id::Seq::START, u32::MAX >> 1).await.expect("it can be read");
    rows.into_iter().map(|row| row.event_info.expect("nothing was forgotten")).collect()
}

pub fn is_schema<T: std::fmt::Debug>(result: &Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::Schema(_)))
}

pub fn is_unavailable<T: std::fmt::Debug>(result: &Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::Unavailable(_)))
}

/// Each promise, of a module or of the place where this stands, as a test of both back ends.
macro_rules! on_both {
    ($($module:ident: $($promise:ident)*;)*) => {
        mod sqlite {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$module::$promise(crate::log_contract::fixture::Backend::sqlite()).await;
            })*)*
        }
        mod postgres {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$module::$promise(crate::log_contract::fixture::Backend::postgres().await).await;
            })*)*
        }
    };
    ($($promise:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() { super::$promise(crate::log_contract::fixture::Backend::sqlite()).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() { super::$promise(crate::log_contract::fixture::Backend::postgres().await).await; })*
        }
    };
}
pub(crate) use on_both;
