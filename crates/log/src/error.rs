//! Why the log did not do what it was asked.

use std::error::Error as StdError;
use std::time::Duration;

/// Why the log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database cannot be reached, is full, read-only, too slow, or not migrated. Try again later; whether a write
    /// took place is unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(Box<dyn StdError + Send + Sync>),
    /// It is as unavailable, but for something that a person has to mend: a password, a right, a missing folder. The text
    /// says what. Trying again helps as soon as it is mended.
    #[error("{0}")]
    Unusable(String),
    /// The tables are not up to date, and were not to be brought up to date.
    #[error("{database} {tables}")]
    Unmigrated {
        /// Which database.
        database: String,
        /// What is missing.
        tables: Unmigrated,
    },
    /// The database refuses the values. Trying the same again is useless; nothing was written.
    #[error("the database refuses the values: {0}")]
    Rejected(Box<dyn StdError + Send + Sync>),
    /// The database has no place for one of the rows now, and may have one later; nothing was written, and the others may be
    /// tried by themselves.
    #[error("the database has no place for it now: {0}")]
    NoPlace(Box<dyn StdError + Send + Sync>),
    /// A query for people took longer than it may, and was broken off. Ask for less.
    #[error("the query took longer than {0:?}, and was broken off")]
    TooSlow(Duration),
    /// The database's schema is not one that this version can use, and waiting will not change that.
    #[error("{0}")]
    Schema(String),
    /// The settings do not describe a database.
    #[error("database.url: {0}")]
    Url(String),
}

/// In what way the tables are not up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmigrated {
    /// There is no file of that name.
    NoFile,
    /// There are no tables: nobody has used the database yet.
    Empty,
    /// So many migrations are pending.
    Pending(usize),
}

impl std::fmt::Display for Unmigrated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = "(with `database.migrate = false`, `convoke migrate`, run as the same user)";
        let other = "If it should be there, database.url names another one";
        match self {
            Self::NoFile => write!(f, "is not there: `convoke serve` makes it at its first start. {other}"),
            Self::Empty => write!(f, "is empty: `convoke serve` makes the tables at its first start. {other}"),
            Self::Pending(1) => write!(f, "lacks 1 migration: `convoke serve` applies it at its start {by}"),
            Self::Pending(n) => write!(f, "lacks {n} migrations: `convoke serve` applies them at its start {by}"),
        }
    }
}

impl LogError {
    /// Whether nobody has made the log yet.
    #[must_use]
    pub fn not_made(&self) -> bool {
        matches!(self, Self::Unmigrated { tables: Unmigrated::NoFile | Unmigrated::Empty, .. })
    }

    /// Whether trying again later may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unusable(_) | Self::Unmigrated { .. })
    }

    pub(crate) fn unavailable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(error.into())
    }
}
