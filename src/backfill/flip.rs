//! From the copy to `live`: the drain, until so little is left that writers can wait for the rest, and the flip.

use super::state::{CopyState, Stage};
use super::{as_owner, drain, log};
use crate::error::Result;
use crate::locks::{self, LockMode};
use crate::pair::{Pair, Phase, store};
use crate::sync::{pair_cache, triggers};
use serde_json::json;
use std::time::{Duration, Instant};

/// A log longer than this (in blocks) is set aside before the flip. Reading so many, of dead rows, takes some 10 ms.
const FLIP_LOG_BLOCKS: u32 = 2048;

/// A pass over the log that found fewer keys than this is followed by the flip.
const FLIP_KEYS: u64 = 2000;

/// With writers waiting, the log is drained for so long; then they go on, and the drain too.
const FLIP_DRAIN: Duration = Duration::from_millis(40);

pub fn drain(pair: &Pair, state: &mut CopyState, batch_rows: u64) -> Result<()> {
    let sync_pair = pair_cache::get(pair.id)?;
    let aside = log::aside(pair)?;
    let limit = drain::Limit::keys(batch_rows).resting();
    let drained = as_owner(pair, || drain::batch(&sync_pair, aside, state.next_block, limit))?;
    state.rows_drained += drained.keys;
    state.pass_keys += drained.keys;
    if let Some(block) = drained.next_block {
        state.next_block = block;
        return Ok(());
    }
    state.next_block = 0;
    let found = std::mem::take(&mut state.pass_keys);
    if aside.is_some() {
        return log::drop_aside(pair);
    }
    // Another pass while the log grows faster than a flip could empty it.
    if found < FLIP_KEYS {
        if drained.log_blocks > FLIP_LOG_BLOCKS {
            return log::set_aside(pair);
        }
        state.stage = Stage::Flip;
    }
    Ok(())
}

/// With every writer out: drains the rest and lets live sync take over. The twin's triggers lie ready, so that its
/// partitions, however many, are not touched.
pub fn flip(pair: &Pair, state: &mut CopyState) -> Result<()> {
    let sync_pair = pair_cache::get(pair.id)?;
    // What came since the last pass is drained before writers are asked to wait.
    let before = as_owner(pair, || {
        drain::batch(&sync_pair, None, 0, drain::Limit::keys(FLIP_KEYS))
    })?;
    state.rows_drained += before.keys;
    if before.next_block.is_some() {
        state.stage = Stage::Drain;
        return Ok(());
    }
    locks::acquire(&[(pair.legacy, LockMode::ShareRowExclusive)])?;
    let locked = Instant::now();
    let limit = drain::Limit::until(locked + FLIP_DRAIN);
    let drained = as_owner(pair, || drain::batch(&sync_pair, None, 0, limit))?;
    state.rows_drained += drained.keys;
    if drained.next_block.is_some() {
        state.stage = Stage::Drain; // the lock goes with this transaction
        return Ok(());
    }
    store::set_phase(pair, Phase::Live)?;
    triggers::flip_to_live(pair)?;
    state.stage = Stage::Finish;
    state.next_block = 0;
    let locked_ms = locks::milliseconds(locked);
    store::log_run(
        &store::display_name(pair.legacy)?,
        "backfill",
        "LIVE",
        json!({
            "copied": state.rows_copied,
            "drained": state.rows_drained,
            "drained_under_lock": drained.keys,
            "locked_ms": locked_ms,
        }),
    )
}
