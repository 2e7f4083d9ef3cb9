//! Brings an archived partition back: a table is filled, proven to hold what was archived, attached and held, in one
//! transaction. The proof that its rows lie in its bounds comes before the parent is locked.

use super::archive::{self, Archive};
use super::by_hand::claim;
use super::{create, hold, table};
use crate::archive::place::Place;
use crate::archive::{read, write};
use crate::bounds::range_bounds;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::plan::Plan;
use crate::plan::drain::{IN_BOUNDS, in_bounds};
use crate::plan::maintain::{Range, create_like};
use crate::plan::retire::Kind;
use crate::session::{self, as_user};
use crate::spi;
use pgrx::pg_sys::Oid;

/// Restores an archive; gives the partition.
///
/// # Errors
/// `BadArgument` for what is no archive, or not finished, or restored already; `AlreadyExists`, `ArchiveDiffers`.
pub fn restore(id: i64) -> Result<Oid> {
    session::require_read_committed("restore an archive")?;
    let archive = archive::get(id)?;
    if archive.state != "archived" {
        return Err(Error::BadArgument {
            argument: "archive".into(),
            reason: format!("archive {id} is {}", archive.state),
            hint: "Only what is archived can be restored: see partition_router.archives.".into(),
        });
    }
    let target = claim(archive.parent.into(), "restore an archive")?;
    if target.pair.as_ref().is_some_and(|pair| pair.is_followed()) {
        return Err(Error::Unsupported {
            what: "cannot restore an archive while a pair is in step: the other side would not have its rows"
                .into(),
            hint: "End the migration with partition_router.cleanup() first.".into(),
        });
    }
    let _settings = table::pin("UTC");
    let mut table = table::partitioned(target.parent)?;
    if let Some(policy) = &target.policy {
        table.take_after(policy)?;
    }
    let mut parent = table.as_parent()?;
    // What was written to a file was one table, whatever it was before.
    parent.depth = None;
    let name = archive.name();
    let (lower, upper) = range_bounds(&archive.bounds)
        .ok_or_else(|| Error::Internal(format!("unexpected bounds of archive {id}: {}", archive.bounds)))?;
    let range = Range { lower, upper };
    if load::oid_of(&name)?.is_some() {
        return Err(Error::AlreadyExists {
            name: name.to_string(),
        });
    }
    let key = table.key()?.clone();
    let owner = table.owner();
    let bounded = |name: &RelName| in_bounds(name, &key, &range);
    let execute = |statement: String| as_user(owner, || spi::execute(&statement, &[]));
    // A foreign table has kept the CHECK of its bounds, and is to keep it.
    let is_here = match archive.relation {
        Some(relation) => archive::kind_of(relation.into())? == Kind::Local,
        None => true,
    };
    let mut parts = create::plan(&parent, target.pair.as_ref(), &name, &range);
    parts.create = Plan::default(); // the table is there when it is attached
    if archive.destination == "schema" {
        let moved = moved(&archive)?;
        for below in load::partitions(load::oid_of(&moved)?.unwrap_or(Oid::INVALID))? {
            execute(format!("ALTER TABLE {} SET SCHEMA {}", below.name, name.schema))?;
        }
        execute(format!("ALTER TABLE {moved} SET SCHEMA {}", name.schema))?;
        if is_here {
            execute(bounded(&name))?;
        }
        (parts.dress, parts.complete) = (Plan::default(), Vec::new()); // it has kept what it had
    } else {
        execute(create_like(&parent, &name))?;
        execute(bounded(&name))?;
        fill(&archive, &name, owner)?;
    }
    let oid = load::latest_oid_of(&name)?.ok_or_else(|| Error::Internal(format!("{name} is gone")))?;
    create::run(table.oid(), owner, &parts)?;
    if is_here {
        let mut plan = Plan::default();
        plan.push(
            "drop the proof of the bounds",
            format!("ALTER TABLE {name} DROP CONSTRAINT {}", Ident::new(IN_BOUNDS)),
        );
        as_user(owner, || execute::run(&plan, Mode::Run))?;
    }
    archive::set_restored(&archive, oid)?;
    hold::hold(oid, Some(&format!("restored from archive {id}")))?;
    Ok(oid)
}

/// The table that was moved to an archive schema.
fn moved(archive: &Archive) -> Result<RelName> {
    let name = archive
        .relation
        .map(|relation| load::rel_name(relation.into()))
        .transpose()?;
    name.flatten().ok_or_else(|| Error::ArchiveDiffers {
        archive: archive.location.clone(),
        reason: "the table is gone".into(),
    })
}

/// Fills an empty table with the rows of an archive, and proves it.
fn fill(archive: &Archive, name: &RelName, owner: Oid) -> Result<()> {
    let oid = load::latest_oid_of(name)?.ok_or_else(|| Error::Internal(format!("{name} is gone")))?;
    match archive.format() {
        Some(format) => {
            let (file, _) = Place::configured()?.open(&archive.location)?;
            as_user(owner, || {
                read::load(oid, &archive.columns, file, &archive.location, format)
            })?;
        }
        None => {
            let columns = crate::ident::list(&archive.columns);
            // A qualified and quoted name: `archive::make` wrote it.
            let statement = format!(
                "INSERT INTO {name} ({columns}) SELECT {columns} FROM {}",
                archive.location
            );
            as_user(owner, || spi::execute(&statement, &[]))?;
        }
    }
    let found = as_user(owner, || write::tally(name, &archive.columns))?;
    match archive.holds(found) {
        true => Ok(()),
        false => Err(Error::ArchiveDiffers {
            archive: archive.location.clone(),
            reason: format!(
                "{} rows were archived and {} came back, or they differ",
                archive.row_count.unwrap_or(0),
                found.rows
            ),
        }),
    }
}
