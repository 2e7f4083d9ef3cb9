//! Tables that cannot be migrated because of what they are.

use crate::catalog::TableDef;
use crate::error::{Error, Result};
use crate::pair::store;
use pgrx::pg_sys::Oid;

pub fn code_of(error: &Error) -> &'static str {
    match error {
        Error::TemporaryTable { .. } => "temporary",
        Error::UnloggedTable { .. } => "unlogged",
        Error::SystemTable { .. } => "system_table",
        Error::AlreadyPaired { .. } => "already_paired",
        _ => "not_an_ordinary_table",
    }
}

/// Why the table is none to begin with.
pub fn wrong_kind(legacy: &TableDef) -> Result<Option<Error>> {
    let relation = legacy.name.to_string();
    if let Some(pair) = store::find(Oid::from(legacy.oid))? {
        return Ok(Some(Error::AlreadyPaired {
            relation,
            phase: pair.phase.to_string(),
        }));
    }
    if legacy.is_system {
        return Ok(Some(Error::SystemTable { relation }));
    }
    if legacy.persistence == "t" {
        return Ok(Some(Error::TemporaryTable { relation }));
    }
    if let Some(reason) = not_a_table(legacy) {
        return Ok(Some(not_ordinary(relation, reason)));
    }
    if legacy.persistence == "u" {
        return Ok(Some(Error::UnloggedTable { relation }));
    }
    Ok(unusual(legacy).map(|reason| not_ordinary(relation, reason)))
}

fn not_ordinary(relation: String, reason: &str) -> Error {
    Error::NotAnOrdinaryTable {
        relation,
        reason: reason.into(),
    }
}

fn not_a_table(legacy: &TableDef) -> Option<&'static str> {
    Some(match legacy.kind.as_str() {
        "r" => return None,
        "p" => "it is partitioned already",
        "v" => "it is a view",
        "m" => "it is a materialized view",
        "f" => "it is a foreign table",
        "S" => "it is a sequence",
        "i" | "I" => "it is an index",
        _ => "it is something else",
    })
}

fn unusual(legacy: &TableDef) -> Option<&'static str> {
    if legacy.is_partition {
        Some("it is a partition")
    } else if legacy.is_inherited {
        Some("it has children or a parent by inheritance")
    } else if legacy.is_typed {
        Some("it is a table of a composite type")
    } else if legacy.access_method.as_deref() != Some("heap") {
        Some("its access method is not heap")
    } else {
        None
    }
}
