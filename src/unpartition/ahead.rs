//! The triggers of an unpartition, laid before they do anything. To make them on a thousand partitions takes longer than writers are
//! to wait: so it is done a table at a time, each within the lock budget. They know their pair by its number; as long as
//! there is no such pair but a row of `partition_router.unpartitioning`, they let every change pass.

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::locks::{self, LockMode};
use crate::pair::store;
use crate::session::with_own_tables;
use crate::spi;
use crate::sync::triggers::{self, Place};
use pgrx::pg_sys::Oid;

/// Begins a preparation, or goes on with one: the number of the pair to come, and whether it was begun just now.
pub fn begin(relation: Oid) -> Result<(i32, bool)> {
    if let Some(id) = begun(relation)? {
        return Ok((id, false));
    }
    with_own_tables(|| {
        // Of tables that are gone: an oid may be used again.
        spi::execute(
            "DELETE FROM partition_router.unpartitioning u
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = u.parent::oid)",
            &[],
        )?;
        let id = spi::returning(
            "INSERT INTO partition_router.unpartitioning (parent, pair_id)
             VALUES ($1::regclass, pg_catalog.nextval('partition_router.pair_id_seq')) RETURNING pg_catalog.to_jsonb(pair_id)",
            &[relation.into()],
        )?;
        id.map(|id| (id, true))
            .ok_or_else(|| Error::Internal("the preparation was not written".into()))
    })
}

/// The number of the pair to come. Whoever asks has the preparation to themselves until their transaction ends.
fn begun(relation: Oid) -> Result<Option<i32>> {
    with_own_tables(|| {
        spi::returning(
            "UPDATE partition_router.unpartitioning SET begun_at = begun_at WHERE parent::oid = $1
             RETURNING pg_catalog.to_jsonb(pair_id)",
            &[relation.into()],
        )
    })
}

pub fn is_begun(relation: Oid) -> Result<bool> {
    Ok(begun(relation)?.is_some())
}

/// The preparation is over: the pair is there, or will never be.
pub fn end(relation: Oid) -> Result<()> {
    with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.unpartitioning WHERE parent::oid = $1",
            &[relation.into()],
        )
    })?;
    Ok(())
}

/// The table with every table below it.
pub fn everything(relation: Oid) -> Result<Vec<(Oid, LockMode)>> {
    let below = load::partitions(relation)?.into_iter().map(|p| Oid::from(p.oid));
    Ok(std::iter::once(relation)
        .chain(below)
        .map(|table| (table, LockMode::ShareRowExclusive))
        .collect())
}

/// Lays the triggers of a table that lacks them; false when none does. The root comes last: its row trigger comes to every partition,
/// and those are locked together. One table in a transaction: whoever held one and waited for the next would keep writers waiting
/// that come to them in another order.
pub fn lay_one(relation: Oid, base: &Ident, id: i32) -> Result<bool> {
    // A guard is followed by triggers of the same names, which are not to rest meanwhile.
    if store::find(relation)?.is_some_and(|pair| pair.guard.is_some()) {
        return Ok(false);
    }
    let Some(table) = triggers::not_laid(relation, base, id)?.into_iter().next() else {
        return Ok(false);
    };
    let (place, wanted) = match table == relation {
        true => (Place::Side, everything(relation)?),
        false => (Place::Partition, vec![(table, LockMode::ShareRowExclusive)]),
    };
    locks::acquire(&wanted)?;
    triggers::lay(&name_of(table)?, base, id, place)?;
    Ok(true)
}

/// Takes the triggers of a table away again, those of the root first; true while there are more.
pub fn take_back(relation: Oid, base: &Ident) -> Result<bool> {
    let Some(id) = begun(relation)? else {
        return Ok(false);
    };
    let bare = triggers::not_laid(relation, base, id)?;
    let all = everything(relation)?;
    let laid = |(table, _): &&(Oid, LockMode)| !bare.contains(table);
    let Some((table, _)) = all.iter().find(laid).copied() else {
        return end(relation).map(|()| false);
    };
    let strongest = |(table, _)| (table, LockMode::AccessExclusive);
    let (place, wanted) = match table == relation {
        true => (Place::Side, all.into_iter().map(strongest).collect()),
        false => (Place::Partition, vec![(table, LockMode::AccessExclusive)]),
    };
    locks::acquire(&wanted)?;
    triggers::take_up(&name_of(table)?, base, place)?;
    Ok(true)
}

fn name_of(table: Oid) -> Result<RelName> {
    load::rel_name(table)?.ok_or_else(|| Error::UnknownRelation { oid: table.to_u32() })
}
