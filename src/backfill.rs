//! From `copying` to `live`, in steps that each are one transaction: copy block ranges into partitions without an
//! index, build the indexes, drain the change log, flip, then add what had to wait. Each step commits together
//! with where it got to, so that any of them may be the last before a crash: the next call goes on from there.

pub mod copy;
pub mod drain;
pub mod report;
pub mod state;

use crate::catalog::{TableDef, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::locks::{self, LockMode};
use crate::pair::{Pair, Phase, store};
use crate::plan::Plan;
use crate::plan::carry_ddl::{self, table::NextCheck};
use crate::plan::{foreign_keys, indexes};
use crate::session;
use crate::sync::{actions, pair_cache, triggers};
use crate::{ident::RelName, spi};
use pgrx::pg_sys::Oid;
use serde_json::json;
use state::{CopyState, Stage};
use std::time::Duration;

/// More change log than this (in blocks) is drained before the flip, not under its lock.
const FLIP_LOG_BLOCKS: u32 = 64;

/// A pass over the log that found fewer keys than this is followed by the flip. However small the batches are, or the
/// writers fast, so few are drained under its lock.
const FLIP_KEYS: u64 = 2000;

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    More,
    Finished,
}

/// `start_sync()`: changes of the legacy are captured from now on. An empty legacy goes live at once.
pub fn start_sync(relation: Oid) -> Result<()> {
    let pair = store::get_for_change(relation, "start_sync")?;
    require_phase(&pair, Phase::Prepared, "start sync of")?;
    let mut wanted = flip_locks(&pair)?;
    // An empty table gets its foreign keys at once.
    wanted.extend(
        foreign_keys::carried(&load::table_def(pair.legacy)?)
            .map(|key| (Oid::from(key.references), LockMode::ShareRowExclusive)),
    );
    locks::acquire(&wanted)?;
    if copy::has_rows(pair.twin)? {
        return Err(Error::TwinNotEmpty {
            twin: store::display_name(pair.twin)?,
        });
    }
    let legacy_name = store::display_name(pair.legacy)?;
    if copy::has_rows(pair.legacy)? {
        create_change_log(&pair)?;
        triggers::install_capture(&pair)?;
        store::set_phase(&pair, Phase::Copying)?;
        store::log_run(&legacy_name, "start_sync", "CAPTURE", json!({}))?;
    } else {
        triggers::install_on_bare_partitions(&pair)?;
        triggers::flip_to_live(&pair)?;
        store::set_phase(&pair, Phase::Live)?;
        let legacy = load::table_def(pair.legacy)?;
        let twin = load::table_def(pair.twin)?;
        execute::run(&foreign_keys::on_root(&legacy, &twin.name), Mode::Run)?;
        actions::leave_to_legacy(pair.twin)?;
        while settle_check(&pair, &legacy, &load::table_def(pair.twin)?)? {}
        store::log_run(&legacy_name, "start_sync", "LIVE", json!({ "rows": 0 }))?;
    }
    Ok(())
}

fn require_phase(pair: &Pair, phase: Phase, call: &str) -> Result<()> {
    if pair.phase == phase {
        return Ok(());
    }
    Err(Error::WrongPhase {
        relation: store::display_name(pair.legacy)?,
        phase: pair.phase.to_string(),
        call: call.into(),
        next: pair.phase.next_call().into(),
    })
}

/// Where the backfill of a pair is, under the latest snapshot; `None` before it has begun.
pub fn copy_stage(pair: &Pair) -> Result<Option<Stage>> {
    session::with_own_tables(|| {
        spi::latest_row(
            "SELECT pg_catalog.to_jsonb(stage) FROM partition_router.copy_state WHERE pair_id = $1",
            pair.id,
        )
    })
}

fn log_name(pair: &Pair) -> RelName {
    RelName::new("partition_router", format!("change_log_{}", pair.id))
}

/// The change log: the columns of the twin's key, nothing else. It belongs to the legacy's owner, as whom sync acts.
fn create_change_log(pair: &Pair) -> Result<()> {
    let legacy = load::table_def(pair.legacy)?;
    let mut key = legacy.key_columns();
    if !key.contains(&pair.partition_key) {
        key.push(pair.partition_key.clone());
    }
    let columns: Vec<String> = key
        .iter()
        .filter_map(|name| legacy.column(name.as_str()))
        .map(|column| format!("{} {}", column.name, column.type_name))
        .collect();
    let log = log_name(pair);
    session::with_own_tables(|| {
        spi::execute(&format!("CREATE TABLE {log} ({})", columns.join(", ")), &[])?;
        spi::execute(&format!("ALTER TABLE {log} OWNER TO {}", legacy.owner), &[])
    })?;
    Ok(())
}

pub fn drop_change_log(pair: &Pair) -> Result<()> {
    let log = log_name(pair);
    if load::oid_of(&log)?.is_some() {
        session::with_own_tables(|| spi::execute(&format!("DROP TABLE {log}"), &[]))?;
    }
    Ok(())
}

/// Does the next step of the backfill, at most about `batch_rows` rows of it, and sleeps for `pause` before each batch of
/// the copy. Later stages do not pause: a drain slower than the writers would never end. The caller
/// commits.
pub fn step(relation: Oid, batch_rows: i32, pause: Duration) -> Result<Progress> {
    if batch_rows < 1 {
        return Err(Error::BadArgument {
            argument: "batch_rows".into(),
            reason: format!("{batch_rows} rows were asked for"),
            hint: "Ask for one row or more.".into(),
        });
    }
    let pair = store::get_for_change(relation, "backfill")?;
    if pair.phase != Phase::Copying && pair.phase != Phase::Live {
        require_phase(&pair, Phase::Copying, "backfill")?;
    }
    let Some(mut state) = CopyState::load(&pair)? else {
        if pair.phase == Phase::Live {
            return Ok(Progress::Finished); // it was empty
        }
        begin(&pair)?;
        return Ok(Progress::More);
    };
    if state.stage == Stage::Copy && !pause.is_zero() {
        locks::sleep(pause);
    }
    let started = std::time::Instant::now();
    let stage = state.stage;
    match stage {
        Stage::Copy => copy_batch(&pair, &mut state, batch_rows as u64)?,
        Stage::Index => build_indexes(&pair, &mut state)?,
        Stage::Drain => drain_batch(&pair, &mut state, batch_rows as u64)?,
        Stage::Flip => flip(&pair, &mut state)?,
        Stage::Finish => finish(&pair, &mut state)?,
        Stage::Done => return Ok(Progress::Finished),
    }
    // The rate that `progress` shows is that of the copy.
    let busy = if stage == Stage::Copy {
        started.elapsed()
    } else {
        Duration::ZERO
    };
    state.save(&pair, busy)?;
    report::progress(&pair, &state)?;
    Ok(Progress::More)
}

/// Fixes what is to be copied, and takes the indexes off the empty twin.
fn begin(pair: &Pair) -> Result<()> {
    let legacy = load::table_def(pair.legacy)?;
    locks::acquire(&[(pair.twin, LockMode::AccessExclusive)])?;
    let twin = load::table_def(pair.twin)?;
    let wanted = indexes::of_twin(&legacy, &pair.partition_key);
    execute::run(&indexes::drop_remade(&wanted, &twin), Mode::Run)?;
    let origin = copy::Origin::now(pair.legacy);
    CopyState::insert(pair, &origin, legacy.estimated_rows)?;
    store::log_run(
        &legacy.name.to_string(),
        "backfill",
        "BEGIN",
        json!({ "blocks": origin.blocks, "horizon": origin.horizon.to_string() }),
    )
}

/// Rows are written as the table's owner: hash functions and expressions that a user defined run on the way, whoever
/// calls.
fn as_owner<T>(pair: &Pair, body: impl FnOnce() -> Result<T>) -> Result<T> {
    session::as_user(load::owner(pair.legacy)?, body)
}

fn copy_batch(pair: &Pair, state: &mut CopyState, batch_rows: u64) -> Result<()> {
    let sync_pair = pair_cache::get(pair.id)?;
    let copied = as_owner(pair, || copy::batch(&sync_pair, state, batch_rows))?;
    if copied.rewritten {
        // VACUUM FULL, CLUSTER, ALTER TABLE or TRUNCATE gave the legacy a new file: block numbers mean nothing
        // any more. What was captured stays valid.
        let twin = load::table_def(pair.twin)?;
        session::with_own_tables(|| -> Result<()> {
            let _suppressed = crate::sync::frames::Suppressed::new();
            spi::execute(&format!("TRUNCATE {}", twin.name), &[])?;
            Ok(())
        })?;
        let origin = copy::Origin::now(pair.legacy);
        state.restart(&origin);
        return store::log_run(
            &store::display_name(pair.legacy)?,
            "backfill",
            "RESTART",
            json!({ "reason": "the table was rewritten", "blocks": origin.blocks }),
        );
    }
    state.rows_copied += copied.rows;
    state.rows_logged += copied.logged;
    state.next_block = copied.next_block;
    if state.next_block >= state.blocks {
        state.stage = Stage::Index;
        state.next_block = 0;
        store::log_run(
            &store::display_name(pair.legacy)?,
            "backfill",
            "COPIED",
            json!({ "rows": state.rows_copied, "logged": state.rows_logged }),
        )?;
    }
    Ok(())
}

/// The leaf partition at a position of the stages that go through them one by one; `None` behind the last.
fn leaf_at(pair: &Pair, position: u32) -> Result<Option<TableDef>> {
    let partitions = load::partitions(pair.twin)?;
    match partitions.iter().filter(|p| p.is_leaf).nth(position as usize) {
        Some(leaf) => load::table_def(leaf.oid.into()).map(Some),
        None => Ok(None),
    }
}

/// The legacy as it is when nobody is changing its indexes or foreign keys: whoever comes later finds the backfill past
/// that stage, and carries the change. ROW EXCLUSIVE is what writers take.
fn settled(pair: &Pair) -> Result<TableDef> {
    spi::execute(
        &format!(
            "LOCK TABLE {} IN ROW EXCLUSIVE MODE",
            store::display_name(pair.legacy)?
        ),
        &[],
    )?;
    load::latest_table_def(pair.legacy)?.ok_or_else(|| Error::UnknownRelation {
        oid: pair.legacy.to_u32(),
    })
}

/// Builds what is missing on the next partition, at last on the root, which takes in what its partitions have.
fn build_indexes(pair: &Pair, state: &mut CopyState) -> Result<()> {
    let legacy = load::table_def(pair.legacy)?;
    let wanted = indexes::of_twin(&legacy, &pair.partition_key);
    if let Some(leaf) = leaf_at(pair, state.next_block)? {
        let missing: Vec<_> = indexes::missing(&wanted, &leaf.indexes)
            .into_iter()
            .cloned()
            .collect();
        execute::run(&indexes::create(&missing, &leaf.name), Mode::Run)?;
        state.next_block += 1;
        return Ok(());
    }
    let legacy = settled(pair)?;
    let wanted = indexes::of_twin(&legacy, &pair.partition_key);
    let twin = load::table_def(pair.twin)?;
    let missing: Vec<_> = indexes::missing(&wanted, &twin.indexes)
        .into_iter()
        .cloned()
        .collect();
    execute::run(&indexes::create(&missing, &twin.name), Mode::Run)?;
    triggers::install_on_bare_partitions(pair)?; // such as came by hand meanwhile
    state.stage = Stage::Drain;
    state.next_block = 0;
    store::log_run(
        &legacy.name.to_string(),
        "backfill",
        "INDEXED",
        json!({ "indexes": wanted.len() }),
    )
}

fn drain_batch(pair: &Pair, state: &mut CopyState, batch_rows: u64) -> Result<()> {
    let sync_pair = pair_cache::get(pair.id)?;
    let drained = as_owner(pair, || drain::batch(&sync_pair, state.next_block, batch_rows))?;
    state.rows_drained += drained.keys;
    state.pass_keys += drained.keys;
    match drained.next_block {
        Some(block) => state.next_block = block,
        None => {
            state.next_block = 0;
            // Another pass while the log grows faster than a flip could empty it.
            if state.pass_keys < FLIP_KEYS {
                if drained.log_blocks > FLIP_LOG_BLOCKS {
                    state.rows_drained += compact_log(pair)?;
                }
                state.stage = Stage::Flip;
            }
            state.pass_keys = 0;
        }
    }
    Ok(())
}

/// Empties a log that is long but holds little, so that the flip need not read it under its lock.
fn compact_log(pair: &Pair) -> Result<u64> {
    let sync_pair = pair_cache::get(pair.id)?;
    let Some(log) = sync_pair.log else { return Ok(0) };
    locks::acquire(&[(log, LockMode::AccessExclusive)])?;
    let drained = as_owner(pair, || drain::batch(&sync_pair, 0, u64::MAX))?;
    session::with_own_tables(|| spi::execute(&format!("TRUNCATE {}", log_name(pair)), &[]))?;
    Ok(drained.keys)
}

/// What keeps writers out of the legacy, and everybody out of the twin, which nobody may use yet.
fn flip_locks(pair: &Pair) -> Result<Vec<(Oid, LockMode)>> {
    let mut wanted = vec![
        (pair.legacy, LockMode::ShareRowExclusive),
        (pair.twin, LockMode::AccessExclusive),
    ];
    for partition in load::partitions(pair.twin)? {
        wanted.push((partition.oid.into(), LockMode::AccessExclusive));
    }
    Ok(wanted)
}

/// With every writer out: drains the rest and lets live sync take over.
fn flip(pair: &Pair, state: &mut CopyState) -> Result<()> {
    locks::acquire(&flip_locks(pair)?)?;
    let sync_pair = pair_cache::get(pair.id)?;
    if drain::log_blocks(&sync_pair)? > FLIP_LOG_BLOCKS {
        state.stage = Stage::Drain; // the locks go with this transaction
        return Ok(());
    }
    let drained = as_owner(pair, || drain::batch(&sync_pair, 0, u64::MAX))?;
    state.rows_drained += drained.keys;
    triggers::flip_to_live(pair)?;
    drop_change_log(pair)?;
    store::set_phase(pair, Phase::Live)?;
    state.stage = Stage::Finish;
    state.next_block = 0;
    store::log_run(
        &store::display_name(pair.legacy)?,
        "backfill",
        "LIVE",
        json!({ "copied": state.rows_copied, "drained": state.rows_drained, "drained_under_lock": drained.keys }),
    )
}

/// Adds or proves one CHECK constraint that could not be in force while rows were copied; false when there is none.
fn settle_check(pair: &Pair, legacy: &TableDef, twin: &TableDef) -> Result<bool> {
    match carry_ddl::table::next_check(legacy, twin) {
        None => return Ok(false),
        Some(NextCheck::Prove(plan)) => execute::run(&plan, Mode::Run)?,
        Some(NextCheck::Add(plan)) => {
            let mut wanted = vec![(pair.twin, LockMode::AccessExclusive)];
            for partition in load::partitions(pair.twin)? {
                wanted.push((partition.oid.into(), LockMode::AccessExclusive));
            }
            locks::acquire(&wanted)?;
            execute::run(&plan, Mode::Run)?;
        }
    }
    Ok(true)
}

/// Statistics, and foreign keys, one partition at a time: what could not be there during the copy.
fn finish(pair: &Pair, state: &mut CopyState) -> Result<()> {
    let legacy = load::table_def(pair.legacy)?;
    let twin = load::table_def(pair.twin)?;
    let Some(position) = state.next_block.checked_sub(1) else {
        // What was added while rows were copied could not be proven then. Neither this nor ANALYZE keeps writers out.
        if settle_check(pair, &legacy, &twin)? {
            return Ok(());
        }
        // In a transaction of its own: it reads for long, and the locks of the keys are for moments.
        let mut analyze = Plan::default();
        analyze.push("analyze the twin", format!("ANALYZE {}", twin.name));
        execute::run(&analyze, Mode::Run)?;
        state.next_block = 1;
        return Ok(());
    };
    if let Some(leaf) = leaf_at(pair, position)? {
        match foreign_keys::next_on_leaf(&legacy, &leaf) {
            Some(next) => {
                if !next.lock.is_empty() {
                    let mut wanted: Vec<_> = next
                        .lock
                        .iter()
                        .map(|oid| (Oid::from(*oid), LockMode::ShareRowExclusive))
                        .collect();
                    wanted.push((leaf.oid.into(), LockMode::ShareRowExclusive));
                    locks::acquire(&wanted)?;
                }
                execute::run(&next.plan, Mode::Run)?;
                if !next.lock.is_empty() {
                    actions::leave_to_legacy(pair.twin)?;
                }
            }
            None => state.next_block += 1,
        }
        return Ok(());
    }
    let legacy = settled(pair)?;
    // A key that was added meanwhile is proven partition by partition too.
    for partition in load::partitions(pair.twin)?.iter().filter(|p| p.is_leaf) {
        if foreign_keys::next_on_leaf(&legacy, &load::table_def(partition.oid.into())?).is_some() {
            state.next_block = 1;
            return Ok(());
        }
    }
    let root = foreign_keys::on_root_missing(&legacy, &twin);
    if !root.steps.is_empty() {
        // Taking in a partition's key drops the triggers that it has on the table that it points at, and that needs
        // ACCESS EXCLUSIVE: asked for first and within the budget, not on the way.
        let mut wanted: Vec<(Oid, LockMode)> = foreign_keys::carried(&legacy)
            .map(|key| (Oid::from(key.references), LockMode::AccessExclusive))
            .collect();
        wanted.push((pair.twin, LockMode::ShareRowExclusive));
        for partition in load::partitions(pair.twin)? {
            wanted.push((partition.oid.into(), LockMode::ShareRowExclusive));
        }
        locks::acquire(&wanted)?;
        execute::run(&root, Mode::Run)?;
        actions::leave_to_legacy(pair.twin)?;
    }
    state.stage = Stage::Done;
    store::log_run(
        &legacy.name.to_string(),
        "backfill",
        "FINISHED",
        json!({ "rows": state.rows_copied }),
    )
}
