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
