//! The stages that go through the twin's partitions: indexes before the flip, statistics and foreign keys after it.

use super::state::{CopyState, Done, Stage};
use super::tasks::{self, Task};
use super::{Share, courtesy, log, twin_locks};
use crate::catalog::{TableDef, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::locks::{self, LockMode};
use crate::pair::{Pair, store};
use crate::plan::carry_ddl::{self, table::NextCheck};
use crate::plan::{Plan, dress, foreign_keys, indexes};
use crate::session::PinnedSettings;
use crate::sync::{actions, triggers};
use crate::{spi, worker};
use pgrx::pg_sys::Oid;
use serde_json::json;
use std::time::Instant;

/// The partition of a task; `None` when it is gone from the twin.
fn leaf_of(pair: &Pair, task: Task) -> Result<Option<TableDef>> {
    if !load::is_leaf_of(task.relation(), pair.twin)? {
        return Ok(None);
    }
    load::table_def(task.relation()).map(Some)
}

/// Builds what is missing on the next partitions that nobody is at. Each locks only itself.
pub fn index(pair: &Pair, state: &mut CopyState) -> Result<Share> {
    let claimed = tasks::claim_leaves(pair.id, Stage::Index)?;
    if claimed.is_empty() {
        return Ok(Share::Nothing);
    }
    let legacy = load::table_def(pair.legacy)?;
    let wanted = indexes::of_twin(&legacy, &pair.partition_key);
    // Where several processes build indexes, each has its own to build; and writers want a processor, too.
    let _alone = (worker::processes() > 1 || courtesy::others_write())
        .then(|| PinnedSettings::new(&[(c"max_parallel_maintenance_workers", "0")]));
    for task in &claimed {
        let Some(leaf) = leaf_of(pair, *task)? else {
            continue;
        };
        let missing: Vec<_> = indexes::missing(&wanted, &leaf.indexes)
            .into_iter()
            .cloned()
            .collect();
        let started = Instant::now();
        execute::run(&indexes::create(&missing, &leaf.name), Mode::Run)?;
        dress_leaf(pair, &legacy, task.relation())?;
        courtesy::rest_after(started.elapsed());
    }
    let done = Done {
        parts: claimed.len() as u32,
        ..Done::default()
    };
    state.count(pair, &done)?;
    Ok(Share::Done)
}

/// What the indexes of a partition are given when they are there.
fn dress_leaf(pair: &Pair, legacy: &TableDef, partition: Oid) -> Result<()> {
    if !dress::has_targets(legacy) && legacy.replica_identity != "i" {
        return Ok(());
    }
    let leaf = load::table_def(partition)?;
    let mut plan = dress::targets(legacy, &leaf, true, &pair.partition_key);
    plan.extend(dress::identity(legacy, &leaf, &pair.partition_key));
    execute::run(&plan, Mode::Run)
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

/// The root takes in what its partitions have, and the twin gets the triggers that it will need.
pub fn index_root(pair: &Pair, state: &mut CopyState) -> Result<()> {
    let legacy = settled(pair)?;
    let wanted = indexes::of_twin(&legacy, &pair.partition_key);
    locks::acquire(&twin_locks(pair)?)?;
    let twin = load::table_def(pair.twin)?;
    let missing: Vec<_> = indexes::missing(&wanted, &twin.indexes)
        .into_iter()
        .cloned()
        .collect();
    execute::run(&indexes::create(&missing, &twin.name), Mode::Run)?;
    let twin = load::table_def(pair.twin)?;
    let mut dressed = dress::follow(&legacy, &twin, &pair.partition_key);
    dressed.extend(dress::identity(&legacy, &twin, &pair.partition_key));
    execute::run(&dressed, Mode::Run)?;
    triggers::install_ahead(pair)?;
    state.stage = Stage::Drain;
    state.next_block = 0;
    store::log_run(
        &legacy.name.to_string(),
        "backfill",
        "INDEXED",
        json!({ "indexes": wanted.len() }),
    )
}

/// Adds or proves one CHECK constraint that could not be in force while rows were copied; false when there is none.
pub fn settle_check(pair: &Pair, legacy: &TableDef, twin: &TableDef) -> Result<bool> {
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

/// What could not be there during the copy: statistics, and foreign keys, one partition at a time.
pub fn finish(pair: &Pair, state: &mut CopyState) -> Result<()> {
    let legacy = load::table_def(pair.legacy)?;
    if state.next_block == 0 {
        return analyze(pair, state, &legacy);
    }
    if let Some(task) = tasks::claim(pair.id, Stage::Finish)? {
        let done = match leaf_of(pair, task)? {
            Some(leaf) => next_foreign_key(&legacy, &leaf, pair.twin)?,
            None => true,
        };
        if done {
            state.next_block += 1;
            return Ok(());
        }
        return tasks::give_back(pair.id, task);
    }
    let legacy = settled(pair)?;
    // A key that was added meanwhile is proven partition by partition too.
    for partition in load::partitions(pair.twin)?.iter().filter(|p| p.is_leaf) {
        if foreign_keys::next_on_leaf(&legacy, &load::table_def(partition.oid.into())?).is_some() {
            tasks::list_leaves(pair)?;
            state.next_block = 1;
            return Ok(());
        }
    }
    let twin = load::table_def(pair.twin)?;
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

/// In a transaction of its own: it reads for long, and the locks of the keys are for moments.
fn analyze(pair: &Pair, state: &mut CopyState, legacy: &TableDef) -> Result<()> {
    log::drop_all(pair)?;
    let twin = load::table_def(pair.twin)?;
    // What was added while rows were copied could not be proven then. Neither this nor ANALYZE keeps writers out.
    if settle_check(pair, legacy, &twin)? {
        return Ok(());
    }
    let mut analyze = Plan::default();
    analyze.push("analyze the twin", format!("ANALYZE {}", twin.name));
    execute::run(&analyze, Mode::Run)?;
    if foreign_keys::carried(legacy).next().is_some() {
        tasks::list_leaves(pair)?;
    }
    state.next_block = 1;
    Ok(())
}

/// The next thing to do on a partition; true when there was none.
fn next_foreign_key(legacy: &TableDef, leaf: &TableDef, twin: Oid) -> Result<bool> {
    let Some(next) = foreign_keys::next_on_leaf(legacy, leaf) else {
        return Ok(true);
    };
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
        actions::leave_to_legacy(twin)?;
    }
    Ok(false)
}
