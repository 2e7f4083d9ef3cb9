//! How many decisions there were, by table, target and reason, in a file that all backends map.
//!
//! A file, since it works whichever way the library was loaded: shared memory of the server's can be had from
//! `shared_preload_libraries` alone, and tables are not for a standby, nor for a read that assigns no transaction id. It lies
//! where the server's extensions keep their statistics, is written by nobody but the kernel, survives a restart and stays out of
//! base backups. Counting is one atomic addition, behind a look into a table of this backend's.
#![allow(unsafe_code)]

use super::decide::Reason;
use crate::error::{Error, Result};
use crate::shared_file::{self, Shared};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Relative to the data directory, where backends stand. The number is that of the layout.
const PATH: &str = "pg_stat_tmp/partition_router.1.stat";
const SLOTS: usize = 4096;
const REASON_BYTES: usize = 60;
/// How often a slot that somebody else is filling is looked at again.
const PATIENCE: u32 = 10_000;

const EMPTY: u32 = 0;
const CLAIMED: u32 = 1;
const READY: u32 = 2;

/// What is counted, in memory that starts as zeros.
#[repr(C)]
struct Slot {
    count: AtomicU64,
    state: AtomicU32,
    database: AtomicU32,
    legacy: AtomicU32,
    target: AtomicU32,
    reason_length: AtomicU32,
    reason: [AtomicU32; REASON_BYTES / 4],
}

// SAFETY: every field is an atomic.
unsafe impl Shared for Slot {}

/// One line of `routing_stats`.
pub struct Count {
    pub legacy: Oid,
    pub target: Oid,
    pub reason: String,
    pub decisions: i64,
}

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    legacy: u32,
    target: u32,
    reason: Reason,
}

struct Counters {
    slots: &'static [Slot],
    mine: RefCell<HashMap<Key, Option<usize>>>,
    /// The last of them, which is nearly always the next one too.
    last: Cell<Option<(Key, Option<usize>)>>,
}

thread_local! {
    /// `None` when the file is not to be had.
    static COUNTERS: OnceCell<Option<Counters>> = const { OnceCell::new() };
}

fn with_counters<T>(body: impl FnOnce(&Counters) -> T) -> Option<T> {
    COUNTERS.with(|cell| {
        cell.get_or_init(|| {
            let slots = shared_file::map_or_log(PATH, SLOTS, "count routing decisions")?;
            Some(Counters {
                slots,
                mine: RefCell::default(),
                last: Cell::new(None),
            })
        })
        .as_ref()
        .map(body)
    })
}

/// Counts a decision of this database.
pub fn count(legacy: Oid, target: Oid, reason: Reason) {
    let key = Key {
        legacy: legacy.to_u32(),
        target: target.to_u32(),
        reason,
    };
    with_counters(|counters| {
        let place = match counters.last.get() {
            Some((last, place)) if last == key => place,
            _ => {
                let place = *counters
                    .mine
                    .borrow_mut()
                    .entry(key)
                    .or_insert_with(|| counters.slot(key));
                counters.last.set(Some((key, place)));
                place
            }
        };
        if let Some(place) = place {
            counters.slots[place].count.fetch_add(1, Ordering::Relaxed);
        }
    });
}

fn database() -> u32 {
    // SAFETY: a plain read.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

impl Counters {
    /// The slot of a key, found or taken; `None` when all are taken.
    fn slot(&self, key: Key) -> Option<usize> {
        let text = key.reason.counted();
        let text = text.as_bytes();
        let text = &text[..text.len().min(REASON_BYTES)];
        let first = (key.legacy ^ key.target.rotate_left(16)) as usize
            + text.iter().map(|b| *b as usize).sum::<usize>();
        (0..SLOTS).map(|i| (first + i) % SLOTS).find(|place| {
            let slot = &self.slots[*place];
            let claimed = slot
                .state
                .compare_exchange(EMPTY, CLAIMED, Ordering::Acquire, Ordering::Acquire);
            match claimed {
                Ok(_) => {
                    slot.fill(key, text);
                    true
                }
                Err(_) => slot.is_ready() && slot.is_of(key, text),
            }
        })
    }
}

impl Slot {
    fn fill(&self, key: Key, text: &[u8]) {
        self.database.store(database(), Ordering::Relaxed);
        self.legacy.store(key.legacy, Ordering::Relaxed);
        self.target.store(key.target, Ordering::Relaxed);
        self.reason_length.store(text.len() as u32, Ordering::Relaxed);
        for (word, bytes) in self.reason.iter().zip(text.chunks(4)) {
            let mut four = [0; 4];
            four[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_ne_bytes(four), Ordering::Relaxed);
        }
        self.state.store(READY, Ordering::Release);
    }

    /// Whether the slot has been filled. A backend that died while it filled one leaves it to nobody.
    fn is_ready(&self) -> bool {
        (0..PATIENCE).any(|_| {
            std::hint::spin_loop();
            self.state.load(Ordering::Acquire) == READY
        })
    }

    fn is_of(&self, key: Key, text: &[u8]) -> bool {
        self.database.load(Ordering::Relaxed) == database()
            && self.legacy.load(Ordering::Relaxed) == key.legacy
            && self.target.load(Ordering::Relaxed) == key.target
            && self.text().as_bytes() == text
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self
            .reason
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .take(self.reason_length.load(Ordering::Relaxed) as usize)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The slots of this database.
fn of_this_database(counters: &Counters) -> impl Iterator<Item = &'static Slot> {
    counters.slots.iter().filter(|slot| {
        slot.state.load(Ordering::Acquire) == READY && slot.database.load(Ordering::Relaxed) == database()
    })
}

/// What was counted in this database.
///
/// # Errors
/// `Internal` when there is no place to count in; the server's log says why.
pub fn counts() -> Result<Vec<Count>> {
    with_counters(|counters| {
        of_this_database(counters)
            .map(|slot| Count {
                legacy: slot.legacy.load(Ordering::Relaxed).into(),
                target: slot.target.load(Ordering::Relaxed).into(),
                reason: slot.text(),
                decisions: slot.count.load(Ordering::Relaxed) as i64,
            })
            .filter(|count| count.decisions > 0)
            .collect()
    })
    .ok_or_else(no_counters)
}

/// Begins to count again in this database.
///
/// # Errors
/// As [`counts`].
pub fn reset() -> Result<()> {
    with_counters(|counters| {
        for slot in of_this_database(counters) {
            slot.count.store(0, Ordering::Relaxed);
        }
    })
    .ok_or_else(no_counters)
}

fn no_counters() -> Error {
    Error::Internal(format!("{PATH} cannot be used"))
}
