//! Copies rows of one table into another, or into the partitions of one, many at a time: the backfill and the drain of a default
//! partition fill tables with it that nobody else writes.
#![allow(unsafe_code)]

use super::batch::Filling;
use super::leaf::Leaf;
use super::rows::convert;
use super::side::{ForeignKeys, Side, Slot};
use crate::error::Result;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

/// Puts rows of an origin into a target, which has its columns by name. What it gathers is written by [`Writer::finish`] at last.
pub struct Writer {
    target: Side,
    from_origin: *mut pg_sys::TupleConversionMap,
    as_target: Slot,
    /// Columns of the origin.
    columns: u16,
}

impl Writer {
    /// # Safety
    /// `origin` is open until the writer is finished.
    pub unsafe fn open(target: Oid, origin: pg_sys::Relation) -> Result<Writer> {
        let mut target = Side::open(target, ForeignKeys::ActionsOnly)?;
        target.gather(Filling::AtTheEnd);
        // SAFETY: the caller's promise.
        unsafe {
            Ok(Writer {
                from_origin: pg_sys::convert_tuples_by_name((*origin).rd_att, target.tuple_desc()),
                as_target: target.new_slot(),
                columns: (*(*origin).rd_att).natts as u16,
                target,
            })
        }
    }

    /// Copies a row that is known to be right: neither constraints nor generated columns are looked at.
    ///
    /// # Errors
    /// The server's `23514` when no partition takes the row.
    pub fn add(&mut self, row: Slot) -> Result<()> {
        let origin = row;
        let row = if self.from_origin.is_null() {
            row
        } else {
            convert(self.from_origin, row, self.as_target)
        };
        let leaf = self.target.locate(row)?;
        // SAFETY: `origin` holds a tuple of the origin; the leaf belongs to the target, which this writer holds open.
        let as_it_lies = unsafe { self.tuple_as_it_lies(&leaf, origin) };
        self.target.copy(&leaf, |slot| match as_it_lies {
            // SAFETY: the slot is one of the leaf, and takes a copy.
            Some(tuple) => unsafe { pg_sys::ExecForceStoreHeapTuple(tuple, slot, false) },
            None => {
                Side::to_leaf(&leaf, row, slot);
            }
        });
        Ok(())
    }

    /// Copies a row as an INSERT would bring it: what the target generates is computed, and its constraints are checked.
    ///
    /// # Errors
    /// As for [`Writer::add`], and the server's `23514` and `23502`.
    pub fn add_checked(&mut self, row: Slot) -> Result<()> {
        let row = match self.from_origin.is_null() {
            true => row,
            false => convert(self.from_origin, row, self.as_target),
        };
        self.target.insert(row)
    }

    /// The origin's tuple, when the leaf can take its bytes: the formats are the same, and no column is missing that was
    /// added with a default later. What lies outside it is fetched when it is written.
    ///
    /// # Safety
    /// `row` holds a heap tuple of the origin.
    unsafe fn tuple_as_it_lies(&self, leaf: &Leaf, row: Slot) -> Option<pg_sys::HeapTuple> {
        if !self.from_origin.is_null() || !leaf.has_format_of_side() {
            return None;
        }
        // SAFETY: the caller's.
        unsafe {
            let tuple = (*row.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            let stored = (*(*tuple).t_data).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16;
            (stored == self.columns).then_some(tuple)
        }
    }

    pub fn finish(self) {
        // SAFETY: made in `open`; nothing of the writer is used after this.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.as_target) };
        self.target.close();
    }
}
