//! Writes single rows of one table, as `ExecSimpleRelationInsert`, `…Update` and `…Delete` do (`execReplication.c`), without
//! what a row that sync carries does not need: a check of the partition that it was just routed to, indexes opened for
//! a row that goes or that stays in place, and a lock on a row that is changed at once.
#![allow(unsafe_code)]

use super::leaf::{Leaf, reopen_index};
use super::side::Slot;
use crate::compat;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::c_int;
use std::ptr::null_mut;

/// What became of a row that was to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Done,
    /// Somebody else has changed it and committed: it is to be looked for again.
    Overtaken,
    /// This command has written it: the next one may change it.
    JustWritten,
}

/// Writes a new row.
///
/// # Safety
/// `row` is in the leaf's format, and the leaf is open.
pub unsafe fn insert(leaf: &Leaf, estate: *mut pg_sys::EState, row: Slot) {
    // SAFETY: the caller's; the order is that of ExecInsert.
    unsafe {
        check(leaf, estate, row, pg_sys::CmdType::CMD_INSERT);
        pg_sys::table_tuple_insert(
            leaf.relation(),
            row,
            pg_sys::GetCurrentCommandId(true),
            0,
            null_mut(),
        );
        finish_insert(leaf, estate, row);
    }
}

/// Index entries and triggers of a row that is in the heap.
///
/// # Safety
/// As for [`insert`].
unsafe fn finish_insert(leaf: &Leaf, estate: *mut pg_sys::EState, row: Slot) {
    // SAFETY: the caller's promise.
    unsafe {
        let recheck = if leaf.is_indexed() {
            leaf.open_indexes(estate);
            compat::insert_index_tuples(leaf.info, row, estate, compat::IndexUpdate::Insert)
        } else {
            null_mut()
        };
        if !(*leaf.info).ri_TrigDesc.is_null() {
            pg_sys::ExecARInsertTriggers(estate, leaf.info, row, recheck, null_mut());
        }
        pg_sys::list_free(recheck);
    }
}

/// Replaces the row that lies in `leaf.found` by `row`.
///
/// # Safety
/// As for [`insert`]; `found` holds a row of the leaf.
pub unsafe fn update(leaf: &Leaf, estate: *mut pg_sys::EState, row: Slot) -> Change {
    // SAFETY: the caller's promise.
    unsafe {
        let (change, indexes) = replace(leaf, estate, row);
        if change != Change::Done {
            return change;
        }
        let mut recheck = null_mut();
        if leaf.is_indexed() && indexes != compat::IndexUpdate::None {
            leaf.open_indexes(estate);
            recheck = compat::insert_index_tuples(leaf.info, row, estate, indexes);
        }
        finish_update(leaf, estate, row, recheck);
        pg_sys::list_free(recheck);
        Change::Done
    }
}

/// As [`update`], without the index entries: whether the row needs any. For leaves all of whose indexes are as
/// [`super::batch`] takes them.
///
/// # Safety
/// As for [`update`].
pub unsafe fn update_heap(leaf: &Leaf, estate: *mut pg_sys::EState, row: Slot) -> (Change, bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let (change, indexes) = replace(leaf, estate, row);
        if change == Change::Done {
            finish_update(leaf, estate, row, null_mut());
        }
        let needs_entries = leaf.is_indexed() && indexes == compat::IndexUpdate::All;
        (change, needs_entries && change == Change::Done)
    }
}

unsafe fn replace(leaf: &Leaf, estate: *mut pg_sys::EState, row: Slot) -> (Change, compat::IndexUpdate) {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = leaf.relation();
        pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
        check(leaf, estate, row, pg_sys::CmdType::CMD_UPDATE);
        let (result, indexes) = compat::update_tuple(relation, &raw mut (*leaf.found).tts_tid, row, estate);
        (change(result), indexes)
    }
}

/// The triggers of a row that was replaced.
unsafe fn finish_update(leaf: &Leaf, estate: *mut pg_sys::EState, row: Slot, recheck: *mut pg_sys::List) {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*leaf.info).ri_TrigDesc.is_null() {
            compat::after_update_triggers(estate, leaf.info, &raw mut (*leaf.found).tts_tid, row, recheck);
        }
    }
}

/// Deletes the row that lies in `leaf.found`. One that moves tells so to whoever waits for it: they get 40001, rather than
/// to hear that there is no such row.
///
/// # Safety
/// The leaf is open; `found` holds a row of it.
pub unsafe fn delete(leaf: &Leaf, estate: *mut pg_sys::EState, moves: bool) -> Change {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = leaf.relation();
        let tid: *mut pg_sys::ItemPointerData = &mut (*leaf.found).tts_tid;
        pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_DELETE);
        let mut failure = pg_sys::TM_FailureData::default();
        let result = pg_sys::table_tuple_delete(
            relation,
            tid,
            pg_sys::GetCurrentCommandId(true),
            (*estate).es_snapshot,
            null_mut(),
            true,
            &mut failure,
            moves,
        );
        match change(result) {
            Change::Done => {}
            other => return other,
        }
        if !(*leaf.info).ri_TrigDesc.is_null() {
            compat::after_delete_triggers(estate, leaf.info, tid);
        }
        Change::Done
    }
}

/// Whether this very command wrote the row version in `found`: only the next one may change it.
///
/// # Safety
/// `found` holds a tuple of a heap.
pub unsafe fn is_of_this_command(found: Slot) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let header = (*(*found.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_data;
        let xmin = (*header).t_choice.t_heap.t_xmin;
        pg_sys::TransactionIdIsCurrentTransactionId(xmin)
            && pg_sys::HeapTupleHeaderGetCmin(header) >= pg_sys::GetCurrentCommandId(false)
    }
}

fn change(result: pg_sys::TM_Result::Type) -> Change {
    match result {
        pg_sys::TM_Result::TM_Ok => Change::Done,
        pg_sys::TM_Result::TM_SelfModified => Change::JustWritten,
        _ => Change::Overtaken,
    }
}

/// Computes what the row's table generates, and checks its constraints.
///
/// # Safety
/// As for [`insert`].
pub unsafe fn check(leaf: &Leaf, estate: *mut pg_sys::EState, row: Slot, command: pg_sys::CmdType::Type) {
    // SAFETY: the caller's promise.
    unsafe {
        let constraints = (*(*leaf.relation()).rd_att).constr;
        if constraints.is_null() {
            return;
        }
        if (*constraints).has_generated_stored {
            compat::ExecComputeStoredGenerated(leaf.info, estate, row, command);
        }
        pg_sys::ExecConstraints(leaf.info, row, estate);
    }
}

/// Equality with one key of an index: the search for a row by its primary key, kept ready for the next row.
pub struct KeyScan {
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    /// Where the scan finds its snapshot.
    snapshot: pg_sys::SnapshotData,
    keys: Vec<pg_sys::ScanKeyData>,
    attributes: Vec<i16>,
}

impl KeyScan {
    /// Of an index of `relation`, closed.
    ///
    /// # Safety
    /// The index exists.
    pub unsafe fn new(index_oid: pg_sys::Oid) -> KeyScan {
        // SAFETY: the arrays of an index have as many elements as it has key columns.
        unsafe {
            let index = pg_sys::index_open(index_oid, pg_sys::AccessShareLock as i32);
            let columns = (*(*index).rd_index).indnkeyatts as usize;
            let attributes = (*(*index).rd_index).indkey.values.as_slice(columns).to_vec();
            let mut keys = vec![pg_sys::ScanKeyData::default(); columns];
            for (i, key) in keys.iter_mut().enumerate() {
                let (family, input) = (*(*index).rd_opfamily.add(i), *(*index).rd_opcintype.add(i));
                let operator =
                    pg_sys::get_opfamily_member(family, input, input, pg_sys::BTEqualStrategyNumber as i16);
                pg_sys::ScanKeyEntryInitialize(
                    key,
                    0,
                    (i + 1) as i16,
                    pg_sys::BTEqualStrategyNumber as u16,
                    pg_sys::Oid::INVALID,
                    *(*index).rd_indcollation.add(i),
                    pg_sys::get_opcode(operator),
                    pg_sys::Datum::null(),
                );
            }
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            KeyScan {
                index: null_mut(),
                scan: null_mut(),
                snapshot: pg_sys::SnapshotData::default(),
                keys,
                attributes,
            }
        }
    }

    /// Puts the row with the key of `key` into `leaf.found`, as it is now, whoever changed it: another transaction that is
    /// still at it is waited for. Locks nothing.
    ///
    /// # Safety
    /// `key` is in the leaf's format; the leaf is open; the scan stays where it is until it is closed.
    pub unsafe fn find(&mut self, leaf: &Leaf, key: Slot) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            if !self.look_for(leaf, key) {
                return false;
            }
            (*self.scan).xs_snapshot = &mut self.snapshot;
            loop {
                if !self.first(leaf) {
                    return false;
                }
                // Either its maker or its changer is still running; never both.
                let busy = if self.snapshot.xmin != pg_sys::InvalidTransactionId {
                    self.snapshot.xmin
                } else {
                    self.snapshot.xmax
                };
                if busy == pg_sys::InvalidTransactionId {
                    return true;
                }
                // Not with the page of the row pinned: VACUUM may want it.
                pg_sys::ExecClearTuple(leaf.found);
                pg_sys::XactLockTableWait(busy, null_mut(), null_mut(), pg_sys::XLTW_Oper::XLTW_None);
            }
        }
    }

    /// As [`KeyScan::find`], and locks the row. What is in `leaf.found` then is its newest version.
    ///
    /// The server's `RelationFindReplTupleByIndex` would do, but from PostgreSQL 16 on it compares whole rows when the index may hold a
    /// key twice, as that of a deferrable primary key does.
    ///
    /// # Safety
    /// As for [`KeyScan::find`].
    pub unsafe fn lock(&mut self, leaf: &Leaf, key: Slot) -> Result<bool> {
        // SAFETY: the caller's promise. The snapshot is registered for as long as it is used.
        unsafe {
            while self.find(leaf, key) {
                let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
                let mut failure = pg_sys::TM_FailureData::default();
                let mut place = (*leaf.found).tts_tid;
                // The page is not kept while the row is waited for.
                pg_sys::ExecClearTuple(leaf.found);
                let locked = pg_sys::table_tuple_lock(
                    leaf.relation(),
                    &mut place,
                    snapshot,
                    leaf.found,
                    pg_sys::GetCurrentCommandId(false),
                    pg_sys::LockTupleMode::LockTupleExclusive,
                    pg_sys::LockWaitPolicy::LockWaitBlock,
                    0,
                    &mut failure,
                );
                pg_sys::UnregisterSnapshot(snapshot);
                match locked {
                    pg_sys::TM_Result::TM_Ok => return Ok(true),
                    // Somebody was faster: the key may name another version by now, or none.
                    pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted => {
                        pgrx::check_for_interrupts!();
                    }
                    other => {
                        return Err(Error::Internal(format!(
                            "a row that was found cannot be locked: {other}"
                        )));
                    }
                }
            }
            Ok(false)
        }
    }

    /// Puts a copy of the row with the key of `key` that `snapshot` sees into `leaf.found`. For an index no two rows of which
    /// have one key.
    ///
    /// # Safety
    /// As for [`KeyScan::find`]; the snapshot is registered.
    pub unsafe fn read(&mut self, leaf: &Leaf, key: Slot, snapshot: pg_sys::Snapshot) -> bool {
        // SAFETY: the caller's promise. The snapshot is used by no later scan.
        unsafe {
            if !self.look_for(leaf, key) {
                return false;
            }
            (*self.scan).xs_snapshot = snapshot;
            let found = self.first(leaf);
            if found {
                pg_sys::ExecMaterializeSlot(leaf.found);
            }
            (*self.scan).xs_snapshot = &mut self.snapshot;
            found
        }
    }

    /// Prepares the scan for the key of `key`. Gives false when no row has such a key.
    unsafe fn look_for(&mut self, leaf: &Leaf, key: Slot) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            for (i, scan_key) in self.keys.iter_mut().enumerate() {
                let mut is_null = false;
                scan_key.sk_argument =
                    pg_sys::slot_getattr(key, c_int::from(self.attributes[i]), &mut is_null);
                if is_null {
                    return false; // no primary key has nulls
                }
            }
            if self.scan.is_null() {
                self.index = reopen_index(leaf.key_index);
                self.snapshot.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
                let columns = self.keys.len() as c_int;
                self.scan =
                    compat::begin_index_scan(leaf.relation(), self.index, &mut self.snapshot, columns);
            }
            true
        }
    }

    /// Puts the first row that the scan finds into `leaf.found`.
    unsafe fn first(&mut self, leaf: &Leaf) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let columns = self.keys.len() as c_int;
            pg_sys::index_rescan(self.scan, self.keys.as_mut_ptr(), columns, null_mut(), 0);
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            pg_sys::index_getnext_slot(self.scan, forward, leaf.found)
        }
    }

    /// Whether two rows of the table have one key, byte for byte.
    ///
    /// # Safety
    /// Both slots are in the table's format.
    pub unsafe fn same_key(&self, a: Slot, b: Slot) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let columns = compat::attributes((*a).tts_tupleDescriptor);
            self.attributes.iter().all(|&number| {
                let (mut a_null, mut b_null) = (false, false);
                let a_value = pg_sys::slot_getattr(a, number.into(), &mut a_null);
                let b_value = pg_sys::slot_getattr(b, number.into(), &mut b_null);
                let column = &columns[number as usize - 1];
                let length = i32::from(column.attlen);
                !a_null && !b_null && compat::datum_image_eq(a_value, b_value, column.attbyval, length)
            })
        }
    }

    /// Ends the scan, if one was begun.
    ///
    /// # Safety
    /// What [`KeyScan::find`] opened is still open.
    pub unsafe fn close(&mut self) {
        if !self.scan.is_null() {
            // SAFETY: the caller's promise.
            unsafe {
                pg_sys::index_endscan(self.scan);
                pg_sys::index_close(self.index, pg_sys::NoLock as i32);
            }
            self.scan = null_mut();
            self.index = null_mut();
        }
    }
}
