//! Capture: while the copy runs, logs the keys of changed rows, old and new. The log has no index, and the twin
//! is not touched, so that a write costs little. What is logged is later read again from the legacy: the log says
//! only where to look.
#![allow(unsafe_code)]

use super::pair_cache::SyncPair;
use super::side::Slot;
use super::{Firing, Rows};
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CString;

/// Writes rows of key columns into the change log of a pair.
pub struct KeyLog {
    log: pg_sys::Relation,
    entry: Slot,
    /// Numbers of the key columns in the rows that come in.
    columns: Vec<i32>,
}

impl KeyLog {
    /// For rows in the format of `relation`.
    pub fn open(pair: &SyncPair, relation: pg_sys::Relation) -> Result<KeyLog> {
        let oid = pair
            .log
            .ok_or_else(|| Error::Internal(format!("pair {} has no change log", pair.id)))?;
        // SAFETY: the log is opened here and closed in `close`.
        unsafe {
            let log = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
            let columns = pair
                .twin_key
                .iter()
                .map(|name| {
                    let name = CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
                    Ok(pg_sys::SPI_fnumber((*relation).rd_att, name.as_ptr()))
                })
                .collect::<Result<Vec<i32>>>()?;
            let entry = pg_sys::MakeSingleTupleTableSlot((*log).rd_att, &pg_sys::TTSOpsVirtual);
            Ok(KeyLog { log, entry, columns })
        }
    }

    /// Logs the key of `row`.
    pub fn add(&mut self, row: Slot) {
        // SAFETY: the log has the key columns in the order of `columns`; its slot has room for them.
        unsafe {
            pg_sys::ExecClearTuple(self.entry);
            for (i, number) in self.columns.iter().enumerate() {
                let is_null = (*self.entry).tts_isnull.add(i);
                *(*self.entry).tts_values.add(i) = pg_sys::slot_getattr(row, *number, &mut *is_null);
            }
            pg_sys::ExecStoreVirtualTuple(self.entry);
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::table_tuple_insert(self.log, self.entry, command, 0, std::ptr::null_mut());
        }
    }

    pub fn close(self) {
        // SAFETY: nothing of it is used after this. The lock stays until the transaction ends.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.entry);
            pg_sys::table_close(self.log, pg_sys::NoLock as i32);
        }
    }
}

/// Logs the keys of every row of a firing.
pub fn log_keys(pair: &SyncPair, firing: &Firing) -> Result<()> {
    let mut log = KeyLog::open(pair, firing.relation)?;
    // SAFETY: the relation that fired is open; the stores and tuples are the trigger's.
    unsafe {
        let desc = (*firing.relation).rd_att;
        match firing.rows {
            Rows::Statement { old, new } => {
                let slot = pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsMinimalTuple);
                for store in [old, new] {
                    if store.is_null() {
                        continue;
                    }
                    pg_sys::tuplestore_select_read_pointer(store, 0);
                    pg_sys::tuplestore_rescan(store);
                    while pg_sys::tuplestore_gettupleslot(store, true, false, slot) {
                        pgrx::check_for_interrupts!();
                        log.add(slot);
                    }
                }
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
            Rows::One { old, new } => {
                let slot = pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsHeapTuple);
                for tuple in [old, new] {
                    if !tuple.is_null() {
                        pg_sys::ExecStoreHeapTuple(tuple, slot, false);
                        log.add(slot);
                    }
                }
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
        }
    }
    log.close();
    Ok(())
}
