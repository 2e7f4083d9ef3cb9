//! ANALYZE of partitioned tables. Autovacuum looks after their partitions and never after them, so the planner would know
//! nothing of the whole.

use super::log::{self, Event};
use super::{lease, table};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::locks::budget;
use crate::pair::store;
use crate::plan::Plan;
use crate::session::{self, with_own_tables};
use crate::{settings, spi};
use pgrx::pg_sys::Oid;

/// The tables of the caller whose statistics are too old: the one that is named, or all.
pub fn due(relation: Option<Oid>) -> Result<Vec<Oid>> {
    if !settings::enable_partition_maintenance() {
        return Ok(Vec::new());
    }
    let named = match relation {
        None => None,
        Some(relation) => Some(store::find(relation)?.map_or(relation, |pair| pair.twin)),
    };
    let user = session::current_user();
    let due: Vec<u32> = with_own_tables(|| {
        spi::kept_rows(
            include_str!("../../sql/catalog/unanalyzed.sql"),
            &[user.into(), named.into()],
        )
    })?;
    Ok(due.into_iter().map(Oid::from).collect())
}

/// Analyses a table with its partitions; reads a sample. Nobody but other maintenance waits for it.
pub fn run(parent: Oid) -> Result<()> {
    let Some(name) = load::rel_name(parent)? else {
        return Ok(());
    };
    store::require_owner(parent)?;
    let display = table::display(parent)?;
    if !lease::claim(parent)? {
        return Err(Error::MaintenanceRunning { relation: display });
    }
    let statement = format!("ANALYZE {name}");
    budget::within_budget(parent, || spi::execute(&statement, &[]))?;
    log::write(&Event::done(
        &display,
        "analyze",
        "its partitions have changed since, and autovacuum analyses only them",
    ))
}

/// The step for a dry run.
pub fn plan(parent: Oid) -> Result<Plan> {
    let mut plan = Plan::default();
    if due(Some(parent))?.contains(&parent)
        && let Some(name) = load::rel_name(parent)?
    {
        plan.push(format!("analyze {name}"), format!("ANALYZE {name}"));
    }
    Ok(plan)
}
