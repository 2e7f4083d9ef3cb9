//! The copy: reads the legacy's heap block by block and writes straight into partitions that have no index, many rows
//! at a time (`heap_multi_insert`).
//!
//! A row that moves while the copy runs must not be met twice. So only row versions are copied whose transaction had
//! ended before capture was surely in force (the *horizon*): of each row there is at most one, wherever it lies and
//! whenever its block is read. The key of a younger version goes to the change log, from which the drain takes the
//! row as it is then.
#![allow(unsafe_code)]

use super::courtesy::Turns;
use super::state::CopyState;
use super::tasks::Task;
use crate::catalog::load;
use crate::error::Result;
use crate::session;
use crate::sync::bulk::Writer;
use crate::sync::capture::KeyLog;
use crate::sync::pair_cache::SyncPair;
use crate::sync::side::Slot;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ptr::null_mut;

/// Blocks that are read between two looks at the number of rows.
const CHUNK_BLOCKS: u32 = 128;

/// What the copy reads, fixed when it begins.
pub struct Origin {
    /// The oldest transaction still running: what it and younger ones write is captured or logged.
    pub horizon: u64,
    pub file_node: Oid,
    /// Whose file and transactions these are.
    pub server: String,
    pub blocks: u32,
}

impl Origin {
    /// To be taken after the capture triggers were committed.
    pub fn now(legacy: Oid) -> Origin {
        // SAFETY: opened and closed here; the snapshot's xmin is read while it is current.
        unsafe {
            let relation = pg_sys::table_open(legacy, pg_sys::AccessShareLock as i32);
            let next = pg_sys::ReadNextFullTransactionId().value;
            let oldest = (*pg_sys::GetLatestSnapshot()).xmin;
            // The snapshot's xmin is at most 2^31 transactions behind the next one.
            let behind = (next as u32).wrapping_sub(oldest.into_inner());
            let origin = Origin {
                horizon: next - u64::from(behind),
                file_node: file_node(relation),
                server: session::server(),
                blocks: pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM),
            };
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            origin
        }
    }
}

/// # Safety
/// `relation` is open.
unsafe fn file_node(relation: pg_sys::Relation) -> Oid {
    // SAFETY: the caller's promise.
    unsafe { (*(*relation).rd_rel).relfilenode }
}

/// What one call of [`batch`] did.
#[derive(Default)]
pub struct Copied {
    pub rows: u64,
    pub logged: u64,
    pub blocks: u32,
    /// What is left of the range that was begun last.
    pub rest: Option<Task>,
    /// The legacy has another file than when the copy began; nothing was copied.
    pub rewritten: bool,
}

/// Whether a table, or one of its partitions, has a row in the latest snapshot.
pub fn has_rows(table: Oid) -> Result<bool> {
    for leaf in load::leaves(table)? {
        // SAFETY: everything opened here is closed here.
        let found = unsafe {
            let relation = pg_sys::table_open(leaf, pg_sys::AccessShareLock as i32);
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let scan = pg_sys::table_beginscan_strat(relation, snapshot, 0, null_mut(), true, false);
            let slot = pg_sys::table_slot_create(relation, null_mut());
            let found =
                pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::table_endscan(scan);
            pg_sys::UnregisterSnapshot(snapshot);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            found
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rows between two looks for writers, and at the clock: some thirty microseconds.
const LOOK: u32 = 16;

/// Copies about `batch_rows` rows: the range `first`, and those that `more` gives.
pub fn batch(
    pair: &SyncPair,
    state: &CopyState,
    batch_rows: u64,
    first: Task,
    mut more: impl FnMut() -> Result<Option<Task>>,
) -> Result<Copied> {
    pair.require_same_columns()?;
    let horizon = state.horizon()? as u32;
    let mut copied = Copied::default();
    // SAFETY: relations, scans, slots and the snapshot opened here are closed here, in reverse order; on an error the
    // abort does it.
    unsafe {
        let legacy = pg_sys::table_open(pair.legacy, pg_sys::AccessShareLock as i32);
        if file_node(legacy).to_u32() != state.file_node || state.server != session::server() {
            pg_sys::table_close(legacy, pg_sys::NoLock as i32);
            copied.rewritten = true;
            return Ok(copied);
        }
        let mut log = KeyLog::open(pair, legacy)?;
        let mut writer = Writer::open(pair.twin, legacy)?;
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let row = pg_sys::table_slot_create(legacy, null_mut());
        let length = pg_sys::RelationGetNumberOfBlocksInFork(legacy, pg_sys::ForkNumber::MAIN_FORKNUM);
        let mut turns = Turns::of(LOOK);
        let mut range = Some(first);
        while let Some(task) = range.take() {
            let mut block = task.first_block;
            let end = task.end_block.min(length); // VACUUM may have cut the empty end off
            while block < end && copied.rows + copied.logged < batch_rows {
                let blocks = CHUNK_BLOCKS.min(end - block);
                let scan = pg_sys::table_beginscan_strat(legacy, snapshot, 0, null_mut(), true, false);
                pg_sys::heap_setscanlimits(scan, block, blocks);
                while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, row) {
                    pgrx::check_for_interrupts!();
                    if is_older(row, horizon) {
                        writer.add(row)?;
                        copied.rows += 1;
                    } else {
                        log.add(row);
                        copied.logged += 1;
                    }
                    turns.one(|| true);
                }
                pg_sys::table_endscan(scan);
                block += blocks;
            }
            if block < end {
                copied.blocks += block - task.first_block;
                copied.rest = Some(task.from(block));
            } else {
                copied.blocks += task.blocks();
                if copied.rows + copied.logged < batch_rows {
                    range = more()?;
                }
            }
        }
        writer.finish();
        pg_sys::ExecDropSingleTupleTableSlot(row);
        pg_sys::UnregisterSnapshot(snapshot);
        log.close();
        pg_sys::table_close(legacy, pg_sys::NoLock as i32);
        Ok(copied)
    }
}

/// Whether the row version in `slot` was made by a transaction before the horizon. When in doubt (a frozen version so
/// old that the 32 bits have come round) it says no, and the drain looks the row up.
///
/// # Safety
/// `slot` holds a heap tuple.
unsafe fn is_older(slot: Slot, horizon: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
        let xmin = (*(*tuple).t_data).t_choice.t_heap.t_xmin.into_inner();
        // Special ids (bootstrap, frozen) are older than all; others compare modulo 2^32, as TransactionIdPrecedes.
        xmin < pg_sys::FirstNormalTransactionId.into_inner() || (xmin.wrapping_sub(horizon) as i32) < 0
    }
}
