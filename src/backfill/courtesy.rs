//! Courtesy: a copy that nobody writes beside runs as fast as it can; beside writers it works in short turns and rests
//! after each for as long as it worked, so that they find a processor and room in the WAL.
#![allow(unsafe_code)]

use crate::{locks, worker};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// Rows of a turn: about half a millisecond of work, which is what a writer may wait for a processor.
const TURN: u32 = 256;
/// Rows between two looks for writers. Each is a walk through the array of processes.
const LOOK: u32 = 128;
/// The longest rest between two turns, and after other work.
const LONGEST_REST: Duration = Duration::from_millis(50);
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
    rows: u32,
    began: Instant,
    has_seen_others: bool,
}

impl Turns {
    pub fn new() -> Turns {
        Turns {
            rows: 0,
            began: Instant::now(),
            has_seen_others: false,
        }
    }

    /// To be called for each row.
    pub fn row(&mut self) {
        self.rows += 1;
        if !self.rows.is_multiple_of(LOOK) {
            return;
        }
        self.has_seen_others = self.has_seen_others || others_write();
        if self.rows < TURN {
            return;
        }
        if self.has_seen_others {
            locks::sleep(self.began.elapsed().min(LONGEST_REST));
        }
        *self = Turns::new();
    }
}
