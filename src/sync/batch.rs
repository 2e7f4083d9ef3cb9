//! Rows of one statement, or of a part of the copy, gathered by table and written many at a time: the heap by
//! `heap_multi_insert`, then each index by itself, in the order of its keys, so that entries that follow one another go to the
//! same page while it is at hand.
//!
//! Between a row and its index entries nothing may look for it: who gathers writes rows that have one key each, and calls
//! [`Batch::write`] before anything else is read or written. Memory is bounded, whatever the number of rows and of tables.
#![allow(unsafe_code)]

use super::leaf::Leaf;
use super::side::Slot;
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::collections::HashMap;
use std::ptr::null_mut;

/// Rows, and bytes of them, that are gathered for all tables together. Four times as many were no faster.
const ROWS: usize = 10_000;
const BYTES: usize = 4 << 20;
/// Slots that are kept for all tables together: rows that come in the order of their partitions would fill those of one
/// after the other.
const SLOTS: usize = 2 * ROWS;
/// So few entries of one index are written as they come.
const WORTH_SORTING: usize = 8;
/// Kilobytes for the entries of one index: more than the rows that are gathered can have, short of very wide keys.
const SORT_MEMORY: i32 = 16 << 10;
/// The most columns that an index has.
const MAX_COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// How rows come to lie in the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Where there is room, at any time.
    AnyRoom,
    /// At the end, in blocks of few buffers, and soon: tables that are filled by nobody else.
    AtTheEnd,
}

pub struct Batch {
    buffers: HashMap<Oid, Buffer>,
    rows: usize,
    bytes: usize,
    slots: usize,
    /// Rows of one table that are written without waiting for the others.
    rows_per_table: usize,
    options: i32,
    bulk: *mut pg_sys::BulkInsertStateData,
}

struct Buffer {
    leaf: Leaf,
    /// Rows that the heap does not have yet.
    new: Vec<Slot>,
    /// Rows that lie in the heap, without index entries.
    written: Vec<Slot>,
    free: Vec<Slot>,
    by_key: bool,
}

/// Whether the rows of a table can be gathered.
///
/// # Safety
/// The leaf is open, `estate` is that of its side.
unsafe fn takes_entries_by_key(leaf: &Leaf, estate: *mut pg_sys::EState) -> bool {
    if !leaf.is_indexed() {
        return true;
    }
    // SAFETY: the arrays have as many elements as there are indexes, which are open.
    unsafe {
        leaf.open_indexes(estate);
        let info = &*leaf.info;
        (0..info.ri_NumIndices as usize).all(|i| {
            let index = *info.ri_IndexRelationDescs.add(i);
            // A constraint that may be broken for a while is checked again by a trigger of each row.
            (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && (*(*index).rd_index).indimmediate
                && (**info.ri_IndexRelationInfo.add(i)).ii_ExclusionOps.is_null()
        })
    }
}

impl Batch {
    pub fn new(filling: Filling) -> Batch {
        let at_the_end = filling == Filling::AtTheEnd;
        Batch {
            buffers: HashMap::new(),
            rows: 0,
            bytes: 0,
            slots: 0,
            rows_per_table: if at_the_end { 500 } else { ROWS },
            options: if at_the_end {
                pg_sys::TABLE_INSERT_SKIP_FSM as i32
            } else {
                0
            },
            bulk: if at_the_end {
                // SAFETY: an allocation; freed in `finish`.
                unsafe { pg_sys::GetBulkInsertState() }
            } else {
                null_mut()
            },
        }
    }

    /// A slot for a row of `leaf`; none when its rows cannot wait for their index entries.
    ///
    /// # Safety
    /// The leaf is open, `estate` is that of its side.
    pub unsafe fn slot(&mut self, leaf: &Leaf, estate: *mut pg_sys::EState) -> Option<Slot> {
        // SAFETY: the slot's memory is the executor state's, its description the leaf's copy.
        unsafe {
            let buffer = self
                .buffers
                .entry((*leaf.relation()).rd_id)
                .or_insert_with(|| Buffer {
                    leaf: *leaf,
                    new: Vec::new(),
                    written: Vec::new(),
                    free: Vec::new(),
                    by_key: takes_entries_by_key(leaf, estate),
                });
            if !buffer.by_key {
                return None;
            }
            Some(buffer.free.pop().unwrap_or_else(|| {
                self.slots += 1;
                let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                let slot =
                    pg_sys::MakeSingleTupleTableSlot((*leaf.row).tts_tupleDescriptor, (*leaf.row).tts_ops);
                pg_sys::MemoryContextSwitchTo(previous);
                slot
            }))
        }
    }

    /// Takes a new row of `leaf`, in a slot from [`Batch::slot`].
    ///
    /// # Safety
    /// As for [`Batch::slot`].
    pub unsafe fn insert(&mut self, leaf: &Leaf, slot: Slot, estate: *mut pg_sys::EState) {
        // SAFETY: the caller's promise.
        unsafe {
            pg_sys::ExecMaterializeSlot(slot);
            self.gather(leaf, slot, estate, |buffer| &mut buffer.new);
        }
    }

    /// Takes a row of `leaf` that the heap has and no index.
    ///
    /// # Safety
    /// As for [`Batch::slot`].
    pub unsafe fn index(&mut self, leaf: &Leaf, slot: Slot, estate: *mut pg_sys::EState) {
        // SAFETY: the caller's promise.
        unsafe {
            pg_sys::ExecMaterializeSlot(slot);
            self.gather(leaf, slot, estate, |buffer| &mut buffer.written);
        }
    }

    /// Takes a slot of `leaf` back that is not needed.
    ///
    /// # Safety
    /// As for [`Batch::slot`].
    pub unsafe fn give_back(&mut self, leaf: &Leaf, slot: Slot) {
        // SAFETY: the caller's promise.
        unsafe {
            pg_sys::ExecClearTuple(slot);
            if let Some(buffer) = self.buffers.get_mut(&(*leaf.relation()).rd_id) {
                buffer.free.push(slot);
            }
        }
    }

    unsafe fn gather(
        &mut self,
        leaf: &Leaf,
        slot: Slot,
        estate: *mut pg_sys::EState,
        list: impl Fn(&mut Buffer) -> &mut Vec<Slot>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let Some(buffer) = self.buffers.get_mut(&(*leaf.relation()).rd_id) else {
                return;
            };
            list(buffer).push(slot);
            self.rows += 1;
            self.bytes += (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_len as usize;
            if self.rows >= ROWS || self.bytes >= BYTES || self.slots >= SLOTS {
                self.write(estate);
            } else if buffer.new.len() >= self.rows_per_table {
                self.rows -= buffer.write(estate, self.options, self.bulk);
            }
        }
    }

    /// Writes what was gathered.
    ///
    /// # Safety
    /// The leaves that rows were gathered for are open, `estate` is that of their side.
    pub unsafe fn write(&mut self, estate: *mut pg_sys::EState) {
        for buffer in self.buffers.values_mut() {
            // SAFETY: the caller's.
            unsafe { buffer.write(estate, self.options, self.bulk) };
        }
        self.rows = 0;
        self.bytes = 0;
        if self.slots >= SLOTS {
            self.drop_slots();
        }
    }

    /// Nothing is gathered.
    fn drop_slots(&mut self) {
        for slot in self.buffers.values_mut().flat_map(|buffer| buffer.free.drain(..)) {
            // SAFETY: made in `slot`, and empty.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
        }
        self.slots = 0;
    }

    /// Writes what was gathered, and frees what that took.
    ///
    /// # Safety
    /// As for [`Batch::write`].
    pub unsafe fn finish(mut self, estate: *mut pg_sys::EState) {
        // SAFETY: the caller's promise.
        unsafe {
            self.write(estate);
            self.drop_slots();
            if !self.bulk.is_null() {
                pg_sys::FreeBulkInsertState(self.bulk);
            }
        }
    }
}

impl Buffer {
    /// Writes what was gathered; gives its number.
    ///
    /// # Safety
    /// As for [`Batch::write`].
    unsafe fn write(
        &mut self,
        estate: *mut pg_sys::EState,
        options: i32,
        bulk: *mut pg_sys::BulkInsertStateData,
    ) -> usize {
        if self.new.is_empty() && self.written.is_empty() {
            return 0;
        }
        // SAFETY: the caller's promise.
        unsafe {
            if !self.new.is_empty() {
                self.fill(estate, options, bulk);
            }
            self.written.append(&mut self.new);
            if self.leaf.is_indexed() {
                self.leaf.open_indexes(estate);
                for i in 0..(*self.leaf.info).ri_NumIndices as usize {
                    pgrx::check_for_interrupts!();
                    self.add_entries(i, estate);
                }
            }
            for slot in &self.written {
                pg_sys::ExecClearTuple(*slot);
            }
        }
        let rows = self.written.len();
        self.free.append(&mut self.written);
        rows
    }

    /// Puts the new rows into the heap, and queues their triggers.
    unsafe fn fill(
        &mut self,
        estate: *mut pg_sys::EState,
        options: i32,
        bulk: *mut pg_sys::BulkInsertStateData,
    ) {
        // SAFETY: the slots hold rows of the leaf; what the server allocates on the way goes with the row context.
        unsafe {
            if !bulk.is_null() {
                pg_sys::ReleaseBulkInsertStatePin(bulk); // of the table written before
            }
            let context = row_context(estate);
            let previous = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            pg_sys::table_multi_insert(
                self.leaf.relation(),
                self.new.as_mut_ptr(),
                self.new.len() as i32,
                pg_sys::GetCurrentCommandId(true),
                options,
                bulk,
            );
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            if !(*self.leaf.info).ri_TrigDesc.is_null() {
                for slot in &self.new {
                    pg_sys::ExecARInsertTriggers(estate, self.leaf.info, *slot, null_mut(), null_mut());
                }
            }
        }
    }

    /// Puts an entry for each row into the `i`-th index. The rows are new versions, also those that replace others: no
    /// index is told that its keys are as before, which would have it search its full pages for versions to remove, in vain
    /// while this statement runs.
    unsafe fn add_entries(&self, i: usize, estate: *mut pg_sys::EState) {
        // SAFETY: the index is open; arrays have room for as many values as an index can have; slots hold rows of the leaf that
        // lie in the heap.
        unsafe {
            let info = &*self.leaf.info;
            let entries = Entries {
                heap: self.leaf.relation(),
                index: *info.ri_IndexRelationDescs.add(i),
                info: *info.ri_IndexRelationInfo.add(i),
            };
            if !(*entries.info).ii_ReadyForInserts {
                return;
            }
            let context = row_context(estate);
            let condition = entries.condition(estate);
            let sort = (self.written.len() >= WORTH_SORTING)
                .then(|| compat::begin_index_sort(entries.heap, entries.index, SORT_MEMORY));
            let (mut values, mut nulls) = ([Datum::null(); MAX_COLUMNS], [false; MAX_COLUMNS]);
            for slot in &self.written {
                (*context).ecxt_scantuple = *slot;
                if holds(condition, context) {
                    pg_sys::FormIndexDatum(
                        entries.info,
                        *slot,
                        estate,
                        values.as_mut_ptr(),
                        nulls.as_mut_ptr(),
                    );
                    let row = &raw mut (**slot).tts_tid;
                    match sort {
                        Some(sort) => pg_sys::tuplesort_putindextuplevalues(
                            sort,
                            entries.index,
                            row,
                            values.as_mut_ptr(),
                            nulls.as_mut_ptr(),
                        ),
                        None => entries.add(&mut values, &mut nulls, row),
                    }
                }
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
            let Some(sort) = sort else { return };
            pg_sys::tuplesort_performsort(sort);
            loop {
                let entry = pg_sys::tuplesort_getindextuple(sort, true);
                if entry.is_null() {
                    break;
                }
                let format = (*entries.index).rd_att;
                pg_sys::index_deform_tuple(entry, format, values.as_mut_ptr(), nulls.as_mut_ptr());
                entries.add(&mut values, &mut nulls, &raw mut (*entry).t_tid);
            }
            pg_sys::tuplesort_end(sort);
        }
    }
}

/// An index that gets entries.
struct Entries {
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

impl Entries {
    /// What a row must fulfil to get one; null when each does.
    unsafe fn condition(&self, estate: *mut pg_sys::EState) -> *mut pg_sys::ExprState {
        // SAFETY: prepared in the memory of the executor state, as the index's description is.
        unsafe {
            let info = &mut *self.info;
            if !info.ii_Predicate.is_null() && info.ii_PredicateState.is_null() {
                info.ii_PredicateState = pg_sys::ExecPrepareQual(info.ii_Predicate, estate);
            }
            info.ii_PredicateState
        }
    }

    unsafe fn add(&self, values: &mut [Datum], nulls: &mut [bool], row: pg_sys::ItemPointer) {
        // SAFETY: the values are those of the index's columns.
        unsafe {
            let unique = if (*(*self.index).rd_index).indisunique {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
            } else {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
            };
            pg_sys::index_insert(
                self.index,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                row,
                self.heap,
                unique,
                false,
                self.info,
            );
        }
    }
}

/// `ExecQual`.
unsafe fn holds(condition: *mut pg_sys::ExprState, context: *mut pg_sys::ExprContext) -> bool {
    // SAFETY: a prepared condition has a function to evaluate it; its row is in the context.
    unsafe {
        let Some(evaluate) = (!condition.is_null()).then(|| (*condition).evalfunc).flatten() else {
            return true;
        };
        let previous = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
        let mut is_null = false;
        let result = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(condition, context, &mut is_null));
        pg_sys::MemoryContextSwitchTo(previous);
        !is_null && result.value() != 0
    }
}

/// `GetPerTupleExprContext`.
unsafe fn row_context(estate: *mut pg_sys::EState) -> *mut pg_sys::ExprContext {
    // SAFETY: made by the server when there is none.
    unsafe {
        if (*estate).es_per_tuple_exprcontext.is_null() {
            return pg_sys::MakePerTupleExprContext(estate);
        }
        (*estate).es_per_tuple_exprcontext
    }
}
