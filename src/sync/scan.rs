//! Reads one row through an index.
#![allow(unsafe_code)]

use super::side::Slot;
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ptr::null_mut;

/// Puts the first row into `into` that has the values of `key` in the first `columns` columns of an index, that `snapshot`
/// sees and `accept` takes. Both slots are in the format of `relation`; the row is a copy.
///
/// # Safety
/// `relation` is open, `index` is one of its indexes, the snapshot is registered.
pub unsafe fn scan_index(
    relation: pg_sys::Relation,
    index: Oid,
    columns: usize,
    key: Slot,
    snapshot: pg_sys::Snapshot,
    into: Slot,
    mut accept: impl FnMut(Slot) -> bool,
) -> bool {
    // SAFETY: the index is closed below; on an error the abort does it.
    unsafe {
        let index = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let columns = columns.min((*(*index).rd_index).indnkeyatts as usize);
        let attributes = (*(*index).rd_index).indkey.values.as_slice(columns);
        let mut keys = vec![pg_sys::ScanKeyData::default(); columns];
        for (i, key_data) in keys.iter_mut().enumerate() {
            let mut is_null = false;
            let value = pg_sys::slot_getattr(key, attributes[i].into(), &mut is_null);
            let (family, input) = (*(*index).rd_opfamily.add(i), *(*index).rd_opcintype.add(i));
            let operator =
                pg_sys::get_opfamily_member(family, input, input, pg_sys::BTEqualStrategyNumber as i16);
            pg_sys::ScanKeyEntryInitialize(
                key_data,
                if is_null { pg_sys::SK_ISNULL as i32 } else { 0 },
                (i + 1) as i16,
                pg_sys::BTEqualStrategyNumber as u16,
                Oid::INVALID,
                *(*index).rd_indcollation.add(i),
                pg_sys::get_opcode(operator),
                value,
            );
        }
        let scan = compat::begin_index_scan(relation, index, snapshot, columns as i32);
        pg_sys::index_rescan(scan, keys.as_mut_ptr(), columns as i32, null_mut(), 0);
        let mut found = false;
        while !found && pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, into) {
            found = accept(into);
        }
        if found {
            pg_sys::ExecMaterializeSlot(into);
        }
        pg_sys::index_endscan(scan);
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        found
    }
}
