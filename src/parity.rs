//! Proof that both sides of a pair hold the same rows, in one snapshot, while applications write.
//!
//! `counts` and `checksum` read both heaps once and tell each legacy row to the partition that it belongs to;
//! `rows` also compares row by row. See docs/architecture.md, "Parity".
#![allow(unsafe_code)]

mod codec;
pub mod crew;
pub mod diff;
pub mod digest;
pub mod encode;
mod evidence;
mod layout;
mod locate;
mod out;
mod page;
mod places;
pub mod repair;
mod router;
mod scan;
mod sorter;

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::pair::{Pair, store};
use crate::sync::side::Slot;
use crate::worker::Leader;
use crate::{calls, session, spi};
use digest::Tally;
use encode::Format;
use evidence::{Current, Moment};
use page::Heap;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use scan::{Area, Job};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ptr::null_mut;
use std::str::FromStr;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    Counts,
    Checksum,
    Rows,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Counts => "counts",
            Level::Checksum => "checksum",
            Level::Rows => "rows",
        }
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Level> {
        [Level::Counts, Level::Checksum, Level::Rows]
            .into_iter()
            .find(|l| l.as_str() == text)
            .ok_or_else(|| Error::BadArgument {
                argument: "level".into(),
                reason: format!("there is no level \"{text}\""),
                hint: "Use counts, checksum or rows.".into(),
            })
    }
}

/// One partition of the twin, and the legacy rows that belong to it.
#[derive(Debug)]
pub struct Verdict {
    pub partition: Oid,
    pub legacy: Tally,
    pub twin: Tally,
    /// Rows that differ; counted at level `rows` only.
    pub different: i64,
}

impl Verdict {
    pub fn matches(&self) -> bool {
        self.legacy == self.twin && self.different == 0
    }
}

/// Whether what is known from the last pass is made use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Only what may have changed is read.
    Changed,
    Full,
}

/// Compares both sides and records the result: a pass unlocks routing, a failure locks it again.
pub fn verify(relation: Oid, level: Level, extent: Extent) -> Result<Vec<Verdict>> {
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    if !pair.phase.is_in_step() {
        return Err(Error::WrongPhase {
            relation: store::display_name(pair.legacy)?,
            phase: pair.phase.to_string(),
            call: "verify".into(),
            next: pair.phase.next_call().into(),
        });
    }
    let started = Instant::now();
    let _during = calls::during(calls::Call::Verify, pair.legacy);
    lock(&pair)?;
    let moment = Moment::now();
    under_newest_snapshot(|| {
        let look = look(&pair, level, extent, moment)?;
        if level > Level::Counts && !look.fallbacks.is_empty() {
            pgrx::notice!(
                "{}: digested by the output functions of their types: {}",
                store::display_name(pair.legacy)?,
                look.fallbacks.join(", ")
            );
        }
        let mut verdicts = look.verdicts(&pair);
        if level == Level::Rows {
            for (partition, rows) in diff::count_by_partition(&pair)? {
                match verdicts.iter_mut().find(|v| v.partition == partition) {
                    Some(verdict) => verdict.different = rows,
                    None => return Err(Error::Internal("a row is in no partition of the twin".into())),
                }
            }
        }
        let scanned = started.elapsed();
        if can_record() {
            let found = locate::keys(&pair, &look, &verdicts)?;
            let keys = found
                .as_ref()
                .filter(|found| found.complete)
                .map(|found| found.keys.as_slice());
            look.remember(&pair, keys)?;
            record(
                &pair,
                level,
                extent,
                &verdicts,
                &look,
                scanned,
                keys.map(<[_]>::len),
            )?;
        } else {
            pgrx::notice!(
                "{}: this verify is not recorded: nothing can be written here",
                store::display_name(pair.legacy)?
            );
        }
        Ok(verdicts)
    })
}

/// Both sides as one snapshot sees them.
pub struct Look {
    job: Job,
    heaps: Vec<Current>,
    area: Area,
    /// What `area` lies in, when it is this process's own.
    _memory: Vec<u64>,
    xmin: u64,
    lsn: u64,
    moment: Option<Moment>,
    fallbacks: Vec<String>,
    processes: u32,
}

/// Digests both sides under the active snapshot, as their owner.
fn look(pair: &Pair, level: Level, extent: Extent, moment: Option<Moment>) -> Result<Look> {
    let owner = load::owner(pair.legacy)?;
    // SAFETY: the caller pushed a snapshot, or the statement has one.
    let xmin = evidence::full_xmin(unsafe { pg_sys::GetActiveSnapshot() });
    let marked = evidence::load(pair)?;
    let lsn = evidence::settled_lsn(xmin, moment, marked.as_ref())?;
    let before = marked.filter(|_| extent == Extent::Changed);
    let leader = Leader::this();
    session::as_user(owner, || {
        let (heaps, partitions, fallbacks) = heaps(pair)?;
        let job = Job {
            level,
            twin: pair.twin.to_u32(),
            partitions,
            heaps: evidence::heap_jobs(&heaps, before.as_ref()),
        };
        let mut memory = vec![0u64; Area::size(&job).div_ceil(8)];
        // SAFETY: the memory goes with the look, which the area is used through.
        let area = unsafe { Area::at(memory.as_mut_ptr().cast(), &job) };
        if let Some(before) = &before {
            before.fill(&heaps, &job, &area)?;
        }
        let pinned = !fallbacks.is_empty();
        let _settings = pinned.then(pinned_output);
        // SAFETY: the area is that of the job.
        let (job, processes) = unsafe { crew::work(job, &area, leader, owner, pinned)? };
        Ok(Look {
            job,
            heaps,
            area,
            _memory: memory,
            xmin,
            lsn,
            moment,
            fallbacks,
            processes,
        })
    })
}

/// Blocks of both sides together that are looked at anew rather than told from the last verify: 64 MB.
const SMALL: i64 = 8192;

fn is_large(pair: &Pair) -> Result<bool> {
    let blocks: Option<i64> = spi::row(
        "SELECT pg_catalog.to_jsonb((COALESCE(pg_catalog.sum(pg_catalog.pg_relation_size(x.oid)), 0)
                / pg_catalog.current_setting('block_size')::int)::bigint)
         FROM (SELECT t.relid::oid AS oid FROM pg_catalog.pg_partition_tree($2) t UNION SELECT $1::oid) x",
        &[pair.legacy.into(), pair.twin.into()],
    )?;
    Ok(blocks.is_some_and(|blocks| blocks > SMALL))
}

/// What send and output functions of types that are not known could depend on.
pub fn pinned_output() -> session::PinnedSettings {
    // SAFETY: the name of an encoding is a static string of the server.
    let encoding = unsafe { std::ffi::CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) };
    let encoding = encoding.to_string_lossy();
    session::PinnedSettings::new(&[
        (c"client_encoding", &encoding),
        (c"datestyle", "ISO, MDY"),
        (c"intervalstyle", "postgres"),
        (c"timezone", "UTC"),
        (c"extra_float_digits", "1"),
        (c"bytea_output", "hex"),
        (c"lc_monetary", "C"),
    ])
}

/// The heaps of both sides as they are now, the legacy first; the leaf partitions; and the columns whose types have no
/// known canonical form.
fn heaps(pair: &Pair) -> Result<(Vec<Current>, Vec<u32>, Vec<String>)> {
    let partitions: Vec<u32> = load::partitions(pair.twin)?
        .into_iter()
        .filter(|p| p.is_leaf)
        .map(|p| p.oid)
        .collect();
    let bounds: Vec<Value> = spi::rows(
        "SELECT pg_catalog.jsonb_build_array(c.oid::bigint, pg_catalog.pg_get_expr(c.relpartbound, c.oid),
                                             pg_catalog.pg_get_partkeydef(c.oid))
         FROM pg_catalog.pg_partition_tree($1) t JOIN pg_catalog.pg_class c ON c.oid = t.relid ORDER BY c.oid",
        &[pair.twin.into()],
    )?;
    let mut heaps = Vec::with_capacity(partitions.len() + 1);
    let mut fallbacks = Vec::new();
    for relation in std::iter::once(pair.legacy.to_u32()).chain(partitions.iter().copied()) {
        let is_legacy = heaps.is_empty();
        // SAFETY: opened and closed here. In a serializable transaction the server must hear of what is read, as it does from the
        // table's own scan.
        unsafe {
            let table = pg_sys::table_open(Oid::from(relation), pg_sys::AccessShareLock as i32);
            let format = Format::of((*table).rd_att)?;
            let mut description = format.description().to_owned();
            let mut columns = 1;
            if is_legacy {
                description += &serde_json::to_string(&(&bounds, &partitions))?;
                columns = partitions.len() as u32 + 1;
                fallbacks = format.fallbacks().to_vec();
            }
            let whole = !Heap::can_read(table) || pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32;
            heaps.push(Current {
                relation,
                file: (*(*table).rd_rel).relfilenode.to_u32(),
                blocks: pg_sys::RelationGetNumberOfBlocksInFork(table, pg_sys::ForkNumber::MAIN_FORKNUM),
                columns,
                whole,
                format: Current::format_of(&description),
            });
            pg_sys::table_close(table, pg_sys::NoLock as i32);
        }
    }
    Ok((heaps, partitions, fallbacks))
}

impl Look {
    /// The sums of each partition, and of rows of the legacy that belong to none, if there are any.
    fn verdicts(&self, pair: &Pair) -> Vec<Verdict> {
        let columns = self.job.partitions.len() + 1;
        let mut legacy = vec![Tally::default(); columns];
        let cells = self.area.cells();
        if self.job.level == Level::Counts {
            // Those that are known from before have a sum, those that were counted have none.
            cells.iter_mut().for_each(|cell| *cell = cell.counted());
        }
        let of = |heap: &scan::HeapJob| &cells[heap.first_cell..heap.first_cell + heap.cells()];
        for row in of(&self.job.heaps[0]).chunks_exact(columns) {
            for (sum, cell) in legacy.iter_mut().zip(row) {
                sum.merge(*cell);
            }
        }
        let mut verdicts: Vec<Verdict> = self.job.heaps[1..]
            .iter()
            .zip(&legacy)
            .map(|(heap, legacy)| {
                let mut twin = Tally::default();
                of(heap).iter().for_each(|cell| twin.merge(*cell));
                Verdict {
                    partition: Oid::from(heap.relation),
                    legacy: *legacy,
                    twin,
                    different: 0,
                }
            })
            .collect();
        if legacy[columns - 1].rows > 0 {
            verdicts.push(Verdict {
                partition: pair.twin,
                legacy: legacy[columns - 1],
                twin: Tally::default(),
                different: 0,
            });
        }
        verdicts
    }

    /// Keeps what the next pass may go by. Numbers of rows alone are not worth it.
    fn remember(&self, pair: &Pair, keys: Option<&[Value]>) -> Result<()> {
        if self.job.level == Level::Counts {
            return Ok(());
        }
        let mark = evidence::mark(&self.heaps, &self.job, self.xmin, self.lsn, self.moment);
        evidence::save(pair, &mark, &self.job, &self.area, keys)
    }
}

/// Keeps TRUNCATE out of both sides, against which no snapshot helps.
fn lock(pair: &Pair) -> Result<()> {
    for table in std::iter::once(pair.legacy).chain(load::leaves(pair.twin)?) {
        // SAFETY: a lock that the transaction holds to its end.
        unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessShareLock as i32) };
    }
    Ok(())
}

/// Runs `body` under a snapshot taken now, in READ COMMITTED: that of the statement is older than its locks, so that it
/// would see the rows of one side only where the other was emptied meanwhile by TRUNCATE.
fn under_newest_snapshot<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: plain reads; the snapshot is pushed and popped here. An error that unwinds leaves it to the abort.
    unsafe {
        if pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 {
            return body();
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let outcome = body();
        pg_sys::PopActiveSnapshot();
        outcome
    }
}

/// Calls `body` for each row that the active snapshot sees.
///
/// # Safety
/// `relation` is open.
pub unsafe fn each_row(relation: pg_sys::Relation, mut body: impl FnMut(Slot) -> Result<()>) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let snapshot = pg_sys::GetActiveSnapshot();
        let scan = pg_sys::table_beginscan_strat(relation, snapshot, 0, null_mut(), true, true);
        let slot = pg_sys::table_slot_create(relation, null_mut());
        while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            pgrx::check_for_interrupts!();
            body(slot)?;
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::table_endscan(scan);
    }
    Ok(())
}

/// Rows of tables that hold rows themselves, in the active snapshot. Each is locked only while it is read: there may be more than the
/// lock table holds. One that was dropped meanwhile has none.
pub fn count_rows(tables: &[u32]) -> Result<i64> {
    let mut rows = 0;
    for table in tables {
        // SAFETY: opened and closed here.
        unsafe {
            let relation = pg_sys::try_relation_open(Oid::from(*table), pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                continue;
            }
            each_row(relation, |_| {
                rows += 1;
                Ok(())
            })?;
            pg_sys::relation_close(relation, pg_sys::AccessShareLock as i32);
        }
    }
    Ok(rows)
}

/// A standby or a read-only transaction can look, not remember.
fn can_record() -> bool {
    crate::compat::read_only().is_none()
}

/// The active snapshot as `pg_snapshot` prints it.
fn snapshot_text(xmin: u64) -> String {
    // SAFETY: the arrays of a snapshot are as long as it says.
    unsafe {
        let snapshot = &*pg_sys::GetActiveSnapshot();
        let full = |xid: u32| xmin + u64::from(xid.wrapping_sub(xmin as u32));
        // Without any the array is null.
        let mut running: Vec<u64> = (0..snapshot.xcnt as usize)
            .map(|i| full((*snapshot.xip.add(i)).into_inner()))
            .collect();
        running.sort_unstable();
        let running: Vec<String> = running.iter().map(u64::to_string).collect();
        format!(
            "{xmin}:{}:{}",
            full(snapshot.xmax.into_inner()),
            running.join(",")
        )
    }
}

/// Partitions that a line of `run_log` tells one by one; of more, those that differ.
const TOLD_PARTITIONS: usize = 1_000;

/// Each partition by its name, the rows of both sides, and whether they match.
fn by_partition(verdicts: &[Verdict]) -> Result<Vec<(String, i64, i64, bool)>> {
    let are_few = verdicts.len() <= TOLD_PARTITIONS;
    verdicts
        .iter()
        .filter(|verdict| are_few || !verdict.matches())
        .take(TOLD_PARTITIONS)
        .map(|verdict| {
            let name = load::rel_name(verdict.partition)?;
            let name = name
                .map(|name| name.name.as_str().to_string())
                .unwrap_or_default();
            Ok((name, verdict.legacy.rows, verdict.twin.rows, verdict.matches()))
        })
        .collect()
}

/// Notes what a proof found. What one refuted, equal counts do not take back: they see no value.
fn record(
    pair: &Pair,
    level: Level,
    extent: Extent,
    verdicts: &[Verdict],
    look: &Look,
    scanned: Duration,
    different_keys: Option<usize>,
) -> Result<()> {
    let passed = verdicts.iter().all(Verdict::matches);
    let total = |side: fn(&Verdict) -> Tally| {
        verdicts
            .iter()
            .map(side)
            .fold(Tally::default(), |mut sum, tally| {
                sum.merge(tally);
                sum
            })
    };
    let (legacy, twin) = (total(|v| v.legacy), total(|v| v.twin));
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.pair
             SET verified_at = CASE WHEN $2 THEN pg_catalog.clock_timestamp() END,
                 verified_level = CASE WHEN $2 THEN $3 END,
                 refuted_at = CASE WHEN NOT $2 THEN pg_catalog.clock_timestamp() END
             WHERE id = $1 AND NOT ($2 AND $3 = 'counts' AND refuted_at IS NOT NULL)",
            &[pair.id.into(), passed.into(), level.as_str().into()],
        )
    })?;
    store::announce(pair.legacy);
    let checksum = |tally: Tally| (level > Level::Counts).then(|| tally.checksum());
    let (hashed, unchanged) = look.area.counts();
    store::log_run(
        &store::display_name(pair.legacy)?,
        "verify",
        if passed { "PASSED" } else { "FAILED" },
        json!({
            "level": level.as_str(),
            "full": extent == Extent::Full,
            "snapshot": snapshot_text(look.xmin),
            "seconds": scanned.as_secs_f64(),
            "processes": look.processes,
            "legacy_rows": legacy.rows, "twin_rows": twin.rows,
            "legacy_checksum": checksum(legacy), "twin_checksum": checksum(twin),
            "rows_read": hashed,
            "chunks": look.job.chunks(), "chunks_unchanged": unchanged,
            "partitions_that_differ": verdicts.iter().filter(|v| !v.matches()).count(),
            "different_keys": different_keys,
            "by_partition": by_partition(verdicts)?,
            "compared_by_type_functions": look.fallbacks,
        }),
    )
}
