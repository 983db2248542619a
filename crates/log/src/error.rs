//! Errors of the log.

use std::error::Error as StdError;
use std::time::Duration;

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database cannot be reached, is full, read-only, too slow, or not migrated. Retry later; whether a
    /// write took place is unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(Box<dyn StdError + Send + Sync>),
    /// The database is unavailable for a reason that an operator has to fix: a password, a privilege, a missing folder.
    /// The text names it. Retrying succeeds as soon as it is fixed.
    #[error("{0}")]
    Unusable(String),
    /// The tables are not up to date, and the caller did not ask to migrate them.
    #[error("{database} {tables}")]
    Unmigrated {
        /// Which database.
        database: String,
        /// What is missing.
        tables: Unmigrated,
    },
    /// The database refuses the values. Retrying the same values is useless; nothing was written.
    #[error("the database rejects the values: {0}")]
    Rejected(Box<dyn StdError + Send + Sync>),
    /// The database has no partition for one of the rows now, and may have one later. Nothing was written; the other
    /// rows can be tried separately.
    #[error("the database cannot store it at present: {0}")]
    NoPlace(Box<dyn StdError + Send + Sync>),
    /// A user's query exceeded its time limit and was cancelled. Ask for less.
    #[error("the query took longer than {0:?} and was cancelled")]
    TooSlow(Duration),
    /// The schema of the database is not usable by this version, and waiting will not change that.
    #[error("{0}")]
    Schema(String),
    /// The configured URL does not describe a database.
    #[error("database.url: {0}")]
    Url(String),
}

/// In what way the tables are not up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmigrated {
    /// The database file does not exist.
    NoFile,
    /// There are no tables: the database is new.
    Empty,
    /// The number of pending migrations.
    Pending(usize),
}

impl std::fmt::Display for Unmigrated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = "(with `database.migrate = false`, `convoke migrate`, run as the same user)";
        let other = "If it should exist, database.url names a different one";
        match self {
            Self::NoFile => write!(f, "does not exist: `convoke serve` creates it at its first start. {other}"),
            Self::Empty => write!(f, "is empty: `convoke serve` creates the tables at its first start. {other}"),
            Self::Pending(1) => write!(f, "lacks 1 migration: `convoke serve` applies it at its start {by}"),
            Self::Pending(n) => write!(f, "lacks {n} migrations: `convoke serve` applies them at its start {by}"),
        }
    }
}

impl LogError {
    /// Whether the log does not exist yet.
    #[must_use]
    pub fn not_made(&self) -> bool {
        matches!(self, Self::Unmigrated { tables: Unmigrated::NoFile | Unmigrated::Empty, .. })
    }

    /// Whether a later retry may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unusable(_) | Self::Unmigrated { .. })
    }

    pub(crate) fn unavailable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(error.into())
    }
}
