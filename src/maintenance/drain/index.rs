//! The indexes of the partitions that a drain has filled, and what else they lack: done by the session and by workers that help it.

use super::crew::{self, Claim};
use super::{State, set, state};
use crate::catalog::{TableDef, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{RelName, list};
use crate::locks::budget;
use crate::maintenance::create;
use crate::maintenance::table::{self, Managed};
use crate::pair::store;
use crate::plan::drain::Drain;
use crate::plan::{foreign_keys, indexes, maintain};
use crate::session::{PinnedSettings, as_user};
use crate::spi;
use pgrx::pg_sys::Oid;
use std::time::{Duration, Instant};

/// How long one transaction goes on to build indexes.
const INDEXING: Duration = Duration::from_millis(500);

/// Makes what the tables lack: in a first pass the indexes of those that nobody is at, in a second one what is left, foreign keys among
/// it, not valid and then proven.
pub fn step(managed: &Managed, state: &State, drain: &Drain) -> Result<()> {
    let (table, started) = (&managed.table, Instant::now());
    let definition = load::table_def(table.oid())?;
    let tables = tables(drain);
    // Also when a call that was interrupted here goes on.
    if (state.next_block as usize) < tables.len() && !crew::is_at(table.oid()) {
        crew::muster(table.oid(), &table.name, tables.len(), state.row_count)?;
    }
    let _one_each = one_process_each(crew::is_at(table.oid()));
    let mut done = state.next_block as usize;
    while done < 2 * tables.len() && started.elapsed() < INDEXING {
        let (name, is_second) = (&tables[done % tables.len()], done >= tables.len());
        let oid = load::oid_of(name)?.ok_or_else(|| Error::Internal(format!("{name} is gone")))?;
        match crew::claim(oid, is_second) {
            Claim::Busy => {}
            Claim::Ours { indexes: 0 } if !is_second => build(table.owner(), &definition, name)?,
            Claim::Ours { indexes } if is_second => {
                if indexes == 0 {
                    build(table.owner(), &definition, name)?;
                }
                if !is_settled(table.owner(), &definition, oid, indexes)? {
                    break;
                }
            }
            Claim::Ours { .. } => {}
        }
        done += 1;
    }
    if done < 2 * tables.len() {
        return set(state, "next_block = $1", &[(done as i64).into()]);
    }
    crew::leave();
    let likes = &drain.parent.completed_like;
    let parts = drain.parts.iter();
    let models: Vec<_> = parts
        .flat_map(|part| likes.iter().map(|like| (part.name.clone(), *like)))
        .collect();
    create::complete(table.owner(), &models)?;
    for part in drain.parts {
        let publish = maintain::publish(drain.parent, &part.name);
        as_user(table.owner(), || execute::run(&publish, Mode::Run))?;
    }
    set(state, "stage = 'flip'", &[])
}

/// The partitions to come, and the new default.
fn tables(drain: &Drain) -> Vec<RelName> {
    let parts = drain.parts.iter().map(|part| part.name.clone());
    parts.chain([drain.new_default()]).collect()
}

/// Where several processes build indexes, each has its own to build.
fn one_process_each(are_several: bool) -> Option<PinnedSettings> {
    are_several.then(|| PinnedSettings::new(&[(c"max_parallel_maintenance_workers", "0")]))
}

/// What a worker does of a drain: the indexes of one table; false when there is none that nobody is at.
pub fn help(parent: Oid) -> Result<bool> {
    let target = table::resolve(parent)?;
    store::require_owner(parent)?;
    let _one_each = one_process_each(true);
    let helped = crate::maintenance::with_managed(target, |managed| {
        let Some(state) = state(parent)?.filter(|state| state.stage == "index") else {
            return Ok(false);
        };
        let Some(default) = &managed.table.default else {
            return Ok(false);
        };
        let table = managed.table.as_parent()?;
        let parts = super::parts(&state.slots);
        let drain = Drain {
            id: state.id,
            parent: &table,
            default,
            key: &state.key,
            parts: &parts,
        };
        for name in tables(&drain).iter().rev() {
            let Some(oid) = load::latest_oid_of(name)? else {
                return Ok(false);
            };
            if crew::claim(oid, false) == (Claim::Ours { indexes: 0 }) {
                return build(managed.table.owner(), &load::table_def(parent)?, name).map(|()| true);
            }
        }
        Ok(false)
    })?;
    Ok(helped == Some(true))
}

/// All indexes of a table that has none, and what is known of its rows at first.
fn build(owner: Oid, parent: &TableDef, name: &RelName) -> Result<()> {
    let wanted: Vec<_> = indexes::missing(&parent.indexes, &[])
        .into_iter()
        .cloned()
        .collect();
    as_user(owner, || {
        execute::run(&indexes::create(&wanted, name), Mode::Run)?;
        first_statistics(parent, name)
    })
}

/// Makes the next thing that a table with indexes lacks; true when it lacks nothing.
fn is_settled(owner: Oid, parent: &TableDef, oid: Oid, indexes: usize) -> Result<bool> {
    if parent.foreign_keys.is_empty() && parent.indexes.len() == indexes {
        return Ok(true);
    }
    // As it is now: another process may just have ended with it.
    let leaf =
        load::latest_table_def(oid)?.ok_or_else(|| Error::Internal("a new partition is gone".into()))?;
    let missing: Vec<_> = indexes::missing(&parent.indexes, &leaf.indexes)
        .into_iter()
        .cloned()
        .collect();
    if !missing.is_empty() {
        as_user(owner, || {
            execute::run(&indexes::create(&missing, &leaf.name), Mode::Run)
        })?;
    } else if let Some(next) = foreign_keys::next_on_leaf(parent, &leaf) {
        // For a moment it locks what it points at: in a transaction of its own.
        budget::within_budget(oid, || as_user(owner, || execute::run(&next.plan, Mode::Run)))?;
    } else {
        return Ok(true);
    }
    Ok(false)
}

/// Statistics from a small sample, for the plans of the first minutes. ANALYZE of columns by name leaves the count of changes as it
/// is, so autovacuum comes and does the rest.
fn first_statistics(parent: &TableDef, name: &RelName) -> Result<()> {
    let _small = PinnedSettings::new(&[(c"default_statistics_target", "10")]);
    let columns = list(parent.columns.iter().map(|column| &column.name));
    spi::execute(&format!("ANALYZE {name} ({columns})"), &[])?;
    Ok(())
}
