//! Rows by columns, to Parquet and back. Numbers, booleans, dates and timestamps are kept as what they are, everything else as
//! its text. An infinite date or timestamp is the least or the greatest number, as in the server.
#![allow(unsafe_code)]

use super::csv;
use super::pipe::Sink;
use super::render::Render;
use crate::error::{Error, Result};
use crate::ident::Ident;
use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::io::{self, Read};
use std::sync::Arc;

/// Rows of a row group.
const GROUP_ROWS: usize = 50_000;
/// Bytes of text after which a row group ends.
const GROUP_BYTES: usize = 32 << 20;

/// 1970-01-01, counted from 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// How a type is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Date,
    Timestamp,
    TimestampTz,
    Text,
}

impl Kind {
    fn of(type_oid: Oid) -> Kind {
        match type_oid {
            pg_sys::BOOLOID => Kind::Bool,
            pg_sys::INT2OID => Kind::Int2,
            pg_sys::INT4OID => Kind::Int4,
            pg_sys::INT8OID => Kind::Int8,
            pg_sys::FLOAT4OID => Kind::Float4,
            pg_sys::FLOAT8OID => Kind::Float8,
            pg_sys::DATEOID => Kind::Date,
            pg_sys::TIMESTAMPOID => Kind::Timestamp,
            pg_sys::TIMESTAMPTZOID => Kind::TimestampTz,
            _ => Kind::Text,
        }
    }

    fn physical(self) -> Physical {
        match self {
            Kind::Bool => Physical::BOOLEAN,
            Kind::Int2 | Kind::Int4 | Kind::Date => Physical::INT32,
            Kind::Int8 | Kind::Timestamp | Kind::TimestampTz => Physical::INT64,
            Kind::Float4 => Physical::FLOAT,
            Kind::Float8 => Physical::DOUBLE,
            Kind::Text => Physical::BYTE_ARRAY,
        }
    }

    fn logical(self) -> Option<LogicalType> {
        match self {
            Kind::Date => Some(LogicalType::Date),
            Kind::Timestamp => Some(LogicalType::timestamp(false, TimeUnit::MICROS)),
            Kind::TimestampTz => Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
            Kind::Text => Some(LogicalType::String),
            _ => None,
        }
    }
}

enum Data {
    Bool(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    /// The texts one behind the other, and where each ends.
    Text(Vec<u8>, Vec<usize>),
}

impl Data {
    fn of(kind: Kind) -> Data {
        match kind.physical() {
            Physical::BOOLEAN => Data::Bool(Vec::new()),
            Physical::INT32 => Data::Int(Vec::new()),
            Physical::INT64 => Data::Long(Vec::new()),
            Physical::FLOAT => Data::Float(Vec::new()),
            Physical::DOUBLE => Data::Double(Vec::new()),
            _ => Data::Text(Vec::new(), Vec::new()),
        }
    }
}

struct Column {
    kind: Kind,
    /// 1 for each row that has a value, 0 for NULL.
    levels: Vec<i16>,
    data: Data,
}

/// Rows that become a row group.
pub struct Columns {
    columns: Vec<Column>,
    /// How the texts come about; stays with the session.
    renders: Vec<Renders>,
    rows: usize,
    bytes: usize,
}

struct Renders(Option<Render>);

// SAFETY: what is sent to the thread has no renders: see `Columns::take`.
unsafe impl Send for Renders {}

impl Columns {
    /// # Safety
    /// As for [`Render::of`].
    pub unsafe fn of(types: &[Oid]) -> Result<Columns> {
        // SAFETY: a plain read.
        if unsafe { pg_sys::GetDatabaseEncoding() } != pg_sys::pg_enc::PG_UTF8 as i32 {
            return Err(Error::Unsupported {
                what: "Parquet takes a database with encoding UTF8".into(),
                hint: "Use the archive format csv.".into(),
            });
        }
        let kinds = types.iter().map(|t| Kind::of(*t));
        Ok(Columns {
            columns: kinds.map(Column::new).collect(),
            renders: types
                .iter()
                // SAFETY: the caller's.
                .map(|t| Renders((Kind::of(*t) == Kind::Text).then(|| unsafe { Render::of(*t) })))
                .collect(),
            rows: 0,
            bytes: 0,
        })
    }

    /// # Safety
    /// The values are of the types that the columns were made for.
    pub unsafe fn push(&mut self, values: &[Datum], nulls: &[bool]) -> Result<()> {
        for (i, column) in self.columns.iter_mut().enumerate() {
            column.levels.push(i16::from(!nulls[i]));
            if nulls[i] {
                continue;
            }
            let value = values[i];
            match (&mut column.data, column.kind) {
                (Data::Bool(data), _) => data.push(value.value() as u8 != 0),
                (Data::Int(data), Kind::Int2) => data.push(i32::from(value.value() as i16)),
                (Data::Int(data), Kind::Date) => data.push(from_1970(value.value() as i32, EPOCH_DAYS)?),
                (Data::Int(data), _) => data.push(value.value() as i32),
                (Data::Long(data), Kind::Int8) => data.push(value.value() as i64),
                (Data::Long(data), _) => data.push(from_1970(value.value() as i64, EPOCH_MICROS)?),
                (Data::Float(data), _) => data.push(f32::from_bits(value.value() as u32)),
                (Data::Double(data), _) => data.push(f64::from_bits(value.value() as u64)),
                (Data::Text(data, ends), _) => {
                    if let Some(render) = &mut self.renders[i].0 {
                        // SAFETY: the caller's.
                        unsafe { render.render(value, |text| data.extend_from_slice(text)) };
                    }
                    self.bytes += data.len() - ends.last().copied().unwrap_or(0);
                    ends.push(data.len());
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    pub fn is_full(&self) -> bool {
        self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES
    }

    /// The rows so far, without what belongs to the session.
    pub fn take(&mut self) -> Columns {
        let fresh = self.columns.iter().map(|c| Column::new(c.kind)).collect();
        Columns {
            columns: std::mem::replace(&mut self.columns, fresh),
            renders: Vec::new(),
            rows: std::mem::take(&mut self.rows),
            bytes: std::mem::take(&mut self.bytes),
        }
    }
}

impl Column {
    fn new(kind: Kind) -> Column {
        Column {
            kind,
            levels: Vec::new(),
            data: Data::of(kind),
        }
    }
}

trait Count: Copy + PartialEq {
    const LEAST: Self;
    const GREATEST: Self;
    fn plus(self, other: Self) -> Option<Self>;
    fn minus(self, other: Self) -> Option<Self>;
}

macro_rules! count {
    ($type:ty) => {
        impl Count for $type {
            const LEAST: Self = <$type>::MIN;
            const GREATEST: Self = <$type>::MAX;
            fn plus(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }
            fn minus(self, other: Self) -> Option<Self> {
                self.checked_sub(other)
            }
        }
    };
}

count!(i32);
count!(i64);

/// Counted from 2000, as the server does, to counted from 1970; infinity stays.
///
/// # Errors
/// `Unsupported` for the last of the timestamps, after the year 294,246.
fn from_1970<T: Count>(value: T, epoch: T) -> Result<T> {
    if value == T::LEAST || value == T::GREATEST {
        return Ok(value);
    }
    value.plus(epoch).ok_or_else(|| Error::Unsupported {
        what: "a timestamp is too far away for Parquet".into(),
        hint: "Use the archive format csv.".into(),
    })
}

fn from_2000<T: Count>(value: T, epoch: T) -> io::Result<T> {
    if value == T::LEAST || value == T::GREATEST {
        return Ok(value);
    }
    value
        .minus(epoch)
        .ok_or_else(|| io::Error::other("a timestamp is out of range"))
}

/// A file that row groups go to.
pub struct File(SerializedFileWriter<std::fs::File>);

impl File {
    pub fn create(file: std::fs::File, columns: &Columns, names: &[Ident]) -> io::Result<File> {
        let field = |(column, name): (&Column, &Ident)| -> parquet::errors::Result<TypePtr> {
            Ok(Arc::new(
                Type::primitive_type_builder(name.as_str(), column.kind.physical())
                    .with_repetition(Repetition::OPTIONAL)
                    .with_logical_type(column.kind.logical())
                    .build()?,
            ))
        };
        let fields: parquet::errors::Result<Vec<TypePtr>> =
            columns.columns.iter().zip(names).map(field).collect();
        let schema = Type::group_type_builder("rows").with_fields(fields?).build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .build();
        Ok(File(SerializedFileWriter::new(
            file,
            Arc::new(schema),
            Arc::new(properties),
        )?))
    }
}

impl Sink<Columns> for File {
    fn take(&mut self, rows: Columns) -> io::Result<()> {
        if rows.rows == 0 {
            return Ok(());
        }
        let mut group = self.0.next_row_group()?;
        for column in rows.columns {
            let mut writer = group
                .next_column()?
                .ok_or_else(|| io::Error::other("the file has fewer columns than the rows"))?;
            let levels = Some(column.levels.as_slice());
            match column.data {
                Data::Bool(data) => writer.typed::<BoolType>().write_batch(&data, levels, None)?,
                Data::Int(data) => writer.typed::<Int32Type>().write_batch(&data, levels, None)?,
                Data::Long(data) => writer.typed::<Int64Type>().write_batch(&data, levels, None)?,
                Data::Float(data) => writer.typed::<FloatType>().write_batch(&data, levels, None)?,
                Data::Double(data) => writer.typed::<DoubleType>().write_batch(&data, levels, None)?,
                Data::Text(data, ends) => {
                    let all = Bytes::from(data);
                    let mut from = 0;
                    let texts: Vec<ByteArray> = ends
                        .into_iter()
                        .map(|end| ByteArray::from(all.slice(std::mem::replace(&mut from, end)..end)))
                        .collect();
                    writer
                        .typed::<ByteArrayType>()
                        .write_batch(&texts, levels, None)?
                }
            };
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<u64> {
        let file = self.0.into_inner()?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

/// A file read as CSV with a header, row group by row group.
pub struct AsCsv {
    file: SerializedFileReader<std::fs::File>,
    kinds: Vec<Kind>,
    /// For dates and timestamps.
    renders: Vec<Option<Render>>,
    group: usize,
    text: Vec<u8>,
    read: usize,
}

impl AsCsv {
    /// `types` are those of the columns that the file was made of.
    ///
    /// # Safety
    /// As for [`Render::of`].
    pub unsafe fn open(file: std::fs::File, types: &[Oid]) -> io::Result<AsCsv> {
        let file = SerializedFileReader::new(file)?;
        let schema = file.metadata().file_metadata().schema_descr();
        let kinds: Vec<Kind> = types.iter().map(|t| Kind::of(*t)).collect();
        let fits = schema.num_columns() == kinds.len()
            && kinds
                .iter()
                .enumerate()
                .all(|(i, kind)| schema.column(i).physical_type() == kind.physical());
        if !fits {
            return Err(io::Error::other("its columns are not those of the table"));
        }
        let mut text = Vec::new();
        csv::header(&mut text, schema.columns().iter().map(|c| c.name()));
        let is_time = |kind: &Kind| matches!(kind, Kind::Date | Kind::Timestamp | Kind::TimestampTz);
        let renders = types
            .iter()
            .zip(&kinds)
            // SAFETY: the caller's.
            .map(|(type_oid, kind)| is_time(kind).then(|| unsafe { Render::of(*type_oid) }))
            .collect();
        Ok(AsCsv {
            file,
            kinds,
            renders,
            group: 0,
            text,
            read: 0,
        })
    }

    fn next_group(&mut self) -> io::Result<()> {
        let group = self.file.get_row_group(self.group)?;
        let rows = usize::try_from(group.metadata().num_rows()).map_err(io::Error::other)?;
        let mut columns = Vec::with_capacity(self.kinds.len());
        for i in 0..self.kinds.len() {
            columns.push(read_column(group.get_column_reader(i)?, rows)?);
        }
        self.text.clear();
        self.read = 0;
        let mut next = vec![0; columns.len()];
        for row in 0..rows {
            for (i, (levels, values)) in columns.iter().enumerate() {
                if i > 0 {
                    self.text.push(b',');
                }
                if levels[row] == 0 {
                    continue;
                }
                append(
                    &mut self.text,
                    self.kinds[i],
                    &mut self.renders[i],
                    values,
                    next[i],
                )?;
                next[i] += 1;
            }
            self.text.push(b'\n');
        }
        self.group += 1;
        Ok(())
    }
}

enum Values {
    Bool(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Text(Vec<ByteArray>),
}

/// All of a column of a row group: whether each row has a value, and the values.
fn read_column(reader: ColumnReader, rows: usize) -> io::Result<(Vec<i16>, Values)> {
    let mut levels = Vec::with_capacity(rows);
    macro_rules! read {
        ($reader:expr, $variant:path) => {{
            let (mut reader, mut values) = ($reader, Vec::new());
            while levels.len() < rows {
                let (records, _, _) =
                    reader.read_records(rows - levels.len(), Some(&mut levels), None, &mut values)?;
                if records == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "rows are missing"));
                }
            }
            $variant(values)
        }};
    }
    let values = match reader {
        ColumnReader::BoolColumnReader(reader) => read!(reader, Values::Bool),
        ColumnReader::Int32ColumnReader(reader) => read!(reader, Values::Int),
        ColumnReader::Int64ColumnReader(reader) => read!(reader, Values::Long),
        ColumnReader::FloatColumnReader(reader) => read!(reader, Values::Float),
        ColumnReader::DoubleColumnReader(reader) => read!(reader, Values::Double),
        ColumnReader::ByteArrayColumnReader(reader) => read!(reader, Values::Text),
        _ => return Err(io::Error::other("a column is of a type that is never written")),
    };
    Ok((levels, values))
}

/// Puts value `at` of a column into a line of CSV.
fn append(
    line: &mut Vec<u8>,
    kind: Kind,
    render: &mut Option<Render>,
    values: &Values,
    at: usize,
) -> io::Result<()> {
    let text = match values {
        Values::Bool(data) => (if data[at] { "t" } else { "f" }).to_owned(),
        Values::Int(data) if kind == Kind::Date => {
            let days = from_2000(data[at], EPOCH_DAYS)?;
            return time(line, render, Datum::from(days));
        }
        Values::Int(data) => data[at].to_string(),
        Values::Long(data) if kind != Kind::Int8 => {
            let micros = from_2000(data[at], EPOCH_MICROS)?;
            return time(line, render, Datum::from(micros));
        }
        Values::Long(data) => data[at].to_string(),
        Values::Float(data) => format!("{:e}", data[at]),
        Values::Double(data) => format!("{:e}", data[at]),
        Values::Text(data) => {
            csv::field(line, data[at].data());
            return Ok(());
        }
    };
    csv::field(line, text.as_bytes());
    Ok(())
}

fn time(line: &mut Vec<u8>, render: &mut Option<Render>, value: Datum) -> io::Result<()> {
    let render = render
        .as_mut()
        .ok_or_else(|| io::Error::other("a column is no time"))?;
    // SAFETY: the value is one of the type that the render was made for.
    unsafe { render.render(value, |text| csv::field(line, text)) };
    Ok(())
}

impl Read for AsCsv {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.text.len() {
            if self.group == self.file.num_row_groups() {
                return Ok(0);
            }
            self.next_group()?;
        }
        let count = buffer.len().min(self.text.len() - self.read);
        buffer[..count].copy_from_slice(&self.text[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back_and_infinity_stays() {
        for days in [i32::MIN, -EPOCH_DAYS, 0, 1, i32::MAX] {
            assert_eq!(
                from_2000(from_1970(days, EPOCH_DAYS).unwrap(), EPOCH_DAYS).unwrap(),
                days
            );
        }
        assert!(from_1970(i64::MAX - 1, EPOCH_MICROS).is_err());
    }
}
