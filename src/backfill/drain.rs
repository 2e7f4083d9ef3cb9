//! The drain: takes keys out of the change log and makes the twin equal to the legacy for each. The log says only
//! where to look; what is written is the legacy's row as it is now. A key is deleted from the log under the very
//! snapshot that reads its row, so a change that commits later leaves its key for later.
//!
//! Nobody else writes to the twin meanwhile. So new rows are gathered and written many at a time, and a key that is in the log
//! twice is done once: under one snapshot the second time would find what the first has left.
//!
//! Rows that took each other's unique values collide when they come one by one. Then the whole log is drained at once:
//! what differs is deleted first, and comes back when there is room. Rows that are not in the log are equal on both
//! sides under this snapshot, so that nothing is left to collide with.
#![allow(unsafe_code)]

use super::courtesy::Turns;
use crate::error::{Error, Result};
use crate::locks::budget;
use crate::spi;
use crate::sync::batch::Filling;
use crate::sync::pair_cache::SyncPair;
use crate::sync::reconcile::Reconciler;
use crate::sync::side::{ForeignKeys, Side, Slot};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::collections::HashSet;
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
/// Keys between two looks for writers, and at the clock.
const LOOK: u32 = 4;
/// The drain rests beside writers while it takes out of the log so many times what they put in; else the log would never be
/// empty.
const PACE: u64 = 2;

/// Bytes that a row of the log takes beside its values: its head, and a pointer to it.
const ROW_HEAD: usize = 28;

/// When a batch ends, at a few blocks more.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    keys: u64,
    until: Option<Instant>,
    /// Beside writers the drain may rest.
    rests: bool,
}

impl Limit {
    const NONE: Limit = Limit {
        keys: u64::MAX,
        until: None,
        rests: false,
    };

    pub fn keys(keys: u64) -> Limit {
        Limit { keys, ..Limit::NONE }
    }

    pub fn resting(self) -> Limit {
        Limit { rests: true, ..self }
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
    let act = if pair.has_other_unique {
        // Collisions show here, not when the step commits.
        spi::execute("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
        Act::Reconcile
    } else {
        Act::Gather
    };
    match budget::subtransaction(|| pass(pair, &[first], start_block, limit, &[act])) {
        Ok(drained) => drained,
        Err(caught) if budget::sqlstate(&caught) != Some(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION) => {
            caught.rethrow()
        }
        Err(_) if pair.has_other_unique => {
            let logs: Vec<Oid> = aside.into_iter().chain([in_use]).collect();
            pass(pair, &logs, 0, Limit::NONE, &[Act::MakeRoom, Act::Reconcile])
        }
        // One key is in the log in two shapes, compressed and not say.
        Err(_) => pass(pair, &[first], start_block, limit, &[Act::Reconcile]),
    }
}

/// What a pass over the log does with each key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    MakeRoom,
    /// And takes the key out of the log.
    Reconcile,
    /// As `Reconcile`, but a key that comes again is only taken out, and new rows are written together. For tables where nothing
    /// but the key is unique.
    Gather,
}

/// Does `acts` one after the other, each for all keys of all `logs`, under one snapshot.
fn pass(pair: &SyncPair, logs: &[Oid], start_block: u32, limit: Limit, acts: &[Act]) -> Result<Drained> {
    pair.require_same_columns()?;
    // SAFETY: what is opened here is closed here; on an error the abort does it.
    unsafe {
        pg_sys::CommandCounterIncrement(); // what a batch before in this transaction took out of the log is gone
        let mut pass = Pass::open(pair, limit)?;
        for &act in acts {
            if act == Act::Gather {
                pass.target.gather(Filling::AnyRoom);
            }
            pass.drained.keys = 0;
            for &log in logs {
                pass.go_through(act, log, start_block)?;
            }
        }
        Ok(pass.close())
    }
}

/// What a pass over the log has open.
struct Pass {
    origin: Side,
    target: Side,
    reconciler: Reconciler,
    /// Holds a key, in the format of the origin.
    key: Slot,
    /// Where the columns of the key are in the origin, from 0 on.
    columns: Vec<usize>,
    snapshot: pg_sys::Snapshot,
    limit: Limit,
    inflow: Inflow,
    turns: Turns,
    /// Keys that a chunk of blocks has had, as they lie there.
    seen: HashSet<Vec<u8>>,
    /// Bytes.
    taken_out: u64,
    drained: Drained,
}

impl Pass {
    /// The trigger queue is opened around the writes, as the apply worker does.
    ///
    /// # Safety
    /// What it opens is closed before the transaction ends.
    unsafe fn open(pair: &SyncPair, limit: Limit) -> Result<Pass> {
        let mut origin = Side::open(pair.legacy, ForeignKeys::All)?;
        let mut target = Side::open(pair.twin, ForeignKeys::ActionsOnly)?;
        target.is_written_by_nobody_else();
        let reconciler = Reconciler::new(&mut origin, &mut target, pair)?;
        let key = origin.new_slot();
        let columns = key_columns(pair, &origin)?;
        // SAFETY: the caller's promise.
        unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            pg_sys::AfterTriggerBeginQuery();
            Ok(Pass {
                origin,
                target,
                reconciler,
                key,
                columns,
                snapshot,
                limit,
                inflow: Inflow::open(pair.log.ok_or_else(no_log)?),
                turns: Turns::of(LOOK),
                seen: HashSet::new(),
                taken_out: 0,
                drained: Drained {
                    keys: 0,
                    next_block: None,
                    log_blocks: 0,
                },
            })
        }
    }

    /// Closes all of it, in reverse order.
    unsafe fn close(self) -> Drained {
        // SAFETY: it is open.
        unsafe {
            self.inflow.close();
            pg_sys::AfterTriggerEndQuery(self.target.estate());
            pg_sys::UnregisterSnapshot(self.snapshot);
            pg_sys::ExecDropSingleTupleTableSlot(self.key);
        }
        self.reconciler.close();
        self.origin.close();
        self.target.close();
        self.drained
    }

    /// Does `act` for the keys of a log, chunk by chunk until the limit.
    unsafe fn go_through(&mut self, act: Act, log: Oid, start_block: u32) -> Result<()> {
        // SAFETY: the log and the slot are opened and closed here.
        unsafe {
            let log = pg_sys::table_open(log, pg_sys::RowExclusiveLock as i32);
            let end = pg_sys::RelationGetNumberOfBlocksInFork(log, pg_sys::ForkNumber::MAIN_FORKNUM);
            self.drained.log_blocks = end;
            let entry = pg_sys::table_slot_create(log, std::ptr::null_mut());
            let mut block = start_block;
            while block < end && !self.limit.is_reached(self.drained.keys) {
                let blocks = self.limit.chunk_blocks().min(end - block);
                self.chunk(act, log, block, blocks, entry)?;
                block += blocks;
            }
            if block < end {
                self.drained.next_block = Some(block);
            }
            pg_sys::ExecDropSingleTupleTableSlot(entry);
            pg_sys::table_close(log, pg_sys::NoLock as i32);
        }
        Ok(())
    }

    /// Does `act` for the keys of some blocks of an open log, whose rows come in `entry`.
    unsafe fn chunk(
        &mut self,
        act: Act,
        log: pg_sys::Relation,
        block: u32,
        blocks: u32,
        entry: Slot,
    ) -> Result<()> {
        // SAFETY: the log is open; the scan is opened and closed here.
        unsafe {
            let scan =
                pg_sys::table_beginscan_strat(log, self.snapshot, 0, std::ptr::null_mut(), true, false);
            pg_sys::heap_setscanlimits(scan, block, blocks);
            while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, entry) {
                pgrx::check_for_interrupts!();
                self.one(act, log, entry)?;
            }
            pg_sys::table_endscan(scan);
        }
        if act == Act::Gather {
            self.target.write_gathered_so_far();
            self.target.see_own_writes();
            self.seen.clear();
        }
        Ok(())
    }

    /// Does `act` for the key in a row of an open log.
    unsafe fn one(&mut self, act: Act, log: pg_sys::Relation, entry: Slot) -> Result<()> {
        // SAFETY: the row is there until the scan goes on.
        unsafe {
            let image = image(entry);
            self.taken_out += (image.len() + ROW_HEAD) as u64;
            let is_new = act != Act::Gather || self.seen.insert(image.to_vec());
            if act != Act::Gather {
                self.target.see_own_writes();
            }
            if is_new {
                key_of_entry(entry, &self.columns, self.key, self.origin.tuple_desc());
                let (origin, target) = (&mut self.origin, &mut self.target);
                if act == Act::MakeRoom {
                    self.reconciler
                        .make_room(origin, target, self.key, self.snapshot)?;
                } else {
                    self.reconciler
                        .reconcile_at(origin, target, self.key, self.snapshot)?;
                }
            }
            if act != Act::MakeRoom {
                pg_sys::simple_table_tuple_delete(log, &mut (*entry).tts_tid, self.snapshot);
            }
        }
        self.drained.keys += 1;
        if self.limit.rests {
            let (taken_out, inflow) = (self.taken_out, &self.inflow);
            self.turns.one(|| taken_out >= PACE * inflow.bytes());
        }
        Ok(())
    }
}

/// Where the columns of the twin's key are in the legacy, from 0 on.
fn key_columns(pair: &SyncPair, origin: &Side) -> Result<Vec<usize>> {
    let number = |name: &String| {
        let name = CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
        // SAFETY: the legacy is open.
        let number = unsafe { pg_sys::SPI_fnumber(origin.tuple_desc(), name.as_ptr()) };
        usize::try_from(number - 1).map_err(|_| Error::Internal("a key column is gone".into()))
    };
    pair.twin_key.iter().map(number).collect()
}

/// What writers put into the log since a batch began.
struct Inflow {
    log: pg_sys::Relation,
    blocks: u32,
}

impl Inflow {
    /// # Safety
    /// `log` is the log in use; it is closed before the transaction ends.
    unsafe fn open(log: Oid) -> Inflow {
        // SAFETY: the caller's promise.
        unsafe {
            let mut inflow = Inflow {
                log: pg_sys::table_open(log, pg_sys::AccessShareLock as i32),
                blocks: 0,
            };
            inflow.blocks = inflow.length();
            inflow
        }
    }

    fn length(&self) -> u32 {
        // SAFETY: the log is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.log, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Nearly: in whole blocks, and with what a row takes beside its key.
    fn bytes(&self) -> u64 {
        u64::from(self.length().saturating_sub(self.blocks)) * u64::from(pg_sys::BLCKSZ)
    }

    unsafe fn close(self) {
        // SAFETY: it is open.
        unsafe { pg_sys::table_close(self.log, pg_sys::NoLock as i32) };
    }
}

/// A row of the log as it lies there, without what says who wrote it: equal ones are of one key.
///
/// # Safety
/// `entry` holds a row of a heap, which outlives the result.
unsafe fn image<'a>(entry: Slot) -> &'a [u8] {
    // SAFETY: the caller's promise; a tuple is as long as it says, and begins with a header.
    unsafe {
        let tuple = (*entry.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
        let header = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
        let length = (*tuple).t_len as usize - header;
        std::slice::from_raw_parts((*tuple).t_data.cast::<u8>().add(header), length)
    }
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
