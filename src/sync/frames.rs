//! What the statement triggers of this backend remember while statements run inside one another.
//!
//! A statement's transition tables show each row as that statement left it. When a trigger or a function wrote
//! to the same pair in the meantime, that picture may be older than the row is now. So a BEFORE trigger pushes a
//! frame, every write to a pair counts up its generation, and the AFTER trigger that pops the frame knows
//! whether its picture is still the truth. An abort, also of a subtransaction, drops the frames it covers.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use pgrx::pg_sys::{Oid, SubTransactionId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
}

struct Frame {
    relation: Oid,
    event: Event,
    /// The command that fires the triggers: frames of one statement share it, a statement inside has a later one.
    command: pg_sys::CommandId,
    generation: u64,
    /// Another event of the same statement (MERGE) is applied in an unknown order with this one.
    mixed: bool,
    subtransaction: SubTransactionId,
    pair: i32,
}

thread_local! {
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
    static GENERATIONS: RefCell<HashMap<i32, u64>> = RefCell::new(HashMap::new());
    /// The subtransaction in which this backend truncates or deletes on the other side itself.
    static SUPPRESSED: Cell<Option<SubTransactionId>> = const { Cell::new(None) };
}

/// Hears of aborts. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if [XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE].contains(&event) {
        FRAMES.with_borrow_mut(Vec::clear);
        GENERATIONS.with_borrow_mut(HashMap::clear);
        SUPPRESSED.set(None);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: SubTransactionId,
    _parent: SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        FRAMES.with_borrow_mut(|frames| frames.retain(|f| f.subtransaction < subtransaction));
        if SUPPRESSED.get().is_some_and(|s| s >= subtransaction) {
            SUPPRESSED.set(None);
        }
    }
}

fn current_subtransaction() -> SubTransactionId {
    // SAFETY: a plain read.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// A statement begins on `relation` of `pair`.
pub fn push(pair: i32, relation: Oid, event: Event) {
    let frame = Frame {
        relation,
        event,
        // SAFETY: a plain read.
        command: unsafe { pg_sys::GetCurrentCommandId(false) },
        generation: generation(pair),
        mixed: false,
        subtransaction: current_subtransaction(),
        pair,
    };
    FRAMES.with_borrow_mut(|frames| frames.push(frame));
}

/// A statement that has ended, as [`pop`] found it.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    relation: Oid,
    command: Option<pg_sys::CommandId>,
    /// The transition tables still show the rows as they are.
    pub is_current: bool,
}

impl Ended {
    /// Whether nothing ran in this transaction since the statement began.
    pub fn is_last_command(&self) -> bool {
        // SAFETY: a plain read.
        self.command == Some(unsafe { pg_sys::GetCurrentCommandId(false) })
    }
}

/// The statement ends.
pub fn pop(pair: i32, relation: Oid, event: Event) -> Ended {
    let generation = generation(pair);
    FRAMES.with_borrow_mut(|frames| {
        let Some(position) = frames
            .iter()
            .rposition(|f| f.relation == relation && f.event == event)
        else {
            return Ended {
                relation,
                command: None,
                is_current: false,
            };
        };
        let frame = frames.remove(position);
        // INSERT … ON CONFLICT pushes INSERT, UPDATE and pops UPDATE, INSERT; MERGE pops DELETE, UPDATE, INSERT: applied
        // in that order nothing can collide. Whatever pops in another order is reconciled.
        let mut is_merge = false;
        for above in frames[position..]
            .iter_mut()
            .filter(|f| f.relation == relation && f.command == frame.command)
        {
            above.mixed = true;
            is_merge = true;
        }
        Ended {
            relation,
            command: Some(frame.command),
            is_current: !is_merge && !frame.mixed && frame.generation == generation,
        }
    })
}

/// The events of the statement on `relation` that ends now say nothing about its rows: all of them are to be reconciled.
#[cfg(not(feature = "pg14"))]
pub fn mix(relation: Oid) {
    FRAMES.with_borrow_mut(|frames| {
        let Some(command) = frames
            .iter()
            .rev()
            .find(|f| f.relation == relation)
            .map(|f| f.command)
        else {
            return;
        };
        for frame in frames
            .iter_mut()
            .filter(|f| f.relation == relation && f.command == command)
        {
            frame.mixed = true;
        }
    });
}

/// Whether a statement on this pair goes on around the one that has ended.
pub fn is_nested(pair: i32) -> bool {
    FRAMES.with_borrow(|frames| frames.iter().any(|f| f.pair == pair))
}

fn generation(pair: i32) -> u64 {
    GENERATIONS.with_borrow(|g| g.get(&pair).copied().unwrap_or(0))
}

/// The changes of the statement that `ended` were carried over. Frames of other statements see a new generation;
/// the statement's own further events take it for theirs.
pub fn carried(pair: i32, ended: Ended) {
    let next = GENERATIONS.with_borrow_mut(|g| {
        let entry = g.entry(pair).or_insert(0);
        *entry += 1;
        *entry
    });
    FRAMES.with_borrow_mut(|frames| {
        for frame in frames.iter_mut().filter(|f| {
            f.relation == ended.relation && Some(f.command) == ended.command && f.generation + 1 == next
        }) {
            frame.generation = next;
        }
    });
}

/// While it lives, the sync triggers of this backend do nothing: the extension changes both sides itself.
pub struct Suppressed {
    previous: Option<SubTransactionId>,
}

impl Suppressed {
    pub fn new() -> Self {
        Suppressed {
            previous: SUPPRESSED.replace(Some(current_subtransaction())),
        }
    }
}

impl Drop for Suppressed {
    fn drop(&mut self) {
        SUPPRESSED.set(self.previous);
    }
}

pub fn is_suppressed() -> bool {
    SUPPRESSED.get().is_some()
}
