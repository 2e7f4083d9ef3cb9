//! What of a query reads a legacy, and for which tenant. Looks at query trees after the rewriter, and changes nothing but
//! set-returning SQL functions, which it inlines as the planner would a moment later.
#![allow(unsafe_code)]

use super::decide::Kept;
use super::nodes::{cast, cells, length, nth, strip};
use super::state::{self, Key, PairState};
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::{AttrNumber, Node, NodeTag, Query, RTEKind, RangeTblEntry};
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::rc::Rc;

/// One place of a query where a legacy is read.
pub struct Reading {
    /// The query, at whatever depth, whose range table has it.
    pub query: *mut Query,
    /// Its number there, from 1.
    pub number: usize,
    pub pair: Rc<PairState>,
    /// What keeps this place on the legacy.
    pub kept: Option<Kept>,
    /// The legacy's row is used as a whole.
    pub whole_row: bool,
    /// A constant or a parameter that the tenant column is compared with; null for none.
    pub tenant: *mut Node,
    /// What [`state::messages`] was when the pair was looked at.
    pub messages: u64,
}

/// The first oid that belongs to a user's object.
const FIRST_NORMAL_OBJECT: u32 = 16384;

// Flags of `query_tree_walker`.
const IGNORE_RANGE_TABLE_QUERIES: c_int = 0x01;
const IGNORE_CTE_QUERIES: c_int = 0x02;

/// Whether a query certainly reads no legacy: what nearly all of them are told by, so it calls nothing and takes no
/// memory.
///
/// # Safety
/// `query` is a valid query after the rewriter.
pub unsafe fn is_of_strangers(query: *mut Query) -> bool {
    // SAFETY: as for this function.
    unsafe {
        !(*query).hasSubLinks
            && (*query).cteList.is_null()
            && cells::<RangeTblEntry>((*query).rtable).all(|entry| match (*entry).rtekind {
                RTEKind::RTE_RELATION => !is_table(entry) || state::is_stranger((*entry).relid),
                RTEKind::RTE_SUBQUERY => is_of_strangers((*entry).subquery),
                RTEKind::RTE_FUNCTION => false,
                _ => true,
            })
    }
}

/// Whether a range table entry is a table of the user's.
unsafe fn is_table(entry: *mut RangeTblEntry) -> bool {
    // SAFETY: the entry is valid.
    unsafe {
        (*entry).relkind as u8 == pg_sys::RELKIND_RELATION && (*entry).relid.to_u32() >= FIRST_NORMAL_OBJECT
    }
}

/// Whether a query, or one inside it, reads a legacy. This is asked for every query, so it looks at range tables only.
///
/// # Safety
/// `query` is a valid query after the rewriter; `glob` takes what inlining depends on.
pub unsafe fn mentions_a_legacy(query: *mut Query, glob: *mut pg_sys::PlannerGlobal) -> bool {
    // SAFETY: as for this function.
    unsafe {
        let mut found = false;
        for entry in cells::<RangeTblEntry>((*query).rtable) {
            found |= match (*entry).rtekind {
                RTEKind::RTE_RELATION => is_table(entry) && state::may_be_legacy((*entry).relid),
                RTEKind::RTE_SUBQUERY => mentions_a_legacy((*entry).subquery, glob),
                RTEKind::RTE_FUNCTION => {
                    inline(query, entry, glob);
                    (*entry).rtekind == RTEKind::RTE_SUBQUERY && mentions_a_legacy((*entry).subquery, glob)
                }
                _ => false,
            };
        }
        for cte in cells::<pg_sys::CommonTableExpr>((*query).cteList) {
            if let Some(inner) = cast::<Query>((*cte).ctequery, NodeTag::T_Query) {
                found |= mentions_a_legacy(inner, glob);
            }
        }
        if (*query).hasSubLinks {
            let mut search = Search { glob, found: false };
            compat::query_tree_walker(
                query,
                search_sublinks,
                (&raw mut search).cast(),
                IGNORE_RANGE_TABLE_QUERIES | IGNORE_CTE_QUERIES,
            );
            found |= search.found;
        }
        found
    }
}

struct Search {
    glob: *mut pg_sys::PlannerGlobal,
    found: bool,
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn search_sublinks(node: *mut Node, context: *mut c_void) -> bool {
    // SAFETY: the server passes each node of the tree, and the context that it was given.
    unsafe {
        if node.is_null() {
            return false;
        }
        if let Some(query) = cast::<Query>(node, NodeTag::T_Query) {
            let search = context.cast::<Search>();
            (*search).found |= mentions_a_legacy(query, (*search).glob);
            return false;
        }
        compat::expression_tree_walker(node, search_sublinks, context)
    }
}

/// The pair whose legacy a range table entry is.
unsafe fn legacy_of(entry: *mut RangeTblEntry) -> Option<Rc<PairState>> {
    // SAFETY: the entry is valid, and planning goes on within a transaction.
    unsafe {
        if is_table(entry) {
            state::latest((*entry).relid, Key::Legacy)
        } else {
            None
        }
    }
}

/// Puts the query of a set-returning SQL function in its place, if the planner would.
unsafe fn inline(query: *mut Query, entry: *mut RangeTblEntry, glob: *mut pg_sys::PlannerGlobal) {
    // SAFETY: as `preprocess_function_rtes` of the server does, with a planner's state that has what these functions use.
    unsafe {
        if length((*entry).functions) != 1 || (*entry).funcordinality {
            return;
        }
        let function = nth::<pg_sys::RangeTblFunction>((*entry).functions, 0);
        let Some(call) = cast::<pg_sys::FuncExpr>((*function).funcexpr, NodeTag::T_FuncExpr) else {
            return;
        };
        if (*call).funcid.to_u32() < FIRST_NORMAL_OBJECT {
            return;
        }
        let mut root = pg_sys::PlannerInfo {
            type_: NodeTag::T_PlannerInfo,
            parse: query,
            glob,
            query_level: 1,
            planner_cxt: pg_sys::CurrentMemoryContext,
            ..Default::default()
        };
        (*entry).functions = pg_sys::eval_const_expressions(&mut root, (*entry).functions.cast()).cast();
        let inlined = pg_sys::inline_set_returning_function(&mut root, entry);
        if !inlined.is_null() {
            (*entry).rtekind = RTEKind::RTE_SUBQUERY;
            (*entry).subquery = inlined;
            (*entry).security_barrier = false;
            (*entry).functions = std::ptr::null_mut();
            (*entry).funcordinality = false;
        }
    }
}

/// Every place where `query`, or one inside it, reads a legacy.
///
/// # Safety
/// As for [`mentions_a_legacy`].
pub unsafe fn find(query: *mut Query, cursor_options: c_int) -> Vec<Reading> {
    let mut walk = Walk::default();
    // SAFETY: as for this function.
    unsafe {
        walk.enter(query);
        let kept =
            if (*query).commandType != pg_sys::CmdType::CMD_SELECT || (*query).hasModifyingCTE || walk.writes
            {
                Some(Kept::Writes)
            } else if walk.locks_rows {
                Some(Kept::LocksRows)
            } else if cursor_options & pg_sys::CURSOR_OPT_FAST_PLAN as c_int != 0
                && cursor_options & pg_sys::CURSOR_OPT_INSENSITIVE as c_int == 0
                && is_updatable(query)
            {
                Some(Kept::Cursor)
            } else if pg_sys::IsLogicalWorker() {
                Some(Kept::Replication)
            } else {
                None
            };
        if kept.is_some() {
            for reading in &mut walk.readings {
                reading.kept = kept;
            }
        }
    }
    walk.readings
}

/// Whether WHERE CURRENT OF might be used with a cursor for this query, as the SQL standard has it: it reads one table,
/// and neither groups nor sorts.
unsafe fn is_updatable(query: *mut Query) -> bool {
    // SAFETY: the query is valid.
    unsafe {
        let is_plain = (*query).setOperations.is_null()
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && (*query).distinctClause.is_null()
            && (*query).sortClause.is_null()
            && !(*query).hasAggs
            && !(*query).hasWindowFuncs;
        if !is_plain || length((*(*query).jointree).fromlist) != 1 {
            return false;
        }
        let from = nth::<Node>((*(*query).jointree).fromlist, 0);
        let Some(reference) = cast::<pg_sys::RangeTblRef>(from, NodeTag::T_RangeTblRef) else {
            return false;
        };
        let entry = nth::<RangeTblEntry>((*query).rtable, (*reference).rtindex as usize - 1);
        match (*entry).rtekind {
            RTEKind::RTE_RELATION => true,
            RTEKind::RTE_SUBQUERY => is_updatable((*entry).subquery),
            _ => false,
        }
    }
}

/// A column of a range table entry, and what it equals.
type Equality = (usize, AttrNumber, *mut Node);

#[derive(Default)]
struct Walk {
    readings: Vec<Reading>,
    /// The queries around the place of the walk, the innermost last.
    levels: Vec<*mut Query>,
    /// What columns of a query's result are known to equal, from the query around it.
    given: HashMap<*mut Query, Vec<(AttrNumber, *mut Node)>>,
    locks_rows: bool,
    writes: bool,
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut Node, context: *mut c_void) -> bool {
    // SAFETY: the server passes each node of the tree, and the context that it was given.
    unsafe {
        if node.is_null() {
            return false;
        }
        let walk = &mut *context.cast::<Walk>();
        if let Some(query) = cast::<Query>(node, NodeTag::T_Query) {
            walk.enter(query);
            return false;
        }
        if let Some(var) = cast::<pg_sys::Var>(node, NodeTag::T_Var) {
            walk.note(&*var);
            return false;
        }
        compat::expression_tree_walker(node, visit, context)
    }
}

impl Walk {
    unsafe fn enter(&mut self, query: *mut Query) {
        // SAFETY: the query is valid.
        unsafe {
            self.locks_rows |= !(*query).rowMarks.is_null();
            self.writes |= (*query).commandType != pg_sys::CmdType::CMD_SELECT;
            let first = self.readings.len();
            for (place, entry) in cells::<RangeTblEntry>((*query).rtable).enumerate() {
                if (*entry).rtekind != RTEKind::RTE_RELATION {
                    continue;
                }
                let messages = state::messages();
                let Some(pair) = legacy_of(entry) else {
                    continue;
                };
                let kept = if !(*entry).tablesample.is_null() {
                    Some(Kept::Tablesample)
                } else if !(*entry).inh {
                    Some(Kept::Only)
                } else {
                    None
                };
                self.readings.push(Reading {
                    query,
                    number: place + 1,
                    pair,
                    kept,
                    whole_row: false,
                    tenant: std::ptr::null_mut(),
                    messages,
                });
            }
            self.find_tenants(query, first);
            // A query inside another may read the columns of that one, which its own tables do not tell of.
            let is_plain = self.levels.is_empty() && reads_plain_columns(query);
            // The walk finds nothing in these; a debug build looks whether that is so.
            if !is_plain || cfg!(debug_assertions) {
                self.levels.push(query);
                compat::query_tree_walker(query, visit, (&raw mut *self).cast(), 0);
                self.levels.pop();
            }
            debug_assert!(
                !is_plain
                    || self.readings.iter().all(|reading| reading.query != query
                        || !reading.whole_row && reading.kept != Some(Kept::SystemColumn)),
                "the rights to check tell of all columns that are read"
            );
        }
    }

    /// Looks for columns of legacies that are used in a way that only the legacy can serve.
    fn note(&mut self, var: &pg_sys::Var) {
        let Some(level) = self.levels.len().checked_sub(1 + var.varlevelsup as usize) else {
            return;
        };
        if var.varattno > 0 {
            return;
        }
        let query = self.levels[level];
        for reading in &mut self.readings {
            if reading.query == query && reading.number as i64 == i64::from(var.varno) {
                if var.varattno < 0 {
                    reading.kept = Some(Kept::SystemColumn);
                } else {
                    reading.whole_row = true;
                }
            }
        }
    }

    /// Finds for which tenant the legacies of `query`, which are the readings from `first` on, are read.
    unsafe fn find_tenants(&mut self, query: *mut Query, first: usize) {
        // SAFETY: the query is valid.
        unsafe {
            let is_of_use = |entry: *mut RangeTblEntry| (*entry).rtekind == RTEKind::RTE_SUBQUERY;
            let given = self.given.remove(&query).unwrap_or_default();
            let has_subqueries = cells((*query).rtable).any(is_of_use);
            let has_tenants = self.readings[first..]
                .iter()
                .any(|reading| reading.pair.tenant_column.is_some());
            if !has_tenants && !has_subqueries {
                return;
            }
            let mut known: Vec<Equality> = vec![];
            let mut links = vec![];
            if !(*query).setOperations.is_null() {
                for entry in cells::<RangeTblEntry>((*query).rtable) {
                    if is_of_use(entry) && !given.is_empty() {
                        self.given.insert((*entry).subquery, given.clone());
                    }
                }
                return;
            }
            for (column, value) in given {
                if let Some(target) =
                    cells::<pg_sys::TargetEntry>((*query).targetList).find(|t| (**t).resno == column)
                    && let Some((number, attribute)) = column_of(query, (*target).expr.cast())
                {
                    known.push((number, attribute, value));
                }
            }
            equalities(query, (*query).jointree.cast(), &mut known, &mut links);
            // What equals a column that equals a value equals that value.
            let mut grew = !links.is_empty();
            while grew {
                grew = false;
                for &(a, b) in &links {
                    for (from, to) in [(a, b), (b, a)] {
                        let value = known.iter().find(|k| (k.0, k.1) == from).map(|k| k.2);
                        if let Some(value) = value
                            && !known.iter().any(|k| (k.0, k.1) == to)
                        {
                            known.push((to.0, to.1, value));
                            grew = true;
                        }
                    }
                }
            }
            for reading in &mut self.readings[first..] {
                let Some(column) = tenant_attribute(&reading.pair) else {
                    continue;
                };
                if let Some(found) = known.iter().find(|k| k.0 == reading.number && k.1 == column) {
                    reading.tenant = found.2;
                }
            }
            for (place, entry) in cells::<RangeTblEntry>((*query).rtable).enumerate() {
                let inside: Vec<_> = known
                    .iter()
                    .filter(|k| k.0 == place + 1)
                    .map(|k| (k.1, k.2))
                    .collect();
                if is_of_use(entry) && !inside.is_empty() {
                    self.given.insert((*entry).subquery, inside);
                }
            }
        }
    }
}

/// Whether a query is one without others inside, and reads plain columns only: no row as a whole and no system column. That
/// is known from the columns on which it needs rights.
unsafe fn reads_plain_columns(query: *mut Query) -> bool {
    // SAFETY: the query is valid.
    unsafe {
        !(*query).hasSubLinks
            && (*query).cteList.is_null()
            && (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && cells::<RangeTblEntry>((*query).rtable).all(|entry| match (*entry).rtekind {
                RTEKind::RTE_RELATION => {
                    (*entry).securityQuals.is_null() && !compat::reads_rows_or_system_columns(query, entry)
                }
                RTEKind::RTE_JOIN | RTEKind::RTE_RESULT => true,
                _ => false,
            })
    }
}

/// The number of the tenant column; `None` when the pair has none, or it was dropped.
fn tenant_attribute(pair: &PairState) -> Option<AttrNumber> {
    let name = CString::new(pair.tenant_column.as_deref()?).ok()?;
    // SAFETY: a look-up in the catalog cache.
    let number = unsafe { pg_sys::get_attnum(pair.legacy, name.as_ptr()) };
    (number > 0).then_some(number)
}

type Column = (usize, AttrNumber);

/// The column of a range table entry of `query` that an expression is; behind a join, that of the table joined.
unsafe fn column_of(query: *mut Query, node: *mut Node) -> Option<Column> {
    // SAFETY: the query and the expression are valid.
    unsafe {
        let var = cast::<pg_sys::Var>(strip(node), NodeTag::T_Var)?;
        if (*var).varlevelsup != 0 || (*var).varattno <= 0 {
            return None;
        }
        let number = usize::try_from((*var).varno).ok()?;
        let entry = nth::<RangeTblEntry>((*query).rtable, number.checked_sub(1)?);
        if entry.is_null() {
            return None;
        }
        if (*entry).rtekind == RTEKind::RTE_JOIN {
            return column_of(query, nth((*entry).joinaliasvars, (*var).varattno as usize - 1));
        }
        Some((number, (*var).varattno))
    }
}

/// Gathers what must hold of each row of the query: columns that equal a value, and columns that equal each other. Below
/// an outer join it holds of the rows that are read.
unsafe fn equalities(
    query: *mut Query,
    node: *mut Node,
    known: &mut Vec<Equality>,
    links: &mut Vec<(Column, Column)>,
) {
    // SAFETY: the query and its join tree are valid.
    unsafe {
        if let Some(from) = cast::<pg_sys::FromExpr>(node, NodeTag::T_FromExpr) {
            for item in cells((*from).fromlist) {
                equalities(query, item, known, links);
            }
            equalities(query, (*from).quals, known, links);
        } else if let Some(join) = cast::<pg_sys::JoinExpr>(node, NodeTag::T_JoinExpr) {
            equalities(query, (*join).larg, known, links);
            equalities(query, (*join).rarg, known, links);
            equalities(query, (*join).quals, known, links);
        } else if let Some(all) = cast::<pg_sys::BoolExpr>(node, NodeTag::T_BoolExpr) {
            if (*all).boolop == pg_sys::BoolExprType::AND_EXPR {
                for item in cells((*all).args) {
                    equalities(query, item, known, links);
                }
            }
        } else if let Some(operation) = cast::<pg_sys::OpExpr>(node, NodeTag::T_OpExpr)
            && length((*operation).args) == 2
            && pg_sys::get_oprrest((*operation).opno).to_u32() == pg_sys::F_EQSEL
        {
            let sides = [0, 1].map(|i| nth::<Node>((*operation).args, i));
            let columns = sides.map(|side| column_of(query, side));
            match columns {
                [Some(a), Some(b)] => links.push((a, b)),
                [Some(a), None] => known.extend(value_of(sides[1]).map(|value| (a.0, a.1, value))),
                [None, Some(b)] => known.extend(value_of(sides[0]).map(|value| (b.0, b.1, value))),
                [None, None] => {}
            }
        }
    }
}

/// A constant or a parameter of the statement.
unsafe fn value_of(node: *mut Node) -> Option<*mut Node> {
    // SAFETY: the expression is valid.
    unsafe {
        let node = strip(node);
        if let Some(constant) = cast::<pg_sys::Const>(node, NodeTag::T_Const) {
            return (!(*constant).constisnull).then_some(node);
        }
        let parameter = cast::<pg_sys::Param>(node, NodeTag::T_Param)?;
        ((*parameter).paramkind == pg_sys::ParamKind::PARAM_EXTERN).then_some(node)
    }
}
