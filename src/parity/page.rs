//! Reads a heap page by page, as a sequential scan does, but hands out the page with its place and age: which rows a
//! snapshot sees on it, and when it was changed last.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::c_int;
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
        pub fn LockBuffer(buffer: pg_sys::Buffer, mode: c_int);
        pub fn ReleaseBuffer(buffer: pg_sys::Buffer);
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
const ALL_VISIBLE: u16 = 0x0004;
/// Bits of a line pointer: 15 of offset, 2 of flags, 15 of length.
const NORMAL: u32 = 1;

/// A heap that is read under a snapshot, and the page that was read last, which stays pinned.
pub struct Heap {
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    strategy: pg_sys::BufferAccessStrategy,
    buffer: pg_sys::Buffer,
    /// A page of the visibility map.
    map: pg_sys::Buffer,
    rows: Box<[pg_sys::HeapTupleHeader; MOST_ROWS]>,
    offsets: Box<[u16; MOST_ROWS]>,
    count: usize,
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
                relation,
                snapshot,
                strategy: if is_large {
                    pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD)
                } else {
                    null_mut()
                },
                buffer: pg_sys::InvalidBuffer as pg_sys::Buffer,
                map: pg_sys::InvalidBuffer as pg_sys::Buffer,
                rows: Box::new([null_mut(); MOST_ROWS]),
                offsets: Box::new([0; MOST_ROWS]),
                count: 0,
            }
        }
    }

    pub fn close(mut self) {
        // SAFETY: both are pinned by this heap, if any.
        unsafe {
            self.release();
            if self.map != pg_sys::InvalidBuffer as pg_sys::Buffer {
                pg_sys::ReleaseBuffer(self.map);
            }
            if !self.strategy.is_null() {
                pg_sys::FreeAccessStrategy(self.strategy);
            }
        }
    }

    unsafe fn release(&mut self) {
        if self.buffer != pg_sys::InvalidBuffer as pg_sys::Buffer {
            // SAFETY: pinned by this heap.
            unsafe { pg_sys::ReleaseBuffer(self.buffer) };
            self.buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
        }
    }

    /// Reads a page; the rows on it that the snapshot sees are in [`Heap::rows`] until the next one is read.
    pub fn read(&mut self, block: u32) {
        pgrx::check_for_interrupts!();
        self.count = 0;
        let old = std::mem::take(&mut self.buffer);
        let (relation, snapshot, strategy) = (self.relation, self.snapshot, self.strategy);
        let (rows, offsets) = (self.rows.as_mut_ptr(), self.offsets.as_mut_ptr());
        // SAFETY: the closure has no destructors, so that an error of the server may leave it. Rows are looked at while the page is
        // locked, and stay where they are while it is pinned.
        let (buffer, count) = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                if old != 0 {
                    server::ReleaseBuffer(old);
                }
                let buffer = server::ReadBufferExtended(
                    relation,
                    pg_sys::ForkNumber::MAIN_FORKNUM,
                    block,
                    pg_sys::ReadBufferMode::RBM_NORMAL,
                    strategy,
                );
                server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as c_int);
                let count = visible(relation, snapshot, buffer, block, rows, offsets);
                server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as c_int);
                (buffer, count)
            })
        };
        self.buffer = buffer;
        self.count = count;
    }

    /// The rows of the page read last.
    pub fn rows(&self) -> &[pg_sys::HeapTupleHeader] {
        &self.rows[..self.count]
    }

    /// Their item numbers on the page.
    pub fn offsets(&self) -> &[u16] {
        &self.offsets[..self.count]
    }

    /// Whether nothing on the page can have changed since the log was written up to `lsn`, which every transaction that had written
    /// to the page before has outlived by ending before the snapshot that this is compared with.
    pub fn is_unchanged_since(&mut self, block: u32, lsn: u64) -> bool {
        pgrx::check_for_interrupts!();
        if self.map_says_unchanged(block, lsn) {
            return true;
        }
        let (relation, strategy) = (self.relation, self.strategy);
        // SAFETY: as in `read`.
        let changed = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let buffer = server::ReadBufferExtended(
                    relation,
                    pg_sys::ForkNumber::MAIN_FORKNUM,
                    block,
                    pg_sys::ReadBufferMode::RBM_NORMAL,
                    strategy,
                );
                server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as c_int);
                let changed = lsn_of(page(buffer));
                server::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as c_int);
                server::ReleaseBuffer(buffer);
                changed
            })
        };
        changed <= lsn
    }

    /// Whether the visibility map says so, without a look at the page: all its rows are visible to everybody now, and no
    /// such bit of this page of the map was set after `lsn`, so that this one was set then and never cleared.
    fn map_says_unchanged(&mut self, block: u32, lsn: u64) -> bool {
        // SAFETY: the map's page is pinned by this heap until another one is, or the heap is closed.
        unsafe {
            let status = pg_sys::visibilitymap_get_status(self.relation, block, &mut self.map);
            if status & pg_sys::VISIBILITYMAP_ALL_VISIBLE as u8 == 0
                || self.map == pg_sys::InvalidBuffer as pg_sys::Buffer
            {
                return false;
            }
            let map = self.map;
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                server::LockBuffer(map, pg_sys::BUFFER_LOCK_SHARE as c_int);
                let changed = lsn_of(page(map));
                server::LockBuffer(map, pg_sys::BUFFER_LOCK_UNLOCK as c_int);
                changed <= lsn
            })
        }
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

/// `TransactionIdPrecedes`.
#[inline(always)]
pub fn precedes(a: u32, b: u32) -> bool {
    let first_normal = pg_sys::FirstNormalTransactionId.into_inner();
    if a < first_normal || b < first_normal {
        return a < b;
    }
    (a.wrapping_sub(b) as i32) < 0
}
