//! Sides that wait for the next statement. To build what a row's write needs (the partition's description, its indexes
//! with their expressions, row formats) costs more than the write itself; so it is kept, by backend, in memory of its own, while
//! nothing that it was built from changes. Relations are closed meanwhile, and opened and locked again for each statement.
#![allow(unsafe_code)]

use super::side::{ForeignKeys, Side};
use pgrx::pg_sys;
use pgrx::pg_sys::{Oid, SubTransactionId};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

/// More pairs than this are not kept at a time.
const KEPT_SIDES: usize = 16;

thread_local! {
    static SIDES: RefCell<HashMap<(Oid, ForeignKeys), Side>> = RefCell::new(HashMap::new());
    /// The memory of sides that are open, with the subtransaction that opened them. At its end none is: what is still here
    /// an error has left.
    static OPEN: RefCell<Vec<(pg_sys::MemoryContext, SubTransactionId)>> = const { RefCell::new(Vec::new()) };
    /// The tables that sides were built from.
    static TRACKED: RefCell<HashSet<Oid>> = RefCell::new(HashSet::new());
    /// Counts changes of those tables, and of functions and types, which their expressions may use.
    static EPOCH: Cell<u64> = const { Cell::new(0) };
}

/// Hears of changes and of the ends of transactions. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    unsafe {
        let nothing = pg_sys::Datum::from(0);
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
        for cache in [
            pg_sys::SysCacheIdentifier::PROCOID,
            pg_sys::SysCacheIdentifier::TYPEOID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(entry_changed), nothing);
        }
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, relation: Oid) {
    if relation == Oid::INVALID || TRACKED.with_borrow(|tracked| tracked.contains(&relation)) {
        EPOCH.set(EPOCH.get() + 1);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn entry_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    EPOCH.set(EPOCH.get() + 1);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if [XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE].contains(&event) {
        give_up(0);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: SubTransactionId,
    _parent: SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        give_up(subtransaction);
    }
}

/// Frees what was opened in `subtransaction` or one inside it, and not closed.
fn give_up(subtransaction: SubTransactionId) {
    OPEN.with_borrow_mut(|open| {
        open.retain(|(context, opened_in)| {
            let stays = *opened_in < subtransaction;
            if !stays {
                // SAFETY: the side that had this memory was given up by an error; nothing points at it any more.
                unsafe { pg_sys::MemoryContextDelete(*context) };
            }
            stays
        });
    });
}

/// What a side was built from is as it was while this number is the same.
pub fn epoch() -> u64 {
    EPOCH.get()
}

/// Changes of `relation` count from now on.
pub fn track(relation: Oid) {
    TRACKED.with_borrow_mut(|tracked| tracked.insert(relation));
}

/// The side that has this memory is in use: an error that ends its use leaves it to the end of the transaction.
pub fn opened(context: pg_sys::MemoryContext) {
    // SAFETY: a plain read.
    let now = unsafe { pg_sys::GetCurrentSubTransactionId() };
    OPEN.with_borrow_mut(|open| open.push((context, now)));
}

pub fn closed(context: pg_sys::MemoryContext) {
    OPEN.with_borrow_mut(|open| open.retain(|(other, _)| *other != context));
}

/// The side that was kept, closed. Its epoch is to be compared after its table is locked.
pub fn take(oid: Oid, foreign_keys: ForeignKeys) -> Option<Side> {
    SIDES.with_borrow_mut(|sides| sides.remove(&(oid, foreign_keys)))
}

/// Keeps a closed side.
pub fn keep(side: Side) {
    let name = side.name();
    let surplus = SIDES.with_borrow_mut(|sides| {
        let mut surplus = Vec::new();
        if sides.len() >= KEPT_SIDES {
            surplus.extend(sides.drain().map(|(_, side)| side));
        }
        surplus.extend(sides.insert(name, side));
        surplus
    });
    for side in surplus {
        // SAFETY: kept sides are closed.
        unsafe { side.free() };
    }
}
