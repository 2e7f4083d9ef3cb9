//! The foreign keys of a twin. A partitioned table takes only validated ones, and validating one on the root would
//! hold its locks for a whole scan. So each partition gets its own, not valid and then validated, and the root takes
//! them in at the end without a scan.

use super::Plan;
use crate::catalog::{ForeignKey, TableDef};
use crate::ident::RelName;

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
    pub references: u32,
    /// Adding locks writers out of both tables for a moment; validating does not.
    pub needs_lock: bool,
}

/// What is to be done next on a partition; `None` when it has every key, valid.
pub fn next_on_leaf(legacy: &TableDef, leaf: &TableDef) -> Option<Next> {
    for key in carried(legacy) {
        let mut plan = Plan::default();
        match leaf.foreign_keys.iter().find(|have| have.name == key.name) {
            None => {
                plan.push(
                    format!("add foreign key {} to {}", key.name, leaf.name.name),
                    format!(
                        "ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID",
                        leaf.name, key.name, key.definition
                    ),
                );
                return Some(Next {
                    plan,
                    references: key.references,
                    needs_lock: true,
                });
            }
            Some(have) if !have.valid => {
                plan.push(
                    format!("validate foreign key {} of {}", key.name, leaf.name.name),
                    format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", leaf.name, key.name),
                );
                return Some(Next {
                    plan,
                    references: key.references,
                    needs_lock: false,
                });
            }
            Some(_) => {}
        }
    }
    None
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
}
