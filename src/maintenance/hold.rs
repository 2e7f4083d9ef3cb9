//! Partitions that nothing may take away, until they are released: a legal hold.

use super::log::{self, Event};
use super::{lease, table};
use crate::error::{Error, Result};
use crate::pair;
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// The table under maintenance, or of a pair, that a partition belongs to; claimed, so that no retirement is under way.
fn claim(partition: Oid) -> Result<Oid> {
    let parent: Option<u32> = spi::row(
        "SELECT pg_catalog.to_jsonb(i.inhparent::bigint) FROM pg_catalog.pg_inherits i
         JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition WHERE i.inhrelid = $1",
        &[partition.into()],
    )?;
    let Some(parent) = parent else {
        return Err(Error::NotAnOrdinaryTable {
            relation: table::display(partition)?,
            reason: "it is not a partition".into(),
        });
    };
    let parent = table::resolve(parent.into())?.parent;
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

/// The partitions of a table that are held, with the reasons.
pub fn held(parent: Oid) -> Result<HashMap<u32, String>> {
    let held: Vec<(u32, String)> = with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_array(i.inhrelid::bigint, COALESCE(h.reason, 'no reason was given'))
             FROM pg_catalog.pg_inherits i JOIN partition_router.hold h ON h.partition::oid = i.inhrelid
             WHERE i.inhparent = $1",
            &[parent.into()],
        )
    })?;
    Ok(held.into_iter().collect())
}
