//! The servers in `database.url`, and the one in use.
//!
//! A pool of sqlx knows one server. This module chooses it: at start, and whenever a connection finds that the server
//! is gone or is not of the required kind. All later connections, in every pool, go to the chosen server.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, PgPool, Row};
use tokio::sync::Mutex;

use super::url::{ServerUrl, Wanted};
use crate::LogError;

/// Delay before the next server is tried in parallel, so that a server that disappeared does not use up
/// the time for those after it.
const HEAD_START_DELAY: Duration = Duration::from_millis(150);

/// Timeout of a connection that is accepted and then gets no response.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The servers, in the order of the URL, at least one.
pub struct Hosts {
    hosts: Vec<PgConnectOptions>,
    wanted: Wanted,
    in_use: AtomicUsize,
    pools: OnceLock<Vec<PgPool>>,
    looking: Mutex<()>,
}

impl Hosts {
    /// # Errors
    /// [`LogError::Url`].
    pub fn new(url: &str) -> Result<Self, LogError> {
        let ServerUrl { hosts, wanted } = ServerUrl::parse(url).map_err(LogError::Url)?;
        let hosts = hosts.into_iter().map(|host| {
            // No floating-point number is ever read, and poolers refuse the parameter for them.
            let host = host.application_name("convoke").extra_float_digits(None);
            sqlx::ConnectOptions::disable_statement_logging(host)
        });
        Ok(Self {
            hosts: hosts.collect(),
            wanted,
            in_use: AtomicUsize::new(0),
            pools: OnceLock::new(),
            looking: Mutex::new(()),
        })
    }

    /// The server chosen last; at first, the first one.
    pub fn in_use(&self) -> &PgConnectOptions {
        &self.hosts[self.in_use.load(Ordering::Relaxed)]
    }

    /// Registers the pools that follow the choice of the server.
    pub fn lead(&self, pools: Vec<PgPool>) {
        // Called only once, by the code that creates the pools.
        let _ = self.pools.set(pools);
    }

    /// Host and port of each server, and the database.
    pub fn describe(&self) -> String {
        let mut text = "PostgreSQL ".to_owned();
        for (n, host) in self.hosts.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{}", place(host));
        }
        let database = self.in_use().get_database().unwrap_or_else(|| self.in_use().get_username());
        let _ = write!(text, "/{database}");
        text
    }

    /// Connects to the first server, in the order of the URL, that is of the required kind. Also returns the options
    /// for another connection to it. The session has no settings yet.
    ///
    /// # Errors
    /// Why none of the servers can be used.
    pub async fn reach(&self) -> Result<(PgConnection, &PgConnectOptions), sqlx::Error> {
        if let [host] = &self.hosts[..] {
            return self.attempt(host).await.map(|connection| (connection, host));
        }
        let tries = self.hosts.iter().zip(0_u32..).map(|(host, n)| async move {
            tokio::time::sleep(HEAD_START_DELAY * n).await;
            let tried = tokio::time::timeout(ANSWER_TIMEOUT, self.attempt(host)).await;
            (n, tried.unwrap_or_else(|_| Err(io(format!("no answer within {ANSWER_TIMEOUT:?}")))))
        });
        let mut tries: FuturesUnordered<_> = tries.collect();
        let mut failures = Vec::new();
        while let Some((n, tried)) = tries.next().await {
            let host = &self.hosts[n as usize];
            match tried {
                Ok(connection) => {
                    self.follow(n as usize);
                    return Ok((connection, host));
                }
                Err(error) => failures.push((n, error)),
            }
        }
        // Prefer an error that an operator has to fix over the report that a standby is a standby.
        if let Some(at) = failures.iter().position(|(_, error)| matches!(error, sqlx::Error::Database(_))) {
            return Err(failures.swap_remove(at).1);
        }
        failures.sort_by_key(|(n, _)| *n);
        let each = failures.iter().map(|(n, error)| format!("{}: {error}", place(&self.hosts[*n as usize])));
        Err(io(each.collect::<Vec<_>>().join("; ")))
    }

    async fn attempt(&self, host: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(host).await?;
        if self.suits(&mut connection).await? {
            return Ok(connection);
        }
        connection.close().await?;
        Err(unsuitable())
    }

    fn follow(&self, host: usize) {
        if self.in_use.swap(host, Ordering::Relaxed) == host {
            return;
        }
        tracing::info!(server = place(&self.hosts[host]), "found the PostgreSQL server that accepts writes");
        for pool in self.pools.get().into_iter().flatten() {
            pool.set_connect_options(self.hosts[host].clone());
        }
    }

    /// Accepts a new connection of a pool, or looks for the server to which it should have gone.
    ///
    /// # Errors
    /// The server is not of the required kind; the pool tries again.
    pub async fn admit(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.suits(connection).await? {
            return Ok(());
        }
        self.look().await;
        Err(unsuitable())
    }

    /// Chooses the server again, if there is more than one.
    pub async fn look(&self) {
        if self.hosts.len() == 1 {
            return;
        }
        // If another task is looking already, its result counts.
        let Ok(_looking) = self.looking.try_lock() else { return };
        match self.reach().await {
            Ok((connection, _)) => drop(connection.close().await),
            Err(error) => tracing::debug!(%error, "no PostgreSQL server accepts writes"),
        }
    }

    async fn suits(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        match self.wanted {
            Wanted::Any => Ok(true),
            Wanted::ReadWrite => writable(connection).await,
            Wanted::Primary => sqlx::raw_sql("SELECT NOT pg_is_in_recovery()").fetch_one(connection).await?.try_get(0),
        }
    }
}

/// Whether a session can write: not on a standby, nor if it began while the database was read-only.
pub async fn writable(connection: impl sqlx::PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    let answer = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(connection).await?;
    Ok(answer.try_get::<String, _>(0)? == "off")
}

/// The location of a server, for messages.
fn place(host: &PgConnectOptions) -> String {
    match host.get_socket() {
        Some(socket) => format!("{}:{}", socket.display(), host.get_port()),
        None => format!("{}:{}", host.get_host(), host.get_port()),
    }
}

fn unsuitable() -> sqlx::Error {
    io("it is read-only: it is a standby, or default_transaction_read_only is on".to_owned())
}

fn io(problem: String) -> sqlx::Error {
    std::io::Error::other(problem).into()
}
