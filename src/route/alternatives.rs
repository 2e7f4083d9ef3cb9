//! Plans of cached statements for the sides that the cached plan does not read. The server caches one plan a statement,
//! made for the sides that were right then; when the next tenant reads another side, the statement is planned once for that
//! and the plan kept here, by backend. A message about any table, function or type that such a plan uses throws it away, as it does
//! with the server's own.
#![allow(unsafe_code)]

use super::choose::oids;
use super::decide::Side;
use super::nodes::{cells, copy};
use pgrx::pg_sys;
use pgrx::pg_sys::{Oid, PlannedStmt, RTEKind, RangeTblEntry};
use std::cell::{Cell, RefCell};

/// More plans than this are not kept between transactions.
const KEPT_PLANS: usize = 256;

struct Alternative {
    statement: i64,
    sides: Vec<Side>,
    plan: *mut PlannedStmt,
    context: pg_sys::MemoryContext,
    relations: Vec<u32>,
    is_stale: bool,
}

thread_local! {
    static PLANS: RefCell<Vec<Alternative>> = const { RefCell::new(Vec::new()) };
    static STATEMENTS: Cell<i64> = const { Cell::new(0) };
}

/// Hears of changes and of the ends of transactions. Called once, when the library is loaded.
pub fn init() {
    use pg_sys::SysCacheIdentifier as Cache;
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    unsafe {
        let nothing = pg_sys::Datum::from(0);
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
        for cache in [
            Cache::PROCOID,
            Cache::TYPEOID,
            Cache::OPEROID,
            Cache::AMOPOPID,
            Cache::NAMESPACEOID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(entry_changed), nothing);
        }
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, relation: Oid) {
    PLANS.with_borrow_mut(|plans| {
        for plan in plans {
            plan.is_stale |= relation == Oid::INVALID || plan.relations.contains(&relation.to_u32());
        }
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn entry_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    PLANS.with_borrow_mut(|plans| plans.iter_mut().for_each(|plan| plan.is_stale = true));
}

/// No statement runs any more, so plans may go.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if ![XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE].contains(&event) {
        return;
    }
    PLANS.with_borrow_mut(|plans| {
        let surplus = plans.len().saturating_sub(KEPT_PLANS);
        let mut place = 0;
        plans.retain(|plan| {
            let stays = place >= surplus && !plan.is_stale;
            place += 1;
            if !stays {
                // SAFETY: the memory is the plan's own.
                unsafe { pg_sys::MemoryContextDelete(plan.context) };
            }
            stays
        });
    });
}

/// A number for a statement that is being planned, unlike any other of this backend.
pub fn new_statement() -> i64 {
    STATEMENTS.set(STATEMENTS.get() + 1);
    STATEMENTS.get()
}

/// The plan of a statement for these sides, its tables locked; null when there is none. It stays until the transaction
/// ends.
///
/// # Safety
/// Within a transaction.
pub unsafe fn find(statement: i64, sides: &[Side]) -> *mut PlannedStmt {
    let look = || {
        PLANS.with_borrow(|plans| {
            plans
                .iter()
                .find(|p| p.statement == statement && !p.is_stale && p.sides == sides)
                .map(|p| p.plan)
        })
    };
    let Some(plan) = look() else {
        return std::ptr::null_mut();
    };
    // SAFETY: plans go at the end of a transaction only. Locking takes in messages, so whether the plan still holds is
    // asked afterwards.
    unsafe {
        for entry in cells::<RangeTblEntry>((*plan).rtable) {
            if (*entry).rtekind == RTEKind::RTE_RELATION {
                pg_sys::LockRelationOid((*entry).relid, (*entry).rellockmode);
            }
        }
    }
    if look() == Some(plan) {
        plan
    } else {
        std::ptr::null_mut()
    }
}

/// Keeps a copy of a plan.
///
/// # Safety
/// Within a transaction; `plan` is valid.
pub unsafe fn keep(statement: i64, sides: Vec<Side>, plan: *mut PlannedStmt) {
    // SAFETY: as for this function. The context is a child of the caller's until the copy is whole, so that an error
    // leaves nothing behind.
    unsafe {
        if (*plan).transientPlan {
            return;
        }
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"partition_router plan".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let before = pg_sys::MemoryContextSwitchTo(context);
        let copied = copy(plan);
        pg_sys::MemoryContextSwitchTo(before);
        pg_sys::MemoryContextSetParent(context, pg_sys::CacheMemoryContext);
        let kept = Alternative {
            statement,
            sides,
            plan: copied,
            context,
            relations: oids((*plan).relationOids),
            is_stale: false,
        };
        PLANS.with_borrow_mut(|plans| plans.push(kept));
    }
}
