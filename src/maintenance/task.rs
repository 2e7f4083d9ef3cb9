//! The tasks that a run of maintenance is made of, one by one.

use super::archive;
use super::log::{self, Event, Status};
use super::retire::{self, Progress};
use super::table::{self, Managed};
use super::{copying, create, drain, failures, lease, leave, state, with_managed};
use crate::bounds::RawBound;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::RelName;
use crate::pair;
use crate::plan::maintain::Range;
use crate::session;
use drain::Slot;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

/// One thing to do for one table. It travels through the procedure as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
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

pub(super) fn range_of(lower: &Option<String>, upper: &Option<String>) -> Range {
    let bound = |text: &Option<String>, open| text.clone().map_or(open, RawBound::Value);
    Range {
        lower: bound(lower, RawBound::MinValue),
        upper: bound(upper, RawBound::MaxValue),
    }
}

pub(super) fn text_of(bound: &RawBound) -> Option<String> {
    bound.value().map(str::to_owned)
}

/// # Errors
/// `22023` for text that no call of [`super::tasks`] has given.
fn parse(task: &str) -> Result<Task> {
    serde_json::from_str(task).map_err(|_| Error::BadArgument {
        argument: "task".into(),
        reason: "it is no task of run_maintenance()".into(),
        hint: "Call partition_router.run_maintenance().".into(),
    })
}

/// Runs one task, or a part of it: true when it is to be called again.
pub fn run(parent: Oid, task: &str) -> Result<bool> {
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

pub(super) fn note_created(managed: &Managed, name: &RelName, reason: &str, moved: u64) -> Result<()> {
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
