//! What a plan remembers of the decisions that it was made with: an entry at the end of its range table, of a kind that the
//! executor passes over. So it lives, is copied and goes with the plan, wherever plans are cached. It holds the query as it
//! was before, so that the statement can be planned for other sides, and for each place that reads a legacy what the
//! decision depends on.
//!
//! The entry is an RTE_RESULT named [`NAME`]: `subquery` is the query, `values_lists` a list of lists of constants.
#![allow(unsafe_code)]

use super::decide::{Kept, Side};
use super::nodes::{cells, copy, length, nth, number, number_of};
use super::reading::Reading;
use super::state::PairState;
use pgrx::pg_sys;
use pgrx::pg_sys::{Const, List, Node, NodeTag, Oid, PlannedStmt, Query, RTEKind, RangeTblEntry};
use std::ffi::{CStr, c_int};

const NAME: &CStr = c"partition_router routing";

/// One place that reads a legacy.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub legacy: Oid,
    /// The number of the pair whose twin it is.
    pub pair: i32,
    /// The side that the plan reads.
    pub side: Side,
    pub kept: Option<Kept>,
    /// The pair's partitions as the plan has them.
    pub layout: i64,
    /// A constant or a parameter; null for none.
    pub tenant: *mut Node,
}

/// The mark of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    entry: *mut RangeTblEntry,
}

/// What a mark is made of, all but its places.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// The same in every copy of the plan, and in plans of the same statement for other sides.
    pub statement: i64,
    pub cursor_options: c_int,
    /// Planned without the values of its parameters.
    pub is_generic: bool,
}

impl Mark {
    /// The mark of a plan, if it has one.
    ///
    /// # Safety
    /// `plan` is a valid plan.
    pub unsafe fn of(plan: *const PlannedStmt) -> Option<Mark> {
        // SAFETY: as for this function; no other RTE_RESULT has a name and lists of values.
        unsafe {
            let table = (*plan).rtable;
            let entry = nth::<RangeTblEntry>(table, length(table).checked_sub(1)?);
            if (*entry).rtekind != RTEKind::RTE_RESULT
                || (*entry).values_lists.is_null()
                || (*entry).subquery.is_null()
                || (*entry).eref.is_null()
                || CStr::from_ptr((*(*entry).eref).aliasname) != NAME
            {
                return None;
            }
            Some(Mark { entry })
        }
    }

    /// Puts a mark on a plan.
    ///
    /// # Safety
    /// `plan` is a new plan of `original`, which is as the planner got it and lives as long as the plan.
    pub unsafe fn put(plan: *mut PlannedStmt, original: *mut Query, header: Header, places: &[Place]) {
        // SAFETY: as for this function; nodes are made in the current memory context, where the plan is.
        unsafe {
            let mut lists: *mut List = std::ptr::null_mut();
            let mut add = |cells: &[*mut Node]| {
                let mut list: *mut List = std::ptr::null_mut();
                for cell in cells {
                    list = pg_sys::lappend(list, (*cell).cast());
                }
                lists = pg_sys::lappend(lists, list.cast());
            };
            add(&[
                number(header.statement).cast(),
                number(header.cursor_options.into()).cast(),
                number(header.is_generic.into()).cast(),
            ]);
            for place in places {
                add(&[
                    number(i64::from(place.legacy.to_u32())).cast(),
                    number((place.side == Side::Twin).into()).cast(),
                    number(place.kept.map_or(0, |kept| kept as i64)).cast(),
                    number(place.layout).cast(),
                    number(place.pair.into()).cast(),
                    if place.tenant.is_null() {
                        std::ptr::null_mut()
                    } else {
                        copy(place.tenant)
                    },
                ]);
            }
            let entry = pg_sys::palloc0(std::mem::size_of::<RangeTblEntry>()).cast::<RangeTblEntry>();
            (*entry).type_ = NodeTag::T_RangeTblEntry;
            (*entry).rtekind = RTEKind::RTE_RESULT;
            (*entry).eref = pg_sys::makeAlias(NAME.as_ptr(), std::ptr::null_mut());
            (*entry).subquery = original;
            (*entry).values_lists = lists;
            (*plan).rtable = pg_sys::lappend((*plan).rtable, entry.cast());
        }
    }

    /// The query that the planner got, to be copied before use.
    pub fn query(&self) -> *mut Query {
        // SAFETY: the mark lives with its plan.
        unsafe { (*self.entry).subquery }
    }

    pub fn header(&self) -> Header {
        // SAFETY: as `put` made it.
        unsafe {
            let list = nth::<List>((*self.entry).values_lists, 0);
            let value = |i| number_of(nth::<Const>(list, i));
            Header {
                statement: value(0),
                cursor_options: value(1) as c_int,
                is_generic: value(2) != 0,
            }
        }
    }

    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        // SAFETY: as `put` made it.
        unsafe {
            cells::<List>((*self.entry).values_lists).skip(1).map(|list| {
                let value = |i| number_of(nth::<Const>(list, i));
                Place {
                    legacy: Oid::from(value(0) as u32),
                    side: if value(1) != 0 { Side::Twin } else { Side::Legacy },
                    kept: Kept::from_number(value(2) as u8),
                    layout: value(3),
                    pair: value(4) as i32,
                    tenant: nth(list, 5),
                }
            })
        }
    }
}

impl Place {
    /// Whether the plan reads the twin of this pair with the partitions that it has.
    pub fn is_of(&self, pair: &PairState) -> bool {
        self.side == Side::Twin && self.pair == pair.id && self.layout == pair.layout
    }

    /// The place of a reading, for a plan that reads `side` there.
    pub fn new(reading: &Reading, side: Side, kept: Option<Kept>) -> Place {
        Place {
            legacy: reading.pair.legacy,
            pair: reading.pair.id,
            side,
            kept,
            layout: reading.pair.layout,
            tenant: reading.tenant,
        }
    }
}
