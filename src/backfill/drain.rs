//! The drain: takes keys out of the change log and makes the twin equal to the legacy for each. The log says only
//! where to look; what is written is the legacy's row as it is now. A key is deleted from the log under the very
//! snapshot that reads its row, so a change that commits later leaves its key for later.
//!
//! Rows that took each other's unique values collide when they come one by one. Then the whole log is drained at once:
//! what differs is deleted first, and comes back when there is room. Rows that are not in the log are equal on both
//! sides under this snapshot, so that nothing is left to collide with.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::locks::budget;
use crate::spi;
use crate::sync::pair_cache::SyncPair;
use crate::sync::reconcile::Reconciler;
use crate::sync::side::{ForeignKeys, Side, Slot};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::CString;
use std::time::Instant;

/// What one call of [`batch`] did.
pub struct Drained {
    pub keys: u64,
    /// Where to go on; `None` at the end of the log.
    pub next_block: Option<u32>,
    pub log_blocks: u32,
}

/// Blocks that are read between two looks at the number of keys, and at the clock.
const CHUNK_BLOCKS: u32 = 64;
const CHUNK_BLOCKS_IN_TIME: u32 = 4;

/// When a batch ends, at a few blocks more.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    keys: u64,
    until: Option<Instant>,
}

impl Limit {
    const NONE: Limit = Limit {
        keys: u64::MAX,
        until: None,
    };

    pub fn keys(keys: u64) -> Limit {
        Limit { keys, ..Limit::NONE }
    }

    pub fn until(deadline: Instant) -> Limit {
        Limit {
            until: Some(deadline),
            ..Limit::NONE
        }
    }

    fn chunk_blocks(&self) -> u32 {
        if self.until.is_some() {
            CHUNK_BLOCKS_IN_TIME
        } else {
            CHUNK_BLOCKS
        }
    }

    fn is_reached(&self, keys: u64) -> bool {
        keys >= self.keys || self.until.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

fn no_log() -> Error {
    Error::Internal("a pair that is copying has no change log".into())
}

/// Drains a log from `start_block` on, until the limit: the one that was set `aside`, or the one in use.
pub fn batch(pair: &SyncPair, aside: Option<Oid>, start_block: u32, limit: Limit) -> Result<Drained> {
    let in_use = pair.log.ok_or_else(no_log)?;
    let first = aside.unwrap_or(in_use);
    if !pair.has_other_unique {
        return pass(pair, &[first], start_block, limit, &[Act::Reconcile]);
    }
    // Collisions show here, not when the step commits.
    spi::execute("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
    match budget::subtransaction(|| pass(pair, &[first], start_block, limit, &[Act::Reconcile])) {
        Ok(drained) => drained,
        Err(caught) if budget::sqlstate(&caught) == Some(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION) => {
            let logs: Vec<Oid> = aside.into_iter().chain([in_use]).collect();
            pass(pair, &logs, 0, Limit::NONE, &[Act::MakeRoom, Act::Reconcile])
        }
        Err(caught) => caught.rethrow(),
    }
}

/// What a pass over the log does with each key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    MakeRoom,
    /// And takes the key out of the log.
    Reconcile,
}

/// Does `acts` one after the other, each for all keys of all `logs`, under one snapshot.
fn pass(pair: &SyncPair, logs: &[Oid], start_block: u32, limit: Limit, acts: &[Act]) -> Result<Drained> {
    pair.require_same_columns()?;
    let mut origin = Side::open(pair.legacy, ForeignKeys::All)?;
    let mut target = Side::open(pair.twin, ForeignKeys::ActionsOnly)?;
    let mut reconciler = Reconciler::new(&mut origin, &mut target, pair)?;
    let key_slot = origin.new_slot();
    let columns: Vec<usize> = pair
        .twin_key
        .iter()
        .map(|name| {
            let name = CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
            // SAFETY: the legacy is open.
            let number = unsafe { pg_sys::SPI_fnumber(origin.tuple_desc(), name.as_ptr()) };
            usize::try_from(number - 1).map_err(|_| Error::Internal("a key column is gone".into()))
        })
        .collect::<Result<_>>()?;
    let mut drained = Drained {
        keys: 0,
        next_block: None,
        log_blocks: 0,
    };
    // SAFETY: relations, scans, slots and the snapshot opened here are closed here, in reverse order; on an error the
    // abort does it. The trigger queue is opened around the writes as the apply worker does.
    unsafe {
        pg_sys::CommandCounterIncrement(); // what a batch before in this transaction took out of the log is gone
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        pg_sys::AfterTriggerBeginQuery();
        for &act in acts {
            drained.keys = 0;
            for &log_oid in logs {
                let log = pg_sys::table_open(log_oid, pg_sys::RowExclusiveLock as i32);
                drained.log_blocks =
                    pg_sys::RelationGetNumberOfBlocksInFork(log, pg_sys::ForkNumber::MAIN_FORKNUM);
                let entry = pg_sys::table_slot_create(log, std::ptr::null_mut());
                let mut block = start_block;
                while block < drained.log_blocks && !limit.is_reached(drained.keys) {
                    let blocks = limit.chunk_blocks().min(drained.log_blocks - block);
                    let scan =
                        pg_sys::table_beginscan_strat(log, snapshot, 0, std::ptr::null_mut(), true, false);
                    pg_sys::heap_setscanlimits(scan, block, blocks);
                    while pg_sys::table_scan_getnextslot(
                        scan,
                        pg_sys::ScanDirection::ForwardScanDirection,
                        entry,
                    ) {
                        pgrx::check_for_interrupts!();
                        key_of_entry(entry, &columns, key_slot, origin.tuple_desc());
                        target.see_own_writes();
                        if act == Act::MakeRoom {
                            reconciler.make_room(&mut origin, &mut target, key_slot, snapshot)?;
                        } else {
                            reconciler.reconcile_at(&mut origin, &mut target, key_slot, snapshot)?;
                            pg_sys::simple_table_tuple_delete(log, &mut (*entry).tts_tid, snapshot);
                        }
                        drained.keys += 1;
                    }
                    pg_sys::table_endscan(scan);
                    block += blocks;
                }
                if block < drained.log_blocks {
                    drained.next_block = Some(block);
                }
                pg_sys::ExecDropSingleTupleTableSlot(entry);
                pg_sys::table_close(log, pg_sys::NoLock as i32);
            }
        }
        pg_sys::AfterTriggerEndQuery(target.estate());
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::ExecDropSingleTupleTableSlot(key_slot);
    }
    reconciler.close();
    origin.close();
    target.close();
    Ok(drained)
}

/// Puts the key in `entry`, a row of the log, into `key`, whose format is `desc`: its `columns`, the others null.
///
/// # Safety
/// `entry` holds a row, which outlives the use of `key`.
unsafe fn key_of_entry(entry: Slot, columns: &[usize], key: Slot, desc: pg_sys::TupleDesc) {
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::slot_getallattrs(entry);
        pg_sys::ExecClearTuple(key);
        std::slice::from_raw_parts_mut((*key).tts_isnull, (*desc).natts as usize).fill(true);
        for (i, column) in columns.iter().enumerate() {
            *(*key).tts_values.add(*column) = *(*entry).tts_values.add(i);
            *(*key).tts_isnull.add(*column) = *(*entry).tts_isnull.add(i);
        }
        pg_sys::ExecStoreVirtualTuple(key);
    }
}
