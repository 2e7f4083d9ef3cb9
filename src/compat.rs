//! Server functions that pgrx does not bind, and what differs between PostgreSQL versions. Nothing else here.
#![allow(unsafe_code)]

mod process;
mod query;
mod relation;
mod write;

pub use process::*;
pub use query::*;
pub use relation::*;
pub use write::*;

use pgrx::pg_sys;
use std::ffi::c_int;

/// Whether an identity column of a partitioned table is one of its partitions, too.
pub const PARTITIONS_SHARE_IDENTITY: bool = cfg!(any(feature = "pg17", feature = "pg18"));

/// Objects below it are the server's own, the same in every database.
#[cfg(feature = "pg14")]
pub const FIRST_UNPINNED_OBJECT: u32 = pg_sys::FirstBootstrapObjectId;
#[cfg(not(feature = "pg14"))]
pub const FIRST_UNPINNED_OBJECT: u32 = pg_sys::FirstUnpinnedObjectId;

/// `PartitionTupleRouting` of `execPartition.h`, which is opaque outside that file.
#[repr(C)]
pub struct PartitionTupleRouting {
    _opaque: [u8; 0],
}

/// The beginning of `PartitionKeyData` of `partcache.h`, which pgrx does not bind.
#[repr(C)]
pub struct PartitionKey {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    pub strategy: std::ffi::c_char,
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    pub strategy: c_int,
    pub columns: i16,
    /// Attribute numbers; 0 for an expression.
    pub attributes: *mut pg_sys::AttrNumber,
    pub expressions: *mut pg_sys::List,
    pub operator_families: *mut pg_sys::Oid,
    pub operator_inputs: *mut pg_sys::Oid,
    /// Comparison or hash functions.
    pub functions: *mut pg_sys::FmgrInfo,
    pub collations: *mut pg_sys::Oid,
}

/// `AttrMissing` of `tupdesc_details.h`: what rows have that are older than a column.
#[repr(C)]
pub struct MissingValue {
    pub present: bool,
    pub value: pg_sys::Datum,
}

/// What is called for each node of a tree; true ends the walk.
pub type TreeWalker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> bool;

/// What gives each node of a tree its successor.
pub type TreeMutator =
    unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> *mut pg_sys::Node;

/// Declares server functions as pgrx does for those that it binds: each call turns an ERROR of the server, which is a
/// longjmp, into a panic that runs the destructors of the Rust frames it passes.
macro_rules! server_functions {
    ($($(#[$link:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        $(
            /// See the function of the same name in the server's sources.
            ///
            /// # Safety
            /// The arguments are what the server's function asks for.
            #[allow(non_snake_case)]
            pub unsafe fn $name($($arg: $type),*) $(-> $result)? {
                unsafe extern "C-unwind" {
                    $(#[$link])*
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
    fn StoreViewQuery(view: pg_sys::Oid, query: *mut pg_sys::Query, replace: bool);
    fn get_partition_parent(relation: pg_sys::Oid, even_if_detached: bool) -> pg_sys::Oid;
    fn ExecComputeStoredGenerated(
        info: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
        slot: *mut pg_sys::TupleTableSlot,
        command: pg_sys::CmdType::Type,
    );
    fn RelationGetPartitionKey(rel: pg_sys::Relation) -> *mut PartitionKey;
    fn multirange_deserialize(
        range_type: *mut pg_sys::TypeCacheEntry,
        multirange: *const pg_sys::varlena,
        count: *mut i32,
        ranges: *mut *mut *mut pg_sys::varlena,
    );
    #[cfg_attr(any(feature = "pg16", feature = "pg17", feature = "pg18"), link_name = "query_tree_walker_impl")]
    fn query_tree_walker(
        query: *mut pg_sys::Query,
        walker: TreeWalker,
        context: *mut std::ffi::c_void,
        flags: c_int,
    ) -> bool;
    #[cfg_attr(any(feature = "pg16", feature = "pg17", feature = "pg18"), link_name = "expression_tree_walker_impl")]
    fn expression_tree_walker(
        node: *mut pg_sys::Node,
        walker: TreeWalker,
        context: *mut std::ffi::c_void,
    ) -> bool;
    #[cfg_attr(any(feature = "pg16", feature = "pg17", feature = "pg18"), link_name = "query_tree_mutator_impl")]
    fn query_tree_mutator(
        query: *mut pg_sys::Query,
        mutator: TreeMutator,
        context: *mut std::ffi::c_void,
        flags: c_int,
    ) -> *mut pg_sys::Query;
    #[cfg_attr(any(feature = "pg16", feature = "pg17", feature = "pg18"), link_name = "expression_tree_mutator_impl")]
    fn expression_tree_mutator(
        node: *mut pg_sys::Node,
        mutator: TreeMutator,
        context: *mut std::ffi::c_void,
    ) -> *mut pg_sys::Node;
    fn Async_Notify(channel: *const std::ffi::c_char, payload: *const std::ffi::c_char);
    fn datum_image_eq(value1: pg_sys::Datum, value2: pg_sys::Datum, by_value: bool, length: c_int) -> bool;
}
