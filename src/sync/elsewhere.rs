//! Where a row of the twin went. Replication applies an UPDATE that moves a row between partitions as DELETE and INSERT, each
//! an event of its own: to the legacy's row, which others may point at, that is one UPDATE. So before a row goes from
//! the legacy, its primary key is looked for in the twin's other partitions.
#![allow(unsafe_code)]

use super::pair_cache::SyncPair;
use super::relation::primary_key_index;
use super::rows::convert;
use super::scan::scan_index;
use super::side::{Side, Slot};
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::CStr;
use std::ptr::null_mut;

/// Puts the row of `twin` that has the primary key of `key` (both in the twin's format) into `into`, in whatever partition it
/// is; gives false when `snapshot` sees none.
///
/// # Safety
/// `legacy` is the other side of `pair`, and the snapshot is registered.
pub unsafe fn find(
    twin: &Side,
    legacy: &Side,
    pair: &SyncPair,
    key: Slot,
    snapshot: pg_sys::Snapshot,
    into: Slot,
) -> bool {
    // SAFETY: relations, maps and slots that are made here are closed here; on an error the abort does it.
    unsafe {
        let columns = index_columns(primary_key_index(legacy.relation()));
        if columns == pair.twin_key.len() {
            return false; // the partition key is part of the primary key: a row that moves has another one
        }
        for &partition in &pair.partitions {
            let leaf = pg_sys::table_open(Oid::from(partition), pg_sys::AccessShareLock as i32);
            let index = primary_key_index(leaf);
            let found = index != Oid::INVALID
                && (*(*leaf).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION
                && begins_with(leaf, index, &pair.twin_key[..columns])
                && {
                    let (wanted, row) = (
                        pg_sys::table_slot_create(leaf, null_mut()),
                        pg_sys::table_slot_create(leaf, null_mut()),
                    );
                    let to_leaf = pg_sys::convert_tuples_by_name(twin.tuple_desc(), (*leaf).rd_att);
                    let to_twin = pg_sys::convert_tuples_by_name((*leaf).rd_att, twin.tuple_desc());
                    convert(to_leaf, key, wanted);
                    let found = scan_index(leaf, index, columns, wanted, snapshot, row, |_| true);
                    if found {
                        convert(to_twin, row, into);
                        pg_sys::ExecMaterializeSlot(into);
                    }
                    pg_sys::ExecDropSingleTupleTableSlot(wanted);
                    pg_sys::ExecDropSingleTupleTableSlot(row);
                    found
                };
            pg_sys::table_close(leaf, pg_sys::NoLock as i32);
            if found {
                return true;
            }
        }
        false
    }
}

/// # Safety
/// `index` is an index.
unsafe fn index_columns(index: Oid) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let columns = (*(*relation).rd_index).indnkeyatts as usize;
        pg_sys::index_close(relation, pg_sys::NoLock as i32);
        columns
    }
}

/// Whether the first columns of an index of `table` have these names.
///
/// # Safety
/// `table` is open, `index` is one of its indexes.
unsafe fn begins_with(table: pg_sys::Relation, index: Oid, names: &[String]) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let numbers = (*(*relation).rd_index)
            .indkey
            .values
            .as_slice((*(*relation).rd_index).indnkeyatts as usize);
        let attributes = compat::attributes((*table).rd_att);
        let begins = numbers.len() >= names.len()
            && names.iter().zip(numbers).all(|(name, number)| {
                CStr::from_ptr(attributes[*number as usize - 1].attname.data.as_ptr())
                    .to_bytes()
                    .eq(name.as_bytes())
            });
        pg_sys::index_close(relation, pg_sys::NoLock as i32);
        begins
    }
}
