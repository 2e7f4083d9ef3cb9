//! CREATE INDEX CONCURRENTLY on the legacy of a live pair. A partitioned table has no such thing: the twin's index would be
//! built with every writer locked out, on either side. So each partition must have it before; then the twin takes
//! them in at once.
#![allow(unsafe_code)]

use super::follow::{self, Following, refused};
use super::pairs::{self, Place};
use super::trial;
use crate::catalog::{Index, TableDef, load};
use crate::error::{Error, Result};
use crate::pair::Phase;
use crate::plan::carry_ddl::Made;
use crate::plan::indexes;
use crate::session::PinnedSettings;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

/// Refuses to begin while a partition lacks the index.
///
/// # Safety
/// `statement` is the parse tree of the statement that begins.
pub unsafe fn require_partitions_first(begun: &Following, statement: *mut pg_sys::IndexStmt) -> Result<()> {
    if begun.place != Place::Legacy || !blocks_writers(begun)? {
        return Ok(());
    }
    // SAFETY: as the caller promises.
    if unsafe { is_there(begun, statement) } {
        return Ok(());
    }
    // SAFETY: as the caller promises.
    let mut index = unsafe { probe(begun, statement) }?;
    // SAFETY: as the caller promises.
    index.unique = unsafe { (*statement).unique };
    require(begun, &begun.before, &index)
}

/// Whether IF NOT EXISTS will find the name taken.
///
/// # Safety
/// As [`probe`].
unsafe fn is_there(begun: &Following, statement: *mut pg_sys::IndexStmt) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        (*statement).if_not_exists
            && !(*statement).idxname.is_null()
            && pg_sys::get_relname_relid(
                (*statement).idxname,
                pg_sys::get_rel_namespace(begun.before.oid.into()),
            ) != Oid::INVALID
    }
}

/// The same again when the index is there: it took long, and the pair may have gone live meanwhile. An error leaves the
/// index invalid, as one that comes while it is built does.
pub fn require_partitions_still(begun: &Following, after: &TableDef) -> Result<()> {
    if begun.place != Place::Legacy || !blocks_writers(begun)? {
        return Ok(());
    }
    let new = after
        .indexes
        .iter()
        .filter(|i| i.valid && begun.before.indexes.iter().all(|old| old.oid != i.oid));
    for index in new {
        require(begun, &begun.before, index)?;
    }
    Ok(())
}

fn blocks_writers(begun: &Following) -> Result<bool> {
    let Some(pair) = crate::pair::store::latest(begun.pair.id)? else {
        return Ok(false);
    };
    Ok(pair.phase >= Phase::Live && follow::stage(&pair)?.indexes == Made::There)
}

fn require(begun: &Following, before: &TableDef, index: &Index) -> Result<()> {
    let _path = PinnedSettings::search_path();
    let pair = &begun.pair;
    let wanted = indexes::for_twin(index, &pair.partition_key);
    let count = |table: &TableDef, wanted: &Index| {
        table
            .indexes
            .iter()
            .filter(|i| indexes::is_equal(i, wanted))
            .count()
    };
    let twin = load::latest_table_def(pair.twin)?.ok_or_else(|| Error::UnknownRelation {
        oid: pair.twin.to_u32(),
    })?;
    let on_root = count(&twin, &wanted);
    if on_root > count(before, index) {
        return Ok(());
    }
    let mut bare = vec![];
    for partition in pairs::partitions(pair.twin)? {
        let oid = Oid::from(partition.oid);
        if pairs::kind(oid) == pg_sys::RELKIND_RELATION
            && let Some(table) = load::latest_table_def(oid)?
            && count(&table, &wanted) <= on_root
        {
            bare.push(partition.name);
        }
    }
    let Some(first) = bare.first() else { return Ok(()) };
    Err(refused(
        format!("build an index of {} concurrently", before.name),
        format!(
            "the twin would build its own with writers locked out: {} of its partitions have no such index yet, the \
             first is {first}",
            bare.len()
        ),
        format!(
            "CALL partition_router.create_index() makes it on both sides; or first run CREATE {}INDEX CONCURRENTLY on each partition of {}, with ({}), then this statement again.",
            if index.unique { "UNIQUE " } else { "" },
            twin.name,
            wanted.keys.join(", ")
        ),
    ))
}

/// The index that the statement would make, as the server understands it: made on the twin's root alone, where it has
/// nothing to build, and undone.
///
/// # Safety
/// `statement` is the parse tree of the statement.
unsafe fn probe(begun: &Following, statement: *mut pg_sys::IndexStmt) -> Result<Index> {
    let twin = begun.pair.twin;
    let before = {
        let _path = PinnedSettings::search_path();
        load::latest_table_def(twin)?.ok_or_else(|| Error::UnknownRelation { oid: twin.to_u32() })?
    };
    trial::undone(
        twin,
        || {
            // SAFETY: as the caller promises.
            unsafe {
                trial::make(statement, &before.name, |copy| {
                    copy.unique = false; // uniqueness would want the partition key
                    #[cfg(not(feature = "pg14"))]
                    {
                        copy.nulls_not_distinct = false;
                    }
                })
            }
        },
        || {
            let _path = PinnedSettings::search_path();
            let is_new = |index: &Index| before.indexes.iter().all(|old| old.oid != index.oid);
            Ok(load::latest_table_def(twin)?.and_then(|after| after.indexes.into_iter().find(is_new)))
        },
    )
}
