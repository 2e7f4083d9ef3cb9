//! Reads a heap page by page, as a sequential scan does, but hands out the page with its place and age: which rows a
//! snapshot sees on it, and when it was changed last.
#![allow(unsafe_code)]

use crate::compat;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::ops::Range;
use std::ptr::null_mut;

/// As the server's sources have them; without a guard around each, since a page takes hundreds of calls.
mod server {
    use super::*;

    unsafe extern "C-unwind" {
        pub fn ReadBufferExtended(
            relation: pg_sys::Relation,
            fork: pg_sys::ForkNumber::Type,
            block: pg_sys::BlockNumber,
            mode: pg_sys::ReadBufferMode::Type,
            strategy: pg_sys::BufferAccessStrategy,
        ) -> pg_sys::Buffer;
        pub fn ReadRecentBuffer(
            file: compat::RelationFile,
            fork: pg_sys::ForkNumber::Type,
            block: pg_sys::BlockNumber,
            recent: pg_sys::Buffer,
        ) -> bool;
        pub fn LockBuffer(buffer: pg_sys::Buffer, mode: c_int);
        pub fn ReleaseBuffer(buffer: pg_sys::Buffer);
        pub fn visibilitymap_get_status(
            relation: pg_sys::Relation,
            block: pg_sys::BlockNumber,
            map: *mut pg_sys::Buffer,
        ) -> u8;
        pub fn HeapTupleSatisfiesVisibility(
            tuple: pg_sys::HeapTuple,
            snapshot: pg_sys::Snapshot,
            buffer: pg_sys::Buffer,
        ) -> bool;
    }
}

/// The most line pointers that a page of 32 kB has.
const MOST_ROWS: usize = 1200;
/// What a page begins with, before its line pointers.
const HEADER: usize = 24;
/// Bytes that are mapped at once, and of a cache line.
const MEMORY_PAGE: usize = 4096;
const LINE: usize = 64;
/// Cache lines of a page in which its line pointers mostly lie.
const HEADER_LINES: usize = 5;
const ALL_VISIBLE: u16 = 0x0004;
/// Blocks whose age is asked for at a time: bits of a word.
const BATCH: u32 = 64;
/// Bits of a line pointer: 15 of offset, 2 of flags, 15 of length.
const NORMAL: u32 = 1;

/// Where pages are read from.
#[derive(Clone, Copy)]
struct Source {
    relation: pg_sys::Relation,
    file: compat::RelationFile,
    strategy: pg_sys::BufferAccessStrategy,
    /// The buffer that had the page before: the next one often lies behind it, where it is found without a search.
    last: pg_sys::Buffer,
}

impl Source {
    /// The buffer of a block, pinned.
    ///
    /// # Safety
    /// The relation is open and has the block. Calls the server without a guard.
    #[inline(always)]
    unsafe fn pin(&mut self, block: u32) -> pg_sys::Buffer {
        // SAFETY: the caller's; buffers are numbered from 1 to NBuffers, and one that has another page is not taken.
        unsafe {
            let guess = self.last + 1;
            let main = pg_sys::ForkNumber::MAIN_FORKNUM;
            self.last =
                if guess <= pg_sys::NBuffers && server::ReadRecentBuffer(self.file, main, block, guess) {
                    guess
                } else {
                    server::ReadBufferExtended(
                        self.relation,
                        main,
                        block,
                        pg_sys::ReadBufferMode::RBM_NORMAL,
                        self.strategy,
                    )
                };
            self.last
        }
    }
}

/// A heap that is read under a snapshot, and the page that was read last, which stays pinned.
pub struct Heap {
    source: Source,
    snapshot: pg_sys::Snapshot,
    buffer: pg_sys::Buffer,
    /// A page of the visibility map.
    map: pg_sys::Buffer,
    rows: Box<[pg_sys::HeapTupleHeader; MOST_ROWS]>,
    offsets: Box<[u16; MOST_ROWS]>,
    count: usize,
    /// Where the page ends that was read last, and how far from it the next one lies in memory.
    limit: *const u8,
    to_next: isize,
    /// The block that will be read next, and its buffer, pinned.
    next: (u32, pg_sys::Buffer),
}

impl Heap {
    /// Whether a table is stored as this module reads it.
    ///
    /// # Safety
    /// `relation` is open.
    pub unsafe fn can_read(relation: pg_sys::Relation) -> bool {
        // SAFETY: the caller's.
        unsafe { (*relation).rd_tableam == pg_sys::GetHeapamTableAmRoutine() }
    }

    /// # Safety
    /// `relation` stays open and `snapshot`, an MVCC snapshot, active until the heap is closed.
    pub unsafe fn open(relation: pg_sys::Relation, snapshot: pg_sys::Snapshot, blocks: u32) -> Heap {
        // SAFETY: the caller's. As heap scans do, a large table goes through a ring of buffers.
        unsafe {
            let is_large = blocks > pg_sys::NBuffers as u32 / 4;
            Heap {
                source: Source {
                    relation,
                    file: compat::file_of(relation),
                    strategy: if is_large {
                        pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD)
                    } else {
                        null_mut()
                    },
                    last: pg_sys::InvalidBuffer as pg_sys::Buffer,
                },
                snapshot,
                buffer: pg_sys::InvalidBuffer as pg_sys::Buffer,
                map: pg_sys::InvalidBuffer as pg_sys::Buffer,
                rows: Box::new([null_mut(); MOST_ROWS]),
                offsets: Box::new([0; MOST_ROWS]),
                count: 0,
                limit: std::ptr::null(),
                to_next: 0,
                next: (0, pg_sys::InvalidBuffer as pg_sys::Buffer),
            }
        }
    }

    pub fn close(self) {
        // SAFETY: all are pinned by this heap, if any.
        unsafe {
            for buffer in [self.buffer, self.next.1, self.map] {
                if buffer != pg_sys::InvalidBuffer as pg_sys::Buffer {
                    pg_sys::ReleaseBuffer(buffer);
                }
            }
            if !self.source.strategy.is_null() {
                pg_sys::FreeAccessStrategy(self.source.strategy);
            }
        }
    }

    /// Reads a page; the rows on it that the snapshot sees are in [`Heap::rows`] until the next one is read. `next` is the
    /// block that will be read after it, if any.
    pub fn read(&mut self, block: u32, next: Option<u32>) {
        pgrx::check_for_interrupts!();
        self.count = 0;
        let old = std::mem::take(&mut self.buffer);
        let (expected, ahead) = std::mem::take(&mut self.next);
        let (source, snapshot): (*mut Source, _) = (&mut self.source, self.snapshot);
        let (rows, offsets) = (self.rows.as_mut_ptr(), self.offsets.as_mut_ptr());
        // SAFETY: the closure has no destructors, so that an error of the server may leave it. Rows are looked at while the page is
        // locked, and stay where they are while it is pinned.
        let (buffer, count, ahead) = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                release(old);
                let buffer = if ahead != 0 && expected == block {
                    ahead
                } else {
                    release(ahead);
                    (*source).pin(block)
                };
                server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as c_int);
                let count = visible((*source).relation, snapshot, buffer, block, rows, offsets);
                server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as c_int);
                let ahead = next.map_or(0, |next| (*source).pin(next));
                (buffer, count, ahead)
            })
        };
        self.buffer = buffer;
        self.count = count;
        self.next = (next.unwrap_or(0), ahead);
        // SAFETY: the buffers are pinned.
        unsafe {
            let here = page(buffer);
            let there = if ahead == 0 { here } else { page(ahead) };
            self.limit = here.add(pg_sys::BLCKSZ as usize);
            self.to_next = there.offset_from(here);
            // Where this process meets memory for the first time, what only asks for it is not heard.
            for place in (0..pg_sys::BLCKSZ as usize).step_by(MEMORY_PAGE) {
                std::hint::black_box(there.add(place).read_volatile());
            }
            for line in 0..HEADER_LINES {
                prefetch(there.wrapping_add(LINE * line));
            }
        }
    }

    /// Asks for what lies on the next page where this row lies on its own: from the rows of a page nearly all of the next one is
    /// asked for, early enough.
    #[inline(always)]
    pub fn ask_for_next(&self, row: pg_sys::HeapTupleHeader) {
        let there = row.cast::<u8>().cast_const().wrapping_offset(self.to_next);
        prefetch(there);
        prefetch(there.wrapping_add(LINE));
    }

    /// The end of the page read last.
    pub fn limit(&self) -> *const u8 {
        self.limit
    }

    /// The rows of the page read last.
    pub fn rows(&self) -> &[pg_sys::HeapTupleHeader] {
        &self.rows[..self.count]
    }

    /// Their item numbers on the page.
    pub fn offsets(&self) -> &[u16] {
        &self.offsets[..self.count]
    }

    /// Whether no row of the blocks can be another one than when the log was written up to `lsn`, a place that is settled: every
    /// transaction that had logged anything before it had ended before the snapshot that `lsn` belongs to.
    pub fn is_unchanged_since(&mut self, blocks: Range<u32>, lsn: u64) -> bool {
        let mut first = blocks.start;
        while first < blocks.end {
            pgrx::check_for_interrupts!();
            let end = first.saturating_add(BATCH).min(blocks.end);
            let source: *mut Source = &mut self.source;
            let map: *mut pg_sys::Buffer = &mut self.map;
            // SAFETY: as in `read`; the map's page stays pinned until another one is, or the heap is closed.
            let unchanged = unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    let told = told_by_map((*source).relation, first, end, map, lsn);
                    (first..end)
                        .all(|block| told & 1 << (block - first) != 0 || page_lsn(source, block) <= lsn)
                })
            };
            if !unchanged {
                return false;
            }
            first = end;
        }
        true
    }
}

/// The blocks from `first` of which the visibility map says so, without a look at them: all their rows are visible to everybody now,
/// and no bit of this page of the map was set after `lsn`, so that theirs were set then and never cleared.
///
/// # Safety
/// The relation is open; `map` is a pinned page of its map, or none. Calls the server without a guard.
unsafe fn told_by_map(
    relation: pg_sys::Relation,
    first: u32,
    end: u32,
    map: *mut pg_sys::Buffer,
    lsn: u64,
) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let mut told = 0u64;
        let mut of = pg_sys::InvalidBuffer as pg_sys::Buffer;
        for block in first..end {
            let status = server::visibilitymap_get_status(relation, block, map);
            if *map == pg_sys::InvalidBuffer as pg_sys::Buffer {
                break;
            }
            if block == first {
                of = *map;
            } else if of != *map {
                break;
            }
            if status & pg_sys::VISIBILITYMAP_ALL_VISIBLE as u8 != 0 {
                told |= 1 << (block - first);
            }
        }
        // The bits were read before this: one that was set meanwhile shows here.
        if told == 0 || of != *map || locked_lsn(of) > lsn {
            return 0;
        }
        told
    }
}

/// # Safety
/// `buffer` is pinned, or none. Calls the server without a guard.
unsafe fn release(buffer: pg_sys::Buffer) {
    if buffer != pg_sys::InvalidBuffer as pg_sys::Buffer {
        // SAFETY: the caller's.
        unsafe { server::ReleaseBuffer(buffer) };
    }
}

/// # Safety
/// As for [`told_by_map`].
unsafe fn page_lsn(source: *mut Source, block: u32) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let buffer = (*source).pin(block);
        let lsn = locked_lsn(buffer);
        server::ReleaseBuffer(buffer);
        lsn
    }
}

/// # Safety
/// `buffer` is pinned. Calls the server without a guard.
unsafe fn locked_lsn(buffer: pg_sys::Buffer) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as c_int);
        let lsn = lsn_of(page(buffer));
        server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as c_int);
        lsn
    }
}

/// # Safety
/// `buffer` is a pinned shared buffer.
unsafe fn page(buffer: pg_sys::Buffer) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe {
        pg_sys::BufferBlocks
            .cast::<u8>()
            .add((buffer as usize - 1) * pg_sys::BLCKSZ as usize)
    }
}

/// # Safety
/// `page` is locked.
unsafe fn lsn_of(page: *mut u8) -> u64 {
    // SAFETY: a page begins with its LSN, high half first.
    unsafe {
        let halves = page.cast::<u32>();
        u64::from(*halves) << 32 | u64::from(*halves.add(1))
    }
}

/// Finds the rows of a page that the snapshot sees.
///
/// # Safety
/// The buffer is locked; `rows` and `offsets` have room for MOST_ROWS. Calls the server without a guard.
unsafe fn visible(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    buffer: pg_sys::Buffer,
    block: u32,
    rows: *mut pg_sys::HeapTupleHeader,
    offsets: *mut u16,
) -> usize {
    // SAFETY: line pointers lie behind the header, up to `pd_lower`; a normal one points at a tuple within the page.
    unsafe {
        let page = page(buffer);
        let flags = page.add(10).cast::<u16>().read();
        let lower = usize::from(page.add(12).cast::<u16>().read());
        let items = (lower.saturating_sub(HEADER) / 4).min(MOST_ROWS);
        let all_visible = flags & ALL_VISIBLE != 0 && !(*snapshot).takenDuringRecovery;
        let oldest = (*snapshot).xmin.into_inner();
        let mut count = 0;
        for item in 0..items {
            let pointer = page.add(HEADER).cast::<u32>().add(item).read();
            if pointer >> 15 & 3 != NORMAL {
                continue;
            }
            let tuple = page
                .add((pointer & 0x7FFF) as usize)
                .cast::<pg_sys::HeapTupleHeaderData>();
            if !all_visible && !is_settled(tuple, oldest) {
                let mut row = pg_sys::HeapTupleData {
                    t_len: pointer >> 17,
                    t_self: pg_sys::ItemPointerData {
                        ip_blkid: pg_sys::BlockIdData {
                            bi_hi: (block >> 16) as u16,
                            bi_lo: block as u16,
                        },
                        ip_posid: item as u16 + 1,
                    },
                    t_tableOid: (*relation).rd_id,
                    t_data: tuple,
                };
                if !server::HeapTupleSatisfiesVisibility(&mut row, snapshot, buffer) {
                    continue;
                }
            }
            *rows.add(count) = tuple;
            *offsets.add(count) = item as u16 + 1;
            count += 1;
        }
        count
    }
}

/// Whether the hints on a tuple say that every snapshot with this `xmin` sees it: the first answer of
/// `HeapTupleSatisfiesMVCC`, without a call.
///
/// # Safety
/// `tuple` is on a locked page.
#[inline(always)]
unsafe fn is_settled(tuple: pg_sys::HeapTupleHeader, oldest: u32) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let mask = u32::from((*tuple).t_infomask);
        let wanted = pg_sys::HEAP_XMIN_COMMITTED | pg_sys::HEAP_XMAX_INVALID;
        mask & wanted == wanted
            && (mask & pg_sys::HEAP_XMIN_FROZEN == pg_sys::HEAP_XMIN_FROZEN
                || precedes((*tuple).t_choice.t_heap.t_xmin.into_inner(), oldest))
    }
}

/// Asks for memory that will be read soon.
#[inline(always)]
fn prefetch(memory: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(memory.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = memory;
}

/// `TransactionIdPrecedes`.
#[inline(always)]
pub fn precedes(a: u32, b: u32) -> bool {
    let first_normal = pg_sys::FirstNormalTransactionId.into_inner();
    if a < first_normal || b < first_normal {
        return a < b;
    }
    (a.wrapping_sub(b) as i32) < 0
}
