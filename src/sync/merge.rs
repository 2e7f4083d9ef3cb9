//! MERGE on a twin, where it moves rows between partitions.
//!
//! The server moves such a row by DELETE and INSERT, and notes it in the transition tables of these two, but then fires the
//! statement triggers only of the actions that the MERGE names. A MERGE with nothing but WHEN MATCHED THEN UPDATE would
//! so move rows that no trigger hears of. Before the server fires them, the missing ones of ours are queued, DELETE before
//! INSERT as the server has them; and all of them reconcile keys, since a row in the table of the deleted may have moved.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::CStr;

// Flags of `mt_merge_subcommands` (nodeModifyTable.c).
const MERGE_INSERT: i32 = 0x01;
const MERGE_UPDATE: i32 = 0x02;
const MERGE_DELETE: i32 = 0x04;

static mut PREVIOUS: pg_sys::ExecutorFinish_hook_type = None;

/// Hears of statements that end. Called once, when the library is loaded: by the first trigger of a statement at the
/// latest, which is before its end.
pub fn init() {
    // SAFETY: a backend has one thread; whoever was there before is called in turn.
    unsafe {
        PREVIOUS = pg_sys::ExecutorFinish_hook;
        pg_sys::ExecutorFinish_hook = Some(at_executor_finish);
    }
}

/// Has no guard of its own and nothing to drop, so that errors of triggers pass it as they pass the server's functions: as
/// they are, and at no cost for statements that are no MERGE.
unsafe extern "C-unwind" fn at_executor_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the server passes a query whose plan has run, and whose triggers it fires in what is called last.
    unsafe {
        if (*query).operation == pg_sys::CmdType::CMD_MERGE
            || !(*(*query).estate).es_auxmodifytables.is_null()
        {
            complete_query(query);
        }
        match PREVIOUS {
            None => standard_ExecutorFinish(query),
            Some(previous) => previous(query),
        }
    }
}

// SAFETY: the signature of executor.h. pgrx binds it with a guard, which would turn SQLSTATEs that it does not know into
// XX000.
unsafe extern "C-unwind" {
    fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn complete_query(query: *mut pg_sys::QueryDesc) {
    // SAFETY: as above.
    unsafe {
        let estate = (*query).estate;
        complete((*query).planstate, estate);
        let inner = (*estate).es_auxmodifytables; // a MERGE in WITH
        for i in 0..if inner.is_null() { 0 } else { (*inner).length } {
            complete((*(*inner).elements.add(i as usize)).ptr_value.cast(), estate);
        }
    }
}

/// Queues what is missing, if `node` is a MERGE.
///
/// # Safety
/// `node` belongs to `estate`, whose query has run.
unsafe fn complete(node: *mut pg_sys::PlanState, estate: *mut pg_sys::EState) {
    // SAFETY: the caller's promise.
    unsafe {
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_ModifyTableState {
            return;
        }
        let node = node.cast::<pg_sys::ModifyTableState>();
        if (*node).operation != pg_sys::CmdType::CMD_MERGE {
            return;
        }
        let (actions, capture) = ((*node).mt_merge_subcommands, (*node).mt_transition_capture);
        let table = (*node).rootResultRelInfo;
        let kind = (*(*(*table).ri_RelationDesc).rd_rel).relkind as u8;
        let all = (*table).ri_TrigDesc;
        if kind != pg_sys::RELKIND_PARTITIONED_TABLE
            || actions & MERGE_UPDATE == 0
            || capture.is_null()
            || all.is_null()
        {
            return;
        }
        let Some(mut own) = SyncTriggers::of(&*all) else {
            return;
        };
        super::frames::mix((*(*table).ri_RelationDesc).rd_id);
        if actions & MERGE_DELETE == 0 {
            (*table).ri_TrigDesc = &mut own.desc;
            pg_sys::ExecASDeleteTriggers(estate, table, capture);
        }
        if actions & (MERGE_INSERT | MERGE_DELETE) != (MERGE_INSERT | MERGE_DELETE) {
            // Those that are queued already are taken back and queued again, behind the DELETE.
            (*table).ri_TrigDesc = if actions & MERGE_INSERT == 0 {
                &mut own.desc
            } else {
                all
            };
            pg_sys::ExecASInsertTriggers(estate, table, capture);
        }
        (*table).ri_TrigDesc = all;
    }
}

/// The statement triggers of the sync among those of a table.
struct SyncTriggers {
    desc: pg_sys::TriggerDesc,
    /// What `desc` points to.
    _triggers: Vec<pg_sys::Trigger>,
}

impl SyncTriggers {
    /// # Safety
    /// `all` is a trigger description of the server.
    unsafe fn of(all: &pg_sys::TriggerDesc) -> Option<SyncTriggers> {
        // SAFETY: the description has numtriggers triggers.
        let mut triggers: Vec<_> =
            unsafe { std::slice::from_raw_parts(all.triggers, all.numtriggers as usize) }
                .iter()
                .filter(|trigger| unsafe { is_sync(trigger.tgfoid) })
                .copied()
                .collect();
        if triggers.is_empty() {
            return None;
        }
        let desc = pg_sys::TriggerDesc {
            triggers: triggers.as_mut_ptr(),
            numtriggers: triggers.len() as i32,
            trig_insert_after_statement: all.trig_insert_after_statement,
            trig_delete_after_statement: all.trig_delete_after_statement,
            ..pg_sys::TriggerDesc::default()
        };
        Some(SyncTriggers {
            desc,
            _triggers: triggers,
        })
    }
}

/// Whether a function is `partition_router.sync()`.
///
/// # Safety
/// To be called within a transaction.
unsafe fn is_sync(function: pg_sys::Oid) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() || CStr::from_ptr(name) != c"sync" {
            return false;
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace(function));
        !schema.is_null() && CStr::from_ptr(schema) == c"partition_router"
    }
}
