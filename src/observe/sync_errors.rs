//! How many statements failed because a change could not reach the other side of a pair. The transaction that would tell is the one
//! that is rolled back, so they are counted in memory that all backends share, by legacy and SQLSTATE.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::shared_file::{self, Shared};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Relative to the data directory. The number is that of the layout.
const PATH: &str = "pg_stat_tmp/partition_router_sync_errors.1.stat";
const SLOTS: usize = 1024;

/// What is counted, in memory that starts as zeros. A slot whose key is 0 is free; a key is set once.
#[repr(C)]
struct Slot {
    /// Database and legacy.
    key: AtomicU64,
    /// The five characters, set before the first is counted.
    sqlstate: AtomicU64,
    number: AtomicU64,
    /// Of the last one, in microseconds since 1970.
    last: AtomicU64,
}

// SAFETY: every field is an atomic.
unsafe impl Shared for Slot {}

/// The errors of one pair with one SQLSTATE.
#[derive(Debug, Clone)]
pub struct Count {
    pub legacy: u32,
    pub sqlstate: String,
    pub number: u64,
    /// Of the last one, in seconds since 1970.
    pub last: f64,
}

/// The errors of one pair.
#[derive(Debug, Clone)]
pub struct SyncErrors {
    pub number: u64,
    pub last: f64,
    /// Of the last one.
    pub sqlstate: String,
}

impl SyncErrors {
    /// Seconds since the last one.
    pub fn age(&self) -> f64 {
        (now() as f64 / 1e6 - self.last).max(0.0)
    }
}

thread_local! {
    /// `None` when the file is not to be had.
    static ERRORS: OnceCell<Option<&'static [Slot]>> = const { OnceCell::new() };
}

fn slots() -> Option<&'static [Slot]> {
    ERRORS.with(|cell| *cell.get_or_init(|| shared_file::map_or_log(PATH, SLOTS, "count errors of the sync")))
}

/// Microseconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}

fn key_of(legacy: u32) -> u64 {
    // SAFETY: a plain read.
    let database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    u64::from(database) << 32 | u64::from(legacy)
}

fn packed(sqlstate: &str) -> u64 {
    sqlstate
        .bytes()
        .take(5)
        .fold(0, |code, byte| code << 8 | u64::from(byte))
}

fn unpacked(code: u64) -> String {
    (0..5)
        .rev()
        .map(|place| char::from((code >> (8 * place)) as u8))
        .collect()
}

/// Counts an error of a pair of this database. When all slots are taken nothing is counted.
pub fn count(legacy: Oid, sqlstate: &str) {
    let (key, code) = (key_of(legacy.to_u32()), packed(sqlstate));
    let slot = slots().into_iter().flatten().find(|slot| {
        let is_of = slot.key.load(Ordering::Acquire) == key
            || slot
                .key
                .compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        // The first of the key to come gives the slot its code.
        is_of
            && slot
                .sqlstate
                .compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire)
                .map_or_else(|found| found == code, |_| true)
    });
    if let Some(slot) = slot {
        slot.last.fetch_max(now(), Ordering::Relaxed);
        slot.number.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was counted in this database.
///
/// # Errors
/// `Internal` when there is no place to count in; the server's log says why.
pub fn counts() -> Result<Vec<Count>> {
    let slots = slots().ok_or_else(|| Error::Internal(format!("{PATH} cannot be used")))?;
    let database = key_of(0);
    Ok(slots
        .iter()
        .map(|slot| (slot.key.load(Ordering::Acquire), slot))
        .take_while(|(key, _)| *key != 0)
        .filter(|(key, slot)| key & !0xffff_ffff == database && slot.number.load(Ordering::Relaxed) > 0)
        .map(|(key, slot)| Count {
            legacy: key as u32,
            sqlstate: unpacked(slot.sqlstate.load(Ordering::Relaxed)),
            number: slot.number.load(Ordering::Relaxed),
            last: slot.last.load(Ordering::Relaxed) as f64 / 1e6,
        })
        .collect())
}

/// The same by the oid of the legacy.
///
/// # Errors
/// As [`counts`].
pub fn by_relation() -> Result<HashMap<u32, SyncErrors>> {
    let mut found: HashMap<u32, SyncErrors> = HashMap::new();
    for count in counts()? {
        let errors = found.entry(count.legacy).or_insert_with(|| SyncErrors {
            number: 0,
            last: 0.0,
            sqlstate: String::new(),
        });
        errors.number += count.number;
        if count.last > errors.last {
            errors.last = count.last;
            errors.sqlstate = count.sqlstate;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_comes_back_as_it_was() {
        for code in ["PR015", "23514", "XX000"] {
            assert_eq!(unpacked(packed(code)), code);
        }
    }
}
