//! What the sync reads from, and leaves out of, the server's description of a relation.
#![allow(unsafe_code)]

use super::side::ForeignKeys;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ptr::null_mut;

/// The index that implements the primary key, deferrable or not; invalid without one.
///
/// # Safety
/// `relation` is open.
pub unsafe fn primary_key_index(relation: pg_sys::Relation) -> Oid {
    // SAFETY: the caller's promise.
    unsafe {
        let list = pg_sys::RelationGetIndexList(relation);
        let mut found = Oid::INVALID;
        for i in 0..if list.is_null() { 0 } else { (*list).length } {
            let oid = (*(*list).elements.add(i as usize)).oid_value;
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            if (*(*index).rd_index).indisprimary && (*(*index).rd_index).indisvalid {
                found = oid;
            }
            pg_sys::index_close(index, pg_sys::NoLock as i32);
        }
        pg_sys::list_free(list);
        found
    }
}

/// Whether a unique index is checked at the end of a statement or transaction.
///
/// # Safety
/// `index` is an index.
pub unsafe fn is_deferrable(index: Oid) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let deferrable = !(*(*relation).rd_index).indimmediate;
        pg_sys::index_close(relation, pg_sys::NoLock as i32);
        deferrable
    }
}

/// Whether the table has an index now: `relhasindex` may also speak of one that was dropped.
///
/// # Safety
/// `relation` is open.
pub unsafe fn has_indexes(relation: pg_sys::Relation) -> bool {
    // SAFETY: the list is a copy.
    unsafe {
        let list = pg_sys::RelationGetIndexList(relation);
        let any = !list.is_null();
        pg_sys::list_free(list);
        any
    }
}

/// Leaves only the triggers that integrity needs: rechecks of deferrable unique constraints and foreign keys.
/// The users' triggers have fired on the side that was written; the sync triggers would come back here.
///
/// # Safety
/// `info` was initialised by the server, so that its trigger description is a private copy.
pub unsafe fn keep_triggers(info: *mut pg_sys::ResultRelInfo, foreign_keys: ForeignKeys) {
    // SAFETY: the caller's promise.
    unsafe {
        let desc = (*info).ri_TrigDesc;
        if desc.is_null() {
            return;
        }
        let triggers = std::slice::from_raw_parts_mut((*desc).triggers, (*desc).numtriggers as usize);
        let mut kept = 0;
        let (mut insert, mut update, mut delete) = (false, false, false);
        for i in 0..triggers.len() {
            let function = triggers[i].tgfoid.to_u32();
            let checks = [pg_sys::F_RI_FKEY_CHECK_INS, pg_sys::F_RI_FKEY_CHECK_UPD].contains(&function);
            if triggers[i].tgisinternal && !(checks && foreign_keys == ForeignKeys::ActionsOnly) {
                let kind = u32::from(triggers[i].tgtype as u16);
                insert |= kind & pg_sys::TRIGGER_TYPE_INSERT != 0;
                update |= kind & pg_sys::TRIGGER_TYPE_UPDATE != 0;
                delete |= kind & pg_sys::TRIGGER_TYPE_DELETE != 0;
                triggers[kept] = triggers[i];
                kept += 1;
            }
        }
        if kept == 0 {
            (*info).ri_TrigDesc = null_mut();
            return;
        }
        let all = (*desc).triggers;
        *desc = pg_sys::TriggerDesc::default();
        (*desc).triggers = all;
        (*desc).numtriggers = kept as i32;
        (*desc).trig_insert_after_row = insert;
        (*desc).trig_update_after_row = update;
        (*desc).trig_delete_after_row = delete;
    }
}

/// The quoted, schema-qualified name, for messages.
///
/// # Safety
/// `relation` is open.
pub unsafe fn relation_name(relation: pg_sys::Relation) -> String {
    // SAFETY: the caller's promise.
    unsafe {
        let rel = (*relation).rd_rel;
        let schema = pg_sys::get_namespace_name((*rel).relnamespace);
        let quoted = pg_sys::quote_qualified_identifier(schema, (*rel).relname.data.as_ptr());
        std::ffi::CStr::from_ptr(quoted).to_string_lossy().into_owned()
    }
}

/// `makeNode`.
///
/// # Safety
/// `T` is the node struct of `tag`.
pub unsafe fn new_node<T>(tag: pg_sys::NodeTag) -> *mut T {
    // SAFETY: the caller's promise.
    unsafe {
        let node = pg_sys::palloc0(std::mem::size_of::<T>()).cast::<T>();
        (*node.cast::<pg_sys::Node>()).type_ = tag;
        node
    }
}
