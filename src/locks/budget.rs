//! Work whose locks cannot be named beforehand (ATTACH also locks what foreign keys point at) runs in a
//! subtransaction with `partition_router.lock_timeout`. When a lock does not come in time, everything is let go of, so
//! that nobody queues behind us, and the whole is tried again after a pause.
#![allow(unsafe_code)]

use super::cancel::Listening;
use crate::error::{Error, Result};
use crate::session::PinnedSettings;
use crate::{calls, pair, settings};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// How often the work is tried.
const ATTEMPTS: u32 = 20;

/// Runs `body` until its locks come within the budget.
///
/// # Errors
/// What `body` returns; `LockNotAvailable` when the last attempt also waited too long. Errors of the server other than
/// a lock timeout or a deadlock pass through.
pub fn within_budget<T>(relation: Oid, mut body: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = format!("{}ms", settings::lock_timeout().as_millis());
    let mut pause = Duration::from_millis(10);
    for attempt in 1..=ATTEMPTS {
        let listening = Listening::begin();
        let result = subtransaction(|| {
            let _timeout = PinnedSettings::new(&[(c"lock_timeout", &limit)]);
            body()
        });
        match result {
            Ok(result) => return result,
            Err(caught) if !is_lock_failure(&caught) => caught.rethrow(),
            Err(_) if attempt < ATTEMPTS => {
                listening.end_if_asked();
                calls::waits_for(relation, None)?;
                super::sleep(pause);
            }
            Err(_) => {}
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
    Err(Error::LockNotAvailable {
        relation: pair::store::display_name(relation)?,
        mode: None, // the table that was not to be had may be another, which a foreign key names
        attempts: ATTEMPTS as usize,
        blockers: super::blockers(relation)?,
    })
}

/// Runs `body` once; gives nothing, and undoes what it did, when a lock does not come within the budget or anything else fails. For
/// many things together, each of which is then done by itself, and fails by itself.
pub fn at_once<T>(body: impl FnOnce() -> Result<T>) -> Option<T> {
    let limit = format!("{}ms", settings::lock_timeout().as_millis());
    let listening = Listening::begin();
    let result = subtransaction(|| {
        let _timeout = PinnedSettings::new(&[(c"lock_timeout", &limit)]);
        body()
    });
    match result {
        Ok(result) => result.ok(),
        Err(caught) if is_cancel(&caught) => caught.rethrow(),
        Err(_) => {
            listening.end_if_asked();
            None
        }
    }
}

/// Runs `body` in a subtransaction. When it fails, in either way, what it did is undone.
pub fn subtransaction<T>(
    body: impl FnOnce() -> Result<T>,
) -> std::result::Result<Result<T>, Box<CaughtError>> {
    in_subtransaction(body, Result::is_ok)
}

fn in_subtransaction<T>(
    body: impl FnOnce() -> Result<T>,
    keep: impl FnOnce(&Result<T>) -> bool,
) -> std::result::Result<Result<T>, Box<CaughtError>> {
    // SAFETY: begins, and below ends, a subtransaction as PL/pgSQL does (`exec_stmt_block`), with the memory context
    // and resource owner of before put back in every case.
    let (context, owner) = unsafe {
        let saved = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(saved.0);
        saved
    };
    let end = |commit: bool| {
        // SAFETY: as above.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            if commit {
                pg_sys::ReleaseCurrentSubTransaction();
            } else {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(body())))
        .catch_others(|caught| Err(Box::new(caught)))
        .execute();
    end(result.as_ref().is_ok_and(keep));
    result
}

/// Runs `body` in a subtransaction and undoes what it did, however it ends.
pub fn undone<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    match in_subtransaction(body, |_| false) {
        Ok(result) => result,
        Err(caught) => caught.rethrow(),
    }
}

/// Whether a lock did not come in time, or would have closed a circle of waits.
pub fn is_lock_failure(caught: &CaughtError) -> bool {
    sqlstate(caught).is_some_and(|code| {
        code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            || code == PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
    })
}

/// The SQLSTATE of an error that the server raised.
pub fn sqlstate(caught: &CaughtError) -> Option<PgSqlErrorCode> {
    match caught {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            Some(report.sql_error_code())
        }
        CaughtError::RustPanic { .. } => None,
    }
}

/// The SQLSTATE as text; `XX000` for a panic.
pub fn sqlstate_text(caught: &CaughtError) -> String {
    let code = sqlstate(caught).unwrap_or(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR);
    crate::error::decode(code as i32)
}

/// Whether the user cancelled, or the server wants the session to end: nobody may go on after that.
pub fn is_cancel(caught: &CaughtError) -> bool {
    matches!(
        sqlstate(caught),
        None | Some(PgSqlErrorCode::ERRCODE_QUERY_CANCELED | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN)
    )
}

/// The primary message of an error that the server raised.
pub fn message(caught: &CaughtError) -> String {
    match caught {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => report.message().to_owned(),
    }
}
