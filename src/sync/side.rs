//! One side of a pair, opened to find and write single rows by key: the legacy, or the twin with its partitions.
//!
//! Rows are written through the executor's own entry points for single rows, as the apply worker of logical
//! replication does (`execReplication.c`, `worker.c`): no plan, no permission check, no trigger. Rows are found
//! through the primary key under a dirty snapshot, so that a transaction whose snapshot is old still meets the
//! row as it is now, and waits for whoever is changing it.
//!
//! Everything here is allocated in the memory of one executor state. It is freed by [`Side::close`], or by the
//! server when the transaction aborts: after an error nothing here may be touched again.
#![allow(unsafe_code)]

use super::relation::{is_deferrable, keep_triggers, new_node, primary_key_index, relation_name};
use super::scan::scan_index;
use crate::compat;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::ptr::null_mut;

pub type Slot = *mut pg_sys::TupleTableSlot;

/// Which foreign-key triggers of the written table stay in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignKeys {
    /// Those that act on tables that point here. Those that check what this table points at are left out:
    /// the other side has checked the same row already.
    ActionsOnly,
    /// All of them.
    All,
}

/// What [`Side::put`] and reconciliations did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Equal,
    Inserted,
    Updated,
    Deleted,
}

pub struct Side {
    relation: pg_sys::Relation,
    estate: *mut pg_sys::EState,
    root: *mut pg_sys::ResultRelInfo,
    modify: *mut pg_sys::ModifyTableState,
    /// Null for a table without partitions.
    routing: *mut compat::PartitionTupleRouting,
    foreign_keys: ForeignKeys,
    leaves: HashMap<Oid, Leaf>,
    /// The leaf that was located last: rows next to each other often lie in one partition.
    last: Option<Leaf>,
}

/// A table that holds rows: a leaf partition, or the whole side.
#[derive(Clone, Copy)]
pub struct Leaf {
    pub info: *mut pg_sys::ResultRelInfo,
    /// From the side's row format to the leaf's; null when they are the same.
    from_side: *mut pg_sys::TupleConversionMap,
    key_index: Oid,
    /// The primary key is deferrable: until the end of the transaction several rows may have one key.
    may_be_double: bool,
    key: Slot,
    row: Slot,
    found: Slot,
}

impl Leaf {
    /// Whether a row of the side is one of the leaf as it is.
    pub fn has_format_of_side(&self) -> bool {
        self.from_side.is_null()
    }

    pub fn relation(&self) -> pg_sys::Relation {
        // SAFETY: `info` lives as long as the side that made this leaf.
        unsafe { (*self.info).ri_RelationDesc }
    }
}

impl Side {
    /// Opens `oid` for writing. The lock (ROW EXCLUSIVE) is kept until the transaction ends.
    pub fn open(oid: Oid, foreign_keys: ForeignKeys) -> Result<Side> {
        // SAFETY: see `build`.
        unsafe { Side::build(oid, foreign_keys, pg_sys::GetCurrentCommandId(true)) }
    }

    /// Opens `oid` only to tell rows to partitions and to read. Assigns no command, so that it works on a standby.
    pub fn open_for_reading(oid: Oid) -> Result<Side> {
        // SAFETY: see `build`.
        unsafe { Side::build(oid, ForeignKeys::All, pg_sys::GetCurrentCommandId(false)) }
    }

    /// # Safety
    /// To be called within a transaction that has an active snapshot.
    unsafe fn build(oid: Oid, foreign_keys: ForeignKeys, command: pg_sys::CommandId) -> Result<Side> {
        // SAFETY: the calls build an executor state around one open relation, in the order that
        // `create_edata_for_relation` of worker.c does.
        unsafe {
            let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
            let estate = pg_sys::CreateExecutorState();
            let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let rte = new_node::<pg_sys::RangeTblEntry>(pg_sys::NodeTag::T_RangeTblEntry);
            (*rte).rtekind = pg_sys::RTEKind::RTE_RELATION;
            (*rte).relid = oid;
            (*rte).relkind = (*(*relation).rd_rel).relkind;
            (*rte).rellockmode = pg_sys::AccessShareLock as i32;
            compat::init_range_table(estate, rte);
            (*estate).es_output_cid = command;
            (*estate).es_snapshot = pg_sys::GetActiveSnapshot();

            let root = new_node::<pg_sys::ResultRelInfo>(pg_sys::NodeTag::T_ResultRelInfo);
            pg_sys::InitResultRelInfo(root, relation, 1, null_mut(), 0);
            let modify = new_node::<pg_sys::ModifyTableState>(pg_sys::NodeTag::T_ModifyTableState);
            (*modify).ps.state = estate;
            (*modify).operation = pg_sys::CmdType::CMD_INSERT;
            (*modify).resultRelInfo = root;
            (*modify).rootResultRelInfo = root;

            let partitioned = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
            let mut side = Side {
                relation,
                estate,
                root,
                modify,
                routing: null_mut(),
                foreign_keys,
                leaves: HashMap::new(),
                last: None,
            };
            if partitioned {
                side.routing = compat::ExecSetupPartitionTupleRouting(estate, relation);
            } else {
                pg_sys::ExecOpenIndices(root, false);
                let leaf = side.new_leaf(root)?;
                side.leaves.insert(oid, leaf);
            }
            pg_sys::MemoryContextSwitchTo(previous);
            Ok(side)
        }
    }

    /// Closes what was opened; locks stay until the transaction ends.
    pub fn close(self) {
        // SAFETY: nothing of the side is used after this; the order is that of `finish_edata` in worker.c.
        unsafe {
            for leaf in self.leaves.values() {
                for slot in [leaf.key, leaf.row, leaf.found] {
                    pg_sys::ExecDropSingleTupleTableSlot(slot);
                }
            }
            if self.routing.is_null() {
                pg_sys::ExecCloseIndices(self.root);
            } else {
                compat::ExecCleanupTupleRouting(self.modify, self.routing);
            }
            pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false); // slots that triggers asked for
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
            pg_sys::FreeExecutorState(self.estate);
        }
    }

    pub fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    pub fn estate(&self) -> *mut pg_sys::EState {
        self.estate
    }

    pub fn is_partitioned(&self) -> bool {
        !self.routing.is_null()
    }

    pub fn tuple_desc(&self) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open.
        unsafe { (*self.relation).rd_att }
    }

    /// A slot in this side's row format; dropped by whoever asked for it.
    pub fn new_slot(&self) -> Slot {
        // SAFETY: the slot's memory is the executor state's.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let slot = pg_sys::MakeSingleTupleTableSlot(self.tuple_desc(), &pg_sys::TTSOpsVirtual);
            pg_sys::MemoryContextSwitchTo(previous);
            slot
        }
    }

    /// Makes the writes of this transaction so far visible to what follows.
    pub fn see_own_writes(&mut self) {
        // SAFETY: the trigger and the backfill run between commands of the user.
        unsafe {
            pg_sys::CommandCounterIncrement();
            (*self.estate).es_output_cid = pg_sys::GetCurrentCommandId(true);
        }
    }

    /// Frees what the last row needed.
    pub fn end_row(&mut self) {
        // SAFETY: the per-tuple context belongs to this executor state.
        unsafe {
            let context = (*self.estate).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }

    /// The table that a row (in this side's format) belongs to.
    ///
    /// # Errors
    /// The server's `23514` when no partition takes the row.
    pub fn locate(&mut self, row: Slot) -> Result<Leaf> {
        // SAFETY: `row` is in this side's format; the routing structures belong to this side.
        unsafe {
            let info = if self.routing.is_null() {
                self.root
            } else {
                compat::ExecFindPartition(self.modify, self.root, self.routing, row, self.estate)
            };
            if let Some(last) = self.last.filter(|last| last.info == info) {
                return Ok(last);
            }
            let oid = (*(*info).ri_RelationDesc).rd_id;
            let leaf = match self.leaves.get(&oid) {
                Some(leaf) => *leaf,
                None => {
                    let leaf = self.new_leaf(info)?;
                    self.leaves.insert(oid, leaf);
                    leaf
                }
            };
            self.last = Some(leaf);
            Ok(leaf)
        }
    }

    /// # Safety
    /// `info` belongs to this side.
    unsafe fn new_leaf(&mut self, info: *mut pg_sys::ResultRelInfo) -> Result<Leaf> {
        unsafe {
            let relation = (*info).ri_RelationDesc;
            if !(*info).ri_FdwRoutine.is_null() {
                return Err(Error::Unsupported {
                    what: "sync into a foreign partition is not supported".into(),
                    hint: "Keep the partitions of a pair local.".into(),
                });
            }
            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            keep_triggers(info, self.foreign_keys);
            let key_index = primary_key_index(relation);
            let leaf = Leaf {
                info,
                from_side: if info == self.root {
                    null_mut()
                } else {
                    pg_sys::convert_tuples_by_name(self.tuple_desc(), (*relation).rd_att)
                },
                key_index,
                may_be_double: key_index != Oid::INVALID && is_deferrable(key_index),
                key: pg_sys::table_slot_create(relation, null_mut()),
                row: pg_sys::table_slot_create(relation, null_mut()),
                found: pg_sys::table_slot_create(relation, null_mut()),
            };
            pg_sys::MemoryContextSwitchTo(previous);
            Ok(leaf)
        }
    }

    /// Puts `row` (in this side's format) into `target`, a slot of the leaf, in the leaf's format.
    pub fn to_leaf(leaf: &Leaf, row: Slot, target: Slot) -> Slot {
        convert(leaf.from_side, row, target)
    }

    pub fn insert(&mut self, row: Slot) -> Result<()> {
        let leaf = self.locate(row)?;
        let target = Side::to_leaf(&leaf, row, leaf.row);
        // SAFETY: the slot is in the leaf's format.
        unsafe { pg_sys::ExecSimpleRelationInsert(leaf.info, self.estate, target) };
        self.end_row();
        Ok(())
    }

    /// Locks the row with the key of `row`; it is then in `leaf.found`.
    fn find(&mut self, leaf: &Leaf, row: Slot) -> Result<bool> {
        if leaf.key_index == Oid::INVALID {
            // SAFETY: the relation is open.
            let name = unsafe { relation_name(leaf.relation()) };
            return Err(Error::NoPrimaryKey { relation: name });
        }
        let key = Side::to_leaf(leaf, row, leaf.key);
        // SAFETY: `key` and `found` are in the leaf's format, the index is one of the leaf.
        Ok(unsafe {
            pg_sys::RelationFindReplTupleByIndex(
                leaf.relation(),
                leaf.key_index,
                pg_sys::LockTupleMode::LockTupleExclusive,
                key,
                leaf.found,
            )
        })
    }

    /// As [`Side::find`], with the whole of the row given: among rows that have the same key for a while it is the one.
    fn find_image(&mut self, leaf: &Leaf, row: Slot) -> Result<bool> {
        if !self.find(leaf, row)? {
            return Ok(false);
        }
        let wanted = Side::to_leaf(leaf, row, leaf.key);
        // SAFETY: both are rows of the leaf.
        if !leaf.may_be_double || unsafe { same_row(leaf.found, wanted) } {
            return Ok(true);
        }
        // SAFETY: the snapshot is given back below; the row is one that this transaction or a committed one left.
        let locked = unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let found = scan_key(leaf, wanted, snapshot, |found| same_row(found, wanted));
            let mut failure = pg_sys::TM_FailureData::default();
            let locked = found
                && pg_sys::table_tuple_lock(
                    leaf.relation(),
                    &mut (*leaf.found).tts_tid,
                    snapshot,
                    leaf.found,
                    pg_sys::GetCurrentCommandId(false),
                    pg_sys::LockTupleMode::LockTupleExclusive,
                    pg_sys::LockWaitPolicy::LockWaitBlock,
                    0,
                    &mut failure,
                ) == pg_sys::TM_Result::TM_Ok;
            pg_sys::UnregisterSnapshot(snapshot);
            locked
        };
        // None is the very row: what has the key is what there is.
        if locked { Ok(true) } else { self.find(leaf, row) }
    }

    /// Locks the row with the key of `row` and gives it, in the leaf's format, until the next call.
    pub fn lock(&mut self, row: Slot) -> Result<Option<(Leaf, Slot)>> {
        let leaf = self.locate(row)?;
        Ok(self.find(&leaf, row)?.then_some((leaf, leaf.found)))
    }

    /// Whether there is a row with the key of `row`; locks it.
    pub fn has(&mut self, row: Slot) -> Result<bool> {
        Ok(self.lock(row)?.is_some())
    }

    /// Replaces the row that has the key of `old` by `new`; inserts `new` when there is none.
    pub fn update(&mut self, old: Slot, new: Slot) -> Result<()> {
        let from = self.locate(old)?;
        let to = self.locate(new)?;
        if !self.find_image(&from, old)? {
            return self.insert(new);
        }
        // SAFETY: the found row was locked by this transaction; the slots are in the leaves' formats.
        unsafe {
            let mut epq = pg_sys::EPQState::default(); // used only by BEFORE triggers, of which there are none
            if from.info == to.info {
                let target = Side::to_leaf(&to, new, to.row);
                pg_sys::ExecSimpleRelationUpdate(to.info, self.estate, &mut epq, from.found, target);
            } else {
                pg_sys::ExecSimpleRelationDelete(from.info, self.estate, &mut epq, from.found);
                let target = Side::to_leaf(&to, new, to.row);
                pg_sys::ExecSimpleRelationInsert(to.info, self.estate, target);
            }
        }
        self.end_row();
        Ok(())
    }

    /// Makes the row with the key of `key` equal to `row`, which has the same key.
    pub fn put(&mut self, key: Slot, row: Slot) -> Result<Outcome> {
        let leaf = self.locate(key)?;
        let found = self.find(&leaf, key)?;
        let target = Side::to_leaf(&leaf, row, leaf.row);
        // SAFETY: the found row was locked by this transaction; the slots are in the leaf's format.
        let outcome = unsafe {
            if !found {
                pg_sys::ExecSimpleRelationInsert(leaf.info, self.estate, target);
                Outcome::Inserted
            } else if same_row(leaf.found, target) {
                Outcome::Equal
            } else {
                let mut epq = pg_sys::EPQState::default();
                pg_sys::ExecSimpleRelationUpdate(leaf.info, self.estate, &mut epq, leaf.found, target);
                Outcome::Updated
            }
        };
        self.end_row();
        Ok(outcome)
    }

    /// Deletes the row that has the key of `row`. Gives false when there is none.
    pub fn delete(&mut self, row: Slot) -> Result<bool> {
        let leaf = self.locate(row)?;
        let found = self.find_image(&leaf, row)?;
        if found {
            self.delete_found(&leaf);
        }
        self.end_row();
        Ok(found)
    }

    /// Deletes the row that has the key of `key` if it is not `row`, which has the same key.
    pub fn delete_different(&mut self, key: Slot, row: Slot) -> Result<bool> {
        let leaf = self.locate(key)?;
        let wanted = Side::to_leaf(&leaf, row, leaf.row);
        // SAFETY: both are rows of the leaf.
        self.delete_if(key, |found| unsafe { !same_row(found, wanted) })
    }

    /// Deletes the row that has the key of `row`, if `condition` holds for it (in the leaf's format).
    pub fn delete_if(&mut self, row: Slot, condition: impl FnOnce(Slot) -> bool) -> Result<bool> {
        let leaf = self.locate(row)?;
        let delete = self.find(&leaf, row)? && condition(leaf.found);
        if delete {
            self.delete_found(&leaf);
        }
        self.end_row();
        Ok(delete)
    }

    fn delete_found(&mut self, leaf: &Leaf) {
        // SAFETY: the found row was locked by this transaction.
        unsafe {
            let mut epq = pg_sys::EPQState::default();
            pg_sys::ExecSimpleRelationDelete(leaf.info, self.estate, &mut epq, leaf.found);
        }
    }

    /// The row with the key of `row` as `snapshot` sees it, in the leaf's format; locks nothing.
    /// The result is valid until the next call.
    pub fn read(&mut self, row: Slot, snapshot: pg_sys::Snapshot) -> Result<Option<(Leaf, Slot)>> {
        let leaf = self.locate(row)?;
        let key = Side::to_leaf(&leaf, row, leaf.key);
        // SAFETY: `key` is in the leaf's format.
        let found = unsafe { scan_key(&leaf, key, snapshot, |_| true) };
        Ok(found.then_some((leaf, leaf.found)))
    }
}

/// Puts the first row with the key of `key` that `snapshot` sees and `accept` takes into `leaf.found`, with a copy of its own.
///
/// # Safety
/// `key` is in the leaf's format, and the snapshot is registered.
unsafe fn scan_key(
    leaf: &Leaf,
    key: Slot,
    snapshot: pg_sys::Snapshot,
    accept: impl FnMut(Slot) -> bool,
) -> bool {
    // SAFETY: the caller's; the index is one of the leaf.
    unsafe {
        scan_index(
            leaf.relation(),
            leaf.key_index,
            usize::MAX,
            key,
            snapshot,
            leaf.found,
            accept,
        )
    }
}

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
unsafe fn same_row(a: Slot, b: Slot) -> bool {
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
