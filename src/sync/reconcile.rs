//! Brings one key of a side in line with what the other side has for it.
#![allow(unsafe_code)]

use super::elsewhere;
use super::pair_cache::SyncPair;
use super::relation::relation_name;
use super::rows::{convert, partial_map};
use super::side::{Outcome, Side, Slot};
use crate::compat;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CString;

/// A column of the twin's key, in the format of some relation.
#[derive(Clone, Copy)]
pub struct KeyColumn {
    number: i32,
    by_value: bool,
    length: i32,
}

/// The columns of the twin's key in the format of `relation`.
pub fn key_columns(pair: &SyncPair, relation: pg_sys::Relation) -> Result<Vec<KeyColumn>> {
    pair.twin_key
        .iter()
        .map(|name| {
            let c_name = CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
            // SAFETY: the relation is open; a number that SPI_fnumber gives is one of its attributes.
            unsafe {
                let number = pg_sys::SPI_fnumber((*relation).rd_att, c_name.as_ptr());
                if number <= 0 {
                    return Err(Error::Sync {
                        relation: relation_name(relation),
                        reason: format!("its key column \"{name}\" is gone"),
                        hint: "Bring the column back, or end the pair with partition_router.abandon()."
                            .into(),
                    });
                }
                let attribute = &compat::attributes((*relation).rd_att)[number as usize - 1];
                Ok(KeyColumn {
                    number,
                    by_value: attribute.attbyval,
                    length: i32::from(attribute.attlen),
                })
            }
        })
        .collect()
}

/// Whether row `a` has the same key as row `b`, byte for byte; each with the columns of its own format.
///
/// # Safety
/// Both slots hold a row.
pub unsafe fn same_key(a_columns: &[KeyColumn], a: Slot, b_columns: &[KeyColumn], b: Slot) -> bool {
    a_columns.iter().zip(b_columns).all(|(a_column, b_column)| {
        let (mut a_null, mut b_null) = (false, false);
        // SAFETY: the caller's; the numbers are attributes of the rows' formats.
        unsafe {
            let a_value = pg_sys::slot_getattr(a, a_column.number, &mut a_null);
            let b_value = pg_sys::slot_getattr(b, b_column.number, &mut b_null);
            if a_null || b_null {
                return a_null == b_null;
            }
            compat::datum_image_eq(a_value, b_value, a_column.by_value, a_column.length)
        }
    })
}

/// Makes one key of `target` equal to what `origin` has for it now.
pub struct Reconciler {
    key: Vec<KeyColumn>,
    target_key: Vec<KeyColumn>,
    as_target: Slot,
    key_as_target: Slot,
    to_target: *mut pg_sys::TupleConversionMap,
}

/// A snapshot of what is committed and what this transaction did so far; given back when dropped.
struct Latest(pg_sys::Snapshot);

impl Latest {
    fn new() -> Latest {
        // SAFETY: triggers and the backfill run between commands of the user.
        unsafe {
            pg_sys::CommandCounterIncrement();
            Latest(pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()))
        }
    }
}

impl Drop for Latest {
    fn drop(&mut self) {
        // SAFETY: registered in `new`; also when an error unwinds its resource owner still has it.
        unsafe { pg_sys::UnregisterSnapshot(self.0) };
    }
}

impl Reconciler {
    pub fn new(origin: &mut Side, target: &mut Side, pair: &SyncPair) -> Result<Reconciler> {
        // SAFETY: both sides are open.
        unsafe {
            Ok(Reconciler {
                key: key_columns(pair, origin.relation())?,
                target_key: key_columns(pair, target.relation())?,
                as_target: target.new_slot(),
                key_as_target: target.new_slot(),
                to_target: pg_sys::convert_tuples_by_name(origin.tuple_desc(), target.tuple_desc()),
            })
        }
    }

    pub fn close(self) {
        for slot in [self.as_target, self.key_as_target] {
            // SAFETY: the slots were made in `new`.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
        }
    }

    /// `key` is a row in the origin's format of which only the key columns count.
    pub fn reconcile(&mut self, origin: &mut Side, target: &mut Side, key: Slot) -> Result<Outcome> {
        let snapshot = Latest::new();
        self.reconcile_at(origin, target, key, snapshot.0)
    }

    /// As [`Reconciler::reconcile`], with the origin read under `snapshot`.
    pub fn reconcile_at(
        &mut self,
        origin: &mut Side,
        target: &mut Side,
        key: Slot,
        snapshot: pg_sys::Snapshot,
    ) -> Result<Outcome> {
        let current = self.read(origin, key, snapshot)?;
        self.follow(origin, target, key, current)
    }

    /// As [`Reconciler::reconcile`], with the origin's row locked, so that nobody changes it meanwhile.
    pub fn reconcile_locked(&mut self, origin: &mut Side, target: &mut Side, key: Slot) -> Result<Outcome> {
        let current = match origin.lock(key)? {
            Some((leaf, row)) if self.has_key(row, leaf.relation(), key, origin)? => Some(row),
            _ => None,
        };
        self.follow(origin, target, key, current)
    }

    /// Deletes what `target` has for `key` unless it is what `origin` has, and says whether it did: rows that take each
    /// other's unique values must all be gone before the first comes back.
    pub fn make_room(
        &mut self,
        origin: &mut Side,
        target: &mut Side,
        key: Slot,
        snapshot: pg_sys::Snapshot,
    ) -> Result<bool> {
        let current = self.read(origin, key, snapshot)?;
        let key_row = convert(self.to_target, key, self.key_as_target);
        match current {
            None => self.delete_exactly(target, key_row),
            Some(row) => {
                let row = convert_leaf_row(row, self.to_target, origin, target, self.as_target);
                target.delete_different(key_row, row)
            }
        }
    }

    /// As [`Reconciler::make_room`], under the latest snapshot.
    pub fn make_room_now(&mut self, origin: &mut Side, target: &mut Side, key: Slot) -> Result<bool> {
        let snapshot = Latest::new();
        self.make_room(origin, target, key, snapshot.0)
    }

    /// The row with the key `old` (in the target's format) became the row with the key `new` (in the origin's): where
    /// the target still has the old one, it becomes what the origin has for the new key now, in place.
    pub fn follow_move(&mut self, origin: &mut Side, target: &mut Side, old: Slot, new: Slot) -> Result<()> {
        let snapshot = Latest::new();
        let Some(row) = self.read(origin, new, snapshot.0)? else {
            return Ok(());
        };
        // Another row may have come to the old key: then that one stays.
        let row = convert_leaf_row(row, self.to_target, origin, target, self.as_target);
        let Some((_, found)) = target.lock(old)? else {
            return Ok(());
        };
        // SAFETY: only the legacy is moved on, which has no partitions: what it finds has its own format.
        if !target.is_partitioned() && unsafe { same_key(&self.target_key, found, &self.target_key, old) } {
            target.see_own_writes();
            target.update(old, row)?;
        }
        Ok(())
    }

    /// The row with the key `old` went from a partition of the twin (in the format of the target and of the origin): where
    /// it is in another one now, the target's row becomes what it is there, in place.
    pub fn follow_to_another_partition(
        &mut self,
        origin: &mut Side,
        target: &mut Side,
        pair: &SyncPair,
        old_as_target: Slot,
        old: Slot,
    ) -> Result<()> {
        let snapshot = Latest::new();
        if self.read(origin, old, snapshot.0)?.is_some() {
            return Ok(()); // it came back
        }
        let row = origin.new_slot();
        // SAFETY: both are sides of the pair; the slot is dropped below, or freed with the origin on an error.
        unsafe {
            if elsewhere::find(origin, target, pair, old, snapshot.0, row) {
                self.follow_move(origin, target, old_as_target, row)?;
            }
            pg_sys::ExecDropSingleTupleTableSlot(row);
        }
        Ok(())
    }

    /// Whether `origin` has exactly this key in a snapshot that is registered.
    pub fn is_in(&mut self, origin: &mut Side, key: Slot, snapshot: pg_sys::Snapshot) -> Result<bool> {
        Ok(self.read(origin, key, snapshot)?.is_some())
    }

    /// As [`Reconciler::is_in`], under the latest snapshot.
    pub fn is_in_now(&mut self, origin: &mut Side, key: Slot) -> Result<bool> {
        let snapshot = Latest::new();
        self.is_in(origin, key, snapshot.0)
    }

    /// The origin's row with exactly this key. The legacy finds a row by its primary key alone: with another partition
    /// key it is another row of the twin, which has its own entry.
    fn read(&mut self, origin: &mut Side, key: Slot, snapshot: pg_sys::Snapshot) -> Result<Option<Slot>> {
        match origin.read(key, snapshot)? {
            Some((leaf, row)) if self.has_key(row, leaf.relation(), key, origin)? => Ok(Some(row)),
            _ => Ok(None),
        }
    }

    fn follow(
        &mut self,
        origin: &mut Side,
        target: &mut Side,
        key: Slot,
        current: Option<Slot>,
    ) -> Result<Outcome> {
        let key_row = convert(self.to_target, key, self.key_as_target);
        match current {
            None => Ok(if self.delete_exactly(target, key_row)? {
                Outcome::Deleted
            } else {
                Outcome::Equal
            }),
            Some(row) => {
                let row = convert_leaf_row(row, self.to_target, origin, target, self.as_target);
                if !target.is_partitioned() {
                    // SAFETY: the slot holds the row; what it was read from is read into again.
                    unsafe { pg_sys::ExecMaterializeSlot(row) };
                    if self.is_anothers(origin, target, row)? {
                        target.insert(row)?; // and its unique index says so
                        return Ok(Outcome::Inserted);
                    }
                }
                target.put(key_row, row)
            }
        }
    }

    /// Whether the legacy's row with the primary key of `row` is another row of the twin than `row`. With different
    /// partition keys the twin has room for both, which two sessions may have put there at once; the legacy has not.
    pub fn is_anothers(&mut self, origin: &mut Side, target: &mut Side, row: Slot) -> Result<bool> {
        let Some((_, found)) = target.lock(row)? else {
            return Ok(false);
        };
        // SAFETY: the legacy finds rows in its own format. The slots and the map are made and dropped here, or freed with
        // their side on an error.
        unsafe {
            if same_key(&self.target_key, found, &self.target_key, row) {
                return Ok(false);
            }
            let key = origin.new_slot();
            let to_origin = partial_map(target.tuple_desc(), origin.tuple_desc()); // a guard has a part of the columns
            convert(to_origin, found, key);
            let snapshot = Latest::new(); // its writer may have committed while its lock was waited for
            let is_there = self.read(origin, key, snapshot.0)?.is_some();
            pg_sys::ExecDropSingleTupleTableSlot(key);
            Ok(is_there)
        }
    }

    /// Deletes the target's row with this key, byte for byte, and on the legacy with this partition key: a row with a key
    /// that is only equal has its own entry in the log, or its own difference.
    fn delete_exactly(&self, target: &mut Side, key: Slot) -> Result<bool> {
        if target.is_partitioned() {
            return target.delete_same_key(key);
        }
        let columns = &self.target_key;
        // SAFETY: a side without partitions finds rows in its own format.
        target.delete_if(key, |found| unsafe { same_key(columns, found, columns, key) })
    }

    /// Whether `row`, of the table `leaf`, has the key of `key`.
    fn has_key(&self, row: Slot, leaf: pg_sys::Relation, key: Slot, origin: &Side) -> Result<bool> {
        // SAFETY: both slots hold rows; where the leaf is not the side itself its key columns are looked up by name.
        unsafe {
            let same_format = leaf == origin.relation();
            for column in &self.key {
                let number = if same_format {
                    column.number
                } else {
                    let attributes = compat::attributes(origin.tuple_desc());
                    pg_sys::SPI_fnumber(
                        (*leaf).rd_att,
                        attributes[column.number as usize - 1].attname.data.as_ptr(),
                    )
                };
                let (mut row_null, mut key_null) = (false, false);
                let row_value = pg_sys::slot_getattr(row, number, &mut row_null);
                let key_value = pg_sys::slot_getattr(key, column.number, &mut key_null);
                if row_null != key_null
                    || (!row_null
                        && !compat::datum_image_eq(row_value, key_value, column.by_value, column.length))
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// `row`, found in a leaf of `origin`, in the format of `target`.
fn convert_leaf_row(
    row: Slot,
    to_target: *mut pg_sys::TupleConversionMap,
    origin: &Side,
    target: &Side,
    into: Slot,
) -> Slot {
    // SAFETY: the descriptors live as long as their relations are open. A leaf whose columns lie otherwise than its
    // root's needs a map of its own.
    unsafe {
        let desc = (*row).tts_tupleDescriptor;
        let map = if origin.is_partitioned() {
            pg_sys::convert_tuples_by_name(desc, target.tuple_desc())
        } else {
            to_target
        };
        convert(map, row, into)
    }
}
