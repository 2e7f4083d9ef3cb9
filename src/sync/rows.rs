//! Rows of different formats.
#![allow(unsafe_code)]

use super::side::Slot;
use crate::compat;
use pgrx::pg_sys;

/// Puts the row in `from` into `to`, through `map` when the formats differ.
pub fn convert(map: *mut pg_sys::TupleConversionMap, from: Slot, to: Slot) -> Slot {
    // SAFETY: the map was made for these two formats. Values stay where they are: `to` is valid while `from` is.
    unsafe {
        if !map.is_null() {
            return pg_sys::execute_attr_map_slot((*map).attrMap, from, to);
        }
        if from == to {
            return to;
        }
        // Attribute by attribute, not as a whole tuple: a tuple older than a column that was added with a
        // default lacks that column, and only the deforming knows its value.
        pg_sys::slot_getallattrs(from);
        pg_sys::ExecClearTuple(to);
        let columns = (*(*from).tts_tupleDescriptor).natts as usize;
        std::ptr::copy_nonoverlapping((*from).tts_values, (*to).tts_values, columns);
        std::ptr::copy_nonoverlapping((*from).tts_isnull, (*to).tts_isnull, columns);
        pg_sys::ExecStoreVirtualTuple(to)
    }
}

/// How rows of the format `from` become rows of `to`, which may have columns that `from` lacks: these are NULL. Allocated in the
/// current memory context.
///
/// # Safety
/// Both are descriptions of rows.
pub unsafe fn partial_map(from: pg_sys::TupleDesc, to: pg_sys::TupleDesc) -> *mut pg_sys::TupleConversionMap {
    // SAFETY: the caller's promise; a map has an entry for each column of `to`, zero for none.
    unsafe {
        let map = pg_sys::make_attrmap((*to).natts);
        let numbers = std::slice::from_raw_parts_mut((*map).attnums, (*to).natts as usize);
        for (number, wanted) in numbers.iter_mut().zip(compat::attributes(to)) {
            let same =
                |a: &pg_sys::FormData_pg_attribute| !a.attisdropped && a.attname.data == wanted.attname.data;
            if !wanted.attisdropped
                && let Some(at) = compat::attributes(from).iter().position(same)
            {
                *number = at as pg_sys::AttrNumber + 1;
            }
        }
        let whole = pg_sys::palloc0(std::mem::size_of::<pg_sys::TupleConversionMap>());
        let whole = whole.cast::<pg_sys::TupleConversionMap>();
        (*whole).indesc = from;
        (*whole).outdesc = to;
        (*whole).attrMap = map;
        whole
    }
}

/// Whether two rows of one format are the same, byte for byte, TOAST and compression aside.
///
/// # Safety
/// Both slots hold a row.
pub unsafe fn same_row(a: Slot, b: Slot) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::slot_getallattrs(a);
        pg_sys::slot_getallattrs(b);
        let desc = (*a).tts_tupleDescriptor;
        compat::attributes(desc).iter().enumerate().all(|(i, attribute)| {
            let (a_null, b_null) = (*(*a).tts_isnull.add(i), *(*b).tts_isnull.add(i));
            attribute.attisdropped
                || (a_null == b_null
                    && (a_null
                        || compat::datum_image_eq(
                            *(*a).tts_values.add(i),
                            *(*b).tts_values.add(i),
                            attribute.attbyval,
                            i32::from(attribute.attlen),
                        )))
        })
    }
}
