//! Reads both sides of a pair under one snapshot, chunk by chunk, and digests their rows by partition. A chunk is a
//! range of blocks of one heap, and the unit of what is known from before (see [`super::evidence`]) and of what
//! processes share (see [`super::crew`]).
#![allow(unsafe_code)]

use super::digest::Tally;
use super::encode::Digester;
use super::page::{self, Heap};
use super::router::Router;
use super::{Level, each_row};
use crate::calls;
use crate::error::Result;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Bytes of rows that are written down before they are hashed: what fits into the first cache.
const BATCH: usize = 24 << 10;

/// What a verify reads. The same in each process that takes part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    pub level: Level,
    pub twin: u32,
    /// The leaf partitions of the twin: the columns of the legacy's cells, before one for rows that belong to none.
    pub partitions: Vec<u32>,
    /// The legacy, then the partitions.
    pub heaps: Vec<HeapJob>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HeapJob {
    pub relation: u32,
    pub blocks: u32,
    pub chunk_blocks: u32,
    /// Cells a chunk: one, or for the legacy one a partition and one more.
    pub columns: u32,
    pub first_chunk: u32,
    pub first_cell: usize,
    /// Can only be read from end to end, as one chunk.
    pub whole: bool,
    /// What was known before, if it may be believed.
    pub known: Option<Known>,
}

/// What the cells of a heap are from an earlier pass.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Known {
    pub blocks: u32,
    /// All transactions before this one had ended when the pass began.
    pub xmin: u32,
    /// A page that was not changed since this place of the log has the rows that it had then.
    pub lsn: u64,
}

impl HeapJob {
    pub fn chunks(&self) -> u32 {
        if self.whole {
            1
        } else {
            self.blocks.div_ceil(self.chunk_blocks)
        }
    }

    pub fn cells(&self) -> usize {
        self.chunks() as usize * self.columns as usize
    }

    fn blocks_of(&self, chunk: u32) -> Range<u32> {
        let first = chunk * self.chunk_blocks;
        first..first.saturating_add(self.chunk_blocks).min(self.blocks)
    }
}

impl Job {
    pub fn chunks(&self) -> usize {
        self.heaps.iter().map(|h| h.chunks() as usize).sum()
    }

    pub fn cells(&self) -> usize {
        self.heaps.iter().map(HeapJob::cells).sum()
    }

    pub fn blocks(&self) -> u64 {
        self.heaps.iter().map(|heap| u64::from(heap.blocks)).sum()
    }

    /// Blocks of the chunks before this one.
    fn blocks_before(&self, chunk: u32) -> u64 {
        self.heaps
            .iter()
            .map(|heap| {
                let chunks = chunk.saturating_sub(heap.first_chunk).min(heap.chunks());
                if heap.whole && chunks > 0 {
                    return u64::from(heap.blocks);
                }
                (u64::from(chunks) * u64::from(heap.chunk_blocks)).min(heap.blocks.into())
            })
            .sum()
    }

    fn at(&self, chunk: u32) -> (usize, u32) {
        let heap = self.heaps.partition_point(|h| h.first_chunk <= chunk) - 1;
        (heap, chunk - self.heaps[heap].first_chunk)
    }
}

/// Counters that processes share, in front of a byte a chunk.
#[repr(C)]
#[derive(Default)]
pub struct Board {
    next: AtomicU32,
    unchanged: AtomicU32,
    hashed: AtomicU64,
}

/// The memory that a job is done in, which processes may share: a [`Board`], whether each chunk is done, the cells as they were
/// known before, and as they are.
#[derive(Clone, Copy)]
pub struct Area {
    board: *const Board,
    done: *const AtomicU8,
    known: *mut Tally,
    cells: *mut Tally,
    chunks: usize,
    count: usize,
}

impl Area {
    /// Bytes that a job needs, a multiple of 8.
    pub fn size(job: &Job) -> usize {
        size_of::<Board>() + job.chunks().next_multiple_of(8) + 2 * job.cells() * size_of::<Tally>()
    }

    /// # Safety
    /// `base` is aligned to 8 bytes, and begins [`Area::size`] bytes, zero at first, which outlive the area.
    pub unsafe fn at(base: *mut u8, job: &Job) -> Area {
        let (chunks, count) = (job.chunks(), job.cells());
        // SAFETY: the caller's.
        unsafe {
            let done = base.add(size_of::<Board>());
            let known = done.add(chunks.next_multiple_of(8)).cast::<Tally>();
            Area {
                board: base.cast(),
                done: done.cast(),
                known,
                cells: known.add(count),
                chunks,
                count,
            }
        }
    }

    fn board(&self) -> &Board {
        // SAFETY: the area is valid.
        unsafe { &*self.board }
    }

    fn done(&self) -> &[AtomicU8] {
        // SAFETY: the area is valid.
        unsafe { std::slice::from_raw_parts(self.done, self.chunks) }
    }

    /// The cells as they were known; written before the work begins.
    #[allow(clippy::mut_from_ref)]
    pub fn known(&self) -> &mut [Tally] {
        // SAFETY: the area is valid; nobody writes here while others read.
        unsafe { std::slice::from_raw_parts_mut(self.known, self.count) }
    }

    /// The cells; whoever has claimed a chunk writes those of it, and nobody else.
    #[allow(clippy::mut_from_ref)]
    pub fn cells(&self) -> &mut [Tally] {
        // SAFETY: the area is valid.
        unsafe { std::slice::from_raw_parts_mut(self.cells, self.count) }
    }

    /// Rows that were read and hashed, and chunks that were not.
    pub fn counts(&self) -> (u64, u32) {
        let board = self.board();
        (
            board.hashed.load(Ordering::Relaxed),
            board.unchanged.load(Ordering::Relaxed),
        )
    }

    /// Lets the chunks be done that nobody has done.
    pub fn reopen(&self) {
        self.board().next.store(0, Ordering::SeqCst);
    }

    pub fn is_done(&self) -> bool {
        self.done().iter().all(|done| done.load(Ordering::SeqCst) != 0)
    }

    /// Takes over what was done in another area for the same job.
    pub fn take(&self, other: &Area) {
        self.cells().copy_from_slice(other.cells());
        let (hashed, unchanged) = other.counts();
        self.board().hashed.store(hashed, Ordering::Relaxed);
        self.board().unchanged.store(unchanged, Ordering::Relaxed);
    }
}

/// Does chunks until none is left. Several processes may do so at once.
///
/// # Safety
/// The area is that of the job, and the active snapshot the one that all processes share.
pub unsafe fn work(job: &Job, area: &Area) -> Result<()> {
    let mut reader: Option<Reader> = None;
    let total = job.blocks();
    loop {
        let chunk = area.board().next.fetch_add(1, Ordering::SeqCst);
        if chunk as usize >= area.chunks {
            break;
        }
        if area.done()[chunk as usize].load(Ordering::SeqCst) != 0 {
            continue;
        }
        let (heap, within) = job.at(chunk);
        if reader.as_ref().is_none_or(|r| r.index != heap) {
            if let Some(reader) = reader.take() {
                reader.close();
            }
            // SAFETY: the caller's.
            reader = Some(unsafe { Reader::open(job, heap)? });
        }
        if let Some(reader) = &mut reader {
            reader.chunk(within, area)?;
        }
        area.done()[chunk as usize].store(1, Ordering::SeqCst);
        calls::step(
            calls::Stage::Read,
            job.blocks_before(area.board().next.load(Ordering::Relaxed)),
            total,
        )?;
    }
    if let Some(reader) = reader {
        reader.close();
    }
    Ok(())
}

/// A heap of the job, opened.
pub struct Reader<'a> {
    index: usize,
    job: &'a HeapJob,
    relation: pg_sys::Relation,
    heap: Heap,
    digester: Digester,
    hashes: bool,
    router: Option<Router>,
    batch: Vec<Written>,
    /// Partitions that were found changed so far.
    suspects: Vec<bool>,
}

/// A row that was written down, to be hashed.
struct Written {
    column: u32,
    item: u16,
    /// Where its bytes end.
    end: usize,
}

/// What the ages of a partition's rows in a chunk say.
#[derive(Clone, Copy, Default)]
struct Ages {
    old: i64,
    has_new: bool,
}

impl<'a> Reader<'a> {
    /// # Safety
    /// There is an active snapshot, which stays until the reader is closed.
    pub unsafe fn open(job: &'a Job, index: usize) -> Result<Reader<'a>> {
        let heap = &job.heaps[index];
        // SAFETY: what is opened here is closed by `close`, or by the abort.
        unsafe {
            let relation = pg_sys::table_open(Oid::from(heap.relation), pg_sys::AccessShareLock as i32);
            Ok(Reader {
                index,
                job: heap,
                relation,
                heap: Heap::open(relation, pg_sys::GetActiveSnapshot(), heap.blocks),
                digester: Digester::new((*relation).rd_att)?,
                hashes: job.level > Level::Counts,
                router: if index == 0 {
                    Some(Router::open(relation, Oid::from(job.twin), &job.partitions)?)
                } else {
                    None
                },
                batch: Vec::new(),
                suspects: Vec::new(),
            })
        }
    }

    pub fn close(self) {
        if let Some(router) = self.router {
            router.close();
        }
        self.digester.close();
        self.heap.close();
        // SAFETY: opened by `open`; the lock stays until the transaction ends.
        unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as i32) };
    }

    fn chunk(&mut self, chunk: u32, area: &Area) -> Result<()> {
        let first = self.job.first_cell + chunk as usize * self.job.columns as usize;
        let range = first..first + self.job.columns as usize;
        let cells = &mut area.cells()[range.clone()];
        cells.fill(Tally::default());
        let mut hashed = 0;
        if self.job.whole {
            self.each(|_, column, digest| {
                cells[column].add(digest);
                hashed += 1;
                Ok(())
            })?;
        } else {
            let blocks = self.job.blocks_of(chunk);
            match self.job.known.filter(|known| blocks.start < known.blocks) {
                None => hashed = self.hash(blocks, cells, None)?,
                Some(known) => {
                    let before = &area.known()[range];
                    if self.is_untouched(blocks.clone(), known) {
                        cells.copy_from_slice(before);
                    } else {
                        hashed = self.renew(blocks, known, before, cells)?;
                    }
                }
            }
        }
        let board = area.board();
        board.hashed.fetch_add(hashed, Ordering::Relaxed);
        board
            .unchanged
            .fetch_add(u32::from(hashed == 0), Ordering::Relaxed);
        Ok(())
    }

    /// Whether no page of the blocks was changed since the earlier pass.
    fn is_untouched(&mut self, blocks: Range<u32>, known: Known) -> bool {
        known.lsn > 0 && blocks.end <= known.blocks && self.heap.is_unchanged_since(blocks, known.lsn)
    }

    /// Makes the cells of blocks that were changed, from what they were before where that still holds; gives how many rows it
    /// hashed.
    ///
    /// What a version of a row holds never changes, nor where it lies. One that the snapshot sees, made by a transaction that
    /// had ended before that pass, was seen by that pass. If there are as many of these as there were rows, they are the same
    /// rows; and if there is no younger one, there is nothing else.
    ///
    /// Partitions that were found changed in an earlier chunk are hashed while this is found out, others in a second reading.
    fn renew(
        &mut self,
        blocks: Range<u32>,
        known: Known,
        before: &[Tally],
        cells: &mut [Tally],
    ) -> Result<u64> {
        self.suspects.resize(before.len(), false);
        let mut ages = vec![Ages::default(); before.len()];
        let mut hashed = 0;
        for block in blocks.clone() {
            self.heap
                .read(block, Some(block + 1).filter(|next| blocks.contains(next)));
            let rows = self.heap.rows();
            for tuple in rows {
                self.heap.ask_for_next(*tuple);
                // SAFETY: the row is on the page that is pinned.
                unsafe {
                    let column = match &mut self.router {
                        Some(router) => router.find(*tuple, self.digester.format(), false)? as usize,
                        None => 0,
                    };
                    let xmin = (**tuple).t_choice.t_heap.t_xmin.into_inner();
                    let ages = &mut ages[column];
                    if page::precedes(xmin, known.xmin) {
                        ages.old += 1;
                    } else {
                        ages.has_new = true;
                    }
                    if self.suspects[column] {
                        cells[column].add(if self.hashes {
                            self.digester.row(*tuple, self.heap.limit())
                        } else {
                            0
                        });
                        hashed += 1;
                    }
                }
            }
        }
        let mut missed = vec![false; before.len()];
        for (column, (ages, before)) in ages.iter().zip(before).enumerate() {
            let is_dirty = ages.has_new || ages.old != before.rows;
            if !is_dirty {
                cells[column] = *before;
            } else if !self.suspects[column] {
                missed[column] = true;
            }
            self.suspects[column] |= is_dirty;
        }
        if missed.contains(&true) {
            hashed += self.hash(blocks, cells, Some(&missed))?;
        }
        Ok(hashed)
    }

    /// Adds the rows of the blocks to the cells, of all partitions or of those that are named; gives their number.
    fn hash(&mut self, blocks: Range<u32>, cells: &mut [Tally], of: Option<&[bool]>) -> Result<u64> {
        let mut hashed = 0;
        self.each_of(blocks, of, |_, column, digest| {
            cells[column].add(digest);
            hashed += 1;
            Ok(())
        })?;
        Ok(hashed)
    }

    /// Calls `body` with the place, the column and the digest of each row of the blocks, of all partitions or of those that
    /// are named.
    ///
    /// Rows are written down, many of them, and then hashed: a word that is read back right after its parts were written has
    /// to wait for them.
    #[inline(always)]
    pub fn each_of(
        &mut self,
        blocks: Range<u32>,
        of: Option<&[bool]>,
        mut body: impl FnMut((u32, u16), usize, u128) -> Result<()>,
    ) -> Result<()> {
        for block in blocks.clone() {
            self.heap
                .read(block, Some(block + 1).filter(|next| blocks.contains(next)));
            let mut next = 0;
            while next < self.heap.rows().len() {
                next = self.write(next, of)?;
                let mut start = 0;
                for row in &self.batch {
                    let digest = if self.hashes {
                        self.digester.digest(start..row.end)
                    } else {
                        0
                    };
                    start = row.end;
                    body((block, row.item), row.column as usize, digest)?;
                }
            }
        }
        Ok(())
    }

    /// Writes down a batch of the page's rows from the one with the number `next`; gives the number of the one behind it.
    #[inline(always)]
    fn write(&mut self, mut next: usize, of: Option<&[bool]>) -> Result<usize> {
        self.batch.clear();
        self.digester.clear();
        let mut end = 0;
        let (rows, items, limit) = (self.heap.rows(), self.heap.offsets(), self.heap.limit());
        while next < rows.len() && end < BATCH {
            let (tuple, item) = (rows[next], items[next]);
            next += 1;
            self.heap.ask_for_next(tuple);
            // SAFETY: the row is on the page that is pinned.
            let column = unsafe {
                match (&mut self.router, of) {
                    (None, _) => {
                        if self.hashes {
                            end = self.digester.write(tuple, limit);
                        }
                        0
                    }
                    (Some(router), None) if self.hashes => {
                        end = self.digester.write(tuple, limit);
                        router.find(tuple, self.digester.format(), true)?
                    }
                    (Some(router), _) => {
                        let column = router.find(tuple, self.digester.format(), false)?;
                        if of.is_some_and(|of| !of[column as usize]) {
                            continue;
                        }
                        if self.hashes {
                            end = self.digester.write(tuple, limit);
                        }
                        column
                    }
                }
            };
            self.batch.push(Written { column, item, end });
        }
        Ok(next)
    }

    /// As [`Reader::each_of`] for all rows, through the table's access method, which also tells a serializable transaction's
    /// reads to the server.
    pub fn each(&mut self, mut body: impl FnMut((u32, u16), usize, u128) -> Result<()>) -> Result<()> {
        let (digester, router, hashes) = (&mut self.digester, &mut self.router, self.hashes);
        // SAFETY: the slot's tuple stays until the next row.
        unsafe {
            each_row(self.relation, |slot| {
                let mut should_free = false;
                let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, true, &mut should_free);
                let row = (*tuple).t_data;
                let limit = row.cast::<u8>().add((*tuple).t_len as usize);
                let digest = if hashes { digester.row(row, limit) } else { 0 };
                let column = match router {
                    Some(router) => router.find((*tuple).t_data, digester.format(), false)?,
                    None => 0,
                };
                let place = (*slot).tts_tid;
                let block = u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo);
                body((block, place.ip_posid), column as usize, digest)?;
                if should_free {
                    pg_sys::heap_freetuple(tuple);
                }
                Ok(())
            })
        }
    }

    pub fn blocks(&self) -> Range<u32> {
        0..self.job.blocks
    }

    pub fn is_whole(&self) -> bool {
        self.job.whole
    }
}
