//! What writing a row takes of the executor.

use pgrx::pg_sys;
use std::ffi::c_int;

/// Gives `estate` a range table of the one relation that `rte` describes.
///
/// # Safety
/// `estate` and `rte` are valid, `rte` of kind RTE_RELATION and allocated as long as `estate` lives.
pub unsafe fn init_range_table(estate: *mut pg_sys::EState, rte: *mut pg_sys::RangeTblEntry) {
    // SAFETY: the caller's promise.
    unsafe {
        let table = pg_sys::lappend(std::ptr::null_mut(), rte.cast());
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        pg_sys::ExecInitRangeTable(estate, table);
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        {
            let mut permissions: *mut pg_sys::List = std::ptr::null_mut();
            pg_sys::addRTEPermissionInfo(&mut permissions, rte);
            #[cfg(any(feature = "pg16", feature = "pg17"))]
            pg_sys::ExecInitRangeTable(estate, table, permissions);
            #[cfg(feature = "pg18")]
            pg_sys::ExecInitRangeTable(estate, table, permissions, pg_sys::bms_make_singleton(1));
        }
    }
}

/// Starts an index scan under an MVCC snapshot.
///
/// # Safety
/// Both relations are open, `index` is an index of `heap`, `snapshot` is registered or active.
pub unsafe fn begin_index_scan(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: c_int,
) -> pg_sys::IndexScanDesc {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            pg_sys::index_beginscan(heap, index, snapshot, keys, 0)
        }
        #[cfg(feature = "pg18")]
        {
            pg_sys::index_beginscan(heap, index, snapshot, std::ptr::null_mut(), keys, 0)
        }
    }
}

/// Which indexes get an entry for a row that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexUpdate {
    /// The row is new.
    Insert,
    /// The row is a new version: all of them.
    All,
    /// The row is a new version on the page of the old one: only those that summarize pages (from PostgreSQL 16).
    #[cfg_attr(any(feature = "pg14", feature = "pg15"), allow(dead_code))]
    Summarizing,
    None,
}

/// `ExecInsertIndexTuples`. Gives the indexes whose uniqueness is to be checked again later.
///
/// # Safety
/// As for the server's function; the indexes are open.
pub unsafe fn insert_index_tuples(
    info: *mut pg_sys::ResultRelInfo,
    row: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
    what: IndexUpdate,
) -> *mut pg_sys::List {
    let none = std::ptr::null_mut();
    let is_update = what != IndexUpdate::Insert;
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            pg_sys::ExecInsertIndexTuples(info, row, estate, is_update, false, std::ptr::null_mut(), none)
        }
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        {
            let summarizing = what == IndexUpdate::Summarizing;
            pg_sys::ExecInsertIndexTuples(
                info,
                row,
                estate,
                is_update,
                false,
                std::ptr::null_mut(),
                none,
                summarizing,
            )
        }
    }
}

/// Begins to sort entries of an index by its keys, in as many kilobytes of memory.
///
/// # Safety
/// Both relations are open until the sort ends.
pub unsafe fn begin_index_sort(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    memory: c_int,
) -> *mut pg_sys::Tuplesortstate {
    let none = std::ptr::null_mut();
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(feature = "pg14")]
        {
            pg_sys::tuplesort_begin_index_btree(heap, index, false, memory, none, false)
        }
        #[cfg(not(feature = "pg14"))]
        {
            let options = pg_sys::TUPLESORT_NONE as c_int;
            pg_sys::tuplesort_begin_index_btree(heap, index, false, false, memory, none, options)
        }
    }
}

/// `table_tuple_update` with waiting, and which indexes the new version needs.
///
/// # Safety
/// As for the server's function.
pub unsafe fn update_tuple(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    row: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) -> (pg_sys::TM_Result::Type, IndexUpdate) {
    let mut failure = pg_sys::TM_FailureData::default();
    let mut lock = pg_sys::LockTupleMode::LockTupleExclusive;
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let mut indexes = false;
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    let mut indexes = pg_sys::TU_UpdateIndexes::TU_None;
    // SAFETY: the caller's promise.
    let result = unsafe {
        pg_sys::table_tuple_update(
            relation,
            tid,
            row,
            pg_sys::GetCurrentCommandId(true),
            (*estate).es_snapshot,
            std::ptr::null_mut(),
            true,
            &mut failure,
            &mut lock,
            &mut indexes,
        )
    };
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let what = if indexes {
        IndexUpdate::All
    } else {
        IndexUpdate::None
    };
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    let what = match indexes {
        pg_sys::TU_UpdateIndexes::TU_None => IndexUpdate::None,
        pg_sys::TU_UpdateIndexes::TU_Summarizing => IndexUpdate::Summarizing,
        _ => IndexUpdate::All,
    };
    (result, what)
}

/// `ExecARUpdateTriggers` for an update within one table.
///
/// # Safety
/// As for the server's function.
pub unsafe fn after_update_triggers(
    estate: *mut pg_sys::EState,
    info: *mut pg_sys::ResultRelInfo,
    tid: pg_sys::ItemPointer,
    row: *mut pg_sys::TupleTableSlot,
    recheck: *mut pg_sys::List,
) {
    let none = std::ptr::null_mut();
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::ExecARUpdateTriggers(estate, info, tid, none, row, recheck, std::ptr::null_mut());
        #[cfg(not(feature = "pg14"))]
        pg_sys::ExecARUpdateTriggers(
            estate,
            info,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            tid,
            none,
            row,
            recheck,
            std::ptr::null_mut(),
            false,
        );
    }
}

/// `ExecARDeleteTriggers`.
///
/// # Safety
/// As for the server's function.
pub unsafe fn after_delete_triggers(
    estate: *mut pg_sys::EState,
    info: *mut pg_sys::ResultRelInfo,
    tid: pg_sys::ItemPointer,
) {
    let none = std::ptr::null_mut();
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::ExecARDeleteTriggers(estate, info, tid, none, std::ptr::null_mut());
        #[cfg(not(feature = "pg14"))]
        pg_sys::ExecARDeleteTriggers(estate, info, tid, none, std::ptr::null_mut(), false);
    }
}
