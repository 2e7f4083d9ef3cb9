//! Where the rows lie in which both sides differ, when they are too many to be held in memory: rows are sorted by their
//! digests, so that what both sides have can be struck out, and what is left by where it lies, in files that the server
//! spills to. Memory is `work_mem`, and the time is that of a sort.
#![allow(unsafe_code)]

use super::scan::Job;
use super::sorter::Sorter;
use crate::error::{Error, Result};
use crate::pair::{Pair, Phase};
use crate::sync::side::Slot;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

/// The number of a column (4 bytes), of a block (4) and of an item (2), each the highest byte first.
type Place = [u8; 10];

/// The rows of both sides that differ, as one snapshot sees them: those of the side that is right before those of the other,
/// and each side's as they lie in its heaps.
pub struct Places {
    /// A row's digest and partition, whether it is the twin's, and its place.
    rows: Option<Sorter<27>>,
    /// Whether a row is of the side that is not right, and its place.
    different: Sorter<11>,
    legacy: Oid,
    partitions: Vec<u32>,
    twin_is_right: bool,
    snapshot: pg_sys::Snapshot,
    count: u64,
}

/// A row that differs, to be read.
#[derive(Clone, Copy)]
pub struct Found {
    pub table: Oid,
    pub place: pg_sys::ItemPointerData,
    /// Of the side that the other is made equal to.
    pub is_right: bool,
}

impl Places {
    /// Of a job that reads under the active snapshot, which is kept until [`Places::end`].
    pub fn new(pair: &Pair, job: &Job) -> Places {
        Places {
            rows: Some(Sorter::new()),
            different: Sorter::new(),
            legacy: pair.legacy,
            partitions: job.partitions.clone(),
            twin_is_right: pair.phase == Phase::Switched,
            // SAFETY: given back by `end`, or by the resource owner when the transaction fails.
            snapshot: unsafe { pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot()) },
            count: 0,
        }
    }

    pub fn snapshot(&self) -> pg_sys::Snapshot {
        self.snapshot
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a row, which may be on the other side as well.
    pub fn add(&mut self, digest: u128, column: u32, is_twin: bool, place: (u32, u16)) {
        let mut entry = [0; 27];
        entry[..16].copy_from_slice(&digest.to_be_bytes());
        entry[16..20].copy_from_slice(&column.to_be_bytes());
        entry[20] = u8::from(is_twin);
        entry[21..25].copy_from_slice(&place.0.to_be_bytes());
        entry[25..].copy_from_slice(&place.1.to_be_bytes());
        if let Some(rows) = &mut self.rows {
            rows.put(entry);
        }
    }

    /// Takes out what both sides have, one for one. No row is added after this.
    pub fn strike_out(&mut self) {
        let Some(mut rows) = self.rows.take() else {
            return;
        };
        rows.sort();
        let mut identity = [0; 20];
        // The legacy's rows of this identity that the twin has not shown yet: no more than have one key.
        let mut waiting: Vec<Place> = Vec::new();
        while let Some(row) = rows.next() {
            pgrx::check_for_interrupts!();
            if row[..20] != identity {
                self.keep_all(&mut waiting);
                identity.copy_from_slice(&row[..20]);
            }
            let mut place = [0; 10];
            place[..4].copy_from_slice(&row[16..20]);
            place[4..].copy_from_slice(&row[21..]);
            if row[20] == 0 {
                waiting.push(place);
            } else if waiting.pop().is_none() {
                self.keep(true, place);
            }
        }
        self.keep_all(&mut waiting);
        rows.end();
        self.different.sort();
    }

    fn keep_all(&mut self, waiting: &mut Vec<Place>) {
        for mut place in waiting.drain(..) {
            place[..4].fill(0); // the legacy has one heap, to be read in order
            self.keep(false, place);
        }
    }

    fn keep(&mut self, is_twin: bool, place: Place) {
        let mut entry = [u8::from(is_twin != self.twin_is_right); 11];
        entry[1..].copy_from_slice(&place);
        self.different.put(entry);
        self.count += 1;
    }

    /// Calls `body` with each row that differs, and a slot that holds it.
    pub fn each(&mut self, mut body: impl FnMut(Found, Slot) -> Result<()>) -> Result<()> {
        let mut open: Option<(Oid, pg_sys::Relation, Slot)> = None;
        self.different.rewind();
        while let Some(entry) = self.different.next() {
            pgrx::check_for_interrupts!();
            let found = self.found(&entry)?;
            // SAFETY: what is opened is closed below, or by the abort. The registered snapshot keeps the rows that it sees.
            unsafe {
                if open.is_none_or(|(table, ..)| table != found.table)
                    && let Some((_, relation, slot)) = open.take()
                {
                    close(relation, slot);
                }
                let (_, relation, slot) = *open.get_or_insert_with(|| {
                    let relation = pg_sys::table_open(found.table, pg_sys::AccessShareLock as i32);
                    let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
                    (found.table, relation, slot)
                });
                let mut place = found.place;
                if !pg_sys::table_tuple_fetch_row_version(relation, &mut place, self.snapshot, slot) {
                    return Err(Error::Internal("a row that was found is gone".into()));
                }
                body(found, slot)?;
            }
        }
        if let Some((_, relation, slot)) = open {
            // SAFETY: opened above.
            unsafe { close(relation, slot) };
        }
        Ok(())
    }

    fn found(&self, entry: &[u8; 11]) -> Result<Found> {
        let number = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        let is_right = entry[0] == 0;
        let block = number(&entry[5..9]);
        let table = if is_right == self.twin_is_right {
            let partition = self.partitions.get(number(&entry[1..5]) as usize);
            Oid::from(*partition.ok_or_else(|| Error::Internal("a row of the twin has no partition".into()))?)
        } else {
            self.legacy
        };
        Ok(Found {
            table,
            place: pg_sys::ItemPointerData {
                ip_blkid: pg_sys::BlockIdData {
                    bi_hi: (block >> 16) as u16,
                    bi_lo: block as u16,
                },
                ip_posid: number(&entry[9..]) as u16,
            },
            is_right,
        })
    }

    pub fn end(self) {
        self.different.end();
        // SAFETY: registered in `new`.
        unsafe { pg_sys::UnregisterSnapshot(self.snapshot) };
    }
}

/// # Safety
/// Both are open, and not used any more. The lock stays until the transaction ends.
unsafe fn close(relation: pg_sys::Relation, slot: Slot) {
    // SAFETY: the caller's.
    unsafe {
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
    }
}
