//! A table that holds rows of a side, and what of it is open.
#![allow(unsafe_code)]

use super::scan::scan_index;
use super::side::Slot;
use super::write::KeyScan;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ptr::null_mut;

/// A table that holds rows: a leaf partition, or the whole side.
#[derive(Clone, Copy)]
pub struct Leaf {
    pub info: *mut pg_sys::ResultRelInfo,
    pub(super) state: *mut LeafState,
    /// From the side's row format to the leaf's; null when they are the same.
    pub(super) from_side: *mut pg_sys::TupleConversionMap,
    pub key_index: Oid,
    /// The primary key is deferrable: until the end of the transaction several rows may have one key.
    pub(super) may_be_double: bool,
    pub(super) indexed: bool,
    pub(super) key: Slot,
    pub row: Slot,
    pub found: Slot,
}

/// What of a leaf is opened when it is needed first.
pub(super) struct LeafState {
    pub(super) indexes: Indexes,
    pub(super) scan: Option<KeyScan>,
    pub(super) is_open: bool,
    /// The server's routing opens and closes it.
    pub(super) is_routed: bool,
}

pub(super) enum Indexes {
    /// Not described yet.
    Unknown,
    Closed(Vec<Oid>),
    Open(Vec<Oid>),
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
                        *(*self.info).ri_IndexRelationDescs.add(i) = reopen_index(*oid);
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
    pub(super) unsafe fn index_oids(&self) -> Vec<Oid> {
        // SAFETY: the caller's promise.
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
        // SAFETY: the caller's promise.
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
    pub(super) unsafe fn close(&self) -> bool {
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
                        pg_sys::RelationClose(*(*self.info).ri_IndexRelationDescs.add(i));
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

/// Opens an index that was described before, without a lock of its own, which would take a good part of the time of a
/// one-row write. The lock on the table is enough: who drops or rebuilds an index, also CONCURRENTLY, waits for those
/// who hold one on its table, and nothing has changed since the description (see [`super::kept`]).
///
/// # Safety
/// The index belongs to a table that is locked in ROW EXCLUSIVE mode.
pub(super) unsafe fn reopen_index(oid: Oid) -> pg_sys::Relation {
    // SAFETY: the caller's. One that is gone is reported by the server's own function.
    unsafe {
        let index = pg_sys::RelationIdGetRelation(oid);
        if index.is_null() {
            return pg_sys::index_open(oid, pg_sys::RowExclusiveLock as i32);
        }
        index
    }
}

/// Puts the first row with the key of `key` that `snapshot` sees and `accept` takes into `leaf.found`, with a copy of its own.
///
/// # Safety
/// `key` is in the leaf's format, and the snapshot is registered.
pub unsafe fn scan_key(
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
