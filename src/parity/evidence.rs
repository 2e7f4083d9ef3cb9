//! What is known from the last pass: the digests of each chunk of each heap, and how to tell that a chunk has the same
//! rows still. Nothing here is a guess. See docs/architecture.md, "Unchanged partitions are known".
//!
//! A mark says: in the snapshot of that pass, before which all transactions older than `xmin` had ended, this file had these rows.
//! It holds for a pass that failed as well: it is about each side alone.
#![allow(unsafe_code)]

use super::digest::{self, Tally};
use super::scan::{Area, HeapJob, Job, Known};
use crate::error::{Error, Result};
use crate::pair::Pair;
use crate::{session, spi};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

/// Of the way rows are digested and cells are kept.
const VERSION: u32 = 2;
/// Further back than this, ids of transactions are not compared.
const MOST_TRANSACTIONS: u64 = 1 << 30;
/// The least length of a chunk in blocks: 1 MB.
const CHUNK_BLOCKS: u32 = 128;
/// Cells that a heap has at most, unless one chunk has more.
const MOST_CELLS: u64 = 1 << 18;

/// A place in the log, and the next transaction at that time: whatever was logged before it was done by transactions older
/// than that one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Moment {
    lsn: u64,
    next: u64,
}

impl Moment {
    /// Now; none during recovery.
    pub fn now() -> Option<Moment> {
        // SAFETY: plain reads of shared memory. The place of the log is read first.
        unsafe {
            if pg_sys::RecoveryInProgress() {
                return None;
            }
            let lsn = pg_sys::GetXLogInsertRecPtr();
            Some(Moment {
                lsn,
                next: pg_sys::ReadNextFullTransactionId().value,
            })
        }
    }

    /// That of the last checkpoint.
    fn of_checkpoint() -> Result<Option<Moment>> {
        session::with_own_tables(|| {
            spi::row(
                "SELECT pg_catalog.jsonb_build_object(
                    'lsn', (c.redo_lsn OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::bigint,
                    'next', pg_catalog.split_part(c.next_xid, ':', 1)::bigint OPERATOR(pg_catalog.*) 4294967296
                            OPERATOR(pg_catalog.+) pg_catalog.split_part(c.next_xid, ':', 2)::bigint)
                 FROM pg_catalog.pg_control_checkpoint() c",
                &[],
            )
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HeapMark {
    pub relation: u32,
    file: u32,
    pub blocks: u32,
    chunk_blocks: u32,
    columns: u32,
    /// Of what the digests depend on besides the rows.
    format: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Mark {
    version: u32,
    pub xmin: u64,
    /// Pages that were not changed since have the same rows.
    lsn: u64,
    /// When the pass began; once its transactions have ended the next pass may go by it.
    moment: Option<Moment>,
    pub heaps: Vec<HeapMark>,
}

/// A heap as it is now.
pub struct Current {
    pub relation: u32,
    pub file: u32,
    pub blocks: u32,
    pub columns: u32,
    pub whole: bool,
    pub format: String,
}

impl Current {
    pub fn format_of(description: &str) -> String {
        format!("{:032x}", digest::of(description.as_bytes()))
    }
}

/// A mark with its cells.
pub struct Before {
    mark: Mark,
    cells: Vec<u8>,
}

/// The oldest transaction that may be running in the active snapshot, in full.
pub fn full_xmin(snapshot: pg_sys::Snapshot) -> u64 {
    // SAFETY: plain reads; a snapshot's xmin is at most 2^31 transactions behind the next one.
    unsafe {
        let next = pg_sys::ReadNextFullTransactionId().value;
        next - u64::from((next as u32).wrapping_sub((*snapshot).xmin.into_inner()))
    }
}

/// The mark that the active snapshot sees: one that it sees is older than it.
pub fn load(pair: &Pair) -> Result<Option<Before>> {
    #[derive(Deserialize)]
    struct Row {
        mark: Mark,
        cells: String,
    }
    let found: Option<Row> = session::with_own_tables(|| {
        spi::rows_in_snapshot(
            "SELECT pg_catalog.jsonb_build_object('mark', heaps, 'cells', pg_catalog.encode(cells, 'hex'))
             FROM partition_router.parity_mark WHERE pair_id = $1",
            &[pair.id.into()],
        )
    })?
    .pop();
    let Some(Row { mark, cells }) = found else {
        return Ok(None);
    };
    // SAFETY: a plain read.
    let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    let is_usable = mark.version == VERSION && next.saturating_sub(mark.xmin) < MOST_TRANSACTIONS;
    Ok(is_usable.then(|| Before {
        mark,
        cells: from_hex(&cells),
    }))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| {
        if c.is_ascii_digit() {
            c - b'0'
        } else {
            c - b'a' + 10
        }
    };
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

/// The place of the log up to which pages are settled for a snapshot with this `xmin`: 0 when none is known.
pub fn settled_lsn(xmin: u64, moment: Option<Moment>, before: Option<&Before>) -> Result<u64> {
    let earlier = before.and_then(|b| b.mark.moment);
    let checkpoint = match moment {
        Some(_) => Moment::of_checkpoint()?,
        None => None,
    };
    let kept = before.map_or(0, |b| b.mark.lsn);
    Ok([moment, checkpoint, earlier]
        .into_iter()
        .flatten()
        .filter(|m| m.next <= xmin)
        .map(|m| m.lsn)
        .fold(kept, u64::max))
}

/// The part of a job that reads these heaps, with what is known of them.
pub fn heap_jobs(heaps: &[Current], before: Option<&Before>) -> Vec<HeapJob> {
    let (mut first_chunk, mut first_cell) = (0, 0);
    heaps
        .iter()
        .map(|heap| {
            let marked = before.and_then(|b| b.find(heap).map(|(mark, _)| (b, mark)));
            let chunk_blocks = marked.map_or_else(
                || chunk_blocks(heap.blocks, heap.columns),
                |(_, mark)| mark.chunk_blocks,
            );
            let job = HeapJob {
                relation: heap.relation,
                blocks: heap.blocks,
                chunk_blocks,
                columns: heap.columns,
                first_chunk,
                first_cell,
                whole: heap.whole,
                known: marked.map(|(before, mark)| Known {
                    blocks: mark.blocks,
                    xmin: before.mark.xmin as u32,
                    lsn: before.mark.lsn,
                }),
            };
            first_chunk += job.chunks();
            first_cell += job.cells();
            job
        })
        .collect()
}

fn chunk_blocks(blocks: u32, columns: u32) -> u32 {
    let fitting = (u64::from(blocks) * u64::from(columns)).div_ceil(MOST_CELLS);
    (fitting as u32).max(CHUNK_BLOCKS).next_power_of_two()
}

impl Before {
    /// What is marked of a heap that has the same file and whose rows would give the same digests, and its first cell.
    fn find(&self, heap: &Current) -> Option<(&HeapMark, usize)> {
        let mut first = 0;
        for mark in &self.mark.heaps {
            let cells = mark.blocks.div_ceil(mark.chunk_blocks) as usize * mark.columns as usize;
            if mark.relation == heap.relation {
                let is_same = mark.file == heap.file
                    && mark.columns == heap.columns
                    && mark.format == heap.format
                    && mark.blocks <= heap.blocks
                    && chunk_blocks(heap.blocks, heap.columns) <= 2 * mark.chunk_blocks
                    && !heap.whole
                    && self.cells.len() >= (first + cells) * Tally::SIZE;
                return is_same.then_some((mark, first));
            }
            first += cells;
        }
        None
    }

    /// Puts the cells that are known into the area of a job that was made with this.
    pub fn fill(&self, heaps: &[Current], job: &Job, area: &Area) -> Result<()> {
        for (heap, part) in heaps.iter().zip(&job.heaps) {
            let Some((mark, first)) = self.find(heap) else {
                continue;
            };
            let cells = mark.blocks.div_ceil(mark.chunk_blocks) as usize * mark.columns as usize;
            let bytes = &self.cells[first * Tally::SIZE..(first + cells) * Tally::SIZE];
            let target = &mut area.known()[part.first_cell..part.first_cell + cells];
            for (cell, bytes) in target.iter_mut().zip(bytes.chunks_exact(Tally::SIZE)) {
                let bytes = bytes.try_into().map_err(|e| Error::Internal(format!("{e}")))?;
                *cell = Tally::from_bytes(bytes);
            }
        }
        Ok(())
    }
}

/// What is to be remembered of a job that is done.
pub fn mark(heaps: &[Current], job: &Job, xmin: u64, lsn: u64, moment: Option<Moment>) -> Mark {
    Mark {
        version: VERSION,
        xmin,
        lsn,
        moment,
        heaps: heaps
            .iter()
            .zip(&job.heaps)
            .map(|(heap, part)| HeapMark {
                relation: heap.relation,
                file: heap.file,
                blocks: if heap.whole { 0 } else { heap.blocks },
                chunk_blocks: part.chunk_blocks,
                columns: heap.columns,
                format: heap.format.clone(),
            })
            .collect(),
    }
}

/// Remembers a mark, with the cells of the job and the differences that were found.
pub fn save(
    pair: &Pair,
    mark: &Mark,
    job: &Job,
    area: &Area,
    found: Option<&[serde_json::Value]>,
) -> Result<()> {
    let mut cells = Vec::with_capacity(job.cells() * Tally::SIZE);
    for part in job.heaps.iter().filter(|part| !part.whole) {
        for cell in &area.cells()[part.first_cell..part.first_cell + part.cells()] {
            cells.extend_from_slice(&cell.to_bytes());
        }
    }
    let mark = pgrx::JsonB(serde_json::to_value(mark)?);
    let found = found.map(|keys| pgrx::JsonB(serde_json::Value::Array(keys.to_vec())));
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.parity_mark (pair_id, heaps, cells, different_keys) VALUES ($1, $2, $3, $4)
             ON CONFLICT (pair_id) DO UPDATE SET marked_at = pg_catalog.clock_timestamp(), heaps = EXCLUDED.heaps,
                 cells = EXCLUDED.cells, different_keys = EXCLUDED.different_keys",
            &[pair.id.into(), mark.into(), cells.into(), found.into()],
        )
    })?;
    Ok(())
}

/// The keys that the last verify found to differ; none when it passed, or found too many to keep.
pub fn different_keys(pair: &Pair) -> Result<Option<Vec<serde_json::Value>>> {
    Ok(session::with_own_tables(|| {
        spi::row::<Option<Vec<serde_json::Value>>>(
            "SELECT COALESCE(different_keys, 'null') FROM partition_router.parity_mark WHERE pair_id = $1",
            &[pair.id.into()],
        )
    })?
    .flatten())
}

/// The differences of the last verify were mended: the next look is at the tables.
pub fn forget_keys(pair: &Pair) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.parity_mark SET different_keys = NULL WHERE pair_id = $1",
            &[pair.id.into()],
        )
    })?;
    Ok(())
}
