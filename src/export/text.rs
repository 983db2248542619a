//! CSV and NDJSON. Both are text in UTF-8; times are RFC 3339 with milliseconds: in CSV as the clocks of a time zone show them, in
//! NDJSON in UTC.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use csv::{Terminator, WriterBuilder};
use serde_json::value::RawValue;

use convoke_core::zone::TimeZone;

use super::{Column, Sheet, Table, Value};

/// Bytes written at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// RFC 4180. What is null is empty, as no text in the tables is.
pub(crate) struct Csv<W: Write> {
    writer: csv::Writer<W>,
    spreadsheet: bool,
    zone: TimeZone,
    written: u64,
}

impl<W: Write> Csv<W> {
    /// Begins with a header.
    pub fn new(table: Table, spreadsheet: bool, zone: TimeZone, mut target: W) -> io::Result<Self> {
        if spreadsheet {
            // Else spreadsheets take it for the local code page.
            target.write_all("\u{feff}".as_bytes())?;
        }
        let mut this = Self::without_header(spreadsheet, zone, target);
        this.writer.write_record(table.columns().iter().map(|column| column.name)).map_err(failed)?;
        Ok(this)
    }

    /// What goes on after others.
    pub fn without_header(spreadsheet: bool, zone: TimeZone, target: W) -> Self {
        let writer =
            WriterBuilder::new().terminator(Terminator::CRLF).buffer_capacity(BUFFER_BYTES).from_writer(target);
        Self { writer, spreadsheet, zone, written: 0 }
    }
}

impl<W: Write> Sheet<W> for Csv<W> {
    fn row(&mut self, values: &[Value<'_>]) -> io::Result<()> {
        for value in values {
            let field: Cow<'_, str> = match value {
                Value::Null => Cow::Borrowed(""),
                Value::Text(text) if self.spreadsheet => escape_formula(text),
                Value::Json(text) if self.spreadsheet => escape_formula(text),
                Value::Text(text) => Cow::Borrowed(text),
                Value::Json(text) => Cow::Borrowed(text),
                Value::Integer(number) => number.to_string().into(),
                Value::Float(number) => number.to_string().into(),
                Value::Boolean(value) => value.to_string().into(),
                Value::Time(time) => self.zone.local(*time).to_string().into(),
            };
            self.written += u64::try_from(field.len()).unwrap_or(0) + 1;
            self.writer.write_field(&*field).map_err(failed)?;
        }
        self.writer.write_record(None::<&[u8]>).map_err(failed)
    }

    fn bytes(&self) -> u64 {
        self.written
    }

    fn finish(self: Box<Self>) -> io::Result<W> {
        self.writer.into_inner().map_err(|error| io::Error::new(error.error().kind(), error.error().to_string()))
    }
}

fn failed(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// What a spreadsheet would take for a formula is marked as text by an apostrophe: a participant chooses the name. Many
/// split also at semicolons, tabs and line ends, whatever stands between quotes: a formula may begin after these, too.
fn escape_formula(text: &str) -> Cow<'_, str> {
    const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];
    let mut marked = String::new();
    let mut copied = 0;
    // Whether a cell may begin here, but for what is passed over before it.
    let mut begins = true;
    for (at, letter) in text.char_indices() {
        let formula = matches!(letter, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠');
        if (begins && formula) || (at == 0 && matches!(letter, '\t' | '\r' | '\n')) {
            marked.push_str(&text[copied..at]);
            marked.push('\'');
            copied = at;
        }
        begins = SEPARATORS.contains(&letter) || (begins && matches!(letter, ' ' | '"'));
    }
    if marked.is_empty() {
        return text.into();
    }
    marked.push_str(&text[copied..]);
    marked.into()
}

/// A JSON object a line, with a member for each column.
pub struct Ndjson<W: Write> {
    writer: BufWriter<W>,
    /// `{"first":`, `,"second":` …
    names: Vec<String>,
    line: Vec<u8>,
    written: u64,
}

impl<W: Write> Ndjson<W> {
    pub fn new(table: Table, target: W) -> Self {
        let name =
            |(index, column): (usize, &Column)| format!("{}\"{}\":", if index == 0 { '{' } else { ',' }, column.name);
        let names = table.columns().iter().enumerate().map(name).collect();
        Self { writer: BufWriter::with_capacity(BUFFER_BYTES, target), names, line: Vec::new(), written: 0 }
    }
}

impl<W: Write> Sheet<W> for Ndjson<W> {
    fn row(&mut self, values: &[Value<'_>]) -> io::Result<()> {
        self.line.clear();
        for (name, value) in self.names.iter().zip(values) {
            self.line.extend_from_slice(name.as_bytes());
            let line = &mut self.line;
            match value {
                Value::Null => line.extend_from_slice(b"null"),
                Value::Text(text) => serde_json::to_writer(line, text)?,
                // As it came, numbers and the order of members included; it must stay on the line.
                Value::Json(text)
                    if !text.contains(['\n', '\r']) && serde_json::from_str::<&RawValue>(text).is_ok() =>
                {
                    line.extend_from_slice(text.as_bytes());
                }
                Value::Json(text) => serde_json::to_writer(line, text)?,
                Value::Integer(number) => serde_json::to_writer(line, number)?,
                Value::Float(number) => serde_json::to_writer(line, number)?,
                Value::Boolean(value) => serde_json::to_writer(line, value)?,
                Value::Time(time) => write!(line, "\"{time}\"")?,
            }
        }
        self.line.extend_from_slice(b"}\n");
        self.written += u64::try_from(self.line.len()).unwrap_or(0);
        self.writer.write_all(&self.line)
    }

    fn bytes(&self) -> u64 {
        self.written
    }

    fn finish(self: Box<Self>) -> io::Result<W> {
        self.writer.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_with_a_formula_wherever_a_spreadsheet_splits() {
        for (text, safe) in [
            ("=1+1", "'=1+1"),
            ("Ada;=1+1", "Ada;'=1+1"),
            ("Ada; \"@SUM(A1)\"", "Ada; \"'@SUM(A1)\""),
            ("a\t+1\n-1\r＝1", "a\t'+1\n'-1\r'＝1"),
            ("\tAda", "'\tAda"),
            ("Ada-Lee, x=1; y", "Ada-Lee, x=1; y"),
            ("王小明", "王小明"),
        ] {
            assert_eq!(escape_formula(text), safe);
        }
    }
}
