//! Where calls write what they are at, in memory that all backends share: a line a session.
#![allow(unsafe_code)]

use super::pace::{self, Call, Stage, grouped, left};
use crate::shared_file::{self, Shared};
use pgrx::pg_sys;
use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// Relative to the data directory. The number is that of the layout.
const PATH: &str = "pg_stat_tmp/partition_router_calls.1.stat";
/// Sessions that can have a line at a time.
const SLOTS: usize = 512;
/// How often a line that is being written is looked at again.
const PATIENCE: usize = 1_000;

/// A line as it lies in memory.
#[repr(C)]
struct Slot {
    /// Of the process that has the slot; 0 is nobody.
    pid: AtomicU32,
    /// Odd while the others are being written.
    version: AtomicU32,
    database: AtomicU32,
    relation: AtomicU32,
    /// The numbers of the call and the stage.
    what: AtomicU64,
    first: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    statement: AtomicI64,
    began: AtomicI64,
}

// SAFETY: every field is an atomic.
unsafe impl Shared for Slot {}

/// What a session is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub pid: i32,
    pub database: u32,
    pub relation: u32,
    pub call: Call,
    pub stage: Stage,
    /// What was done when the stage was first told of: by a call before this one, perhaps.
    pub first: u64,
    pub done: u64,
    /// 0 where it is not known.
    pub total: u64,
    /// When the statement began, in microseconds since 2000: tells one from the next.
    pub statement: i64,
    /// When the stage began, in microseconds since 2000.
    pub began: i64,
}

impl Line {
    /// One of this process, about nothing yet.
    pub fn mine() -> Line {
        Line {
            pid: std::process::id() as i32,
            database: database(),
            relation: 0,
            call: Call::Backfill,
            stage: Stage::Copy,
            first: 0,
            done: 0,
            total: 0,
            statement: 0,
            began: 0,
        }
    }

    /// Units a second, since the stage was first told of.
    pub fn rate(&self, now: i64) -> Option<f64> {
        pace::rate(self.done.saturating_sub(self.first), now - self.began)
    }

    /// Seconds.
    pub fn eta(&self, now: i64) -> Option<f64> {
        pace::eta(self.done, self.total, self.rate(now))
    }

    /// When the stage began, in seconds since 1970.
    pub fn began_unix(&self) -> f64 {
        const UNIX_EPOCH_OF_2000: f64 = 946_684_800.0;
        self.began as f64 / 1e6 + UNIX_EPOCH_OF_2000
    }

    /// `read: 1,200 of 4,800 blocks, 400 blocks/s, about 9 s left`.
    pub fn words(&self, now: i64) -> String {
        let unit = self.stage.unit().as_str();
        let mut words = format!("{}: {}", self.stage.as_str(), grouped(self.done));
        if self.total > 0 {
            words += &format!(" of {}", grouped(self.total));
        }
        words += &format!(" {unit}");
        if let Some(rate) = self.rate(now) {
            words += &format!(", {} {unit}/s", grouped(rate as u64));
        }
        if let Some(eta) = self.eta(now) {
            words += &format!(", {}", left(eta));
        }
        words
    }
}

thread_local! {
    /// `None` when the file is not to be had.
    static BOARD: OnceCell<Option<&'static [Slot]>> = const { OnceCell::new() };
    /// This session's.
    static MINE: Cell<Option<&'static Slot>> = const { Cell::new(None) };
}

fn slots() -> &'static [Slot] {
    BOARD
        .with(|cell| *cell.get_or_init(|| shared_file::map_or_log(PATH, SLOTS, "say what calls are at")))
        .unwrap_or(&[])
}

fn database() -> u32 {
    // SAFETY: a plain read.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

fn is_alive(pid: u32) -> bool {
    // SAFETY: a look into the list of processes.
    unsafe { !pg_sys::BackendPidGetProc(pid as i32).is_null() }
}

/// This session's slot: the one it has, a free one, or one whose process has gone. None when all are taken.
fn mine() -> Option<&'static Slot> {
    let pid = std::process::id();
    if let Some(slot) = MINE.get() {
        return Some(slot);
    }
    let claim = |slot: &&Slot| {
        let found = slot.pid.load(Ordering::Acquire);
        (found == 0 || found == pid || !is_alive(found))
            && slot
                .pid
                .compare_exchange(found, pid, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    };
    // One of a process that had this pid before comes first: there is one a pid.
    let slots = slots();
    let former = slots.iter().find(|slot| slot.pid.load(Ordering::Acquire) == pid);
    let slot = former.or_else(|| slots.iter().find(claim))?;
    // Whoever had it may have ended while it wrote.
    slot.version.fetch_and(!1, Ordering::AcqRel);
    MINE.set(Some(slot));
    Some(slot)
}

/// Puts this session's line on the board; when that is full, it is told to nobody.
pub fn write(line: &Line) {
    let Some(slot) = mine() else { return };
    slot.version.fetch_add(1, Ordering::AcqRel);
    fence(Ordering::Release);
    slot.database.store(line.database, Ordering::Relaxed);
    slot.relation.store(line.relation, Ordering::Relaxed);
    let what = u64::from(line.call as u8) << 8 | u64::from(line.stage as u8);
    slot.what.store(what, Ordering::Relaxed);
    slot.first.store(line.first, Ordering::Relaxed);
    slot.done.store(line.done, Ordering::Relaxed);
    slot.total.store(line.total, Ordering::Relaxed);
    slot.statement.store(line.statement, Ordering::Relaxed);
    slot.began.store(line.began, Ordering::Relaxed);
    slot.version.fetch_add(1, Ordering::Release);
}

impl Slot {
    fn read(&self) -> Option<Line> {
        let pid = self.pid.load(Ordering::Acquire);
        let what = self.what.load(Ordering::Relaxed);
        Some(Line {
            pid: i32::try_from(pid).ok().filter(|pid| *pid != 0)?,
            database: self.database.load(Ordering::Relaxed),
            relation: self.relation.load(Ordering::Relaxed),
            call: Call::from_number((what >> 8) as u8)?,
            stage: Stage::from_number(what as u8)?,
            first: self.first.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            statement: self.statement.load(Ordering::Relaxed),
            began: self.began.load(Ordering::Relaxed),
        })
    }

    /// The line as it was at one moment; none while nobody has one here.
    fn line(&self) -> Option<Line> {
        (0..PATIENCE).find_map(|_| {
            let before = self.version.load(Ordering::Acquire);
            let line = self.read();
            fence(Ordering::Acquire);
            let is_whole = before & 1 == 0 && self.version.load(Ordering::Relaxed) == before;
            is_whole.then_some(line)
        })?
    }
}

/// What was written in this database, also by sessions that do something else by now.
pub fn lines() -> Vec<Line> {
    let database = database();
    slots()
        .iter()
        .filter_map(Slot::line)
        .filter(|line| line.database == database)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_what_is_left() {
        let line = Line {
            pid: 1,
            database: 5,
            relation: 1,
            call: Call::Verify,
            stage: Stage::Read,
            first: 0,
            done: 1_200,
            total: 4_800,
            statement: 0,
            began: 0,
        };
        assert_eq!(
            line.words(3_000_000),
            "read: 1,200 of 4,800 blocks, 400 blocks/s, about 9 s left"
        );
        let unknown = Line { total: 0, ..line };
        assert_eq!(unknown.words(3_000_000), "read: 1,200 blocks, 400 blocks/s");
        let resumed = Line { first: 900, ..line };
        assert_eq!(
            resumed.words(3_000_000),
            "read: 1,200 of 4,800 blocks, 100 blocks/s, about 36 s left"
        );
        let begun = Line { done: 0, ..line };
        assert_eq!(begun.words(3_000_000), "read: 0 of 4,800 blocks");
    }

    #[test]
    fn a_line_is_never_read_half_written() {
        let slot: Slot = Slot {
            pid: AtomicU32::new(1),
            version: AtomicU32::new(0),
            database: AtomicU32::new(5),
            relation: AtomicU32::new(1),
            what: AtomicU64::new(0),
            first: AtomicU64::new(0),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            statement: AtomicI64::new(0),
            began: AtomicI64::new(0),
        };
        assert!(slot.line().is_some());
        slot.version.store(1, Ordering::Relaxed);
        assert_eq!(slot.line(), None, "somebody writes it");
        slot.version.store(2, Ordering::Relaxed);
        slot.pid.store(0, Ordering::Relaxed);
        assert_eq!(slot.line(), None, "nobody's");
    }
}
