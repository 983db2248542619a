//! The log and its tables as files for other programs: CSV, NDJSON, Parquet.
//!
//! `read` asks the log for a page at a time and hands its rows on, so that neither memory nor a transaction grows with what
//! is exported; `rows` says which columns there are; `text` and `columnar` write them; `target` is where they
//! go: a file has its name only once it is whole.

mod columnar;
mod read;
mod rows;
mod target;
mod text;

use std::borrow::Cow;
use std::io;

pub use read::{ExportError, ExportProgress, ExportRequest, export};
pub use target::{Target, TargetError};

use convoke_core::time::Millis;

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Table {
    /// The log
    Events,
    /// Runs of meetings
    Meetings,
    /// Stays in them
    Attendance,
    /// Recordings of them
    Recordings,
}

impl Table {
    /// As it is called in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Meetings => "meetings",
            Self::Attendance => "attendance",
            Self::Recordings => "recordings",
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            Self::Events => &rows::EVENTS,
            Self::Meetings => &rows::MEETINGS,
            Self::Attendance => &rows::ATTENDANCE,
            Self::Recordings => &rows::RECORDINGS,
        }
    }
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Comma-separated values (RFC 4180) with a header; what is null is empty
    Csv,
    /// A JSON object a line
    Ndjson,
    /// Apache Parquet, compressed, with real timestamps
    Parquet,
}

/// How it is written, in full.
#[derive(Clone, Debug)]
pub struct Style {
    /// As what.
    pub format: Format,
    /// For a spreadsheet: CSV marked as UTF-8, in which no text is taken for a formula.
    pub spreadsheet: bool,
    /// What a Parquet file says of itself, by key.
    pub about: Vec<(String, String)>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// A text that is a JSON value, as far as one can tell.
    Json,
    Integer,
    Float,
    Time,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    kind: Kind,
    /// Whether it may be null.
    optional: bool,
}

/// A column's value in a row.
#[derive(Clone, Debug, PartialEq)]
enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Json(&'a str),
    Integer(i64),
    Float(f64),
    Time(Millis),
}

/// Whatever writes rows, each with a value for each column.
trait Sheet {
    fn row(&mut self, values: &[Value<'_>]) -> io::Result<()>;

    /// So many bytes were written, more or less.
    fn bytes(&self) -> u64;

    /// Writes what is left, and gives back where it was written to.
    fn finish(self: Box<Self>) -> io::Result<Target>;
}

/// Begins a file: with a header, say.
fn sheet(table: Table, style: &Style, target: Target) -> io::Result<Box<dyn Sheet>> {
    let columns = table.columns();
    Ok(match style.format {
        Format::Csv => Box::new(text::Csv::new(columns, style.spreadsheet, target)?),
        Format::Ndjson => Box::new(text::Ndjson::new(columns, target)),
        Format::Parquet => Box::new(columnar::Parquet::new(table, &style.about, target)?),
    })
}
