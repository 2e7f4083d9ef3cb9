//! Tables as the relation cache and the heap have them.

use pgrx::pg_sys;
use std::ffi::c_int;

#[cfg(any(feature = "pg14", feature = "pg15"))]
pub type RelationFile = pg_sys::RelFileNode;

#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub type RelationFile = pg_sys::RelFileLocator;

/// The file of a relation.
///
/// # Safety
/// `relation` is open.
pub unsafe fn file_of(relation: pg_sys::Relation) -> RelationFile {
    // SAFETY: the caller's promise.
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

/// The attributes of a row format. From PostgreSQL 18 they lie behind an array of shorter ones.
///
/// # Safety
/// `desc` is valid for as long as the result is used.
pub unsafe fn attributes<'a>(desc: pg_sys::TupleDesc) -> &'a [pg_sys::FormData_pg_attribute] {
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
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

/// Whether this transaction gave a relation a new file, as TRUNCATE does.
///
/// # Safety
/// Within a transaction that has locked the relation.
pub unsafe fn has_new_file(relation: pg_sys::Oid) -> bool {
    // SAFETY: the caller's promise.
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

/// The columns of a table's primary key; none when it has none.
///
/// # Safety
/// The table is locked.
pub unsafe fn primary_key(table: pg_sys::Oid) -> Vec<pg_sys::AttrNumber> {
    // SAFETY: the caller's promise.
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
