//! A workbook for spreadsheets: a sheet of rows, written one by one into a temporary file, so that memory does not grow with it, and a
//! sheet that says what the columns mean.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError};

use super::{Kind, Sheet, Table, Value};
use convoke_core::time::Millis;
use convoke_core::zone::TimeZone;

/// Rows of a sheet, the header among them.
const MAX_ROWS: u32 = 1_048_576;

/// UTF-16 units of a cell.
const MAX_CELL_UNITS: usize = 32_767;

/// Bytes of a cell without what is in it, about.
const CELL_BYTES: usize = 48;

/// 1970-01-01 in the days that spreadsheets count.
const EPOCH_DAY: f64 = 25_569.0;
const DAY_MS: f64 = 86_400_000.0;

/// Texts are cells of text, whatever they look like: none is a formula.
pub(crate) struct Xlsx<W> {
    book: Workbook,
    times: Times,
    next: u32,
    written: usize,
    target: W,
}

impl<W: Write + Send> Xlsx<W> {
    pub fn new(table: Table, zone: TimeZone, target: W) -> io::Result<Self> {
        let mut book = Workbook::new();
        let head = Format::new().set_bold();
        rows_sheet(&mut book, table, &head).map_err(failed)?;
        columns_sheet(&mut book, table, &zone, &head).map_err(failed)?;
        let times = Times { zone, formats: HashMap::new() };
        Ok(Self { book, times, next: 1, written: 0, target })
    }
}

/// Times are numbers, as a spreadsheet has them: what clocks show. Its format says by how much they are ahead of UTC.
struct Times {
    zone: TimeZone,
    /// By the offset, in minutes.
    formats: HashMap<i32, Format>,
}

impl Times {
    fn cell(&mut self, at: Millis) -> (f64, &Format) {
        let seconds = self.zone.offset(at);
        let shown = EPOCH_DAY + (at.get() as f64 + f64::from(seconds) * 1e3) / DAY_MS;
        let format = self.formats.entry(seconds / 60).or_insert_with(|| {
            let zone = match self.zone.local(at).to_string() {
                utc if utc.ends_with('Z') => String::new(),
                local => format!(" \"{}\"", &local[local.len() - "+00:00".len()..]),
            };
            Format::new().set_num_format(format!("yyyy-mm-dd hh:mm:ss.000{zone}"))
        });
        (shown, format)
    }
}

fn rows_sheet(book: &mut Workbook, table: Table, head: &Format) -> Result<(), XlsxError> {
    let sheet = book.add_worksheet_with_constant_memory()?;
    sheet.set_name(table.as_str())?.set_freeze_panes(1, 0)?;
    for (at, column) in (0..).zip(table.columns()) {
        sheet.set_column_width(at, if column.kind == Kind::Time { 30 } else { 18 })?;
        sheet.write_string_with_format(0, at, column.name, head)?;
    }
    Ok(())
}

fn columns_sheet(book: &mut Workbook, table: Table, zone: &TimeZone, head: &Format) -> Result<(), XlsxError> {
    let sheet = book.add_worksheet().set_name("columns")?.set_freeze_panes(1, 0)?;
    for (at, (name, width)) in (0..).zip([("column", 24), ("holds", 24), ("meaning", 100)]) {
        sheet.set_column_width(at, width)?.write_string_with_format(0, at, name, head)?;
    }
    let meanings = table.meanings();
    for (row, column) in (1..).zip(table.columns()) {
        let holds = match column.kind {
            Kind::Text => "text".to_owned(),
            Kind::Json => "JSON, as text".to_owned(),
            Kind::Integer => "a whole number".to_owned(),
            Kind::Float => "a number".to_owned(),
            Kind::Boolean => "true or false".to_owned(),
            Kind::Time => format!("a time, {}", zone.name()),
        };
        let meaning = meanings.get(column.name).map_or("", String::as_str);
        sheet.write_string(row, 0, column.name)?.write_string(row, 1, holds)?.write_string(row, 2, meaning)?;
    }
    Ok(())
}

impl<W: Write + Send> Sheet<W> for Xlsx<W> {
    fn row(&mut self, values: &[Value<'_>]) -> io::Result<()> {
        if self.next == MAX_ROWS {
            let most = "a sheet holds 1,048,575 rows at the most: narrow the range, or write CSV";
            return Err(io::Error::new(ErrorKind::FileTooLarge, most));
        }
        let Self { book, times, next, written, .. } = self;
        guarded(|| {
            let sheet = book.worksheet_from_index(0)?;
            for (at, value) in (0..).zip(values) {
                *written += cell(sheet, *next, at, value, times)?;
            }
            Ok(())
        })?;
        self.next += 1;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        u64::try_from(self.written).unwrap_or(u64::MAX)
    }

    fn finish(mut self: Box<Self>) -> io::Result<W> {
        guarded(|| self.book.save_to_writer(&mut self.target))?;
        Ok(self.target)
    }
}

/// Writes a cell; how many bytes that are, about.
fn cell(sheet: &mut Worksheet, row: u32, at: u16, value: &Value<'_>, times: &mut Times) -> Result<usize, XlsxError> {
    let text: Option<&str> = match value {
        Value::Text(text) => Some(text),
        Value::Json(text) => Some(text),
        _ => None,
    };
    match value {
        Value::Null => return Ok(0),
        Value::Text(_) | Value::Json(_) => sheet.write_string(row, at, text.map(fitting).unwrap_or_default())?,
        // Beyond 2^53 a spreadsheet rounds it.
        Value::Integer(number) => sheet.write_number(row, at, *number as f64)?,
        Value::Float(number) => sheet.write_number(row, at, *number)?,
        Value::Boolean(value) => sheet.write_boolean(row, at, *value)?,
        Value::Time(time) => {
            let (number, format) = times.cell(*time);
            sheet.write_number_with_format(row, at, number, format)?
        }
    };
    Ok(CELL_BYTES + text.map_or(0, str::len))
}

/// As much of a text as a cell holds.
fn fitting(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_CELL_UNITS || text.encode_utf16().count() <= MAX_CELL_UNITS {
        return text.into();
    }
    let mut units = 1;
    let fits = |letter: &char| {
        units += letter.len_utf16();
        units <= MAX_CELL_UNITS
    };
    let kept: String = text.chars().take_while(fits).collect();
    format!("{kept}…").into()
}

/// The crate panics if it cannot write its temporary file: a full disk is no reason to.
fn guarded(write: impl FnOnce() -> Result<(), XlsxError>) -> io::Result<()> {
    match catch_unwind(AssertUnwindSafe(write)) {
        Ok(written) => written.map_err(failed),
        Err(_) => Err(io::Error::other("the temporary file of a workbook could not be written: is the disk full?")),
    }
}

fn failed(error: XlsxError) -> io::Error {
    match error {
        XlsxError::IoError(error) => error,
        XlsxError::TempFileError(folder, error) => {
            let place = format!("a workbook needs a temporary file in {} (TMPDIR): {error}", folder.display());
            io::Error::new(error.kind(), place)
        }
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_holds_what_a_spreadsheet_takes_and_no_more() {
        assert_eq!(fitting("=1+1"), "=1+1");
        let most = "好".repeat(MAX_CELL_UNITS);
        assert_eq!(fitting(&most), most);
        let longer = fitting(&format!("{most}x")).into_owned();
        assert!(longer.encode_utf16().count() == MAX_CELL_UNITS && longer.ends_with("好…"));
    }

    #[test]
    fn a_sheet_takes_as_many_rows_as_a_spreadsheet_and_refuses_the_next() {
        let mut book = Box::new(Xlsx::new(Table::Recordings, TimeZone::default(), Vec::new()).expect("a workbook"));
        book.next = MAX_ROWS - 1;
        book.row(&[Value::Text("the last".into())]).expect("there is room for one");
        let refused = book.row(&[Value::Null]).expect_err("no more");
        assert!(refused.kind() == ErrorKind::FileTooLarge && refused.to_string().contains("1,048,575"), "{refused}");
        assert!(book.finish().expect("it is written").starts_with(b"PK"));
    }

    #[test]
    fn a_full_disk_is_an_error_like_any_other() {
        assert!(guarded(|| panic!("couldn't write")).expect_err("an error").to_string().contains("disk"));
    }
}
