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
mod template;
pub mod worker;

use crate::bounds::RawBound;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::feed;
use crate::ident::RelName;
use crate::locks::budget;
use crate::pair;
use crate::plan::Plan;
use crate::plan::maintain::Range;
use crate::policy::{self, Decisions};
use crate::session::{self, with_own_tables};
use crate::twin::bounds_error;
use crate::{settings, spi};
use drain::Slot;
use log::{Event, Status};
use pgrx::pg_sys::Oid;
use retire::Progress;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use table::{Managed, Target};

/// Hears of aborts, and registers the launcher. Called once, when the library is loaded.
pub fn init() {
    lease::init();
    worker::init();
}

/// Ends the workers of this session: its transaction has aborted, or its task has failed.
pub fn leave() {
    drain::crew::leave();
}

/// One thing to do for one table. It travels through the procedure as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    Create {
        name: RelName,
        lower: Option<String>,
        upper: Option<String>,
        reason: String,
        /// Rows of the default are known to wait for it. Not for the way through the procedure.
        #[serde(skip)]
        moves_rows: bool,
    },
    Retire {
        name: RelName,
    },
    /// Ends a DETACH CONCURRENTLY that did not come to its end.
    Finalize {
        name: RelName,
    },
    /// Moves rows of a large default to these partitions, which come with them.
    Drain {
        slots: Vec<Slot>,
    },
}

impl Task {
    fn action(&self) -> &'static str {
        match self {
            Task::Create { .. } => "create",
            Task::Retire { .. } => "retire",
            Task::Finalize { .. } => "finalize",
            Task::Drain { .. } => "drain",
        }
    }

    /// The partition, where it is about one.
    fn name(&self) -> Option<&RelName> {
        match self {
            Task::Create { name, .. } | Task::Retire { name } | Task::Finalize { name } => Some(name),
            Task::Drain { .. } => None,
        }
    }
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

fn range_of(lower: &Option<String>, upper: &Option<String>) -> Range {
    let bound = |text: &Option<String>, open| text.clone().map_or(open, RawBound::Value);
    Range {
        lower: bound(lower, RawBound::MinValue),
        upper: bound(upper, RawBound::MaxValue),
    }
}

fn text_of(bound: &RawBound) -> Option<String> {
    bound.value().map(str::to_owned)
}

/// # Errors
/// `22023` for text that no call of [`tasks`] has given.
fn parse(task: &str) -> Result<Task> {
    serde_json::from_str(task).map_err(|_| Error::BadArgument {
        argument: "task".into(),
        reason: "it is no task of run_maintenance()".into(),
        hint: "Call partition_router.run_maintenance().".into(),
    })
}

/// Runs one task, or a part of it: true when it is to be called again.
pub fn run_task(parent: Oid, task: &str) -> Result<bool> {
    session::require_read_committed("run maintenance")?;
    let mut target = table::resolve(parent)?;
    pair::store::require_owner(target.parent)?;
    if !lease::hold(parent)? {
        return Err(Error::MaintenanceRunning {
            relation: table::display(parent)?,
        });
    }
    if let Some(pair) = &target.pair {
        target.pair = Some(pair::store::get_to_maintain(pair, "run_maintenance")?);
    }
    // The backfill may have begun since the task was made.
    if copying(&target).is_some() {
        return Ok(false);
    }
    let task = parse(task)?;
    let more = with_managed(target, |managed| match task {
        Task::Create {
            name,
            lower,
            upper,
            reason,
            ..
        } => create_one(managed, &name, &range_of(&lower, &upper), &reason).map(|()| false),
        Task::Retire { name } => retire_one(managed, &name),
        Task::Finalize { name } => retire::finalize(managed, &name).map(|()| false),
        Task::Drain { slots } => drain::step(managed, &slots),
    })?;
    Ok(more.unwrap_or(false))
}

fn create_one(managed: &Managed, name: &RelName, range: &Range, reason: &str) -> Result<()> {
    if managed.table.find(name.name.as_str()).is_some() || drain::brings(managed.table.oid(), name)? {
        return Ok(());
    }
    let parts = create::plan(&managed.table.as_parent()?, managed.pair.as_ref(), name, range);
    let moved = create::run(managed.table.oid(), managed.table.owner(), &parts)?;
    note_created(managed, name, reason, moved)
}

fn note_created(managed: &Managed, name: &RelName, reason: &str, moved: u64) -> Result<()> {
    let mut event = Event::done(&managed.table.display, "create", reason);
    (event.partition, event.row_count) = (Some(name.name.as_str().into()), Some(moved as i64));
    log::write(&event)
}

/// Asks the policy again: it may have changed since the task was made.
fn retire_one(managed: &Managed, name: &RelName) -> Result<bool> {
    let Some(partition) = managed.table.find(name.name.as_str()) else {
        return archive::finish(managed, name);
    };
    if !state::is_due(managed, name.name.as_str())? {
        return Ok(false);
    }
    let progress = retire::step(managed, partition)?;
    let mut event = Event::done(
        &managed.table.display,
        &managed.policy.retention_action,
        "past its retention",
    );
    event.partition = Some(name.name.as_str().into());
    match progress {
        Progress::More(0) | Progress::Detached => return Ok(true),
        Progress::More(rows) => (event.action, event.row_count) = ("delete rows".into(), Some(rows as i64)),
        Progress::Gone => {}
    }
    log::write(&event)?;
    Ok(progress != Progress::Gone)
}

/// Records that a task failed, in the log and with the policy.
pub fn failed(parent: Oid, task: Option<&str>, sqlstate: &str, message: &str) -> Result<()> {
    leave();
    if load::rel_name(parent)?.is_some() {
        pair::store::require_owner(parent)?;
    }
    let task: Option<Task> = task.map(parse).transpose()?;
    let action = task.as_ref().map_or("run", Task::action);
    let display = table::display(parent)?;
    pgrx::warning!("maintenance of {display} failed: {message} ({sqlstate})");
    let partition = task
        .as_ref()
        .and_then(Task::name)
        .map(|name| name.name.as_str().to_owned());
    let event = Event {
        parent: display,
        partition,
        action: action.into(),
        status: Status::Failed,
        row_count: None,
        sqlstate: Some(sqlstate.into()),
        message: Some(message.into()),
    };
    failures::record(parent, event)
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
