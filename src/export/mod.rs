//! The log and its tables as files for other programs: CSV, NDJSON, Parquet, and workbooks for spreadsheets.
//!
//! `read` asks the log for a page at a time and hands its rows on, so that neither memory nor a transaction grows with what
//! is exported; `rows` says which columns there are; `text`, `columnar` and `xlsx` write them; `target` is where they
//! go: a file has its name only once it is whole.

mod columnar;
mod read;
mod rows;
mod target;
mod text;
mod xlsx;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

pub use read::{ExportError, ExportProgress, ExportRequest, export};
pub(crate) use rows::Tabular;
pub use target::{Target, TargetError};
pub(crate) use text::Csv;
pub(crate) use xlsx::Xlsx;

use convoke_core::time::Millis;
use convoke_core::zone::TimeZone;
use convoke_log::{ListedEvent, ListedMeeting, ListedRecording, ListedStay};
use utoipa::PartialSchema as _;

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

    /// What each column means, by its name: as the API's document says.
    fn meanings(self) -> BTreeMap<String, String> {
        let schema = match self {
            Self::Events => ListedEvent::schema(),
            Self::Meetings => ListedMeeting::schema(),
            Self::Attendance => ListedStay::schema(),
            Self::Recordings => ListedRecording::schema(),
        };
        let schema = serde_json::to_value(schema).unwrap_or_default();
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties
            .filter_map(|(name, property)| {
                // What may be null is described one level down.
                let mut described = std::iter::once(property).chain(property["oneOf"].as_array().into_iter().flatten());
                let meaning = described.find_map(|schema| schema["description"].as_str())?;
                Some((name.clone(), meaning.to_owned()))
            })
            .collect()
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
    /// A workbook for spreadsheets, with at most 1,048,575 rows and a sheet that explains the columns
    Xlsx,
}

/// How it is written, in full.
#[derive(Clone, Debug)]
pub struct Style {
    /// As what.
    pub format: Format,
    /// For a spreadsheet: CSV marked as UTF-8, in which no text is taken for a formula.
    pub spreadsheet: bool,
    /// Whose clocks times in CSV and workbooks are shown by.
    pub zone: TimeZone,
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
    Boolean,
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
pub(crate) enum Value<'a> {
    /// None.
    Null,
    /// A text.
    Text(Cow<'a, str>),
    /// A JSON value, as text.
    Json(&'a str),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A point in time.
    Time(Millis),
}

/// Whatever writes rows to a `W`, each with a value for each column.
pub(crate) trait Sheet<W> {
    /// Writes one.
    fn row(&mut self, values: &[Value<'_>]) -> io::Result<()>;

    /// So many bytes were written, more or less.
    fn bytes(&self) -> u64;

    /// Writes what is left, and gives back where it was written to.
    fn finish(self: Box<Self>) -> io::Result<W>;
}

/// Begins a file: with a header, say.
fn sheet(table: Table, style: &Style, target: Target) -> io::Result<Box<dyn Sheet<Target>>> {
    Ok(match style.format {
        Format::Csv => Box::new(text::Csv::new(table, style.spreadsheet, style.zone.clone(), target)?),
        Format::Ndjson => Box::new(text::Ndjson::new(table, target)),
        Format::Xlsx => Box::new(xlsx::Xlsx::new(table, style.zone.clone(), target)?),
        Format::Parquet => Box::new(columnar::Parquet::new(table, &style.about, target)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_every_table_has_a_meaning() {
        for table in [Table::Events, Table::Meetings, Table::Attendance, Table::Recordings] {
            let meanings = table.meanings();
            for Column { name, .. } in table.columns() {
                assert!(meanings.get(*name).is_some_and(|meaning| !meaning.is_empty()), "{} {name}", table.as_str());
            }
        }
    }
}
