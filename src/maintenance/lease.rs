//! Who maintains a table now. A call holds the lease of the table that it works on from the first look to the last task,
//! across the transactions between: another call finds the table taken. The lease ends with the work, with the session, and
//! with a transaction of the call that aborts.
#![allow(unsafe_code)]

use crate::error::Result;
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::cell::Cell;

/// A lease is an advisory lock of two keys; the server numbers those 2.
const TWO_KEYS: u16 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Lease {
    /// The oid of `partition_router.policy`: the first key.
    class: u32,
    parent: u32,
}

thread_local! {
    static HELD: Cell<Option<Lease>> = const { Cell::new(None) };
}

/// Claims a table until the transaction ends; false when another session has it.
pub fn claim(parent: Oid) -> Result<bool> {
    let free: Option<bool> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(pg_catalog.pg_try_advisory_xact_lock(
                 'partition_router.policy'::regclass::oid::int, $1::oid::int))",
            &[parent.into()],
        )
    })?;
    Ok(free == Some(true))
}

/// Holds the lease of a table until [`let_go`], and no other; false when another session has it.
pub fn hold(parent: Oid) -> Result<bool> {
    if HELD.get().is_some_and(|lease| lease.parent == parent.to_u32()) {
        return Ok(true);
    }
    let_go();
    let class: Option<u32> = with_own_tables(|| {
        spi::kept_row(
            "SELECT pg_catalog.to_jsonb(c.oid::bigint)
             FROM (SELECT 'partition_router.policy'::regclass::oid AS oid) c
             WHERE pg_catalog.pg_try_advisory_lock(c.oid::int, $1::oid::int)",
            &[parent.into()],
        )
    })?;
    HELD.set(class.map(|class| Lease {
        class,
        parent: parent.to_u32(),
    }));
    Ok(class.is_some())
}

/// Gives the lease back, if there is one.
pub fn let_go() {
    let Some(lease) = HELD.take() else { return };
    // SAFETY: names the lock that `hold` took, as pg_advisory_unlock does; a lock that is not there is a warning.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: lease.class,
            locktag_field3: lease.parent,
            locktag_field4: TWO_KEYS,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        pg_sys::LockRelease(&tag, pg_sys::ExclusiveLock as i32, true);
    }
}

/// Hears of aborts. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) };
}

/// A call that fails or is cancelled always has a transaction that aborts.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        let_go();
    }
}
