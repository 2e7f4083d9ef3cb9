//! Partitions made and dropped by name, in the caller's transaction.

use super::log::{self, Event};
use super::state::has_rows;
use super::table::{self, Partition, Partitioned, Target};
use super::{create, decisions, hold, lease, with_managed};
use crate::bounds::RawBound;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::budget;
use crate::pair::{self, Phase};
use crate::plan::maintain::Range;
use crate::plan::retire::{self, Fate};
use crate::session::{self, as_user, with_own_tables};
use crate::spi;
use pgrx::pg_sys::Oid;

/// Claims a table for a change by hand. While rows are copied the twin belongs to the backfill.
pub fn claim(relation: Oid, call: &str) -> Result<Target> {
    let target = table::resolve(relation)?;
    pair::store::require_owner(target.parent)?;
    if !lease::claim(target.parent)? {
        return Err(Error::MaintenanceRunning {
            relation: table::display(target.parent)?,
        });
    }
    if let Some(pair) = &target.pair {
        pair::store::get_to_maintain(pair, call)?;
        if pair.phase == Phase::Copying {
            return Err(Error::WrongPhase {
                relation: table::display(relation)?,
                phase: pair.phase.as_str().into(),
                call: format!("{call} of"),
                next: pair.phase.next_call().into(),
            });
        }
    }
    Ok(target)
}

/// Creates what is due now, with another `premake` for once; gives the names.
pub fn create_partitions(relation: Oid, premake: Option<i32>, mode: Mode) -> Result<Vec<RelName>> {
    let mut target = claim(relation, "create partitions")?;
    match (&mut target.policy, premake) {
        (Some(_), Some(premake)) if !(0..=1000).contains(&premake) => {
            return Err(Error::BadArgument {
                argument: "premake".into(),
                reason: format!("it is {premake}"),
                hint: "Use a number from 0 to 1000.".into(),
            });
        }
        (Some(policy), Some(premake)) => policy.premake = premake,
        _ => {}
    }
    let names = with_managed(target, |managed| {
        let mut names = Vec::new();
        for due in decisions(managed)?.create {
            let Some((name, parts)) = create::plan_of(managed, &due.partition)? else {
                continue;
            };
            if mode == Mode::DryRun {
                execute::run(&parts.whole(), mode)?;
                continue;
            }
            let moved = create::run(managed.table.oid(), managed.table.owner(), &parts)?;
            created(&managed.table, &name, moved, &due.reason.to_string())?;
            names.push(name);
        }
        Ok(names)
    })?;
    Ok(names.unwrap_or_default())
}

fn created(table: &Partitioned, name: &RelName, moved: u64, reason: &str) -> Result<()> {
    let mut event = Event::done(&table.display, "create", reason);
    (event.partition, event.row_count) = (Some(name.name.as_str().into()), Some(moved as i64));
    log::write(&event)
}

/// Creates one partition with a name and bounds of the caller's. Bounds are read as the key's type, `timestamptz` in the
/// policy's time zone; MINVALUE and MAXVALUE are themselves.
pub fn create_range_partition(
    relation: Oid,
    name: Ident,
    lower: &str,
    upper: &str,
    mode: Mode,
) -> Result<RelName> {
    let target = claim(relation, "create a partition")?;
    let zone = target.policy.as_ref().map_or("UTC", |policy| &policy.timezone);
    let _settings = table::pin(zone);
    let mut table = table::partitioned(target.parent)?;
    if table.strategy != "r" {
        return Err(Error::NotRangePartitioned {
            relation: table.display,
        });
    }
    if let Some(policy) = &target.policy {
        table.take_after(policy)?;
    }
    let parent = table.as_parent()?;
    let range = Range {
        lower: read_bound(&table, lower)?,
        upper: read_bound(&table, upper)?,
    };
    let name = table.name.sibling(name);
    let parts = create::plan(&parent, target.pair.as_ref(), &name, &range);
    if mode == Mode::DryRun {
        execute::run(&parts.whole(), mode)?;
    } else {
        let moved = create::run(table.oid(), table.owner(), &parts)?;
        created(&table, &name, moved, "by hand")?;
    }
    Ok(name)
}

fn read_bound(table: &Partitioned, text: &str) -> Result<RawBound> {
    match text.trim().to_ascii_uppercase().as_str() {
        "MINVALUE" => return Ok(RawBound::MinValue),
        "MAXVALUE" => return Ok(RawBound::MaxValue),
        _ => {}
    }
    // A type name as format_type prints it: built in, as the key of a range is. `character` alone would be one character.
    let key_type = match table.key_type.as_deref() {
        Some("character") => "bpchar",
        other => other.unwrap_or("text"),
    };
    let query = format!("SELECT pg_catalog.to_jsonb($1::{key_type}::text)");
    let value: Option<String> = as_user(table.owner(), || spi::row(&query, &[text.into()]))?;
    value
        .map(RawBound::Value)
        .ok_or_else(|| Error::Internal(format!("no value in {text}")))
}

/// Drops a partition by name, with its rows. Of a pair in step only when it is empty: the legacy would keep the rows.
pub fn drop_partition(partition: Oid, mode: Mode) -> Result<()> {
    session::require_read_committed("drop a partition")?;
    let parent: Option<u32> = spi::row(
        "SELECT pg_catalog.to_jsonb(i.inhparent::bigint) FROM pg_catalog.pg_inherits i
         JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition WHERE i.inhrelid = $1",
        &[partition.into()],
    )?;
    let name = table::display(partition)?;
    let parent = parent.ok_or_else(|| Error::NotAnOrdinaryTable {
        relation: name.clone(),
        reason: "it is not a partition".into(),
    })?;
    let target = claim(parent.into(), "drop a partition")?;
    if target.parent != Oid::from(parent) {
        return Err(Error::NotManaged { relation: name });
    }
    if let Some(reason) = hold::held(target.parent)?.remove(&partition.to_u32()) {
        return Err(Error::PartitionInUse {
            partition: name,
            reason: format!("it is held: {reason}"),
            hint: "End the hold with partition_router.release().".into(),
        });
    }
    let _settings = table::pin("UTC");
    let table = table::partitioned(target.parent)?;
    let victim = victim(&table, partition)?;
    let plan = retire::at_once(
        &table.name,
        &victim.name,
        victim.kind(),
        &Fate::Drop,
        table.referenced(),
        &[],
    );
    if mode == Mode::DryRun {
        return execute::run(&plan, mode);
    }
    let paired = target.pair.as_ref().is_some_and(|pair| pair.is_followed());
    budget::within_budget(partition, || {
        pair::store::change_layout(table.oid())?;
        as_user(table.owner(), || {
            // LOCK TABLE takes no foreign table; to drop one locks it as well, and nothing of it is looked at before.
            if !victim.is_foreign {
                let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", victim.name);
                spi::execute(&lock, &[])?;
            }
            if (paired || victim.bounds == "DEFAULT") && has_rows(&victim.name, "true")? {
                return Err(in_use(&victim, paired));
            }
            execute::run(&plan, Mode::Run)
        })
    })?;
    let mut event = Event::done(&table.display, "drop", "by hand");
    event.partition = Some(victim.name.name.as_str().into());
    with_own_tables(|| log::write(&event))
}

fn in_use(victim: &Partition, paired: bool) -> Error {
    let (reason, hint) = match paired {
        true => (
            "it holds rows that the other side of its pair, or its guard, would keep",
            "Let retention remove them on both sides: partition_router.set_policy() with retention.",
        ),
        false => (
            "it is the default partition and holds rows",
            "Move them with CALL partition_router.run_maintenance(), or delete them.",
        ),
    };
    Error::PartitionInUse {
        partition: victim.name.to_string(),
        reason: reason.into(),
        hint: hint.into(),
    }
}

/// A direct partition, the default among them.
fn victim(table: &Partitioned, oid: Oid) -> Result<Partition> {
    if let Some(partition) = table.partitions.iter().find(|p| Oid::from(p.oid) == oid) {
        return Ok(partition.clone());
    }
    let name = crate::catalog::load::rel_name(oid)?
        .ok_or_else(|| Error::Internal(format!("partition {} is gone", oid.to_u32())))?;
    Ok(Partition {
        oid: oid.to_u32(),
        display: name.to_string(),
        name,
        bounds: "DEFAULT".into(),
        options: Vec::new(),
        is_foreign: false,
    })
}
