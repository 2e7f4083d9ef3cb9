//! What the sync triggers need to know of a pair, read once a backend and forgotten when one of its tables
//! changes.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::pair::store;
use crate::{session, spi};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

#[derive(Default)]
pub struct SyncPair {
    pub id: i32,
    pub legacy: Oid,
    pub legacy_owner: Oid,
    pub twin: Oid,
    /// The triggers of an unpartition are being laid: they do nothing yet.
    pub is_waiting: bool,
    /// Both sides are in step: the twin may be written.
    pub is_live: bool,
    /// The legacy has become a guard: it has a part of the columns, and follows the twin alone.
    pub is_guarded: bool,
    /// What whoever writes knows the unique constraints of the legacy by, where the twin has the name.
    pub unique_names: HashMap<String, String>,
    /// Schema and name of the twin, for the errors that name them.
    pub twin_name: (CString, CString),
    /// The primary key of the legacy, then the partition key where that is not part of it: what names a row of
    /// the twin.
    pub twin_key: Vec<String>,
    /// Every table below the twin's root.
    pub partitions: Vec<u32>,
    /// The change log, during the copy.
    pub log: Option<Oid>,
    /// Writing this pair evaluates expressions (CHECK, generated columns, expression indexes).
    pub has_expressions: bool,
    /// Columns that only one of the tables has, quoted, for messages.
    pub lacking: Option<String>,
    /// A foreign key can change rows of this pair by itself (ON UPDATE CASCADE, ON DELETE SET NULL and the like).
    pub has_cascading_updates: bool,
    /// Foreign keys point at the legacy.
    pub is_referenced: bool,
    /// The twin has a unique index besides its primary key.
    pub has_other_unique: bool,
}

impl SyncPair {
    /// Whether a relation is one of the pair's tables. Anybody may put a trigger on a table of their own: it must not
    /// write to the tables of others.
    pub fn owns(&self, relation: Oid) -> bool {
        relation == self.legacy || relation == self.twin || self.partitions.contains(&relation.to_u32())
    }

    /// # Errors
    /// `PR015` when a column was added, dropped or renamed on one side only: its values would be lost on the way.
    pub fn require_same_columns(&self) -> Result<()> {
        let Some(lacking) = &self.lacking else {
            return Ok(());
        };
        Err(Error::Sync {
            relation: store::display_name(self.legacy)?,
            reason: format!("one of the two tables lacks these columns: {lacking}"),
            hint: if self.is_guarded {
                "Change the guard in the same way; or drop it, if the columns need not be unique any more."
            } else {
                "Change both tables in one transaction; or end the pair with partition_router.abandon()."
            }
            .into(),
        })
    }
}

#[derive(Deserialize)]
struct Row {
    legacy: u32,
    owner: u32,
    twin: u32,
    is_live: bool,
    is_guarded: bool,
    unique_names: Option<HashMap<String, String>>,
    twin_schema: String,
    twin_name: String,
    twin_key: Vec<String>,
    partitions: Vec<u32>,
    log: Option<u32>,
    has_expressions: bool,
    lacking: Option<String>,
    has_cascading_updates: bool,
    is_referenced: bool,
    has_other_unique: bool,
}

thread_local! {
    /// Counts the messages that may concern a pair: one that comes while a pair is read must not be missed.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static CACHE: RefCell<HashMap<i32, Rc<SyncPair>>> = RefCell::new(HashMap::new());
}

/// Hears of changed relations. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0)) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn forget(_arg: pg_sys::Datum, relation: Oid) {
    CHANGES.set(CHANGES.get() + 1);
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
    // What was read may be out of date by the time it is here, and the message that said so is gone.
    let pair = loop {
        let before = CHANGES.get();
        let pair = read(id)?;
        if CHANGES.get() == before {
            break pair;
        }
        pgrx::check_for_interrupts!();
    };
    CACHE.with_borrow_mut(|cache| cache.insert(id, Rc::clone(&pair)));
    Ok(pair)
}

fn c_text(text: String) -> Result<CString> {
    CString::new(text).map_err(|e| Error::Internal(e.to_string()))
}

/// A pair that is not there yet: what is known of it is the table whose triggers wait for it.
fn waiting(id: i32) -> Result<Rc<SyncPair>> {
    let table: Option<u32> = session::with_own_tables(|| {
        spi::latest_row(
            "SELECT pg_catalog.to_jsonb(u.parent::oid::bigint) FROM partition_router.unpartitioning u WHERE u.pair_id = $1",
            id,
        )
    })?;
    let table = table.ok_or_else(|| Error::Sync {
        relation: "a table".into(),
        reason: format!("its pair {id} is not known to partition_router"),
        hint: "Drop the table's partition_router triggers, or restore the rows of partition_router.pair."
            .into(),
    })?;
    Ok(Rc::new(SyncPair {
        id,
        is_waiting: true,
        twin: table.into(),
        ..SyncPair::default()
    }))
}

fn read(id: i32) -> Result<Rc<SyncPair>> {
    let row: Option<Row> =
        session::with_own_tables(|| spi::latest_row(include_str!("../../sql/catalog/sync_pair.sql"), id))?;
    let Some(row) = row else {
        return waiting(id);
    };
    Ok(Rc::new(SyncPair {
        id,
        is_waiting: false,
        legacy: row.legacy.into(),
        legacy_owner: row.owner.into(),
        twin: row.twin.into(),
        is_live: row.is_live,
        is_guarded: row.is_guarded,
        unique_names: row.unique_names.unwrap_or_default(),
        twin_name: (c_text(row.twin_schema)?, c_text(row.twin_name)?),
        twin_key: row.twin_key,
        partitions: row.partitions,
        log: row.log.map(Oid::from),
        has_expressions: row.has_expressions,
        lacking: row.lacking,
        has_cascading_updates: row.has_cascading_updates,
        is_referenced: row.is_referenced,
        has_other_unique: row.has_other_unique,
    }))
}
