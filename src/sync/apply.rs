//! Live sync: carries the changes of one statement, or of one replicated row, to the other side.
//!
//! The fast way takes the rows as the statement left them. Where something else wrote to the pair while the
//! statement ran (see [`super::frames`]), that picture may be old: then each key is reconciled with the row as it
//! is now.
#![allow(unsafe_code)]

use super::frames::{self, Event};
use super::pair_cache::SyncPair;
use super::side::{ForeignKeys, Leaf, Outcome, Side, Slot, convert};
use super::{Firing, Rows};
use crate::compat;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CString;

/// The rows of a firing in the format of its relation, and their way into the format of another side.
struct Source {
    old: Slot,
    new: Slot,
    old_as_target: Slot,
    new_as_target: Slot,
    to_target: *mut pg_sys::TupleConversionMap,
    key: Vec<KeyColumn>,
}

/// A column of the twin's key, in the format of the relation that fired.
#[derive(Clone, Copy)]
struct KeyColumn {
    number: i32,
    by_value: bool,
    length: i32,
}

/// Makes the other side of `pair` follow the rows of `firing`.
pub fn carry(pair: &SyncPair, firing: &Firing) -> Result<()> {
    let from_legacy = firing.relation_oid == pair.legacy;
    let (target_oid, foreign_keys) = if from_legacy {
        (pair.twin, ForeignKeys::ActionsOnly)
    } else {
        (pair.legacy, ForeignKeys::All)
    };
    let ended = match firing.rows {
        Rows::Statement { .. } => Some(frames::pop(pair.id, firing.relation_oid, firing.event)),
        Rows::One { .. } => None,
    };
    if let Rows::Statement { old, new } = firing.rows
        && is_empty(old)
        && is_empty(new)
    {
        return Ok(());
    }
    let mut target = Side::open(target_oid, foreign_keys)?;
    target.see_own_writes();
    let source = Source::new(pair, firing, &target)?;
    let in_step = match ended {
        Some(ended) => ended.is_current,
        None => false,
    };
    if in_step {
        carry_images(firing, &source, &mut target, from_legacy)?;
    } else {
        carry_keys(pair, firing, &source, &mut target, from_legacy)?;
    }
    source.drop_slots();
    target.close();
    if let Some(ended) = ended {
        frames::carried(pair.id, ended);
    }
    Ok(())
}

impl Source {
    fn new(pair: &SyncPair, firing: &Firing, target: &Side) -> Result<Source> {
        // SAFETY: the relation that fired is open while the trigger runs.
        unsafe {
            let desc = (*firing.relation).rd_att;
            let new_slot = || match firing.rows {
                Rows::Statement { .. } => pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsMinimalTuple),
                Rows::One { .. } => pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsHeapTuple),
            };
            Ok(Source {
                old: new_slot(),
                new: new_slot(),
                old_as_target: target.new_slot(),
                new_as_target: target.new_slot(),
                to_target: pg_sys::convert_tuples_by_name(desc, target.tuple_desc()),
                key: key_columns(pair, firing.relation)?,
            })
        }
    }

    fn drop_slots(&self) {
        for slot in [self.old, self.new, self.old_as_target, self.new_as_target] {
            // SAFETY: the slots were made in `new` and are used no more.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
        }
    }

    /// The old row in the target's format.
    fn old_row(&self) -> Slot {
        self.as_target(self.old, self.old_as_target)
    }

    /// The new row in the target's format.
    fn new_row(&self) -> Slot {
        self.as_target(self.new, self.new_as_target)
    }

    fn as_target(&self, row: Slot, target: Slot) -> Slot {
        if self.to_target.is_null() {
            row
        } else {
            convert(self.to_target, row, target)
        }
    }

    /// Whether the current old and new row have the same key, byte for byte.
    fn same_key(&self) -> bool {
        self.key.iter().all(|column| {
            let (mut old_null, mut new_null) = (false, false);
            // SAFETY: both slots hold a row of the relation that fired.
            unsafe {
                let old = pg_sys::slot_getattr(self.old, column.number, &mut old_null);
                let new = pg_sys::slot_getattr(self.new, column.number, &mut new_null);
                if old_null || new_null {
                    return old_null == new_null;
                }
                compat::datum_image_eq(old, new, column.by_value, column.length)
            }
        })
    }
}

fn key_columns(pair: &SyncPair, relation: pg_sys::Relation) -> Result<Vec<KeyColumn>> {
    pair.twin_key
        .iter()
        .map(|name| {
            let c_name = CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
            // SAFETY: the relation is open; a number that SPI_fnumber gives is one of its attributes.
            unsafe {
                let number = pg_sys::SPI_fnumber((*relation).rd_att, c_name.as_ptr());
                if number <= 0 {
                    return Err(Error::Sync {
                        relation: super::side::relation_name(relation),
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

/// Whether a transition table has no row (or does not exist).
fn is_empty(store: *mut pg_sys::Tuplestorestate) -> bool {
    // SAFETY: the server owns the store while the trigger runs.
    store.is_null() || unsafe { pg_sys::tuplestore_tuple_count(store) == 0 }
}

/// Puts the next row of `store` into `slot`.
fn next(store: *mut pg_sys::Tuplestorestate, slot: Slot) -> bool {
    // SAFETY: as in `is_empty`; the slot is for minimal tuples of the store's format.
    unsafe { pg_sys::tuplestore_gettupleslot(store, true, false, slot) }
}

fn rewind(store: *mut pg_sys::Tuplestorestate) {
    if !store.is_null() {
        // SAFETY: as in `is_empty`. Several triggers read the same store through its only read pointer.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(store, 0);
            pg_sys::tuplestore_rescan(store);
        }
    }
}

/// The rows are as the statement left them: carries the images over.
fn carry_images(firing: &Firing, source: &Source, target: &mut Side, from_legacy: bool) -> Result<()> {
    let Rows::Statement { old, new } = firing.rows else {
        return Err(Error::Internal("images of a row trigger".into()));
    };
    rewind(old);
    rewind(new);
    match firing.event {
        Event::Insert => {
            while next(new, source.new) {
                check_for_interrupts();
                target.insert(source.new_row())?;
            }
        }
        Event::Delete => {
            while next(old, source.old) {
                check_for_interrupts();
                target.delete(source.old_row())?;
            }
        }
        Event::Update => {
            // Old and new images lie in the same order. Rows whose key changed may take each other's keys. On the
            // twin all of them go before the first comes back. On the legacy, where foreign keys may point at the
            // row, they are updated one by one, in the order in which the twin's unique index allowed it.
            let mut moved = false;
            while next(old, source.old) && next(new, source.new) {
                check_for_interrupts();
                if source.same_key() {
                    target.update(source.old_row(), source.new_row())?;
                } else if from_legacy {
                    moved = true;
                    target.delete(source.old_row())?;
                } else {
                    target.see_own_writes();
                    target.update(source.old_row(), source.new_row())?;
                }
            }
            if moved {
                target.see_own_writes();
                rewind(old);
                rewind(new);
                while next(old, source.old) && next(new, source.new) {
                    check_for_interrupts();
                    if !source.same_key() {
                        target.insert(source.new_row())?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The rows may have changed since: brings each key that the statement touched in line with the row as it is now.
fn carry_keys(
    pair: &SyncPair,
    firing: &Firing,
    source: &Source,
    target: &mut Side,
    from_legacy: bool,
) -> Result<()> {
    let source_oid = if from_legacy { pair.legacy } else { pair.twin };
    let mut origin = Side::open(source_oid, ForeignKeys::All)?;
    // SAFETY: the relation that fired is open.
    let to_origin = unsafe { pg_sys::convert_tuples_by_name((*firing.relation).rd_att, origin.tuple_desc()) };
    let as_origin = origin.new_slot();
    let mut reconciler = Reconciler::new(&mut origin, target, pair)?;
    let mut reconcile_all = || -> Result<()> {
        match firing.rows {
            Rows::Statement { old, new } => {
                for (store, slot) in [(old, source.old), (new, source.new)] {
                    if store.is_null() {
                        continue;
                    }
                    rewind(store);
                    while next(store, slot) {
                        check_for_interrupts();
                        reconciler.reconcile(&mut origin, target, convert(to_origin, slot, as_origin))?;
                    }
                }
                Ok(())
            }
            Rows::One { old, new } => {
                for (tuple, slot) in [(old, source.old), (new, source.new)] {
                    if !tuple.is_null() {
                        // SAFETY: the tuple is the trigger's and outlives this call.
                        unsafe { pg_sys::ExecStoreHeapTuple(tuple, slot, false) };
                        reconciler.reconcile(&mut origin, target, convert(to_origin, slot, as_origin))?;
                    }
                }
                Ok(())
            }
        }
    };
    reconcile_all()?;
    reconciler.close();
    // SAFETY: the slot was made above.
    unsafe { pg_sys::ExecDropSingleTupleTableSlot(as_origin) };
    origin.close();
    Ok(())
}

/// Makes one key of `target` equal to what `origin` has for it now.
pub struct Reconciler {
    key: Vec<KeyColumn>,
    as_target: Slot,
    key_as_target: Slot,
    to_target: *mut pg_sys::TupleConversionMap,
}

impl Reconciler {
    pub fn new(origin: &mut Side, target: &mut Side, pair: &SyncPair) -> Result<Reconciler> {
        // SAFETY: both sides are open.
        unsafe {
            Ok(Reconciler {
                key: key_columns(pair, origin.relation())?,
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
        // SAFETY: the snapshot is registered while it is used.
        let snapshot = unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot())
        };
        let outcome = self.reconcile_at(origin, target, key, snapshot);
        // SAFETY: registered above; on an error the abort releases it.
        unsafe { pg_sys::UnregisterSnapshot(snapshot) };
        outcome
    }

    /// As [`Reconciler::reconcile`], with the origin read under `snapshot`.
    pub fn reconcile_at(
        &mut self,
        origin: &mut Side,
        target: &mut Side,
        key: Slot,
        snapshot: pg_sys::Snapshot,
    ) -> Result<Outcome> {
        let current = origin.read(key, snapshot)?;
        self.follow(origin, target, key, current)
    }

    /// As [`Reconciler::reconcile`], with the origin's row locked, so that nobody changes it meanwhile.
    pub fn reconcile_locked(&mut self, origin: &mut Side, target: &mut Side, key: Slot) -> Result<Outcome> {
        let current = origin.lock(key)?;
        self.follow(origin, target, key, current)
    }

    fn follow(
        &mut self,
        origin: &mut Side,
        target: &mut Side,
        key: Slot,
        current: Option<(Leaf, Slot)>,
    ) -> Result<Outcome> {
        let current = match current {
            // The legacy finds a row by its primary key alone: with another partition key it is another row of
            // the twin, which has its own entry.
            Some((leaf, row)) if self.has_key(row, leaf.relation(), key, origin)? => Some(row),
            _ => None,
        };
        let key_row = convert(self.to_target, key, self.key_as_target);
        match current {
            None => Ok(if target.delete(key_row)? {
                Outcome::Deleted
            } else {
                Outcome::Equal
            }),
            Some(row) => {
                let row = convert_leaf_row(row, self.to_target, origin, target, self.as_target);
                target.put(key_row, row)
            }
        }
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

fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}
