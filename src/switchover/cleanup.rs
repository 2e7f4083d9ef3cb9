//! The end of a migration: sync goes off and the legacy is dropped, or kept as a table of its own. There is no way back, so the
//! sides are proven equal first, and nothing is dropped that somebody else still refers to.

use super::{in_the_way, log, prove, required_name, say};
use crate::catalog::{dependents, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::locks::{self, LockMode};
use crate::pair::{Pair, Phase, store};
use crate::plan::Plan;
use crate::plan::sync_triggers::{self, Place};
use crate::session::{self, PinnedSettings};
use crate::{backfill, ddl, spi};
use pgrx::pg_sys::Oid;
use serde_json::json;

/// What becomes of the legacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    Kept,
}

impl Fate {
    pub fn of_operation(operation: &str) -> Option<Fate> {
        match operation {
            "cleanup" => Some(Fate::Dropped),
            "cleanup, legacy kept" => Some(Fate::Kept),
            _ => None,
        }
    }
}

/// The steps of the end, in the order in which they are run.
struct End {
    locks: Vec<(Oid, LockMode)>,
    /// Run with the extension's rights: its triggers, and those of foreign keys.
    sync_off: Plan,
    /// Run as the caller.
    rest: Plan,
}

/// Goes through one stage; the caller commits. Gives false: no stage has to be gone through again.
pub fn step(relation: Oid, stage: &str) -> Result<bool> {
    session::require_read_committed("cleanup")?;
    let fate = match stage {
        "PRE-FLIGHT" => {
            let pair = require_switched(relation)?;
            require_possible(&pair, Fate::Kept)?;
            prove(&pair, "cleanup", stage)?;
            return Ok(false);
        }
        "DROP" => Fate::Dropped,
        "KEEP" => Fate::Kept,
        _ => return Err(Error::Internal(format!("no stage {stage}"))),
    };
    let pair = store::get_for_change(relation, "cleanup")?;
    let pair = require_switched(pair.twin)?;
    end(&pair, fate)?;
    Ok(false)
}

fn require_switched(relation: Oid) -> Result<Pair> {
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    store::require_owner(pair.twin)?;
    if pair.phase == Phase::Switched {
        return Ok(pair);
    }
    Err(Error::WrongPhase {
        relation: store::display_name(pair.legacy)?,
        phase: pair.phase.to_string(),
        call: "clean up".into(),
        next: pair.phase.next_call().into(),
    })
}

/// # Errors
/// `PR021` when something refers to the legacy that is to be dropped; `PR020` for a prepared transaction.
fn require_possible(pair: &Pair, fate: Fate) -> Result<()> {
    in_the_way::require_no_prepared(pair)?;
    if fate == Fate::Kept {
        return Ok(());
    }
    let refers = dependents::load(pair.legacy, pair.twin)?;
    let mut objects: Vec<String> = refers
        .followers
        .iter()
        .map(|follower| format!("{} {}", follower.kind, follower.name))
        .chain(refers.lost)
        .chain(
            refers
                .publications
                .iter()
                .map(|p| format!("publication {}", p.name)),
        )
        .chain(refers.sequences.iter().map(|s| format!("sequence {}", s.name)))
        .collect();
    let legacy = load::table_def(pair.legacy)?;
    let keys = legacy.referenced_by.iter();
    objects.extend(keys.map(|key| format!("foreign key {} of {}", key.name, key.relation)));
    if objects.is_empty() {
        return Ok(());
    }
    Err(Error::WouldBeLost {
        relation: legacy.name.to_string(),
        objects,
    })
}

fn end_of(pair: &Pair, fate: Fate) -> Result<End> {
    let (legacy, twin) = (required_name(pair.legacy)?, required_name(pair.twin)?);
    let on_twin = sync_triggers::name_on_twin(&pair.base_name);
    let partitions = ddl::pairs::partitions(pair.twin)?;
    let mut locks = vec![
        (pair.twin, LockMode::AccessExclusive),
        (pair.legacy, LockMode::AccessExclusive),
    ];
    let mut sync_off = sync_triggers::uninstall(&twin, &on_twin, Place::Side);
    for partition in &partitions {
        locks.push((partition.oid.into(), LockMode::AccessExclusive));
        sync_off.extend(sync_triggers::uninstall(
            &partition.name,
            &on_twin,
            Place::Partition,
        ));
    }
    let on_legacy = sync_triggers::name_on_legacy(&pair.base_name);
    sync_off.extend(sync_triggers::uninstall(&legacy, &on_legacy, Place::Side));
    let mode = match fate {
        Fate::Dropped => LockMode::AccessExclusive,
        Fate::Kept => LockMode::ShareRowExclusive,
    };
    let mut rest = Plan::default();
    let refers = dependents::load(pair.legacy, pair.twin)?;
    for action in &refers.actions {
        if locks.iter().all(|(oid, _)| oid.to_u32() != action.oid) {
            locks.push((action.oid.into(), mode));
        }
        if fate == Fate::Kept && !action.enabled {
            sync_off.push(
                "let the foreign keys of the table that is kept act again",
                format!("ALTER TABLE {} ENABLE TRIGGER {}", action.table, action.trigger),
            );
        }
    }
    if fate == Fate::Dropped {
        rest.push("drop the legacy", format!("DROP TABLE {legacy}"));
    }
    Ok(End {
        locks,
        sync_off,
        rest,
    })
}

fn end(pair: &Pair, fate: Fate) -> Result<()> {
    if pair.verified_at.is_none() {
        return Err(Error::NotEqual {
            relation: store::display_name(pair.twin)?,
            partitions: 0,
            rows: 0,
        });
    }
    finish(pair, fate)
}

/// Drops a legacy that was never more than a copy, unproven: for an unpartition that is cancelled.
pub fn let_go(pair: &Pair) -> Result<()> {
    finish(pair, Fate::Dropped)
}

fn finish(pair: &Pair, fate: Fate) -> Result<()> {
    require_possible(pair, fate)?;
    locks::acquire(&end_of(pair, fate)?.locks)?;
    // Both again: nothing can come any more.
    require_possible(pair, fate)?;
    let end = end_of(pair, fate)?;
    let legacy = required_name(pair.legacy)?;
    {
        let _quiet = PinnedSettings::new(&[(c"client_min_messages", "warning")]);
        session::with_own_tables(|| execute::run(&end.sync_off, Mode::Run))?;
    }
    // The pair lets go of the legacy first: a table of a pair cannot be dropped.
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.pair SET phase = 'done', legacy = NULL, before_switch = NULL WHERE id = $1",
            &[pair.id.into()],
        )?;
        for table in ["rollout", "copy_state", "copy_task", "parity_mark"] {
            spi::execute(
                &format!("DELETE FROM partition_router.{table} WHERE pair_id = $1"),
                &[pair.id.into()],
            )?;
        }
        Ok::<(), Error>(())
    })?;
    store::announce(pair.legacy);
    store::announce(pair.twin);
    backfill::log::drop_all(pair)?;
    execute::run(&end.rest, Mode::Run)?;
    let done = Pair {
        phase: Phase::Done,
        ..pair.clone()
    };
    let what = match fate {
        Fate::Dropped => "dropped",
        Fate::Kept => "kept",
    };
    say(
        "cleanup",
        "DONE",
        &format!("{legacy} is {what}, the pair is done"),
    );
    log(
        &done,
        "cleanup",
        "DONE",
        json!({ "legacy": legacy.to_string(), "fate": what }),
    )
}

/// What a call would do, after every check that can be made without a lock.
pub fn plan(relation: Oid, fate: Fate) -> Result<Plan> {
    let pair = require_switched(relation)?;
    require_possible(&pair, fate)?;
    let end = end_of(&pair, fate)?;
    let mut plan = Plan::default();
    plan.push(
        "PRE-FLIGHT: prove both sides equal",
        format!(
            "SELECT * FROM partition_router.verify({})",
            crate::ident::Literal(&store::display_name(pair.twin)?)
        ),
    );
    for (oid, mode) in &end.locks {
        plan.push(
            "lock until the end commits",
            format!(
                "LOCK TABLE {} IN {} MODE",
                store::display_name(*oid)?,
                mode.name()
            ),
        );
    }
    plan.extend(end.sync_off);
    plan.extend(end.rest);
    Ok(plan)
}
