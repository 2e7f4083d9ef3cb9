//! The change log of a pair: a table without an index, into which capture puts the keys of changed rows.
//!
//! A log that has grown long is dead rows for the most part when it is drained, and the flip would read them with writers
//! waiting. So it is *set aside*: with writers out for the moment that it takes to rename a table, a new, empty one takes
//! its place. Nobody writes to the old one any more, so it is drained to its end, once, with no lock, and dropped.
#![allow(unsafe_code)]

use crate::catalog::load;
use crate::error::Result;
use crate::ident::{Ident, RelName};
use crate::locks::{self, LockMode};
use crate::pair::Pair;
use crate::{session, spi};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

fn name(pair: &Pair) -> RelName {
    RelName::new("partition_router", format!("change_log_{}", pair.id))
}

fn name_aside(pair: &Pair) -> RelName {
    let name = name(pair);
    name.sibling(Ident::new(format!("{}_aside", name.name.as_str())))
}

/// The columns of the twin's key, nothing else. It belongs to the legacy's owner, as whom sync acts. Autovacuum would be in
/// the way of renaming and dropping it.
pub fn create(pair: &Pair) -> Result<()> {
    let legacy = load::table_def(pair.legacy)?;
    let mut key = legacy.key_columns();
    if !key.contains(&pair.partition_key) {
        key.push(pair.partition_key.clone());
    }
    let columns: Vec<String> = key
        .iter()
        .filter_map(|name| legacy.column(name.as_str()))
        .map(|column| format!("{} {}", column.name, column.type_name))
        .collect();
    let log = name(pair);
    session::with_own_tables(|| {
        spi::execute(
            &format!(
                "CREATE TABLE {log} ({}) WITH (autovacuum_enabled = off)",
                columns.join(", ")
            ),
            &[],
        )?;
        spi::execute(&format!("ALTER TABLE {log} OWNER TO {}", legacy.owner), &[])
    })?;
    Ok(())
}

/// Puts a new log in the place of the one that there is.
pub fn set_aside(pair: &Pair) -> Result<()> {
    let Some(log) = load::oid_of(&name(pair))? else {
        return Ok(());
    };
    // Writers are out: none of them holds the log, and none is left that will write to it.
    locks::acquire(&[
        (pair.legacy, LockMode::ShareRowExclusive),
        (log, LockMode::AccessExclusive),
    ])?;
    session::with_own_tables(|| {
        spi::execute(
            &format!("ALTER TABLE {} RENAME TO {}", name(pair), name_aside(pair).name),
            &[],
        )
    })?;
    create(pair)?;
    // SAFETY: tells all sessions, when this commits, to look again what there is to know of the pair.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(pair.legacy) };
    Ok(())
}

/// The log that was set aside and is not drained yet.
pub fn aside(pair: &Pair) -> Result<Option<Oid>> {
    load::oid_of(&name_aside(pair))
}

/// Drops the log that was set aside: drained, it holds nothing.
pub fn drop_aside(pair: &Pair) -> Result<()> {
    drop_table(&name_aside(pair))
}

/// Drops what there is of logs.
pub fn drop_all(pair: &Pair) -> Result<()> {
    drop_table(&name(pair))?;
    drop_table(&name_aside(pair))
}

/// Asks for the lock within the budget: somebody may be reading it, a dump of the database say.
fn drop_table(name: &RelName) -> Result<()> {
    let Some(log) = load::oid_of(name)? else {
        return Ok(());
    };
    locks::acquire(&[(log, LockMode::AccessExclusive)])?;
    session::with_own_tables(|| spi::execute(&format!("DROP TABLE {name}"), &[]))?;
    Ok(())
}
