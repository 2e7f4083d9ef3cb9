//! Server functions that pgrx does not bind, and what differs between PostgreSQL versions. Nothing else here.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::c_int;

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

#[cfg(any(feature = "pg14", feature = "pg15"))]
pub type RelationFile = pg_sys::RelFileNode;
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub type RelationFile = pg_sys::RelFileLocator;

/// The file of a relation.
///
/// # Safety
/// `relation` is open.
pub unsafe fn file_of(relation: pg_sys::Relation) -> RelationFile {
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            (*relation).rd_node
        }
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        {
            (*relation).rd_locator
        }
    }
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
    fn datum_image_eq(value1: pg_sys::Datum, value2: pg_sys::Datum, by_value: bool, length: c_int) -> bool;
}

/// Ends a call that changes something with 25006 on a standby, where it could only fail with an internal error.
pub fn refuse_during_recovery(call: &std::ffi::CStr) {
    // SAFETY: looks at the state of the server; an error passes the guard with its SQLSTATE.
    unsafe { pg_sys::PreventCommandDuringRecovery(call.as_ptr()) }
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
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::ExecARDeleteTriggers(estate, info, tid, none, std::ptr::null_mut());
        #[cfg(not(feature = "pg14"))]
        pg_sys::ExecARDeleteTriggers(estate, info, tid, none, std::ptr::null_mut(), false);
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

/// Lets SIGHUP ask this background worker to read the configuration again: [`reload_if_asked`] does it.
pub fn reload_at_sighup() {
    unsafe extern "C-unwind" {
        fn SignalHandlerForConfigReload(signal: c_int);
    }
    // SAFETY: the server's own handler for its own signal; it only sets a flag.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(SIGHUP, Some(SignalHandlerForConfigReload));
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(SIGHUP, Some(SignalHandlerForConfigReload));
    }
}

/// Reads the configuration again when SIGHUP has asked for it.
pub fn reload_if_asked() {
    // SAFETY: as the main loops of the server's own workers do, outside of a transaction.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// As POSIX numbers them.
const SIGTERM: c_int = 15;
const SIGHUP: c_int = 1;

/// The number of this backend's transaction, unlike any other of the backend.
pub fn local_transaction() -> pg_sys::LocalTransactionId {
    // SAFETY: a plain read.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        {
            (*pg_sys::MyProc).lxid
        }
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        {
            (*pg_sys::MyProc).vxid.lxid
        }
    }
}

/// Whether `snapshot` sees the row version that `tuple.t_self` points at, and `check` holds for it.
///
/// # Safety
/// The relation is an open heap, `snapshot` is registered or active. The tuple is to be used in `check` only.
pub unsafe fn fetch_version(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    tuple: &mut pg_sys::HeapTupleData,
    check: impl FnOnce(pg_sys::HeapTuple) -> bool,
) -> bool {
    let mut buffer: pg_sys::Buffer = 0;
    unsafe {
        #[cfg(feature = "pg14")]
        let found = pg_sys::heap_fetch(relation, snapshot, tuple, &mut buffer);
        #[cfg(not(feature = "pg14"))]
        let found = pg_sys::heap_fetch(relation, snapshot, tuple, &mut buffer, false);
        if !found {
            return false;
        }
        let holds = check(tuple);
        pg_sys::ReleaseBuffer(buffer);
        holds
    }
}

/// As whom the rights on a range table entry are checked; invalid for the current user.
///
/// # Safety
/// `entry` is a relation's entry in the range table of `query`.
pub unsafe fn checked_as(query: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry) -> pg_sys::Oid {
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            let _ = query;
            (*entry).checkAsUser
        }
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        {
            (*pg_sys::getRTEPermissionInfo((*query).rteperminfos, entry)).checkAsUser
        }
    }
}

/// Whether rights on a whole row, or on a system column, are to be checked for a range table entry.
///
/// # Safety
/// As for [`checked_as`].
pub unsafe fn reads_rows_or_system_columns(
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
) -> bool {
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let columns = {
            let _ = query;
            (*entry).selectedCols
        };
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let columns = {
            if (*entry).perminfoindex == 0 {
                return true;
            }
            (*pg_sys::getRTEPermissionInfo((*query).rteperminfos, entry)).selectedCols
        };
        // Columns count from FirstLowInvalidHeapAttributeNumber; the whole row is column 0.
        const ROW_AND_SYSTEM: i32 = -pg_sys::FirstLowInvalidHeapAttributeNumber + 1;
        !columns.is_null()
            && (*columns).nwords > 0
            && *(*columns).words.as_ptr() & ((1 << ROW_AND_SYSTEM) - 1) != 0
    }
}

/// Takes the rights to check off a range table entry whose copy has them; what is left is read as `user`.
///
/// # Safety
/// As for [`checked_as`].
pub unsafe fn read_as(query: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry, user: pg_sys::Oid) {
    let _ = query;
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            let none = std::ptr::null_mut();
            (*entry).requiredPerms = 0;
            (*entry).checkAsUser = user;
            (*entry).selectedCols = none;
            (*entry).insertedCols = none;
            (*entry).updatedCols = none;
            (*entry).extraUpdatedCols = none;
        }
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        {
            // An entry without rights to check is read as the current user; the server has no place for another.
            let _ = user;
            (*entry).perminfoindex = 0;
        }
    }
}

/// Whether this transaction gave a relation a new file, as TRUNCATE does.
///
/// # Safety
/// Within a transaction that has locked the relation.
pub unsafe fn has_new_file(relation: pg_sys::Oid) -> bool {
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relation);
        if relation.is_null() {
            return false;
        }
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let since = (*relation).rd_firstRelfilenodeSubid;
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let since = (*relation).rd_firstRelfilelocatorSubid;
        pg_sys::RelationClose(relation);
        since != 0
    }
}

/// What the server does for EXPLAIN EXECUTE. Not guarded: errors pass as they are.
///
/// # Safety
/// As for the hook that explains a query; `execute` is the statement.
pub unsafe extern "C-unwind" fn explain_execute(
    execute: *mut pg_sys::ExecuteStmt,
    into: *mut pg_sys::IntoClause,
    es: *mut pg_sys::ExplainState,
    text: *const std::ffi::c_char,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
) {
    #[cfg(not(feature = "pg18"))]
    unsafe {
        // SAFETY: the signature of prepare.h.
        unsafe extern "C-unwind" {
            fn ExplainExecuteQuery(
                execute: *mut pg_sys::ExecuteStmt,
                into: *mut pg_sys::IntoClause,
                es: *mut pg_sys::ExplainState,
                text: *const std::ffi::c_char,
                params: pg_sys::ParamListInfo,
                environment: *mut pg_sys::QueryEnvironment,
            );
        }
        ExplainExecuteQuery(execute, into, es, text, params, environment);
    }
    #[cfg(feature = "pg18")]
    unsafe {
        // SAFETY: the signature of prepare.h.
        unsafe extern "C-unwind" {
            fn ExplainExecuteQuery(
                execute: *mut pg_sys::ExecuteStmt,
                into: *mut pg_sys::IntoClause,
                es: *mut pg_sys::ExplainState,
                state: *mut pg_sys::ParseState,
                params: pg_sys::ParamListInfo,
            );
        }
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*state).p_sourcetext = text;
        (*state).p_queryEnv = environment;
        ExplainExecuteQuery(execute, into, es, state, params);
    }
}

/// What the server does for EXPLAIN of a query where no hook is set. Not guarded: errors pass as they are.
///
/// # Safety
/// As for the hook.
pub unsafe extern "C-unwind" fn explain_query(
    query: *mut pg_sys::Query,
    options: c_int,
    into: *mut pg_sys::IntoClause,
    es: *mut pg_sys::ExplainState,
    text: *const std::ffi::c_char,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
) {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        unsafe extern "C-unwind" {
            fn standard_ExplainOneQuery(
                query: *mut pg_sys::Query,
                options: c_int,
                into: *mut pg_sys::IntoClause,
                es: *mut pg_sys::ExplainState,
                text: *const std::ffi::c_char,
                params: pg_sys::ParamListInfo,
                environment: *mut pg_sys::QueryEnvironment,
            );
        }
        unsafe { standard_ExplainOneQuery(query, options, into, es, text, params, environment) };
    }
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    {
        unsafe extern "C-unwind" {
            fn pg_plan_query(
                query: *mut pg_sys::Query,
                text: *const std::ffi::c_char,
                options: c_int,
                params: pg_sys::ParamListInfo,
            ) -> *mut pg_sys::PlannedStmt;
            fn ExplainOnePlan(
                plan: *mut pg_sys::PlannedStmt,
                into: *mut pg_sys::IntoClause,
                es: *mut pg_sys::ExplainState,
                text: *const std::ffi::c_char,
                params: pg_sys::ParamListInfo,
                environment: *mut pg_sys::QueryEnvironment,
                duration: *const pg_sys::instr_time,
                buffers: *const pg_sys::BufferUsage,
            );
        }
        unsafe {
            let before = pg_sys::pgBufferUsage;
            let start = std::time::Instant::now();
            let plan = pg_plan_query(query, text, options, params);
            let took = start.elapsed();
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            let duration = pg_sys::instr_time {
                tv_sec: took.as_secs() as _,
                tv_nsec: took.subsec_nanos().into(),
            };
            #[cfg(feature = "pg16")]
            let duration = pg_sys::instr_time {
                ticks: took.as_nanos() as i64,
            };
            let mut used = pg_sys::BufferUsage::default();
            pg_sys::BufferUsageAccumDiff(&mut used, &raw const pg_sys::pgBufferUsage, &before);
            let buffers = if (*es).buffers {
                &raw const used
            } else {
                std::ptr::null()
            };
            ExplainOnePlan(plan, into, es, text, params, environment, &duration, buffers);
        }
    }
}

/// Analyzes and rewrites a statement whose parameters have any types.
///
/// # Safety
/// `statement` comes from parsing `text`.
pub unsafe fn analyze(statement: *mut pg_sys::RawStmt, text: *const std::ffi::c_char) -> *mut pg_sys::List {
    let mut types: *mut pg_sys::Oid = std::ptr::null_mut();
    let mut count: c_int = 0;
    unsafe {
        #[cfg(feature = "pg14")]
        {
            let query = pg_sys::parse_analyze_varparams(statement, text, &mut types, &mut count);
            pg_sys::pg_rewrite_query(query)
        }
        #[cfg(not(feature = "pg14"))]
        {
            pg_sys::pg_analyze_and_rewrite_varparams(
                statement,
                text,
                &mut types,
                &mut count,
                std::ptr::null_mut(),
            )
        }
    }
}

/// Analyzes a statement without parameters, and does not rewrite it.
///
/// # Safety
/// `statement` comes from parsing `text`.
pub unsafe fn analyze_only(
    statement: *mut pg_sys::RawStmt,
    text: *const std::ffi::c_char,
) -> *mut pg_sys::Query {
    use std::ptr::null_mut;
    unsafe {
        #[cfg(feature = "pg14")]
        {
            pg_sys::parse_analyze(statement, text, null_mut(), 0, null_mut())
        }
        #[cfg(not(feature = "pg14"))]
        {
            pg_sys::parse_analyze_fixedparams(statement, text, null_mut(), 0, null_mut())
        }
    }
}

/// Runs a statement until it gives no more rows.
///
/// # Safety
/// The executor has started it.
pub unsafe fn run_to_the_end(desc: *mut pg_sys::QueryDesc) {
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::ExecutorRun(desc, pg_sys::ScanDirection::ForwardScanDirection, 0, true);
        #[cfg(feature = "pg18")]
        pg_sys::ExecutorRun(desc, pg_sys::ScanDirection::ForwardScanDirection, 0);
    }
}

/// `Anum_pg_aggregate_aggsortop`, the same from PostgreSQL 14 to 18.
const AGGSORTOP: pg_sys::AttrNumber = 16;

/// The operator whose order an aggregate takes the first of, as `min` and `max` do; invalid for others.
///
/// # Safety
/// Within a transaction.
pub unsafe fn sort_operator(aggregate: pg_sys::Oid) -> pg_sys::Oid {
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::AGGFNOID as c_int,
            pg_sys::Datum::from(aggregate),
        );
        if tuple.is_null() {
            return pg_sys::Oid::INVALID;
        }
        let mut is_null = true;
        let operator = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::AGGFNOID as c_int,
            tuple,
            AGGSORTOP,
            &mut is_null,
        );
        pg_sys::ReleaseSysCache(tuple);
        pg_sys::Oid::from(operator.value() as u32)
    }
}

/// The columns of a table's primary key; none when it has none.
///
/// # Safety
/// The table is locked.
pub unsafe fn primary_key(table: pg_sys::Oid) -> Vec<pg_sys::AttrNumber> {
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as c_int);
        let columns = pg_sys::RelationGetIndexAttrBitmap(
            relation,
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY,
        );
        let mut found = vec![];
        let mut member = pg_sys::bms_next_member(columns, -1);
        while member >= 0 {
            found.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as pg_sys::AttrNumber);
            member = pg_sys::bms_next_member(columns, member);
        }
        pg_sys::bms_free(columns);
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
        found
    }
}
