//! Proof that both sides of a pair hold the same rows, in one snapshot, while applications write.
//!
//! `counts` and `checksum` read both heaps once and tell each legacy row to the partition that it belongs to;
//! `rows` also compares row by row. See docs/architecture.md, "Parity".
#![allow(unsafe_code)]

pub mod diff;
pub mod digest;

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::pair::{Pair, store};
use crate::sync::rows::convert;
use crate::sync::side::{Side, Slot};
use crate::{session, spi};
use digest::{Digester, Tally};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde_json::json;
use std::collections::HashMap;
use std::ptr::null_mut;
use std::str::FromStr;
use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// Compares both sides and records the result: a pass unlocks routing, a failure locks it again.
pub fn verify(relation: Oid, level: Level) -> Result<Vec<Verdict>> {
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
    lock(&pair)?;
    let verdicts = under_newest_snapshot(|| compare(&pair, level))?;
    record(&pair, level, &verdicts, started)?;
    Ok(verdicts)
}

fn compare(pair: &Pair, level: Level) -> Result<Vec<Verdict>> {
    let owner = load::owner(pair.legacy)?;
    let mut verdicts = session::as_user(owner, || scan(pair, level))?;
    if level == Level::Rows {
        for (partition, rows) in diff::count_by_partition(pair)? {
            match verdicts.iter_mut().find(|v| v.partition == partition) {
                Some(verdict) => verdict.different = rows,
                None => return Err(Error::Internal("a row is in no partition of the twin".into())),
            }
        }
    }
    Ok(verdicts)
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

/// Reads both sides under the active snapshot.
fn scan(pair: &Pair, level: Level) -> Result<Vec<Verdict>> {
    let partitions: Vec<Oid> = load::partitions(pair.twin)?
        .into_iter()
        .filter(|p| p.is_leaf)
        .map(|p| p.oid.into())
        .collect();
    let mut legacy: HashMap<Oid, Tally> = HashMap::new();
    let mut twin: HashMap<Oid, Tally> = HashMap::new();
    let mut routing = Side::open_for_reading(pair.twin)?;
    // SAFETY: relations and slots opened here are closed here; the map is for these two formats.
    unsafe {
        let relation = pg_sys::table_open(pair.legacy, pg_sys::AccessShareLock as i32);
        let map = pg_sys::convert_tuples_by_name((*relation).rd_att, routing.tuple_desc());
        let as_twin = routing.new_slot();
        let mut digester = (level > Level::Counts).then(|| Digester::new((*relation).rd_att));
        // Rows next to each other often belong to one partition: its tally is at hand.
        let mut current = (Oid::INVALID, Tally::default());
        each_row(relation, |row| {
            let leaf = routing.locate(convert(map, row, as_twin))?;
            let partition = (*leaf.relation()).rd_id;
            if partition != current.0 {
                legacy.entry(current.0).or_default().merge(current.1);
                current = (partition, Tally::default());
            }
            current
                .1
                .add(digester.as_mut().map(|d| d.row(row)).unwrap_or_default());
            routing.end_row();
            Ok(())
        })?;
        legacy.entry(current.0).or_default().merge(current.1);
        if let Some(digester) = digester {
            digester.close();
        }
        pg_sys::ExecDropSingleTupleTableSlot(as_twin);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        for partition in &partitions {
            let relation = pg_sys::table_open(*partition, pg_sys::AccessShareLock as i32);
            let mut digester = (level > Level::Counts).then(|| Digester::new((*relation).rd_att));
            let tally = twin.entry(*partition).or_default();
            each_row(relation, |row| {
                tally.add(digester.as_mut().map(|d| d.row(row)).unwrap_or_default());
                Ok(())
            })?;
            if let Some(digester) = digester {
                digester.close();
            }
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
        }
    }
    routing.close();
    Ok(partitions
        .into_iter()
        .map(|partition| Verdict {
            partition,
            legacy: legacy.get(&partition).copied().unwrap_or_default(),
            twin: twin.get(&partition).copied().unwrap_or_default(),
            different: 0,
        })
        .collect())
}

/// Calls `body` for each row that the active snapshot sees.
///
/// # Safety
/// `relation` is open.
pub unsafe fn each_row(relation: pg_sys::Relation, mut body: impl FnMut(Slot) -> Result<()>) -> Result<()> {
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

/// Rows of a table, with all its partitions, in the active snapshot.
pub fn count_rows(table: Oid) -> Result<i64> {
    let mut rows = 0;
    for leaf in load::leaves(table)? {
        // SAFETY: opened and closed here.
        unsafe {
            let relation = pg_sys::table_open(leaf, pg_sys::AccessShareLock as i32);
            each_row(relation, |_| {
                rows += 1;
                Ok(())
            })?;
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
        }
    }
    Ok(rows)
}

fn record(pair: &Pair, level: Level, verdicts: &[Verdict], started: Instant) -> Result<()> {
    // SAFETY: plain reads.
    if unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() } {
        return Ok(()); // a standby or a read-only transaction can look, not remember
    }
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
             WHERE id = $1",
            &[pair.id.into(), passed.into(), level.as_str().into()],
        )
    })?;
    store::announce(pair.legacy);
    store::log_run(
        &store::display_name(pair.legacy)?,
        "verify",
        if passed { "PASSED" } else { "FAILED" },
        json!({
            "level": level.as_str(),
            "seconds": started.elapsed().as_secs_f64(),
            "legacy_rows": legacy.rows, "twin_rows": twin.rows,
            "legacy_checksum": legacy.checksum(), "twin_checksum": twin.checksum(),
            "partitions_that_differ": verdicts.iter().filter(|v| !v.matches()).count(),
        }),
    )
}
