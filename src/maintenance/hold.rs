//! Partitions that nothing may take away, until they are released: a legal hold.

use super::log::{self, Event};
use super::{lease, table};
use crate::error::{Error, Result};
use crate::pair;
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// The table under maintenance, or of a pair, that a partition belongs to, at whatever depth; claimed, so that no retirement is
/// under way.
fn claim(partition: Oid) -> Result<Oid> {
    let above: Vec<u32> = spi::rows(
        "SELECT pg_catalog.to_jsonb(x.relid::oid::bigint)
         FROM pg_catalog.pg_partition_ancestors($1) WITH ORDINALITY AS x(relid, n) WHERE x.relid::oid <> $1 ORDER BY x.n",
        &[partition.into()],
    )?;
    let Some(nearest) = above.first() else {
        return Err(Error::NotAnOrdinaryTable {
            relation: table::display(partition)?,
            reason: "it is not a partition".into(),
        });
    };
    let mut parent = table::resolve((*nearest).into());
    for table in above.iter().skip(1) {
        match parent {
            Err(Error::NotManaged { .. }) => parent = table::resolve((*table).into()),
            _ => break,
        }
    }
    let parent = parent?.parent;
    pair::store::require_owner(parent)?;
    if !lease::claim(parent)? {
        return Err(Error::MaintenanceRunning {
            relation: table::display(parent)?,
        });
    }
    Ok(parent)
}

/// Holds a partition; a second hold changes the reason.
///
/// # Errors
/// `NotAnOrdinaryTable` for what is no partition, `NotManaged`, `NotOwner`, and `MaintenanceRunning` while its table is
/// maintained.
pub fn hold(partition: Oid, reason: Option<&str>) -> Result<()> {
    let parent = claim(partition)?;
    with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.hold AS h (partition, reason) VALUES ($1::regclass, $2)
             ON CONFLICT (partition) DO UPDATE
             SET reason = EXCLUDED.reason, held_at = EXCLUDED.held_at, held_by = EXCLUDED.held_by",
            &[partition.into(), reason.into()],
        )
    })?;
    note(parent, partition, "hold", reason.unwrap_or("by hand"))
}

/// Lets a partition go again; false when it was not held.
pub fn release(partition: Oid) -> Result<bool> {
    let parent = claim(partition)?;
    let released = with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.hold WHERE partition::oid = $1 RETURNING partition",
            &[partition.into()],
        )
    })? > 0;
    if released {
        note(parent, partition, "release", "by hand")?;
    }
    Ok(released)
}

fn note(parent: Oid, partition: Oid, action: &str, reason: &str) -> Result<()> {
    let mut event = Event::done(&table::display(parent)?, action, reason);
    event.partition = crate::catalog::load::rel_name(partition)?.map(|name| name.name.as_str().to_owned());
    log::write(&event)
}

/// The partitions of a table that are held, with the reasons: also where a partition below one is.
pub fn held(parent: Oid) -> Result<HashMap<u32, String>> {
    let held: Vec<(u32, String)> = with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_array(i.inhrelid::bigint, COALESCE(h.reason, 'no reason was given'))
             FROM partition_router.hold h
             CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(h.partition) x
             JOIN pg_catalog.pg_inherits i ON i.inhrelid = x.relid::oid
             WHERE i.inhparent = $1",
            &[parent.into()],
        )
    })?;
    Ok(held.into_iter().collect())
}
