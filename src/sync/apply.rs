//! Live sync: carries the changes of one statement, or of one replicated row, to the other side.
//!
//! The fast way takes the rows as the statement left them. Where something else wrote to the pair while the
//! statement ran (see [`super::frames`]), that picture may be old: then each key is reconciled with the row as it
//! is now.
#![allow(unsafe_code)]

use super::batch::Filling;
use super::frames::{self, Ended, Event};
use super::pair_cache::SyncPair;
use super::reconcile::{Reconciler, key_columns, same_key};
use super::rows::{convert, same_row};
use super::side::{ForeignKeys, Format, Side, Slot};
use super::{Firing, Rows};
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::rc::Rc;

/// From so many rows on a statement's rows are written many at a time.
const WORTH_GATHERING: i64 = 50;

/// The rows of a firing in the format of its relation, and their way into the format of another side.
struct Source(Rc<Format>);

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
    pair.require_same_columns()?;
    let mut target = Side::open_kept(target_oid, foreign_keys)?;
    target.see_own_writes();
    if firing.event != Event::Delete {
        target.deletes_move();
    }
    let source = Source(target.format(pair, firing.relation, &firing.rows)?);
    if ended.is_some_and(|ended| ended.is_current) && is_one_picture(pair, firing, ended) {
        carry_images(pair, firing, &source, &mut target, from_legacy)?;
    } else {
        carry_keys(pair, firing, &source, &mut target, from_legacy)?;
    }
    target.close();
    if let Some(ended) = ended {
        frames::carried(pair.id, ended);
    }
    Ok(())
}

impl std::ops::Deref for Source {
    type Target = Format;

    fn deref(&self) -> &Format {
        &self.0
    }
}

impl Source {
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

    /// Whether the current old and new row differ in nothing that the target has.
    fn is_same_for_target(&self) -> bool {
        // SAFETY: both are rows in the target's format.
        unsafe { same_row(self.old_row(), self.new_row()) }
    }

    /// Whether the current old and new row have the same key, byte for byte.
    fn same_key(&self) -> bool {
        // SAFETY: both slots hold a row of the relation that fired.
        unsafe { same_key(&self.key, self.old, &self.key, self.new) }
    }
}

/// Whether the transition tables have each row once, old and new images in the same order.
///
/// They have not when a trigger of the user swallowed the new row of one that moved to another partition; and they
/// may not when actions of foreign keys changed the table's rows: the server adds these to the same tables.
fn is_one_picture(pair: &SyncPair, firing: &Firing, ended: Option<Ended>) -> bool {
    let Rows::Statement { old, new } = firing.rows else {
        return false;
    };
    if firing.event != Event::Update {
        return true;
    }
    // SAFETY: the server owns the stores while the trigger runs.
    let paired = unsafe { pg_sys::tuplestore_tuple_count(old) == pg_sys::tuplestore_tuple_count(new) };
    paired && (!pair.has_cascading_updates || ended.is_some_and(|e| e.is_last_command()))
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
fn carry_images(
    pair: &SyncPair,
    firing: &Firing,
    source: &Source,
    target: &mut Side,
    from_legacy: bool,
) -> Result<()> {
    let Rows::Statement { old, new } = firing.rows else {
        return Err(Error::Internal("images of a row trigger".into()));
    };
    rewind(old);
    rewind(new);
    // SAFETY: as in `is_empty`.
    let is_large = !new.is_null() && unsafe { pg_sys::tuplestore_tuple_count(new) } >= WORTH_GATHERING;
    if is_large {
        target.gather(Filling::AnyRoom);
    }
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
            let nested = frames::is_nested(pair.id);
            while next(old, source.old) && next(new, source.new) {
                check_for_interrupts();
                if pair.is_guarded && source.is_same_for_target() {
                    continue;
                }
                if source.same_key() {
                    // A row that the legacy does not have yet is one that a statement around this one added or gave
                    // its key: that statement carries the row as it is then.
                    if from_legacy
                        || !nested
                        || target.has(source.old_row())? && !is_anothers(pair, target, source.old_row())?
                    {
                        target.update(source.old_row(), source.new_row())?;
                    }
                } else if from_legacy {
                    moved = true;
                    target.delete(source.old_row())?;
                } else {
                    target.see_own_writes();
                    // Nor must it take the row of another partition that has its primary key: then the unique index says so.
                    if nested && is_anothers(pair, target, source.old_row())? {
                        target.insert(source.new_row())?;
                    } else {
                        target.update(source.old_row(), source.new_row())?;
                    }
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
    target.write_gathered();
    Ok(())
}

/// Whether the legacy, or the guard, has under the primary key of `row` (in its format) another row than that, which the twin has in
/// another partition.
fn is_anothers(pair: &SyncPair, target: &mut Side, row: Slot) -> Result<bool> {
    let key = key_columns(pair, target.relation())?;
    let Some((_, found)) = target.lock(row)? else {
        return Ok(false);
    };
    // SAFETY: a side without partitions finds rows in its own format.
    if unsafe { same_key(&key, found, &key, row) } {
        return Ok(false); // without a look at the twin
    }
    let mut origin = Side::open(pair.twin, ForeignKeys::All)?;
    let mut reconciler = Reconciler::new(&mut origin, target, pair)?;
    let is_anothers = reconciler.is_anothers(&mut origin, target, row)?;
    reconciler.close();
    origin.close();
    Ok(is_anothers)
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
    let mut carrier = KeyCarrier {
        reconciler: &mut reconciler,
        origin: &mut origin,
        target,
        to_origin,
        as_origin,
    };
    carrier.carry(pair, firing, source, from_legacy)?;
    reconciler.close();
    // SAFETY: the slot was made above.
    unsafe { pg_sys::ExecDropSingleTupleTableSlot(as_origin) };
    origin.close();
    Ok(())
}

struct KeyCarrier<'a> {
    reconciler: &'a mut Reconciler,
    origin: &'a mut Side,
    target: &'a mut Side,
    to_origin: *mut pg_sys::TupleConversionMap,
    /// The key in hand, in the format of `origin`.
    as_origin: Slot,
}

impl KeyCarrier<'_> {
    fn carry(&mut self, pair: &SyncPair, firing: &Firing, source: &Source, from_legacy: bool) -> Result<()> {
        if from_legacy {
            // Rows that change places need room first, where more than the key is unique.
            if pair.has_other_unique {
                self.each(firing, source, Self::make_room)?;
            }
            return self.each(firing, source, Self::reconcile);
        }
        // On the legacy a row that moved must not go and come again: foreign keys may point at it.
        match firing.rows {
            Rows::Statement { old, new } if firing.event == Event::Update => {
                rewind(old);
                rewind(new);
                // SAFETY: as in `is_one_picture`.
                if unsafe { pg_sys::tuplestore_tuple_count(old) == pg_sys::tuplestore_tuple_count(new) } {
                    while next(old, source.old) && next(new, source.new) {
                        check_for_interrupts();
                        if !source.same_key() {
                            self.move_row(source)?;
                        }
                        self.reconcile(source.new)?;
                    }
                } else {
                    while next(new, source.new) {
                        self.reconcile(source.new)?;
                    }
                }
                rewind(old);
                while next(old, source.old) {
                    check_for_interrupts();
                    self.reconcile(source.old)?;
                }
                Ok(())
            }
            // One event of replication.
            Rows::One { old, new } if pair.is_referenced && !old.is_null() => {
                // SAFETY: the tuples are the trigger's and outlive this call.
                unsafe { pg_sys::ExecStoreHeapTuple(old, source.old, false) };
                if new.is_null() {
                    self.leave(pair, source)?;
                } else {
                    // SAFETY: as above.
                    unsafe { pg_sys::ExecStoreHeapTuple(new, source.new, false) };
                    if !source.same_key() {
                        self.move_row(source)?;
                    }
                }
                self.each(firing, source, Self::reconcile)
            }
            Rows::Statement { old, .. } if firing.event == Event::Delete && pair.is_referenced => {
                rewind(old);
                while next(old, source.old) {
                    check_for_interrupts();
                    self.leave(pair, source)?;
                    self.reconcile(source.old)?;
                }
                Ok(())
            }
            _ => self.each(firing, source, Self::reconcile),
        }
    }

    /// The old row went from a partition of the twin: where it is in another one now, the legacy's row follows.
    fn leave(&mut self, pair: &SyncPair, source: &Source) -> Result<()> {
        let key = convert(self.to_origin, source.old, self.as_origin);
        self.reconciler
            .follow_to_another_partition(self.origin, self.target, pair, source.old_row(), key)
    }

    /// Runs `act` on each row of the firing, the old ones first.
    fn each(
        &mut self,
        firing: &Firing,
        source: &Source,
        act: impl Fn(&mut Self, Slot) -> Result<()>,
    ) -> Result<()> {
        match firing.rows {
            Rows::Statement { old, new } => {
                for (store, slot) in [(old, source.old), (new, source.new)] {
                    if store.is_null() {
                        continue;
                    }
                    rewind(store);
                    while next(store, slot) {
                        check_for_interrupts();
                        act(self, slot)?;
                    }
                }
            }
            Rows::One { old, new } => {
                for (tuple, slot) in [(old, source.old), (new, source.new)] {
                    if !tuple.is_null() {
                        // SAFETY: the tuple is the trigger's and outlives this call.
                        unsafe { pg_sys::ExecStoreHeapTuple(tuple, slot, false) };
                        act(self, slot)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn reconcile(&mut self, row: Slot) -> Result<()> {
        let key = convert(self.to_origin, row, self.as_origin);
        self.reconciler.reconcile(self.origin, self.target, key)?;
        Ok(())
    }

    fn make_room(&mut self, row: Slot) -> Result<()> {
        let key = convert(self.to_origin, row, self.as_origin);
        self.reconciler.make_room_now(self.origin, self.target, key)?;
        Ok(())
    }

    fn move_row(&mut self, source: &Source) -> Result<()> {
        let new = convert(self.to_origin, source.new, self.as_origin);
        self.reconciler
            .follow_move(self.origin, self.target, source.old_row(), new)
    }
}

fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}
