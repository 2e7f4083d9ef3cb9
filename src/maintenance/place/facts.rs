//! What is known of a partition that is to be placed, and what is in its way.

use crate::bounds::range_bounds;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::maintenance::table;
use crate::plan::maintain::Range;
use crate::plan::place::{Bounds, hash_bounds};
use crate::plan::{Plan, indexes};
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// As `sql/catalog/placing.sql` gives it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Facts {
    pub(super) name: RelName,
    pub(super) kind: String,
    pub(super) owner: u32,
    pub(super) parent: u32,
    pub(super) parent_name: RelName,
    pub(super) strategy: String,
    pub(super) bounds: String,
    pub(super) condition: Option<String>,
    /// None for an expression.
    pub(super) keys: Vec<Option<Ident>>,
    pub(super) columns: Vec<Ident>,
    pub(super) definitions: Vec<String>,
    generated: Option<Ident>,
    pub(super) unique_index: Option<Ident>,
    foreign_key: Option<Ident>,
    pub(super) in_pair: bool,
    pub(super) file_node: u32,
    pub(super) placed_on: Option<Ident>,
    server: Option<Server>,
}

#[derive(Debug, Clone, Deserialize)]
struct Server {
    is_postgres: bool,
    may_use: bool,
    is_mapped: bool,
}

pub(super) fn refused(facts: &Facts, reason: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::NotPlaced {
        partition: facts.name.to_string(),
        reason: reason.into(),
        hint: hint.into(),
    }
}

pub(super) fn facts(partition: Oid, server: Option<&Ident>) -> Result<Facts> {
    let arguments = [partition.into(), server.map(Ident::as_str).into()];
    let found = with_own_tables(|| spi::rows(include_str!("../../../sql/catalog/placing.sql"), &arguments))?;
    match found.into_iter().next() {
        Some(facts) => Ok(facts),
        None => Err(Error::NotAnOrdinaryTable {
            relation: table::display(partition)?,
            reason: "it is not a partition".into(),
        }),
    }
}

pub(super) fn bounds(facts: &Facts) -> Result<Bounds> {
    let keys: Option<Vec<Ident>> = facts.keys.iter().cloned().collect();
    match (facts.strategy.as_str(), keys) {
        ("h", Some(keys)) => {
            if let Some((modulus, remainder)) = hash_bounds(&facts.bounds) {
                return Ok(Bounds::Hash {
                    modulus,
                    remainder,
                    keys,
                });
            }
        }
        ("r", Some(mut keys)) if keys.len() == 1 => {
            if let (Some(key), Some((lower, upper))) = (keys.pop(), range_bounds(&facts.bounds)) {
                return Ok(Bounds::Range {
                    key,
                    range: Range { lower, upper },
                });
            }
        }
        _ => {}
    }
    Err(refused(
        facts,
        "only a partition by range of one column, or by hash of columns, has bounds that can be kept over there",
        "Leave a default partition, one by list and one by an expression here.",
    ))
}

/// The statements after which no table above has a unique index, and each partition here has its own.
pub(super) fn one_key_each(facts: &Facts) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut dropped = vec![];
    for table in load::with_ancestors(Oid::from(facts.parent))? {
        let mut table_def = load::table_def(table)?;
        // What it has from above goes with that.
        table_def
            .indexes
            .retain(|key| key.unique && !dropped.iter().any(|gone| indexes::is_equal(gone, key)));
        let mut leaves = vec![];
        for below in load::partitions(table)? {
            let leaf = load::table_def(Oid::from(below.oid))?;
            if leaf.kind == "r" {
                leaves.push(leaf);
            }
        }
        if !table_def.indexes.is_empty() {
            plan.extend(indexes::one_each(&table_def, &leaves));
            dropped.append(&mut table_def.indexes);
        }
    }
    Ok(plan)
}

/// What is in the way, from the catalog alone.
pub(super) fn checked(facts: Facts, server: Option<&Ident>) -> Result<Facts> {
    let refuse = |reason: String, hint: &str| Err(refused(&facts, reason, hint));
    let Some(server) = server else {
        return match facts.kind.as_str() {
            "f" => Ok(facts),
            _ => refuse("it is here".into(), "Name the server that it is to be placed on."),
        };
    };
    match facts.kind.as_str() {
        "r" => {}
        "f" => {
            return refuse(
                "it is on another server".into(),
                "Bring it back first, with NULL as server.",
            );
        }
        _ => {
            return refuse("it has partitions of its own".into(), "Place those, one by one.");
        }
    }
    if facts.in_pair {
        return refuse(
            "its table is in a pair, or has a guard, and what is written there would not be carried".into(),
            "End the migration with partition_router.cleanup() first.",
        );
    }
    match &facts.server {
        None => {
            return refuse(
                format!("there is no server {server}"),
                "Make it with CREATE SERVER … FOREIGN DATA WRAPPER postgres_fdw.",
            );
        }
        Some(found) if !found.is_postgres => {
            return refuse(
                format!("server {server} is none of postgres_fdw"),
                "Name a server of postgres_fdw: what is placed must be written and read back.",
            );
        }
        Some(found) if !found.may_use => {
            return refuse(
                format!("the table's owner may not use server {server}"),
                "Grant the owner USAGE ON FOREIGN SERVER.",
            );
        }
        Some(found) if !found.is_mapped => {
            return refuse(
                format!("the table's owner has no user mapping for server {server}"),
                "Make one with CREATE USER MAPPING, for the owner and for whoever reads the table.",
            );
        }
        Some(_) => {}
    }
    if let Some(index) = &facts.unique_index {
        return refuse(
            format!("the unique index {index} of its table cannot be on a foreign table"),
            "Give each partition a key of its own instead: dry_run => true prints the statements. ON CONFLICT (…) on the table ends with it.",
        );
    }
    if let Some(key) = &facts.foreign_key {
        return refuse(
            format!("the foreign key {key} cannot be checked on a foreign table"),
            "Drop the foreign key, or leave the partition here.",
        );
    }
    if let Some(column) = &facts.generated {
        return refuse(
            format!("column {column} is generated"),
            "Leave a partition with generated columns here.",
        );
    }
    Ok(facts)
}
