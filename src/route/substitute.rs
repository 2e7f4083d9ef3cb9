//! Puts the twin in the legacy's place in a query tree: the range table entry becomes one of the twin, columns get the
//! twin's numbers, and a row as a whole is converted to the legacy's row type. What row security added to the entry
//! stays on it. The legacy stays in the range table as well, in no FROM: it carries the permissions to check and keeps the lock,
//! as a view that was expanded does.
#![allow(unsafe_code)]

use super::decide::Kept;
use super::nodes::{cast, copy, nth};
use super::reading::Reading;
use super::state;
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::{AttrNumber, Node, NodeTag, Oid, Query, RangeTblEntry};
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

/// Flag of `query_tree_mutator`: the query itself is changed, not a copy.
const DONT_COPY_QUERY: c_int = 0x40;

thread_local! {
    /// The columns of pairs, until a message says that one of the tables has changed.
    static KNOWN: RefCell<Vec<Rc<Columns>>> = const { RefCell::new(Vec::new()) };
}

/// More are not kept.
const KEPT_PAIRS: usize = 64;

/// Where the columns of a legacy are in its twin.
pub struct Columns {
    /// By the legacy's number less one: the twin's number, 0 for a dropped column.
    numbers: Vec<AttrNumber>,
    /// Every column has the same number on both sides, and both have the same number of columns.
    is_same: bool,
    legacy_row: Oid,
    twin_row: Oid,
    twin_owner: Oid,
    legacy: Oid,
    twin: Oid,
}

/// A relation has changed, or all have.
pub fn forget(relation: Oid) {
    KNOWN.with_borrow_mut(|known| {
        known.retain(|c| relation != Oid::INVALID && relation != c.legacy && relation != c.twin);
    });
}

/// What is known of both tables; `None` when one has a column that the other has not, or as another type, or the twin
/// is no partitioned table.
///
/// # Safety
/// Both are locked, so that messages about them have come.
pub unsafe fn columns(legacy: Oid, twin: Oid) -> Result<Rc<Columns>, Kept> {
    let known = KNOWN.with_borrow(|known| {
        known
            .iter()
            .find(|c| c.legacy == legacy && c.twin == twin)
            .cloned()
    });
    if let Some(columns) = known {
        return Ok(columns);
    }
    // SAFETY: as for this function.
    let columns = unsafe {
        if pg_sys::get_rel_relkind(twin) as u8 != pg_sys::RELKIND_PARTITIONED_TABLE {
            return Err(Kept::TwinGone);
        }
        let before = state::messages();
        let columns = Rc::new(read_columns(legacy, twin).ok_or(Kept::Columns)?);
        if state::messages() != before {
            return Ok(columns);
        }
        columns
    };
    KNOWN.with_borrow_mut(|known| {
        known.truncate(KEPT_PAIRS - 1);
        known.insert(0, Rc::clone(&columns));
    });
    Ok(columns)
}

/// Reads both tables.
///
/// # Safety
/// Both are locked.
unsafe fn read_columns(legacy: Oid, twin: Oid) -> Option<Columns> {
    // SAFETY: relations are closed here, or by the abort; their descriptions are used in between.
    unsafe {
        let (a, b) = (
            pg_sys::relation_open(legacy, pg_sys::NoLock as i32),
            pg_sys::relation_open(twin, pg_sys::NoLock as i32),
        );
        let columns = Columns {
            numbers: vec![],
            is_same: false,
            legacy_row: (*(*a).rd_rel).reltype,
            twin_row: (*(*b).rd_rel).reltype,
            twin_owner: (*(*b).rd_rel).relowner,
            legacy,
            twin,
        };
        let map = numbers(compat::attributes((*a).rd_att), compat::attributes((*b).rd_att));
        pg_sys::relation_close(b, pg_sys::NoLock as i32);
        pg_sys::relation_close(a, pg_sys::NoLock as i32);
        let (numbers, is_same) = map?;
        Some(Columns {
            numbers,
            is_same,
            ..columns
        })
    }
}

fn numbers(
    legacy: &[pg_sys::FormData_pg_attribute],
    twin: &[pg_sys::FormData_pg_attribute],
) -> Option<(Vec<AttrNumber>, bool)> {
    let is_alike = |a: &pg_sys::FormData_pg_attribute, b: &pg_sys::FormData_pg_attribute| {
        !b.attisdropped
            && a.attname.data == b.attname.data
            && a.atttypid == b.atttypid
            && a.atttypmod == b.atttypmod
            && a.attcollation == b.attcollation
    };
    let mut is_same = legacy.len() == twin.len();
    let mut found = Vec::with_capacity(legacy.len());
    for (i, column) in legacy.iter().enumerate() {
        if column.attisdropped {
            is_same &= twin.get(i).is_some_and(|other| other.attisdropped);
            found.push(0);
            continue;
        }
        let place = match twin.get(i) {
            Some(other) if is_alike(column, other) => i,
            _ => twin.iter().position(|other| is_alike(column, other))?,
        };
        is_same &= place == i;
        found.push(place as AttrNumber + 1);
    }
    let living =
        |columns: &[pg_sys::FormData_pg_attribute]| columns.iter().filter(|c| !c.attisdropped).count();
    (living(legacy) == living(twin)).then_some((found, is_same))
}

/// Makes the readings read their twins.
///
/// # Safety
/// They are of `query`, as it is now, each with its columns; the twins are locked.
pub unsafe fn substitute(query: *mut Query, routed: &[(&Reading, Rc<Columns>)]) {
    // SAFETY: as for this function.
    unsafe {
        if routed
            .iter()
            .all(|(reading, columns)| !reading.whole_row && columns.is_same)
        {
            for (reading, columns) in routed {
                replace_entry(reading.query, reading.number, columns);
            }
            return;
        }
        let mut places: Vec<_> = routed.iter().map(|(reading, _)| reading.query).collect();
        let tables: Vec<_> = places.iter().map(|query| (**query).rtable).collect();
        let mut change = Change {
            routed,
            tables: &tables,
            levels: vec![(*query).rtable],
            places: &mut places,
        };
        compat::query_tree_mutator(query, mutate, (&raw mut change).cast(), DONT_COPY_QUERY);
        for ((reading, columns), place) in routed.iter().zip(places) {
            replace_entry(place, reading.number, columns);
        }
    }
}

unsafe fn replace_entry(query: *mut Query, number: usize, columns: &Columns) {
    // SAFETY: as for `substitute`.
    unsafe {
        let entry = nth::<RangeTblEntry>((*query).rtable, number - 1);
        let permissions = pg_sys::palloc(std::mem::size_of::<RangeTblEntry>()).cast::<RangeTblEntry>();
        *permissions = *entry;
        (*permissions).securityQuals = std::ptr::null_mut();
        (*permissions).inh = false;
        (*permissions).inFromCl = false;
        (*permissions).lateral = false;
        (*permissions).eref = pg_sys::makeAlias((*(*entry).eref).aliasname, std::ptr::null_mut());
        (*query).rtable = pg_sys::lappend((*query).rtable, permissions.cast());

        // From PostgreSQL 16 on the rights of an entry are found by its relation as well.
        let reader = statistics_reader(entry, query, columns);
        (*entry).relid = columns.twin;
        (*entry).relkind = pg_sys::RELKIND_PARTITIONED_TABLE as std::ffi::c_char;
        (*entry).inh = true;
        compat::read_as(query, entry, reader);
        if !columns.is_same {
            (*entry).eref = pg_sys::makeAlias((*(*entry).eref).aliasname, column_names(columns.twin));
        }
    }
}

/// As whom the planner may look at the twin's statistics. Who may read the legacy sees as much through the twin's owner,
/// with or without a right of their own on the twin.
unsafe fn statistics_reader(entry: *mut RangeTblEntry, query: *mut Query, columns: &Columns) -> Oid {
    // SAFETY: as for `substitute`.
    unsafe {
        let reader = match compat::checked_as(query, entry) {
            Oid::INVALID => pg_sys::GetUserId(),
            user => user,
        };
        if reader == columns.twin_owner {
            return reader;
        }
        let allowed =
            pg_sys::pg_class_aclcheck(columns.legacy, reader, pg_sys::ACL_SELECT as pg_sys::AclMode);
        if allowed == pg_sys::AclResult::ACLCHECK_OK {
            columns.twin_owner
        } else {
            reader
        }
    }
}

/// The names of a relation's columns, empty for dropped ones, as the parser lists them.
pub unsafe fn column_names(relation: Oid) -> *mut pg_sys::List {
    // SAFETY: the relation is locked; what is listed is copied.
    unsafe {
        let opened = pg_sys::relation_open(relation, pg_sys::NoLock as i32);
        let mut names = std::ptr::null_mut();
        for column in compat::attributes((*opened).rd_att) {
            let name = if column.attisdropped {
                c"".as_ptr()
            } else {
                column.attname.data.as_ptr()
            };
            names = pg_sys::lappend(names, pg_sys::makeString(pg_sys::pstrdup(name)).cast());
        }
        pg_sys::relation_close(opened, pg_sys::NoLock as i32);
        names
    }
}

/// The server copies the node of a query before it asks what is to become of it, but not the list that is its range table:
/// that tells which query it is.
struct Change<'a> {
    routed: &'a [(&'a Reading, Rc<Columns>)],
    /// The range tables that the readings had.
    tables: &'a [*mut pg_sys::List],
    /// The range tables of the queries around the place of the walk, as they were, the innermost last.
    levels: Vec<*mut pg_sys::List>,
    /// The queries that have the readings now.
    places: &'a mut [*mut Query],
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn mutate(node: *mut Node, context: *mut c_void) -> *mut Node {
    // SAFETY: the server passes each node of the tree, and the context that it was given.
    unsafe {
        if node.is_null() {
            return node;
        }
        let change = context.cast::<Change>();
        if let Some(query) = cast::<Query>(node, NodeTag::T_Query) {
            let table = (*query).rtable;
            for (place, of) in (*change).places.iter_mut().zip((*change).tables) {
                if *of == table {
                    *place = query;
                }
            }
            (*change).levels.push(table);
            compat::query_tree_mutator(query, mutate, context, DONT_COPY_QUERY);
            (*change).levels.pop();
            return node;
        }
        if let Some(var) = cast::<pg_sys::Var>(node, NodeTag::T_Var) {
            return match (*change).columns(&*var) {
                Some(columns) => replace_var(var, columns),
                None => copy(node),
            };
        }
        compat::expression_tree_mutator(node, mutate, context)
    }
}

impl Change<'_> {
    /// The columns of the legacy that a variable belongs to, if it is one that is replaced.
    fn columns(&self, var: &pg_sys::Var) -> Option<&Columns> {
        let level = self.levels.len().checked_sub(1 + var.varlevelsup as usize)?;
        let table = self.levels[level];
        let place = self
            .routed
            .iter()
            .zip(self.tables)
            .position(|((reading, _), of)| *of == table && reading.number as i64 == i64::from(var.varno))?;
        self.routed.get(place).map(|(_, columns)| columns.as_ref())
    }
}

/// The same column, or the whole row, of the twin.
unsafe fn replace_var(var: *mut pg_sys::Var, columns: &Columns) -> *mut Node {
    // SAFETY: the variable is one of the legacy; nodes are made in the current memory context.
    unsafe {
        let replaced: *mut pg_sys::Var = copy(var);
        if (*var).varattno > 0 {
            let number = columns.numbers[(*var).varattno as usize - 1];
            (*replaced).varattno = number;
            if (*replaced).varattnosyn == (*var).varattno {
                (*replaced).varattnosyn = number;
            }
            return replaced.cast();
        }
        (*replaced).vartype = columns.twin_row;
        let conversion = pg_sys::palloc0(std::mem::size_of::<pg_sys::ConvertRowtypeExpr>())
            .cast::<pg_sys::ConvertRowtypeExpr>();
        (*conversion).xpr.type_ = NodeTag::T_ConvertRowtypeExpr;
        (*conversion).arg = replaced.cast();
        (*conversion).resulttype = columns.legacy_row;
        (*conversion).convertformat = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        (*conversion).location = -1;
        conversion.cast()
    }
}
