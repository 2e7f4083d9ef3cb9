//! What is done to single rows of a side.
#![allow(unsafe_code)]

use super::{Outcome, Side, Slot};
use crate::error::{Error, Result};
use crate::sync::batch::Batch;
use crate::sync::leaf::{Leaf, scan_key};
use crate::sync::relation::relation_name;
use crate::sync::rows::{convert, same_row};
use crate::sync::write::{self, Change};
use pgrx::pg_sys;

impl Side {
    /// Puts `row` (in this side's format) into `target`, a slot of the leaf, in the leaf's format.
    pub fn to_leaf(leaf: &Leaf, row: Slot, target: Slot) -> Slot {
        convert(leaf.from_side, row, target)
    }

    pub fn insert(&mut self, row: Slot) -> Result<()> {
        let leaf = self.locate(row)?;
        self.insert_into(&leaf, row);
        self.end_row();
        Ok(())
    }

    fn insert_into(&mut self, leaf: &Leaf, row: Slot) {
        // SAFETY: the slots are in the leaf's format, and the leaf is open.
        unsafe {
            let estate = self.estate;
            match self.slot_to_gather(leaf) {
                Some((batch, slot)) => {
                    Side::to_leaf(leaf, row, slot);
                    write::check(leaf, estate, slot, pg_sys::CmdType::CMD_INSERT);
                    batch.insert(leaf, slot, estate);
                }
                None => write::insert(leaf, estate, Side::to_leaf(leaf, row, leaf.row)),
            }
        }
    }

    /// Writes a copy of a row that is known to be right into `leaf`, where it belongs. `fill` puts it into a slot of the leaf.
    pub fn copy(&mut self, leaf: &Leaf, fill: impl FnOnce(Slot)) {
        // SAFETY: as in `insert`.
        unsafe {
            let estate = self.estate;
            match self.slot_to_gather(leaf) {
                Some((batch, slot)) => {
                    fill(slot);
                    batch.insert(leaf, slot, estate);
                }
                None => {
                    fill(leaf.row);
                    write::insert(leaf, estate, leaf.row);
                }
            }
        }
        self.end_row();
    }

    /// Where rows are gathered and those of `leaf` may be: the batch, and a slot of the leaf from it.
    ///
    /// # Safety
    /// The leaf is open.
    unsafe fn slot_to_gather(&mut self, leaf: &Leaf) -> Option<(&mut Batch, Slot)> {
        let batch = self.batch.as_mut()?;
        // SAFETY: the caller's.
        let slot = unsafe { batch.slot(leaf, self.estate) }?;
        Some((batch, slot))
    }

    /// Locks the row with the key of `row`; it is then in `leaf.found`.
    fn find(&mut self, leaf: &Leaf, row: Slot) -> Result<bool> {
        // SAFETY: the state belongs to this side.
        let Some(scan) = (unsafe { &mut (*leaf.state).scan }) else {
            // SAFETY: the relation is open.
            let name = unsafe { relation_name(leaf.relation()) };
            return Err(Error::NoPrimaryKey { relation: name });
        };
        let key = Side::to_leaf(leaf, row, leaf.key);
        // SAFETY: `key` is in the leaf's format, and the leaf is open.
        unsafe { scan.lock(leaf, key) }
    }

    /// As [`Side::find`], with the whole of the row given: among rows that have the same key for a while it is the one.
    fn find_image(&mut self, leaf: &Leaf, row: Slot) -> Result<bool> {
        if !self.find(leaf, row)? {
            return Ok(false);
        }
        let wanted = Side::to_leaf(leaf, row, leaf.key);
        // SAFETY: both are rows of the leaf.
        if !leaf.may_be_double || unsafe { same_row(leaf.found, wanted) } {
            return Ok(true);
        }
        // SAFETY: the snapshot is given back below; the row is one that this transaction or a committed one left.
        let locked = unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let found = scan_key(leaf, wanted, snapshot, |found| same_row(found, wanted));
            let mut failure = pg_sys::TM_FailureData::default();
            let locked = found
                && pg_sys::table_tuple_lock(
                    leaf.relation(),
                    &mut (*leaf.found).tts_tid,
                    snapshot,
                    leaf.found,
                    pg_sys::GetCurrentCommandId(false),
                    pg_sys::LockTupleMode::LockTupleExclusive,
                    pg_sys::LockWaitPolicy::LockWaitBlock,
                    0,
                    &mut failure,
                ) == pg_sys::TM_Result::TM_Ok;
            pg_sys::UnregisterSnapshot(snapshot);
            locked
        };
        // None is the very row: what has the key is what there is.
        if locked { Ok(true) } else { self.find(leaf, row) }
    }

    /// Locks the row with the key of `row` and gives it, in the leaf's format, until the next call.
    pub fn lock(&mut self, row: Slot) -> Result<Option<(Leaf, Slot)>> {
        let leaf = self.locate(row)?;
        Ok(self.find(&leaf, row)?.then_some((leaf, leaf.found)))
    }

    /// Whether there is a row with the key of `row`; locks it.
    pub fn has(&mut self, row: Slot) -> Result<bool> {
        Ok(self.lock(row)?.is_some())
    }

    /// As [`Side::find_image`], without the lock where the key names one row: what is then done to it finds out whether
    /// it was still the same.
    fn seek(&mut self, leaf: &Leaf, row: Slot) -> Result<bool> {
        // SAFETY: the state belongs to this side.
        let scan = unsafe { &mut (*leaf.state).scan };
        match scan {
            Some(scan) if !leaf.may_be_double => {
                let key = Side::to_leaf(leaf, row, leaf.key);
                // SAFETY: `key` is in the leaf's format, and the leaf is open.
                let found = unsafe { scan.find(leaf, key) };
                // SAFETY: `found` holds a row of the heap.
                if found && unsafe { write::is_of_this_command(leaf.found) } {
                    self.see_own_writes();
                }
                Ok(found)
            }
            _ => self.find_image(leaf, row),
        }
    }

    /// As [`Side::find`]; where nobody else writes the row need not be locked.
    fn find_to_change(&mut self, leaf: &Leaf, row: Slot) -> Result<bool> {
        if self.is_alone {
            self.seek(leaf, row)
        } else {
            self.find(leaf, row)
        }
    }

    /// Whether what was done is to be done again, now that the row has changed.
    fn is_to_be_repeated(&mut self, change: Change) -> bool {
        if change == Change::JustWritten {
            self.see_own_writes();
        }
        pgrx::check_for_interrupts!();
        change != Change::Done
    }

    /// Replaces the row that has the key of `old` by `new`; inserts `new` when there is none.
    pub fn update(&mut self, old: Slot, new: Slot) -> Result<()> {
        let from = self.locate(old)?;
        let to = self.locate(new)?;
        loop {
            if !self.seek(&from, old)? {
                return self.insert(new);
            }
            // SAFETY: the found row is one of the leaf; the slots are in the leaves' formats.
            let change = unsafe {
                if from.info == to.info {
                    self.replace(&to, new)
                } else {
                    write::delete(&from, self.estate, true)
                }
            };
            if !self.is_to_be_repeated(change) {
                break;
            }
        }
        if from.info != to.info {
            return self.insert(new);
        }
        self.end_row();
        Ok(())
    }

    /// Replaces the row that lies in `leaf.found` by `new`; where rows are gathered, its index entries come later.
    ///
    /// # Safety
    /// `found` holds a row of the leaf.
    unsafe fn replace(&mut self, leaf: &Leaf, new: Slot) -> Change {
        // SAFETY: the slots are in the leaf's format, and the leaf is open.
        unsafe {
            let estate = self.estate;
            let Some((batch, slot)) = self.slot_to_gather(leaf) else {
                return write::update(leaf, estate, Side::to_leaf(leaf, new, leaf.row));
            };
            Side::to_leaf(leaf, new, slot);
            let (change, needs_entries) = write::update_heap(leaf, estate, slot);
            if needs_entries {
                batch.index(leaf, slot, estate);
            } else {
                batch.give_back(leaf, slot);
            }
            change
        }
    }

    /// Makes the row with the key of `key` equal to `row`, which has the same key.
    pub fn put(&mut self, key: Slot, row: Slot) -> Result<Outcome> {
        let leaf = self.locate(key)?;
        let found = self.find_to_change(&leaf, key)?;
        // SAFETY: the found row was locked by this transaction, or nobody else can change it; the slots are in the leaf's format.
        let outcome = unsafe {
            if !found {
                self.insert_into(&leaf, row);
                Outcome::Inserted
            } else if same_row(leaf.found, Side::to_leaf(&leaf, row, leaf.row)) {
                Outcome::Equal
            } else {
                let change = self.replace(&leaf, row);
                self.require_done(change, &leaf)?;
                Outcome::Updated
            }
        };
        self.end_row();
        Ok(outcome)
    }

    /// Deletes the row that has the key of `row`. Gives false when there is none.
    pub fn delete(&mut self, row: Slot) -> Result<bool> {
        let leaf = self.locate(row)?;
        let found = loop {
            if !self.seek(&leaf, row)? {
                break false;
            }
            // SAFETY: the found row is one of the leaf.
            let change = unsafe { write::delete(&leaf, self.estate, self.deletes_move) };
            if !self.is_to_be_repeated(change) {
                break true;
            }
        };
        self.end_row();
        Ok(found)
    }

    /// As [`Side::delete`], of a key that is the same byte for byte: 1.0 is no row of the key 1.00. For a side whose tables have the
    /// pair's key for their primary key.
    pub fn delete_same_key(&mut self, row: Slot) -> Result<bool> {
        let leaf = self.locate(row)?;
        // SAFETY: the state belongs to this side, and the slots are in the leaf's format.
        self.delete_if(row, |found| unsafe {
            (*leaf.state)
                .scan
                .as_ref()
                .is_some_and(|scan| scan.same_key(found, leaf.key))
        })
    }

    /// Deletes the row that has the key of `key` if it is not `row`, which has the same key.
    pub fn delete_different(&mut self, key: Slot, row: Slot) -> Result<bool> {
        let leaf = self.locate(key)?;
        let wanted = Side::to_leaf(&leaf, row, leaf.row);
        // SAFETY: both are rows of the leaf.
        self.delete_if(key, |found| unsafe { !same_row(found, wanted) })
    }

    /// Deletes the row that has the key of `row`, if `condition` holds for it (in the leaf's format).
    pub fn delete_if(&mut self, row: Slot, condition: impl FnOnce(Slot) -> bool) -> Result<bool> {
        let leaf = self.locate(row)?;
        let found = self.find_to_change(&leaf, row)?;
        let delete = found && condition(leaf.found);
        if delete {
            // SAFETY: the found row was locked by this transaction.
            let change = unsafe { write::delete(&leaf, self.estate, self.deletes_move) };
            self.require_done(change, &leaf)?;
        }
        self.end_row();
        Ok(delete)
    }

    /// A row that this transaction has locked can be changed by nobody else; this command may have written it.
    fn require_done(&self, change: Change, leaf: &Leaf) -> Result<()> {
        if change == Change::Done {
            return Ok(());
        }
        Err(Error::Sync {
            // SAFETY: the leaf is open.
            relation: unsafe { relation_name(leaf.relation()) },
            reason: "one statement changed a row twice".into(),
            hint: "Change the rows in two statements.".into(),
        })
    }

    /// The row with the key of `row` as `snapshot` sees it, in the leaf's format; locks nothing.
    /// The result is valid until the next call.
    pub fn read(&mut self, row: Slot, snapshot: pg_sys::Snapshot) -> Result<Option<(Leaf, Slot)>> {
        let leaf = self.locate(row)?;
        let key = Side::to_leaf(&leaf, row, leaf.key);
        // SAFETY: `key` is in the leaf's format; the state belongs to this side.
        let found = unsafe {
            match &mut (*leaf.state).scan {
                Some(scan) if !leaf.may_be_double => scan.read(&leaf, key, snapshot),
                _ => scan_key(&leaf, key, snapshot, |_| true),
            }
        };
        Ok(found.then_some((leaf, leaf.found)))
    }
}
