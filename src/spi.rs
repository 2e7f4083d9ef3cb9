//! The one way to run SQL. Rows come back as one `jsonb` column and are parsed into typed structs; values go in
//! as parameters, names through [`crate::ident`]. What runs here reads the tables that it names: it is not routed.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::route::choose::Unrouted;
use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{OwnedPreparedStatement, Spi, SpiClient};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

thread_local! {
    /// Statements that this session has prepared, by their text.
    static KEPT: RefCell<HashMap<&'static str, Rc<OwnedPreparedStatement>>> = RefCell::default();
}

pub type Arg<'a> = DatumWithOid<'a>;

fn parse<T: DeserializeOwned>(table: pgrx::spi::SpiTupleTable<'_>) -> Result<Vec<T>> {
    let mut rows = Vec::with_capacity(table.len());
    for row in table {
        let value = row
            .get::<JsonB>(1)?
            .ok_or_else(|| Error::Internal("a row is null".into()))?;
        rows.push(serde_json::from_value(value.0)?);
    }
    Ok(rows)
}

/// The rows of a query whose only column is `jsonb`. Assigns no transaction id, so it also works on a standby.
pub fn rows<T: DeserializeOwned>(query: &str, args: &[Arg]) -> Result<Vec<T>> {
    let _unrouted = Unrouted::new();
    Spi::connect(|client| parse(client.select(query, None, args)?))
}

/// The first row of a query whose only column is `jsonb`.
pub fn row<T: DeserializeOwned>(query: &str, args: &[Arg]) -> Result<Option<T>> {
    let _unrouted = Unrouted::new();
    Spi::connect(|client| {
        let table = client.select(query, Some(1), args)?;
        Ok(parse(table)?.pop())
    })
}

/// As [`rows`], with a plan that the session keeps: for statements that run for table after table. The server plans anew
/// what has changed meanwhile, as it does for every prepared statement.
pub fn kept_rows<T: DeserializeOwned>(query: &'static str, args: &[Arg]) -> Result<Vec<T>> {
    let _unrouted = Unrouted::new();
    Spi::connect(|client| {
        let statement = kept(client, query, args)?;
        parse(client.select(&*statement, None, args)?)
    })
}

/// The first row of [`kept_rows`].
pub fn kept_row<T: DeserializeOwned>(query: &'static str, args: &[Arg]) -> Result<Option<T>> {
    Ok(kept_rows(query, args)?.into_iter().next())
}

fn kept(client: &SpiClient<'_>, query: &'static str, args: &[Arg]) -> Result<Rc<OwnedPreparedStatement>> {
    if let Some(statement) = KEPT.with_borrow(|kept| kept.get(query).cloned()) {
        return Ok(statement);
    }
    let types: Vec<_> = args.iter().map(|arg| pg_sys::PgOid::from(arg.oid())).collect();
    let statement = Rc::new(client.prepare(query, &types)?.keep());
    KEPT.with_borrow_mut(|kept| kept.insert(query, Rc::clone(&statement)));
    Ok(statement)
}

/// As [`row`], but under the latest snapshot whatever the transaction's isolation level: for triggers, which may run in
/// a transaction whose snapshot is older than the pair. The query takes `arg` as `$1`.
pub fn latest_row<T: DeserializeOwned>(query: &str, arg: i32) -> Result<Option<T>> {
    Ok(latest_rows(query, &[arg.into()])?.pop())
}

/// As [`rows`], but under the latest snapshot.
pub fn latest_rows<T: DeserializeOwned>(query: &str, args: &[Arg]) -> Result<Vec<T>> {
    // SAFETY: the snapshot is pushed and popped here. After an error the abort cleans up.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let rows = rows_in_snapshot(query, args);
        pg_sys::PopActiveSnapshot();
        rows
    }
}

/// As [`rows`], but under the active snapshot also in a transaction that has written, where a statement would take its own.
pub fn rows_in_snapshot<T: DeserializeOwned>(query: &str, args: &[Arg]) -> Result<Vec<T>> {
    texts_in_snapshot(query, args)?
        .into_iter()
        .map(|[text]| {
            Ok(serde_json::from_str(
                &text.ok_or_else(|| Error::Internal("a row is null".into()))?,
            )?)
        })
        .collect()
}

/// As [`rows_in_snapshot`], of a query with `N` columns of any types, as the server prints them.
pub fn texts_in_snapshot<const N: usize>(query: &str, args: &[Arg]) -> Result<Vec<[Option<String>; N]>> {
    let _unrouted = Unrouted::new();
    let query = CString::new(query).map_err(|e| Error::Internal(e.to_string()))?;
    let mut types: Vec<_> = args.iter().map(|arg| arg.oid()).collect();
    let mut values: Vec<_> = args
        .iter()
        .map(|arg| {
            arg.datum()
                .map_or(pg_sys::Datum::from(0), |datum| datum.sans_lifetime())
        })
        .collect();
    let nulls: Vec<u8> = args
        .iter()
        .map(|arg| if arg.datum().is_some() { b' ' } else { b'n' })
        .collect();
    // SAFETY: a read-only SPI query runs under the active snapshot; the texts are copied before SPI frees them. After an
    // error the abort cleans up.
    let texts = unsafe {
        pg_sys::SPI_connect();
        let status = pg_sys::SPI_execute_with_args(
            query.as_ptr(),
            args.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr().cast(),
            true,
            0,
        );
        if status != pg_sys::SPI_OK_SELECT as i32 {
            return Err(Error::Internal(format!("SPI gave {status}")));
        }
        let table = pg_sys::SPI_tuptable;
        if (*(*table).tupdesc).natts != N as i32 {
            return Err(Error::Internal(format!("a query has not {N} columns")));
        }
        let column = |row: usize, column: usize| {
            let text = pg_sys::SPI_getvalue(*(*table).vals.add(row), (*table).tupdesc, column as i32 + 1);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        let texts = (0..pg_sys::SPI_processed as usize)
            .map(|row| std::array::from_fn(|n| column(row, n)))
            .collect();
        pg_sys::SPI_finish();
        texts
    };
    Ok(texts)
}

/// The answer of an EXPLAIN in JSON, routed as a client's is. SPI takes a utility statement for one that writes, so pgrx would
/// assign a transaction id, which a standby has not.
pub fn explained(statement: &str) -> Result<serde_json::Value> {
    let statement = CString::new(statement).map_err(|e| Error::Internal(e.to_string()))?;
    // SAFETY: the text is copied before SPI frees it. After an error the abort cleans up.
    let text = unsafe {
        pg_sys::SPI_connect();
        let status = pg_sys::SPI_execute(statement.as_ptr(), false, 1);
        if status != pg_sys::SPI_OK_UTILITY as i32 || pg_sys::SPI_processed != 1 {
            return Err(Error::Internal(format!("SPI gave {status}")));
        }
        let table = pg_sys::SPI_tuptable;
        let text = pg_sys::SPI_getvalue(*(*table).vals, (*table).tupdesc, 1);
        let text = (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned());
        pg_sys::SPI_finish();
        text
    };
    Ok(serde_json::from_str(&text.unwrap_or_default())?)
}

/// The first row that a statement which changes something returns, as one `jsonb` column.
pub fn returning<T: DeserializeOwned>(statement: &str, args: &[Arg]) -> Result<Option<T>> {
    Ok(returning_rows(statement, args)?.pop())
}

/// All rows that a statement which changes something returns, as one `jsonb` column.
pub fn returning_rows<T: DeserializeOwned>(statement: &str, args: &[Arg]) -> Result<Vec<T>> {
    let _unrouted = Unrouted::new();
    Spi::connect_mut(|client| parse(client.update(statement, None, args)?))
}

/// As [`execute`], with a plan that the session keeps.
pub fn kept_execute(statement: &'static str, args: &[Arg]) -> Result<u64> {
    let _unrouted = Unrouted::new();
    Spi::connect_mut(|client| {
        let kept = kept(client, statement, args)?;
        Ok(client.update(&*kept, None, args)?.len() as u64)
    })
}

/// Runs a statement that changes something; gives the number of rows that it processed.
pub fn execute(statement: &str, args: &[Arg]) -> Result<u64> {
    let _unrouted = Unrouted::new();
    Spi::connect_mut(|client| Ok(client.update(statement, None, args)?.len() as u64))
}
