//! What the sync triggers need to know of a pair, read once a backend and forgotten when one of its tables
//! changes.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::{session, spi};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

pub struct SyncPair {
    pub id: i32,
    pub legacy: Oid,
    pub legacy_owner: Oid,
    pub twin: Oid,
    /// The primary key of the legacy, then the partition key where that is not part of it: what names a row of
    /// the twin.
    pub twin_key: Vec<String>,
    /// Every table below the twin's root.
    pub partitions: Vec<u32>,
    /// The change log, during the copy.
    pub log: Option<Oid>,
    /// Writing this pair evaluates expressions (CHECK, generated columns, expression indexes).
    pub has_expressions: bool,
}

impl SyncPair {
    /// Whether a relation is one of the pair's tables. Anybody may put a trigger on a table of their own: it must not
    /// write to the tables of others.
    pub fn owns(&self, relation: Oid) -> bool {
        relation == self.legacy || relation == self.twin || self.partitions.contains(&relation.to_u32())
    }
}

#[derive(Deserialize)]
struct Row {
    legacy: u32,
    owner: u32,
    twin: u32,
    twin_key: Vec<String>,
    partitions: Vec<u32>,
    log: Option<u32>,
    has_expressions: bool,
}

thread_local! {
    static CACHE: RefCell<HashMap<i32, Rc<SyncPair>>> = RefCell::new(HashMap::new());
}

/// Hears of changed relations. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0)) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn forget(_arg: pg_sys::Datum, relation: Oid) {
    CACHE.with_borrow_mut(|cache| {
        cache.retain(|_, p| {
            relation != Oid::INVALID && relation != p.legacy && relation != p.twin && Some(relation) != p.log
        })
    });
}

pub fn get(id: i32) -> Result<Rc<SyncPair>> {
    if let Some(pair) = CACHE.with_borrow(|cache| cache.get(&id).cloned()) {
        return Ok(pair);
    }
    let row: Row =
        session::with_own_tables(|| spi::latest_row(include_str!("../../sql/catalog/sync_pair.sql"), id))?
            .ok_or_else(|| {
                Error::Sync {
        relation: "a table".into(),
        reason: format!("its pair {id} is not known to partition_router"),
        hint: "Drop the table's partition_router triggers, or restore the rows of partition_router.pair."
            .into(),
    }
            })?;
    let pair = Rc::new(SyncPair {
        id,
        legacy: row.legacy.into(),
        legacy_owner: row.owner.into(),
        twin: row.twin.into(),
        twin_key: row.twin_key,
        partitions: row.partitions,
        log: row.log.map(Oid::from),
        has_expressions: row.has_expressions,
    });
    CACHE.with_borrow_mut(|cache| cache.insert(id, Rc::clone(&pair)));
    Ok(pair)
}
