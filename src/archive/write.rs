//! Reads the rows of a table and writes them to a file, digesting them on the way: the file holds what the digest is of. Rows
//! come from a cursor, so they may lie in a table, in one that is partitioned itself, or elsewhere.
#![allow(unsafe_code)]

use super::parquet::{self, Columns};
use super::pipe::{Pipe, Sink};
use super::render::Render;
use super::{Format, Written, csv, place};
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName, list};
use crate::parity::digest::Tally;
use crate::parity::encode::Digester;
use crate::route::choose::Unrouted;
use crate::session::PinnedSettings;
use crate::{calls, compat};
use flate2::write::GzEncoder;
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufWriter, Write};

/// Rows that the cursor gives at once.
const FETCH: i64 = 1000;
/// Bytes of CSV that the thread gets at once.
const CHUNK: usize = 256 << 10;
/// The fastest level that compresses: an archive is to keep up with COPY.
const GZIP_LEVEL: u32 = 1;

/// Settings under which a value's text is the same in every session, and says all of it.
pub fn pin() -> PinnedSettings {
    PinnedSettings::new(&[
        (c"search_path", "pg_catalog, pg_temp"),
        (c"DateStyle", "ISO, YMD"),
        (c"IntervalStyle", "postgres"),
        (c"TimeZone", "UTC"),
        (c"extra_float_digits", "3"),
        (c"bytea_output", "hex"),
        (c"xmlbinary", "base64"),
        (c"row_security", "off"),
    ])
}

/// The digest of a table's rows: of these columns.
pub fn tally(source: &RelName, columns: &[Ident]) -> Result<Tally> {
    let mut tally = Tally::default();
    // SAFETY: the digester reads the tuples that it is given, of the row type that it was made for.
    unsafe {
        scan(
            source,
            columns,
            |desc| Digester::new(desc),
            |digester, tuple| {
                tally.add(digest(digester, tuple));
                Ok(())
            },
            |digester| {
                digester.close();
                Ok(())
            },
        )?;
    }
    Ok(tally)
}

/// Memory for one row, or a few, at a time: reset by whoever asked for it.
pub fn row_memory() -> pg_sys::MemoryContext {
    // SAFETY: an allocation, which goes with the current context.
    unsafe {
        pg_sys::AllocSetContextCreateExtended(
            pg_sys::CurrentMemoryContext,
            c"partition_router archive".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

/// Writes the rows of a table to a file, and to disk.
pub fn write(source: &RelName, columns: &[Ident], file: File, name: &str, format: Format) -> Result<Written> {
    let _settings = pin();
    let mut tally = Tally::default();
    let mut bytes = 0;
    // SAFETY: as in `tally`; values are taken apart by the same row type.
    unsafe {
        let mut file = Some(file);
        let start = |desc: pg_sys::TupleDesc| {
            let file = file
                .take()
                .ok_or_else(|| Error::Internal("a file is written twice".into()))?;
            Ok((
                Digester::new(desc)?,
                Writer::new(desc, columns, file, name, format)?,
            ))
        };
        scan(
            source,
            columns,
            start,
            |(digester, writer): &mut (Digester, Writer), tuple| {
                tally.add(digest(digester, tuple));
                writer.row(tuple)
            },
            |(digester, writer)| {
                digester.close();
                bytes = writer.finish()?;
                Ok(())
            },
        )?;
    }
    Ok(Written { tally, bytes })
}

/// # Safety
/// `tuple` is a tuple in memory, of the digester's row type.
pub unsafe fn digest(digester: &mut Digester, tuple: pg_sys::HeapTuple) -> u128 {
    // SAFETY: the tuple ends with its length.
    unsafe {
        let limit = (*tuple).t_data.cast::<u8>().add((*tuple).t_len as usize);
        digester.row((*tuple).t_data, limit)
    }
}

/// Goes through the rows of a table with a cursor, under a snapshot of its own.
///
/// # Safety
/// `start` and `row` use the row type and the tuples only as long as they run, but for what `end` takes apart.
unsafe fn scan<S>(
    source: &RelName,
    columns: &[Ident],
    start: impl FnOnce(pg_sys::TupleDesc) -> Result<S>,
    mut row: impl FnMut(&mut S, pg_sys::HeapTuple) -> Result<()>,
    end: impl FnOnce(S) -> Result<()>,
) -> Result<()> {
    let _unrouted = Unrouted::new();
    let query = CString::new(format!("SELECT {} FROM {source}", list(columns)))
        .map_err(|e| Error::Internal(e.to_string()))?;
    // SAFETY: SPI is connected and finished here; a table that it gave is freed before the next. After an error the abort
    // cleans up.
    unsafe {
        pg_sys::SPI_connect();
        let portal = pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            query.as_ptr(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null(),
            false,
            pg_sys::CURSOR_OPT_NO_SCROLL as i32,
        );
        let mut state = start((*portal).tupDesc)?;
        let memory = row_memory();
        let mut rows = 0;
        loop {
            pgrx::check_for_interrupts!();
            calls::step(calls::Stage::Write, rows, 0)?;
            pg_sys::SPI_cursor_fetch(portal, true, FETCH);
            let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
            let before = pg_sys::MemoryContextSwitchTo(memory);
            for i in 0..count {
                row(&mut state, *(*table).vals.add(i))?;
            }
            rows += count as u64;
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::MemoryContextReset(memory);
            pg_sys::SPI_freetuptable(table);
            if count == 0 {
                break;
            }
        }
        end(state)?;
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
    }
    Ok(())
}

/// One file under way.
struct Writer {
    desc: pg_sys::TupleDesc,
    values: Vec<Datum>,
    nulls: Vec<bool>,
    name: String,
    form: Form,
}

enum Form {
    Csv {
        renders: Vec<Render>,
        chunk: Vec<u8>,
        pipe: Pipe<Vec<u8>>,
    },
    Parquet {
        columns: Columns,
        pipe: Pipe<Columns>,
    },
}

impl Writer {
    /// # Safety
    /// `desc` is valid as long as the writer is used.
    unsafe fn new(
        desc: pg_sys::TupleDesc,
        names: &[Ident],
        file: File,
        name: &str,
        format: Format,
    ) -> Result<Writer> {
        // SAFETY: the caller's.
        let types: Vec<Oid> = unsafe { compat::attributes(desc) }
            .iter()
            .map(|a| a.atttypid)
            .collect();
        let failed = |error| place::failed("write", name)(error);
        let form = match format {
            Format::Csv => {
                let mut chunk = Vec::with_capacity(CHUNK + CHUNK / 4);
                csv::header(&mut chunk, names.iter().map(Ident::as_str));
                let sink = Box::new(Gzip(GzEncoder::new(
                    BufWriter::with_capacity(CHUNK, file),
                    flate2::Compression::new(GZIP_LEVEL),
                )));
                Form::Csv {
                    // SAFETY: the context of SPI outlives the writer.
                    renders: types.iter().map(|t| unsafe { Render::of(*t) }).collect(),
                    chunk,
                    pipe: Pipe::start(sink, 8).map_err(failed)?,
                }
            }
            Format::Parquet => {
                // SAFETY: as above.
                let columns = unsafe { Columns::of(&types)? };
                let sink = Box::new(parquet::File::create(file, &columns, names).map_err(failed)?);
                Form::Parquet {
                    columns,
                    pipe: Pipe::start(sink, 1).map_err(failed)?,
                }
            }
        };
        Ok(Writer {
            desc,
            values: vec![Datum::from(0); types.len()],
            nulls: vec![false; types.len()],
            name: name.to_owned(),
            form,
        })
    }

    /// # Safety
    /// `tuple` is one of the writer's row type.
    unsafe fn row(&mut self, tuple: pg_sys::HeapTuple) -> Result<()> {
        // SAFETY: the caller's; there are as many values as attributes.
        unsafe {
            pg_sys::heap_deform_tuple(
                tuple,
                self.desc,
                self.values.as_mut_ptr(),
                self.nulls.as_mut_ptr(),
            );
        }
        let sent = match &mut self.form {
            Form::Csv { renders, chunk, pipe } => {
                for (i, render) in renders.iter_mut().enumerate() {
                    if i > 0 {
                        chunk.push(b',');
                    }
                    if self.nulls[i] {
                        continue;
                    }
                    // SAFETY: the value is of the attribute's type.
                    unsafe { render.render(self.values[i], |text| csv::field(chunk, text)) };
                }
                chunk.push(b'\n');
                match chunk.len() < CHUNK {
                    true => Ok(()),
                    false => pipe.send(std::mem::replace(chunk, Vec::with_capacity(CHUNK + CHUNK / 4))),
                }
            }
            Form::Parquet { columns, pipe } => {
                // SAFETY: as above.
                unsafe { columns.push(&self.values, &self.nulls)? };
                match columns.is_full() {
                    false => Ok(()),
                    true => pipe.send(columns.take()),
                }
            }
        };
        sent.map_err(place::failed("write", &self.name))
    }

    fn finish(self) -> Result<u64> {
        let finished = match self.form {
            Form::Csv { chunk, mut pipe, .. } => pipe.send(chunk).and_then(|()| pipe.finish()),
            Form::Parquet {
                mut columns,
                mut pipe,
            } => pipe.send(columns.take()).and_then(|()| pipe.finish()),
        };
        finished.map_err(place::failed("write", &self.name))
    }
}

/// Bytes to a file by gzip.
struct Gzip(GzEncoder<BufWriter<File>>);

impl Sink<Vec<u8>> for Gzip {
    fn take(&mut self, chunk: Vec<u8>) -> io::Result<()> {
        self.0.write_all(&chunk)
    }

    fn finish(self: Box<Self>) -> io::Result<u64> {
        let file = self.0.finish()?.into_inner().map_err(|e| e.into_error())?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}
