//! Queries: parsing, rights, and EXPLAIN.

use pgrx::pg_sys;
use std::ffi::c_int;

/// As whom the rights on a range table entry are checked; invalid for the current user.
///
/// # Safety
/// `entry` is a relation's entry in the range table of `query`.
pub unsafe fn checked_as(query: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
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
            // The planner wants rights of every table that a query names, if only to know the user.
            (*entry).perminfoindex = 0;
            let rights = pg_sys::addRTEPermissionInfo(&raw mut (*query).rteperminfos, entry);
            (*rights).checkAsUser = user;
        }
    }
}

/// Takes rights that ask for nothing, as [`read_as`] leaves them, out of a plan: the executor has no use for them, and where the server
/// was built with assertions, it says so.
///
/// # Safety
/// `plan` is a new plan.
pub unsafe fn leave_out_empty_rights(plan: *mut pg_sys::PlannedStmt) {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let _ = plan;
    // SAFETY: the caller's promise; entries name their rights by the place in the list, from 1 on.
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    unsafe {
        let cells = |list: *mut pg_sys::List| {
            let count = if list.is_null() {
                0
            } else {
                (*list).length as usize
            };
            (0..count).map(move |i| (*(*list).elements.add(i)).ptr_value)
        };
        let all = (*plan).permInfos;
        let mut kept: *mut pg_sys::List = std::ptr::null_mut();
        let mut places = vec![0];
        let mut number = 0;
        for rights in cells(all) {
            if (*rights.cast::<pg_sys::RTEPermissionInfo>()).requiredPerms == 0 {
                places.push(0);
            } else {
                kept = pg_sys::lappend(kept, rights);
                number += 1;
                places.push(number);
            }
        }
        for entry in cells((*plan).rtable) {
            let entry = entry.cast::<pg_sys::RangeTblEntry>();
            let place = (*entry).perminfoindex as usize;
            (*entry).perminfoindex = places.get(place).copied().unwrap_or(0);
        }
        (*plan).permInfos = kept;
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
        // SAFETY: the promise of the function around it.
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
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
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

/// Begins to sort values of a type by its operator `<`, to be read more than once.
///
/// # Safety
/// The operator is one of the type, which has no collation; what is allocated here is the caller's.
pub unsafe fn begin_sort(
    of: pg_sys::Oid,
    operator: pg_sys::Oid,
    kilobytes: c_int,
) -> *mut pg_sys::Tuplesortstate {
    #[cfg(feature = "pg14")]
    let rereads = true;
    #[cfg(not(feature = "pg14"))]
    let rereads = pg_sys::TUPLESORT_RANDOMACCESS as c_int;
    let none = pg_sys::Oid::INVALID;
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::tuplesort_begin_datum(
            of,
            operator,
            none,
            false,
            kilobytes,
            std::ptr::null_mut(),
            rereads,
        )
    }
}

/// The next value of a sort, as a copy in the current memory context; none after the last.
///
/// # Safety
/// The sort is done, and of values that are passed by reference.
pub unsafe fn next_sorted(state: *mut pg_sys::Tuplesortstate) -> Option<pg_sys::Datum> {
    let (mut value, mut is_null) = (pg_sys::Datum::from(0), false);
    // SAFETY: the caller's promise.
    let found = unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            pg_sys::tuplesort_getdatum(state, true, &mut value, &mut is_null, std::ptr::null_mut())
        }
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        {
            pg_sys::tuplesort_getdatum(state, true, true, &mut value, &mut is_null, std::ptr::null_mut())
        }
    };
    found.then_some(value)
}
