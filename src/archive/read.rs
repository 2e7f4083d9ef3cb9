//! Reads an archive back by the server's own COPY: to digest what is in it, or to fill a table with it.
#![allow(unsafe_code)]

use super::parquet::AsCsv;
use super::{Format, place, write};
use crate::error::{Result, report};
use crate::ident::Ident;
use crate::parity::digest::Tally;
use crate::parity::encode::Digester;
use crate::{calls, compat};
use flate2::read::GzDecoder;
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{BufReader, Read};

/// Rows after which memory is given back.
const ROWS: usize = 1000;

struct Source {
    name: String,
    reader: Box<dyn Read>,
}

thread_local! {
    /// What the running COPY reads: its callback takes no argument.
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// The source is there as long as this is.
struct Reading;

impl Reading {
    /// # Safety
    /// As for [`AsCsv::open`].
    unsafe fn start(file: File, name: &str, format: Format, types: &[Oid]) -> Result<Reading> {
        let reader: Box<dyn Read> = match format {
            Format::Csv => Box::new(GzDecoder::new(BufReader::with_capacity(256 << 10, file))),
            Format::Parquet => {
                // SAFETY: the caller's.
                let file = unsafe { AsCsv::open(file, types) };
                Box::new(file.map_err(place::failed("read", name))?)
            }
        };
        SOURCE.set(Some(Source {
            name: name.to_owned(),
            reader,
        }));
        Ok(Reading)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        SOURCE.set(None);
    }
}

/// Called by COPY for at most `most` bytes; none is the end.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn give(buffer: *mut c_void, _least: c_int, most: c_int) -> c_int {
    let read = SOURCE.with_borrow_mut(|source| {
        let Some(source) = source else { return Ok(0) };
        // SAFETY: COPY gives a buffer of so many bytes.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), most.max(0) as usize) };
        loop {
            match source.reader.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => return result.map_err(place::failed("read", &source.name)),
            }
        }
    });
    report(|| read) as c_int
}

/// A COPY FROM of an archive into a table with the columns that it was made of.
struct Copy {
    relation: pg_sys::Relation,
    parse_state: *mut pg_sys::ParseState,
    state: pg_sys::CopyFromState,
    /// The index of each column in the table.
    places: Vec<usize>,
    _reading: Reading,
}

impl Copy {
    /// # Safety
    /// To be closed; an error leaves that to the abort.
    unsafe fn begin(table: Oid, columns: &[Ident], file: File, name: &str, format: Format) -> Result<Copy> {
        // SAFETY: as the server's own table synchronisation calls it; names are copied to memory of the current context.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32);
            let attributes = compat::attributes((*relation).rd_att);
            let place_of = |column: &Ident| {
                let is_it = |a: &pg_sys::FormData_pg_attribute| {
                    !a.attisdropped
                        && CStr::from_ptr(a.attname.data.as_ptr()).to_bytes() == column.as_str().as_bytes()
                };
                attributes
                    .iter()
                    .position(is_it)
                    .ok_or_else(|| crate::error::Error::UnknownColumn {
                        relation: name.to_owned(),
                        column: column.as_str().to_owned(),
                    })
            };
            let places = columns.iter().map(place_of).collect::<Result<Vec<_>>>()?;
            let types: Vec<Oid> = places.iter().map(|i| attributes[*i].atttypid).collect();
            let reading = Reading::start(file, name, format, &types)?;
            let mut names = std::ptr::null_mut();
            for column in columns {
                names = pg_sys::lappend(names, pg_sys::makeString(copied(column.as_str())?).cast());
            }
            let mut options = std::ptr::null_mut();
            let encoding = CStr::from_ptr(pg_sys::GetDatabaseEncodingName()).to_string_lossy();
            for (option, value) in [
                ("format", Some("csv")),
                ("header", None),
                ("encoding", Some(&*encoding)),
            ] {
                let value = match value {
                    Some(value) => pg_sys::makeString(copied(value)?).cast(),
                    None => std::ptr::null_mut(),
                };
                options = pg_sys::lappend(options, pg_sys::makeDefElem(copied(option)?, value, -1).cast());
            }
            let parse_state = pg_sys::make_parsestate(std::ptr::null_mut());
            pg_sys::addRangeTableEntryForRelation(
                parse_state,
                relation,
                pg_sys::RowExclusiveLock as i32,
                std::ptr::null_mut(),
                false,
                false,
            );
            let state = pg_sys::BeginCopyFrom(
                parse_state,
                relation,
                std::ptr::null_mut(),
                std::ptr::null(),
                false,
                Some(give),
                names,
                options,
            );
            Ok(Copy {
                relation,
                parse_state,
                state,
                places,
                _reading: reading,
            })
        }
    }

    /// # Safety
    /// The last thing done with it.
    unsafe fn close(self) {
        // SAFETY: what `begin` opened.
        unsafe {
            pg_sys::EndCopyFrom(self.state);
            pg_sys::free_parsestate(self.parse_state);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
        }
    }
}

/// # Safety
/// Within a transaction: the text is in the current memory context.
unsafe fn copied(text: &str) -> Result<*mut c_char> {
    let text = CString::new(text).map_err(|e| crate::error::Error::Internal(e.to_string()))?;
    // SAFETY: copies a text that ends with a zero.
    Ok(unsafe { pg_sys::pstrdup(text.as_ptr()) })
}

/// The digest of the rows in an archive of `table`, which is not changed.
pub fn tally(table: Oid, columns: &[Ident], file: File, name: &str, format: Format) -> Result<Tally> {
    let _settings = write::pin();
    let mut tally = Tally::default();
    // SAFETY: there are as many values as the table has attributes; a row is digested before its memory is reset.
    unsafe {
        let copy = Copy::begin(table, columns, file, name, format)?;
        let all = (*(*copy.relation).rd_att).natts as usize;
        let desc = pg_sys::CreateTemplateTupleDesc(columns.len() as i32);
        for (i, place) in copy.places.iter().enumerate() {
            pg_sys::TupleDescCopyEntry(desc, i as i16 + 1, (*copy.relation).rd_att, *place as i16 + 1);
        }
        let mut digester = Digester::new(desc)?;
        let context = pg_sys::CreateStandaloneExprContext();
        let memory = write::row_memory();
        let (mut values, mut nulls) = (vec![Datum::from(0); all], vec![true; all]);
        let (mut chosen, mut missing) = (vec![Datum::from(0); columns.len()], vec![true; columns.len()]);
        let before = pg_sys::MemoryContextSwitchTo(memory);
        let mut rows = 0;
        while pg_sys::NextCopyFrom(copy.state, context, values.as_mut_ptr(), nulls.as_mut_ptr()) {
            for (i, place) in copy.places.iter().enumerate() {
                (chosen[i], missing[i]) = (values[*place], nulls[*place]);
            }
            let tuple = pg_sys::heap_form_tuple(desc, chosen.as_mut_ptr(), missing.as_mut_ptr());
            tally.add(write::digest(&mut digester, tuple));
            rows += 1;
            if rows % ROWS == 0 {
                pgrx::check_for_interrupts!();
                calls::step(calls::Stage::ReadBack, rows as u64, 0)?;
                pg_sys::MemoryContextReset(memory);
            }
        }
        pg_sys::MemoryContextSwitchTo(before);
        digester.close();
        pg_sys::FreeExprContext(context, true);
        pg_sys::MemoryContextDelete(memory);
        copy.close();
    }
    Ok(tally)
}

/// Fills a table from an archive; gives the number of rows.
pub fn load(table: Oid, columns: &[Ident], file: File, name: &str, format: Format) -> Result<u64> {
    let _settings = write::pin();
    // SAFETY: as the server's own table synchronisation does it.
    unsafe {
        let copy = Copy::begin(table, columns, file, name, format)?;
        let rows = pg_sys::CopyFrom(copy.state);
        copy.close();
        pg_sys::CommandCounterIncrement();
        Ok(rows)
    }
}
