//! `create_index`: what [`crate::plan::create_index`] says is left to do, done by a background worker, since CREATE INDEX
//! CONCURRENTLY runs in no function. The calling session leads: it waits for the worker without holding a snapshot, for which the
//! build would wait in turn, and its abort ends the worker. What is done stays, so the same call goes on.
#![allow(unsafe_code)]

mod definition;
mod job;
mod tree;

pub use job::leave;

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::RelName;
use crate::locks::{self, budget};
use crate::maintenance::log::{self, Event};
use crate::pair::{Phase, store};
use crate::plan::create_index::{Kind, Left, Task, Wanted, as_plan};
use crate::session::with_own_tables;
use crate::spi;
use crate::worker::{self, alone, transaction};
use job::{Orders, attempt};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::CStr;
use std::time::Duration;

/// What `pg_stat_activity` says of the worker between statements.
const ACTIVITY: &CStr = c"partition_router: builds an index on every partition";
/// Between two looks at what another session does.
const LOOK: Duration = Duration::from_millis(100);
/// How often the table is asked for, at each look, before the call gives up: a worker that was told to end takes a moment.
const LOOKS: usize = 50;

/// Whether the index can be made on this table; gives its name.
fn check(relation: Oid) -> Result<RelName> {
    let table = load::rel_name(relation)?.ok_or_else(|| Error::UnknownRelation {
        oid: relation.to_u32(),
    })?;
    store::require_owner(relation)?;
    if let Some(pair) = store::find(relation)?.filter(|pair| pair.phase != Phase::Done) {
        return Err(Error::Unsupported {
            what: format!("{table} belongs to a pair in phase \"{}\"", pair.phase),
            hint: "Make the index CONCURRENTLY on each partition and then on the legacy: the twin takes in what is there."
                .into(),
        });
    }
    if crate::ddl::pairs::kind(relation) != pg_sys::RELKIND_PARTITIONED_TABLE {
        return Err(Error::NotPartitioned {
            relation: table.to_string(),
        });
    }
    Ok(table)
}

/// Prints what is left to do.
pub fn dry_run(relation: Oid, definition: &str, path: &str) -> Result<()> {
    let table = check(relation)?;
    let (wanted, _) = definition::wanted(relation, &table, definition, path)?;
    match tree::left(&wanted, relation)? {
        Left::Tasks(tasks) => execute::run(&as_plan(&tasks), Mode::DryRun),
        Left::Nothing => {
            pgrx::notice!("{table} has the index already");
            Ok(())
        }
        Left::Building(on) => {
            pgrx::notice!("another session builds an index on {on}: the call would wait for it");
            Ok(())
        }
        Left::Stuck(index) => Err(stuck(&index)),
    }
}

/// Starts the worker, or waits for it a moment; false when all is done.
pub fn step(relation: Oid, definition: &str, path: &str) -> Result<bool> {
    if job::is_there() {
        return job::wait();
    }
    let table = check(relation)?;
    definition::parse(definition, &table)?;
    job::start(relation, &table, definition, path)?;
    Ok(true)
}

fn stuck(index: &RelName) -> Error {
    Error::PartitionInUse {
        partition: index.to_string(),
        reason: "every partition has the index, and one of them is not valid".into(),
        hint: format!("Run DROP INDEX {index}, which drops those of the partitions, and call again."),
    }
}

/// All of the work, in the worker.
fn build(orders: &Orders) -> Result<()> {
    let root = Oid::from(orders.relation);
    hold(root)?;
    let (table, wanted, tablespace) = transaction(ACTIVITY, || {
        let table = check(root)?;
        let (wanted, tablespace) = definition::wanted(root, &table, &orders.definition, &orders.path)?;
        Ok((table, wanted, tablespace))
    });
    if let Some(tablespace) = tablespace {
        transaction(ACTIVITY, || {
            worker::set("default_tablespace", tablespace.as_str())
        });
    }
    while orders.leader.lives() {
        match transaction(ACTIVITY, || tree::left(&wanted, root)) {
            Left::Nothing => return Ok(()),
            Left::Stuck(index) => return Err(stuck(&index)),
            Left::Building(_) => locks::sleep(LOOK),
            Left::Tasks(tasks) => work_off(&tasks, root, &table, orders, &wanted)?,
        }
    }
    Ok(())
}

/// Does the tasks in their order, up to one about a table that has gone meanwhile.
fn work_off(tasks: &[Task], root: Oid, table: &RelName, orders: &Orders, wanted: &Wanted) -> Result<()> {
    for task in tasks {
        if !orders.leader.lives() {
            return Ok(());
        }
        let Err(caught) = attempt(|| run(task)) else {
            if task.kind == Kind::Concurrent {
                transaction(ACTIVITY, || note(table, task, wanted));
            }
            continue;
        };
        if budget::is_cancel(&caught) {
            caught.rethrow();
        }
        let is_there = transaction(ACTIVITY, || {
            Ok(tree::read(root)?.iter().any(|node| node.oid == task.table))
        });
        if is_there {
            caught.rethrow();
        }
        return Ok(());
    }
    Ok(())
}

fn run(task: &Task) -> Result<()> {
    match task.kind {
        Kind::Concurrent => alone::run(&task.statement),
        Kind::Short => {
            transaction(ACTIVITY, || {
                budget::within_budget(task.table.into(), || spi::execute(&task.statement, &[]))
            });
            Ok(())
        }
    }
}

fn note(table: &RelName, task: &Task, wanted: &Wanted) -> Result<()> {
    let mut event = Event::done(&table.to_string(), "create index", &wanted.name.to_string());
    event.partition = load::rel_name(task.table.into())?.map(|name| name.name.as_str().to_owned());
    event.message = Some(task.statement.clone());
    log::write(&event)
}

/// Takes the table for this worker, to its end: two builds of one index would make it twice.
fn hold(root: Oid) -> Result<()> {
    for _ in 0..LOOKS {
        let free: Option<bool> = transaction(ACTIVITY, || {
            with_own_tables(|| {
                spi::row(
                    "SELECT pg_catalog.to_jsonb(pg_catalog.pg_try_advisory_lock(
                         'partition_router.maintenance_event'::regclass::oid::int, $1::oid::int))",
                    &[root.into()],
                )
            })
        });
        if free == Some(true) {
            return Ok(());
        }
        locks::sleep(LOOK);
    }
    let relation = transaction(ACTIVITY, || store::display_name(root));
    Err(Error::Busy {
        relation,
        operation: "an index build".into(),
    })
}
