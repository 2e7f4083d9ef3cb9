//! What stands around a table: publications, replication slots, functions, statistics of statements. One query reads it
//! ([`Surroundings`]); what is to be said of it is pure.

use super::Finding;
use crate::catalog::TableDef;
use crate::catalog::dependents::Dependents;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
pub struct Surroundings {
    pub publications: Vec<Ident>,
    pub slots: Vec<Slot>,
    pub rules: Vec<Ident>,
    pub grouped_views: Vec<String>,
    pub functions: Vec<Function>,
    /// Functions with a `BEGIN ATOMIC` body that names the table.
    pub known_bodies: Vec<Function>,
    /// Of the table with its indexes and its TOAST table.
    pub bytes: i64,
    /// Of the table, relative to the server's data directory.
    pub file: Option<String>,
    pub may_see_disk: bool,
    pub locks_per_transaction: i64,
    /// That there can be at once, prepared ones included.
    pub transactions: i64,
    /// Whether the caller may make temporary tables now, of rows of the table.
    pub may_try: bool,
    /// The view `pg_stat_statements` where the caller may read it, quoted.
    pub statements: Option<String>,
}

/// A logical replication slot of this database.
#[derive(Debug, Deserialize)]
pub struct Slot {
    pub name: Ident,
    pub active: bool,
    /// Bytes of WAL that are not confirmed; `None` on a standby.
    pub behind: Option<i64>,
}

/// A function, and the text of its body.
#[derive(Debug, Deserialize)]
pub struct Function {
    pub name: String,
    pub source: String,
}

pub fn load(legacy: &TableDef) -> Result<Surroundings> {
    spi::row(
        include_str!("../../sql/catalog/surroundings.sql"),
        &[Oid::from(legacy.oid).into()],
    )?
    .ok_or(Error::UnknownRelation { oid: legacy.oid })
}

/// Publications, replica identity, and slots that the copy goes through.
pub fn replication(legacy: &TableDef, around: &Surroundings, found: &mut Vec<Finding>) {
    for publication in &around.publications {
        found.push(Finding::info(
            "publication",
            format!("the table is published by {publication}"),
            "A publication that names it goes with the name at the switchover; one of all tables publishes the twin as well.",
        ));
    }
    match legacy.replica_identity.as_str() {
        "n" if !around.publications.is_empty() => found.push(Finding::warning(
            "replica_identity",
            "the table is published and has no replica identity",
            "UPDATE and DELETE fail on both sides while a publication has them: run ALTER TABLE … REPLICA IDENTITY DEFAULT.",
        )),
        "i" => found.push(Finding::info(
            "replica_identity",
            "the replica identity is an index, which has the partition key as well on the twin",
            "Subscribers that find rows by that key need the same index.",
        )),
        _ if !around.publications.is_empty() => found.push(Finding::info(
            "replica_identity",
            "the twin's replica identity has the partition key as well, where it is the primary key",
            "After the switchover subscribers find rows by the wider key: give them such a primary key too, or REPLICA IDENTITY FULL.",
        )),
        _ => {}
    }
    for slot in &around.slots {
        let state = if slot.active { "active" } else { "not in use" };
        let behind = slot
            .behind
            .map(|bytes| format!(", {} behind", size(bytes)))
            .unwrap_or_default();
        found.push(Finding::warning(
            "replication_slot",
            format!(
                "logical slot {} ({state}{behind}) decodes the whole copy, and WAL is kept until it has",
                slot.name
            ),
            "Drop a slot that nobody reads; else copy with pause, watch pg_replication_slots, and have room for the WAL.",
        ));
    }
}

/// Whatever refers to the table or has its name in it.
pub fn dependents(
    legacy: &TableDef,
    around: &Surroundings,
    refers: &Dependents,
    is_widened: bool,
    found: &mut Vec<Finding>,
) {
    for follower in &refers.followers {
        let code = match follower.kind.as_str() {
            "materialized view" => "materialized_view",
            "procedure" => "function",
            other => other,
        };
        if follower.owned {
            found.push(Finding::info(
                code_name(code),
                format!("{} {} reads or writes the table", follower.kind, follower.name),
                "It follows the name at the switchover and at the rollback.",
            ));
        } else {
            found.push(Finding::warning(
                code_name(code),
                format!(
                    "{} {} refers to the table and has another owner",
                    follower.kind, follower.name
                ),
                "It has to follow the name: whoever calls switchover needs the rights of its owner.",
            ));
        }
    }
    for view in around.grouped_views.iter().filter(|_| is_widened) {
        found.push(Finding::warning(
            "grouped_view",
            format!("view {view} groups by the primary key, which is wider on the twin"),
            "Let it group by every column that it shows: otherwise the switchover is refused.",
        ));
    }
    for what in &refers.lost {
        let code = if what.contains(" uses the row type of ") {
            "row_type"
        } else {
            "dependent"
        };
        found.push(Finding::warning(
            code,
            what.clone(),
            "It cannot follow the name, so the switchover is refused until it is dropped or changed.",
        ));
    }
    for rule in around.rules.iter() {
        found.push(Finding::warning(
            "rule",
            format!("rule {rule} is not carried to the twin"),
            "Replace it by a trigger: the switchover is refused while it is there.",
        ));
    }
    for function in &around.functions {
        found.push(Finding::info(
            "function",
            format!(
                "the text of function {} has the name of the table in it",
                function.name
            ),
            "It goes by name: after the switchover it means the partitioned table.",
        ));
    }
    access(legacy, found);
}

fn code_name(kind: &str) -> &'static str {
    match kind {
        "view" => "view",
        "materialized_view" => "materialized_view",
        "rule" => "rule_elsewhere",
        "policy" => "policy_elsewhere",
        _ => "function",
    }
}

fn access(legacy: &TableDef, found: &mut Vec<Finding>) {
    for trigger in legacy.user_triggers().filter(|t| t.tail.is_some()) {
        found.push(Finding::info(
            "trigger",
            format!("trigger {} is made on the twin as well", trigger.name),
            "It fires for the table that a statement names, not for the rows that sync carries to the other one.",
        ));
    }
    if legacy.row_security || !legacy.policies.is_empty() {
        found.push(Finding::info(
            "row_security",
            format!(
                "row security goes to the twin, with policies: {}",
                legacy.policies.len()
            ),
            "Partitions have none of their own: grant nothing on them.",
        ));
    }
}

/// Statements may hold a lock on every partition and every index of one.
pub fn locks(legacy: &TableDef, around: &Surroundings, partitions: usize, found: &mut Vec<Finding>) {
    /// So many transactions at once that touch every partition are to be expected.
    const AT_ONCE: i64 = 8;
    let indexes = legacy.indexes.iter().filter(|i| i.valid && !i.exclusion).count();
    let each = (partitions as i64 + 1) * (1 + indexes as i64);
    let there_are = around.locks_per_transaction * around.transactions;
    if each * AT_ONCE <= there_are {
        return;
    }
    let wanted = each * AT_ONCE / around.transactions.max(1) + 1;
    found.push(Finding::warning(
        "max_locks_per_transaction",
        format!(
            "a statement that touches every partition takes {each} locks, and the server has room for {there_are}"
        ),
        format!("Set max_locks_per_transaction to {wanted} or more, or choose longer intervals."),
    ));
}

/// What is needed and, to those who may see it, what is free.
pub fn disk(around: &Surroundings, found: &mut Vec<Finding>) {
    let needed = format!(
        "the twin will take about as much disk as the table: {}",
        size(around.bytes)
    );
    let hint = "Have twice that free: the change log and WAL come on top.";
    let file = around.file.as_ref().filter(|_| around.may_see_disk);
    let Some(file) = file else {
        found.push(Finding::info(
            "disk",
            format!("{needed}; what is free is for members of pg_monitor to see"),
            hint,
        ));
        return;
    };
    // The server's working directory is its data directory.
    match rustix::fs::statvfs(file.as_str()) {
        Err(error) => found.push(Finding::info(
            "disk",
            format!("{needed}; what is free could not be read: {error}"),
            hint,
        )),
        Ok(system) => {
            let free = i64::try_from(system.f_bavail.saturating_mul(system.f_frsize)).unwrap_or(i64::MAX);
            let message = format!("{needed}; free: {}", size(free));
            found.push(if free / 2 < around.bytes {
                Finding::warning("disk", message, hint)
            } else {
                Finding::info("disk", message, hint)
            });
        }
    }
}

/// Bytes as people read them.
fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = bytes;
    for unit in UNITS {
        if value < 10 * 1024 || unit == "TB" {
            return format!("{value} {unit}");
        }
        value /= 1024;
    }
    format!("{bytes} bytes")
}

/// The table as statements name it.
pub fn bare(name: &RelName) -> (&str, &str) {
    (name.schema.as_str(), name.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down_to_four_digits() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(10 * 1024), "10 kB");
        assert_eq!(size(5 << 30), "5120 MB");
        assert_eq!(size(1 << 50), "1024 TB");
    }

    #[test]
    fn locks_are_counted_over_partitions_and_indexes() {
        let around = Surroundings {
            locks_per_transaction: 64,
            transactions: 100,
            ..Surroundings::default()
        };
        let said = |partitions| {
            let mut found = vec![];
            locks(&TableDef::default(), &around, partitions, &mut found);
            found.pop().map(|finding: Finding| finding.message)
        };
        assert_eq!(said(799), None);
        assert_eq!(
            said(800),
            Some(
                "a statement that touches every partition takes 801 locks, and the server has room for 6400"
                    .into()
            )
        );
    }
}
