//! The end of a migration: sync goes off and the legacy is dropped, or kept as a table of its own, or becomes the guard of
//! what the twin alone cannot keep unique. There is no way back, so the
//! sides are proven equal first, and nothing is dropped that somebody else still refers to.

use super::{in_the_way, log, prove, required_name, say};
use crate::catalog::{dependents, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::{self, LockMode};
use crate::pair::{Pair, Phase, store};
use crate::plan::Plan;
use crate::plan::guard::{self, Unique};
use crate::plan::sync_triggers::{self, Place};
use crate::session::{self, PinnedSettings};
use crate::{backfill, ddl, settings, spi};
use pgrx::pg_sys::Oid;
use serde_json::json;

/// What becomes of the legacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    /// A table of its own.
    Kept,
    /// The guard of the twin's unique columns.
    Guard,
}

/// What the caller wants to become of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    pub keep_legacy: bool,
    /// Without it, as was said when the twin was made.
    pub keep_unique: Option<bool>,
}

impl Wish {
    /// # Errors
    /// `22023` when both are to be kept: a guard is made of the legacy.
    fn fate(self, pair: &Pair) -> Result<Fate> {
        match (self.keep_legacy, self.keep_unique.unwrap_or(pair.keep_unique)) {
            (true, true) => Err(Error::BadArgument {
                argument: "keep_legacy".into(),
                reason: "the guard that keeps the columns unique is made of the legacy".into(),
                hint: "Keep one of them: keep_legacy => false, or keep_unique => false.".into(),
            }),
            (true, false) => Ok(Fate::Kept),
            (false, true) if unique_of(pair)?.needs_guard(&pair.partition_key) => Ok(Fate::Guard),
            (false, _) => Ok(Fate::Dropped),
        }
    }
}

/// What a guard would have to keep of the pair's legacy.
fn unique_of(pair: &Pair) -> Result<Unique> {
    unique(pair.legacy, &guard::name(&pair.base_name))
}

fn unique(legacy: Oid, guard: &Ident) -> Result<Unique> {
    spi::latest_rows(
        include_str!("../../sql/catalog/unique.sql"),
        &[legacy.into(), guard.as_str().into()],
    )?
    .pop()
    .ok_or_else(|| Error::UnknownRelation { oid: legacy.to_u32() })
}

/// Whether a guard can be made of `legacy` one day: asked before anything is built.
///
/// # Errors
/// `42622`, `42P07`: the guard's name. `PR021`: a foreign key of the table to itself that changes rows.
pub fn require_guardable(legacy: Oid, name: &RelName, base: &Ident) -> Result<()> {
    let guard = guard::name(base);
    if guard.is_too_long() {
        return Err(Error::NameTooLong {
            name: guard.as_str().into(),
        });
    }
    let unique = unique(legacy, &guard)?;
    if unique.guard_name_taken {
        return Err(Error::NameTaken {
            name: name.sibling(guard).to_string(),
            relation: name.to_string(),
        });
    }
    let objects = unique.lost();
    if objects.is_empty() {
        return Ok(());
    }
    Err(Error::WouldBeLost {
        relation: name.to_string(),
        objects,
    })
}

/// The steps of the end, in the order in which they are run.
struct End {
    locks: Vec<(Oid, LockMode)>,
    /// Run with the extension's rights: its triggers, and those of foreign keys.
    sync_off: Plan,
    /// Run as the caller.
    rest: Plan,
    /// Run with the extension's rights: a trigger of its own.
    close: Plan,
}

/// Goes through one stage; the caller commits. Gives false: no stage has to be gone through again.
pub fn step(relation: Oid, stage: &str, wish: Wish) -> Result<bool> {
    session::require_read_committed("cleanup")?;
    match stage {
        "PRE-FLIGHT" => {
            let pair = require_switched(relation)?;
            require_possible(&pair, wish.fate(&pair)?)?;
            prove(&pair, "cleanup", stage)?;
        }
        "END" => {
            let pair = store::get_for_change(relation, "cleanup")?;
            let pair = require_switched(pair.twin)?;
            end(&pair, wish.fate(&pair)?)?;
        }
        _ => return Err(super::no_stage("cleanup")),
    }
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
        // Its own policies go with it: the twin has the same.
        .filter(|follower| !(follower.kind == "policy" && follower.relation == pair.legacy.to_u32()))
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
    match fate {
        Fate::Guard => require_guardable(pair.legacy, &legacy.name, &pair.base_name)?,
        _ => {
            let keys = legacy.referenced_by.iter();
            objects.extend(keys.map(|key| format!("foreign key {} of {}", key.name, key.relation)));
        }
    }
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
    let mut end = End {
        locks: vec![
            (pair.twin, LockMode::AccessExclusive),
            (pair.legacy, LockMode::AccessExclusive),
        ],
        sync_off: Plan::default(),
        rest: Plan::default(),
        close: Plan::default(),
    };
    if fate != Fate::Guard {
        let on_twin = sync_triggers::name_on_twin(&pair.base_name);
        end.sync_off
            .extend(sync_triggers::uninstall(&twin, &on_twin, Place::Side));
        for partition in &ddl::pairs::partitions(pair.twin)? {
            end.locks.push((partition.oid.into(), LockMode::AccessExclusive));
            let off = sync_triggers::uninstall(&partition.name, &on_twin, Place::Partition);
            end.sync_off.extend(off);
        }
    }
    let on_legacy = sync_triggers::name_on_legacy(&pair.base_name);
    end.sync_off
        .extend(sync_triggers::uninstall(&legacy, &on_legacy, Place::Side));
    let mode = match fate {
        Fate::Dropped | Fate::Guard => LockMode::AccessExclusive,
        Fate::Kept => LockMode::ShareRowExclusive,
    };
    let refers = dependents::load(pair.legacy, pair.twin)?;
    for action in &refers.actions {
        if end.locks.iter().all(|(oid, _)| oid.to_u32() != action.oid) {
            end.locks.push((action.oid.into(), mode));
        }
        if fate == Fate::Kept && !action.enabled {
            end.sync_off.push(
                "let the foreign keys of the table that is kept act again",
                format!("ALTER TABLE {} ENABLE TRIGGER {}", action.table, action.trigger),
            );
        }
    }
    match fate {
        Fate::Dropped => end.rest.push("drop the legacy", format!("DROP TABLE {legacy}")),
        Fate::Kept => {}
        Fate::Guard => {
            let (table, key) = (load::latest_table_def(pair.legacy)?, &pair.partition_key);
            let table = table.ok_or_else(|| Error::UnknownRelation {
                oid: pair.legacy.to_u32(),
            })?;
            let name = guard::name(&pair.base_name);
            end.rest = guard::make(&table, &refers.statistics, &unique_of(pair)?, key, &name);
            end.close = guard::close(pair.id, &legacy.sibling(name), &twin);
        }
    }
    Ok(end)
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
            "UPDATE partition_router.pair SET phase = 'done', legacy = NULL, before_switch = NULL,
                 guard = CASE WHEN $2 THEN legacy END WHERE id = $1",
            &[pair.id.into(), (fate == Fate::Guard).into()],
        )?;
        store::forget_details(pair.id)
    })?;
    store::announce(pair.legacy);
    store::announce(pair.twin);
    backfill::log::drop_all(pair)?;
    execute::run(&end.rest, Mode::Run)?;
    session::with_own_tables(|| execute::run(&end.close, Mode::Run))?;
    let done = Pair {
        phase: Phase::Done,
        ..pair.clone()
    };
    let what = match fate {
        Fate::Dropped => "dropped",
        Fate::Kept => "kept",
        Fate::Guard => "the guard of its unique columns",
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
pub fn plan(relation: Oid, wish: Wish) -> Result<Plan> {
    let (pair, end) = possible_end(relation, wish)?;
    let mut plan = Plan::default();
    plan.push(
        "PRE-FLIGHT: prove both sides equal",
        format!(
            "SELECT * FROM partition_router.verify({})",
            crate::ident::Literal(&store::display_name(pair.twin)?)
        ),
    );
    let budget = settings::lock_timeout().as_millis();
    for (oid, mode) in &end.locks {
        plan.push(
            format!("lock until the end commits; wait for it {budget} ms at most, together with the others"),
            format!(
                "LOCK TABLE {} IN {} MODE",
                store::display_name(*oid)?,
                mode.name()
            ),
        );
    }
    plan.extend(end.sync_off);
    plan.extend(end.rest);
    plan.extend(end.close);
    Ok(plan)
}

fn possible_end(relation: Oid, wish: Wish) -> Result<(Pair, End)> {
    let pair = require_switched(relation)?;
    let fate = wish.fate(&pair)?;
    require_possible(&pair, fate)?;
    let end = end_of(&pair, fate)?;
    Ok((pair, end))
}

/// Prints the plan, and who is in the way now.
pub fn dry_run(relation: Oid, wish: Wish) -> Result<()> {
    execute::run(&plan(relation, wish)?, Mode::DryRun)?;
    let (_, end) = possible_end(relation, wish)?;
    let locks = end.locks.iter().map(|(oid, _)| *oid);
    in_the_way::tell(&in_the_way::lines(locks)?);
    Ok(())
}
