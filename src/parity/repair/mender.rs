//! Makes single rows of one side of a pair what the other side has, each looked at again under its lock.
#![allow(unsafe_code)]

use super::Repaired;
use crate::error::{Error, Result};
use crate::ident::Ident;
use crate::pair::{Pair, Phase};
use crate::sync::pair_cache::{self, SyncPair};
use crate::sync::reconcile::Reconciler;
use crate::sync::side::{ForeignKeys, Outcome, Side, Slot};
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::rc::Rc;

/// Rows after which memory is freed, and what foreign keys ask for is done, which the server keeps in memory until then.
const ROWS_AT_A_TIME: u32 = 1_000;

/// The side that is right, and the one that follows it.
pub fn sides(pair: &Pair) -> (Oid, Oid) {
    match pair.phase {
        Phase::Switched => (pair.twin, pair.legacy),
        _ => (pair.legacy, pair.twin),
    }
}

/// The numbers of the columns of the twin's key in the rows of a table.
pub fn key_numbers(pair: &SyncPair, desc: pg_sys::TupleDesc) -> Result<Vec<i32>> {
    pair.twin_key
        .iter()
        .map(|name| {
            let c_name = std::ffi::CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
            // SAFETY: the format is that of an open table.
            let number = unsafe { pg_sys::SPI_fnumber(desc, c_name.as_ptr()) };
            if number > 0 {
                return Ok(number);
            }
            Err(Error::Internal(format!(
                "a side has no column {}",
                Ident::new(name.clone())
            )))
        })
        .collect()
}

/// Makes a slot a row of which only the columns with these numbers count, which `get` gives in their order.
///
/// # Safety
/// The numbers are columns of the slot, and what `get` gives lives as long as the slot is used.
pub unsafe fn fill_key(slot: Slot, numbers: &[i32], mut get: impl FnMut(usize) -> (Datum, bool)) {
    // SAFETY: the caller's; a slot has room for all its columns.
    unsafe {
        let all = (*(*slot).tts_tupleDescriptor).natts as usize;
        pg_sys::ExecClearTuple(slot);
        std::slice::from_raw_parts_mut((*slot).tts_isnull, all).fill(true);
        for (i, number) in numbers.iter().enumerate() {
            let (value, is_null) = get(i);
            *(*slot).tts_values.add(*number as usize - 1) = value;
            *(*slot).tts_isnull.add(*number as usize - 1) = is_null;
        }
        pg_sys::ExecStoreVirtualTuple(slot);
    }
}

/// What rows leave in memory, until it is reset. After an error it goes with the transaction.
pub struct Memory(pg_sys::MemoryContext);

impl Memory {
    pub fn new() -> Memory {
        // SAFETY: a context of its own.
        Memory(unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurTransactionContext,
                c"partition_router rows".as_ptr(),
                0,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// What `body` allocates lies here.
    pub fn within<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        // SAFETY: the memory is there until it is deleted; the one before is the current one again.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.0);
            let outcome = body();
            pg_sys::MemoryContextSwitchTo(previous);
            outcome
        }
    }

    /// Frees what lies here; nothing uses it any more.
    pub fn reset(&self) {
        // SAFETY: the context is this one's.
        unsafe { pg_sys::MemoryContextReset(self.0) };
    }

    pub fn delete(self) {
        // SAFETY: the context is this one's.
        unsafe { pg_sys::MemoryContextDelete(self.0) };
    }
}

/// Both sides, opened anew from time to time: what rows leave in memory is freed then.
pub struct Mender {
    sides: (Oid, Oid),
    sync_pair: Rc<SyncPair>,
    open: Option<Open>,
    memory: Memory,
    rows: u32,
    needs_room: bool,
    repaired: Repaired,
}

struct Open {
    origin: Side,
    target: Side,
    reconciler: Reconciler,
    key: Slot,
    numbers: Vec<i32>,
}

impl Open {
    fn new(sides: (Oid, Oid), sync_pair: &SyncPair) -> Result<Open> {
        let mut origin = Side::open(sides.0, ForeignKeys::All)?;
        let mut target = Side::open(sides.1, ForeignKeys::ActionsOnly)?;
        Ok(Open {
            reconciler: Reconciler::new(&mut origin, &mut target, sync_pair)?,
            key: origin.new_slot(),
            numbers: key_numbers(sync_pair, origin.tuple_desc())?,
            origin,
            target,
        })
    }

    fn close(self) {
        // SAFETY: the slot is the origin's, which is open.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.key) };
        self.reconciler.close();
        self.origin.close();
        self.target.close();
    }
}

impl Mender {
    pub fn open(pair: &Pair) -> Result<Mender> {
        let sync_pair = pair_cache::get(pair.id)?;
        // SAFETY: the queue is opened around the writes, until `close`.
        unsafe { pg_sys::AfterTriggerBeginQuery() };
        Ok(Mender {
            sides: sides(pair),
            // On the legacy, foreign keys may point at rows that would have to go for a while.
            needs_room: sync_pair.has_other_unique && pair.phase != Phase::Switched,
            sync_pair,
            open: None,
            memory: Memory::new(),
            rows: 0,
            repaired: Repaired::default(),
        })
    }

    pub fn pair(&self) -> &SyncPair {
        &self.sync_pair
    }

    /// Whether rows that change places need room first: where more than the key is unique.
    pub fn needs_room(&self) -> bool {
        self.needs_room
    }

    /// The row to go on with has this key, in the columns and the order of the twin's key.
    ///
    /// # Safety
    /// What `get` gives lives until the next key.
    pub unsafe fn key_is(&mut self, get: impl FnMut(usize) -> (Datum, bool)) -> Result<()> {
        if self.rows == ROWS_AT_A_TIME {
            self.end_rows();
        }
        self.rows += 1;
        self.in_memory(|open, _| {
            // SAFETY: the numbers are the origin's, as the slot is; the caller's.
            unsafe { fill_key(open.key, &open.numbers, get) };
            Ok(())
        })
    }

    /// Whether the side that is right has the very key in a snapshot.
    pub fn is_in_origin(&mut self, snapshot: pg_sys::Snapshot) -> Result<bool> {
        self.in_memory(|open, _| open.reconciler.is_in(&mut open.origin, open.key, snapshot))
    }

    /// Whether it has the very key now, as far as anybody has committed.
    pub fn is_in_origin_now(&mut self) -> Result<bool> {
        self.in_memory(|open, _| open.reconciler.is_in_now(&mut open.origin, open.key))
    }

    /// Makes room for the row; says whether another one, or another version of it, had to go. All rows are given room before
    /// the first is mended.
    pub fn make_room(&mut self) -> Result<bool> {
        self.in_memory(|open, _| {
            open.target.see_own_writes();
            open.origin.lock(open.key)?; // first the origin's row, as writers do
            open.reconciler
                .make_room_now(&mut open.origin, &mut open.target, open.key)
        })
    }

    /// Makes the target's row what the origin has. `had_row` is what [`Mender::make_room`] said.
    pub fn mend(&mut self, had_row: bool) -> Result<()> {
        self.in_memory(|open, repaired| {
            open.target.see_own_writes();
            match open
                .reconciler
                .reconcile_locked(&mut open.origin, &mut open.target, open.key)?
            {
                Outcome::Inserted if had_row => repaired.updated += 1,
                Outcome::Inserted => repaired.inserted += 1,
                Outcome::Updated => repaired.updated += 1,
                Outcome::Deleted => repaired.deleted += 1,
                Outcome::Equal if had_row => repaired.deleted += 1,
                Outcome::Equal => {}
            }
            Ok(())
        })
    }

    fn in_memory<T>(&mut self, body: impl FnOnce(&mut Open, &mut Repaired) -> Result<T>) -> Result<T> {
        let Mender {
            sides,
            sync_pair,
            open,
            repaired,
            ..
        } = self;
        self.memory.within(|| match open {
            Some(open) => body(open, repaired),
            closed => body(closed.insert(Open::new(*sides, sync_pair)?), repaired),
        })
    }

    /// Frees what the rows so far have left in memory.
    fn end_rows(&mut self) {
        self.rows = 0;
        let Some(open) = self.open.take() else {
            return;
        };
        // SAFETY: the queue was opened by `open`, or here; with the sides closed nothing is in use of the memory. Rows that wait
        // for their room to be filled again are not to be missed by a foreign key.
        unsafe {
            if !self.needs_room {
                pg_sys::AfterTriggerEndQuery(open.target.estate());
                pg_sys::AfterTriggerBeginQuery();
            }
            open.close();
        }
        self.memory.reset();
    }

    pub fn close(mut self) -> Result<Repaired> {
        let sides = self.sides;
        let sync_pair = Rc::clone(&self.sync_pair);
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(sides, &sync_pair)?,
        };
        // SAFETY: the queue was opened before; nothing is used after this.
        unsafe {
            pg_sys::AfterTriggerEndQuery(open.target.estate());
            open.close();
        }
        self.memory.delete();
        Ok(self.repaired)
    }
}
