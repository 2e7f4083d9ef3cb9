//! What a plan remembers of the decisions that it was made with: an entry at the end of its range table, of a kind that the
//! executor passes over. So it lives, is copied and goes with the plan, wherever plans are cached. It holds the query as it
//! was before, so that the statement can be planned for other sides, and for each place that reads a legacy what the
//! decision depends on.
//!
//! The entry is an RTE_RESULT named [`NAME`]: `subquery` is the query, `values_lists` one constant with all numbers, and the
//! tenant of each place. A mark is made and copied with every custom plan, so it has few nodes: a version that had a
//! constant for each number took 0.2 µs longer to make, and the names of the columns of the tables as long again to copy.
#![allow(unsafe_code)]

use super::decide::{Kept, Side};
use super::nodes::{cells, copy, length, nth};
use super::reading::Reading;
use super::state::PairState;
use super::substitute;
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::{Alias, Const, List, Node, NodeTag, Oid, PlannedStmt, Query, RTEKind, RangeTblEntry};
use std::ffi::{CStr, c_char, c_int, c_void};

// SAFETY: the signatures of palloc.h, pg_list.h and makefuncs.h. A mark is made without pgrx's guard, which costs as much as
// what it guards here: these fail for want of memory alone, and `Mark::put` holds nothing that has to be dropped.
unsafe extern "C-unwind" {
    fn palloc(size: pg_sys::Size) -> *mut c_void;
    fn palloc0(size: pg_sys::Size) -> *mut c_void;
    fn lappend(list: *mut List, datum: *mut c_void) -> *mut List;
    fn makeAlias(name: *const c_char, columns: *mut List) -> *mut Alias;
    fn makeConst(
        type_oid: Oid,
        modifier: i32,
        collation: Oid,
        length: c_int,
        value: pg_sys::Datum,
        is_null: bool,
        by_value: bool,
    ) -> *mut Const;
}

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
            let numbers = Numbers::of_places(places.len());
            numbers.put(0, header.statement);
            numbers.put(1, header.cursor_options.into());
            numbers.put(2, header.is_generic.into());
            let mut list: *mut List = lappend(std::ptr::null_mut(), numbers.constant().cast());
            for (i, place) in places.iter().enumerate() {
                let first = OF_HEADER + i * OF_PLACE;
                numbers.put(first, i64::from(place.legacy.to_u32()));
                numbers.put(first + 1, (place.side == Side::Twin).into());
                numbers.put(first + 2, place.kept.map_or(0, |kept| kept as i64));
                numbers.put(first + 3, place.layout);
                numbers.put(first + 4, place.pair.into());
                let tenant = if place.tenant.is_null() {
                    std::ptr::null_mut()
                } else {
                    copy(place.tenant)
                };
                list = lappend(list, tenant.cast());
            }
            let entry = palloc0(std::mem::size_of::<RangeTblEntry>()).cast::<RangeTblEntry>();
            (*entry).type_ = NodeTag::T_RangeTblEntry;
            (*entry).rtekind = RTEKind::RTE_RESULT;
            (*entry).eref = makeAlias(NAME.as_ptr(), std::ptr::null_mut());
            (*entry).subquery = original;
            (*entry).values_lists = list;
            (*plan).rtable = lappend((*plan).rtable, entry.cast());
            compat::leave_out_empty_rights(plan);
        }
    }

    /// The query that the planner got, to be looked at only: it lacks names of columns.
    pub fn query(&self) -> *mut Query {
        // SAFETY: the mark lives with its plan.
        unsafe { (*self.entry).subquery }
    }

    /// A copy of the query that the planner got, to be planned.
    ///
    /// # Safety
    /// Within a transaction that has locked the tables of the plan.
    pub unsafe fn query_to_plan(&self) -> *mut Query {
        // SAFETY: as for this function.
        unsafe {
            let query = copy(self.query());
            for entry in cells::<RangeTblEntry>((*query).rtable) {
                if let Some(names) = names_to_leave_out(entry)
                    && (*names).colnames.is_null()
                {
                    (*names).colnames = substitute::column_names((*entry).relid);
                }
            }
            query
        }
    }

    pub fn header(&self) -> Header {
        let numbers = self.numbers();
        Header {
            statement: numbers.get(0),
            cursor_options: numbers.get(1) as c_int,
            is_generic: numbers.get(2) != 0,
        }
    }

    fn numbers(&self) -> Numbers {
        // SAFETY: as `put` made it.
        unsafe {
            let constant = nth::<Const>((*self.entry).values_lists, 0);
            Numbers((*constant).constvalue.cast_mut_ptr())
        }
    }

    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let numbers = self.numbers();
        // SAFETY: as `put` made it.
        unsafe {
            cells::<Node>((*self.entry).values_lists)
                .skip(1)
                .enumerate()
                .map(move |(i, tenant)| {
                    let value = |n| numbers.get(OF_HEADER + i * OF_PLACE + n);
                    Place {
                        legacy: Oid::from(value(0) as u32),
                        side: if value(1) != 0 { Side::Twin } else { Side::Legacy },
                        kept: Kept::from_number(value(2) as u8),
                        layout: value(3),
                        pair: value(4) as i32,
                        tenant,
                    }
                })
        }
    }
}

/// How many numbers a header is, and a place.
const OF_HEADER: usize = 3;
const OF_PLACE: usize = 5;

/// The numbers of a mark: a `bytea`.
#[derive(Clone, Copy)]
struct Numbers(*mut pg_sys::varlena);

impl Numbers {
    /// # Safety
    /// Allocates in the current memory context; all numbers are to be put.
    unsafe fn of_places(count: usize) -> Numbers {
        let bytes = pg_sys::VARHDRSZ + (OF_HEADER + count * OF_PLACE) * 8;
        // SAFETY: as for this function.
        unsafe {
            let numbers = palloc(bytes).cast::<pg_sys::varlena>();
            pgrx::set_varsize_4b(numbers, bytes as i32);
            Numbers(numbers)
        }
    }

    /// The place of a number, which need not be aligned.
    fn at(self, place: usize) -> *mut i64 {
        self.0
            .cast::<u8>()
            .wrapping_add(pg_sys::VARHDRSZ + place * 8)
            .cast()
    }

    /// # Safety
    /// There is such a place.
    unsafe fn put(self, place: usize, value: i64) {
        // SAFETY: the caller's promise.
        unsafe { self.at(place).write_unaligned(value) }
    }

    fn get(self, place: usize) -> i64 {
        // SAFETY: asked for the places that were put.
        unsafe { self.at(place).read_unaligned() }
    }

    /// # Safety
    /// Allocates in the current memory context.
    unsafe fn constant(self) -> *mut Const {
        let value = pg_sys::Datum::from(self.0);
        // SAFETY: the caller's promise.
        unsafe { makeConst(pg_sys::BYTEAOID, -1, Oid::INVALID, -1, value, false, false) }
    }
}

/// A copy of a query for a mark: without the names of columns that can be had from the tables themselves.
///
/// # Safety
/// `query` is valid.
pub unsafe fn copy_for_mark(query: *mut Query) -> *mut Query {
    // SAFETY: as for this function. Should the copy fail, the query is not planned either.
    unsafe {
        let left_out: Vec<_> = cells::<RangeTblEntry>((*query).rtable)
            .filter_map(|entry| names_to_leave_out(entry))
            .map(|names| {
                (
                    names,
                    std::mem::replace(&mut (*names).colnames, std::ptr::null_mut()),
                )
            })
            .collect();
        let copied = copy(query);
        for (names, columns) in left_out.into_iter().rev() {
            (*names).colnames = columns;
        }
        copied
    }
}

/// Where the names of a relation's columns are, unless the statement gives them other names.
unsafe fn names_to_leave_out(entry: *mut RangeTblEntry) -> Option<*mut Alias> {
    // SAFETY: the entry is valid.
    unsafe {
        let is_renamed = !(*entry).alias.is_null() && !(*(*entry).alias).colnames.is_null();
        let names = (*entry).eref;
        ((*entry).rtekind == RTEKind::RTE_RELATION && !is_renamed && !names.is_null()).then_some(names)
    }
}

impl Place {
    /// The number of no layout.
    pub const NO_LAYOUT: i64 = -1;

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
