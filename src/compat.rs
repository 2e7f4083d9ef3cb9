//! Server functions that pgrx does not bind, and what differs between PostgreSQL versions. Nothing else here.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::c_int;

/// `PartitionTupleRouting` of `execPartition.h`, which is opaque outside that file.
#[repr(C)]
pub struct PartitionTupleRouting {
    _opaque: [u8; 0],
}

/// Declares server functions as pgrx does for those that it binds: each call turns an ERROR of the server, which is a
/// longjmp, into a panic that runs the destructors of the Rust frames it passes.
macro_rules! server_functions {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        $(
            /// See the function of the same name in the server's sources.
            ///
            /// # Safety
            /// The arguments are what the server's function asks for.
            #[allow(non_snake_case)]
            pub unsafe fn $name($($arg: $type),*) $(-> $result)? {
                unsafe extern "C-unwind" {
                    fn $name($($arg: $type),*) $(-> $result)?;
                }
                // SAFETY: the guard catches the longjmp in a frame without destructors.
                unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| $name($($arg),*)) }
            }
        )*
    };
}

// The signatures of execPartition.h, datum.h, partition.h and pg_inherits.h, the same from PostgreSQL 14 to 18.
server_functions! {
    fn ExecSetupPartitionTupleRouting(
        estate: *mut pg_sys::EState,
        rel: pg_sys::Relation,
    ) -> *mut PartitionTupleRouting;
    fn ExecFindPartition(
        mtstate: *mut pg_sys::ModifyTableState,
        root: *mut pg_sys::ResultRelInfo,
        routing: *mut PartitionTupleRouting,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    ) -> *mut pg_sys::ResultRelInfo;
    fn ExecCleanupTupleRouting(mtstate: *mut pg_sys::ModifyTableState, routing: *mut PartitionTupleRouting);
    fn get_partition_parent(relation: pg_sys::Oid, even_if_detached: bool) -> pg_sys::Oid;
    fn datum_image_eq(value1: pg_sys::Datum, value2: pg_sys::Datum, by_value: bool, length: c_int) -> bool;
}

/// Gives `estate` a range table of the one relation that `rte` describes.
///
/// # Safety
/// `estate` and `rte` are valid, `rte` of kind RTE_RELATION and allocated as long as `estate` lives.
pub unsafe fn init_range_table(estate: *mut pg_sys::EState, rte: *mut pg_sys::RangeTblEntry) {
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

/// The attributes of a row format. From PostgreSQL 18 they lie behind an array of shorter ones.
///
/// # Safety
/// `desc` is valid for as long as the result is used.
pub unsafe fn attributes<'a>(desc: pg_sys::TupleDesc) -> &'a [pg_sys::FormData_pg_attribute] {
    unsafe {
        let count = (*desc).natts as usize;
        #[cfg(not(feature = "pg18"))]
        {
            (*desc).attrs.as_slice(count)
        }
        #[cfg(feature = "pg18")]
        {
            if count == 0 {
                return &[];
            }
            std::slice::from_raw_parts(pg_sys::TupleDescAttr(desc, 0), count)
        }
    }
}

/// Lets SIGTERM end this background worker at its next safe point, as it ends a session. What the server sets for workers
/// up to PostgreSQL 16 ends them in the middle of whatever they do.
pub fn end_at_sigterm() {
    unsafe extern "C-unwind" {
        fn die(signal: c_int);
    }
    // SAFETY: the server's own handler for its own signal; it only sets flags.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(SIGTERM, Some(die));
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(SIGTERM, Some(die));
    }
}

/// As POSIX numbers it.
const SIGTERM: c_int = 15;
