//! Maintenance as it runs: reads what is there ([`table`], [`state`]), lets [`crate::policy`] decide, and turns each
//! decision into a task of its own, which the procedure `run_maintenance` runs in a transaction of its own. A task
//! that fails is recorded and stops no other.

pub mod analyze;
mod archive;
pub mod by_hand;
mod create;
mod drain;
pub mod failures;
pub mod hold;
pub mod import;
mod key_log;
pub mod lease;
pub mod log;
pub mod parity;
pub mod place;
pub mod restore;
mod retire;
pub mod rules;
pub mod schedule;
mod state;
mod survey;
pub mod table;
pub mod task;
mod template;
pub mod worker;

use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::feed;
use crate::ident::RelName;
use crate::locks::budget;
use crate::pair;
use crate::plan::Plan;
use crate::policy::{self, Decisions};
use crate::session::{self, with_own_tables};
use crate::twin::bounds_error;
use crate::{settings, spi};
use drain::Slot;
use log::Event;
use pgrx::pg_sys::Oid;
use std::time::Instant;
use table::{Managed, Target};
use task::{Task, note_created, range_of, text_of};

/// Hears of aborts, and registers the launcher. Called once, when the library is loaded.
pub fn init() {
    lease::init();
    worker::init();
}

/// Ends the workers of this session: its transaction has aborted, or its task has failed.
pub fn leave() {
    drain::crew::leave();
}

/// The tables that a call of `run_maintenance` goes through: the one that is named, or all that the caller owns, without those that
/// plainly have nothing to do. None while maintenance is off.
///
/// # Errors
/// For a named table: `NotManaged`, `NotOwner`, and `MaintenanceRunning` while another session maintains it.
pub fn targets(relation: Option<Oid>) -> Result<Vec<Oid>> {
    if !settings::enable_partition_maintenance() {
        pgrx::notice!("maintenance is off: partition_router.enable_partition_maintenance");
        let parent = relation.map_or(Ok("*".to_owned()), table::display)?;
        log::write_change(&Event::skipped(
            &parent,
            "run",
            "partition_router.enable_partition_maintenance is off",
        ))?;
        return Ok(Vec::new());
    }
    let Some(relation) = relation else {
        log::forget_gone()?;
        feed::retain()?;
        let mut parents = owned()?;
        let resting = survey::at_rest(&parents)?;
        parents.retain(|parent| !resting.contains(&parent.to_u32()));
        return Ok(parents);
    };
    let below = table::managed_below(relation)?;
    if !below.is_empty() {
        below
            .iter()
            .try_for_each(|table| pair::store::require_owner(*table))?;
        return Ok(below);
    }
    let target = table::resolve(relation)?;
    pair::store::require_owner(target.parent)?;
    if !lease::hold(target.parent)? {
        return Err(Error::MaintenanceRunning {
            relation: table::display(target.parent)?,
        });
    }
    if target.policy.is_none() {
        pgrx::notice!(
            "{}: only ranges have partitions to come and to go",
            table::display(relation)?
        );
        lease::let_go();
        return Ok(Vec::new());
    }
    Ok(vec![target.parent])
}

/// Every table under maintenance that the current user owns.
fn owned() -> Result<Vec<Oid>> {
    let user = session::current_user();
    let parents: Vec<u32> = with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.to_jsonb(p.parent::oid::bigint)
             FROM partition_router.policy p
             WHERE pg_catalog.pg_has_role(
                 $1, (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = p.parent::oid), 'USAGE') ORDER BY p.created_at, p.parent::oid",
            &[user.into()],
        )
    })?;
    Ok(parents.into_iter().map(Oid::from).collect())
}

/// Reads a table under maintenance; `body` runs under the settings of [`table::pin`]. Nothing for hash and list.
fn with_managed<T>(target: Target, body: impl FnOnce(&Managed) -> Result<T>) -> Result<Option<T>> {
    let Some(policy) = target.policy else {
        return Ok(None);
    };
    let _settings = table::pin(table::zone_of(&policy)?);
    let managed = Managed::read(target.parent, policy, target.pair)?;
    body(&managed).map(Some)
}

fn decisions(managed: &Managed) -> Result<Decisions> {
    let (rules, state) = state::read(managed)?;
    policy::decide(&rules, &state).map_err(bounds_error)
}

/// The part of maintenance that a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    Create,
    Cleanup,
}

impl Part {
    /// # Errors
    /// `BadArgument` for another word than `all`, `create` or `cleanup`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Part::All),
            "create" => Ok(Part::Create),
            "cleanup" => Ok(Part::Cleanup),
            _ => Err(Error::BadArgument {
                argument: "part".into(),
                reason: format!("it is \"{text}\""),
                hint: "Use all, create or cleanup.".into(),
            }),
        }
    }

    pub fn creates(self) -> bool {
        self != Part::Cleanup
    }

    pub fn cleans_up(self) -> bool {
        self != Part::Create
    }
}

/// What is due for a table, each task as text. Partitions are created in every table before any is retired.
#[derive(Debug, Default)]
pub struct Tasks {
    pub create: Vec<String>,
    pub cleanup: Vec<String>,
}

/// When partitions are made that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Those that can be, together with the look at the table.
    AtOnce,
    /// Each by a task of its own.
    Later,
}

/// What is due for a table, whose lease is held from now on; without what is made at once. What is left alone goes to the log.
pub fn tasks(parent: Oid, part: Part, when: When) -> Result<Tasks> {
    let target = table::resolve(parent)?;
    pair::store::require_owner(target.parent)?;
    if !lease::hold(parent)? {
        let display = table::display(parent)?;
        log::write_change(&Event::skipped(
            &display,
            "run",
            "another session maintains the table",
        ))?;
        return Ok(Tasks::default());
    }
    if let Some(phase) = copying(&target) {
        let display = table::display(parent)?;
        log::write_change(&Event::skipped(
            &display,
            "run",
            &format!("the pair is in phase \"{phase}\""),
        ))?;
        return Ok(Tasks::default());
    }
    let tasks = with_managed(target, |managed| {
        let decisions = decisions(managed)?;
        let known = log::left_alone(parent)?;
        for skip in decisions.skipped.iter().filter(|skip| !known.contains(skip)) {
            let mut event = Event::skipped(&managed.table.display, "leave", &skip.reason);
            (event.partition, event.row_count) = (skip.partition.clone(), skip.rows);
            log::write(&event)?;
        }
        if known != decisions.skipped {
            log::set_left_alone(parent, &decisions.skipped)?;
        }
        let (mut create, cleanup) = due(managed, &decisions, part)?;
        if when == When::AtOnce {
            create = make_at_once(managed, create)?;
        }
        let text = |tasks: Vec<Task>| {
            tasks
                .iter()
                .map(serde_json::to_string)
                .collect::<serde_json::Result<_>>()
        };
        Ok(Tasks {
            create: text(create)?,
            cleanup: text(cleanup)?,
        })
    })?;
    log::ran(parent)?;
    Ok(tasks.unwrap_or_default())
}

/// Makes partitions that no rows are known to wait for, one after the other in this transaction, until half of what others may wait for
/// them is over. Gives what is left to do: all, if anything fails; then each is tried by itself, and waited for.
fn make_at_once(managed: &Managed, tasks: Vec<Task>) -> Result<Vec<Task>> {
    let is_ahead = |task: &Task| {
        matches!(
            task,
            Task::Create {
                moves_rows: false,
                ..
            }
        )
    };
    let has_drain = tasks.iter().any(|task| matches!(task, Task::Drain { .. }));
    if has_drain || !tasks.iter().any(is_ahead) {
        return Ok(tasks);
    }
    let (mut ahead, others): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(is_ahead);
    let (parent, started) = (managed.table.as_parent()?, Instant::now());
    let made = budget::at_once(|| {
        let mut made = 0;
        for task in &ahead {
            if let Task::Create {
                name,
                lower,
                upper,
                reason,
                ..
            } = task
            {
                let parts = create::plan(&parent, managed.pair.as_ref(), name, &range_of(lower, upper));
                let moved = create::make(managed.table.oid(), managed.table.owner(), &parts)?;
                note_created(managed, name, reason, moved)?;
            }
            made += 1;
            if started.elapsed() > settings::lock_timeout() / 2 {
                break;
            }
        }
        Ok(made)
    });
    ahead.drain(..made.unwrap_or(0));
    ahead.extend(others);
    Ok(ahead)
}

/// While rows are copied the twin has no indexes yet and takes writes from the backfill only: it is left alone.
fn copying(target: &Target) -> Option<pair::Phase> {
    target
        .pair
        .as_ref()
        .map(|pair| pair.phase)
        .filter(|phase| *phase == pair::Phase::Copying)
}

/// What is to be created and drained, and what is to be retired.
fn due(managed: &Managed, decisions: &Decisions, part: Part) -> Result<(Vec<Task>, Vec<Task>)> {
    let (mut creating, mut cleaning) = (Vec::new(), Vec::new());
    if part.creates() {
        let slots = to_drain(managed, decisions)?;
        if !slots.is_empty() || drain::is_under_way(managed.table.oid())? {
            creating.push(Task::Drain { slots });
        }
    }
    for create in decisions.create.iter().filter(|_| part.creates()) {
        if let Some(range) = create::resolve(&create.partition)? {
            creating.push(Task::Create {
                name: managed.name_of(&create.partition)?,
                lower: text_of(&range.lower),
                upper: text_of(&range.upper),
                reason: create.reason.to_string(),
                moves_rows: matches!(create.reason, policy::Reason::RowsInDefault(_)),
            });
        }
    }
    if part.cleans_up() {
        let half = managed.table.half_detached.iter();
        cleaning.extend(half.map(|name| Task::Finalize { name: name.clone() }));
        let due = decisions
            .retire
            .iter()
            .filter_map(|name| managed.table.find(name));
        cleaning.extend(due.map(|partition| Task::Retire {
            name: partition.name.clone(),
        }));
        let unfinished = archive::unfinished(managed.table.oid())?;
        cleaning.extend(unfinished.into_iter().map(|name| Task::Retire { name }));
    }
    Ok((creating, cleaning))
}

/// The partitions that rows of the default wait for, when they are many: those move in batches. None when they are few, or have to
/// move at once.
fn to_drain(managed: &Managed, decisions: &Decisions) -> Result<Vec<Slot>> {
    let waiting = |create: &&policy::Create| matches!(create.reason, policy::Reason::RowsInDefault(_));
    let rows: i64 = decisions
        .create
        .iter()
        .map(|create| match create.reason {
            policy::Reason::RowsInDefault(rows) => rows,
            _ => 0,
        })
        .sum();
    let mut slots = Vec::new();
    if rows < drain::MANY_ROWS || !drain::can_swap(managed)? {
        return Ok(slots);
    }
    for create in decisions.create.iter().filter(waiting) {
        if let Some(range) = create::resolve(&create.partition)? {
            slots.push(drain::slot(managed.name_of(&create.partition)?, &range));
        }
    }
    Ok(slots)
}

/// Everything that `run_maintenance` would do for a table.
pub fn plan(relation: Oid, part: Part) -> Result<Plan> {
    let below = table::managed_below(relation)?;
    if !below.is_empty() {
        let mut whole = Plan::default();
        for table in below {
            whole.extend(plan(table, part)?);
        }
        return Ok(whole);
    }
    let target = table::resolve(relation)?;
    pair::store::require_owner(target.parent)?;
    if copying(&target).is_some() {
        return Ok(Plan::default());
    }
    let parent = target.parent;
    let plan = with_managed(target, |managed| {
        let decisions = decisions(managed)?;
        let mut plan = Plan::default();
        let slots = match part.creates() {
            true => to_drain(managed, &decisions)?,
            false => Vec::new(),
        };
        if !slots.is_empty() {
            plan.extend(drain::plan(managed, &slots)?);
        }
        let is_drained = |name: &RelName| slots.iter().any(|slot| slot.name == *name);
        for create in decisions.create.iter().filter(|_| part.creates()) {
            if is_drained(&managed.name_of(&create.partition)?) {
                continue;
            }
            if let Some((_, parts)) = create::plan_of(managed, &create.partition)? {
                plan.extend(parts.whole());
            }
        }
        for name in managed.table.half_detached.iter().filter(|_| part.cleans_up()) {
            plan.extend(crate::plan::retire::finalize(&managed.table.name, name));
        }
        for partition in decisions
            .retire
            .iter()
            .filter(|_| part.cleans_up())
            .filter_map(|name| managed.table.find(name))
        {
            plan.extend(retire::plan(managed, partition)?);
        }
        Ok(plan)
    })?;
    let mut plan = plan.unwrap_or_default();
    plan.extend(analyze::plan(parent)?);
    Ok(plan)
}

/// Prints what `run_maintenance` would do. A table that cannot be read stops no other.
pub fn dry_run(relation: Option<Oid>, part: Part) -> Result<()> {
    if !settings::enable_partition_maintenance() {
        pgrx::notice!("maintenance is off: partition_router.enable_partition_maintenance");
    }
    if let Some(relation) = relation {
        return execute::run(&plan(relation, part)?, Mode::DryRun);
    }
    for parent in owned()? {
        let printed = budget::subtransaction(|| execute::run(&plan(parent, part)?, Mode::DryRun));
        let name = table::display(parent)?;
        match printed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                pgrx::warning!("maintenance of {name} would fail: {error} ({})", error.sqlstate())
            }
            Err(caught) if budget::is_cancel(&caught) => caught.rethrow(),
            Err(caught) => pgrx::warning!("maintenance of {name} would fail: {}", budget::message(&caught)),
        }
    }
    Ok(())
}
