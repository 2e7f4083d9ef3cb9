//! From `copying` to `live`, in steps that each are one transaction: copy block ranges into partitions without an
//! index, build the indexes, drain the change log, flip, then add what had to wait. Each step commits together
//! with where it got to, so that any of them may be the last before a crash: the next call goes on from there.

pub mod copy;
mod courtesy;
pub mod drain;
mod flip;
mod leaves;
pub mod log;
pub mod report;
pub mod state;
mod tasks;

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::locks::{self, LockMode};
use crate::pair::{Pair, Phase, store};
use crate::plan::{foreign_keys, indexes};
use crate::session;
use crate::switchover::snapshots;
use crate::sync::{actions, pair_cache, triggers};
use crate::{spi, worker};
use pgrx::pg_sys::Oid;
use serde_json::json;
use state::{CopyState, Done, Stage};
use std::time::{Duration, Instant};

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
    let mut wanted = vec![(pair.legacy, LockMode::ShareRowExclusive)];
    wanted.extend(twin_locks(&pair)?);
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
        log::create(&pair)?;
        triggers::install_capture(&pair)?;
        store::set_phase(&pair, Phase::Copying)?;
        store::log_run(&legacy_name, "start_sync", "CAPTURE", json!({}))?;
    } else {
        triggers::install_ahead(&pair)?;
        triggers::flip_to_live(&pair)?;
        store::set_phase(&pair, Phase::Live)?;
        let legacy = load::table_def(pair.legacy)?;
        let twin = load::table_def(pair.twin)?;
        execute::run(&foreign_keys::on_root(&legacy, &twin.name), Mode::Run)?;
        actions::leave_to_legacy(pair.twin)?;
        while leaves::settle_check(&pair, &legacy, &load::table_def(pair.twin)?)? {}
        // A snapshot that still sees rows which are gone would not see them on the twin.
        CopyState::insert(&pair, Stage::Done, &copy::Origin::now(pair.legacy), 0)?;
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
    let pair = store::get_to_lead(relation, "backfill")?;
    if pair.phase != Phase::Copying && pair.phase != Phase::Live {
        require_phase(&pair, Phase::Copying, "backfill")?;
    }
    let Some(mut state) = CopyState::load(&pair)? else {
        require_phase(&pair, Phase::Copying, "backfill")?;
        begin(&pair)?;
        return Ok(Progress::More);
    };
    if state.stage == Stage::Copy && !pause.is_zero() {
        locks::sleep(pause);
    }
    match state.stage {
        Stage::Copy | Stage::Index => lead(&pair, &mut state, batch_rows as u64)?,
        Stage::Drain => flip::drain(&pair, &mut state, batch_rows as u64)?,
        Stage::Flip => flip::flip(&pair, &mut state)?,
        Stage::Finish => {
            snapshots::note_end_of_copy(&pair)?; // the flip has committed
            leaves::finish(&pair, &mut state)?;
        }
        Stage::Done => return Ok(Progress::Finished),
    }
    if !matches!(state.stage, Stage::Copy | Stage::Index) {
        state.save(&pair)?;
    }
    report::progress(&pair, &state)?;
    Ok(Progress::More)
}

/// What became of a try to do a task of a stage that several processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Done,
    /// There is no task that nobody is at.
    Nothing,
    /// The legacy has another file than when the copy began.
    Rewritten,
}

/// A step of a stage that workers may share. Who leads also ends the stage: when no task is left, and nobody at one. What
/// a worker gave back, because it failed, is done here, and fails here again where the user sees it.
fn lead(pair: &Pair, state: &mut CopyState, batch_rows: u64) -> Result<()> {
    let share = share(pair, state, batch_rows)?;
    if share == Share::Rewritten {
        store::keep_workers_out(pair)?;
        return restart(pair, state);
    }
    if tasks::are_left(pair)? {
        if share == Share::Nothing {
            store::keep_workers_out(pair)?; // waits for those who are at what is left
        }
        return Ok(());
    }
    store::keep_workers_out(pair)?;
    if tasks::are_left(pair)? {
        return Ok(()); // given back
    }
    let Some(current) = CopyState::load(pair)? else {
        return Err(Error::Internal("the state of the backfill is gone".into()));
    };
    *state = current;
    match state.stage {
        Stage::Copy => end_copy(pair, state)?,
        _ => leaves::index_root(pair, state)?,
    }
    state.save(pair)
}

/// Does the next free task, at most about `batch_rows` rows of it.
fn share(pair: &Pair, state: &mut CopyState, batch_rows: u64) -> Result<Share> {
    match state.stage {
        Stage::Copy => copy_batch(pair, state, batch_rows),
        _ => leaves::index(pair, state),
    }
}

/// What keeps everybody out of the twin, which nobody may use yet.
fn twin_locks(pair: &Pair) -> Result<Vec<(Oid, LockMode)>> {
    let mut wanted = vec![(pair.twin, LockMode::AccessExclusive)];
    for partition in load::partitions(pair.twin)? {
        wanted.push((partition.oid.into(), LockMode::AccessExclusive));
    }
    Ok(wanted)
}

/// What a worker should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// Pause, if the caller asked for pauses, and go on.
    Copied,
    GoOn,
    /// Look again in a moment.
    Wait,
    /// There is nothing to do for workers any more.
    Leave,
}

/// The part of a worker in the backfill of a pair: one transaction. It begins and ends no stage. The caller commits.
pub fn help(pair_id: i32, batch_rows: u64) -> Result<Help> {
    if !store::let_worker_in(pair_id)? {
        return Ok(Help::Wait);
    }
    let Some(pair) = store::by_id(pair_id)? else {
        return Ok(Help::Leave);
    };
    store::require_owner(pair.legacy)?;
    store::require_owner(pair.twin)?;
    session::strangers::as_owner(load::owner(pair.legacy)?, || help_with(&pair, batch_rows))
}

fn help_with(pair: &Pair, batch_rows: u64) -> Result<Help> {
    match CopyState::load(pair)? {
        Some(mut state) if matches!(state.stage, Stage::Copy | Stage::Index) => {
            Ok(match (share(pair, &mut state, batch_rows)?, state.stage) {
                (Share::Done, Stage::Copy) => Help::Copied,
                (Share::Done, _) => Help::GoOn,
                _ => Help::Wait,
            })
        }
        _ => Ok(Help::Leave),
    }
}

/// The pair whose backfill has something to do for workers.
pub fn wants_workers(relation: Oid) -> Result<Option<Pair>> {
    let Some(pair) = store::find(relation)? else {
        return Ok(None);
    };
    let is_shared =
        CopyState::load(&pair)?.is_some_and(|state| matches!(state.stage, Stage::Copy | Stage::Index));
    Ok(is_shared.then_some(pair))
}

/// Fixes what is to be copied, and takes the indexes off the empty twin.
fn begin(pair: &Pair) -> Result<()> {
    store::keep_workers_out(pair)?;
    let legacy = load::table_def(pair.legacy)?;
    locks::acquire(&[(pair.twin, LockMode::AccessExclusive)])?;
    let twin = load::table_def(pair.twin)?;
    let wanted = indexes::of_twin(&legacy, &pair.partition_key);
    execute::run(&indexes::drop_remade(&wanted, &twin), Mode::Run)?;
    let origin = copy::Origin::now(pair.legacy);
    CopyState::insert(pair, Stage::Copy, &origin, legacy.estimated_rows)?;
    tasks::cut_ranges(pair, origin.blocks)?;
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

fn copy_batch(pair: &Pair, state: &mut CopyState, batch_rows: u64) -> Result<Share> {
    let started = Instant::now();
    let Some(first) = tasks::claim(pair.id, Stage::Copy)? else {
        return Ok(Share::Nothing);
    };
    let sync_pair = pair_cache::get(pair.id)?;
    let more = || tasks::claim(pair.id, Stage::Copy);
    let copied = as_owner(pair, || copy::batch(&sync_pair, state, batch_rows, first, more))?;
    if copied.rewritten {
        tasks::give_back(pair.id, first)?;
        return Ok(Share::Rewritten);
    }
    if let Some(rest) = copied.rest {
        tasks::give_back(pair.id, rest)?;
    }
    let done = Done {
        parts: copied.blocks,
        rows: copied.rows,
        logged: copied.logged,
        busy: started.elapsed() / worker::processes(),
    };
    state.count(pair, &done)?;
    Ok(Share::Done)
}

/// VACUUM FULL, CLUSTER, ALTER TABLE or TRUNCATE gave the legacy a new file: block numbers mean nothing any more. What
/// was captured stays valid. Workers are kept out: none of them has copied anything of the new file, since each
/// compares it first, and none is at the old one, whose rewrite waited for its lock.
fn restart(pair: &Pair, state: &mut CopyState) -> Result<()> {
    let twin = load::table_def(pair.twin)?;
    // The owner's triggers fire, as himself.
    session::with_all_rows_of(load::owner(pair.twin)?, || -> Result<()> {
        let _suppressed = crate::sync::frames::Suppressed::new();
        spi::execute(&format!("TRUNCATE {}", twin.name), &[])?;
        Ok(())
    })?;
    let origin = copy::Origin::now(pair.legacy);
    state.restart(&origin);
    tasks::cut_ranges(pair, origin.blocks)?;
    state.save(pair)?;
    store::log_run(
        &store::display_name(pair.legacy)?,
        "backfill",
        "RESTART",
        json!({ "reason": "the table was rewritten", "blocks": origin.blocks }),
    )
}

fn end_copy(pair: &Pair, state: &mut CopyState) -> Result<()> {
    state.stage = Stage::Index;
    state.next_block = 0;
    tasks::list_leaves(pair)?;
    store::log_run(
        &store::display_name(pair.legacy)?,
        "backfill",
        "COPIED",
        json!({ "rows": state.rows_copied, "logged": state.rows_logged }),
    )
}
