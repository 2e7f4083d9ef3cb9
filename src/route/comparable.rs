//! Whether two runs of a query must give the same rows, and whether in the same order. Where the order of the rows read has
//! a say in the answer (LIMIT without a total order, `string_agg` without ORDER BY, window functions) they need not.
#![allow(unsafe_code)]

use super::nodes::{cast, cells, length, nth};
use super::state::{self, Key};
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::{Node, NodeTag, Query, RTEKind, RangeTblEntry};
use std::ffi::{c_char, c_void};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The rows come in one order only.
    Total,
    /// The rows are a multiset.
    Any,
}

/// How the results of a query compare; `None` when they do not.
///
/// # Safety
/// `query` is a valid query after the rewriter, within a transaction.
pub unsafe fn order(query: *mut Query) -> Option<Order> {
    // SAFETY: as for this function.
    unsafe {
        if pg_sys::contain_volatile_functions(query.cast()) {
            return None;
        }
        let is_total = is_total(query);
        let depends_on_order = |query: *mut Query| {
            !(*query).limitCount.is_null() || !(*query).limitOffset.is_null() || (*query).hasDistinctOn
        };
        if depends_on_order(query) && !is_total || (*query).hasWindowFuncs {
            return None;
        }
        let mut is_dependent = false;
        compat::query_tree_walker(query, look, (&raw mut is_dependent).cast(), 0);
        if is_dependent {
            return None;
        }
        Some(if is_total { Order::Total } else { Order::Any })
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn look(node: *mut Node, context: *mut c_void) -> bool {
    // SAFETY: the server passes each node of the tree, and the context that it was given.
    unsafe {
        if node.is_null() {
            return false;
        }
        let is_dependent = if let Some(query) = cast::<Query>(node, NodeTag::T_Query) {
            if !(*query).limitCount.is_null()
                || !(*query).limitOffset.is_null()
                || (*query).hasDistinctOn
                || (*query).hasWindowFuncs
            {
                true
            } else {
                return compat::query_tree_walker(query, look, context, 0);
            }
        } else if let Some(aggregate) = cast::<pg_sys::Aggref>(node, NodeTag::T_Aggref) {
            depends_on_order(&*aggregate)
        } else {
            false
        };
        if is_dependent {
            *context.cast::<bool>() = true;
            return true;
        }
        compat::expression_tree_walker(node, look, context)
    }
}

/// An aggregate that is no number, truth or time, as `array_agg` and `string_agg`, has its terms in the order they came in, unless
/// it is `min` or `max`, whose texts are equal where they are equal, or orders them itself.
unsafe fn depends_on_order(aggregate: &pg_sys::Aggref) -> bool {
    let mut category: c_char = 0;
    let mut is_preferred = false;
    // SAFETY: look-ups in the catalog cache.
    unsafe {
        pg_sys::get_type_category_preferred(aggregate.aggtype, &mut category, &mut is_preferred);
        !b"NBDT".contains(&(category as u8))
            && aggregate.aggorder.is_null()
            && compat::sort_operator(aggregate.aggfnoid) == pg_sys::Oid::INVALID
    }
}

/// Whether a query reads one legacy and sorts by its primary key.
unsafe fn is_total(query: *mut Query) -> bool {
    // SAFETY: as for `order`.
    unsafe {
        let is_plain = (*query).setOperations.is_null()
            && (*query).groupClause.is_null()
            && (*query).groupingSets.is_null()
            && !(*query).hasAggs
            && !(*query).hasTargetSRFs
            && length((*(*query).jointree).fromlist) == 1;
        if !is_plain {
            return false;
        }
        let from = nth::<Node>((*(*query).jointree).fromlist, 0);
        let Some(reference) = cast::<pg_sys::RangeTblRef>(from, NodeTag::T_RangeTblRef) else {
            return false;
        };
        let entry = nth::<RangeTblEntry>((*query).rtable, (*reference).rtindex as usize - 1);
        if (*entry).rtekind != RTEKind::RTE_RELATION || state::latest((*entry).relid, Key::Legacy).is_none() {
            return false;
        }
        let mut sorted = vec![];
        for clause in cells::<pg_sys::SortGroupClause>((*query).sortClause) {
            let target = cells::<pg_sys::TargetEntry>((*query).targetList)
                .find(|target| (**target).ressortgroupref == (*clause).tleSortGroupRef);
            if let Some(target) = target
                && let Some(var) = cast::<pg_sys::Var>((*target).expr.cast(), NodeTag::T_Var)
                && (*var).varlevelsup == 0
                && (*var).varno as i64 == i64::from((*reference).rtindex)
            {
                sorted.push((*var).varattno);
            }
        }
        let key = compat::primary_key((*entry).relid);
        !key.is_empty() && key.iter().all(|column| sorted.contains(column))
    }
}
