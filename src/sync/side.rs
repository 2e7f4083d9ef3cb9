//! One side of a pair, opened to find and write single rows by key: the legacy, or the twin with its partitions.
//!
//! Rows are written through the executor's own entry points for single rows, as the apply worker of logical
//! replication does (`execReplication.c`, `worker.c`): no plan, no permission check, no trigger. Rows are found
//! through the primary key under a dirty snapshot, so that a transaction whose snapshot is old still meets the
//! row as it is now, and waits for whoever is changing it.
//!
//! Everything here is allocated in memory of its own. [`Side::close`] keeps it for the next statement or frees it; after
//! an error nothing here may be touched again, and the end of the transaction frees it (see [`super::kept`]).
#![allow(unsafe_code)]

use super::Rows;
use super::kept;
use super::pair_cache::SyncPair;
use super::reconcile::{KeyColumn, key_columns};
use super::relation::{
    has_indexes, is_deferrable, keep_triggers, new_node, primary_key_index, relation_name,
};
use super::routing::Bounds;
use super::scan::scan_index;
use super::write::{self, Change, KeyScan};
use crate::compat;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::ptr::null_mut;
use std::rc::Rc;

/// A side that has met more leaves than this is built anew for the next statement, rather than kept.
const KEPT_LEAVES: usize = 64;

pub type Slot = *mut pg_sys::TupleTableSlot;

/// Which foreign-key triggers of the written table stay in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    oid: Oid,
    /// Open between [`Side::open`] and [`Side::close`]; null while the side is kept.
    relation: pg_sys::Relation,
    /// A copy of the side's row format, which is no cache entry's.
    desc: pg_sys::TupleDesc,
    context: pg_sys::MemoryContext,
    estate: *mut pg_sys::EState,
    partitioned: bool,
    bounds: Option<Bounds>,
    fallback: Option<Fallback>,
    foreign_keys: ForeignKeys,
    leaves: HashMap<Oid, Leaf>,
    #[allow(clippy::vec_box)] // leaves point at their states
    states: Vec<Box<LeafState>>,
    /// Those that are open.
    opened: Vec<Leaf>,
    /// The leaf that was located last: rows next to each other often lie in one partition.
    last: Option<(Oid, Leaf)>,
    formats: HashMap<Oid, Rc<Format>>,
    /// Of the descriptions that this side was built from.
    epoch: u64,
    /// Not for the next statement: something was built that lives only as long as this one.
    temporary: bool,
}

/// The server's own routing, for partitions that are partitioned themselves and for keys that are expressions.
struct Fallback {
    root: *mut pg_sys::ResultRelInfo,
    modify: *mut pg_sys::ModifyTableState,
    routing: *mut compat::PartitionTupleRouting,
}

/// A table that holds rows: a leaf partition, or the whole side.
#[derive(Clone, Copy)]
pub struct Leaf {
    pub info: *mut pg_sys::ResultRelInfo,
    state: *mut LeafState,
    /// From the side's row format to the leaf's; null when they are the same.
    from_side: *mut pg_sys::TupleConversionMap,
    pub key_index: Oid,
    /// The primary key is deferrable: until the end of the transaction several rows may have one key.
    may_be_double: bool,
    indexed: bool,
    key: Slot,
    row: Slot,
    pub found: Slot,
}

/// What of a leaf is opened when it is needed first.
struct LeafState {
    indexes: Indexes,
    scan: Option<KeyScan>,
    is_open: bool,
    /// The server's routing opens and closes it.
    is_routed: bool,
}

enum Indexes {
    /// Not described yet.
    Unknown,
    Closed(Vec<Oid>),
    Open(Vec<Oid>),
}

/// How rows of a relation that fired become rows of a side. Kept with the side.
pub struct Format {
    pub old: Slot,
    pub new: Slot,
    pub old_as_target: Slot,
    pub new_as_target: Slot,
    pub to_target: *mut pg_sys::TupleConversionMap,
    pub key: Vec<KeyColumn>,
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

    pub fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// Opens the indexes, if they are not.
    ///
    /// # Safety
    /// The leaf is open, and `estate` is that of its side.
    pub unsafe fn open_indexes(&self, estate: *mut pg_sys::EState) {
        // SAFETY: the state belongs to the side, which lives; the arrays have as many elements as there are indexes.
        unsafe {
            let state = &mut *self.state;
            match &mut state.indexes {
                Indexes::Open(_) => {}
                Indexes::Closed(oids) => {
                    let oids = std::mem::take(oids);
                    for (i, oid) in oids.iter().enumerate() {
                        *(*self.info).ri_IndexRelationDescs.add(i) =
                            pg_sys::index_open(*oid, pg_sys::RowExclusiveLock as i32);
                    }
                    state.indexes = Indexes::Open(oids);
                }
                Indexes::Unknown => {
                    let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                    pg_sys::ExecOpenIndices(self.info, false);
                    pg_sys::MemoryContextSwitchTo(previous);
                    state.indexes = Indexes::Open(self.index_oids());
                }
            }
        }
    }

    /// # Safety
    /// The indexes are open.
    unsafe fn index_oids(&self) -> Vec<Oid> {
        unsafe {
            (0..(*self.info).ri_NumIndices as usize)
                .map(|i| (**(*self.info).ri_IndexRelationDescs.add(i)).rd_id)
                .collect()
        }
    }

    /// Whether what the server knows of its open indexes may outlive a statement. Other access methods than these keep
    /// state of the statement there.
    ///
    /// # Safety
    /// The indexes are open.
    unsafe fn indexes_may_be_kept(&self) -> bool {
        unsafe {
            (0..(*self.info).ri_NumIndices as usize).all(|i| {
                let method = (*(**(*self.info).ri_IndexRelationDescs.add(i)).rd_rel).relam;
                method == pg_sys::BTREE_AM_OID || method == pg_sys::HASH_AM_OID
            })
        }
    }

    /// Closes what was opened in this statement; locks stay until the transaction ends. Whether it may be kept.
    ///
    /// # Safety
    /// The leaf is open and nothing of it is used before it is opened again.
    unsafe fn close(&self) -> bool {
        // SAFETY: the state belongs to the side, which lives.
        unsafe {
            let state = &mut *self.state;
            for slot in [self.key, self.row, self.found] {
                pg_sys::ExecClearTuple(slot);
            }
            if let Some(scan) = &mut state.scan {
                scan.close();
            }
            if state.is_routed {
                return false;
            }
            let mut keep = true;
            if let Indexes::Open(oids) = &mut state.indexes {
                keep = self.indexes_may_be_kept();
                let oids = std::mem::take(oids);
                if keep {
                    for i in 0..oids.len() {
                        pg_sys::index_close(
                            *(*self.info).ri_IndexRelationDescs.add(i),
                            pg_sys::RowExclusiveLock as i32,
                        );
                    }
                    state.indexes = Indexes::Closed(oids);
                } else {
                    pg_sys::ExecCloseIndices(self.info);
                }
            }
            // Made for triggers of this statement, with slots that the executor state drops.
            (*self.info).ri_TrigOldSlot = null_mut();
            (*self.info).ri_TrigNewSlot = null_mut();
            pg_sys::table_close(self.relation(), pg_sys::NoLock as i32);
            (*self.info).ri_RelationDesc = null_mut();
            state.is_open = false;
            keep
        }
    }
}

impl Side {
    /// Opens `oid` for writing. The lock (ROW EXCLUSIVE) is kept until the transaction ends.
    pub fn open(oid: Oid, foreign_keys: ForeignKeys) -> Result<Side> {
        // SAFETY: see `build`.
        unsafe {
            let mut side = Side::build(oid, foreign_keys)?;
            side.temporary = true;
            side.begin(pg_sys::GetCurrentCommandId(true));
            Ok(side)
        }
    }

    /// Opens `oid` for the writes of one statement, with what was built for the statement before if nothing
    /// has changed since: a statement of one row costs little more than its row.
    pub fn open_kept(oid: Oid, foreign_keys: ForeignKeys) -> Result<Side> {
        // SAFETY: the relation is opened before anything that was kept of it is used. Taking its lock lets this backend
        // hear of what changed: then the epoch is another.
        unsafe {
            let mut side = match kept::take(oid, foreign_keys) {
                None => Side::build(oid, foreign_keys)?,
                Some(mut side) => {
                    let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
                    if side.epoch == kept::epoch() {
                        kept::opened(side.context);
                        side.relation = relation;
                        side.bounds = Bounds::of(relation).filter(|_| side.partitioned);
                        side
                    } else {
                        pg_sys::table_close(relation, pg_sys::NoLock as i32);
                        side.free();
                        Side::build(oid, foreign_keys)?
                    }
                }
            };
            side.begin(pg_sys::GetCurrentCommandId(true));
            Ok(side)
        }
    }

    /// Opens `oid` only to tell rows to partitions and to read. Assigns no command, so that it works on a standby.
    pub fn open_for_reading(oid: Oid) -> Result<Side> {
        // SAFETY: see `build`.
        unsafe {
            let mut side = Side::build(oid, ForeignKeys::All)?;
            side.temporary = true;
            side.begin(pg_sys::GetCurrentCommandId(false));
            Ok(side)
        }
    }

    /// # Safety
    /// To be called within a transaction that has an active snapshot.
    unsafe fn build(oid: Oid, foreign_keys: ForeignKeys) -> Result<Side> {
        // SAFETY: the calls build an executor state around one open relation, as `create_edata_for_relation` of worker.c
        // does, in memory of its own: what a transaction that fails leaves there goes at its end.
        unsafe {
            let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
            let epoch = kept::epoch();
            kept::track(oid);
            let context = pg_sys::AllocSetContextCreateExtended(
                pg_sys::TopMemoryContext,
                c"partition_router side".as_ptr(),
                0,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            kept::opened(context);
            let previous = pg_sys::MemoryContextSwitchTo(context);
            let estate = pg_sys::CreateExecutorState();
            pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let rte = new_node::<pg_sys::RangeTblEntry>(pg_sys::NodeTag::T_RangeTblEntry);
            (*rte).rtekind = pg_sys::RTEKind::RTE_RELATION;
            (*rte).relid = oid;
            (*rte).relkind = (*(*relation).rd_rel).relkind;
            (*rte).rellockmode = pg_sys::AccessShareLock as i32;
            compat::init_range_table(estate, rte);
            let desc = pg_sys::CreateTupleDescCopyConstr((*relation).rd_att);
            pg_sys::MemoryContextSwitchTo(previous);
            let partitioned = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
            Ok(Side {
                oid,
                relation,
                desc,
                context,
                estate,
                partitioned,
                bounds: if partitioned { Bounds::of(relation) } else { None },
                fallback: None,
                foreign_keys,
                leaves: HashMap::new(),
                states: Vec::new(),
                opened: Vec::new(),
                last: None,
                formats: HashMap::new(),
                epoch,
                temporary: false,
            })
        }
    }

    /// # Safety
    /// There is an active snapshot.
    unsafe fn begin(&mut self, command: pg_sys::CommandId) {
        // SAFETY: the executor state is this side's.
        unsafe {
            (*self.estate).es_output_cid = command;
            (*self.estate).es_snapshot = pg_sys::GetActiveSnapshot();
        }
    }

    /// Closes what was opened; locks stay until the transaction ends. What may serve the next statement is kept.
    pub fn close(mut self) {
        // SAFETY: nothing of the side is used after this, or before it is opened again; the order is that of
        // `finish_edata` in worker.c.
        unsafe {
            self.end_row();
            for format in self.formats.values() {
                for slot in [format.old, format.new, format.old_as_target, format.new_as_target] {
                    pg_sys::ExecClearTuple(slot);
                }
            }
            for leaf in std::mem::take(&mut self.opened) {
                self.temporary |= !leaf.close();
            }
            self.last = None;
            if let Some(fallback) = self.fallback.take() {
                compat::ExecCleanupTupleRouting(fallback.modify, fallback.routing);
            }
            pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, true); // slots that triggers asked for
            (*self.estate).es_tupleTable = null_mut();
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
            self.relation = null_mut();
            self.bounds = None;
            kept::closed(self.context);
            if self.temporary || self.leaves.len() > KEPT_LEAVES || self.epoch != kept::epoch() {
                self.free();
            } else {
                kept::keep(self);
            }
        }
    }

    /// Gives the memory of a closed side back.
    ///
    /// # Safety
    /// The side is closed.
    pub unsafe fn free(self) {
        // SAFETY: the caller's.
        unsafe {
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::MemoryContextDelete(self.context);
        }
    }

    /// What the side is kept under.
    pub fn name(&self) -> (Oid, ForeignKeys) {
        (self.oid, self.foreign_keys)
    }

    /// How rows of `relation` become rows of this side.
    ///
    /// # Errors
    /// `PR015` when the relation lacks a column of the pair's key.
    pub fn format(&mut self, pair: &SyncPair, relation: pg_sys::Relation, rows: &Rows) -> Result<Rc<Format>> {
        // SAFETY: the relation that fired is open; what is made here lives in the side's memory.
        unsafe {
            let oid = (*relation).rd_id;
            if !self.temporary
                && let Some(format) = self.formats.get(&oid)
            {
                return Ok(Rc::clone(format));
            }
            let key = key_columns(pair, relation)?;
            kept::track(oid);
            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let desc = pg_sys::CreateTupleDescCopyConstr((*relation).rd_att);
            let kind = match rows {
                Rows::Statement { .. } => &pg_sys::TTSOpsMinimalTuple,
                Rows::One { .. } => &pg_sys::TTSOpsHeapTuple,
            };
            let format = Rc::new(Format {
                old: pg_sys::MakeSingleTupleTableSlot(desc, kind),
                new: pg_sys::MakeSingleTupleTableSlot(desc, kind),
                old_as_target: pg_sys::MakeSingleTupleTableSlot(self.desc, &pg_sys::TTSOpsVirtual),
                new_as_target: pg_sys::MakeSingleTupleTableSlot(self.desc, &pg_sys::TTSOpsVirtual),
                to_target: pg_sys::convert_tuples_by_name(desc, self.desc),
                key,
            });
            pg_sys::MemoryContextSwitchTo(previous);
            self.formats.insert(oid, Rc::clone(&format));
            Ok(format)
        }
    }

    pub fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    pub fn estate(&self) -> *mut pg_sys::EState {
        self.estate
    }

    pub fn is_partitioned(&self) -> bool {
        self.partitioned
    }

    pub fn tuple_desc(&self) -> pg_sys::TupleDesc {
        self.desc
    }

    /// A slot in this side's row format; dropped by whoever asked for it.
    pub fn new_slot(&self) -> Slot {
        // SAFETY: the slot's memory is the executor state's.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let slot = pg_sys::MakeSingleTupleTableSlot(self.desc, &pg_sys::TTSOpsVirtual);
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
        // SAFETY: `row` is in this side's format; the relation is open.
        unsafe {
            if !self.partitioned {
                return self.leaf(self.oid);
            }
            let Some(target) = self.bounds.and_then(|bounds| bounds.find(row)) else {
                return self.locate_by_server(row);
            };
            let leaf = self.leaf(target.oid)?;
            if target.is_default {
                // Bounds of a partition that came meanwhile are known only now, with the default partition locked.
                pg_sys::ExecPartitionCheck(leaf.info, Side::to_leaf(&leaf, row, leaf.row), self.estate, true);
            }
            Ok(leaf)
        }
    }

    /// The table `oid`, which is this side or a leaf right below it, open.
    ///
    /// # Safety
    /// The side is open.
    unsafe fn leaf(&mut self, oid: Oid) -> Result<Leaf> {
        if let Some((last, leaf)) = self.last
            && last == oid
        {
            return Ok(leaf);
        }
        // SAFETY: the states live as long as the side. A leaf that was kept is used only when nothing has changed
        // since: to lock it lets this backend hear of that.
        unsafe {
            let known = self.leaves.get(&oid).copied();
            let leaf = match known {
                Some(leaf) if (*leaf.state).is_open => leaf,
                _ => {
                    let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
                    let leaf = match known {
                        Some(leaf) if self.epoch == kept::epoch() => {
                            (*leaf.info).ri_RelationDesc = relation;
                            (*leaf.state).is_open = true;
                            leaf
                        }
                        _ => {
                            kept::track(oid);
                            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
                            let info = new_node::<pg_sys::ResultRelInfo>(pg_sys::NodeTag::T_ResultRelInfo);
                            pg_sys::InitResultRelInfo(info, relation, 1, null_mut(), 0);
                            pg_sys::MemoryContextSwitchTo(previous);
                            let leaf = self.new_leaf(info, false)?;
                            self.leaves.insert(oid, leaf);
                            leaf
                        }
                    };
                    self.opened.push(leaf);
                    leaf
                }
            };
            self.last = Some((oid, leaf));
            Ok(leaf)
        }
    }

    /// As [`Side::locate`], by the server's own routing.
    ///
    /// # Safety
    /// As for [`Side::leaf`].
    unsafe fn locate_by_server(&mut self, row: Slot) -> Result<Leaf> {
        // SAFETY: the routing structures belong to this side, and go when it is closed.
        unsafe {
            let estate = self.estate;
            self.temporary = true;
            if self.fallback.is_none() {
                let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                let root = new_node::<pg_sys::ResultRelInfo>(pg_sys::NodeTag::T_ResultRelInfo);
                pg_sys::InitResultRelInfo(root, self.relation, 1, null_mut(), 0);
                let modify = new_node::<pg_sys::ModifyTableState>(pg_sys::NodeTag::T_ModifyTableState);
                (*modify).ps.state = estate;
                (*modify).operation = pg_sys::CmdType::CMD_INSERT;
                (*modify).resultRelInfo = root;
                (*modify).rootResultRelInfo = root;
                let routing = compat::ExecSetupPartitionTupleRouting(estate, self.relation);
                pg_sys::MemoryContextSwitchTo(previous);
                self.fallback = Some(Fallback {
                    root,
                    modify,
                    routing,
                });
            }
            let Some(Fallback {
                root,
                modify,
                routing,
            }) = self.fallback
            else {
                return Err(Error::Internal("a side has no routing".into()));
            };
            let info = compat::ExecFindPartition(modify, root, routing, row, estate);
            let oid = (*(*info).ri_RelationDesc).rd_id;
            if let Some(leaf) = self.leaves.get(&oid) {
                return Ok(*leaf);
            }
            let leaf = self.new_leaf(info, true)?;
            if leaf.indexed {
                (*leaf.state).indexes = Indexes::Open(leaf.index_oids());
            }
            self.leaves.insert(oid, leaf);
            self.opened.push(leaf);
            Ok(leaf)
        }
    }

    /// # Safety
    /// `info` belongs to this side, and its relation is open.
    unsafe fn new_leaf(&mut self, info: *mut pg_sys::ResultRelInfo, is_routed: bool) -> Result<Leaf> {
        unsafe {
            let relation = (*info).ri_RelationDesc;
            if !(*info).ri_FdwRoutine.is_null() {
                return Err(Error::Unsupported {
                    what: "sync into a foreign partition is not supported".into(),
                    hint: "Keep the partitions of a pair local.".into(),
                });
            }
            let key_index = primary_key_index(relation);
            let may_be_double = key_index != Oid::INVALID && is_deferrable(key_index);
            let scan = (key_index != Oid::INVALID).then(|| KeyScan::new(key_index));
            let mut state = Box::new(LeafState {
                indexes: Indexes::Unknown,
                scan,
                is_open: true,
                is_routed,
            });
            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            keep_triggers(info, self.foreign_keys);
            let desc = pg_sys::CreateTupleDescCopyConstr((*relation).rd_att);
            let kind = pg_sys::table_slot_callbacks(relation);
            let leaf = Leaf {
                info,
                state: &mut *state,
                from_side: if (*relation).rd_id == self.oid {
                    null_mut()
                } else {
                    pg_sys::convert_tuples_by_name(self.desc, desc)
                },
                key_index,
                may_be_double,
                indexed: has_indexes(relation),
                key: pg_sys::MakeSingleTupleTableSlot(desc, kind),
                row: pg_sys::MakeSingleTupleTableSlot(desc, kind),
                found: pg_sys::MakeSingleTupleTableSlot(desc, kind),
            };
            pg_sys::MemoryContextSwitchTo(previous);
            self.states.push(state);
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
        unsafe { write::insert(&leaf, self.estate, target) };
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

    /// As [`Side::find_image`], without the lock where the key names one row: what is then done to it finds out whether
    /// it was still the same.
    fn seek(&mut self, leaf: &Leaf, row: Slot) -> Result<bool> {
        // SAFETY: the state belongs to this side.
        let scan = unsafe { &mut (*leaf.state).scan };
        match scan {
            Some(scan) if !leaf.may_be_double => {
                let key = Side::to_leaf(leaf, row, leaf.key);
                // SAFETY: `key` is in the leaf's format, and the leaf is open.
                Ok(unsafe { scan.find(leaf, key) })
            }
            _ => self.find_image(leaf, row),
        }
    }

    /// Whether what was done is to be done again, now that the row has changed.
    fn is_to_be_repeated(&mut self, change: Change) -> bool {
        if change == Change::JustWritten {
            self.see_own_writes();
        }
        pgrx::check_for_interrupts!();
        change != Change::Done
    }

    /// Replaces the row that has the key of `old` by `new`; inserts `new` when there is none.
    pub fn update(&mut self, old: Slot, new: Slot) -> Result<()> {
        let from = self.locate(old)?;
        let to = self.locate(new)?;
        loop {
            if !self.seek(&from, old)? {
                return self.insert(new);
            }
            // SAFETY: the found row is one of the leaf; the slots are in the leaves' formats.
            let change = unsafe {
                if from.info == to.info {
                    let target = Side::to_leaf(&to, new, to.row);
                    write::update(&to, self.estate, target)
                } else {
                    write::delete(&from, self.estate)
                }
            };
            if !self.is_to_be_repeated(change) {
                break;
            }
        }
        if from.info != to.info {
            return self.insert(new);
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
                write::insert(&leaf, self.estate, target);
                Outcome::Inserted
            } else if same_row(leaf.found, target) {
                Outcome::Equal
            } else {
                self.require_done(write::update(&leaf, self.estate, target), &leaf)?;
                Outcome::Updated
            }
        };
        self.end_row();
        Ok(outcome)
    }

    /// Deletes the row that has the key of `row`. Gives false when there is none.
    pub fn delete(&mut self, row: Slot) -> Result<bool> {
        let leaf = self.locate(row)?;
        let found = loop {
            if !self.seek(&leaf, row)? {
                break false;
            }
            // SAFETY: the found row is one of the leaf.
            let change = unsafe { write::delete(&leaf, self.estate) };
            if !self.is_to_be_repeated(change) {
                break true;
            }
        };
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
            // SAFETY: the found row was locked by this transaction.
            let change = unsafe { write::delete(&leaf, self.estate) };
            self.require_done(change, &leaf)?;
        }
        self.end_row();
        Ok(delete)
    }

    /// A row that this transaction has locked can be changed by nobody else; this command may have written it.
    fn require_done(&self, change: Change, leaf: &Leaf) -> Result<()> {
        if change == Change::Done {
            return Ok(());
        }
        Err(Error::Sync {
            // SAFETY: the leaf is open.
            relation: unsafe { relation_name(leaf.relation()) },
            reason: "one statement changed a row twice".into(),
            hint: "Change the rows in two statements.".into(),
        })
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
