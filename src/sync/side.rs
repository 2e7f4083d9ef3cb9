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

mod changes;
mod leaves;

use super::Rows;
use super::batch::{Batch, Filling};
use super::kept;
use super::leaf::{Leaf, LeafState};
use super::pair_cache::SyncPair;
use super::reconcile::{KeyColumn, key_columns};
use super::relation::new_node;
use super::routing::Bounds;
use crate::compat;
use crate::error::Result;
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
    /// What is deleted comes back with another key, or may.
    deletes_move: bool,
    /// Nobody else writes to it, so that a row need not be locked before it is changed.
    is_alone: bool,
    /// Rows that wait for the heap or for their index entries, where the side gathers them.
    batch: Option<Batch>,
    /// Not for the next statement: something was built that lives only as long as this one.
    temporary: bool,
}

/// The server's own routing, for partitions that are partitioned themselves and for keys that are expressions.
struct Fallback {
    root: *mut pg_sys::ResultRelInfo,
    modify: *mut pg_sys::ModifyTableState,
    routing: *mut compat::PartitionTupleRouting,
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
                deletes_move: false,
                is_alone: false,
                batch: None,
                temporary: false,
            })
        }
    }

    /// Until the side is closed, rows are deleted because their keys change: a session that waits for one is told so.
    pub fn deletes_move(&mut self) {
        self.deletes_move = true;
    }

    /// Until the side is closed, no other transaction writes to it.
    pub fn is_written_by_nobody_else(&mut self) {
        self.is_alone = true;
    }

    /// From now on rows that come are written many at a time. Each has a key of its own; nothing else is done to the side
    /// before [`Side::write_gathered`].
    pub fn gather(&mut self, filling: Filling) {
        self.batch = Some(Batch::new(filling));
    }

    /// Writes the rows that were gathered, and goes on gathering.
    pub fn write_gathered_so_far(&mut self) {
        if let Some(batch) = &mut self.batch {
            // SAFETY: the leaves are this side's, and open.
            unsafe { batch.write(self.estate) };
        }
    }

    /// Writes the rows that were gathered, and goes on row by row.
    pub fn write_gathered(&mut self) {
        if let Some(batch) = self.batch.take() {
            // SAFETY: the leaves are this side's, and open.
            unsafe { batch.finish(self.estate) };
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
        self.deletes_move = false;
        self.is_alone = false;
    }

    /// Closes what was opened; locks stay until the transaction ends. What may serve the next statement is kept.
    pub fn close(mut self) {
        self.write_gathered();
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

    /// The bounds of its partitions, where rows can be told to them without an executor.
    pub fn bounds(&self) -> Option<Bounds> {
        self.bounds
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
}
