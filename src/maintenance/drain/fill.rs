//! The copy of a drain: reads blocks of the default and writes straight into the partitions below the staging table, which have no
//! index yet, many rows at a time.
#![allow(unsafe_code)]

use crate::error::Result;
use crate::sync::bulk::Writer;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ptr::null_mut;

/// How rows come to the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// They are right there as they lie in the default.
    AsTheyLie,
    /// The default has rows that its constraints were never proven for, or generates columns in its own way.
    Check,
}

/// Copies the rows in a range of blocks that are there now; gives their number.
///
/// # Errors
/// `23514` and `23502` for a row that a partition does not take.
pub fn copy(default: Oid, staging: Oid, first_block: u32, end_block: u32, trust: Trust) -> Result<u64> {
    // SAFETY: relation, scan, slot and snapshot are opened and closed here, in reverse order; on an error the abort does it.
    unsafe {
        let relation = pg_sys::table_open(default, pg_sys::AccessShareLock as i32);
        let length = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        let end_block = end_block.min(length); // VACUUM may have cut the empty end off
        let mut rows = 0;
        if first_block < end_block {
            let mut writer = Writer::open(staging, relation)?;
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let row = pg_sys::table_slot_create(relation, null_mut());
            let scan = pg_sys::table_beginscan_strat(relation, snapshot, 0, null_mut(), true, false);
            pg_sys::heap_setscanlimits(scan, first_block, end_block - first_block);
            while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, row) {
                pgrx::check_for_interrupts!();
                match trust {
                    Trust::AsTheyLie => writer.add(row)?,
                    Trust::Check => writer.add_checked(row)?,
                }
                rows += 1;
            }
            pg_sys::table_endscan(scan);
            writer.finish();
            pg_sys::ExecDropSingleTupleTableSlot(row);
            pg_sys::UnregisterSnapshot(snapshot);
        }
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        Ok(rows)
    }
}
