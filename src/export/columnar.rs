//! Parquet: columns, compressed, with types.
//!
//! Rows are gathered by column until they make a group, which is then written: a group is what is held in memory, and what a
//! reader can pass over by the least and the greatest value of its columns.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::{Column, Kind, Sheet, Table, Target, Value};

/// A group ends at so many rows …
const GROUP_ROWS: usize = 50_000;

/// … or bytes of text.
const GROUP_BYTES: usize = 16 << 20;

pub struct Parquet {
    writer: SerializedFileWriter<Target>,
    columns: Vec<Gathered>,
    rows: usize,
    bytes: usize,
}

/// A column of the group that is being gathered.
struct Gathered {
    values: Values,
    /// For each row whether there is a value: 1 or 0. Empty if there always is.
    levels: Vec<i16>,
    optional: bool,
}

enum Values {
    /// One after the other, and where each ends.
    Texts(Vec<u8>, Vec<usize>),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Booleans(Vec<bool>),
}

impl Parquet {
    pub fn new(table: Table, about: &[(String, String)], target: Target) -> io::Result<Self> {
        let columns = table.columns();
        let about = about.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        let properties = WriterProperties::builder()
            .set_created_by(concat!("convoke version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(true)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(Some(about))
            .build();
        let schema = schema(table, columns).map_err(failed)?;
        let writer = SerializedFileWriter::new(target, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        Ok(Self { writer, columns: columns.iter().map(Gathered::new).collect(), rows: 0, bytes: 0 })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else { break };
            column.write(&mut writer)?;
            writer.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Sheet<Target> for Parquet {
    fn row(&mut self, values: &[Value<'_>]) -> io::Result<()> {
        for (column, value) in self.columns.iter_mut().zip(values) {
            self.bytes += column.add(value);
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group().map_err(failed)?;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        u64::try_from(self.writer.bytes_written()).unwrap_or(0)
    }

    fn finish(mut self: Box<Self>) -> io::Result<Target> {
        if self.rows > 0 {
            self.write_group().map_err(failed)?;
        }
        self.writer.into_inner().map_err(failed)
    }
}

impl Gathered {
    fn new(column: &Column) -> Self {
        let values = match column.kind {
            Kind::Text | Kind::Json => Values::Texts(Vec::new(), Vec::new()),
            Kind::Integer | Kind::Time => Values::Integers(Vec::new()),
            Kind::Float => Values::Floats(Vec::new()),
            Kind::Boolean => Values::Booleans(Vec::new()),
        };
        Self { values, levels: Vec::new(), optional: column.optional }
    }

    /// How much it has grown.
    fn add(&mut self, value: &Value<'_>) -> usize {
        let grown = match (&mut self.values, value) {
            (Values::Texts(bytes, ends), Value::Text(_) | Value::Json(_)) => {
                let text = match value {
                    Value::Text(text) => text,
                    Value::Json(text) => *text,
                    _ => "",
                };
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                text.len()
            }
            (Values::Integers(numbers), Value::Integer(number)) => {
                numbers.push(*number);
                8
            }
            // Microseconds, which every reader knows.
            (Values::Integers(numbers), Value::Time(time)) => {
                numbers.push(time.get() * 1_000);
                8
            }
            (Values::Floats(numbers), Value::Float(number)) => {
                numbers.push(*number);
                8
            }
            (Values::Booleans(values), Value::Boolean(value)) => {
                values.push(*value);
                1
            }
            _ => {
                self.levels.push(0);
                return 0;
            }
        };
        if self.optional {
            self.levels.push(1);
        }
        grown
    }

    /// Writes all of it, and is empty again.
    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = self.optional.then_some(&self.levels[..]);
        match &mut self.values {
            Values::Texts(bytes, ends) => {
                // All of them are slices of one allocation.
                let bytes = Bytes::from(std::mem::take(bytes));
                let mut start = 0;
                let texts: Vec<ByteArray> = ends
                    .drain(..)
                    .map(|end| ByteArray::from(bytes.slice(std::mem::replace(&mut start, end)..end)))
                    .collect();
                writer.typed::<ByteArrayType>().write_batch(&texts, levels, None)?;
            }
            Values::Integers(numbers) => {
                writer.typed::<Int64Type>().write_batch(numbers, levels, None)?;
                numbers.clear();
            }
            Values::Floats(numbers) => {
                writer.typed::<DoubleType>().write_batch(numbers, levels, None)?;
                numbers.clear();
            }
            Values::Booleans(values) => {
                writer.typed::<BoolType>().write_batch(values, levels, None)?;
                values.clear();
            }
        }
        self.levels.clear();
        Ok(())
    }
}

fn schema(table: Table, columns: &[Column]) -> Result<Type, ParquetError> {
    let field = |column: &Column| {
        let (physical, logical) = match column.kind {
            Kind::Text | Kind::Json => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Integer => (Physical::INT64, None),
            Kind::Float => (Physical::DOUBLE, None),
            Kind::Boolean => (Physical::BOOLEAN, None),
            Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        };
        let repetition = if column.optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        Type::primitive_type_builder(column.name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
    };
    let fields = columns.iter().map(field).collect::<Result<_, _>>()?;
    Type::group_type_builder(table.as_str()).with_fields(fields).build()
}

/// What went wrong below it, if that is why.
fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}
