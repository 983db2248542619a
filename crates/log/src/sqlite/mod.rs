//! The log in an embedded SQLite database: WAL, `synchronous=FULL`, one writing connection.
//!
//! SQLite has one writer at a time in any case; queueing for it here, fairly and without polling, beats its busy handler.
//! Checkpoints are done by [`SqliteLog::maintain`] on a connection of its own, so that they do not stand in the writer's
//! way; the writer's automatic checkpoint is only the backstop that keeps the WAL from growing without bound.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::query::QueryAs;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection, FromRow, Row, SqlitePool};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use super::{Append, Appended, LogError, Maintenance, Notes, Options, Queries, Store, retention};
use crate::log::{Inserted, all_kept};
use convoke_core::event::{Content, Event, Record, Unreadable};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::{Millis, instant};
use place::Files;

mod enrichments;
mod erasure;
#[path = "../shared/erasure.rs"]
mod erasures;
pub mod files;
#[path = "../shared/handshakes.rs"]
mod handshakes;
mod log;
mod maintenance;
#[path = "../shared/operations.rs"]
mod operations;
mod place;
mod projection;
#[path = "../shared/queries.rs"]
mod queries;
#[path = "../shared/rows.rs"]
mod rows;
mod sessions;
#[path = "../shared/snapshots.rs"]
mod snapshots;
#[path = "../shared/work_lists.rs"]
mod work_lists;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/sqlite");

const COLUMNS: &str = "event_id, subscriber_id, event, occurred_at, received_at, meeting_id, meeting_uuid, \
     meeting_cycle_sub_id, user_uuid, user_agent, account, participant_id, display_name, role, call_number, join_time, \
     left_time, source, deliveries, last_delivered_at, request_id, traceparent, event_info";
const PLACEHOLDERS: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const COLUMN_COUNT: usize = 23;

/// Rows that one statement has room for: few distinct statements, each prepared once and kept. What a batch does not fill
/// stays unbound, which is NULL, and is passed over.
const ROWS: [usize; 14] = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

// What the code that both back ends share has to know of this one.
type Backend = SqliteLog;
type Db = sqlx::Sqlite;
type DbConnection = SqliteConnection;
type DbRow = SqliteRow;
type Arguments = SqliteArguments;

const BEGIN: &str = "BEGIN IMMEDIATE";
const BEGIN_ERASURE: &str = BEGIN;

/// Now, by the database's clock, as stored times are written.
const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
const NOW_MILLIS: &str = NOW;
const YESTERDAY: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')";

const GREATEST: &str = "max";

/// Among the [`array()`] $1.
const MEMBER: &str = "IN (SELECT value FROM json_each($1))";

fn array<T: ToString>(values: &[T]) -> String {
    serde_json::Value::from_iter(values.iter().map(ToString::to_string)).to_string()
}

fn uuid(row: &SqliteRow, index: usize) -> Result<Uuid, sqlx::Error> {
    rows::word(row, index, |text| Uuid::try_parse(text).ok())
}

async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LogError> {
    work.await.map_err(failed)
}

/// A WAL longer than this is checkpointed by [`SqliteLog::maintain`].
const CHECKPOINT_BYTES: u64 = 2 << 20;

/// The backstop: at this many pages (of 8 KiB) the writer checkpoints by itself after a commit, until the WAL starts
/// over. Under steady load this is what makes it start over, with little left to copy by then.
const BACKSTOP_PAGES: &str = "4096";

/// Rows deleted at a time, when they are beyond the retention.
const RETENTION_ROWS: u32 = 500;

/// How soon to look again when there was nothing to delete, or how many times as long as looking took.
const RETENTION_AGAIN: Duration = Duration::from_secs(60);
const RETENTION_REST: u32 = 60;

/// How long a connection for what people ask is kept while nobody asks.
const IDLE: Duration = Duration::from_secs(60);

pub struct SqliteLog {
    files: Arc<Files>,
    options: SqliteConnectOptions,
    retention: Option<Duration>,
    writer: Mutex<Option<SqliteConnection>>,
    /// Kept open from the first use to the end.
    anchor: Mutex<Option<SqliteConnection>>,
    quarantine_retention: Option<Duration>,
    expiry: Mutex<Expiry>,
    readers: SqlitePool,
    /// For what people ask: a pool of its own, so that the cursors never wait for it.
    pub(crate) people: SqlitePool,
    /// A whole transaction for each of [`ROWS`], in one message to the connection's thread: on a busy machine every
    /// message costs two waits for a processor.
    inserts: [Arc<str>; ROWS.len()],
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
        let people = pool().max_connections(2).idle_timeout(IDLE).connect_lazy_with(few);
        let readers = pool().max_connections(4).connect_lazy_with(reader);
        let inserts = ROWS.map(|rows| {
            let values = vec![PLACEHOLDERS; rows].join(", ");
            Arc::from(format!(
                "BEGIN IMMEDIATE;
                 SELECT coalesce(max(seq), 0) FROM events;
                 INSERT INTO events ({COLUMNS}) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL
                     ON CONFLICT (event_id) DO NOTHING;
                 SELECT changes(), last_insert_rowid();
                 COMMIT"
            ))
        });
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
            inserts,
        })
    }

    fn pool(&self) -> &SqlitePool {
        &self.readers
    }

    /// Where to write.
    async fn session(&self) -> Result<Writer<'_>, LogError> {
        self.writer().await
    }

    /// All rows of a query that goes along the log.
    async fn along<T>(&self, query: QueryAs<'_, Db, T, Arguments>) -> Result<Vec<T>, LogError>
    where
        T: for<'r> FromRow<'r, DbRow> + Send + Unpin,
    {
        self.all(query).await
    }

    /// Where the file is.
    fn directory(&self) -> &Path {
        self.files.path().parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The writing connection, opened if need be.
    async fn writer(&self) -> Result<Writer<'_>, LogError> {
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
        Ok(Writer(guard))
    }

    /// Runs one writing statement in a transaction of its own; the number of rows it touched.
    async fn write(&self, statement: sqlx::query::Query<'_, sqlx::Sqlite, SqliteArguments>) -> Result<u64, LogError> {
        let mut writer = self.writer().await?;
        let done = statement.execute(writer.connection()).await;
        if done.as_ref().is_err_and(is_read_only) {
            self.part_with_connections(&mut writer).await;
        }
        done.map(|done| done.rows_affected()).map_err(|error| self.explained(failed(error)))
    }

    /// Closes all connections that nobody uses now. One that was opened when the file, or what SQLite keeps beside it, could
    /// only be read stays so, and as long as one of them is open so do those that are opened later.
    async fn part_with_connections(&self, writer: &mut Writer<'_>) {
        *writer.0 = None;
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

    /// Commits the new ones among `events`, in transactions of as many rows as a statement has room for.
    async fn insert_events(
        &self,
        connection: &mut SqliteConnection,
        events: &[(&Append, &Event)],
    ) -> Result<Inserted, sqlx::Error> {
        let mut all = Inserted::default();
        for chunk in events.chunks(ROWS[ROWS.len() - 1]) {
            let shape = ROWS.iter().position(|rows| *rows >= chunk.len()).unwrap_or(ROWS.len() - 1);
            let mut arguments = SqliteArguments::default();
            sqlx::Arguments::reserve(&mut arguments, chunk.len() * COLUMN_COUNT, 0);
            for (append, event) in chunk {
                bind(&mut arguments, append, event).map_err(sqlx::Error::Encode)?;
            }
            let sql = AssertSqlSafe(Arc::clone(&self.inserts[shape]));
            let rows = sqlx::query_with(sql, arguments).fetch_all(&mut *connection).await?;
            let [newest, done] = &rows[..] else {
                return Err(sqlx::Error::Protocol("an INSERT answered otherwise than it should".to_owned()));
            };
            let (inserted, last): (i64, i64) = (done.try_get(0)?, done.try_get(1)?);
            let count = i64::try_from(chunk.len()).unwrap_or(i64::MAX);
            if inserted == count {
                // One writer, and nothing skipped: the numbers follow one another. A batch is told where it begins if it
                // went in as one.
                all.first = (chunk.len() == events.len()).then_some(Seq(last - count + 1));
            } else {
                let known = Self::known(connection, chunk, newest.try_get(0)?).await?;
                all_kept(chunk.len(), u64::try_from(inserted).unwrap_or(0) + known.len() as u64)?;
                all.duplicates.extend(known);
            }
        }
        Ok(all)
    }

    /// Those of `events` that had been there before: they are no newer than the log was.
    async fn known(
        connection: &mut SqliteConnection,
        events: &[(&Append, &Event)],
        newest: i64,
    ) -> Result<Vec<EventId>, sqlx::Error> {
        let ids = serde_json::Value::from_iter(events.iter().map(|(_, event)| event.event_id.to_string())).to_string();
        let rows =
            sqlx::query("SELECT event_id FROM events WHERE event_id IN (SELECT value FROM json_each(?)) AND seq <= ?")
                .bind(ids)
                .bind(newest)
                .fetch_all(connection)
                .await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Notes in one transaction what is not new: further deliveries, bodies for the quarantine, handshakes.
    async fn note(
        connection: &mut SqliteConnection,
        batch: &[Append],
        outcomes: &[Appended],
    ) -> Result<(), sqlx::Error> {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        for (append, outcome) in batch.iter().zip(outcomes) {
            match append.verified.content() {
                Content::Event(event) if *outcome == Appended::Duplicate => {
                    sqlx::query(
                        "UPDATE events SET deliveries = deliveries + ?, last_delivered_at = max(last_delivered_at, ?)
                          WHERE event_id = ?",
                    )
                    .bind(append.deliveries)
                    .bind(append.last_delivered_at.to_string())
                    .bind(event.event_id.to_string())
                    .execute(&mut *tx)
                    .await
                    .and_then(|done| all_kept(1, done.rows_affected()))?;
                }
                Content::Event(_) => {}
                Content::Unreadable(unreadable) => insert_quarantined(&mut tx, unreadable, append.deliveries).await?,
                Content::Handshake(handshake) => {
                    handshakes::note_handshake(&mut tx, handshake, append.deliveries).await?;
                }
            }
        }
        tx.commit().await
    }

    /// What is known to judge the clock and the cursors by.
    async fn known_of_retention(&self, now: Millis) -> Result<retention::Known, LogError> {
        let row = sqlx::query(
            "SELECT (SELECT occurred_at FROM events WHERE event_id < ?1 AND source <> 'platform' ORDER BY event_id DESC LIMIT 1),
                    (SELECT received_at FROM events ORDER BY seq DESC LIMIT 1),
                    (SELECT note FROM task_notes WHERE name = ?2), c.name, c.position,
                    (SELECT received_at FROM events WHERE seq > c.position ORDER BY seq LIMIT 1)
               FROM (SELECT 1) LEFT JOIN (SELECT name, position FROM cursors ORDER BY position LIMIT 1) c",
        )
        .bind(EventId::lower_bound(now.plus(retention::AHEAD)).to_string())
        .bind(retention::SEEN)
        .fetch_one(&self.readers)
        .await
        .map_err(failed)?;
        let at = |index: usize| row.try_get::<Option<Millis>, _>(index);
        let known = || {
            let cursor: Option<String> = row.try_get(3)?;
            Ok(retention::Known {
                happened: at(0)?,
                received: at(1)?,
                seen: row.try_get::<Option<&str>, _>(2)?.and_then(Millis::parse),
                slowest: cursor.zip(row.try_get::<Option<i64>, _>(4)?),
                unread: at(5)?,
            })
        };
        known().map_err(failed)
    }

    /// Deletes some of the rows that are beyond the retention and that every cursor has read.
    async fn expire(&self, now: Millis) -> Result<(), LogError> {
        if self.retention.is_none() && self.quarantine_retention.is_none() {
            return Ok(());
        }
        let mut looking = self.expiry.lock().await;
        if looking.rests.is_some_and(|(at, rest)| now >= at && now.since(at) < rest) {
            return Ok(());
        }
        let begun = instant();
        let mut deleted = 0;
        let known = self.known_of_retention(now).await?;
        let [events, quarantine] = known.allows(now, [self.retention, self.quarantine_retention]);
        if looking.after.is_none() && (events.is_some() || quarantine.is_some()) {
            self.keep_note(retention::SEEN, &now.to_string()).await?;
        }
        if let Some(retention) = events {
            let before = now.minus(retention);
            // Looked for without the writer, and on from what was deleted last: what is old and stays, being unread or received
            // lately, may be much.
            let expired: Vec<(i64, String)> = sqlx::query_as(
                "SELECT seq, event_id FROM events
                  WHERE event_id > ? AND event_id < ? AND received_at < ?
                    AND seq <= coalesce((SELECT min(position) FROM cursors), 9223372036854775807)
                  ORDER BY event_id LIMIT ?",
            )
            .bind(looking.after.clone().unwrap_or_default())
            .bind(EventId::lower_bound(before).to_string())
            .bind(before.to_string())
            .bind(RETENTION_ROWS)
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
            let list = serde_json::Value::from_iter(expired.iter().map(|(seq, _)| *seq)).to_string();
            looking.after = expired.into_iter().next_back().map(|(_, event_id)| event_id);
            if looking.after.is_some() {
                deleted += self
                    .write(sqlx::query("DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))").bind(list))
                    .await?;
            }
        }
        if let Some(retention) = quarantine {
            let delete = "DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine WHERE received_at < ? LIMIT ?)";
            let delete = sqlx::query(delete).bind(now.minus(retention).to_string()).bind(RETENTION_ROWS);
            deleted += self.write(delete).await?;
        }
        if deleted == 0 {
            looking.rests = Some((now, RETENTION_AGAIN.max(begun.elapsed() * RETENTION_REST)));
        }
        Ok(())
    }
}

/// How far the look for what is beyond the retention has come.
#[derive(Default)]
struct Expiry {
    /// The id of the row that was deleted last, if there may be more after it.
    after: Option<String>,
    /// When there was last nothing to delete, and for how long that is believed.
    rests: Option<(Millis, Duration)>,
}

/// The writing connection while it is ours. After an error that may have left it in an unknown state it is opened anew.
struct Writer<'a>(MutexGuard<'a, Option<SqliteConnection>>);

impl Writer<'_> {
    fn connection(&mut self) -> &mut SqliteConnection {
        self.0.as_mut().expect("opened when it was taken")
    }
}

impl Deref for Writer<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.0.as_ref().expect("opened when it was taken")
    }
}

impl DerefMut for Writer<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection()
    }
}

fn bind(to: &mut SqliteArguments, append: &Append, event: &Event) -> Result<(), sqlx::error::BoxDynError> {
    use sqlx::Arguments as _;
    let text = |time: Millis| Arc::<str>::from(time.to_string());
    let received_at = text(event.received_at);
    let last_delivered_at = if append.last_delivered_at == event.received_at {
        Arc::clone(&received_at)
    } else {
        text(append.last_delivered_at)
    };
    to.add(event.event_id.to_string())?;
    to.add(Arc::clone(&event.subscriber_id))?;
    to.add(Arc::clone(&event.event))?;
    to.add(text(event.occurred_at))?;
    to.add(received_at)?;
    for column in event.optional_texts() {
        to.add(column.clone())?;
    }
    to.add(event.attendee.join_time.map(text))?;
    to.add(event.attendee.left_time.map(text))?;
    to.add(event.source.as_str())?;
    to.add(append.deliveries)?;
    to.add(last_delivered_at)?;
    to.add(event.request_id.clone())?;
    to.add(event.traceparent.clone())?;
    to.add(Arc::clone(&event.event_info))
}

/// Moves a cursor forward, or back to the beginning, if `owner` holds its lease: whether somebody else asks for it.
async fn advance(
    connection: &mut SqliteConnection,
    cursor: &str,
    owner: &str,
    to: Option<Seq>,
    ttl: Duration,
) -> Result<Option<bool>, sqlx::Error> {
    let sql = format!(
        "UPDATE cursors SET position = coalesce(?3, 0), updated_at = {NOW},
                lease_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?4)
          WHERE name = ?1 AND lease_owner = ?2 AND lease_until > {NOW} AND (?3 IS NULL OR position <= ?3)
         RETURNING coalesce(wanted_by <> ?2 AND wanted_until > {NOW}, FALSE)"
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(cursor.to_owned())
        .bind(owner.to_owned())
        .bind(to.map(|to| to.0))
        .bind(seconds(ttl))
        .fetch_optional(connection)
        .await
}

/// The last of all places of the log that were given, as far as the tables tell.
const LAST_GIVEN: &str =
    "max(coalesce((SELECT max(seq) FROM events), 0), coalesce((SELECT max(position) FROM cursors), 0),
     coalesce((SELECT max(seq) FROM set_aside), 0), coalesce((SELECT max(last_seq) FROM fetches), 0))";

/// Lets the log's count begin beyond every place that was given.
async fn count_on(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT INTO sqlite_sequence (name, seq)
             SELECT 'events', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events');
         UPDATE sqlite_sequence SET seq = max(seq, {LAST_GIVEN}) WHERE name = 'events'"
    )))
    .execute(connection)
    .await
    .map(drop)
}

async fn insert_quarantined(
    connection: &mut SqliteConnection,
    unreadable: &Unreadable,
    deliveries: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO quarantine (digest, subscriber_id, received_at, deliveries, reason, body) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (digest) DO UPDATE SET deliveries = deliveries + excluded.deliveries",
    )
    .bind(unreadable.digest().to_vec())
    .bind(Arc::clone(&unreadable.subscriber_id))
    .bind(unreadable.received_at.to_string())
    .bind(deliveries)
    .bind(unreadable.reason.clone())
    .bind(unreadable.body.to_vec())
    .execute(connection)
    .await
    .and_then(|done| all_kept(1, done.rows_affected()))
}

impl std::fmt::Debug for SqliteLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

fn seconds(ttl: Duration) -> String {
    format!("+{:.3} seconds", ttl.as_secs_f64())
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

impl Queries for SqliteLog {}

impl Store for SqliteLog {}
