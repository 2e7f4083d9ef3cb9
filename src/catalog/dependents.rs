//! What refers to a table by its oid, and so does not follow when another table takes its name.

use super::Grant;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Dependents {
    pub followers: Vec<Follower>,
    /// In words, what could not follow.
    pub lost: Vec<String>,
    pub statistics: Vec<Statistics>,
    pub sequences: Vec<Sequence>,
    pub publications: Vec<Publication>,
    pub actions: Vec<Action>,
    /// The names in the table's schema that are in use.
    pub taken: Vec<Ident>,
    /// Whether the current user may make objects in the table's schema.
    pub may_create: bool,
}

/// A view, rule, routine or policy, with the statement that defines it anew from its own text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Follower {
    pub kind: String,
    /// For people.
    pub name: String,
    /// The relation that the statement locks against everybody; 0 for a routine.
    pub relation: u32,
    /// By the current user, or a role that he is a member of.
    pub owned: bool,
    pub owner: u32,
    pub statement: String,
}

/// A statistics object.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Statistics {
    pub name: RelName,
    /// Its kinds and columns, deparsed by the server.
    pub definition: String,
    /// `None` where it is the columns'.
    pub target: Option<i32>,
}

/// A sequence that belongs to a column.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sequence {
    pub column: Ident,
    pub oid: u32,
    pub name: RelName,
    /// `pg_attribute.attidentity`; `None` of a serial column.
    pub identity: Option<String>,
    /// As CREATE SEQUENCE takes them.
    pub options: String,
    pub comment: Option<String>,
    pub grants: Vec<Grant>,
}

/// A publication that names the table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Publication {
    pub name: Ident,
    pub owned: bool,
    /// `publish_via_partition_root`
    pub via_root: bool,
    /// Whether it names a partitioned table that is not of the pair.
    pub has_other: bool,
    /// Whether it names the other side, too.
    pub has_both: bool,
    pub columns: Option<Vec<Ident>>,
    pub filter: Option<String>,
}

/// A trigger by which a foreign key acts when a row that it points at changes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Action {
    /// The table that the key points at.
    pub table: RelName,
    pub oid: u32,
    pub trigger: Ident,
    pub enabled: bool,
}

/// The statistics objects of a table.
pub fn statistics(table: Oid) -> Result<Vec<Statistics>> {
    Ok(load(table, Oid::INVALID)?.statistics)
}

/// What refers to `from` and has to follow its name to `to` ([`Oid::INVALID`]: to a twin that is not there yet); under the latest
/// snapshot.
pub fn load(from: Oid, to: Oid) -> Result<Dependents> {
    spi::latest_rows(
        include_str!("../../sql/catalog/dependents.sql"),
        &[from.into(), to.into()],
    )?
    .pop()
    .ok_or_else(|| Error::UnknownRelation { oid: from.to_u32() })
}
