//! Courtesy: a copy that nobody writes beside runs as fast as it can; beside writers it works in short turns and rests
//! after each for as long as it worked, so that they find a processor and room in the WAL.
#![allow(unsafe_code)]

use crate::{locks, worker};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// A turn: what a writer may wait for a processor.
const TURN: Duration = Duration::from_micros(250);
/// The longest rest between two turns, and after other work.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// The server's own sleep, which hears interrupts, knows nothing shorter.
const LONGEST_NAP: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whether sessions other than those of this backfill are in the middle of a write, and wait for no lock.
pub fn others_write() -> bool {
    // SAFETY: reads the array of processes without a lock, as a commit with commit_delay does.
    unsafe { pg_sys::MinimumActiveBackends(i32::try_from(worker::processes()).unwrap_or(i32::MAX)) }
}

/// After work that cannot be done in turns, the indexes of a partition say: a rest as long as the work, beside writers.
pub fn rest_after(work: Duration) {
    if others_write() {
        locks::sleep(work.min(LONGEST_PAUSE));
    }
}

pub struct Turns {
    /// So many rows (or keys) between two looks for writers, each a walk through the array of processes, and at the clock.
    look: u32,
    rows: u32,
    began: Instant,
    has_seen_others: bool,
}

impl Turns {
    pub fn of(look: u32) -> Turns {
        Turns {
            look,
            rows: 0,
            began: Instant::now(),
            has_seen_others: false,
        }
    }

    /// To be called for each row. Rests at the end of a turn beside writers, if it `may`.
    pub fn one(&mut self, may: impl FnOnce() -> bool) {
        self.rows += 1;
        if !self.rows.is_multiple_of(self.look) {
            return;
        }
        self.has_seen_others = self.has_seen_others || others_write();
        let worked = self.began.elapsed();
        if worked < TURN {
            return;
        }
        if self.has_seen_others && may() {
            if worked < LONGEST_NAP {
                std::thread::sleep(worked);
            } else {
                locks::sleep(worked.min(LONGEST_REST));
            }
        }
        *self = Turns::of(self.look);
    }
}
