//! Places a partition on another server, as a foreign table of `postgres_fdw`, and brings it back. Each step is a transaction and
//! leaves its state in `partition_router.placement`. Rows go over while applications write; who writes to the partition meanwhile is
//! noted, and then they go over anew. What is here goes in the transaction in which the proven copy takes its place.

mod facts;
mod over_there;

use super::log::{self, Event};
use super::{create, lease, table};
use crate::archive::write;
use crate::catalog::{Index, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, Literal, RelName};
use crate::locks::{self, LockMode, budget};
use crate::pair::store;
use crate::plan::maintain::{self, Parent};
use crate::plan::place::{Bounds, Direction, Placing};
use crate::plan::{Plan, indexes};
use crate::session::{self, as_user, with_own_tables};
use crate::spi;
use facts::{Facts, bounds, checked, facts, one_key_each, refused};
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// Somebody who writes all the time has no cold partition.
const ATTEMPTS: i32 = 5;

/// A row of `partition_router.placement`.
#[derive(Debug, Clone, Deserialize)]
struct Underway {
    server: Option<Ident>,
    state: String,
    file_node: u32,
    row_count: Option<i64>,
    attempts: i32,
}

/// A partition on its way, with what its plan borrows from.
struct Journey {
    oid: Oid,
    facts: Facts,
    server: Option<Ident>,
    bounds: Bounds,
    /// Its unique constraints.
    unique: Vec<Index>,
}

impl Journey {
    fn new(oid: Oid, facts: Facts, server: Option<Ident>) -> Result<Journey> {
        let bounds = bounds(&facts)?;
        let mut unique = load::table_def(oid)?.indexes;
        unique.retain(|key| key.unique && key.valid && indexes::constraint(key).is_some());
        Ok(Journey {
            oid,
            facts,
            server,
            bounds,
            unique,
        })
    }

    /// What the partition is to be like when it is back: as a new one would be.
    fn parent(&self) -> Result<Parent> {
        let parent = Oid::from(self.facts.parent);
        let mut table = table::partitioned(parent)?;
        let policy = match table::resolve(parent) {
            Ok(target) => target.policy,
            Err(Error::NotManaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(policy) = &policy {
            table.take_after(policy)?;
        }
        // By a hash of several columns: of the key none of the steps says anything.
        table.key = table
            .key
            .or_else(|| self.facts.keys.iter().flatten().next().cloned());
        table.as_parent()
    }

    fn placing(&self) -> Placing<'_> {
        Placing {
            parent: &self.facts.parent_name,
            partition: &self.facts.name,
            oid: self.oid.to_u32(),
            direction: match &self.server {
                Some(server) => Direction::There(server),
                None => Direction::Back,
            },
            columns: &self.facts.columns,
            definitions: &self.facts.definitions,
            keys: self.unique.iter().filter_map(indexes::constraint).collect(),
            for_values: &self.facts.bounds,
            condition: self.facts.condition.as_deref().unwrap_or("true"),
            bounds: &self.bounds,
        }
    }

    fn as_owner<T>(&self, body: impl FnOnce() -> T) -> T {
        as_user(self.facts.owner.into(), body)
    }

    fn run(&self, plan: &Plan) -> Result<()> {
        self.as_owner(|| execute::run(plan, Mode::Run))
    }

    /// Triggers have functions that the owner may not execute, and ATTACH makes those of the table above: what is the owner's own code
    /// runs as the owner all the same.
    fn change(&self, plan: &Plan) -> Result<()> {
        session::with_all_rows_of(self.facts.owner.into(), || execute::run(plan, Mode::Run))
    }

    fn set(&self, assignments: &str) -> Result<()> {
        let statement =
            format!("UPDATE partition_router.placement SET {assignments} WHERE partition::oid = $1");
        with_own_tables(|| spi::execute(&statement, &[self.oid.into()]))?;
        Ok(())
    }

    /// Why the partition is held.
    fn held(&self) -> String {
        format!("on its way {}", self.whither())
    }

    /// It is on its way no more, and let go of: whoever else holds it goes on to.
    fn arrived(&self) -> Result<()> {
        with_own_tables(|| {
            spi::execute(
                "DELETE FROM partition_router.placement WHERE partition::oid = $1",
                &[self.oid.into()],
            )?;
            spi::execute(
                "DELETE FROM partition_router.hold WHERE partition::oid = $1 AND reason = $2",
                &[self.oid.into(), self.held().as_str().into()],
            )
        })?;
        Ok(())
    }

    fn whither(&self) -> String {
        match &self.server {
            Some(server) => format!("to server {server}"),
            None => "back from another server".into(),
        }
    }
}

/// The way of a partition that the caller may send: he owns the table, and nobody else is at it.
fn claim(partition: Oid, server: Option<&Ident>) -> Result<Facts> {
    session::require_read_committed("place a partition")?;
    let facts = facts(partition, server)?;
    let parent = Oid::from(facts.parent);
    store::require_owner(parent)?;
    store::require_owner(partition)?;
    if !lease::claim(parent)? {
        return Err(Error::MaintenanceRunning {
            relation: table::display(parent)?,
        });
    }
    Ok(facts)
}

fn under_way(partition: Oid) -> Result<Option<Underway>> {
    with_own_tables(|| {
        spi::latest_rows(
            "SELECT to_jsonb(p) FROM partition_router.placement p WHERE p.partition::oid = $1",
            &[partition.into()],
        )
        .map(|mut rows| rows.pop())
    })
}

/// One step; true when there is another.
///
/// # Errors
/// `NotPlaced`, before anything is changed; `NotOwner`, `MaintenanceRunning`, `LockNotAvailable`; errors of the other server.
pub fn step(partition: Oid, server: Option<Ident>) -> Result<bool> {
    let facts = claim(partition, server.as_ref())?;
    let _settings = table::pin("UTC");
    let Some(found) = under_way(partition)? else {
        if facts.kind == "f" && server.is_some() && facts.placed_on == server {
            pgrx::notice!("{} is there already", facts.name);
            return Ok(false);
        }
        let journey = Journey::new(partition, checked(facts, server.as_ref())?, server)?;
        prepare(&journey)?;
        return Ok(true);
    };
    if found.server != server {
        return cancel(partition, facts, server, found).map(|()| false);
    }
    let journey = Journey::new(partition, facts, server)?;
    match found.state.as_str() {
        "copying" => copy(&journey, &found).map(|()| true),
        "copied" => prove(&journey).map(|()| true),
        _ => swap(&journey, &found),
    }
}

/// The steps, as NOTICEs.
pub fn dry_run(partition: Oid, server: Option<Ident>) -> Result<()> {
    let facts = claim(partition, server.as_ref())?;
    let _settings = table::pin("UTC");
    if let (Some(_), Some(_), false) = (&server, &facts.unique_index, facts.in_pair) {
        execute::run(&one_key_each(&facts)?, Mode::DryRun)?;
    }
    let journey = Journey::new(partition, checked(facts, server.as_ref())?, server)?;
    let placing = journey.placing();
    let mut plan = Plan::default();
    if journey.server.is_some() {
        plan.push("over there, by hand, if it is not there", placing.over_there());
    }
    let parent = journey.parent()?;
    for part in [
        placing.create(&maintain::create_like(&parent, &placing.copy())),
        placing.create_log(),
        placing.note_writes(),
        placing.fill(),
        placing.swap(),
    ] {
        plan.extend(part);
    }
    if journey.server.is_none() {
        plan.extend(maintain::dress(&parent, &journey.facts.name));
    }
    execute::run(&plan, Mode::DryRun)
}

/// Makes the copy, tries the swap, and lets writes be noted. Whatever is wrong shows here, and then nothing is changed.
fn prepare(journey: &Journey) -> Result<()> {
    let placing = journey.placing();
    let locks = [
        (Oid::from(journey.facts.parent), LockMode::AccessExclusive),
        (journey.oid, LockMode::AccessExclusive),
    ];
    let parent = journey.parent()?;
    let mut plan = placing.create(&maintain::create_like(&parent, &placing.copy()));
    parent.take_defaults(&mut plan, &placing.copy());
    journey.run(&plan)?;
    match &journey.server {
        Some(server) => over_there::require(journey, server)?,
        None => create::give_keys(journey.facts.owner.into(), &like(&parent, &placing.copy()))?,
    }
    journey.run(&placing.create_log())?;
    budget::undone(|| {
        locks::acquire(&locks)?;
        journey.change(&placing.note_writes())?;
        journey.change(&placing.swap())
    })?;
    budget::within_budget(journey.oid, || journey.change(&placing.note_writes()))?;
    let copy = load::latest_oid_of(&placing.copy())?
        .ok_or_else(|| Error::Internal(format!("{} is gone", placing.copy())))?;
    with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.placement (partition, target, server, file_node)
             VALUES ($1::regclass, $2::regclass, $3, $4)",
            &[
                journey.oid.into(),
                copy.into(),
                journey.server.as_ref().map(Ident::as_str).into(),
                i64::from(journey.facts.file_node).into(),
            ],
        )?;
        // Nothing takes it away meanwhile.
        spi::execute(
            "INSERT INTO partition_router.hold (partition, reason) VALUES ($1::regclass, $2) ON CONFLICT DO NOTHING",
            &[journey.oid.into(), journey.held().as_str().into()],
        )
    })?;
    Ok(())
}

fn copy(journey: &Journey, found: &Underway) -> Result<()> {
    if found.attempts >= ATTEMPTS {
        journey.set("attempts = 0")?;
        return Err(refused(
            &journey.facts,
            format!("it was written to while it was copied, {ATTEMPTS} times"),
            "Call again when nobody writes to it, or stop with NULL as server.",
        ));
    }
    journey.run(&journey.placing().fill())?;
    journey.set(&format!(
        "state = 'copied', attempts = attempts + 1, file_node = {}",
        journey.facts.file_node
    ))
}

/// Whether the partition was written to, or has another file, since the copy began. Needs a lock to be sure of it.
fn was_written(journey: &Journey, file_node: u32) -> Result<bool> {
    let log = format!(
        "SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM {}))",
        journey.placing().log()
    );
    let logged: Vec<bool> = journey.as_owner(|| spi::latest_rows(&log, &[]))?;
    let now: Vec<u32> = spi::latest_rows(
        "SELECT pg_catalog.to_jsonb(COALESCE(pg_catalog.pg_relation_filenode($1), 0)::bigint)",
        &[journey.oid.into()],
    )?;
    Ok(logged.first() == Some(&true) || now.first() != Some(&file_node))
}

/// Reads back what is over there, and compares.
fn prove(journey: &Journey) -> Result<()> {
    let (facts, copy) = (&journey.facts, journey.placing().copy());
    let [here, there] = journey.as_owner(|| -> Result<_> {
        Ok([
            write::tally(&facts.name, &facts.columns)?,
            write::tally(&copy, &facts.columns)?,
        ])
    })?;
    if was_written(journey, facts.file_node)? {
        return journey.set("state = 'copying'");
    }
    if here != there {
        return Err(refused(
            facts,
            format!(
                "{} rows were copied and {} read back, or they differ",
                here.rows, there.rows
            ),
            "Call it with NULL as server to stop; look at the columns and triggers of the table over there.",
        ));
    }
    journey.set(&format!(
        "state = 'proven', row_count = {}, checksum = {}",
        there.rows,
        Literal(&there.checksum())
    ))
}

/// The copy takes the partition's place, unless somebody has written: then its rows are copied anew.
fn swap(journey: &Journey, found: &Underway) -> Result<bool> {
    let (facts, placing) = (&journey.facts, journey.placing());
    let parent = Oid::from(facts.parent);
    locks::acquire(&[
        (parent, LockMode::AccessExclusive),
        (journey.oid, LockMode::AccessExclusive),
    ])?;
    if was_written(journey, found.file_node)? || is_emptied(journey, found)? {
        journey.set("state = 'copying'")?;
        return Ok(true);
    }
    let copy = load::latest_oid_of(&placing.copy())?
        .ok_or_else(|| Error::Internal(format!("{} is gone", placing.copy())))?;
    // While it is not a sibling of its own.
    let like_new = journey.parent()?;
    budget::within_budget(parent, || {
        store::change_layout(parent)?;
        journey.change(&placing.swap())?;
        journey.change(&rename_indexes(journey, copy)?)?;
        dress(journey, &like_new)
    })?;
    journey.arrived()?;
    with_own_tables(|| {
        // Who held it holds what has taken its place.
        spi::execute(
            "UPDATE partition_router.hold SET partition = $2::regclass WHERE partition::oid = $1",
            &[journey.oid.into(), copy.into()],
        )
    })?;
    let message = match &journey.server {
        Some(server) => format!("proven equal, and on server {server}"),
        None => "proven equal, and here; what is over there stays".into(),
    };
    let mut event = Event::done(&table::display(parent)?, "place", &message);
    (event.partition, event.row_count) = (Some(facts.name.name.as_str().into()), found.row_count);
    log::write(&event)?;
    Ok(false)
}

/// What is back has what new partitions have. Not before its rows are there: row security would keep them out.
fn dress(journey: &Journey, like_new: &Parent) -> Result<()> {
    if journey.server.is_some() {
        return Ok(());
    }
    let name = &journey.facts.name;
    journey.change(&maintain::dress(like_new, name))?;
    create::complete(journey.facts.owner.into(), &like(like_new, name))
}

/// A table, and each that it takes after.
fn like(parent: &Parent, table: &RelName) -> Vec<(RelName, u32)> {
    let models = parent.completed_like.iter();
    models.map(|model| (table.clone(), *model)).collect()
}

/// What LIKE has named after the copy is named after the partition, where that name is free.
fn rename_indexes(journey: &Journey, copy: Oid) -> Result<Plan> {
    let (old, new) = (journey.placing().copy().name, &journey.facts.name.name);
    let names: Vec<Ident> = spi::latest_rows(
        "SELECT pg_catalog.to_jsonb(x.relname) FROM pg_catalog.pg_index i
         JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = $1 ORDER BY x.oid",
        &[copy.into()],
    )?;
    let mut plan = Plan::default();
    for name in names {
        let Some(rest) = name.as_str().strip_prefix(old.as_str()) else {
            continue;
        };
        let wanted = Ident::new(format!("{}{rest}", new.as_str())).cut();
        if load::latest_oid_of(&journey.facts.name.sibling(wanted.clone()))?.is_none() {
            let index = journey.facts.name.sibling(name);
            plan.push(
                "name index after its table",
                format!("ALTER INDEX {index} RENAME TO {wanted}"),
            );
        }
    }
    Ok(plan)
}

/// A TRUNCATE of a foreign table fires no trigger before PostgreSQL 16, and there is no file here that would tell. What was inserted
/// after it has been noted: so one look suffices, while everybody waits.
fn is_emptied(journey: &Journey, found: &Underway) -> Result<bool> {
    if journey.server.is_some() || found.row_count == Some(0) {
        return Ok(false);
    }
    let look = format!(
        "SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM {}))",
        journey.facts.name
    );
    let has_rows: Vec<bool> = journey.as_owner(|| spi::latest_rows(&look, &[]))?;
    Ok(has_rows.first() != Some(&true))
}

/// Stops a placement that is under way: the partition stays where it is.
fn cancel(partition: Oid, facts: Facts, wanted: Option<Ident>, found: Underway) -> Result<()> {
    let stays = match &found.server {
        Some(_) => wanted.is_none(),
        None => wanted == facts.placed_on,
    };
    if !stays {
        return Err(refused(
            &facts,
            "it is on its way to somewhere else",
            "Stop that first: name where it is now as server, NULL for here.",
        ));
    }
    let journey = Journey::new(partition, facts, found.server)?;
    journey.run(&journey.placing().empty())?;
    budget::within_budget(partition, || journey.change(&journey.placing().cancel()))?;
    journey.arrived()?;
    let parent = Oid::from(journey.facts.parent);
    let mut event = Event::done(&table::display(parent)?, "place", "stopped: it stays where it is");
    event.partition = Some(journey.facts.name.name.as_str().into());
    log::write(&event)
}
