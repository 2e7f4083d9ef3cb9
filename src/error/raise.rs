//! How an [`Error`] becomes an ERROR of the server, and how errors of the server pass through.
//!
//! pgrx can name only PostgreSQL's own codes, so a code of class `PR`, or one that a user's function raised, is set by
//! an error context callback, which the server runs while it finishes the report (`errfinish` in `elog.c`).
#![allow(unsafe_code)]

use super::{Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::AssertUnwindSafe;

impl Error {
    /// Ends the current call with this error. Destructors of the Rust frames above run.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(
            PgSqlErrorCode::from(encode(self.sqlstate())),
            self.message(),
            function_name(),
        );
        if let Some(detail) = self.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint() {
            report = report.set_hint(hint);
        }
        raise_with_sqlstate(report, encode(self.sqlstate()))
    }
}

/// Keeps Rust backtraces out of DETAIL, where pgrx puts them when the server's environment has `RUST_BACKTRACE`: DETAIL
/// is for the user. Who wants them sets `RUST_LIB_BACKTRACE`. Called once, when the library is loaded.
pub fn init() {
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        // SAFETY: a backend has one thread.
        unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    }
}

/// Runs the body of an SQL-callable function and turns its error into the server's.
pub fn report<T>(body: impl FnOnce() -> Result<T>) -> T {
    match body() {
        Ok(value) => value,
        Err(error) => error.raise(),
    }
}

/// An error that a background worker met, on its way to the session that it works for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remote {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Remote {
    /// What was caught, as text. A code that pgrx has no name for is `XX000`.
    pub fn from_caught(caught: &CaughtError) -> Self {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = caught;
        Remote {
            sqlstate: decode(report.sql_error_code() as i32),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            hint: report.hint().map(str::to_owned),
        }
    }

    /// Ends the current call with this error.
    pub fn raise(self) -> ! {
        let code = encode(&self.sqlstate);
        let mut report = ErrorReport::new(PgSqlErrorCode::from(code), self.message, function_name());
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        raise_with_sqlstate(report, code)
    }
}

fn function_name() -> &'static str {
    "partition_router"
}

/// Packs five characters as `MAKE_SQLSTATE` of `elog.h` does.
pub fn encode(sqlstate: &str) -> i32 {
    sqlstate.bytes().enumerate().fold(0, |code, (i, b)| {
        code + (((i32::from(b) - 0x30) & 0x3F) << (6 * i))
    })
}

/// The five characters of a packed SQLSTATE: [`encode`] the other way.
pub fn decode(code: i32) -> String {
    (0..5)
        .map(|i| char::from((((code >> (6 * i)) & 0x3F) + 0x30) as u8))
        .collect()
}

/// The constraint that an error is about, as drivers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    pub schema: CString,
    pub table: CString,
    pub name: CString,
}

thread_local! {
    static PENDING_SQLSTATE: Cell<Option<i32>> = const { Cell::new(None) };
    static PENDING_CONSTRAINT: Cell<Option<Constraint>> = const { Cell::new(None) };
}

/// Reports `report` as an ERROR whose SQLSTATE is `code`, also where pgrx has no name for the code.
pub fn raise_with_sqlstate(report: ErrorReport, code: i32) -> ! {
    PENDING_SQLSTATE.set(Some(code));
    // SAFETY: the node lives in TopTransactionContext, which outlives the error that is raised two lines below;
    // whoever catches that error puts back the error_context_stack it had, as PG_TRY does.
    unsafe {
        let size = std::mem::size_of::<pg_sys::ErrorContextCallback>();
        let node = pg_sys::MemoryContextAlloc(pg_sys::TopTransactionContext, size)
            .cast::<pg_sys::ErrorContextCallback>();
        (*node).previous = pg_sys::error_context_stack;
        (*node).callback = Some(set_pending_sqlstate);
        (*node).arg = std::ptr::null_mut();
        pg_sys::error_context_stack = node;
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Error context callback: gives the error that is being reported the SQLSTATE that was asked for.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn set_pending_sqlstate(_arg: *mut std::ffi::c_void) {
    if let Some(code) = PENDING_SQLSTATE.take() {
        // SAFETY: the server calls this between errstart and the end of errfinish, where errcode may be called.
        unsafe { errcode(code) };
    }
    if let Some(constraint) = PENDING_CONSTRAINT.take() {
        let fields = [
            (pg_sys::PG_DIAG_SCHEMA_NAME, &constraint.schema),
            (pg_sys::PG_DIAG_TABLE_NAME, &constraint.table),
            (pg_sys::PG_DIAG_CONSTRAINT_NAME, &constraint.name),
        ];
        for (field, text) in fields {
            // SAFETY: as above; the server copies the text.
            unsafe { err_generic_string(field as c_int, text.as_ptr()) };
        }
    }
}

// SAFETY: the signatures of elog.h.
unsafe extern "C-unwind" {
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn geterrcode() -> c_int;
    fn err_generic_string(field: c_int, text: *const c_char) -> c_int;
}

thread_local! {
    static SEEN_SQLSTATE: Cell<Option<i32>> = const { Cell::new(None) };
    static SEEN_CONSTRAINT: Cell<Option<Constraint>> = const { Cell::new(None) };
}

/// Error context callback: notes the SQLSTATE and the constraint of the error that is being reported.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn note_sqlstate(_arg: *mut std::ffi::c_void) {
    // SAFETY: called while an error is being reported, in the memory context of errors: the copy is made in another one, and given
    // back.
    unsafe {
        let code = geterrcode();
        SEEN_SQLSTATE.set(Some(code));
        SEEN_CONSTRAINT.set(None);
        if !decode(code).starts_with(INTEGRITY_CLASS) {
            return;
        }
        let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
        let data = pg_sys::CopyErrorData();
        let text = |text: *const c_char| (!text.is_null()).then(|| CStr::from_ptr(text).to_owned());
        if let Some(name) = text((*data).constraint_name) {
            SEEN_CONSTRAINT.set(Some(Constraint {
                schema: text((*data).schema_name).unwrap_or_default(),
                table: text((*data).table_name).unwrap_or_default(),
                name,
            }));
        }
        pg_sys::FreeErrorData(data);
        pg_sys::MemoryContextSwitchTo(previous);
    }
}

/// SQLSTATEs of violated constraints begin so.
const INTEGRITY_CLASS: &str = "23";

/// What is said of an error besides what the server says.
#[derive(Debug, Default)]
pub struct Said {
    /// For an error that has no hint of its own.
    pub hint: Option<&'static str>,
    /// The constraint that the error is about, in the words of whoever reads it.
    pub constraint: Option<Constraint>,
}

/// Runs `body`, in which functions of the user may be evaluated. An error of the server keeps its SQLSTATE, also one
/// that pgrx has no name for, and the name of its constraint; it gets the hint that `hint_for` has for it where it has none of
/// its own.
pub fn keeping_sqlstate<T>(
    body: impl FnOnce() -> T,
    hint_for: fn(PgSqlErrorCode) -> Option<&'static str>,
) -> T {
    explaining(body, |code, _| Said {
        hint: hint_for(code),
        constraint: None,
    })
}

/// As [`keeping_sqlstate`]; `say` may also show another constraint than the one that the error is about.
pub fn explaining<T>(
    body: impl FnOnce() -> T,
    say: impl Fn(PgSqlErrorCode, Option<&Constraint>) -> Said,
) -> T {
    let mut node = pg_sys::ErrorContextCallback::default();
    // SAFETY: the node is taken off the stack of callbacks before it goes out of scope, whether `body` returns or not.
    unsafe {
        node.previous = pg_sys::error_context_stack;
        node.callback = Some(note_sqlstate);
        pg_sys::error_context_stack = &mut node;
    }
    let previous = node.previous;
    SEEN_SQLSTATE.set(None);
    SEEN_CONSTRAINT.set(None);
    let say = AssertUnwindSafe(say);
    let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(body())))
        .catch_others(|caught: CaughtError| {
            let CaughtError::PostgresError(report) = &caught else {
                caught.rethrow()
            };
            let code = report.sql_error_code();
            let unnamed = SEEN_SQLSTATE
                .get()
                .filter(|_| code == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR);
            let seen = SEEN_CONSTRAINT.take();
            let said = (*say)(code, seen.as_ref());
            let hint = said.hint.filter(|_| report.hint().is_none());
            if unnamed.is_none() && hint.is_none() && seen.is_none() {
                caught.rethrow();
            }
            let mut message = report.message().to_string();
            if let (Some(seen), Some(shown)) = (&seen, &said.constraint) {
                message = message.replace(&quoted(seen), &quoted(shown));
            }
            let mut explained = ErrorReport::new(code, message, function_name());
            if let Some(detail) = report.detail() {
                explained = explained.set_detail(detail.to_string());
            }
            if let Some(hint) = report.hint().or(hint) {
                explained = explained.set_hint(hint.to_string());
            }
            PENDING_CONSTRAINT.set(said.constraint.or(seen));
            Err(Box::new((explained, unnamed.unwrap_or(code as i32))))
        })
        .finally(|| {
            // SAFETY: as above.
            unsafe { pg_sys::error_context_stack = previous };
        })
        .execute();
    match result {
        Ok(value) => value,
        Err(refused) => raise_with_sqlstate(refused.0, refused.1),
    }
}

/// A constraint's name as messages have it.
fn quoted(constraint: &Constraint) -> String {
    format!("\"{}\"", constraint.name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sqlstates_are_packed_as_the_server_packs_them() {
        assert_eq!(encode("00000"), 0);
        assert_eq!(encode("XX000"), 0x28 | (0x28 << 6));
        for code in ["00000", "XX000", "42P07", "PR070", "55P03"] {
            assert_eq!(decode(encode(code)), code);
        }
    }
}
