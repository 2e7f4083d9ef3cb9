//! The foreign keys of a twin. A partitioned table takes only validated ones, and validating one on the root would
//! hold its locks for a whole scan. So each partition gets its own, not valid and then validated, and the root takes
//! them in at the end without a scan.

use super::Plan;
use crate::catalog::{ForeignKey, Reference, TableDef};
use crate::ident::{Ident, Literal, RelName, list};

/// What becomes of a foreign key that points at the legacy when the names swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// It goes with the name.
    Moves,
    /// It stays with the legacy, which is kept in step; and why.
    Stays(&'static str),
}

/// A partitioned table can only be pointed at by columns that have its partition key among them.
///
/// A key that deletes or changes rows when the row that it points at goes stays with the legacy, too: there a row that goes
/// to another partition is updated, while sync, which carries writes to the legacy's name, deletes it from the one
/// partition and inserts it into the other.
pub fn incoming(key: &Reference, table: &TableDef, partition_key: &Ident) -> Incoming {
    if key.oid == table.oid {
        Incoming::Stays("it points at its own table")
    } else if !key.columns.contains(partition_key) {
        Incoming::Stays("the twin is unique by these columns only together with the partition key")
    } else if !["a", "r"].contains(&key.on_delete.as_str()) {
        Incoming::Stays("it changes or deletes rows when a row goes that it points at")
    } else if key.kind != "r" {
        Incoming::Stays("its table is partitioned, so it could not be proven without keeping writers out")
    } else {
        Incoming::Moves
    }
}

/// Those of the legacy that the twin gets: the valid ones that do not point at the legacy itself.
pub fn carried(legacy: &TableDef) -> impl Iterator<Item = &ForeignKey> {
    legacy
        .foreign_keys
        .iter()
        .filter(|key| key.valid && key.references != legacy.oid)
}

/// The next thing to do for a partition.
#[derive(Debug)]
pub struct Next {
    pub plan: Plan,
    /// Tables that writers must be kept out of for a moment, with the partition: adding a key needs that, validating it
    /// does not.
    pub lock: Vec<u32>,
}

/// What is to be done next on a partition, for all its keys at once; `None` when it has every key, valid.
pub fn next_on_leaf(legacy: &TableDef, leaf: &TableDef) -> Option<Next> {
    let of_leaf = |key: &ForeignKey| leaf.foreign_keys.iter().find(|have| have.name == key.name);
    let absent: Vec<_> = carried(legacy).filter(|key| of_leaf(key).is_none()).collect();
    let mut plan = Plan::default();
    if !absent.is_empty() {
        let added = absent
            .iter()
            .map(|key| format!("ADD CONSTRAINT {} {} NOT VALID", key.name, key.definition));
        plan.push(
            format!("add foreign keys to {}", leaf.name.name),
            format!("ALTER TABLE {} {}", leaf.name, list(added)),
        );
        return Some(Next {
            plan,
            lock: absent.iter().map(|key| key.references).collect(),
        });
    }
    let unproven: Vec<_> = carried(legacy)
        .filter(|key| of_leaf(key).is_some_and(|have| !have.valid))
        .collect();
    if unproven.is_empty() {
        return None;
    }
    plan.push(
        format!("validate foreign keys of {}", leaf.name.name),
        format!(
            "ALTER TABLE {} {}",
            leaf.name,
            list(
                unproven
                    .iter()
                    .map(|key| format!("VALIDATE CONSTRAINT {}", key.name))
            )
        ),
    );
    Some(Next { plan, lock: vec![] })
}

/// The root takes in the keys of its partitions.
pub fn on_root_missing(legacy: &TableDef, twin: &TableDef) -> Plan {
    let mut plan = Plan::default();
    for key in carried(legacy).filter(|key| twin.foreign_keys.iter().all(|have| have.name != key.name)) {
        add(&mut plan, &twin.name, key);
    }
    plan
}

/// All keys on an empty twin.
pub fn on_root(legacy: &TableDef, twin: &RelName) -> Plan {
    let mut plan = Plan::default();
    for key in carried(legacy) {
        add(&mut plan, twin, key);
    }
    plan
}

fn add(plan: &mut Plan, twin: &RelName, key: &ForeignKey) {
    plan.push(
        format!("add foreign key {}", key.name),
        format!(
            "ALTER TABLE {twin} ADD CONSTRAINT {} {}",
            key.name, key.definition
        ),
    );
    if let Some(comment) = &key.comment {
        plan.push(
            format!("copy the comment of foreign key {}", key.name),
            format!(
                "COMMENT ON CONSTRAINT {} ON {twin} IS {}",
                key.name,
                Literal(comment)
            ),
        );
    }
}
