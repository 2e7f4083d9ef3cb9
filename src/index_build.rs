//! `create_index`: what [`crate::plan::create_index`] says is left to do, done by a background worker, since CREATE INDEX
//! CONCURRENTLY runs in no function. The calling session leads: it waits for the worker without holding a snapshot, for which the
//! build would wait in turn, and its abort ends the worker. What is done stays, so the same call goes on.
#![allow(unsafe_code)]

mod definition;
mod job;
mod tree;

pub use job::leave;

use crate::calls::{self, Call, Stage};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::{self, budget};
use crate::maintenance::log::{self, Event};
use crate::pair::{Phase, store};
use crate::plan::Plan;
use crate::plan::create_index::{self, Kind, Left, Task, Wanted, as_plan};
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

/// The tables that are to have the index: one that is partitioned, and of a pair the other side after it.
struct Target {
    /// The table that the caller named.
    named: RelName,
    root: Oid,
    table: RelName,
    plain: Option<(Oid, RelName)>,
}

/// A table, or a tree of them, with the index that it is to have.
struct Side {
    root: Oid,
    table: RelName,
    wanted: Wanted,
}

fn name_of(table: Oid) -> Result<RelName> {
    load::rel_name(table)?.ok_or_else(|| Error::UnknownRelation { oid: table.to_u32() })
}

/// Whether the index can be made on this table, and on which others with it.
fn check(relation: Oid) -> Result<Target> {
    let named = name_of(relation)?;
    store::require_owner(relation)?;
    let pair = store::find(relation)?.filter(|pair| pair.phase != Phase::Done);
    let Some(pair) = pair else {
        if crate::ddl::pairs::kind(relation) != pg_sys::RELKIND_PARTITIONED_TABLE {
            return Err(Error::NotPartitioned {
                relation: named.to_string(),
            });
        }
        return Ok(Target {
            root: relation,
            table: named.clone(),
            plain: None,
            named,
        });
    };
    if pair.phase == Phase::Copying {
        return Err(Error::Unsupported {
            what: format!("{named} belongs to a pair in phase \"{}\": partitions have no indexes yet", pair.phase),
            hint: "Call again when CALL partition_router.backfill() has ended; or make the index on the legacy alone: \
                   the partitions get it with the others."
                .into(),
        });
    }
    for side in [pair.legacy, pair.twin] {
        store::require_owner(side)?;
    }
    Ok(Target {
        named,
        root: pair.twin,
        table: name_of(pair.twin)?,
        plain: Some((pair.legacy, name_of(pair.legacy)?)),
    })
}

impl Target {
    /// What each side is to have, the partitioned one first, and the tablespace that the definition names.
    fn sides(&self, definition: &str, path: &str) -> Result<(Vec<Side>, Option<Ident>)> {
        let (wanted, tablespace) = definition::wanted(self.root, &self.table, &self.named, definition, path)?;
        let mut sides = vec![Side {
            root: self.root,
            table: self.table.clone(),
            wanted: wanted.clone(),
        }];
        if let Some((legacy, table)) = &self.plain {
            let given = definition::given_name(definition, &self.named)?.filter(|_| *table == self.named);
            let is_named = given.is_some();
            let name =
                given.unwrap_or_else(|| create_index::name_of(&wanted, &self.table.name, &table.name, 0));
            sides.push(Side {
                root: *legacy,
                table: table.clone(),
                wanted: Wanted {
                    name,
                    is_named,
                    ..wanted
                },
            });
        }
        Ok((sides, tablespace))
    }
}

/// Prints what is left to do.
pub fn dry_run(relation: Oid, definition: &str, path: &str) -> Result<()> {
    let (sides, _) = check(relation)?.sides(definition, path)?;
    let mut plan = Plan::default();
    for side in &sides {
        match tree::left(&side.wanted, side.root)? {
            Left::Tasks(tasks) => plan.extend(as_plan(&tasks)),
            Left::Nothing => pgrx::notice!("{} has the index already", side.table),
            Left::Building(on) => {
                pgrx::notice!("another session builds an index on {on}: the call would wait for it");
            }
            Left::Stuck(index) => return Err(stuck(&index)),
        }
    }
    execute::run(&plan, Mode::DryRun)
}

/// Starts the worker, or waits for it a moment; false when all is done.
pub fn step(relation: Oid, definition: &str, path: &str) -> Result<bool> {
    if job::is_there() {
        return job::wait();
    }
    let target = check(relation)?;
    definition::parse(definition, &target.named)?;
    job::start(relation, &target.named, definition, path)?;
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
    let target = transaction(ACTIVITY, || check(orders.relation.into()));
    hold(target.root)?;
    let (sides, tablespace) = transaction(ACTIVITY, || target.sides(&orders.definition, &orders.path));
    if let Some(tablespace) = tablespace {
        transaction(ACTIVITY, || {
            worker::set("default_tablespace", tablespace.as_str())
        });
    }
    sides.iter().try_for_each(|side| build_side(side, orders))
}

fn build_side(side: &Side, orders: &Orders) -> Result<()> {
    while orders.leader.lives() {
        match transaction(ACTIVITY, || tree::left(&side.wanted, side.root)) {
            Left::Nothing => return Ok(()),
            Left::Stuck(index) => return Err(stuck(&index)),
            Left::Building(_) => locks::sleep(LOOK),
            Left::Tasks(tasks) => work_off(&tasks, side.root, &side.table, orders, &side.wanted)?,
        }
    }
    Ok(())
}

/// Does the tasks in their order, up to one about a table that has gone meanwhile.
fn work_off(tasks: &[Task], root: Oid, table: &RelName, orders: &Orders, wanted: &Wanted) -> Result<()> {
    for (done, task) in tasks.iter().enumerate() {
        calls::quietly_at(
            Call::CreateIndex,
            root,
            Stage::Index,
            done as u64,
            tasks.len() as u64,
        );
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
