//! The log in an embedded SQLite database: WAL, `synchronous=FULL`, one writing connection.
//!
//! SQLite has one writer at a time in any case; queueing for it here, fairly and without polling, beats its busy handler.
//! Checkpoints are done by [`SqliteLog::maintain`] on a connection of its own, so that they do not stand in the writer's
//! way; the writer's automatic checkpoint is only the backstop that keeps the WAL from growing without bound.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqlitePool};
use tokio::sync::{Mutex, MutexGuard};

use crate::query::Begin;
use crate::query::Connection;
use crate::{LogError, Options};
use expiry::Expiry;
use place::Files;

mod append;
mod erasure;
mod expiry;
pub mod files;
mod maintenance;
mod place;
mod queries;

pub(crate) use queries::read_within;

/// The backstop: at this many pages (of 8 KiB) the writer checkpoints by itself after a commit, until the WAL starts
/// over. Under steady load this is what makes it start over, with little left to copy by then.
const BACKSTOP_PAGES: &str = "4096";

/// How long a connection for what people ask is kept while nobody asks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct SqliteLog {
    files: Arc<Files>,
    options: SqliteConnectOptions,
    pub retention: Option<Duration>,
    writer: Mutex<Option<SqliteConnection>>,
    /// Kept open from the first use to the end.
    anchor: Mutex<Option<SqliteConnection>>,
    quarantine_retention: Option<Duration>,
    expiry: Mutex<Expiry>,
    readers: SqlitePool,
    /// For what people ask: a pool of its own, so that the cursors never wait for it.
    pub people: SqlitePool,
    /// A whole transaction for each number of rows, in one message to the connection's thread: on a busy machine every
    /// message costs two waits for a processor.
    inserts: append::Inserts,
}

impl SqliteLog {
    /// The database in the file that the URL names; the file is made when the log is migrated, if it is missing.
    ///
    /// # Errors
    /// [`LogError::Url`]; [`LogError::Unavailable`] if a WAL lies beside the file that is another's, and cannot be moved away.
    pub fn new(options: &Options) -> Result<Self, LogError> {
        let connect = SqliteConnectOptions::from_str(&options.url)
            .map_err(|error| LogError::Url(error.to_string()))?
            // Has effect only on a database that is being made.
            .page_size(8192)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(2))
            .foreign_keys(false)
            .pragma("cache_size", "-8192")
            .pragma("temp_store", "memory");
        let connect = sqlx::ConnectOptions::disable_statement_logging(connect);
        let path = connect.get_filename().to_owned();
        // sqlx makes a name beginning with `file:` of every way to say `:memory:`.
        let named = !path.as_os_str().is_empty() && !path.to_string_lossy().starts_with("file:");
        if !named || path == Path::new(":memory:") || options.url.contains("mode=memory") {
            return Err(LogError::Url("must name a file: a database in memory keeps nothing".to_owned()));
        }
        if options.url.split_once('?').is_some_and(|(_, parameters)| parameters.contains("vfs=")) {
            return Err(LogError::Url("must not choose a VFS: not all of them keep what they are given".to_owned()));
        }
        let files = Arc::new(Files::new(path));
        files.part_with_foreign_wal()?;
        let reader = connect.clone().row_buffer_size(512).create_if_missing(false).pragma("query_only", "on");
        let pool = || {
            let files = Arc::clone(&files);
            SqlitePoolOptions::new().acquire_timeout(Duration::from_secs(2)).after_connect(move |_, _| {
                // What this opened is what the writer has open.
                let same = files.check().map_err(|error| sqlx::Error::Io(std::io::Error::other(error)));
                Box::pin(std::future::ready(same))
            })
        };
        // Few rows ahead of who reads them: each may be as large as a body, and not all of them are wanted.
        let few = reader.clone().row_buffer_size(16);
        let people = pool().max_connections(2).idle_timeout(IDLE_TIMEOUT).connect_lazy_with(few);
        let readers = pool().max_connections(4).connect_lazy_with(reader);
        Ok(Self {
            files,
            options: connect.create_if_missing(true).pragma("wal_autocheckpoint", BACKSTOP_PAGES),
            retention: options.retention,
            writer: Mutex::new(None),
            anchor: Mutex::new(None),
            quarantine_retention: options.quarantine_retention,
            expiry: Mutex::default(),
            readers,
            people,
            inserts: append::inserts(),
        })
    }

    /// Where the file is.
    fn directory(&self) -> &Path {
        self.files.path().parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The place of the writing connection, which is opened if need be.
    async fn writer(&self) -> Result<MutexGuard<'_, Option<SqliteConnection>>, LogError> {
        let mut guard = self.writer.lock().await;
        self.files.check()?;
        if guard.is_none() {
            // A new one is not for everybody: there are people in it. What SQLite makes beside it is as readable as it is; why it
            // cannot be made says SQLite.
            drop(std::fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(self.files.path()));
            if !self.files.noted() {
                self.files.part_with_foreign_wal()?;
            }
            let before = self.files.now();
            let open = async || {
                let opened = SqliteConnection::connect_with(&self.options).await;
                opened.map_err(|error| self.explained(failed(error)))
            };
            let connection = open().await?;
            let mut anchor = self.anchor.lock().await;
            if anchor.is_none() {
                let mut kept = open().await?;
                // With the first look into it the files beside it are opened.
                sqlx::query("SELECT count(*) FROM sqlite_schema").execute(&mut kept).await.map_err(failed)?;
                if !self.files.noted() {
                    self.files.note(before)?;
                }
                *anchor = Some(kept);
            }
            self.files.check()?;
            *guard = Some(connection);
        }
        Ok(guard)
    }

    /// Writes, in one statement or one transaction. The connection is out of its place while it is in use: if the caller's future
    /// is dropped half-way, or anything fails, the connection goes with it, and so does the transaction that it may be in.
    pub async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let mut place = self.writer().await?;
        let Some(mut connection) = place.take() else { return Err(LogError::unavailable("no connection")) };
        match work(&mut connection).await {
            Ok(done) => {
                *place = Some(connection);
                // Whoever opens the database from now on finds it.
                self.files.check()?;
                Ok(done)
            }
            Err(error) => {
                drop(connection);
                if is_read_only(&error) {
                    self.part_with_connections().await;
                }
                Err(self.explained(failed(error)))
            }
        }
    }

    /// Reads on one connection.
    pub async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let work = async {
            let mut connection = self.readers.acquire().await?;
            read(&mut Connection::Sqlite(&mut connection)).await
        };
        work.await.map_err(failed)
    }

    /// Does all of it in one transaction; what only reads needs none.
    pub async fn transaction<T>(
        &self,
        begin: Begin,
        work: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let begin = match begin {
            Begin::ReadLog | Begin::ReadKeys => return self.read(work).await,
            Begin::Write | Begin::LockLog | Begin::LockErasures => "BEGIN IMMEDIATE",
            // What it frees on a page is overwritten there.
            Begin::Erase | Begin::EraseLog => "PRAGMA secure_delete = ON; BEGIN IMMEDIATE",
        };
        self.write(async |connection| {
            let mut tx = connection.begin_with(begin).await?;
            let done = work(&mut Connection::Sqlite(&mut tx)).await?;
            tx.commit().await?;
            Ok(done)
        })
        .await
    }

    /// What tells the file from a copy of it.
    pub fn mark(&self) -> Option<i64> {
        self.files.mark()
    }

    /// Whether the file is a copy of the one with this mark.
    pub fn is_copy(&self, mark: Option<i64>) -> bool {
        mark.is_some_and(|mark| self.mark().is_some_and(|here| here != mark))
    }

    /// Closes all connections that nobody uses now. One that was opened when the file, or what SQLite keeps beside it, could
    /// only be read stays so, and as long as one of them is open so do those that are opened later.
    async fn part_with_connections(&self) {
        *self.anchor.lock().await = None;
        for pool in [&self.readers, &self.people] {
            while let Some(connection) = pool.try_acquire() {
                if let Err(error) = connection.close().await {
                    tracing::debug!(%error, "closing a connection that can only read");
                }
            }
        }
    }

    /// The error, with the reason that the file system has, if this user may not write the database.
    fn explained(&self, error: LogError) -> LogError {
        match (error, files::trouble(self.files.path())) {
            (LogError::Unavailable(cause), Some(reason)) => LogError::Unusable(format!("{reason} ({cause})")),
            (error, _) => error,
        }
    }
}

/// SQLite's primary result code.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Whether the database was opened only to be read.
fn is_read_only(error: &sqlx::Error) -> bool {
    const READONLY: i32 = 8;
    result_code(error) == Some(READONLY)
}

/// SQLite's primary result codes for values that it will never take; everything else is the database's health.
pub(crate) fn failed(error: sqlx::Error) -> LogError {
    const TOOBIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const NOTADB: i32 = 26;
    match (&error, result_code(&error)) {
        (sqlx::Error::Encode(_), _) | (_, Some(TOOBIG | CONSTRAINT | MISMATCH)) => LogError::Rejected(error.into()),
        (_, Some(NOTADB)) => LogError::Schema("the file is not a SQLite database".to_owned()),
        _ => LogError::unavailable(error),
    }
}
