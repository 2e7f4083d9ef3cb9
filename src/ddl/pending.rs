//! What was seen when a statement began, until it ends. Statements run inside one another, and an abort, also of a
//! subtransaction, forgets those that it covers.
#![allow(unsafe_code)]

use super::follow::Following;
use pgrx::pg_sys;
use pgrx::pg_sys::SubTransactionId;
use std::cell::{Cell, RefCell};

/// One statement that has begun.
pub struct Begun {
    /// The address of its parse tree: the same at its end.
    pub node: usize,
    pub subtransaction: SubTransactionId,
    /// CONCURRENTLY commits on the way.
    pub commits: bool,
    pub following: Vec<Following>,
    /// Before something is dropped: the partitions of all pairs, each with the number of its pair.
    pub partitions: Vec<(u32, i32)>,
}

thread_local! {
    static BEGUN: RefCell<Vec<Begun>> = const { RefCell::new(Vec::new()) };
    /// The subtransaction in which this backend runs DDL of the extension itself.
    static OWN: Cell<Option<SubTransactionId>> = const { Cell::new(None) };
    /// Whether all DDL of this process is: of a worker that does the same to both sides.
    static ALL_OWN: Cell<bool> = const { Cell::new(false) };
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
    if event == XACT_EVENT_ABORT {
        BEGUN.with_borrow_mut(Vec::clear);
        OWN.set(None);
    } else if [XACT_EVENT_COMMIT, XACT_EVENT_PREPARE].contains(&event) {
        BEGUN.with_borrow_mut(|begun| begun.retain(|b| b.commits));
        OWN.set(None);
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
        BEGUN.with_borrow_mut(|begun| begun.retain(|b| b.subtransaction < subtransaction));
        if OWN.get().is_some_and(|own| own >= subtransaction) {
            OWN.set(None);
        }
    }
}

fn current_subtransaction() -> SubTransactionId {
    // SAFETY: a plain read.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// A statement begins.
pub fn begin(node: usize, commits: bool, following: Vec<Following>, partitions: Vec<(u32, i32)>) {
    if following.is_empty() && partitions.is_empty() {
        return;
    }
    let begun = Begun {
        node,
        subtransaction: current_subtransaction(),
        commits,
        following,
        partitions,
    };
    BEGUN.with_borrow_mut(|all| all.push(begun));
}

/// The statement ends: what was noted when it began. Whatever began inside it has ended too.
pub fn end(node: usize) -> Option<Begun> {
    BEGUN.with_borrow_mut(|all| {
        let position = all.iter().rposition(|begun| begun.node == node)?;
        all.drain(position..).next()
    })
}

/// The partitions noted when the statement began that is dropping something now.
pub fn partitions(node: usize) -> Vec<(u32, i32)> {
    BEGUN.with_borrow(|all| {
        let begun = all.iter().rev().find(|begun| begun.node == node);
        begun.map(|begun| begun.partitions.clone()).unwrap_or_default()
    })
}

/// While it lives, the DDL of this backend is the extension's own, and is neither carried nor refused.
pub struct OwnDdl {
    previous: Option<SubTransactionId>,
}

impl OwnDdl {
    pub fn new() -> Self {
        OwnDdl {
            previous: OWN.replace(Some(current_subtransaction())),
        }
    }
}

impl Drop for OwnDdl {
    fn drop(&mut self) {
        OWN.set(self.previous);
    }
}

pub fn is_own() -> bool {
    ALL_OWN.get() || OWN.get().is_some()
}

/// From here to the end of this process, over its transactions, its DDL is the extension's own.
pub fn own_process() {
    ALL_OWN.set(true);
}
