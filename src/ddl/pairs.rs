//! Which pair a relation belongs to. Every DDL statement of the database comes here, so the pairs are read from their
//! table without SQL: some microseconds.
#![allow(unsafe_code)]

use crate::compat;
use crate::error::Result;
use crate::ident::RelName;
use crate::pair::Pair;
use crate::spi;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// A pair as far as telling its tables goes.
#[derive(Debug, Clone, Copy)]
pub struct Sides {
    pub id: i32,
    /// Or the guard that it has become.
    pub legacy: Oid,
    pub twin: Oid,
}

/// What a relation is to its pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Legacy,
    Twin,
    /// Of the twin, at any depth.
    Partition,
}

/// Columns of `partition_router.pair`.
const ID: i32 = 1;
const LEGACY: i32 = 2;
const TWIN: i32 = 3;
const GUARD: i32 = 19;

/// Every pair that has both its tables.
pub fn all() -> Vec<Sides> {
    let mut pairs = registered();
    pairs.retain(|pair| exists(pair.legacy) && exists(pair.twin));
    pairs
}

/// Every pair, also one that has lost a table. Empty, too, while the extension is being created.
pub fn registered() -> Vec<Sides> {
    let mut found = vec![];
    // SAFETY: everything opened here is closed here; the columns are NOT NULL and their types those of sql/schema.sql.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"partition_router".as_ptr(), true);
        let table = pg_sys::get_relname_relid(c"pair".as_ptr(), schema);
        if schema == Oid::INVALID || table == Oid::INVALID {
            return found;
        }
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::table_beginscan_strat(relation, snapshot, 0, std::ptr::null_mut(), true, false);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            let mut is_null = false;
            let mut number = |column| pg_sys::slot_getattr(slot, column, &mut is_null).value() as u32;
            let (legacy, guard) = (number(LEGACY), number(GUARD)); // zero for NULL
            found.push(Sides {
                id: number(ID) as i32,
                legacy: if legacy == 0 { guard } else { legacy }.into(),
                twin: number(TWIN).into(),
            });
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::table_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
    }
    found
}

/// Whether there is a relation with this oid.
pub fn exists(relation: Oid) -> bool {
    kind(relation) != 0
}

/// `pg_class.relkind`, 0 without a relation.
pub fn kind(relation: Oid) -> u8 {
    // SAFETY: a look-up in the catalog cache.
    unsafe { pg_sys::get_rel_relkind(relation) as u8 }
}

/// The pair of a relation, among `pairs`.
pub fn find(pairs: &[Sides], relation: Oid) -> Option<(Sides, Place)> {
    if let Some(pair) = pairs.iter().find(|pair| pair.legacy == relation) {
        return Some((*pair, Place::Legacy));
    }
    if let Some(pair) = pairs.iter().find(|pair| pair.twin == relation) {
        return Some((*pair, Place::Twin));
    }
    let mut root = relation;
    // SAFETY: look-ups in the catalog.
    unsafe {
        while pg_sys::get_rel_relispartition(root) {
            root = compat::get_partition_parent(root, true);
        }
    }
    let pair = pairs.iter().find(|pair| pair.twin == root && root != relation)?;
    Some((*pair, Place::Partition))
}

#[derive(Debug, Clone, Deserialize)]
pub struct Partition {
    pub oid: u32,
    pub name: RelName,
}

/// Every table below the twin's root, parents first. Locks none of them, unlike `pg_partition_tree()`.
pub fn partitions(twin: Oid) -> Result<Vec<Partition>> {
    spi::latest_rows(
        include_str!("../../sql/catalog/partition_tree.sql"),
        &[twin.into()],
    )
}

/// The same of every pair, with its number.
pub fn all_partitions(pairs: &[Sides]) -> Result<Vec<(u32, i32)>> {
    let mut all = vec![];
    for pair in pairs {
        all.extend(partitions(pair.twin)?.into_iter().map(|p| (p.oid, pair.id)));
    }
    Ok(all)
}

/// The side that is not at `place`. A guard is the legacy's.
pub fn other(pair: &Pair, place: Place) -> Oid {
    match place {
        Place::Legacy => pair.twin,
        Place::Twin | Place::Partition => pair.guard.unwrap_or(pair.legacy),
    }
}
