//! TRUNCATE on one side empties the other; TRUNCATE of a partition deletes its rows from the legacy.
#![allow(unsafe_code)]

use super::frames::Suppressed;
use super::pair_cache::SyncPair;
use super::rows::{convert, partial_map};
use super::side::{ForeignKeys, Side};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::{session, spi};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ptr::null_mut;

/// Carries the TRUNCATE of `relation`, a table of `pair`.
pub fn carry(pair: &SyncPair, relation: Oid, is_live: bool) -> Result<()> {
    let _suppressed = Suppressed::new();
    session::as_user(pair.legacy_owner, || {
        let _path = session::PinnedSettings::search_path();
        if relation == pair.legacy {
            truncate(pair, pair.twin)?;
            if let Some(log) = pair.log
                && !is_live
            {
                // What was logged before is gone on both sides; what this transaction logs later comes after.
                truncate(pair, log)?;
            }
            Ok(())
        } else if relation == pair.twin {
            truncate(pair, pair.legacy)
        } else {
            delete_rows_of(pair, relation)
        }
    })
}

fn truncate(pair: &SyncPair, table: Oid) -> Result<()> {
    let name = load::rel_name(table)?
        .ok_or_else(|| Error::Internal(format!("pair {} has lost a table", pair.id)))?;
    // The user's triggers have fired on the side that was written, and must not fire again for the other.
    let _role = session::PinnedSettings::new(&[(c"session_replication_role", "replica")]);
    spi::execute(&format!("TRUNCATE {name}"), &[])?;
    Ok(())
}

/// Deletes the legacy's rows that belong in `partition`: all of them, also those that an old snapshot does not see, as
/// TRUNCATE does. Foreign keys that point there act and check as for any DELETE.
fn delete_rows_of(pair: &SyncPair, partition: Oid) -> Result<()> {
    let mut twin = Side::open(pair.twin, ForeignKeys::ActionsOnly)?;
    let mut legacy = Side::open(pair.legacy, ForeignKeys::All)?;
    legacy.see_own_writes();
    // SAFETY: relations, the scan, slots and the snapshot opened here are closed here; on an error the abort does it.
    unsafe {
        let map = partial_map(legacy.tuple_desc(), twin.tuple_desc()); // a guard has a part of the columns
        let as_twin = twin.new_slot();
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::table_beginscan_strat(legacy.relation(), snapshot, 0, null_mut(), true, true);
        let row = pg_sys::table_slot_create(legacy.relation(), null_mut());
        while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, row) {
            pgrx::check_for_interrupts!();
            let leaf = twin.locate(convert(map, row, as_twin))?;
            let belongs = leaf_is_below(&leaf, partition);
            twin.end_row();
            if belongs {
                legacy.delete(row)?;
            }
        }
        pg_sys::ExecDropSingleTupleTableSlot(row);
        pg_sys::table_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::ExecDropSingleTupleTableSlot(as_twin);
    }
    legacy.close();
    twin.close();
    Ok(())
}

/// Whether a leaf is `partition` itself. A partition that is partitioned again fires for each of its leaves.
fn leaf_is_below(leaf: &super::leaf::Leaf, partition: Oid) -> bool {
    // SAFETY: the leaf is open.
    unsafe { (*leaf.relation()).rd_id == partition }
}
