//! What index a statement would make, as the server understands it: it is made on the root of a partitioned table alone, where
//! it has nothing to build, looked at, and undone.
#![allow(unsafe_code)]

use super::pending::OwnDdl;
use crate::error::{Error, Result};
use crate::ident::RelName;
use crate::locks::budget;
use crate::worker::alone;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::ffi::CString;

/// Has `make` make an index on `root` within the lock budget, and gives what `look` finds then. Nothing stays of it.
///
/// # Errors
/// Those of `make` and `look`; `Internal` when there was no new index.
pub fn undone<T>(
    root: Oid,
    make: impl Fn() -> Result<()>,
    look: impl Fn() -> Result<Option<T>>,
) -> Result<T> {
    let found = RefCell::new(None);
    let undone = budget::within_budget(root, || {
        {
            let _own = OwnDdl::new();
            make()?;
        }
        *found.borrow_mut() = look()?;
        Err::<(), _>(Error::Internal("the trial is undone".into()))
    });
    match (found.into_inner(), undone) {
        (Some(index), _) => Ok(index),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::Internal("the trial made no index".into())),
    }
}

/// Runs the statement on `root` alone, with a name that the server chooses. `change` may alter it first.
///
/// # Safety
/// `statement` is the parse tree of a CREATE INDEX.
pub unsafe fn make(
    statement: *mut pg_sys::IndexStmt,
    root: &RelName,
    change: impl FnOnce(&mut pg_sys::IndexStmt),
) -> Result<()> {
    let text = |name: &str| CString::new(name).map_err(|e| Error::Internal(e.to_string()));
    let (schema, name) = (text(root.schema.as_str())?, text(root.name.as_str())?);
    // SAFETY: a copy of the statement is changed and run; everything it points at lives in the current memory context.
    unsafe {
        let copy = pg_sys::copyObjectImpl(statement.cast()).cast::<pg_sys::IndexStmt>();
        let table = pg_sys::makeRangeVar(
            pg_sys::pstrdup(schema.as_ptr()),
            pg_sys::pstrdup(name.as_ptr()),
            -1,
        );
        (*table).inh = false; // ONLY
        (*copy).relation = table;
        (*copy).concurrent = false;
        (*copy).if_not_exists = false;
        (*copy).idxname = std::ptr::null_mut();
        change(&mut *copy);
        let wrapper = alone::wrap(copy.cast());
        pg_sys::EventTriggerInhibitCommandCollection();
        pg_sys::ProcessUtility(
            wrapper,
            c"".as_ptr(),
            false,
            pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone),
            std::ptr::null_mut(),
        );
        pg_sys::EventTriggerUndoInhibitCommandCollection();
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}
