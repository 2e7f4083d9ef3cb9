//! What EXPLAIN says of routing, and the two functions that explain a query before anybody runs it.
//!
//! EXPLAIN shows the twin by itself. The line that says why is added when the executor ends, which is where the server has
//! the output of a statement open. The state of an EXPLAIN is known where the server asks a hook to explain a query. For
//! EXPLAIN EXECUTE it asks none, so that comes as an empty query that carries the EXECUTE, and is told by it.
#![allow(unsafe_code)]

use super::choose::{self, AskedFor, Session};
use super::decide::{Decision, Reason, Side};
use super::mark::Mark;
use super::nodes::{cast, cells, length};
use super::state::{self, Key};
use super::{hook, reading};
use crate::error::{Error, Result};
use crate::ident::Ident;
use crate::session::PinnedSettings;
use crate::spi;
use pgrx::JsonB;
use pgrx::pg_sys;
use pgrx::pg_sys::{CmdType, ExplainState, NodeTag, Oid, ParamListInfo, PlannedStmt, Query, QueryDesc};
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;

static mut PREVIOUS_EXPLAIN: pg_sys::ExplainOneQuery_hook_type = None;
static mut PREVIOUS_END: pg_sys::ExecutorEnd_hook_type = None;
static mut PREVIOUS_UTILITY: pg_sys::ProcessUtility_hook_type = None;

thread_local! {
    /// The EXPLAIN that is going on; null for none.
    static EXPLAINING: Cell<*mut ExplainState> = const { Cell::new(null_mut()) };
}

// SAFETY: the signatures of executor.h and utility.h; unguarded for the reason that `hook` has.
unsafe extern "C-unwind" {
    fn standard_ExecutorEnd(desc: *mut QueryDesc);
    fn standard_ProcessUtility(
        statement: *mut PlannedStmt,
        text: *const c_char,
        is_read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Called once, when the library is loaded.
pub fn init() {
    // SAFETY: a backend has one thread; whoever was there before is called in turn. The callbacks are functions of this
    // library, which is never unloaded.
    unsafe {
        PREVIOUS_EXPLAIN = pg_sys::ExplainOneQuery_hook;
        pg_sys::ExplainOneQuery_hook = Some(explain);
        PREVIOUS_END = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(end);
        PREVIOUS_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
        pg_sys::RegisterXactCallback(Some(at_transaction_end), null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(_event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    EXPLAINING.set(null_mut());
}

/// An EXPLAIN that an error has ended is nobody's any more; one around it loses its line.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _subtransaction: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        EXPLAINING.set(null_mut());
    }
}

unsafe extern "C-unwind" fn explain(
    query: *mut Query,
    options: c_int,
    into: *mut pg_sys::IntoClause,
    es: *mut ExplainState,
    text: *const c_char,
    params: ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
) {
    // SAFETY: the server passes a query to explain, and so it is passed on.
    unsafe {
        let before = EXPLAINING.replace(es);
        let execute = (*query).utilityStmt;
        match PREVIOUS_EXPLAIN {
            _ if !execute.is_null() => {
                crate::compat::explain_execute(execute.cast(), into, es, text, params, environment);
            }
            None => crate::compat::explain_query(query, options, into, es, text, params, environment),
            Some(previous) => previous(query, options, into, es, text, params, environment),
        }
        EXPLAINING.set(before);
    }
}

unsafe extern "C-unwind" fn utility(
    statement: *mut PlannedStmt,
    text: *const c_char,
    is_read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the server passes a statement to run, and so it, or another in its place, is passed on.
    unsafe {
        let statement = match explained_execute((*statement).utilityStmt) {
            Some(explain) => with_query(statement, explain),
            None => statement,
        };
        let next = PREVIOUS_UTILITY.unwrap_or(standard_ProcessUtility);
        next(
            statement,
            text,
            is_read_only_tree,
            context,
            params,
            environment,
            dest,
            completion,
        );
    }
}

/// The statement, if it is an EXPLAIN EXECUTE.
unsafe fn explained_execute(statement: *mut pg_sys::Node) -> Option<*mut pg_sys::ExplainStmt> {
    // SAFETY: the statement is valid.
    unsafe {
        let explain = cast::<pg_sys::ExplainStmt>(statement, NodeTag::T_ExplainStmt)?;
        let query = cast::<Query>((*explain).query, NodeTag::T_Query)?;
        ((*query).commandType == CmdType::CMD_UTILITY
            && cast::<pg_sys::ExecuteStmt>((*query).utilityStmt, NodeTag::T_ExecuteStmt).is_some())
        .then_some(explain)
    }
}

/// The same EXPLAIN, of a query in place of a utility statement. The original may be a plan that is cached.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn with_query(
    statement: *mut PlannedStmt,
    explain: *mut pg_sys::ExplainStmt,
) -> *mut PlannedStmt {
    // SAFETY: as in `utility`; nodes are made in the current memory context, which the statement runs in.
    unsafe {
        let query = pg_sys::palloc(std::mem::size_of::<Query>()).cast::<Query>();
        *query = *(*explain).query.cast::<Query>();
        (*query).commandType = CmdType::CMD_SELECT;
        (*query).jointree = pg_sys::makeFromExpr(null_mut(), null_mut());
        let explained = pg_sys::palloc(std::mem::size_of::<pg_sys::ExplainStmt>()).cast();
        *explained = *explain;
        (*explained).query = query.cast();
        let passed_on = pg_sys::palloc(std::mem::size_of::<PlannedStmt>()).cast();
        *passed_on = *statement;
        (*passed_on).utilityStmt = explained.cast();
        passed_on
    }
}

unsafe extern "C-unwind" fn end(desc: *mut QueryDesc) {
    // SAFETY: the server passes a statement that ends, and so it is passed on. The EXPLAIN has noted whose plan it printed.
    unsafe {
        let es = EXPLAINING.get();
        if !es.is_null() && (*es).pstmt == (*desc).plannedstmt {
            print(desc, es);
        }
        match PREVIOUS_END {
            None => standard_ExecutorEnd(desc),
            Some(previous) => previous(desc),
        }
    }
}

/// Adds the line to an EXPLAIN.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn print(desc: *mut QueryDesc, es: *mut ExplainState) {
    // SAFETY: the EXPLAIN's output is open; texts are copied by the server.
    unsafe {
        let Some(mark) = Mark::of((*desc).plannedstmt) else {
            return;
        };
        let mut lines: *mut pg_sys::List = null_mut();
        for verdict in hook::decide(desc, mark) {
            let Some(line) = verdict.line() else {
                continue;
            };
            let Ok(line) = CString::new(line) else {
                continue; // a name has no zero byte
            };
            lines = pg_sys::lappend(lines, pg_sys::pstrdup(line.as_ptr()).cast());
        }
        if !lines.is_null() {
            pg_sys::ExplainPropertyList(c"Routing".as_ptr(), lines, es);
        }
    }
}

/// One row of `explain_route_query()`.
pub struct Explained {
    pub relation: Oid,
    pub target: Oid,
    pub tenant: Option<String>,
    pub reason: Reason,
}

/// What would be read for each place of a text of SQL that names a legacy, in the order of the statements.
///
/// # Errors
/// Those of the server for a text that it cannot parse or analyze.
pub fn explain_query(sql: &str) -> Result<Vec<Explained>> {
    let text = CString::new(sql).map_err(|e| Error::Internal(e.to_string()))?;
    let session = Session::now();
    let mut found = vec![];
    // SAFETY: the server parses, analyzes and rewrites the text as that of a client.
    unsafe {
        let snapshot = pg_sys::GetActiveSnapshot();
        for (query, options) in queries(&text) {
            let mut glob = pg_sys::PlannerGlobal {
                type_: NodeTag::T_PlannerGlobal,
                ..Default::default()
            };
            if !reading::mentions_a_legacy(query, &mut glob) {
                continue;
            }
            for place in reading::find(query, options) {
                let tenant = choose::tenant_of(place.tenant, null_mut());
                let relation = place.pair.legacy;
                let seen = state::under(relation, Key::Legacy, snapshot);
                let mut decision = match &seen {
                    Some(pair) => session.decide_query(pair, tenant.as_deref(), place.kept),
                    None => Decision {
                        side: Side::Legacy,
                        reason: Reason::NotPaired,
                    },
                };
                if let (Side::Twin, Some(pair)) = (decision.side, &seen)
                    && let Some(kept) = hook::keeps(&place, pair)
                {
                    decision = Decision {
                        side: Side::Legacy,
                        reason: Reason::Kept(kept),
                    };
                }
                found.push(Explained {
                    relation,
                    target: match decision.side {
                        Side::Legacy => relation,
                        Side::Twin => place.pair.twin,
                    },
                    tenant: session.tenant().map(str::to_string).or(tenant),
                    reason: decision.reason,
                });
            }
        }
    }
    Ok(found)
}

/// The queries of a text after the rewriter, with the options that a cursor for them has; also those inside of DECLARE,
/// EXPLAIN and CREATE TABLE AS.
unsafe fn queries(text: &CString) -> Vec<(*mut Query, c_int)> {
    // SAFETY: as in `explain_query`.
    unsafe {
        let mut found = vec![];
        for statement in cells::<pg_sys::RawStmt>(pg_sys::pg_parse_query(text.as_ptr())) {
            for query in cells::<Query>(crate::compat::analyze(statement, text.as_ptr())) {
                unpack(query, 0, &mut found);
            }
        }
        found
    }
}

unsafe fn unpack(query: *mut Query, options: c_int, found: &mut Vec<(*mut Query, c_int)>) {
    // SAFETY: as in `explain_query`.
    unsafe {
        if (*query).commandType != CmdType::CMD_UTILITY {
            found.push((query, options));
            return;
        }
        let statement = (*query).utilityStmt;
        let (inner, options) = if let Some(declare) =
            cast::<pg_sys::DeclareCursorStmt>(statement, NodeTag::T_DeclareCursorStmt)
        {
            ((*declare).query, (*declare).options)
        } else if let Some(create) =
            cast::<pg_sys::CreateTableAsStmt>(statement, NodeTag::T_CreateTableAsStmt)
        {
            ((*create).query, options)
        } else if let Some(explain) = cast::<pg_sys::ExplainStmt>(statement, NodeTag::T_ExplainStmt) {
            ((*explain).query, options)
        } else {
            return;
        };
        if let Some(inner) = cast::<Query>(inner, NodeTag::T_Query) {
            if (*inner).commandType == CmdType::CMD_UTILITY {
                unpack(inner, options, found);
                return;
            }
            for rewritten in cells::<Query>(pg_sys::QueryRewrite(inner)) {
                found.push((rewritten, options));
            }
        }
    }
}

/// One row of `compare_plans()`.
pub struct Compared {
    pub side: &'static str,
    pub cost: f64,
    pub milliseconds: f64,
    pub rows: i64,
    pub buffers_hit: i64,
    pub buffers_read: i64,
    pub partitions: i64,
    pub plan: Value,
}

/// Runs a query on the legacy and on the twin, and says what each took.
///
/// # Errors
/// `0A000` for anything but one query that only reads; those of the query itself.
pub fn compare(sql: &str) -> Result<Vec<Compared>> {
    let text = CString::new(sql).map_err(|e| Error::Internal(e.to_string()))?;
    // SAFETY: as in `explain_query`.
    let only_reads = unsafe {
        let raw = pg_sys::pg_parse_query(text.as_ptr());
        length(raw) == 1 && {
            let queries = queries(&text);
            let is_select =
                |query: *mut Query| (*query).commandType == CmdType::CMD_SELECT && !(*query).hasModifyingCTE;
            let statement = super::nodes::nth::<pg_sys::RawStmt>(raw, 0);
            cast::<pg_sys::SelectStmt>((*statement).stmt, NodeTag::T_SelectStmt)
                .is_some_and(|select| (*select).intoClause.is_null())
                && queries.len() == 1
                && queries.iter().all(|(query, _)| is_select(*query))
        }
    };
    if !only_reads {
        return Err(Error::Unsupported {
            what: "only one query that reads can be compared".into(),
            hint: "Give one SELECT, without INTO and without a WITH that writes.".into(),
        });
    }
    let sides = [(Side::Legacy, "legacy"), (Side::Twin, "twin")];
    let twins = twins_of(sql)?;
    sides
        .into_iter()
        .map(|(side, name)| compare_side(sql, side, name, &twins))
        .collect()
}

/// The twins of the legacies that a query reads.
fn twins_of(sql: &str) -> Result<Vec<Oid>> {
    let mut twins = vec![];
    for place in explain_query(sql)? {
        // SAFETY: within a transaction.
        let pair = unsafe { state::latest(place.relation, Key::Legacy) };
        twins.extend(pair.map(|pair| pair.twin));
    }
    Ok(twins)
}

fn compare_side(sql: &str, side: Side, name: &'static str, twins: &[Oid]) -> Result<Compared> {
    let _asked = AskedFor::new(side);
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, VERBOSE, FORMAT json) {sql}");
    let run = || spi::explained(&explain);
    let plan = crate::error::keeping_sqlstate(run, |_| None)?;
    let _path = PinnedSettings::search_path();
    let top = plan
        .get(0)
        .and_then(|explained| explained.get("Plan"))
        .cloned()
        .unwrap_or_default();
    let number = |key: &str| top.get(key).and_then(Value::as_f64).unwrap_or_default();
    let mut scanned = HashSet::new();
    gather_scanned(&top, &mut scanned);
    let mut partitions = HashSet::new();
    for twin in twins {
        for partition in crate::ddl::pairs::partitions(*twin)? {
            partitions.insert((partition.name.schema, partition.name.name));
        }
    }
    Ok(Compared {
        side: name,
        cost: number("Total Cost"),
        milliseconds: plan
            .get(0)
            .and_then(|explained| explained.get("Execution Time"))
            .and_then(Value::as_f64)
            .unwrap_or_default(),
        rows: (number("Actual Rows") * number("Actual Loops").max(1.0)) as i64,
        buffers_hit: number("Shared Hit Blocks") as i64,
        buffers_read: number("Shared Read Blocks") as i64,
        partitions: scanned.iter().filter(|name| partitions.contains(*name)).count() as i64,
        plan,
    })
}

/// The tables that the nodes of a plan have read, by schema and name.
fn gather_scanned(node: &Value, scanned: &mut HashSet<(Ident, Ident)>) {
    let text = |key: &str| node.get(key).and_then(Value::as_str).map(Ident::new);
    let has_run = node
        .get("Actual Loops")
        .and_then(Value::as_f64)
        .unwrap_or_default()
        > 0.0;
    if let (Some(schema), Some(name), true) = (text("Schema"), text("Relation Name"), has_run) {
        scanned.insert((schema, name));
    }
    for inner in node.get("Plans").and_then(Value::as_array).into_iter().flatten() {
        gather_scanned(inner, scanned);
    }
}

impl Compared {
    pub fn plan(self) -> JsonB {
        JsonB(self.plan)
    }
}
