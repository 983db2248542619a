//! The log in an embedded SQLite database: WAL, `synchronous=FULL`, one writing connection.
//!
//! SQLite allows one writer at a time in any case; queueing for it here, fairly and without polling, is better than its
//! busy handler. [`SqliteLog::maintain`] checkpoints on a separate connection, so that checkpoints do not delay the
//! writer; the writer's automatic checkpoint is only a backstop that limits the size of the WAL.

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

/// The backstop: from this many pages (of 8 KiB) the writer checkpoints after each commit, until the WAL is restarted.
/// Under steady load this is what restarts it, when little is left to copy.
const BACKSTOP_PAGES: &str = "4096";

/// How long an idle connection for users' queries is kept.
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
    /// For users' queries: a separate pool, so that the cursors never wait for them.
    pub people: SqlitePool,
    /// A whole transaction for each number of rows, in one message to the connection's thread: on a busy machine every
    /// message costs two context switches.
    inserts: append::Inserts,
}

impl SqliteLog {
    /// Uses the database file at the URL. If it is missing, migrating the log creates it.
    ///
    /// # Errors
    /// [`LogError::Url`]; [`LogError::Unavailable`] if a WAL of another database is beside the file and cannot be moved away.
    pub fn new(options: &Options) -> Result<Self, LogError> {
        let connect = SqliteConnectOptions::from_str(&options.url)
            .map_err(|error| LogError::Url(error.to_string()))?
            // Only has an effect on a new database.
            .page_size(8192)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(2))
            .foreign_keys(false)
            .pragma("cache_size", "-8192")
            .pragma("temp_store", "memory");
        let connect = sqlx::ConnectOptions::disable_statement_logging(connect);
        let path = connect.get_filename().to_owned();
        // sqlx turns every spelling of `:memory:` into a name that starts with `file:`.
        let named = !path.as_os_str().is_empty() && !path.to_string_lossy().starts_with("file:");
        if !named || path == Path::new(":memory:") || options.url.contains("mode=memory") {
            return Err(LogError::Url("must name a file: an in-memory database keeps nothing".to_owned()));
        }
        if options.url.split_once('?').is_some_and(|(_, parameters)| parameters.contains("vfs=")) {
            return Err(LogError::Url("must not select a VFS: not every VFS stores data durably".to_owned()));
        }
        let files = Arc::new(Files::new(path));
        files.part_with_foreign_wal()?;
        let reader = connect.clone().row_buffer_size(512).create_if_missing(false).pragma("query_only", "on");
        let pool = || {
            let files = Arc::clone(&files);
            SqlitePoolOptions::new().acquire_timeout(Duration::from_secs(2)).after_connect(move |_, _| {
                // The files just opened must be those that the writer has open.
                let same = files.check().map_err(|error| sqlx::Error::Io(std::io::Error::other(error)));
                Box::pin(std::future::ready(same))
            })
        };
        // Buffer few rows ahead of the reader: each can be as large as a body, and not all may be needed.
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

    /// The folder of the file.
    fn directory(&self) -> &Path {
        self.files.path().parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The slot of the writing connection, which is opened if needed.
    async fn writer(&self) -> Result<MutexGuard<'_, Option<SqliteConnection>>, LogError> {
        let mut guard = self.writer.lock().await;
        self.files.check()?;
        if guard.is_none() {
            // A new file is not readable by everyone, because it contains personal data. SQLite gives its other files
            // the same permissions. If it cannot be created, SQLite reports why.
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
                // The first read opens the files beside the database.
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

    /// Writes, in one statement or one transaction. The connection is out of its slot while in use: if the caller's
    /// future is dropped or anything fails, the connection is dropped with it, and so is its transaction.
    pub async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let mut place = self.writer().await?;
        let Some(mut connection) = place.take() else { return Err(LogError::unavailable("no connection")) };
        match work(&mut connection).await {
            Ok(done) => {
                *place = Some(connection);
                // Check that the next process to open the database finds what was written.
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

    /// Runs `work` in one transaction; work that only reads needs none.
    pub async fn transaction<T>(
        &self,
        begin: Begin,
        work: impl AsyncFnOnce(&mut Connection<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let begin = match begin {
            Begin::ReadLog | Begin::ReadKeys => return self.read(work).await,
            Begin::Write | Begin::LockLog | Begin::LockErasures => "BEGIN IMMEDIATE",
            // Overwrites on the page what it frees.
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

    /// Distinguishes the file from a copy of it.
    pub fn mark(&self) -> Option<i64> {
        self.files.mark()
    }

    /// Whether the file is a copy of the one with this mark.
    pub fn is_copy(&self, mark: Option<i64>) -> bool {
        mark.is_some_and(|mark| self.mark().is_some_and(|here| here != mark))
    }

    /// Closes all idle connections. A connection opened while the file, or one of SQLite's files beside it, was
    /// read-only stays read-only; and as long as one of them is open, so are those opened later.
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

    /// Adds the reason found in the file system, if this user cannot write the database.
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

/// Whether the database was opened read-only.
fn is_read_only(error: &sqlx::Error) -> bool {
    const READONLY: i32 = 8;
    result_code(error) == Some(READONLY)
}

/// `Rejected` for SQLite's primary result codes of values that it will never accept; everything else counts
/// as an unavailable database.
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
